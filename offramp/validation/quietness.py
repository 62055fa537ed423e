"""How quiet a host is: one and the same work, timed again and again on all of its processors.

The targets of a validation are for a quiet machine. On one that others share, the same work takes
longer now and then, and no calibration knows when.
"""

from __future__ import annotations

import hashlib
import os
import threading
import time

import numpy as np

from sim.distributions import Floats

#: For so many seconds the work is repeated: the hash of so many bytes, some milliseconds.
_REPEATED_S, _BYTES = 1.0, 4_000_000

#: A host is not quiet if the work takes so many times as long at the 95th percentile as at the 5th.
NOT_QUIET = 1.5


def work_s() -> Floats:
    """(N,) seconds that one and the same work took, on as many threads as there are processors.

    It is a hash, which holds no lock of the interpreter.
    """
    piece = bytes(_BYTES)
    took = list[float]()

    def repeat() -> None:
        end_s = time.perf_counter() + _REPEATED_S
        while (start_s := time.perf_counter()) < end_s:
            hashlib.sha256(piece).digest()
            took.append(time.perf_counter() - start_s)

    threads = [threading.Thread(target=repeat) for _ in range(_processors())]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return np.array(took)


def spread(work_s: Floats) -> float:
    """How many times as long work took at the 95th percentile as at the 5th."""
    least, most = np.quantile(work_s, (0.05, 0.95))
    return float(most / least)


def _processors() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
