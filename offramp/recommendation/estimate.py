"""What simulations say of one metric of a configuration: its mean, and how sure that is.

Both training seeds and replications are at random, and crossed: every network meets the requests of
every replication. So a mean varies with either, whatever the metric is: the network decides what is
right, and under a policy that looks at its confidence also when it stops, and so what is late.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import special

from offramp.recommendation.target import Target
from offramp.words import counted
from sim.results.metrics import added_error, linearised, share_bounds

Floats = NDArray[np.float64]

#: Spreads are none that are smaller than this part of the mean: sums are rounded.
_RESOLUTION = 1e-9


@dataclass(frozen=True)
class Spread:
    """How much a metric varies: standard deviations, in its unit.

    Attributes:
        replications: between replications, each over all training seeds; NaN of a single one.
        seeds: between training seeds, each over all replications; 0 of a single one, of which
            nothing is said but what it reaches itself.
    """

    replications: float
    seeds: float = 0.0


@dataclass(frozen=True)
class Estimate:
    """A metric's mean over training seeds and replications.

    Attributes:
        mean: a share, or seconds; NaN where the metric is not always known.
        requests: of a share, how many different ones it is a share of: all training seeds meet the
            same ones. None of a latency.
    """

    mean: float
    spread: Spread
    training_seeds: int
    replications: int
    requests: float | None = None

    @property
    def half_width(self) -> float:
        """How far the 95 % interval reaches from the mean, to the side where it is longer."""
        low, high = self.bounds(0.975)
        return max(self.mean - low, high - self.mean)

    @property
    def over(self) -> str:
        """What its interval is over."""
        replications = counted(self.replications, "replication")
        if self.training_seeds < 2:
            return f"{replications} of one training"
        return f"{counted(self.training_seeds, 'training seed')} and {replications}"

    @property
    def varies_most_with_seeds(self) -> bool:
        """Whether more training seeds would narrow its interval more than more replications."""
        variances, counts = self._parts()
        if len(counts) < 2:
            return False
        of_requests = variances[0] / counts[0]
        if self.requests is not None:
            of_requests = max(of_requests, self.mean * (1 - self.mean) / self.requests)
        return variances[1] / counts[1] > of_requests

    def bounds(self, level: float) -> tuple[float, float]:
        """What the metric is above, and what it is below, each with confidence ``level``.

        Student's t over training seeds and replications, and no better than over either of them
        alone: the spread of two or three may be small by chance, and Satterthwaite's degrees of
        freedom do not see that.

        A share is no surer than if its requests were independent (Clopper & Pearson): replications
        that are all alike, such as ten in which every request was on time, have no spread, and
        still do not say that there will never be another. Latencies that are all alike are taken
        for what they are if the sign test does not contradict it; else there is no bound (NaN).
        """
        reach = self._reach(level)
        low, high = self.mean - reach, self.mean + reach
        if self.requests is None or math.isnan(reach) or math.isnan(self.mean):
            return low, high
        exact = share_bounds(self.mean * self.requests, self.requests, level)
        return min(low, exact[0]), max(high, exact[1])

    def with_replications(self, count: int, least: Spread | None = None) -> Estimate:
        """What ``count`` replications would say that found the same mean and the same spread.

        With more of them, what is at random in requests averages out; what is at random in
        networks stays.

        Args:
            least: what its spread is taken to be if it is less.
        """
        spread = self.spread
        if least is not None:
            spread = Spread(
                max(spread.replications, least.replications), max(spread.seeds, least.seeds)
            )
        requests = None if self.requests is None else self.requests * count / self.replications
        return replace(self, spread=spread, replications=count, requests=requests)

    def _reach(self, level: float) -> float:
        """How far Student's t reaches from the mean, to one side."""
        if self.replications < 2:
            return math.nan
        variances, counts = self._parts()
        if max(variances) <= (_RESOLUTION * abs(self.mean)) ** 2:
            is_sure = self.requests is not None or 0.5**self.replications <= 1 - level
            return 0.0 if is_sure else math.nan
        error, freedom = added_error(variances, counts)
        alone = [
            special.stdtrit(count - 1, level) * math.sqrt(variance / count)
            for variance, count in zip(variances, counts, strict=True)
        ]
        return float(max(special.stdtrit(freedom, level) * error, *alone))

    def _parts(self) -> tuple[list[float], list[int]]:
        """Variance and number of what it varies with: replications, and seeds if there are some."""
        variances, counts = [self.spread.replications**2], [self.replications]
        if self.training_seeds > 1:
            variances.append(self.spread.seeds**2)
            counts.append(self.training_seeds)
        return variances, counts


def estimate(runs: pd.DataFrame, target: Target) -> Estimate:
    """What runs of one strategy under one policy say of a target's metric.

    Shares are the means over training seeds that reports have; latencies, the means of the runs'
    own, and unknown where a run has none, since no request was answered.

    Args:
        runs: one for each training seed and replication.
    """
    if not target.is_share:
        return estimate_of(_cells(runs, target.column))
    by_cell = runs.set_index(["training_seed", "replication"])
    whole = by_cell["answered" if target.metric == "accuracy" else "offered"]
    part = (by_cell[target.column] * whole).where(whole > 0, 0.0)
    shares = linearised(part, whole, ["training_seed"])
    # A replication without a request is taken to be as the others are.
    of_seed = shares.groupby(level="training_seed").transform("mean")
    values = shares.fillna(of_seed).unstack("replication").to_numpy(dtype=np.float64)
    return estimate_of(values, float(whole.sum()) / len(values))


def estimate_of(values: Floats, requests: float | None = None) -> Estimate:
    """The mean of values that vary with training seeds and replications.

    Args:
        values: (training seeds, replications).
        requests: see :class:`Estimate`.
    """
    seeds, replications = values.shape
    spread = Spread(_sd(values.mean(axis=0)), _sd(values.mean(axis=1)) if seeds > 1 else 0.0)
    return Estimate(float(values.mean()), spread, seeds, replications, requests)


def _cells(runs: pd.DataFrame, column: str) -> Floats:
    """(training seeds, replications) of a column."""
    table = runs.pivot(index="training_seed", columns="replication", values=column)
    return np.asarray(table, dtype=np.float64)


def _sd(values: Floats) -> float:
    return float(values.std(ddof=1)) if len(values) > 1 else math.nan
