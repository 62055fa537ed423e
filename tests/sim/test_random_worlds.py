"""Laws that hold in every world, whatever it is made of: nothing is lost or served twice."""

import dataclasses
from itertools import pairwise

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from random_worlds import EXITS, SAMPLES, policies, worlds
from tiny_worlds import examples, random_predictions, records_of, run_of

from sim.outcomes import DROPPED, LATE, LOST, ON_TIME
from sim.results.metrics import run_metrics
from sim.results.telemetry import bin_edges, node_telemetry


def check_outcomes(a_world, run):
    """Each request is there once, with an outcome that its times explain."""
    assert run.index.tolist() == list(range(len(run)))
    created_s = run.requests.created_s
    assert (np.diff(created_s) >= 0).all()
    assert ((created_s >= 0) & (created_s < a_world.horizon_s)).all()
    answered = ~np.isnan(run.received_s)
    in_time = run.received_s - created_s <= run.deadline_s
    expected = np.where(in_time, ON_TIME, LATE)
    np.testing.assert_array_equal(run.outcome[answered], expected[answered])
    assert np.isin(run.outcome[~answered], [DROPPED, LOST]).all()
    assert (run.exit[answered] > 0).all()
    # Each number of a device once, none left out, and in the order of time; who was away leaves
    # gaps behind.
    away = any(fault.kind == "device_churn" for fault in a_world.faults)
    for device in range(a_world.devices):
        numbers = run.requests.number[run.requests.device == device]
        assert (np.diff(numbers) >= 1).all()
        if not away:
            assert numbers.tolist() == list(range(len(numbers)))


def check_metrics(a_world, run):
    """Requests offered are those of all outcomes together."""
    metrics = run_metrics(a_world, run)
    measured = run.requests.created_s >= a_world.warm_up_s
    assert metrics["offered"] == measured.sum()
    outcomes = [metrics[name] for name in ("on_time", "late", "dropped", "lost")]
    assert metrics["offered"] == sum(outcomes)
    assert metrics["answered"] == sum(outcomes[:2])
    assert not metrics["offered"] or 0 <= metrics["aud"] <= metrics["hit_ratio"] <= 1
    assert len(records_of(a_world, run, random_predictions(SAMPLES, EXITS, 1))) == sum(outcomes)


def check_times(run):
    """What happens to a request happens in order."""
    columns = [run.requests.created_s, run.arrived_s, run.started_s, run.finished_s, run.received_s]
    for earlier, later in pairwise(columns):
        assert not (earlier > later).any()
    assert not (run.requests.created_s > run.received_s).any()


def check_nodes(a_world, run):
    """Nobody serves more than it has workers for, and Little's law holds to the last digit."""
    visits = run.visits
    assert not (visits.arrived_s > visits.started_s).any()
    assert not (visits.started_s > visits.left_s).any()
    assert not np.isnan(visits.left_s).any()
    specs = a_world.node_specs
    workers = [spec.workers for spec in specs] + [1] * len(a_world.computing_devices)
    sizes = [spec.batch_size for spec in specs] + [1] * len(a_world.computing_devices)
    services = visits.services()
    for index in range(len(workers)):
        mine = services.node == index
        begins, ends = np.sort(services.started_s[mine]), np.sort(services.ended_s[mine])
        busy = np.arange(1, len(begins) + 1) - np.searchsorted(ends, begins, side="right")
        assert busy.max(initial=0) <= workers[index], a_world.server_name(index)
        assert visits.of_node(index).batch.max(initial=1) <= sizes[index]
    if not len(visits):
        return
    edges = bin_edges(0.0, float(visits.left_s.max()) + 1.0, 0.7)
    table = node_telemetry(
        visits, [a_world.server_name(it) for it in range(a_world.servers)], workers, edges
    )
    assert (table["utilisation"] <= 1 + 1e-9).all()
    width = np.tile(np.diff(edges), len(workers))
    for index, name in enumerate([a_world.server_name(it) for it in range(a_world.servers)]):
        here, mine = (table["node"] == name).to_numpy(), visits.of_node(index)
        number = ((table["queue_length"] + table["in_service"]) * width)[here].sum()
        np.testing.assert_allclose(number, (mine.left_s - mine.arrived_s).sum(), atol=1e-6)
        for rate in ("arrivals_hz", "departures_hz"):
            assert round((table[rate] * width)[here].sum()) == len(mine)


@given(worlds(), policies(), st.integers(0, 5), st.sampled_from([0.5, 1.0, 3.0]))
@examples(60)
def test_laws_of_every_world(a_world, policy, replication, deadline_scale):
    says = random_predictions(SAMPLES, EXITS, seed=1)
    run = run_of(a_world, policy, says, replication, deadline_scale)
    check_outcomes(a_world, run)
    check_metrics(a_world, run)
    check_times(run)
    check_nodes(a_world, run)


@given(worlds(stepwise=False), policies())
@examples(30)
def test_what_is_offered_depends_on_the_devices_alone(a_world, policy):
    """Neither network, nodes, faults nor policy make requests come or go."""
    says = random_predictions(SAMPLES, EXITS, seed=1)
    stays = tuple(fault for fault in a_world.faults if fault.kind != "device_churn")
    a_world = dataclasses.replace(a_world, faults=stays)
    run = run_of(a_world, policy, says)
    bare = dataclasses.replace(
        a_world,
        groups=tuple(dataclasses.replace(one, node="near") for one in a_world.groups),
        nodes=tuple(spec for spec in a_world.nodes if spec.name in ("near", "cloud")),
        mqtt=None,
        faults=(),
    )
    offered = run_of(bare, policy, says).requests
    for field in ("group", "device", "number", "created_s", "deadline_s", "sample", "service_u"):
        np.testing.assert_array_equal(getattr(run.requests, field), getattr(offered, field))


@given(worlds(), policies())
@examples(20)
def test_without_faults_nothing_is_lost(a_world, policy):
    a_world = dataclasses.replace(a_world, faults=())
    run = run_of(a_world, policy, random_predictions(SAMPLES, EXITS, seed=1))
    assert not (run.outcome == LOST).any()
