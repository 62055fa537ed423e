"""Metrics of runs, and intervals over independent repetitions of them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy import special

from sim import records
from sim.world import Run, World

#: Identifies a run among the arms of a comparison.
ARM = ["strategy", "training_seed", "policy", "replication"]

LEVEL = 0.95


def run_metrics(world: World, run: Run) -> dict[str, float]:
    """Metrics of one run over the requests of its measured window.

    ``aud`` is accuracy under deadline: correct and on-time requests over all requests offered.
    ``hit_ratio`` is on-time requests over all offered. Latencies, from creation to answer, and
    ``accuracy`` are over answered requests only, and NaN where there are none.
    """
    rows = run.measured(world)
    offered = int(rows.sum())
    outcome, exit = run.outcome[rows], run.exit[rows]
    answered = exit > 0
    latency = (run.received_s - run.workload.requests.created_s)[rows][answered]
    metrics: dict[str, float] = {"offered": offered, "answered": int(answered.sum())}
    for name, code in zip(records.OUTCOMES, range(len(records.OUTCOMES)), strict=True):
        metrics[name] = int((outcome == code).sum())
    correct = run.correct[rows]
    metrics["aud"] = _ratio(int((correct & (outcome == records.ON_TIME)).sum()), offered)
    metrics["hit_ratio"] = _ratio(metrics["on_time"], offered)
    metrics["accuracy"] = _ratio(int(correct[answered].sum()), metrics["answered"])
    metrics["latency_mean_s"] = float(latency.mean()) if len(latency) else math.nan
    for percent in (50, 95, 99):
        metrics[f"latency_p{percent}_s"] = (
            float(np.percentile(latency, percent)) if len(latency) else math.nan
        )
    return metrics


def _ratio(part: float, whole: float) -> float:
    return part / whole if whole else math.nan


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


def over_training_seeds(runs: pd.DataFrame, metric: str) -> pd.Series:
    """One value per strategy, policy and training seed: over all replications' requests.

    The unit of evidence for claims about a training strategy: replications of one pair of
    checkpoints say nothing of another training.
    """
    return _pooled(runs, metric, ["strategy", "policy", "training_seed"])


def over_replications(runs: pd.DataFrame, metric: str) -> pd.Series:
    """One value per strategy, policy and replication: over all training seeds' requests.

    The unit of evidence for claims about a policy, given the checkpoints at hand.
    """
    return _pooled(runs, metric, ["strategy", "policy", "replication"])


def _pooled(runs: pd.DataFrame, metric: str, by: list[str]) -> pd.Series:
    """The metric of all requests of several runs together: a mean weighted by its denominator."""
    weight = runs["answered" if metric == "accuracy" else "offered"]
    # Without a denominator there is no metric, and nothing to add.
    weighted = (runs[metric] * weight).where(weight > 0, 0.0)
    keys = [runs[key] for key in by]
    return weighted.groupby(keys).sum() / weight.groupby(keys).sum()


def paired_difference(values: pd.Series, level: str, of: Any, less: Any) -> Interval:
    """Interval of the difference between two arms, paired by the index that remains.

    Args:
        values: indexed by the arms and the repetition, over one policy or strategy.
        level: name of the index level that tells the arms apart.
        of, less: the arms; the result is ``of`` minus ``less``.
    """
    difference = values.xs(of, level=level) - values.xs(less, level=level)
    return confidence_interval(difference.dropna().to_numpy())
