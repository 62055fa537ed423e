"""Reading a results folder, and the numbers that a report shows."""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.compute as pc
from numpy.typing import NDArray
from pandas.api.types import is_numeric_dtype

from models.artifacts import Profile, read_profile
from models.errors import ResultsError
from offramp.manifest import check_format
from offramp.report.paired import Comparison, compare_arms, holm
from offramp.stages.layout import (
    DEADLINE_SWEEP,
    ENERGY,
    EXIT_ACCURACY,
    FAULT_TIMES,
    FAULTS,
    GROUPS,
    LINKS,
    MANIFEST,
    NODE_TELEMETRY,
    NODES,
    PERCENTILES,
    PROFILE,
    RECORDS,
    RUNS,
)
from offramp.words import counted
from sim.outcomes import OUTCOMES
from sim.results.metrics import (
    ARM,
    Interval,
    confidence_interval,
    over_replications,
    over_training_seeds,
    ratio_interval,
)
from sim.results.records import read_columns
from sim.results.verdict import outcome_shares


@dataclass(frozen=True)
class Results:
    """The files of one results folder.

    Attributes:
        runs: metrics of every run; see :func:`sim.results.metrics.run_metrics`.
        nodes: metrics of every run and node; see :func:`sim.results.verdict.node_metrics`.
        sweep: as ``runs``, for every scale of the deadlines.
        others: tables that only some results have, by the name of their file.
        exit_accuracy: test accuracy by strategy, training seed and exit.
        profile: of this host, or None if no node used it.
        manifest: the resolved scenario, versions, hashes and times.
    """

    folder: Path
    runs: pd.DataFrame
    nodes: pd.DataFrame
    sweep: pd.DataFrame
    exit_accuracy: pd.DataFrame
    others: dict[str, pd.DataFrame]
    profile: Profile | None
    manifest: dict[str, Any]

    @property
    def scenario(self) -> dict[str, Any]:
        """The resolved scenario."""
        scenario: dict[str, Any] = self.manifest["scenario"]
        return scenario

    @property
    def world(self) -> str:
        """``simulated`` or ``live``."""
        world: str = self.manifest.get("world", "simulated")
        return world

    @property
    def is_live(self) -> bool:
        """Whether it was measured, not simulated."""
        return self.world == "live"

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

    @property
    def has_records(self) -> bool:
        """Whether there is a record for every request, or a summary alone."""
        kept: str = self.scenario["simulation"].get("records", "full")
        return kept == "full"

    @property
    def oracle(self) -> str | None:
        """The policy that knows what will come of a request, if it is among the policies."""
        named = [spec["policy"] for spec in self.scenario["policies"]]
        if len(named) != len(self.policies) or "oracle" not in named:
            return None
        return self.policies[named.index("oracle")]

    @property
    def candidates(self) -> list[str]:
        """Policies that can be chosen: not the oracle, a yardstick, unless it is the only one."""
        return [name for name in self.policies if name != self.oracle] or self.policies

    @cached_property
    def deadlines_s(self) -> NDArray[np.float64]:
        """(N,) the deadline of every request that there is a record of, ascending."""
        parts = [
            table["deadline_s"].to_numpy()
            for table in read_columns(self.folder / RECORDS, ["deadline_s"])
        ]
        return np.sort(np.concatenate(parts)) if parts else np.zeros(0)

    @cached_property
    def answers(self) -> dict[tuple[str, str], Answers]:
        """Of the records: what was answered when and where, by strategy and policy.

        Raises:
            ResultsError: the records are not those of these runs.
        """
        parts: dict[tuple[str, str], list[Answers]] = {}
        columns = ["strategy", "policy", "exit", "created_s", "received_s"]
        for table in read_columns(self.folder / RECORDS, columns):
            names = [table[name].unify_dictionaries().combine_chunks() for name in columns[:2]]
            codes = [name.indices.to_numpy() for name in names]
            latency_s = pc.subtract(table["received_s"], table["created_s"]).to_numpy()
            exits = pc.fill_null(table["exit"], 0).to_numpy()
            arm = codes[0].astype(np.int64) * len(names[1].dictionary) + codes[1]
            for code in np.unique(arm).tolist():
                of_arm = arm == code
                strategy, policy = divmod(code, len(names[1].dictionary))
                key = (names[0].dictionary[strategy].as_py(), names[1].dictionary[policy].as_py())
                parts.setdefault(key, []).append(Answers.of(latency_s[of_arm], exits[of_arm]))
        answers = {arm: Answers.joined(of_arm) for arm, of_arm in parts.items()}
        self._check_records({arm: of_arm.offered for arm, of_arm in answers.items()})
        return answers

    def _check_records(self, recorded: dict[tuple[str, str], int]) -> None:
        """Refuse records that are not those of the runs, though they can be read."""
        offered = self.runs.groupby(["strategy", "policy"])["offered"].sum()
        for arm in recorded.keys() | set(offered.index):
            there, wanted = recorded.get(arm, 0), int(offered.get(arm, 0))
            if there != wanted:
                raise ResultsError(
                    f"{self.folder / RECORDS} does not belong to {self.folder / RUNS}, or is "
                    f"damaged: it has {there} requests of {', '.join(arm)}, and {RUNS} {wanted}"
                )


@dataclass(frozen=True)
class Answers:
    """What was answered of some requests.

    Attributes:
        latency_s: (N,) of the answers, ascending.
        exits: how many requests each exit answered; at 0, those without an answer.
    """

    latency_s: NDArray[np.float64]
    exits: NDArray[np.int64]

    @staticmethod
    def of(latency_s: NDArray[np.float64], exit: NDArray[np.int32]) -> Answers:
        """From the latency of each request, NaN without an answer, and its exit."""
        answered = ~np.isnan(latency_s)
        return Answers(latency_s[answered], np.bincount(np.where(answered, exit, 0)))

    @staticmethod
    def joined(parts: list[Answers]) -> Answers:
        """Those of several parts together."""
        exits = np.zeros(max(len(part.exits) for part in parts), dtype=np.int64)
        for part in parts:
            exits[: len(part.exits)] += part.exits
        return Answers(np.sort(np.concatenate([part.latency_s for part in parts])), exits)

    @property
    def offered(self) -> int:
        """All requests, answered or not."""
        return int(self.exits.sum())


#: Columns that each table must have.
_COLUMNS = {
    RUNS: [
        *(*ARM, "offered", "answered", *OUTCOMES, "aud", "hit_ratio", "accuracy"),
        *("latency_p50_s", "latency_p95_s", "latency_p99_s", "first_quarter_s", "rest_s", "exit_1"),
    ],
    NODES: [*ARM, "node", "work", "wait_mean_s", "drain_s", "deadline_mean_s", "bounded"],
    DEADLINE_SWEEP: [*ARM, "deadline_scale", "offered", "aud"],
    EXIT_ACCURACY: ["strategy", "training_seed", "exit", "accuracy"],
}

#: Columns of tables that only some results have.
_OTHER_COLUMNS = {
    GROUPS: [*ARM, "group", "offered", *OUTCOMES, "aud", "hit_ratio", "latency_mean_s"],
    LINKS: [*ARM, "link", "direction", "shared_by", "load"],
    ENERGY: [*ARM, "what", "name", "idle_j", "compute_j", "transmit_j", "receive_j"],
    FAULTS: ["replication", "kind", "target", "targets", "count", "down_s"],
    FAULT_TIMES: ["kind", "target", "name", "start_s", "end_s"],
    NODE_TELEMETRY: [*ARM[:3], "time_s", "node", "queue_length", "utilisation"],
    PERCENTILES: ["strategy", "policy", *(f"latency_p{percent}_s" for percent in (50, 95, 99))],
}

#: Columns that must be numbers; and those that no row lacks, unless no request was offered.
_ALWAYS_THERE = ("offered", "answered", *OUTCOMES, "aud", "hit_ratio", "work", "load")
_NUMBERS = (
    *_ALWAYS_THERE,
    *("accuracy", "latency_mean_s", "latency_p50_s", "latency_p95_s", "latency_p99_s"),
    *("first_quarter_s", "rest_s", "drain_s", "deadline_mean_s", "queue_length", "utilisation"),
)

#: What a page cannot do without of the scenario, all of which every manifest has.
_SECTIONS = {"name", "description", "training", "devices", "nodes", "policies", "simulation"}

#: Columns of names, which may look like numbers or like missing values and are neither.
_NAMES = ("strategy", "policy", "node", "link", "group", "name", "target")


def _read_manifest(path: Path) -> dict[str, Any]:
    try:
        manifest: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        missing = _SECTIONS - set(manifest["scenario"])
        if missing:
            raise KeyError(f"scenario.{min(missing)}")
    except FileNotFoundError:
        raise _unfinished(path) from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ResultsError(f"{path} is damaged: {error}") from None
    if "format" in manifest:  # before there were formats, tables were as they are now
        check_format(path, manifest)
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
        raise ResultsError(
            f"{path} has no column {', '.join(missing)}: it is damaged, or was written by another "
            "version of Offramp, and then the same run with this version writes it anew"
        )
    if path.name in _COLUMNS and not len(numbers):
        raise ResultsError(f"{path} has no rows: the run is empty")
    frame = numbers.assign(**{name: text[name] for name in _NAMES if name in text})
    _check_numbers(path, frame)
    return frame


def _check_numbers(path: Path, frame: pd.DataFrame) -> None:
    """Refuse what no run gives; what is missing, as the latency where none answered, is NaN."""
    for name in frame:
        if not is_numeric_dtype(frame[name]):
            if name in _NUMBERS:
                raise ResultsError(f"{path} is damaged: not every {name} is a number")
            continue
        wrong = np.isinf(frame[name])
        if name in _ALWAYS_THERE:
            missing = frame[name].isna()
            wrong |= missing & (frame["offered"] != 0) if "offered" in frame else missing
        if wrong.any():
            row = int(np.flatnonzero(wrong)[0])
            raise ResultsError(
                f"{path} is damaged: {name} is {frame[name].iloc[row]} in row {row + 1}"
            )


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
    others = {
        name: _read_table(folder / name, columns)
        for name, columns in _OTHER_COLUMNS.items()
        if (folder / name).exists()
    }
    profile = read_profile(folder / PROFILE) if (folder / PROFILE).exists() else None
    return Results(
        folder,
        frames[RUNS],
        frames[NODES],
        frames[DEADLINE_SWEEP],
        frames[EXIT_ACCURACY],
        others,
        profile,
        manifest,
    )


#: Metrics of whole runs that are reported, where they are.
RUN_METRICS = ("jain_aud",)
#: Joules by what they are divided by: both are pooled, as the requests of an AUD are.
POOLED_METRICS = {
    "device_j_per_request": "offered",
    "j_per_request": "offered",
    "j_per_correct_on_time": "correct_on_time",
}


#: Columns of a summary that say nothing where nothing was answered in time: an interval without
#: width, and that all devices fare alike.
_OF_NOTHING = {"aud_half_width", "hit_ratio_half_width", "jain_aud", "jain_aud_half_width"}


def interval_over(metric: str, training_seeds: int) -> str:
    """What the interval of a metric's mean is over.

    What is answered varies with the training, and where a policy looks at the network's
    confidence, so does when: shares and joules of several trainings have intervals over those.
    Latencies and fairness, means of the runs' own, are said of these networks alone, over
    replications, and so is everything where there is one training.
    """
    if training_seeds < 2 or metric in RUN_METRICS or metric.startswith("latency_"):
        return "replications"
    return "training seeds"


def unit_of(over: str) -> str:
    """The column of runs that tells apart what an interval is over."""
    return over.replace(" ", "_").removesuffix("s")


def repetitions_of(results: Results, metric: str) -> str:
    """How many repetitions the interval of a metric's mean is over, and of what."""
    if interval_over(metric, results.training_seeds) == "training seeds":
        return counted(results.training_seeds, "training seed")
    text = counted(results.replications, "replication")
    return text + (" of one training" if results.training_seeds < 2 else "")


def summary(results: Results) -> pd.DataFrame:
    """One row per strategy and policy.

    Shares and energy are ratios of what all requests gave, with the 95 % intervals of such ratios
    over what :func:`interval_over` says. Latency percentiles, in seconds, are over the answered
    requests of all seeds and replications together.
    """
    rows = []
    shares = outcome_shares(results.runs)
    oracle = oracle_shares(results)
    by_unit = {name: _repetitions(results, name) for name in ("aud", "hit_ratio", "accuracy")}
    for policy in results.policies:
        for strategy in results.strategies:
            row: dict[str, Any] = {"strategy": strategy, "policy": policy}
            found = {
                name: confidence_interval(values.xs((strategy, policy)).dropna())
                for name, values in by_unit.items()
            }
            row |= _with_half_widths(found)
            row |= _latency_percentiles(results, strategy, policy)
            row |= shares.loc[(strategy, policy)].to_dict()
            row |= _with_half_widths(_other_metrics(results, strategy, policy))
            if not row["on_time"]:
                row |= dict.fromkeys(_OF_NOTHING & row.keys(), math.nan)
            if (strategy, policy) in oracle:
                row |= _with_half_widths({"oracle_share": oracle[strategy, policy]})
            row |= {"training_seeds": results.training_seeds, "replications": results.replications}
            rows.append(row)
    return pd.DataFrame(rows)


def _with_half_widths(intervals: dict[str, Interval]) -> dict[str, float]:
    found: dict[str, float] = {}
    for name, interval in intervals.items():
        found |= {name: interval.mean, f"{name}_half_width": interval.half_width}
    return found


def _repetitions(results: Results, metric: str) -> pd.Series:
    """A share by strategy, policy and what its interval is over."""
    if interval_over(metric, results.training_seeds) == "training seeds":
        return over_training_seeds(results.runs, metric)
    return over_replications(results.runs, metric)


def _latency_percentiles(results: Results, strategy: str, policy: str) -> dict[str, float]:
    percents = (50, 95, 99)
    names = [f"latency_p{percent}_s" for percent in percents]
    if not results.has_records:
        if PERCENTILES not in results.others:
            raise _unfinished(results.folder / PERCENTILES)
        of_arm = results.others[PERCENTILES].set_index(["strategy", "policy"])
        if (strategy, policy) not in of_arm.index:
            raise ResultsError(
                f"{results.folder / PERCENTILES} is damaged: {strategy}, {policy} is missing"
            )
        return {name: float(of_arm.loc[(strategy, policy), name]) for name in names}
    latency_s = results.answers[strategy, policy].latency_s
    values = np.percentile(latency_s, percents) if len(latency_s) else [math.nan] * 3
    return {name: float(value) for name, value in zip(names, values, strict=True)}


def _other_metrics(results: Results, strategy: str, policy: str) -> dict[str, Interval]:
    """Fairness and energy of one arm, where they are known: see :func:`interval_over`."""
    runs = results.runs
    runs = runs[(runs["strategy"] == strategy) & (runs["policy"] == policy)]
    found = {}
    for metric in RUN_METRICS:
        if metric in runs:
            unit = unit_of(interval_over(metric, results.training_seeds))
            found[metric] = confidence_interval(runs.groupby(unit)[metric].mean())
    wholes = {"offered": runs["offered"], "correct_on_time": correct_on_time(runs)}
    for metric, denominator in POOLED_METRICS.items():
        if metric in runs:
            of_all = runs["j_per_request" if denominator != "offered" else metric]
            unit = unit_of(interval_over(metric, results.training_seeds))
            # A repetition without a correct answer has joules too: they are part of what the
            # answers of the others cost.
            parts = pd.DataFrame({"j": of_all * runs["offered"], "of": wholes[denominator]})
            sums = parts.groupby(runs[unit]).sum()
            found[metric] = ratio_interval(sums["j"], sums["of"])
    return found


def correct_on_time(runs: pd.DataFrame) -> pd.Series:
    """How many requests of each run were answered correctly and in time."""
    return (runs["aud"] * runs["offered"]).round()


def oracle_shares(results: Results) -> dict[tuple[str, str], Interval]:
    """Part of the oracle's AUD that each other policy reaches, by strategy and policy.

    Over replications, each with the oracle on the same requests; none without an oracle.
    """
    if results.oracle is None:
        return {}
    by_replication = over_replications(results.runs, "aud")
    found = {}
    for strategy in results.strategies:
        values = by_replication.xs(strategy, level="strategy")
        best = values.xs(results.oracle, level="policy")
        for policy in results.policies:
            if policy != results.oracle:
                both = pd.DataFrame({"of": values.xs(policy, level="policy"), "best": best})
                both = both.dropna()
                found[strategy, policy] = ratio_interval(both["of"], both["best"])
    return found


def exit_counts(runs: pd.DataFrame) -> pd.DataFrame:
    """Of every run, how many requests each exit answered; in column 0, those without an answer."""
    exits = sum(bool(re.fullmatch(r"exit_[1-9]\d*", str(name))) for name in runs.columns)
    counts = pd.DataFrame({0: runs["offered"] - runs["answered"]})
    for exit in range(1, exits + 1):
        counts[exit] = runs[f"exit_{exit}"]
    return counts


def baseline_strategy(strategies: list[str]) -> str:
    """What other strategies are compared with."""
    return "standard" if "standard" in strategies else strategies[0]


def differences(results: Results) -> pd.DataFrame:
    """Paired differences in AUD between strategies, and between policies.

    Strategies differ over training seeds, policies over replications: see the rules in
    :mod:`sim.results.metrics`. ``p`` is of the paired t-test: see
    :func:`offramp.report.paired.compare_pairs`. ``p_holm`` is corrected over all comparisons of
    strategies, or all of policies: every page says the same of one.
    """
    rows = []
    by_seed = over_training_seeds(results.runs, "aud")
    baseline = baseline_strategy(results.strategies)
    for policy in results.policies:
        values = by_seed.xs(policy, level="policy")
        for strategy in results.strategies:
            if strategy != baseline:
                compared = compare_arms(values, "strategy", strategy, baseline)
                rows.append(_difference(strategy, baseline, policy, "training seeds", compared))
    by_replication = over_replications(results.runs, "aud")
    for strategy in results.strategies:
        values = by_replication.xs(strategy, level="strategy")
        for policy in results.policies[1:]:
            compared = compare_arms(values, "policy", policy, results.policies[0])
            rows.append(
                _difference(policy, results.policies[0], strategy, "replications", compared)
            )
    columns = ["of", "less", "given", "aud_difference", "half_width", "n", "over", "p"]
    found = pd.DataFrame(rows, columns=columns)
    found["p_holm"] = found.groupby("over")["p"].transform(holm)
    return found


def _difference(of: str, less: str, given: str, over: str, compared: Comparison) -> dict[str, Any]:
    return {
        "of": of,
        "less": less,
        "given": given,
        "aud_difference": compared.mean,
        "half_width": compared.half_width,
        "n": compared.n,
        "over": over,
        "p": compared.p,
    }


def fault_counts(results: Results) -> pd.DataFrame:
    """One row per kind of fault and target: mean count and seconds of a replication."""
    keys = ["kind", "target"]
    if FAULTS not in results.others:
        return pd.DataFrame(columns=[*keys, "targets", "count", "down_s"])
    faults = results.others[FAULTS]
    totals = faults.groupby(keys, sort=False)[["count", "down_s"]].sum() / results.replications
    totals.insert(0, "targets", faults.groupby(keys, sort=False)["targets"].max())
    return totals.reset_index()
