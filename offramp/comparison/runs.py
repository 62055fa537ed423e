"""Runs to be compared: whether they can be, what they share, and where their scenarios differ."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from models.errors import ResultsError
from offramp.key_paths import flat
from offramp.report.results import Results, read_results
from offramp.report.verdicts import invalid_note
from offramp.reproduction.contents import CREATED
from offramp.stages.layout import RECORDS
from sim.results.records import read_columns

#: An arm: its strategy and its policy.
Arm = tuple[str, str]

#: What must be the same for an accuracy to be that of the same task.
_SAME_TASK = ("data.dataset",)

#: What stands for a value that is not there.
_NONE = "-"

#: Of live runs, devices create requests a little late: times are not compared.
_REQUEST = tuple(name for name in CREATED if name != "created_s")

#: What requests are drawn from, where there are no records to look at.
_DRAWN_FROM = ("seed", "data", "devices", "simulation.duration_s", "simulation.warm_up_s")


@dataclass(frozen=True)
class Compared:
    """Runs side by side; the first is what the others are compared with.

    Attributes:
        labels: a name for each run that no other has.
    """

    runs: tuple[Results, ...]
    labels: tuple[str, ...]

    @property
    def named(self) -> Iterator[tuple[str, Results]]:
        """Label and run."""
        return zip(self.labels, self.runs, strict=True)

    @cached_property
    def policies(self) -> list[str]:
        """Policies of all runs, each once."""
        return list(dict.fromkeys(name for run in self.runs for name in run.policies))

    @cached_property
    def strategies(self) -> list[str]:
        """Strategies of all runs, each once."""
        return list(dict.fromkeys(name for run in self.runs for name in run.strategies))

    @cached_property
    def arms(self) -> list[Arm]:
        """Arms of any run, policy by policy."""
        return [
            (strategy, policy)
            for policy in self.policies
            for strategy in self.strategies
            if any(has_arm(run, (strategy, policy)) for run in self.runs)
        ]

    @cached_property
    def invalid(self) -> dict[str, str]:
        """Runs that must not be relied on, by label, and a sentence that says why."""
        notes = {label: invalid_note(run) for label, run in self.named}
        return {label: f"{label} is {note}" for label, note in notes.items() if note}


def has_arm(run: Results, arm: Arm) -> bool:
    """Whether a run has a strategy and a policy."""
    return arm[0] in run.strategies and arm[1] in run.policies


def read_runs(folders: Sequence[Path]) -> Compared:
    """Read runs that are to be compared.

    Raises:
        ResultsError: there are fewer than two, one is no results folder, or they cannot be
            compared; the message names the field in which they differ.
    """
    if len(folders) < 2:
        raise ResultsError("--compare needs two runs or more: name their results folders")
    places = [folder.resolve() for folder in folders]
    for index, place in enumerate(places):
        if place in places[:index]:
            raise ResultsError(
                f"{folders[index]} is named twice: a run is not compared with itself"
            )
    runs = [read_results(folder) for folder in folders]
    for folder, run in zip(folders[1:], runs[1:], strict=True):
        _check_comparable(folders[0], runs[0], folder, run)
    return Compared(tuple(runs), _labels(folders, runs))


def _labels(folders: Sequence[Path], runs: Sequence[Results]) -> tuple[str, ...]:
    """Names of the scenarios if all differ, else of the folders, else their whole paths."""
    for labels in (
        [str(run.scenario["name"]) for run in runs],
        [folder.resolve().name for folder in folders],
    ):
        if len(set(labels)) == len(labels):
            return tuple(labels)
    return tuple(str(folder) for folder in folders)


def _check_comparable(one: Path, first: Results, other: Path, run: Results) -> None:
    for key in _SAME_TASK:
        before, after = value_at(first.scenario, key), value_at(run.scenario, key)
        if before != after:
            raise ResultsError(
                f"{one} and {other} cannot be compared: {key} is {before!r} in the first and "
                f"{after!r} in the second, so that their accuracies are of different tasks"
            )
    versions = [it.manifest.get("stages", {}).get("simulation") for it in (first, run)]
    if versions[0] != versions[1]:
        raise ResultsError(
            f"{one} and {other} cannot be compared: their stages.simulation are {versions[0]} and "
            f"{versions[1]}, that is, Offramp simulated them by other rules; the same run with "
            "this version writes it anew"
        )


# --- what runs share -----------------------------------------------------------------------------


def same_networks(one: Results, other: Results) -> bool:
    """Whether networks of the same strategy and training seed predict the same in both runs.

    What nobody knows of is not the same.
    """
    before, after = _predictions(one), _predictions(other)
    common = before.keys() & after.keys()
    return bool(common) and all(before[network] == after[network] for network in common)


def _predictions(run: Results) -> dict[tuple[str, int], str]:
    return {
        (entry["strategy"], entry["training_seed"]): entry["predictions"]
        for entry in run.manifest.get("networks", [])
    }


def same_requests(one: Results, other: Results) -> bool:
    """Whether both runs were asked the same: the same devices, samples and deadlines, in order.

    By their records; without them, by what requests are drawn from.
    """
    if not (one.has_records and other.has_records):
        return all(
            value_at(one.scenario, key) == value_at(other.scenario, key) for key in _DRAWN_FROM
        )
    before, after = _requests(one), _requests(other)
    common = before.keys() & after.keys()
    return bool(common) and all(before[it].equals(after[it]) for it in common)


def _requests(run: Results) -> dict[int, pa.Table]:
    """What the first arm was asked, by replication: all arms of a run are asked the same."""
    first = run.runs.iloc[0]
    columns = ["strategy", "policy", "training_seed", "replication", *_REQUEST]
    parts: dict[int, list[pa.Table]] = {}
    for table in read_columns(run.folder / RECORDS, columns):
        of_arm = pc.and_(
            pc.and_(
                pc.equal(table["strategy"].cast(pa.string()), str(first["strategy"])),
                pc.equal(table["policy"].cast(pa.string()), str(first["policy"])),
            ),
            pc.equal(table["training_seed"], int(first["training_seed"])),
        )
        asked = table.filter(of_arm)
        for replication in pc.unique(asked["replication"]).to_pylist():
            part = asked.filter(pc.equal(asked["replication"], replication)).select(list(_REQUEST))
            parts.setdefault(replication, []).append(_plain(part))
    return {it: pa.concat_tables(tables).combine_chunks() for it, tables in parts.items()}


def _plain(table: pa.Table) -> pa.Table:
    """Names as text: dictionaries of two files need not be in one order."""
    fields = [
        pa.field(field.name, pa.string() if pa.types.is_dictionary(field.type) else field.type)
        for field in table.schema
    ]
    return table.replace_schema_metadata(None).cast(pa.schema(fields))


# --- scenarios -----------------------------------------------------------------------------------


def value_at(scenario: dict[str, Any], key: str) -> Any:
    """The value of a dotted key, None where there is none."""
    node: Any = scenario
    for part in key.split("."):
        if not isinstance(node, dict):
            return None
        node = node.get(part)
    return node


def scenario_differences(compared: Compared) -> pd.DataFrame:
    """One row per key of the scenarios that is not the same in all runs.

    Returns:
        Columns ``key``, dotted, and a column for each label; what a run lacks, or does not set, is
        ``-``. An entry of a list of blocks, as a fault or a policy, is one row.
    """
    said = [dict(flat(run.scenario)) | {"world": run.world} for run in compared.runs]
    keys = dict.fromkeys(key for values in said for key in values)
    rows = [
        {"key": key}
        | {
            label: values.get(key, _NONE)
            for label, values in zip(compared.labels, said, strict=True)
        }
        for key in keys
        if key not in ("name", "description") and len({it.get(key, _NONE) for it in said}) > 1
    ]
    return pd.DataFrame(rows, columns=["key", *compared.labels])
