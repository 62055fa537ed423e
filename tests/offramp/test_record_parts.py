"""Records on their way from worker processes into one file."""

from pathlib import Path

import pyarrow as pa
import pytest

from models.errors import ArtifactError
from offramp.stages import record_parts
from offramp.stages.record_parts import RecordParts, read_parts
from sim.results import records


def table(rows: int, device: str) -> pa.Table:
    """Records that differ in their device only."""
    columns = {
        field.name: (
            records.repeated(device if field.name == "device" else "x", rows)
            if pa.types.is_dictionary(field.type)
            else pa.nulls(rows, field.type)
        )
        for field in records.SCHEMA
    }
    return pa.table(columns, schema=records.SCHEMA)


def test_what_is_read_is_what_was_written_in_its_order(tmp_path: Path) -> None:
    with RecordParts(tmp_path / "0.arrow") as parts:
        for device, rows in (("a", 3), ("b", 2), ("c", 4)):
            parts.add(table(rows, device))
    read = pa.concat_tables(read_parts(tmp_path / "0.arrow"))
    assert read.schema.equals(records.SCHEMA)
    assert read["device"].to_pylist() == ["a"] * 3 + ["b"] * 2 + ["c"] * 4


def test_tables_are_written_together_until_there_are_enough_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(record_parts, "PART_ROWS", 5)
    with RecordParts(tmp_path / "0.arrow") as parts:
        for number in range(7):
            parts.add(table(2, f"device-{number}"))
    read = list(read_parts(tmp_path / "0.arrow"))
    assert [len(one) for one in read] == [6, 6, 2]
    assert all(one["device"].num_chunks == 1 for one in read), "one dictionary of names each"


def test_no_records_are_no_parts(tmp_path: Path) -> None:
    with RecordParts(tmp_path / "0.arrow") as parts:
        parts.add(table(0, "a"))
    assert list(read_parts(tmp_path / "0.arrow")) == []


def test_a_damaged_part_is_a_clear_error(tmp_path: Path) -> None:
    (tmp_path / "0.arrow").write_bytes(b"no arrow")
    with pytest.raises(ArtifactError, match="cannot be read back"):
        list(read_parts(tmp_path / "0.arrow"))
