"""The simulator against queueing theory, and against recursions that know nothing of SimPy.

Mean service time is 1 s throughout, so that the arrival rate of all devices together is the load
of one worker.
"""

import math
from heapq import heapify, heapreplace

import numpy as np
import pytest
from tiny_worlds import assert_confirms, group, node, records_of, run_of, world

from sim.distributions import Constant, Exponential, Gamma, Lognormal
from sim.links import Direction, Link
from sim.metrics import run_metrics
from sim.workload import Periodic, Poisson

DEVICES = 5


def queue(load, service, workers=1, warm_up_s=1000.0, duration_s=10_000.0, seed=1, deadline=1.0):
    """Poisson devices that bring ``load`` to each of the node's workers."""
    devices = group(count=DEVICES, arrivals=Poisson(load * workers / DEVICES), deadline=deadline)
    edge = node(service, workers=workers)
    return world(devices, edge, warm_up_s=warm_up_s, duration_s=duration_s, seed=seed)


def waits(a_world, replication):
    """Waiting times of the requests of the measured window."""
    run = run_of(a_world, replication=replication)
    requests = run.workload.requests
    return (run.started_s - requests.arrived_s)[run.measured(a_world)]


def erlang_c(workers, offered):
    """Probability that a request of an M/M/c queue waits (Erlang 1917)."""
    terms = [offered**k / math.factorial(k) for k in range(workers)]
    last = offered**workers / math.factorial(workers) * workers / (workers - offered)
    return last / (sum(terms) + last)


# --- means in the steady state -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("load", "duration_s", "replications"),
    [(0.3, 12_000.0, 20), (0.7, 12_000.0, 20), (0.9, 40_000.0, 24)],
)
def test_mm1_mean_waiting_time(load, duration_s, replications):
    a_world = queue(load, Exponential(1.0), warm_up_s=3000.0, duration_s=duration_s)
    means = [waits(a_world, replication).mean() for replication in range(replications)]
    assert_confirms(load / (1 - load), means, within=0.1)


@pytest.mark.parametrize("workers", [2, 5])
def test_mmc_mean_waiting_time_and_share_of_requests_that_wait(workers):
    load = 0.8
    a_world = queue(load, Exponential(1.0), workers, duration_s=40_000.0 / workers, seed=2)
    waited = [waits(a_world, replication) for replication in range(14)]
    waiting = erlang_c(workers, load * workers)
    assert_confirms(waiting, [(one > 0).mean() for one in waited], within=0.05)
    assert_confirms(waiting / (workers * (1 - load)), [one.mean() for one in waited], within=0.1)


def test_md1_mean_waiting_time():
    load = 0.7
    a_world = queue(load, Constant(1.0), duration_s=12_000.0, seed=3)
    means = [waits(a_world, replication).mean() for replication in range(14)]
    assert_confirms(load / (2 * (1 - load)), means, within=0.1)


def test_mg1_mean_waiting_time_is_that_of_pollaczek_and_khinchine():
    load, cv = 0.6, 1.5
    a_world = queue(load, Gamma(1.0, cv), duration_s=20_000.0, seed=4)
    means = [waits(a_world, replication).mean() for replication in range(14)]
    assert_confirms(load * (1 + cv**2) / (2 * (1 - load)), means, within=0.1)


def test_share_of_mm1_requests_answered_in_time():
    load, deadline_s = 0.7, 1.0
    a_world = queue(load, Exponential(1.0), duration_s=12_000.0, seed=5, deadline=deadline_s)
    for scale in (1.0, 4.0):
        shares = [
            run_metrics(a_world, run_of(a_world, replication=r, deadline_scale=scale))["hit_ratio"]
            for r in range(20)
        ]
        assert_confirms(1 - math.exp(-(1 - load) * scale * deadline_s), shares, within=0.05)


# --- Little's law --------------------------------------------------------------------------------


@pytest.mark.parametrize("workers", [1, 3])
def test_littles_law(workers):
    load = 0.7
    a_world = queue(load, Exponential(1.0), workers, duration_s=20_000.0 / workers, seed=6)
    random = np.random.default_rng(6)
    number, differences = [], []
    for replication in range(12):
        records = records_of(a_world, run_of(a_world, replication=replication))
        # The number in the system at random instants knows nothing of any request's own times
        # there: who has arrived by then, less who has left.
        instants = random.uniform(a_world.warm_up_s, a_world.horizon_s, 20_000)
        arrived = np.searchsorted(np.sort(records["arrived_s"]), instants, side="right")
        left = np.searchsorted(np.sort(records["finished_s"]), instants, side="right")
        rate = len(records) / a_world.duration_s
        sojourn = (records["finished_s"] - records["arrived_s"]).mean()
        number.append((arrived - left).mean())
        differences.append(number[-1] - rate * sojourn)
    if workers == 1:
        assert_confirms(load / (1 - load), number, within=0.12)
    assert np.abs(differences).max() < 0.05 * np.mean(number)
    assert abs(np.mean(differences)) < 0.01 * np.mean(number)


# --- request by request --------------------------------------------------------------------------

LINK = Link(Direction(Gamma(0.4, 0.3), bits_per_s=80_000.0), Direction())


def by_recursion(arrived, service, workers):
    """Starts and ends of service: the recursion of Lindley (1952), Kiefer & Wolfowitz (1955)."""
    started, finished = np.empty(len(arrived)), np.empty(len(arrived))
    free = [0.0] * workers
    heapify(free)
    for request in np.argsort(arrived, kind="stable"):
        started[request] = max(arrived[request], free[0])
        finished[request] = started[request] + service[request]
        heapreplace(free, finished[request])
    return started, finished


@pytest.mark.parametrize("workers", [1, 2, 4])
@pytest.mark.parametrize("arrivals", [Periodic(0.3), Poisson(0.3)])
def test_ggc_agrees_with_the_recursion_request_by_request(arrivals, workers):
    service = Lognormal(0.7, 0.9)
    a_world = world(
        group(count=3 * workers, arrivals=arrivals, link=LINK),
        node(service, workers=workers),
        duration_s=3000.0,
        seed=7,
    )
    run = run_of(a_world)
    requests = run.workload.requests
    started, finished = by_recursion(requests.arrived_s, service.ppf(requests.service_u), workers)
    assert len(requests) > 2500 * workers
    assert (started > requests.arrived_s).mean() > 0.3, "too few requests wait to show anything"
    np.testing.assert_array_equal(run.started_s, started)
    np.testing.assert_array_equal(run.finished_s, finished)


def test_nodes_do_not_disturb_each_other():
    service = Exponential(0.8)
    cameras = group("cameras", 2, Poisson(0.5), link=LINK, node="near")
    meters = group("meters", 3, Periodic(0.4), link=LINK, node="far")
    a_world = world(
        cameras, meters, node(service, "near"), node(service, "far", 2), duration_s=2000.0
    )
    run = run_of(a_world)
    requests = run.workload.requests
    for index, workers in enumerate((1, 2)):
        here = run.workload.node == index
        started, finished = by_recursion(
            requests.arrived_s[here], service.ppf(requests.service_u)[here], workers
        )
        np.testing.assert_array_equal(run.started_s[here], started)
        np.testing.assert_array_equal(run.finished_s[here], finished)
