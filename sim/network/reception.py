"""The door of a node: messages are read, and a worker is woken, before a request waits for it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from sim.distributions import Distribution, Floats
from sim.network.transport import Indices, Message, Messages


class Reception:
    """The hop from a node's door to its queue: messages are read, and a worker is woken.

    Args:
        seconds: gives what each message takes, by group, device in it, request of that, and node.
    """

    def __init__(self, seconds: ReceptionTimes) -> None:
        self._seconds = seconds

    def pass_one(self, message: Message, at_s: float) -> float:
        """See :class:`sim.network.transport.Hop`."""
        group, local, number, node = (
            np.array([it]) for it in (message.group, message.local, message.number, message.node)
        )
        return at_s + float(self._seconds(group, local, number, node)[0])

    def through(self, messages: Messages) -> Messages:
        """See :class:`sim.network.transport.Hop`."""
        taken_s = self._seconds(messages.group, messages.local, messages.number, messages.node)
        return messages.at(messages.at_s + taken_s)

    def travel(self, group: int, exit: int) -> tuple[float, list[Distribution]]:
        """See :class:`sim.network.transport.Hop`: it is no part of the way."""
        return 0.0, []


class ReceptionTimes:
    """How long each message of a replication takes at its node's door.

    Args:
        groups: names of the device groups.
        receive: of each node.
        uniforms: gives the uniform numbers of a group by device and request.
    """

    def __init__(self, receive: Sequence[Distribution], uniforms: Sequence[Any]) -> None:
        self._receive = receive
        self._uniforms = uniforms

    def __call__(self, group: Indices, local: Indices, number: Indices, node: Indices) -> Floats:
        """(N,) seconds."""
        seconds = np.zeros(len(group))
        for it in set(zip(group.tolist(), node.tolist(), strict=True)):
            rows = np.flatnonzero((group == it[0]) & (node == it[1]))
            u = self._uniforms[it[0]](local[rows], number[rows])
            seconds[rows] = self._receive[it[1]].ppf(u)
        return seconds
