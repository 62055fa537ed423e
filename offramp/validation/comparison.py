"""How far a simulation is from what was measured: each metric of each arm, with its interval."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

import numpy as np
import pandas as pd

from offramp.validation.runs import ARM, RUN, Side, check_comparable, check_same_requests, read_side
from sim.results.metrics import confidence_interval, ratio_interval

#: How far a simulation may be off: shares in absolute numbers, the others relative to the live one.
TARGETS = {"aud": 0.02, "latency_p50_s": 0.10, "latency_p95_s": 0.20}

#: Metrics whose error is a difference, in points; that of others is relative.
_SHARES = ("aud", "hit_ratio", "exit_", "utilisation_")

POINTS, RELATIVE = "points", "relative"


@dataclass(frozen=True)
class Comparison:
    """Two worlds compared.

    Attributes:
        table: one row per arm and metric: mean of each world over replications with half width of
            its 95 % interval; ``error`` (simulated less live, in points or relative to live) of
            these means, with its half width, which knows that replications are paired; ``target``
            and whether it is ``met``: ``yes`` if the error is within it, ``no`` if not.
        draws: of slow moments, whose means the simulated values are.
        same_requests: so many were found to be the same in both worlds.
        doubts: what a reader has to know.
    """

    live: Side
    simulated: Side
    table: pd.DataFrame
    draws: int
    same_requests: int
    doubts: list[str]

    @property
    def judged(self) -> pd.DataFrame:
        """Rows with a target."""
        return self.table[self.table["met"] != ""]

    @property
    def verdict(self) -> str:
        """``AGREES`` if every target is met, ``DIFFERS`` if not, else ``UNDECIDED``."""
        if not len(self.judged):
            return "UNDECIDED"
        return "AGREES" if (self.judged["met"] == "yes").all() else "DIFFERS"


def compare(
    live_folder: Path, simulated_folder: Path, other_draws: Sequence[pd.DataFrame] = ()
) -> Comparison:
    """Compare the results of a live run with those of a simulation of the same requests.

    Args:
        other_draws: metrics of the same simulation with other slow moments; see
            :mod:`offramp.validation.draws`.

    Raises:
        ResultsError: they cannot be compared.
    """
    live, simulated = read_side(live_folder), read_side(simulated_folder)
    check_comparable(live, simulated)
    same = check_same_requests(live, simulated)
    draws = [run_metrics(simulated), *other_draws]
    table = errors(run_metrics(live), _means(draws))
    return Comparison(live, simulated, table, len(draws), same, [*_doubts(live, simulated)])


def run_metrics(side: Side) -> pd.DataFrame:
    """The metrics of each run of one world, by :data:`RUN`.

    ``exit_K`` is the share of all offered requests that exit K answered, ``exit_0`` of those that
    nobody did; ``utilisation_NODE`` the seconds of work that the window's requests brought for
    each worker-second; ``throughput_hz`` the window's answered requests per second.
    """
    rows = {}
    records = side.records
    exits = int(records["exit"].max()) if records["exit"].notna().any() else 0
    for run, part in records.groupby(RUN, sort=False):
        offered = len(part)
        on_time = part["outcome"] == "on_time"
        answered = part["received_s"].notna()
        latency_s = (part["received_s"] - part["created_s"])[answered].to_numpy()
        exit = part["exit"].where(answered).fillna(0).astype(int)
        quantiles = np.percentile(latency_s, (50, 95, 99)) if len(latency_s) else (math.nan,) * 3
        rows[run] = {
            "aud": float((part["correct"] & on_time).sum()) / offered,
            "hit_ratio": float(on_time.sum()) / offered,
            **{
                f"latency_p{q}_s": float(value)
                for q, value in zip((50, 95, 99), quantiles, strict=True)
            },
            "throughput_hz": float(answered.sum()) / side.duration_s,
            **{f"exit_{it}": float((exit == it).mean()) for it in range(exits + 1)},
        }
    frame = pd.DataFrame.from_dict(rows, orient="index")
    frame.index = pd.MultiIndex.from_tuples(rows, names=RUN)
    work = side.nodes.pivot_table(index=RUN, columns="node", values="work")
    return frame.join(work.add_prefix("utilisation_"))


def _means(draws: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """Mean metrics of each run over draws."""
    of_all = pd.concat(draws)
    exits = [name for name in of_all.columns if name.startswith("exit_")]
    of_all[exits] = of_all[exits].fillna(0.0)  # one that was not taken in some of them
    return of_all.groupby(level=RUN, sort=False).agg(_mean)


def _mean(values: pd.Series) -> float:
    """The mean of what is known; exactly the value if all are alike."""
    known = values.dropna()
    return fmean(known) if len(known) else math.nan


def errors(live: pd.DataFrame, simulated: pd.DataFrame) -> pd.DataFrame:
    """How far the metrics of one world's runs are from the other's: ``Comparison.table``."""
    return pd.DataFrame(
        [
            {**dict(zip(ARM, arm, strict=True)), **row}
            for arm, mine in live.groupby(ARM, sort=False)
            for row in _rows(mine, simulated.loc[mine.index])
        ]
    )


def _rows(live: pd.DataFrame, simulated: pd.DataFrame) -> list[dict[str, object]]:
    """A row for each metric of one arm, whose runs are paired by replication."""
    found = []
    # An exit that one world alone took is a share of 0 in the other.
    for metric in dict.fromkeys([*live.columns, *simulated.columns]):
        is_share = metric.startswith(_SHARES)
        mine, theirs = (
            side[metric].to_numpy(dtype=float) if metric in side else np.zeros(len(side))
            for side in (live, simulated)
        )
        error = theirs - mine
        intervals = [
            *(confidence_interval(values) for values in (mine, theirs)),
            confidence_interval(error) if is_share else ratio_interval(error, mine),
        ]
        target = TARGETS.get(metric)
        found.append(
            {
                "metric": metric,
                "live": intervals[0].mean,
                "live_half_width": intervals[0].half_width,
                "simulated": intervals[1].mean,
                "simulated_half_width": intervals[1].half_width,
                "error": intervals[2].mean,
                "error_half_width": intervals[2].half_width,
                "error_in": POINTS if is_share else RELATIVE,
                "replications": len(error),
                "target": math.nan if target is None else target,
                "met": _met(target, intervals[2].mean, mine, theirs),
            }
        )
    return found


def _met(target: float | None, error: float, live: np.ndarray, simulated: np.ndarray) -> str:
    if target is None or not (np.isfinite(live).any() or np.isfinite(simulated).any()):
        return ""  # nothing was answered in either world: they agree in that
    return "yes" if abs(error) <= target else "no"


def _doubts(live: Side, simulated: Side) -> list[str]:
    found = []
    replications = live.records["replication"].nunique()
    if replications == 1:
        found.append(
            "a single replication: nothing says how much another would differ, and there are no "
            "intervals (--replications)"
        )
    for side, name in ((live, "live"), (simulated, "simulated")):
        answered = side.records.groupby(ARM, sort=False)["received_s"].count()
        found += [
            f"{name}, {', '.join(map(str, arm))}: not one request was answered"
            for arm in answered[answered == 0].index
        ]
    few = live.records.groupby(RUN).size().min()
    if few < 100:
        found.append(f"a run has {few} requests only: its percentiles are rough")
    if live.loops:
        found.append(
            "devices in closed loops: when a request is created follows from the answers, so that "
            "the worlds share think times, deadlines and samples, and not the times of creation"
        )
    return found
