"""Which sample a request sends: the law of each rule, and that only device and number matter."""

import math
from itertools import permutations
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from tiny_worlds import examples

from models.errors import ScenarioError
from sim.streams import Streams
from sim.workload.request_traces import RequestTrace
from sim.workload.samples import Correlated, Drawn, Shuffled, TraceSamples

#: Standard errors by which an estimate may miss: 1 in 1.7 million by chance.
SIGMAS = 5

LABELS = np.repeat([3, 0, 7], [60, 30, 10])[np.random.default_rng(0).permutation(100)]

rules = st.sampled_from([Drawn(), Shuffled(), Correlated(1), Correlated(4.5), Correlated(60)])
every_rule = pytest.mark.parametrize("rule", [Drawn(), Shuffled(), Correlated(5.0)], ids=str)


def named(seed=1):
    streams = Streams(seed, 0)
    return lambda name: streams.uniforms("group", name)


def table_of(rule, devices, length, labels=LABELS, seed=1):
    """Samples (devices, length) of each device's requests."""
    stream = rule.begin(labels, devices, named(seed))
    device = np.repeat(np.arange(devices), length)
    number = np.tile(np.arange(length), devices)
    return stream.next(device, number).reshape(devices, length)


# --- only device and number matter ---------------------------------------------------------------


@given(
    rule=rules,
    lengths=st.lists(st.integers(0, 40), min_size=1, max_size=6),
    random=st.randoms(use_true_random=False),
    cuts=st.lists(st.integers(0, 240), max_size=6),
)
@examples(150)
def test_slices_and_other_devices_do_not_matter(rule, lengths, random, cuts):
    # Requests of all devices, interleaved by chance, each device's in their order.
    of_device = [device for device, length in enumerate(lengths) for _ in range(length)]
    random.shuffle(of_device)
    device = np.array(of_device, dtype=np.int64)
    number = np.array([of_device[:at].count(one) for at, one in enumerate(of_device)], dtype=int)
    stream = rule.begin(LABELS, len(lengths), named())
    parts = [
        stream.next(device[begin:end], number[begin:end])
        for begin, end in zip([0, *sorted(cuts)], [*sorted(cuts), len(device)], strict=True)
    ]
    whole = table_of(rule, 9, 40)
    np.testing.assert_array_equal(np.concatenate(parts), whole[device, number])


@every_rule
def test_devices_are_independent_of_each_other(rule):
    table = table_of(rule, 2, 20_000)
    same = (table[0] == table[1]).mean()
    chance = 1 / len(LABELS)
    assert abs(same - chance) < SIGMAS * math.sqrt(chance / table.shape[1])


@every_rule
def test_seeds_give_other_samples(rule):
    one, other = table_of(rule, 1, 1000), table_of(rule, 1, 1000, seed=2)
    assert (one == other).mean() < 0.1


@every_rule
def test_every_sample_is_sent_equally_often_by_the_first_request_and_by_later_ones(rule):
    table = table_of(rule, 20_000, 8)
    for column in (0, 1, 7):
        counts = np.bincount(table[:, column], minlength=len(LABELS))
        assert len(counts) == len(LABELS)
        assert stats.chisquare(counts).pvalue > 1e-5


@every_rule
def test_a_test_set_of_one_sample(rule):
    assert (table_of(rule, 2, 5, labels=np.array([4])) == 0).all()


def test_drawn_samples_follow_each_other_by_chance():
    table = table_of(Drawn(), 1, 200_000)[0]
    pairs = np.bincount(table[:-1] * 100 + table[1:], minlength=10_000)
    assert stats.chisquare(pairs).pvalue > 1e-5


# --- shuffled ------------------------------------------------------------------------------------


@given(samples=st.integers(1, 3000), seed=st.integers(0, 10**6))
@examples(100)
def test_every_time_through_is_a_permutation(samples, seed):
    table = table_of(Shuffled(), 2, 3 * samples, labels=np.zeros(samples), seed=seed)
    for through in table.reshape(6, samples):
        np.testing.assert_array_equal(np.sort(through), np.arange(samples))


@pytest.mark.parametrize("samples", [50, 10_000])
def test_every_time_through_and_every_device_has_an_order_of_its_own(samples):
    orders = table_of(Shuffled(), 3, 3 * samples, labels=np.zeros(samples)).reshape(9, samples)
    for one in range(9):
        for other in range(one):
            # Two random permutations agree in about one place.
            assert (orders[one] == orders[other]).sum() < 15
            correlation = np.corrcoef(orders[one], orders[other])[0, 1]
            assert abs(correlation) < SIGMAS / math.sqrt(samples)


@pytest.mark.parametrize("samples", [2, 3, 4, 5])
def test_all_orders_of_a_small_set_are_equally_likely(samples):
    table = table_of(Shuffled(), 60_000, samples, labels=np.zeros(samples))
    code = table @ 10 ** np.arange(samples)
    orders, counts = np.unique(code, return_counts=True)
    assert len(orders) == len(list(permutations(range(samples))))
    assert stats.chisquare(counts).pvalue > 1e-5


@pytest.mark.parametrize("samples", [36, 1009, 10_000])
def test_samples_of_a_permutation_follow_each_other_by_chance(samples):
    length = min(samples, 200)
    table = table_of(Shuffled(), 1_000_000 // length, length, labels=np.zeros(samples))
    steps = np.bincount((np.diff(table, axis=1) % samples).ravel(), minlength=samples)
    assert steps[0] == 0
    assert stats.chisquare(steps[1:]).pvalue > 1e-5


# --- correlated ----------------------------------------------------------------------------------


@pytest.mark.parametrize("mean_run", [1.0, 2.5, 20.0])
def test_classes_stay_for_a_geometric_number_of_requests_and_are_drawn_by_frequency(mean_run):
    classes = LABELS[table_of(Correlated(mean_run), 4000, 60)]
    stays = 1 - 1 / mean_run
    _, share = np.unique(LABELS, return_counts=True)
    share = share / len(LABELS)
    again = (share**2).sum()
    for lag in (1, 2, 10):
        # The class is the same if the run goes on, or if the draw hits it again.
        expected = stays**lag + (1 - stays**lag) * again
        same = (classes[:, :-lag] == classes[:, lag:]).mean(axis=1)
        assert abs(same.mean() - expected) < SIGMAS * same.std() / math.sqrt(len(same)) + 1e-12
    for kind, expected in zip(np.unique(LABELS), share, strict=True):
        found = (classes == kind).mean(axis=1)
        assert abs(found.mean() - expected) < SIGMAS * found.std() / math.sqrt(len(found))


def test_lengths_of_runs_are_geometric():
    # With many classes, a run's end is seen but for one case in a thousand.
    labels = np.arange(1000)
    table = table_of(Correlated(4.0), 1, 100_000, labels=labels)[0]
    lengths = np.diff(np.flatnonzero(np.diff(table, prepend=-1)))
    expected = stats.geom(1 / 4 * (1 - 1 / 1000)).pmf(np.arange(1, 25))
    counts = np.bincount(lengths, minlength=25)[1:25]
    spread = np.sqrt(expected * len(lengths)) + 1
    assert (np.abs(counts - expected * len(lengths)) < SIGMAS * spread).all()


def test_within_a_class_samples_are_drawn_by_chance():
    labels = np.repeat([0, 1], 20)
    table = table_of(Correlated(10**6), 2000, 50, labels=labels)
    for row in table[:20]:
        assert len(set(labels[row])) == 1
    pairs = np.bincount((table[:, :-1] % 20 * 20 + table[:, 1:] % 20).ravel(), minlength=400)
    assert stats.chisquare(pairs).pvalue > 1e-5


@pytest.mark.parametrize("mean_run", [0.99, 0, -3, math.inf, math.nan])
def test_a_run_is_at_least_one_request(mean_run):
    with pytest.raises(ValueError, match="mean_run must be at least 1"):
        Correlated(mean_run)


# --- from a trace --------------------------------------------------------------------------------


def trace(**columns):
    times = np.array([0.0, 1.0, 1.0, 2.0, 5.0])
    return RequestTrace(Path("t.parquet"), times, np.array([2, 0, 2, 2, 0]), **columns)


def test_a_trace_names_its_samples():
    sent = trace(sample=np.array([10, 11, 12, 13, 14]))
    stream = TraceSamples(sent).begin(LABELS, 3, named())
    assert stream.next(np.array([2, 2, 0]), np.array([0, 1, 0])).tolist() == [10, 12, 11]
    assert stream.next(np.array([0, 2]), np.array([1, 2])).tolist() == [14, 13]


def test_a_trace_with_samples_that_the_test_set_lacks_is_refused():
    sent = trace(sample=np.array([10, 11, 12, 100, 14]))
    with pytest.raises(ScenarioError, match="row 4: sample 100 is unknown"):
        TraceSamples(sent).begin(LABELS, 3, named())


def test_a_trace_without_samples_is_refused():
    with pytest.raises(ValueError, match="no column 'sample'"):
        TraceSamples(trace()).begin(LABELS, 3, named())
