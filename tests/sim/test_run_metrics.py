"""Metrics of a run, worked by hand; intervals over repetitions, against scipy.stats."""

import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from tiny_worlds import (
    AtTimes,
    Deciding,
    examples,
    group,
    predictions,
    records_of,
    run_of,
    world,
    written_world,
)

from sim.policy import ANSWER, DROP, run_to
from sim.results.metrics import (
    ARM,
    added_error,
    confidence_interval,
    half_widths,
    over_replications,
    over_training_seeds,
    ratio_interval,
    run_metrics,
    share_bounds,
)

# --- one run -------------------------------------------------------------------------------------

#: One sample, which exit 1 gets wrong and exit 2 right.
SAYS = predictions(label=[0], predicted=[[1, 0]])


def metrics_of(exits, seconds, deadline=2.5, warm_up_s=0.0):
    """Metrics of requests ten seconds apart that leave at ``exits``; exit 0 is dropped."""
    decisions = iter(
        decision for exit in exits for decision in ((run_to(exit), ANSWER) if exit else (DROP,))
    )
    a_world = written_world(
        [10.0 * number for number in range(len(exits))],
        [[one, one] for one in seconds],
        deadline=deadline,
        warm_up_s=warm_up_s,
        duration_s=10.0 * len(exits) - warm_up_s,
    )
    run = run_of(a_world, Deciding(lambda request, node: next(decisions)), SAYS)
    return run_metrics(a_world, run)


def test_every_metric_of_a_hand_worked_run():
    metrics = metrics_of(exits=[2, 1, 0, 2, 2], seconds=[3.0, 1.0, 9.0, 2.0, 2.0])
    # late and right; in time and wrong; dropped; in time and right, twice
    assert metrics == pytest.approx(
        {
            "offered": 5,
            "answered": 4,
            "on_time": 3,
            "late": 1,
            "dropped": 1,
            "lost": 0,
            "aud": 2 / 5,
            "hit_ratio": 3 / 5,
            "accuracy": 3 / 4,
            "latency_mean_s": (3 + 1 + 2 + 2) / 4,
            "latency_p50_s": 2.0,
            "latency_p95_s": 2.85,  # of 1, 2, 2, 3: at rank 0.95 * 3, between the last two
            "latency_p99_s": 2.97,
        }
    )


def test_dropped_requests_stay_in_the_denominator_of_aud():
    served = metrics_of(exits=[2, 2], seconds=[1.0, 1.0])
    refused = metrics_of(exits=[2, 2, 0, 0], seconds=[1.0] * 4)
    assert (served["aud"], served["hit_ratio"]) == (1.0, 1.0)
    assert (refused["aud"], refused["hit_ratio"]) == (0.5, 0.5)
    assert refused["accuracy"] == 1.0, "accuracy is over the answered only, and says so"


def test_late_answers_count_in_latency_but_not_in_aud():
    metrics = metrics_of(exits=[2, 2], seconds=[1.0, 9.0])
    assert metrics["aud"] == 0.5
    assert metrics["accuracy"] == 1.0
    assert metrics["latency_mean_s"] == 5.0


def test_requests_of_the_warm_up_are_cut():
    metrics = metrics_of(exits=[1, 0, 2], seconds=[9.0, 9.0, 1.0], warm_up_s=15.0)
    assert metrics["offered"] == 1
    assert metrics["aud"] == 1.0
    assert metrics["latency_p99_s"] == 1.0


def test_an_answer_exactly_at_its_deadline_is_in_time():
    assert metrics_of(exits=[2], seconds=[2.5])["hit_ratio"] == 1.0
    assert metrics_of(exits=[2], seconds=[2.5000001])["hit_ratio"] == 0.0


def test_without_answers_there_are_no_latencies():
    metrics = metrics_of(exits=[0, 0], seconds=[1.0, 1.0])
    assert metrics["aud"] == metrics["hit_ratio"] == 0.0
    for name in ("accuracy", "latency_mean_s", "latency_p50_s", "latency_p95_s", "latency_p99_s"):
        assert math.isnan(metrics[name]), name


def test_without_requests_there_are_no_shares():
    a_world = world(group(arrivals=AtTimes(((50.0,),))), duration_s=10.0)
    metrics = run_metrics(a_world, run_of(a_world))
    assert metrics["offered"] == 0
    assert math.isnan(metrics["aud"])
    assert math.isnan(metrics["hit_ratio"])


def test_metrics_are_those_of_the_records():
    a_world = world(group(count=5, deadline=0.3), warm_up_s=2.0, duration_s=60.0)
    run = run_of(a_world)
    frame, metrics = records_of(a_world, run), run_metrics(a_world, run)
    on_time = frame["outcome"] == "on_time"
    assert 0.2 < metrics["hit_ratio"] < 1
    assert metrics["offered"] == len(frame)
    assert metrics["aud"] == pytest.approx((frame["correct"] & on_time).mean())
    latency = frame["received_s"] - frame["created_s"]
    assert metrics["latency_p95_s"] == pytest.approx(latency.quantile(0.95))


# --- intervals -----------------------------------------------------------------------------------

samples = st.lists(st.floats(-1e3, 1e3), min_size=2, max_size=40)


@given(samples, st.sampled_from([0.5, 0.9, 0.95, 0.999]))
@examples(100)
def test_confidence_interval_is_students(values, level):
    interval = confidence_interval(values, level)
    assert interval.n == len(values)
    assert interval.mean == pytest.approx(np.mean(values), rel=1e-9, abs=1e-9)
    error = stats.sem(values)
    half_width = -stats.t.ppf((1 - level) / 2, len(values) - 1) * error
    assert interval.half_width == pytest.approx(half_width, rel=1e-9, abs=1e-9)
    if error > 1e-9:
        low, high = stats.t.interval(level, len(values) - 1, np.mean(values), error)
        assert (interval.low, interval.high) == (pytest.approx(low), pytest.approx(high))


def test_half_widths_are_those_of_each_groups_interval():
    values = pd.Series([1.0, 2.0, 4.0, 7.0, 3.0, 3.5], index=list("aaabcc"))
    found = half_widths(values.groupby(level=0), 0.99)
    for name, of_group in values.groupby(level=0):
        expected = confidence_interval(of_group, 0.99).half_width
        assert found[name] == pytest.approx(expected, nan_ok=True)
    assert list(found.isna()) == [False, True, False]


def test_confidence_interval_is_of_95_percent_unless_told_otherwise():
    assert confidence_interval([1.0, 2.0, 4.0]) == confidence_interval([1.0, 2.0, 4.0], 0.95)
    assert confidence_interval([0.0, 2.0]).half_width == pytest.approx(12.706, abs=1e-3)


def test_95_of_100_intervals_hold_the_mean():
    values = np.random.default_rng(1).normal(3.0, 1.0, (2000, 5))
    intervals = [confidence_interval(row) for row in values]
    covered = np.mean([one.low <= 3.0 <= one.high for one in intervals])
    assert abs(covered - 0.95) < 4 * math.sqrt(0.95 * 0.05 / 2000)


@pytest.mark.parametrize(("values", "mean"), [([], math.nan), ([2.0], 2.0)])
def test_fewer_than_two_repetitions_give_no_interval(values, mean):
    interval = confidence_interval(values)
    assert interval.n == len(values)
    assert interval.mean == pytest.approx(mean, nan_ok=True)
    assert math.isnan(interval.half_width)
    assert math.isnan(interval.low)


def test_95_of_100_intervals_hold_the_ratio_of_means():
    random = np.random.default_rng(2)
    below = random.normal(3.0, 0.5, (2000, 8))
    above = 1.2 * below + random.normal(0.0, 0.3, below.shape)
    intervals = [ratio_interval(*pair) for pair in zip(above, below, strict=True)]
    covered = np.mean([one.low <= 1.2 <= one.high for one in intervals])
    assert abs(covered - 0.95) < 4 * math.sqrt(0.95 * 0.05 / 2000)


def test_a_ratio_of_means_is_not_too_high_where_the_mean_of_ratios_is():
    random = np.random.default_rng(3)
    above, below = random.gamma(4.0, 1.0, (2, 100_000))  # E[1 / below] is 1/3, not 1/4
    interval = ratio_interval(above, below)
    assert interval.mean == pytest.approx(1.0, abs=0.01)
    assert abs(interval.mean - 1) < 2 * interval.half_width
    assert np.mean(above / below) == pytest.approx(4 / 3, rel=0.02)


def test_the_interval_of_a_ratio_is_none_where_pairs_say_nothing_else():
    interval = ratio_interval([1.0, 2.0, 3.0], [2.0, 4.0, 6.0])
    assert (interval.mean, interval.half_width, interval.n) == (0.5, pytest.approx(0), 3)


@pytest.mark.parametrize(
    ("above", "below", "ratio"),
    [([], [], math.nan), ([1.0, 1.0], [0.0, 0.0], math.nan), ([1.0], [4.0], 0.25),
     ([1.0, 2.0], [1.0, math.nan], math.nan), ([1.0, math.nan], [1.0, 2.0], math.nan)],
)  # fmt: skip
def test_a_ratio_of_too_little_has_no_interval(above, below, ratio):
    interval = ratio_interval(above, below)
    assert interval.mean == pytest.approx(ratio, nan_ok=True)
    assert math.isnan(interval.half_width)


def test_pairs_of_nothing_say_nothing():
    interval = ratio_interval([0.0, 3.0, 5.0], [0.0, 2.0, 4.0])
    assert interval == ratio_interval([3.0, 5.0], [2.0, 4.0])
    alone = ratio_interval([0.0, 0.0, 5.0], [0.0, 0.0, 4.0])
    assert (alone.mean, alone.n) == (1.25, 1)
    assert math.isnan(alone.half_width), "no interval without width from one repetition"


def test_repetitions_without_a_denominator_count_with_their_numerators():
    """100 J each, and correct answers in the last alone: 5 J each, not 1.25 J."""
    interval = ratio_interval([100.0] * 4, [0.0, 0.0, 0.0, 80.0])
    assert interval.mean == 5.0
    # (100 - 5 * 0) / 20 = 5 three times, and (100 - 5 * 80) / 20 = -15: sd 10, and t(3) = 3.182.
    assert interval.half_width == pytest.approx(3.1824 * 10 / 2, abs=1e-3)
    assert interval.n == 4


# --- comparisons ---------------------------------------------------------------------------------


def runs_frame(value):
    """One row for each of 2 strategies, 2 policies, 3 training seeds and 4 replications."""
    rows = [
        (strategy, seed, policy, replication, value(strategy, policy, seed, replication))
        for strategy in ("standard", "curriculum")
        for seed in (11, 12, 13)
        for policy in ("fixed", "confidence")
        for replication in range(4)
    ]
    return pd.DataFrame(rows, columns=[*ARM, "aud"]).assign(offered=10, answered=10)


def test_evidence_about_strategies_is_one_value_per_training_seed():
    runs = runs_frame(lambda strategy, policy, seed, replication: seed + replication)
    values = over_training_seeds(runs, "aud")
    assert len(values) == 2 * 2 * 3
    assert values["curriculum", "fixed", 12] == 12 + 1.5
    assert confidence_interval(values.xs(("standard", "fixed"))).n == 3


def test_evidence_about_policies_is_one_value_per_replication():
    runs = runs_frame(lambda strategy, policy, seed, replication: seed + replication)
    values = over_replications(runs, "aud")
    assert len(values) == 2 * 2 * 4
    assert values["standard", "confidence", 3] == 12 + 3


def unequal_runs():
    """Two arms, one seed, four replications, of which the last has ten times as many requests."""
    shares = {"fixed": (0.9, 0.9, 0.9, 0.5), "confidence": (0.8, 0.85, 0.9, 0.6)}
    rows = [
        ("standard", 1, policy, replication, aud, 1000 if replication == 3 else 100)
        for policy, of_policy in shares.items()
        for replication, aud in enumerate(of_policy)
    ]
    return pd.DataFrame(rows, columns=[*ARM, "aud", "offered"]).assign(answered=0)


def test_mean_and_interval_of_unequal_replications_are_of_the_ratio_of_all_requests():
    values = over_replications(unequal_runs(), "aud").xs(("standard", "fixed"))
    interval = confidence_interval(values)
    by_hand = ratio_interval([90.0, 90.0, 90.0, 500.0], [100.0, 100.0, 100.0, 1000.0])
    assert interval.mean == pytest.approx(770 / 1300)
    assert interval.mean == pytest.approx(by_hand.mean)
    assert interval.half_width == pytest.approx(by_hand.half_width)
    # Residuals over the mean of 325 requests: 30.77 / 325 three times, and -92.31 / 325.
    assert interval.half_width == pytest.approx(3.1824 * 0.18935 / 2, abs=1e-3)


def test_paired_differences_of_unequal_replications_are_of_the_arms_ratios():
    values = over_replications(unequal_runs(), "aud").xs("standard")
    gaps = values.xs("confidence", level="policy") - values.xs("fixed", level="policy")
    assert gaps.mean() == pytest.approx((80 + 85 + 90 + 600) / 1300 - 770 / 1300)


def test_where_all_have_as_many_requests_values_are_the_shares_themselves():
    runs = unequal_runs().assign(offered=300)
    values = over_replications(runs, "aud").xs(("standard", "confidence"))
    assert list(values) == pytest.approx([0.8, 0.85, 0.9, 0.6], abs=1e-15)


def test_a_repetition_without_requests_has_no_value_and_leaves_the_others_theirs():
    runs = unequal_runs()
    runs.loc[runs["replication"] == 0, ["aud", "offered"]] = [math.nan, 0]
    values = over_replications(runs, "aud").xs(("standard", "fixed"))
    assert math.isnan(values[0])
    assert values.mean() == pytest.approx((90 + 90 + 500) / 1200)
    nothing = over_replications(runs.assign(offered=0), "aud")
    assert nothing.isna().all()


# --- errors of what varies with several things ---------------------------------------------------


def test_variances_of_means_are_added_and_freedom_is_between_that_of_one_and_of_all():
    error, freedom = added_error([0.09, 0.16], [9, 4])
    assert error == pytest.approx(math.sqrt(0.01 + 0.04))
    assert freedom == pytest.approx(0.05**2 / (0.01**2 / 8 + 0.04**2 / 3))
    assert 3 < freedom < 8 + 3
    assert added_error([0.09], [9]) == (pytest.approx(0.1), pytest.approx(8))
    assert added_error([0.09, 0.0], [9, 4]) == (pytest.approx(0.1), pytest.approx(8))


def test_errors_are_those_of_welch_in_every_place_of_an_array():
    drawn = np.random.default_rng(3)
    first, second = drawn.normal(0, 1, (2, 3, 5)), drawn.normal(0, 3, (2, 3, 8))
    error, freedom = added_error([first.var(2, ddof=1), second.var(2, ddof=1)], [5, 8])
    welch = stats.ttest_ind(first, second, axis=2, equal_var=False)
    assert freedom == pytest.approx(welch.df)
    assert (first.mean(2) - second.mean(2)) / error == pytest.approx(welch.statistic)


def test_the_error_of_crossed_repetitions_is_not_too_small():
    """It counts the residual twice, and nothing else."""
    drawn = np.random.default_rng(4)
    cells = drawn.normal(0, 0.3, (4000, 4, 1)) + drawn.normal(0, 1, (4000, 1, 6))
    cells = cells + drawn.normal(0, 2, cells.shape)
    variances = [cells.mean(axis).var(1, ddof=1) for axis in (2, 1)]
    error, _ = added_error(variances, [4, 6])
    truth = 0.3**2 / 4 + 1 / 6 + 2**2 / 24
    assert np.var(cells.mean((1, 2))) == pytest.approx(truth, rel=0.1)
    assert np.mean(error**2) == pytest.approx(truth + 2**2 / 24, rel=0.05)


def test_without_a_spread_there_is_no_freedom_and_of_one_repetition_nothing():
    error, freedom = added_error([0.0, 0.0], [9, 4])
    assert error == 0
    assert math.isnan(freedom)
    assert all(np.isnan(added_error([math.nan, 0.1], [1, 4])))


@pytest.mark.parametrize(("part", "whole"), [(0, 20), (1, 20), (17, 20), (20, 20), (500, 1000)])
@pytest.mark.parametrize("level", [0.9, 0.95, 0.99])
def test_bounds_of_a_share_are_those_of_clopper_and_pearson(part, whole, level):
    low, high = share_bounds(part, whole, level)
    exact = [
        stats.binomtest(part, whole, alternative=side).proportion_ci(level, "exact")
        for side in ("greater", "less")
    ]
    assert low == pytest.approx(exact[0].low)
    assert high == pytest.approx(exact[1].high)


def test_bounds_of_a_share_of_nothing_are_unknown_and_rounding_does_no_harm():
    assert all(map(math.isnan, share_bounds(0, 0, 0.95)))
    assert share_bounds(10 + 1e-12, 10, 0.95) == share_bounds(10, 10, 0.95)
    assert share_bounds(-1e-12, 10, 0.95) == share_bounds(0, 10, 0.95)
