"""One budget for all: steps, schedule, first weights and augmentation are no strategy's own."""

import math

import numpy as np
import pytest
import torch
from tiny_networks import (
    DIGITS,
    TINY,
    changed,
    state_of,
    tiny_batches,
    tiny_settings,
    tiny_split,
)
from torch.optim.optimizer import register_optimizer_step_post_hook

import models.training
from models.errors import TrainingError
from models.multi_exit import build_network
from models.pacing import FixedExponentialPacing, paced_batches
from models.strategies import STRATEGIES, sample_order, strategy_pacing
from models.training import (
    TrainingSettings,
    accuracy_per_exit,
    class_probabilities,
    learning_rate_at,
    resolved_precision,
    train,
)


@pytest.fixture
def optimiser_rates():
    """Learning rates of all optimiser steps taken during the test, as the optimiser saw them."""
    rates = []
    handle = register_optimizer_step_post_hook(
        lambda optimiser, args, kwargs: rates.append(
            [group["lr"] for group in optimiser.param_groups]
        )
    )
    yield rates
    handle.remove()


def train_with(strategy, settings, seed=0, on_step=None):
    """A tiny network trained as the training stage does it, in the order of ``strategy``."""
    split = tiny_split()
    network = build_network(TINY, seed)
    initial = state_of(network)
    easiness = np.random.default_rng(9).random(len(split))
    batches = paced_batches(
        sample_order(strategy, split.labels, easiness, seed),
        strategy_pacing(strategy, FixedExponentialPacing()),
        settings.steps,
        settings.batch_size,
        np.random.default_rng([seed, 0]),
    )
    curve = train(network, "end_to_end", batches, split, None, DIGITS, settings, seed, on_step)
    return initial, state_of(network), curve


# --- equal for all strategies --------------------------------------------------------------------


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_every_strategy_takes_exactly_the_steps_of_the_budget(strategy, optimiser_rates):
    told = []
    train_with(strategy, tiny_settings(steps=5), on_step=lambda step, loss: told.append(step))
    assert told == [1, 2, 3, 4, 5]
    assert len(optimiser_rates) == 5


def test_all_arms_of_a_seed_start_from_equal_weights_and_end_apart():
    arms = {strategy: train_with(strategy, tiny_settings(), seed=4) for strategy in STRATEGIES}
    starts = [initial for initial, _, _ in arms.values()]
    assert not any(changed(starts[0], start) for start in starts[1:])
    ends = [end for _, end, _ in arms.values()]
    for position, end in enumerate(ends):
        assert all(changed(end, other) for other in ends[position + 1 :])


def test_all_arms_of_a_seed_get_the_same_schedule_and_the_same_shifts(monkeypatch, optimiser_rates):
    states = []
    augment = models.training.random_crop_and_flip

    def spied(images, info, generator):
        states.append(generator.get_state())
        return augment(images, info, generator)

    monkeypatch.setattr(models.training, "random_crop_and_flip", spied)
    for strategy in STRATEGIES:
        train_with(strategy, tiny_settings(steps=4, augment=True))
    assert len(states) == len(optimiser_rates) == 4 * len(STRATEGIES)
    for arm in range(1, len(STRATEGIES)):
        assert optimiser_rates[4 * arm : 4 * arm + 4] == optimiser_rates[:4]
        for step in range(4):
            assert torch.equal(states[4 * arm + step], states[step])
    assert not torch.equal(states[0], states[1])


# --- the schedule --------------------------------------------------------------------------------


def test_the_rate_rises_linearly_and_falls_along_half_a_cosine():
    settings = TrainingSettings(steps=10, learning_rate=0.4, warm_up_fraction=0.2)
    rates = [learning_rate_at(step, settings) for step in range(10)]
    assert rates[:3] == [0.2, 0.4, 0.4]
    # Halfway down after four of the eight steps that follow the warm-up.
    assert rates[6] == pytest.approx(0.2)
    assert rates[4] == pytest.approx(0.4 * (2 + math.sqrt(2)) / 4)
    assert rates[8] == pytest.approx(0.4 * (2 - math.sqrt(2)) / 4)
    assert rates[2:] == sorted(rates[2:], reverse=True)
    assert learning_rate_at(10, settings) == pytest.approx(0)


def test_without_warm_up_the_first_step_has_the_peak_rate():
    settings = TrainingSettings(steps=10, learning_rate=0.4, warm_up_fraction=0.0)
    assert learning_rate_at(0, settings) == 0.4
    assert learning_rate_at(5, settings) == pytest.approx(0.2)


def test_the_optimiser_follows_the_schedule(optimiser_rates):
    settings = tiny_settings(steps=5, learning_rate=0.08, warm_up_fraction=0.4)
    train_with("standard", settings)
    expected = [0.04, 0.08, 0.08, 0.06, 0.02]
    assert [rate for (rate,) in optimiser_rates] == pytest.approx(expected)


# --- the budget ----------------------------------------------------------------------------------


@pytest.mark.parametrize("given", [0, 2, 4])
def test_batches_that_are_not_as_many_as_the_steps_are_an_error(given):
    network, split, settings = build_network(TINY, 0), tiny_split(), tiny_settings(steps=3)
    with pytest.raises(TrainingError, match=f"{given} batches .* budget of 3 steps"):
        train(network, "end_to_end", tiny_batches(given), split, None, DIGITS, settings, 0)


def test_a_loss_that_is_not_finite_ends_training_and_names_its_step():
    network, split = build_network(TINY, 0), tiny_split()
    settings = tiny_settings(steps=6, learning_rate=1e20, warm_up_fraction=0.0)
    finite = []
    with pytest.raises(TrainingError) as caught:
        train(
            network, "end_to_end", tiny_batches(6), split, None, DIGITS, settings, 0,
            on_step=lambda step, loss: finite.append(loss),
        )  # fmt: skip
    assert 1 <= len(finite) < 6
    assert all(math.isfinite(loss) for loss in finite)
    assert f"at step {len(finite) + 1} of 6" in str(caught.value)
    assert "lower the learning rate (now 1e+20)" in str(caught.value)


# --- determinism ---------------------------------------------------------------------------------


def test_one_seed_gives_the_same_weights_twice():
    first = train_with("curriculum", tiny_settings(augment=True), seed=2)
    torch.manual_seed(99)
    second = train_with("curriculum", tiny_settings(augment=True), seed=2)
    assert not changed(first[1], second[1])
    assert first[2] == second[2]


def test_the_seed_of_training_is_of_the_augmentation_only():
    ends = {}
    for augment, seed in ((True, 0), (True, 1), (False, 0), (False, 1)):
        network, settings = build_network(TINY, 0), tiny_settings(augment=augment)
        train(network, "end_to_end", tiny_batches(3), tiny_split(), None, DIGITS, settings, seed)
        ends[augment, seed] = state_of(network)
    assert changed(ends[True, 0], ends[True, 1])
    assert not changed(ends[False, 0], ends[False, 1])
    assert changed(ends[True, 0], ends[False, 0])


def test_training_leaves_the_data_as_it_was():
    split = tiny_split()
    network, settings = build_network(TINY, 0), tiny_settings(augment=True)
    train(network, "end_to_end", tiny_batches(3), split, split, DIGITS, settings, 0)
    assert np.array_equal(split.images, tiny_split().images)
    assert np.array_equal(split.labels, tiny_split().labels)


# --- the curve -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("steps", "evaluations", "after"),
    [
        (6, 3, [2, 4, 6]),
        (5, 1, [5]),
        (5, 5, [1, 2, 3, 4, 5]),
        (7, 2, [4, 7]),
        (10, 4, [2, 5, 8, 10]),
    ],
)
def test_evaluations_are_evenly_spaced_and_the_last_is_at_the_end(steps, evaluations, after):
    network, settings = build_network(TINY, 0), tiny_settings(steps=steps, evaluations=evaluations)
    losses, validation = [], tiny_split(20, 1)
    curve = train(
        network, "end_to_end", tiny_batches(steps), tiny_split(), validation, DIGITS, settings, 0,
        on_step=lambda step, loss: losses.append(loss),
    )  # fmt: skip
    assert curve.step == after
    starts = [0, *after[:-1]]
    means = [np.mean(losses[start:end]) for start, end in zip(starts, after, strict=True)]
    assert curve.loss == pytest.approx(means)
    assert [len(accuracies) for accuracies in curve.validation_accuracy] == [3] * evaluations
    assert curve.validation_accuracy[-1] == accuracy_per_exit(network, validation, DIGITS)


def test_without_a_validation_split_the_curve_is_empty():
    _, _, curve = train_with("standard", tiny_settings())
    assert (curve.step, curve.loss, curve.validation_accuracy) == ([], [], [])


def test_training_learns():
    # Two classes that one pixel tells apart; the network must do better than chance at each exit.
    split = tiny_split(64)
    split.labels[:] = np.arange(64) % 2
    split.images[:, 0, 2:6, 2:6] = (255 * split.labels)[:, None, None]
    network, settings = build_network(TINY, 0), tiny_settings(steps=12, batch_size=16)
    batches = tiny_batches(12, 16, 64)
    assert max(accuracy_per_exit(network, split, DIGITS)) <= 0.6
    train(network, "end_to_end", batches, split, None, DIGITS, settings, 0)
    assert min(accuracy_per_exit(network, split, DIGITS)) > 0.9


# --- probabilities -------------------------------------------------------------------------------


def test_probabilities_are_of_every_sample_exit_and_class_however_they_are_batched():
    network, split = build_network(TINY, 0), tiny_split(10)
    whole = class_probabilities(network, split, DIGITS)
    assert whole.shape == (10, 3, 10)
    assert whole.dtype == np.float32
    np.testing.assert_allclose(whole.sum(axis=2), 1, rtol=1e-5)
    parts = class_probabilities(network, split, DIGITS, batch_size=3)
    np.testing.assert_allclose(parts, whole, rtol=1e-4)


def test_taking_probabilities_does_not_touch_the_network():
    network = build_network(TINY, 0).train()
    before = state_of(network)
    class_probabilities(network, tiny_split(10), DIGITS)
    assert not changed(before, state_of(network))


def test_accuracy_is_the_share_that_each_exit_classifies_correctly(monkeypatch):
    # Four samples, two exits, two classes: exit 1 is right on samples 0 and 3, exit 2 on 0, 1, 3.
    labels = tiny_split(4).labels
    labels[:] = [0, 1, 1, 0]
    right = np.array([[1, 1], [0, 1], [0, 0], [1, 1]], dtype=bool)
    chance = np.full((4, 2, 2), 0.3, dtype=np.float32)
    said = np.where(right, labels[:, None], 1 - labels[:, None])
    np.put_along_axis(chance, said[:, :, None], 0.7, axis=2)
    monkeypatch.setattr(models.training, "class_probabilities", lambda *_: chance)
    split = tiny_split(4)
    split.labels[:] = labels
    assert accuracy_per_exit(build_network(TINY, 0), split, DIGITS) == [0.5, 0.75]


# --- precision -----------------------------------------------------------------------------------


@pytest.mark.parametrize("fast", [True, False])
def test_auto_means_bf16_exactly_where_the_processor_has_it(monkeypatch, fast):
    monkeypatch.setattr(models.training, "has_fast_bf16", lambda: fast)
    assert resolved_precision("auto") == ("bf16" if fast else "fp32")
    assert resolved_precision("bf16") == "bf16"
    assert resolved_precision("fp32") == "fp32"


def test_bf16_trains_in_bf16_but_keeps_weights_and_probabilities_in_fp32():
    network = build_network(TINY, 0)
    kinds = set()
    network.backbone.layer3.register_forward_hook(lambda module, given, made: kinds.add(made.dtype))
    losses = []
    train(
        network, "end_to_end", tiny_batches(2), tiny_split(), None, DIGITS,
        tiny_settings(steps=2, precision="bf16"), 0,
        on_step=lambda step, loss: losses.append(loss),
    )  # fmt: skip
    assert kinds == {torch.bfloat16}
    assert len(losses) == 2
    assert all(math.isfinite(loss) for loss in losses)
    assert {parameter.dtype for parameter in network.parameters()} == {torch.float32}
    kinds.clear()
    assert class_probabilities(network, tiny_split(4), DIGITS).dtype == np.float32
    assert kinds == {torch.float32}
