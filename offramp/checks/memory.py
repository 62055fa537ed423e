"""How much memory a run takes, estimated before it starts.

Figures are peaks of processes that were measured (docs/performance.md), rounded up.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from models.errors import OfframpError
from offramp.checks.common import Problem
from offramp.schema import ClosedLoopArrivals, DeviceGroupSection, Scenario
from offramp.world_parts import arrivals, delay, distribution, trace_of
from sim.running.slices import KEPT_REQUESTS
from sim.workload.arrivals import ClosedLoop

#: A process that has imported everything, predictions included.
PROCESS_BYTES = 250e6
#: Of each device: its clock, its connections and their TCP senders, its name.
DEVICE_BYTES = 400
#: A slice of time, and what is derived of it.
SLICE_BYTES = 250e6
#: Of each record of any arm and replication: the latency that the report reads, and sorts.
RECORD_BYTES = 20
#: Of each request of a workload that is kept for the next arm, which only smaller ones are.
KEPT_BYTES = 200
#: Of each request where messages are followed one by one: all are drawn before the run.
STEPWISE_BYTES = 1200
#: Part of the machine's memory that worker processes may take.
USABLE_SHARE = 0.85


def check_memory(scenario: Scenario, folder: Path) -> Iterator[Problem]:
    """Whether one run, and the report on all of them, fit into this machine's memory."""
    try:
        requests = expected_requests(scenario, folder)
        needed = max(process_bytes(scenario, folder), report_bytes(scenario, folder))
    except (ValueError, OfframpError, AssertionError, KeyError):
        return  # what is wrong is said elsewhere
    usable = USABLE_SHARE * machine_bytes()
    if needed <= usable:
        return
    ways = ["shorten the window", "lower counts or rates"]
    if scenario.simulation.records == "full" and not _is_stepwise(scenario):
        ways.insert(0, "set simulation.records to summary")
    devices = sum(group.count for group in scenario.devices.values())
    yield (
        ("simulation", "duration_s"),
        f"{requests:.3g} requests in one replication, of {devices:,} devices, take about "
        f"{_gigabytes(needed)} of memory, but this machine has {_gigabytes(machine_bytes())}: "
        f"{', or '.join(ways)}",
    )


def most_workers(scenario: Scenario, folder: Path) -> int:
    """How many worker processes, each with a run of its own, fit into this machine's memory."""
    fitting = USABLE_SHARE * machine_bytes() / process_bytes(scenario, folder)
    return max(1, int(fitting))


def process_bytes(scenario: Scenario, folder: Path) -> float:
    """Estimated peak of a process that simulates one run after the other."""
    requests = expected_requests(scenario, folder)
    devices = sum(group.count for group in scenario.devices.values())
    needed = PROCESS_BYTES + devices * DEVICE_BYTES
    if _is_stepwise(scenario):
        return needed + requests * STEPWISE_BYTES
    return needed + SLICE_BYTES + min(requests, KEPT_REQUESTS) * KEPT_BYTES


def report_bytes(scenario: Scenario, folder: Path) -> float:
    """Estimated peak of making the report, for which every record is looked at."""
    if scenario.simulation.records != "full":
        return PROCESS_BYTES
    training = scenario.training
    arms = len(training.strategies) * len(training.seed_list) * len(scenario.policies)
    records = expected_requests(scenario, folder) * scenario.simulation.replications * arms
    return PROCESS_BYTES + records * RECORD_BYTES


def expected_requests(scenario: Scenario, folder: Path) -> float:
    """Requests of one replication, warm-up included; of closed loops, the most there can be."""
    horizon_s = scenario.simulation.warm_up_s + scenario.simulation.duration_s
    total = 0.0
    for group in scenario.devices.values():
        trace = trace_of(group, folder)
        if trace is not None:
            total += float((trace.time_s < horizon_s).sum())
        elif isinstance(group.arrivals, ClosedLoopArrivals):
            total += group.count * horizon_s / _shortest_cycle_s(scenario, group, folder)
        else:
            process = arrivals(group.arrivals, folder, group.count, trace)
            assert not isinstance(process, ClosedLoop)
            total += group.count * horizon_s * process.rate()
    return total


def _shortest_cycle_s(scenario: Scenario, group: DeviceGroupSection, folder: Path) -> float:
    """Mean seconds from request to request of a device that never queues, at least 1 ms."""
    assert isinstance(group.arrivals, ClosedLoopArrivals)
    link, node = scenario.links[group.link], scenario.nodes[group.node]
    cycle_s = distribution(group.arrivals.think_ms, folder).mean()
    cycle_s += delay(link.uplink, folder).mean() + delay(link.downlink, folder).mean()
    if node.service_ms is not None:
        cycle_s += distribution(node.service_ms, folder).mean() / node.speed
    return max(cycle_s, 1e-3)


def _is_stepwise(scenario: Scenario) -> bool:
    """As :attr:`sim.world.World.is_open` says it of the world."""
    return (scenario.mqtt is not None and scenario.mqtt.inflight is not None) or any(
        isinstance(group.arrivals, ClosedLoopArrivals) or group.compute is not None
        for group in scenario.devices.values()
    )


def machine_bytes() -> int:
    """Memory of this machine, or what its container is allowed of it."""
    installed = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    try:
        allowed = int(Path("/sys/fs/cgroup/memory.max").read_text(encoding="ascii"))
    except (OSError, ValueError):  # no such limit, or the word "max"
        return installed
    return min(installed, allowed)


def _gigabytes(amount: float) -> str:
    return f"{amount / 1e9:.3g} GB"
