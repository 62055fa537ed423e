"""Processors that are kept awake by a process which takes what nobody else wants."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from devices.processes import Parts
from models.errors import LiveError
from models.processors import processors
from offramp.live.awake import kept_awake


def groups(tmp_path: Path) -> Path:
    """A hierarchy in which the kernel has put the files of a group."""
    group = tmp_path / "offramp-awake"
    group.mkdir()
    (group / "cpu.idle").write_text("0")
    (group / "cgroup.procs").write_text("")
    return group


def state_of(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks at /proc")
def test_a_processor_computes_for_who_wants_nothing_else(tmp_path: Path) -> None:
    group = groups(tmp_path)
    *_, last = processors()
    with Parts() as parts:
        with kept_awake(parts, [last], [tmp_path / "not there", tmp_path]):
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


def test_it_ends_with_an_error_of_the_run_which_stays_what_it_was(tmp_path: Path) -> None:
    group = groups(tmp_path)
    with (
        Parts() as parts,
        pytest.raises(OSError, match="of the run"),
        kept_awake(parts, processors()[:1], [tmp_path]),
    ):
        raise OSError("of the run")
    pid = int((group / "cgroup.procs").read_text())
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_where_that_is_not_allowed_the_user_is_told_and_nothing_runs(tmp_path: Path) -> None:
    (tmp_path / "offramp-awake").touch()
    with (
        Parts() as parts,
        pytest.raises(LiveError, match=r"\(--awake\).*it takes root"),
        kept_awake(parts, [0], [tmp_path]),
    ):
        raise AssertionError


def test_a_kernel_without_idle_groups_is_told_and_no_group_is_left(tmp_path: Path) -> None:
    with (
        Parts() as parts,
        pytest.raises(LiveError, match=r"cpu\.idle"),
        kept_awake(parts, [0], [tmp_path]),
    ):
        raise AssertionError
    assert list(tmp_path.iterdir()) == []
