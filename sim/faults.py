"""Faults: when nodes, links, the broker and devices are down, and when nodes are slow.

Faults happen by themselves, whatever the load: they are drawn before a run, from streams of their
own, so that every arm of a comparison meets the same ones. None begins after the measured window,
so that the world can drain.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from sim.distributions import Floats
from sim.streams import Streams, Uniforms

FaultKind = Literal["node_crash", "slow_node", "link_outage", "broker_restart", "device_churn"]


@dataclass(frozen=True)
class Fault:
    """A fault, scheduled or random.

    Attributes:
        kind: what happens. ``device_churn``: devices leave and return, each on its own.
        target: name of the node, link or device group; empty for the broker.
        schedule: (start, end) in seconds of the run; empty if random.
        mtbf_s, mttr_s: exponential means of the time up and the time down, if random.
        factor: of the speed of a ``slow_node`` while it is slow.
    """

    kind: FaultKind
    target: str = ""
    schedule: tuple[tuple[float, float], ...] = ()
    mtbf_s: float = math.inf
    mttr_s: float = 0.0
    factor: float = 1.0


@dataclass(frozen=True)
class Intervals:
    """Times at which each of several things is down.

    Attributes:
        start_s, end_s: (things, K) ascending along each row; infinity fills rows up.
    """

    start_s: Floats
    end_s: Floats

    @staticmethod
    def of_rows(rows: Sequence[Sequence[tuple[float, float]]]) -> Intervals | None:
        """From each thing's (start, end), ascending and apart; None if there are none at all."""
        longest = max(map(len, rows), default=0)
        if not longest:
            return None
        table = np.full((2, len(rows), longest), np.inf)
        for thing, row in enumerate(rows):
            if row:
                table[:, thing, : len(row)] = np.transpose(row)
        return Intervals(table[0], table[1])

    def until(self, thing: NDArray[np.int64], time_s: Floats) -> Floats:
        """End of the interval that covers ``time_s``; minus infinity if none does.

        Args:
            thing: (N,) row of each.
            time_s: (N,)
        """
        ends = np.full(np.shape(time_s), -np.inf)
        for column in range(self.start_s.shape[1]):
            start, end = self.start_s[thing, column], self.end_s[thing, column]
            covered = (start <= time_s) & (time_s < end)
            ends[covered] = end[covered]
        return ends

    def of(self, thing: int) -> list[tuple[float, float]]:
        """(start, end) of one thing's intervals."""
        pairs = zip(self.start_s[thing].tolist(), self.end_s[thing].tolist(), strict=True)
        return [(start, end) for start, end in pairs if math.isfinite(start)]

    def prolonged(self, by_s: float) -> Intervals:
        """The same intervals, each longer by ``by_s``; overlaps merged."""
        rows = [
            _merged([(start, end + by_s) for start, end in self.of(thing)])
            for thing in range(len(self.start_s))
        ]
        return Intervals.of_rows(rows) or self

    @property
    def are_alike(self) -> bool:
        """Whether all things are down at the same times."""
        return all(bool((times == times[0]).all()) for times in (self.start_s, self.end_s))

    @property
    def total(self) -> int:
        """How many intervals there are."""
        return int(np.isfinite(self.start_s).sum())


def down_times(
    faults: Sequence[Fault],
    kind: FaultKind,
    target: str,
    things: int,
    horizon_s: float,
    streams: Streams,
    first: int = 0,
) -> Intervals | None:
    """When each of ``things`` of one name is down, overlaps merged; None if never.

    A scheduled fault befalls all of them, a random one each by itself.

    Args:
        first: number of the first of these faults among those of its kind and target.
    """
    rows: list[list[tuple[float, float]]] = [[] for _ in range(things)]
    mine = [fault for fault in faults if fault.kind == kind and fault.target == target]
    for index, fault in enumerate(mine, first):
        scheduled = [(start, end) for start, end in fault.schedule if start < horizon_s]
        for row in rows:
            row.extend(scheduled)
        if not math.isinf(fault.mtbf_s):
            uniforms = streams.uniforms("faults", kind, target, index)
            for thing, row in enumerate(rows):
                row.extend(_random(fault, thing, horizon_s, uniforms))
    return Intervals.of_rows([_merged(row) for row in rows])


def _random(
    fault: Fault, thing: int, horizon_s: float, uniforms: Uniforms
) -> list[tuple[float, float]]:
    cycle_s = fault.mtbf_s + fault.mttr_s
    count = math.ceil(horizon_s / cycle_s + 4 * math.sqrt(horizon_s / cycle_s) + 4)
    while True:
        positions = np.arange(2 * count)
        spans = -np.log1p(-uniforms(np.full(2 * count, thing), positions))
        spans[0::2] *= fault.mtbf_s
        spans[1::2] *= fault.mttr_s
        edges = np.cumsum(spans)
        if edges[-2] >= horizon_s:
            starts, ends = edges[0::2], edges[1::2]
            kept = starts < horizon_s
            return list(zip(starts[kept].tolist(), ends[kept].tolist(), strict=True))
        count *= 2


def _merged(intervals: list[tuple[float, float]]) -> list[tuple[float, float]]:
    merged: list[tuple[float, float]] = []
    for start, end in sorted(intervals):
        if end <= start:
            continue  # so short that it has no length at this time
        if merged and start <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(merged[-1][1], end))
        else:
            merged.append((start, end))
    return merged
