"""What simulations say of a metric: how sure its mean is, and how often that deceives."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
from scipy import special, stats

from offramp.recommendation.estimate import Estimate, Spread, estimate_of
from offramp.recommendation.evidence import Evidence
from offramp.recommendation.target import Target

AUD = Target("aud", 0.8)
P95 = Target("latency_p95_ms", 0.02)

#: So many that a share's requests are no limit to how sure it is.
MANY = 1e6


def runs(
    values: list[list[float]], metric: str = "aud", offered: list[list[int]] | None = None
) -> pd.DataFrame:
    """Of a metric by training seed and replication."""
    return pd.DataFrame(
        [
            {"strategy": "s", "policy": "p", "training_seed": seed, "replication": replication}
            | {"offered": offered[seed][replication] if offered else 100}
            | {"answered": 0 if math.isnan(value) else 90, metric: value}
            for seed, of_seed in enumerate(values)
            for replication, value in enumerate(of_seed)
        ]
    )


def estimated(frame: pd.DataFrame, target: Target = AUD) -> Estimate:
    return Evidence.of(frame, [target]).estimates[0]


def meets(estimate: Estimate, target: Target, level: float = 0.95) -> bool:
    return Evidence((target,), (estimate,)).meets(level)


def share(mean: float, replications: float, seeds: float = 0.0, n: tuple[int, int] = (1, 10),
          requests: float = MANY) -> Estimate:  # fmt: skip
    return Estimate(mean, Spread(replications, seeds), *n, requests)


# --- from runs -----------------------------------------------------------------------------------


@pytest.mark.parametrize("metric", ["aud", "hit_ratio", "accuracy", "latency_p95_ms"])
def test_every_metric_varies_with_training_seeds_and_with_replications(metric: str) -> None:
    target = Target(metric, 0.8)
    it = estimated(runs([[0.1, 0.3], [0.2, 0.4], [0.3, 0.5]], target.column), target)
    assert (it.training_seeds, it.replications) == (3, 2)
    assert it.over == "3 training seeds and 2 replications"
    assert it.mean == pytest.approx(0.3)
    assert it.spread.seeds == pytest.approx(0.1)
    assert it.spread.replications == pytest.approx(0.2 / math.sqrt(2))


def test_of_one_training_nothing_but_replications_is_known() -> None:
    it = estimated(runs([[0.7, 0.8, 0.9]]))
    assert it.over == "3 replications of one training"
    assert it.spread == Spread(pytest.approx(0.1), 0.0)
    assert it.half_width == pytest.approx(stats.t.ppf(0.975, 2) * 0.1 / math.sqrt(3))


def test_a_share_is_of_all_requests_and_not_the_mean_of_replications() -> None:
    """A replication with a burst has more requests, and more of them are late."""
    it = estimated(runs([[1.0, 0.5]], offered=[[100, 300]]))
    assert it.mean == pytest.approx((100 + 150) / 400)
    # By hand: of 200 requests a replication, 100 · (1 − 0.625) and 300 · (0.5 − 0.625) lie off.
    assert it.spread.replications == pytest.approx(np.std([37.5 / 200, -37.5 / 200], ddof=1))


def test_requests_that_all_networks_meet_are_counted_once() -> None:
    assert estimated(runs([[0.7, 0.8], [0.8, 0.9]])).requests == 200
    accuracy = estimated(runs([[0.7, 0.8], [0.8, 0.9]], "accuracy"), Target("accuracy", 0.5))
    assert accuracy.requests == 180


def test_an_unanswered_replication_says_nothing_of_accuracy_nor_undoes_it() -> None:
    target = Target("accuracy", 0.5)
    some = estimated(runs([[0.7, math.nan, 0.8]], "accuracy"), target)
    assert some.mean == pytest.approx(0.75)
    assert some.requests == 180
    none = estimated(runs([[0.7, 0.8], [math.nan, math.nan]], "accuracy"), target)
    assert math.isnan(none.mean)
    assert not meets(none, target, 0.5)


# --- how sure ------------------------------------------------------------------------------------


def test_bounds_are_those_of_crossed_repetitions() -> None:
    it = share(0.9, 0.02, 0.01, (5, 10))
    parts = [0.02**2 / 10, 0.01**2 / 5]
    freedom = sum(parts) ** 2 / (parts[0] ** 2 / 9 + parts[1] ** 2 / 4)
    reach = stats.t.ppf(0.95, freedom) * math.sqrt(sum(parts))
    assert it.bounds(0.95) == (pytest.approx(0.9 - reach), pytest.approx(0.9 + reach))


def test_bounds_are_no_better_than_over_seeds_or_replications_alone() -> None:
    """Of two seeds, Satterthwaite's degrees of freedom trust a spread that is small by chance."""
    by_seeds = stats.t.ppf(0.95, 1) * 0.01 / math.sqrt(2)
    assert share(0.9, 0.01, 0.01, (2, 10)).bounds(0.95)[0] == pytest.approx(0.9 - by_seeds)
    by_replications = stats.t.ppf(0.95, 1) * 0.01 / math.sqrt(2)
    it = share(0.9, 0.01, 0.005, (8, 2))
    assert it.bounds(0.95)[0] == pytest.approx(0.9 - by_replications)


def test_networks_that_make_no_difference_widen_nothing() -> None:
    """Under a policy that does not look at confidence they decide nothing of what is late."""
    one, several = (
        estimated(runs([[0.7, 0.8, 0.9]] * seeds, "hit_ratio"), Target("hit_ratio", 0.8))
        for seeds in (1, 3)
    )
    assert several.bounds(0.95) == pytest.approx(one.bounds(0.95))


@pytest.mark.parametrize(
    ("seeds", "replications", "seed_sd", "replication_sd", "residual_sd"),
    [
        (5, 10, 0.003, 0.01, 0.0),
        (5, 10, 0.003, 0.01, 0.01),
        (5, 3, 0.001, 0.01, 0.0),
        (3, 10, 0.001, 0.01, 0.0),
        (2, 10, 0.001, 0.01, 0.0),
    ],
)
def test_what_misses_its_target_seldom_meets_it_where_seeds_alone_say_it_often_does(
    seeds: int, replications: int, seed_sd: float, replication_sd: float, residual_sd: float
) -> None:
    drawn, repeated, target = np.random.default_rng(11), 1500, Target("aud", 0.85)
    met, met_by_seeds = 0, 0
    for _ in range(repeated):
        values = 0.8499 + drawn.normal(0, seed_sd, (seeds, 1))
        values = values + drawn.normal(0, replication_sd, (1, replications))
        values += drawn.normal(0, residual_sd, values.shape)
        met += meets(estimate_of(values, MANY), target)
        of_seeds = values.mean(axis=1)
        reach = special.stdtrit(seeds - 1, 0.95) * of_seeds.std(ddof=1) / math.sqrt(seeds)
        met_by_seeds += of_seeds.mean() - reach >= target.value
    assert met / repeated <= 0.07
    assert met_by_seeds / repeated > 0.15, "else this is no test of replications"


@pytest.mark.parametrize("seeds", [2, 3, 5])
def test_it_seldom_meets_it_either_where_networks_differ_most(seeds: int) -> None:
    drawn, repeated, target = np.random.default_rng(12), 2000, Target("hit_ratio", 0.85)
    met = 0
    for _ in range(repeated):
        values = 0.8499 + drawn.normal(0, 0.01, (seeds, 1)) + drawn.normal(0, 0.005, (1, 10))
        met += meets(estimate_of(values, MANY), target)
    assert met / repeated <= 0.07


def test_what_is_well_beyond_its_target_is_shown_to_be() -> None:
    """A bound that is never met would never deceive either."""
    drawn, met = np.random.default_rng(13), 0
    for _ in range(300):
        values = 0.87 + drawn.normal(0, 0.003, (5, 1)) + drawn.normal(0, 0.01, (1, 10))
        met += meets(estimate_of(values, 5000.0), Target("aud", 0.85))
    assert met > 0.9 * 300


# --- what does not vary --------------------------------------------------------------------------


def test_a_share_without_a_spread_is_as_sure_as_its_requests_are_many() -> None:
    it = share(1.0, 0.0, requests=1000)
    assert it.bounds(0.95) == (pytest.approx(0.05 ** (1 / 1000)), 1.0)
    assert it.half_width == pytest.approx(1 - 0.025 ** (1 / 1000))
    assert not meets(it, Target("hit_ratio", 0.999))
    assert meets(it, Target("hit_ratio", 0.997))
    assert not meets(it, Target("hit_ratio", 1.0)), "which no number of requests shows"


def test_a_share_is_no_surer_than_independent_requests_make_it() -> None:
    low, high = share(0.9, 1e-6, requests=200).bounds(0.95)
    for alternative, bound in (("greater", low), ("less", high)):
        exact = stats.binomtest(180, 200, alternative=alternative).proportion_ci(0.95, "exact")
        assert bound == pytest.approx(exact.low if alternative == "greater" else exact.high)
    wide = share(0.9, 0.2, requests=200)
    assert wide.bounds(0.95)[0] == pytest.approx(0.9 - stats.t.ppf(0.95, 9) * 0.2 / math.sqrt(10))


def test_few_misses_are_seldom_taken_for_none() -> None:
    """Shares near 1 are skewed: t on replications that show no miss is sure of far too much."""
    drawn, repeated, target = np.random.default_rng(14), 1500, Target("hit_ratio", 0.999)
    shares = drawn.binomial(100, 0.998, (repeated, 10)) / 100
    met = sum(meets(estimate_of(of_one[None], 1000.0), target) for of_one in shares)
    reach = special.stdtrit(9, 0.95) * shares.std(axis=1, ddof=1) / math.sqrt(10)
    assert met / repeated <= 0.07
    assert np.mean(shares.mean(axis=1) - reach >= target.value) > 0.1


def test_latencies_that_are_all_alike_are_believed_as_far_as_the_sign_test_does() -> None:
    enough, few = (estimate_of(np.full((1, count), 0.015)) for count in (5, 4))
    assert enough.bounds(0.95) == (pytest.approx(0.015), pytest.approx(0.015))
    assert meets(enough, P95)
    assert all(map(math.isnan, few.bounds(0.95)))
    assert math.isnan(few.half_width)
    assert not meets(few, P95)
    assert not Evidence((P95,), (estimate_of(np.full((1, 4), 0.03)),)).fails(0.95)
    rounded = estimate_of(0.015 + 1e-17 * np.arange(4.0)[None])
    assert math.isnan(rounded.half_width), "sums that were rounded otherwise do not vary"


# --- what a verification needs -------------------------------------------------------------------


def margin(it: Estimate, replications: int, least: tuple[Spread, ...] = ()) -> float:
    return Evidence((AUD,), (it,)).margin(0.95, replications, least)


def test_with_more_replications_the_spread_of_requests_averages_out_and_no_other() -> None:
    it = share(0.9, 0.02, 0.01, (3, 3), requests=300).with_replications(12)
    assert (it.training_seeds, it.replications, it.requests) == (3, 12, 1200)
    assert it.spread == Spread(0.02, 0.01)
    # However many there are, seeds alone limit what is known.
    reach = stats.t.ppf(0.95, 2) * 0.01 / math.sqrt(3)
    assert margin(share(0.8 + reach, 0.02, 0.01, (3, 3)), 10**9) == pytest.approx(1, rel=1e-3)
    one = stats.t.ppf(0.95, 10**4 - 1) * 0.02 / 100
    assert margin(share(0.8 + one, 0.02, n=(1, 3)), 10**4) == pytest.approx(1)


@pytest.mark.parametrize(
    "screened",
    [
        share(0.83, 0.02, 0.01, (3, 3)),
        share(0.83, 0.02, 0.0, (1, 3)),
        share(0.83, 0.001, 0.001, (4, 3), requests=60),
        share(1.0, 0.0, 0.0, (1, 3), requests=30),
    ],
)
def test_a_margin_of_one_is_what_just_passes(screened: Estimate) -> None:
    at = screened.with_replications(10).bounds(0.95)[0]
    for target, passes in ((Target("aud", at - 1e-6), True), (Target("aud", at + 1e-6), False)):
        evidence = Evidence((target,), (screened,))
        assert (evidence.margin(0.95, 10) >= 1) == passes
        assert meets(screened.with_replications(10), target) == passes


def test_each_part_of_a_spread_is_taken_to_be_at_least_the_usual() -> None:
    it = share(0.85, 0.0, 0.02, (3, 3))
    assert margin(it, 10, (Spread(0.01, 0.005),)) == margin(share(0.85, 0.01, 0.02, (3, 3)), 10)
    assert margin(it, 10, (Spread(0.01, 0.03),)) == margin(share(0.85, 0.01, 0.03, (3, 3)), 10)


def test_what_does_not_vary_has_no_reach_to_measure_a_margin_by() -> None:
    def of_latency(mean: float) -> float:
        return Evidence((P95,), (estimate_of(np.full((1, 3), mean)),)).margin(0.95, 10)

    assert of_latency(0.02) == 0
    assert of_latency(0.015) == math.inf
    assert of_latency(0.03) == -math.inf


def test_more_of_what_varies_most_would_help() -> None:
    assert share(0.9, 0.01, 0.01, (3, 10)).varies_most_with_seeds
    assert not share(0.9, 0.03, 0.01, (3, 10)).varies_most_with_seeds
    assert not share(0.9, 0.01, 0.0, (1, 10)).varies_most_with_seeds
    assert not share(0.9, 0.001, 0.001, (3, 10), requests=100).varies_most_with_seeds
