"""The tables of a sweep: the same bytes in whatever order its points were made.

They are streamed from the journal, a few thousand rows at a time.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from models.errors import ResultsError
from models.files import whole_file
from offramp.sweep.journal import Journal
from offramp.sweep.points import Points
from offramp.sweep.rows import Columns, arrow_type, kind_of, merged
from offramp.sweep.summary import Summary
from offramp.sweep.template import as_json

TABLE = "sweep.parquet"
SUMMARY = "summary.csv"
FAILURES = "failures.csv"

#: Rows that are written together, at least: whole points.
_GROUP_ROWS = 16_384


class KeyKinds:
    """What the columns of the swept keys hold, learnt from the values of all points."""

    def __init__(self, count: int) -> None:
        self._seen: list[set[str]] = [set() for _ in range(count)]

    def add(self, values: Sequence[Any]) -> None:
        """Take in the values of a point."""
        for seen, value in zip(self._seen, values, strict=True):
            seen.add(kind_of((value,)))

    def kinds(self) -> list[str]:
        """Of every key."""
        return [merged(seen) for seen in self._seen]


@dataclass(frozen=True)
class Tables:
    """Writes the tables of a sweep into its folder.

    Attributes:
        keys: swept keys, and what they hold.
    """

    folder: Path
    journal: Journal
    points: Points
    keys: dict[str, str]

    def write_rows(self) -> None:
        """Write ``sweep.parquet`` as far as the points go, whole or not at all.

        Raises:
            ResultsError: it cannot be written.
        """
        with self._written(TABLE) as path:
            self._write_rows(path, None)

    def write(self) -> Summary:
        """Write all tables; return what is summarised.

        Raises:
            ResultsError: one cannot be written.
        """
        with self._written(SUMMARY) as path:
            summary = Summary([*self.keys], path)
            with self._written(TABLE) as table:
                self._write_rows(table, summary)
        with self._written(FAILURES) as path:
            self._write_failures(path)
        return summary

    @contextmanager
    def _written(self, name: str) -> Iterator[Path]:
        path = self.folder / name
        try:
            with whole_file(path) as partial:
                yield partial
        except OSError as error:
            raise ResultsError(
                f"cannot write {path}: {error.strerror or error}. No point is lost: when that is "
                "mended, the same command goes on from there"
            ) from error

    def _write_rows(self, path: Path, summary: Summary | None) -> None:
        columns = self.journal.columns()
        schema = pa.schema(
            [
                ("point", pa.int64()),
                *((name, arrow_type(kind)) for name, kind in self.keys.items()),
                *((name, arrow_type(kind)) for name, kind in columns.items()),
            ]
        )
        with pq.ParquetWriter(path, schema, compression="zstd") as writer:
            for table in self._groups(schema, columns):
                writer.write_table(table, row_group_size=len(table))
                if summary is not None:
                    summary.add(table)

    def _groups(self, schema: pa.Schema, columns: dict[str, str]) -> Iterator[pa.Table]:
        """Whole points' rows, as many as are written together."""
        texts = [kind == "text" for kind in self.keys.values()]
        gathered: list[list[Any]] = [[] for _ in schema]
        for point, rows in self.journal.results():
            count = len(next(iter(rows.values())))
            about = [
                _text(value) if text else value
                for text, value in zip(texts, self.points[point], strict=True)
            ]
            for column, value in zip(gathered, [point, *about], strict=False):
                column.extend([value] * count)
            _extend(gathered[1 + len(about) :], columns, rows, count)
            if len(gathered[0]) >= _GROUP_ROWS:
                yield _table(gathered, schema)
                gathered = [[] for _ in schema]
        if gathered[0]:
            yield _table(gathered, schema)

    def _write_failures(self, path: Path) -> None:
        with path.open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(["point", *self.keys, "error"])
            for point, error in self.journal.failures():
                writer.writerow([point, *map(_text, self.points[point]), error])


def _extend(gathered: list[list[Any]], columns: dict[str, str], rows: Columns, count: int) -> None:
    for column, (name, kind) in zip(gathered, columns.items(), strict=True):
        values = rows.get(name)
        if values is None:
            column.extend([None] * count)
        elif kind == "text":
            column.extend(map(_text, values))
        else:
            column.extend(values)


def _table(gathered: list[list[Any]], schema: pa.Schema) -> pa.Table:
    arrays = [
        pa.array(column, type=field.type) for column, field in zip(gathered, schema, strict=True)
    ]
    return pa.table(arrays, schema=schema)


def _text(value: Any) -> str | None:
    """Text as it is, nothing as nothing, anything else as JSON."""
    return value if value is None or isinstance(value, str) else as_json(value)
