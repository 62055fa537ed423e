"""Sweeps: what two workers gain, and what the driver costs, in time and memory.

Points of the quickstart's fleet with service times of its own, so that nothing is measured; the
one network that they need is trained first, if the store lacks it.

    python benchmarks/sweep.py            # all of it, some ten minutes
    python benchmarks/sweep.py small      # a tenth of the points, to try it
"""

from __future__ import annotations

import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from offramp.console import Console
from offramp.store import Store, default_root
from offramp.sweep.backend import Backend, Call, Done
from offramp.sweep.definition import load_sweep
from offramp.sweep.local import LocalBackend
from offramp.sweep.point import PointResult, simulate_points
from offramp.sweep.run import run_sweep

ROUNDS = 3
WORLD = [
    "training.strategies=[standard]",
    "training.seeds=1",
    "nodes.edge={workers: 1, service_ms: {distribution: lognormal, median: 5, sigma: 0.4}}",
    "simulation.replications=1",
    "simulation.deadline_scales=[1]",
]
#: About half a second each.
FULL = [*WORLD, "simulation.duration_s=400", "devices.cameras.count=20"]
#: A few dozen requests each: a few milliseconds.
TINY = [*WORLD, "simulation.duration_s=1", "simulation.warm_up_s=0", "policies=[deadline_aware]"]


def sweep(settings: list[str], points: int, backend: Backend) -> tuple[float, float]:
    """Seconds that a sweep took, and processor seconds of this process."""
    # Crossed, since what is written out takes memory too.
    deadlines = max(count for count in range(1, 401) if points % count == 0)
    axes = {"seed": points // deadlines, "devices.cameras.deadline_ms": deadlines}
    swept_keys = [
        f"{key}={','.join(map(str, range(1, n + 1)))}" for key, n in axes.items() if n > 1
    ]
    loaded = load_sweep("quickstart", [*settings, *swept_keys])
    with tempfile.TemporaryDirectory() as folder:
        start, cpu = time.perf_counter(), time.process_time()
        swept = run_sweep(
            loaded, Store(default_root()), Path(folder), Console(quiet=True), lambda: backend
        )
        took = time.perf_counter() - start, time.process_time() - cpu
    assert (swept.counts.done, swept.counts.failed) == (points, 0)
    return took


class Timed:
    """Adds up what points took in the workers of a backend."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self.busy_s = 0.0

    @property
    def workers(self) -> int:
        return self._backend.workers

    def run(self, function: Callable[..., Any], calls: Iterable[Call]) -> Iterator[Done]:
        for done in self._backend.run(function, calls):
            if function is simulate_points:
                self.busy_s += sum(result.wall_s for result in done.value)
            yield done

    def close(self) -> None:
        self._backend.close()


class Instant:
    """Answers at once, with rows that were made before: what is left is the driver."""

    workers = 2

    def __init__(self) -> None:
        self._first: PointResult | None = None

    def run(self, function: Callable[..., Any], calls: Iterable[Call]) -> Iterator[Done]:
        for number, call in enumerate(calls):
            if function is not simulate_points:
                yield Done(number, function(*call.arguments))
                continue
            context, chunk = call.arguments
            if self._first is None:
                (self._first,) = simulate_points(context, chunk[:1])
            made = self._first
            results = [PointResult(i, made.layout, made.rows, None, 0.002) for i, _ in chunk]
            yield Done(number, results)

    def close(self) -> None:
        """Nothing runs."""


def scaling(points: int) -> None:
    ratios = []
    for _ in range(ROUNDS):
        one, _ = sweep(FULL, points, LocalBackend(1))
        two, _ = sweep(FULL, points, LocalBackend(2))
        ratios.append(one / two)
        print(f"{points} points   1 worker {one:6.1f} s   2 workers {two:6.1f} s", flush=True)
    show("2 workers against 1", ratios, "at least 1.80")


def overhead(points: int) -> None:
    timed = Timed(LocalBackend(2))
    wall_s, cpu_s = sweep(TINY, points, timed)
    mean_ms = 1e3 * timed.busy_s / points
    over_ms = 1e3 * (wall_s - timed.busy_s / timed.workers) / points
    print(
        f"{points} tiny points of {mean_ms:.2f} ms: {over_ms:.2f} ms a point beyond their "
        f"simulation, {1e3 * cpu_s / points:.2f} ms of the driver's processor  (target: below 5)"
    )


def dask_against_joblib(points: int) -> None:
    from offramp.sweep.dask import open_dask

    ratios = []
    for _ in range(ROUNDS):
        local, _ = sweep(FULL, points, LocalBackend(2))
        start = time.perf_counter()
        cluster = open_dask("local", 2, Store(default_root()), Console(quiet=True))
        started = time.perf_counter() - start
        dask, _ = sweep(FULL, points, cluster)
        ratios.append(dask / local)
        print(
            f"{points} points   joblib {local:6.1f} s   Dask {dask:6.1f} s, after {started:.1f} s "
            "to start its cluster",
            flush=True,
        )
    show("Dask against joblib, 2 workers", ratios, "at most 1.10")


def memory(counts: list[int]) -> None:
    grown = {}
    for points in counts:
        command = [sys.executable, __file__, "memory-of", str(points)]
        said = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
        grown[points] = float(said[0])
        print(
            f"driver of {points:7d} points: {grown[points]:6.1f} MB more than before, "
            f"{1e3 * float(said[1]) / points:.2f} ms of processor time a point",
            flush=True,
        )
    # Blocks of rows fill first, up to some size: what comes after that is each point's own.
    extra = (grown[counts[-1]] - grown[counts[-2]]) / (counts[-1] - counts[-2])
    print(f"memory for each point more: {1e6 * extra:.0f} bytes  (target: below 100)")


def memory_of(points: int) -> None:
    """Peak of this process beyond what it had, in MB, and its processor seconds."""
    sweep(TINY, 10, Instant())
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    _, cpu_s = sweep(TINY, points, Instant())
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print((peak - before) / 1e3, cpu_s)


def show(what: str, ratios: list[float], target: str) -> None:
    spread = f"(min {min(ratios):.2f}, max {max(ratios):.2f})"
    print(f"{what}: {statistics.median(ratios):.2f}x {spread}  (target: {target})", flush=True)


def main() -> None:
    if sys.argv[1:2] == ["memory-of"]:
        memory_of(int(sys.argv[2]))
        return
    less = 10 if "small" in sys.argv else 1
    sweep(TINY, 2, LocalBackend(1))  # trains what is missing
    scaling(max(8, 64 // less))
    overhead(10_000 // less)
    memory([points // less for points in (1_000, 100_000, 300_000)])
    dask_against_joblib(max(8, 64 // less))


if __name__ == "__main__":
    main()
