"""A loss that is not finite: training ends, and the network is as it was when it was last good."""

import math

import numpy as np
import pytest
import torch
from tiny_networks import (
    DIGITS,
    TINY_CONV,
    changed,
    state_of,
    tiny_batches,
    tiny_settings,
    tiny_split,
)

from models.data.inputs import ImageInputs
from models.errors import TrainingError
from models.networks.multi_exit import build_network
from models.training.regimes import backbone_phase, phases
from models.training.train import DivergedError, train

VALIDATION = ImageInputs(tiny_split(8, 1), DIGITS)

(JOINTLY,) = phases("end_to_end", 3, 6)
(CLASSIFIERS,) = phases("classifier_wise", 3, 6)


class Poisoned(ImageInputs):
    """Images of which the last is not finite."""

    def __init__(self, poison):
        super().__init__(tiny_split(), DIGITS)
        self.poison = poison

    def batch(self, positions):
        images = super().batch(positions)
        images[torch.from_numpy(positions) == 47] = self.poison
        return images


def batches_with_poison_at(step):
    """Six batches, of which one has the image that is not finite."""
    batches = tiny_batches(6, samples=47)
    batches[step - 1][3] = 47
    return batches


def diverged(phase, step, validation=VALIDATION, poison=math.nan):
    """A network whose loss is not finite at ``step``, its state after each step, and the error."""
    network = build_network(TINY_CONV, 0)
    states = [state_of(network)]
    with pytest.raises(DivergedError) as caught:
        train(
            network,
            phase,
            batches_with_poison_at(step),
            Poisoned(poison),
            validation,
            tiny_settings(evaluations=3),
            on_step=lambda step, loss: states.append(state_of(network)),
        )
    return network, states, caught.value


@pytest.mark.parametrize("validation", [VALIDATION, None], ids=["evaluated", "not_evaluated"])
@pytest.mark.parametrize(
    "phase", [JOINTLY, CLASSIFIERS, backbone_phase(3, 6)], ids=["all", "classifiers", "backbone"]
)
@pytest.mark.parametrize(("step", "good"), [(1, 0), (2, 0), (3, 2), (4, 2), (5, 4), (6, 4)])
def test_the_network_is_bit_for_bit_that_of_the_last_evaluation(step, good, phase, validation):
    network, states, error = diverged(phase, step, validation)
    assert error.good_step == good
    assert len(states) == step, "every step before was told of"
    assert not changed(states[good], state_of(network))
    if step > good + 1:
        assert changed(states[-1], state_of(network))


def test_it_is_in_inference_mode():
    network, _, _ = diverged(JOINTLY, 4)
    assert not any(module.training for module in network.modules())


@pytest.mark.parametrize("poison", [math.nan, math.inf], ids=str)
def test_the_message_names_the_step_the_budget_and_what_to_do(poison):
    _, _, error = diverged(JOINTLY, 5, poison=poison)
    assert isinstance(error, TrainingError)
    assert str(error).startswith("the loss is nan at step 5 of 6; ")
    assert "lower the learning rate (now 0.05) or lengthen the warm-up" in str(error)


def test_such_a_network_can_be_trained_on():
    network, states, _ = diverged(JOINTLY, 4)
    (again,) = phases("end_to_end", 3, 2)
    train(network, again, tiny_batches(2, samples=8), VALIDATION, None, tiny_settings())
    after = state_of(network)
    assert changed(states[2], after)
    assert all(torch.isfinite(value.float()).all() for value in after.values())


@pytest.mark.parametrize("value", [-math.inf, math.nan])
def test_a_buffer_that_never_was_finite_stops_no_training(value):
    network = build_network(TINY_CONV, 0)
    network.register_buffer("mask", torch.full((2,), value))
    train(
        network,
        JOINTLY,
        tiny_batches(6),
        ImageInputs(tiny_split(), DIGITS),
        VALIDATION,
        tiny_settings(evaluations=3),
    )


def test_a_learning_rate_far_too_high_ends_training():
    network, finite = build_network(TINY_CONV, 0), []
    settings = tiny_settings(learning_rate=1e20, warm_up_fraction=0.0)
    with pytest.raises(DivergedError) as caught:
        train(
            network, JOINTLY, tiny_batches(6), ImageInputs(tiny_split(), DIGITS), None, settings,
            on_step=lambda step, loss: finite.append(loss),
        )  # fmt: skip
    assert 1 <= len(finite) < 6
    assert np.isfinite(finite).all()
    assert f"at step {len(finite) + 1} of 6" in str(caught.value)
    assert "lower the learning rate (now 1e+20)" in str(caught.value)
    assert not changed(state_of(build_network(TINY_CONV, 0)), state_of(network))


@pytest.mark.parametrize("steps", [1, 3])
def test_weights_that_are_not_finite_are_never_the_good_ones(steps):
    # The loss of the first step is finite, the weights after it are not.
    network = build_network(TINY_CONV, 0)
    before = state_of(network)
    (phase,) = phases("end_to_end", 3, steps)
    settings = tiny_settings(
        learning_rate=1e38, warm_up_fraction=0.0, exit_weights=(1e4,) * 3, evaluations=steps
    )
    inputs = ImageInputs(tiny_split(), DIGITS)
    with pytest.raises(DivergedError) as caught:
        train(network, phase, tiny_batches(steps), inputs, None, settings)
    assert caught.value.good_step == 0
    assert not changed(before, state_of(network))
