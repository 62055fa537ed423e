"""Traces of requests: what a file may say, and how it is told what it may not."""

from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny_worlds import examples

from models.errors import ArtifactError, OfframpError, ScenarioError
from sim.workload.request_traces import RequestTrace, read_request_trace


@pytest.fixture
def written(tmp_path):
    """Reads a CSV file of the text given, ``;`` standing for the end of a line."""

    def read(text):
        path = tmp_path / "trace.csv"
        path.write_text(text.replace(";", "\n"))
        return read_request_trace(path)

    return read


@pytest.fixture
def columns(tmp_path):
    """Reads a Parquet file of the columns given."""

    def read(**columns):
        path = tmp_path / "trace.parquet"
        pq.write_table(pa.table(columns), path)
        return read_request_trace(path)

    return read


# --- what is read --------------------------------------------------------------------------------


def test_times_and_numbered_devices(written):
    trace = written("time_s,device;0,1;0.5,0;0.5,1;2e1,1;")
    assert trace.time_s.tolist() == [0.0, 0.5, 0.5, 20.0]
    assert trace.device.tolist() == [1, 0, 1, 1]
    assert trace.number.tolist() == [0, 0, 1, 2]
    assert (len(trace), trace.devices) == (4, 2)
    assert (trace.names, trace.sample, trace.deadline_s) == (None, None, None)


def test_samples_and_deadlines_in_any_order_of_columns(written):
    trace = written("deadline_ms,sample,device,time_ms;250,3,0,1500;0.5,0,0,1600")
    assert trace.time_s.tolist() == [1.5, 1.6]
    assert trace.deadline_s.tolist() == [0.25, 0.0005]
    assert trace.sample.tolist() == [3, 0]
    assert written("time_s,device,deadline_s;0,0,0.25").deadline_s.tolist() == [0.25]


def test_devices_named_as_offramp_names_them_are_those(written):
    trace = written("time_s,device;0,cam-2;1,cam-0;2,cam-2")
    assert (trace.device.tolist(), trace.names) == ([2, 0, 2], None)
    with pytest.raises(ScenarioError):
        trace.check(2)


def test_names_are_numbered_by_their_first_appearance(written):
    trace = written("time_s,device;0,porch;1,7;2,porch;3,attic")
    assert trace.device.tolist() == [0, 1, 0, 2]
    assert trace.names == ("porch", "7", "attic")


def test_parquet_of_any_number_types(columns):
    trace = columns(
        time_ms=pa.array([0, 10, 20], pa.int32()),
        device=pa.array(["b", "a", "b"]).dictionary_encode(),
        sample=pa.array([1, 2, 3], pa.uint8()),
        deadline_s=pa.array([0.5, 0.25, 0.5], pa.float32()),
    )
    assert trace.time_s.tolist() == [0.0, 0.01, 0.02]
    assert (trace.device.tolist(), trace.names) == ([0, 1, 0], ("b", "a"))
    assert trace.sample.tolist() == [1, 2, 3]
    assert trace.deadline_s.tolist() == [0.5, 0.25, 0.5]


def test_parquet_written_by_pandas(tmp_path):
    frame = pd.DataFrame({"time_s": [0.0, 1.0], "device": [3, 0]})
    frame.to_parquet(tmp_path / "t.parquet")
    assert read_request_trace(tmp_path / "t.parquet").device.tolist() == [3, 0]


@given(device=st.lists(st.integers(0, 9), min_size=1, max_size=60))
@examples(60)
def test_a_request_is_found_by_device_and_number(device):
    trace = RequestTrace(Path("t.csv"), np.arange(len(device)) * 1.0, np.array(device))
    assert trace.number.tolist() == [device[:at].count(one) for at, one in enumerate(device)]
    rows = trace.rows(trace.device, trace.number)
    assert rows.tolist() == list(range(len(device)))


# --- what is refused -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("time_s,device;0,0;-1,0", r"trace\.csv:3: time_s is -1: times must not be negative"),
        ("time_s,device;0,0;5,0;4.5,1", r"trace\.csv:4: time_s is 4\.5: times must ascend"),
        ("time_ms,device;0,0;5,0;4.5,1", r"trace\.csv:4: time_ms is 4\.5: times must ascend"),
        ("time_s,device;0,0;nan,0", r"trace\.csv:3: time_s is nan: values must be finite"),
        ("time_s,device;0,0;inf,0", r"trace\.csv:3: time_s is inf: values must be finite"),
        ("time_s,device;0,0;soon,0", r"trace\.csv:3: time_s is 'soon', not a number"),
        ("time_s,device;0,0;,0", r"trace\.csv:3: time_s is missing, not a number"),
        ("time_s,device;;0,0;;;-1,0", r"trace\.csv:6: time_s is -1"),
        ("time_s,device;0,0;1,-2", r"trace\.csv:3: device is -2: it must not be negative"),
        ("time_s,device;0,a;1,", r"trace\.csv:3: device is missing"),
        ("time_s,device,deadline_s;0,0,1;1,0,0", r"trace\.csv:3: deadline_s is 0: .* positive"),
        ("time_s,device,deadline_ms;0,0,-5", r"trace\.csv:2: deadline_ms is -5: .* positive"),
        ("time_s,device,deadline_ms;0,0,", r"trace\.csv:2: deadline_ms is missing"),
        ("time_s,device,sample;0,0,-1", r"trace\.csv:2: sample is -1: it must not be negative"),
        ("time_s,device,sample;0,0,1.5", r"trace\.csv:2: sample is '1\.5', not a whole number"),
        ("time_s;0", r"trace\.csv: column 'device' is missing \(it has: time_s\)"),
        ("device;0", r"trace\.csv: column 'time_s' is missing \(it has: device\)"),
        ("time_s,time_ms,device;0,0,0", r"trace\.csv: has both time_s and time_ms"),
        ("time_s,device,device;0,0,0", r"trace\.csv: column 'device' is there twice"),
        ("time_s,device,deadlin_ms;0,0,0", r"column 'deadlin_ms' is unknown; .* 'deadline_ms'\?"),
        ("time_s,device;", r"trace\.csv: holds no requests"),
        ("", r"trace\.csv: not a readable \.csv file"),
        ("time_s,device;0,0,7", r"trace\.csv: not a readable \.csv file: .*Expected 2 columns"),
    ],
)
def test_a_bad_line_is_named(written, text, message):
    with pytest.raises(ArtifactError, match=message):
        written(text)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"time_s": [0.0, -1.0]}, r"trace\.parquet, row 2: time_s is -1\.0"),
        ({"time_s": [0.0, None]}, r"trace\.parquet, row 2: time_s is missing"),
        ({"time_s": [[0.0], [1.0]]}, r"trace\.parquet, row 1: time_s is '\[0\.0\]', not a number"),
        ({"device": [0, None]}, r"trace\.parquet, row 2: device is missing"),
        ({"device": ["a", None]}, r"trace\.parquet, row 2: device is missing"),
        ({"device": [0.0, 0.5]}, r"trace\.parquet, row 2: device is '0\.5', not a whole number"),
        ({"sample": [1, -4]}, r"trace\.parquet, row 2: sample is -4"),
        ({"sample": ["x", "y"]}, r"trace\.parquet, row 1: sample is 'x', not a whole number"),
    ],
    ids=str,
)
def test_a_bad_row_is_named(columns, wrong, message):
    with pytest.raises(ArtifactError, match=message):
        columns(**({"time_s": [0.0, 1.0], "device": [0, 0]} | wrong))


def test_files_that_are_no_traces(tmp_path):
    with pytest.raises(ArtifactError, match=r"no\.csv: no such file"):
        read_request_trace(tmp_path / "no.csv")
    with pytest.raises(ArtifactError, match=r"must end in \.csv or \.parquet"):
        read_request_trace(tmp_path / "trace.txt")
    damaged = tmp_path / "damaged.parquet"
    damaged.write_bytes(b"PAR1 and no more")
    with pytest.raises(ArtifactError, match=r"damaged\.parquet: not a readable \.parquet file"):
        read_request_trace(damaged)


@given(
    text=st.text(alphabet='0123456789.,-e;ns"\n ', max_size=60),
    heading=st.sampled_from(["time_s,device", "time_ms,device,sample,deadline_s", ""]),
)
@examples(150)
def test_whatever_a_file_holds_it_is_read_or_refused(tmp_path_factory, text, heading):
    path = tmp_path_factory.getbasetemp() / "any.csv"
    path.write_text(f"{heading}\n{text}")
    try:
        trace = read_request_trace(path)
    except OfframpError:
        return
    assert (trace.time_s >= 0).all()
    assert (np.diff(trace.time_s) >= 0).all()
    assert (trace.device >= 0).all()


# --- against a scenario --------------------------------------------------------------------------


def test_devices_and_samples_beyond_the_scenario_are_named(written):
    trace = written("time_s,device,sample;0,0,4;;1,3,9;2,1,5")
    trace.check(4, 10)
    trace.check(4)
    with pytest.raises(ScenarioError, match=r"trace\.csv:4: device 3 is unknown: .* 3 devices"):
        trace.check(3, 10)
    with pytest.raises(ScenarioError, match=r"trace\.csv:4: sample 9 is unknown: .* 0 to 8"):
        trace.check(4, 9)


def test_a_named_device_too_many_is_called_by_its_name(written):
    trace = written("time_s,device;0,porch;1,attic")
    with pytest.raises(ScenarioError, match=r"trace\.csv:3: device attic .* 1 device, .* needs 2"):
        trace.check(1)
