"""Branches: what every design makes of feature maps, tokens and vectors."""

import math

import pytest
import torch
from tiny_networks import some_images
from torch import nn
from torch.nn import functional as F

from models.errors import NetworkError
from models.networks.branches import (
    BRANCH_DESIGNS,
    LearnedMix,
    MaxAndAveragePool,
    TokenMean,
    build_branch,
    frozen_prefix,
)

MAPS, TOKENS, VECTOR = (4, 5, 5), (6, 4), (4,)

#: Designs that take anything, and those that need feature maps.
ANY, MAPS_ALONE = ("linear", "mlp"), ("conv", "sdn", "msdnet")

TAKEN = [
    *((design, shape) for design in ANY for shape in (MAPS, TOKENS, VECTOR)),
    *((design, MAPS) for design in MAPS_ALONE),
]


def branch_for(design, shape, classes=3):
    """A branch in inference mode, and five activations of ``shape`` for it."""
    torch.manual_seed(0)
    return build_branch(design, torch.zeros(1, *shape), classes).eval(), some_images(5, shape)


def parameters(module):
    return sum(parameter.numel() for parameter in module.parameters())


def test_every_design_is_tried_here():
    assert sorted(ANY + MAPS_ALONE) == sorted(BRANCH_DESIGNS)


# --- any design ----------------------------------------------------------------------------------


@pytest.mark.parametrize(("design", "shape"), TAKEN, ids=str)
def test_activations_become_logits(design, shape):
    branch, x = branch_for(design, shape, 7)
    logits = branch(x)
    assert logits.shape == (5, 7)
    assert not torch.equal(logits[0], logits[1])
    assert torch.equal(branch(x[:1]).argmax(), logits[0].argmax()), "each image on its own"


@pytest.mark.parametrize(("design", "shape"), TAKEN, ids=str)
def test_a_branch_ends_in_one_linear_layer_on_vectors(design, shape):
    branch, x = branch_for(design, shape)
    assert isinstance(branch, nn.Sequential)
    assert isinstance(branch[-1], nn.Linear)
    features = branch[:-1](x)
    assert features.shape == (5, branch[-1].in_features)
    assert torch.equal(branch[-1](features), branch(x))


@pytest.mark.parametrize(("design", "shape"), TAKEN, ids=str)
def test_training_reaches_every_parameter(design, shape):
    branch, x = branch_for(design, shape)
    F.cross_entropy(branch.train()(x), torch.arange(5) % 3).backward()
    assert [name for name, one in branch.named_parameters() if one.grad is None] == []


@pytest.mark.parametrize(("design", "size"), [(design, (1, 1)) for design in BRANCH_DESIGNS])
def test_feature_maps_of_one_pixel_will_do(design, size):
    branch, x = branch_for(design, (4, *size))
    assert branch(x).shape == (5, 3)


# --- by hand -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("shape", "mean"),
    [
        (MAPS, lambda x: x.mean(dim=(2, 3))),
        (TOKENS, lambda x: x.mean(dim=1)),
        (VECTOR, lambda x: x),
    ],
    ids=["feature maps", "tokens", "a vector"],
)
def test_a_linear_branch_is_a_mean_over_the_image_and_one_linear_layer(shape, mean):
    branch, x = branch_for("linear", shape)
    (linear,) = [module for module in branch.modules() if isinstance(module, nn.Linear)]
    torch.testing.assert_close(branch(x), mean(x) @ linear.weight.T + linear.bias)
    assert parameters(branch) == 4 * 3 + 3


@pytest.mark.parametrize("shape", [MAPS, TOKENS, VECTOR], ids=str)
def test_an_mlp_branch_has_a_hidden_layer_of_twice_the_channels(shape):
    branch, x = branch_for("mlp", shape)
    mean = branch_for("linear", shape)[0][:-1](x)
    hidden, last = [module for module in branch.modules() if isinstance(module, nn.Linear)]
    by_hand = (mean @ hidden.weight.T + hidden.bias).clamp(min=0) @ last.weight.T + last.bias
    torch.testing.assert_close(branch(x), by_hand)
    assert parameters(branch) == (4 * 8 + 8) + (8 * 3 + 3)


def test_a_conv_branch_doubles_the_channels_first():
    branch, x = branch_for("conv", MAPS)
    convolution, norm = branch[0], branch[1]
    wide = F.conv2d(x, convolution.weight, padding=1)
    wide = (wide / math.sqrt(1 + norm.eps)).relu()
    assert wide.shape == (5, 8, 5, 5)
    by_hand = wide.mean(dim=(2, 3)) @ branch[-1].weight.T + branch[-1].bias
    torch.testing.assert_close(branch(x), by_hand)
    assert parameters(branch) == 3 * 3 * 4 * 8 + 2 * 8 + 8 * 3 + 3


def test_sdn_pools_to_4x4_by_a_learned_mixture_of_maximum_and_mean():
    branch, _ = branch_for("sdn", (1, 8, 8))
    with torch.no_grad():
        branch[1].share.fill_(0.25)
        branch[-1].weight.copy_(torch.eye(3, 16))
        branch[-1].bias.zero_()
    x = torch.zeros(1, 1, 8, 8)
    # The first three windows of 2 x 2: maximum 4, mean 2.5; 8 and 2; 0 and 0.
    x[0, 0, :2, :2] = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    x[0, 0, :2, 2:4] = torch.tensor([[8.0, 0.0], [0.0, 0.0]])
    by_hand = [0.25 * 4 + 0.75 * 2.5, 0.25 * 8 + 0.75 * 2, 0.0]
    assert branch(x).tolist() == [pytest.approx(by_hand)]


def test_both_kinds_of_pooling_stand_side_by_side():
    pooled = MaxAndAveragePool(1)(torch.tensor([[[[1.0, 2.0], [3.0, 6.0]]]]))
    assert pooled.shape == (1, 2, 1, 1, 1)
    assert pooled.flatten().tolist() == [6, 3]


def test_a_mixture_begins_between_its_two_kinds():
    assert 0 <= LearnedMix().share.item() < 1


@pytest.mark.parametrize(
    ("size", "features"),
    [
        ((8, 8), 16),
        ((32, 32), 16),
        ((4, 4), 16),
        ((3, 3), 9),
        ((2, 9), 4),
        ((9, 2), 4),
        ((1, 1), 1),
    ],
    ids=str,
)
def test_sdn_never_pools_to_more_pixels_than_there_are(size, features):
    branch, _ = branch_for("sdn", (5, *size))
    assert branch[-1].in_features == 5 * features


def test_a_mean_over_tokens_keeps_the_channels():
    tokens = torch.tensor([[[1.0, 10.0], [3.0, 20.0]]])
    assert TokenMean()(tokens).tolist() == [[2.0, 15.0]]


def test_msdnets_classifier_is_two_convolutions_of_128_channels():
    branch, _ = branch_for("msdnet", MAPS)
    assert parameters(branch) == (
        (9 * 4 * 128 + 2 * 128) + (9 * 128 * 128 + 2 * 128) + (128 * 3 + 3)
    )


# --- what never changes in training --------------------------------------------------------------


@pytest.mark.parametrize(
    ("design", "shape", "count"),
    [
        ("linear", MAPS, 2),
        ("linear", TOKENS, 1),
        ("linear", VECTOR, 0),
        ("mlp", MAPS, 2),
        ("mlp", TOKENS, 1),
        ("mlp", VECTOR, 0),
        ("conv", MAPS, 0),
        ("sdn", MAPS, 1),
        ("msdnet", MAPS, 0),
    ],
    ids=str,
)
def test_the_frozen_prefix_is_what_comes_before_the_first_weight(design, shape, count):
    branch, x = branch_for(design, shape)
    assert frozen_prefix(branch) == count
    prefix = branch[:count]
    assert not prefix.state_dict()
    assert torch.equal(prefix.train()(x), prefix.eval()(x))
    assert torch.equal(branch[count:](prefix(x)), branch(x))


@pytest.mark.parametrize(
    ("modules", "count"),
    [
        ([nn.Flatten(), nn.Dropout(0.5), nn.Linear(4, 3)], 1),
        ([nn.ReLU(), nn.Sequential(nn.Flatten(), nn.Dropout(0.5)), nn.Linear(4, 3)], 1),
        ([nn.Flatten(), nn.BatchNorm1d(4, affine=False), nn.Linear(4, 3)], 1),
        ([nn.ReLU(), nn.Flatten()], 2),
        ([], 0),
    ],
    ids=["dropout", "nested dropout", "statistics", "no weights", "nothing"],
)
def test_what_is_drawn_or_counted_anew_is_not_frozen(modules, count):
    assert frozen_prefix(nn.Sequential(*modules)) == count


# --- what is refused -----------------------------------------------------------------------------


@pytest.mark.parametrize("design", MAPS_ALONE)
@pytest.mark.parametrize("shape", [TOKENS, VECTOR], ids=str)
def test_designs_for_feature_maps_refuse_anything_else_and_say_what_to_use(design, shape):
    with pytest.raises(NetworkError) as caught:
        branch_for(design, shape)
    message = str(caught.value)
    assert f"a '{design}' branch takes feature maps (N, C, H, W)" in message
    assert str((1, *shape)) in message
    assert "use 'linear' or 'mlp'" in message


@pytest.mark.parametrize("design", BRANCH_DESIGNS)
@pytest.mark.parametrize("shape", [(2, 3, 4, 5), ()], ids=["five dimensions", "one"])
def test_activations_of_other_dimensions_are_refused_with_their_shape(design, shape):
    with pytest.raises(NetworkError) as caught:
        branch_for(design, shape)
    assert str((1, *shape)) in str(caught.value)


def test_an_unknown_design_is_a_mistake_of_the_caller():
    with pytest.raises(KeyError, match="transformer"):
        branch_for("transformer", MAPS)
