"""Strategies: in which order, and how fast, the training samples are shown."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from models.training.pacing import PacingFunction, all_visible, class_balanced_order

#: ``curriculum`` shows easy samples first, ``anti_curriculum`` hard ones, ``random_curriculum``
#: paces a random order: the controls that tell the ranking's effect from the pacing's.
STRATEGIES = ("standard", "curriculum", "anti_curriculum", "random_curriculum")

#: Strategies that need a difficulty score.
RANKED_STRATEGIES = ("curriculum", "anti_curriculum")


#: ``self_taught``: the network's own kind, trained plainly, cross-fitted (Hacohen & Weinshall 2019,
#: "bootstrapping"). ``early_checkpoint``: the same after a few steps on all samples. ``transfer``:
#: a classifier on another network's features, cross-fitted (the same, "transfer scoring").
#: ``final_exit``: the margin between the logits of the frozen backbone's own classifier.
#: ``c_score``: from a file (Jiang et al. 2021).
SCORING_FUNCTIONS = ("self_taught", "early_checkpoint", "transfer", "final_exit", "c_score")

#: Scoring functions that train networks of the kind they score for, and so see every exit.
PER_EXIT_SCORING = ("self_taught", "early_checkpoint")


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
