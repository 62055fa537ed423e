"""Metrics of runs, and intervals over independent repetitions of them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy import special

from sim.distributions import Floats
from sim.results.run import Run
from sim.results.tally import Tally
from sim.world import World

#: Identifies a run among the arms of a comparison.
ARM = ["strategy", "training_seed", "policy", "replication"]

LEVEL = 0.95


def run_metrics(world: World, run: Run) -> dict[str, float]:
    """Metrics of one run over the requests of its measured window.

    ``aud`` is accuracy under deadline: correct and on-time requests over all requests offered.
    ``hit_ratio`` is on-time requests over all offered. Latencies, from creation to answer, and
    ``accuracy`` are over answered requests only, and NaN where there are none.
    """
    exact = ExactMetrics(world.warm_up_s, world.duration_s)
    take_in(exact, run)
    return exact.metrics()


class RunMetrics(Protocol):
    """Gathers the metrics of :func:`run_metrics` from a run that comes in slices."""

    def add(
        self,
        created_s: Floats,
        received_s: Floats,
        exit: NDArray[np.integer],
        correct: NDArray[np.bool_],
        outcome: NDArray[np.integer],
    ) -> None:
        """Take in a slice of finished requests; arrays of length N.

        Args:
            received_s: of answers; ignored where there was none.
            exit: that answered; 0 if none did.
            outcome: index into :data:`sim.outcomes.OUTCOMES`.
        """

    def metrics(self) -> dict[str, float]:
        """See :func:`run_metrics`."""

    def settling(self) -> tuple[float, float]:
        """Mean latency of answers in the first quarter of the window, and in the rest."""


def take_in(metrics: RunMetrics, part: Run) -> None:
    """Add a run, or a slice of it."""
    exit = np.where(part.answered, part.exit, 0)
    metrics.add(part.requests.created_s, part.received_s, exit, part.correct, part.outcome)


class ExactMetrics:
    """Keeps the latency of every answer; :class:`sim.results.summary.RunSummary` does without.

    Args:
        warm_up_s: requests created before it are left out.
        duration_s: of the measured window.
    """

    def __init__(self, warm_up_s: float, duration_s: float) -> None:
        self._tally = Tally(warm_up_s, duration_s)
        # Of requests created in the first quarter of the window, and in the rest.
        self._latencies: tuple[list[Floats], list[Floats]] = ([], [])

    def add(
        self,
        created_s: Floats,
        received_s: Floats,
        exit: NDArray[np.integer],
        correct: NDArray[np.bool_],
        outcome: NDArray[np.integer],
    ) -> None:
        """See :class:`RunMetrics`."""
        latency, early = self._tally.add(created_s, received_s, exit, correct, outcome)
        self._latencies[0].append(latency[early])
        self._latencies[1].append(latency[~early])

    def metrics(self) -> dict[str, float]:
        """See :class:`RunMetrics`."""
        latency = np.concatenate([np.zeros(0), *self._latencies[0], *self._latencies[1]])
        metrics = self._tally.metrics()
        metrics["latency_mean_s"] = float(latency.mean()) if len(latency) else math.nan
        percents = (50, 95, 99)
        quantiles = np.percentile(latency, percents) if len(latency) else (math.nan,) * 3
        for percent, quantile in zip(percents, quantiles, strict=True):
            metrics[f"latency_p{percent}_s"] = float(quantile)
        return metrics

    def settling(self) -> tuple[float, float]:
        """See :class:`RunMetrics`."""
        first, rest = (np.concatenate([np.zeros(0), *parts]) for parts in self._latencies)
        return (
            float(first.mean()) if len(first) else math.nan,
            float(rest.mean()) if len(rest) else math.nan,
        )


@dataclass(frozen=True)
class Interval:
    """A mean and its confidence interval.

    Attributes:
        n: independent repetitions that it rests on.
        half_width: NaN for fewer than two of them.
    """

    mean: float
    half_width: float
    n: int

    @property
    def low(self) -> float:
        """Lower end."""
        return self.mean - self.half_width

    @property
    def high(self) -> float:
        """Upper end."""
        return self.mean + self.half_width


def confidence_interval(values: ArrayLike, level: float = LEVEL) -> Interval:
    """Student's t interval for the mean of independent ``values``."""
    sample: NDArray[np.float64] = np.asarray(values, dtype=np.float64)
    n = len(sample)
    if n < 2:
        return Interval(float(sample.mean()) if n else math.nan, math.nan, n)
    quantile = float(special.stdtrit(n - 1, 0.5 + level / 2))
    half_width = quantile * float(sample.std(ddof=1)) / math.sqrt(n)
    return Interval(float(sample.mean()), half_width, n)


def half_widths(groups: Any, level: float = LEVEL) -> pd.Series:
    """As :func:`confidence_interval`, of many means at once: half widths, NaN of a single value.

    Args:
        groups: a series, grouped.
    """
    count = groups.count()
    quantile = special.stdtrit(np.maximum(count - 1, 1), 0.5 + level / 2)
    return (quantile * groups.std(ddof=1) / np.sqrt(count)).where(count > 1, math.nan)


def ratio_interval(
    numerators: ArrayLike, denominators: ArrayLike, level: float = LEVEL
) -> Interval:
    """Student's t interval for the ratio of the means of values that are paired; NaN of nothing.

    The mean of the pairs' own ratios is too high where the denominators vary, and knows nothing of
    a pair without a denominator. Variance by linearisation (Cochran, Sampling Techniques, 3rd ed.
    1977, chapter 6). Pairs that are both 0 say nothing, and are left out.
    """
    above, below = (np.asarray(it, dtype=np.float64) for it in (numerators, denominators))
    known = (above != 0) | (below != 0)
    above, below = above[known], below[known]
    if not (len(below) and below.mean() > 0):
        return Interval(math.nan, math.nan, len(below))
    ratio = float(above.mean() / below.mean())
    half_width = confidence_interval((above - ratio * below) / below.mean(), level).half_width
    return Interval(ratio, half_width, len(below))


def linearised(numerators: pd.Series, denominators: pd.Series, arm: Sequence[str]) -> pd.Series:
    """A value for each repetition, of which an arm's mean is its ratio of means.

    Mean and t interval of an arm's values are those of :func:`ratio_interval`, so that whatever
    takes means of repetitions, and differences of arms in the same repetition, takes them of
    ratios. Where all denominators of an arm are alike, values are the repetitions' own ratios;
    else one that has more counts for more, and values may lie outside of what a ratio can be.

    Args:
        numerators, denominators: of every repetition, indexed alike, by the levels ``arm`` and by
            what tells repetitions apart.

    Returns:
        Indexed as they are; NaN where both are 0, which says nothing, and where an arm has no
        denominator at all.
    """
    known = (numerators != 0) | (denominators != 0)
    above, below = numerators.where(known), denominators.where(known)
    levels = list(arm)
    mean_below = below.groupby(level=levels, sort=False).transform("mean")
    mean_below = mean_below.where(mean_below > 0)
    ratio = above.groupby(level=levels, sort=False).transform("mean") / mean_below
    return above / mean_below + ratio * (1 - below / mean_below)


def over_training_seeds(runs: pd.DataFrame, metric: str) -> pd.Series:
    """One value per strategy, policy and training seed, as :func:`linearised`.

    Each is of all replications' requests, and their mean of all requests there are. The unit of
    evidence for claims about a training strategy: replications of one pair of checkpoints say
    nothing of another training.
    """
    return _pooled(runs, metric, "training_seed")


def over_replications(runs: pd.DataFrame, metric: str) -> pd.Series:
    """One value per strategy, policy and replication, as :func:`linearised`.

    Each is of all training seeds' requests, and their mean of all requests there are. The unit of
    evidence for claims about a policy, given the checkpoints at hand.
    """
    return _pooled(runs, metric, "replication")


def _pooled(runs: pd.DataFrame, metric: str, repetition: str) -> pd.Series:
    """Of what several runs counted together: a metric is what it counts over what it is of."""
    weight = runs["answered" if metric == "accuracy" else "offered"]
    # Without a denominator there is no metric, and nothing to add.
    weighted = (runs[metric] * weight).where(weight > 0, 0.0)
    arm = ["strategy", "policy"]
    keys = [runs[key] for key in (*arm, repetition)]
    return linearised(weighted.groupby(keys).sum(), weight.groupby(keys).sum(), arm)


def added_error(
    variances: Sequence[ArrayLike], counts: Sequence[ArrayLike]
) -> tuple[Floats, Floats]:
    """Standard error of a mean that varies with several things, all at random, and its freedom.

    Each gives the variance of its mean, which are added; degrees of freedom are those of
    Satterthwaite (1946, "An approximate distribution of estimates of variance components"). Of two
    things that are crossed, as training seeds and replications are, the variance between the means
    of either holds a part of the residual, which is thus counted twice: that errs on the side of
    too wide an interval.

    Args:
        variances: of each thing, the sample variance between its repetitions; arrays of one shape.
        counts: of each thing, how many repetitions there were.

    Returns:
        Both in that shape. Degrees of freedom are NaN where nothing varies, and both are where a
        variance is NaN, as that of a single repetition.
    """
    parts = [
        (np.asarray(variance, dtype=np.float64), np.asarray(count, dtype=np.float64))
        for variance, count in zip(variances, counts, strict=True)
    ]
    with np.errstate(divide="ignore", invalid="ignore"):
        squares = [variance / count for variance, count in parts]
        square = np.asarray(sum(squares))
        below = sum(it**2 / (count - 1) for it, (_, count) in zip(squares, parts, strict=True))
        freedom = np.asarray(square**2 / below)
    return np.sqrt(square), freedom


def share_bounds(part: float, whole: float, level: float) -> tuple[float, float]:
    """What a share is at least, and what it is at most, each with confidence ``level``.

    Exact where the whole are independent draws (Clopper & Pearson 1934, "The use of confidence or
    fiducial limits illustrated in the case of the binomial"). All of a hundred is no certainty:
    the share is at least 97 %, with a confidence of 95 %.

    Args:
        part: how many of the whole; both may be means of several counts.
        whole: NaN bounds if it is 0.
    """
    if not whole > 0:
        return math.nan, math.nan
    part = min(max(part, 0.0), whole)
    low = special.betaincinv(part, whole - part + 1, 1 - level) if part > 0 else 0.0
    high = special.betaincinv(part + 1, whole - part, level) if part < whole else 1.0
    return float(low), float(high)
