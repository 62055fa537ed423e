"""Hops: what messages take on one stretch of their way, many at once or one by one."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

import numpy as np

from sim.distributions import Constant, Distribution, Floats
from sim.faults import Intervals
from sim.network.links import Channel, Direction, Travels
from sim.network.mqtt_packets import segments_on_link
from sim.network.tcp_senders import last_flight, lone_delay_s
from sim.network.transport import Indices, Message, Messages
from sim.policy import MOST_EXITS
from sim.streams import Streams, distinct

#: A message's size depends on the last exit computed before it was sent: at most so many sizes.
MOST_SIZES = MOST_EXITS + 1


#: Of how many requests of a device single messages are drawn together.
BLOCK = 32


class Upcoming:
    """What each of a device's requests draws, for several of them at once.

    Args:
        draw: gives values, or rows of them, by device within its group and number of the request.
    """

    def __init__(self, draw: Callable[[Indices, Indices], Floats]) -> None:
        self._draw = draw
        self._blocks: dict[int, tuple[int, list[Any]]] = {}

    def __call__(self, local: int, number: int) -> Any:
        """The value of one request, or its row."""
        block, place = divmod(number, BLOCK)
        known = self._blocks.get(local)
        if known is None or known[0] != block:
            numbers = np.arange(block * BLOCK, (block + 1) * BLOCK)
            known = block, self._draw(np.full(BLOCK, local), numbers).tolist()
            self._blocks[local] = known
        return known[1][place]


@dataclass(frozen=True)
class Leg:
    """What the messages of one device group take on one link, with their acknowledgements.

    Attributes:
        name: of its random streams.
        forward, back: directions of the link.
        packets: bytes of each packet of one message, there and back in turn.
        trips: one-way trips until the receiver hands the message on.
        extra: bytes in this direction that acknowledge messages of the other.
        acknowledgements: packets that these are. One that is lost holds up the message behind it.
        alone: whether the sender waits for an answer before it sends the next.
    """

    name: str
    forward: Direction
    back: Direction
    packets: tuple[int, ...]
    trips: int = 1
    extra: int = 0
    acknowledgements: int = 0
    alone: bool = False

    @property
    def forward_bytes(self) -> int:
        """All bytes that a message, and a message of the other direction, take this way."""
        return sum(self.packets[::2]) + self.extra

    @property
    def amount(self) -> float:
        """What that takes of the capacity."""
        return self.forward.capacity.amount(self.forward_bytes)

    @property
    def segments(self) -> int:
        """Of TCP, that carry the message itself."""
        return segments_on_link(self.packets[0])

    @property
    def held_up(self) -> float:
        """Probability that a message is behind a lost acknowledgement of the other direction."""
        loss = self.forward.loss
        return 0.0 if loss is None else 1 - float(loss.nothing_lost(self.acknowledgements))

    def travels(self, draw: Callable[[str], Floats], count: int) -> Travels:
        """What ``count`` messages bring to the link.

        Acknowledgements do not queue behind other messages on their way; their bytes are counted
        with those of the messages. One of this message that is lost delays it as its own loss does;
        one of the other direction, until this message tells the sender of it, a round trip later.
        """
        delays, u_loss = np.zeros(count), np.zeros(count)
        for trip in range(self.trips):
            direction = self.forward if trip % 2 == 0 else self.back
            name = self.name if trip == 0 else f"{self.name}.{trip}"
            if isinstance(direction.delay, Constant):
                delays = delays + direction.delay.mean()
            else:
                delays = delays + direction.delay.ppf(draw(name))
            if direction.loss is None:
                continue
            if trip == 0:
                u_loss = draw(f"{name}.loss")
            else:
                segments = segments_on_link(self.packets[trip])
                delays = delays + direction.repairs_s(draw(f"{name}.loss"), segments)
        if self.held_up:
            held_up = draw(f"{self.name}.acknowledgements.loss") < self.held_up
            delays = delays + np.where(held_up, self.forward.rtt_s, 0.0)
        return Travels(delays, u_loss, np.full(count, self.segments), np.full(count, self.alone))

    def acknowledged_s(self, draw: Callable[[str], Floats]) -> float:
        """From when the receiver hands a message on until the sender may forget it."""
        rest = range(self.trips, len(self.packets))
        directions = [self.forward if trip % 2 == 0 else self.back for trip in rest]
        return sum(
            float(direction.delay.ppf(draw(f"{self.name}.{trip}"))[0])
            for trip, direction in zip(rest, directions, strict=True)
        )

    def travel(self) -> tuple[float, list[Distribution]]:
        """See :class:`Hop`; retransmissions count with their mean."""
        forward = self.forward
        certain = forward.capacity.mean_s(self.forward_bytes)
        certain += lone_delay_s(forward.control, forward.rtt_s, self.segments, certain)
        certain += self.held_up * forward.rtt_s
        drawn: list[Distribution] = []
        for trip in range(self.trips):
            direction = self.forward if trip % 2 == 0 else self.back
            segments = segments_on_link(self.packets[trip])
            if direction.loss is not None:
                together = last_flight(segments)
                certain += direction.loss.mean_delay_s(together, direction.rtt_s)
            if isinstance(direction.delay, Constant):
                certain += direction.delay.mean()
            else:
                drawn.append(direction.delay)
        return certain, drawn


class OneByOne:
    """What single messages on a leg take.

    Args:
        draws: gives the uniform numbers of messages, by device within its group and number of the
            request.
    """

    def __init__(
        self, leg: Leg, draws: Callable[[Indices, Indices], Callable[[str], Floats]]
    ) -> None:
        def drawn(local: Indices, number: Indices) -> Floats:
            travels = leg.travels(draws(local, number), len(local))
            return np.column_stack([travels.delay_s, travels.u_loss])

        self._amount, self._segments, self._alone = leg.amount, leg.segments, leg.alone
        self._drawn = Upcoming(drawn)

    def over(
        self, channel: Channel, sent_s: float, queue: int, flow: int, local: int, number: int
    ) -> float:
        """When one message that is sent over a channel arrives."""
        delay_s, u_loss = self._drawn(local, number)
        return channel.arrival(
            sent_s, queue, flow, self._amount, delay_s, u_loss, self._segments, self._alone
        )


@dataclass(frozen=True)
class _Draws:
    """The uniform numbers of some requests of one group, by the name of their stream."""

    streams: Streams
    group: str
    local: Indices
    number: Indices

    def __call__(self, name: str) -> Floats:
        return self.streams.uniforms(name, self.group)(self.local, self.number)


class LinkHop:
    """Over links of one or several kinds.

    Args:
        streams: of the replication.
        groups: names of the device groups.
        legs: per group, what its messages take, by the last exit computed before.
        channels: the kinds of links.
        channel_of: per group, its kind.
        queue_of: gives the link that each message, or one, takes among those of its kind.
        flow_of: gives each message's connection.
    """

    def __init__(
        self,
        streams: Streams,
        groups: Sequence[str],
        legs: Sequence[Sequence[Leg]],
        channels: Sequence[Channel],
        channel_of: Sequence[int],
        queue_of: Callable[[Any], Any],
        flow_of: Callable[[Any], Any],
    ) -> None:
        self._sorts: dict[tuple[int, int], OneByOne] = {}
        self._streams = streams
        self._groups = groups
        self._legs = legs
        self._channels = channels
        self._channel_of = list(channel_of)
        self._kinds = np.array(channel_of)
        self._queue_of = queue_of
        self._flow_of = flow_of

    def acknowledged_s(self, message: Message) -> float:
        """From when one message is handed on until its sender may forget it."""
        local, number = np.array([message.local]), np.array([message.number])
        draw = _Draws(self._streams, self._groups[message.group], local, number)
        return self._legs[message.group][message.exit].acknowledged_s(draw)

    def pass_one(self, message: Message, at_s: float) -> float:
        """See :class:`Hop`."""
        kind, queue = self._channel_of[message.group], self._queue_of(message)
        return self._of_sort(message.group, message.exit).over(
            self._channels[kind], at_s, queue, self._flow_of(message), message.local, message.number
        )

    def _of_sort(self, group: int, exit: int) -> OneByOne:
        known = self._sorts.get((group, exit))
        if known is None:
            draws = partial(_Draws, self._streams, self._groups[group])
            known = self._sorts[group, exit] = OneByOne(self._legs[group][exit], draws)
        return known

    def through(self, messages: Messages) -> Messages:
        """See :class:`Hop`."""
        arrived = np.empty(len(messages))
        kinds = self._kinds[messages.group]
        for kind in distinct(kinds):
            rows = np.flatnonzero(kinds == kind)
            part = messages if len(rows) == len(messages) else messages.where(rows)
            arrived[rows] = self._over(kind, part)
        return messages.at(arrived)

    def _over(self, kind: int, messages: Messages) -> Floats:
        amount, delay, u_loss = np.empty((3, len(messages)))
        segments = np.empty(len(messages), dtype=np.int64)
        alone = np.empty(len(messages), dtype=bool)
        sorts = messages.group * MOST_SIZES + messages.exit
        for sort in distinct(sorts):
            rows = np.flatnonzero(sorts == sort)
            group, exit = divmod(sort, MOST_SIZES)
            leg = self._legs[group][exit]
            amount[rows] = leg.amount
            draw = _Draws(
                self._streams, self._groups[group], messages.local[rows], messages.number[rows]
            )
            taken = leg.travels(draw, len(rows))
            delay[rows], u_loss[rows] = taken.delay_s, taken.u_loss
            segments[rows], alone[rows] = taken.segments, taken.alone
        travels = Travels(delay, u_loss, segments, alone)
        return self._channels[kind].arrivals(
            messages.at_s, self._queue_of(messages), self._flow_of(messages), amount, travels
        )

    def travel(self, group: int, exit: int) -> tuple[float, list[Distribution]]:
        """See :class:`Hop`."""
        return self._legs[group][exit].travel()


class Dispatch(Protocol):
    """Chooses the nodes of messages."""

    def __call__(self, messages: Messages) -> Indices:
        """(N,) node of each message."""

    def choose_one(self, message: Message, at_s: float) -> int:
        """The node of one message."""


class BrokerHop:
    """Through the broker, which handles the messages of each direction one after the other.

    Args:
        processing: seconds for each message.
        dispatch: chooses the node of each message; None where it is chosen.
        down: when the broker cannot be reached.
        keeps: whether messages wait for it then; else they are lost.
    """

    def __init__(
        self,
        name: str,
        streams: Streams,
        groups: Sequence[str],
        processing: Distribution,
        channel: Channel,
        dispatch: Dispatch | None,
        down: Intervals | None,
        keeps: bool,
    ) -> None:
        self._name = name
        self._streams = streams
        self._groups = groups
        self._processing = processing
        self._channel = channel
        self._dispatch = dispatch
        self._down = down
        self._keeps = keeps
        self._upcoming = [Upcoming(partial(self._seconds, name)) for name in groups]

    def _seconds(self, group: str, local: Indices, number: Indices) -> Floats:
        return self._processing.ppf(self._streams.uniforms(self._name, group)(local, number))

    def pass_one(self, message: Message, at_s: float) -> float:
        """See :class:`Hop`."""
        if self._down is not None:
            back_s = float(self._down.until(np.array([0]), np.array([at_s]))[0])
            if back_s > at_s and not self._keeps:
                return math.inf
            at_s = max(at_s, back_s)
        seconds = self._upcoming[message.group](message.local, message.number)
        handled = self._channel.arrival(at_s, 0, 0, seconds, 0.0)
        if self._dispatch is not None:
            message.node = self._dispatch.choose_one(message, handled)
        return handled

    def through(self, messages: Messages) -> Messages:
        """See :class:`Hop`."""
        if self._down is None:
            return self._handled(messages)
        back_s = self._down.until(np.zeros(len(messages), dtype=np.int64), messages.at_s)
        if self._keeps:
            return self._handled(messages.at(np.maximum(messages.at_s, back_s)))
        lost = np.isfinite(back_s)
        gone = messages.where(lost)
        gone = gone.at(np.full(len(gone), np.inf))
        return gone if lost.all() else Messages.joined([self._handled(messages.where(~lost)), gone])

    def _handled(self, messages: Messages) -> Messages:
        none = np.zeros(len(messages), dtype=np.int64)
        seconds = np.empty(len(messages))
        for group in distinct(messages.group):
            rows = np.flatnonzero(messages.group == group)
            seconds[rows] = self._seconds(
                self._groups[group], messages.local[rows], messages.number[rows]
            )
        at_once = Travels.of(np.zeros(len(messages)))
        handled = self._channel.arrivals(messages.at_s, none, none, seconds, at_once)
        node = self._dispatch(messages.at(handled)) if self._dispatch else None
        return messages.at(handled, node)

    def travel(self, group: int, exit: int) -> tuple[float, list[Distribution]]:
        """See :class:`Hop`."""
        return 0.0, [self._processing]


class AbsenceHop:
    """At the door of whom messages are for: while they are away, messages wait or are lost.

    Args:
        away: when nobody can be reached.
        whom: gives the row of ``away`` for each message, or for one.
        keeps: whether messages wait.
    """

    def __init__(self, away: Intervals, whom: Callable[[Any], Any], keeps: bool) -> None:
        self._away = away
        self._whom = whom
        self._keeps = keeps

    def pass_one(self, message: Message, at_s: float) -> float:
        """See :class:`Hop`."""
        whom = np.array([self._whom(message)])
        back_s = float(self._away.until(whom, np.array([at_s]))[0])
        if back_s <= at_s:
            return at_s
        return back_s if self._keeps else math.inf

    def through(self, messages: Messages) -> Messages:
        """See :class:`Hop`."""
        back_s = self._away.until(self._whom(messages), messages.at_s)
        away = np.isfinite(back_s)
        if not away.any():
            return messages
        later = back_s if self._keeps else np.inf
        return messages.at(np.where(away, later, messages.at_s))

    def travel(self, group: int, exit: int) -> tuple[float, list[Distribution]]:
        """See :class:`Hop`."""
        return 0.0, []
