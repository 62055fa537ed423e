"""What a link can carry over time.

A capacity counts work: what could have been carried since time 0 had there always been something
to send. A message takes an amount of it, so that one that finds the link free at ``t`` has left it
at ``time(work(t) + amount)``, whatever bandwidth does in between. The unit of work is the
capacity's own: a constant rate counts seconds, so that times stay exact, a trace counts bits.

All methods take a number or an array, and return the same; infinity stays infinity.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from models.errors import ArtifactError, ScenarioError, did_you_mean

Floats = NDArray[np.float64]
#: A number, or an array of any shape.
Numbers = TypeVar("Numbers", float, Floats)


class Capacity(Protocol):
    """What a link can carry over time."""

    def work(self, time_s: Numbers) -> Numbers:
        """Work that could have been done by ``time_s``; never falls, 0 at 0."""

    def time(self, work: Numbers) -> Numbers:
        """The earliest time by which ``work`` could have been done, in seconds."""

    def available(self, time_s: Numbers) -> Numbers:
        """The earliest time from ``time_s`` on at which the link carries anything."""

    def amount(self, size_bytes: Numbers) -> Numbers:
        """Work that a message of ``size_bytes`` takes."""

    def mean_s(self, size_bytes: float) -> float:
        """Seconds that such a message takes of a free link, at the mean of a rate that varies."""


def finished_s(capacity: Capacity, sent_s: Numbers, work: Numbers) -> Numbers:
    """When messages have left the link, in seconds.

    Args:
        sent_s: when each was handed to the link. Before it, no message has left, although rounding
            may say so; and one that takes no work still waits for the end of an outage.
        work: at which each is through, what was before it in the queue included.
    """
    finished: Numbers = _like(sent_s, np.maximum(capacity.available(sent_s), capacity.time(work)))
    return finished


def _like(given: Any, values: Any) -> Any:
    """``values`` as an array if ``given`` is one, else as a float."""
    return values if isinstance(given, np.ndarray) else float(values)


@dataclass(frozen=True)
class ConstantCapacity:
    """Always ``bits_per_s``, which may be infinite. Work is counted in seconds."""

    bits_per_s: float

    def work(self, time_s: Numbers) -> Numbers:
        """See :class:`Capacity`."""
        return time_s

    def time(self, work: Numbers) -> Numbers:
        """See :class:`Capacity`."""
        return work

    def available(self, time_s: Numbers) -> Numbers:
        """See :class:`Capacity`."""
        return time_s

    def amount(self, size_bytes: Numbers) -> Numbers:
        """See :class:`Capacity`."""
        amount: Numbers = 8 * size_bytes / self.bits_per_s
        return amount

    def mean_s(self, size_bytes: float) -> float:
        """See :class:`Capacity`."""
        return self.amount(float(size_bytes))


@dataclass(frozen=True, eq=False)
class TracedCapacity:
    """A rate that changes in steps, and begins anew when the trace ends. Work is counted in bits.

    Attributes:
        times_s: (N + 1,) ascending from 0: when each rate begins, and when the last one ends.
        bits_per_s: (N,) not negative; 0 while nothing is carried, but not throughout.
    """

    times_s: Floats
    bits_per_s: Floats

    def __post_init__(self) -> None:
        times, rates = np.asarray(self.times_s), np.asarray(self.bits_per_s)
        if times.ndim != 1 or not len(rates) or len(times) != len(rates) + 1:
            raise ValueError("a trace needs rates, and one time more than rates")
        if times[0] != 0 or not np.all(np.diff(times) > 0) or not np.isfinite(times[-1]):
            raise ValueError("times of a trace are finite and ascend from 0")
        if not np.all((rates >= 0) & np.isfinite(rates)) or not rates.any():
            raise ValueError("rates of a trace are finite, not negative, and not all 0")

    @cached_property
    def _bits(self) -> Floats:
        """(N + 1,) bits carried by each of ``times_s``."""
        return np.append(0.0, np.cumsum(np.diff(self.times_s) * self.bits_per_s))

    @cached_property
    def _carries_from(self) -> tuple[Floats, Floats]:
        """(N,) earliest time from the begin of each step on at which something is carried.

        As rounds to come, 0 or 1, and the time within that round: what is reached from before
        the end of a round and from after it is the same to the last digit.
        """
        steps = np.arange(len(self.bits_per_s))
        carrying = np.flatnonzero(self.bits_per_s)
        following = np.searchsorted(carrying, steps)
        next_round = following == len(carrying)
        return next_round.astype(float), self.times_s[carrying[np.where(next_round, 0, following)]]

    def work(self, time_s: Numbers) -> Numbers:
        """See :class:`Capacity`."""
        finite, rounds, within = _in_rounds(time_s, self.times_s[-1])
        step = np.searchsorted(self.times_s, within, side="right") - 1
        bits = self._bits[step] + self.bits_per_s[step] * (within - self.times_s[step])
        # Rounding must not carry a sum beyond where the next step begins: work never falls.
        bits = np.minimum(bits, self._bits[step + 1])
        total = self._bits[-1]
        bits = np.minimum(rounds * total + bits, (rounds + 1) * total)
        work: Numbers = _like(time_s, np.where(finite, bits, time_s))
        return work

    def time(self, work: Numbers) -> Numbers:
        """See :class:`Capacity`."""
        finite, rounds, within = _in_rounds(work, self._bits[-1])
        # What a whole round carries is done when that round ends, or before, not in the next.
        whole = (within == 0) & (rounds > 0)
        rounds, within = rounds - whole, np.where(whole, self._bits[-1], within)
        step = np.maximum(np.searchsorted(self._bits, within, side="left") - 1, 0)
        left = within - self._bits[step]
        # Something is left only in a step that carries something.
        seconds = left / np.where(left > 0, self.bits_per_s[step], 1.0)
        times = np.minimum(self.times_s[step] + seconds, self.times_s[step + 1])
        times = rounds * self.times_s[-1] + times
        time_s: Numbers = _like(work, np.where(finite, times, work))
        return time_s

    def available(self, time_s: Numbers) -> Numbers:
        """See :class:`Capacity`."""
        finite, rounds, within = _in_rounds(time_s, self.times_s[-1])
        step = np.searchsorted(self.times_s, within, side="right") - 1
        to_come, from_s = self._carries_from
        begins = (rounds + to_come[step]) * self.times_s[-1] + from_s[step]
        waits = finite & (self.bits_per_s[step] == 0)
        available: Numbers = _like(time_s, np.where(waits, np.maximum(begins, time_s), time_s))
        return available

    def amount(self, size_bytes: Numbers) -> Numbers:
        """See :class:`Capacity`."""
        amount: Numbers = 8.0 * size_bytes
        return amount

    def mean_s(self, size_bytes: float) -> float:
        """See :class:`Capacity`."""
        return 8 * size_bytes * float(self.times_s[-1] / self._bits[-1])


def _in_rounds(values: Any, length: float) -> tuple[Any, Any, Any]:
    """Which values are finite, in which round of ``length`` they lie, and where in it.

    Positions are differences to ``rounds * length`` as rounded, so that this product itself is
    exactly where a round begins.
    """
    finite = np.isfinite(values)
    values = np.where(finite, values, 0.0)
    rounds = np.floor(values / length)
    return finite, rounds, np.clip(values - rounds * length, 0.0, np.nextafter(length, 0.0))


# --- outages -------------------------------------------------------------------------------------


def with_outages(capacity: Capacity, intervals: Iterable[tuple[float, float]]) -> Capacity:
    """``capacity`` that carries nothing within intervals of time.

    A message under way waits for the end, then goes on where it stopped.

    Args:
        intervals: start and end of each, in seconds, in any order; they may overlap, and an end
            may be infinite.

    Raises:
        ScenarioError: an outage begins before 0, or does not end after it began.
    """
    merged: list[list[float]] = []
    for start, end in sorted(intervals):
        if not 0 <= start < end or math.isinf(start):
            raise ScenarioError(
                f"an outage from {start:g} s to {end:g} s: it must begin at 0 s or later, and end "
                "after that"
            )
        if merged and start <= merged[-1][1]:
            merged[-1][1] = max(merged[-1][1], end)
        else:
            merged.append([start, end])
    if not merged:
        return capacity
    starts, ends = np.array(merged).T
    return _Interrupted(capacity, starts, ends)


@dataclass(frozen=True, eq=False)
class _Interrupted:
    """A capacity with outages, apart and in order.

    Between two outages it does the work of ``whole``; during one it does none. Of what follows
    each outage, arrays have one entry, and one before for what comes before them all.
    """

    whole: Capacity
    starts_s: Floats
    ends_s: Floats

    @cached_property
    def _up_from_s(self) -> Floats:
        return np.append(0.0, self.ends_s)

    @cached_property
    def _up_to_s(self) -> Floats:
        return np.append(self.starts_s, np.inf)

    @cached_property
    def _whole_before(self) -> Floats:
        """Work of ``whole`` before each time it is up."""
        return self.whole.work(self._up_from_s)

    @cached_property
    def _done_before(self) -> Floats:
        """Work really done before each time it is up."""
        done = self.whole.work(self.starts_s) - self._whole_before[:-1]
        return np.append(0.0, np.cumsum(done))

    def work(self, time_s: Numbers) -> Numbers:
        """See :class:`Capacity`."""
        finite = np.isfinite(time_s)
        times = np.where(finite, time_s, 0.0)
        outages = np.searchsorted(self.starts_s, times, side="right")
        # Within an outage, the whole has not yet done what it does before the end of it.
        since = np.maximum(self.whole.work(times) - self._whole_before[outages], 0.0)
        work: Numbers = _like(time_s, np.where(finite, self._done_before[outages] + since, time_s))
        return work

    def time(self, work: Numbers) -> Numbers:
        """See :class:`Capacity`."""
        outages = np.searchsorted(self._done_before[1:], work, side="left")
        of_whole = np.asarray(work - self._done_before[outages] + self._whole_before[outages])
        times = np.clip(self.whole.time(of_whole), self._up_from_s[outages], self._up_to_s[outages])
        time_s: Numbers = _like(work, times)
        return time_s

    def available(self, time_s: Numbers) -> Numbers:
        """See :class:`Capacity`."""
        times = np.asarray(time_s, dtype=np.float64)
        while True:
            outages = np.searchsorted(self.starts_s, times, side="right")
            up = self.whole.available(np.maximum(times, self._up_from_s[outages]))
            if np.array_equal(up, times):
                from_s: Numbers = _like(time_s, up)
                return from_s
            times = up  # which may lie in the next outage

    def amount(self, size_bytes: Numbers) -> Numbers:
        """See :class:`Capacity`."""
        return self.whole.amount(size_bytes)

    def mean_s(self, size_bytes: float) -> float:
        """See :class:`Capacity`."""
        return self.whole.mean_s(size_bytes)


@dataclass(frozen=True, eq=False)
class InterruptedLinks:
    """As a capacity with outages, of many links at once, each with outages of its own.

    Attributes:
        whole: of each link while it is up.
        starts_s, ends_s: (links, K) of their outages, ascending along each row and apart; infinity
            fills rows up.
    """

    whole: Capacity
    starts_s: Floats
    ends_s: Floats

    @cached_property
    def _up_from_s(self) -> Floats:
        return np.pad(self.ends_s, ((0, 0), (1, 0)))

    @cached_property
    def _up_to_s(self) -> Floats:
        return np.pad(self.starts_s, ((0, 0), (0, 1)), constant_values=np.inf)

    @cached_property
    def _whole_before(self) -> Floats:
        return self.whole.work(self._up_from_s)

    @cached_property
    def _done_before(self) -> Floats:
        until = self.whole.work(self.starts_s)
        there = np.isfinite(self.starts_s)
        done = np.full_like(until, np.inf)
        done[there] = until[there] - self._whole_before[:, :-1][there]
        return np.pad(np.cumsum(done, axis=1), ((0, 0), (1, 0)))

    def work(self, link: NDArray[np.int64], time_s: Floats) -> Floats:
        """(N,) work that each message's link could have done by a time; see :class:`Capacity`."""
        finite = np.isfinite(time_s)
        times = np.where(finite, time_s, 0.0)
        outages = self._begun(link, times)
        since = np.maximum(self.whole.work(times) - self._whole_before[link, outages], 0.0)
        return np.where(finite, self._done_before[link, outages] + since, time_s)

    def finished_s(self, link: NDArray[np.int64], sent_s: Floats, work: Floats) -> Floats:
        """(N,) when messages have left their links; see :func:`finished_s`."""
        outages = _count_before(self._done_before[:, 1:], link, work, equal=False)
        of_whole = work - self._done_before[link, outages] + self._whole_before[link, outages]
        times = np.clip(
            self.whole.time(of_whole), self._up_from_s[link, outages], self._up_to_s[link, outages]
        )
        finished: Floats = np.maximum(self._available(link, sent_s), times)
        return finished

    def _available(self, link: NDArray[np.int64], time_s: Floats) -> Floats:
        while True:
            outages = self._begun(link, time_s)
            up_s = self.whole.available(np.maximum(time_s, self._up_from_s[link, outages]))
            if np.array_equal(up_s, time_s):
                return up_s
            time_s = up_s  # which may lie in the next outage

    def _begun(self, link: NDArray[np.int64], time_s: Floats) -> NDArray[np.int64]:
        """(N,) how many outages have begun."""
        return _count_before(self.starts_s, link, time_s, equal=True)


def _count_before(
    table: Floats, row: NDArray[np.int64], values: Floats, *, equal: bool
) -> NDArray[np.int64]:
    """(N,) how many entries of a row of ascending ones lie before a value: a search by halves.

    Args:
        table: (rows, K).
        equal: whether an entry that equals the value counts.
    """
    low = np.zeros(len(row), dtype=np.int64)
    high = np.full(len(row), table.shape[1], dtype=np.int64)
    while (open_ := low < high).any():
        middle = (low + high) // 2
        entry = table[row, np.minimum(middle, table.shape[1] - 1)]
        before = open_ & (entry <= values if equal else entry < values)
        low, high = np.where(before, middle + 1, low), np.where(open_ & ~before, middle, high)
    return low


# --- traces --------------------------------------------------------------------------------------

#: Bits per second of one unit, by how a column's name ends.
_UNITS = {"_mbps": 1e6, "_kbps": 1e3, "bits_per_s": 1.0, "_bitrate": 1e3}
_COLUMNS = ("bandwidth_mbps", "bandwidth_kbps", "bits_per_s")


def read_bandwidth_trace(path: Path, column: str | None = None) -> TracedCapacity:
    """Read a bandwidth trace from a CSV file with a header.

    Times are in a column ``time_s``, or ``Timestamp`` as in the logs of Raca et al. 2020 ("Beyond
    throughput, the next generation: a 5G dataset with channel and context metrics"):
    ``2020.02.13_13.57.29``. The trace begins with its first time; each rate holds until the next
    time, and the last as long as the one before it. Rates at the same time are averaged, since
    logs with whole seconds have several in some.

    Args:
        column: of the bandwidth, its unit told by the end of its name: ``_mbps``, ``_kbps``,
            ``bits_per_s``, or ``_bitrate`` (kbit/s, as ``DL_bitrate`` and ``UL_bitrate`` in those
            logs). By default the one there is of ``bandwidth_mbps``, ``bandwidth_kbps`` and
            ``bits_per_s``.

    Raises:
        ArtifactError: the file cannot be read, lacks a column, or holds what is no time or no
            bandwidth; the message names file and line.
    """
    times, rates = _read_columns(path, column)
    distinct, first, counts = np.unique(times, return_index=True, return_counts=True)
    if len(distinct) < 2:
        raise ArtifactError(f"{path}: a bandwidth trace needs rows at two different times or more")
    means = np.add.reduceat(rates, first) / counts
    if not means.any():
        raise ArtifactError(f"{path}: the bandwidth is 0 throughout; nothing would ever arrive")
    starts = distinct - distinct[0]
    return TracedCapacity(np.append(starts, starts[-1] + (starts[-1] - starts[-2])), means)


def _read_columns(path: Path, column: str | None) -> tuple[Floats, Floats]:
    """Times in seconds and rates in bit/s, row by row."""
    times: list[float] = []
    rates: list[float] = []
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = csv.reader(file)
            header = [name.strip() for name in next(rows, [])]
            time_at, read_time = _time_column(path, header)
            rate_at, unit = _rate_column(path, header, column)
            for row in rows:
                if not row:
                    continue
                place = f"{path}:{rows.line_num}"
                if len(row) <= max(time_at, rate_at):
                    raise ArtifactError(f"{place}: the row ends before column {header[len(row)]}")
                time_s = _number(place, header[time_at], row[time_at], read_time)
                rate = _number(place, header[rate_at], row[rate_at], float)
                if times and time_s < times[-1]:
                    raise ArtifactError(
                        f"{place}: {header[time_at]} {row[time_at]} comes before that of the row "
                        "above; sort the rows by time, or cut the file where the clock was set back"
                    )
                if rate < 0:
                    raise ArtifactError(
                        f"{place}: {header[rate_at]} is {row[rate_at]}; a bandwidth is not negative"
                    )
                times.append(time_s)
                rates.append(rate * unit)
    except OSError as error:
        raise ArtifactError(f"{path}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise ArtifactError(f"{path}: not a text file in UTF-8: {error.reason}") from None
    except csv.Error as error:
        raise ArtifactError(f"{path}: not a CSV file: {error}") from None
    return np.array(times), np.array(rates)


def _time_column(path: Path, header: list[str]) -> tuple[int, Callable[[str], float]]:
    if "time_s" in header:
        return header.index("time_s"), float
    if "Timestamp" in header:
        return header.index("Timestamp"), _timestamp_s
    raise ArtifactError(
        f"{path}:1: no column of times; it must be named time_s, in seconds, or Timestamp "
        f"(there are: {', '.join(header)})"
    )


def _timestamp_s(text: str) -> float:
    begin = datetime(2000, 1, 1)
    return (datetime.strptime(text, "%Y.%m.%d_%H.%M.%S") - begin).total_seconds()


def _rate_column(path: Path, header: list[str], column: str | None) -> tuple[int, float]:
    """Where the column of bandwidths is, and its unit in bit/s."""
    if column is None:
        known = [name for name in _COLUMNS if name in header]
        if len(known) != 1:
            problem = f"several: {', '.join(known)}" if known else "none"
            raise ArtifactError(
                f"{path}:1: of the columns {', '.join(_COLUMNS)} one is expected, but there is "
                f"{problem}; name the column (there are: {', '.join(header)})"
            )
        column = known[0]
    elif column not in header:
        raise ArtifactError(
            f"{path}:1: no column {column!r}{did_you_mean(column, header)} "
            f"(there are: {', '.join(header)})"
        )
    for ending, unit in _UNITS.items():
        if column.endswith(ending):
            return header.index(column), unit
    raise ArtifactError(
        f"{path}:1: the unit of column {column!r} is not known; its name must end with "
        f"{', '.join(_UNITS)}"
    )


def _number(place: str, column: str, text: str, read: Callable[[str], float]) -> float:
    try:
        value = read(text.strip())
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        kind = "a finite number" if read is float else "a time like 2020.02.13_13.57.29"
        raise ArtifactError(f"{place}: {column} is {text!r}; {kind} is expected")
    return value
