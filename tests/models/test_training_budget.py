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

import models.data.inputs
import models.host
import models.training.train
from models.data.inputs import ImageInputs
from models.errors import TrainingError
from models.host import resolved_precision
from models.networks.multi_exit import build_network
from models.training.pacing import FixedExponentialPacing, paced_batches
from models.training.regimes import phases
from models.training.strategies import STRATEGIES, sample_order, strategy_pacing
from models.training.train import (
    TrainingSettings,
    accuracy_per_exit,
    class_probabilities,
    learning_rate_at,
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


def images(split, seed=0, augment=False):
    return ImageInputs(split, DIGITS, augment, seed)


def end_to_end(steps):
    """The one phase in which everything is trained."""
    (phase,) = phases("end_to_end", 3, steps)
    return phase


def train_with(strategy, steps=3, seed=0, augment=False, on_step=None, **changes):
    """A tiny network trained as the training stage does it, in the order of ``strategy``."""
    split, settings = tiny_split(), tiny_settings(**changes)
    network = build_network(TINY, seed)
    initial = state_of(network)
    easiness = np.random.default_rng(9).random(len(split))
    batches = paced_batches(
        sample_order(strategy, split.labels, easiness, seed),
        strategy_pacing(strategy, FixedExponentialPacing()),
        steps,
        settings.batch_size,
        np.random.default_rng([seed, 0]),
    )
    inputs = images(split, seed, augment)
    curve = train(network, end_to_end(steps), batches, inputs, None, settings, on_step)
    return initial, state_of(network), curve


# --- equal for all strategies --------------------------------------------------------------------


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_every_strategy_takes_exactly_the_steps_of_the_budget(strategy, optimiser_rates):
    told = []
    train_with(strategy, steps=5, on_step=lambda step, loss: told.append(step))
    assert told == [1, 2, 3, 4, 5]
    assert len(optimiser_rates) == 5


def test_all_arms_of_a_seed_start_from_equal_weights_and_end_apart():
    arms = {strategy: train_with(strategy, seed=4) for strategy in STRATEGIES}
    starts = [initial for initial, _, _ in arms.values()]
    assert not any(changed(starts[0], start) for start in starts[1:])
    ends = [end for _, end, _ in arms.values()]
    for position, end in enumerate(ends):
        assert all(changed(end, other) for other in ends[position + 1 :])


def test_all_arms_of_a_seed_get_the_same_schedule_and_the_same_shifts(monkeypatch, optimiser_rates):
    states = []
    augment = models.data.inputs.random_crop_and_flip

    def spied(images, info, generator):
        states.append(generator.get_state())
        return augment(images, info, generator)

    monkeypatch.setattr(models.data.inputs, "random_crop_and_flip", spied)
    for strategy in STRATEGIES:
        train_with(strategy, steps=4, augment=True)
    assert len(optimiser_rates) == 4 * len(STRATEGIES)
    # One sample more at the beginning shows how wide the exits' features are.
    assert len(states) == 5 * len(STRATEGIES)
    for arm in range(1, len(STRATEGIES)):
        assert optimiser_rates[4 * arm : 4 * arm + 4] == optimiser_rates[:4]
        for step in range(5):
            assert torch.equal(states[5 * arm + step], states[step])
    assert not torch.equal(states[0], states[1])


# --- the schedule --------------------------------------------------------------------------------


def test_the_rate_rises_linearly_and_falls_along_half_a_cosine():
    settings = TrainingSettings(learning_rate=0.4, warm_up_fraction=0.2)
    rates = [learning_rate_at(step, 10, settings) for step in range(10)]
    assert rates[:3] == [0.2, 0.4, 0.4]
    # Halfway down after four of the eight steps that follow the warm-up.
    assert rates[6] == pytest.approx(0.2)
    assert rates[4] == pytest.approx(0.4 * (2 + math.sqrt(2)) / 4)
    assert rates[8] == pytest.approx(0.4 * (2 - math.sqrt(2)) / 4)
    assert rates[2:] == sorted(rates[2:], reverse=True)
    assert learning_rate_at(10, 10, settings) == pytest.approx(0)


def test_without_warm_up_the_first_step_has_the_peak_rate():
    settings = TrainingSettings(learning_rate=0.4, warm_up_fraction=0.0)
    assert learning_rate_at(0, 10, settings) == 0.4
    assert learning_rate_at(5, 10, settings) == pytest.approx(0.2)


def test_the_optimiser_follows_the_schedule(optimiser_rates):
    train_with("standard", steps=5, learning_rate=0.08, warm_up_fraction=0.4)
    expected = [0.04, 0.08, 0.08, 0.06, 0.02]
    assert [rate for (rate,) in optimiser_rates] == pytest.approx(expected)


# --- the budget ----------------------------------------------------------------------------------


@pytest.mark.parametrize("given", [0, 2, 4])
def test_batches_that_are_not_as_many_as_the_steps_are_an_error(given):
    network, inputs, settings = build_network(TINY, 0), images(tiny_split()), tiny_settings()
    with pytest.raises(TrainingError, match=f"{given} batches .* budget of 3 steps"):
        train(network, end_to_end(3), tiny_batches(given), inputs, None, settings)


# --- determinism ---------------------------------------------------------------------------------


def test_one_seed_gives_the_same_weights_twice():
    first = train_with("curriculum", augment=True, seed=2)
    torch.manual_seed(99)
    second = train_with("curriculum", augment=True, seed=2)
    assert not changed(first[1], second[1])
    assert first[2] == second[2]


def test_the_seed_of_the_images_is_of_their_augmentation_only():
    ends = {}
    for augment, seed in ((True, 0), (True, 1), (False, 0), (False, 1)):
        network, inputs = build_network(TINY, 0), images(tiny_split(), seed, augment)
        train(network, end_to_end(3), tiny_batches(3), inputs, None, tiny_settings())
        ends[augment, seed] = state_of(network)
    assert changed(ends[True, 0], ends[True, 1])
    assert not changed(ends[False, 0], ends[False, 1])
    assert changed(ends[True, 0], ends[False, 0])


def test_training_leaves_the_data_as_it_was():
    split = tiny_split()
    network, inputs = build_network(TINY, 0), images(split, augment=True)
    train(network, end_to_end(3), tiny_batches(3), inputs, images(split), tiny_settings())
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
    network, settings = build_network(TINY, 0), tiny_settings(evaluations=evaluations)
    losses, validation = [], images(tiny_split(20, 1))
    curve = train(
        network, end_to_end(steps), tiny_batches(steps), images(tiny_split()), validation, settings,
        on_step=lambda step, loss: losses.append(loss),
    )  # fmt: skip
    assert curve.step == after
    starts = [0, *after[:-1]]
    means = [np.mean(losses[start:end]) for start, end in zip(starts, after, strict=True)]
    assert curve.loss == pytest.approx(means)
    assert [len(accuracies) for accuracies in curve.validation_accuracy] == [3] * evaluations
    assert curve.validation_accuracy[-1] == accuracy_per_exit(network, validation)


def test_without_a_validation_split_the_curve_is_empty():
    _, _, curve = train_with("standard")
    assert (curve.step, curve.loss, curve.validation_accuracy) == ([], [], [])


def test_training_learns():
    # Two classes that one pixel tells apart; the network must do better than chance at each exit.
    split = tiny_split(64)
    split.labels[:] = np.arange(64) % 2
    split.images[:, 0, 2:6, 2:6] = (255 * split.labels)[:, None, None]
    network, inputs = build_network(TINY, 0), images(split)
    assert max(accuracy_per_exit(network, inputs)) <= 0.6
    train(network, end_to_end(12), tiny_batches(12, 16, 64), inputs, None, tiny_settings())
    assert min(accuracy_per_exit(network, inputs)) > 0.9


# --- probabilities -------------------------------------------------------------------------------


def test_probabilities_are_of_every_sample_exit_and_class_however_they_are_batched():
    network, inputs = build_network(TINY, 0), images(tiny_split(10))
    whole = class_probabilities(network, inputs)
    assert whole.shape == (10, 3, 10)
    assert whole.dtype == np.float32
    np.testing.assert_allclose(whole.sum(axis=2), 1, rtol=1e-5)
    parts = class_probabilities(network, inputs, batch_size=3)
    np.testing.assert_allclose(parts, whole, rtol=1e-4)


def test_probabilities_of_some_samples_stand_in_the_order_in_which_they_are_asked_for():
    network, inputs = build_network(TINY, 0), images(tiny_split(10))
    whole = class_probabilities(network, inputs)
    asked = np.array([7, 0, 7, 3])
    some = class_probabilities(network, inputs, asked, batch_size=3)
    np.testing.assert_allclose(some, whole[asked], rtol=1e-4)


def test_taking_probabilities_does_not_touch_the_network():
    network = build_network(TINY, 0).train()
    before = state_of(network)
    class_probabilities(network, images(tiny_split(10)))
    assert not changed(before, state_of(network))


def test_accuracy_is_the_share_that_each_exit_classifies_correctly(monkeypatch):
    # Four samples, two exits, two classes: exit 1 is right on samples 0 and 3, exit 2 on 0, 1, 3.
    labels = tiny_split(4).labels
    labels[:] = [0, 1, 1, 0]
    right = np.array([[1, 1], [0, 1], [0, 0], [1, 1]], dtype=bool)
    chance = np.full((4, 2, 2), 0.3, dtype=np.float32)
    said = np.where(right, labels[:, None], 1 - labels[:, None])
    np.put_along_axis(chance, said[:, :, None], 0.7, axis=2)
    monkeypatch.setattr(models.training.train, "class_probabilities", lambda *_: chance)
    split = tiny_split(4)
    split.labels[:] = labels
    assert accuracy_per_exit(build_network(TINY, 0), images(split)) == [0.5, 0.75]


# --- precision -----------------------------------------------------------------------------------


@pytest.mark.parametrize("fast", [True, False])
def test_auto_means_bf16_exactly_where_the_processor_has_it(monkeypatch, fast):
    monkeypatch.setattr(models.host, "has_fast_bf16", lambda: fast)
    assert resolved_precision("auto") == ("bf16" if fast else "fp32")
    assert resolved_precision("bf16") == "bf16"
    assert resolved_precision("fp32") == "fp32"


def test_bf16_trains_in_bf16_but_keeps_weights_and_probabilities_in_fp32():
    network = build_network(TINY, 0)
    kinds = {True: set(), False: set()}
    convolution = network.backbone.layer3[0].conv2
    convolution.register_forward_hook(
        lambda module, given, made: kinds[module.training].add(made.dtype)
    )
    losses = []
    train(
        network, end_to_end(2), tiny_batches(2), images(tiny_split()), None,
        tiny_settings(precision="bf16"),
        on_step=lambda step, loss: losses.append(loss),
    )  # fmt: skip
    assert kinds[True] == {torch.bfloat16}
    assert len(losses) == 2
    assert all(math.isfinite(loss) for loss in losses)
    assert {parameter.dtype for parameter in network.parameters()} == {torch.float32}
    kinds[False].clear()
    assert class_probabilities(network, images(tiny_split(4))).dtype == np.float32
    assert kinds[False] == {torch.float32}
