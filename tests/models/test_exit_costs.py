"""What an answer at each exit costs: parameters, FLOPs and bytes, worked out by hand."""

from dataclasses import replace

import pytest
import torch
from tiny_networks import TINY, TINY_CONV, state_of
from torch import nn

from models.networks.architecture import Architecture
from models.networks.multi_exit import build_network, exit_costs, parameters_of

#: On images of 1 x 8 x 8. A convolution of n x n pixels takes 2 * 9 * in * out * n * n FLOPs; batch
#: norm, ReLU, pooling and additions count for nothing, as everywhere in the field.
STEM = 2 * 9 * 1 * 16 * 64
LAYER1 = 2 * (2 * 9 * 16 * 16 * 64)
LAYER2 = 2 * 9 * 16 * 32 * 16 + 2 * 9 * 32 * 32 * 16
LAYER3 = 2 * 9 * 32 * 64 * 4 + 2 * 9 * 64 * 64 * 4


def test_flops_of_resnet8_by_hand():
    first, second, last = exit_costs(build_network(TINY, 0))
    branch, classifier = 2 * 16 * 10, 2 * 64 * 10
    assert first.flops == STEM + branch
    assert second.flops == STEM + LAYER1 + branch, "the first branch is passed, not computed"
    assert last.flops == STEM + LAYER1 + LAYER2 + LAYER3 + classifier


def test_parameters_of_resnet8_by_hand():
    first, second, last = exit_costs(build_network(TINY, 0))
    stem = 9 * 16 + 2 * 16
    layer1 = 2 * (9 * 16 * 16 + 2 * 16)
    branch = 16 * 10 + 10
    assert first.parameters == stem + branch
    assert second.parameters == stem + layer1 + branch
    # The published 75,290 are for images of three channels.
    assert last.parameters == 75_290 - 2 * 9 * 16


def test_bytes_of_the_state_of_resnet8_by_hand():
    costs = exit_costs(build_network(replace(TINY, exits=("relu", "layer2")), 0))
    assert [cost.state_bytes for cost in costs] == [4 * 16 * 64, 4 * 32 * 16, 4 * 64]


def test_exits_are_numbered_and_named():
    costs = exit_costs(build_network(TINY, 0))
    assert [(cost.exit, cost.node) for cost in costs] == [(1, "relu"), (2, "layer1"), (3, "")]
    placed = build_network(replace(TINY, exits=(0.3, 0.7)), 0)
    assert tuple(cost.node for cost in exit_costs(placed)) == (*placed.exit_nodes, "")


def test_inside_a_block_the_shortcut_travels_too():
    costs = exit_costs(build_network(replace(TINY, exits=("layer1.0.conv1", "layer2.0.bn1")), 0))
    # The activation at the exit, and the block's input.
    assert costs[0].state_bytes == 4 * (16 * 64 + 16 * 64)
    assert costs[1].state_bytes == 4 * (32 * 16 + 16 * 64)


def test_half_of_the_channels_that_shufflenet_passes_by_travel_too():
    architecture = Architecture(
        "shufflenet_v2_x0_5", ("stage2.1.branch2.3",), "linear", 10, (3, 32, 32)
    )
    first, _ = exit_costs(build_network(architecture, 0))
    # 24 of 48 channels of 4 x 4 pixels go through the block; the other 24 pass it by.
    assert first.state_bytes == 4 * (24 * 16 + 24 * 16)


BACKBONES = {
    "resnet8": ("layer1.0.conv1", "layer2"),
    "msdnet5": ("blocks.0", "blocks.2"),
    "densenet_bc_40_12": ("features.denseblock1.denselayer3", "features.denseblock2"),
    "cifar_mobilenet_v3_small": (0.3, 0.6),
    "cifar_vgg11_bn": (0.3, 0.6),
}


@pytest.mark.parametrize("backbone", BACKBONES)
def test_the_last_exit_takes_all_of_the_backbone_and_nothing_else(backbone):
    architecture = Architecture(backbone, BACKBONES[backbone], "conv", 10, (1, 8, 8))
    network = build_network(architecture, 0)
    costs = exit_costs(network)
    alone = exit_costs(build_network(replace(architecture, exits=()), 0))
    assert costs[-1].parameters == sum(one.numel() for one in network.backbone.parameters())
    assert (costs[-1].parameters, costs[-1].flops) == (alone[-1].parameters, alone[-1].flops)


@pytest.mark.parametrize("backbone", BACKBONES)
def test_later_exits_of_the_backbone_take_more(backbone):
    network = build_network(Architecture(backbone, BACKBONES[backbone], "linear", 10, (1, 8, 8)), 0)
    costs = exit_costs(network)
    # A linear branch is too small to make up for a segment.
    for name in ("parameters", "flops"):
        values = [getattr(cost, name) for cost in costs]
        assert values == sorted(values)
        assert len(set(values)) == len(values)


def test_a_branch_with_convolutions_adds_its_own():
    (plain, *_), (conv, *_) = (exit_costs(build_network(one, 0)) for one in (TINY, TINY_CONV))
    assert conv.flops - plain.flops == 2 * 9 * 16 * 32 * 64 + 2 * 32 * 10 - 2 * 16 * 10
    assert conv.parameters - plain.parameters == (9 * 16 * 32 + 2 * 32 + 330) - 170
    assert conv.state_bytes == plain.state_bytes


def test_a_resized_image_costs_what_a_larger_one_does():
    resized = exit_costs(build_network(replace(TINY, resize=16), 0))
    assert resized == exit_costs(build_network(replace(TINY, input_shape=(1, 16, 16)), 0))


# --- attention -----------------------------------------------------------------------------------

TRANSFORMER = """
from torchvision.models import VisionTransformer


def small(num_classes):
    return VisionTransformer(8, 4, 2, 2, 8, 16, num_classes=num_classes)
"""


@pytest.fixture
def transformer(tmp_path):
    """A ViT of two layers, width 8, on 3 x 8 x 8 images in patches of 4 x 4."""
    (tmp_path / "transformer.py").write_text(TRANSFORMER)
    exits = ("encoder.layers.encoder_layer_0",)
    return build_network(
        Architecture("transformer.py:small", exits, "linear", 5, (3, 8, 8), folder=tmp_path), 0
    )


def test_attention_is_counted(transformer):
    tokens, width, hidden = 4 + 1, 8, 16
    patches = 2 * 3 * 4 * 4 * width * 4
    projections = 2 * tokens * width * (3 * width + width)
    attention = 2 * (2 * tokens * tokens * width)  # queries by keys, weights by values
    perceptron = 2 * (2 * tokens * width * hidden)
    layer = projections + attention + perceptron
    classifier = 2 * width * 5
    assert [cost.flops for cost in exit_costs(transformer)] == [
        patches + layer + classifier,
        patches + 2 * layer + classifier,
    ]


def test_the_tokens_travel_and_parameters_of_no_module_are_counted(transformer):
    first, last = exit_costs(transformer)
    assert first.state_bytes == 4 * 5 * 8
    assert last.state_bytes == 4 * 8, "the class token alone"
    layer = (3 * 8 * 8 + 3 * 8) + (8 * 8 + 8) + (8 * 16 + 16) + (16 * 8 + 8) + 2 * 16
    patches, token, positions = 3 * 16 * 8 + 8, 8, 5 * 8
    classifier = 8 * 5 + 5
    assert first.parameters == patches + token + positions + layer + classifier
    # And the norm after the last layer.
    assert last.parameters == patches + token + positions + 2 * layer + 16 + classifier


# --- counting changes nothing --------------------------------------------------------------------


@pytest.mark.parametrize("training", [True, False])
def test_counting_leaves_mode_weights_and_statistics_as_they_were(training):
    network = build_network(TINY_CONV, 0).train(training)
    before = state_of(network)
    exit_costs(network)
    assert {module.training for module in network.modules()} == {training}
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


def test_costs_do_not_depend_on_the_seed_or_the_mode():
    network = build_network(TINY_CONV, 0)
    expected = exit_costs(network.train())
    assert exit_costs(network.eval()) == expected == exit_costs(build_network(TINY_CONV, 1))


def test_parameters_are_listed_once_and_buffers_not_at_all():
    norm, free = nn.BatchNorm2d(3), nn.Parameter(torch.zeros(2))
    listed = parameters_of([norm, free, norm, norm.weight, norm.running_mean])
    assert [id(one) for one in listed] == [id(norm.weight), id(norm.bias), id(free)]
