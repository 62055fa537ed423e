"""How a fleet is doing while it runs: figures for a live table."""

from __future__ import annotations

import math
from collections import Counter, deque
from dataclasses import dataclass, field

import numpy as np

#: Latencies and rates are those of so many last seconds.
RECENT_S = 5.0
_MOST_RECENT = 20_000


@dataclass(frozen=True)
class Progress:
    """Figures of a running fleet, of all requests so far, warm-up included; it can be pickled.

    Attributes:
        time_s: since the start of the run, whose window closes at ``horizon_s``.
        created, answered, on_time, correct_on_time, dropped: requests so far.
        lost: that were never sent, were answered by an error, or wait for an answer although their
            deadline has passed: these may still come to be late.
        waiting: for an answer that can still be in time.
        aud: accuracy under deadline of the measured window so far: correct and on time among
            those that are no longer waiting; NaN if there are none.
        exits: answers by exit.
        rate_hz, latency_p50_s, latency_p99_s: answers of the last seconds; latencies are NaN if
            there are none.
        connected, devices: how many of the devices are connected.
        nodes_online: names of the nodes that say they are.
    """

    time_s: float
    horizon_s: float
    created: int
    answered: int
    on_time: int
    correct_on_time: int
    dropped: int
    lost: int
    waiting: int
    aud: float
    exits: dict[int, int]
    rate_hz: float
    latency_p50_s: float
    latency_p99_s: float
    connected: int
    devices: int
    nodes_online: tuple[str, ...]


@dataclass
class ProgressMeter:
    """Counts for :class:`Progress`."""

    warm_up_s: float
    answered: int = 0
    on_time: int = 0
    correct_on_time: int = 0
    dropped: int = 0
    lost: int = 0
    exits: Counter[int] = field(default_factory=Counter)
    measured_settled: int = 0
    measured_correct: int = 0
    _recent: deque[tuple[float, float]] = field(default_factory=lambda: deque(maxlen=_MOST_RECENT))

    def answer(
        self, created_s: float, heard_s: float, deadline_s: float, correct: bool, exit: int
    ) -> None:
        """An answer came."""
        latency_s = heard_s - created_s
        counts = correct and latency_s <= deadline_s
        self.answered += 1
        self.on_time += latency_s <= deadline_s
        self.correct_on_time += counts
        self.exits[exit] += 1
        self._recent.append((heard_s, latency_s))
        self._settle(created_s, counts)

    def refusal(self, created_s: float) -> None:
        """A node dropped a request."""
        self.dropped += 1
        self._settle(created_s, False)

    def loss(self, created_s: float) -> None:
        """A request is known to be lost."""
        self.lost += 1
        self._settle(created_s, False)

    def _settle(self, created_s: float, counts: bool) -> None:
        if created_s >= self.warm_up_s:
            self.measured_settled += 1
            self.measured_correct += counts

    def aud(self, measured_overdue: int) -> float:
        """Accuracy under deadline so far, given how many of the window wait in vain."""
        settled = self.measured_settled + measured_overdue
        return self.measured_correct / settled if settled else math.nan

    def recent(self, time_s: float) -> tuple[float, float, float]:
        """Rate, median and 99th percentile of the latency of the last answers."""
        recent = self._recent
        while recent and recent[0][0] < time_s - RECENT_S:
            recent.popleft()
        if not recent:
            return 0.0, math.nan, math.nan
        span_s = min(RECENT_S, time_s)
        if len(recent) == _MOST_RECENT:
            span_s = time_s - recent[0][0]
        p50_s, p99_s = np.quantile([latency_s for _, latency_s in recent], (0.5, 0.99))
        return len(recent) / max(span_s, 1e-3), float(p50_s), float(p99_s)
