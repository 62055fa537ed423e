"""Links: transmission, travel, and order as TCP keeps it.

A message occupies its link for its size over the bandwidth, then travels for a delay, during which
the next may already be sent. Devices have a link each, or share one where they are on one access
point. Lost packets delay a message, since MQTT runs on TCP; so do its congestion window and an
outage. On one connection, no message overtakes one sent before it.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from sim.distributions import Constant, Distribution, Floats
from sim.faults import Intervals
from sim.network.capacity import (
    Capacity,
    ConstantCapacity,
    InterruptedLinks,
    finished_s,
    with_outages,
)
from sim.network.congestion import CONTROLS, CongestionControl
from sim.network.retransmission import TcpLoss
from sim.network.tcp_senders import Crossing, Senders


@dataclass(frozen=True)
class Direction:
    """One direction of a link.

    Attributes:
        delay: one-way, in seconds, drawn anew for every message.
        capacity: what it carries over time.
        loss: of packets; None if none is lost.
        rtt_s: mean round trip, after which TCP notices a lost packet, and sends on when its
            congestion window is full.
        control: of that window.
    """

    delay: Distribution = field(default_factory=lambda: Constant(0.0))
    capacity: Capacity = field(default_factory=lambda: ConstantCapacity(float("inf")))
    loss: TcpLoss | None = None
    rtt_s: float = 0.0
    control: CongestionControl = CONTROLS["cubic"]

    def repairs_s(self, u_loss: Floats, segments: int) -> Floats:
        """(N,) seconds that losses delay what is sent at once, with nothing after it."""
        delays = np.zeros(len(u_loss))
        if self.loss is not None:
            for row in np.flatnonzero(u_loss >= self.loss.nothing_lost(segments)):
                repair, _ = self.loss.draw(float(u_loss[row]), segments, more=False)
                if repair is not None:
                    delays[row] = self.loss.repair_s(repair, segments, self.rtt_s)
        return delays

    @property
    def draws_delay(self) -> bool:
        """Whether delays differ from message to message."""
        return self.loss is not None or not isinstance(self.delay, Constant)


@dataclass(frozen=True)
class Travels:
    """What messages bring to a link besides what they occupy of it; arrays (N,).

    Attributes:
        delay_s: seconds on the way.
        u_loss: uniform numbers that choose what is lost of them.
        segments: of TCP.
        alone: whether their senders wait for an answer before they send the next.
    """

    delay_s: Floats
    u_loss: Floats
    segments: NDArray[np.int64]
    alone: NDArray[np.bool_]

    @staticmethod
    def of(delay_s: Floats) -> Travels:
        """Of messages of one segment, of which nothing is lost."""
        count = len(delay_s)
        ones = np.ones(count, dtype=np.int64)
        return Travels(delay_s, np.zeros(count), ones, np.zeros(count, dtype=bool))


@dataclass(frozen=True)
class Link:
    """Both directions of a link.

    Attributes:
        shared_by: devices on one access point, which compete for its bandwidth.
    """

    uplink: Direction = field(default_factory=Direction)
    downlink: Direction = field(default_factory=Direction)
    shared_by: int = 1


#: What is left of a message when the link has begun with it: no more than that, so that rounding
#: does not decide whether one that comes as an outage begins has begun before it.
_BEGUN = 1 - 1e-9


class Channel:
    """One direction of links in one run: their queues, and the order of their connections.

    Args:
        queues: links of this kind, each a queue of its own.
        flows: connections over them.
        outages: of each link, when it carries nothing; None if that is never.
    """

    def __init__(
        self, direction: Direction, queues: int, flows: int, outages: Intervals | None = None
    ) -> None:
        self.direction = direction
        self._outages = outages
        #: Where all links are alike, that of each.
        self._capacity = direction.capacity
        self._interrupted: InterruptedLinks | None = None
        self._of_links: dict[int, Capacity] = {}
        if outages is not None and outages.are_alike:
            self._capacity = with_outages(direction.capacity, outages.of(0))
        elif outages is not None:
            self._interrupted = InterruptedLinks(direction.capacity, outages.start_s, outages.end_s)
        # Messages that occupy nothing and all take the same time keep their order by themselves.
        self._occupied = outages is not None or not (
            isinstance(direction.capacity, ConstantCapacity) and direction.capacity.amount(1) == 0.0
        )
        at_once = direction.loss is None and direction.rtt_s == 0
        self._senders = (
            None if at_once else Senders(direction.control, direction.rtt_s, direction.loss, flows)
        )
        self._reorders = direction.draws_delay
        self._free = np.full(queues if self._occupied else 0, -np.inf)
        reorders = self._reorders or self._senders is not None
        self._last = np.full(flows if reorders else 0, -np.inf)

    def arrivals(
        self,
        sent_s: Floats,
        queue: NDArray[np.int64],
        flow: NDArray[np.int64],
        amount: Floats,
        travels: Travels,
    ) -> Floats:
        """When messages arrive.

        Args:
            sent_s: (N,) ascending; no message of an earlier call was sent later.
            queue: (N,) which link each message takes.
            flow: (N,) its connection.
            amount: (N,) what it takes of the capacity.
        """
        end_s = sent_s
        if self._occupied:
            through = self._through(sent_s, queue, amount)
            end_s = self._finished(queue, sent_s, through)
        arrived: Floats = end_s + travels.delay_s
        waits = self._senders is not None and self._senders.may_delay(travels.segments)
        self._reorders |= waits
        if not self._reorders:
            return arrived
        order = np.argsort(flow, kind="stable")
        keys = flow[order]
        if self._senders is not None and waits:
            begin_s = sent_s
            if self._occupied:
                begun = through - _BEGUN * amount
                begin_s = np.minimum(self._finished(queue, sent_s, begun), end_s)
            arrived[order] += self._senders.delays(
                keys,
                begin_s[order],
                end_s[order],
                travels.segments[order],
                travels.u_loss[order],
                travels.alone[order],
            )
        arrived[order] = running_maximum(arrived[order], keys, self._last)
        return arrived

    def arrival(
        self,
        sent_s: float,
        queue: int,
        flow: int,
        amount: float,
        delay_s: float,
        u_loss: float = 0.0,
        segments: int = 1,
        alone: bool = False,
    ) -> float:
        """As :meth:`arrivals`, of one message."""
        begin_s = end_s = sent_s
        capacity = self._of_one(queue)
        if self._occupied:
            free = max(float(capacity.work(sent_s)), float(self._free[queue])) + amount
            self._free[queue] = free
            end_s = finished_s(capacity, sent_s, free)
        arrived = end_s + delay_s
        if self._senders is not None and self._senders.may_delay(segments):
            if self._occupied:
                begun = free - _BEGUN * amount
                begin_s = min(finished_s(capacity, sent_s, begun), end_s)
            message = Crossing(begin_s, end_s, segments, u_loss, alone)
            arrived += self._senders.delay(flow, message)
            self._reorders = True
        if self._reorders:
            arrived = max(arrived, float(self._last[flow]))
            self._last[flow] = arrived
        return arrived

    def _finished(self, queue: NDArray[np.int64], sent_s: Floats, work: Floats) -> Floats:
        if self._interrupted is None:
            return finished_s(self._capacity, sent_s, work)
        return self._interrupted.finished_s(queue, sent_s, work)

    def _work(self, queue: NDArray[np.int64], time_s: Floats) -> Floats:
        if self._interrupted is None:
            return self._capacity.work(time_s)
        return self._interrupted.work(queue, time_s)

    def _of_one(self, queue: int) -> Capacity:
        """The capacity of one link."""
        if self._interrupted is None:
            return self._capacity
        assert self._outages is not None
        known = self._of_links.get(queue)
        if known is None:
            known = with_outages(self.direction.capacity, self._outages.of(queue))
            self._of_links[queue] = known
        return known

    def _through(self, sent_s: Floats, queue: NDArray[np.int64], amount: Floats) -> Floats:
        """Work at which the link is free again after messages: Lindley's recursion, in one pass.

        In units of work, ``free[i] = max(sent[i], free[i - 1]) + amount[i]``. Less the amounts
        before, that is a running maximum.
        """
        order = np.argsort(queue, kind="stable")
        keys, amounts = queue[order], amount[order]
        work = self._work(keys, sent_s[order])
        first = np.flatnonzero(np.r_[True, keys[1:] != keys[:-1]])
        total = np.cumsum(amounts)
        # Sums start anew in each queue, so that many queues do not cost digits.
        before_queue = np.repeat(total[first] - amounts[first], np.diff(np.r_[first, len(keys)]))
        through = total - before_queue
        before = self._free
        ready = running_maximum(work - (through - amounts), keys, before)
        free = ready + through
        last = np.r_[first[1:] - 1, len(keys) - 1]
        self._free[keys[last]] = free[last]
        work_through: Floats = np.empty_like(sent_s)
        work_through[order] = free
        return work_through


def running_maximum(values: Floats, keys: NDArray[np.int64], last: Floats) -> Floats:
    """Running maximum within runs of equal ``keys``, going on from ``last``, which is updated.

    Args:
        values: (N,)
        keys: (N,) ascending.
        last: per key, the maximum so far.
    """
    if not len(values):
        return values
    first = np.flatnonzero(np.r_[True, keys[1:] != keys[:-1]])
    values = values.copy()
    values[first] = np.maximum(values[first], last[keys[first]])
    falls = (values[1:] < values[:-1]) & (keys[1:] == keys[:-1])
    if falls.any():
        if len(first) == 1:
            values = np.maximum.accumulate(values)
        else:
            # Ranks are whole numbers, so that a step of N per run keeps runs apart exactly.
            order = np.argsort(values, kind="stable")
            rank = np.empty(len(values), dtype=np.int64)
            rank[order] = np.arange(len(values))
            run = np.zeros(len(values), dtype=np.int64)
            run[first[1:]] = 1
            step = np.cumsum(run) * len(values)
            values = values[order[np.maximum.accumulate(rank + step) - step]]
    ends = np.r_[first[1:] - 1, len(keys) - 1]
    last[keys[ends]] = values[ends]
    return values
