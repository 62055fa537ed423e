"""Regimes: the phases of each, and what a phase moves in networks cut and shared in any way."""

from dataclasses import replace
from itertools import pairwise

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
    some_images,
    state_of,
    tiny_batches,
    tiny_settings,
    tiny_split,
)
from torch import nn
from torch.nn import functional as F

from models.data.inputs import ImageInputs
from models.networks.multi_exit import build_network
from models.training.losses import LOSSES
from models.training.regimes import (
    REGIMES,
    Phase,
    backbone_phase,
    exit_by_exit,
    phases,
    trained_parts,
    with_last_classifier,
)
from models.training.train import train

TRAIN = ImageInputs(tiny_split(), DIGITS)

#: Segments and classifiers that each phase of a regime trains, of three exits.
TRAINED = {
    "end_to_end": [((1, 2, 3), (1, 2, 3))],
    "classifier_wise": [((), (1, 2))],
    "layer_wise": [((1,), (1,)), ((2,), (2,)), ((3,), (3,))],
    "mixed": [((1, 2, 3), (3,)), ((1, 2, 3), (1, 2, 3))],
}


# --- phases --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("regime", "expected"),
    [
        ("end_to_end", [Phase((1, 2, 3), (1, 2, 3), (1, 2, 3), 7)]),
        ("classifier_wise", [Phase((1, 2), (), (1, 2), 7)]),
        (
            "layer_wise",
            [Phase((1,), (1,), (1,), 2), Phase((2,), (2,), (2,), 3), Phase((3,), (3,), (3,), 2)],
        ),
        ("mixed", [Phase((3,), (1, 2, 3), (3,), 3), Phase((1, 2, 3), (1, 2, 3), (1, 2, 3), 4)]),
    ],
)
def test_phases_by_hand(regime, expected):
    assert phases(regime, 3, 7) == expected


@pytest.mark.parametrize("regime", ["end_to_end", "layer_wise", "mixed"])
def test_a_network_without_early_exits_trains_all_it_has_in_every_phase(regime):
    for phase in phases(regime, 1, 4):
        assert (phase.exits, phase.segments, phase.classifiers) == ((1,), (1,), (1,))


@examples(60)
@given(st.sampled_from(REGIMES), st.integers(2, 12), st.data())
def test_phases_share_the_budget_and_each_gets_a_step(regime, exit_count, data):
    steps = data.draw(st.integers(exit_count, 5000))
    shares = [phase.steps for phase in phases(regime, exit_count, steps)]
    assert sum(shares) == steps
    assert min(shares) >= 1
    assert max(shares) - min(shares) <= 1


@examples(40)
@given(st.sampled_from(REGIMES), st.integers(2, 12))
def test_every_exit_is_trained_once_its_classifier_is_and_no_classifier_without_its_loss(
    regime, exit_count
):
    parts = phases(regime, exit_count, 100)
    for phase in parts:
        assert phase.exits == phase.classifiers
    trained = {exit for phase in parts for exit in phase.classifiers}
    last = exit_count if regime != "classifier_wise" else exit_count - 1
    assert trained == set(range(1, last + 1))


def test_an_unknown_regime_is_named():
    with pytest.raises(ValueError, match="unknown regime 'layerwise'"):
        phases("layerwise", 3, 7)


def test_a_phase_of_classifiers_is_split_into_one_for_each():
    (joint,) = phases("classifier_wise", 4, 9)
    expected = [Phase((exit,), (), (exit,), 9) for exit in (1, 2, 3)]
    assert exit_by_exit(joint) == expected


def test_the_last_classifier_joins_the_early_ones():
    (phase,) = phases("classifier_wise", 3, 9)
    assert with_last_classifier(phase, 3) == Phase((3, 1, 2), (), (3, 1, 2), 9)


# --- what moves ----------------------------------------------------------------------------------


class Shared(nn.Module):
    """A normalisation is used by the first two segments, a convolution by the last two."""

    def __init__(self, num_classes):
        super().__init__()
        self.first = nn.Conv2d(1, 8, 3, padding=1, bias=False)
        self.again = nn.Conv2d(8, 8, 3, padding=1, bias=False)
        self.third = nn.Conv2d(8, 8, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(8)
        self.last_norm = nn.BatchNorm2d(8)
        self.scale = nn.Parameter(torch.ones(8, 1, 1))
        self.linear = nn.Linear(8, num_classes)

    def forward(self, x):
        x = F.relu(self.norm(self.first(x) * self.scale))
        x = F.relu(self.norm(self.again(x) * self.scale))
        x = F.relu(self.last_norm(self.third(self.again(x))))
        return self.linear(x.mean((2, 3)))


class Tied(nn.Module):
    """The convolutions of the first two segments have one weight between them."""

    def __init__(self, num_classes):
        super().__init__()
        self.enter = nn.Conv2d(1, 8, 3, padding=1)
        self.first = nn.Conv2d(8, 8, 3, padding=1)
        self.second = nn.Conv2d(8, 8, 3, padding=1)
        self.second.weight = self.first.weight
        self.third = nn.Conv2d(8, 8, 3, padding=1)
        self.linear = nn.Linear(8, num_classes)

    def forward(self, x):
        x = F.relu(self.first(self.enter(x)))
        x = F.relu(self.second(x))
        x = F.relu(self.third(x))
        return self.linear(x.mean((2, 3)))


#: Architectures, with the beginnings of the names of what each of three segments trains: a
#: weight belongs to the first segment that uses it.
NETWORKS = {
    "between_blocks": (
        TINY_CONV,
        (("conv1.", "bn1."), ("layer1.",), ("layer2.", "layer3.")),
    ),
    "inside_blocks": (
        replace(TINY_CONV, exits=("layer1.0.bn1", "layer2.0.relu")),
        (
            ("conv1.", "bn1.", "layer1.0.conv1.", "layer1.0.bn1."),
            ("layer1.0.conv2.", "layer1.0.bn2.", "layer2.0.conv1.", "layer2.0.bn1."),
            ("layer2.0.conv2.", "layer2.0.bn2.", "layer3."),
        ),
    ),
    "shared": (
        replace(TINY_CONV, backbone=f"{__name__}:Shared", exits=("relu", "relu_1")),
        (("first.", "norm.", "scale"), ("again.",), ("third.", "last_norm.")),
    ),
    "tied": (
        replace(TINY_CONV, backbone=f"{__name__}:Tied", exits=("relu", "relu_1")),
        (("enter.", "first.", "second.weight"), ("second.bias",), ("third.",)),
    ),
}


def trained_names(network, segments, classifiers, segment_names):
    """Names of all weights and statistics of some segments and classifiers."""
    beginnings = [f"backbone.{name}" for exit in segments for name in segment_names[exit - 1]]
    beginnings += [
        f"branches.{exit - 1}." if exit < 3 else "backbone.linear." for exit in classifiers
    ]
    found = {name for name in network.state_dict() if name.startswith(tuple(beginnings))}
    assert all(any(name.startswith(one) for name in found) for one in beginnings)
    return found


def states_after(network, parts, **changes):
    """The network's state at first and after each of some phases."""
    states = [state_of(network)]
    for phase in parts:
        train(network, phase, tiny_batches(phase.steps), TRAIN, None, tiny_settings(**changes))
        states.append(state_of(network))
    return states


# Weight decay alone would move a weight that no gradient reaches, so it is off where weights must
# move and on where they must not.
@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
@pytest.mark.parametrize("regime", REGIMES)
@pytest.mark.parametrize("kind", NETWORKS)
def test_each_phase_moves_what_it_says_and_leaves_all_else_bit_identical(
    kind, regime, weight_decay
):
    architecture, segment_names = NETWORKS[kind]
    network = build_network(architecture, 0)
    states = states_after(network, phases(regime, 3, 6), weight_decay=weight_decay)
    moved = [changed(before, after) for before, after in pairwise(states)]
    assert moved == [
        trained_names(network, segments, classifiers, segment_names)
        for segments, classifiers in TRAINED[regime]
    ]


@pytest.mark.parametrize("regime", REGIMES)
@pytest.mark.parametrize("kind", NETWORKS)
def test_each_part_of_a_phase_is_trained_once(kind, regime):
    network = build_network(NETWORKS[kind][0], 0)
    for phase in phases(regime, 3, 6):
        parts = trained_parts(network, phase)
        assert len({id(part) for part in parts}) == len(parts)


@pytest.mark.parametrize("kind", NETWORKS)
def test_layer_by_layer_what_earlier_exits_say_stays_bit_for_bit(kind):
    network = build_network(NETWORKS[kind][0], 0)
    images = some_images(6)
    said = []
    for phase in phases("layer_wise", 3, 6):
        states_after(network, [phase], weight_decay=0.1)
        with torch.inference_mode():
            logits = network(images)
        for exit, before in enumerate(said, start=1):
            assert torch.equal(logits[exit - 1], before), f"exit {exit} in {phase}"
        (exit,) = phase.exits
        said.append(logits[exit - 1])


def test_the_first_phase_of_mixed_is_the_training_of_the_backbone_and_leaves_the_branches():
    first, second = phases("mixed", 3, 6)
    assert first == backbone_phase(3, 3)
    network = build_network(TINY_CONV, 0)
    at_first, halfway, at_last = states_after(network, [first, second])
    branches = {name for name in at_first if name.startswith("branches.")}
    assert not changed(at_first, halfway) & branches
    assert branches <= changed(halfway, at_last)


def test_of_the_backbone_the_last_classifier_alone_is_trained_with_the_branches():
    network = build_network(TINY_CONV, 0)
    (phase,) = phases("classifier_wise", 3, 3)
    before, after = states_after(network, [with_last_classifier(phase, 3)], weight_decay=0.0)
    moved = changed(before, after)
    assert {name for name in moved if name.startswith("backbone.")} == {
        "backbone.linear.weight",
        "backbone.linear.bias",
    }
    assert {name for name in before if name.startswith("branches.")} <= moved


# --- exit by exit --------------------------------------------------------------------------------


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("architecture", [TINY, TINY_CONV], ids=["linear", "conv"])
def test_classifiers_trained_one_by_one_end_as_those_trained_together(architecture, loss):
    (joint,) = phases("classifier_wise", 3, 3)
    assert_equal_one_by_one(architecture, joint, loss)


@pytest.mark.parametrize("architecture", [TINY, TINY_CONV], ids=["linear", "conv"])
def test_with_the_last_classifier_they_do_too(architecture):
    (joint,) = phases("classifier_wise", 3, 3)
    assert_equal_one_by_one(architecture, with_last_classifier(joint, 3), "cross_entropy")


def assert_equal_one_by_one(architecture, joint, loss):
    together, one_by_one = build_network(architecture, 0), build_network(architecture, 0)
    before, after = states_after(together, [joint], loss=loss)
    *_, after_each = states_after(one_by_one, exit_by_exit(joint), loss=loss)
    assert changed(before, after)
    assert not changed(after, after_each)


def test_one_by_one_the_last_classifier_is_trained_before_those_that_it_may_teach():
    (joint,) = phases("classifier_wise", 3, 3)
    first, *others = exit_by_exit(with_last_classifier(joint, 3))
    assert first == Phase((3,), (), (3,), 3)
    assert others == exit_by_exit(joint)
