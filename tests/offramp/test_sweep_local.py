"""Calls in worker processes: any may be killed, and none outlives the driver."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from offramp.sweep.backend import TRIES, Call
from offramp.sweep.local import LocalBackend


@pytest.fixture
def backend() -> Iterator[LocalBackend]:
    made = LocalBackend(2)
    yield made
    made.close()


def who(number: int) -> tuple[int, int]:
    time.sleep(0.02)
    return number, os.getpid()


def note_and_die(number: int, deadly: int, notes: str) -> int:
    if number == deadly:
        with Path(notes).open("a") as file:
            file.write("x")
        os.kill(os.getpid(), signal.SIGKILL)
    return number


def die_at_first(number: int, notes: str) -> int:
    """Every call kills its worker once."""
    mark = Path(notes) / str(number)
    if not mark.exists():
        mark.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return number


def test_each_call_is_made_once_in_several_processes(backend: LocalBackend) -> None:
    drawn = []

    def calls() -> Iterator[Call]:
        for number in range(20):
            drawn.append(number)
            yield Call((number,))

    done = []
    for item in backend.run(who, calls()):
        done.append(item)
        assert len(drawn) - len(done) <= 4, "calls are drawn when they are needed"
    assert {item.number: item.value[0] for item in done} == {n: n for n in range(20)}
    assert len({item.value[1] for item in done}) == 2
    again = {item.value[1] for item in backend.run(who, [Call((n,)) for n in range(8)])}
    assert again <= {item.value[1] for item in done}, "the processes are kept"


def test_workers_that_are_killed_lose_nothing(backend: LocalBackend, tmp_path: Path) -> None:
    calls = [Call((number, str(tmp_path))) for number in range(4)]
    done = [*backend.run(die_at_first, calls)]
    assert sorted(item.value for item in done) == [0, 1, 2, 3]


def test_a_call_on_which_workers_always_die_is_given_up_and_no_other(
    backend: LocalBackend, tmp_path: Path
) -> None:
    notes = tmp_path / "deaths"
    calls = [Call((number, 3, str(notes))) for number in range(12)]
    done = {item.number: item for item in backend.run(note_and_die, calls)}
    assert [number for number, item in done.items() if item.error] == [3]
    assert "killed" in str(done[3].error)
    assert "--jobs 1" in str(done[3].error)
    assert len(notes.read_text()) == TRIES
    assert sorted(item.value for item in done.values() if not item.error) == [
        number for number in range(12) if number != 3
    ]


def test_a_run_that_is_left_early_ends_what_is_under_way(backend: LocalBackend) -> None:
    running = backend.run(who, (Call((number,)) for number in range(100)))
    next(running)
    running.close()  # type: ignore[attr-defined]
    assert len([*backend.run(who, [Call((1,))])]) == 1


DRIVER = """
import os, sys, time
from offramp.sweep.backend import Call
from offramp.sweep.local import LocalBackend

for done in LocalBackend(2).run(os.getpid, [Call(()) for _ in range(6)]):
    print(done.value, flush=True)
for done in LocalBackend(2).run(time.sleep, [Call((600,)) for _ in range(2)]):
    pass
"""


def test_no_worker_outlives_a_driver_that_is_killed() -> None:
    driver = subprocess.Popen([sys.executable, "-c", DRIVER], stdout=subprocess.PIPE, text=True)
    assert driver.stdout is not None
    workers = {int(driver.stdout.readline()) for _ in range(6)}
    assert all(_lives(pid) for pid in workers)
    driver.kill()
    driver.wait()
    driver.stdout.close()
    deadline = time.monotonic() + 30
    while any(_lives(pid) for pid in workers):
        assert time.monotonic() < deadline, "workers go on without their driver"
        time.sleep(0.05)


def _lives(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"
