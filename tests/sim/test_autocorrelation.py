"""Service times that are alike for a while: what stays as it was, and what queues make of it."""

from dataclasses import replace

import numpy as np
import pytest
from scipy import stats
from tiny_worlds import group, node, run_of, world

from sim.distributions import Constant, Exponential
from sim.nodes.autocorrelation import AlikeInTime, Autocorrelation
from sim.nodes.overheads import Overheads
from sim.nodes.service import DistributedService
from sim.workload.arrivals import ClosedLoop, Poisson

ALIKE = Autocorrelation(0.5, 2.0)


def numbers(alike, at_s, seed=0):
    u = np.random.default_rng(seed).random(len(at_s))
    return AlikeInTime(alike, np.random.default_rng([seed, 1]))(u, at_s)


# --- uniform numbers ------------------------------------------------------------------------------


def test_each_number_is_as_uniform_as_before():
    # Far apart, so that they are independent.
    u = numbers(ALIKE, 1000 * np.arange(20_000.0))
    assert ((u >= 0) & (u < 1)).all()
    assert stats.kstest(u, "uniform").pvalue > 0.01


@pytest.mark.parametrize("apart_s", [0.001, 1.0, 2.0, 6.0])
def test_how_alike_they_are_falls_exponentially_with_the_time_between_them(apart_s):
    found = []
    for seed in range(300):
        start_s = 100 * np.arange(40.0)
        u = numbers(ALIKE, np.concatenate([start_s, start_s + apart_s]), seed)
        first, second = np.split(stats.norm.ppf(u), 2)
        found.append(np.mean(first * second))
    expected = 0.5 * np.exp(-apart_s / 2.0)
    # Four standard errors of the mean.
    assert np.mean(found) == pytest.approx(expected, abs=4 * np.std(found) / np.sqrt(len(found)))


def test_the_same_time_and_number_give_the_same_whatever_came_before():
    at_s = np.array([0.0, 1.0, 5.0])
    u = np.array([0.1, 0.5, 0.9])
    process = AlikeInTime(ALIKE, np.random.default_rng(3))
    np.testing.assert_allclose(process(u, at_s)[1:], process(u[1:], at_s[1:]), rtol=1e-12)


def test_ends_stay_inside():
    u = AlikeInTime(ALIKE, np.random.default_rng(0))(np.array([0.0, 1 - 2.0**-53]), np.zeros(2))
    assert (u >= 0).all()
    assert (u < 1).all()


@pytest.mark.parametrize(("share", "time_s"), [(-0.1, 1), (1.0, 1), (0.5, 0), (0.5, np.inf)])
def test_values_that_make_no_sense_are_refused(share, time_s):
    with pytest.raises(ValueError, match="share must be in"):
        Autocorrelation(share, time_s)


# --- nodes ----------------------------------------------------------------------------------------


def queued(alike, arrivals=None, count=1, faults=()):
    besides = Overheads(autocorrelation=alike)
    spec = node(DistributedService(Exponential(0.5), 1), overheads=besides)
    devices = group(arrivals=arrivals or Poisson(1.0), count=count, deadline=100.0)
    return run_of(world(devices, spec, duration_s=20_000.0, faults=tuple(faults)))


def services_s(run):
    return (run.finished_s - run.started_s)[run.answered]


def test_service_times_have_their_distribution_and_queues_are_longer():
    alone, alike = queued(None), queued(Autocorrelation(0.8, 20.0))
    np.testing.assert_array_equal(alone.requests.created_s, alike.requests.created_s)
    # Of a thousand independent times: 3.6 % is the standard error.
    assert services_s(alike).mean() == pytest.approx(0.5, rel=0.15)
    assert services_s(alike).std() == pytest.approx(0.5, rel=0.2)
    one, other = np.corrcoef(services_s(alike)[:-1], services_s(alike)[1:])[0]
    assert (one, other > 0.4) == (pytest.approx(1.0), True)
    waits = [np.mean(run.started_s - run.arrived_s) for run in (alone, alike)]
    assert waits[0] == pytest.approx(0.5, rel=0.1)  # M/M/1 at half load
    assert waits[1] > 1.5 * waits[0]


def test_what_a_node_takes_besides_inference_is_alike_too():
    # As on a quiet host: a profile in which all inferences took the same.
    besides = Overheads(begin=Exponential(0.5), autocorrelation=Autocorrelation(0.8, 20.0))
    spec = node(DistributedService(Constant(0.1), 1), overheads=besides)
    run = run_of(world(group(arrivals=Poisson(1.0), deadline=100.0), spec, duration_s=20_000.0))
    taken_s = services_s(run)
    assert np.corrcoef(taken_s[:-1], taken_s[1:])[0, 1] > 0.4
    assert taken_s.mean() == pytest.approx(0.6, rel=0.15)


def test_without_any_of_it_nothing_changes():
    np.testing.assert_array_equal(services_s(queued(None)), services_s(queued_plainly()))


def queued_plainly():
    spec = node(DistributedService(Exponential(0.5), 1))
    devices = group(arrivals=Poisson(1.0), deadline=100.0)
    return run_of(world(devices, spec, duration_s=20_000.0))


def test_devices_that_wait_for_answers_meet_the_same_slow_times():
    run = queued(Autocorrelation(0.9, 50.0), ClosedLoop(Constant(0.1)), count=2)
    assert np.corrcoef(services_s(run)[:-1], services_s(run)[1:])[0, 1] > 0.5


def test_other_slow_moments_leave_requests_as_they_are():
    overheads = Overheads(autocorrelation=ALIKE)
    devices = group(Poisson(2.0), count=3)
    alike = world(devices, node(Exponential(0.1), overheads=overheads), duration_s=200.0)
    first, again, other = (run_of(replace(alike, slow_moments=draw)) for draw in (0, 0, 1))
    for name in ("created_s", "deadline_s", "sample"):
        mine, theirs = (getattr(run.requests, name) for run in (first, other))
        np.testing.assert_array_equal(mine, theirs)
    np.testing.assert_array_equal(first.finished_s, again.finished_s)
    taken_s, others_s = (run.finished_s - run.started_s for run in (first, other))
    assert not np.allclose(taken_s, others_s)
    # The same service times of their own, in part: half of the variance of their scores.
    assert 0.2 < stats.spearmanr(taken_s, others_s).statistic < 0.8
    plain = replace(alike, nodes=(node(Exponential(0.1)),))
    np.testing.assert_array_equal(
        run_of(plain).finished_s, run_of(replace(plain, slow_moments=1)).finished_s
    )
