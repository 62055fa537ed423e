"""Traces of requests: which device sent one when, read from CSV or Parquet.

Columns: ``time_s`` or ``time_ms`` since the start of the run, ascending; ``device``, a number from
0 or a name; and, where wanted, ``sample``, a position in the test set, and ``deadline_s`` or
``deadline_ms``, relative to the creation.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
from numpy.typing import NDArray

from models.errors import ArtifactError, ScenarioError, did_you_mean
from sim.streams import Floats

Numbers = NDArray[np.int64]

_UNITS = ("s", "ms")
_COLUMNS = ("time_s", "time_ms", "device", "sample", "deadline_s", "deadline_ms")


@dataclass(frozen=True, eq=False)
class RequestTrace:
    """Requests in the order of their creation; arrays of length N.

    Attributes:
        path: of the file, for messages.
        time_s: creation, since the start of the run.
        device: numbered from 0.
        names: of the devices, by their number, in the order in which they first send; None where
            the file numbers them, or names them NAME-0, NAME-1 and so on as Offramp does.
        sample: position in the test set, if the trace says it.
        deadline_s: relative to the creation, if the trace says it.
    """

    path: Path
    time_s: Floats
    device: Numbers
    names: tuple[str, ...] | None = None
    sample: Numbers | None = None
    deadline_s: Floats | None = None

    def __len__(self) -> int:
        return len(self.time_s)

    @property
    def devices(self) -> int:
        """How many devices a group needs for this trace."""
        return int(self.device.max()) + 1

    @cached_property
    def order(self) -> Numbers:
        """(N,) positions in the trace, device by device, each in the order of its requests."""
        return np.argsort(self.device, kind="stable")

    @cached_property
    def _first(self) -> Numbers:
        """(devices,) where each device's requests begin in ``order``."""
        counts = np.bincount(self.device)
        first: Numbers = np.cumsum(counts) - counts
        return first

    @cached_property
    def number(self) -> Numbers:
        """(N,) of each request within its device, from 0."""
        number = np.empty(len(self), dtype=np.int64)
        number[self.order] = np.arange(len(self)) - self._first[self.device[self.order]]
        return number

    def rows(self, device: Numbers, number: Numbers) -> Numbers:
        """Positions (N,) in the trace of the requests that these are."""
        rows: Numbers = self.order[self._first[device] + number]
        return rows

    def check(self, devices: int, samples: int | None = None) -> None:
        """Compare the trace with the group and the test set it is used with.

        Args:
            devices: in the group; those of the trace must be among them.
            samples: in the test set; None leaves them unchecked.

        Raises:
            ScenarioError: a device or a sample does not exist; names the first line.
        """
        strange = self.device >= devices
        if strange.any():
            row = int(strange.argmax())
            called = self.names[self.device[row]] if self.names else str(self.device[row])
            raise ScenarioError(
                f"{_place(self.path, row)}: device {called} is unknown: the group has {devices} "
                f"device{'' if devices == 1 else 's'}, but the trace needs {self.devices}; raise "
                "the group's count"
            )
        if self.sample is None or samples is None:
            return
        strange = self.sample >= samples
        if strange.any():
            row = int(strange.argmax())
            raise ScenarioError(
                f"{_place(self.path, row)}: sample {self.sample[row]} is unknown: the test set has "
                f"samples 0 to {samples - 1}"
            )


def read_request_trace(path: Path) -> RequestTrace:
    """Read a trace; by its name, from ``.csv`` or ``.parquet``.

    Raises:
        ArtifactError: the file is absent, damaged or empty, its columns are not a trace's, or a
            value cannot be; names file, line and value.
    """
    table = _read_table(path)
    names = table.column_names
    for name in names:
        if name not in _COLUMNS:
            raise ArtifactError(
                f"{path}: column {name!r} is unknown{did_you_mean(name, _COLUMNS)} (a trace may "
                f"have: {', '.join(_COLUMNS)})"
            )
        if names.count(name) > 1:
            raise ArtifactError(f"{path}: column {name!r} is there twice")
    if "device" not in names:
        raise ArtifactError(f"{path}: column 'device' is missing (it has: {', '.join(names)})")
    if not len(table):
        raise ArtifactError(f"{path}: holds no requests")
    time = _seconds(path, table, "time")
    if time is None:
        raise ArtifactError(f"{path}: column 'time_s' is missing (it has: {', '.join(names)})")
    deadline = _seconds(path, table, "deadline")
    before = np.concatenate([[0.0], time[:-1]])
    _refuse(path, table, "time", time < 0, "times must not be negative")
    _refuse(path, table, "time", time < before, "times must ascend, but the one before is later")
    if deadline is not None:
        _refuse(path, table, "deadline", deadline <= 0, "deadlines must be positive")
    sample = _whole_numbers(path, table, "sample") if "sample" in names else None
    device, device_names = _devices(path, table)
    return RequestTrace(path, time, device, device_names, sample, deadline)


def _read_table(path: Path) -> pa.Table:
    suffix = path.suffix.lower()
    if suffix not in (".csv", ".parquet"):
        raise ArtifactError(f"{path}: the name of a trace must end in .csv or .parquet")
    if not path.is_file():
        raise ArtifactError(f"{path}: no such file")
    try:
        if suffix == ".parquet":
            return pq.read_table(path)
        # As text, so that a value that is no number can be shown as it stands.
        text = pa.csv.ConvertOptions(column_types=dict.fromkeys(_COLUMNS, pa.string()))
        return pa.csv.read_csv(path, convert_options=text)
    except (OSError, pa.ArrowException) as error:
        raise ArtifactError(f"{path}: not a readable {suffix} file: {error}") from error


def _seconds(path: Path, table: pa.Table, quantity: str) -> Floats | None:
    """The column of ``quantity`` in seconds (N,), or None; every value is finite."""
    units = [unit for unit in _UNITS if f"{quantity}_{unit}" in table.column_names]
    if not units:
        return None
    if len(units) > 1:
        raise ArtifactError(f"{path}: has both {quantity}_s and {quantity}_ms; keep one of them")
    name = f"{quantity}_{units[0]}"
    values: Floats = _converted(path, table, name, pa.float64(), "a number")
    _refuse(path, table, quantity, ~np.isfinite(values), "values must be finite")
    # Dividing, since 1e-3 has no exact form: 1500 ms are 1.5 s to the last bit.
    return values if units[0] == "s" else values / 1000


def _whole_numbers(path: Path, table: pa.Table, name: str) -> Numbers:
    values: Numbers = _converted(path, table, name, pa.int64(), "a whole number")
    _refuse(path, table, name, values < 0, "it must not be negative")
    return values


def _devices(path: Path, table: pa.Table) -> tuple[Numbers, tuple[str, ...] | None]:
    """Numbers (N,) of the devices and, if the file names them, their names."""
    column = table["device"]
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    text = pa.types.is_string(column.type) or pa.types.is_large_string(column.type)
    if text:
        try:
            column.cast(pa.int64())
        except pa.ArrowInvalid:
            return _named_devices(path, column)
    return _whole_numbers(path, table, "device"), None


def _named_devices(path: Path, column: pa.ChunkedArray) -> tuple[Numbers, tuple[str, ...] | None]:
    coded = column.combine_chunks().dictionary_encode()
    names = coded.dictionary.to_pylist()
    if column.null_count or "" in names:
        row = next(row for row, name in enumerate(column.to_pylist()) if not name)
        raise ArtifactError(f"{_place(path, row)}: device is missing")
    code = coded.indices.to_numpy().astype(np.int64)
    numbered = [re.fullmatch(r"(.*)-(\d{1,9})", name) for name in names]
    if all(numbered) and len({match[1] for match in numbered if match}) == 1:
        # As Offramp names the devices of a group: each is the one that it says.
        numbers = np.array([int(match[2]) for match in numbered if match], dtype=np.int64)
        return numbers[code], None
    return code, tuple(names)


def _converted(
    path: Path,
    table: pa.Table,
    name: str,
    to: pa.DataType,
    wanted: str,
) -> Any:
    """The column ``name`` (N,) as numpy numbers of type ``to``."""
    column = table[name]
    try:
        if not column.null_count:
            return column.cast(to).to_numpy()
    except pa.ArrowException:
        pass
    for row, value in enumerate(column.to_pylist()):
        try:
            pa.scalar(value).cast(to)
            if value is None:
                raise ValueError
        except (ValueError, pa.ArrowException):
            given = "missing" if value in (None, "") else f"{str(value)[:40]!r}"
            raise ArtifactError(f"{_place(path, row)}: {name} is {given}, not {wanted}") from None
    raise ArtifactError(f"{path}: {name} holds {column.type} values, not {wanted}s")


def _refuse(
    path: Path, table: pa.Table, quantity: str, wrong: NDArray[np.bool_], reason: str
) -> None:
    """Raise ArtifactError about the first row that is ``wrong``, if there is one."""
    if wrong.any():
        row = int(wrong.argmax())
        name = next(name for name in table.column_names if name.split("_")[0] == quantity)
        value = table[name][row].as_py()
        raise ArtifactError(f"{_place(path, row)}: {name} is {value}: {reason}")


def _place(path: Path, row: int) -> str:
    """Where a row of the table, from 0, stands in its file, from 1."""
    if path.suffix.lower() != ".csv" or not path.is_file():
        return f"{path}, row {row + 1}"
    # Empty lines are not rows, and the first of the others is the heading.
    filled = -1
    with path.open(encoding="utf-8", errors="replace") as file:
        for number, line in enumerate(file, start=1):
            filled += bool(line.strip("\r\n"))
            if filled == row + 1:
                return f"{path}:{number}"
    return f"{path}, row {row + 1}"
