"""Distributions of durations, in seconds, sampled by inverting their distribution function.

``ppf(u)`` maps uniform numbers in [0, 1) to values, so that a request draws the same quantile in
every arm of a comparison. scipy.special is used rather than scipy.stats, which takes half a
second to import and is therefore imported only where a scenario names one of its distributions.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from scipy import special

from models.errors import ArtifactError, did_you_mean

Floats = NDArray[np.float64]

#: The largest number that a stream gives.
_MOST = 1 - 2.0**-53


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
        return _gamma_quantiles(shape)(u) * (self.loc / shape)

    def mean(self) -> float:
        """See :class:`Distribution`."""
        return self.loc


@dataclass(frozen=True, eq=False)
class Empirical:
    """One of ``values``, each as likely as the others: what was measured is drawn again.

    Attributes:
        values: (N,) in any order; kept ascending.

    Raises:
        ValueError: no values, or one that is not finite.
    """

    values: Floats

    def __post_init__(self) -> None:
        values = np.sort(np.asarray(self.values, dtype=np.float64).ravel())
        if not len(values) or not np.isfinite(values).all():
            raise ValueError("an empirical distribution needs values, all of them finite")
        object.__setattr__(self, "values", values)

    def ppf(self, u: Floats) -> Floats:
        """See :class:`Distribution`: the least value whose share of values up to it is ``u``."""
        u, count = np.asarray(u), len(self.values)
        rank = np.clip(np.ceil(u * count).astype(np.int64) - 1, 0, count - 1)
        # Where the product was rounded over a whole number.
        rank -= (rank > 0) & (rank / count >= u)
        rank += (rank < count - 1) & ((rank + 1) / count < u)
        quantile: Floats = self.values[rank]
        return quantile

    def mean(self) -> float:
        """See :class:`Distribution`."""
        return float(self.values.mean())


@dataclass(frozen=True)
class ScipyDistribution:
    """A continuous distribution of scipy.stats, by its name there.

    Attributes:
        name: such as ``weibull_min``.
        parameters: its shape parameters by their names there, and ``loc`` and ``scale``, if they
            are not 0 and 1.
        unit: by which values are multiplied, such as 1e-3 where the parameters are of milliseconds.

    Raises:
        ValueError: scipy has no such continuous distribution, or it does not take the parameters.
    """

    name: str
    parameters: Mapping[str, float]
    unit: float = 1.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "parameters", dict(sorted(self.parameters.items())))
        _check_scipy(self)

    def __hash__(self) -> int:
        return hash((self.name, tuple(self.parameters.items()), self.unit))

    def __str__(self) -> str:
        written = ", ".join(f"{name}={value:g}" for name, value in self.parameters.items())
        return f"{self.name}({written})"

    def ppf(self, u: Floats) -> Floats:
        """See :class:`Distribution`."""
        values: Floats = np.asarray(_scipy_quantiles(self)(np.asarray(u)))
        return values

    def mean(self) -> float:
        """See :class:`Distribution`: may be infinite, or NaN where there is none."""
        return float(_frozen(self).mean())


def _check_scipy(distribution: ScipyDistribution) -> None:
    from scipy import stats

    name, parameters = distribution.name, distribution.parameters
    known = [each for each in dir(stats) if isinstance(getattr(stats, each), stats.rv_continuous)]
    if name not in known:
        raise ValueError(
            f"scipy.stats has no continuous distribution {name!r}{did_you_mean(name, known)}"
        )
    shapes = getattr(stats, name).shapes
    needed = shapes.replace(" ", "").split(",") if shapes else []
    allowed = [*needed, "loc", "scale"]
    for given in parameters:
        if given not in allowed:
            raise ValueError(
                f"{name} has no parameter {given!r}{did_you_mean(given, allowed)} (it takes: "
                f"{', '.join(allowed)})"
            )
    missing = [each for each in needed if each not in parameters]
    if missing:
        raise ValueError(
            f"{name} needs its parameter{'s' * (len(missing) > 1)} {', '.join(missing)}"
        )
    if not np.isfinite([*parameters.values()]).all() or np.isnan(_frozen(distribution).ppf(0.5)):
        raise ValueError(f"{distribution}: scipy.stats does not take these values")


@lru_cache(maxsize=256)
def _frozen(distribution: ScipyDistribution) -> Any:
    """The object of scipy.stats."""
    from scipy import stats

    given = dict(distribution.parameters)
    loc, scale = given.pop("loc", 0.0), given.pop("scale", 1.0)
    unit = distribution.unit
    return getattr(stats, distribution.name)(**given, loc=loc * unit, scale=scale * unit)


@lru_cache(maxsize=256)
def _scipy_quantiles(distribution: ScipyDistribution) -> Callable[[Floats], Floats]:
    """The quantile function: scipy's own where it is a formula, else interpolated.

    Where scipy has no formula it searches for a root, which takes 0.3 to 2 ms for each number.
    """
    from scipy import stats

    frozen = _frozen(distribution)
    if type(frozen.dist)._ppf is not stats.rv_continuous._ppf:
        exact: Callable[[Floats], Floats] = frozen.ppf
        return exact
    return _interpolated(frozen.ppf, frozen.pdf, points=1025)


def _interpolated(
    ppf: Callable[[Floats], Floats], pdf: Callable[[Floats], Floats], points: int
) -> Callable[[Floats], Floats]:
    """A slow quantile function, interpolated.

    A cubic goes through its quantiles at ``points`` places, evenly spaced in log(u / (1 − u)), with
    the slopes that the density gives; numbers within 1e-9 of 0 and 1 still go to ``ppf``.
    """
    from scipy.interpolate import CubicHermiteSpline

    edge = float(special.logit(1e-9))
    grid = np.linspace(edge, -edge, points)
    u = special.expit(grid)
    values = np.maximum.accumulate(ppf(u))
    with np.errstate(all="ignore"):
        slopes = np.nan_to_num(u * (1 - u) / pdf(values))
    # Up to three times the secants on both sides, a cubic ascends (Fritsch & Carlson 1980).
    secants = np.diff(values) / np.diff(grid)
    steepest = 3 * np.minimum(np.append(secants, np.inf), np.append(np.inf, secants))
    curve = CubicHermiteSpline(grid, values, np.clip(slopes, 0, steepest))

    def interpolated(u: Floats) -> Floats:
        with np.errstate(divide="ignore"):
            at = special.logit(u)
        values: Floats = curve(np.clip(at, edge, -edge))
        beyond = np.abs(at) > -edge
        if beyond.any():
            values[beyond] = ppf(u[beyond])
        return values

    return interpolated


@lru_cache(maxsize=256)
def _gamma_quantiles(shape: float) -> Callable[[Floats], Floats]:
    """Of the gamma distribution with scale 1: a number of scipy's own takes a microsecond."""

    def ppf(u: Floats) -> Floats:
        values: Floats = special.gammaincinv(shape, u)
        return values

    def pdf(values: Floats) -> Floats:
        logarithm = special.xlogy(shape - 1, values) - values - special.gammaln(shape)
        density: Floats = np.exp(logarithm)
        return density

    return _interpolated(ppf, pdf, points=8193)


def quantile(distribution: Distribution, q: float) -> float:
    """The ``q`` quantile of ``distribution``."""
    return float(distribution.ppf(np.array([q]))[0])


def constant_value(distribution: Distribution) -> float | None:
    """The one value that ``distribution`` can have, or None if it can have several.

    Quantiles ascend, so two tell; where they are the same, nothing needs to be drawn.
    """
    if isinstance(distribution, Constant):
        return distribution.value
    least, most = _extremes(distribution)
    return least if least == most else None


def check_not_negative(distribution: Distribution) -> None:
    """Refuse a distribution of durations that can be negative.

    Raises:
        ValueError: its least value is negative, or not a number.
    """
    least, most = _extremes(distribution)
    if not least >= 0 or math.isnan(most):
        raise ValueError(
            f"{distribution} can be negative (its least value is {least:g} s), which no duration "
            "is; raise its location, or use one that begins at 0: gamma, lognormal, or a normal "
            "cut off at 0"
        )


def _extremes(distribution: Distribution) -> tuple[float, float]:
    """The least and the largest value that can be drawn."""
    with np.errstate(all="ignore"):
        least, most = distribution.ppf(np.array([0.0, _MOST])).tolist()
    return least, most


def read_values(path: Path) -> Floats:
    """Measured values (N,), such as latencies: one on each line; the first line may be a heading.

    Raises:
        ArtifactError: the file is absent or empty, or a line is not a number, not finite or
            negative; names file, line and value.
    """
    try:
        lines: Sequence[str] = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ArtifactError(f"{path}: not a readable file of values: {error}") from error
    values = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            value = float(line)
        except ValueError:
            if number == 1 and "," not in line:
                continue
            raise ArtifactError(
                f"{path}:{number}: one number on each line is expected, but this is {line[:40]!r}"
            ) from None
        if not 0 <= value < math.inf:
            raise ArtifactError(
                f"{path}:{number}: values must be finite and not negative, but this is "
                f"{line[:40]!r}"
            )
        values.append(value)
    if not values:
        raise ArtifactError(f"{path}: holds no values")
    return np.array(values)
