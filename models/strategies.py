"""Strategies: in which order, and how fast, the training samples are shown."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from models.pacing import PacingFunction, all_visible, class_balanced_order

#: ``curriculum`` shows easy samples first, ``anti_curriculum`` hard ones, ``random_curriculum``
#: paces a random order: the controls that tell the ranking's effect from the pacing's.
STRATEGIES = ("standard", "curriculum", "anti_curriculum", "random_curriculum")

#: Strategies that need a difficulty score.
RANKED_STRATEGIES = ("curriculum", "anti_curriculum")


def sample_order(
    strategy: str,
    labels: NDArray[np.int64],
    easiness: NDArray[np.float64] | None,
    seed: int,
) -> NDArray[np.int64]:
    """Positions (N,) of the training samples in the order in which they become visible.

    Args:
        easiness: (N,) scores, high for easy; only ranked strategies look at them.
        seed: of the random order.
    """
    if strategy == "standard":
        return np.arange(len(labels))
    if strategy == "random_curriculum":
        return class_balanced_order(np.random.default_rng([seed, 2]).random(len(labels)), labels)
    if easiness is None:
        raise ValueError(f"strategy {strategy!r} needs a difficulty score")
    return class_balanced_order(easiness if strategy == "curriculum" else -easiness, labels)


def strategy_pacing(strategy: str, pacing: PacingFunction) -> PacingFunction:
    """``pacing``, except for ``standard``, which sees everything from the first step."""
    return all_visible if strategy == "standard" else pacing
