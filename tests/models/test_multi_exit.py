"""A multi-exit network runs segment by segment, and says the same however it is run."""

import copy
from dataclasses import replace
from itertools import combinations

import pytest
import torch
from tiny_networks import TINY, TINY_CONV, changed, some_images, state_of
from torch import nn
from torch.nn import functional as F

from models.errors import NetworkError
from models.networks.architecture import BRANCHES, RESNET_BLOCKS, Architecture, default_exits
from models.networks.backbones import build_backbone
from models.networks.cifar_resnet import BasicBlock
from models.networks.multi_exit import MultiExitNetwork, build_network, parameters_of

NODES = ("relu", "layer1", "layer2")
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


def stepped(network, images):
    """Logits of every exit, taken one by one as a node would."""
    logits, state = [], network.start(images)
    for exit in range(1, network.exit_count + 1):
        state = network.run_segment(exit, state)
        logits.append(network.classify(exit, state))
    return logits


# --- three ways to run it ------------------------------------------------------------------------


@pytest.mark.parametrize("branch", BRANCHES)
@pytest.mark.parametrize("exits", SUBSETS, ids=lambda exits: "+".join(exits) or "none")
def test_stepped_at_once_or_to_one_exit_the_logits_are_the_same(exits, branch):
    network = settled(replace(TINY, exits=exits, branch=branch))
    images = some_images()
    with torch.inference_mode():
        at_once = network(images)
        by_steps = stepped(network, images)
        alone = [network.infer(images, exit) for exit in range(1, network.exit_count + 1)]
    assert len(at_once) == network.exit_count == len(exits) + 1
    for logits, by_step, by_exit in zip(at_once, by_steps, alone, strict=True):
        assert logits.shape == (5, 10)
        assert torch.equal(by_step, logits)
        assert torch.equal(by_exit, logits)


@pytest.mark.parametrize("branch", BRANCHES)
def test_logits_are_the_last_layer_on_the_features(branch):
    network = settled(replace(TINY, branch=branch))
    state = network.start(some_images())
    for exit in range(1, 4):
        state = network.run_segment(exit, state)
        features = network.features(exit, state)
        assert features.ndim == 2
        layer = network.branches[exit - 1][-1] if exit < 3 else network.backbone.linear
        logits = network.classify(exit, state)
        assert torch.equal(network.last_layer(exit, features), logits)
        assert torch.equal(F.linear(features, layer.weight, layer.bias), logits)


def test_the_state_at_an_exit_between_blocks_is_its_activation_alone():
    network = settled(TINY)
    state = network.start(some_images())
    shapes = []
    for exit in range(1, 4):
        state = network.run_segment(exit, state)
        shapes.append([tuple(value.shape) for value in state])
    # The last exit's state is what the backbone's own classifier takes: 64 pooled channels.
    assert shapes == [[(5, 16, 8, 8)], [(5, 16, 8, 8)], [(5, 64)]]


def test_a_state_can_be_kept_and_resumed_from_again():
    network, images = settled(TINY), some_images()
    at_first = network.run_segment(1, network.start(images))
    kept = at_first[0].clone()
    once = network.classify(3, network.run_segment(3, network.run_segment(2, at_first)))
    again = network.classify(3, network.run_segment(3, network.run_segment(2, at_first)))
    assert torch.equal(at_first[0], kept)
    assert torch.equal(once, again)


def test_exits_differ_from_each_other():
    first, second, last = settled(TINY)(some_images())
    assert not torch.allclose(first, second)
    assert not torch.allclose(second, last)


def test_inference_to_one_exit_computes_no_other_classifier_and_no_later_segment():
    network = settled(replace(TINY, exits=NODES))
    computed = []
    parts = {f"branch {number}": part[-1] for number, part in enumerate(network.branches, 1)}
    parts |= {"layer3": network.backbone.layer3[0].conv1, "last": network.backbone.linear}
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
def test_exits_unasked_exist_in_every_cifar_resnet(backbone):
    exits = default_exits(backbone)
    assert build_network(Architecture(backbone, exits, "linear", 3, (1, 8, 8)), 0).exit_count == 3


@pytest.mark.parametrize("backbone", RESNET_BLOCKS)
@pytest.mark.parametrize("branch", BRANCHES)
def test_every_cifar_resnet_takes_every_branch(backbone, branch):
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
        for module in build_backbone(
            Architecture(backbone, (), "linear", 10, (3, 32, 32))
        ).modules()
        if isinstance(module, nn.Conv2d | nn.Linear)
    ]
    assert f"resnet{len(layers)}" == backbone


@pytest.mark.parametrize("architecture", [TINY, TINY_CONV], ids=str)
def test_no_weight_appears_twice_in_the_state(architecture):
    network = build_network(architecture, 0)
    state = network.state_dict()
    places = [tensor.data_ptr() for tensor in state.values()]
    assert len(set(places)) == len(places)
    owners = [*network.backbone.state_dict().values(), *network.branches.state_dict().values()]
    assert sorted(tensor.data_ptr() for tensor in owners) == sorted(places)


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


# --- parameters and buffers of no module's own -------------------------------------------------

TRANSFORMERS = """
from torchvision.models import SwinTransformer, VisionTransformer


def vit(num_classes):
    return VisionTransformer(8, 4, 3, 2, 8, 16, num_classes=num_classes)


def swin(num_classes):
    return SwinTransformer([2, 2], 8, [2, 2], [2, 2], [2, 2], num_classes=num_classes)
"""

#: Exits of small transformers, one inside a block.
TRANSFORMER_EXITS = {
    "vit": ("encoder.layers.encoder_layer_0", "encoder.layers.encoder_layer_1.dropout"),
    "swin": ("features.1", "features.3.0.norm2"),
}


@pytest.fixture(params=TRANSFORMER_EXITS)
def transformer(request, tmp_path):
    """A network whose trace fetches parameters: a class token, or a table of positions."""
    (tmp_path / "small.py").write_text(TRANSFORMERS)
    architecture = Architecture(
        f"small.py:{request.param}",
        TRANSFORMER_EXITS[request.param],
        "linear",
        3,
        (3, 8, 8),
        folder=tmp_path,
    )
    network = build_network(architecture, 0).eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in network.parameters():
            # ViT's last layer says nothing before training.
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    return network


def test_a_deep_copy_of_a_transformer_stands_on_its_own(transformer):
    images = some_images(2, (3, 8, 8))
    expected = [logits.clone() for logits in transformer(images)]
    twin = copy.deepcopy(transformer)
    with torch.no_grad():
        for parameter in transformer.parameters():
            parameter.zero_()
    for logits, before in zip(stepped(twin, images), expected, strict=True):
        assert torch.equal(logits, before)
        assert logits.any()
    for name, parameter in twin.backbone.named_parameters():
        if name.endswith(("class_token", "relative_position_bias_table")):
            with torch.no_grad():
                parameter.add_(torch.randn(parameter.shape))
    for logits, before in zip(stepped(twin, images), expected, strict=True):
        assert not torch.equal(logits, before), "it uses its own"
    assert not any(logits.any() for logits in stepped(transformer, images))


def test_a_class_token_is_part_of_the_first_segment_alone(transformer):
    parameters = dict(transformer.backbone.named_parameters())
    owners = {
        name: [
            exit
            for exit in (1, 2, 3)
            if any(value is one for one in parameters_of(transformer.parts(exit)))
        ]
        for name, value in parameters.items()
    }
    assert all(len(exits) == 1 for exits in owners.values())
    tokens = [name for name in owners if name.endswith(("class_token", "bias_table"))]
    assert tokens
    assert owners[tokens[0]] == [1]


@pytest.mark.parametrize(
    "change", [{"dtype": torch.float64}, {"memory_format": torch.channels_last}]
)
def test_dtype_and_memory_format_may_change_after_tracing(transformer, change):
    images = some_images(2, (3, 8, 8)).to(**change)
    plain = [logits.clone() for logits in transformer(some_images(2, (3, 8, 8)))]
    transformer.to(**change)
    for logits, before in zip(stepped(transformer, images), plain, strict=True):
        assert logits.dtype == change.get("dtype", torch.float32)
        torch.testing.assert_close(logits.float(), before, rtol=1e-4, atol=1e-5)
    for logits, expected in zip(stepped(transformer, images), transformer(images), strict=True):
        assert torch.equal(logits, expected)


def test_nothing_stays_behind_on_another_device(transformer):
    transformer.to("meta")
    for logits in stepped(transformer, some_images(2, (3, 8, 8)).to("meta")):
        assert logits.device.type == "meta"
        assert logits.shape == (2, 3)


# --- where exits may sit -------------------------------------------------------------------------


@pytest.mark.parametrize("node", ["linear", "flatten"])
def test_an_exit_where_the_backbones_own_classifier_begins_is_refused(node):
    with pytest.raises(NetworkError, match=f"node '{node}' lies where .* is the last exit already"):
        build_network(replace(TINY, exits=("layer1", node)), 0)


@pytest.mark.parametrize(
    ("exits", "message"),
    [
        (("layer2", "layer1"), "from the earliest to the last"),
        (("layer1", "layer1"), "from the earliest to the last"),
        (("layer4",), "no node 'layer4'"),
        ((0.5, 0.50001), "no place of its own"),
        ((0.9999,), "no place of its own for an exit at 0.9999 of the FLOPs"),
    ],
    ids=str,
)
def test_exits_that_cannot_be_are_refused(exits, message):
    with pytest.raises(NetworkError, match=message):
        build_network(replace(TINY, exits=exits), 0)


@pytest.mark.parametrize(
    ("backbone", "node"),
    [
        ("vit_b_32", "class_token"),  # a parameter, the same for every image
        ("vit_b_32", "getattr"),  # a shape
        ("vit_b_32", "eq"),
        ("shufflenet_v2_x0_5", "stage2.1.chunk"),  # two tensors
    ],
)
def test_an_exit_on_anything_but_a_tensor_made_of_the_image_is_refused(backbone, node):
    with torch.device("meta"), pytest.raises(NetworkError, match=node):
        MultiExitNetwork(Architecture(backbone, (node,), "linear", 3, (3, 32, 32)))


def test_a_branch_takes_the_channels_of_feature_maps_wherever_they_lie():
    """Swin keeps (N, H, W, C) between its blocks: 96 channels of 8 x 8 pixels after the first."""
    architecture = Architecture("swin_t", ("features.1",), "linear", 3, (3, 32, 32))
    try:
        network = build_network(architecture, 0)
    except NetworkError:
        return  # better than a classifier of rows
    assert network.branches[0][-1].in_features == 96


#: Feature maps with as many channels as rows, of which one keeps its channels last.
CUBES = {
    "swin": ("cube.py:swin", "features.1", True),
    "resnet": ("resnet8", "relu", False),
    "of one size alone": ("cube.py:OneSize", "conv", False),
    "of one size alone, a sum": ("cube.py:OneSize", "add_1", False),
    "of one size alone, channels last": ("cube.py:OneSizeLast", "add", True),
    "of one size alone, a norm": ("cube.py:OneSizeLast", "norm", True),
    "of one size alone, by name": ("cube.py:OneSizeNamed", "permute", True),
}

CUBE_CODE = """
import torch
from torch import nn
from torchvision.models import SwinTransformer


def swin(num_classes):
    return SwinTransformer([1, 1], 16, [2, 2], [2, 2], [2, 2], num_classes=num_classes)


class OneSize(nn.Module):
    def __init__(self, num_classes):
        super().__init__()
        self.places = nn.Parameter(torch.rand(1, 3, 16, 16))
        self.conv = nn.Conv2d(3, 16, 3, padding=1)
        self.fc = nn.Linear(16, num_classes)

    def forward(self, x):
        return self.fc((self.conv(x + self.places) + 1).mean((2, 3)))


class OneSizeLast(nn.Module):
    def __init__(self, num_classes):
        super().__init__()
        self.patches = nn.Conv2d(3, 16, 1)
        self.places = nn.Parameter(torch.rand(1, 16, 16, 16))
        self.norm = nn.LayerNorm(16)
        self.fc = nn.Linear(16, num_classes)

    def forward(self, x):
        x = self.patches(x).permute(0, 2, 3, -3) + self.places
        return self.fc(self.norm(x).mean((1, 2)))


class OneSizeNamed(OneSizeLast):
    def forward(self, x):
        x = torch.permute(self.patches(x), dims=(0, 2, 3, 1))
        return self.fc(self.norm(x + self.places).mean((1, 2)))
"""


@pytest.mark.parametrize(("backbone", "exit", "last"), CUBES.values(), ids=CUBES)
def test_so_it_does_where_there_are_as_many_channels_as_rows(backbone, exit, last, tmp_path):
    (tmp_path / "cube.py").write_text(CUBE_CODE)
    architecture = Architecture(backbone, (exit,), "linear", 3, (3, 16, 16), folder=tmp_path)
    network = build_network(architecture, 0).eval()
    images = some_images(2, (3, 16, 16))
    with torch.inference_mode():
        state = network.run_segment(1, network.start(images))
        assert state[0].shape == (2, 16, 16, 16)
        features = network.features(1, state)
    torch.testing.assert_close(features, state[0].mean(dim=(1, 2) if last else (2, 3)))


@pytest.mark.parametrize(
    "backbone",
    ["shufflenet_v2_x0_5", "squeezenet1_1", "densenet121", "vit_b_32", "swin_t", "convnext_tiny"],
)
def test_exits_unasked_can_be_placed_in_torchvisions_networks(backbone):
    architecture = Architecture(backbone, default_exits(backbone), "linear", 3, (3, 64, 64))
    with torch.device("meta"):
        network = MultiExitNetwork(architecture)
        logits = network(torch.zeros(2, 3, 64, 64))
    assert [tuple(one.shape) for one in logits] == [(2, 3)] * 3


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


# --- blocks --------------------------------------------------------------------------------------


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


# --- parts ---------------------------------------------------------------------------------------


def of(parts):
    """Identities of the weights and buffers in ``parts``."""
    return {id(tensor) for part in parts for tensor in part.state_dict(keep_vars=True).values()}


@pytest.mark.parametrize("exits", SUBSETS, ids=lambda exits: "+".join(exits) or "none")
def test_every_weight_belongs_to_one_segment_or_to_one_classifier(exits):
    network = build_network(replace(TINY_CONV, exits=exits), 0)
    exit_count = network.exit_count
    segments = [of(network.parts(exit)) for exit in range(1, exit_count + 1)]
    classifiers = [of(network.classifier(exit)) for exit in range(1, exit_count + 1)]
    # The backbone's own classifier goes with the last segment.
    assert classifiers[-1] == of([network.backbone.linear])
    assert classifiers[-1] <= segments[-1]
    shares = [*segments, *classifiers[:-1]]
    assert sum(map(len, shares)) == len(set().union(*shares))
    assert set().union(*shares) == of([network])
    assert set().union(*segments) == of([network.backbone])


def test_parts_are_what_lies_between_two_exits():
    network = build_network(replace(TINY, exits=NODES), 0)
    backbone = network.backbone
    assert of(network.parts(1)) == of([backbone.conv1, backbone.bn1])
    assert of(network.parts(2)) == of([backbone.layer1])
    assert of(network.parts(3)) == of([backbone.layer2])
    assert of(network.parts(4)) == of([backbone.layer3, backbone.linear])
    assert of(network.classifier(2)) == of([network.branches[1]])


# --- images --------------------------------------------------------------------------------------


def test_images_of_the_wrong_channels_are_refused():
    with pytest.raises(RuntimeError, match="channels"):
        MultiExitNetwork(TINY).eval()(some_images(1, (3, 8, 8)))


def test_images_are_resized_before_the_network():
    network = build_network(replace(TINY, resize=16), 0).eval()
    plain = build_network(replace(TINY, input_shape=(1, 16, 16)), 0).eval()
    images = some_images(2)
    larger = F.interpolate(images, (16, 16), mode="bilinear", align_corners=False)
    (resized,) = network.start(images)
    assert torch.equal(resized, larger)
    for logits, expected in zip(network(images), plain(larger), strict=True):
        assert torch.equal(logits, expected)


def test_images_too_small_for_the_backbone_are_refused_with_their_size():
    with pytest.raises(NetworkError, match=r"alexnet does not run on 3x16x16 images: "):
        build_network(Architecture("alexnet", ("features.2",), "linear", 3, (3, 16, 16)), 0)
