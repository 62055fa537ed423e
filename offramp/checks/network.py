"""Checks of links and MQTT."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from offramp.checks.common import Problem, attempt_file, check_name
from offramp.schema import DirectionSection, LinkSection, Scenario
from offramp.world_parts import capacity, delay
from offramp.yaml_lines import Location


def check_network(scenario: Scenario, folder: Path) -> Iterator[Problem]:
    """What is wrong with how messages travel."""
    for name, link in scenario.links.items():
        for key, direction in (("uplink", link.uplink), ("downlink", link.downlink)):
            place = ("links", name, key)
            yield from _check_latency(place, link, direction, folder)
            yield from _check_bandwidth(place, direction, folder)
    if scenario.mqtt and scenario.mqtt.backhaul is not None:
        yield from check_name(("mqtt", "backhaul"), "link", scenario.mqtt.backhaul, scenario.links)


def _check_latency(
    place: Location, link: LinkSection, direction: DirectionSection, folder: Path
) -> Iterator[Problem]:
    latency_ms, file = direction.latency_ms, direction.latency_file
    if file is not None:
        if latency_ms != 0:
            yield (*place, "latency_file"), "give latency_ms or latency_file, not both"
        if direction.jitter_ms:
            yield (*place, "jitter_ms"), "latency_file has its own; give one or the other"
        read = (*place, "latency_file")
        yield from attempt_file(read, file, folder, lambda: delay(direction, folder))
    elif direction.jitter_ms and not isinstance(latency_ms, int | float):
        text = "latency_ms is a distribution already; give one or the other"
        if link.preset:
            text = (
                f"latency_ms of preset {link.preset} is a distribution already; with jitter_ms, "
                "give latency_ms too"
            )
        yield (*place, "jitter_ms"), text
    elif direction.jitter_ms and not latency_ms:
        yield (
            (*place, "jitter_ms"),
            "jitter about a latency of 0 would need negative delays; give latency_ms",
        )


def _check_bandwidth(
    place: Location, direction: DirectionSection, folder: Path
) -> Iterator[Problem]:
    trace = direction.bandwidth_trace
    if trace is None:
        if direction.bandwidth_column is not None:
            yield (*place, "bandwidth_column"), "a column of what? give bandwidth_trace too"
        return
    if direction.bandwidth_mbps is not None:
        yield (*place, "bandwidth_trace"), "give bandwidth_mbps or bandwidth_trace, not both"
    read = (*place, "bandwidth_trace")
    yield from attempt_file(read, trace, folder, lambda: capacity(direction, folder))
