"""What a scenario says of the world, and a live run does not do: each in one sentence."""

from __future__ import annotations

from collections.abc import Iterator

from offramp.live.processors import BESIDES_NODES, Shares
from offramp.schema import DirectionSection, LinkSection, Scenario
from offramp.words import counted


def not_emulated(scenario: Scenario, embedded: bool) -> list[str]:
    """What is left out of a scenario when it is run live.

    Args:
        embedded: on the embedded broker.
    """
    return [
        *_network(scenario, embedded),
        *_nodes(scenario),
        *_rest(scenario),
    ]


def crowded(scenario: Scenario, here: int, cores: int) -> list[str]:
    """Whether this host has fewer processors than what is to run on it at the same time.

    Args:
        here: nodes that run on this host.
        cores: processors of this host that the run may use.
    """
    workers = [node.workers for node in scenario.nodes.values() for _ in range(node.replicas)]
    busy = sum(workers[:here]) * scenario.profile.threads
    if busy + BESIDES_NODES <= cores:
        return []
    return [
        f"this host has {counted(cores, 'processor')} for {counted(busy, 'thread')} of workers, "
        "the devices and the broker: they wait for one another, and latencies show it"
    ]


def sharing(shares: Shares, embedded: bool) -> list[str]:
    """Whether devices and broker have to share what nodes leave them of this host.

    Args:
        embedded: on the embedded broker; any other runs where it does.
    """
    if len(shares.rest) >= BESIDES_NODES or not embedded:
        return []
    return [
        f"the devices and the broker share processor {shares.rest[0]}, the nodes have the others: "
        "they wait for one another, and latencies show it"
    ]


def _network(scenario: Scenario, embedded: bool) -> Iterator[str]:
    emulated = [name for name, link in scenario.links.items() if _does_something(link)]
    if emulated:
        names = ", ".join(emulated)
        yield f"links are not emulated ({names}): messages take the network that is there"
    mqtt = scenario.mqtt
    if mqtt is None:
        return
    if embedded and mqtt.version == "5":
        yield "the embedded broker speaks MQTT 3.1.1: mqtt.version 5 is not used"
    if embedded and mqtt.tls:
        yield "the embedded broker has no TLS: mqtt.tls is not used"
    unused = [
        key
        for key, used in (
            ("broker_ms", mqtt.broker_ms != 0),
            ("backhaul", mqtt.backhaul is not None),
            ("reconnect_ms", mqtt.reconnect_ms > 0),
            ("share", mqtt.share != "round_robin"),
        )
        if used
    ]
    if unused:
        yield f"the broker is as it is: mqtt.{', mqtt.'.join(unused)} are not emulated"


def _does_something(link: LinkSection) -> bool:
    nothing = DirectionSection()
    return link.uplink != nothing or link.downlink != nothing


def _nodes(scenario: Scenario) -> Iterator[str]:
    for name, node in scenario.nodes.items():
        if node.speed != 1.0:
            yield f"node {name!r} is as fast as its host: speed {node.speed:g} is not emulated"
        for key in ("profile", "service_ms"):
            if getattr(node, key) is not None:
                yield f"node {name!r} takes the time that inference takes: {key} is not used"
        if node.overhead is not None:
            yield f"node {name!r} takes what it takes besides inference: overhead is not used"


def _rest(scenario: Scenario) -> Iterator[str]:
    kinds = dict.fromkeys(fault.kind.replace("_", " ") for fault in scenario.faults)
    if kinds:
        yield f"nothing is made to fail: faults are not injected ({', '.join(kinds)})"
    powers = [node.energy for node in scenario.nodes.values()]
    powers += [group.energy for group in scenario.devices.values()]
    if any(power is not None for power in powers):
        yield "energy is not measured"
    if scenario.simulation.records == "summary":
        yield "there is a record of every request: simulation.records summary is not used"
