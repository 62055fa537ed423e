"""Checks of devices: what they send, when, and with which deadline."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

from models.errors import OfframpError
from offramp.checks.common import Problem, attempt, can_be_zero, check_file, check_name
from offramp.checks.nodes import check_energy, check_goes_on, check_service
from offramp.schema import (
    DeviceGroupSection,
    DiurnalArrivals,
    OnOffArrivals,
    PeriodicArrivals,
    Scenario,
)
from offramp.world_parts import arrivals, trace_of
from offramp.yaml_lines import Location
from sim.network.mqtt_packets import MAX_REMAINING_LENGTH
from sim.workload.request_traces import RequestTrace

#: What a PUBLISH can carry beside the longest topic and properties of as many bytes.
MOST_PAYLOAD_BYTES = MAX_REMAINING_LENGTH - 2 * 65_535 - 16

#: Images of the test set of each dataset, which traces may name.
TEST_SAMPLES = {"digits": 359, "fashion_mnist": 10_000, "cifar10": 10_000, "cifar100": 10_000}


def check_devices(scenario: Scenario, folder: Path, exit_count: int) -> Iterator[Problem]:
    """What is wrong with the devices.

    Args:
        exit_count: of the network.
    """
    for name, group in scenario.devices.items():
        place = ("devices", name)
        yield from check_name((*place, "link"), "link", group.link, scenario.links)
        yield from check_name((*place, "node"), "node", group.node, scenario.nodes)
        trace, problems = _read_trace(place, group, folder, TEST_SAMPLES[scenario.data.dataset])
        yield from problems or _check_with_trace(place, group, trace)
        yield from _check_arrivals(place, group, folder)
        if group.deadline_ms is not None and can_be_zero(group.deadline_ms, folder):
            yield (*place, "deadline_ms"), "a deadline must be above 0"
        if scenario.mqtt:
            yield from _check_payloads(place, group)
        yield from check_energy((*place, "energy"), group.energy)
        if group.compute:
            yield from check_service((*place, "compute"), group.compute, folder, exit_count)
            if group.node in scenario.nodes:
                yield from check_goes_on(
                    (*place, "node"), name, group.compute, group.node, scenario, exit_count
                )


def _check_payloads(place: Location, group: DeviceGroupSection) -> Iterator[Problem]:
    for key in ("request_bytes", "response_bytes"):
        size = getattr(group, key)
        if size is not None and size > MOST_PAYLOAD_BYTES:
            yield (
                (*place, key),
                f"given {size}; an MQTT message carries at most {MOST_PAYLOAD_BYTES} bytes",
            )


def _read_trace(
    place: Location, group: DeviceGroupSection, folder: Path, samples: int
) -> tuple[RequestTrace | None, list[Problem]]:
    place = (*place, "arrivals", "file")
    missing = list(check_file(place, getattr(group.arrivals, "file", None), folder))
    if missing:
        return None, missing
    try:
        trace = trace_of(group, folder)
        if trace is not None:
            trace.check(group.count, samples)
    except OfframpError as error:
        return None, [(place, str(error))]
    return trace, []


def _check_with_trace(
    place: Location, group: DeviceGroupSection, trace: RequestTrace | None
) -> Iterator[Problem]:
    """Whether the trace, or the scenario, says what is needed, and only one of them."""
    if trace is not None and trace.sample is not None and group.samples is not None:
        yield (*place, "samples"), f"{trace.path} names the samples; leave this key out"
    deadline = (*place, "deadline_ms")
    if trace is not None and trace.deadline_s is not None:
        if group.deadline_ms is not None:
            yield deadline, f"{trace.path} brings the deadlines; leave this key out"
    elif group.deadline_ms is None:
        text = "this key is required"
        if trace is not None:
            text += f", since {trace.path} has no column deadline_s or deadline_ms"
        elif "deadline_ms" in group.model_fields_set:
            text = "given nothing; allowed: a number, or a mapping with 'distribution'"
        yield deadline, text


def _check_arrivals(place: Location, group: DeviceGroupSection, folder: Path) -> Iterator[Problem]:
    place, section = (*place, "arrivals"), group.arrivals
    match section:
        case PeriodicArrivals():
            period_ms = 1000 / section.rate_hz
            if section.jitter_ms >= period_ms:
                yield (
                    (*place, "jitter_ms"),
                    f"given {section.jitter_ms:g}; allowed: less than the period of "
                    f"{period_ms:g} ms, so that requests keep their order",
                )
        case OnOffArrivals():
            if section.off_rate_hz >= section.on_rate_hz:
                yield (
                    (*place, "off_rate_hz"),
                    f"given {section.off_rate_hz:g}; allowed: less than on_rate_hz, "
                    f"{section.on_rate_hz:g}",
                )
        case DiurnalArrivals():
            times = [at_s for at_s, _ in section.curve]
            for index, (before, after) in enumerate(pairwise(times), start=1):
                if before > after:
                    yield (
                        (*place, "curve", index),
                        f"{before:g} s comes before {after:g} s; allowed: times that ascend",
                    )
                    return
            key = "curve" if section.period_s is None else "period_s"
            yield from attempt((*place, key), lambda: arrivals(section, folder, 1, None))
