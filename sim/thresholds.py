"""Fitting a confidence threshold on what a network predicts for the validation split.

A sample leaves at the first exit whose confidence reaches the threshold, at the latest at the last
exit. A lower threshold lets more samples leave early, which costs less and answers worse. One
threshold serves all exits, so every one that makes a difference can be looked at: the confidences
that occur. (MSDNet, Huang et al. 2018, gives each exit its own from an assumed geometric share of
samples per exit; that leaves open whether other shares would have done better.)
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from models.artifacts import Predictions

Floats = NDArray[np.float64]


class FittedThreshold(NamedTuple):
    """A threshold, and what it reaches on the predictions on which it was fitted.

    Attributes:
        threshold: answer at the first exit whose confidence is this or more.
        accuracy: share of samples classified correctly where they leave.
        cost: mean over the samples, in the unit of the costs given.
    """

    threshold: float
    accuracy: float
    cost: float


class TradeOff(NamedTuple):
    """What every threshold that makes a difference reaches; arrays of the same length.

    Attributes:
        threshold: ascending: the distinct confidences of all exits but the last, and 1.
        accuracy: share of samples classified correctly where they leave.
        cost: mean over the samples.
    """

    threshold: Floats
    accuracy: Floats
    cost: Floats

    def at(self, index: int) -> FittedThreshold:
        """One of the thresholds."""
        return FittedThreshold(*(float(values[index]) for values in self))


def fit_threshold(
    predictions: Predictions,
    costs: Sequence[float],
    *,
    wanted_accuracy: float | None = None,
    wanted_cost: float | None = None,
) -> FittedThreshold:
    """The best threshold for a wanted accuracy or a wanted mean cost: one of the two is given.

    Args:
        predictions: of the validation split. Fitted on the test set, a threshold would promise
            more than it holds.
        costs: of a sample that leaves at each exit, in any unit; seconds, for example, or FLOPs.
            It was asked at every exit before: the classifiers of those are part of the cost.
        wanted_accuracy: the cheapest threshold with at least this accuracy is returned.
        wanted_cost: the most accurate threshold with at most this mean cost is returned.

    Raises:
        ValueError: no threshold meets the wish, and the message says what is within reach; or
            ``costs`` do not fit the predictions.
    """
    if (wanted_accuracy is None) == (wanted_cost is None):
        raise ValueError("give either a wanted accuracy or a wanted cost")
    found = trade_off(predictions, costs)
    if wanted_accuracy is not None:
        meets = found.accuracy >= wanted_accuracy
        order = np.lexsort((-found.accuracy, found.cost))
        wish, reached = f"accuracy of {wanted_accuracy:g} or more", found.accuracy
    else:
        # Means of the same costs may differ in their last digit.
        meets = found.cost <= np.float64(wanted_cost) * (1 + 1e-12)
        order = np.lexsort((found.cost, -found.accuracy))
        wish, reached = f"mean cost of {wanted_cost:g} or less", found.cost
    meeting = order[meets[order]]
    if not len(meeting):
        raise ValueError(
            f"no confidence threshold gives a {wish}: on the {len(predictions.label)} validation "
            f"samples, thresholds give {reached.min():.6g} to {reached.max():.6g}"
        )
    return found.at(int(meeting[0]))


def trade_off(predictions: Predictions, costs: Sequence[float]) -> TradeOff:
    """Accuracy and mean cost at every threshold that makes a difference.

    With N samples and K exits, there are at most N (K − 1) + 1 thresholds, and the work is that of
    sorting them.

    Raises:
        ValueError: there are no predictions, or not one finite cost for each exit.
    """
    samples, exits = predictions.predicted.shape
    if not samples:
        raise ValueError("there are no predictions to fit a threshold on")
    if len(costs) != exits or not np.isfinite(costs).all():
        raise ValueError(f"{exits} exits need {exits} finite costs, not {list(costs)}")
    early = predictions.confidence[:, :-1].astype(np.float64)
    thresholds = np.unique(np.append(early, 1.0))
    correct = predictions.predicted == predictions.label[:, None]
    # A sample leaves at exit k for thresholds above the confidences of all exits before it, and up
    # to its own: a range of positions among the thresholds, empty if an earlier exit was as sure.
    reached = np.searchsorted(thresholds, np.maximum.accumulate(early, axis=1))
    bounds = np.column_stack([np.full(samples, -1), reached, np.full(samples, len(thresholds) - 1)])
    right = np.zeros(len(thresholds), np.int64)
    cost = np.zeros(len(thresholds))
    for exit in range(exits):
        first, end = bounds[:, exit] + 1, bounds[:, exit + 1] + 1
        cost += _covering(first, end, len(thresholds)) * costs[exit]
        at = correct[:, exit]
        right += _covering(first[at], end[at], len(thresholds))
    return TradeOff(thresholds, right / samples, cost / samples)


def _covering(first: NDArray[Any], end: NDArray[Any], length: int) -> NDArray[np.int64]:
    """How many of the ranges ``first`` to ``end`` (excluded) cover each position."""
    begins = np.bincount(first, minlength=length + 1)
    ends = np.bincount(end, minlength=length + 1)
    covering: NDArray[np.int64] = np.cumsum(begins - ends)[:length]
    return covering
