"""Nodes with room for so many requests, against the formulas of Erlang and Engset.

Mean service time is 1 s throughout.
"""

import numpy as np
import pytest
from closed_forms import engset, erlang_b, mmck
from confirming import confirm
from tiny_worlds import group, node, run_of, world

from sim.distributions import Constant, Exponential, Gamma, Lognormal
from sim.outcomes import DROPPED
from sim.workload.arrivals import ClosedLoop, Poisson

SERVICES = {
    "exponential": Exponential(1.0),
    "constant": Constant(1.0),
    "lognormal": Lognormal(np.exp(-0.5), 1.0),
}


def lossy(offered, workers, places, service, seed, duration_s=15_000.0):
    devices = group(count=4, arrivals=Poisson(offered / 4))
    edge = node(service, workers=workers, queue_limit=places - workers)
    return world(devices, edge, warm_up_s=100.0, duration_s=duration_s, seed=seed)


def refused(a_world, run):
    return (run.outcome == DROPPED)[run.measured(a_world)].mean()


@pytest.mark.parametrize(("seed", "law"), list(enumerate(SERVICES, start=20)))
@pytest.mark.parametrize(("workers", "offered"), [(1, 0.5), (4, 3.0)])
def test_share_refused_without_a_queue_is_erlangs_whatever_the_law_of_service(
    workers, offered, seed, law
):
    a_world = lossy(
        offered, workers, workers, SERVICES[law], seed=seed, duration_s=10_000.0 / offered
    )
    shares = [refused(a_world, run_of(a_world, replication=r)) for r in range(10)]
    name = f"M/G/{workers}/{workers}, {law} service, offered {offered}: share refused (Erlang B)"
    confirm(name, erlang_b(workers, offered), shares, within=0.06)


@pytest.mark.parametrize(
    ("workers", "places", "offered"), [(1, 2, 0.8), (1, 5, 0.8), (3, 6, 2.5), (2, 6, 4.0)]
)
def test_mmck_refuses_and_delays_as_its_birth_and_death_process_says(workers, places, offered):
    a_world = lossy(offered, workers, places, Exponential(1.0), 2, duration_s=20_000.0 / offered)
    shares, means, rates = [], [], []
    for replication in range(12):
        run = run_of(a_world, replication=replication)
        measured = run.measured(a_world)
        shares.append(refused(a_world, run))
        means.append(np.nanmean((run.started_s - run.arrived_s)[measured]))
        rates.append(run.answered[measured].sum() / a_world.duration_s)
    states = mmck(workers, places, offered)
    passed = offered * (1 - states[-1])
    waiting = np.dot(states, np.maximum(np.arange(places + 1) - workers, 0))
    name = f"M/M/{workers}/{places}, offered {offered}"
    confirm(f"{name}: share refused", states[-1], shares, within=0.1)
    confirm(f"{name}: mean wait of the others", waiting / passed, means, within=0.05)
    confirm(f"{name}: throughput", passed, rates, within=0.03)


def test_refusals_grow_with_the_load_and_shrink_with_every_place():
    """The forms against each other, and against common sense."""
    assert erlang_b(3, 2.0) == pytest.approx(mmck(3, 3, 2.0)[-1])
    assert engset(10**6, 3, 10**6 / 2.0) == pytest.approx(erlang_b(3, 2.0), rel=1e-4)
    shares = []
    for places in (1, 2, 4, 8):
        a_world = lossy(0.9, 1, places, Gamma(1.0, 0.5), seed=3, duration_s=3000.0)
        shares.append(refused(a_world, run_of(a_world)))
    assert shares == sorted(shares, reverse=True)
    assert shares[0] > 0.4
    assert shares[-1] < 0.1


@pytest.mark.parametrize(
    "service", [Exponential(1.0), Constant(1.0)], ids=["exponential", "constant"]
)
def test_few_devices_that_wait_for_their_answers_are_refused_as_engset_says(service):
    sources, workers, think_s = 6, 2, 4.0
    # Without time to answer in, who is refused thinks again at once.
    devices = group(count=sources, arrivals=ClosedLoop(Exponential(think_s)), deadline=1e-9)
    edge = node(service, workers=workers, queue_limit=0)
    a_world = world(devices, edge, warm_up_s=50.0, duration_s=800.0, seed=4)
    shares = [refused(a_world, run_of(a_world, replication=r)) for r in range(14)]
    law = type(service).__name__.lower()
    name = f"{sources} sources, {workers} workers, {law} service: share refused (Engset)"
    confirm(name, engset(sources, workers, think_s), shares, within=0.12)
