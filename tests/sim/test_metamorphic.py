"""What must become of a world's results when the world is changed in a known way."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from random_worlds import (
    EXITS,
    SAMPLES,
    Slower,
    open_arrivals,
    policies,
    scaled,
    seconds,
    seeds,
    worlds,
)
from tiny_worlds import examples, group, node, random_predictions, run_of, world

from sim.distributions import Exponential, Gamma, Lognormal, Uniform
from sim.network.capacity import ConstantCapacity
from sim.network.links import Direction, Link
from sim.nodes.service import DistributedService
from sim.outcomes import ON_TIME
from sim.policies import FixedExit
from sim.results.run import Run
from sim.running.ahead import Ahead
from sim.running.slices import Slices
from sim.running.stepwise import Stepwise
from sim.workload.arrivals import ClosedLoop, OnOff, Poisson

SAYS = random_predictions(SAMPLES, EXITS, seed=1)
TIMES = ["arrived_s", "started_s", "finished_s", "received_s", "released_s"]
CHOICES = ["node", "exit", "predicted", "confidence", "correct", "outcome"]


def assert_same(one, other, factor=1.0, rtol=0.0):
    """Runs of the same requests, with the same decisions, at times that differ by a factor."""
    np.testing.assert_array_equal(one.requests.device, other.requests.device)
    np.testing.assert_array_equal(one.requests.number, other.requests.number)
    for name in CHOICES:
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name), err_msg=name)
    for name in TIMES:
        pair = getattr(one, name) * factor, getattr(other, name)
        np.testing.assert_allclose(*pair, rtol=rtol, atol=0.0, err_msg=name)
    created = one.requests.created_s * factor, other.requests.created_s
    np.testing.assert_allclose(*created, rtol=rtol, atol=0.0)


def with_engine(kind, a_world, policy):
    """A run by one of the two engines, whichever the world would take."""
    engine = kind(a_world, Slices(a_world, SAYS.label, 0), SAYS, policy, 1.0)
    return Run.joined(list(engine.parts()))


# --- another unit of time ------------------------------------------------------------------------


@given(worlds(lossy=False), policies(), st.sampled_from([0.125, 2.0, 1024.0]))
@examples(40)
def test_scaling_all_times_by_a_power_of_two_scales_every_time_exactly(a_world, policy, factor):
    """Nothing in the simulator is a time of its own: in floating point, no digit changes."""
    slower = scaled(a_world, factor)
    assert slower.horizon_s == a_world.horizon_s * factor
    assert_same(run_of(a_world, policy, SAYS), run_of(slower, policy, SAYS), factor)


@given(seeds().map(seconds), st.floats(0.01, 100.0))
@examples(10)
def test_scaling_all_times_by_any_number_scales_every_time(mean_s, factor):
    link = Link(Direction(Gamma(0.1, 0.05), ConstantCapacity(1e5)), Direction(Exponential(0.1)), 2)
    a_world = world(
        group("bursts", 3, OnOff(3.0, 0.2, 1.0, 2.0), Uniform(0.3, 2.0), link),
        group("loops", 2, ClosedLoop(Exponential(1.0)), Uniform(0.3, 2.0), link),
        node(Lognormal(mean_s, 0.5), workers=2, discipline="edf"),
        duration_s=20.0,
    )
    slower = scaled(a_world, factor)
    assert_same(run_of(a_world), run_of(slower), factor, rtol=1e-9)


# --- neighbours that share nothing ---------------------------------------------------------------


@given(worlds(), policies(), open_arrivals(), st.booleans())
@examples(40)
def test_devices_with_a_node_and_a_link_of_their_own_change_no_others_records(
    a_world, policy, arrivals, first
):
    a_world = dataclasses.replace(a_world, mqtt=None)  # a broker would be shared
    added = group("added", 3, arrivals, Uniform(0.1, 1.0), node="lonely")
    added = dataclasses.replace(added, link="aside")
    lonely = node(DistributedService(Exponential(0.2), EXITS), "lonely")
    aside = {"aside": Link(Direction(Gamma(0.1, 0.05), ConstantCapacity(1e5)), Direction())}
    parts = (aside, a_world.links) if first else (a_world.links, aside)
    more = dataclasses.replace(
        a_world,
        groups=(added, *a_world.groups) if first else (*a_world.groups, added),
        nodes=(lonely, *a_world.nodes) if first else (*a_world.nodes, lonely),
        links=parts[0] | parts[1],
    )
    alone, among = by_device(a_world, policy), by_device(more, policy)
    assert set(among) - set(alone) <= {"added-0", "added-1", "added-2"}
    for name, columns in alone.items():
        for before, after in zip(columns, among[name], strict=True):
            np.testing.assert_array_equal(before, after)


def by_device(a_world, policy):
    """Each device's requests: all that is recorded of them, but for their place among all."""
    run = run_of(a_world, policy, SAYS)
    servers = np.array([a_world.server_name(server) for server in run.node.tolist()], dtype=object)
    columns = [getattr(run, name) for name in TIMES + CHOICES if name != "node"]
    columns += [run.requests.created_s, run.requests.number, run.deadline_s, servers]
    return {
        name: [column[run.requests.device == device] for column in columns]
        for device, name in enumerate(map(a_world.device_name, range(a_world.devices)))
    }


# --- how it is computed --------------------------------------------------------------------------


def assert_cuts_change_nothing(a_world, policy, requests):
    """``requests``: of a slice of time, about; else all of them are in one."""
    whole = run_of(a_world, policy, SAYS)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sim.running.slices.SLICE_REQUESTS", requests)
        cut = run_of(a_world, policy, SAYS)
    assert_same(whole, cut, rtol=1e-12)


@given(worlds(stepwise=False, ties=False), policies(), st.integers(1, 40))
@examples(30)
def test_where_slices_of_time_are_cut_changes_nothing(a_world, policy, requests):
    assert_cuts_change_nothing(a_world, policy, requests)


@given(worlds(stepwise=False), policies(), st.integers(1, 40))
@examples(30)
def test_cuts_change_nothing_where_messages_are_held_back(a_world, policy, requests):
    """With workers that do not finish together: their order would be that of events."""
    alone = {"replicas": 1, "workers": 1, "batch_size": 1, "batch_wait_s": 0.0}
    nodes = tuple(dataclasses.replace(spec, **alone) for spec in a_world.nodes)
    assert_cuts_change_nothing(dataclasses.replace(a_world, nodes=nodes), policy, requests)


@given(worlds(stepwise=False, ties=False), policies())
@examples(40)
def test_messages_ahead_and_messages_step_by_step_agree(a_world, policy):
    ahead, stepwise = (with_engine(kind, a_world, policy) for kind in (Ahead, Stepwise))
    assert_same(ahead, stepwise, rtol=1e-12)


# --- monotony, under common random numbers -------------------------------------------------------


@given(worlds(), st.integers(1, EXITS), st.floats(0.1, 1.0), st.floats(1.0, 5.0))
@examples(20)
def test_a_longer_deadline_never_costs_an_answer_in_time(a_world, exit, short, long):
    """Of policies and nodes that do not look at deadlines; request by request."""
    plain = tuple(
        dataclasses.replace(spec, discipline="fifo", admission="all") for spec in a_world.nodes
    )
    # Who waits for an answer that does not come gives up at the deadline.
    groups = tuple(
        dataclasses.replace(one, arrivals=Poisson(2.0))
        if isinstance(one.arrivals, ClosedLoop)
        else one
        for one in a_world.groups
    )
    a_world = dataclasses.replace(a_world, nodes=plain, groups=groups)
    in_time = [
        run_of(a_world, FixedExit(exit), SAYS, deadline_scale=scale).outcome == ON_TIME
        for scale in (short, long)
    ]
    assert not (in_time[0] & ~in_time[1]).any()


SHARED = Link(Direction(Gamma(0.1, 0.05), ConstantCapacity(5e4)), Direction(), 3)
OWN = dataclasses.replace(SHARED, shared_by=1)
FASTER = dataclasses.replace(SHARED.uplink, capacity=ConstantCapacity(1e5))


def fifo(rate_hz=1.0, count=6, workers=2, slowness=1.0, link=SHARED):
    edge = node(Lognormal(0.2, 0.8), workers=workers)
    edge = dataclasses.replace(edge, service=Slower(edge.service, slowness))
    return world(
        group("devices", count, Poisson(rate_hz), link=link), edge, duration_s=100.0, seed=3
    )


@pytest.mark.parametrize(
    "relief", [{"workers": 3}, {"slowness": 0.8}], ids=["a worker more", "a faster node"]
)
def test_relief_makes_no_request_of_a_fifo_node_start_later(relief):
    loaded, relieved = run_of(fifo()), run_of(fifo(**relief))
    np.testing.assert_array_equal(relieved.arrived_s, loaded.arrived_s)
    assert (relieved.started_s <= loaded.started_s).all()
    assert (relieved.started_s < loaded.started_s).mean() > 0.2


@pytest.mark.parametrize(
    "relief", [OWN, Link(FASTER, SHARED.downlink, 3)], ids=["a link for each", "more bandwidth"]
)
def test_a_better_link_makes_no_request_arrive_later(relief):
    loaded, relieved = run_of(fifo()), run_of(fifo(link=relief))
    assert (relieved.arrived_s <= loaded.arrived_s + 1e-9).all()
    assert (relieved.arrived_s < loaded.arrived_s - 1e-9).mean() > 0.2


def test_more_devices_make_no_request_of_a_fifo_node_start_earlier():
    few, many = run_of(fifo(count=4, link=OWN)), run_of(fifo(count=6, link=OWN))
    same = many.requests.device < 4
    np.testing.assert_array_equal(many.arrived_s[same], few.arrived_s)
    assert (many.started_s[same] >= few.started_s).all()
    assert (many.started_s[same] > few.started_s).mean() > 0.2
