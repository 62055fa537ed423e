"""Paired gains over training seeds: worked by hand, against scipy, and what must always hold."""

import math
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from models.errors import ResultsError
from offramp.study.statistics import holm, paired_gains, verdict_counts

Values = dict[str, dict[int, float]]


def table(values: Values, exit: int = 1, **axes: Any) -> pd.DataFrame:
    """Rows of one configuration and exit, from shares by strategy and seed."""
    return pd.DataFrame(
        [
            axes | {"strategy": strategy, "seed": seed, "exit": exit, "test_accuracy": share}
            for strategy, by_seed in values.items()
            for seed, share in by_seed.items()
        ]
    )


def gains(*frames: pd.DataFrame, axes: tuple[str, ...] = (), **options: Any) -> pd.DataFrame:
    accuracy = pd.concat(frames)
    return paired_gains(accuracy, axes, "standard", measures=["test_accuracy"], **options)


def arms(*differences: float, level: float = 0.5) -> Values:
    """Two arms that differ by so much, seed by seed."""
    base = {seed: level + 0.01 * seed for seed in range(len(differences))}
    return {
        "standard": base,
        "curriculum": {seed: base[seed] + gain for seed, gain in enumerate(differences)},
    }


# --- one comparison ---------------------------------------------------------------------------


def test_a_gain_worked_by_hand() -> None:
    # Differences 1, 2 and 3 points: mean 2, standard deviation 1, t = 2 √3 with 2 degrees of
    # freedom, whose 97.5 % quantile is 4.30265.
    (row,) = gains(table(arms(0.01, 0.02, 0.03))).itertuples()
    assert (row.n, row.left_out, row.exit) == (3, 0, 1)
    assert (row.strategy, row.baseline, row.measure) == ("curriculum", "standard", "test_accuracy")
    assert row.baseline_mean == pytest.approx(0.51)
    assert row.strategy_mean == pytest.approx(0.53)
    assert row.gain_points == pytest.approx(2)
    assert row.half_width_points == pytest.approx(4.30265 / math.sqrt(3), rel=1e-5)
    assert row.low_points == pytest.approx(2 - 4.30265 / math.sqrt(3), rel=1e-4)
    assert row.high_points == pytest.approx(2 + 4.30265 / math.sqrt(3), rel=1e-4)
    # With 2 degrees of freedom, p = 1 − t / √(t² + 2).
    assert row.p == pytest.approx(1 - math.sqrt(12) / math.sqrt(14))
    assert row.p_holm == row.p
    assert row.verdict == "no difference shown"


def test_intervals_and_p_are_those_of_scipys_paired_test() -> None:
    random = np.random.default_rng(5)
    standard = dict(enumerate(random.uniform(0.5, 0.7, 6)))
    values = {
        "standard": standard,
        "curriculum": {seed: share + random.normal(0.01, 0.01) for seed, share in standard.items()},
    }
    (row,) = gains(table(values)).itertuples()
    test = stats.ttest_rel(list(values["curriculum"].values()), list(standard.values()))
    interval = test.confidence_interval(0.95)
    assert row.p == pytest.approx(test.pvalue)
    assert row.low_points == pytest.approx(100 * interval.low)
    assert row.high_points == pytest.approx(100 * interval.high)


def test_what_seeds_share_does_not_widen_the_interval() -> None:
    # Seeds differ by 20 points, arms by about one: unpaired, nothing would be shown.
    standard = {0: 0.3, 1: 0.5, 2: 0.7, 3: 0.9}
    curriculum = {0: 0.310, 1: 0.511, 2: 0.710, 3: 0.911}
    (row,) = gains(table({"standard": standard, "curriculum": curriculum})).itertuples()
    assert row.verdict == "better"
    assert row.half_width_points < 0.2


def test_pairs_are_matched_by_seed_not_by_order() -> None:
    values = arms(0.01, 0.02, 0.03)
    (row,) = gains(table(values)).itertuples()
    shuffled = table(values).sample(frac=1, random_state=4)
    reverse = {**values, "curriculum": dict(reversed(values["curriculum"].items()))}
    for other in (shuffled.sort_values("strategy", ascending=False), table(reverse)):
        (again,) = gains(other).itertuples()
        assert (again.gain_points, again.p) == pytest.approx((row.gain_points, row.p))


def test_seeds_of_one_arm_alone_are_left_out_of_pair_and_means_and_counted() -> None:
    values = arms(0.01, 0.02, 0.03)
    (row,) = gains(table(values)).itertuples()
    values["standard"][7] = 0.9
    values["curriculum"] |= {8: 0.1, 9: math.nan}
    values["standard"][9] = 0.2
    (again,) = gains(table(values)).itertuples()
    assert (again.n, again.left_out) == (3, 3)
    for name in ("gain_points", "half_width_points", "p", "baseline_mean", "strategy_mean"):
        assert getattr(again, name) == pytest.approx(getattr(row, name))


def test_one_common_seed_gives_a_gain_but_neither_interval_nor_p() -> None:
    (row,) = gains(table(arms(0.02))).itertuples()
    assert row.n == 1
    assert row.gain_points == pytest.approx(2)
    assert np.isnan([row.half_width_points, row.low_points, row.p, row.p_holm]).all()
    assert row.verdict == "no difference shown"


def test_without_a_common_seed_there_is_a_row_that_says_so() -> None:
    values = {"standard": {0: 0.5, 1: 0.5}, "curriculum": {2: 0.9, 3: 0.9}}
    (row,) = gains(table(values)).itertuples()
    assert (row.n, row.left_out, row.verdict) == (0, 4, "no difference shown")
    assert np.isnan([row.gain_points, row.baseline_mean, row.p]).all()


def test_arms_that_agree_at_every_seed_are_identical_and_untested() -> None:
    (row,) = gains(table(arms(0, 0, 0))).itertuples()
    assert (row.gain_points, row.half_width_points, row.verdict) == (0, 0, "identical")
    assert math.isnan(row.p)


@pytest.mark.parametrize(("seeds", "p"), [(2, 1 / 2), (3, 1 / 4), (5, 1 / 16), (6, 1 / 32)])
def test_the_same_gain_at_every_seed_gets_the_p_of_a_sign_test(seeds: int, p: float) -> None:
    # A t-test would find p = 0 with two seeds, and rounding must not turn this into one.
    values = arms(*[0.1] * seeds, level=0.45)
    differences = {values["curriculum"][seed] - values["standard"][seed] for seed in range(seeds)}
    assert len(differences) == (1 if seeds < 5 else 2), "of five and more, one is rounded"
    (row,) = gains(table(values)).itertuples()
    assert row.p == p == stats.binomtest(seeds, seeds).pvalue
    assert row.gain_points == pytest.approx(10)
    assert math.isnan(row.half_width_points)
    assert row.verdict == ("better" if seeds == 6 else "no difference shown")


# --- the whole study --------------------------------------------------------------------------


def test_verdicts_name_the_direction_after_correction() -> None:
    up, down = arms(0.05, 0.051, 0.049), arms(-0.05, -0.051, -0.049)
    result = gains(table(up, steps=100), table(down, steps=400), axes=("steps",))
    assert list(result["verdict"]) == ["better", "worse"]
    assert list(result["steps"]) == [100, 400]


def test_holms_correction_is_over_all_configurations_exits_and_strategies() -> None:
    # Mean 2.25, standard deviation 1.258: t = 3.576 with 3 degrees of freedom. That p is below
    # 0.05 alone, and above it among two.
    values = arms(0.01, 0.02, 0.04, 0.02)
    alone = gains(table(values, steps=100), axes=("steps",))
    assert alone["p"].iloc[0] == pytest.approx(2 * stats.t.sf(3.576, 3), abs=1e-4)
    assert alone["verdict"].iloc[0] == "better"
    for other in (
        table(values, steps=400),
        table(values, exit=2, steps=100),
        table({"anti_curriculum": values["curriculum"]}, steps=100),
    ):
        both = gains(table(values, steps=100), other, axes=("steps",))
        assert list(both["p_holm"]) == pytest.approx(2 * both["p"])
        assert set(both["verdict"]) == {"no difference shown"}


def test_measures_are_families_of_their_own() -> None:
    accuracy = table(arms(0.01, 0.02, 0.04, 0.02)).assign(curve_area=lambda t: t["test_accuracy"])
    result = paired_gains(accuracy, [], "standard")
    assert list(result["measure"]) == ["test_accuracy", "curve_area"]
    assert list(result["p_holm"]) == list(result["p"])


def test_identical_comparisons_do_not_enlarge_the_family() -> None:
    result = gains(table(arms(0.01, 0.02, 0.04, 0.02)), table(arms(0, 0, 0, 0), exit=2))
    assert list(result["verdict"]) == ["better", "identical"]


def test_fewer_strategies_make_a_smaller_family() -> None:
    values = arms(0.01, 0.02, 0.04, 0.02)
    values["anti_curriculum"] = values["curriculum"]
    result = gains(table(values), strategies=["curriculum"])
    assert list(result["strategy"]) == ["curriculum"]
    assert list(result["p_holm"]) == list(result["p"])


def test_configurations_may_have_different_exits_and_mixed_settings() -> None:
    values = arms(0.01, 0.02, 0.03)
    frames = [
        *(table(values, exit, backbone="resnet20", width=None) for exit in (1, 2)),
        *(table(values, exit, backbone="vgg", width=0.5) for exit in (1, 2, 3)),
    ]
    result = gains(*frames, axes=("backbone", "width"))
    assert list(zip(result["backbone"], result["exit"], strict=True)) == [
        ("resnet20", 1),
        ("resnet20", 2),
        ("vgg", 1),
        ("vgg", 2),
        ("vgg", 3),
    ]
    assert result["width"].isna().sum() == 2


def test_a_table_of_the_baseline_alone_has_no_gains() -> None:
    result = gains(table({"standard": {0: 0.5, 1: 0.6}}))
    assert result.empty
    assert {"p_holm", "verdict", "gain_points"} <= set(result)
    assert verdict_counts(result).empty


@pytest.mark.parametrize(
    ("accuracy", "axes", "message"),
    [
        (table(arms(0.1)).drop(columns="seed"), [], "no column seed"),
        (table(arms(0.1)), ["steps"], "no column steps"),
        (table(arms(0.1)).drop(columns="test_accuracy"), [], "no column test_accuracy"),
        (pd.concat([table(arms(0.1))] * 2), [], "more than one row for strategy standard, seed 0"),
        (table({"curriculum": {0: 0.5}}), [], "no training has the strategy 'standard'"),
    ],
)
def test_a_table_that_does_not_fit_is_refused(
    accuracy: pd.DataFrame, axes: list[str], message: str
) -> None:
    with pytest.raises(ResultsError, match=message):
        paired_gains(accuracy, axes, "standard", measures=["test_accuracy"])


def test_a_forgotten_axis_is_refused_not_averaged() -> None:
    both = pd.concat([table(arms(0.1), steps=100), table(arms(0.1), steps=400)])
    with pytest.raises(ResultsError, match="more than one row"):
        paired_gains(both, [], "standard", measures=["test_accuracy"])


# --- correction -------------------------------------------------------------------------------


def test_holm_worked_by_hand() -> None:
    # Sorted .01 .02 .03 .04 times 4 3 2 1: .04 .06 .06 .04; never below the one before: .06.
    assert holm([0.04, 0.01, 0.03, 0.02]) == pytest.approx([0.06, 0.04, 0.06, 0.06])
    assert holm([0.6, 0.9]) == pytest.approx([1, 1])


def test_holm_leaves_out_what_was_not_tested() -> None:
    adjusted = holm([math.nan, 0.01, math.nan, 0.04])
    assert np.isnan(adjusted[[0, 2]]).all()
    assert adjusted[[1, 3]] == pytest.approx([0.02, 0.04])
    assert len(holm([])) == 0


@given(st.lists(st.floats(0, 1), min_size=1, max_size=30))
def test_holm_lies_between_no_correction_and_bonferronis_and_keeps_the_order(
    p: list[float],
) -> None:
    raw, adjusted = np.array(p), holm(p)
    assert (adjusted >= raw).all()
    assert (adjusted <= np.minimum(1, len(p) * raw)).all()
    assert (np.diff(adjusted[np.argsort(raw, kind="stable")]) >= 0).all()


def test_false_findings_are_as_rare_as_promised_where_no_strategy_differs() -> None:
    random = np.random.default_rng(11)
    studies, wrong = 200, 0
    for _ in range(studies):
        frames = [
            table(
                {arm: dict(enumerate(random.normal(0.6, 0.01, 5))) for arm in ("standard", "x")},
                exit,
            )
            for exit in (1, 2, 3, 4)
        ]
        wrong += (gains(*frames)["verdict"] != "no difference shown").any()
    # At a rate of 5 %, more than 20 of 200 happen once in a thousand; uncorrected, 37 would.
    assert stats.binom.sf(20, studies, 0.05) < 0.002
    assert 0 < wrong <= 20


# --- pooling ----------------------------------------------------------------------------------


def test_counts_by_hand() -> None:
    frames = [
        table(arms(0.05, 0.051, 0.049), exit=1, steps=100),
        table(arms(-0.05, -0.051, -0.049), exit=1, steps=200),
        table(arms(0.01, -0.01, 0.02), exit=1, steps=400),
        table(arms(0, 0, 0), exit=2, steps=100),
    ]
    counts = verdict_counts(gains(*frames, axes=("steps",)))
    first, second = counts.itertuples()
    assert (first.strategy, first.exit, first.comparisons) == ("curriculum", 1, 3)
    assert (first.better, first.worse, first.undecided, first.identical) == (1, 1, 1, 0)
    assert (first.interval_above, first.interval_below) == (1, 1)
    assert first.mean_gain_points == pytest.approx(2 / 3 / 3)
    assert (second.exit, second.comparisons, second.identical) == (2, 1, 1)
    assert (second.better, second.worse, second.undecided) == (0, 0, 0)
    assert (second.interval_above, second.interval_below) == (0, 0)


def test_counts_tell_what_correction_took_away() -> None:
    values = arms(0.01, 0.02, 0.04, 0.02)
    (row,) = verdict_counts(
        gains(table(values), table(values, exit=2)), by=["strategy"]
    ).itertuples()
    assert (row.comparisons, row.better, row.undecided, row.interval_above) == (2, 0, 2, 2)
