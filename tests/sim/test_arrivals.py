"""Arrival processes are what they say: their rate, their variation, their law."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from tiny_worlds import examples

from sim.streams import Streams
from sim.workload import Periodic, Poisson, block_length

#: Standard errors by which an estimate may miss: 1 in 1.7 million by chance.
SIGMAS = 5

rates = st.floats(0.01, 500.0)
seeds = st.integers(0, 10**6)
processes = pytest.mark.parametrize("process", [Poisson, Periodic])


def times_of(arrivals, horizon_s, devices=1, seed=1):
    """What ``arrivals`` makes, and a mask of the times before the horizon."""
    block = block_length(arrivals.rate(), horizon_s)
    uniforms = Streams(seed, 0).device_uniforms("arrivals", "cameras", devices, block)
    times = arrivals.times(uniforms, horizon_s)
    return times, times < horizon_s


# --- rate and coefficient of variation -----------------------------------------------------------


@processes
@given(rate_hz=rates, expected=st.floats(50, 3000), devices=st.integers(1, 8), seed=seeds)
@examples(60)
def test_rate_is_kept(process, rate_hz, expected, devices, seed):
    arrivals = process(rate_hz)
    horizon_s = expected / rate_hz
    _, there = times_of(arrivals, horizon_s, devices, seed)
    count, mean = there.sum(), arrivals.rate() * horizon_s * devices
    # Each device's count of a process with this variation has the variance cv² · mean; a
    # periodic one may still have one more or less, by its phase.
    spread = SIGMAS * arrivals.cv() * math.sqrt(mean) + devices * (arrivals.cv() == 0)
    assert abs(count - mean) <= spread


@processes
@given(rate_hz=rates, seed=seeds)
@examples(40)
def test_variation_of_the_times_between_requests_is_kept(process, rate_hz, seed):
    arrivals = process(rate_hz)
    times, _ = times_of(arrivals, 4000 / rate_hz, devices=2, seed=seed)
    gaps = np.diff(times[:, :4000], axis=1)
    # The coefficient of variation of n exponential values has a standard error of 1 / sqrt(n).
    tolerance = SIGMAS * arrivals.cv() / math.sqrt(gaps.size) + 1e-6
    assert abs(gaps.std() / gaps.mean() - arrivals.cv()) < tolerance
    assert gaps.mean() == pytest.approx(1 / arrivals.rate(), rel=tolerance)


@processes
@given(
    rate_hz=rates,
    expected=st.floats(0.001, 300),
    devices=st.integers(1, 20),
    seed=seeds,
)
@examples(80)
def test_every_device_ascends_from_zero_and_reaches_the_horizon(
    process, rate_hz, expected, devices, seed
):
    horizon_s = expected / rate_hz
    times, _ = times_of(process(rate_hz), horizon_s, devices, seed)
    assert times.shape[0] == devices
    assert (times >= 0).all()
    assert (np.diff(times, axis=1) > 0).all()
    assert (times[:, -1] >= horizon_s * (1 - 1e-12)).all()


@given(rate_hz=rates, expected=st.floats(0.001, 3000))
@examples(60)
def test_numbers_drawn_at_a_time_suffice_in_all_but_rare_cases(rate_hz, expected):
    block = block_length(rate_hz, expected / rate_hz)
    assert stats.poisson.sf(block - 1, expected) < 0.005
    assert block <= expected + 4 * math.sqrt(expected) + 5


# --- Poisson -------------------------------------------------------------------------------------

RATE_HZ = 8.0


@pytest.fixture(scope="module")
def poisson():
    """Poisson arrivals of 40 devices over 500 s, and the mask of those before the horizon."""
    return times_of(Poisson(RATE_HZ), 500.0, devices=40)


def test_poisson_gaps_are_exponential(poisson):
    gaps = np.diff(poisson[0][:, :3900], axis=1).ravel()
    assert stats.kstest(gaps, stats.expon(scale=1 / RATE_HZ).cdf).pvalue > 0.001
    # The tail too, to which that test is blind: nothing is cut off.
    assert gaps.max() > 10 / RATE_HZ


def test_the_test_above_would_see_gaps_clipped_at_three_means(poisson):
    gaps = np.minimum(np.diff(poisson[0][:, :3900], axis=1).ravel(), 3 / RATE_HZ)
    assert stats.kstest(gaps, stats.expon(scale=1 / RATE_HZ).cdf).pvalue < 1e-9


def test_poisson_starts_as_it_goes_on():
    times, _ = times_of(Poisson(RATE_HZ), 10.0, devices=5000, seed=2)
    assert stats.kstest(times[:, 0], stats.expon(scale=1 / RATE_HZ).cdf).pvalue > 0.001


def test_a_device_luckier_than_foreseen_is_not_cut_short():
    class Hurried:
        """Uniform numbers of a device whose every gap is short; the other's are average."""

        def first(self, columns):
            return np.repeat([[0.01], [1 - math.exp(-1)]], columns, axis=1)

    times = Poisson(RATE_HZ).times(Hurried(), 10.0)
    gaps = np.diff(times, axis=1)
    assert (times[:, -1] >= 10.0).all()
    np.testing.assert_allclose(gaps[0], -math.log(0.99) / RATE_HZ)
    np.testing.assert_allclose(gaps[1], 1 / RATE_HZ)


def test_poisson_counts_in_disjoint_seconds_are_poisson_and_uncorrelated(poisson):
    times, there = poisson
    counts = np.array(
        [
            np.histogram(row[before], bins=500, range=(0, 500))[0]
            for row, before in zip(times, there, strict=True)
        ]
    )
    n = counts.size
    dispersion = counts.var() / counts.mean()
    assert abs(dispersion - 1) < SIGMAS * math.sqrt(2 / n)
    neighbours = np.corrcoef(counts[:, :-1].ravel(), counts[:, 1:].ravel())[0, 1]
    assert abs(neighbours) < SIGMAS / math.sqrt(n)


# --- Periodic ------------------------------------------------------------------------------------


def test_periodic_gaps_are_all_the_same_and_phases_are_spread_over_one_period():
    times, _ = times_of(Periodic(4.0), 10.0, devices=5000)
    np.testing.assert_allclose(np.diff(times, axis=1), 0.25, rtol=1e-9)
    assert stats.kstest(times[:, 0], stats.uniform(0, 0.25).cdf).pvalue > 0.001


# --- devices -------------------------------------------------------------------------------------


def test_devices_are_independent_of_each_other(poisson):
    gaps = np.diff(poisson[0][:, :3900], axis=1)
    correlation = np.corrcoef(gaps) - np.eye(len(gaps))
    assert np.abs(correlation).max() < SIGMAS / math.sqrt(gaps.shape[1])
    assert len(np.unique(poisson[0])) == poisson[0].size, "no two devices send at one instant"


def test_devices_together_are_a_poisson_process_too(poisson):
    times, there = poisson
    together = np.sort(times[there])
    scale = 1 / (RATE_HZ * len(times))
    assert stats.kstest(np.diff(together), stats.expon(scale=scale).cdf).pvalue > 0.001


def test_phases_of_periodic_devices_do_not_follow_each_other():
    phases = times_of(Periodic(1.0), 3.0, devices=5000)[0][:, 0]
    assert abs(np.corrcoef(phases[:-1], phases[1:])[0, 1]) < SIGMAS / math.sqrt(5000)
