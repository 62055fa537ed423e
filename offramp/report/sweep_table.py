"""The table of a sweep: reading it, and the numbers that its figures show."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pandas.api.types import is_bool_dtype, is_numeric_dtype

from models.errors import ResultsError
from offramp.report.figure import spread
from offramp.report.paired import compare_groups
from offramp.report.results import baseline_strategy, exit_counts
from offramp.report.style import policy_kind
from offramp.stages.layout import MANIFEST
from offramp.words import counted
from sim.results.metrics import ARM, linearised
from sim.results.verdict import ENOUGH_REQUESTS, overloaded_runs, unsettled_arms

SWEEP_TABLE = "sweep.parquet"
FAILURES = "failures.csv"

#: A swept value that is left out, as scenarios write it.
_NULL = "null"

_UNITS = {
    "ms": "ms",
    "s": "s",
    "mbps": "Mbit/s",
    "kbps": "kbit/s",
    "hz": "Hz",
    "percent": "%",
    "bytes": "bytes",
    "w": "W",
    "m": "m",
}


@dataclass(frozen=True)
class SweepResults:
    """What a sweep gave so far.

    Attributes:
        keys: that were swept, in order; a column each, of numbers or of names. Where one of the
            values was null, all are names.
        rows: one for each point, strategy, training seed, policy and replication, with requests.
        without_requests: rows that were left out, since no request was offered in them.
        failures: points that failed, as the sweep noted them.
        manifest: of the sweep, or empty while it goes on.
    """

    folder: Path
    keys: tuple[str, ...]
    rows: pd.DataFrame
    without_requests: int
    failures: pd.DataFrame
    manifest: dict[str, Any]

    @property
    def name(self) -> str:
        """Of the scenario, or else of the folder."""
        scenario = self.manifest.get("scenario")
        named = scenario.get("name") if isinstance(scenario, dict) else None
        return str(named or self.folder.resolve().name)

    @cached_property
    def strategies(self) -> list[str]:
        """Strategies, in the order of the scenario."""
        return list(self.rows["strategy"].unique())

    @cached_property
    def policies(self) -> list[str]:
        """Policies, in the order of the scenario."""
        return list(self.rows["policy"].unique())

    def policy_parts(self, most: int) -> Iterator[tuple[str, list[str]]]:
        """Policies, at most so many at a time as fit into a figure, and a suffix for its name."""
        count = -(-len(self.policies) // most)
        for index, part in enumerate(np.array_split(np.array(self.policies, dtype=object), count)):
            yield (f"_{index + 1}" if count > 1 else ""), list(part)

    @property
    def baseline(self) -> str:
        """What other strategies are compared with."""
        return baseline_strategy(self.strategies)

    @cached_property
    def others(self) -> list[str]:
        """Strategies that are compared with the baseline: those that meet it at some point."""
        with_baseline = self.rows.loc[self.rows["strategy"] == self.baseline, "point"].unique()
        meeting = self.rows.loc[self.rows["point"].isin(with_baseline), "strategy"].unique()
        return [name for name in self.strategies if name != self.baseline and name in meeting]

    @cached_property
    def points(self) -> int:
        """Number of points that gave rows."""
        return int(self.rows["point"].nunique())

    @cached_property
    def training_seeds(self) -> int:
        """Most training seeds of a point."""
        return int(self.rows.groupby("point")["training_seed"].nunique().max())

    @cached_property
    def replications(self) -> int:
        """Most replications of a point."""
        return int(self.rows.groupby("point")["replication"].nunique().max())

    @property
    def unit(self) -> str:
        """What intervals of AUD are over: ``training_seed`` or ``replication``."""
        return "training_seed" if self.training_seeds > 1 else "replication"

    @property
    def repetitions(self) -> str:
        """How many training seeds and replications a point has."""
        return (
            f"{counted(self.training_seeds, 'training seed')} and "
            f"{counted(self.replications, 'replication')}{self._window} at each point"
        )

    @property
    def _window(self) -> str:
        """How long the measured window of a replication is, where that is known and one."""
        scenario = self.manifest.get("scenario")
        simulation = scenario.get("simulation") if isinstance(scenario, dict) else None
        if not isinstance(simulation, dict) or "simulation.duration_s" in self.keys:
            return ""
        return f" of {simulation['duration_s']:g} s" if "duration_s" in simulation else ""

    @cached_property
    def overloaded_rows(self) -> pd.Series:
        """Of each row, whether a node or link was overloaded."""
        return overloaded_runs(self.rows)

    @property
    def overloaded(self) -> int:
        """Number of points at which a node or a link was overloaded in some run."""
        return int(self.rows.loc[self.overloaded_rows, "point"].nunique())

    def with_overload(
        self, data: pd.DataFrame, over: Sequence[str], points: pd.Series, *, gain: bool
    ) -> pd.DataFrame:
        """Means by ``over`` and arm with a column that says whether any run of them is overloaded.

        Args:
            points: that the means are over.
            gain: the means are gains, which are of a strategy and of the baseline.
        """
        rows = self.rows[["point", *self.keys, "policy", "strategy"]].assign(
            overloaded=self.overloaded_rows
        )
        if gain:
            both = rows[rows["strategy"] == self.baseline].groupby(["point", "policy"])
            base = both["overloaded"].any().rename("base").reset_index()
            rows = rows.merge(base, on=["point", "policy"], how="left")
            rows["overloaded"] |= rows.pop("base").fillna(False).astype(bool)
        rows = rows[rows["point"].isin(points)]
        levels = [*over, "policy", "strategy"]
        found = rows.groupby(levels, sort=False)["overloaded"].any().reset_index()
        return data.merge(found, on=levels, how="left")

    @cached_property
    def short_points(self) -> int:
        """Number of points at which a run measured fewer requests than a verdict asks for."""
        short = self.rows["offered"] < ENOUGH_REQUESTS
        return int(self.rows.loc[short, "point"].nunique())

    @cached_property
    def unsettled_points(self) -> int | None:
        """Number of points at which the warm-up of some arm was too short.

        Those of :attr:`changing_points` do not count. None with one replication, and of a table
        that does not tell them.
        """
        if self.replications < 2 or not {"first_quarter_s", "planned_changes"} <= set(self.rows):
            return None
        judged = self.rows[~self._changing_rows]
        return len({arm[0] for arm in unsettled_arms(judged, ["point", "policy", "strategy"])})

    @cached_property
    def changing_points(self) -> int:
        """Number of points at which the world changes at planned times: latency moves with that."""
        return int(self.rows.loc[self._changing_rows, "point"].nunique())

    @property
    def _changing_rows(self) -> pd.Series:
        return self.rows["planned_changes"].astype(bool)

    @cached_property
    def points_in_vain(self) -> int:
        """Number of points at which no request was answered in time under any policy."""
        if "on_time" not in self.rows:
            return 0
        return int((self.rows.groupby("point")["on_time"].sum() == 0).sum())

    def values(self, key: str) -> list[Any]:
        """Values of a swept key: numbers ascending, others in order of appearance."""
        found = list(self.rows[key].unique())
        return sorted(found) if self.is_number(key) else found

    def is_number(self, key: str) -> bool:
        """Whether a swept key's values are numbers."""
        return is_numeric_dtype(self.rows[key]) and not is_bool_dtype(self.rows[key])

    @cached_property
    def varying(self) -> list[str]:
        """The keys that take several values."""
        return [key for key in self.keys if self.rows[key].nunique() > 1]

    def aud(self, unit: str) -> pd.Series:
        """AUD by point, keys, strategy, policy and ``unit``, as ``sim.results.metrics.linearised``.

        The mean over the unit is that of all requests of a point and arm.
        """
        levels = ["point", *self.keys, "strategy", "policy", unit]
        by = [self.rows[level] for level in levels]
        correct = (self.rows["aud"] * self.rows["offered"]).groupby(by, sort=False).sum()
        offered = self.rows["offered"].groupby(by, sort=False).sum()
        return linearised(correct, offered, ["point", "strategy", "policy"])

    @cached_property
    def gains(self) -> pd.DataFrame:
        """Gain in AUD over the baseline at every point, in points, paired by training seed.

        Columns of :func:`offramp.report.paired.compare_groups`, corrected over all rows.
        """
        levels = ["point", *self.keys, "policy", "strategy"]
        return compare_groups(100 * self.paired_gains(), levels).reset_index()

    def paired_gains(self) -> pd.Series:
        """Difference in AUD from the baseline, by point, keys, policy, strategy, training seed."""
        wide = self.aud("training_seed").unstack("strategy")
        gains = wide[self.others].sub(wide[self.baseline], axis=0)
        levels = ["point", *self.keys, "policy", "strategy", "training_seed"]
        return gains.stack().dropna().reorder_levels(levels)

    def balanced(self, over: Sequence[str]) -> pd.DataFrame:
        """The points at which all combinations of ``over`` meet the same settings of other keys.

        A mean over the others compares like with like at these alone. Empty where there are none,
        as when values were drawn at random.
        """
        points = self.rows[["point", *self.keys]].drop_duplicates("point")
        others = [key for key in self.varying if key not in over]
        wanted = len(points[list(over)].drop_duplicates())
        if not others:
            return points
        met = points.drop_duplicates([*others, *over]).groupby(others, sort=False)[over[0]].count()
        whole = met[met == wanted].index
        found = pd.MultiIndex.from_frame(points[others]) if len(others) > 1 else points[others[0]]
        return points[found.isin(whole)]

    def means(self, values: pd.Series, over: Sequence[str], unit: str) -> pd.DataFrame:
        """Mean and interval by ``over`` and arm; each unit's value is its mean over the points.

        Args:
            values: indexed by point, keys, arm and unit, of balanced points.
        """
        levels = [*over, "policy", "strategy"]
        by_unit = values.groupby([*levels, unit], sort=False).mean()
        rows = [
            dict(zip(levels, arm, strict=True)) | spread(of_arm, unit.replace("_", " ") + "s")
            for arm, of_arm in by_unit.groupby(levels, sort=False)
        ]
        return pd.DataFrame(rows)

    def exit_shares(self) -> pd.DataFrame:
        """Share of offered requests by exit (columns; 0 is no answer), by point, keys and arm."""
        counts = exit_counts(self.rows)
        by = [self.rows[level] for level in ("point", *self.keys, "policy", "strategy")]
        totals = counts.groupby(by, sort=False).sum()
        return totals.div(totals.sum(axis=1), axis=0)


def read_sweep(folder: Path) -> SweepResults:
    """Read a sweep's folder.

    Raises:
        ResultsError: it holds no table of a sweep, or the table is empty, damaged or of another
            version.
    """
    path = folder / SWEEP_TABLE
    try:
        table = pq.read_table(path).replace_schema_metadata()
    except FileNotFoundError:
        raise ResultsError(f"{folder} holds no sweep: {SWEEP_TABLE} is missing") from None
    except (OSError, pa.ArrowException, ValueError) as error:
        raise ResultsError(f"{path} is damaged: {error}") from None
    needed = ["point", *ARM, "offered", "answered", "aud"]
    missing = [name for name in needed if name not in table.column_names]
    if missing:
        raise ResultsError(
            f"{path} has no column {', '.join(missing)}: it is damaged or of another version"
        )
    names = table.column_names
    keys = tuple(names[names.index("point") + 1 : names.index("strategy")])
    frame = _with_null_as_a_name(table, keys).to_pandas()
    if not len(frame):
        raise ResultsError(f"{path} has no rows: no point of the sweep is done")
    offered = frame["offered"] > 0
    wrong = frame[offered & ~np.isfinite(frame["aud"].astype(float))]
    if len(wrong):
        raise ResultsError(
            f"{path} is damaged: aud is {wrong['aud'].iloc[0]} at point {wrong['point'].iloc[0]}"
        )
    if not offered.any():
        raise ResultsError(f"{path}: no request was offered at any point")
    rows = frame[offered].reset_index(drop=True)
    rows["policy"] = _arm_names(rows)
    for key in keys:
        if not is_numeric_dtype(rows[key]):
            rows[key] = rows[key].astype(str)
    return SweepResults(
        folder, keys, rows, int((~offered).sum()), _failures(folder), _manifest(folder)
    )


def _with_null_as_a_name(table: pa.Table, keys: Sequence[str]) -> pa.Table:
    """Values of a key one of which is null as text: what is missing would be in no group."""
    for key in keys:
        if table[key].null_count:
            names = pc.fill_null(pc.cast(table[key], pa.string()), _NULL)
            table = table.set_column(table.column_names.index(key), key, names)
    return table


def _arm_names(rows: pd.DataFrame) -> pd.Series:
    """Policies' names that are the same at all points, though a parameter may be swept."""
    labels = rows[["point", "policy"]].drop_duplicates()
    everywhere = labels.groupby("policy", sort=False)["point"].nunique()
    if (everywhere == labels["point"].nunique()).all():
        return rows["policy"]
    kinds = labels["policy"].map(policy_kind)
    number = kinds.groupby([labels["point"], kinds]).cumcount()
    several = set(kinds[number > 0])
    names = [
        f"{kind} {index + 1}" if kind in several else kind
        for kind, index in zip(kinds, number, strict=True)
    ]
    by_label = dict(zip(zip(labels["point"], labels["policy"], strict=True), names, strict=True))
    found = [by_label[pair] for pair in zip(rows["point"], rows["policy"], strict=True)]
    return pd.Series(found, index=rows.index)


def _failures(folder: Path) -> pd.DataFrame:
    try:
        return pd.read_csv(folder / FAILURES)
    except (FileNotFoundError, pd.errors.EmptyDataError):
        return pd.DataFrame()
    except (OSError, ValueError) as error:
        raise ResultsError(f"{folder / FAILURES} is damaged: {error}") from None


def _manifest(folder: Path) -> dict[str, Any]:
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}  # the sweep is not over
    except (OSError, ValueError) as error:
        raise ResultsError(f"{folder / MANIFEST} is damaged: {error}") from None
    return manifest if isinstance(manifest, dict) else {}


# --- words --------------------------------------------------------------------------------------


def key_label(key: str) -> str:
    """A swept key as the label of an axis, with its unit."""
    parts = key.split(".")
    if parts[0] == "devices" and len(parts) == 3 and parts[2] == "count":
        return f"number of {parts[1]}"
    if parts[0] == "devices" and parts[2:] == ["arrivals", "rate_hz"]:
        return f"request rate of each of the {parts[1]} (Hz)"
    if parts[0] == "policies" and len(parts) > 2 and parts[1].isdigit():
        parts = [*parts[2:], f"of policy {int(parts[1]) + 1}"]
        unit = ""
    else:
        parts = parts[1:] if len(parts) > 1 else parts
        stem, _, suffix = parts[-1].rpartition("_")
        unit = _UNITS.get(suffix, "") if stem else ""
        if unit:
            parts = [*parts[:-1], stem]
    words = " ".join(parts).replace("_", " ")
    return f"{words} ({unit})" if unit else words


def value_text(value: Any) -> str:
    """A value of a swept key as text."""
    if isinstance(value, (float, np.floating)):
        return f"{value:.4g}"
    return str(value)


def setting_text(key: str, value: Any) -> str:
    """A key and its value, with its unit behind the value."""
    label = key_label(key)
    match = re.fullmatch(r"(.*) \((.+)\)", label)
    if match:
        return f"{match[1]} = {value_text(value)} {match[2]}"
    return f"{label} = {value_text(value)}"


def overloaded_text(overloaded: int, points: int) -> str:
    """What is said of points at which a node or a link was overloaded."""
    are, their = ("is", "its") if overloaded == 1 else ("are", "their")
    return (
        f"{overloaded} of {counted(points, 'point')} {are} OVERLOADED: {their} figures depend on "
        "the window's length"
    )


def file_part(key: str) -> str:
    """A key as part of a file's name."""
    return re.sub(r"[^A-Za-z0-9]+", "_", key).strip("_")
