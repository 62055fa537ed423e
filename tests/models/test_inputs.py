"""Images as inputs: what exits see of them, and how gradients come back through the trunk."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tiny_networks import (
    DIGITS,
    TINY,
    TINY_CONV,
    changed,
    examples,
    state_of,
    tiny_batches,
    tiny_settings,
    tiny_split,
)
from torch.nn import functional as F

from models.data.augmentation import normalise, random_crop_and_flip
from models.data.inputs import ImageInputs
from models.networks.multi_exit import build_network, parameters_of
from models.training.regimes import backbone_phase, phases
from models.training.train import train

SPLIT = tiny_split(20)

#: The same network cut where skip connections by-pass both early exits.
INSIDE_BLOCKS = replace(TINY_CONV, exits=("layer1.0.bn1", "layer2.0.relu"))

POSITIONS = np.array([5, 0, 13, 5])

EXITS = (1, 2, 3)

IDS = ["linear", "conv", "inside_blocks"]


# --- batches -------------------------------------------------------------------------------------


def test_a_batch_is_the_normalised_images_at_the_positions():
    inputs = ImageInputs(SPLIT, DIGITS)
    expected = normalise(torch.from_numpy(SPLIT.images[POSITIONS]), DIGITS)
    for _ in range(2):
        assert torch.equal(inputs.batch(POSITIONS), expected)
    assert inputs.labels.tolist() == SPLIT.labels.tolist()


def test_batches_are_augmented_anew_each_time_as_the_seed_says():
    inputs = ImageInputs(SPLIT, DIGITS, augment=True, seed=4)
    generator = torch.Generator().manual_seed(4)
    images = torch.from_numpy(SPLIT.images[POSITIONS])
    batches = [inputs.batch(POSITIONS) for _ in range(3)]
    for batch in batches:
        expected = normalise(random_crop_and_flip(images, DIGITS, generator), DIGITS)
        assert torch.equal(batch, expected)
    assert not torch.equal(batches[0], batches[1])


def test_neither_augmentation_nor_normalisation_touches_the_images():
    inputs = ImageInputs(SPLIT, DIGITS, augment=True)
    inputs.batch(POSITIONS)
    assert np.array_equal(SPLIT.images, tiny_split(20).images)


# --- features ------------------------------------------------------------------------------------


@pytest.mark.parametrize("equilibrium", [False, True], ids=["plain", "equilibrium"])
@pytest.mark.parametrize("architecture", [TINY, TINY_CONV, INSIDE_BLOCKS], ids=IDS)
def test_features_lead_to_the_logits_of_the_network(architecture, equilibrium):
    network = build_network(architecture, 0).eval()
    inputs = ImageInputs(SPLIT, DIGITS, equilibrium=equilibrium)
    expected = network(inputs.batch(POSITIONS))
    features = inputs.features(network, POSITIONS, EXITS)
    for exit in EXITS:
        assert torch.equal(network.last_layer(exit, features[exit]), expected[exit - 1])


@examples(14)
@given(st.sets(st.sampled_from(EXITS), min_size=1), st.booleans())
def test_only_the_asked_exits_are_computed(exits, equilibrium):
    network = build_network(TINY, 0).eval()
    computed = []
    parts = {
        "branch 1": network.branches[0],
        "branch 2": network.branches[1],
        "segment 1": network.backbone.conv1,
        "segment 2": network.backbone.layer1[0].conv1,
        "segment 3": network.backbone.layer3[0].conv2,
    }
    for name, part in parts.items():
        first = part[0] if name.startswith("branch") else part
        first.register_forward_hook(lambda *_, name=name: computed.append(name))
    inputs = ImageInputs(SPLIT, DIGITS, equilibrium=equilibrium)
    features = inputs.features(network, POSITIONS, exits)
    assert features.keys() == exits
    expected = {f"segment {exit}" for exit in range(1, max(exits) + 1)}
    expected |= {f"branch {exit}" for exit in exits if exit < 3}
    assert sorted(computed) == sorted(expected)


# --- gradient equilibrium ------------------------------------------------------------------------


def gradients(network, inputs, exits):
    """By name, the gradients that the summed losses of some exits, each computed with all, give."""
    network.zero_grad()
    features = inputs.features(network, POSITIONS, EXITS)
    targets = inputs.labels[torch.from_numpy(POSITIONS)]
    sum(
        F.cross_entropy(network.last_layer(exit, features[exit]), targets) for exit in exits
    ).backward()
    return {
        name: torch.zeros_like(one) if one.grad is None else one.grad.clone()
        for name, one in network.named_parameters()
    }


def names_of(network, parts):
    """Names of the parameters of some parts."""
    asked = {id(one) for one in parameters_of(parts)}
    return {name for name, one in network.named_parameters() if id(one) in asked}


@pytest.mark.parametrize("architecture", [TINY, TINY_CONV, INSIDE_BLOCKS], ids=IDS)
def test_in_equilibrium_each_segment_gets_the_mean_gradient_of_the_exits_behind_it(architecture):
    network = build_network(architecture, 0).double().eval()
    plain, scaled = ImageInputs(SPLIT, DIGITS), ImageInputs(SPLIT, DIGITS, equilibrium=True)
    for inputs in (plain, scaled):
        inputs.batch = lambda positions, of=inputs: ImageInputs.batch(of, positions).double()
    of_exit = {exit: gradients(network, plain, (exit,)) for exit in EXITS}
    found = gradients(network, scaled, EXITS)
    # How much of each exit's gradient reaches each segment. Of exit 3's, 1/2 passes exit 2 and of
    # that 2/3 passes exit 1; of exit 2's, 1/2 enters the trunk and 2/3 of that passes exit 1.
    factors = {1: {1: 1 / 3, 2: 1 / 3, 3: 1 / 3}, 2: {2: 1 / 2, 3: 1 / 2}, 3: {3: 1.0}}
    last = names_of(network, network.classifier(3))
    compared = set()
    for segment, factor in factors.items():
        for name in names_of(network, network.parts(segment)) - last:
            expected = sum(factor[exit] * of_exit[exit][name] for exit in factor)
            torch.testing.assert_close(found[name], expected, rtol=1e-9, atol=1e-12)
            compared.add(name)
    # Classifiers get their own gradient whole.
    for exit in EXITS:
        for name in names_of(network, network.classifier(exit)):
            torch.testing.assert_close(found[name], of_exit[exit][name], rtol=1e-9, atol=1e-12)
            compared.add(name)
    assert compared == set(found)


def test_without_equilibrium_the_gradients_of_all_exits_add_up():
    network = build_network(TINY_CONV, 0).eval()
    inputs = ImageInputs(SPLIT, DIGITS)
    of_exit = [gradients(network, inputs, (exit,)) for exit in EXITS]
    found = gradients(network, inputs, EXITS)
    for name, gradient in found.items():
        expected = sum(one[name] for one in of_exit)
        torch.testing.assert_close(gradient, expected, rtol=1e-4, atol=1e-6)


def trained(phase, equilibrium):
    network = build_network(TINY, 0)
    inputs = ImageInputs(SPLIT, DIGITS, equilibrium=equilibrium)
    before = state_of(network)
    train(network, phase, tiny_batches(phase.steps, samples=20), inputs, None, tiny_settings())
    return before, state_of(network)


def test_equilibrium_makes_another_training_of_exits_that_train_together():
    (phase,) = phases("end_to_end", 3, 2)
    before, plain = trained(phase, equilibrium=False)
    _, balanced = trained(phase, equilibrium=True)
    # In the first step nothing differs before the gradient: from the second on all does.
    assert changed(plain, balanced) >= {name for name in before if name.endswith("weight")}


def test_there_is_nothing_to_balance_where_the_last_exit_trains_alone():
    # The trunk gets one gradient, which is its own mean.
    _, plain = trained(backbone_phase(3, 2), equilibrium=False)
    _, balanced = trained(backbone_phase(3, 2), equilibrium=True)
    assert not changed(plain, balanced)


@pytest.mark.parametrize("exits", [(1,), (2,), (3,), (1, 3), EXITS], ids=str)
def test_the_forward_pass_is_the_same_in_equilibrium(exits):
    network = build_network(INSIDE_BLOCKS, 0).eval()
    plain, scaled = (
        ImageInputs(SPLIT, DIGITS, equilibrium=one).features(network, POSITIONS, exits)
        for one in (False, True)
    )
    assert all(torch.equal(plain[exit], scaled[exit]) for exit in exits)
