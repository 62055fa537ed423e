"""Strategies: in which order each one shows the samples, and with which pacing."""

import numpy as np
import pytest

from models.training.pacing import FixedExponentialPacing
from models.training.strategies import RANKED_STRATEGIES, STRATEGIES, sample_order, strategy_pacing

LABELS = np.random.default_rng(0).permutation(np.repeat(np.arange(3), (30, 20, 10)))
EASINESS = np.random.default_rng(1).permutation(len(LABELS)) / 7


def within_class(order, label):
    """The samples of one class, in their order."""
    return order[LABELS[order] == label].tolist()


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_every_strategy_shows_every_sample_once(strategy):
    order = sample_order(strategy, LABELS, EASINESS, seed=3)
    assert sorted(order.tolist()) == list(range(len(LABELS)))


def test_standard_keeps_the_order_of_the_set_and_needs_no_score():
    assert sample_order("standard", LABELS, None, 3).tolist() == list(range(len(LABELS)))


def test_a_curriculum_goes_from_easy_to_hard_in_each_class():
    order = sample_order("curriculum", LABELS, EASINESS, 3)
    for label in range(3):
        scores = EASINESS[within_class(order, label)]
        assert (np.diff(scores) < 0).all()


def test_an_anti_curriculum_is_the_same_ranking_backwards_in_each_class():
    easy_first = sample_order("curriculum", LABELS, EASINESS, 3)
    hard_first = sample_order("anti_curriculum", LABELS, EASINESS, 3)
    for label in range(3):
        assert within_class(hard_first, label) == within_class(easy_first, label)[::-1]


@pytest.mark.parametrize("strategy", RANKED_STRATEGIES)
def test_a_ranked_strategy_needs_a_score_and_no_seed(strategy):
    with pytest.raises(ValueError, match=f"'{strategy}' needs a difficulty score"):
        sample_order(strategy, LABELS, None, 3)
    orders = [sample_order(strategy, LABELS, EASINESS, seed).tolist() for seed in (3, 4)]
    assert orders[0] == orders[1]


def test_a_random_curriculum_ignores_the_score_and_follows_its_seed():
    orders = [
        sample_order("random_curriculum", LABELS, easiness, seed).tolist()
        for easiness, seed in ((None, 3), (EASINESS, 3), (-EASINESS, 3), (None, 4))
    ]
    assert orders[0] == orders[1] == orders[2]
    assert orders[0] != orders[3]


@pytest.mark.parametrize("strategy", ["curriculum", "anti_curriculum", "random_curriculum"])
def test_every_paced_strategy_shows_the_classes_in_their_proportions(strategy):
    order = sample_order(strategy, LABELS, EASINESS, 3)
    # 30, 20 and 10 samples: any prefix of six holds three, two and one, give or take one.
    for size in range(6, len(order) + 1, 6):
        shown = np.bincount(LABELS[order[:size]], minlength=3)
        assert np.abs(shown - size * np.array([3, 2, 1]) / 6).max() <= 1


def test_all_but_standard_share_the_pacing():
    pacing = FixedExponentialPacing()
    assert {strategy_pacing(strategy, pacing) for strategy in STRATEGIES[1:]} == {pacing}
    assert {strategy_pacing("standard", pacing)(spent) for spent in (0, 0.1, 0.9)} == {1.0}
    assert STRATEGIES[0] == "standard"
