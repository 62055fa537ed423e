"""Keeps processors from sleeping while latencies are measured.

A processor that has nothing to do sleeps, and clocks and caches are not what they were when it
wakes. One of a virtual machine is given to others meanwhile: the same inference, every 5 ms, took
1.79 to 2.13 ms, moving within seconds, and 1.75 to 1.77 on processors that were kept awake.

``python -m offramp.live.awake`` is what keeps one awake: it computes for ever, and gives way to
everybody else at once.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from devices.processes import Part, Parts
from models.errors import LiveError

#: Where control groups of processor time are: those of version 2, those of version 1.
_HIERARCHIES = (Path("/sys/fs/cgroup"), Path("/sys/fs/cgroup/cpu"))
_GROUP = "offramp-awake"


@contextmanager
def kept_awake(
    parts: Parts, processors: Sequence[int], hierarchies: Sequence[Path] = _HIERARCHIES
) -> Iterator[None]:
    """Keep processors awake, by a process on each that takes what nobody else wants.

    The processes are in a control group that is idle: scheduling policy SCHED_IDLE alone gives way
    within a session only, where the kernel groups processes by session.

    Raises:
        LiveError: there can be no such group: only root may make one, on Linux since 5.15.
    """
    group = _idle_group(hierarchies)
    keeping = list[Part]()
    try:
        for number in processors:
            keeping.append(parts.start(f"awake {number}", __spec__.name, processors=[number]))
            _add(keeping[-1], group)
        yield
    finally:
        parts.stop(*keeping)
        with suppress(OSError):  # of another run, too
            group.rmdir()


def _add(part: Part, group: Path) -> None:
    try:
        (group / "cgroup.procs").write_text(str(part.pid), encoding="ascii")
    except OSError as error:
        raise LiveError(f"processors cannot be kept awake (--awake): {error}") from error


def _idle_group(hierarchies: Sequence[Path]) -> Path:
    problem: OSError | None = None
    for hierarchy in hierarchies:
        group = hierarchy / _GROUP
        try:
            group.mkdir(exist_ok=True)
            with (group / "cpu.idle").open("r+", encoding="ascii") as file:
                file.write("1")
            return group
        except OSError as error:
            problem = error
            with suppress(OSError):
                group.rmdir()
    raise LiveError(
        f"processors cannot be kept awake (--awake): {problem}; it takes root, and a control group "
        "with cpu.idle (Linux 5.15)"
    )


def main() -> None:
    """Compute for ever, when nobody else wants to."""
    os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
    while True:
        pass


if __name__ == "__main__":
    main()
