"""A multi-exit network runs segment by segment, and says the same however it is run."""

import copy
from dataclasses import replace
from itertools import combinations

import pytest
import torch
from tiny_networks import TINY, TINY_CONV, changed, some_images, state_of
from torch import nn

from models.architecture import BRANCHES, RESNET_BLOCKS, Architecture, backbone_nodes
from models.backbones import BasicBlock, build_backbone, node_channels
from models.branches import conv_branch, linear_branch
from models.multi_exit import MultiExitNetwork, build_network

NODES = backbone_nodes("resnet8")
SUBSETS = [exits for size in range(len(NODES) + 1) for exits in combinations(NODES, size)]

#: Parameters on 3 x 32 x 32 images of 10 classes. He et al. (2016), table 6, round them to
#: 0.27, 0.46, 0.66 and 0.85 million; each n more adds two blocks' weights in each of three stages.
PARAMETERS = {
    "resnet8": 75_290,
    "resnet20": 269_722,
    "resnet32": 464_154,
    "resnet44": 658_586,
    "resnet56": 853_018,
}


def settled(architecture, seed=0):
    """A network in inference mode whose batch-norm statistics are not those it was born with."""
    network = build_network(architecture, seed).train()
    with torch.no_grad():
        for batch in range(3):
            network(some_images(8, architecture.input_shape, seed=100 + batch) + 0.5)
    return network.eval()


# --- three ways to run it ------------------------------------------------------------------------


@pytest.mark.parametrize("branch", BRANCHES)
@pytest.mark.parametrize("exits", SUBSETS, ids=lambda exits: "+".join(exits) or "none")
def test_stepped_at_once_or_to_one_exit_the_logits_are_the_same(exits, branch):
    network = settled(replace(TINY, exits=exits, branch=branch))
    images = some_images()
    with torch.inference_mode():
        at_once = network(images)
        stepped, activation = [], images
        for exit in range(1, network.exit_count + 1):
            activation = network.run_segment(exit, activation)
            stepped.append(network.classify(exit, activation))
        alone = [network.infer(images, exit) for exit in range(1, network.exit_count + 1)]
    assert len(at_once) == network.exit_count == len(exits) + 1
    for logits, by_step, by_exit in zip(at_once, stepped, alone, strict=True):
        assert logits.shape == (5, 10)
        assert torch.equal(by_step, logits)
        assert torch.equal(by_exit, logits)


def test_exits_differ_from_each_other():
    first, second, last = settled(TINY)(some_images())
    assert not torch.allclose(first, second)
    assert not torch.allclose(second, last)


def test_inference_to_one_exit_computes_no_other_classifier_and_no_later_segment():
    network = settled(replace(TINY, exits=NODES))
    computed = []
    classifiers = {f"branch {number}": part for number, part in enumerate(network.branches, 1)}
    parts = classifiers | {"layer3": network.backbone.layer3, "last": network.backbone.linear}
    for name, part in parts.items():
        part.register_forward_hook(lambda module, given, made, name=name: computed.append(name))
    network.infer(some_images(), 2)
    assert computed == ["branch 2"]
    computed.clear()
    network.infer(some_images(), 4)
    assert computed == ["layer3", "last"]


@pytest.mark.parametrize("exits", SUBSETS, ids=lambda exits: "+".join(exits) or "none")
def test_the_backbone_alone_is_the_last_exit(exits):
    network = settled(replace(TINY_CONV, exits=exits))
    images = some_images()
    with torch.inference_mode():
        assert torch.equal(network.backbone(images), network(images)[-1])


@pytest.mark.parametrize("backbone", RESNET_BLOCKS)
@pytest.mark.parametrize("branch", BRANCHES)
def test_every_backbone_takes_every_branch(backbone, branch):
    network = build_network(Architecture(backbone, NODES, branch, 7, (2, 8, 8)), 0).eval()
    with torch.inference_mode():
        logits = network(some_images(3, (2, 8, 8)))
    assert network.exit_count == 4
    assert [exit.shape for exit in logits] == [(3, 7)] * 4


# --- weights -------------------------------------------------------------------------------------


@pytest.mark.parametrize("backbone", RESNET_BLOCKS)
def test_parameters_are_those_of_he_et_al(backbone):
    network = build_network(Architecture(backbone, (), "linear", 10, (3, 32, 32)), 0)
    assert sum(parameter.numel() for parameter in network.parameters()) == PARAMETERS[backbone]


@pytest.mark.parametrize("backbone", RESNET_BLOCKS)
def test_weighted_layers_are_as_many_as_the_name_says(backbone):
    layers = [
        module
        for module in build_backbone(backbone, 10, 3).modules()
        if isinstance(module, nn.Conv2d | nn.Linear)
    ]
    assert f"resnet{len(layers)}" == backbone


@pytest.mark.parametrize("architecture", [TINY, TINY_CONV], ids=str)
def test_no_weight_appears_twice_in_the_state(architecture):
    network = build_network(architecture, 0)
    state = network.state_dict()
    places = [tensor.data_ptr() for tensor in state.values()]
    assert len(set(places)) == len(places)
    parts = [*network.backbone.state_dict().values(), *network.branches.state_dict().values()]
    assert sorted(tensor.data_ptr() for tensor in parts) == sorted(places)


def test_loaded_weights_reach_every_segment_and_classifier():
    network, other = settled(TINY_CONV, seed=0), settled(TINY_CONV, seed=1)
    images = some_images()
    before = network(images)
    network.load_state_dict(other.state_dict())
    for logits, old, expected in zip(network(images), before, other(images), strict=True):
        assert torch.equal(logits, expected)
        assert not torch.equal(logits, old)


def test_a_deep_copy_stands_on_its_own():
    network = settled(TINY_CONV)
    images = some_images()
    expected = [logits.clone() for logits in network(images)]
    twin = copy.deepcopy(network)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.zero_()
    for logits, before in zip(twin(images), expected, strict=True):
        assert torch.equal(logits, before)


# --- seeds ---------------------------------------------------------------------------------------


def test_one_seed_gives_one_network_whatever_was_drawn_before():
    torch.manual_seed(1)
    first = state_of(build_network(TINY_CONV, 5))
    torch.manual_seed(2)
    torch.rand(7)
    assert not changed(first, state_of(build_network(TINY_CONV, 5)))


def test_another_seed_gives_other_weights_everywhere():
    differing = changed(state_of(build_network(TINY, 5)), state_of(build_network(TINY, 6)))
    drawn = {
        name
        for name, module in build_network(TINY, 5).named_modules()
        if isinstance(module, nn.Conv2d | nn.Linear)
    }
    assert {name.rpartition(".")[0] for name in differing} == drawn


def test_building_leaves_the_global_generator_alone():
    torch.manual_seed(3)
    before = torch.random.get_rng_state()
    build_network(TINY, 5)
    assert torch.equal(torch.random.get_rng_state(), before)


# --- parts ---------------------------------------------------------------------------------------


def test_a_linear_branch_is_a_mean_over_the_image_and_one_linear_layer():
    branch = linear_branch(4, 3)
    (linear,) = [module for module in branch.modules() if isinstance(module, nn.Linear)]
    activation = some_images(6, (4, 5, 5))
    by_hand = activation.mean(dim=(2, 3)) @ linear.weight.T + linear.bias
    torch.testing.assert_close(branch(activation), by_hand)
    assert sum(parameter.numel() for parameter in branch.parameters()) == 4 * 3 + 3


def test_a_conv_branch_doubles_the_channels_first():
    branch = conv_branch(4, 3).eval()
    convolution, norm = branch[0], branch[1]
    activation = some_images(6, (4, 5, 5))
    wide = nn.functional.conv2d(activation, convolution.weight, padding=1)
    wide = (wide / torch.sqrt(torch.tensor(1 + norm.eps))).relu()
    assert wide.shape == (6, 8, 5, 5)
    torch.testing.assert_close(branch(activation), branch[3](wide))
    assert sum(parameter.numel() for parameter in branch.parameters()) == (
        3 * 3 * 4 * 8 + 2 * 8 + 8 * 3 + 3
    )


def test_where_the_shape_changes_the_shortcut_subsamples_and_pads_channels_with_zeros():
    block = BasicBlock(16, 32, stride=2).eval()
    with torch.no_grad():
        block.conv2.weight.zero_()
    x = some_images(2, (16, 8, 8))
    out = block(x)
    assert torch.equal(out[:, 8:24], x[:, :, ::2, ::2].relu())
    assert out.shape == (2, 32, 4, 4)
    assert not out[:, :8].any()
    assert not out[:, 24:].any()


def test_where_the_shape_stays_the_shortcut_is_the_identity():
    block = BasicBlock(16, 16, stride=1).eval()
    with torch.no_grad():
        block.conv2.weight.zero_()
    x = some_images(2, (16, 8, 8))
    assert torch.equal(block(x), x.relu())


def test_channels_are_known_at_every_node_and_finding_them_changes_nothing():
    backbone = build_backbone("resnet8", 10, 1).train()
    before = state_of(backbone)
    assert node_channels(backbone, (1, 8, 8)) == {
        "stem": 16,
        "layer1": 16,
        "layer2": 32,
        "layer3": 64,
    }
    assert not changed(before, state_of(backbone))
    assert backbone.training


def test_images_of_the_wrong_channels_are_refused():
    with pytest.raises(RuntimeError, match="channels"):
        MultiExitNetwork(TINY).eval()(some_images(1, (3, 8, 8)))
