"""Ways of requests to a node, and of answers from it, while its worker is idle or computes.

Threads that read messages and send answers share processors and locks with an inference. Who meets
one is on its way for longer, in the broker and in the devices' process too where they are on the
same host.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from offramp.validation.excess import AT_ONCE_S, Spans, free_s
from sim.distributions import Floats
from sim.results.run import Run

#: A message comes to its node about so late as half of those are read that met nothing. Who those
#: are depends on it again: at first, this share of all messages is taken to have come by then.
_AT_FIRST, _ROUNDS = 0.25, 2

#: Fewer than this tell nothing of a distribution.
_ENOUGH = 30


@dataclass(frozen=True)
class Ways:
    """Of requests that one node answered; arrays of length N.

    Attributes:
        row: of the run.
        up_s: from the creation of a request until it was read.
        home_s: from when its answer was ready until the device had it.
        met: whether it came while the only worker computed.
        behind: whether one that met an inference still waited when it came, and held it up.
        followed: whether the worker had the next request waiting, and began with it at once.
        before: the last service that began before it came; -1: none is known.
        own: its own service.
        pause_before_s: for how long the worker had nothing to do when it came; below 0: it
            computed.
    """

    row: NDArray[np.int64]
    up_s: Floats
    home_s: Floats
    met: NDArray[np.bool_]
    behind: NDArray[np.bool_]
    followed: NDArray[np.bool_]
    before: NDArray[np.int64]
    own: NDArray[np.int64]
    pause_before_s: Floats

    @property
    def nothing_met(self) -> NDArray[np.bool_]:
        """Whether nothing was in its way up."""
        return ~self.met & ~self.behind

    @property
    def found_idle(self) -> NDArray[np.bool_]:
        """Whether it came while the worker had nothing to do, nor a reply to send."""
        return np.asarray(self.nothing_met & (self.pause_before_s > 0))

    @property
    def ingress_busy_s(self) -> Floats:
        """By how much those that met an inference were read later; may be negative by chance.

        Those that came behind another waited for less: they were read with it.
        """
        return _beyond(self.up_s[self.met & ~self.behind], self.up_s[self.nothing_met])

    @property
    def egress_busy_s(self) -> Floats:
        """By how much answers came later whose worker went on at once, likewise."""
        return _beyond(self.home_s[self.followed], self.home_s[~self.followed])


def ways_of(run: Run, node: int, from_s: float, spans: Spans, reply_s: float) -> Ways:
    """Ways of requests that were created from ``from_s`` on.

    Args:
        spans: services of the node.
        reply_s: of the worker for each answer, after it was ready.
    """
    rows = run.answered & (run.node == node) & (run.requests.created_s >= from_s)
    row = np.flatnonzero(rows)
    part = run.where(rows)
    up_s = part.arrived_s - part.requests.created_s
    home_s = part.received_s - part.finished_s
    if not len(row) or not len(spans):
        nothing, none = np.zeros(len(row), dtype=bool), np.full(len(row), -1)
        return Ways(row, up_s, home_s, nothing, nothing, nothing, none, none, np.zeros(len(row)))
    typical_s = float(np.quantile(up_s, _AT_FIRST))
    met, behind = _in_the_way(part, typical_s, spans)
    for _ in range(_ROUNDS):
        rest = up_s[~met & ~behind]
        if len(rest) < _ENOUGH:
            break
        typical_s = float(np.median(rest))
        met, behind = _in_the_way(part, typical_s, spans)
    started_s = np.append(spans.started_s, np.inf)
    next_s = started_s[np.searchsorted(spans.started_s, part.finished_s)]
    followed = next_s - part.finished_s <= reply_s * part.batch + AT_ONCE_S
    came_s = np.minimum(part.requests.created_s + typical_s, part.arrived_s)
    before = np.searchsorted(spans.started_s, came_s) - 1
    own = np.searchsorted(spans.started_s, part.started_s, side="right") - 1
    pause_before_s = came_s - free_s(spans, reply_s)[before + 1]
    return Ways(row, up_s, home_s, met, behind, followed, before, own, pause_before_s)


def _in_the_way(
    run: Run, typical_s: float, spans: Spans
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Whether each message met a service, and one that waited for one.

    Args:
        typical_s: after which messages come to their node.
    """
    came_s = run.requests.created_s + typical_s
    before = np.searchsorted(spans.started_s, came_s, side="right") - 1
    under_way = (before >= 0) & (came_s < spans.ended_s[before])
    # One that was faster than most is not met by its own service.
    met = np.asarray(under_way & (spans.started_s[before] < run.started_s))
    return met, _held_up(came_s, np.where(met, run.arrived_s, -np.inf))


def _held_up(came_s: Floats, until_s: Floats) -> NDArray[np.bool_]:
    """Whether one that came before each message was there until after that had come."""
    order = np.argsort(came_s, kind="stable")
    earlier_s = np.maximum.accumulate(np.append(-np.inf, until_s[order])[:-1])
    held_up = np.empty(len(came_s), dtype=bool)
    held_up[order] = earlier_s > came_s[order]
    return held_up


def _beyond(values: Floats, others: Floats) -> Floats:
    """(N,) by how much the distribution of some values lies above that of others, by quantiles."""
    if min(len(values), len(others)) < _ENOUGH:
        return np.zeros(0)
    u = (np.arange(len(values)) + 0.5) / len(values)
    return np.asarray(np.sort(values) - np.quantile(others, u))


def answered_hz(run: Run, from_s: float) -> float:
    """Answered requests per second, of those created from ``from_s`` on."""
    created_s = run.requests.created_s[run.answered & (run.requests.created_s >= from_s)]
    return len(created_s) / float(np.ptp(created_s)) if len(created_s) > 1 else 0.0
