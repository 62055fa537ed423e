"""What is told of a run, gathered slice by slice: the same as of the whole run at once."""

import numpy as np
import pandas as pd
import pytest
from tiny_worlds import (
    group,
    node,
    predictions,
    random_predictions,
    run_of,
    world,
    written_world,
)

from sim.distributions import Constant, Exponential
from sim.faults import Fault
from sim.network.capacity import ConstantCapacity
from sim.network.links import Direction, Link
from sim.nodes.service import DistributedService
from sim.policies import Confidence, FixedExit
from sim.results.fairness import jain_index
from sim.results.finished_visits import FinishedVisits
from sim.results.gathering import Gathering, Telemetry, Trace
from sim.results.metrics import run_metrics
from sim.results.run import Run
from sim.results.telemetry import node_telemetry, outcome_table, request_telemetry
from sim.results.verdict import node_metrics, settling
from sim.results.visits import Visits
from sim.running.slices import Slices
from sim.simulation import simulate_in_slices
from sim.workload.arrivals import ClosedLoop, Poisson

SLOW = Link(
    Direction(Exponential(0.05), ConstantCapacity(50_000.0)),
    Direction(Exponential(0.3), ConstantCapacity(50_000.0)),
)


def busy_world(**more):
    """Two groups, batches, a crash and slow links: many requests under way at any time."""
    return world(
        group("cameras", 5, Poisson(4.0), deadline=0.6, link=SLOW),
        group("meters", 3, Poisson(2.0), deadline=0.3, link=SLOW),
        node(DistributedService(Exponential(0.05), 2), workers=2, batch_size=4, batch_wait_s=0.05),
        warm_up_s=3.0,
        duration_s=20.0,
        faults=(Fault("node_crash", "edge", schedule=((8.0, 9.0),)),),
        **more,
    )


SAYS = random_predictions(50, 2, seed=4)


def parts_of(a_world, policy=None, says=SAYS):
    workload = Slices(a_world, says.label, 0)
    return list(simulate_in_slices(a_world, workload, says, policy or FixedExit(2)))


@pytest.fixture
def many_slices(monkeypatch):
    monkeypatch.setattr("sim.running.slices.SLICE_REQUESTS", 20)


def gathered(a_world, parts, exact=True, *watchers):
    gathering = Gathering(a_world, exact, watchers)
    for part in parts:
        gathering.add(part)
    return gathering


# --- visits --------------------------------------------------------------------------------------


@pytest.mark.usefixtures("many_slices")
def test_every_visit_is_given_once_with_its_request():
    a_world = busy_world()
    parts = parts_of(a_world, Confidence(0.7))
    assert len(parts) > 5
    finished = FinishedVisits()
    given = [finished.add(part) for part in parts]
    whole = Run.joined(parts)
    visits = Visits.joined([one.visits for one in given])
    assert len(visits) == len(whole.visits)
    assert sorted(visits.request.tolist()) == sorted(whole.visits.request.tolist())
    np.testing.assert_array_equal(
        np.concatenate([one.created_s for one in given]),
        whole.requests.created_s[visits.request],
    )
    np.testing.assert_array_equal(
        np.concatenate([one.device for one in given]), whole.requests.device[visits.request]
    )


@pytest.mark.usefixtures("many_slices")
def test_no_batch_is_parted():
    parts = parts_of(busy_world(), Confidence(0.7))
    finished = FinishedVisits()
    batches = 0
    for part in parts:
        visits = finished.add(part).visits
        batched = visits.where((visits.batch > 1) & ~np.isnan(visits.started_s))
        keys = pd.DataFrame(
            {"node": batched.node, "start": batched.started_s, "batch": batched.batch}
        )
        for (_, _, batch), members in keys.groupby(["node", "start", "batch"]):
            assert len(members) % batch == 0
            batches += 1
    assert batches > 20


# --- metrics -------------------------------------------------------------------------------------


@pytest.mark.usefixtures("many_slices")
def test_slices_give_the_metrics_of_the_whole_run():
    a_world = busy_world()
    parts = parts_of(a_world, Confidence(0.7))
    whole = Run.joined(parts)
    gathering = gathered(a_world, parts)
    metrics = gathering.metrics()
    expected = run_metrics(a_world, whole)
    assert {name: metrics[name] for name in expected} == pytest.approx(expected, rel=1e-12)
    assert (metrics["first_quarter_s"], metrics["rest_s"]) == pytest.approx(
        settling(a_world, whole), rel=1e-12
    )
    for got, wanted in zip(gathering.nodes.metrics(), node_metrics(a_world, whole), strict=True):
        assert got.pop("node") == wanted.pop("node") == "edge"
        assert got == pytest.approx(wanted, rel=1e-9)


@pytest.mark.usefixtures("many_slices")
def test_without_exact_percentiles_counts_are_the_same_and_percentiles_close():
    a_world = busy_world()
    parts = parts_of(a_world)
    exact, digest = (gathered(a_world, parts, kind).metrics() for kind in (True, False))
    assert set(exact) == set(digest)
    for name, value in exact.items():
        close = 0.05 if name.startswith("latency_p") else 1e-6
        assert digest[name] == pytest.approx(value, rel=close), name
    assert gathered(a_world, parts, True).summary is None
    assert gathered(a_world, parts, False).summary is not None


def test_devices_and_groups_are_those_of_the_whole_run():
    a_world = busy_world()
    run = run_of(a_world, FixedExit(2), SAYS)
    gathering = gathered(a_world, [run])
    rows = run.measured(a_world)
    received_s = np.where(run.answered, run.received_s, np.nan)[rows]
    columns = run.requests.created_s[rows], received_s, run.correct[rows], run.outcome[rows]
    for counts, owner, owners in (
        (gathering.devices, run.requests.device, 8),
        (gathering.devices.of_groups(a_world), run.requests.group, 2),
    ):
        expected = outcome_table(owner[rows], owners, *columns)
        pd.testing.assert_frame_equal(counts.table(), expected)
    assert gathering.metrics()["jain_aud"] == jain_index(gathering.devices.aud)
    assert gathering.devices.offered.sum() == rows.sum()


def test_there_is_no_energy_where_nothing_has_power_states():
    a_world = busy_world()
    metrics = gathered(a_world, parts_of(a_world)).metrics()
    assert not [name for name in metrics if name.endswith("_j") or "j_per" in name]


# --- telemetry and trace -------------------------------------------------------------------------


@pytest.mark.usefixtures("many_slices")
def test_telemetry_of_slices_is_that_of_the_whole_run():
    a_world = busy_world()
    parts = parts_of(a_world, Confidence(0.7))
    telemetry = Telemetry(a_world, 0.5)
    gathered(a_world, parts, True, telemetry)
    whole = Run.joined(parts)
    edges = np.arange(47) * 0.5
    expected = node_telemetry(whole.visits, ["edge"], [2], edges)
    pd.testing.assert_frame_equal(telemetry.nodes(), expected, atol=1e-9)
    assert (expected["utilisation"] > 0.2).any()
    answered_s = np.where(whole.answered, whole.received_s, np.nan)
    requests = request_telemetry(
        whole.requests.created_s, answered_s, whole.correct, whole.outcome, edges
    )
    pd.testing.assert_frame_equal(telemetry.requests(), requests, check_dtype=False)


def test_telemetry_reaches_from_the_start_to_the_end_of_the_window():
    a_world = busy_world()
    telemetry = Telemetry(a_world, 1.0)
    gathered(a_world, parts_of(a_world), True, telemetry)
    assert telemetry.nodes()["time_s"].tolist() == [float(second) for second in range(23)]
    down = telemetry.nodes().set_index("time_s").loc[8.0]
    assert (down["queue_length"], down["utilisation"]) == (0.0, 0.0), "the node is down"


@pytest.mark.usefixtures("many_slices")
def test_a_trace_shows_the_requests_of_its_window_with_their_numbers_in_the_records():
    a_world = busy_world()
    parts = parts_of(a_world)
    trace = Trace(a_world, 12.0, 13.0)
    gathered(a_world, parts, True, trace)
    whole = Run.joined(parts)
    ended_s = np.where(
        whole.answered, whole.received_s, np.fmax(whole.requests.created_s, whole.released_s)
    )
    created_s = whole.requests.created_s
    under_way = (created_s < 13.0) & ((ended_s > 12.0) | (created_s >= 12.0))
    events = trace.events()
    shown = {event["args"]["request"] for event in events if event["ph"] == "X"}
    assert shown == set(whole.index[under_way].tolist())
    at_devices = [event for event in events if "deadline_ms" in event.get("args", {})]
    for event in at_devices:
        row = event["args"]["request"]
        assert event["args"]["created_s"] == created_s[row]
    waits = [event for event in events if event["ph"] == "X" and event["name"] == "service"]
    assert len(waits) == np.isin(whole.visits.request, whole.index[under_way]).sum()


def test_a_trace_of_a_window_without_requests_is_empty_of_them():
    a_world = written_world([1.0], [0.1])
    trace = Trace(a_world, 50.0, 51.0)
    gathered(a_world, [run_of(a_world)], True, trace)
    assert [event for event in trace.events() if event["ph"] == "X"] == []


def test_devices_that_compute_show_in_the_trace_where_they_are_seen():
    one = DistributedService(Constant(0.1), 1)
    a_world = world(group(count=3, arrivals=Poisson(1.0), service=one), node(one), duration_s=10.0)
    trace = Trace(a_world, 4.0, 6.0)
    says = predictions()
    gathered(a_world, parts_of(a_world, FixedExit(1), says), True, trace)
    names = {event["args"]["name"] for event in trace.events() if event["name"] == "process_name"}
    assert {"devices", "node edge"} < names
    assert names - {"devices", "node edge"} <= {f"node devices-{number}" for number in range(3)}


def test_a_closed_loop_is_gathered_too():
    a_world = world(group(count=4, arrivals=ClosedLoop(Exponential(0.5))), duration_s=30.0)
    parts = parts_of(a_world, FixedExit(1), predictions())
    metrics = gathered(a_world, parts).metrics()
    assert metrics["offered"] == Run.joined(parts).measured(a_world).sum() > 50
