"""Replications on all cores: one worker process against one for each core.

The quickstart's networks and fleet, eight replications of a longer window, simulated with one and
with all workers in turn. Every round takes another seed, so that nothing is reused. The networks
are trained first, if the store lacks them.

    python benchmarks/replications.py
"""

from __future__ import annotations

import os
import statistics
import tempfile
import time
from pathlib import Path

import offramp

ROUNDS = 3
SETTINGS = [
    "simulation.replications=8",
    "simulation.duration_s=600",
    "simulation.deadline_scales=[1]",
    "devices.cameras.count=8",
]


def seconds(seed: int, jobs: int) -> float:
    scenario = offramp.load_scenario("quickstart", [*SETTINGS, f"seed={seed}"])
    pipeline = offramp.Pipeline(scenario)
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        pipeline.simulate(Path(folder), jobs)
        return time.perf_counter() - start


def main() -> None:
    pipeline = offramp.Pipeline(offramp.load_scenario("quickstart"))
    pipeline.train()
    pipeline.profile()
    cores = os.cpu_count() or 1
    ratios = []
    for number in range(ROUNDS):
        seed = int(time.time()) + 10 * number
        one, all_cores = seconds(seed, 1), seconds(seed + 1, cores)
        ratios.append(one / all_cores)
        print(f"1 worker {one:6.1f} s   {cores} workers {all_cores:6.1f} s", flush=True)
    spread = f"(min {min(ratios):.2f}, max {max(ratios):.2f})"
    print(f"ratio    {statistics.median(ratios):6.2f}x {spread}")


if __name__ == "__main__":
    main()
