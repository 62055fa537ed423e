"""Difficulty: the margin, and scores that never come from a loss that was fitted to the sample."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score
from tiny_networks import (
    DIGITS,
    TINY,
    changed,
    examples,
    state_of,
    tiny_batches,
    tiny_settings,
    tiny_split,
)

import models.training.difficulty
from models.data.datasets import Split, load_dataset
from models.data.inputs import ImageInputs
from models.networks.multi_exit import build_network
from models.training.difficulty import (
    early_checkpoint,
    final_exit,
    last_features,
    margin,
    self_taught,
    transfer,
)
from models.training.regimes import Phase, backbone_phase, phases
from models.training.train import class_probabilities, train

#: All exits at once, for two steps.
(JOINTLY,) = phases("end_to_end", 3, 2)


def tiny_network():
    return build_network(TINY, 0)


def images(count=24, augment=False):
    return ImageInputs(tiny_split(count), DIGITS, augment)


# --- the margin ----------------------------------------------------------------------------------


def test_the_margin_is_the_labels_probability_less_the_largest_other():
    probabilities = np.array(
        [[0.7, 0.2, 0.1], [0.7, 0.2, 0.1], [0.7, 0.2, 0.1], [1.0, 0.0, 0.0], [0.0, 1.0, 0.0]],
        dtype=np.float32,
    )
    labels = np.array([0, 1, 2, 0, 0])
    assert margin(probabilities, labels) == pytest.approx([0.5, -0.5, -0.6, 1.0, -1.0])


def test_logits_have_margins_of_any_size():
    logits = np.array([[-3.0, 4.0, -8.0], [-3.0, -4.0, -8.0]], dtype=np.float32)
    assert margin(logits, np.array([1, 2])).tolist() == [7.0, -5.0]


def test_each_exit_has_a_margin_of_its_own():
    probabilities = np.array(
        [[[0.5, 0.25, 0.25], [0.0, 0.25, 0.75]], [[0.0, 0.5, 0.5], [0.5, 0.0, 0.5]]],
        dtype=np.float32,
    )
    assert margin(probabilities, np.array([0, 2])).tolist() == [[0.25, -0.75], [0.0, 0.0]]


def test_the_margin_leaves_the_values_as_they_were():
    probabilities = np.array([[0.75, 0.25]], dtype=np.float32)
    margin(probabilities, np.array([0]))
    assert probabilities.tolist() == [[0.75, 0.25]]


@examples(40)
@given(
    st.lists(st.lists(st.integers(-50, 50), min_size=4, max_size=4), min_size=1, max_size=6),
    st.data(),
)
def test_a_margin_is_positive_exactly_where_the_label_alone_is_on_top(rows, data):
    values = np.array(rows, dtype=np.float32)
    labels = np.array([data.draw(st.integers(0, 3)) for _ in rows])
    for found, row, label in zip(margin(values, labels), rows, labels, strict=True):
        others = [value for place, value in enumerate(row) if place != label]
        assert found == row[label] - max(others)


# --- cross-fitted --------------------------------------------------------------------------------


@pytest.fixture
def seen(monkeypatch):
    """The arguments of each training, and what each network scored, in order."""
    trainings, scorings = [], []
    real_train, real_probabilities = (
        models.training.difficulty.train,
        models.training.difficulty.class_probabilities,
    )

    def spied_train(network, phase, batches, *rest):
        batches = list(batches)
        trainings.append((network, phase, batches, *rest))
        return real_train(network, phase, batches, *rest)

    def spied_probabilities(network, inputs, positions=None):
        scorings.append((network, inputs, positions))
        return real_probabilities(network, inputs, positions)

    monkeypatch.setattr(models.training.difficulty, "train", spied_train)
    monkeypatch.setattr(models.training.difficulty, "class_probabilities", spied_probabilities)
    return trainings, scorings


@pytest.mark.parametrize("folds", [2, 3])
def test_no_sample_is_scored_by_a_network_that_saw_it(seen, folds):
    # Twelve steps of eight samples pass all of the others at least once.
    phase = replace(JOINTLY, steps=12)
    inputs = images(25)
    scores = self_taught(tiny_network, phase, inputs, inputs, tiny_settings(), folds, seed=0)
    trainings, scorings = seen
    assert len(trainings) == len(scorings) == folds
    scored = []
    for (fitted, _, batches, *_), (network, _, held_out) in zip(trainings, scorings, strict=True):
        assert network is fitted
        others = set(range(25)) - set(held_out.tolist())
        assert set(np.concatenate(batches).tolist()) == others
        assert len(held_out) in (25 // folds, 25 // folds + 1)
        scored.extend(held_out.tolist())
    assert sorted(scored) == list(range(25)), "every sample is scored once"
    assert scores.shape == (25, 3)
    assert (np.abs(scores) <= 1).all()


def test_every_fold_starts_anew_and_trains_what_the_phase_says(seen):
    settings = tiny_settings(exit_weights=(1.0, 1.0, 0.0))
    steps, made = [], []

    def make():
        made.append(tiny_network())
        return made[-1]

    phase, inputs, plain = backbone_phase(3, 3), images(augment=True), images()
    self_taught(
        make, phase, inputs, plain, settings, 2, 0, on_step=lambda step, loss: steps.append(step)
    )
    trainings, scorings = seen
    assert [training[0] for training in trainings] == made
    assert made[0] is not made[1]
    for _, trained_phase, batches, trained_on, validation, used, _ in trainings:
        assert trained_phase is phase
        assert [len(batch) for batch in batches] == [settings.batch_size] * 3
        assert trained_on is inputs
        assert validation is None
        assert used is settings
    assert [scored_on for _, scored_on, _ in scorings] == [plain, plain]
    for network in made:
        moved = changed(state_of(tiny_network()), state_of(network))
        assert moved
        assert all(name.startswith("backbone.") for name in moved)
    assert steps == [1, 2, 3, 4, 5, 6], "progress counts on over the folds"


def test_scores_stand_at_the_positions_of_their_samples(monkeypatch):
    # A network that says class 0 with probability 0.9 at exit 1 and 0.6 at exit 2: samples of
    # class 0 are easy.
    def always_class_0(network, inputs, positions):
        chance = np.empty((len(positions), 2, 10), dtype=np.float32)
        chance[:, 0] = 0.1 / 9
        chance[:, 1] = 0.4 / 9
        chance[:, :, 0] = (0.9, 0.6)
        return chance

    monkeypatch.setattr(models.training.difficulty, "class_probabilities", always_class_0)
    inputs = images(30)
    scores = self_taught(tiny_network, JOINTLY, inputs, inputs, tiny_settings(), 3, 0)
    easy = np.arange(30) % 10 == 0
    expected = np.array([0.9 - 0.1 / 9, 0.6 - 0.4 / 9])
    np.testing.assert_allclose(scores[easy], np.broadcast_to(expected, (3, 2)), rtol=1e-5)
    np.testing.assert_allclose(scores[~easy], np.broadcast_to(-expected, (27, 2)), rtol=1e-5)


def test_the_seed_decides_the_folds_and_the_batches():
    def scores(seed):
        inputs = images()
        return self_taught(tiny_network, JOINTLY, inputs, inputs, tiny_settings(), 2, seed)

    first, again, other = scores(1), scores(1), scores(2)
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


# --- a network that has just begun ---------------------------------------------------------------


def test_an_early_checkpoint_is_one_network_trained_on_all_samples(seen):
    phase, inputs, plain = replace(JOINTLY, steps=5), images(augment=True), images()
    scores = early_checkpoint(tiny_network, phase, inputs, plain, tiny_settings(), seed=0)
    ((network, _, batches, trained_on, *_),), ((_, scored_on, _),) = seen
    assert (trained_on, scored_on) == (inputs, plain)
    assert len(batches) == 5
    assert set(np.concatenate(batches).tolist()) == set(range(24))
    expected = margin(class_probabilities(network, plain), plain.labels.numpy())
    assert np.array_equal(scores, expected)
    assert scores.shape == (24, 3)


def with_wrong_labels(count):
    """Digits of which ``count`` have a wrong label, and which they are."""
    data = load_dataset("digits").train
    generator = np.random.default_rng(0)
    flipped = np.zeros(len(data), dtype=bool)
    flipped[generator.permutation(len(data))[:count]] = True
    labels = np.where(
        flipped, (data.labels + generator.integers(1, 10, len(data))) % 10, data.labels
    )
    return Split(data.images, labels, data.index), flipped


@pytest.mark.parametrize("kind", ["self_taught", "early_checkpoint"])
def test_samples_with_a_wrong_label_are_found_hard(kind):
    split, flipped = with_wrong_labels(130)
    inputs = ImageInputs(split, DIGITS)
    settings = tiny_settings(batch_size=64, learning_rate=0.1)
    (phase,) = phases("end_to_end", 3, 30)
    if kind == "self_taught":
        scores = self_taught(tiny_network, phase, inputs, inputs, settings, 2, 0)
    else:
        scores = early_checkpoint(tiny_network, phase, inputs, inputs, settings, 0)
    assert roc_auc_score(~flipped, scores[:, 2]) > 0.8


# --- another network's features ------------------------------------------------------------------


def clusters(count=60, classes=(0, 1, 2), seed=0):
    """Features in clusters far apart, one for each class, and the classes."""
    generator = np.random.default_rng(seed)
    positions = np.arange(count) % len(classes)
    features = np.eye(len(classes))[positions] * 8 + generator.normal(size=(count, len(classes)))
    return features.astype(np.float32), np.array(classes)[positions]


def test_features_that_tell_the_classes_apart_make_samples_easy_and_wrong_labels_hard():
    features, labels = clusters()
    wrong = labels.copy()
    wrong[:3] = (labels[:3] + 1) % 3
    scores = transfer(features, wrong, folds=3, seed=0)
    assert scores.shape == (60,)
    assert (scores[:3] < -0.3).all()
    assert (scores[3:] > 0.3).all()


def test_a_classifier_on_features_scores_no_sample_that_it_saw():
    # Each sample has a feature of its own. Fitted, its label is remembered; held out, nothing is
    # known of it but that its class has fewer samples left.
    labels = np.arange(40) % 2
    scores = transfer(np.eye(40, dtype=np.float32), labels, folds=4, seed=0)
    assert (np.abs(scores) < 0.1).all()


def test_classes_need_not_be_numbered_from_0():
    features, labels = clusters(classes=(2, 5, 7))
    numbered, _ = clusters()
    assert np.array_equal(features, numbered)
    assert np.array_equal(transfer(features, labels, 3, 0), transfer(*clusters(), 3, 0))


def test_the_seed_decides_which_samples_of_a_classifier_are_held_out_together():
    features, labels = clusters()
    first, again, other = (transfer(features, labels, 3, seed) for seed in (1, 1, 2))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


# --- the frozen backbone's own classifier --------------------------------------------------------


def test_the_final_exit_ranks_by_the_margin_between_its_logits():
    split = tiny_split(300)  # more than a batch of evaluation
    plain, network = ImageInputs(split, DIGITS), tiny_network().eval()
    with torch.inference_mode():
        logits = network(plain.batch(np.arange(300)))[-1].numpy()
    expected = margin(logits, split.labels)
    np.testing.assert_allclose(final_exit(network, plain), expected, rtol=1e-4, atol=1e-5)


def test_the_final_exit_still_ranks_what_is_beyond_the_precision_of_probabilities():
    network, plain = tiny_network(), images()
    with torch.no_grad():
        network.backbone.linear.weight *= 300
    assert len(np.unique(final_exit(network, plain))) == 24
    softmaxes = class_probabilities(network, plain)[:, -1]
    assert len(np.unique(margin(softmaxes, plain.labels.numpy()))) < 24


def test_the_last_features_are_what_the_backbones_own_classifier_takes():
    network, plain = tiny_network(), images(300)
    taken = []
    network.backbone.linear.register_forward_hook(
        lambda module, given, made: taken.append(given[0])
    )
    features = last_features(network, plain)
    assert not taken, "the classifier itself is not computed"
    assert features.shape == (300, 64)
    with torch.inference_mode():
        network.eval()(plain.batch(np.arange(300)))
    np.testing.assert_allclose(features, taken[0].numpy(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("score", [final_exit, last_features])
def test_scoring_leaves_the_network_as_it_was(score):
    network, plain = tiny_network(), images()
    train(network, Phase((3,), (3,), (3,), 2), tiny_batches(2, 8, 24), plain, None, tiny_settings())
    before = state_of(network)
    network.train()
    score(network, plain)
    assert not changed(before, state_of(network))
