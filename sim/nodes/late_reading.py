"""Messages that meet a busy node, or one that has been idle for long, are read late."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from sim.clock import Clock
from sim.nodes.requests import Request


class LateReading:
    """When a node reads the messages that reach it.

    One that comes while a worker computes waits, once, whatever is computed then
    (``overhead.ingress_busy_ms``); one that comes to a node without work waits until the host has
    woken up (``overhead.cooling``). Messages are read in the order in which they come: one that
    comes while another waits is read with it.

    Args:
        delay_s: seconds that a message waits, by what was drawn for its request.
        wake_s: seconds that one waits, by when it comes, while no worker computes.
    """

    def __init__(
        self, clock: Clock, delay_s: Callable[[Any], float], wake_s: Callable[[float], float]
    ) -> None:
        self._clock = clock
        self._delay_s = delay_s
        self._wake_s = wake_s
        #: Workers that compute, and since when there are some.
        self._computing, self._since_s = 0, math.inf
        #: When the last of the messages that wait is read.
        self._until_s = -math.inf

    def put_off(self, request: Request) -> bool:
        """Let a message come when it is read, if that is later than it came; whether it is."""
        if request.is_read_late:
            return False
        came_s = request.arrived_s
        if came_s > self._until_s:
            late_s = self._late_s(request)
            if not late_s:
                return False
            self._until_s = came_s + late_s
        request.arrived_s = self._until_s
        request.is_read_late = True
        return True

    def _late_s(self, request: Request) -> float:
        came_s = request.arrived_s
        if self._computing:
            return self._delay_s(request.drawn) if came_s > self._since_s else 0.0
        return self._wake_s(came_s)

    def begin_computing(self) -> None:
        """A worker computes from now on."""
        if not self._computing:
            self._since_s = self._clock._now
        self._computing += 1

    def end_computing(self) -> None:
        """A worker has computed; whoever came meanwhile must be asked for before."""
        self._computing -= 1

    def go_down(self) -> None:
        """The node crashes: nobody computes."""
        self._computing = 0
