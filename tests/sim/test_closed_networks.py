"""Devices that wait for their answers and think, against the theory of closed networks.

Mean service time at the node is 1 s throughout.
"""

import numpy as np
import pytest
from closed_forms import mva, repairmen
from confirming import confirm
from tiny_worlds import group, node, run_of, world

from sim.distributions import Constant, Exponential, Gamma, Lognormal, Uniform
from sim.network.links import Direction, Link
from sim.network.mqtt import Mqtt
from sim.workload.arrivals import ClosedLoop


def closed(
    population,
    think,
    *more,
    service=None,
    workers=1,
    duration_s=1000.0,
    seed=1,
    link=None,
    mqtt=None,
):
    devices = group(count=population, arrivals=ClosedLoop(think), deadline=1e9, link=link)
    edge = node(service or Exponential(1.0), workers=workers)
    return world(devices, edge, warm_up_s=100.0, duration_s=duration_s, seed=seed, mqtt=mqtt)


def throughput(a_world, run):
    """Answers per second of the measured window, whenever their requests were created."""
    came = run.received_s
    return ((came >= a_world.warm_up_s) & (came < a_world.horizon_s)).sum() / a_world.duration_s


def response(a_world, run):
    return (run.received_s - run.requests.created_s)[run.measured(a_world)].mean()


@pytest.mark.parametrize(("population", "think_s"), [(1, 2.0), (4, 5.0), (12, 8.0)])
def test_one_station_agrees_with_mean_value_analysis(population, think_s):
    a_world = closed(population, Exponential(think_s))
    runs = [run_of(a_world, replication=replication) for replication in range(12)]
    rate, (there,) = mva(think_s, [1.0], population)
    name = f"closed loop of {population}, thinking {think_s} s"
    rates = [throughput(a_world, run) for run in runs]
    confirm(f"{name}: throughput (MVA)", rate, rates, within=0.06)
    times = [response(a_world, run) for run in runs]
    confirm(f"{name}: mean time at the node (MVA)", there, times, within=0.1)


def test_throughput_does_not_depend_on_how_thinking_is_distributed():
    """A delay station is insensitive (Baskett et al. 1975): only the mean thinking time counts."""
    population, think_s = 4, 5.0
    rate, _ = mva(think_s, [1.0], population)
    laws = {"constant": Constant(think_s), "gamma": Gamma(think_s, 8.0)}
    for law, think in laws.items():
        a_world = closed(population, think, seed=2)
        rates = [throughput(a_world, run_of(a_world, replication=r)) for r in range(12)]
        confirm(
            f"closed loop of {population}, {law} thinking: throughput (MVA)",
            rate,
            rates,
            within=0.08,
        )


def test_three_stations_in_a_ring_agree_with_mean_value_analysis():
    """Broker, node and broker again, each exponential; the links' delays are part of thinking."""
    population, think_s, broker_s, way_s = 4, 2.0, 0.8, 0.25
    a_world = closed(
        population,
        Exponential(think_s),
        link=Link(Direction(Constant(way_s)), Direction(Constant(way_s))),
        mqtt=Mqtt(qos=0, processing=Exponential(broker_s)),
        seed=3,
        duration_s=600.0,
    )
    parts = {"throughput": [], "broker": [], "node": [], "broker on the way home": []}
    for replication in range(12):
        run = run_of(a_world, replication=replication)
        at = run.measured(a_world)
        parts["throughput"].append(throughput(a_world, run))
        parts["broker"].append((run.arrived_s - run.requests.created_s)[at].mean() - way_s)
        parts["node"].append((run.finished_s - run.arrived_s)[at].mean())
        home_s = (run.received_s - run.finished_s)[at].mean() - way_s
        parts["broker on the way home"].append(home_s)
    rate, times = mva(think_s + 2 * way_s, [broker_s, 1.0, broker_s], population)
    for (name, values), expected in zip(parts.items(), [rate, *times], strict=True):
        what = name if name == "throughput" else f"mean time at the {name}"
        confirm(f"closed ring of three stations: {what} (MVA)", expected, values, within=0.15)


@pytest.mark.parametrize("workers", [2, 3])
def test_several_workers_agree_with_the_machine_repairmen(workers):
    population, think_s = 8, 3.0
    a_world = closed(population, Exponential(think_s), workers=workers, seed=4, duration_s=500.0)
    runs = [run_of(a_world, replication=replication) for replication in range(12)]
    rate = repairmen(population, think_s, workers)
    name = f"M/M/{workers}//{population}"
    confirm(f"{name}: throughput", rate, [throughput(a_world, run) for run in runs])
    times = [response(a_world, run) for run in runs]
    confirm(f"{name}: mean time at the node", population / rate - think_s, times, within=0.1)


@pytest.mark.parametrize(("population", "think_s"), [(3, 7.0), (3, 1.0), (9, 4.0)])
def test_nothing_random_reaches_the_asymptotic_bound(population, think_s):
    """Constant times: min(N / (Z + S), 1 / S), once every device has found its turn."""
    a_world = closed(population, Constant(think_s), service=Constant(1.0), duration_s=400.0)
    run = run_of(a_world)
    bound = min(population / (think_s + 1.0), 1.0)
    assert throughput(a_world, run) == pytest.approx(bound, abs=population / a_world.duration_s)
    settled = run.measured(a_world)
    times = (run.received_s - run.requests.created_s)[settled]
    np.testing.assert_allclose(times, max(1.0, population - think_s), atol=1e-9)


@pytest.mark.parametrize("service", [Lognormal(0.6, 1.0), Uniform(0.0, 2.0), Gamma(1.0, 2.0)])
@pytest.mark.parametrize("population", [2, 6, 20])
def test_no_law_of_service_passes_the_asymptotic_bounds(population, service):
    """Operational bounds (Denning & Buzen 1978), of the run's own mean times, up to its ends."""
    way_s = 0.5
    link = Link(Direction(Constant(way_s)), Direction(Constant(way_s)))
    a_world = closed(
        population, Exponential(5.0), service=service, link=link, duration_s=900.0, seed=5
    )
    run = run_of(a_world)
    demand_s = (run.finished_s - run.started_s).mean()
    think_s = np.concatenate([thoughts(run, device) for device in range(population)]).mean()
    elsewhere_s = think_s + 2 * way_s
    rate, latency_s = throughput(a_world, run), response(a_world, run)
    assert rate <= 1.03 * min(population / (elsewhere_s + demand_s), 1 / demand_s)
    at_node_s = latency_s - 2 * way_s
    assert at_node_s >= 0.97 * max(demand_s, population * demand_s - elsewhere_s)
    # The law of interactive response time: R + Z = N / X.
    assert latency_s + think_s == pytest.approx(population / rate, rel=0.03)


def thoughts(run, device):
    """How long a device thought, each time but the first."""
    mine = run.requests.device == device
    return run.requests.created_s[mine][1:] - run.received_s[mine][:-1]


def test_each_device_has_one_request_under_way():
    a_world = closed(5, Exponential(2.0), workers=2, duration_s=200.0, seed=6)
    run = run_of(a_world)
    for device in range(5):
        assert len(thoughts(run, device)) > 20
        assert (thoughts(run, device) >= 0).all()
