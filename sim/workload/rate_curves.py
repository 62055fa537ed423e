"""Rates that change with time: straight lines between points, repeated with a period.

A Poisson process whose rate follows such a curve is a Poisson process of rate one whose time
runs by the curve's integral (Çinlar 1975, "Introduction to stochastic processes", section 4.7):
request *n* comes when the integral reaches the sum of *n* unit exponentials.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.polynomial.legendre import leggauss
from numpy.typing import NDArray
from scipy import special

Floats = NDArray[np.float64]


class RateCurve:
    """A rate over time, by its corners.

    Between two points the rate changes linearly, and so it does from the last point of a period
    to the first of the next; two points at one time are a step.

    Args:
        points: pairs of time in seconds, ascending within 0 to ``period_s``, and rate in Hz.
        period_s: after which the curve repeats.

    Raises:
        ValueError: times that do not ascend within the period, negative rates, or no positive one.
    """

    def __init__(self, points: Sequence[tuple[float, float]], period_s: float) -> None:
        table = np.array(points, dtype=np.float64).reshape(-1, 2)
        if not len(table) or not np.isfinite(table).all() or not 0 < period_s < np.inf:
            raise ValueError("a rate curve needs points and a period, all of them finite")
        time, rate = table.T
        if (np.diff(time) < 0).any() or time[0] < 0 or time[-1] > period_s:
            raise ValueError(f"times of a rate curve must ascend within 0 to {period_s:g} s")
        if (rate < 0).any():
            raise ValueError(f"rates must not be negative, as {rate.min():g} Hz is")
        # From the last point over the end of the period to the first.
        gap = period_s - time[-1] + time[0]
        back = (period_s - time[-1]) / gap if gap else 0.0
        seam = rate[-1] + (rate[0] - rate[-1]) * back
        if time[0] > 0:
            time, rate = np.append(0.0, time), np.append(seam, rate)
        if time[-1] < period_s:
            time, rate = np.append(time, period_s), np.append(rate, seam)
        wide = np.diff(time) > 0
        self._begin: Floats = time[:-1][wide]
        self._width: Floats = np.diff(time)[wide]
        self._low: Floats = rate[:-1][wide]
        self._high: Floats = rate[1:][wide]
        self._slope: Floats = (self._high - self._low) / self._width
        reached = np.cumsum((self._low + self._high) / 2 * self._width)
        self._reached: Floats = np.append(0.0, reached[:-1])
        self.period_s = float(period_s)
        self.requests = float(reached[-1])
        if not self.requests > 0:
            raise ValueError("a rate curve needs a rate above zero somewhere")

    def mean(self) -> float:
        """The mean rate in Hz over one period."""
        return self.requests / self.period_s

    def clock_at(self, time_s: float) -> float:
        """The integral of the rate from 0 to ``time_s``: the requests to be expected by then."""
        cycles, within = divmod(time_s, self.period_s)
        piece = int(np.searchsorted(self._begin, within, side="right")) - 1
        since = within - self._begin[piece]
        area = (self._low[piece] + self._slope[piece] * since / 2) * since
        return float(cycles * self.requests + self._reached[piece] + area)

    def time_at(self, clock: Floats) -> Floats:
        """When the integral of the rate reaches ``clock``: same shape."""
        cycles, within = np.divmod(clock, self.requests)
        piece = np.searchsorted(self._reached, within, side="right") - 1
        area = within - self._reached[piece]
        low = self._low[piece]
        # The root of low·x + slope·x²/2 = area, in the form that loses no digits.
        under_root = np.maximum(low * low + 2 * self._slope[piece] * area, 0.0)
        divisor = low + np.sqrt(under_root)
        since = np.divide(2 * area, divisor, out=np.zeros_like(area), where=divisor > 0)
        since = np.minimum(since, self._width[piece])
        times: Floats = cycles * self.period_s + (self._begin[piece] + since)
        return times

    def mean_wait_s(self) -> float:
        """Mean seconds from an instant anywhere in the period, by chance, to the next request.

        The wait from time *t* is ∫ exp(Λ(t) − Λ(s)) ds over all s > t, Λ being the rate's
        integral. Along a straight piece that is the scaled complementary error function (rising
        rate) or Dawson's integral (falling rate); its mean over the piece is taken by
        Gauss–Legendre on panels that shrink towards both ends, where it may change fast.
        """
        # The wait at the end of the period is the wait at its beginning.
        at_end = 0.0
        for piece in reversed(range(len(self._width))):
            at_end = float(self._wait(piece, 0.0, self._width[piece], at_end))
        at_end /= -np.expm1(-self.requests)
        nodes, weights = _graded_panels()
        total = 0.0
        for piece in reversed(range(len(self._width))):
            width = self._width[piece]
            near, far = width * nodes, width * (1 - nodes)
            waits = self._wait(piece, near, far, at_end) + self._wait(piece, far, near, at_end)
            total += width * float(weights @ waits)
            at_end = float(self._wait(piece, 0.0, width, at_end))
        return total / self.period_s

    def _wait(
        self, piece: int, since: Floats | float, left: Floats | float, at_end: float
    ) -> Floats:
        """Mean wait ``since`` seconds after the begin of ``piece``, ``left`` before its end.

        Args:
            at_end: mean wait at the end of the piece.
        """
        slope, high = self._slope[piece], self._high[piece]
        rate = self._low[piece] + slope * since
        area = (rate + high) / 2 * left
        survival = np.exp(-area)
        if slope == 0:
            within = -np.expm1(-area) / high if high else np.asarray(left)
        else:
            scale = np.sqrt(2 * abs(slope))
            at, end = rate / scale, high / scale
            if slope > 0:
                within = (
                    (special.erfcx(at) - survival * special.erfcx(end)) * np.sqrt(np.pi) / scale
                )
            else:
                within = (special.dawsn(at) - survival * special.dawsn(end)) * 2 / scale
        waits: Floats = within + survival * at_end
        return waits


def _graded_panels() -> tuple[Floats, Floats]:
    """Nodes and weights for integrals from 0 to 1/2, panels halving towards 0."""
    nodes, weights = leggauss(16)
    edges = np.append(0.0, 2.0 ** np.arange(-48, 0))
    half = np.diff(edges)[:, None] / 2
    middle = (edges[1:] + edges[:-1])[:, None] / 2
    return (middle + half * nodes).ravel(), (half * weights).ravel()
