"""Training with the last exit as a teacher: who learns from whom, and what is thrown away."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from tiny_networks import (
    DIGITS,
    TINY,
    TINY_CONV,
    changed,
    state_of,
    tiny_batches,
    tiny_settings,
    tiny_split,
)
from torch import nn
from torch.nn import functional as F

import models.training.train
from models.data.activations import StoredInputs, compute_activations
from models.data.inputs import ImageInputs
from models.errors import NetworkError
from models.networks.multi_exit import build_network
from models.training.losses import build_loss, softened_divergence
from models.training.regimes import phases, with_last_classifier
from models.training.train import train

#: Losses with a teacher, and the regimes that train one before or with its pupils.
DISTILLATIONS = ("exit_distillation", "byot")
ALLOWED = ("end_to_end", "classifier_wise", "mixed")

SPLIT = tiny_split()
TRAIN = ImageInputs(SPLIT, DIGITS)


def trained(loss, parts, architecture=TINY_CONV, inputs=TRAIN, network=None, **changes):
    """A network after some phases, with its state before and after and the loss at each step."""
    network = network or build_network(architecture, 0)
    before, told = state_of(network), []
    for phase in parts:
        train(
            network,
            phase,
            tiny_batches(phase.steps),
            inputs,
            None,
            tiny_settings(loss=loss, **changes),
            on_step=lambda step, value: told.append(value),
        )
    return network, before, state_of(network), told


@pytest.fixture
def losses_built(monkeypatch):
    """The loss of each phase, and a copy of its weights and buffers before training."""
    built = []

    def spied(*arguments):
        loss = build_loss(*arguments)
        built.append((loss, state_of(loss)))
        return loss

    monkeypatch.setattr(models.training.train, "build_loss", spied)
    return built


# --- every regime that allows it -----------------------------------------------------------------


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("architecture", [TINY, TINY_CONV], ids=["linear", "conv"])
@pytest.mark.parametrize("regime", ALLOWED)
@pytest.mark.parametrize("loss", DISTILLATIONS)
def test_each_regime_trains_what_it_trains_with_labels_alone(loss, regime, architecture, precision):
    parts = phases(regime, 3, 4)
    plain, _, _, _ = trained("cross_entropy", parts, architecture, weight_decay=0.0)
    network, before, after, told = trained(
        loss, parts, architecture, precision=precision, weight_decay=0.0
    )
    assert len(told) == 4
    assert np.isfinite(told).all()
    assert changed(before, after) == changed(before, state_of(plain))
    assert changed(state_of(plain), after)
    assert not any(module.training for module in network.modules())


@pytest.mark.parametrize("loss", DISTILLATIONS)
def test_the_last_exit_learns_from_labels_alone(loss):
    # After one step: later, what it is given has learned from it.
    (phase,) = phases("end_to_end", 3, 1)
    _, before, after, _ = trained(loss, [phase])
    _, _, plain, _ = trained("cross_entropy", [phase])
    behind_the_pupils = ("backbone.layer2", "backbone.layer3", "backbone.linear")
    differing = changed(plain, after)
    assert differing
    assert not any(name.startswith(behind_the_pupils) for name in differing)
    assert any(name.startswith(behind_the_pupils) for name in changed(before, after))


@pytest.mark.parametrize("loss", DISTILLATIONS)
def test_where_the_last_exit_trains_alone_there_is_no_pupil(loss):
    first, _ = phases("mixed", 3, 6)
    _, _, after, _ = trained(loss, [first])
    _, _, plain, _ = trained("cross_entropy", [first])
    assert not changed(plain, after)


# --- a frozen teacher ----------------------------------------------------------------------------


@pytest.mark.parametrize("loss", DISTILLATIONS)
@pytest.mark.parametrize("kept", [False, True], ids=["images", "store"])
def test_a_frozen_teacher_gets_no_gradient(kept, loss, tmp_path):
    network = build_network(TINY_CONV, 0)
    inputs = TRAIN
    if kept:
        compute_activations(network, SPLIT, DIGITS, tmp_path, torch.bfloat16)
        inputs = StoredInputs(tmp_path, SPLIT.labels)
    parts = phases("classifier_wise", 3, 3)
    network, before, after, _ = trained(
        loss, parts, inputs=inputs, network=network, weight_decay=0.1
    )
    assert all(parameter.grad is None for parameter in network.backbone.parameters())
    assert changed(before, after) == {name for name in before if name.startswith("branches.")}


def outputs(network):
    with torch.inference_mode():
        return network(TRAIN.batch(np.arange(48)))


def test_pupils_end_nearer_to_their_teacher_than_without_it():
    # The teacher is sure of itself but knows no label: they pull elsewhere.
    parts = phases("classifier_wise", 3, 40)
    distances = {}
    for loss in ("cross_entropy", *DISTILLATIONS):
        network = build_network(TINY_CONV, 0)
        with torch.no_grad():
            network.backbone.linear.weight *= 10
        trained(loss, parts, network=network)
        first, second, teacher = outputs(network)
        distances[loss] = [softened_divergence(one, teacher, 1.0) for one in (first, second)]
    for loss in DISTILLATIONS:
        assert all(
            near < far
            for near, far in zip(distances[loss], distances["cross_entropy"], strict=True)
        )


@pytest.mark.parametrize("loss", DISTILLATIONS)
def test_a_teacher_for_other_classes_learns_its_classifier_beside_its_pupils(loss):
    (phase,) = phases("classifier_wise", 3, 2)
    _, before, after, _ = trained(loss, [with_last_classifier(phase, 3)], weight_decay=0.0)
    moved = changed(before, after)
    assert {name for name in moved if name.startswith("backbone.")} == {
        "backbone.linear.weight",
        "backbone.linear.bias",
    }


# --- what the loss itself trains -----------------------------------------------------------------


@pytest.mark.parametrize("regime", ALLOWED)
def test_adapters_are_trained_and_thrown_away(regime, losses_built):
    parts = phases(regime, 3, 4)
    network, before, _, _ = trained("byot", parts, weight_decay=0.0)
    loss, at_first = losses_built[-1]
    names = {f"adapters.{exit}.{kind}" for exit in (1, 2) for kind in ("weight", "bias")}
    assert changed(at_first, state_of(loss)) == at_first.keys() == names
    # Both early exits have 32 channels after their convolution, the last has 64.
    assert at_first["adapters.1.weight"].shape == at_first["adapters.2.weight"].shape == (64, 32)
    assert (
        network.state_dict().keys() == before.keys() == state_of(build_network(TINY_CONV, 0)).keys()
    )
    own = {id(parameter) for parameter in network.parameters()}
    assert not any(id(parameter) in own for parameter in loss.parameters())


def test_the_temperature_moves_and_is_thrown_away(losses_built):
    # The teacher is sure of itself from the start, so that it is softened at once.
    network = build_network(TINY, 0)
    with torch.no_grad():
        network.backbone.linear.weight *= 100
    trained("exit_distillation", phases("classifier_wise", 3, 3), network=network)
    ((loss, at_first),) = losses_built
    assert at_first["temperature"] == 1
    assert loss.temperature.item() == pytest.approx(1.05**3)
    assert not any("temperature" in name for name in network.state_dict())


@pytest.mark.parametrize("loss", DISTILLATIONS)
def test_a_training_draws_nothing_from_the_global_generator(loss):
    states = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        states.append(trained(loss, phases("end_to_end", 3, 3))[2])
    assert not changed(*states)


# --- networks without vectors to compare ---------------------------------------------------------


class FullyConvolutional(nn.Module):
    """The last layer with weights makes a map of logits, which is pooled after it."""

    def __init__(self, num_classes):
        super().__init__()
        self.first = nn.Conv2d(1, 8, 3, padding=1)
        self.second = nn.Conv2d(8, 8, 3, padding=1)
        self.classifier = nn.Conv2d(8, num_classes, 1)

    def forward(self, x):
        x = F.relu(self.first(x))
        return self.classifier(F.relu(self.second(x))).mean((2, 3))


MAPS = replace(TINY, backbone=f"{__name__}:FullyConvolutional", exits=("relu",))


def test_feature_maps_of_the_teacher_are_refused_before_anything_is_trained():
    network = build_network(MAPS, 0)
    (phase,) = phases("end_to_end", 2, 2)
    before = state_of(network)
    with pytest.raises(NetworkError, match=r"'byot' compares vectors, but .*FullyConvolutional"):
        trained("byot", [phase], network=network)
    assert not changed(before, state_of(network))


def test_outputs_can_be_distilled_from_such_a_network():
    (phase,) = phases("end_to_end", 2, 2)
    _, before, after, told = trained("exit_distillation", [phase], MAPS, weight_decay=0.0)
    assert changed(before, after) == before.keys()
    assert np.isfinite(told).all()
