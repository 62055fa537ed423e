"""From the times at a node that requests report to what it took besides inference.

How long a request waited at a node and how long it was computed are from the node's own clock. When
messages came is exact only where devices have the same clock.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import isotonic_regression
from scipy.stats import rankdata

from sim.distributions import Floats
from sim.nodes.autocorrelation import Autocorrelation
from sim.nodes.service import Service
from sim.results.run import Run

#: Fewer services of one batch size than this tell nothing of their distribution.
_ENOUGH_OF_A_SIZE = 10

#: A worker that is free takes what waits within this time.
AT_ONCE_S = 0.0005

#: Fewer in a row tell nothing of how alike they are.
_ENOUGH_IN_A_ROW = 60
#: The first part of services: so many of them are shorter.
_EARLY = 0.1
#: All but the longest: in those, the host did something else.
MOSTLY = 0.99
#: Services have no more than this in common.
_MOST_ALIKE = 0.95


@dataclass(frozen=True)
class Spans:
    """Services of one node in the order of their beginning; arrays of length S.

    Attributes:
        waited_s: of the one that waited for the shortest time.
        last_arrived_s: when the last of its requests came.
        ended_s: when its first answer was ready.
        arrivals: messages that came to the node meanwhile.
        size: requests computed together.
        exit: that answered the first of them.
    """

    started_s: Floats
    ended_s: Floats
    waited_s: Floats
    last_arrived_s: Floats
    arrivals: NDArray[np.int64]
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
    arrivals = _arrivals(run, node, started_s, ended_s)
    order = np.argsort(started_s, kind="stable")
    return Spans(started_s, ended_s, waited_s, last_arrived_s, arrivals, size, exit).where(order)


def _arrivals(run: Run, node: int, from_s: Floats, to_s: Floats) -> NDArray[np.int64]:
    """(S,) messages that came to a node in intervals."""
    arrived_s = np.sort(run.arrived_s[(run.node == node) & ~np.isnan(run.arrived_s)])
    before = [np.searchsorted(arrived_s, end_s, side="right") for end_s in (from_s, to_s)]
    return np.asarray(before[1] - before[0])


def found_idle(spans: Spans, reply_s: float) -> NDArray[np.bool_]:
    """(S,) whether the only worker of a node did nothing when the last request of each came.

    Args:
        reply_s: of the worker for each answer, after it was ready.
    """
    return np.asarray(spans.last_arrived_s > free_before_s(spans, reply_s))


def began_at_once(spans: Spans, reply_s: float) -> NDArray[np.bool_]:
    """(S,) whether the only worker of a node took them as soon as it was free.

    Where it did not, it waited for a batch to fill, and was as idle as without any request.

    Args:
        reply_s: of the worker for each answer, after it was ready.
    """
    return np.asarray(spans.started_s <= free_before_s(spans, reply_s) + AT_ONCE_S)


def free_before_s(spans: Spans, reply_s: float) -> Floats:
    """(S,) since when the only worker of a node had nothing to do before each; at first -inf.

    Args:
        reply_s: of the worker for each answer, after it was ready.
    """
    return free_s(spans, reply_s)[:-1]


def pauses_s(spans: Spans, reply_s: float) -> Floats:
    """(S,) for how long the only worker had nothing to do before each; at first infinite.

    Args:
        reply_s: of the worker for each answer, after it was ready. What a reply takes longer now
            and then is no pause.
    """
    at_once = began_at_once(spans, reply_s) & ~found_idle(spans, reply_s)
    return np.where(at_once, 0.0, spans.started_s - free_before_s(spans, reply_s))


def free_s(spans: Spans, reply_s: float) -> Floats:
    """(S + 1,) since when the only worker had nothing to do before each, and after the last."""
    return np.concatenate([[-np.inf], spans.ended_s + reply_s * spans.size])


def disturb_s(run: Run, node: int, spans: Spans, idle: NDArray[np.bool_]) -> float | None:
    """By how much a message that arrives delays the inference that is under way.

    By least squares, of services that are alike and found the worker idle or not, on the messages
    that came in the first part of each: longer services do not have more of those.

    Args:
        spans: of the same node, which was asked by several devices, and busy a part of the time.
        idle: which of them found the worker idle.

    Returns:
        An estimate, which chance may take below 0; None where too little is known.
    """
    rows = (spans.size == _most_common(spans.size)) & (spans.exit == _most_common(spans.exit))
    rows &= spans.busy_s <= np.quantile(spans.busy_s, MOSTLY) if len(spans) else rows
    chosen = spans.where(rows)
    if len(chosen) < _ENOUGH_IN_A_ROW:
        return None
    early_s = chosen.started_s + np.quantile(chosen.busy_s, _EARLY)
    arrivals = _arrivals(run, node, chosen.started_s, early_s)
    if not np.ptp(arrivals):
        return None
    known = np.column_stack([arrivals, idle[rows], np.ones(len(chosen))])
    return float(np.linalg.lstsq(known, chosen.busy_s)[0][0])


def undisturbed(spans: Spans, by_s: float) -> Spans:
    """Services as they would have been without messages that came meanwhile."""
    return replace(spans, ended_s=spans.ended_s - by_s * spans.arrivals)


def excess_s(spans: Spans, service: Service) -> Floats:
    """(S,) what services took longer than the profile says.

    The distribution of what was measured lies above that of the profile by so much at each
    quantile; may be negative. Differences of quantiles and not of single services, since nobody
    knows how long a service would have taken the profiler. The simulator draws both at one rank,
    the longest excess with the longest inference: where the profile has the longer tail, and
    differences fall with the rank, they are levelled (isotonic regression), which keeps their mean.
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
            found.append(isotonic_regression(measured - np.sort(expected)).x)
    return np.concatenate(found) if found else np.zeros(0)


def autocorrelation_of(spans: Spans) -> Autocorrelation | None:
    """How alike services that follow one another were.

    Rank correlations by the number of services between two.

    Args:
        spans: of a node that was kept busy.

    Returns:
        None where chance explains it, or nothing is known.
    """
    size, exit = _most_common(spans.size), _most_common(spans.exit)
    chosen = spans.where((spans.size == size) & (spans.exit == exit))
    count = len(chosen)
    if count < _ENOUGH_IN_A_ROW:
        return None
    ranks = rankdata(chosen.busy_s)
    lags = np.arange(1, count // 3)
    by_lag = np.array([np.corrcoef(ranks[lag:], ranks[:-lag])[0, 1] for lag in lags])
    # From ranks to normal scores.
    at_once = 2 * np.sin(np.pi / 6 * float(by_lag[:3].mean()))
    if not at_once > 2 / np.sqrt(count):
        return None
    smooth = np.convolve(by_lag, np.ones(5) / 5, mode="valid")
    low = np.flatnonzero(smooth < at_once / np.e)
    lag = int(low[0]) + 3 if len(low) else len(lags)
    apart_s = float(chosen.started_s[-1] - chosen.started_s[0]) / (count - 1)
    return Autocorrelation(min(float(at_once), _MOST_ALIKE), lag * apart_s)


def _most_common(values: NDArray[np.int64]) -> int:
    return int(np.bincount(values).argmax()) if len(values) else 0


def receives_s(spans: Spans, batch_wait_s: float) -> Floats:
    """(S,) how long messages that came alone were on their way to a worker.

    Args:
        spans: of a node that one device asks.
        batch_wait_s: for which a worker waits for a batch to fill, in vain: the simulator knows it.
    """
    return np.maximum(spans.waited_s - batch_wait_s, 0.0)


def replies_s(spans: Spans, workers: int, batch_size: int = 1, batch_wait_s: float = 0.0) -> Floats:
    """(N,) how long a worker that has the next request waiting is busy after an answer.

    Args:
        spans: of a node that was kept busy.
        workers: of the node. With several, nobody knows whose service came after whose: then all
            are the mean.
        batch_size, batch_wait_s: a worker may wait for so long until so many are there, which is
            no time of replying.
    """
    if len(spans) < 2:
        return np.zeros(0)
    if workers == 1:
        gaps = spans.started_s[1:] - spans.ended_s[:-1]
        waits_s = np.where(spans.size[1:] < batch_size, batch_wait_s, 0.0)
        busy = spans.last_arrived_s[1:] + waits_s <= spans.ended_s[:-1]
        size = spans.size[:-1][busy]
        return np.repeat(np.maximum(gaps[busy], 0.0) / size, size)
    # While all of them are busy, what is not inference of their time is the rest.
    width_s = spans.started_s[-1] - spans.started_s[0]
    inference_s = float(spans.busy_s[:-1].sum())
    requests = int(spans.size[:-1].sum())
    return np.array([max(0.0, workers * width_s - inference_s) / requests])
