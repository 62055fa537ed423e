"""Processors of a host: which are alike, which are of one core, and who may run where."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from models.processors import available_processors, confine, confined, cores, fastest

needs_affinity = pytest.mark.skipif(
    not hasattr(os, "sched_setaffinity"), reason="this system confines no processes"
)


@pytest.mark.parametrize(
    ("khz", "left"),
    [
        ({0: 1400000, 1: 1400000, 4: 2400000, 5: 2400000}, [4, 5]),
        ({0: 5000000, 1: 5200000}, [0, 1]),
        ({}, [0, 1]),
    ],
    ids=["big and little", "nearly alike", "not said"],
)
def test_processors_that_are_slower_by_design_are_left_out(
    khz: dict[int, int], left: list[int], tmp_path: Path
) -> None:
    for number, khz_of in khz.items():
        file = tmp_path / f"cpu{number}" / "cpufreq" / "cpuinfo_max_freq"
        file.parent.mkdir(parents=True)
        file.write_text(f"{khz_of}\n")
    assert fastest(sorted(khz) or [0, 1], tmp_path) == left


def test_threads_of_one_core_are_found(tmp_path: Path) -> None:
    for number, siblings in ((0, "0,4"), (1, "1,5"), (4, "0,4"), (5, "1,5")):
        file = tmp_path / f"cpu{number}" / "topology" / "thread_siblings_list"
        file.parent.mkdir(parents=True)
        file.write_text(f"{siblings}\n")
    assert cores([0, 1, 4, 5], tmp_path) == [(0, 4), (1, 5)]
    # What this process may not use is in none.
    assert cores([1, 4, 5], tmp_path) == [(1, 5), (4,)]


def test_where_the_system_does_not_say_each_is_a_core(tmp_path: Path) -> None:
    assert cores([2, 3], tmp_path) == [(2,), (3,)]


@needs_affinity
def test_all_threads_of_a_process_are_confined_and_those_to_come() -> None:
    *_, last = available_processors()
    code = """
import os, sys, threading
ready, go, seen = threading.Event(), threading.Event(), []
def look():
    ready.set()
    go.wait()
    seen.append(os.sched_getaffinity(0))
before = threading.Thread(target=look)
before.start()
ready.wait()
print("ready", flush=True)
sys.stdin.readline()
go.set()
before.join()
after = threading.Thread(target=look)
after.start()
after.join()
print([sorted(it) for it in (*seen, os.sched_getaffinity(0))])
"""
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        confine(process.pid, [last])
        assert process.communicate("go\n")[0] == f"{[[last]] * 3}\n"


@needs_affinity
def test_a_process_that_confines_itself_gets_all_back() -> None:
    before = available_processors()
    started = threading.Event()
    ended = threading.Event()

    def wait() -> None:
        started.set()
        ended.wait()

    with confined(before[:1]):
        assert available_processors() == before[:1]
        thread = threading.Thread(target=wait, daemon=True)
        thread.start()
        assert started.wait(30)
        assert sorted(os.sched_getaffinity(thread.native_id or 0)) == before[:1]
    assert available_processors() == before
    assert sorted(os.sched_getaffinity(thread.native_id or 0)) == before
    ended.set()
    thread.join()


@needs_affinity
def test_a_process_that_has_ended_cannot_be_confined() -> None:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    with pytest.raises(ProcessLookupError):
        confine(process.pid, available_processors()[:1])
