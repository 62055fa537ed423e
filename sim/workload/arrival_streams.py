"""Streams of requests: what arrival processes create, slice by slice, for many devices at once.

Numpy works on blocks of devices by requests. A request's time is a sum of the device's own random
numbers, added one by one from the first, so that neither slices nor blocks show in it.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from sim.streams import Floats, Integers, Uniforms
from sim.workload.request_traces import RequestTrace

Numbers = NDArray[np.int64]
Named = Callable[[str], Uniforms]

#: Array elements worked on at a time: few enough for the processor's caches.
_BLOCK = 1 << 18


class Created(NamedTuple):
    """Requests; arrays of length N, by ``created_s``, then ``device``, then ``number``.

    Attributes:
        device: within the group, from 0.
        number: of the request within its device, from 0.
        created_s: time of creation.
    """

    device: Numbers
    number: Numbers
    created_s: Floats


class ArrivalStream(Protocol):
    """The requests of a group, one slice of time after another."""

    def until(self, time_s: float) -> Created:
        """Every request created before ``time_s`` that was not returned before."""


class _DeviceStream(ABC):
    """A stream that keeps, for each device, the number of its next request and a time before it."""

    def __init__(self, devices: int) -> None:
        self._number: Numbers = np.zeros(devices, dtype=np.int64)
        #: No request of the device that was not returned yet is earlier.
        self._not_before_s: Floats = np.zeros(devices)

    @abstractmethod
    def _columns(self, device: Numbers, time_s: float) -> int:
        """How many numbers each of ``device`` will about need to reach ``time_s``; at least 1."""

    @abstractmethod
    def _advance(self, device: Numbers, columns: int, time_s: float) -> Created:
        """The next requests of ``device`` before ``time_s``, as far as ``columns`` numbers reach.

        Advances ``_number`` and ``_not_before_s``.
        """

    def until(self, time_s: float) -> Created:
        """See :class:`ArrivalStream`."""
        parts: list[Created] = []
        behind = np.flatnonzero(self._not_before_s < time_s)
        while len(behind):
            columns = min(self._columns(behind, time_s), _BLOCK)
            rows = max(1, _BLOCK // columns)
            parts.extend(
                self._advance(behind[start : start + rows], columns, time_s)
                for start in range(0, len(behind), rows)
            )
            behind = behind[self._not_before_s[behind] < time_s]
        return _in_order(parts)

    def _take(self, device: Numbers, times: Floats, sent: NDArray[np.bool_]) -> Created:
        """The requests of ``device`` at ``times`` that are ``sent``: the first ones of each row."""
        rows, columns = np.nonzero(sent)
        first = self._number[device]
        self._number[device] += sent.sum(axis=1)
        return Created(device[rows], first[rows] + columns, times[rows, columns])


class Clock(Protocol):
    """Turns time into requests to be expected, and back."""

    def clock_at(self, time_s: float) -> float:
        """Requests to be expected from time 0 until ``time_s``."""

    def time_at(self, clock: Floats) -> Floats:
        """When as many as ``clock`` are to be expected."""


@dataclass(frozen=True)
class SteadyRate:
    """The clock of a constant rate."""

    rate_hz: float

    def clock_at(self, time_s: float) -> float:
        """See :class:`Clock`."""
        return time_s * self.rate_hz

    def time_at(self, clock: Floats) -> Floats:
        """See :class:`Clock`."""
        return clock / self.rate_hz


class ClockStream(_DeviceStream):
    """Poisson processes by inversion: a request whenever the clock has run a unit exponential."""

    def __init__(self, devices: int, uniforms: Named, clock: Clock) -> None:
        super().__init__(devices)
        self._rates = clock
        self._uniforms = uniforms("arrivals/gap")
        #: The clock of each device at its next request.
        self._clock = _exponential(self._uniforms, np.arange(devices), np.zeros(1, dtype=np.int64))
        self._not_before_s = clock.time_at(self._clock)

    def _columns(self, device: Numbers, time_s: float) -> int:
        lag = self._rates.clock_at(time_s) - float(self._clock[device].mean())
        return 1 + _more_than(lag)

    def _advance(self, device: Numbers, columns: int, time_s: float) -> Created:
        position = self._number[device][:, None] + np.arange(1, columns + 1)
        clock = _running(self._clock[device], _exponential(self._uniforms, device, position))
        times = self._rates.time_at(clock)
        # Rounding of a curved rate could put a request before the one it follows.
        np.maximum.accumulate(times, axis=1, out=times)
        sent = times[:, :-1] < time_s
        at = np.arange(len(device)), sent.sum(axis=1)
        self._clock[device] = clock[at]
        self._not_before_s[device] = times[at]
        return self._take(device, times, sent)


class PeriodicStream(_DeviceStream):
    """Releases at ``(phase + n) / rate``, each a little late; n is −1 just before time 0."""

    def __init__(self, devices: int, uniforms: Named, rate_hz: float, jitter_s: float) -> None:
        super().__init__(devices)
        self._rate_hz = rate_hz
        self._jitter_s = jitter_s
        self._jitter = uniforms("arrivals/jitter")
        device = np.arange(devices)
        zero = np.zeros(1, dtype=np.int64)
        self._phase = uniforms("arrivals/phase")(device, zero)
        #: 1 where the release before time 0 is not late enough to come after it.
        self._skipped = np.zeros(devices, dtype=np.int64)
        self._skipped[self._times(device, zero)[:, 0] < 0] = 1
        self._not_before_s = self._times(device, zero)[:, 0]

    def _times(self, device: Numbers, number: Integers) -> Floats:
        """Times (devices, numbers) of requests: ``number`` is one row, or one for each device."""
        release = number + self._skipped[device][:, None]
        times: Floats = (self._phase[device][:, None] + (release - 1)) / self._rate_hz
        if self._jitter_s:
            times += self._jitter_s * self._jitter(device[:, None], release)
        return times

    def _columns(self, device: Numbers, time_s: float) -> int:
        lag = (time_s - float(self._not_before_s[device].min())) * self._rate_hz
        return 2 + math.ceil(min(lag, _BLOCK))

    def _advance(self, device: Numbers, columns: int, time_s: float) -> Created:
        times = self._times(device, self._number[device][:, None] + np.arange(columns + 1))
        np.maximum.accumulate(times, axis=1, out=times)
        sent = times[:, :-1] < time_s
        self._not_before_s[device] = times[np.arange(len(device)), sent.sum(axis=1)]
        return self._take(device, times, sent)


class OnOffStream(_DeviceStream):
    """As :class:`ClockStream`, each device's clock running at the rate of its present state.

    Args:
        rate_hz: while on, and while off.
        mean_s: of the exponential times spent on, and off.
    """

    def __init__(
        self,
        devices: int,
        uniforms: Named,
        rate_hz: tuple[float, float],
        mean_s: tuple[float, float],
    ) -> None:
        super().__init__(devices)
        self._rate_hz = rate_hz
        self._mean_s = mean_s
        self._gaps = uniforms("arrivals/gap")
        self._stays = uniforms("arrivals/stay")
        device = np.arange(devices)
        zero = np.zeros(1, dtype=np.int64)
        share_on = mean_s[0] / (mean_s[0] + mean_s[1])
        #: Parity of the stays in which the device is off: the first is 0.
        self._off = (uniforms("arrivals/state")(device, zero) < share_on).astype(np.int64)
        self._clock = _exponential(self._gaps, device, zero)
        #: Of the present stay: its number, its begin, and the clock at its begin.
        self._stay = np.zeros(devices, dtype=np.int64)
        self._begin_s = np.zeros(devices)
        self._begin_clock = np.zeros(devices)

    def _columns(self, device: Numbers, time_s: float) -> int:
        on_hz, off_hz = self._rate_hz
        on_s, off_s = self._mean_s
        # In the time of one stay in each state there are two stays, and so many requests.
        numbers = max(2.0, on_hz * on_s + off_hz * off_s)
        lag_s = time_s - float(self._not_before_s[device].mean())
        return 2 + _more_than(lag_s * numbers / (on_s + off_s))

    def _advance(self, device: Numbers, columns: int, time_s: float) -> Created:
        row = np.arange(len(device))
        stay = self._stay[device][:, None] + np.arange(columns)
        off = (stay + self._off[device][:, None]) % 2 == 0
        mean_s = np.where(off, self._mean_s[1], self._mean_s[0])
        seconds = mean_s * _exponential(self._stays, device, stay)
        rate = np.where(off, self._rate_hz[1], self._rate_hz[0])
        edge_s = _running(self._begin_s[device], seconds)
        edge_clock = _running(self._begin_clock[device], seconds * rate)
        position = self._number[device][:, None] + np.arange(1, columns + 1)
        clock = _running(self._clock[device], _exponential(self._gaps, device, position))

        within = _last_not_above(edge_clock, clock)
        known = within < columns
        stay_of = np.minimum(within, columns - 1)
        of_stay = (row[:, None], stay_of)
        since = (clock - edge_clock[of_stay]) / np.where(known, rate[of_stay], 1.0)
        # Rounding must not carry a request beyond its stay.
        times = np.minimum(edge_s[of_stay] + since, edge_s[row[:, None], stay_of + 1])
        sent = (known & (times < time_s))[:, :-1]

        at = row, sent.sum(axis=1)
        self._clock[device] = clock[at]
        # The stay of the next request, or the one after all that are known.
        reached = row, within[at]
        self._stay[device] += within[at]
        self._begin_s[device] = edge_s[reached]
        self._begin_clock[device] = edge_clock[reached]
        self._not_before_s[device] = np.where(known[at], times[at], edge_s[:, -1])
        return self._take(device, times, sent)


class TraceStream:
    """The lines of a trace, in their order."""

    def __init__(self, trace: RequestTrace) -> None:
        self._trace = trace
        self._next = 0

    def until(self, time_s: float) -> Created:
        """See :class:`ArrivalStream`."""
        trace = self._trace
        end = max(self._next, int(np.searchsorted(trace.time_s, time_s, side="left")))
        lines = slice(self._next, end)
        self._next = end
        return _in_order([Created(trace.device[lines], trace.number[lines], trace.time_s[lines])])


def _more_than(expected: float) -> int:
    """A count that a Poisson variable of this mean seldom exceeds by much."""
    return int(min(expected + math.sqrt(expected), _BLOCK)) if expected > 0 else 0


def _exponential(uniforms: Uniforms, device: Numbers, position: Numbers) -> Floats:
    """Unit exponentials: (devices,) at one position, else (devices, columns)."""
    if position.ndim > 1:
        device = device[:, None]
    values: Floats = -np.log1p(-uniforms(device, position))
    return values


def _running(first: Floats, steps: Floats) -> Floats:
    """``first`` and its sums with the steps of each row, added one by one: a column more."""
    # One by one, so that sums are the same bits wherever a slice begins.
    table = np.concatenate([first[:, None], steps], axis=1)
    return np.cumsum(table, axis=1, out=table)


def _last_not_above(edges: Floats, values: Floats) -> Numbers:
    """For each value, the last column of ``edges`` not above it; both ascend along each row."""
    # A stable sort of two ascending runs is a merge; equal edges come before values.
    order = np.argsort(np.concatenate([edges, values], axis=1), axis=1, kind="stable")
    is_edge = order < edges.shape[1]
    seen: Numbers = np.cumsum(is_edge, axis=1)[~is_edge]
    return seen.reshape(values.shape) - 1


def _in_order(parts: list[Created]) -> Created:
    """All ``parts`` in one, sorted as :class:`Created` says."""
    if not parts:
        nothing = np.empty(0, dtype=np.int64)
        return Created(nothing, nothing, np.empty(0))
    device, number, created_s = (np.concatenate(column) for column in zip(*parts, strict=True))
    order = np.argsort(created_s)
    if (np.diff(created_s[order]) <= 0).any():  # Requests at one instant are rare.
        order = np.lexsort((number, device, created_s))
    return Created(device[order], number[order], created_s[order])
