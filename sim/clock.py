"""Simulated time: SimPy's environment, with calls at an absolute time."""

from __future__ import annotations

from collections.abc import Callable
from heapq import heappush
from typing import Any, Protocol

import simpy
from simpy.events import NORMAL


class Timed(Protocol):
    """What SimPy's loop needs of an event, and no more."""

    callbacks: tuple[Callable[[Any], None], ...] | None
    _ok: bool


class Call:
    """``callback(call)`` is called on time.

    A full :class:`simpy.Event` costs three times as much to make, and nothing waits for these.
    """

    __slots__ = ("callbacks", "value")
    _ok = True

    def __init__(self, callback: Callable[[Call], None], value: Any) -> None:
        self.callbacks: tuple[Callable[[Any], None], ...] | None = (callback,)
        self.value = value


class Clock(simpy.Environment):
    """A SimPy environment that can call back at an absolute time.

    SimPy schedules by delay, and ``now + (time - now)`` need not be ``time``: events that should
    coincide would swap by a rounding error.
    """

    def push(self, time: float, event: Timed) -> None:
        """Have ``event`` happen at ``time``: its callbacks are called with it."""
        heappush(self._queue, (time, NORMAL, next(self._eid), event))  # type: ignore[misc]

    def call_at(self, time: float, callback: Callable[[Call], None], value: Any) -> None:
        """Call ``callback(call)`` at ``time``, with ``call.value`` set to ``value``."""
        self.push(time, Call(callback, value))

    def at(self, time: float) -> simpy.Event:
        """An event at ``time``, for a process to wait for."""
        event = simpy.Event(self)
        event._ok = True
        event._value = None
        heappush(self._queue, (time, NORMAL, next(self._eid), event))
        return event
