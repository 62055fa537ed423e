"""Transport: the way of messages from devices to nodes and back, hop by hop.

A way is a chain of hops: over the device's link to the node at once or, with MQTT, to the broker,
through it, and over the backhaul to the node. Nothing that happens at a node changes the way up of
requests that come when they come, so it is computed ahead of the nodes, for many messages at once;
and the way home after them. Messages travel in slices of time: what has not reached a hop by the
end of a slice waits for the next, so that every hop sees its messages in the order of time.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from functools import partial
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from sim.capacity import finished_s
from sim.distributions import Distribution, Floats, quantile
from sim.faults import Intervals
from sim.links import Channel, Direction
from sim.policy import MOST_EXITS
from sim.streams import Streams, distinct

Indices = NDArray[np.int64]

#: A message's size depends on the last exit computed before it was sent: at most so many sizes.
MOST_SIZES = MOST_EXITS + 1


@dataclass(frozen=True)
class Messages:
    """Messages of requests, where they are and since when; arrays of length N.

    Attributes:
        request: index of the request.
        group: of the device.
        device: counted through all groups.
        local: the device's number in its group.
        number: the request's number in its device.
        node: where it goes, or comes from.
        exit: the last exit computed before it was sent, on which its size depends; 0: none.
        at_s: when it is where it is.
    """

    request: Indices
    group: Indices
    device: Indices
    local: Indices
    number: Indices
    node: Indices
    exit: Indices
    at_s: Floats

    def __len__(self) -> int:
        return len(self.request)

    def where(self, rows: NDArray[np.bool_] | Indices) -> Messages:
        """Some of the messages."""
        return Messages(*(getattr(self, field.name)[rows] for field in fields(self)))

    def at(self, time_s: Floats, node: Indices | None = None) -> Messages:
        """The same messages at other times, and with other nodes if given."""
        return Messages(
            self.request,
            self.group,
            self.device,
            self.local,
            self.number,
            self.node if node is None else node,
            self.exit,
            time_s,
        )

    @staticmethod
    def joined(parts: Sequence[Messages]) -> Messages:
        """All messages of several parts."""
        if len(parts) == 1:
            return parts[0]
        return Messages(
            *(
                np.concatenate([getattr(part, field.name) for part in parts])
                for field in fields(Messages)
            )
        )


@dataclass
class Message:
    """One message, as in :class:`Messages`, where messages are followed one by one."""

    request: int
    group: int
    device: int
    local: int
    number: int
    node: int
    exit: int


#: Of how many requests of a device single messages are drawn together.
BLOCK = 32


class Upcoming:
    """A value for each of a device's requests, drawn for several of them at once.

    Args:
        draw: gives the values by device within its group and number of the request.
    """

    def __init__(self, draw: Callable[[Indices, Indices], Floats]) -> None:
        self._draw = draw
        self._blocks: dict[int, tuple[int, list[float]]] = {}

    def __call__(self, local: int, number: int) -> float:
        """The value of one request."""
        block, place = divmod(number, BLOCK)
        known = self._blocks.get(local)
        if known is None or known[0] != block:
            numbers = np.arange(block * BLOCK, (block + 1) * BLOCK)
            known = block, self._draw(np.full(BLOCK, local), numbers).tolist()
            self._blocks[local] = known
        return known[1][place]


class Hop(Protocol):
    """One hop of a way."""

    def through(self, messages: Messages) -> Messages:
        """The messages at its end, those that are lost at infinity.

        Args:
            messages: ascending in time, and none before those of an earlier call.
        """

    def pass_one(self, message: Message, at_s: float) -> float:
        """As :meth:`through`, of one message: when it is at the end, infinity if it is lost."""

    def travel(self, group: int, exit: int) -> tuple[float, list[Distribution]]:
        """Of a lone message: the seconds that it takes for certain, and what is drawn."""


class Way:
    """A chain of hops, which messages take in slices of time."""

    def __init__(self, hops: Sequence[Hop]) -> None:
        self.hops = hops
        self._pending: list[list[Messages]] = [[] for _ in range(len(hops) + 1)]

    def advance(self, messages: Messages, until_s: float) -> tuple[Messages, Messages]:
        """Move messages on.

        Args:
            messages: that set out, in any order, and none before the last ``until_s``.
            until_s: end of the slice; infinity at last.

        Returns:
            What has arrived before ``until_s``, ascending in time, and what was lost.
        """
        lost: list[Messages] = []
        for hop, pending in zip(self.hops, self._pending, strict=False):
            ready = _ready(pending, messages, until_s)
            messages = hop.through(ready) if len(ready) else ready
            gone = np.isposinf(messages.at_s)
            if gone.any():
                lost.append(messages.where(gone))
                messages = messages.where(~gone)
        arrived = _ready(self._pending[-1], messages, until_s)
        return arrived, Messages.joined(lost) if lost else messages.where(slice_of_none())

    def quantile_s(self, group: int, q: float, exit: int = 0) -> float:
        """Quantile of the seconds that a lone message takes, as far as nothing is down."""
        return travel_quantile_s([hop.travel(group, exit) for hop in self.hops], q)


def slice_of_none() -> NDArray[np.int64]:
    """No rows."""
    return np.zeros(0, dtype=np.int64)


def _ready(pending: list[Messages], messages: Messages, until_s: float) -> Messages:
    """Messages that are there before ``until_s``, in the order of time; the others wait."""
    waiting = Messages.joined([*pending, messages])
    pending.clear()
    there = waiting.at_s < until_s
    if not there.all():
        pending.append(waiting.where(~there))
        waiting = waiting.where(there)
    times = waiting.at_s
    if (times[1:] < times[:-1]).any():
        waiting = waiting.where(np.argsort(times, kind="stable"))
    return waiting


def travel_quantile_s(parts: Sequence[tuple[float, list[Distribution]]], q: float) -> float:
    """Quantile of the sum of certain seconds and independent drawn ones.

    Exact for at most one drawn part; else of 10,000 sums of stratified draws.
    """
    certain = sum(seconds for seconds, _ in parts)
    drawn = [distribution for _, distributions in parts for distribution in distributions]
    if len(drawn) <= 1:
        return certain + (quantile(drawn[0], q) if drawn else 0.0)
    generator = np.random.default_rng(0)
    strata = (np.arange(10_000) + 0.5) / 10_000
    total = sum(distribution.ppf(generator.permutation(strata)) for distribution in drawn)
    return certain + float(np.quantile(total, q))


@dataclass(frozen=True)
class Leg:
    """What the messages of one device group take on one link, with their acknowledgements.

    Attributes:
        name: of its random streams.
        forward, back: directions of the link.
        packets: bytes of each packet of one message, there and back in turn.
        trips: one-way trips until the receiver hands the message on.
        extra: bytes in this direction that acknowledge messages of the other.
    """

    name: str
    forward: Direction
    back: Direction
    packets: tuple[int, ...]
    trips: int = 1
    extra: int = 0

    @property
    def forward_bytes(self) -> int:
        """All bytes that a message, and a message of the other direction, take this way."""
        return sum(self.packets[::2]) + self.extra

    @property
    def amount(self) -> float:
        """What that takes of the capacity."""
        return self.forward.capacity.amount(self.forward_bytes)

    def delays(self, draw: Callable[[str], Floats], count: int) -> Floats:
        """Travel of ``count`` messages until they are handed on.

        Acknowledgements do not queue behind other messages on their way; their bytes are counted
        with those of the messages.
        """
        delays = np.zeros(count)
        for trip in range(self.trips):
            direction = self.forward if trip % 2 == 0 else self.back
            name = self.name if trip == 0 else f"{self.name}.{trip}"
            if direction.draws_delay:
                lossy = direction.loss is not None
                u_loss = draw(f"{name}.loss") if lossy else delays
                delays = delays + direction.delays(draw(name), u_loss, self.packets[trip])
            else:
                delays = delays + direction.delay.mean()
        return delays

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
        certain = finished_s(self.forward.capacity, 0.0, self.amount)
        drawn: list[Distribution] = []
        for trip in range(self.trips):
            direction = self.forward if trip % 2 == 0 else self.back
            if direction.loss is not None:
                segments = direction.loss.segments(self.packets[trip])
                certain += float(direction.loss.mean_delay_s(segments, direction.rtt_s))
            if direction.draws_delay:
                drawn.append(direction.delay)
            else:
                certain += direction.delay.mean()
        return certain, drawn


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
        down: per kind, when its links are down; a message then waits.
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
        down: Sequence[Intervals | None],
    ) -> None:
        self._sorts: dict[tuple[int, int], tuple[float, Upcoming]] = {}
        self._streams = streams
        self._groups = groups
        self._legs = legs
        self._channels = channels
        self._channel_of = list(channel_of)
        self._kinds = np.array(channel_of)
        self._queue_of = queue_of
        self._flow_of = flow_of
        self._down = down

    def acknowledged_s(self, message: Message) -> float:
        """From when one message is handed on until its sender may forget it."""
        local, number = np.array([message.local]), np.array([message.number])
        draw = _Draws(self._streams, self._groups[message.group], local, number)
        return self._legs[message.group][message.exit].acknowledged_s(draw)

    def pass_one(self, message: Message, at_s: float) -> float:
        """See :class:`Hop`."""
        amount, delay = self._of_sort(message.group, message.exit)
        kind, queue = self._channel_of[message.group], self._queue_of(message)
        down = self._down[kind]
        if down is not None:
            row = np.array([queue % len(down.start_s)])
            at_s = max(at_s, float(down.until(row, np.array([at_s]))[0]))
        return self._channels[kind].arrival(
            at_s, queue, self._flow_of(message), amount, delay(message.local, message.number)
        )

    def _of_sort(self, group: int, exit: int) -> tuple[float, Upcoming]:
        """What a message takes of the capacity, and the travel of each."""
        known = self._sorts.get((group, exit))
        if known is None:
            leg, name = self._legs[group][exit], self._groups[group]

            def delays(local: Indices, number: Indices) -> Floats:
                return leg.delays(_Draws(self._streams, name, local, number), len(local))

            known = self._sorts[group, exit] = leg.amount, Upcoming(delays)
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
        amount, delay = np.empty(len(messages)), np.empty(len(messages))
        sorts = messages.group * MOST_SIZES + messages.exit
        for sort in distinct(sorts):
            rows = np.flatnonzero(sorts == sort)
            group, exit = divmod(sort, MOST_SIZES)
            leg = self._legs[group][exit]
            amount[rows] = leg.amount
            draw = _Draws(
                self._streams, self._groups[group], messages.local[rows], messages.number[rows]
            )
            delay[rows] = leg.delays(draw, len(rows))
        queue = self._queue_of(messages)
        sent_s = messages.at_s
        down = self._down[kind]
        if down is not None:
            sent_s = np.maximum(sent_s, down.until(queue % len(down.start_s), sent_s))
        return self._channels[kind].arrivals(sent_s, queue, self._flow_of(messages), amount, delay)

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
        handled = self._channel.arrivals(
            messages.at_s, none, none, seconds, np.zeros(len(messages))
        )
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
