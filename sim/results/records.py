"""Records: one row per request, the same columns whether simulated or live.

Times are in seconds since the start of the run, missing where they never happened. Every request
of the measured window has exactly one row and one outcome.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from models.errors import ArtifactError
from models.files import whole_file

FORMAT = "offramp-records-1"

_NAMES = pa.dictionary(pa.int32(), pa.string())

SCHEMA = pa.schema(
    [
        ("strategy", _NAMES),
        ("training_seed", pa.int32()),
        ("policy", _NAMES),
        ("replication", pa.int32()),
        ("request", pa.int64()),
        ("device", _NAMES),
        ("group", _NAMES),
        ("node", _NAMES),
        ("sample", pa.int32()),
        ("label", pa.int32()),
        ("created_s", pa.float64()),
        ("deadline_s", pa.float64()),
        ("arrived_s", pa.float64()),
        ("started_s", pa.float64()),
        ("finished_s", pa.float64()),
        ("received_s", pa.float64()),
        ("exit", pa.int32()),
        ("predicted", pa.int32()),
        ("confidence", pa.float32()),
        ("correct", pa.bool_()),
        ("outcome", _NAMES),
    ]
)


#: Only names repeat; a dictionary of times takes time and space.
_DICTIONARIES = [field.name for field in SCHEMA if field.type == _NAMES]


def named(codes: NDArray[Any], names: Iterable[str]) -> pa.DictionaryArray:
    """A column of names from the index of each."""
    return pa.DictionaryArray.from_arrays(
        pa.array(codes, type=pa.int32()), pa.array(list(names), type=pa.string())
    )


def named_where_used(
    codes: NDArray[np.int64], count: int, name: Callable[[int], str]
) -> pa.DictionaryArray:
    """As :func:`named`, for many names of which few rows use most: only those are made.

    Args:
        count: of the names.
        name: of each code.
    """
    if count <= len(codes):
        return named(codes, map(name, range(count)))
    used, places = np.unique(codes, return_inverse=True)
    return named(places, map(name, used.tolist()))


def repeated(name: str, length: int) -> pa.DictionaryArray:
    """A column that holds one name throughout."""
    return named(np.zeros(length, dtype=np.int32), [name])


def present(values: NDArray[Any], there: NDArray[np.bool_], type: pa.DataType) -> pa.Array:
    """A column that is missing where ``there`` is false."""
    return pa.array(values, type=type, mask=~there)


def write_records(path: Path, tables: Iterable[pa.Table], about: dict[str, Any]) -> None:
    """Write record tables, one after the other, to one Parquet file, whole or not at all.

    Args:
        tables: each with :data:`SCHEMA`; consumed one at a time, so memory holds one of them.
        about: where the records come from, kept in the file's metadata.
    """
    header = {"format": FORMAT, "about": json.dumps(about, sort_keys=True)}
    with (
        whole_file(path) as partial,
        pq.ParquetWriter(
            partial,
            SCHEMA.with_metadata(header),
            compression="zstd",
            compression_level=1,
            use_dictionary=_DICTIONARIES,
        ) as writer,
    ):
        for table in tables:
            writer.write_table(table.replace_schema_metadata(header))


def read_records(path: Path) -> pa.Table:
    """Read records, checked to be ours.

    Raises:
        ArtifactError: absent, truncated or foreign.
    """
    with _opened(path) as file:
        return file.read()


def read_columns(path: Path, columns: list[str]) -> Iterator[pa.Table]:
    """Read some columns of records, a row group at a time.

    Raises:
        ArtifactError: as :func:`read_records`.
    """
    with _opened(path) as file:
        for group in range(file.num_row_groups):
            yield file.read_row_group(group, columns=columns)


@contextmanager
def _opened(path: Path) -> Iterator[pq.ParquetFile]:
    """A records file, checked to be ours."""
    try:
        with pq.ParquetFile(path) as file:
            schema = file.schema_arrow
            if (schema.metadata or {}).get(b"format") != FORMAT.encode():
                raise ArtifactError(
                    f"{path}: not a records file of this version (expected {FORMAT!r})"
                )
            if not schema.equals(SCHEMA):
                raise ArtifactError(f"{path}: its columns are not those of records")
            yield file
    except (OSError, pa.ArrowException) as error:
        raise ArtifactError(f"{path}: not a readable records file: {error}") from error
