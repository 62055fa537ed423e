"""An alarm for an asyncio loop that rings within some 0.1 ms of its time.

``loop.call_at`` is up to a millisecond late: epoll takes its timeout in whole milliseconds, and
asyncio rounds up. A request whose creation is planned would be late by half a millisecond on
average, which counts as latency. Linux has timers that are files (timerfd_create(2)): epoll wakes
when one of them runs out. Elsewhere ``call_at`` has to do.
"""

from __future__ import annotations

import asyncio
import ctypes
import math
import os
import sys
import time
from collections.abc import Callable

_CLOCK_MONOTONIC = 1
_TFD_NONBLOCK, _TFD_CLOEXEC = os.O_NONBLOCK, getattr(os, "O_CLOEXEC", 0)
_TFD_TIMER_ABSTIME = 1


class _TimeSpec(ctypes.Structure):
    _fields_ = (("seconds", ctypes.c_long), ("nanoseconds", ctypes.c_long))


class _TimerSpec(ctypes.Structure):
    _fields_ = (("interval", _TimeSpec), ("value", _TimeSpec))


class Alarm:
    """Calls ``ring`` on the running loop at the time that was set last; of one thread only."""

    def __init__(self, ring: Callable[[], None]) -> None:
        self._ring = ring
        self._loop = asyncio.get_running_loop()
        self._handle: asyncio.TimerHandle | None = None
        self._closed = False
        self._libc, self._fd = None, -1
        if sys.platform == "linux":
            self._libc = ctypes.CDLL(None, use_errno=True)
            flags = _TFD_NONBLOCK | _TFD_CLOEXEC
            self._fd = self._libc.timerfd_create(_CLOCK_MONOTONIC, flags)
        if self._fd >= 0:
            self._loop.add_reader(self._fd, self._run_out)

    def set(self, at_s: float) -> None:
        """Ring at ``at_s`` of ``time.monotonic``, at once if that is past, never if infinite."""
        if self._closed:
            return
        if self._libc is None or self._fd < 0:
            if self._handle is not None:
                self._handle.cancel()
            self._handle = None if at_s == math.inf else self._loop.call_at(at_s, self._ring)
            return
        # A time of zero would disarm the timer.
        nanoseconds = 0 if at_s == math.inf else max(1, math.ceil(at_s * 1e9))
        spec = _TimerSpec(_TimeSpec(0, 0), _TimeSpec(*divmod(nanoseconds, 1_000_000_000)))
        self._libc.timerfd_settime(self._fd, _TFD_TIMER_ABSTIME, ctypes.byref(spec), None)

    def _run_out(self) -> None:
        try:
            os.read(self._fd, 8)
        except BlockingIOError:
            return  # it was set anew meanwhile
        self._ring()

    def close(self) -> None:
        """Never ring again, whatever is set."""
        self._closed = True
        if self._handle is not None:
            self._handle.cancel()
        if self._fd >= 0:
            self._loop.remove_reader(self._fd)
            os.close(self._fd)
            self._fd = -1


def now_s() -> float:
    """The clock of alarms and of everything live: monotonic, the same for all local processes."""
    return time.monotonic()
