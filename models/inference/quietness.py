"""How quiet a host is: one and the same work, timed again and again on its processors.

The targets of a validation are for a quiet machine, and so are the latencies of a profile. On one
that others share, the same work takes longer now and then, and no calibration knows when.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Sequence
from contextlib import suppress

import numpy as np
from numpy.typing import NDArray

from models.artifacts import Profile
from models.processors import available_processors, fastest

#: For so many seconds the work is repeated: so many times the exponentials of so many numbers.
_REPEATED_S, _TIMES, _NUMBERS = 1.0, 8, 50_000

#: A host is not quiet if the work takes so many times as long at the 95th percentile as at the 5th.
NOT_QUIET = 1.5


def time_work(
    repeated_s: float = _REPEATED_S, on: Sequence[int] | None = None
) -> NDArray[np.float64]:
    """(N,) seconds that one and the same work took, on all processors at once.

    It is some milliseconds of arithmetic that holds no lock of the interpreter, and that a
    neighbour on the same core slows as it does inference: on one machine inference took 1.9 times
    as long at the 95th percentile as at the 5th, Python 2.0, this 2.0, and SHA-256 1.1. Where some
    processors are slower than others by design, they are left out: there, it takes longer on a
    quiet host, too.

    Args:
        on: these processors; None: all that this process may use.
    """
    numbers = np.linspace(0.0, 1.0, _NUMBERS)
    took = list[float]()

    def repeat(processor: int) -> None:
        with suppress(AttributeError, OSError):  # no such call here, or not allowed
            os.sched_setaffinity(0, {processor})  # of this thread
        found = np.empty_like(numbers)
        end_s = time.perf_counter() + repeated_s
        while (start_s := time.perf_counter()) < end_s:
            for _ in range(_TIMES):
                np.exp(numbers, out=found)
            took.append(time.perf_counter() - start_s)

    chosen = fastest(available_processors() if on is None else on)
    threads = [threading.Thread(target=repeat, args=(it,)) for it in chosen]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return np.array(took)


def slowdown(work_s: NDArray[np.float64]) -> float:
    """How many times as long work took at the 95th percentile as at the 5th."""
    least, most = np.quantile(work_s, (0.05, 0.95))
    return float(most / least)


def noise_of(profile: Profile) -> str | None:
    """That the host was not quiet while it was profiled, if so."""
    times = slowdown(profile.seconds[min(profile.seconds)]["exit"][:, -1])
    if times < NOT_QUIET:
        return None
    return (
        "the host does not seem to have been quiet when it was profiled: one and the same "
        f"inference took {times:.1f} times as long at the 95th percentile as at the 5th"
    )
