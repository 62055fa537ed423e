"""Pacing: how fast the visible part of the ranked training set grows, and the batches it yields.

Hacohen & Weinshall (2019), "On the power of curriculum learning in training deep networks",
section 2: a scoring function ranks the samples, a pacing function says how many of the easiest
are visible at each step, and batches are drawn from those alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

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

    start_fraction: float = 0.1
    increase: float = 1.9
    full_at: float = 0.5

    def __call__(self, spent: float) -> float:
        """Visible fraction once ``spent`` of the budget is used."""
        # Tolerance: 0.25 * 1.9**k may miss 1 by rounding alone.
        increases = math.ceil(math.log(1 / self.start_fraction, self.increase) - 1e-9)
        if increases == 0 or spent >= self.full_at:
            return 1.0
        done = math.floor(spent * increases / self.full_at + 1e-9)
        return min(1.0, self.start_fraction * self.increase**done)


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
