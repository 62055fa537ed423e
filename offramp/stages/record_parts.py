"""Records on their way from worker processes into one file.

A worker writes the records of its replication, a few hundred thousand rows at a time, to a
temporary file; the parent puts those of all replications into one Parquet file, in their order.
Which rows are written together depends on the replication alone: the file has the same bytes for
any number of workers, and nobody holds more than one such part.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa

from models.errors import ArtifactError
from sim.results.records import SCHEMA

#: Rows that are written together, about: some 30 MB.
PART_ROWS = 250_000


class RecordParts:
    """Writes record tables to a temporary file; a context manager."""

    def __init__(self, path: Path) -> None:
        options = pa.ipc.IpcWriteOptions(compression="lz4")
        self._writer = pa.ipc.new_stream(path, SCHEMA, options=options)
        self._tables: list[pa.Table] = []
        self._rows = 0

    def __enter__(self) -> RecordParts:
        return self

    def __exit__(self, *error: object) -> None:
        self._flush()
        self._writer.close()

    def add(self, table: pa.Table) -> None:
        """Append records."""
        self._tables.append(table)
        self._rows += len(table)
        if self._rows >= PART_ROWS:
            self._flush()

    def _flush(self) -> None:
        if self._rows:
            # One dictionary of names for the part, whatever its tables had.
            table = pa.concat_tables(self._tables).unify_dictionaries().combine_chunks()
            self._writer.write_table(table, max_chunksize=len(table))
        self._tables, self._rows = [], 0


def read_parts(path: Path) -> Iterator[pa.Table]:
    """The records that a :class:`RecordParts` wrote, part by part.

    Raises:
        ArtifactError: the temporary file is damaged.
    """
    try:
        with pa.OSFile(str(path)) as file, pa.ipc.open_stream(file) as stream:
            for batch in stream:
                yield pa.Table.from_batches([batch])
    except pa.ArrowException as error:
        raise ArtifactError(f"{path}: temporary records cannot be read back: {error}") from error
