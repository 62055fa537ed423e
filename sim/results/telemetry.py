"""Telemetry: what went on over simulated time, and what became of each device's requests.

Everything is derived from a finished run. Queue lengths and the like are means over each bin of
time, from exact integrals: a point sample would miss a queue that builds up and empties between
two samples.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from sim.outcomes import ON_TIME
from sim.results.outcome_counts import OutcomeCounts
from sim.results.visits import Visits
from sim.streams import Floats

Indices = NDArray[np.integer]


def bin_edges(from_s: float, to_s: float, step_s: float) -> Floats:
    """(B + 1,) edges of bins of ``step_s`` that cover the span; the last may be shorter.

    Raises:
        ValueError: the span is empty, or the step not above 0.
    """
    if not (step_s > 0 and to_s > from_s):
        raise ValueError(f"no bins of {step_s} s between {from_s} s and {to_s} s")
    # A step that divides the span up to rounding leaves no sliver of a bin at its end.
    count = math.ceil((to_s - from_s) / step_s - 1e-9)
    edges = np.asarray(from_s + step_s * np.arange(count + 1), dtype=np.float64)
    edges[-1] = to_s
    return edges


def present_seconds(
    owner: Indices, owners: int, begin_s: Floats, end_s: Floats, edges_s: Floats
) -> Floats:
    """(owners, B) integral over each bin of the number of intervals that are open.

    Args:
        owner: (N,) index of the node that each interval belongs to.
        begin_s, end_s: (N,) of the intervals; one with a NaN never happened.
        edges_s: (B + 1,) ascending.
    """
    bins = len(edges_s) - 1
    begin, end = np.maximum(begin_s, edges_s[0]), np.minimum(end_s, edges_s[-1])
    inside = end > begin  # false for NaN too
    begin, end, owner = begin[inside], end[inside], owner[inside]
    first = np.searchsorted(edges_s, begin, side="right") - 1
    last = np.searchsorted(edges_s, end, side="left") - 1
    crosses = first < last
    # The bins that an interval begins and ends in are covered in part, those between in full.
    head = np.where(crosses, edges_s[first + 1], end) - begin
    tail = (end - edges_s[last])[crosses]
    row = owner.astype(np.int64) * (bins + 1)
    size = owners * (bins + 1)
    partly = np.bincount(row + first, weights=head, minlength=size)
    partly += np.bincount((row + last)[crosses], weights=tail, minlength=size)
    opened = np.bincount((row + first + 1)[crosses], minlength=size)
    closed = np.bincount((row + last)[crosses], minlength=size)
    fully = np.cumsum((opened - closed).reshape(owners, bins + 1), axis=1)[:, :bins]
    seconds: Floats = partly.reshape(owners, bins + 1)[:, :bins] + fully * np.diff(edges_s)
    return seconds


def events_in_bins(
    owner: Indices, owners: int, time_s: Floats, edges_s: Floats
) -> NDArray[np.int64]:
    """(owners, B) number of events in each bin ``[edge, next edge)``; NaN never happened."""
    bins = len(edges_s) - 1
    index = np.searchsorted(edges_s, time_s, side="right") - 1
    inside = (index >= 0) & (index < bins)  # NaN sorts behind the last edge
    flat = owner[inside].astype(np.int64) * bins + index[inside]
    return np.bincount(flat, minlength=owners * bins).reshape(owners, bins)


def node_telemetry(
    visits: Visits, names: Sequence[str], workers: Sequence[int], edges_s: Floats
) -> pd.DataFrame:
    """What went on at each node: one row per node and bin of time.

    Columns: ``time_s`` (where the bin begins), ``node``, ``queue_length`` (mean number of requests
    that wait), ``in_service`` (mean number with a worker), ``utilisation`` (busy worker-seconds
    over worker-seconds; a batch occupies one worker), ``arrivals_hz`` and ``departures_hz``
    (requests that came, and that left for whatever reason).

    Args:
        names, workers: of the nodes, by index.
        edges_s: (B + 1,) from :func:`bin_edges`.
    """
    nodes, width_s = len(names), np.diff(edges_s)
    never = np.isnan(visits.started_s)
    waited_until = np.where(never, visits.left_s, visits.started_s)
    services = visits.services()

    def mean_open(owner: Indices, begin_s: Floats, end_s: Floats) -> Floats:
        mean: Floats = present_seconds(owner, nodes, begin_s, end_s, edges_s) / width_s
        return mean

    def rate(time_s: Floats) -> Floats:
        rate: Floats = events_in_bins(visits.node, nodes, time_s, edges_s) / width_s
        return rate

    busy = mean_open(services.node, services.started_s, services.ended_s)
    columns = {
        "queue_length": mean_open(visits.node, visits.arrived_s, waited_until),
        "in_service": mean_open(visits.node, visits.started_s, visits.left_s),
        "utilisation": busy / np.asarray(workers, dtype=np.float64)[:, None],
        "arrivals_hz": rate(visits.arrived_s),
        "departures_hz": rate(visits.left_s),
    }
    return pd.DataFrame(
        {
            "time_s": np.tile(edges_s[:-1], nodes),
            "node": np.repeat(np.asarray(names, dtype=object), len(width_s)),
            **{name: values.ravel() for name, values in columns.items()},
        }
    )


def request_telemetry(
    created_s: Floats,
    received_s: Floats,
    correct: NDArray[np.bool_],
    outcome: NDArray[np.integer],
    edges_s: Floats,
) -> pd.DataFrame:
    """What was offered and answered over time: one row per bin.

    Columns: ``time_s`` (where the bin begins), ``offered_hz`` (requests created), ``answered_hz``
    (answers received), ``aud`` and ``hit_ratio`` of the requests *created* in the bin, whenever
    they ended; NaN where none was.

    Args:
        created_s, received_s: (N,) of each request; NaN where no answer came.
        outcome: (N,) index into :data:`sim.outcomes.OUTCOMES`.
        edges_s: (B + 1,) from :func:`bin_edges`.
    """
    on_time = outcome == ON_TIME

    def count(time_s: Floats) -> NDArray[np.int64]:
        world = np.zeros(len(time_s), dtype=np.int64)
        in_bins: NDArray[np.int64] = events_in_bins(world, 1, time_s, edges_s)[0]
        return in_bins

    offered, width_s = count(created_s), np.diff(edges_s)
    return pd.DataFrame(
        {
            "time_s": edges_s[:-1],
            "offered_hz": offered / width_s,
            "answered_hz": count(received_s) / width_s,
            "aud": _ratio(count(created_s[on_time & correct]), offered),
            "hit_ratio": _ratio(count(created_s[on_time]), offered),
        }
    )


def outcome_table(
    owner: Indices,
    owners: int,
    created_s: Floats,
    received_s: Floats,
    correct: NDArray[np.bool_],
    outcome: NDArray[np.integer],
) -> pd.DataFrame:
    """What became of the requests of each device, or of each group: one row per owner.

    Columns: ``offered``, the outcomes, ``aud``, ``hit_ratio`` (NaN for an owner that offered
    nothing) and ``latency_mean_s`` over answered requests (NaN without any).

    Args:
        owner: (N,) index of the device or group of each request.
        owners: how many there are, with and without requests.
        created_s, received_s: (N,) NaN where no answer came.
        outcome: (N,) index into :data:`sim.outcomes.OUTCOMES`.
    """
    counts = OutcomeCounts.none(owners)
    counts.add(owner, created_s, received_s, correct, outcome)
    return counts.table()


def _ratio(part: NDArray[np.number], whole: NDArray[np.number]) -> Floats:
    """``part / whole``, NaN where ``whole`` is 0."""
    ratio: Floats = np.divide(part, whole, out=np.full(len(whole), np.nan), where=whole > 0)
    return ratio
