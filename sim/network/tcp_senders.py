"""TCP's senders: how long messages wait for the congestion window, and for what was lost.

A message within the window travels at once, a longer one in flights, about a round trip apart.

What the timer would repair (:mod:`sim.network.retransmission`), the next message of the connection
repairs a round trip after it was sent, if that is sooner: its acknowledgement tells of the loss
(RFC 8985). When it will be sent is not known yet; it is taken to come after as long a time as this
one came after the last. So the delay is that of a stream whose intervals are independent and alike,
and exact where they are equal. A message whose sender waits for its answer is followed by none.

On connections that lose nothing, messages of no more than the first window go at once.

Left out: that small messages which wait for the window share segments.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sim.distributions import Floats
from sim.network.congestion import INITIAL_WINDOW, CongestionControl, Notice, Sender
from sim.network.retransmission import NO_LOSS, REORDERING_WINDOW, Repair, TcpLoss

Indices = NDArray[np.int64]


@dataclass(frozen=True)
class Crossing:
    """One message on a link, as TCP sees it.

    Attributes:
        begin_s: when the link is free for it; no earlier than that of its connection's last.
        end_s: when the link is free again, if nothing keeps the sender from sending.
        segments: of it.
        u_loss: a uniform number that chooses what is lost.
        alone: whether its sender waits for an answer before it sends the next.
    """

    begin_s: float
    end_s: float
    segments: int
    u_loss: float
    alone: bool


#: Instants are known to a nanosecond. What is computed of them follows from comparisons, in which
#: one that was computed in another order must not come before itself.
_PER_S = 1e9


def _known(instant_s: float) -> float:
    return round(instant_s * _PER_S) / _PER_S if math.isfinite(instant_s) else instant_s


def _holds(window: Any, threshold: Any, segments: Any) -> Any:
    """Whether windows with nothing under way hold messages, and stay as they are; alike shapes."""
    full = (segments < np.floor(window)) & (window <= INITIAL_WINDOW)
    return full & ((window >= threshold) | (window >= 2 * segments))


class Senders:
    """The senders of all connections over one direction of links, in one run.

    Most messages find nothing under way and a window that holds them, and lose nothing: they go at
    once, and leave their sender as it was. Those are told apart for many at once; the others are
    followed one by one.

    Args:
        rtt_s: round trip.
        loss: of segments; None: none is lost.
        flows: connections.
    """

    def __init__(
        self, control: CongestionControl, rtt_s: float, loss: TcpLoss | None, flows: int
    ) -> None:
        self._control = control
        self._rtt_s = rtt_s
        self._loss = loss or NO_LOSS
        self._rto_s = self._loss.rto_s(rtt_s)
        self._flows = flows
        self._under_way: dict[int, Sender] = {}
        # Of each connection, and only if one of them needs it: the window and its threshold while
        # no sender is followed; of the last message, when it began, when all of it was sent, when
        # it is acknowledged, and its segments.
        self._window, self._threshold = np.zeros((2, 0))
        self._begun_s, self._sent_s, self._clear_s = np.zeros((3, 0))
        self._segments = np.zeros(0, dtype=np.int64)

    def may_delay(self, segments: int | Indices) -> bool:
        """Whether any of these messages may have to wait."""
        return self._loss.loss > 0 or bool(np.max(segments, initial=0) > INITIAL_WINDOW)

    def _use(self) -> None:
        if not len(self._window):
            self._window = np.full(self._flows, float(INITIAL_WINDOW))
            self._threshold = np.full(self._flows, math.inf)
            self._begun_s, self._sent_s, self._clear_s = np.full((3, self._flows), -math.inf)
            self._segments = np.zeros(self._flows, dtype=np.int64)

    def delays(
        self,
        flow: Indices,
        begin_s: Floats,
        end_s: Floats,
        segments: Indices,
        u_loss: Floats,
        alone: NDArray[np.bool_],
    ) -> Floats:
        """(N,) seconds for which messages are delayed; see :class:`Crossing`.

        Args:
            flow: (N,) their connections, ascending; messages of each in the order of time.
        """
        delays = np.zeros(len(flow))
        rows = np.flatnonzero((segments > INITIAL_WINDOW) | (self._loss.loss > 0))
        if len(rows):
            self._use()
            begin_s, end_s = (np.rint(it[rows] * _PER_S) / _PER_S for it in (begin_s, end_s))
            delays[rows] = self._in_order(
                flow[rows], begin_s, end_s, segments[rows], u_loss[rows], alone[rows]
            )
        return delays

    def _in_order(
        self,
        flow: Indices,
        begin_s: Floats,
        end_s: Floats,
        segments: Indices,
        u_loss: Floats,
        alone: NDArray[np.bool_],
    ) -> Floats:
        """As :meth:`delays`, of messages that may be delayed."""
        leaves = np.isfinite(end_s)
        width_s = np.subtract(end_s, begin_s, out=np.zeros(len(flow)), where=leaves)
        clear_s = begin_s + width_s / segments + self._rtt_s
        first = np.r_[True, flow[1:] != flow[:-1]]
        starts = np.flatnonzero(first)
        before_s = np.where(first, self._clear_s[flow], np.r_[-np.inf, clear_s[:-1]])
        # As far as can be told without what the sender was through before.
        at_once = (u_loss < self._loss.nothing_lost(segments)) & (begin_s >= before_s) & leaves
        most = np.maximum.reduceat(segments, starts)
        flows, stops = flow[starts], np.r_[starts[1:], len(flow)]
        calm = np.logical_and.reduceat(at_once, starts)
        calm &= _holds(self._window[flows], self._threshold[flows], most)
        calm &= ~np.isin(flows, list(self._under_way))
        last = stops[calm] - 1
        self._note(flows[calm], begin_s[last], end_s[last], clear_s[last], segments[last])

        delays = np.zeros(len(flow))
        not_at_once = np.r_[np.flatnonzero(~at_once), len(flow)]
        for index in np.flatnonzero(~calm).tolist():
            of, row, stop = int(flows[index]), int(starts[index]), int(stops[index])
            while row < stop:
                if self._settled(of, float(begin_s[row]), int(most[index])):
                    until = min(int(not_at_once[np.searchsorted(not_at_once, row)]), stop)
                    if until > row:
                        at = until - 1
                        self._note(of, begin_s[at], end_s[at], clear_s[at], segments[at])
                        row = until
                        continue
                message = Crossing(
                    *(it[row].item() for it in (begin_s, end_s, segments, u_loss, alone))
                )
                delays[row] = self._followed(of, message)
                row += 1
        return delays

    def _note(
        self, flow: int | Indices, begin_s: Any, end_s: Any, clear_s: Any, segments: Any
    ) -> None:
        """The last message of a connection, or of several, which went at once."""
        self._begun_s[flow], self._sent_s[flow] = begin_s, end_s
        self._clear_s[flow], self._segments[flow] = clear_s, segments

    def delay(self, flow: int, message: Crossing) -> float:
        """Seconds for which one message is delayed by its window and by what is lost of it.

        Args:
            flow: its connection.
        """
        count = message.segments
        if not self._loss.loss and count <= INITIAL_WINDOW:
            return 0.0
        self._use()
        begin_s, end_s = _known(message.begin_s), _known(message.end_s)
        at_once = (
            self._settled(flow, begin_s, count)
            and begin_s >= self._clear_s[flow]
            and message.u_loss < self._loss.nothing_lost(count)
            and math.isfinite(end_s)
        )
        if not at_once:
            return self._followed(flow, replace(message, begin_s=begin_s, end_s=end_s))
        clear_s = begin_s + (end_s - begin_s) / count + self._rtt_s
        self._note(flow, begin_s, end_s, clear_s, count)
        return 0.0

    def _settled(self, flow: int, now_s: float, segments: int) -> bool:
        """Whether a sender has heard of all that it followed, and its window holds a message."""
        sender = self._under_way.get(flow)
        if sender is not None:
            sender.hear(now_s)
            if not sender.idle:
                return False
            self._window[flow], self._threshold[flow] = sender.window, sender.threshold
            self._clear_s[flow] = -math.inf
            del self._under_way[flow]
        return bool(_holds(self._window[flow], self._threshold[flow], segments))

    def _followed(self, flow: int, message: Crossing) -> float:
        """As :meth:`delay`, of a message that may not go at once."""
        if math.isinf(message.end_s):
            return 0.0  # and never arrives
        sender = self._follow(flow, message.begin_s)
        segment_s = (message.end_s - message.begin_s) / message.segments
        next_s = math.inf if message.alone else 2 * message.begin_s - float(self._begun_s[flow])
        # Behind what its connection has not sent yet.
        now_s = max(message.begin_s, float(self._sent_s[flow]))
        left, u, there_s = message.segments, message.u_loss, message.end_s
        while left:
            sender.hear(now_s)
            flight = min(sender.room, left)
            if not flight:
                now_s = max(now_s, sender.next_s())
                continue
            left -= flight
            sender.send(flight, left > 0)
            repair, u = self._loss.draw(u, flight, left > 0) if self._loss.loss else (None, u)
            # The first acknowledgement lets the next segment go, and the others follow as the link
            # lets them.
            first_s, late_s = now_s + segment_s, 0.0
            sender.will_hear(Notice(first_s + self._rtt_s, flight - (repair is not None)))
            if repair is not None:
                late_s, noticed = self._repair(repair, flight, next_s - now_s)
                for after_s, timeout in noticed:
                    sender.will_hear(Notice(first_s + after_s, 0, now_s, timeout))
                fast = any(not timeout for _, timeout in noticed)
                sender.will_hear(Notice(first_s + self._rtt_s + late_s, 1, recovered=fast))
            now_s += flight * segment_s
            there_s = max(there_s, now_s + late_s)
        self._begun_s[flow], self._sent_s[flow] = message.begin_s, now_s
        return there_s - message.end_s

    def _follow(self, flow: int, now_s: float) -> Sender:
        """The sender of a connection, with what it has under way."""
        sender = self._under_way.get(flow)
        if sender is None:
            window = float(self._window[flow])
            timeouts = (now_s - float(self._sent_s[flow])) / self._rto_s
            if timeouts > 1 and window > INITIAL_WINDOW:
                window = max(window / 2.0 ** min(int(timeouts), 60), float(INITIAL_WINDOW))
            sender = Sender(self._control, window, float(self._threshold[flow]))
            if self._clear_s[flow] > now_s:
                count = int(self._segments[flow])
                sender.send(count, False)
                sender.will_hear(Notice(float(self._clear_s[flow]), count))
            self._under_way[flow] = sender
        return sender

    def _repair(
        self, repair: Repair, segments: int, next_s: float
    ) -> tuple[float, list[tuple[float, bool]]]:
        """How late a flight is there, and when its sender notices losses, by the timer or not.

        Args:
            next_s: from when it is sent until the next message is.
        """
        loss, rtt_s = self._loss, self._rtt_s
        first_s, timeouts = loss.first_s(repair.fast, segments, rtt_s), repair.timeouts
        noticed = [(rtt_s, False)]
        if not repair.fast:
            by_next_s = max(next_s, REORDERING_WINDOW * rtt_s) + rtt_s
            if by_next_s >= first_s + self._rto_s:
                noticed = []
            else:
                first_s, timeouts = by_next_s, timeouts - 1
                noticed = [(by_next_s, False)]
        if timeouts:
            noticed.append((first_s + self._rto_s, True))
        return first_s + loss.timeouts_s(timeouts, rtt_s), noticed


def lone_delay_s(
    control: CongestionControl, rtt_s: float, segments: int, transmitted_s: float
) -> float:
    """Seconds for which a message waits for the window of a connection with nothing under way.

    Args:
        transmitted_s: for which the message occupies the link.
    """
    alone = Crossing(0.0, transmitted_s, segments, 0.0, alone=True)
    return Senders(control, rtt_s, None, 1).delay(0, alone)


def last_flight(segments: int) -> int:
    """Segments of such a message that are sent together at last."""
    flight = INITIAL_WINDOW
    while segments > flight:
        segments -= flight
        flight *= 2
    return segments
