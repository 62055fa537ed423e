"""What a user sees of a live run while it goes on."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from io import StringIO
from typing import Any

import pytest
from rich.console import Console as RichConsole

from devices.virtual.progress import Progress
from offramp.console import Console
from offramp.live import table
from offramp.live.table import Standing, live_table

PROGRESS = Progress(
    time_s=10.0,
    horizon_s=33.0,
    created=400,
    answered=380,
    on_time=300,
    correct_on_time=280,
    dropped=5,
    lost=3,
    waiting=12,
    aud=0.7,
    exits={1: 95, 2: 190, 4: 95},
    rate_hz=40.25,
    latency_p50_s=0.0052,
    latency_p99_s=0.0121,
    connected=9,
    devices=10,
    nodes_online=("edge",),
)
STANDING = Standing("standard, deadline_aware, seed 1", 3, 6, progress=PROGRESS, queued=2)


def test_a_line_says_all_that_the_table_says() -> None:
    assert table.line(STANDING) == (
        "live  standard, deadline_aware, seed 1 (3 of 6): 23 s left; 40.2/s, AUD 70.0 %, "
        "exits 25 / 50 / 0 / 25 %, p50 / p99 5.2 / 12.1 ms, queue 2, lost 3, devices 9 of 10"
    )


def test_what_nobody_knows_yet_is_a_dash() -> None:
    fresh = replace(
        PROGRESS, exits={}, aud=math.nan, latency_p50_s=math.nan, latency_p99_s=math.nan
    )
    line = table.line(replace(STANDING, progress=fresh, queued=None))
    assert "AUD -, exits -, p50 / p99 - / - ms, queue -" in line


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [100.0]
    monkeypatch.setattr(table.time, "monotonic", lambda: now[0])
    return now


def test_without_a_terminal_there_is_a_line_now_and_then(
    clock: list[float], capsys: pytest.CaptureFixture[str]
) -> None:
    with live_table(Console()) as shown:
        shown.show(replace(STANDING, progress=None, phase="starting"))
        for _ in range(100):
            clock[0] += 0.5
            shown.show(STANDING)
        shown.finish()
    lines = capsys.readouterr().out.splitlines()
    assert 5 <= len(lines) <= 7
    assert all(line.startswith("live  standard") for line in lines)


def test_quiet_says_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    with live_table(Console(quiet=True)) as shown:
        shown.show(STANDING)
        shown.finish()
    assert capsys.readouterr().out == ""


@contextmanager
def terminal(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Console, StringIO]]:
    screen = StringIO()

    def on_screen(**options: Any) -> RichConsole:
        return RichConsole(file=screen, force_terminal=True, width=150, **options)

    monkeypatch.setattr(table, "RichConsole", on_screen)
    console = Console()
    console.rich = on_screen()
    yield console, screen


def test_a_terminal_shows_a_table_at_most_twice_a_second(
    clock: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    with terminal(monkeypatch) as (console, screen), live_table(console) as shown:
        shown.show(STANDING)
        drawn = screen.tell()
        for _ in range(4):
            clock[0] += 0.1
            shown.show(STANDING)
        assert screen.tell() == drawn
        clock[0] += 0.2
        shown.show(STANDING)
        assert screen.tell() > drawn
        text = screen.getvalue()
    for cell in ("arm 3 of 6", "23 s", "40.2/s", "70.0 %", "25 / 50 / 0 / 25 %", "5.2 / 12.1"):
        assert cell in text


def test_arms_that_are_done_stay_in_the_table(
    clock: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    with terminal(monkeypatch) as (console, screen), live_table(console) as shown:
        shown.show(STANDING)
        shown.finish()
        clock[0] += 1
        shown.show(Standing("curriculum, deadline_aware, seed 1", 4, 6, "starting"))
        text = screen.getvalue().rpartition("arm 4 of 6")[2]
    assert "standard, deadline_aware" in text
    assert "done" in text
    assert "starting" in text
