"""Difficulty: the margin, and scores that never come from a network that saw the sample."""

from dataclasses import replace

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score
from tiny_networks import DIGITS, TINY, tiny_settings, tiny_split

import models.difficulty
from models.datasets import Split, load_dataset
from models.difficulty import CrossFittedScoring, cross_fitted_easiness, margin


def test_the_margin_is_the_labels_probability_less_the_largest_other():
    probabilities = np.array(
        [[0.7, 0.2, 0.1], [0.7, 0.2, 0.1], [0.7, 0.2, 0.1], [1.0, 0.0, 0.0], [0.0, 1.0, 0.0]],
        dtype=np.float32,
    )
    labels = np.array([0, 1, 2, 0, 0])
    assert margin(probabilities, labels) == pytest.approx([0.5, -0.5, -0.6, 1.0, -1.0])


def test_the_margin_leaves_the_probabilities_as_they_were():
    probabilities = np.array([[0.75, 0.25]], dtype=np.float32)
    margin(probabilities, np.array([0]))
    assert probabilities.tolist() == [[0.75, 0.25]]


@pytest.fixture
def seen(monkeypatch):
    """Which samples each network was trained on, and which it scored, in order."""
    trainings, scorings = [], []
    real_train, real_probabilities = models.difficulty.train, models.difficulty.class_probabilities

    def spied_train(network, regime, batches, train_split, *rest):
        batches = list(batches)
        trainings.append((network, regime, train_split, batches, rest))
        return real_train(network, regime, batches, train_split, *rest)

    def spied_probabilities(network, split, info):
        scorings.append((network, split))
        return real_probabilities(network, split, info)

    monkeypatch.setattr(models.difficulty, "train", spied_train)
    monkeypatch.setattr(models.difficulty, "class_probabilities", spied_probabilities)
    return trainings, scorings


@pytest.mark.parametrize("folds", [2, 3])
def test_no_sample_is_scored_by_a_network_that_saw_it(seen, folds):
    split = replace(tiny_split(25), index=np.arange(100, 125))
    scores = cross_fitted_easiness(
        TINY, split, DIGITS, tiny_settings(), CrossFittedScoring(folds, 2), seed=0
    )
    trainings, scorings = seen
    assert len(trainings) == len(scorings) == folds
    scored = []
    for (trained_network, _, fitted, _, _), (network, held_out) in zip(
        trainings, scorings, strict=True
    ):
        assert network is trained_network
        assert not set(fitted.index) & set(held_out.index)
        assert set(fitted.index) | set(held_out.index) == set(split.index)
        assert len(held_out) in (25 // folds, 25 // folds + 1)
        scored.extend(held_out.index)
    assert sorted(scored) == list(split.index), "every sample is scored once"
    assert scores.shape == (25,)
    assert (np.abs(scores) <= 1).all()


def test_what_is_trained_is_the_plain_backbone_for_the_steps_of_the_scoring(seen):
    settings = tiny_settings(steps=50, exit_weights=(1.0, 1.0, 0.0))
    steps = []
    cross_fitted_easiness(
        TINY, tiny_split(24), DIGITS, settings, CrossFittedScoring(2, 3), 0,
        on_step=lambda step, loss: steps.append(step),
    )  # fmt: skip
    for network, regime, _, batches, rest in seen[0]:
        assert network.exit_count == 1
        assert regime == "backbone"
        assert [len(batch) for batch in batches] == [settings.batch_size] * 3
        assert rest[0] is None, "no validation"
        assert rest[2] == replace(settings, steps=3, exit_weights=())
    assert steps == [1, 2, 3, 4, 5, 6], "progress counts on over the folds"


def test_scores_stand_at_the_positions_of_their_samples(monkeypatch):
    # A network that says class 0 with probability 0.9: samples of class 0 are easy.
    def always_class_0(network, split, info):
        chance = np.full((len(split), 1, 10), 0.1 / 9, dtype=np.float32)
        chance[:, :, 0] = 0.9
        return chance

    monkeypatch.setattr(models.difficulty, "class_probabilities", always_class_0)
    split = tiny_split(30)
    scores = cross_fitted_easiness(
        TINY, split, DIGITS, tiny_settings(), CrossFittedScoring(3, 1), 0
    )
    assert scores[split.labels == 0] == pytest.approx(0.9 - 0.1 / 9, rel=1e-5)
    assert scores[split.labels != 0] == pytest.approx(0.1 / 9 - 0.9, rel=1e-5)


def test_the_seed_decides_folds_and_networks():
    def scores(seed):
        scoring = CrossFittedScoring(2, 2)
        return cross_fitted_easiness(TINY, tiny_split(24), DIGITS, tiny_settings(), scoring, seed)

    first, again, other = scores(1), scores(1), scores(2)
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_samples_with_a_wrong_label_are_found_hard():
    data = load_dataset("digits").train
    generator = np.random.default_rng(0)
    flipped = np.zeros(len(data), dtype=bool)
    flipped[generator.permutation(len(data))[:130]] = True
    labels = np.where(
        flipped, (data.labels + generator.integers(1, 10, len(data))) % 10, data.labels
    )
    scores = cross_fitted_easiness(
        TINY,
        Split(data.images, labels, data.index),
        DIGITS,
        tiny_settings(batch_size=64, learning_rate=0.1),
        CrossFittedScoring(folds=2, steps=30),
        seed=0,
    )
    assert roc_auc_score(~flipped, scores) > 0.8
