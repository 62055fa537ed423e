"""Summaries without records against metrics from records, and the error of their quantiles."""

import math
import pickle
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny_worlds import Fickle, examples, group, node, predictions, run_of, world

from sim.distributions import Exponential
from sim.outcomes import DROPPED, LATE, LOST, ON_TIME, OUTCOMES
from sim.results.metrics import run_metrics
from sim.results.summary import COMPRESSION, RunSummary
from sim.results.verdict import settling
from sim.workload.arrivals import Poisson

WARM_UP_S, DURATION_S = 100.0, 1000.0


def finished(count, seed=0, latency=None):
    """Columns of ``count`` requests, a fifth of them unanswered."""
    random = np.random.default_rng(seed)
    created_s = np.sort(random.uniform(0, WARM_UP_S + DURATION_S, count))
    exit = random.integers(1, 4, count)
    outcome = random.choice([ON_TIME, LATE], count)
    gone = random.random(count) < 0.2
    exit[gone] = 0
    outcome[gone] = random.choice([DROPPED, LOST], int(gone.sum()))
    received_s = created_s + (random.pareto(1.2, count) if latency is None else latency)
    received_s[gone] = np.nan
    correct = (random.random(count) < 0.6) & ~gone
    return created_s, received_s, exit, correct, outcome


def summary_of(columns, cuts=()):
    """A summary that takes in the requests in slices cut at ``cuts``."""
    summary = RunSummary(WARM_UP_S, DURATION_S)
    for part in zip(*(np.split(column, list(cuts)) for column in columns), strict=True):
        summary.add(*part)
    return summary


def rank_error(values, quantile, estimate):
    """How far the rank of ``estimate`` among ``values`` is from ``quantile``."""
    below, up_to = (values < estimate).mean(), (values <= estimate).mean()
    return max(below - quantile, quantile - up_to, 0.0)


# --- what it says --------------------------------------------------------------------------------


def test_a_summary_says_what_the_records_say():
    a_world = world(
        group(count=3, arrivals=Poisson(4.0), deadline=0.15),
        node(Exponential(0.06), workers=1),
        warm_up_s=50.0,
        duration_s=400.0,
    )
    says = predictions(label=[0, 1], predicted=[[0], [0]])
    run = run_of(a_world, Fickle(7), says)
    summary = RunSummary(a_world.warm_up_s, a_world.duration_s)
    created_s = run.requests.created_s
    summary.add(created_s, run.received_s, run.exit, run.correct, run.outcome)
    expected, metrics = run_metrics(a_world, run), summary.metrics()
    assert list(metrics) == list(expected)
    assert expected["dropped"] > 0
    assert expected["late"] > 0
    exact = [name for name in expected if "latency_p" not in name]
    assert {name: metrics[name] for name in exact} == pytest.approx(
        {name: expected[name] for name in exact}, rel=1e-7
    )
    for name in set(expected) - set(exact):
        assert metrics[name] == pytest.approx(expected[name], rel=0.02)
    assert summary.settling() == pytest.approx(settling(a_world, run), rel=1e-7)


def test_worked_by_hand():
    summary = RunSummary(warm_up_s=10.0, duration_s=40.0)
    summary.add(
        created_s=np.array([9.0, 10.0, 15.0, 20.0, 30.0, 40.0]),
        received_s=np.array([10.0, 11.0, 18.0, 22.0, np.nan, np.nan]),
        exit=np.array([1, 1, 2, 1, 0, 0]),
        correct=np.array([True, True, True, False, False, False]),
        outcome=np.array([0, 0, 1, 0, 2, 3]),
    )
    metrics = summary.metrics()
    assert {name: metrics[name] for name in ("offered", "answered", *OUTCOMES)} == (
        {"offered": 5, "answered": 3, "on_time": 2, "late": 1, "dropped": 1, "lost": 1}
    )
    assert (metrics["aud"], metrics["hit_ratio"]) == (1 / 5, 2 / 5)
    assert metrics["accuracy"] == 2 / 3
    assert metrics["latency_mean_s"] == 2.0
    assert metrics["latency_p50_s"] == 2.0
    assert summary.settling() == (2.0, 2.0)  # (1 + 3) / 2 before 20 s, 2 from then on


def test_nothing_offered_has_counts_but_no_ratios():
    metrics = RunSummary(0.0, 10.0).metrics()
    assert metrics["offered"] == metrics["answered"] == 0
    for name in ("aud", "hit_ratio", "accuracy", "latency_mean_s", "latency_p99_s"):
        assert math.isnan(metrics[name])


# --- the same requests, the same summary ---------------------------------------------------------


@given(st.lists(st.integers(0, 3000), max_size=8).map(sorted))
@examples(30)
def test_where_slices_are_cut_changes_no_bit(cuts):
    columns = finished(3000)
    whole, cut = summary_of(columns), summary_of(columns, cuts)
    assert cut.metrics() == whole.metrics()
    assert cut.settling() == whole.settling()


def test_asking_changes_nothing():
    columns = finished(100_000)
    asked = RunSummary(WARM_UP_S, DURATION_S)
    for part in zip(*(np.array_split(column, 7) for column in columns), strict=True):
        asked.add(*part)
        asked.metrics()
    assert asked.metrics() == summary_of(columns).metrics()


def test_another_process_says_the_same_bit_for_bit():
    code = (
        "import numpy as np; from sim.results.summary import RunSummary\n"
        "r = np.random.default_rng(5); n = 200_000; c = np.arange(n) / n\n"
        "s = RunSummary(0.0, 1.0); one = np.ones(n, int)\n"
        "s.add(c, c + r.pareto(1.2, n), one, one > 0, one)\n"
        "print([value.hex() for value in map(float, s.metrics().values())])"
    )
    said = {
        subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True
        ).stdout
        for _ in range(2)
    }
    assert len(said) == 1


def test_a_pickled_summary_says_the_same():
    summary = summary_of(finished(50_000))
    assert pickle.loads(pickle.dumps(summary)).metrics() == summary.metrics()


# --- merging -------------------------------------------------------------------------------------


def test_merged_parts_say_what_the_whole_says():
    columns = finished(60_000)
    parts = [
        summary_of(part)
        for part in zip(*(np.array_split(column, 3) for column in columns), strict=True)
    ]
    merged = RunSummary(WARM_UP_S, DURATION_S)
    for part in parts:
        merged.merge(part)
    whole, metrics = summary_of(columns).metrics(), merged.metrics()
    for name, value in whole.items():
        if "latency_p" not in name:
            assert metrics[name] == value, name
    assert merged.settling() == summary_of(columns).settling()
    created_s, received_s, exit, _, _ = columns
    latency = (received_s - created_s)[(exit > 0) & (created_s >= WARM_UP_S)]
    for percent, within in ((50, 2e-3), (95, 5e-4), (99, 1e-4)):
        estimate = metrics[f"latency_p{percent}_s"]
        assert rank_error(latency, percent / 100, estimate) <= within


def test_summaries_of_different_windows_are_not_merged():
    with pytest.raises(ValueError, match="same window"):
        RunSummary(0.0, 10.0).merge(RunSummary(0.0, 20.0))


# --- quantiles -----------------------------------------------------------------------------------

SHAPES = {
    "pareto of infinite variance": lambda random, count: random.pareto(1.1, count),
    "lognormal, cv of 7": lambda random, count: random.lognormal(0, 2, count),
    "sorted": lambda random, count: np.sort(random.pareto(1.1, count)),
    "falling": lambda random, count: -np.sort(-random.pareto(1.1, count)),
    "rising and falling": lambda random, count: random.exponential(size=count).cumsum() % 97,
    "few values": lambda random, count: random.choice([0.005, 0.01, 0.02], count),
}


@pytest.mark.parametrize("count", [2_000, 300_000])
@pytest.mark.parametrize("shape", SHAPES)
def test_quantiles_have_a_small_rank_error(shape, count):
    latency = SHAPES[shape](np.random.default_rng(3), count)
    created_s = WARM_UP_S + np.linspace(0, 1, count)
    received_s = created_s + latency
    one = np.ones(count, dtype=np.int64)
    metrics = summary_of((created_s, received_s, one, one > 0, one)).metrics()
    exact = received_s - created_s
    for percent, within in ((50, 1e-3), (95, 2e-4), (99, 5e-5)):
        error = rank_error(exact, percent / 100, metrics[f"latency_p{percent}_s"])
        assert error <= within + 1 / count


def test_memory_does_not_grow_with_the_requests():
    # At most twice as many centroids as the compression, of a mean and a weight each.
    limit = 16 * 2 * COMPRESSION + 1000
    assert len(pickle.dumps(summary_of(finished(10_000)))) < limit
    assert len(pickle.dumps(summary_of(finished(2_000_000)))) < limit
