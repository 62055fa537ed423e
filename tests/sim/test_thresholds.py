"""Confidence thresholds that are fitted for a wanted accuracy or a wanted mean cost."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny_worlds import examples, predictions, random_predictions

from sim.thresholds import fit_threshold, trade_off

# Four samples, three exits; by hand: which exits are right, and how sure each is.
LABELS = [1, 1, 1, 1]
PREDICTED = [
    [1, 1, 1],  # easy: right everywhere
    [0, 1, 1],  # right from the second exit on
    [0, 0, 1],  # right at the last exit only
    [1, 0, 1],  # overthinking: the second exit spoils it
]
CONFIDENCE = [
    [0.8125, 0.9, 0.9],
    [0.5, 0.75, 0.9],
    [0.25, 0.375, 0.9],
    [0.625, 0.6875, 0.9],
]
WRITTEN = predictions(label=LABELS, predicted=PREDICTED, confidence=CONFIDENCE)
COSTS = [1.0, 2.0, 4.0]


def brute_force(says, costs, threshold):
    """Accuracy and mean cost, sample by sample."""
    right = spent = 0.0
    for label, predicted, confidence in zip(
        says.label, says.predicted, says.confidence, strict=True
    ):
        sure = [exit for exit, value in enumerate(confidence[:-1]) if value >= threshold]
        exit = sure[0] if sure else len(confidence) - 1
        right += predicted[exit] == label
        spent += costs[exit]
    return right / len(says.label), spent / len(says.label)


# --- the trade-off -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("threshold", "accuracy", "cost"),
    [
        (0.25, 2 / 4, 1.0),  # everybody leaves at exit 1
        (0.375, 2 / 4, (1 + 1 + 2 + 1) / 4),  # the third goes on, and is still wrong
        (0.5, 3 / 4, (1 + 1 + 4 + 1) / 4),
        (0.625, 4 / 4, (1 + 2 + 4 + 1) / 4),
        (0.6875, 3 / 4, (1 + 2 + 4 + 2) / 4),  # the fourth thinks on, and spoils it
        (0.75, 4 / 4, (1 + 2 + 4 + 4) / 4),
        (0.8125, 4 / 4, (1 + 4 + 4 + 4) / 4),
        (1.0, 4 / 4, 4.0),  # nobody leaves early
    ],
)
def test_what_each_threshold_reaches_by_hand(threshold, accuracy, cost):
    assert brute_force(WRITTEN, COSTS, threshold) == (accuracy, cost)
    found = trade_off(WRITTEN, COSTS)
    reached = found.at(int(np.searchsorted(found.threshold, threshold)))
    assert (reached.accuracy, reached.cost) == (accuracy, cost)


def test_thresholds_are_the_confidences_of_early_exits_and_1():
    found = trade_off(WRITTEN, COSTS)
    early = {value for row in CONFIDENCE for value in row[:-1]}
    assert found.threshold.tolist() == [*np.float32(sorted(early)).tolist(), 1.0]


@given(
    samples=st.integers(1, 30),
    exits=st.integers(1, 5),
    seed=st.integers(0, 10**6),
    levels=st.sampled_from([2, 5, 1000]),
)
@examples(60)
def test_the_trade_off_agrees_with_brute_force_at_every_threshold(samples, exits, seed, levels):
    says = random_predictions(samples, exits, seed)
    says.confidence[:] = np.ceil(says.confidence * levels) / levels  # ties, and certainty
    costs = np.sort(np.random.default_rng(seed).uniform(1, 9, exits)).tolist()
    found = trade_off(says, costs)
    for index, threshold in enumerate(found.threshold):
        reached = found.at(index)
        accuracy, cost = brute_force(says, costs, threshold)
        assert reached.accuracy == accuracy
        assert reached.cost == pytest.approx(cost, rel=1e-12)


# --- wishes --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wanted", "threshold"),
    [(0.0, 0.25), (0.5, 0.25), (0.51, 0.5), (0.75, 0.5), (0.76, 0.625), (1.0, 0.625)],
)
def test_a_wanted_accuracy_is_had_at_the_least_cost(wanted, threshold):
    assert fit_threshold(WRITTEN, COSTS, wanted_accuracy=wanted).threshold == threshold


@pytest.mark.parametrize(
    ("wanted", "threshold"),
    [
        (1.0, 0.25),
        (1.7, 0.25),  # 0.375 would cost more and answer no better
        (1.75, 0.5),
        (2.0, 0.625),
        (100.0, 0.625),  # more money buys nothing more
    ],
)
def test_a_wanted_cost_buys_the_best_accuracy_and_no_more(wanted, threshold):
    assert fit_threshold(WRITTEN, COSTS, wanted_cost=wanted).threshold == threshold


def test_what_is_reached_comes_with_the_threshold():
    fitted = fit_threshold(WRITTEN, COSTS, wanted_accuracy=0.6)
    assert fitted == (0.5, 0.75, 1.75)
    assert fitted == brute_force_fit(WRITTEN, COSTS, wanted_accuracy=0.6)


def brute_force_fit(says, costs, wanted_accuracy=None, wanted_cost=None):
    """The best of all thresholds tried one by one, or None."""
    candidates = []
    for threshold in sorted({*says.confidence.astype(float).ravel().tolist(), 1.0}):
        accuracy, cost = brute_force(says, costs, threshold)
        if wanted_accuracy is not None and accuracy >= wanted_accuracy:
            candidates.append(((cost, -accuracy), (threshold, accuracy, cost)))
        if wanted_cost is not None and cost <= wanted_cost:
            candidates.append(((-accuracy, cost), (threshold, accuracy, cost)))
    return min(candidates)[1] if candidates else None


@given(
    samples=st.integers(1, 25),
    exits=st.integers(1, 4),
    seed=st.integers(0, 10**6),
    wanted=st.integers(0, 16),
    kind=st.sampled_from(["wanted_accuracy", "wanted_cost"]),
)
@examples(100)
def test_the_fit_is_the_best_that_brute_force_finds(samples, exits, seed, wanted, kind):
    says = random_predictions(samples, exits, seed)
    costs = [float(2**exit) for exit in range(exits)]
    wish = {kind: wanted / 16 if kind == "wanted_accuracy" else wanted / 2}
    best = brute_force_fit(says, costs, **wish)
    if best is None:
        with pytest.raises(ValueError, match="no confidence threshold"):
            fit_threshold(says, costs, **wish)
    else:
        fitted = fit_threshold(says, costs, **wish)
        # The same accuracy and cost may be had with several thresholds.
        assert fitted[1:] == best[1:]
        assert brute_force(says, costs, fitted.threshold) == fitted[1:]


def test_the_cost_of_the_first_exit_itself_can_be_wished_for():
    # The mean of ten times 0.1 is not 0.1 to the last digit.
    says = random_predictions(10, 2, seed=3)
    assert fit_threshold(says, [0.1, 0.7], wanted_cost=0.1).cost == pytest.approx(0.1)


def test_one_exit_leaves_nothing_to_choose():
    assert fit_threshold(predictions(4, 1), [3.0], wanted_accuracy=1.0) == (1.0, 1.0, 3.0)


def test_repeating_every_sample_changes_nothing():
    says = random_predictions(1000, 5, seed=1)
    repeated = predictions(
        label=np.tile(says.label, 200),
        predicted=np.tile(says.predicted, (200, 1)),
        confidence=np.tile(says.confidence, (200, 1)),
    )
    costs = [1.0, 2.0, 3.0, 4.0, 5.0]
    once = fit_threshold(says, costs, wanted_cost=2.5)
    assert fit_threshold(repeated, costs, wanted_cost=2.5) == pytest.approx(once, rel=1e-12)


# --- what cannot be ------------------------------------------------------------------------------


def test_a_wish_beyond_reach_says_what_is_within():
    hopeless = predictions(label=[0, 0, 0, 0], predicted=[[1, 0], [1, 1], [0, 1], [1, 1]])
    with pytest.raises(ValueError, match=r"accuracy of 0\.9 or more.* 4 validation.*0\.25 to 0\.2"):
        fit_threshold(hopeless, [1, 2], wanted_accuracy=0.9)
    with pytest.raises(ValueError, match=r"mean cost of 0\.5 or less.* 1 to 4"):
        fit_threshold(WRITTEN, COSTS, wanted_cost=0.5)


@pytest.mark.parametrize("wishes", [{}, {"wanted_accuracy": 0.5, "wanted_cost": 2.0}])
def test_exactly_one_wish(wishes):
    with pytest.raises(ValueError, match="either a wanted accuracy or a wanted cost"):
        fit_threshold(WRITTEN, COSTS, **wishes)


@pytest.mark.parametrize("costs", [[1.0, 2.0], [1.0, 2.0, 3.0, 4.0], [1.0, 2.0, float("nan")]])
def test_each_exit_has_a_cost(costs):
    with pytest.raises(ValueError, match="3 exits need 3 finite costs"):
        fit_threshold(WRITTEN, costs, wanted_accuracy=0.5)


def test_nothing_is_fitted_on_nothing():
    empty = predictions(0, 2)
    with pytest.raises(ValueError, match="no predictions"):
        fit_threshold(empty, [1.0, 2.0], wanted_accuracy=0.5)
