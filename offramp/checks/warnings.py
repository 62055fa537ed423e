"""What a scenario may say, but its author may not have meant."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

from offramp.checks.common import Problem
from offramp.schema import Scenario
from offramp.worlds import outline_of
from sim.results.link_loads import link_loads
from sim.results.traffic import offered_traffic
from sim.workload.arrivals import TraceArrivals
from sim.world import World

#: From this share of the time on air, EU868 does not let a LoRa device send (ETSI EN 300 220).
DUTY_CYCLE = 0.01


def warnings_of(scenario: Scenario, folder: Path) -> list[Problem]:
    """What is doubtful in a scenario that was checked: where, and what. Nothing is refused."""
    world = outline_of(scenario, folder)
    return [
        *_overloaded_links(scenario, world),
        *_lora(scenario, world),
        *_mqtt(scenario),
        *_nodes(scenario),
        *_relays(scenario),
        *_silent(scenario, world),
    ]


def _overloaded_links(scenario: Scenario, world: World) -> Iterator[Problem]:
    # How much devices send that compute themselves is not known before a run.
    sends = np.repeat(
        [scenario.devices[group.name].compute is None for group in world.groups],
        [group.count for group in world.groups],
    )
    traffic = offered_traffic(world)
    traffic = replace(traffic, images=traffic.images * sends, answers=traffic.answers * sends)
    for offered in link_loads(world, traffic):
        if offered.load >= 1:
            yield (
                ("links", offered.link, offered.direction),
                f"devices offer {offered.load:.3g} times what the busiest link carries: its queue "
                "grows for as long as the run lasts",
            )


def _lora(scenario: Scenario, world: World) -> Iterator[Problem]:
    for name, link in scenario.links.items():
        if not (link.preset or "").startswith("lora"):
            continue
        yield (
            ("links", name, "preset"),
            f"{link.preset} has neither collisions nor duty cycles, and headers of TCP/IP that "
            "LoRaWAN does not have: take results for the best that could happen",
        )
        for group in world.groups:
            if group.link != name or not hasattr(group.arrivals, "rate"):
                continue
            if scenario.devices[group.name].compute is not None:
                continue
            on_air_s = 8 * group.request_bytes / ((link.uplink.bandwidth_mbps or 1e9) * 1e6)
            share = group.arrivals.rate() * on_air_s
            if share > DUTY_CYCLE:
                yield (
                    ("devices", group.name, "arrivals"),
                    f"each device sends {100 * share:.3g} % of the time; EU868 allows "
                    f"{100 * DUTY_CYCLE:g} %",
                )


def _mqtt(scenario: Scenario) -> Iterator[Problem]:
    mqtt = scenario.mqtt
    if mqtt is None or mqtt.qos > 0:
        return
    if mqtt.session == "persistent":
        yield ("mqtt", "session"), "at QoS 0, a persistent session keeps no messages"
    if mqtt.inflight is not None:
        yield ("mqtt", "inflight"), "at QoS 0, messages have no acknowledgement to wait for"


def _nodes(scenario: Scenario) -> Iterator[Problem]:
    asked = {group.node for group in scenario.devices.values()}
    asked |= {node.next_tier.node for node in scenario.nodes.values() if node.next_tier}
    for name, node in scenario.nodes.items():
        if name not in asked:
            yield ("nodes", name), "neither devices nor other nodes send anything here"
        if node.queue == "priority" and len({g.priority for g in scenario.devices.values()}) == 1:
            yield ("nodes", name, "queue"), "all devices have the same priority: this is fifo"


def _relays(scenario: Scenario) -> Iterator[Problem]:
    """Tiers that hold no more exits than the one before: most policies look one tier ahead."""
    before = [
        (("nodes", name, "next_tier"), node.last_exit, node.next_tier.node)
        for name, node in scenario.nodes.items()
        if node.next_tier
    ]
    before += [
        (("devices", name, "compute"), group.compute.last_exit, group.node)
        for name, group in scenario.devices.items()
        if group.compute
    ]
    for place, here, tier in before:
        behind = scenario.nodes[tier]
        if here is not None and here == behind.last_exit and behind.next_tier is not None:
            yield (
                place,
                f"{tier!r} holds no more exits than what is before it: policies that look at the "
                f"next tier, as full and confidence do, answer here and never get to "
                f"{behind.next_tier.node!r}; fixed_exit goes through",
            )


def _silent(scenario: Scenario, world: World) -> Iterator[Problem]:
    """Faults and traces that fall outside the run."""
    for index, fault in enumerate(scenario.faults):
        if fault.at_s is not None and fault.at_s >= world.horizon_s:
            yield (
                ("faults", index, "at_s"),
                f"given {fault.at_s:g}, but the run is over after {world.horizon_s:g} s",
            )
    for group in world.groups:
        if isinstance(group.arrivals, TraceArrivals):
            times = group.arrivals.trace.time_s
            if not ((times >= world.warm_up_s) & (times < world.horizon_s)).any():
                yield (
                    ("devices", group.name, "arrivals", "file"),
                    f"no request falls in the measured window, {world.warm_up_s:g} to "
                    f"{world.horizon_s:g} s",
                )
