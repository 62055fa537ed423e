"""A sweep in a line for each point and arm: means with their intervals."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa

from sim.results.metrics import half_widths, linearised
from sim.results.verdict import VERDICTS

#: Shares of requests, pooled over runs by what they are shares of.
_SHARES = {"aud": "offered", "hit_ratio": "offered", "accuracy": "answered"}
#: Metrics of single runs.
_OF_RUNS = ("latency_mean_s", "latency_p50_s", "latency_p95_s", "latency_p99_s")


@dataclass
class Extreme:
    """The best or worst point of an arm: its mean AUD, and the values of the swept keys there."""

    aud: float
    values: tuple[Any, ...]


@dataclass
class ArmSummary:
    """What a sweep says of one strategy and policy."""

    points: int
    best: Extreme
    worst: Extreme


class Summary:
    """Writes means by point, strategy and policy from parts of the table, as CSV.

    Shares are of all requests of a point and arm, with the 95 % interval of such a ratio: over
    training seeds where there are several, and else over replications. Latencies are means of the
    runs' own, over replications. ``verdict`` is the worst of the runs' own, on the load of nodes
    and links.

    Args:
        keys: swept keys.
        path: of the CSV.
    """

    def __init__(self, keys: Sequence[str], path: Path) -> None:
        self._keys = list(keys)
        self._path = path
        self._is_empty = True
        self.arms: dict[tuple[str, str], ArmSummary] = {}
        #: Points at which a node or a link was overloaded in some run.
        self.overloaded = 0

    def add(self, table: pa.Table) -> None:
        """Take in a part of the table: all rows of some points."""
        part = self._means(table.to_pandas(integer_object_nulls=True))
        part.to_csv(self._path, mode="a", index=False, header=self._is_empty)
        self._is_empty = False
        self.overloaded += part.loc[part["verdict"] == VERDICTS[-1], "point"].nunique()
        for row in part[["strategy", "policy", "aud", *self._keys]].itertuples(index=False):
            strategy, policy, aud, *values = row
            here = Extreme(aud, tuple(None if pd.isna(it) else it for it in values))
            arm = self.arms.setdefault((strategy, policy), ArmSummary(0, here, here))
            arm.points += 1
            if aud > arm.best.aud:
                arm.best = here
            if aud < arm.worst.aud:
                arm.worst = here

    def _means(self, runs: pd.DataFrame) -> pd.DataFrame:
        arm = ["point", "strategy", "policy"]
        groups = runs.groupby(arm, sort=False)
        found = groups[self._keys].first()
        found["training_seeds"] = groups["training_seed"].nunique()
        found["replications"] = groups["replication"].nunique()
        found["requests"] = groups["offered"].sum()
        worst = groups["verdict"].agg(lambda verdicts: max(verdicts, key=VERDICTS.index))
        found["verdict"] = worst
        for name, weight in _SHARES.items():
            by_seed, by_replication = (
                _pooled(runs, name, weight, arm, unit).groupby(arm, sort=False)
                for unit in ("training_seed", "replication")
            )
            found[name] = by_seed.mean()  # and that of by_replication: both are of all requests
            found[f"{name}_half_width"] = half_widths(by_seed).where(
                found["training_seeds"] > 1, half_widths(by_replication)
            )
        for name in _OF_RUNS:
            by_replication = groups.obj.groupby([*arm, "replication"], sort=False)[name].mean()
            of_arm = by_replication.groupby(arm, sort=False)
            found[name] = of_arm.mean()
            found[f"{name}_half_width"] = half_widths(of_arm)
        found = found.reset_index()
        first = ["point", *self._keys, "strategy", "policy"]
        return found[[*first, *(name for name in found if name not in first)]]


def _pooled(runs: pd.DataFrame, metric: str, weight: str, arm: list[str], unit: str) -> pd.Series:
    """The metric by arm and unit, whose means are of all requests; see :func:`linearised`."""
    weights = runs[weight]
    weighted = (runs[metric] * weights).where(weights > 0, 0.0)
    keys = [runs[key] for key in (*arm, unit)]
    above, below = (it.groupby(keys, sort=False).sum() for it in (weighted, weights))
    return linearised(above, below, arm)
