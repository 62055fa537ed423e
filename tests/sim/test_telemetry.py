"""Telemetry against a slow reference that goes from event to event, and against Little's law."""

from dataclasses import fields

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sim.outcomes import DROPPED, LATE, LOST, ON_TIME, OUTCOMES
from sim.results.telemetry import (
    bin_edges,
    node_telemetry,
    outcome_table,
    present_seconds,
    request_telemetry,
)
from sim.results.visits import Visits

EXAMPLES = settings(max_examples=60, derandomize=True, deadline=None)


def visits_of(*rows):
    """Visits from tuples (node, arrived_s, started_s or None, left_s[, batch])."""
    columns = [(request, *row, 1)[:6] for request, row in enumerate(rows)]
    request, node, arrived, started, left, batch = zip(*columns, strict=True) if rows else [[]] * 6
    return Visits(
        np.array(request, dtype=np.int64),
        np.array(node, dtype=np.int64),
        np.array(arrived, dtype=np.float64),
        np.array([np.nan if time is None else time for time in started], dtype=np.float64),
        np.array(left, dtype=np.float64),
        np.array(left, dtype=np.float64),
        np.array(batch, dtype=np.int64),
    )


def queue_of(random, count, workers, load=0.8):
    """Visits to one FIFO node, by the recursion of Kiefer & Wolfowitz; some give up waiting."""
    arrived = np.cumsum(random.exponential(1.0, count))
    service = random.exponential(load * workers, count)
    free = [0.0] * workers
    rows = []
    for came, seconds in zip(arrived.tolist(), service.tolist(), strict=True):
        starts = max(came, min(free))
        if starts - came > 4 * workers:
            rows.append((0, came, None, came + 4 * workers))
            continue
        free[free.index(min(free))] = starts + seconds
        rows.append((0, came, starts, starts + seconds))
    return visits_of(*rows)


def event_by_event(visits, nodes, edges):
    """(nodes, bins) mean queue length and number in service, walking through all events."""
    events = [(float(edge), "edge", 0, 0, 0) for edge in edges]
    for node, came, starts, left in zip(
        visits.node.tolist(), visits.arrived_s, visits.started_s, visits.left_s, strict=True
    ):
        if np.isnan(starts):
            events += [(came, "change", node, 1, 0), (left, "change", node, -1, 0)]
        else:
            events += [
                (came, "change", node, 1, 0),
                (starts, "change", node, -1, 1),
                (left, "change", node, 0, -1),
            ]
    events.sort(key=lambda event: event[0])
    present = np.zeros((2, nodes))
    area = np.zeros((2, nodes))
    means, last, opened = [], 0.0, None
    for time, kind, node, waiting, served in events:
        area += present * (time - last)
        last = time
        if kind == "change":
            present[:, node] += (waiting, served)
            continue
        if opened is not None:
            means.append(area / (time - opened))
        opened, area = time, np.zeros((2, nodes))
    return np.moveaxis(np.array(means), 0, -1)


# --- bins ----------------------------------------------------------------------------------------


def test_bins_cover_the_span_and_the_last_may_be_shorter():
    assert bin_edges(2.0, 5.0, 1.0).tolist() == [2.0, 3.0, 4.0, 5.0]
    assert bin_edges(0.0, 2.5, 1.0).tolist() == [0.0, 1.0, 2.0, 2.5]
    assert bin_edges(0.0, 0.3, 0.1).tolist() == pytest.approx([0.0, 0.1, 0.2, 0.3])
    assert len(bin_edges(0.0, 60.0, 0.1)) == 601


@pytest.mark.parametrize("span", [(1.0, 1.0, 0.1), (0.0, 1.0, 0.0), (0.0, 1.0, np.nan)])
def test_bins_of_nothing_are_refused(span):
    with pytest.raises(ValueError, match="no bins"):
        bin_edges(*span)


# --- nodes ---------------------------------------------------------------------------------------


def test_worked_by_hand():
    # One request is served from 1 to 4; a second waits from 2 to 4 and is served until 5.
    visits = visits_of((0, 1.0, 1.0, 4.0), (0, 2.0, 4.0, 5.0))
    frame = node_telemetry(visits, ["edge"], [1], bin_edges(0.0, 6.0, 2.0))
    assert frame["time_s"].tolist() == [0.0, 2.0, 4.0]
    assert frame["node"].tolist() == ["edge"] * 3
    assert frame["queue_length"].tolist() == [0.0, 1.0, 0.0]
    assert frame["in_service"].tolist() == frame["utilisation"].tolist() == [0.5, 1.0, 0.5]
    assert frame["arrivals_hz"].tolist() == [0.5, 0.5, 0.0]
    assert frame["departures_hz"].tolist() == [0.0, 0.0, 1.0]


def test_a_queue_that_comes_and_goes_between_two_samples_is_seen():
    visits = visits_of((0, 0.25, 0.75, 0.75))
    frame = node_telemetry(visits, ["edge"], [1], bin_edges(0.0, 1.0, 1.0))
    assert frame["queue_length"].tolist() == [0.5]


def test_a_batch_occupies_one_worker_until_its_last_request_leaves():
    # Two of the batch answer early; the others, and a batch on the second worker, later.
    batch = [(0, 0.0, 1.0, left, 3) for left in (2.0, 2.0, 4.0)]
    other = [(0, 0.0, 1.0, 3.0, 2)] * 2
    frame = node_telemetry(visits_of(*batch, *other), ["edge"], [2], bin_edges(0.0, 4.0, 4.0))
    assert frame["in_service"].tolist() == [(1 + 1 + 3 + 2 + 2) / 4]
    assert frame["utilisation"].tolist() == [(3 + 2) / 8]


def test_batches_of_one_size_that_start_together_occupy_a_worker_each():
    visits = visits_of(*[(0, 0.0, 0.0, 1.0, 2)] * 4, (1, 0.0, 0.0, 1.0, 1))
    frame = node_telemetry(visits, ["a", "b"], [2, 1], bin_edges(0.0, 1.0, 1.0))
    assert frame["utilisation"].tolist() == [1.0, 1.0]


@given(st.integers(0, 10_000), st.integers(1, 3), st.sampled_from([0.3, 1.0, 7.0, 1000.0]))
@EXAMPLES
def test_bins_agree_with_going_from_event_to_event(seed, workers, step_s):
    random = np.random.default_rng(seed)
    first, second = queue_of(random, 60, workers), queue_of(random, 40, workers)
    visits = Visits(
        *(
            np.concatenate([getattr(first, name), getattr(second, name)])
            for name in (field.name for field in fields(Visits))
        )
    )
    visits.node[len(first) :] = 2  # a node between them stays idle
    edges = bin_edges(5.0, 70.0, step_s)
    frame = node_telemetry(visits, ["a", "b", "c"], [workers] * 3, edges)
    queue, served = event_by_event(visits, 3, edges)
    assert frame["queue_length"].to_numpy() == pytest.approx(queue.ravel(), abs=1e-9)
    assert frame["in_service"].to_numpy() == pytest.approx(served.ravel(), abs=1e-9)
    assert frame["utilisation"].to_numpy() == pytest.approx(served.ravel() / workers, abs=1e-9)
    assert frame["utilisation"].max() <= 1 + 1e-9
    in_window = (visits.arrived_s >= 5.0) & (visits.arrived_s < 70.0)
    width_s = np.tile(np.diff(edges), 3)
    assert (frame["arrivals_hz"] * width_s).sum() == pytest.approx(in_window.sum())


@given(st.integers(0, 10_000), st.floats(0.5, 50.0))
@EXAMPLES
def test_littles_law_holds_of_the_integrals(seed, step_s):
    visits = queue_of(np.random.default_rng(seed), 200, 2)
    horizon_s = float(visits.left_s.max()) + 1.0
    edges = bin_edges(0.0, horizon_s, step_s)
    frame = node_telemetry(visits, ["edge"], [2], edges)
    present = frame["queue_length"] + frame["in_service"]
    mean_present = (present * np.diff(edges)).sum() / horizon_s
    rate = (frame["arrivals_hz"] * np.diff(edges)).sum() / horizon_s
    sojourn_s = (visits.left_s - visits.arrived_s).mean()
    assert mean_present == pytest.approx(rate * sojourn_s, rel=1e-12)


def test_no_visits_are_an_idle_node():
    frame = node_telemetry(visits_of(), ["edge"], [4], bin_edges(0.0, 2.0, 1.0))
    assert (frame.drop(columns=["time_s", "node"]) == 0).all(axis=None)


def test_intervals_that_touch_the_edges_of_bins_lose_nothing():
    edges = np.array([0.0, 1.0, 2.0, 3.0])
    begin, end = np.array([0.0, 1.0, 0.0, 2.0, -5.0]), np.array([1.0, 3.0, 3.0, 2.0, 9.0])
    seconds = present_seconds(np.zeros(5, dtype=int), 1, begin, end, edges)
    assert seconds.tolist() == [[3.0, 3.0, 3.0]]


# --- visits --------------------------------------------------------------------------------------


def test_visits_of_one_node():
    visits = visits_of((0, 1.0, 1.0, 4.0), (1, 2.0, None, 5.0), (0, 3.0, 4.0, 6.0))
    assert (len(visits), len(visits.of_node(0)), len(visits.of_node(2))) == (3, 2, 0)
    assert visits.of_node(0).request.tolist() == [0, 2]


def test_columns_of_different_length_are_no_visits():
    one = np.zeros(1, dtype=np.int64)
    with pytest.raises(ValueError, match="differ in length"):
        Visits(one, one, np.zeros(1), np.zeros(1), np.zeros(2), np.zeros(1), one)


# --- requests ------------------------------------------------------------------------------------

CREATED_S = np.array([0.0, 0.5, 1.0, 1.5, 3.5])
RECEIVED_S = np.array([0.5, 2.5, 1.5, np.nan, np.nan])
CORRECT = np.array([True, True, False, False, False])
OUTCOME = np.array([ON_TIME, LATE, ON_TIME, DROPPED, LOST])


def test_rates_and_aud_over_time_worked_by_hand():
    edges = bin_edges(0.0, 4.0, 1.0)
    frame = request_telemetry(CREATED_S, RECEIVED_S, CORRECT, OUTCOME, edges)
    assert frame["offered_hz"].tolist() == [2.0, 2.0, 0.0, 1.0]
    assert frame["answered_hz"].tolist() == [1.0, 1.0, 1.0, 0.0]
    assert frame["aud"].tolist() == pytest.approx([0.5, 0.0, np.nan, 0.0], nan_ok=True)
    assert frame["hit_ratio"].tolist() == pytest.approx([0.5, 0.5, np.nan, 0.0], nan_ok=True)


def test_table_of_devices_worked_by_hand():
    device = np.array([2, 2, 0, 0, 2])
    table = outcome_table(device, 4, CREATED_S, RECEIVED_S, CORRECT, OUTCOME)
    assert table["offered"].tolist() == [2, 0, 3, 0]
    assert table[list(OUTCOMES)].to_numpy().tolist() == [
        [1, 0, 1, 0],
        [0, 0, 0, 0],
        [1, 1, 0, 1],
        [0, 0, 0, 0],
    ]
    nan = np.nan
    for column, expected in {
        "aud": [0.0, nan, 1 / 3, nan],
        "hit_ratio": [1 / 2, nan, 1 / 3, nan],
        "latency_mean_s": [0.5, nan, 1.25, nan],
    }.items():
        assert table[column].tolist() == pytest.approx(expected, nan_ok=True), column


def test_table_agrees_with_grouping_by_pandas():
    random = np.random.default_rng(1)
    count, devices = 20_000, 9_000
    frame = pd.DataFrame(
        {
            "device": random.integers(0, devices, count),
            "created_s": random.uniform(0, 60, count),
            "correct": random.random(count) < 0.5,
            "outcome": random.integers(0, 4, count),
        }
    )
    seconds = np.where(frame["outcome"] <= LATE, random.exponential(size=count), np.nan)
    columns = [frame[name].to_numpy() for name in ("correct", "outcome")]
    created_s = frame["created_s"].to_numpy()
    table = outcome_table(
        frame["device"].to_numpy(), devices, created_s, created_s + seconds, *columns
    )
    frame["seconds"] = seconds
    frame["good"] = frame["correct"] & (frame["outcome"] == ON_TIME)
    grouped = frame.groupby("device").agg(
        offered=("good", "size"), aud=("good", "mean"), latency_mean_s=("seconds", "mean")
    )
    assert table["offered"].sum() == count
    for column in grouped:
        expected = grouped[column].reindex(range(devices)).to_numpy(dtype=float)
        given = table[column].where(table["offered"] > 0).to_numpy(dtype=float)
        assert given == pytest.approx(expected, nan_ok=True), column
