"""Request by request: the simulator against recursions that know nothing of events.

They take the times of creation and the service times from the simulator, and nothing else. What
they say of every other time must be what the simulator says, to the last bit where both add the
same numbers.
"""

from heapq import heapify, heapreplace

import numpy as np
import pytest
from tiny_worlds import group, node, run_of, world

from sim.distributions import Constant, Exponential, Gamma, Lognormal, Uniform
from sim.network.capacity import ConstantCapacity
from sim.network.links import Direction, Link
from sim.network.mqtt import Mqtt
from sim.outcomes import DROPPED
from sim.workload.arrivals import Diurnal, OnOff, Periodic, Poisson

ARRIVALS = {
    "poisson": Poisson(0.3),
    "periodic": Periodic(0.3),
    "periodic with jitter": Periodic(0.3, jitter_s=2.0),
    "on/off": OnOff(1.5, 0.0, 4.0, 16.0),
    "diurnal": Diurnal(((0.0, 0.0), (50.0, 0.8), (100.0, 0.0))),
}
SERVICES = {
    "constant": Constant(0.8),
    "exponential": Exponential(0.8),
    "lognormal": Lognormal(0.5, 0.9),
    "gamma": Gamma(0.8, 0.2),
    "uniform": Uniform(0.0, 1.6),
}
LINK = Link(Direction(Gamma(0.4, 0.3), ConstantCapacity(80_000.0)), Direction())


# --- recursions ----------------------------------------------------------------------------------


def by_recursion(arrived, service, workers=1):
    """Starts and ends of service, in the order of arrival.

    Lindley (1952) for one worker, Kiefer & Wolfowitz (1955) for several.
    """
    started, finished = np.empty(len(arrived)), np.empty(len(arrived))
    free = [0.0] * workers
    heapify(free)
    for request in np.argsort(arrived, kind="stable"):
        started[request] = max(arrived[request], free[0])
        finished[request] = started[request] + service[request]
        heapreplace(free, finished[request])
    return started, finished


def by_rank(arrived, service, rank):
    """Starts of service by one worker that takes the lowest rank of those who wait."""
    started, waiting, now = np.empty(len(arrived)), [], 0.0
    coming = np.argsort(arrived, kind="stable").tolist()
    while coming or waiting:
        if not waiting:
            now = max(now, arrived[coming[0]])
        while coming and arrived[coming[0]] <= now:
            waiting.append(coming.pop(0))
        taken = min(waiting, key=lambda request: (rank[request], arrived[request]))
        waiting.remove(taken)
        started[taken] = now
        now += service[taken]
    return started


def with_places(arrived, service, workers, places):
    """Starts of service where so many may be at the node; NaN if refused."""
    started, ends = np.full(len(arrived), np.nan), []
    for request in np.argsort(arrived, kind="stable"):
        there = [end for end in ends if end > arrived[request]]
        if len(there) < places:
            # A worker is free once all but workers - 1 of those ahead are gone.
            ahead = sorted(there)
            free = ahead[-workers] if len(ahead) >= workers else arrived[request]
            started[request] = free
            there.append(free + service[request])
        ends = there
    return started


def in_batches(arrived, service, size, wait):
    """Starts and ends of service by one worker; a batch takes as long as its slowest member."""
    started, finished = np.empty(len(arrived)), np.empty(len(arrived))
    order, first, free = np.argsort(arrived, kind="stable"), 0, 0.0
    times = arrived[order]
    while first < len(order):
        full = times[first + size - 1] if first + size <= len(order) else np.inf
        start = max(free, min(full, times[first] + wait))
        there = min(np.searchsorted(times, start, side="right"), first + size)
        batch = order[first:there]
        free = start + service[batch].max()
        started[batch], finished[batch] = start, free
        first = there
    return started, finished


def over_a_link(sent, queue, transmission):
    """When messages of each queue have left it, in the order in which they were sent."""
    left, free = np.empty(len(sent)), {}
    for message in np.argsort(sent, kind="stable"):
        begin = max(sent[message], free.get(queue[message], 0.0))
        left[message] = free[queue[message]] = begin + transmission
    return left


# --- one queue -----------------------------------------------------------------------------------


@pytest.mark.parametrize("service", SERVICES.values(), ids=SERVICES)
@pytest.mark.parametrize("arrivals", ARRIVALS.values(), ids=ARRIVALS)
def test_gg1_agrees_with_lindley(arrivals, service):
    a_world = world(
        group(count=3, arrivals=arrivals, link=LINK), node(service), duration_s=1000.0, seed=7
    )
    run = run_of(a_world)
    started, finished = by_recursion(run.arrived_s, service.ppf(run.requests.service_u))
    assert len(run) > 600
    assert (started > run.arrived_s).mean() > 0.3, "too few requests wait to show anything"
    np.testing.assert_array_equal(run.started_s, started)
    np.testing.assert_array_equal(run.finished_s, finished)


@pytest.mark.parametrize("service", SERVICES.values(), ids=SERVICES)
def test_waits_of_one_device_follow_lindleys_own_equation(service):
    """W' = max(0, W + S - A), of waits alone."""
    a_world = world(group(arrivals=OnOff(3.0, 0.1, 4.0, 12.0)), node(service), duration_s=2000.0)
    run = run_of(a_world)
    waits = run.started_s - run.arrived_s
    grows = service.ppf(run.requests.service_u)[:-1] - np.diff(run.arrived_s)
    assert (waits > 0).mean() > 0.3
    np.testing.assert_allclose(waits[1:], np.maximum(0.0, waits[:-1] + grows), atol=1e-9)


@pytest.mark.parametrize("workers", [2, 4])
@pytest.mark.parametrize("arrivals", ARRIVALS.values(), ids=ARRIVALS)
def test_ggc_agrees_with_kiefer_and_wolfowitz(arrivals, workers):
    service = Lognormal(0.7, 0.9)
    a_world = world(
        group(count=3 * workers, arrivals=arrivals, link=LINK),
        node(service, workers=workers),
        duration_s=800.0,
        seed=7,
    )
    run = run_of(a_world)
    started, finished = by_recursion(run.arrived_s, service.ppf(run.requests.service_u), workers)
    assert (started > run.arrived_s).mean() > 0.3, "too few requests wait to show anything"
    np.testing.assert_array_equal(run.started_s, started)
    np.testing.assert_array_equal(run.finished_s, finished)


@pytest.mark.parametrize("arrivals", ARRIVALS.values(), ids=ARRIVALS)
@pytest.mark.parametrize("discipline", ["edf", "priority"])
def test_gg1_takes_the_most_urgent(discipline, arrivals):
    service = Exponential(0.8)
    groups = [
        group(f"class{rank}", 1, arrivals, Uniform(0.5, 20.0), priority=-rank) for rank in range(3)
    ]
    a_world = world(*groups, node(service, discipline=discipline), duration_s=1000.0, seed=8)
    run = run_of(a_world)
    requests = run.requests
    rank = requests.created_s + requests.deadline_s if discipline == "edf" else requests.group
    started = by_rank(run.arrived_s, service.ppf(requests.service_u), rank)
    in_order, _ = by_recursion(run.arrived_s, service.ppf(requests.service_u))
    assert (started != in_order).mean() > 0.2, "too few overtake to show anything"
    np.testing.assert_array_equal(run.started_s, started)


@pytest.mark.parametrize("arrivals", ARRIVALS.values(), ids=ARRIVALS)
@pytest.mark.parametrize(("workers", "places"), [(1, 1), (1, 3), (3, 3), (2, 5)])
def test_ggck_refuses_who_finds_no_place(workers, places, arrivals):
    service = Gamma(0.9, 0.7)
    a_world = world(
        group(count=4 * workers, arrivals=arrivals),
        node(service, workers=workers, queue_limit=places - workers),
        duration_s=600.0,
        seed=9,
    )
    run = run_of(a_world)
    started = with_places(run.arrived_s, service.ppf(run.requests.service_u), workers, places)
    assert 0.05 < np.isnan(started).mean() < 0.8
    np.testing.assert_array_equal(run.started_s, started)
    np.testing.assert_array_equal(run.outcome == DROPPED, np.isnan(started))


@pytest.mark.parametrize("arrivals", ARRIVALS.values(), ids=ARRIVALS)
@pytest.mark.parametrize(("size", "wait_s"), [(3, 0.0), (4, 1.5), (2, 100.0)])
def test_batches_agree_with_a_recursion(size, wait_s, arrivals):
    service = Gamma(0.9, 0.7)
    a_world = world(
        group(count=6, arrivals=arrivals),
        node(service, batch_size=size, batch_wait_s=wait_s),
        duration_s=600.0,
        seed=10,
    )
    run = run_of(a_world)
    drawn = service.ppf(run.requests.service_u)
    started, finished = in_batches(run.arrived_s, drawn, size, wait_s)
    np.testing.assert_array_equal(run.started_s, started)
    np.testing.assert_array_equal(run.finished_s, finished)


# --- several queues ------------------------------------------------------------------------------


def test_nodes_do_not_disturb_each_other():
    service = Exponential(0.8)
    cameras = group("cameras", 2, Poisson(0.5), link=LINK, node="near")
    meters = group("meters", 3, Periodic(0.4), link=LINK, node="far")
    a_world = world(
        cameras, meters, node(service, "near"), node(service, "far", 2), duration_s=2000.0
    )
    run = run_of(a_world)
    for index, workers in enumerate((1, 2)):
        here = run.node == index
        drawn = service.ppf(run.requests.service_u)[here]
        started, finished = by_recursion(run.arrived_s[here], drawn, workers)
        np.testing.assert_array_equal(run.started_s[here], started)
        np.testing.assert_array_equal(run.finished_s[here], finished)


@pytest.mark.parametrize("arrivals", ARRIVALS.values(), ids=ARRIVALS)
@pytest.mark.parametrize("shared_by", [1, 3, 6])
def test_link_then_node_then_link_agree_with_three_recursions(shared_by, arrivals):
    """Six devices on access points of ``shared_by`` each; 1 s on air up, 0.75 s down."""
    up = Direction(Constant(0.25), ConstantCapacity(8000.0))
    down = Direction(Constant(0.5), ConstantCapacity(8000.0))
    service = Lognormal(0.3, 0.6)
    a_world = world(
        group(
            count=6,
            arrivals=arrivals,
            link=Link(up, down, shared_by),
            request_bytes=1000,
            response_bytes=750,
        ),
        node(service),
        duration_s=1000.0,
        seed=11,
    )
    run = run_of(a_world)
    point = run.requests.device // shared_by
    arrived = over_a_link(run.requests.created_s, point, 1.0) + 0.25
    np.testing.assert_allclose(run.arrived_s, arrived, rtol=1e-12)
    _, finished = by_recursion(run.arrived_s, service.ppf(run.requests.service_u))
    np.testing.assert_array_equal(run.finished_s, finished)
    received = over_a_link(run.finished_s, point, 0.75) + 0.5
    np.testing.assert_allclose(run.received_s, received, rtol=1e-12)


def test_broker_serves_both_directions_each_in_the_order_of_time():
    processing = Constant(0.6)
    a_world = world(
        group(count=4, arrivals=Poisson(0.3)),
        node(Exponential(0.6)),
        mqtt=Mqtt(qos=0, processing=processing),
        duration_s=1000.0,
    )
    run = run_of(a_world)
    one = np.zeros(len(run), dtype=int)
    arrived = over_a_link(run.requests.created_s, one, 0.6)
    assert (arrived > run.requests.created_s + 0.61).mean() > 0.3
    np.testing.assert_allclose(run.arrived_s, arrived, rtol=1e-12)
    received = over_a_link(run.finished_s, one, 0.6)
    np.testing.assert_allclose(run.received_s, received, rtol=1e-12)
