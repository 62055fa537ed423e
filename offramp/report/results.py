"""Reading a results folder, and the numbers that a report shows."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.compute as pc

from models.artifacts import Profile, read_profile
from models.errors import ResultsError
from offramp.stages.layout import (
    DEADLINE_SWEEP,
    EXIT_ACCURACY,
    MANIFEST,
    NODES,
    PROFILE,
    RECORDS,
    RUNS,
)
from sim.metrics import (
    ARM,
    Interval,
    confidence_interval,
    over_replications,
    over_training_seeds,
    paired_difference,
)
from sim.records import read_records
from sim.verdict import doubts, load_verdict, outcome_shares


@dataclass(frozen=True)
class Results:
    """The files of one results folder.

    Attributes:
        runs: metrics of every run; see :func:`sim.metrics.run_metrics`.
        nodes: metrics of every run and node; see :func:`sim.verdict.node_metrics`.
        sweep: as ``runs``, for every scale of the deadlines.
        exit_accuracy: test accuracy by strategy, training seed and exit.
        profile: of this host, or None if no node used it.
        manifest: the resolved scenario, versions, hashes and times.
    """

    folder: Path
    runs: pd.DataFrame
    nodes: pd.DataFrame
    sweep: pd.DataFrame
    exit_accuracy: pd.DataFrame
    profile: Profile | None
    manifest: dict[str, Any]

    @property
    def scenario(self) -> dict[str, Any]:
        """The resolved scenario."""
        scenario: dict[str, Any] = self.manifest["scenario"]
        return scenario

    @cached_property
    def strategies(self) -> list[str]:
        """Strategies, in the order of the scenario."""
        return list(self.runs["strategy"].unique())

    @cached_property
    def policies(self) -> list[str]:
        """Policies, in the order of the scenario."""
        return list(self.runs["policy"].unique())

    @property
    def training_seeds(self) -> int:
        """Number of training seeds."""
        return int(self.runs["training_seed"].nunique())

    @property
    def replications(self) -> int:
        """Number of replications."""
        return int(self.runs["replication"].nunique())

    @cached_property
    def latencies(self) -> pd.DataFrame:
        """Latency of every request, NaN if never answered, with its arm and exit (0: none)."""
        table = read_records(self.folder / RECORDS)
        latency = pc.subtract(table["received_s"], table["created_s"])
        frame = table.select(["strategy", "policy", "exit", "outcome"]).to_pandas()
        return frame.assign(exit=frame["exit"].fillna(0).astype(int), latency_s=latency.to_numpy())


#: Columns that each table must have.
_COLUMNS = {
    RUNS: [*ARM, "offered", "aud", "first_quarter_s", "rest_s"],
    NODES: [*ARM, "node", "work", "wait_mean_s", "drain_s", "deadline_mean_s"],
    DEADLINE_SWEEP: [*ARM, "deadline_scale", "aud"],
    EXIT_ACCURACY: ["strategy", "training_seed", "exit", "accuracy"],
}

#: Columns of names, which may look like numbers or like missing values and are neither.
_NAMES = ("strategy", "policy", "node")


def _read_manifest(path: Path) -> dict[str, Any]:
    try:
        manifest: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        if not {"devices", "simulation", "name"} <= set(manifest["scenario"]):
            raise KeyError("scenario")
    except FileNotFoundError:
        raise _unfinished(path) from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ResultsError(f"{path} is damaged: {error}") from None
    return manifest


def _read_table(path: Path, columns: list[str]) -> pd.DataFrame:
    try:
        text = pd.read_csv(path, dtype=str, keep_default_na=False)
        numbers = pd.read_csv(path)
    except FileNotFoundError:
        raise _unfinished(path) from None
    except (OSError, ValueError) as error:
        raise ResultsError(f"{path} is damaged: {error}") from None
    missing = [name for name in columns if name not in text]
    if missing:
        raise ResultsError(f"{path} is damaged: it has no column {', '.join(missing)}")
    return numbers.assign(**{name: text[name] for name in _NAMES if name in text})


def _unfinished(path: Path) -> ResultsError:
    return ResultsError(
        f"{path.parent} is not a results folder of a finished run: {path.name} is missing"
    )


def read_results(folder: Path) -> Results:
    """Read a results folder.

    Raises:
        ResultsError: it is not one, or files are missing or damaged.
    """
    manifest = _read_manifest(folder / MANIFEST)
    frames = {name: _read_table(folder / name, columns) for name, columns in _COLUMNS.items()}
    profile = read_profile(folder / PROFILE) if (folder / PROFILE).exists() else None
    return Results(
        folder,
        frames[RUNS],
        frames[NODES],
        frames[DEADLINE_SWEEP],
        frames[EXIT_ACCURACY],
        profile,
        manifest,
    )


def interval_over(metric: str, training_seeds: int) -> str:
    """What the interval of a metric's mean is over.

    Accuracies vary with the training. Whether an answer is on time varies with the workload: all
    trainings meet the same requests, so their spread says nothing of it. With one training, an
    interval over replications holds for that training alone.
    """
    if metric == "hit_ratio" or training_seeds < 2:
        return "replications"
    return "training seeds"


def summary(results: Results) -> pd.DataFrame:
    """One row per strategy and policy.

    Shares carry 95 % intervals over what :func:`interval_over` says; latency percentiles, in
    seconds, are over the answered requests of all seeds and replications together.
    """
    rows = []
    shares = outcome_shares(results.runs)
    by_arm = results.latencies.groupby(["strategy", "policy"], observed=True)["latency_s"]
    for policy in results.policies:
        for strategy in results.strategies:
            row: dict[str, Any] = {"strategy": strategy, "policy": policy}
            for metric in ("aud", "hit_ratio", "accuracy"):
                by_seed = over_training_seeds(results.runs, metric).xs((strategy, policy))
                values = by_seed
                if interval_over(metric, results.training_seeds) == "replications":
                    values = over_replications(results.runs, metric).xs((strategy, policy))
                half_width = confidence_interval(values.to_numpy()).half_width
                row |= {metric: by_seed.mean(), f"{metric}_half_width": half_width}
            latency = by_arm.get_group((strategy, policy)).dropna().to_numpy()
            for percent in (50, 95, 99):
                row[f"latency_p{percent}_s"] = (
                    float(np.percentile(latency, percent)) if len(latency) else math.nan
                )
            row |= shares.loc[(strategy, policy)].to_dict()
            row |= {"training_seeds": results.training_seeds, "replications": results.replications}
            rows.append(row)
    return pd.DataFrame(rows)


def baseline_strategy(strategies: list[str]) -> str:
    """What other strategies are compared with."""
    return "standard" if "standard" in strategies else strategies[0]


def differences(results: Results) -> pd.DataFrame:
    """Paired differences in AUD between strategies, and between policies.

    Strategies differ over training seeds, policies over replications: see the rules in
    :mod:`sim.metrics`.
    """
    rows = []
    by_seed = over_training_seeds(results.runs, "aud")
    baseline = baseline_strategy(results.strategies)
    for policy in results.policies:
        values = by_seed.xs(policy, level="policy")
        for strategy in results.strategies:
            if strategy != baseline:
                interval = paired_difference(values, "strategy", strategy, baseline)
                rows.append(_difference(strategy, baseline, policy, "training seeds", interval))
    by_replication = over_replications(results.runs, "aud")
    for strategy in results.strategies:
        values = by_replication.xs(strategy, level="strategy")
        for policy in results.policies[1:]:
            interval = paired_difference(values, "policy", policy, results.policies[0])
            rows.append(
                _difference(policy, results.policies[0], strategy, "replications", interval)
            )
    columns = ["of", "less", "given", "aud_difference", "half_width", "n", "over"]
    return pd.DataFrame(rows, columns=columns)


def _difference(of: str, less: str, given: str, over: str, interval: Interval) -> dict[str, Any]:
    return {
        "of": of,
        "less": less,
        "given": given,
        "aud_difference": interval.mean,
        "half_width": interval.half_width,
        "n": interval.n,
        "over": over,
    }


def node_verdicts(results: Results) -> pd.DataFrame:
    """One row per policy and node: mean work, waiting and the verdict over all its runs."""
    means = results.nodes.groupby(["policy", "node"], sort=False)[
        ["work", "wait_mean_s", "drain_s", "deadline_mean_s"]
    ].mean()
    means["verdict"] = [
        load_verdict(row.work, row.drain_s, row.deadline_mean_s) for row in means.itertuples()
    ]
    return means.reset_index()


def validity(results: Results) -> tuple[str, list[str]]:
    """``VALID`` or ``INVALID``, and the reasons for the latter."""
    reasons = doubts(
        results.runs,
        node_verdicts(results),
        results.training_seeds,
        results.replications,
        compares=len(results.strategies) > 1,
    )
    return ("INVALID" if reasons else "VALID"), reasons
