"""Checks of faults."""

from __future__ import annotations

from collections.abc import Iterator

from offramp.checks.common import Problem, check_name
from offramp.schema import (
    AnyFault,
    BrokerRestart,
    DeviceChurn,
    LinkOutage,
    Scenario,
)
from offramp.yaml_lines import Location

#: Failures of one replication that are drawn before it starts.
MOST_FAILURES = 5_000_000


def check_faults(scenario: Scenario) -> Iterator[Problem]:
    """What is wrong with the faults."""
    for index, fault in enumerate(scenario.faults):
        place = ("faults", index)
        yield from _check_target(place, fault, scenario)
        yield from _check_times(place, fault)
        failures = _failures(fault, scenario)
        if failures > MOST_FAILURES:
            yield (
                (*place, "mtbf_s"),
                f"about {failures:.3g} failures in one replication; at most {MOST_FAILURES:,} fit "
                "into memory: raise mtbf_s, or shorten simulation.duration_s",
            )


def _check_target(place: Location, fault: AnyFault, scenario: Scenario) -> Iterator[Problem]:
    match fault:
        case BrokerRestart():
            if scenario.mqtt is None:
                yield (
                    (*place, "kind"),
                    "there is no broker: devices and nodes talk directly (add the section mqtt)",
                )
        case LinkOutage():
            yield from check_name((*place, "link"), "link", fault.link, scenario.links)
            used = sorted({group.link for group in scenario.devices.values()})
            if fault.link in scenario.links and fault.link not in used:
                yield (
                    (*place, "link"),
                    f"no devices use link {fault.link!r}, and outages befall links of devices only "
                    f"(they use: {', '.join(used)})",
                )
        case DeviceChurn():
            yield from check_name(
                (*place, "devices"), "group of devices", fault.devices, scenario.devices
            )
        case _:
            yield from check_name((*place, "node"), "node", fault.node, scenario.nodes)


def _check_times(place: Location, fault: AnyFault) -> Iterator[Problem]:
    given = [
        key for key in ("at_s", "for_s", "mtbf_s", "mttr_s") if getattr(fault, key) is not None
    ]
    scheduled = [key for key in given if key in ("at_s", "for_s")]
    random = [key for key in given if key not in scheduled]
    if bool(scheduled) == bool(random):
        how = f"given {', '.join(given)}" if given else "given neither"
        yield place, f"{how}; allowed: at_s and for_s, or mtbf_s and mttr_s"
    elif len(given) == 1:
        pairs = {"at_s": "for_s", "for_s": "at_s", "mtbf_s": "mttr_s", "mttr_s": "mtbf_s"}
        missing = pairs[given[0]]
        yield (*place, missing), f"this key is required with {given[0]}"


def _failures(fault: AnyFault, scenario: Scenario) -> float:
    """Expected number of failures of all targets of a random fault in one replication."""
    if fault.mtbf_s is None or fault.mttr_s is None:
        return 0.0
    match fault:
        case BrokerRestart():
            targets = 1
        case LinkOutage():
            devices = sum(
                group.count for group in scenario.devices.values() if group.link == fault.link
            )
            link = scenario.links.get(fault.link)
            shared_by = link.shared_by if link else 1
            targets = min(devices, 1) if shared_by == "all" else -(-devices // shared_by)
        case DeviceChurn():
            group = scenario.devices.get(fault.devices)
            targets = group.count if group else 0
        case _:
            node = scenario.nodes.get(fault.node)
            targets = node.replicas if node else 0
    simulation = scenario.simulation
    horizon_s = simulation.warm_up_s + simulation.duration_s
    return targets * horizon_s / (fault.mtbf_s + fault.mttr_s)
