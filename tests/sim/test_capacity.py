"""Capacities: work done by a time and the time it takes are each other's inverse, always."""

import os
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny_worlds import examples

from models.errors import ArtifactError, ScenarioError
from sim.network.capacity import (
    ConstantCapacity,
    TracedCapacity,
    finished_s,
    read_bandwidth_trace,
    with_outages,
)

#: 8 bit/s for 2 s, nothing for 3 s, 16 bit/s for 5 s: 96 bits in 10 s, and again.
TRACE = TracedCapacity(np.array([0.0, 2.0, 5.0, 10.0]), np.array([8.0, 0.0, 16.0]))

# --- strategies ----------------------------------------------------------------------------------


@st.composite
def traces(draw):
    steps = draw(st.lists(st.floats(1e-3, 100.0), min_size=1, max_size=6))
    rates = draw(
        st.lists(
            st.sampled_from([0.0, 1.0]) | st.floats(1e-2, 1e9),
            min_size=len(steps),
            max_size=len(steps),
        ).filter(any)
    )
    return TracedCapacity(np.append(0.0, np.cumsum(steps)), np.array(rates))


@st.composite
def outages(draw):
    pairs = draw(st.lists(st.tuples(st.floats(0, 500), st.floats(1e-3, 200)), max_size=5))
    return [(start, start + length) for start, length in pairs]


@st.composite
def capacities(draw):
    whole = draw(
        traces() | st.builds(ConstantCapacity, st.just(float("inf")) | st.floats(1.0, 1e9))
    )
    return with_outages(whole, draw(outages()))


times = st.lists(st.floats(0, 2000), min_size=1, max_size=20).map(np.array)

# --- what holds for every capacity ---------------------------------------------------------------


@examples(200)
@given(capacities(), times)
def test_work_never_falls_and_begins_at_nothing(capacity, at):
    work = capacity.work(np.sort(at))
    assert capacity.work(0.0) == 0.0
    assert np.all(np.diff(work) >= 0)
    assert np.all(work >= 0)


@examples(200)
@given(capacities(), times)
def test_less_than_the_work_done_by_a_time_was_done_by_then(capacity, at):
    # Not all of it: rounding may carry that beyond a stretch in which nothing is done.
    less = np.maximum(capacity.work(at) * (1 - 1e-9) - 1e-6, 0.0)
    assert np.all(capacity.time(less) <= at + 1e-6)


@examples(200)
@given(capacities(), times, st.floats(0, 0.999))
def test_time_never_falls_and_inverts_work(capacity, at, share):
    work = np.sort(capacity.work(at)) * (1 - share)
    took = capacity.time(work)
    assert np.all(np.diff(took) >= 0)
    # Outages take away what would have been carried: few bits may be what is left of 10^10.
    without = getattr(capacity, "whole", capacity).work(at.max())
    rounding = 1e-6 + 4 * np.finfo(float).eps * (without if np.isfinite(without) else 0.0)
    np.testing.assert_allclose(capacity.work(took), work, rtol=1e-9, atol=rounding)


@examples(200)
@given(capacities(), times, st.floats(0, 1e4))
def test_a_message_never_leaves_before_it_was_sent(capacity, sent, size):
    sent = np.sort(sent)
    left = finished_s(capacity, sent, capacity.work(sent) + capacity.amount(size))
    assert np.all(left >= sent)
    assert np.all(np.diff(left) >= 0)


def test_a_wait_into_the_next_round_ends_where_one_within_that_round_does():
    capacity = TracedCapacity(
        np.array([0.0, 1.02, 1.25074226, 23.54757062]), np.array([0.0, 1.0, 0.0])
    )
    before, after = capacity.available(np.array([426.0, 448.0]))
    assert before == after


@examples(100)
@given(capacities(), times, st.integers(0, 10_000))
def test_a_number_gives_what_an_array_gives_to_the_last_digit(capacity, at, size):
    for method in (capacity.work, capacity.time, capacity.available, capacity.amount):
        values = method(at)
        assert values.shape == at.shape
        alone = [method(value) for value in at.tolist()]
        assert all(type(value) is float for value in alone)
        assert alone == values.tolist()


@pytest.mark.parametrize(
    "capacity",
    [
        ConstantCapacity(8.0),
        TRACE,
        with_outages(TRACE, [(1, 2)]),
        with_outages(ConstantCapacity(8.0), [(1, 2)]),
    ],
)
def test_a_message_that_is_never_sent_never_leaves(capacity):
    for method in (capacity.work, capacity.time, capacity.available):
        assert method(np.inf) == np.inf
        assert method(np.array([1.0, np.inf]))[1] == np.inf


# --- a constant rate -----------------------------------------------------------------------------


def test_a_constant_rate_counts_seconds_exactly():
    capacity = ConstantCapacity(1e6)
    at = np.array([0.1, 0.2, 0.1 + 0.2, 12345.678])
    assert capacity.work(at) is at
    assert capacity.time(at) is at
    assert capacity.amount(1000) == 0.008


def test_an_infinite_rate_takes_no_time():
    assert ConstantCapacity(float("inf")).amount(10**9) == 0.0


# --- a trace -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("time_s", "bits"),
    [(0, 0), (1, 8), (2, 16), (4, 16), (5, 16), (6, 32), (10, 96), (11, 104), (25, 208)],
)
def test_a_trace_carries_its_rates_and_begins_anew(time_s, bits):
    assert TRACE.work(float(time_s)) == bits


def test_a_message_waits_while_the_trace_carries_nothing():
    assert TRACE.time(16.0) == 2.0  # done just before
    assert TRACE.time(17.0) == 5.0 + 1 / 16
    assert TRACE.amount(2) == 16.0
    assert finished_s(TRACE, 1.0, TRACE.work(1.0) + TRACE.amount(2)) == 5.5


def test_a_message_may_take_many_rounds_of_a_trace():
    assert TRACE.time(96.0 * 1000) == 10_000.0
    assert TRACE.time(96.0 * 1000 + 8) == 10_001.0


def test_a_trace_that_ends_with_nothing_goes_on_with_the_next_round():
    trace = TracedCapacity(np.array([0.0, 1.0, 3.0]), np.array([8.0, 0.0]))
    assert trace.time(8.0) == 1.0
    assert trace.time(12.0) == 3.5
    assert trace.available(np.array([0.5, 1.0, 2.9, 3.0])).tolist() == [0.5, 3.0, 3.0, 3.0]


@pytest.mark.parametrize(
    ("times_s", "rates"),
    [
        ([0, 1], [0]),
        ([0, 1], [-1]),
        ([1, 2], [1]),
        ([0, 1, 1], [1, 1]),
        ([0, 1], [1, 1]),
        ([0, np.inf], [1]),
        ([0, 1], [np.nan]),
    ],
)
def test_what_is_no_trace_is_refused(times_s, rates):
    with pytest.raises(ValueError, match="trace"):
        TracedCapacity(np.array(times_s, float), np.array(rates, float))


# --- outages -------------------------------------------------------------------------------------


def test_a_message_sent_across_an_outage_waits_for_its_end():
    link = with_outages(ConstantCapacity(8000.0), [(10.0, 12.0)])
    sent = np.array([5.0, 9.5, 10.0, 11.0, 12.0])
    left = finished_s(link, sent, link.work(sent) + link.amount(1000))
    assert left.tolist() == [6.0, 12.5, 13.0, 13.0, 13.0]


def test_a_message_that_takes_no_time_waits_as_well():
    link = with_outages(ConstantCapacity(float("inf")), [(10.0, 12.0)])
    sent = np.array([9.0, 10.0, 11.0, 12.0])
    assert finished_s(link, sent, link.work(sent)).tolist() == [9.0, 12.0, 12.0, 12.0]


def test_outages_that_meet_are_one():
    link = with_outages(ConstantCapacity(8.0), [(4.0, 6.0), (1.0, 3.0), (2.0, 4.0)])
    assert link.work(10.0) == 5.0
    assert link.available(2.0) == 6.0


def test_a_trace_runs_on_during_an_outage():
    link = with_outages(TRACE, [(5.0, 7.0)])
    assert link.work(10.0) == 96 - 2 * 16
    assert link.time(17.0) == 7.0 + 1 / 16


def test_after_an_outage_a_trace_may_still_carry_nothing():
    link = with_outages(TRACE, [(1.0, 3.0), (5.0, 6.0)])
    assert link.available(1.5) == 6.0


def test_what_never_comes_back_never_carries_again():
    link = with_outages(ConstantCapacity(8.0), [(10.0, float("inf"))])
    assert link.work(np.array([9.0, 10.0, 50.0])).tolist() == [9.0, 10.0, 10.0]
    assert link.time(np.array([10.0, 10.1])).tolist() == [10.0, np.inf]
    assert link.available(11.0) == np.inf


@examples(100)
@given(traces() | st.builds(ConstantCapacity, st.floats(1.0, 1e9)), outages(), times)
def test_an_outage_takes_exactly_the_work_of_its_time(whole, intervals, at):
    """Against a count second by second, of seconds halved until no outage begins within one."""
    link = with_outages(whole, intervals)
    edges = np.unique(np.append(0.0, intervals)) if intervals else np.array([0.0])
    for end in at:
        cuts = np.append(edges[edges < end], end)
        middles = (cuts[1:] + cuts[:-1]) / 2
        up = [not any(a <= middle < b for a, b in intervals) for middle in middles]
        expected = np.sum(np.diff(whole.work(cuts))[up]) if end > 0 else 0.0
        assert link.work(end) == pytest.approx(expected, rel=1e-9, abs=1e-6)


def test_without_outages_a_capacity_stays_itself():
    assert with_outages(TRACE, []) is TRACE


@pytest.mark.parametrize("interval", [(-1.0, 2.0), (3.0, 3.0), (3.0, 2.0), (np.nan, 2.0)])
def test_an_impossible_outage_is_refused(interval):
    with pytest.raises(ScenarioError, match=r"an outage from .* must begin at 0 s or later"):
        with_outages(ConstantCapacity(8.0), [interval])


# --- trace files ---------------------------------------------------------------------------------


def written(folder: Path, text: str) -> Path:
    path = folder / "trace.csv"
    path.write_text(text, encoding="utf-8")
    return path


def test_a_trace_file_is_read_from_its_first_time_on(tmp_path):
    path = written(tmp_path, "time_s,bandwidth_mbps\n100,8\n102,0\n105,16\n")
    trace = read_bandwidth_trace(path)
    assert trace.times_s.tolist() == [0, 2, 5, 8]  # the last step is as long as the one before
    assert trace.bits_per_s.tolist() == [8e6, 0, 16e6]


@pytest.mark.parametrize(
    ("column", "unit"), [("bits_per_s", 1.0), ("bandwidth_kbps", 1e3), ("bandwidth_mbps", 1e6)]
)
def test_the_name_of_the_column_tells_the_unit(tmp_path, column, unit):
    path = written(tmp_path, f"{column},other,time_s\n3,x,0\n4,y,1\n")
    assert read_bandwidth_trace(path).bits_per_s.tolist() == [3 * unit, 4 * unit]


def test_a_5g_log_is_read_by_the_column_named(tmp_path):
    path = written(
        tmp_path,
        "Timestamp,CellID,DL_bitrate,UL_bitrate\n"
        "2020.02.13_13.59.59,11,100,10\n"
        "2020.02.13_13.59.59,11,300,20\n"  # in the same second: averaged
        "2020.02.13_14.00.00,11,50,30\n"
        "2020.02.13_14.00.02,11,70,0\n",
    )
    down = read_bandwidth_trace(path, "DL_bitrate")
    assert down.times_s.tolist() == [0, 1, 3, 5]
    assert down.bits_per_s.tolist() == [200e3, 50e3, 70e3]
    assert read_bandwidth_trace(path, "UL_bitrate").bits_per_s.tolist() == [15e3, 30e3, 0]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("time_s,bits_per_s\n0,5\n1,-2\n", r"trace\.csv:3: bits_per_s is -2; .* not negative"),
        ("time_s,bits_per_s\n0,5\n1,inf\n", r"trace\.csv:3: bits_per_s is 'inf'; a finite number"),
        ("time_s,bits_per_s\n0,5\n1,nan\n", r"trace\.csv:3: bits_per_s is 'nan'; a finite number"),
        ("time_s,bits_per_s\n0,5\n\n1,fast\n", r"trace\.csv:4: bits_per_s is 'fast'; a finite"),
        ("time_s,bits_per_s\n0,5\n2,5\n1,5\n", r"trace\.csv:4: time_s 1 comes before that of"),
        ("time_s,bits_per_s\n0,5\nnan,5\n", r"trace\.csv:3: time_s is 'nan'; a finite number"),
        ("time_s,bits_per_s\n0,5\n1\n", r"trace\.csv:3: the row ends before column bits_per_s"),
        ("time_s,bits_per_s\n0,5\n", r"trace\.csv: .* two different times"),
        ("time_s,bits_per_s\n0,0\n1,0\n", r"trace\.csv: the bandwidth is 0 throughout"),
        ("", r"trace\.csv:1: no column of times"),
        ("seconds,bits_per_s\n0,0\n", r"trace\.csv:1: no column of times; .* seconds, bits_per_s"),
        (
            "time_s,rate\n0,0\n",
            r"trace\.csv:1: of the columns .* but there is none; .* time_s, rate",
        ),
        ("time_s,bits_per_s,bandwidth_mbps\n0,0,0\n", r"there is several: bandwidth_mbps, bits"),
        ("Timestamp,bits_per_s\n12:00,5\n", r"trace\.csv:2: Timestamp is '12:00'; a time like"),
    ],
)
def test_a_bad_trace_is_refused_with_file_and_line(tmp_path, text, message):
    with pytest.raises(ArtifactError, match=message):
        read_bandwidth_trace(written(tmp_path, text))


def test_a_column_that_is_not_there_or_has_no_unit_is_named(tmp_path):
    path = written(tmp_path, "time_s,DL_bitrate,RSRP\n0,5,-101\n1,5,-100\n")
    with pytest.raises(ArtifactError, match="no column 'DL_bitrat'; did you mean 'DL_bitrate'"):
        read_bandwidth_trace(path, "DL_bitrat")
    with pytest.raises(ArtifactError, match="the unit of column 'RSRP' is not known"):
        read_bandwidth_trace(path, "RSRP")


def test_a_file_that_cannot_be_read_is_named(tmp_path):
    with pytest.raises(ArtifactError, match=r"none\.csv: cannot be read: No such file"):
        read_bandwidth_trace(tmp_path / "none.csv")
    (tmp_path / "trace.csv").write_bytes(b"time_s,bits_per_s\n0,\xff\n")
    with pytest.raises(ArtifactError, match="not a text file in UTF-8"):
        read_bandwidth_trace(tmp_path / "trace.csv")


def test_real_5g_logs_are_read(tmp_path):
    """Raca et al. 2020; OFFRAMP_TRACES is a folder with 5g_ireland.zip."""
    folder = os.environ.get("OFFRAMP_TRACES")
    if folder is None or not (Path(folder) / "5g_ireland.zip").is_file():
        pytest.skip("OFFRAMP_TRACES names no folder with 5g_ireland.zip")
    with zipfile.ZipFile(Path(folder) / "5g_ireland.zip") as archive:
        logs = [
            name
            for name in archive.namelist()
            if name.endswith(".csv") and "/Download/" in name and "__MACOSX" not in name
        ]
        assert len(logs) == 21
        for log in logs:
            trace = read_bandwidth_trace(Path(archive.extract(log, tmp_path)), "DL_bitrate")
            mean = trace.work(float(trace.times_s[-1])) / trace.times_s[-1]
            assert 1e6 < mean < 500e6, log
