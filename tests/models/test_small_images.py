"""torchvision's networks for small images: the sizes their papers state, on images of any size."""

import pytest
import torch
from torch import fx, nn
from torch.utils.flop_counter import FlopCounterMode
from torchvision import models as torchvision_models
from torchvision.models.feature_extraction import create_feature_extractor

from models.networks.small_images import SMALL_IMAGE_NETWORKS, cifar_vgg11_bn
from models.networks.tracing import trace

NAMES = sorted(SMALL_IMAGE_NETWORKS)

#: Exact number of parameters on 3x32x32 images of 10 classes, and a published one in millions.
#: Huang et al. (2017), table 2, give DenseNet-BC (100, 12) 0.8; Chen's pytorch-cifar-models gives
#: MobileNetV2 2.24, DA2Lite VGG-16 and the ResNets.
PARAMETERS = {
    "densenet_bc_100_12": (769_162, 0.77),
    "densenet_bc_40_12": (176_122, 0.18),
    "cifar_mobilenet_v2": (2_236_682, 2.24),
    "cifar_vgg11_bn": (9_231_114, 9.23),
    "cifar_vgg16_bn": (14_728_266, 14.73),
    "cifar_resnet18": (11_173_962, 11.17),
    "cifar_resnet34": (21_282_122, 21.28),
}

#: Millions of multiply-accumulates on 3x32x32 images of 10 classes as published, and by which
#: share they may differ. pytorchcv's for DenseNet contain batch norm and ReLU; Chen's
#: pytorch-cifar-models counts MobileNetV2; DA2Lite rounds the others to 10 million.
MULTIPLY_ACCUMULATES = {
    "densenet_bc_100_12": (298.45, 0.04),
    "cifar_mobilenet_v2": (87.98, 0.0001),
    "cifar_vgg16_bn": (310, 0.016),
    "cifar_resnet18": (560, 0.009),
    "cifar_resnet34": (1160, 0.004),
}

#: Height and width of the coarsest feature maps of a 32x32 image, and the node that makes them.
COARSEST = {
    "densenet_bc_100_12": ("features", 8),
    "densenet_bc_40_12": ("features", 8),
    "cifar_mobilenet_v2": ("features", 4),
    "cifar_mobilenet_v3_small": ("features", 4),
    "cifar_mobilenet_v3_large": ("features", 4),
    "cifar_vgg11_bn": ("features", 1),
    "cifar_vgg16_bn": ("features", 1),
    "cifar_resnet18": ("layer4", 4),
    "cifar_resnet34": ("layer4", 4),
}

#: Layers with weights on the longest path, which the networks are named after.
DEPTHS = {
    "densenet_bc_100_12": 100,
    "densenet_bc_40_12": 40,
    "cifar_vgg11_bn": 11 - 2,  # one linear layer in the place of three
    "cifar_vgg16_bn": 16 - 2,
    "cifar_resnet18": 18,
    "cifar_resnet34": 34,
}


def build(name, classes=10, channels=3, seed=0):
    torch.manual_seed(seed)
    return SMALL_IMAGE_NETWORKS[name](classes, channels)


def on_paper(name, classes=10, channels=3):
    """The network without the numbers in it: fast to build, and enough to count with."""
    with torch.device("meta"):
        return SMALL_IMAGE_NETWORKS[name](classes, channels).eval()


def parameters(network):
    return sum(parameter.numel() for parameter in network.parameters())


def noise(count, channels, size):
    return torch.randn(count, channels, size, size, generator=torch.Generator().manual_seed(1))


# --- what they compute ---------------------------------------------------------------------------


@pytest.mark.parametrize(("channels", "size"), [(3, 32), (1, 28), (1, 8)])
@pytest.mark.parametrize("name", NAMES)
def test_images_of_any_small_size_become_logits(name, channels, size):
    network = build(name, 7, channels)
    logits = network.eval()(noise(2, channels, size))
    assert logits.shape == (2, 7)
    assert torch.isfinite(logits).all()
    assert not torch.equal(logits[0], logits[1])


@pytest.mark.parametrize("name", NAMES)
def test_training_reaches_every_parameter(name):
    network = build(name, channels=1).train()
    nn.functional.cross_entropy(network(noise(4, 1, 8)), torch.arange(4)).backward()
    assert [key for key, one in network.named_parameters() if one.grad is None] == []


@pytest.mark.parametrize("name", NAMES)
def test_a_trace_says_the_same(name):
    network = build(name).eval()
    images = noise(2, 3, 16)
    with torch.no_grad():
        expected = network(images)
        traced = trace(network)
        assert torch.equal(fx.GraphModule(network, traced.graph)(images), expected)


@pytest.mark.parametrize(("name", "node", "size"), [(key, *COARSEST[key]) for key in NAMES])
def test_small_images_keep_their_resolution(name, node, size):
    extractor = create_feature_extractor(build(name), {node: "coarsest"}).eval()
    assert extractor(noise(1, 3, 32))["coarsest"].shape[2:] == (size, size)


def test_rounding_up_in_vgg_changes_nothing_at_32_pixels():
    torch.manual_seed(0)
    network = cifar_vgg11_bn(10, 3).eval()
    before = network(noise(2, 3, 32))
    for part in network.modules():
        if isinstance(part, nn.MaxPool2d):
            part.ceil_mode = False
    assert torch.equal(network(noise(2, 3, 32)), before)


def test_the_first_block_of_mobilenet_v3_small_passes_its_input_on():
    # ImageNet's halves the resolution there and cannot.
    block = build("cifar_mobilenet_v3_small").eval().features[1]
    x = noise(1, 16, 8)
    assert torch.allclose(block(x), block.block(x) + x)


# --- how large they are --------------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(PARAMETERS))
def test_parameters_are_those_published(name):
    exact, millions = PARAMETERS[name]
    count = parameters(on_paper(name))
    assert count == exact
    assert count / 1e6 == pytest.approx(millions, abs=0.005)


@pytest.mark.parametrize("name", ["mobilenet_v2", "mobilenet_v3_small", "mobilenet_v3_large"])
def test_other_strides_leave_the_weights_of_mobilenets_as_they_are(name):
    published = torchvision_models.get_model_weights(name).DEFAULT.meta["num_params"]
    assert parameters(on_paper(f"cifar_{name}", classes=1000)) == published


@pytest.mark.parametrize("name", sorted(DEPTHS))
def test_depth_is_the_one_in_the_name(name):
    layers = [
        key
        for key, part in on_paper(name).named_modules()
        if isinstance(part, nn.Conv2d | nn.Linear) and "downsample" not in key
    ]
    assert len(layers) == DEPTHS[name]


@pytest.mark.parametrize("name", sorted(MULTIPLY_ACCUMULATES))
def test_multiply_accumulates_are_those_published(name):
    millions, tolerance = MULTIPLY_ACCUMULATES[name]
    network = on_paper(name)
    counter = FlopCounterMode(display=False)
    with torch.no_grad(), counter:
        network(torch.zeros(1, 3, 32, 32, device="meta"))
    # The counter takes a multiply-accumulate for two.
    assert counter.get_total_flops() / 2e6 == pytest.approx(millions, rel=tolerance)


# --- the weights they start from -----------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_weights_come_from_the_global_generator(name):
    first, again, other = build(name), build(name), build(name, seed=1)
    for key, parameter in first.named_parameters():
        assert torch.equal(parameter, again.get_parameter(key))
    stem = next(first.parameters())
    assert not torch.equal(stem, next(other.parameters()))


@pytest.mark.parametrize("name", NAMES)
def test_the_new_stem_starts_like_the_convolutions_it_stands_beside(name):
    stem = next(part for part in build(name).modules() if isinstance(part, nn.Conv2d))
    fan = 9 * (stem.in_channels if "densenet" in name else stem.out_channels)
    assert stem.weight.std().item() == pytest.approx((2 / fan) ** 0.5, rel=0.1)


def test_vgg_starts_as_torchvisions_does():
    network = build("cifar_vgg11_bn")
    for part in network.features:
        if isinstance(part, nn.Conv2d):
            expected = (2 / (9 * part.out_channels)) ** 0.5
            assert part.weight.std().item() == pytest.approx(expected, rel=0.1)
            assert not part.bias.any()
    assert network.classifier.weight.std().item() == pytest.approx(0.01, rel=0.1)
    assert not network.classifier.bias.any()
