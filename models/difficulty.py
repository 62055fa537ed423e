"""Scoring functions: how easy each training sample is.

A score never comes from a network that was fitted on the sample it ranks: a memorised sample
looks easy whatever it is.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from models.architecture import Architecture
from models.datasets import DatasetInfo, Split
from models.multi_exit import build_network
from models.pacing import all_visible, paced_batches
from models.training import TrainingSettings, class_probabilities, train


@dataclass(frozen=True)
class CrossFittedScoring:
    """Settings of cross-fitted scoring.

    Attributes:
        folds: parts of the training set; each is scored by a network trained on the others.
        steps: optimiser steps of each of those networks.
    """

    folds: int = 2
    steps: int = 100


def cross_fitted_easiness(
    architecture: Architecture,
    train_split: Split,
    info: DatasetInfo,
    settings: TrainingSettings,
    scoring: CrossFittedScoring,
    seed: int,
    on_step: Callable[[int, float], None] | None = None,
) -> NDArray[np.float64]:
    """Easiness (N,) of the training samples: held-out margin at the backbone's own classifier.

    For each fold, the plain backbone (no early exits) is trained on the other folds; the margin
    of a held-out sample is the probability of its label less the largest other probability, in
    [-1, 1]. Ranking by what the *last* exit finds hard suits the early exits best so far.
    """
    backbone = replace(architecture, exits=())
    generator = np.random.default_rng([seed, 1])
    fold = generator.permutation(np.arange(len(train_split)) % scoring.folds)
    fold_settings = replace(settings, steps=scoring.steps, exit_weights=())
    easiness = np.empty(len(train_split))
    for part in range(scoring.folds):
        fitted, held_out = np.flatnonzero(fold != part), np.flatnonzero(fold == part)
        network = build_network(backbone, seed)
        batches = paced_batches(
            np.arange(len(fitted)), all_visible, scoring.steps, settings.batch_size, generator
        )
        train(
            network,
            "backbone",
            batches,
            train_split.take(fitted),
            None,
            info,
            fold_settings,
            seed,
            _counted_from(part * scoring.steps, on_step),
        )
        held_out_split = train_split.take(held_out)
        probabilities = class_probabilities(network, held_out_split, info)[:, -1]
        easiness[held_out] = margin(probabilities, held_out_split.labels)
    return easiness


def _counted_from(
    done: int, on_step: Callable[[int, float], None] | None
) -> Callable[[int, float], None] | None:
    return (lambda step, loss: on_step(done + step, loss)) if on_step else None


def margin(probabilities: NDArray[np.float32], labels: NDArray[np.int64]) -> NDArray[np.float64]:
    """Probability of the label less the largest other one; (N, classes), (N,) -> (N,)."""
    rows = np.arange(len(labels))
    of_label = probabilities[rows, labels].astype(np.float64)
    others = probabilities.copy()
    others[rows, labels] = -np.inf
    difference: NDArray[np.float64] = of_label - others.max(axis=1)
    return difference
