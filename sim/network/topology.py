"""The network of a world: which hops lie between its devices and its nodes."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from sim.distributions import Constant, Distribution
from sim.faults import Intervals, down_times
from sim.network.capacity import ConstantCapacity
from sim.network.hops import AbsenceHop, BrokerHop, Leg, LinkHop
from sim.network.links import Channel, Direction, Link
from sim.network.reception import Reception, ReceptionTimes
from sim.network.transport import Hop, Message, Messages, Way
from sim.policy import MOST_EXITS
from sim.streams import Streams, distinct
from sim.workload.arrivals import ClosedLoop
from sim.world import World

Indices = NDArray[np.int64]


@dataclass(frozen=True)
class Absences:
    """Who is down or away when, in one replication.

    Attributes:
        nodes: a row per node.
        broker: one row.
        links: by name, a row per link of that kind.
        devices: per group, a row per device.
        slow: (node, factor of its speed, intervals) of nodes that are slow for a time.
    """

    nodes: Intervals | None
    broker: Intervals | None
    links: dict[str, Intervals]
    devices: list[Intervals | None]
    slow: list[tuple[int, float, list[tuple[float, float]]]]


def draw_absences(world: World, streams: Streams) -> Absences:
    """Draw the faults of one replication."""
    faults, horizon_s = world.faults, world.horizon_s
    rows = []
    for node in world.nodes:
        down = down_times(faults, "node_crash", node.name, node.replicas, horizon_s, streams)
        rows += [down.of(number) if down else [] for number in range(node.replicas)]
    links = {}
    for name in world.links:
        down = down_times(faults, "link_outage", name, _links(world, name), horizon_s, streams)
        if down is not None:
            links[name] = down
    return Absences(
        nodes=Intervals.of_rows(rows),
        broker=down_times(faults, "broker_restart", "", 1, horizon_s, streams),
        links=links,
        devices=[
            down_times(faults, "device_churn", group.name, group.count, horizon_s, streams)
            for group in world.groups
        ],
        slow=_slow_times(world, streams),
    )


def _slow_times(
    world: World, streams: Streams
) -> list[tuple[int, float, list[tuple[float, float]]]]:
    found = []
    for kind, node in enumerate(world.nodes):
        slow = [it for it in world.faults if (it.kind, it.target) == ("slow_node", node.name)]
        for index, fault in enumerate(slow):
            times = down_times(
                [fault], "slow_node", node.name, node.replicas, world.horizon_s, streams, index
            )
            found += [
                (world.first_node[kind] + number, fault.factor, times.of(number))
                for number in range(node.replicas)
                if times is not None
            ]
    return found


def _links(world: World, name: str) -> int:
    """How many links of one kind there are."""
    devices = sum(group.count for group in world.groups if group.link == name)
    return -(-devices // world.links[name].shared_by)


class Dispatch:
    """Chooses, for each request that the broker hands on, the node of its pool (``$share``).

    Nodes that are down are passed over as long as another is up.
    """

    def __init__(self, world: World, streams: Streams, down: Intervals | None) -> None:
        self._kind = np.array([world.kind(group.node) for group in world.groups])
        self._first = np.array(world.first_node[:-1])
        self._replicas = np.array([node.replicas for node in world.nodes])
        self._random = world.mqtt is not None and world.mqtt.share == "random"
        self._uniforms = [streams.uniforms("share", group.name) for group in world.groups]
        self._down = down
        self._turn = [0] * len(world.nodes)

    def __call__(self, messages: Messages) -> Indices:
        """(N,) node of each message."""
        kinds = self._kind[messages.group]
        node: Indices = self._first[kinds]
        for kind in distinct(kinds):
            replicas = int(self._replicas[kind])
            if replicas == 1:
                continue
            rows = np.flatnonzero(kinds == kind)
            node[rows] += self._choose(kind, replicas, messages.where(rows))
        return node

    def choose_one(self, message: Message, at_s: float) -> int:
        """The node of one message."""
        kind = int(self._kind[message.group])
        first, replicas = int(self._first[kind]), int(self._replicas[kind])
        if replicas == 1:
            return first
        nodes = list(range(first, first + replicas))
        if self._down is not None:
            back_s = self._down.until(np.array(nodes), np.full(replicas, at_s))
            up = [node for node, back in zip(nodes, back_s.tolist(), strict=True) if back <= at_s]
            nodes = up or nodes
        if self._random:
            local, number = np.array([message.local]), np.array([message.number])
            turn = int(self._uniforms[message.group](local, number)[0] * len(nodes))
        else:
            turn = self._turn[kind] % len(nodes)
            self._turn[kind] += 1
        return nodes[turn]

    def _choose(self, kind: int, replicas: int, messages: Messages) -> Indices:
        count = len(messages)
        up = np.ones((count, replicas), dtype=bool)
        if self._down is not None:
            for number in range(replicas):
                row = np.full(count, self._first[kind] + number)
                up[:, number] = ~np.isfinite(self._down.until(row, messages.at_s))
        up[~up.any(axis=1)] = True
        there = up.sum(axis=1)
        if self._random:
            u = np.empty(count)
            for group in distinct(messages.group):
                rows = messages.group == group
                u[rows] = self._uniforms[group](messages.local[rows], messages.number[rows])
            turn = (u * there).astype(np.int64)
        else:
            turn = (self._turn[kind] + np.arange(count)) % there
            self._turn[kind] += count
        # The node whose turn it is among those that are up.
        chosen: Indices = (np.cumsum(up, axis=1) == (turn + 1)[:, None]).argmax(axis=1)
        return chosen


def ways(world: World, streams: Streams, absences: Absences) -> tuple[Way, Way]:
    """The way of requests from devices to nodes, and that of answers home."""
    mqtt = world.mqtt
    keeps = mqtt is not None and mqtt.keeps_messages
    reconnect_s = mqtt.reconnect_s if mqtt else 0.0
    nodes_down = absences.nodes.prolonged(reconnect_s) if absences.nodes else None
    dispatch = Dispatch(world, streams, nodes_down)
    up: list[Hop] = [_access(world, streams, absences, "uplink")]
    home: list[Hop] = []
    if mqtt is None:
        up.insert(0, ChooseNode(dispatch))
    else:
        broker_down = absences.broker.prolonged(reconnect_s) if absences.broker else None
        up += [
            _broker(world, streams, "broker", broker_down, dispatch),
            _backhaul(world, streams, "backhaul"),
        ]
        home += [
            _backhaul(world, streams, "backhaul.home"),
            _broker(world, streams, "broker.home", broker_down, None),
        ]
    if nodes_down is not None:
        up.append(AbsenceHop(nodes_down, lambda messages: messages.node, keeps))
    reception = reception_times(world, streams)
    if reception is not None:
        up.append(Reception(reception))
    away = _all_devices(world, absences)
    if away is not None and reconnect_s > 0:
        # A device that is back sends once it is connected again.
        up.insert(0, AbsenceHop(away.prolonged(reconnect_s), lambda m: m.device, keeps=True))
    if away is not None:
        home.append(AbsenceHop(away.prolonged(reconnect_s), lambda m: m.device, keeps))
    home.append(_access(world, streams, absences, "downlink"))
    return Way(up), Way(home)


def reception_times(world: World, streams: Streams) -> ReceptionTimes | None:
    """How long messages take at the doors of nodes; None where no node says so."""
    if all(node.overheads is None for node in world.nodes):
        return None
    receive = [
        node.overheads.receive if node.overheads else Constant(0.0) for node in world.node_specs
    ]
    return ReceptionTimes(
        receive, [streams.uniforms("receive", group.name) for group in world.groups]
    )


class ChooseNode:
    """Without a broker, the device knows its node."""

    def __init__(self, dispatch: Dispatch) -> None:
        self._dispatch = dispatch

    def through(self, messages: Messages) -> Messages:
        """See :class:`sim.network.transport.Hop`."""
        return messages.at(messages.at_s, self._dispatch(messages))

    def pass_one(self, message: Message, at_s: float) -> float:
        """See :class:`sim.network.transport.Hop`."""
        message.node = self._dispatch.choose_one(message, at_s)
        return at_s

    def travel(self, group: int, exit: int) -> tuple[float, list[Distribution]]:
        """See :class:`sim.network.transport.Hop`."""
        return 0.0, []


def _all_devices(world: World, absences: Absences) -> Intervals | None:
    rows: list[list[tuple[float, float]]] = []
    for group, away in zip(world.groups, absences.devices, strict=True):
        rows += [away.of(number) if away else [] for number in range(group.count)]
    return Intervals.of_rows(rows)


def _exits(world: World, group: int) -> range:
    """The exits after which requests of a group may be sent."""
    return range(MOST_EXITS + 1 if world.groups[group].service is not None else 1)


def access_legs(world: World, group: int, name: str) -> list[Leg]:
    """What messages of a group take on their devices' link, by the last exit before."""
    link, mqtt = world.links[world.groups[group].link], world.mqtt
    # Neither another request nor another answer comes on the connection of such a device.
    alone = isinstance(world.groups[group].arrivals, ClosedLoop)
    one_at_a_time = mqtt is not None and mqtt.qos > 0 and mqtt.inflight == 1
    alone |= name == "uplink" and one_at_a_time
    return [replace(leg, alone=alone) for leg in _legs(world, group, link, name, name == "uplink")]


def _legs(world: World, group: int, link: Link, name: str, up: bool) -> list[Leg]:
    """What requests of a group, or if not ``up`` their answers, take on ``link``, likewise."""
    mqtt = world.mqtt
    forward, back = (link.uplink, link.downlink) if up else (link.downlink, link.uplink)
    legs = []
    for exit in _exits(world, group) if up else range(1):
        request, reply = world.sent_bytes(group, exit), world.groups[group].response_bytes
        if mqtt is None:
            legs.append(Leg(name, forward, back, (request if up else reply,)))
            continue
        mine, other = mqtt.request_packets(request), mqtt.reply_packets(reply)
        if not up:
            mine, other = other, mine
        acks = other[1::2]
        legs.append(Leg(name, forward, back, mine, mqtt.trips_to_act, sum(acks), len(acks)))
    return legs


def _access(world: World, streams: Streams, absences: Absences, name: str) -> LinkHop:
    kinds = list(world.links)
    up = name == "uplink"
    channels = []
    on_kind = dict.fromkeys(kinds, 0)
    # Of each device, which link of its kind it takes.
    link_of = np.zeros(world.devices, dtype=np.int64)
    for index, group in enumerate(world.groups):
        devices = np.arange(group.count) + on_kind[group.link]
        first = world.first_device[index]
        shared_by = world.links[group.link].shared_by
        link_of[first : first + group.count] = devices // shared_by
        on_kind[group.link] += group.count
    for kind in kinds:
        link = world.links[kind]
        direction = link.uplink if up else link.downlink
        queues = max(1, _links(world, kind))
        channels.append(Channel(direction, queues, world.devices, absences.links.get(kind)))
    return LinkHop(
        streams,
        [group.name for group in world.groups],
        [access_legs(world, index, name) for index in range(len(world.groups))],
        channels,
        [kinds.index(group.link) for group in world.groups],
        lambda messages: link_of[messages.device],
        lambda messages: messages.device,
    )


def _backhaul(world: World, streams: Streams, name: str) -> LinkHop:
    """Between the broker and the nodes, each with a link of its own."""
    mqtt = world.mqtt
    assert mqtt is not None
    up = name == "backhaul"
    link = mqtt.backhaul
    forward = link.uplink if up else link.downlink
    nodes = len(world.node_names)
    return LinkHop(
        streams,
        [group.name for group in world.groups],
        [_legs(world, index, link, name, up) for index in range(len(world.groups))],
        [Channel(forward, nodes, nodes)],
        [0] * len(world.groups),
        lambda messages: messages.node,
        lambda messages: messages.node,
    )


def _broker(
    world: World, streams: Streams, name: str, down: Intervals | None, dispatch: Dispatch | None
) -> BrokerHop:
    mqtt = world.mqtt
    assert mqtt is not None
    # Work is counted in seconds, of which one at a time passes.
    channel = Channel(Direction(Constant(0.0), ConstantCapacity(1.0)), 1, 1)
    groups = [group.name for group in world.groups]
    return BrokerHop(name, streams, groups, mqtt.processing, channel, dispatch, down, mqtt.qos > 0)
