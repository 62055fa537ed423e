"""The processors of this host that this process may use, and who runs on which of them."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

#: Where Linux tells of processors.
_SYSTEM = Path("/sys/devices/system/cpu")


def available_processors() -> list[int]:
    """Numbers of the processors that this process may use, ascending."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def fastest(of: Sequence[int], of_system: Path = _SYSTEM) -> list[int]:
    """Processors that are as fast as the fastest, as far as the system says how fast they are.

    Args:
        of: numbers of some; the result is in their order.
    """
    khz: dict[int, int] = {}
    for number in of:
        file = of_system / f"cpu{number}/cpufreq/cpuinfo_max_freq"
        try:
            khz[number] = int(file.read_text("ascii"))
        except (OSError, ValueError):
            return list(of)
    most = max(khz.values(), default=0)
    # A core that may run a tenth faster is no other kind of core.
    return [number for number in of if khz[number] >= 0.9 * most]


def cores(of: Sequence[int], of_system: Path = _SYSTEM) -> list[tuple[int, ...]]:
    """Processors by the core whose threads they are; each by itself where the system does not say.

    Two threads of a core slow each other.

    Args:
        of: numbers of some.

    Returns:
        Those of each core, in the order of the first of each.
    """
    found = dict[str, list[int]]()
    for number in of:
        try:
            core = (of_system / f"cpu{number}/topology/thread_siblings_list").read_text("ascii")
        except OSError:
            core = str(number)
        found.setdefault(core.strip(), []).append(number)
    return [tuple(core) for core in found.values()]


def confine(process: int, to: Sequence[int]) -> None:
    """Let a process, with all threads that it has and will have, run on some processors alone.

    Args:
        process: its id.
        to: their numbers.

    Raises:
        OSError: it has ended, or that is not allowed.
        NotImplementedError: no such thing on this system (Linux has it).
    """
    if not hasattr(os, "sched_setaffinity"):
        raise NotImplementedError("processes cannot be confined to processors on this system")
    os.sched_setaffinity(process, to)
    threads = list[str]()
    with suppress(FileNotFoundError):  # no /proc, or it has ended meanwhile
        threads = os.listdir(f"/proc/{process}/task")
    for thread in threads:
        with suppress(ProcessLookupError):
            os.sched_setaffinity(int(thread), to)


@contextmanager
def confined(to: Sequence[int]) -> Iterator[None]:
    """Let this process, and those that it starts meanwhile, run on some processors alone.

    Raises:
        OSError, NotImplementedError: see :func:`confine`.
    """
    before = available_processors()
    confine(os.getpid(), to)
    try:
        yield
    finally:
        with suppress(OSError):  # what went wrong meanwhile is worse
            confine(os.getpid(), before)
