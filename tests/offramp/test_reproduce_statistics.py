"""What moved and what is chance, on runs of which the truth is known."""

import math

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from offramp.report.paired import holm
from offramp.reproduction.figures import run_figures
from offramp.reproduction.statistics import Anew, differences, with_verdicts

#: Reproductions that are drawn at once, each of this many figures.
WORLDS, FIGURES = 2000, 4

ANEW = {
    "nothing": Anew(networks=False, requests=False),
    "requests": Anew(networks=False, requests=True),
    "networks": Anew(networks=True, requests=False),
    "both": Anew(networks=True, requests=True),
}


def table(values: np.ndarray) -> pd.DataFrame:
    """Runs with metrics m0, m1, …; values are (arms, metrics, seeds, replications)."""
    arms, metrics, seeds, replications = values.shape
    index = pd.MultiIndex.from_product(
        [range(arms), range(seeds), range(replications)],
        names=["strategy", "training_seed", "replication"],
    )
    columns = {f"m{metric}": values[:, metric].ravel() for metric in range(metrics)}
    return pd.DataFrame(columns, index=index).reset_index()


def drawn(
    what: str, seeds: int, replications: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """A run and its reproduction, of the same population: effects of seeds, workloads and both.

    What is not made anew is shared by the two.
    """
    anew = ANEW[what]

    def effect(shape: tuple[int, ...], spread: float) -> np.ndarray:
        return rng.normal(0, spread, (WORLDS, FIGURES, *shape))

    of_seeds = [effect((seeds, 1), 0.03) for _ in range(2)]
    of_requests = [effect((1, replications), 0.02) for _ in range(2)]
    rest = [effect((seeds, replications), 0.01) for _ in range(2)]
    if not anew.networks:
        of_seeds[1] = of_seeds[0]
    if not anew.requests:
        of_requests[1] = of_requests[0]
    before, after = (
        0.5 + seed + request + noise
        for seed, request, noise in zip(of_seeds, of_requests, rest, strict=True)
    )
    return before, after


def share_with_a_move(found: pd.DataFrame) -> float:
    """Part of the worlds in which any of its figures is said to have moved."""
    p = found["p"].to_numpy().reshape(WORLDS, FIGURES)
    return float(np.mean([np.nanmin(holm(row)) < 0.05 for row in p]))


# --- truth known --------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(2, 2), (3, 5), (5, 3), (1, 5), (3, 1)], ids=str)
@pytest.mark.parametrize("what", list(ANEW))
def test_where_nothing_moved_a_false_alarm_is_rare(what: str, size: tuple[int, int]) -> None:
    seeds, replications = size
    before, after = drawn(what, seeds, replications, np.random.default_rng(8))
    found = differences(table(before), table(after), ["strategy"], ANEW[what])
    units = {
        "nothing": replications,
        "requests": replications,
        "networks": seeds,
        "both": min(seeds, replications),
    }[what]
    if units < 2:
        assert found["p"].isna().all()
        assert set(with_verdicts(found)["verdict"]) == {"untested"}
        return
    # 5 %, and three standard errors of a share of so many worlds.
    assert share_with_a_move(found) < 0.05 + 3 * math.sqrt(0.05 * 0.95 / WORLDS)


@pytest.mark.parametrize("what", list(ANEW))
def test_a_shift_is_found(what: str) -> None:
    before, after = drawn(what, 5, 5, np.random.default_rng(9))
    after[:, 2] += 0.2
    found = differences(table(before), table(after), ["strategy"], ANEW[what])
    p = found["p"].to_numpy().reshape(WORLDS, FIGURES)
    moved = np.array([holm(row) < 0.05 for row in p])
    assert moved[:, 2].mean() > 0.95
    assert moved[:, [0, 1, 3]].any(axis=1).mean() < 0.06
    shift = found["difference"].to_numpy().reshape(WORLDS, FIGURES)[:, 2]
    assert shift.mean() == pytest.approx(0.2, abs=0.005)


@pytest.mark.parametrize("what", list(ANEW))
def test_an_interval_covers_the_truth_in_95_of_100(what: str) -> None:
    before, after = drawn(what, 4, 5, np.random.default_rng(10))
    found = differences(table(before), table(after), ["strategy"], ANEW[what])
    covered = (found["difference"].abs() <= found["half_width"]).mean()
    assert covered > 0.95 - 3 * math.sqrt(0.05 * 0.95 / (WORLDS * FIGURES))


def test_one_workload_that_all_networks_share_is_no_evidence_of_several_seeds() -> None:
    """Each seed shows the same shift, but it is one workload's, seen five times."""
    rng = np.random.default_rng(11)
    before, after = drawn("both", 5, 2, rng)
    naive = differences(table(before), table(after), ["strategy"], ANEW["networks"])
    honest = differences(table(before), table(after), ["strategy"], ANEW["both"])
    assert share_with_a_move(honest) < 0.065 < share_with_a_move(naive)


# --- worked examples ----------------------------------------------------------------------------


def by_hand(values: list[list[float]]) -> pd.DataFrame:
    """One arm, one metric; rows are seeds, columns replications."""
    return table(np.array(values, dtype=float)[None, None])


def test_the_same_requests_are_paired() -> None:
    before, after = [0.5, 0.7, 0.4, 0.6], [0.52, 0.71, 0.43, 0.62]
    found = differences(by_hand([before]), by_hand([after]), ["strategy"], ANEW["nothing"])
    row = found.iloc[0]
    expected = stats.ttest_rel(after, before)
    low, high = expected.confidence_interval(0.95)
    assert row["p"] == pytest.approx(expected.pvalue, rel=1e-9)
    assert row["half_width"] == pytest.approx((high - low) / 2, rel=1e-9)
    assert row["difference"] == pytest.approx(0.02, abs=1e-12)
    assert (row["before"], row["after"]) == pytest.approx((0.55, 0.57))
    assert (row["n"], row["over"]) == (4, "replications")


def test_other_requests_are_not_paired() -> None:
    before, after = [0.5, 0.7, 0.4, 0.6], [0.52, 0.71, 0.43, 0.62]
    found = differences(by_hand([before]), by_hand([after]), ["strategy"], ANEW["requests"])
    expected = stats.ttest_ind(after, before, equal_var=False)
    low, high = expected.confidence_interval(0.95)
    assert found["p"][0] == pytest.approx(expected.pvalue, rel=1e-9)
    assert found["half_width"][0] == pytest.approx((high - low) / 2, rel=1e-9)


def test_runs_of_unequal_length_that_are_not_paired_lose_nothing() -> None:
    before, after = [0.5, 0.7, 0.4, 0.6, 0.9], [0.52, 0.71, 0.43]
    for one, other in ((before, after), (after, before)):
        found = differences(by_hand([one]), by_hand([other]), ["strategy"], ANEW["requests"])
        row = found.iloc[0]
        expected = stats.ttest_ind(other, one, equal_var=False)
        low, high = expected.confidence_interval(0.95)
        assert row["p"] == pytest.approx(expected.pvalue, rel=1e-9)
        assert row["freedom"] == pytest.approx(expected.df, rel=1e-9)
        assert row["half_width"] == pytest.approx((high - low) / 2, rel=1e-9)
        assert (row["before"], row["after"]) == pytest.approx((np.mean(one), np.mean(other)))
        assert row["difference"] == pytest.approx(np.mean(other) - np.mean(one))
        assert (row["n_before"], row["n_after"]) == (len(one), len(other))
        assert row["test"] == "Welch's t-test, unpaired"
    assert found["n"][0] == 3


def test_networks_are_paired_by_seed_over_all_replications() -> None:
    before = [[0.5, 0.6], [0.4, 0.5], [0.7, 0.9]]
    after = [[0.6, 0.6], [0.5, 0.6], [0.7, 1.0]]
    found = differences(by_hand(before), by_hand(after), ["strategy"], ANEW["networks"])
    expected = stats.ttest_rel(np.mean(after, axis=1), np.mean(before, axis=1))
    assert found["p"][0] == pytest.approx(expected.pvalue, rel=1e-9)
    assert (found["n"][0], found["over"][0]) == (3, "training seeds")


def test_seeds_and_replications_at_random() -> None:
    difference = np.array([[0.1, 0.3, 0.2], [0.0, 0.1, 0.2]])
    found = differences(
        by_hand(np.full((2, 3), 0.5).tolist()),
        by_hand((0.5 + difference).tolist()),
        ["strategy"],
        ANEW["both"],
    )
    between_seeds = 3 * np.var(difference.mean(axis=1), ddof=1)
    between_replications = 2 * np.var(difference.mean(axis=0), ddof=1)
    square = (between_seeds + between_replications) / 6
    freedom = (between_seeds + between_replications) ** 2 / (
        between_seeds**2 / 1 + between_replications**2 / 2
    )
    t = difference.mean() / math.sqrt(square)
    assert found["p"][0] == pytest.approx(2 * stats.t.sf(t, freedom), rel=1e-9)
    assert found["half_width"][0] == pytest.approx(
        stats.t.ppf(0.975, freedom) * math.sqrt(square), rel=1e-9
    )


# --- edges --------------------------------------------------------------------------------------


def verdict(before: list[list[float]], after: list[list[float]], what: str = "nothing") -> str:
    found = differences(by_hand(before), by_hand(after), ["strategy"], ANEW[what])
    return str(with_verdicts(found)["verdict"].iloc[0])


def test_equal_numbers_are_the_same_and_are_not_tested() -> None:
    values = table(np.random.default_rng(1).random((3, 2, 2, 3)))
    found = with_verdicts(differences(values, values.copy(), ["strategy"], ANEW["both"]))
    assert set(found["verdict"]) == {"same"}
    assert found["p"].isna().all()
    assert (found["half_width"] == 0).all()


def test_sums_in_another_order_are_the_same() -> None:
    before = [[0.1, 0.2, 0.3]]
    assert verdict(before, [[it * (1 + 1e-14) for it in before[0]]]) == "same"
    assert verdict(before, [[it * (1 + 1e-6) for it in before[0]]]) != "same"


def test_a_difference_without_spread_claims_no_more_than_its_repetitions_can() -> None:
    for count, said in ((2, "compatible"), (5, "compatible"), (6, "moved")):
        found = with_verdicts(
            differences(
                by_hand([[0.5] * count]), by_hand([[0.75] * count]), ["strategy"], ANEW["nothing"]
            )
        )
        assert found["p"][0] == 2.0 ** (1 - count)
        assert math.isnan(found["half_width"][0])
        assert found["verdict"][0] == said


def test_a_time_that_differs_by_the_same_everywhere_moved() -> None:
    """The same requests and networks, each answer a millisecond later: nothing is by chance."""
    before = by_hand([[0.021, 0.035]]).rename(columns={"m0": "latency_p50_s"})
    after = before.assign(latency_p50_s=before["latency_p50_s"] + 0.001)
    found = with_verdicts(differences(before, after, ["strategy"], ANEW["nothing"]))
    assert found["verdict"][0] == "moved"
    assert found["half_width"][0] == pytest.approx(0, abs=1e-12)
    # With other networks, answers may come from another exit each time, by chance.
    found = with_verdicts(differences(before, after, ["strategy"], ANEW["networks"]))
    assert found["verdict"][0] == "untested"
    # The last digits are nobody's.
    after = before.assign(latency_p50_s=before["latency_p50_s"] * (1 + 1e-13))
    found = with_verdicts(differences(before, after, ["strategy"], ANEW["nothing"]))
    assert found["verdict"][0] == "same"


def test_two_constants_that_are_not_paired() -> None:
    found = differences(by_hand([[0.5] * 4]), by_hand([[0.75] * 4]), ["strategy"], ANEW["requests"])
    assert found["p"][0] == pytest.approx(2 / math.comb(8, 4))


def test_one_repetition_is_untested_unless_nothing_differs() -> None:
    assert verdict([[0.5]], [[0.6]]) == "untested"
    assert verdict([[0.5]], [[0.5]]) == "same"
    assert verdict([[0.5, 0.6]], [[0.6, 0.6]], "networks") == "untested"


def test_runs_without_a_metric_are_left_out() -> None:
    nan = math.nan
    found = differences(
        by_hand([[0.5, nan, 0.4, 0.7]]),
        by_hand([[0.6, 0.5, nan, 0.7]]),
        ["strategy"],
        ANEW["nothing"],
    )
    assert found["n"][0] == 2
    assert (found["before"][0], found["after"][0]) == pytest.approx((0.6, 0.65))
    assert not found["same"][0]
    assert differences(
        by_hand([[nan, nan]]), by_hand([[nan, nan]]), ["strategy"], ANEW["nothing"]
    ).empty
    # All that is there is equal, but once there was an answer where there is none now.
    assert verdict([[0.5, 0.5, 0.5]], [[0.5, 0.5, nan]]) == "compatible"
    assert verdict([[0.5, 0.5]], [[nan, nan]]) == "untested"


@pytest.mark.parametrize("what", ANEW)
def test_the_difference_is_the_one_that_was_tested_where_cells_are_missing(what: str) -> None:
    """A mean of means is another number than the mean of all."""
    nan = math.nan
    before = by_hand([[0.5, 0.4, 0.6], [0.5, nan, nan], [0.3, 0.35, 0.5]])
    after = by_hand([[0.6, 0.45, 0.8], [0.9, nan, nan], [0.5, 0.45, 0.6]])
    row = differences(before, after, ["strategy"], ANEW[what]).iloc[0]
    assert row["after"] - row["before"] == pytest.approx(row["difference"])
    t = stats.t.ppf(1 - row["p"] / 2, row["freedom"])
    se = row["half_width"] / stats.t.ppf(0.975, row["freedom"])
    assert abs(row["difference"]) == pytest.approx(t * se)


def test_rows_in_another_order_are_the_same_rows() -> None:
    before = table(np.random.default_rng(2).random((2, 2, 3, 4)))
    after = before.sample(frac=1, random_state=3)
    assert differences(before, after, ["strategy"], ANEW["nothing"])["same"].all()


def test_holm_is_over_all_figures_that_were_tested() -> None:
    rng = np.random.default_rng(4)
    before = rng.normal(0.5, 0.01, (3, 2, 1, 5))
    after = before + rng.normal(0, 0.01, before.shape)
    after[0, 0] = before[0, 0]
    found = with_verdicts(differences(table(before), table(after), ["strategy"], ANEW["nothing"]))
    tested = found[found["verdict"] != "same"]
    assert len(tested) == 5
    assert tested["p_holm"].to_numpy() == pytest.approx(holm(tested["p"]))
    assert tested["p_holm"].min() == pytest.approx(min(1, 5 * tested["p"].min()))


def test_figures_of_runs_are_shares_of_what_was_offered() -> None:
    runs = pd.DataFrame(
        {
            "strategy": ["standard"],
            "policy": ["full"],
            "training_seed": [0],
            "replication": [0],
            "offered": [200],
            "on_time": [120],
            "late": [40],
            "dropped": [30],
            "lost": [10],
            "aud": [0.5],
            "exit_1": [50],
            "exit_2": [110],
            "first_quarter_s": [0.1],
        }
    )
    figures = run_figures(runs, ["strategy", "policy"]).iloc[0]
    assert figures["late_share"] == 0.2
    assert figures["dropped_share"] == 0.15
    assert figures["lost_share"] == 0.05
    assert figures["exit_2_share"] == 0.55
    assert figures["aud"] == 0.5
    assert "on_time_share" not in figures
    assert "first_quarter_s" not in figures
