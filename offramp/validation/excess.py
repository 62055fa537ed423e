"""From the times at a node that requests report to what it took besides inference.

Everything here is taken from the node's own clock: how long a request waited there and how long it
was computed.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sim.distributions import Floats
from sim.run import Run
from sim.service import Service

#: Fewer services of one batch size than this tell nothing of their distribution.
_ENOUGH_OF_A_SIZE = 10


@dataclass(frozen=True)
class Spans:
    """Services of one node in the order of their beginning; arrays of length S.

    Attributes:
        waited_s: of the one that waited for the shortest time.
        last_arrived_s: when the last of its requests came.
        ended_s: when its first answer was ready.
        size: requests computed together.
        exit: that answered the first of them.
    """

    started_s: Floats
    ended_s: Floats
    waited_s: Floats
    last_arrived_s: Floats
    size: NDArray[np.int64]
    exit: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.started_s)

    def where(self, rows: NDArray[np.bool_] | NDArray[np.int64]) -> Spans:
        """Some of the services."""
        return Spans(*(getattr(self, name)[rows] for name in self.__dataclass_fields__))

    @property
    def busy_s(self) -> Floats:
        """Computing, until the first answer."""
        return self.ended_s - self.started_s


def spans_of(run: Run, node: int, from_s: float) -> Spans:
    """Services of one node whose requests were all answered and created from ``from_s`` on."""
    rows = run.answered & (run.node == node) & ~np.isnan(run.started_s)
    rows &= run.requests.created_s >= from_s
    part = run.where(rows)
    visits = part.visits
    number = visits.service_number()
    count = int(number.max(initial=-1)) + 1
    started_s, ended_s = np.full(count, np.inf), np.full(count, np.inf)
    waited_s, last_arrived_s = np.full(count, np.inf), np.full(count, -np.inf)
    np.minimum.at(started_s, number, part.started_s)
    np.minimum.at(ended_s, number, part.finished_s)
    np.minimum.at(waited_s, number, part.started_s - part.arrived_s)
    np.maximum.at(last_arrived_s, number, part.arrived_s)
    size, exit = np.zeros(count, dtype=np.int64), np.zeros(count, dtype=np.int64)
    np.maximum.at(size, number, part.batch)
    np.maximum.at(exit, number, part.exit)
    order = np.argsort(started_s, kind="stable")
    return Spans(started_s, ended_s, waited_s, last_arrived_s, size, exit).where(order)


def excess_s(spans: Spans, service: Service) -> Floats:
    """(N,) what services took longer than the profile says, for each of their requests.

    The distribution of what was measured lies above that of the profile by so much at each
    quantile; may be negative. Differences of quantiles and not of single services, since nobody
    knows how long a service would have taken the profiler.
    """
    found = list[Floats]()
    for size in np.unique(spans.size).tolist():
        for exit in np.unique(spans.exit[spans.size == size]).tolist():
            rows = (spans.size == size) & (spans.exit == exit)
            measured = np.sort(spans.busy_s[rows])
            if len(measured) < _ENOUGH_OF_A_SIZE:
                continue
            u = (np.arange(len(measured)) + 0.5) / len(measured)
            drawn = service.draw(u)
            expected = [service.batch_seconds([it] * size, 0, exit) for it in drawn]
            found.append(np.repeat((measured - np.sort(expected)) / size, size))
    return np.concatenate(found) if found else np.zeros(0)


def receives_s(spans: Spans, batch_wait_s: float) -> Floats:
    """(S,) how long messages that came alone were on their way to a worker.

    Args:
        spans: of a node that one device asks.
        batch_wait_s: for which a worker waits for a batch to fill, in vain: the simulator knows it.
    """
    return np.maximum(spans.waited_s - batch_wait_s, 0.0)


def replies_s(spans: Spans, workers: int) -> Floats:
    """(N,) how long a worker that has the next request waiting is busy after an answer.

    Args:
        spans: of a node that was kept busy.
        workers: of the node. With several, nobody knows whose service came after whose: then all
            are the mean.
    """
    if len(spans) < 2:
        return np.zeros(0)
    if workers == 1:
        gaps = spans.started_s[1:] - spans.ended_s[:-1]
        busy = spans.last_arrived_s[1:] <= spans.ended_s[:-1]
        size = spans.size[:-1][busy]
        return np.repeat(np.maximum(gaps[busy], 0.0) / size, size)
    # While all of them are busy, what is not inference of their time is the rest.
    width_s = spans.started_s[-1] - spans.started_s[0]
    inference_s = float(spans.busy_s[:-1].sum())
    requests = int(spans.size[:-1].sum())
    return np.array([max(0.0, workers * width_s - inference_s) / requests])
