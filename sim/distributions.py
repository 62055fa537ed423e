"""Distributions of durations, in seconds, sampled by inverting their distribution function.

``ppf(u)`` maps uniform numbers in [0, 1) to values, so that a request draws the same quantile in
every arm of a comparison. scipy.special is used rather than scipy.stats, which takes half a
second to import.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from scipy import special

Floats = NDArray[np.float64]


class Distribution(Protocol):
    """A distribution of non-negative values."""

    def ppf(self, u: Floats) -> Floats:
        """Quantiles: same shape as ``u``."""

    def mean(self) -> float:
        """Expected value."""


@dataclass(frozen=True)
class Constant:
    """Always ``value``."""

    value: float

    def ppf(self, u: Floats) -> Floats:
        """See :class:`Distribution`."""
        return np.full(np.shape(u), self.value)

    def mean(self) -> float:
        """See :class:`Distribution`."""
        return self.value


@dataclass(frozen=True)
class Uniform:
    """Uniform between ``low`` and ``high``."""

    low: float
    high: float

    def ppf(self, u: Floats) -> Floats:
        """See :class:`Distribution`."""
        return self.low + (self.high - self.low) * u

    def mean(self) -> float:
        """See :class:`Distribution`."""
        return (self.low + self.high) / 2


@dataclass(frozen=True)
class Exponential:
    """Exponential with mean ``scale``."""

    scale: float

    def ppf(self, u: Floats) -> Floats:
        """See :class:`Distribution`."""
        return -self.scale * np.log1p(-u)

    def mean(self) -> float:
        """See :class:`Distribution`."""
        return self.scale


@dataclass(frozen=True)
class TruncatedNormal:
    """Normal(``loc``, ``scale``) given that it is not negative."""

    loc: float
    scale: float

    def ppf(self, u: Floats) -> Floats:
        """See :class:`Distribution`."""
        # By the upper tail: near 1, the distribution function has no digits left.
        above = special.ndtr(self.loc / self.scale)
        quantile: Floats = self.loc - self.scale * special.ndtri(above * (1 - u))
        return np.maximum(quantile, 0.0)

    def mean(self) -> float:
        """See :class:`Distribution`."""
        z = self.loc / self.scale
        density = math.exp(-z * z / 2) / math.sqrt(2 * math.pi)
        return self.loc + self.scale * density / float(special.ndtr(z))


@dataclass(frozen=True)
class Lognormal:
    """Lognormal with ``median`` and standard deviation ``sigma`` of the logarithm."""

    median: float
    sigma: float

    def ppf(self, u: Floats) -> Floats:
        """See :class:`Distribution`."""
        quantile: Floats = self.median * np.exp(self.sigma * special.ndtri(u))
        return quantile

    def mean(self) -> float:
        """See :class:`Distribution`."""
        return self.median * math.exp(self.sigma**2 / 2)


@dataclass(frozen=True)
class Gamma:
    """Gamma with expected value ``loc`` and standard deviation ``scale``."""

    loc: float
    scale: float

    def ppf(self, u: Floats) -> Floats:
        """See :class:`Distribution`."""
        shape = (self.loc / self.scale) ** 2
        quantile: Floats = special.gammaincinv(shape, u) * (self.loc / shape)
        return quantile

    def mean(self) -> float:
        """See :class:`Distribution`."""
        return self.loc


def quantile(distribution: Distribution, q: float) -> float:
    """The ``q`` quantile of ``distribution``."""
    return float(distribution.ppf(np.array([q]))[0])
