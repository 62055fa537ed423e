"""Pacing: how fast the visible part of the ranked training set grows, and the batches it yields.

Hacohen & Weinshall (2019), "On the power of curriculum learning in training deep networks",
section 2: a scoring function ranks the samples, a pacing function says how many of the easiest
are visible at each step, and batches are drawn from those alone. Theirs are staircases; Wu, Dyer
& Neyshabur (2021), "When do curricula work?", add smooth ones, whose a and b are here ``full_at``
and ``start_fraction``.

The parameters of every pacing function are fractions of the training set or of the budget. None
ever hides what it has shown.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

#: Visible fraction (0, 1] of the training set as a function of the spent fraction [0, 1) of the
#: budget of steps.
PacingFunction = Callable[[float], float]


@dataclass(frozen=True)
class FixedExponentialPacing:
    """Fixed exponential pacing (Hacohen & Weinshall 2019, eq. 3), in fractions of the budget.

    The visible fraction starts at ``start_fraction`` and is multiplied by ``increase`` at equal
    intervals, which are chosen so that all is visible from ``full_at`` on. The original counts
    the interval in batches; fractions keep the curriculum's shape when the budget changes.

    Attributes:
        start_fraction: visible at the first step, in (0, 1].
        increase: factor of each increase, above 1.
        full_at: spent fraction of the budget from which all is visible, in (0, 1].
    """

    start_fraction: float = 0.04
    increase: float = 1.9
    full_at: float = 0.3

    def __post_init__(self) -> None:
        _check_start_and_end(self.start_fraction, self.full_at)

    def __call__(self, spent: float) -> float:
        """Visible fraction once ``spent`` of the budget is used."""
        increases = _increases_to_all(self.start_fraction, self.increase)
        if increases == 0 or spent >= self.full_at:
            return 1.0
        done = math.floor(spent * increases / self.full_at + 1e-9)
        return min(1.0, self.start_fraction * self.increase**done)


@dataclass(frozen=True)
class VariedExponentialPacing:
    """Varied exponential pacing (Hacohen & Weinshall 2019, section 2): steps of any lengths.

    The visible fraction starts at ``start_fraction`` and is multiplied by ``increase`` at each of
    ``increases_at``. The original has exactly as many increases as bring ``start_fraction`` to 1
    or above, ceil(-log(start_fraction) / log(increase)), and caps the last at 1. Here the last
    increase shows all in any case: with fewer, it is larger than the others; with more, those
    after all is visible change nothing.

    Attributes:
        start_fraction: visible at the first step, in (0, 1].
        increase: factor of each increase, finite and above 1.
        increases_at: spent fractions of the budget, in (0, 1], strictly increasing; at least one,
            unless everything is visible from the start.

    Raises:
        ValueError: a parameter is out of its range.
    """

    start_fraction: float
    increase: float
    increases_at: tuple[float, ...]

    def __post_init__(self) -> None:
        _check_fraction("start_fraction", self.start_fraction)
        if not 1 < self.increase < math.inf:
            raise ValueError(f"increase is {self.increase!r}, but must be finite and above 1")
        for spent in self.increases_at:
            _check_fraction("each of increases_at", spent)
        if any(later <= earlier for earlier, later in pairwise(self.increases_at)):
            raise ValueError(f"increases_at is {self.increases_at!r}, but must strictly increase")
        if not self.increases_at and self.start_fraction < 1:
            raise ValueError(
                f"increases_at is empty, but start_fraction is {self.start_fraction!r}: "
                "all would never be visible"
            )

    def __call__(self, spent: float) -> float:
        """Visible fraction once ``spent`` of the budget is used."""
        done = bisect_right(self.increases_at, spent)
        enough = min(_increases_to_all(self.start_fraction, self.increase), len(self.increases_at))
        return 1.0 if done >= enough else min(1.0, self.start_fraction * self.increase**done)


@dataclass(frozen=True)
class SingleStepPacing:
    """Single-step pacing (Hacohen & Weinshall 2019, section 2): a part until ``full_at``, then all.

    Attributes:
        start_fraction: visible until then, in (0, 1].
        full_at: spent fraction of the budget from which all is visible, in (0, 1].

    Raises:
        ValueError: a parameter is out of its range.
    """

    start_fraction: float
    full_at: float

    def __post_init__(self) -> None:
        _check_start_and_end(self.start_fraction, self.full_at)

    def __call__(self, spent: float) -> float:
        """Visible fraction once ``spent`` of the budget is used."""
        return 1.0 if spent >= self.full_at else self.start_fraction


@dataclass(frozen=True)
class GrowingPacing:
    """Steady growth from the start (Wu et al. 2021): b + (1 - b) g(t / a).

    Attributes:
        start_fraction: b, visible at the first step, in (0, 1].
        full_at: a, spent fraction of the budget from which all is visible, in (0, 1].
        growth: g, from 0 at 0 to 1 at 1.

    Raises:
        ValueError: a parameter is out of its range.
    """

    start_fraction: float
    full_at: float
    growth: Callable[[float], float]

    def __post_init__(self) -> None:
        _check_start_and_end(self.start_fraction, self.full_at)

    def __call__(self, spent: float) -> float:
        """Visible fraction once ``spent`` of the budget is used."""
        if spent >= self.full_at:
            return 1.0
        hidden = 1 - self.start_fraction
        return min(1.0, self.start_fraction + hidden * self.growth(spent / self.full_at))


LinearPacing = partial(GrowingPacing, growth=lambda t: t)
RootPacing = partial(GrowingPacing, growth=math.sqrt)
QuadraticPacing = partial(GrowingPacing, growth=lambda t: t**2)

#: By far the fastest at first: half of the hidden part is shown by t / a = e^-5, 0.7 %. The
#: published formula, 1 + ln(t + e^-10) / 10, as log1p, which is exactly 0 at the start.
LogarithmicPacing = partial(GrowingPacing, growth=lambda t: math.log1p(t * math.exp(10)) / 10)

#: By far the slowest at first: half of the hidden part is left at t / a = 93 %.
ExponentialPacing = partial(GrowingPacing, growth=lambda t: math.expm1(10 * t) / math.expm1(10))


#: Pacing functions by their names in scenarios.
PACING_FUNCTIONS: dict[str, Callable[..., PacingFunction]] = {
    "fixed_exponential": FixedExponentialPacing,
    "varied_exponential": VariedExponentialPacing,
    "single_step": SingleStepPacing,
    "linear": LinearPacing,
    "root": RootPacing,
    "quadratic": QuadraticPacing,
    "logarithmic": LogarithmicPacing,
    "exponential": ExponentialPacing,
}


def _increases_to_all(start_fraction: float, increase: float) -> int:
    # Tolerance: 0.25 * 2**k may miss 1 by rounding alone.
    return math.ceil(-math.log(start_fraction, increase) - 1e-9)


def _check_start_and_end(start_fraction: float, full_at: float) -> None:
    _check_fraction("start_fraction", start_fraction)
    _check_fraction("full_at", full_at)


def _check_fraction(name: str, value: float) -> None:
    if not 0 < value <= 1:
        raise ValueError(f"{name} is {value!r}, but must lie in (0, 1]")


def all_visible(spent: float) -> float:
    """The pacing of standard training: everything is visible from the first step."""
    return 1.0


def class_balanced_order(
    easiness: NDArray[np.float64], labels: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Positions (N,) from easy to hard, so that every prefix has the classes in their proportions.

    Within a class, the easiest sample comes first. Classes are merged by relative rank, so a class
    with twice the samples appears twice as often in any prefix (Hacohen & Weinshall 2019, section
    2: "we ensure that the data is balanced"). Ties go to the lower position, then the lower label.
    """
    relative_rank = np.empty(len(labels))
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        ranked = members[np.argsort(-easiness[members], kind="stable")]
        relative_rank[ranked] = (np.arange(len(ranked)) + 0.5) / len(ranked)
    return np.lexsort((labels, relative_rank))


def paced_batches(
    order: NDArray[np.int64],
    pacing: PacingFunction,
    steps: int,
    batch_size: int,
    generator: np.random.Generator,
) -> Iterator[NDArray[np.int64]]:
    """Yield exactly ``steps`` batches (batch_size,) of positions from the visible prefix.

    The visible samples are shuffled and used up before any is repeated; when the prefix grows,
    it is shuffled anew. A prefix smaller than a batch is passed through as often as it takes.
    """
    visible = 0
    waiting = np.empty(0, dtype=np.int64)
    for step in range(steps):
        now_visible = max(1, round(pacing(step / steps) * len(order)))
        if now_visible != visible:
            visible, waiting = now_visible, np.empty(0, dtype=np.int64)
        while len(waiting) < batch_size:
            waiting = np.concatenate([waiting, generator.permutation(order[:visible])])
        batch, waiting = waiting[:batch_size], waiting[batch_size:]
        yield batch
