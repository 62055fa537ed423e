"""Any other world: messages are followed as events, one by one and hop by hop.

Where devices wait for answers, compute themselves, or may only have so many messages on the way,
what happens at a node changes what is sent later.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections import deque
from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from sim.clock import Call
from sim.network.hops import LinkHop
from sim.network.transport import Message
from sim.nodes.node import Node
from sim.nodes.requests import NEVER, Request
from sim.nodes.spec import NodeSpec
from sim.outcomes import LOST
from sim.results.run import Run
from sim.running.closed_loop import ClosedLoops
from sim.running.engine import Engine
from sim.running.finished import Finished
from sim.running.ledger import Ledger
from sim.workload.arrivals import ClosedLoop
from sim.workload.device_groups import Row, in_order_of_creation, requests_of, rows_of


class Stepwise(Engine):
    """Messages are followed one by one, hop by hop."""

    def parts(self) -> Iterator[Run]:
        """The whole run, in one part: there are no slices."""
        world = self.world
        self._devices = self._computing_devices()
        self._groups = self.workload.groups()
        self._created: list[Row] = []
        self._coming = iter(self._open_requests())
        self._next_open()
        self._loops = {
            index: ClosedLoops(group, self._groups[index], self.workload.streams)
            for index, group in enumerate(world.groups)
            if isinstance(group.arrivals, ClosedLoop)
        }
        for index, loops in self._loops.items():
            for local in range(world.groups[index].count):
                self._think(index, local, 0.0, loops)
        mqtt = world.mqtt
        self._inflight: float = math.inf
        if mqtt is not None and mqtt.inflight is not None and mqtt.qos > 0:
            self._inflight = mqtt.inflight
        #: The hop over the devices' own link, at which the inflight window is kept.
        self._link = [isinstance(hop, LinkHop) for hop in self.way_up.hops].index(True)
        self._unacknowledged = [0] * world.devices
        self._held: dict[int, deque[Message]] = {}
        self._requests: dict[int, Request] = {}
        self.clock.run()
        ledger = Ledger()
        ledger.add(0, requests_of(self._created))
        self.note_arrivals(ledger)
        pool = Finished.of(self.done, has_tiers=True, has_batches=self.has_batches)
        received_s = np.where(pool.outcome < 0, pool.home_s, np.nan)
        pool = Finished.joined([replace(pool, received_s=received_s)])
        yield self.outcomes(ledger, pool)

    def _computing_devices(self) -> dict[int, Node]:
        """The devices that compute, each a node of its own, by their number."""
        nodes = {}
        for position, device in enumerate(self.world.computing_devices.tolist()):
            index = bisect_right(self.world.first_device, device) - 1
            group = self.world.groups[index]
            assert group.service is not None
            name = self.world.device_name(device)
            spec = NodeSpec(name, 1, group.service, next_tier=group.node, last_exit=group.last_exit)
            node = self.node(spec, name, len(self.nodes) + position, self._policy)
            node.next_tier = self.next_tier(group.node, self._round_trip_s)
            nodes[device] = node
        return nodes

    def _round_trip_s(self, group: int, exit: int, quantile: float) -> float:
        return self.way_up.quantile_s(group, quantile, exit) + self.way_home.quantile_s(
            group, quantile
        )

    def way_home_s(self, node: Node, group: int, quantile: float) -> float:
        """See :class:`sim.nodes.node.Site`: a device is at home."""
        if node.index >= len(self.nodes):
            return 0.0
        return super().way_home_s(node, group, quantile)

    # --- creation ------------------------------------------------------------------------------

    def _open_requests(self) -> Iterator[Row]:
        requests = in_order_of_creation(
            [group.until(self.world.horizon_s) for group in self._groups]
        )
        return rows_of(requests)

    def _next_open(self) -> None:
        row = next(self._coming, None)
        if row is not None:
            self.clock.call_at(row[4], self._created_open, row)

    def _created_open(self, call: Call) -> None:
        self._next_open()
        self._create(call.value)

    def _think(self, group: int, local: int, from_s: float, loops: ClosedLoops) -> None:
        """A device of a closed loop thinks, then sends its next request."""
        row = loops.next(local, from_s)
        if row[4] < self.world.horizon_s:
            self.clock.call_at(max(row[4], self.clock._now), self._created_closed, row)

    def _created_closed(self, call: Call) -> None:
        self._create(call.value)

    def _create(self, row: Row) -> None:
        group, device, _, _, created_s, deadline_s, sample, _ = row
        index = len(self._created)
        self._created.append(row)
        request = Request(
            index,
            group,
            0,
            sample,
            created_s + deadline_s * self.deadline_scale,
            NEVER,
            None,
            self.world.groups[group].priority,
        )
        request.node = self.nodes[
            self.world.first_node[self.world.kind(self.world.groups[group].node)]
        ]
        computing = self._devices.get(device)
        if computing is not None:
            request.entry = computing.index
            self.enter(request, computing)
        else:
            self._send(request)

    # --- the way up ----------------------------------------------------------------------------

    def sent_on(self, request: Request) -> None:
        """See :class:`sim.nodes.node.Site`."""
        if request.node.index >= len(self.nodes):
            self._send(request)
        else:
            super().sent_on(request)

    def _message(self, request: Request, node: int, exit: int) -> Message:
        group, device, local, number, *_ = self.row(request)
        return Message(request.index, group, device, local, number, node, exit)

    def row(self, request: Request) -> Row:
        """See :class:`sim.running.engine.Engine`."""
        return self._created[request.index]

    def _send(self, request: Request) -> None:
        """A device sends a request."""
        self._requests[request.index] = request
        self._up(self._message(request, 0, request.exit), 0)

    def _may_publish(self, message: Message) -> bool:
        """Whether the device has room for another message without an acknowledgement."""
        if self._unacknowledged[message.device] < self._inflight:
            return True
        self._held.setdefault(message.device, deque()).append(message)
        return False

    def _publish(self, message: Message) -> None:
        self._unacknowledged[message.device] += 1
        link = self.way_up.hops[self._link]
        assert isinstance(link, LinkHop)
        at_broker_s = link.pass_one(message, self.clock._now)
        known_s = at_broker_s + link.acknowledged_s(message)
        self.clock.call_at(known_s, self._acknowledged, message.device)
        self.clock.call_at(at_broker_s, self._at_hop, (message, self._link + 1))

    def _acknowledged(self, call: Call) -> None:
        device = call.value
        self._unacknowledged[device] -= 1
        held = self._held.get(device)
        if held:
            self._publish(held.popleft())

    def _up(self, message: Message, hop: int) -> None:
        """Through one hop after the other, as soon as a message is at its beginning."""
        hops = self.way_up.hops
        if hop == len(hops):
            request = self._requests.pop(message.request)
            request.entry = message.node
            self.enter(request, self.nodes[message.node])
            return
        if hop == self._link and self._inflight < math.inf:
            if self._may_publish(message):
                self._publish(message)
            return
        at_s = hops[hop].pass_one(message, self.clock._now)
        if at_s == math.inf:
            request = self._requests.pop(message.request)
            request.outcome = LOST
            request.entry, request.node = message.node, self.nodes[message.node]
            self.refused(request)
            return
        self.clock.call_at(at_s, self._at_hop, (message, hop + 1))

    def _at_hop(self, call: Call) -> None:
        message, hop = call.value
        self._up(message, hop)

    # --- the way home --------------------------------------------------------------------------

    def answered(self, request: Request) -> None:
        """See :class:`sim.nodes.node.Site`."""
        if request.node.index >= len(self.nodes):
            self._received(request)
        else:
            super().answered(request)

    def home_from(self, request: Request) -> None:
        """See :class:`sim.running.engine.Engine`: hop by hop."""
        self._home(self._message(request, request.entry, 0), 0, request)

    def _home(self, message: Message, hop: int, request: Request) -> None:
        hops = self.way_home.hops
        if hop == len(hops):
            self._received(request)
            return
        at_s = hops[hop].pass_one(message, self.clock._now)
        if at_s == math.inf:
            request.outcome = LOST
            self.refused(request)
        else:
            self.clock.call_at(at_s, self._home_hop, (message, hop + 1, request))

    def _home_hop(self, call: Call) -> None:
        self._home(*call.value)

    def _received(self, request: Request) -> None:
        request.home_s = self.clock._now
        self.done.append(request)
        self._go_round(request, self.clock._now)

    def refused(self, request: Request) -> None:
        """See :class:`sim.nodes.node.Site`.

        A device that hears nothing gives up at its deadline.
        """
        self.done.append(request)
        self._go_round(request, max(self.clock._now, request.deadline_at_s))

    def _go_round(self, request: Request, from_s: float) -> None:
        loops = self._loops.get(request.group)
        if loops is not None:
            self._think(request.group, self.row(request)[2], from_s, loops)
