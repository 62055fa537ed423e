"""Arrival processes: when each device of a group creates its requests.

A process says its long-run ``rate`` and the coefficient of variation ``cv`` of the times between
requests, and begins a stream, which is asked for one slice of time after another. What a device
creates depends on its own random numbers alone: not on where slices are cut, nor on how many other
devices there are. A stream keeps a few numbers for each device, and never its requests.

Every process but the trace is stationary (the diurnal one given its curve): devices have been
running before time 0, so that nothing has to settle.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numpy as np

from sim.distributions import Distribution
from sim.workload.arrival_streams import (
    ArrivalStream,
    ClockStream,
    Created,
    Named,
    OnOffStream,
    PeriodicStream,
    SteadyRate,
    TraceStream,
)
from sim.workload.rate_curves import RateCurve
from sim.workload.request_traces import RequestTrace

__all__ = [
    "ArrivalStream",
    "Arrivals",
    "ClosedLoop",
    "Created",
    "Diurnal",
    "OnOff",
    "Periodic",
    "Poisson",
    "TraceArrivals",
]


class Arrivals(Protocol):
    """An arrival process, the same for every device of a group."""

    def rate(self) -> float:
        """Requests per second of one device, in the long run."""

    def cv(self) -> float:
        """Coefficient of variation of the times between requests of one device."""

    def begin(self, devices: int, uniforms: Named) -> ArrivalStream:
        """A stream from time 0.

        Args:
            devices: their count.
            uniforms: gives the random numbers of each named stream of the group; the names used
                here begin with ``arrivals/``.
        """


@dataclass(frozen=True)
class Poisson:
    """Poisson process: exponential times between requests."""

    rate_hz: float

    def __post_init__(self) -> None:
        _check_positive("rate_hz", self.rate_hz)

    def rate(self) -> float:
        """See :class:`Arrivals`."""
        return self.rate_hz

    def cv(self) -> float:
        """See :class:`Arrivals`."""
        return 1.0

    def begin(self, devices: int, uniforms: Named) -> ArrivalStream:
        """See :class:`Arrivals`."""
        return ClockStream(devices, uniforms, SteadyRate(self.rate_hz))


@dataclass(frozen=True)
class Periodic:
    """A release in every period, from a random phase of each device, each a little late.

    Attributes:
        rate_hz: releases per second.
        jitter_s: lateness is uniform between 0 and this, independently for each request; less
            than a period, so that requests keep their order.
    """

    rate_hz: float
    jitter_s: float = 0.0

    def __post_init__(self) -> None:
        _check_positive("rate_hz", self.rate_hz)
        if not 0 <= self.jitter_s < 1 / self.rate_hz:
            raise ValueError(
                f"jitter_s must be at least 0 and less than the period of {1 / self.rate_hz:g} s, "
                f"but is {self.jitter_s:g}"
            )

    def rate(self) -> float:
        """See :class:`Arrivals`."""
        return self.rate_hz

    def cv(self) -> float:
        """See :class:`Arrivals`: a gap varies by the difference of two uniform jitters."""
        return self.jitter_s * self.rate_hz / math.sqrt(6)

    def begin(self, devices: int, uniforms: Named) -> ArrivalStream:
        """See :class:`Arrivals`."""
        return PeriodicStream(devices, uniforms, self.rate_hz, self.jitter_s)


@dataclass(frozen=True)
class OnOff:
    """Bursts: a Poisson process whose rate switches at random between two values.

    The two-state Markov-modulated Poisson process, MMPP(2); with ``off_rate_hz`` 0 it is the
    interrupted Poisson process. Each device switches by itself, and begins in the stationary
    distribution of its states.

    Attributes:
        on_rate_hz, off_rate_hz: rates in the two states.
        mean_on_s, mean_off_s: means of the exponential times spent in them.
    """

    on_rate_hz: float
    off_rate_hz: float
    mean_on_s: float
    mean_off_s: float

    def __post_init__(self) -> None:
        _check_positive("on_rate_hz", self.on_rate_hz)
        _check_positive("mean_on_s", self.mean_on_s)
        _check_positive("mean_off_s", self.mean_off_s)
        if not 0 <= self.off_rate_hz < math.inf:
            raise ValueError(f"off_rate_hz must be 0 or more and finite, but is {self.off_rate_hz}")

    def rate(self) -> float:
        """See :class:`Arrivals`."""
        requests = self.on_rate_hz * self.mean_on_s + self.off_rate_hz * self.mean_off_s
        return requests / (self.mean_on_s + self.mean_off_s)

    def cv(self) -> float:
        """See :class:`Arrivals`: of the time between two requests that follow each other.

        Fischer & Meier-Hellstern 1993, "The Markov-modulated Poisson process (MMPP) cookbook";
        with ``off_rate_hz`` 0, Kuczura 1973, "The interrupted Poisson process as an overflow
        process".
        """
        leave_on, leave_off = 1 / self.mean_on_s, 1 / self.mean_off_s
        on, off = self.on_rate_hz, self.off_rate_hz
        excess = 2 * leave_on * leave_off * (on - off) ** 2
        excess /= (leave_on + leave_off) ** 2 * (on * off + on * leave_off + off * leave_on)
        return math.sqrt(1 + excess)

    def begin(self, devices: int, uniforms: Named) -> ArrivalStream:
        """See :class:`Arrivals`."""
        rate_hz = self.on_rate_hz, self.off_rate_hz
        return OnOffStream(devices, uniforms, rate_hz, (self.mean_on_s, self.mean_off_s))


@dataclass(frozen=True)
class Diurnal:
    """A Poisson process whose rate follows a curve that repeats, the same for all devices.

    Attributes:
        curve: points of time in seconds and rate in Hz, with straight lines between them, as
            :class:`sim.workload.rate_curves.RateCurve` describes. Time 0 of the run is time 0 of
            the curve.
        period_s: after which the curve repeats; by default the time of its last point.
    """

    curve: tuple[tuple[float, float], ...]
    period_s: float | None = None

    def __post_init__(self) -> None:
        # A curve that cannot be is refused here, not in the middle of a run.
        object.__setattr__(self, "curve", tuple((float(at), float(hz)) for at, hz in self.curve))
        _ = self._rates

    @cached_property
    def _rates(self) -> RateCurve:
        last_s = self.curve[-1][0] if self.curve else 0.0
        return RateCurve(self.curve, last_s if self.period_s is None else self.period_s)

    def rate(self) -> float:
        """See :class:`Arrivals`: the mean over a period."""
        return self._rates.mean()

    def cv(self) -> float:
        """See :class:`Arrivals`: of the times between requests, over whole periods.

        It counts every pair of requests that follow each other alike, so that most are of the busy
        hours. The mean of these gaps is 1 / rate; their mean square follows from the mean time
        that a random instant waits for the next request, which is E[gap²] / (2 E[gap]).
        """
        return math.sqrt(max(0.0, 2 * self.rate() * self._rates.mean_wait_s() - 1))

    def begin(self, devices: int, uniforms: Named) -> ArrivalStream:
        """See :class:`Arrivals`."""
        return ClockStream(devices, uniforms, self._rates)


@dataclass(frozen=True)
class TraceArrivals:
    """Requests at the times of a trace file; after its end there are none.

    Attributes:
        trace: what was read.
        devices: in the group, of which the trace may leave some silent; by default as many as the
            trace has.
    """

    trace: RequestTrace
    devices: int | None = None

    def rate(self) -> float:
        """See :class:`Arrivals`: requests up to the last of the trace, over its time, per device.

        Infinite if all of them are at time 0.
        """
        devices, last_s = self.devices or self.trace.devices, float(self.trace.time_s[-1])
        return len(self.trace) / (last_s * devices) if last_s > 0 else math.inf

    def cv(self) -> float:
        """See :class:`Arrivals`: of all the gaps in the trace; NaN if there are none."""
        by_device = self.trace.order
        device, times = self.trace.device[by_device], self.trace.time_s[by_device]
        gaps = np.diff(times)[np.diff(device) == 0]
        mean = float(gaps.mean()) if len(gaps) else 0.0
        return float(gaps.std()) / mean if mean > 0 else math.nan

    def begin(self, devices: int, uniforms: Named) -> ArrivalStream:
        """See :class:`Arrivals`: draws no random numbers.

        Raises:
            ScenarioError: the trace has more devices than the group.
        """
        self.trace.check(devices)
        return TraceStream(self.trace)


@dataclass(frozen=True)
class ClosedLoop:
    """Each device waits for its answer, thinks, and sends its next request.

    How often it sends depends on how fast it is served: the world drives it, and its rate is known
    only afterwards.

    Attributes:
        think: seconds from an answer, or from the news that none will come, to the next request.
    """

    think: Distribution


def _check_positive(name: str, value: float) -> None:
    if not 0 < value < math.inf:
        raise ValueError(f"{name} must be positive and finite, but is {value}")
