"""Records in a file: whole or not at all, the same bytes for the same world, checked when read."""

import dataclasses
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tiny_worlds import Fickle, direction, group, node, run_of, table_of, world

from models.errors import ArtifactError
from sim.distributions import Exponential, Gamma
from sim.network.links import Link
from sim.results.records import FORMAT, SCHEMA, read_records, write_records
from sim.workload.arrivals import Poisson

ABOUT = {"world": "simulated", "seeds": [1, 2]}


def a_table(seed=1, replication=0, name="cameras"):
    """Records of a few hundred requests, some of them dropped; made anew each time."""
    link = Link(direction(Gamma(0.02, 0.01), 1e6), direction(Gamma(0.02, 0.01), 1e6))
    a_world = world(
        group(name, 3, Poisson(5.0), link=link), node(Exponential(0.05)), duration_s=20.0, seed=seed
    )
    run = run_of(a_world, Fickle(7), replication=replication)
    return table_of(a_world, run)


def plain(table):
    """Rows with names instead of codes."""
    return table.to_pylist()


# --- round trip ----------------------------------------------------------------------------------


def test_what_was_written_is_read(tmp_path):
    table = a_table()
    assert table["outcome"].to_pylist().count("dropped") > 10
    assert table["received_s"].null_count > 10
    write_records(tmp_path / "records.parquet", [table], ABOUT)
    read = read_records(tmp_path / "records.parquet")
    assert plain(read) == plain(table)
    assert read.schema.equals(SCHEMA)
    assert json.loads(read.schema.metadata[b"about"]) == ABOUT


def test_tables_are_written_one_after_the_other_whatever_their_names(tmp_path):
    tables = [a_table(), a_table(replication=1, name="meters"), a_table(seed=2)]
    write_records(tmp_path / "records.parquet", iter(tables), ABOUT)
    read = read_records(tmp_path / "records.parquet")
    assert plain(read) == [row for table in tables for row in plain(table)]
    assert set(read["group"].to_pylist()) == {"cameras", "meters"}


def test_no_tables_make_an_empty_file_with_all_columns(tmp_path):
    write_records(tmp_path / "records.parquet", [], ABOUT)
    read = read_records(tmp_path / "records.parquet")
    assert (len(read), read.schema.names) == (0, SCHEMA.names)


def test_the_same_world_and_seed_give_the_same_bytes(tmp_path):
    for name, seed in (("one", 1), ("two", 1), ("other", 2)):
        write_records(tmp_path / name, [a_table(seed), a_table(seed, 1)], ABOUT)
    one, two, other = ((tmp_path / name).read_bytes() for name in ("one", "two", "other"))
    assert one == two
    assert one != other


# --- whole or not at all -------------------------------------------------------------------------


def one_and_then_an_error():
    yield a_table()
    raise RuntimeError("killed")


def one_and_then_a_foreign_table():
    yield a_table()
    yield pa.table({"a": [1]})


@pytest.mark.parametrize("tables", [one_and_then_an_error, one_and_then_a_foreign_table])
def test_nothing_is_left_behind_by_a_write_that_fails(tmp_path, tables):
    with pytest.raises((RuntimeError, ValueError, pa.ArrowException)):
        write_records(tmp_path / "records.parquet", tables(), ABOUT)
    assert list(tmp_path.iterdir()) == []


def test_a_write_that_fails_leaves_the_file_that_was_there(tmp_path):
    path = tmp_path / "records.parquet"
    write_records(path, [a_table()], ABOUT)
    before = path.read_bytes()
    with pytest.raises(RuntimeError, match="killed"):
        write_records(path, one_and_then_an_error(), ABOUT)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_folders_are_made(tmp_path):
    path = tmp_path / "results" / "today" / "records.parquet"
    write_records(path, [a_table()], ABOUT)
    assert len(read_records(path)) == len(a_table())


# --- damaged and foreign files -------------------------------------------------------------------


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "records.parquet"
    write_records(path, [a_table()], ABOUT)
    return path


@pytest.mark.parametrize("keep", [0.0, 0.01, 0.5, 0.999])
def test_a_truncated_file_is_refused(path, keep):
    content = path.read_bytes()
    path.write_bytes(content[: int(keep * len(content))])
    with pytest.raises(ArtifactError, match=r"records\.parquet: not a readable records file"):
        read_records(path)


def test_a_file_with_a_damaged_page_is_refused(path):
    content = bytearray(path.read_bytes())
    middle = len(content) // 3
    content[middle : middle + 400] = bytes(400)
    path.write_bytes(content)
    with pytest.raises(ArtifactError, match="not a readable records file"):
        read_records(path)


def test_a_file_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(ArtifactError, match=r"absent\.parquet"):
        read_records(tmp_path / "absent.parquet")


def test_a_file_of_another_kind_is_refused(tmp_path):
    path = tmp_path / "notes.txt"
    path.write_text("request,outcome\n0,on_time\n", encoding="utf-8")
    with pytest.raises(ArtifactError, match=r"notes\.txt: not a readable records file"):
        read_records(path)


@pytest.mark.parametrize("metadata", [None, {}, {"format": "offramp-records-0"}])
def test_a_parquet_file_of_another_kind_or_version_is_refused(tmp_path, metadata):
    path = tmp_path / "other.parquet"
    pq.write_table(a_table().replace_schema_metadata(metadata), path)
    with pytest.raises(ArtifactError, match=rf"not a records file .*'{FORMAT}'"):
        read_records(path)


def test_a_file_that_claims_to_be_records_but_lacks_columns_is_refused(tmp_path):
    path = tmp_path / "records.parquet"
    table = a_table().drop_columns(["outcome"]).replace_schema_metadata({"format": FORMAT})
    pq.write_table(table, path)
    with pytest.raises(ArtifactError):
        read_records(path)


# --- columns -------------------------------------------------------------------------------------


def test_records_name_their_arm_and_their_parts():
    table = a_table(replication=3)
    row = plain(table)[0]
    assert {name: row[name] for name in ("strategy", "training_seed", "policy")} == {
        "strategy": "standard",
        "training_seed": 0,
        "policy": "policy",
    }
    assert row["replication"] == 3
    assert set(table["device"].to_pylist()) == {"cameras-0", "cameras-1", "cameras-2"}
    assert (row["group"], row["node"]) == ("cameras", "edge")


def test_deadlines_are_recorded_as_scaled():
    a_world = world(group(deadline=2.0))
    run = run_of(a_world, deadline_scale=0.5)
    assert set(table_of(a_world, run)["deadline_s"].to_pylist()) == {1.0}
    late = dataclasses.replace(run, deadline_s=run.deadline_s * 3)
    assert set(table_of(a_world, late)["deadline_s"].to_pylist()) == {3.0}
