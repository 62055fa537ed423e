"""Transport: the way of messages from devices to nodes and back, hop by hop.

A way is a chain of hops: over the device's link to the node at once or, with MQTT, to the broker,
through it, and over the backhaul to the node. Nothing that happens at a node changes the way up of
requests that come when they come, so it is computed ahead of the nodes, for many messages at once;
and the way home after them. Messages travel in slices of time: what has not reached a hop by the
end of a slice waits for the next, so that every hop sees its messages in the order of time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from sim.distributions import Distribution, Floats, quantile

Indices = NDArray[np.int64]
NO_ROWS: Indices = np.zeros(0, dtype=np.int64)


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
        return arrived, Messages.joined(lost) if lost else messages.where(NO_ROWS)

    def quantile_s(self, group: int, q: float, exit: int = 0) -> float:
        """Quantile of the seconds that a lone message takes, as far as nothing is down."""
        return travel_quantile_s([hop.travel(group, exit) for hop in self.hops], q)


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
