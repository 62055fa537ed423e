"""What simulations say of a configuration: means with their intervals, over what they vary with."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import special

from offramp.recommendation.target import Target
from offramp.report.results import interval_over
from sim.results.metrics import confidence_interval, over_replications, over_training_seeds

SEEDS, REPLICATIONS = "training seeds", "replications"


@dataclass(frozen=True)
class Estimate:
    """A metric's mean over independent repetitions.

    Attributes:
        sd: standard deviation of one repetition; NaN where the metric is not always known.
        n: repetitions.
        over: what they are.
    """

    mean: float
    sd: float
    n: int
    over: str

    @property
    def half_width(self) -> float:
        """Of the two-sided 95 % interval."""
        return self.reach(0.975, self.n)

    def reach(self, level: float, n: int) -> float:
        """How far the mean of ``n`` such repetitions is sure of, to one side.

        Student's t at ``level`` times the standard error of the mean.
        """
        if n < 2:
            return math.nan
        return float(special.stdtrit(n - 1, level)) * self.sd / math.sqrt(n)


def estimate(runs: pd.DataFrame, target: Target) -> Estimate:
    """What runs of one strategy under one policy say of a target's metric.

    Shares as reports have them (:func:`offramp.report.results.interval_over`); latencies, the
    means of the runs' own, over replications.
    """
    values, over = repetitions(runs, target)
    interval = confidence_interval(values)
    sd = float(values.std(ddof=1)) if len(values) > 1 else math.nan
    return Estimate(interval.mean, sd, len(values), over)


def repetitions(runs: pd.DataFrame, target: Target) -> tuple[NDArray[np.float64], str]:
    """The independent values of a metric, and what they vary with."""
    if target.is_share:
        over = interval_over(target.metric, runs["training_seed"].nunique())
        pooled = over_training_seeds if over == SEEDS else over_replications
        values = pooled(runs, target.column)
    else:
        over = REPLICATIONS
        # A run without an answer has no latency, and then nothing is known of the mean.
        values = runs.groupby("replication")[target.column].agg(lambda it: it.mean(skipna=False))
    return values.to_numpy(dtype=np.float64), over


@dataclass(frozen=True)
class Evidence:
    """Estimates of every target's metric, in the order of the targets."""

    targets: tuple[Target, ...]
    estimates: tuple[Estimate, ...]

    @staticmethod
    def of(runs: pd.DataFrame, targets: Sequence[Target]) -> Evidence:
        """What runs of one strategy under one policy say."""
        return Evidence(tuple(targets), tuple(estimate(runs, target) for target in targets))

    @property
    def slack(self) -> float:
        """How much the means leave of the target that is met least; negative if it is not."""
        return min(
            target.slack(it.mean) for target, it in zip(self.targets, self.estimates, strict=True)
        )

    @property
    def shortfalls(self) -> list[float]:
        """Of each target, how much its mean falls short; negative if it does not."""
        return [
            -target.slack(it.mean) for target, it in zip(self.targets, self.estimates, strict=True)
        ]

    def margin(self, level: float, replications: int, least_sd: Sequence[float] = ()) -> float:
        """How many times its reach the mean leaves of the target that is met least surely.

        From 1 on, a verification that found the same means and spreads would pass.

        Args:
            level: of the bound that a verification looks at.
            replications: of the verification.
            least_sd: of each metric, what its spread is taken to be if a few repetitions show less.
        """
        margins = []
        for index, (target, it) in enumerate(zip(self.targets, self.estimates, strict=True)):
            if least_sd:
                it = replace(it, sd=max(it.sd, least_sd[index]))
            reach = it.reach(level, replications if it.over == REPLICATIONS else it.n)
            beyond = it.mean - target.value if target.is_share else target.value - it.mean
            if math.isnan(beyond) or math.isnan(reach):
                margins.append(-math.inf)
            elif reach == 0:
                margins.append(0.0 if beyond == 0 else math.copysign(math.inf, beyond))
            else:
                margins.append(beyond / reach)
        return min(margins)

    def bounds(self, level: float) -> list[float]:
        """Of each metric, the value that it is better than with confidence ``level``."""
        return [
            it.mean - it.reach(level, it.n) if target.is_share else it.mean + it.reach(level, it.n)
            for target, it in zip(self.targets, self.estimates, strict=True)
        ]

    def meets(self, level: float) -> bool:
        """Whether every metric is beyond its target with confidence ``level``."""
        return all(
            bound >= target.value if target.is_share else bound <= target.value
            for target, bound in zip(self.targets, self.bounds(level), strict=True)
        )

    def fails(self, level: float) -> bool:
        """Whether some metric is short of its target with confidence ``level``."""
        return any(
            it.mean + it.reach(level, it.n) < target.value
            if target.is_share
            else it.mean - it.reach(level, it.n) > target.value
            for target, it in zip(self.targets, self.estimates, strict=True)
        )
