"""Training a phase: what it moves, what it sums, and that it leaves all else bit-identical."""

import copy

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

from models.data.augmentation import normalise
from models.data.inputs import ImageInputs
from models.networks.multi_exit import build_network
from models.training.regimes import backbone_phase, phases
from models.training.train import train

TRAIN = ImageInputs(tiny_split(), DIGITS)
VALIDATION = ImageInputs(tiny_split(8, 1), DIGITS)

#: Phases of three exits that train all, the backbone alone, and the branches alone.
PHASES = ("end_to_end", "backbone", "classifier_wise")


def phase_of(name, steps=3):
    """The one phase of a regime, or that of the backbone."""
    if name == "backbone":
        return backbone_phase(3, steps)
    (phase,) = phases(name, 3, steps)
    return phase


def trained(name, architecture=TINY_CONV, validation=None, steps=3, **changes):
    """A network after a few steps, with its state before and after."""
    network = build_network(architecture, 0)
    before = state_of(network)
    phase = phase_of(name, steps)
    train(network, phase, tiny_batches(steps), TRAIN, validation, tiny_settings(**changes))
    return network, before, state_of(network)


def names(network, prefix):
    """Names of the state under ``prefix``, batch-norm statistics included."""
    found = {name for name in network.state_dict() if name.startswith(prefix)}
    assert any("running_mean" in name for name in found)
    return found


# --- what moves ----------------------------------------------------------------------------------
# Weight decay alone would move a weight that no gradient reaches, so it is off where weights must
# move and on where they must not.


def test_end_to_end_moves_every_weight_and_statistic():
    _, before, after = trained("end_to_end", weight_decay=0.0)
    assert changed(before, after) == set(before)


def test_the_backbone_phase_moves_the_backbone_and_leaves_the_branches():
    network, before, after = trained("backbone", weight_decay=0.0)
    assert changed(before, after) == names(network, "backbone.")
    network, before, after = trained("backbone", weight_decay=0.1)
    assert changed(before, after) == names(network, "backbone.")


def test_classifier_wise_moves_the_branches_and_leaves_the_backbone_and_its_classifier():
    network, before, after = trained("classifier_wise", weight_decay=0.0)
    assert changed(before, after) == names(network, "branches.")
    network, before, after = trained("classifier_wise", weight_decay=0.1)
    assert changed(before, after) == names(network, "branches.")
    assert "backbone.linear.weight" not in changed(before, after)


@pytest.mark.parametrize("phase", ["backbone", "classifier_wise"])
def test_what_is_frozen_stays_frozen_through_evaluations(phase):
    network, before, after = trained(phase, validation=VALIDATION, evaluations=3)
    moved = {"backbone": "backbone.", "classifier_wise": "branches."}[phase]
    assert changed(before, after) == names(network, moved)


def test_a_phase_trains_again_what_the_one_before_had_frozen():
    settings = tiny_settings(weight_decay=0.0)
    network = build_network(TINY_CONV, 0)
    for phase in ("classifier_wise", "end_to_end"):
        before = state_of(network)
        train(network, phase_of(phase), tiny_batches(3), TRAIN, None, settings)
    assert changed(before, state_of(network)) == set(before)


def test_the_early_exits_make_no_difference_to_the_backbone_phase():
    with_exits, _, _ = trained("backbone")
    alone = build_network(TINY_CONV, 0)
    for branch in alone.branches:
        for parameter in branch.parameters():
            nn.init.constant_(parameter, 3.0)
    train(alone, backbone_phase(3, 3), tiny_batches(3), TRAIN, None, tiny_settings())
    assert not changed(state_of(with_exits.backbone), state_of(alone.backbone))


def test_a_frozen_backbone_normalises_with_its_statistics_not_with_the_batch():
    # A sample's way through a frozen backbone does not depend on its batch: trained on one
    # sample, repeated, and on the same sample once, a branch without batch norm ends up equal.
    states = []
    for batch in (np.zeros(1, dtype=np.int64), np.zeros(6, dtype=np.int64)):
        network = build_network(TINY, 0)
        phase = phase_of("classifier_wise", 2)
        train(network, phase, [batch] * 2, TRAIN, None, tiny_settings())
        states.append(torch.cat([part.flatten() for part in network.branches.parameters()]))
    torch.testing.assert_close(*states)


# --- losses --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "exits", "weights"),
    [
        ("end_to_end", [1, 2, 3], (0.25, 2.0, 1.0)),
        ("backbone", [3], (1.0, 1.0, 1.0)),
        ("classifier_wise", [1, 2], (0.25, 2.0, 1.0)),
    ],
)
def test_a_phase_sums_the_weighted_losses_of_the_exits_it_trains(name, exits, weights):
    split, (batch,) = tiny_split(), tiny_batches(1)
    network = build_network(TINY, 0)
    reference = copy.deepcopy(network)
    losses = []
    train(
        network, phase_of(name, 1), [batch], TRAIN, None, tiny_settings(exit_weights=weights),
        on_step=lambda step, loss: losses.append(loss),
    )  # fmt: skip
    reference.train(name != "classifier_wise")
    images = normalise(torch.from_numpy(split.images[batch]), DIGITS)
    targets = torch.from_numpy(split.labels[batch])
    with torch.no_grad():
        each = [F.cross_entropy(logits, targets).item() for logits in reference(images)]
    expected = sum(weights[exit - 1] * each[exit - 1] for exit in exits)
    assert losses == [pytest.approx(expected, rel=1e-5)]


def test_exits_weigh_the_same_unless_told_otherwise():
    _, _, plain = trained("end_to_end")
    _, _, ones = trained("end_to_end", exit_weights=(1.0, 1.0, 1.0))
    _, _, others = trained("end_to_end", exit_weights=(1.0, 0.5, 1.0))
    assert not changed(plain, ones)
    assert changed(plain, others)


def test_an_exit_of_weight_zero_gets_no_gradient_from_its_loss():
    _, before, after = trained("end_to_end", TINY, exit_weights=(0.0, 1.0, 1.0), weight_decay=0.0)
    still = set(before) - changed(before, after)
    assert still == {name for name in before if name.startswith("branches.0.")}


def test_doubled_losses_at_half_the_rate_are_the_same_training():
    _, _, single = trained("end_to_end", weight_decay=0.0, learning_rate=0.05)
    _, _, double = trained(
        "end_to_end", weight_decay=0.0, learning_rate=0.025, exit_weights=(2.0, 2.0, 2.0)
    )
    assert not changed(single, double)


@pytest.mark.parametrize("weights", [(1.0, 1.0, 0.0), (0.0, 1.0, 0.5)], ids=str)
def test_exit_weights_make_no_difference_to_the_backbone_phase(weights):
    # Weights balance losses that are summed. With one loss there is nothing to balance, and
    # early exits trained on a backbone of weight 0 would stand on a random one.
    _, _, plain = trained("backbone")
    _, _, weighted = trained("backbone", exit_weights=weights)
    assert not changed(plain, weighted)


# --- modes and statistics ------------------------------------------------------------------------


@pytest.mark.parametrize("phase", PHASES)
def test_evaluating_in_between_changes_nothing(phase):
    _, _, once = trained(phase, steps=4, validation=VALIDATION, evaluations=1)
    _, _, often = trained(phase, steps=4, validation=VALIDATION, evaluations=4)
    _, _, never = trained(phase, steps=4, validation=None)
    assert not changed(once, often)
    assert not changed(once, never)


@pytest.mark.parametrize("phase", PHASES)
def test_a_trained_network_is_in_inference_mode(phase):
    for validation in (VALIDATION, None):
        network, _, _ = trained(phase, validation=validation)
        assert not any(module.training for module in network.modules())


@pytest.mark.parametrize(
    ("phase", "batches_seen"),
    [("end_to_end", (4, 4)), ("backbone", (4, 0)), ("classifier_wise", (0, 4))],
)
def test_batch_norm_sees_each_training_batch_once_and_no_validation(phase, batches_seen):
    _, _, after = trained(phase, steps=4, validation=VALIDATION, evaluations=4)
    for part, seen in zip(("backbone.", "branches."), batches_seen, strict=True):
        counts = [
            count.item()
            for name, count in after.items()
            if name.startswith(part) and name.endswith("num_batches_tracked")
        ]
        assert set(counts) == {seen}
