"""Processors that are kept awake by a process which takes what nobody else wants."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

import pytest

from models.errors import LiveError
from models.processors import available_processors
from offramp.live import awake
from offramp.live.awake import check_awake, kept_awake

on_linux = pytest.mark.skipif(sys.platform != "linux", reason="Linux alone has idle groups")


def groups(tmp_path: Path) -> Path:
    """A hierarchy in which the kernel has put the files of a group."""
    group = tmp_path / "offramp-awake"
    group.mkdir()
    (group / "cpu.idle").write_text("0")
    (group / "cgroup.procs").write_text("")
    return group


def state_of(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]


def kill(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)
    until_s = time.monotonic() + 30
    while state_of(pid) != "Z":
        assert time.monotonic() < until_s
        time.sleep(0.01)


@on_linux
def test_a_processor_computes_for_who_wants_nothing_else(tmp_path: Path) -> None:
    group = groups(tmp_path)
    *_, last = available_processors()
    with kept_awake([last], [tmp_path / "not there", tmp_path]):
        assert (group / "cpu.idle").read_text() == "1"
        pid = int((group / "cgroup.procs").read_text())
        until_s = time.monotonic() + 30
        while os.sched_getscheduler(pid) != os.SCHED_IDLE:
            assert time.monotonic() < until_s
            time.sleep(0.05)
        assert os.sched_getaffinity(pid) == {last}
        # Runnable, for ever: how much it gets is up to the others.
        states = {state_of(pid) for _ in range(50)}
        assert states == {"R"}
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


@on_linux
def test_it_ends_with_an_error_of_the_run_which_stays_what_it_was(tmp_path: Path) -> None:
    group = groups(tmp_path)
    with (
        pytest.raises(OSError, match="of the run"),
        kept_awake(available_processors()[:1], [tmp_path]),
    ):
        raise OSError("of the run")
    pid = int((group / "cgroup.procs").read_text())
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


@on_linux
def test_one_that_ended_meanwhile_is_told(tmp_path: Path) -> None:
    group = groups(tmp_path)
    with (
        pytest.raises(LiveError, match="not kept awake all the time: awake 0 was ended by SIGKILL"),
        kept_awake([0], [tmp_path]),
    ):
        kill(int((group / "cgroup.procs").read_text()))


@on_linux
def test_one_that_the_group_does_not_take_is_told_and_ends(tmp_path: Path) -> None:
    group = groups(tmp_path)
    (group / "cgroup.procs").unlink()
    (group / "cgroup.procs").mkdir()
    with (
        pytest.raises(LiveError, match=r"Is a directory.*; awake 0 is running"),
        kept_awake([0], [tmp_path]),
    ):
        raise AssertionError


def test_threads_of_one_core_are_not_kept_awake(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    groups(tmp_path)
    check_awake([tmp_path])
    monkeypatch.setattr(awake, "cores", lambda of: [(0, 1)])
    with pytest.raises(LiveError, match="threads of one core"):
        check_awake([tmp_path])


def test_where_that_is_not_allowed_the_user_is_told_and_nothing_runs(tmp_path: Path) -> None:
    (tmp_path / "offramp-awake").touch()
    with (
        pytest.raises(LiveError, match=r"\(--awake\).*it takes root"),
        kept_awake([0], [tmp_path]),
    ):
        raise AssertionError


def test_a_kernel_without_idle_groups_is_told_and_no_group_is_left(tmp_path: Path) -> None:
    with (
        pytest.raises(LiveError, match=r"cpu\.idle"),
        kept_awake([0], [tmp_path]),
    ):
        raise AssertionError
    assert list(tmp_path.iterdir()) == []
