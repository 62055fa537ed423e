"""Cutting computations off on time, although a thread that computes cannot be interrupted."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from math import inf

from devices.node.views import Clock, LiveRequest


class CutOffs:
    """A thread that says when a request's time is up, while its worker still computes.

    So the answer leaves on time; the worker is free only once its segment is finished.

    Args:
        cut: called on that thread with a request whose ``cut_at_s`` has come.
    """

    def __init__(self, cut: Callable[[LiveRequest], None], clock: Clock) -> None:
        self._cut = cut
        self._clock = clock
        self._watched: set[LiveRequest] = set()
        self._wakes_at_s = -inf  # no thread yet
        self._closed = False
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None

    def watch(self, requests: Iterable[LiveRequest]) -> None:
        """From now on, see to it that these are cut off at their ``cut_at_s``."""
        with self._changed:
            self._watched.update(requests)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="cut-offs", daemon=True)
                self._thread.start()
            elif self._soonest_s() < self._wakes_at_s:
                self._changed.notify()

    def forget(self, requests: Iterable[LiveRequest]) -> None:
        """What was being computed is finished."""
        with self._changed:
            self._watched.difference_update(requests)

    def close(self) -> None:
        """End the thread."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        if self._thread is not None:
            self._thread.join()

    def _soonest_s(self) -> float:
        return min((request.cut_at_s for request in self._watched), default=inf)

    def _run(self) -> None:
        while due := self._await_due():
            for request in due:
                self._cut(request)

    def _await_due(self) -> list[LiveRequest]:
        with self._changed:
            while not self._closed:
                now_s = self._clock()
                due = [request for request in self._watched if request.cut_at_s <= now_s]
                if due:
                    self._watched.difference_update(due)
                    return due
                self._wakes_at_s = self._soonest_s()
                left_s = self._wakes_at_s - now_s
                self._changed.wait(None if left_s == inf else min(left_s, threading.TIMEOUT_MAX))
            return []
