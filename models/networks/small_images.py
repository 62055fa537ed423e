"""torchvision's networks made to fit small images: 32x32 colour, 28x28 grey and smaller.

Most networks for ImageNet halve an image twice before their first stage, which would leave little
of 32x32. Here the stem is a 3x3 convolution of stride 1 and those two halvings are left out, so
that the coarsest feature maps of a 32x32 image are 4x4 (8x8 in DenseNet, which has three stages;
VGG halves between its stages only, and ends at 1x1). All else is torchvision's: blocks, batch norm
(slow running statistics in MobileNetV3, momentum 0.01), dropout and initial weights.

Every builder takes the number of classes and the channels of an image, and returns a network with
fresh weights from torch's global generator that maps (N, in_channels, H, W) to (N, classes).
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from functools import partial
from typing import Any

from torch import nn
from torchvision.models import (
    DenseNet,
    mobilenet_v2,
    mobilenet_v3_large,
    mobilenet_v3_small,
    resnet18,
    resnet34,
)
from torchvision.models.mobilenetv2 import InvertedResidual as V2Block
from torchvision.models.mobilenetv3 import InvertedResidual as V3Block
from torchvision.models.mobilenetv3 import InvertedResidualConfig
from torchvision.models.vgg import cfgs as vgg_layers
from torchvision.models.vgg import make_layers as make_vgg_layers


def densenet_bc_100_12(classes: int, in_channels: int) -> nn.Module:
    """DenseNet-BC of depth 100 and growth rate 12 (Huang et al. 2017, section 4, table 2)."""
    return _densenet_bc(100, 12, classes, in_channels)


def densenet_bc_40_12(classes: int, in_channels: int) -> nn.Module:
    """DenseNet-BC of depth 40 and growth rate 12, after Huang et al. (2017), section 3."""
    return _densenet_bc(40, 12, classes, in_channels)


def cifar_mobilenet_v2(classes: int, in_channels: int) -> nn.Module:
    """MobileNetV2 (Sandler et al. 2018, table 2).

    The stem and the first block of 24 channels keep the resolution, as in Liu's pytorch-cifar
    (github.com/kuangliu/pytorch-cifar).
    """
    network: nn.Module = mobilenet_v2(num_classes=classes, block=_v2_block)
    _fit_stem(network, "features.0.0", in_channels)
    return network


def cifar_mobilenet_v3_small(classes: int, in_channels: int) -> nn.Module:
    """MobileNetV3-Small (Howard et al. 2019, table 2).

    The stem and the first block, of 16 channels, keep the resolution: the two halvings that
    ``cifar_mobilenet_v2`` leaves out.
    """
    network: nn.Module = mobilenet_v3_small(
        num_classes=classes, block=partial(_v3_block, full_resolution=16)
    )
    _fit_stem(network, "features.0.0", in_channels)
    return network


def cifar_mobilenet_v3_large(classes: int, in_channels: int) -> nn.Module:
    """MobileNetV3-Large (Howard et al. 2019, table 1).

    The stem and the first block of 24 channels keep the resolution: the two halvings that
    ``cifar_mobilenet_v2`` leaves out.
    """
    network: nn.Module = mobilenet_v3_large(
        num_classes=classes, block=partial(_v3_block, full_resolution=24)
    )
    _fit_stem(network, "features.0.0", in_channels)
    return network


def cifar_vgg11_bn(classes: int, in_channels: int) -> nn.Module:
    """VGG-11 (Simonyan & Zisserman 2015, table 1, A) with batch norm and one linear layer."""
    return _vgg_bn("A", classes, in_channels)


def cifar_vgg16_bn(classes: int, in_channels: int) -> nn.Module:
    """VGG-16 (Simonyan & Zisserman 2015, table 1, D) with batch norm and one linear layer."""
    return _vgg_bn("D", classes, in_channels)


def cifar_resnet18(classes: int, in_channels: int) -> nn.Module:
    """ResNet-18 (He et al. 2016, table 1), stem 3x3 of stride 1, no max-pooling."""
    return _resnet(resnet18, classes, in_channels)


def cifar_resnet34(classes: int, in_channels: int) -> nn.Module:
    """ResNet-34 (He et al. 2016, table 1), stem 3x3 of stride 1, no max-pooling."""
    return _resnet(resnet34, classes, in_channels)


#: Builders ``(classes, in_channels)`` by name.
SMALL_IMAGE_NETWORKS: dict[str, Callable[[int, int], nn.Module]] = {
    builder.__name__: builder
    for builder in (
        densenet_bc_100_12,
        densenet_bc_40_12,
        cifar_mobilenet_v2,
        cifar_mobilenet_v3_small,
        cifar_mobilenet_v3_large,
        cifar_vgg11_bn,
        cifar_vgg16_bn,
        cifar_resnet18,
        cifar_resnet34,
    )
}


def _densenet_bc(depth: int, growth_rate: int, classes: int, in_channels: int) -> nn.Module:
    """Three dense blocks after one 3x3 convolution of 2 k channels (section 3)."""
    # Two convolutions a layer; the stem, two transitions and the linear layer are not in blocks.
    layers = (depth - 4) // 6
    network: Any = DenseNet(growth_rate, (layers,) * 3, 2 * growth_rate, num_classes=classes)
    # The first dense layer begins with a batch norm and a ReLU of its own.
    for part in ("norm0", "relu0", "pool0"):
        delattr(network.features, part)
    _fit_stem(network, "features.conv0", in_channels, mode="fan_in")
    made: nn.Module = network
    return made


def _vgg_bn(layers: str, classes: int, in_channels: int) -> nn.Module:
    # torchvision's VGG would make 120 million weights of a classifier only to drop them.
    features: nn.Sequential = make_vgg_layers(vgg_layers[layers], batch_norm=True)
    for part in features:
        if isinstance(part, nn.MaxPool2d):
            # The same at 32x32; smaller images do not run out of pixels.
            part.ceil_mode = True
        elif isinstance(part, nn.Conv2d):
            _initialise(part)
    classifier = nn.Linear(512, classes)
    nn.init.normal_(classifier.weight, std=0.01)
    nn.init.zeros_(classifier.bias)
    network = nn.Sequential(
        OrderedDict(
            features=features,
            avgpool=nn.AdaptiveAvgPool2d(1),
            flatten=nn.Flatten(),
            classifier=classifier,
        )
    )
    _fit_stem(network, "features.0", in_channels)
    return network


def _resnet(build: Callable[..., nn.Module], classes: int, in_channels: int) -> nn.Module:
    network = build(num_classes=classes)
    _fit_stem(network, "conv1", in_channels)
    network.maxpool = nn.Identity()
    return network


def _v2_block(in_channels: int, out_channels: int, stride: int, **arguments: Any) -> nn.Module:
    """A block of MobileNetV2; those of 24 channels keep the resolution."""
    made: nn.Module = V2Block(
        in_channels, out_channels, 1 if out_channels == 24 else stride, **arguments
    )
    return made


def _v3_block(
    config: InvertedResidualConfig, norm_layer: Callable[..., nn.Module], full_resolution: int
) -> nn.Module:
    """A block of MobileNetV3; those of ``full_resolution`` channels keep the resolution."""
    if config.out_channels == full_resolution:
        config.stride = 1
    made: nn.Module = V3Block(config, norm_layer)
    return made


def _fit_stem(network: nn.Module, name: str, in_channels: int, mode: str = "fan_out") -> None:
    """Replace the first convolution by one of 3x3 and stride 1 that takes ``in_channels``."""
    old: Any = network.get_submodule(name)
    new = nn.Conv2d(in_channels, old.out_channels, 3, padding=1, bias=old.bias is not None)
    _initialise(new, mode)
    network.set_submodule(name, new)


def _initialise(convolution: nn.Conv2d, mode: str = "fan_out") -> None:
    """He initialisation, as in all of torchvision's networks here."""
    nn.init.kaiming_normal_(convolution.weight, mode=mode, nonlinearity="relu")  # type: ignore[arg-type]
    if convolution.bias is not None:
        nn.init.zeros_(convolution.bias)
