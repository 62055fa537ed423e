"""Whether the records and tables of two results folders hold the same, value by value."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from models.errors import ResultsError
from offramp.stages.layout import RECORDS
from offramp.store import file_hash
from sim.results.records import SCHEMA, read_columns

IDENTICAL = "identical"
DIFFERENT = "different"
#: There before or after only.
ADDED, MISSING = "added", "missing"

#: What a request is before anything is done with it.
CREATED = ("request", "device", "group", "sample", "label", "created_s", "deadline_s")

#: Times that differ by less, relative to themselves, are the same: other mathematics libraries.
_RESOLUTION = 1e-9

_ROWS = 250_000


@dataclass(frozen=True)
class FirstDifference:
    """Where two tables part.

    Attributes:
        row: from 0.
        where: what tells the row from others, where it has that.
        column: of the first difference in it.
    """

    row: int
    where: dict[str, Any]
    column: str
    before: Any
    after: Any

    def __str__(self) -> str:
        place = ", ".join(f"{name} {value}" for name, value in self.where.items())
        before, after = (_json_value(value) for value in (self.before, self.after))
        return f"row {self.row} ({place}): {self.column} {before!r} → {after!r}"


@dataclass(frozen=True)
class FileComparison:
    """What became of one file.

    Attributes:
        state: ``identical`` in what it holds, ``different``, ``added`` or ``missing``.
        note: what else is known.
        first: where the first difference is.
        rows: before and after.
        differing: rows that differ, by column; of tables with as many rows.
        same_requests: of records: whether the same requests were created; None: not known.
    """

    name: str
    state: str
    note: str = ""
    first: FirstDifference | None = None
    rows: tuple[int, int] | None = None
    differing: dict[str, int] = field(default_factory=dict)
    same_requests: bool | None = None

    def plain(self) -> dict[str, Any]:
        """For JSON."""
        found = {key: value for key, value in asdict(self).items() if value not in ("", None, {})}
        if self.first:
            found["first"] = {key: _json_value(value) for key, value in asdict(self.first).items()}
        return found


def compare_files(
    before: Path, hashes: dict[str, str], after: Path, hashes_after: dict[str, str]
) -> list[FileComparison]:
    """Compare everything that was simulated, by name.

    Args:
        before, after: results folders.
        hashes, hashes_after: of their files, as their manifests have them.

    Raises:
        ResultsError, ArtifactError: a table cannot be read.
    """
    return [
        _compare(name, before / name, hashes.get(name), after / name, hashes_after.get(name))
        for name in {**hashes, **hashes_after}
    ]


def _compare(
    name: str, before: Path, hash: str | None, after: Path, hash_after: str | None
) -> FileComparison:
    if hash is None:
        return FileComparison(name, ADDED)
    if hash_after is None:
        return FileComparison(name, MISSING)
    if hash == hash_after:
        return FileComparison(name, IDENTICAL, same_requests=True if name == RECORDS else None)
    if not before.exists():
        return FileComparison(
            name, DIFFERENT, f"only its hash is known: {name} is not beside the manifest"
        )
    if name == RECORDS:
        return compare_records(before, after)
    if before.suffix in (".csv", ".parquet"):
        return compare_frames(name, _read(before), _read(after))
    return FileComparison(name, DIFFERENT)


def check_unchanged(folder: Path, hashes: dict[str, str]) -> None:
    """See that a results folder's files are what its run wrote; files may be missing.

    Raises:
        ResultsError: one was changed.
    """
    for name, expected in hashes.items():
        file = folder / name
        if file.exists() and file_hash(file) != expected:
            raise ResultsError(
                f"{file} was changed after the run, or is damaged (its hash is not that in the "
                "manifest): there is nothing to compare with. Restore it, or remove it and only "
                "its hash is compared"
            )


# --- records -------------------------------------------------------------------------------------


def compare_records(before: Path, after: Path) -> FileComparison:
    """Compare two records files row by row, a part of them in memory at a time.

    Raises:
        ArtifactError: one cannot be read.
    """
    names = SCHEMA.names
    differing = dict.fromkeys(names, 0)
    first: FirstDifference | None = None
    same_requests, start = True, 0
    rows = (_row_count(before), _row_count(after))
    for old, new in _side_by_side(before, after):
        if not old.equals(new):
            unequal = {name: _unequal(old[name], new[name]) for name in names}
            for name, where in unequal.items():
                differing[name] += int(where.sum())
            if first is None:
                first = _first(old, new, unequal, start)
            same_requests &= all(_close(old[name], new[name]) for name in CREATED)
        start += len(old)
    if first is None and rows[0] == rows[1]:
        return FileComparison(RECORDS, IDENTICAL, "written differently", None, rows, {}, True)
    if rows[0] != rows[1]:
        note = f"{rows[0]} requests before, {rows[1]} after"
        return FileComparison(RECORDS, DIFFERENT, note, first, rows, {}, False)
    counts = {name: count for name, count in differing.items() if count}
    return FileComparison(RECORDS, DIFFERENT, "", first, rows, counts, same_requests)


def _row_count(path: Path) -> int:
    return sum(len(part) for part in read_columns(path, ["request"]))


def _side_by_side(before: Path, after: Path) -> Iterator[tuple[pa.Table, pa.Table]]:
    """The same rows of both files, names as plain text; until one of them ends."""
    parts = (_parts(before), _parts(after))
    old, new = (next(part, None) for part in parts)
    while old is not None and new is not None:
        count = min(len(old), len(new))
        yield old.slice(0, count), new.slice(0, count)
        old = old.slice(count) if count < len(old) else next(parts[0], None)
        new = new.slice(count) if count < len(new) else next(parts[1], None)


def _parts(path: Path) -> Iterator[pa.Table]:
    plain = pa.schema(
        [
            (column.name, pa.string() if pa.types.is_dictionary(column.type) else column.type)
            for column in SCHEMA
        ]
    )
    for group in read_columns(path, SCHEMA.names):
        for start in range(0, len(group), _ROWS):
            yield group.slice(start, _ROWS).replace_schema_metadata(None).cast(plain)


def _unequal(old: pa.ChunkedArray, new: pa.ChunkedArray) -> NDArray[np.bool_]:
    """Where two columns differ; what is missing in both is the same."""
    missing = _flags(pc.is_null(old)), _flags(pc.is_null(new))
    unequal = _flags(pc.fill_null(pc.not_equal(old, new), False))
    result: NDArray[np.bool_] = unequal | (missing[0] != missing[1])
    return result


def _flags(column: pa.ChunkedArray) -> NDArray[np.bool_]:
    flags: NDArray[np.bool_] = column.to_numpy()
    return flags


def _close(old: pa.ChunkedArray, new: pa.ChunkedArray) -> bool:
    """Whether two columns say the same, but for the last digits of a time."""
    if not pa.types.is_floating(old.type):
        return bool(old.equals(new))
    return bool(np.allclose(old.to_numpy(), new.to_numpy(), _RESOLUTION, 0.0, equal_nan=True))


def _first(
    old: pa.Table, new: pa.Table, unequal: dict[str, NDArray[np.bool_]], start: int
) -> FirstDifference | None:
    places = {name: int(where.argmax()) for name, where in unequal.items() if where.any()}
    if not places:
        return None
    column = min(places, key=lambda name: places[name])
    row = places[column]
    keys = ("strategy", "training_seed", "policy", "replication", "request")
    where = {name: old[name][row].as_py() for name in keys}
    return FirstDifference(
        start + row, where, column, old[column][row].as_py(), new[column][row].as_py()
    )


# --- tables --------------------------------------------------------------------------------------

#: Columns that name a row of some table, in the order in which they are said.
_ROW_NAMES = (
    "point",
    "strategy",
    "training_seed",
    "policy",
    "replication",
    "deadline_scale",
    "exit",
    "node",
    "link",
    "direction",
    "group",
    "device",
    "what",
    "name",
    "kind",
    "target",
    "time_s",
)


def compare_frames(name: str, old: pd.DataFrame, new: pd.DataFrame) -> FileComparison:
    """Compare two tables row by row."""
    rows = (len(old), len(new))
    common = [column for column in old.columns if column in new.columns]
    notes = []
    for columns, other, word in ((old.columns, new, "lost"), (new.columns, old, "got")):
        odd = [column for column in columns if column not in other.columns]
        if odd:
            notes.append(f"it {word} the columns {', '.join(odd)}")
    if rows[0] != rows[1]:
        return FileComparison(name, DIFFERENT, "; ".join([f"{rows[0]} rows → {rows[1]}", *notes]))
    unequal = {column: _values_differ(old[column], new[column]) for column in common}
    differing = {column: int(where.sum()) for column, where in unequal.items() if where.any()}
    first = None
    if differing:
        column = min(differing, key=lambda column: int(unequal[column].argmax()))
        row = int(unequal[column].argmax())
        where = {
            key: _read_value(old[key].iloc[row])
            for key in _ROW_NAMES
            if key in common and key != column
        }
        values = (_read_value(table[column].iloc[row]) for table in (old, new))
        first = FirstDifference(row, where, column, *values)
    if not notes and not differing:
        return FileComparison(name, IDENTICAL, "written differently", None, rows)
    return FileComparison(name, DIFFERENT, "; ".join(notes), first, rows, differing)


def _values_differ(old: pd.Series, new: pd.Series) -> NDArray[np.bool_]:
    """Where two columns differ; of texts, where they do not stand for the same number either."""
    there = old.isna().to_numpy(), new.isna().to_numpy()
    differ: NDArray[np.bool_] = (old.to_numpy() != new.to_numpy()) & ~(there[0] & there[1])
    for row in np.flatnonzero(differ):
        before, after = _read_value(old.iloc[row]), _read_value(new.iloc[row])
        differ[row] = before != after and not (_is_nan(before) and _is_nan(after))
    return differ


def _read_value(value: Any) -> Any:
    """The number that a text stands for, or the text."""
    if not isinstance(value, str):
        return value
    try:
        return int(value) if value.lstrip("-").isdigit() else float(value)
    except ValueError:
        return value


def _is_nan(value: Any) -> bool:
    return isinstance(value, float) and math.isnan(value)


def _read(path: Path) -> pd.DataFrame:
    """A table as it is written: no digit is lost."""
    try:
        if path.suffix == ".parquet":
            return pd.read_parquet(path)
        return pd.read_csv(path, dtype=object, keep_default_na=False)
    except pd.errors.EmptyDataError:
        return pd.DataFrame()  # the summary of a sweep all of whose points failed
    except (OSError, ValueError, pa.ArrowException) as error:
        raise ResultsError(f"{path} is damaged: {error}") from None


def _json_value(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _json_value(one) for key, one in value.items()}
    if isinstance(value, np.generic):
        value = value.item()
    return None if _is_nan(value) else value
