"""The simulator against plain SimPy with a process per request.

100 devices, Poisson 10/s each, four FIFO edge nodes, exponential 3.2 ms of service, 5 ms each way,
100 s, a policy asked for every request. The baseline keeps its latencies in lists; ours keeps
records. `full` does far more than the baseline and is compared with the same figure: a jittered
link shared by 25 devices, MQTT QoS 1 through a broker, three exits from a profile, the policy
`deadline_confidence`, batches of up to four, and records written to Parquet.

Each is timed in turn, by its processor time, after a round that does not count; the ratio of the
medians is what counts.

    python benchmarks/simulator.py
"""

from __future__ import annotations

import gc
import random
import statistics
import tempfile
import time
from collections.abc import Callable, Generator
from pathlib import Path

import numpy as np
import simpy

from models.artifacts import Predictions, Profile
from sim.distributions import Constant, Exponential, Gamma
from sim.network.capacity import ConstantCapacity
from sim.network.links import Direction, Link
from sim.network.mqtt import Mqtt
from sim.nodes.service import DistributedService, ProfiledService, Service
from sim.nodes.spec import NodeSpec
from sim.policies import DeadlineConfidence
from sim.policy import ANSWER, Decision, NodeView, Policy, RequestView, run_to
from sim.results.records import write_records
from sim.results.run import record_table
from sim.running.slices import Slices
from sim.simulation import simulate
from sim.workload.arrivals import Poisson
from sim.workload.device_groups import DeviceGroup
from sim.world import World

DEVICES, RATE_HZ, NODES, SERVICE_S, WAY_S, DURATION_S = 100, 10.0, 4, 0.0032, 0.005, 100.0
DEADLINE_S = 0.05
ROUNDS = 7
FIRST = run_to(1)


class AtFirstExit:
    """The least that a policy can do, so that both sides pay for asking one."""

    def decide(self, request: RequestView, node: NodeView) -> Decision:
        return ANSWER if request.exit else FIRST


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
            view = BaselineView(created + DEADLINE_S - env.now)
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


def world_of(link: Link, service: Service, mqtt: Mqtt | None, batch_size: int) -> World:
    """Four nodes, each with a quarter of the devices."""
    groups = tuple(
        DeviceGroup(
            f"devices{node}",
            DEVICES // NODES,
            Poisson(RATE_HZ),
            Constant(DEADLINE_S),
            "link",
            f"node{node}",
            3072,
            64,
        )
        for node in range(NODES)
    )
    nodes = tuple(
        NodeSpec(f"node{node}", 1, service, batch_size=batch_size) for node in range(NODES)
    )
    return World(groups, nodes, {"link": link}, 0.0, DURATION_S, seed=1, mqtt=mqtt)


def predictions(exits: int) -> Predictions:
    """Of a thousand samples; three in five are confident (0.8) at the first exit."""
    generator = np.random.default_rng(1)
    label = np.arange(1000, dtype=np.int32) % 10
    doubt = np.cumprod(generator.uniform(size=(1000, exits)), axis=1)
    doubt[:, 0] = 1 - generator.beta(4, 1, 1000)
    confidence = 1 - np.minimum.accumulate(doubt, axis=1)
    predicted = np.repeat(label[:, None], exits, axis=1)
    about = {"architecture": "none"}
    return Predictions(label, label, predicted, confidence.astype(np.float32), about)


def profile() -> Profile:
    """Three exits of about 1.07 ms each; batches of four take twice as long as one image."""
    generator = np.random.default_rng(2)
    seconds = {}
    for size, factor in ((1, 1.0), (4, 2.0)):
        segment = 0.0010 * factor * generator.gamma(50, 1 / 50, (200, 3))
        branch = 0.00007 * factor * generator.gamma(50, 1 / 50, (200, 3))
        exit = np.cumsum(segment, axis=1) + branch
        seconds[size] = {"exit": exit, "segment": segment, "branch": branch}
    return Profile(seconds, {"architecture": "none", "host": {}})


def same_work(policy: Policy) -> int:
    """The baseline's world, with records."""
    link = Link(Direction(Constant(WAY_S)), Direction(Constant(WAY_S)))
    world = world_of(link, DistributedService(Exponential(SERVICE_S), 1), None, 1)
    says = predictions(1)
    run = simulate(world, Slices(world, says.label, 0), says, policy)
    return len(record_table(world, run, says, "standard", 0, "at_first_exit"))


def full() -> int:
    """What a scenario with all of it costs."""
    way = Direction(Gamma(WAY_S, 0.002), ConstantCapacity(50e6))
    mqtt = Mqtt(qos=1, processing=Constant(50e-6), backhaul=Link())
    world = world_of(
        Link(way, way, shared_by=DEVICES // NODES),
        ProfiledService(profile(), largest_batch=4),
        mqtt,
        4,
    )
    says = predictions(3)
    run = simulate(world, Slices(world, says.label, 0), says, DeadlineConfidence(threshold=0.8))
    table = record_table(world, run, says, "standard", 0, "deadline_confidence")
    with tempfile.TemporaryDirectory() as folder:
        write_records(Path(folder) / "records.parquet", [table], {})
    return len(table)


def main() -> None:
    policy = AtFirstExit()
    arms: dict[str, Callable[[], int]] = {
        "baseline": lambda: baseline(policy),
        "same work": lambda: same_work(policy),
        "full": full,
    }
    rates: dict[str, list[float]] = {name: [] for name in arms}
    for simulation in arms.values():
        simulation()  # imports and tables that are made once
    for _ in range(ROUNDS):
        for name, simulation in arms.items():
            gc.collect()  # of what the arm before left
            start = time.process_time()
            requests = simulation()
            rates[name].append(requests / (time.process_time() - start))
    for name, values in rates.items():
        ratios = [mine / plain for mine, plain in zip(values, rates["baseline"], strict=True)]
        ratio = statistics.median(values) / statistics.median(rates["baseline"])
        spread = f"(in one round {min(ratios):.2f} to {max(ratios):.2f})"
        print(f"{name:10} {statistics.median(values):10,.0f} requests/s   {ratio:5.2f}x {spread}")


if __name__ == "__main__":
    main()
