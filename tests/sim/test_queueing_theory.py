"""The simulator against queueing theory.

Mean service time is 1 s throughout, so that the arrival rate of all devices together is the load
of one worker.
"""

import math

import numpy as np
import pytest
from closed_forms import (
    bulk_md1,
    cobham,
    erlang_c,
    gm1_wait,
    mmpp_m1_wait,
    on_off_phases,
    pollaczek_khinchine,
    sum_of_exponentials,
)
from confirming import confirm
from tiny_worlds import group, node, records_of, run_of, world

from sim.distributions import Constant, Exponential, Gamma, Uniform
from sim.network.capacity import ConstantCapacity
from sim.network.links import Direction, Link
from sim.network.mqtt import Mqtt
from sim.results.metrics import run_metrics
from sim.results.telemetry import bin_edges, node_telemetry
from sim.workload.arrivals import OnOff, Periodic, Poisson

DEVICES = 5


def queue(
    load, service, workers=1, warm_up_s=1000.0, duration_s=10_000.0, seed=1, deadline=1.0, **more
):
    """Poisson devices that bring ``load`` to each of the node's workers."""
    devices = group(count=DEVICES, arrivals=Poisson(load * workers / DEVICES), deadline=deadline)
    edge = node(service, workers=workers, **more)
    return world(devices, edge, warm_up_s=warm_up_s, duration_s=duration_s, seed=seed)


def waits(a_world, replication, **more):
    """Waiting times of the requests of the measured window."""
    run = run_of(a_world, replication=replication, **more)
    return (run.started_s - run.arrived_s)[run.measured(a_world)]


def mean_waits(a_world, replications):
    return [waits(a_world, replication).mean() for replication in range(replications)]


# --- one queue: means in the steady state --------------------------------------------------------


@pytest.mark.parametrize(
    ("load", "duration_s", "replications"),
    [(0.3, 12_000.0, 14), (0.7, 12_000.0, 20), (0.9, 40_000.0, 24)],
)
def test_mm1_mean_waiting_time(load, duration_s, replications):
    a_world = queue(load, Exponential(1.0), warm_up_s=3000.0, duration_s=duration_s)
    means = mean_waits(a_world, replications)
    confirm(f"M/M/1, load {load}: mean wait", load / (1 - load), means, within=0.1)


@pytest.mark.parametrize("workers", [2, 5])
def test_mmc_mean_waiting_time_and_share_of_requests_that_wait(workers):
    load = 0.8
    a_world = queue(load, Exponential(1.0), workers, duration_s=30_000.0 / workers, seed=2)
    waited = [waits(a_world, replication) for replication in range(14)]
    waiting = erlang_c(workers, load * workers)
    name = f"M/M/{workers}, load {load}"
    confirm(f"{name}: share that waits", waiting, [(one > 0).mean() for one in waited])
    mean = waiting / (workers * (1 - load))
    confirm(f"{name}: mean wait", mean, [one.mean() for one in waited], within=0.1)


def test_md1_mean_waiting_time():
    load = 0.7
    a_world = queue(load, Constant(1.0), duration_s=12_000.0, seed=3)
    means = mean_waits(a_world, 14)
    confirm("M/D/1, load 0.7: mean wait", pollaczek_khinchine(load, 0.0), means, within=0.1)


@pytest.mark.parametrize(("load", "cv"), [(0.6, 1.5), (0.8, 0.5)])
def test_mg1_mean_waiting_time_is_that_of_pollaczek_and_khinchine(load, cv):
    a_world = queue(load, Gamma(1.0, cv), duration_s=20_000.0, seed=4)
    name = f"M/G/1, gamma service with cv {cv}, load {load}: mean wait"
    confirm(name, pollaczek_khinchine(load, cv), mean_waits(a_world, 14), within=0.1)


def test_dm1_mean_waiting_time():
    load = 0.8
    a_world = world(
        group(arrivals=Periodic(load)),
        node(Exponential(1.0)),
        warm_up_s=1000.0,
        duration_s=20_000.0,
        seed=5,
    )
    expected = gm1_wait(lambda s: math.exp(-s / load))
    confirm("D/M/1, load 0.8: mean wait", expected, mean_waits(a_world, 14), within=0.1)


@pytest.mark.parametrize(("devices", "off_hz"), [(1, 0.0), (3, 0.1)])
def test_mmpp_m1_mean_waiting_time_is_that_of_its_quasi_birth_and_death_process(devices, off_hz):
    on_hz, mean_on_s, mean_off_s = 1.2 / devices, 20.0, 30.0
    bursts = OnOff(on_hz, off_hz, mean_on_s, mean_off_s)
    a_world = world(
        group(count=devices, arrivals=bursts),
        node(Exponential(1.0)),
        warm_up_s=2000.0,
        duration_s=40_000.0,
        seed=6,
    )
    expected = mmpp_m1_wait(*on_off_phases(devices, on_hz, off_hz, mean_on_s, mean_off_s))
    name = f"MMPP/M/1, {devices} on/off device{'s' * (devices > 1)}: mean wait"
    confirm(name, expected, mean_waits(a_world, 16), within=0.1)


def test_mmpp_with_one_rate_is_poisson_and_interrupted_poisson_is_a_renewal_process():
    """The closed forms against each other: the QBD where simpler theory holds as well."""
    phases = on_off_phases(2, 0.35, 0.35, 20.0, 30.0)
    assert mmpp_m1_wait(*phases) == pytest.approx(0.7 / 0.3)
    on, leave_on, leave_off = 1.2, 1 / 20, 1 / 30

    def gaps(s):  # Kuczura 1973, Laplace transform
        return on * (leave_off + s) / ((s + on + leave_on) * (s + leave_off) - leave_on * leave_off)

    assert mmpp_m1_wait(*on_off_phases(1, on, 0.0, 20.0, 30.0)) == pytest.approx(gm1_wait(gaps))


# --- one queue: distributions --------------------------------------------------------------------


def test_share_of_mm1_requests_answered_in_time():
    load, deadline_s = 0.7, 1.0
    a_world = queue(load, Exponential(1.0), duration_s=12_000.0, seed=5, deadline=deadline_s)
    for scale in (1.0, 4.0):
        shares = [
            run_metrics(a_world, run_of(a_world, replication=r, deadline_scale=scale))["hit_ratio"]
            for r in range(20)
        ]
        expected = 1 - math.exp(-(1 - load) * scale * deadline_s)
        confirm(f"M/M/1, load {load}: share within {scale * deadline_s} s", expected, shares)


def test_numbers_that_arrivals_find_in_an_mm1_queue_are_geometric():
    """Poisson arrivals see time averages; and so they must in a simulation (Wolff 1982)."""
    load = 0.6
    a_world = queue(load, Exponential(1.0), duration_s=12_000.0, seed=7)
    found = []
    for replication in range(12):
        run = run_of(a_world, replication=replication)
        left = np.searchsorted(np.sort(run.finished_s), run.arrived_s, side="right")
        there = np.arange(len(run)) - left
        found.append(there[run.measured(a_world)])
    for number in (0, 1, 3):
        shares = [(one == number).mean() for one in found]
        name = f"M/M/1, load {load}: share that finds {number}"
        confirm(name, (1 - load) * load**number, shares, within=0.1)


# --- order of service ----------------------------------------------------------------------------


def work_there(run, instants):
    """Seconds of work at a node with one worker at each instant, what is begun counts in part."""
    service_s = (run.finished_s - run.started_s)[np.argsort(run.arrived_s)]
    brought = np.cumsum(np.append(0.0, service_s))
    arrived = np.searchsorted(np.sort(run.arrived_s), instants, side="right")
    starts, ends = np.sort(run.started_s), np.sort(run.finished_s)
    done = np.cumsum(np.append(0.0, ends - starts))
    last = np.maximum(np.searchsorted(starts, instants, side="right") - 1, 0)
    served = done[last] + np.clip(instants, starts[last], ends[last]) - starts[last]
    return brought[arrived] - served


def test_edf_leaves_mm1_the_same_work_at_every_instant_and_the_same_mean_wait_as_fifo():
    load, deadline = 0.7, Uniform(1.0, 12.0)
    fifo, edf = (
        queue(load, Exponential(1.0), deadline=deadline, seed=8, discipline=discipline)
        for discipline in ("fifo", "edf")
    )
    instants = np.random.default_rng(8).uniform(0.0, fifo.horizon_s, 5000)
    mean_waits, gains = [], []
    for replication in range(20):
        in_order, by_deadline = (run_of(one, replication=replication) for one in (fifo, edf))
        work = work_there(in_order, instants)
        assert work.mean() > 1, "too little work to show anything"
        np.testing.assert_allclose(work_there(by_deadline, instants), work, atol=1e-6)
        assert (in_order.started_s != by_deadline.started_s).mean() > 0.3
        measured = by_deadline.measured(edf)
        mean_waits.append((by_deadline.started_s - by_deadline.arrived_s)[measured].mean())
        gains.append(
            run_metrics(edf, by_deadline)["hit_ratio"] - run_metrics(fifo, in_order)["hit_ratio"]
        )
    confirm("M/M/1 with EDF, load 0.7: mean wait", load / (1 - load), mean_waits, within=0.1)
    assert min(gains) > 0, "EDF answers fewer in time than FIFO"


def test_edf_lets_equal_services_leave_when_fifo_does_and_none_as_late():
    """Services that are alike begin at the same instants in any order; then Jackson's rule (1955)
    holds: no order has a smaller greatest lateness than that of the deadlines."""
    fifo, edf = (
        queue(0.8, Constant(1.0), deadline=Uniform(1.0, 12.0), seed=9, discipline=discipline)
        for discipline in ("fifo", "edf")
    )
    for replication in range(5):
        in_order, by_deadline = (run_of(one, replication=replication) for one in (fifo, edf))
        np.testing.assert_array_equal(np.sort(in_order.finished_s), np.sort(by_deadline.finished_s))
        greatest = [
            (run.finished_s - run.requests.created_s - run.deadline_s).max()
            for run in (in_order, by_deadline)
        ]
        assert greatest[1] < greatest[0]


def test_priorities_share_waiting_out_as_cobham_says():
    loads = [0.2, 0.3, 0.3]
    groups = [
        group(f"class{rank}", 1, Poisson(load), priority=-rank) for rank, load in enumerate(loads)
    ]
    edge = node(Exponential(1.0), discipline="priority")
    a_world = world(*groups, edge, warm_up_s=1000.0, duration_s=20_000.0, seed=10)
    runs = [run_of(a_world, replication=replication) for replication in range(16)]
    for rank, expected in enumerate(cobham(loads)):
        means = []
        for run in runs:
            mine = run.measured(a_world) & (run.requests.group == rank)
            means.append((run.started_s - run.arrived_s)[mine].mean())
        name = f"M/M/1 with three priorities: mean wait, class {rank + 1}"
        confirm(name, expected, means, within=0.12)


# --- batches -------------------------------------------------------------------------------------


def test_batches_of_poisson_requests_wait_as_bailey_says():
    load, size = 2.4, 4
    a_world = queue(load, Constant(1.0), duration_s=6000.0, seed=11, batch_size=size)
    runs = [run_of(a_world, replication=replication) for replication in range(12)]
    wait, batch = bulk_md1(load, size)
    means = [(run.started_s - run.arrived_s)[run.measured(a_world)].mean() for run in runs]
    name = f"M/D/1 in batches of up to {size}, load {load / size}"
    confirm(f"{name}: mean wait", wait, means)
    counts = [len(run) / len(run.visits.services().node) for run in runs]
    confirm(f"{name}: mean batch", batch, counts, within=0.02)


@pytest.mark.parametrize(("workers", "size"), [(1, 1), (1, 8), (2, 4)])
def test_full_batches_set_what_an_overloaded_node_can_do(workers, size):
    load = 1.5 * size
    a_world = queue(load, Constant(1.0), workers, 50.0, 500.0, batch_size=size)
    run = run_of(a_world)
    left_s = run.finished_s
    for begin, end in ((100.0, 300.0), (200.0, 500.0)):
        done = ((left_s >= begin) & (left_s < end)).sum()
        assert abs(done - workers * size * (end - begin)) <= workers * size
    assert run.visits.batch.max() == size


# --- queues in series ----------------------------------------------------------------------------


def through_a_broker(load, processing, workers=1, **more):
    """Device, broker, node and broker again, without any travel in between."""
    return world(
        group(count=DEVICES, arrivals=Poisson(load / DEVICES), **more.pop("of_group", {})),
        node(Exponential(1.0), workers=workers),
        mqtt=Mqtt(qos=0, processing=processing),
        warm_up_s=1000.0,
        seed=12,
        **more,
    )


def test_exponential_stations_in_series_are_a_jackson_network():
    """Burke (1956): what leaves M/M/c is Poisson again, so each station is alone with its load."""
    load, fast = 0.6, 1.25
    a_world = through_a_broker(load, Exponential(1 / fast), duration_s=20_000.0)
    parts = {"broker": [], "node": [], "broker on the way home": []}
    for replication in range(14):
        run = run_of(a_world, replication=replication)
        at = run.measured(a_world)
        created_s = run.requests.created_s
        parts["broker"].append((run.arrived_s - created_s)[at].mean())
        parts["node"].append((run.finished_s - run.arrived_s)[at].mean())
        parts["broker on the way home"].append((run.received_s - run.finished_s)[at].mean())
    for name, means in parts.items():
        rate = 1.0 if name == "node" else fast
        confirm(f"M/M/1 in series: mean time at the {name}", 1 / (rate - load), means, within=0.1)


def test_time_through_exponential_stations_in_series_is_a_sum_of_independent_exponential_times():
    """Reich (1957): sojourns of one request at the stations do not depend on each other."""
    load, fast, deadline_s = 0.6, 1.25, 6.0
    a_world = through_a_broker(
        load, Exponential(1 / fast), duration_s=20_000.0, of_group={"deadline": deadline_s}
    )
    shares = [
        run_metrics(a_world, run_of(a_world, replication=replication))["hit_ratio"]
        for replication in range(14)
    ]
    # Two stations with the same rate: the limit of two that differ by ever less.
    rates = [fast - load - 1e-4, fast - load + 1e-4, 1 - load]
    name = f"M/M/1 in series, three stations: share within {deadline_s} s"
    confirm(name, sum_of_exponentials(rates, deadline_s), shares)


def shared_link(transmission_s, node_service, load, **more):
    """All devices on one access point, whose uplink takes ``transmission_s`` for a request."""
    uplink = Direction(capacity=ConstantCapacity(8 * 1000 / transmission_s))
    devices = group(
        count=DEVICES,
        arrivals=Poisson(load / DEVICES),
        link=Link(uplink, Direction(), shared_by=DEVICES),
        request_bytes=1000,
    )
    return world(devices, node(node_service), warm_up_s=500.0, seed=13, **more)


def test_shared_link_is_an_md1_queue():
    load = 0.7
    a_world = shared_link(1.0, Constant(0.0), load, duration_s=15_000.0)
    means = []
    for replication in range(14):
        run = run_of(a_world, replication=replication)
        means.append((run.arrived_s - run.requests.created_s)[run.measured(a_world)].mean() - 1.0)
    expected = pollaczek_khinchine(load, 0.0)
    confirm("shared link, load 0.7: mean wait (M/D/1)", expected, means, within=0.1)


@pytest.mark.parametrize(("transmission_s", "service_s"), [(1.0, 0.6), (0.6, 1.0), (1.0, 1.0)])
def test_constant_stations_in_series_delay_as_much_as_the_slowest_alone(transmission_s, service_s):
    """Friedman (1965): the order does not matter, and after the slowest nobody waits."""
    load = 0.7
    a_world = shared_link(transmission_s, Constant(service_s), load, duration_s=15_000.0)
    means = []
    for replication in range(14):
        run = run_of(a_world, replication=replication)
        latency = (run.received_s - run.requests.created_s)[run.measured(a_world)]
        means.append(latency.mean() - transmission_s - service_s)
    expected = pollaczek_khinchine(load, 0.0)
    name = f"link of {transmission_s} s, then node of {service_s} s: mean wait in all"
    confirm(name, expected, means, within=0.1)


# --- laws of Little and of utilisation -----------------------------------------------------------


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
        confirm("M/M/1, load 0.7: mean number there", load / (1 - load), number, within=0.12)
    assert np.abs(differences).max() < 0.05 * np.mean(number)
    assert abs(np.mean(differences)) < 0.01 * np.mean(number)


@pytest.mark.parametrize("workers", [1, 3])
def test_telemetry_has_the_queue_and_the_utilisation_that_theory_has(workers):
    load = 0.7
    a_world = queue(load, Exponential(1.0), workers, duration_s=12_000.0, seed=14)
    edges = bin_edges(a_world.warm_up_s, a_world.horizon_s, 10.0)
    tables = [
        node_telemetry(run_of(a_world, replication=r).visits, ["edge"], [workers], edges)
        for r in range(14)
    ]
    utilisation = [table["utilisation"].mean() for table in tables]
    waiting = erlang_c(workers, load * workers) * load / (1 - load)
    name = f"M/M/{workers}, load {load}, telemetry"
    confirm(f"{name}: utilisation", load, utilisation, within=0.02)
    lengths = [table["queue_length"].mean() for table in tables]
    confirm(f"{name}: queue length", waiting, lengths, within=0.12)
