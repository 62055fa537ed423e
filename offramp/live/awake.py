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
from models.processors import available_processors, cores

#: Where control groups of processor time are: those of version 2, those of version 1.
_HIERARCHIES = (Path("/sys/fs/cgroup"), Path("/sys/fs/cgroup/cpu"))
_GROUP = "offramp-awake"


def check_awake(hierarchies: Sequence[Path] = _HIERARCHIES) -> None:
    """See whether processors can be kept awake here.

    Raises:
        LiveError: they cannot, or should not: only root may make a control group that is idle, on
            Linux since 5.15; and of a core with two threads, one that spins slows the other.
    """
    _leave(_group_for(available_processors(), hierarchies))


@contextmanager
def kept_awake(
    processors: Sequence[int], hierarchies: Sequence[Path] = _HIERARCHIES
) -> Iterator[None]:
    """Keep processors awake, by a process on each that takes what nobody else wants.

    The processes are in a control group that is idle: scheduling policy SCHED_IDLE alone gives way
    within a session only, where the kernel groups processes by session.

    Args:
        processors: their numbers.

    Raises:
        LiveError: see :func:`check_awake`; or one of them was not kept awake all the time.
    """
    group = _group_for(processors, hierarchies)
    try:
        with Parts() as parts:
            keeping = [_keep_awake(number, parts, group) for number in processors]
            yield
            ended = [part.obituary() for part in keeping if part.status is not None]
    finally:
        _leave(group)
    if ended:
        raise LiveError(f"a processor was not kept awake all the time: {ended[0]}")


def _keep_awake(number: int, parts: Parts, group: Path) -> Part:
    part = parts.start(f"awake {number}", __spec__.name)
    try:
        (group / "cgroup.procs").write_text(str(part.pid), encoding="ascii")
    except OSError as error:
        raise LiveError(
            f"processors cannot be kept awake (--awake): {error}; {part.obituary()}"
        ) from error
    part.confine([number])  # only now: some kernels forget it in another group
    return part


def _group_for(processors: Sequence[int], hierarchies: Sequence[Path]) -> Path:
    """An idle control group for what keeps some processors awake."""
    if any(len(core) > 1 for core in cores(processors)):
        raise LiveError(
            "processors cannot be kept awake (--awake): some are threads of one core, and what "
            "keeps one awake would slow the other"
        )
    problem: OSError | None = None
    for hierarchy in hierarchies:
        group = hierarchy / _GROUP
        try:
            group.mkdir(exist_ok=True)
            with (group / "cpu.idle").open("r+", encoding="ascii") as file:
                file.write("1")
            return group
        except OSError as error:
            if problem is None or isinstance(problem, FileNotFoundError):
                problem = error
            _leave(group)
    raise LiveError(
        f"processors cannot be kept awake (--awake): {problem}; it takes root, and a control group "
        "with cpu.idle (Linux 5.15, controller cpu)"
    )


def _leave(group: Path) -> None:
    with suppress(OSError):  # another run is in it, too
        group.rmdir()


def main() -> None:
    """Compute for ever, when nobody else wants to."""
    os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
    while True:
        pass


if __name__ == "__main__":
    main()
