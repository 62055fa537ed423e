"""The simulator against plain SimPy with a process per request, doing the same work.

100 devices, Poisson 10/s each, four FIFO edge nodes, exponential 3.2 ms of service, 5 ms each way,
100 s, a policy asked for every request. The baseline keeps its latencies in lists; ours keeps
records. Both are timed in turn in one process; the ratio is what counts.

    python benchmarks/simulator.py
"""

from __future__ import annotations

import random
import statistics
import time
from collections.abc import Generator

import numpy as np
import simpy

from models.artifacts import Predictions
from sim.distributions import Constant, Exponential
from sim.links import Direction, Link
from sim.nodes import NodeSpec
from sim.policies import ANSWER, FixedExit, Policy
from sim.service import DistributedService
from sim.workload import DeviceGroup, Poisson
from sim.world import World, record_table, simulate

DEVICES, RATE_HZ, NODES, SERVICE_S, WAY_S, DURATION_S = 100, 10.0, 4, 0.0032, 0.005, 100.0
ROUNDS = 3


class BaselineView:
    """What the baseline shows the policy."""

    def __init__(self, remaining_s: float) -> None:
        self.remaining_s = remaining_s
        self.exit = 0
        self.confidence = float("nan")


def baseline(policy: Policy) -> int:
    """A process per device and per request, the way SimPy's tutorial writes it."""
    random.seed(1)
    env = simpy.Environment()
    nodes = [simpy.Resource(env, capacity=1) for _ in range(NODES)]
    latencies: list[float] = []

    def request(node: simpy.Resource) -> Generator[simpy.Event, object, None]:
        created = env.now
        yield env.timeout(WAY_S)
        with node.request() as turn:
            yield turn
            view = BaselineView(created + 0.05 - env.now)
            decision = policy.decide(view, node)
            while decision is not ANSWER:
                yield env.timeout(random.expovariate(1 / SERVICE_S))
                view.exit = decision.exit
                decision = policy.decide(view, node)
        yield env.timeout(WAY_S)
        latencies.append(env.now - created)

    def device(node: simpy.Resource) -> Generator[simpy.Event, object, None]:
        while env.now < DURATION_S:
            yield env.timeout(random.expovariate(RATE_HZ))
            env.process(request(node))

    for number in range(DEVICES):
        env.process(device(nodes[number % NODES]))
    env.run()
    return len(latencies)


def ours(policy: Policy) -> int:
    """The same world, with records."""
    link = Link(Direction(Constant(WAY_S)), Direction(Constant(WAY_S)))
    groups = tuple(
        DeviceGroup(
            f"devices{node}",
            DEVICES // NODES,
            Poisson(RATE_HZ),
            Constant(0.05),
            link,
            f"node{node}",
            3072,
            64,
        )
        for node in range(NODES)
    )
    nodes = tuple(
        NodeSpec(f"node{node}", 1, DistributedService(Exponential(SERVICE_S), 1))
        for node in range(NODES)
    )
    world = World(groups, nodes, 0.0, DURATION_S, seed=1)
    ten = np.arange(10, dtype=np.int32)
    predictions = Predictions(
        ten, ten, ten[:, None], np.full((10, 1), 0.9, dtype=np.float32), {"architecture": "none"}
    )
    run = simulate(world, world.workload(10, 0), predictions, policy)
    return len(record_table(world, run, predictions, "standard", 0, "fixed_exit"))


def main() -> None:
    policy = FixedExit(1)
    rates: dict[str, list[float]] = {"baseline": [], "ours": []}
    for _ in range(ROUNDS):
        for name, simulation in (("baseline", baseline), ("ours", ours)):
            start = time.perf_counter()
            requests = simulation(policy)
            rates[name].append(requests / (time.perf_counter() - start))
    ratios = [mine / plain for mine, plain in zip(rates["ours"], rates["baseline"], strict=True)]
    for name, values in rates.items():
        print(f"{name:9} {statistics.median(values):10,.0f} requests/s")
    spread = f"(min {min(ratios):.2f}, max {max(ratios):.2f})"
    print(f"ratio     {statistics.median(ratios):10.2f}  {spread}")


if __name__ == "__main__":
    main()
