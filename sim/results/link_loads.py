"""How much of what links can carry is asked of them, before a run and after it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np

from sim.network.capacity import Capacity
from sim.network.hops import Leg
from sim.network.topology import access_legs
from sim.results.traffic import Traffic, state_exit
from sim.world import World

Direction = Literal["uplink", "downlink"]
_DIRECTIONS: tuple[Direction, Direction] = ("uplink", "downlink")

#: The links of nodes to the broker, and the broker itself, by names that no user's link can have.
BACKHAUL, BROKER = "(backhaul)", "(broker)"


@dataclass(frozen=True)
class LinkLoad:
    """The load of a kind of link.

    Attributes:
        link: its name.
        shared_by: devices on each.
        load: of the busiest link of its kind: what is sent over it, acknowledgements included,
            over what it can carry. From 1 on, messages queue up without bound. Retransmissions
            are not counted.
    """

    link: str
    direction: Direction
    shared_by: int
    load: float


def link_loads(world: World, traffic: Traffic) -> list[LinkLoad]:
    """The load of all links between devices and nodes that can only carry so much.

    Args:
        world: of one that has no nodes yet, the links of devices alone.
        traffic: messages per second.
    """
    loads = [load for name in world.links for load in _access_loads(world, name, traffic)]
    if world.mqtt is not None and world.nodes:
        loads += _mqtt_loads(world, traffic)
    return [load for load in loads if load.load > 0]


def _access_loads(world: World, name: str, traffic: Traffic) -> Iterator[LinkLoad]:
    groups = [index for index, group in enumerate(world.groups) if group.link == name]
    shared_by = world.links[name].shared_by
    for direction in _DIRECTIONS if groups else ():
        parts = []
        for group in groups:
            devices = slice(world.first_device[group], world.first_device[group + 1])
            legs = access_legs(world, group, direction)

            def seconds(exit: int, legs: list[Leg] = legs) -> float:
                leg = legs[exit]
                return carried_s(leg.forward.capacity, leg.forward_bytes, world.horizon_s)

            if direction == "uplink":
                load = traffic.images[devices] * seconds(0)
                if traffic.states[devices].any():
                    load = load + traffic.states[devices] * seconds(state_exit(world, group))
            else:
                load = traffic.answers[devices] * seconds(0)
            parts.append(load)
        load = np.concatenate(parts)
        # Devices on one link are counted one after the other, as in :mod:`sim.network.topology`.
        of_link = np.add.reduceat(load, np.arange(0, len(load), shared_by))
        yield LinkLoad(name, direction, shared_by, float(of_link.max()))


def _mqtt_loads(world: World, traffic: Traffic) -> Iterator[LinkLoad]:
    mqtt = world.mqtt
    assert mqtt is not None
    for direction in _DIRECTIONS:
        up = direction == "uplink"
        link = mqtt.backhaul.uplink if up else mqtt.backhaul.downlink
        on_backhaul = dict.fromkeys((node.name for node in world.nodes), 0.0)
        messages_hz = 0.0
        for index, group in enumerate(world.groups):
            devices = slice(world.first_device[index], world.first_device[index + 1])
            reply = mqtt.reply_packets(group.response_bytes)
            sorts = (
                [(traffic.images, 0), (traffic.states, state_exit(world, index))]
                if up
                else [(traffic.answers, 0)]
            )
            for messages, exit in sorts:
                rate_hz = float(messages[devices].sum())
                request = mqtt.request_packets(world.sent_bytes(index, exit))
                mine, other = (request, reply) if up else (reply, request)
                size = sum(mine[::2]) + sum(other[1::2])
                replicas = world.nodes[world.kind(group.node)].replicas
                seconds = carried_s(link.capacity, size, world.horizon_s)
                on_backhaul[group.node] += rate_hz / replicas * seconds
                messages_hz += rate_hz
        yield LinkLoad(BACKHAUL, direction, 1, max(on_backhaul.values()))
        yield LinkLoad(BROKER, direction, world.devices, messages_hz * mqtt.processing.mean())


def carried_s(capacity: Capacity, size_bytes: float, horizon_s: float) -> float:
    """Seconds for which ``size_bytes`` occupy a link, at the mean of a rate that varies.

    If it carries nothing all the time, that is all the time.
    """
    amount, work = float(capacity.amount(float(size_bytes))), float(capacity.work(horizon_s))
    if not amount:
        return 0.0
    return amount * horizon_s / work if work else horizon_s
