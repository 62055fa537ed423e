"""Whether two results folders hold the same, and where they part."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from models.errors import ArtifactError, ResultsError
from offramp.manifest import simulated_files
from offramp.reproduction.contents import (
    FileComparison,
    check_unchanged,
    compare_files,
    compare_frames,
    compare_records,
)
from offramp.store import file_hash
from sim.results.records import read_records, write_records


@pytest.fixture(scope="module")
def records(trained: Any) -> pa.Table:
    """The records of the tiny scenario."""
    return read_records(trained.results / "records.parquet")


@pytest.fixture
def compared(records: pa.Table, tmp_path: Path) -> Callable[..., FileComparison]:
    """Compares the records with what ``change`` makes of them."""

    def compare(change: Callable[[pa.Table], pa.Table]) -> FileComparison:
        write_records(tmp_path / "before.parquet", [records], {})
        write_records(tmp_path / "after.parquet", [change(records)], {})
        return compare_records(tmp_path / "before.parquet", tmp_path / "after.parquet")

    return compare


def with_value(table: pa.Table, column: str, row: int, value: Any) -> pa.Table:
    """One value replaced."""
    kind = table.schema.field(column).type
    plain = pa.string() if pa.types.is_dictionary(kind) else kind
    values = table[column].cast(plain).to_pylist()
    values[row] = value
    place = table.schema.get_field_index(column)
    changed = pa.array(values, plain)
    if plain is not kind:
        changed = changed.dictionary_encode()
    return table.set_column(place, table.schema.field(column), changed)


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("device", "somebody"),
        ("received_s", 99.0),
        ("received_s", None),
        ("exit", None),
        ("exit", 7),
        ("confidence", 0.125),
        ("correct", None),
        ("outcome", "lost"),
    ],
)
def test_the_first_difference_is_named(
    column: str, value: Any, compared: Callable[..., FileComparison], records: pa.Table
) -> None:
    row = int(np.flatnonzero(records["received_s"].is_valid().to_numpy())[40])
    found = compared(lambda table: with_value(table, column, row, value))
    assert found.state == "different"
    assert found.first is not None
    assert (found.first.row, found.first.column) == (row, column)
    assert found.first.after == value
    assert found.first.before == records[column][row].as_py()
    expected = {
        key: records[key][row].as_py()
        for key in ("strategy", "training_seed", "policy", "replication", "request")
    }
    assert found.first.where == expected
    assert found.differing == {column: 1}
    assert found.same_requests is (column != "device")
    assert f"{column} " in str(found.first)


def test_a_gap_that_becomes_a_value_is_a_difference(records: pa.Table, tmp_path: Path) -> None:
    write_records(tmp_path / "before.parquet", [with_value(records, "received_s", 3, None)], {})
    write_records(tmp_path / "after.parquet", [with_value(records, "received_s", 3, 0.0)], {})
    found = compare_records(tmp_path / "before.parquet", tmp_path / "after.parquet")
    assert found.first is not None
    assert (found.first.row, found.first.before, found.first.after) == (3, None, 0.0)


def test_the_same_written_otherwise_is_identical(records: pa.Table, tmp_path: Path) -> None:
    """Other row groups, compression and dictionaries, as another library may write them."""
    write_records(tmp_path / "before.parquet", [records], {"world": "simulated"})
    header = pq.read_schema(tmp_path / "before.parquet").metadata
    parts = [records.slice(0, 101), records.slice(101, 7), records.slice(108)]
    write_records(tmp_path / "after.parquet", parts, {"world": "simulated"})
    pq.write_table(
        records.replace_schema_metadata(header),
        tmp_path / "third.parquet",
        compression="snappy",
        row_group_size=64,
    )
    for other in ("after", "third"):
        after = tmp_path / f"{other}.parquet"
        assert file_hash(after) != file_hash(tmp_path / "before.parquet")
        found = compare_records(tmp_path / "before.parquet", after)
        assert found.state == "identical"
        assert found.same_requests is True


def test_more_or_fewer_requests(compared: Callable[..., FileComparison], records: pa.Table) -> None:
    found = compared(lambda table: table.slice(0, len(table) - 1))
    assert found.state == "different"
    assert found.rows == (len(records), len(records) - 1)
    assert found.same_requests is False
    assert f"{len(records)} requests before" in found.note
    assert found.first is None, "what both have is the same"


def test_requests_are_the_same_up_to_the_last_digits(
    compared: Callable[..., FileComparison],
) -> None:
    def scaled(factor: float) -> Callable[[pa.Table], pa.Table]:
        def change(table: pa.Table) -> pa.Table:
            place = table.schema.get_field_index("created_s")
            return table.set_column(
                place, table.schema.field(place), pc.multiply(table["created_s"], factor)
            )

        return change

    assert compared(scaled(1 + 1e-14)).same_requests is True
    assert compared(scaled(1 + 1e-5)).same_requests is False


def test_a_file_that_is_none_is_one_message(records: pa.Table, tmp_path: Path) -> None:
    write_records(tmp_path / "before.parquet", [records], {})
    (tmp_path / "after.parquet").write_bytes(b"PAR1")
    with pytest.raises(ArtifactError, match=r"after\.parquet"):
        compare_records(tmp_path / "before.parquet", tmp_path / "after.parquet")


# --- tables -------------------------------------------------------------------------------------

FRAME = pd.DataFrame(
    {"strategy": ["a", "b"], "policy": ["p", "p"], "aud": [0.25, 0.5], "latency": [1.0, np.nan]}
)


def test_tables_are_compared_value_by_value() -> None:
    assert compare_frames("x.csv", FRAME, FRAME.copy()).state == "identical"
    found = compare_frames("x.csv", FRAME, FRAME.assign(aud=[0.25, 0.75]))
    assert found.first is not None
    assert (found.first.row, found.first.column) == (1, "aud")
    assert found.first.where == {"strategy": "b", "policy": "p"}
    assert found.differing == {"aud": 1}
    found = compare_frames("x.csv", FRAME, FRAME.assign(latency=[np.nan, 2.0]))
    assert found.differing == {"latency": 2}


def test_a_number_may_be_written_in_another_way(tmp_path: Path) -> None:
    (tmp_path / "before").mkdir()
    (tmp_path / "after").mkdir()
    rows = {
        ("0.1", "0.10"): True,
        ("1e-07", "0.0000001"): True,
        ("nan", "NaN"): True,
        ("3", "3.0"): True,
        ("0.1", "0.10000000000000002"): False,
        ("12345678901234567", "12345678901234568"): False,
        ("", "0"): False,
        ("NA", "nan"): False,
    }
    for (old, new), same in rows.items():
        for folder, text in (("before", old), ("after", new)):
            (tmp_path / folder / "x.csv").write_text(f"name,value\na,{text}\n")
        hashes = [{"x.csv": file_hash(tmp_path / it / "x.csv")} for it in ("before", "after")]
        (found,) = compare_files(tmp_path / "before", hashes[0], tmp_path / "after", hashes[1])
        assert found.state == ("identical" if same else "different"), (old, new)


def test_columns_and_rows_that_come_or_go() -> None:
    found = compare_frames("x.csv", FRAME, FRAME.drop(columns="aud").assign(new=1))
    assert found.state == "different"
    assert found.note == "it lost the columns aud; it got the columns new"
    found = compare_frames("x.csv", FRAME, FRAME.head(1))
    assert found.note == "2 rows → 1"


def test_every_file_of_either_side_is_told(trained: Any, tmp_path: Path) -> None:
    before = Path(shutil.copytree(trained.results, tmp_path / "before"))
    after = Path(shutil.copytree(trained.results, tmp_path / "after"))
    (before / "links.csv").unlink()
    (after / "nodes.csv").unlink()
    (after / "trace-01-x.json").write_text("{}")
    runs = (after / "runs.csv").read_text()
    (after / "runs.csv").write_text(runs.replace("\n", "\r\n"))
    hashes = [
        {
            name: file_hash(folder / name)
            for name in simulated_files(folder)
            if (folder / name).exists()
        }
        for folder in (before, after)
    ]
    found = {file.name: file.state for file in compare_files(before, hashes[0], after, hashes[1])}
    assert found["links.csv"] == "added"
    assert found["nodes.csv"] == "missing"
    assert found["trace-01-x.json"] == "added"
    assert found["runs.csv"] == "identical", "written with other ends of lines"
    assert found["records.parquet"] == "identical"


def test_what_was_changed_after_a_run_is_named(trained: Any, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(trained.results, tmp_path / "run"))
    hashes = {name: file_hash(folder / name) for name in ("runs.csv", "nodes.csv")}
    check_unchanged(folder, hashes)
    (folder / "nodes.csv").unlink()
    check_unchanged(folder, hashes)
    with (folder / "runs.csv").open("a") as file:
        file.write("\n")
    with pytest.raises(ResultsError, match=r"runs\.csv was changed after the run"):
        check_unchanged(folder, hashes)
