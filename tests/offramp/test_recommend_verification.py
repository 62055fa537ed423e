"""What is verified, and that what is recommended is seldom what misses the target."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from offramp.recommendation.cost import Cost
from offramp.recommendation.estimate import Estimate, Spread, estimate_of
from offramp.recommendation.evidence import Evidence
from offramp.recommendation.space import Configuration
from offramp.recommendation.target import Target
from offramp.recommendation.verification import (
    ALPHA,
    Candidate,
    cheapest,
    judged,
    level_of,
    sequence,
)

AUD = Target("aud", 0.8)
P95 = Target("latency_p95_ms", 0.02)


def seen(mean: float, sd: float = 0.01, n: int = 10, target: Target = AUD) -> Evidence:
    """Of so many requests that those are no limit to how sure it is."""
    requests = 1e5 if target.is_share else None
    return Evidence((target,), (Estimate(mean, Spread(sd), 1, n, requests),))


def candidate(number: int, amount: float, evidence: Evidence, compute_s: float = 0.01) -> Candidate:
    configuration = Configuration({"policy": "full"}, (number,))
    return Candidate("standard", number, configuration, Cost(amount, compute_s, 0.0), evidence)


# --- evidence ------------------------------------------------------------------------------------


def test_a_run_without_an_answer_meets_no_latency() -> None:
    evidence = Evidence((P95,), (estimate_of(np.array([[0.01, math.nan, 0.01]])),))
    assert evidence.slack < 0
    assert not evidence.meets(0.5)
    assert evidence.margin(0.95, 10) == -math.inf


def test_a_bound_is_on_the_bad_side() -> None:
    reach = stats.t.ppf(0.95, 9) * 0.01 / math.sqrt(10)
    assert seen(0.85).bounds(0.95) == [pytest.approx(0.85 - reach)]
    late = seen(0.015, 0.001, target=P95)
    assert late.bounds(0.95) == [pytest.approx(0.015 + reach / 10)]
    assert late.meets(0.95)
    assert not seen(0.0199, 0.001, target=P95).meets(0.95)
    assert seen(0.8 + 1.01 * reach).meets(0.95)
    assert not seen(0.8 + 0.99 * reach).meets(0.95)
    assert seen(0.8 - 1.01 * reach).fails(0.95)
    assert not seen(0.8 - 0.99 * reach).fails(0.95)


def test_all_targets_must_be_met() -> None:
    both = Evidence(
        (AUD, P95), (seen(0.9).estimates[0], seen(0.03, 0.001, target=P95).estimates[0])
    )
    assert not both.meets(0.95)
    assert both.slack == pytest.approx(-0.5)
    assert both.shortfalls == [pytest.approx(-0.1), pytest.approx(0.5)]


# --- the sequence --------------------------------------------------------------------------------


def numbers(candidates: list[Candidate], replications: int = 10) -> list[int]:
    return [it.number for it in sequence(candidates, 0.95, replications)]


def test_a_sequence_goes_from_the_safest_to_the_cheapest_and_one_further() -> None:
    means = {1: 0.70, 2: 0.79, 3: 0.803, 4: 0.808, 5: 0.815, 6: 0.82, 7: 0.95, 8: 0.99}
    candidates = [candidate(number, number, seen(mean)) for number, mean in means.items()]
    assert numbers(candidates) == [6, 5, 4, 3, 2]
    assert numbers(candidates[::-1]) == [6, 5, 4, 3, 2]


def test_where_nothing_is_safe_it_begins_with_what_is_safest() -> None:
    candidates = [candidate(1, 1, seen(0.801)), candidate(2, 2, seen(0.803))]
    assert numbers(candidates) == [2, 1]
    assert numbers(candidates[:1]) == [1]


def test_of_equal_costs_the_one_that_computes_less_comes() -> None:
    candidates = [
        candidate(1, 2, seen(0.95), compute_s=0.02),
        candidate(2, 2, seen(0.90), compute_s=0.01),
        candidate(3, 1, seen(0.70)),
        candidate(4, 1, seen(0.75)),
    ]
    assert numbers(candidates) == [2, 4]


def test_where_nothing_meets_the_target_the_best_is_verified() -> None:
    candidates = [candidate(it, it, seen(0.7 + it / 100)) for it in (1, 3, 2)]
    assert numbers(candidates) == [3]


def judge(*means: float) -> list[str]:
    """Verdicts on a sequence, the safest first."""
    steps = [
        (candidate(number, 9 - number, seen(mean)), Cost(9 - number, 0.01, 0.0), seen(mean))
        for number, mean in enumerate(means)
    ]
    return [it.verdict for it in judged(steps, 0.95)]


def test_nothing_is_judged_after_the_first_that_does_not_pass() -> None:
    assert judge(0.9, 0.85, 0.70, 0.9) == ["met", "met", "missed", "not judged"]
    assert judge(0.9, 0.801, 0.9) == ["met", "not shown", "not judged"]
    assert judge(0.7, 0.9) == ["missed", "not judged"]
    assert judge(0.9, 0.801, 0.7) == ["met", "not shown", "missed"], "which is no recommendation"


def test_the_cheapest_that_passed_is_recommended() -> None:
    steps = [
        (candidate(it, 9 - it, seen(mean)), Cost(9 - it, 0.01, 0.0), seen(mean))
        for it, mean in enumerate((0.9, 0.85, 0.7))
    ]
    verified = judged(steps, 0.95)
    found = cheapest(verified)
    assert found is verified[1]
    assert cheapest(verified[2:]) is None


# --- how often it is wrong -----------------------------------------------------------------------


def wrongly_recommended(
    drawn: np.random.Generator, means: np.ndarray, screening: int, replications: int
) -> bool:
    """Search among configurations whose true means are known, and verify, on normal data."""
    sd = 0.05
    candidates = []
    for number, mean in enumerate(means):
        values = drawn.normal(mean, sd, screening)
        evidence = seen(float(values.mean()), float(values.std(ddof=1)), screening)
        candidates.append(candidate(number, float(number), evidence))
    level = level_of(1)
    steps = []
    for it in sequence(candidates, level, replications):
        values = drawn.normal(means[it.number], sd, replications)
        evidence = seen(float(values.mean()), float(values.std(ddof=1)), replications)
        steps.append((it, it.cost, evidence))
    found = cheapest(judged(steps, level))
    return found is not None and bool(means[found.screened.number] < AUD.value)


@pytest.mark.parametrize(
    "means",
    [
        np.full(40, 0.8 - 1e-9),  # all of them just miss it: the worst there can be
        np.linspace(0.75, 0.799, 40),
        np.linspace(0.7, 0.9, 40),
        np.concatenate([np.full(20, 0.799), np.full(20, 0.85)]),
    ],
)
def test_what_misses_the_target_is_recommended_as_seldom_as_is_said(means: np.ndarray) -> None:
    drawn = np.random.default_rng(7)
    repeated = 400
    wrong = sum(wrongly_recommended(drawn, means, 3, 8) for _ in range(repeated))
    most = stats.binom.ppf(0.999, repeated, ALPHA)
    assert wrong <= most


def wrongly_recommended_for_others(drawn: np.random.Generator, own: bool) -> bool:
    """Search among ten that just miss the target for other trainings, on their five networks.

    Args:
        own: whether each has trainings of its own, or all have the luck of their networks in
            common.
    """
    luck = drawn.normal(AUD.value - 1e-9, 0.01, (10 if own else 1, 5, 1))

    def simulated(replications: int) -> list[Evidence]:
        shape = (10, 5, replications)
        values = luck + drawn.normal(0, 0.005, (1, 1, replications)) + drawn.normal(0, 0.005, shape)
        return [Evidence((AUD,), (estimate_of(it, 1e5),)) for it in values]

    candidates = [candidate(it, float(it), seen) for it, seen in enumerate(simulated(3))]
    level, fresh = level_of(1), simulated(10)
    steps = [(it, it.cost, fresh[it.number]) for it in sequence(candidates, level, 10)]
    return cheapest(judged(steps, level)) is not None


def test_the_level_holds_for_other_trainings_where_candidates_share_the_luck_of_theirs() -> None:
    drawn, repeated = np.random.default_rng(5), 400
    common, own = (
        sum(wrongly_recommended_for_others(drawn, own) for _ in range(repeated))
        for own in (False, True)
    )
    assert common <= stats.binom.ppf(0.999, repeated, ALPHA)
    assert own > 3 * ALPHA * repeated, "else the page need not warn of it"


def test_with_the_requests_of_the_search_it_would_be_wrong_far_more_often() -> None:
    """The winner's curse, which fresh requests are there to avoid."""
    drawn = np.random.default_rng(7)
    wrong = 0
    for _ in range(400):
        values = drawn.normal(0.79, 0.05, (40, 8))
        best = values[values.mean(axis=1).argmax()]
        evidence = seen(float(best.mean()), float(best.std(ddof=1)), 8)
        wrong += evidence.meets(level_of(1))
    assert wrong > 3 * ALPHA * 400


def test_what_meets_the_target_well_is_found() -> None:
    """A rule that never recommends anything would never be wrong either."""
    drawn = np.random.default_rng(3)
    means = np.linspace(0.6, 0.95, 36)  # 0.8 is number 20
    found = []
    for _ in range(100):
        candidates = []
        for number, mean in enumerate(means):
            values = drawn.normal(mean, 0.03, 3)
            evidence = seen(float(values.mean()), float(values.std(ddof=1)), 3)
            candidates.append(candidate(number, float(number), evidence))
        steps = []
        for it in sequence(candidates, 0.95, 10):
            values = drawn.normal(means[it.number], 0.03, 10)
            steps.append((it, it.cost, seen(float(values.mean()), float(values.std(ddof=1)))))
        best = cheapest(judged(steps, 0.95))
        found.append(99 if best is None else best.screened.number)
    assert np.mean(np.array(found) < 30) > 0.9


def test_strategies_share_the_level() -> None:
    assert level_of(1) == pytest.approx(0.95)
    assert level_of(2) == pytest.approx(0.975)
