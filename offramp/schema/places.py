"""Where a scenario holds values of a kind: every distribution, every file."""

from __future__ import annotations

from collections.abc import Iterator

from offramp.schema.distributions import DistributionSpec, EmpiricalSpec
from offramp.schema.scenario import Scenario
from offramp.schema.world import ClosedLoopArrivals, TraceArrivals

#: Keys and list positions that lead to a value.
Place = tuple[str | int, ...]

_OVERHEADS = (
    "receive_ms",
    "begin_ms",
    "begin_idle_ms",
    "reply_ms",
    "ingress_busy_ms",
    "egress_busy_ms",
)


def distributions_in(scenario: Scenario) -> Iterator[tuple[Place, DistributionSpec]]:
    """Every distribution that is written, and its place."""
    for name, link in scenario.links.items():
        yield ("links", name, "uplink", "latency_ms"), link.uplink.latency_ms
        yield ("links", name, "downlink", "latency_ms"), link.downlink.latency_ms
    if scenario.mqtt:
        yield ("mqtt", "broker_ms"), scenario.mqtt.broker_ms
    for name, node in scenario.nodes.items():
        if node.service_ms is not None:
            yield ("nodes", name, "service_ms"), node.service_ms
        if node.overhead is not None:
            for key in _OVERHEADS:
                if (spec := getattr(node.overhead, key)) is not None:
                    yield ("nodes", name, "overhead", key), spec
    for name, group in scenario.devices.items():
        if isinstance(group.arrivals, ClosedLoopArrivals):
            yield ("devices", name, "arrivals", "think_ms"), group.arrivals.think_ms
        if group.deadline_ms is not None:
            yield ("devices", name, "deadline_ms"), group.deadline_ms
        if group.compute and group.compute.service_ms is not None:
            yield ("devices", name, "compute", "service_ms"), group.compute.service_ms


def files_in(scenario: Scenario) -> Iterator[tuple[Place, str]]:
    """Every file that the world of a scenario is read from, and its place."""
    for name, link in scenario.links.items():
        for key, direction in (("uplink", link.uplink), ("downlink", link.downlink)):
            if direction.latency_file is not None:
                yield ("links", name, key, "latency_file"), direction.latency_file
            if direction.bandwidth_trace is not None:
                yield ("links", name, key, "bandwidth_trace"), direction.bandwidth_trace
    for name, node in scenario.nodes.items():
        if node.profile is not None:
            yield ("nodes", name, "profile"), node.profile
    for name, group in scenario.devices.items():
        if isinstance(group.arrivals, TraceArrivals):
            yield ("devices", name, "arrivals", "file"), group.arrivals.file
        if group.compute and group.compute.profile is not None:
            yield ("devices", name, "compute", "profile"), group.compute.profile
    for place, spec in distributions_in(scenario):
        if isinstance(spec, EmpiricalSpec):
            yield (*place, "file"), spec.file
