"""Axes of a sweep: the keys that change together, and the values they take, found by position.

What an axis draws depends on the seed, the key and the position alone: adding a key, or asking for
fewer points, reshuffles nothing.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from scipy.stats import qmc

from sim.streams import Streams

#: Values of one key, or of several that change together, in the order of the axis's keys.
Row = tuple[Any, ...]


class Axis(Protocol):
    """Keys that change together."""

    @property
    def keys(self) -> tuple[str, ...]:
        """Dotted keys."""

    def __len__(self) -> int:
        """How many points it has."""

    def __getitem__(self, index: int) -> Row:
        """A value for each key; ``index`` from 0."""

    def extremes(self) -> Sequence[dict[str, Any]]:
        """Values by key that show whether all of its values are valid."""


@dataclass(frozen=True)
class ListedAxis:
    """Values that are written out: of one key (a grid's), or of several (a zip's)."""

    keys: tuple[str, ...]
    rows: tuple[Row, ...]

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Row:
        return self.rows[index]

    def extremes(self) -> Sequence[dict[str, Any]]:
        """Each value."""
        return [dict(zip(self.keys, row, strict=True)) for row in self.rows]


# --- drawing -------------------------------------------------------------------------------------


class Draw(Protocol):
    """What the values of a key are drawn from."""

    def at(self, u: float) -> Any:
        """The value at a uniform number in [0, 1): its quantile."""

    def extremes(self) -> Sequence[Any]:
        """Values which are valid if all are."""


@dataclass(frozen=True)
class Choices:
    """One of some values."""

    values: tuple[Any, ...]

    def at(self, u: float) -> Any:
        """The value at a uniform number."""
        return self.values[int(u * len(self.values))]

    def extremes(self) -> Sequence[Any]:
        """All of them."""
        return self.values


@dataclass(frozen=True)
class Uniform:
    """A number between two others."""

    low: float
    high: float

    def at(self, u: float) -> float:
        """The value at a uniform number."""
        return self.low + u * (self.high - self.low)

    def extremes(self) -> Sequence[float]:
        """The bounds."""
        return self.low, self.high


@dataclass(frozen=True)
class LogUniform:
    """A number between two others, whose logarithm is uniform."""

    low: float
    high: float

    def at(self, u: float) -> float:
        """The value at a uniform number."""
        value = self.low * math.exp(u * (math.log(self.high) - math.log(self.low)))
        return min(self.high, value)  # which rounding may pass

    def extremes(self) -> Sequence[float]:
        """The bounds."""
        return self.low, self.high


@dataclass(frozen=True)
class Integers:
    """A whole number from ``low`` to ``high``, both included."""

    low: int
    high: int

    def at(self, u: float) -> int:
        """The value at a uniform number."""
        return self.low + int(u * (self.high - self.low + 1))

    def extremes(self) -> Sequence[int]:
        """The bounds."""
        return self.low, self.high


@dataclass(frozen=True)
class RandomAxis:
    """Points drawn one by one, each key by itself.

    The first points are the same however many there are.
    """

    draws: dict[str, Draw]
    points: int
    seed: int

    @property
    def keys(self) -> tuple[str, ...]:
        """Dotted keys."""
        return tuple(self.draws)

    def __len__(self) -> int:
        return self.points

    def __getitem__(self, index: int) -> Row:
        # The seed of a sweep and that of the simulation may be the same number: the name differs.
        streams, first, at = Streams(self.seed, 0), np.array([0]), np.array([index])
        return tuple(
            draw.at(float(streams.uniforms("sweep", "random", key)(first, at)[0]))
            for key, draw in self.draws.items()
        )

    def extremes(self) -> Sequence[dict[str, Any]]:
        """Each key's, by themselves."""
        return _each(self.draws)


@dataclass(frozen=True)
class LatinHypercubeAxis:
    """Points such that each key has one value in each of as many equal parts of its range.

    McKay, Beckman & Conover 1979, as :class:`scipy.stats.qmc.LatinHypercube` draws it; a list of
    choices is a range of which each has an equal part.
    """

    draws: dict[str, Draw]
    points: int
    seed: int

    @property
    def keys(self) -> tuple[str, ...]:
        """Dotted keys."""
        return tuple(self.draws)

    def __len__(self) -> int:
        return self.points

    def __getitem__(self, index: int) -> Row:
        return tuple(
            draw.at(float(u))
            for draw, u in zip(self.draws.values(), self._uniforms[index], strict=True)
        )

    @cached_property
    def _uniforms(self) -> NDArray[np.float64]:
        """(points, keys): uniform numbers in [0, 1)."""
        streams = Streams(self.seed, 0)
        columns = [
            # Each key in a stream of its own, so that another key changes nothing.
            qmc.LatinHypercube(1, seed=streams.generator("sweep", "latin_hypercube", key)).random(
                self.points
            )
            for key in self.draws
        ]
        return np.hstack(columns)

    def extremes(self) -> Sequence[dict[str, Any]]:
        """Each key's, by themselves."""
        return _each(self.draws)


def _each(draws: dict[str, Draw]) -> list[dict[str, Any]]:
    return [{key: value} for key, draw in draws.items() for value in draw.extremes()]
