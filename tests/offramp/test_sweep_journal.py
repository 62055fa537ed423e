"""The journal: what is committed lasts, and a point is known again by what it was made from."""

from __future__ import annotations

import math
import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.errors import ResultsError
from offramp.recommendation.kept import Kept
from offramp.sweep.journal import Counts, Journal
from offramp.sweep.point import PointResult
from offramp.sweep.rows import common_layout, kind_of, pack, read_layout, unpack


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    opened = Journal(tmp_path)
    yield opened
    opened.close()


def result(index: int, aud: float = 0.5, **more: object) -> PointResult:
    layout, rows = pack([{"policy": "full", "offered": 10, "aud": aud, **more}])
    return PointResult(index, layout, rows, None, 0.1)


def identity(number: int) -> bytes:
    return number.to_bytes(16, "big")


def fill(journal: Journal, *numbers: int) -> None:
    for number in numbers:
        journal.add(result(number, number / 10), identity(number))
    journal.commit()


def auds(journal: Journal) -> dict[int, float]:
    return {point: rows["aud"][0] for point, rows in journal.results()}


def test_results_come_back_in_the_order_of_the_points(journal: Journal) -> None:
    fill(journal, 3, 0, 2)
    journal.add(PointResult.failed(1, "no"), identity(1))
    assert [*auds(journal).items()] == [(0, 0.0), (2, 0.2), (3, 0.3)]
    assert [*journal.failures()] == [(1, "no")]
    assert journal.counts() == Counts(3, 1)
    assert [*journal.missing(6)] == [4, 5]


def test_points_whose_workers_died_are_missing_until_they_are_run_again(journal: Journal) -> None:
    fill(journal, 0)
    journal.add(PointResult.failed(1, "no"), identity(1))
    journal.add(PointResult.failed(2, "killed", died=True), identity(2))
    assert journal.counts() == Counts(1, 2, 1)
    assert [*journal.failures()] == [(1, "no"), (2, "killed")]
    assert [*journal.missing(4)] == [2, 3]
    fill(journal, 2)
    assert journal.counts() == Counts(2, 1)


def test_a_journal_of_before_deaths_were_noted_is_gone_on_with(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    fill(journal, 0)
    journal.close()
    with closing(sqlite3.connect(tmp_path / "points.sqlite", isolation_level=None)) as base:
        base.execute("ALTER TABLE points DROP COLUMN died")
        base.execute("PRAGMA user_version = 1")
    journal = Journal(tmp_path)
    fill(journal, 1)
    assert journal.counts() == Counts(2, 0)
    journal.close()


@pytest.mark.parametrize("kind", [Journal, Kept])
def test_a_file_of_another_format_is_told_of_and_left_as_it_is(
    kind: type[Journal] | type[Kept], tmp_path: Path
) -> None:
    kind(tmp_path).close()
    (file,) = tmp_path.glob("*.sqlite")
    with closing(sqlite3.connect(file, isolation_level=None)) as base:
        base.execute("PRAGMA user_version = 99")
    before = file.read_bytes()
    with pytest.raises(ResultsError, match="was not written by this version of Offramp"):
        kind(tmp_path)
    assert file.read_bytes() == before


def test_what_was_committed_is_there_when_it_is_opened_again(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    fill(journal, 0, 1)
    journal.add(result(2), identity(2))
    journal.close()
    assert [*Journal(tmp_path).missing(3)] == [2]


KILLED = """
import os, signal, sys
from pathlib import Path
from offramp.sweep.journal import Journal
from offramp.sweep.point import PointResult

journal = Journal(Path(sys.argv[1]))
for number in range(10_000):
    journal.add(PointResult.failed(number, "x" * 1000), bytes(16))
    if number % 100 == 99:
        journal.commit()
        print(number + 1, flush=True)
"""


def test_a_process_that_is_killed_loses_nothing_that_it_committed(tmp_path: Path) -> None:
    command = [sys.executable, "-c", KILLED, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        told = [int(process.stdout.readline()) for _ in range(3)][-1]
        os.kill(process.pid, signal.SIGKILL)
        told = max([told, *(int(line) for line in process.stdout)])
    journal = Journal(tmp_path)
    assert journal.counts().failed >= told
    assert journal.counts().failed % 100 == 0, "whole batches"
    journal.close()


def test_a_full_disk_is_told_and_loses_nothing_that_was_committed(journal: Journal) -> None:
    fill(journal, 0, 1)
    journal._base.execute("PRAGMA max_page_count = 20")

    def fill_the_disk() -> None:
        for number in range(2, 1000):
            journal.add(PointResult.failed(number, "x" * 4000), identity(number))
            journal.commit()

    with pytest.raises(ResultsError, match="full"):
        fill_the_disk()
    noted = journal.counts()
    journal._base.execute("PRAGMA max_page_count = 100000")
    assert noted.done == 2
    fill(journal, 2000)
    assert journal.counts() == Counts(3, noted.failed)


def test_failed_points_can_be_forgotten(journal: Journal) -> None:
    fill(journal, 0)
    journal.add(PointResult.failed(1, "no"), identity(1))
    journal.forget_failed()
    assert [*journal.missing(2)] == [1]


@settings(deadline=None, max_examples=50)
@given(
    before=st.lists(st.integers(0, 30), unique=True, max_size=20),
    asked=st.lists(st.integers(0, 30), max_size=30),
)
def test_points_are_kept_under_their_new_numbers_and_others_dropped(
    tmp_path_factory: pytest.TempPathFactory, before: list[int], asked: list[int]
) -> None:
    journal = Journal(tmp_path_factory.mktemp("journal"))
    fill(journal, *before)
    wanted = [(point, identity(number)) for point, number in enumerate(asked)]
    if not journal.fits(wanted):
        journal.keep(wanted)
    kept = {point: number / 10 for point, number in enumerate(asked) if number in before}
    fits = all(point < len(asked) and asked[point] == point for point in before)
    if not fits:
        assert auds(journal) == kept
    assert journal.fits(wanted)
    journal.close()


def test_points_that_are_lost_are_told_where_others_are_asked_for_twice(journal: Journal) -> None:
    fill(journal, 1, 2)
    twice = [(point, identity(number)) for point, number in enumerate((2, 1, 1))]
    assert journal.keep(twice, may_drop=False) == 0
    assert journal.counts().done == 3
    once = [(point, identity(2)) for point in range(3)]
    assert journal.keep(once, may_drop=False) == 2, "both rows of point 1 would be lost"
    assert auds(journal) == {0: 0.2, 1: 0.1, 2: 0.1}, "so nothing is changed"


def test_the_layout_of_points_with_other_columns(journal: Journal) -> None:
    journal.add(result(1, energy_j=1.0), identity(1))
    journal.add(result(0), identity(0))
    assert [*journal.columns()] == ["policy", "offered", "aud", "energy_j"]


# --- rows ----------------------------------------------------------------------------------------

NUMBERS = st.floats() | st.integers(-(2**62), 2**62) | st.none() | st.text() | st.booleans()


@given(st.lists(st.fixed_dictionaries({"a": NUMBERS, "b": NUMBERS}), min_size=1, max_size=5))
def test_rows_come_back_bit_for_bit(rows: list[dict[str, object]]) -> None:
    layout, packed = pack(rows)
    columns = unpack(read_layout(layout), packed)
    assert {*columns} == {"a", "b"}
    for name, values in columns.items():
        assert repr(values) == repr([row[name] for row in rows])


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        ((1, 2), "integer"),
        ((1, 2.5, None), "number"),
        ((True, False), "boolean"),
        ((True, 1), "text"),
        ((1, "a"), "text"),
        (([1], {"a": 1}), "text"),
        ((2**70,), "text"),
        ((math.nan,), "number"),
        ((None,), "null"),
    ],
)
def test_what_a_column_holds(values: tuple[object, ...], kind: str) -> None:
    assert kind_of(values) == kind


def test_columns_that_only_some_points_have_follow_those_that_they_follow_there() -> None:
    few = [("policy", "text"), ("exit_1", "integer"), ("verdict", "text")]
    many = [("policy", "text"), ("exit_1", "number"), ("exit_2", "integer"), ("verdict", "text")]
    assert common_layout([few, many]) == {
        "policy": "text",
        "exit_1": "number",
        "exit_2": "integer",
        "verdict": "text",
    }
