"""Links: transmission, travel, and order as TCP keeps it.

A message occupies its link for its size over the bandwidth, then travels for a delay, during which
the next may already be sent. Devices have a link each, or share one where they are on one access
point. Lost packets delay a message, since MQTT runs on TCP; so does an outage. On one connection,
no message overtakes one sent before it.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from sim.capacity import Capacity, ConstantCapacity, finished_s
from sim.distributions import Constant, Distribution, Floats
from sim.retransmission import TcpLoss


@dataclass(frozen=True)
class Direction:
    """One direction of a link.

    Attributes:
        delay: one-way, in seconds, drawn anew for every message.
        capacity: what it carries over time.
        loss: of packets; None if none is lost.
        rtt_s: mean round trip, after which TCP notices a lost packet.
    """

    delay: Distribution = field(default_factory=lambda: Constant(0.0))
    capacity: Capacity = field(default_factory=lambda: ConstantCapacity(float("inf")))
    loss: TcpLoss | None = None
    rtt_s: float = 0.0

    def delays(self, u: Floats, u_loss: Floats, size_bytes: int | NDArray[np.int64]) -> Floats:
        """Travel times of messages, retransmissions included.

        Args:
            u, u_loss: (N,) uniform numbers that choose the delay and what is lost.
            size_bytes: of each message.
        """
        delays = self.delay.ppf(u)
        if self.loss is not None:
            segments = self.loss.segments(size_bytes)
            delays = delays + self.loss.delay_s(u_loss, segments, self.rtt_s)
        return delays

    @property
    def draws_delay(self) -> bool:
        """Whether delays differ from message to message."""
        return self.loss is not None or not isinstance(self.delay, Constant)


@dataclass(frozen=True)
class Link:
    """Both directions of a link.

    Attributes:
        shared_by: devices on one access point, which compete for its bandwidth.
    """

    uplink: Direction = field(default_factory=Direction)
    downlink: Direction = field(default_factory=Direction)
    shared_by: int = 1


class Channel:
    """One direction of links in one run: their queues, and the order of their connections.

    Args:
        queues: links of this kind, each a queue of its own.
        flows: connections over them.
    """

    def __init__(self, direction: Direction, queues: int, flows: int) -> None:
        self.direction = direction
        self._capacity = direction.capacity
        # Messages that occupy nothing and all take the same time keep their order by themselves.
        self._occupied = not (
            isinstance(direction.capacity, ConstantCapacity) and direction.capacity.amount(1) == 0.0
        )
        self._reorders = direction.draws_delay
        self._free = np.full(queues if self._occupied else 0, -np.inf)
        self._last = np.full(flows if self._reorders else 0, -np.inf)

    def arrivals(
        self,
        sent_s: Floats,
        queue: NDArray[np.int64],
        flow: NDArray[np.int64],
        amount: Floats,
        delay_s: Floats,
    ) -> Floats:
        """When messages arrive.

        Args:
            sent_s: (N,) ascending; no message of an earlier call was sent later.
            queue: (N,) which link each message takes.
            flow: (N,) its connection.
            amount: (N,) what it takes of the capacity.
            delay_s: (N,) its travel.
        """
        on_the_way = sent_s
        if self._occupied:
            on_the_way = self._transmitted(sent_s, queue, amount)
        arrived: Floats = on_the_way + delay_s
        if self._reorders:
            order = np.argsort(flow, kind="stable")
            keys = flow[order]
            in_order = running_maximum(arrived[order], keys, self._last)
            arrived[order] = in_order
        return arrived

    def arrival(self, sent_s: float, queue: int, flow: int, amount: float, delay_s: float) -> float:
        """As :meth:`arrivals`, of one message."""
        on_the_way = sent_s
        if self._occupied:
            free = max(float(self._capacity.work(sent_s)), float(self._free[queue])) + amount
            self._free[queue] = free
            on_the_way = finished_s(self._capacity, sent_s, free)
        arrived = on_the_way + delay_s
        if self._reorders:
            arrived = max(arrived, float(self._last[flow]))
            self._last[flow] = arrived
        return arrived

    def _transmitted(self, sent_s: Floats, queue: NDArray[np.int64], amount: Floats) -> Floats:
        """When the link is free again after each message: Lindley's recursion, in one pass.

        In units of work, ``free[i] = max(sent[i], free[i - 1]) + amount[i]``. Less the amounts
        before, that is a running maximum.
        """
        order = np.argsort(queue, kind="stable")
        keys, amounts = queue[order], amount[order]
        work = self._capacity.work(sent_s[order])
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
        finished: Floats = np.empty_like(sent_s)
        finished[order] = finished_s(self._capacity, sent_s[order], free)
        return finished


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
