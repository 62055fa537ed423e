"""What simulations say of a configuration: whether it is shown to meet its targets."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from offramp.recommendation.estimate import Estimate, Spread, estimate
from offramp.recommendation.target import Target
from sim.results.verdict import overloaded_runs


@dataclass(frozen=True)
class Evidence:
    """What runs say of every target.

    Attributes:
        estimates: of each target's metric, in the order of the targets.
        runs: training seeds times replications.
        overloaded: in so many of these, a node or link could not keep up.
    """

    targets: tuple[Target, ...]
    estimates: tuple[Estimate, ...]
    runs: int = 0
    overloaded: int = 0

    @staticmethod
    def of(runs: pd.DataFrame, targets: Sequence[Target]) -> Evidence:
        """What runs of one strategy under one policy say."""
        estimates = tuple(estimate(runs, target) for target in targets)
        return Evidence(tuple(targets), estimates, len(runs), int(overloaded_runs(runs).sum()))

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

    def margin(self, level: float, replications: int, least: Sequence[Spread] = ()) -> float:
        """How many times its reach the mean leaves of the target that is met least surely.

        From 1 on, a verification that found the same means and spreads would pass.

        Args:
            level: of the bound that a verification looks at.
            replications: of the verification.
            least: of each metric, what its spread is taken to be if a few repetitions show less.
        """
        margins = []
        for index, (target, it) in enumerate(zip(self.targets, self.estimates, strict=True)):
            again = it.with_replications(replications, least[index] if least else None)
            bound = _bound(target, again, level)
            reach = abs(it.mean - bound)
            beyond = it.mean - target.value if target.is_share else target.value - it.mean
            if math.isnan(reach):
                margins.append(-math.inf)
            elif reach == 0:
                margins.append(0.0 if beyond == 0 else math.copysign(math.inf, beyond))
            else:
                margins.append(beyond / reach)
        return min(margins)

    def bounds(self, level: float) -> list[float]:
        """Of each metric, the value that it is better than with confidence ``level``.

        NaN where there is none: see :meth:`Estimate.bounds`.
        """
        return [
            _bound(target, it, level)
            for target, it in zip(self.targets, self.estimates, strict=True)
        ]

    def meets(self, level: float) -> bool:
        """Whether every metric is beyond its target with confidence ``level``."""
        return all(
            target.is_met_by(bound)
            for target, bound in zip(self.targets, self.bounds(level), strict=True)
        )

    def fails(self, level: float) -> bool:
        """Whether some metric is short of its target with confidence ``level``."""
        return any(
            it.bounds(level)[1] < target.value
            if target.is_share
            else it.bounds(level)[0] > target.value
            for target, it in zip(self.targets, self.estimates, strict=True)
        )


def _bound(target: Target, estimate: Estimate, level: float) -> float:
    low, high = estimate.bounds(level)
    return low if target.is_share else high
