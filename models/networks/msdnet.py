"""Multi-scale dense networks, MSDNet (Huang et al. 2018, ICLR).

A network made for early exits: every layer keeps feature maps at several scales, each scale is
densely connected along the depth, and classifiers sit on the coarsest scale. Section and appendix
numbers are the paper's; what it leaves open follows the authors' code, github.com/gaohuang/MSDNet.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor, nn
from torchvision.ops import Conv2dNormActivation

from models.networks.architecture import MSDNET_LAYERS

#: Channels of the convolutions in a classifier (appendix A).
_CLASSIFIER_CHANNELS = 128


def msdnet_classifier(channels: int, classes: int) -> nn.Sequential:
    """The paper's classifier (appendix A); (N, channels, H, W) -> (N, classes).

    Two 3x3 convolutions of stride 2 and 128 channels with batch norm and ReLU, average pooling and
    a linear layer. The pooling is global, which on 32x32 images is the paper's 2x2.
    """
    return nn.Sequential(
        _convolution(channels, _CLASSIFIER_CHANNELS, 3, stride=2),
        _convolution(_CLASSIFIER_CHANNELS, _CLASSIFIER_CHANNELS, 3, stride=2),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(_CLASSIFIER_CHANNELS, classes),
    )


class MSDNet(nn.Module):
    """An MSDNet with its last classifier; the defaults are the paper's for CIFAR.

    The last operation inside ``blocks.<i>`` yields the coarsest feature maps, so an exit attached
    there sits where the paper has its classifiers. The depth is cut into as many parts as there are
    scales, S; part i computes only the coarsest S - i + 1 of them, and its first layer is followed
    by a transition: the network reduction of section 4.

    Args:
        layers: number of layers in each block.
        classes: number of classes.
        in_channels: channels of the input image.
        growth_rate: channels that a layer adds at the finest scale. At the others, one half is
            made from the scale itself and one from the next finer.
        growth_factors: multiples of the growth rate and of the initial channels, finest scale
            first. Their number is the number of scales.
        bottleneck_factors: width of the 1x1 convolution before a 3x3 one, in output channels of
            the latter, by the scale it reads from.
        initial_channels: channels of the first layer at the finest scale.
        reduction: share of the channels that a transition keeps where a scale is dropped.

    Raises:
        ValueError: a block has no layer, there is not one factor of each kind for each scale, or
            two scales cannot share a growth rate evenly.
    """

    def __init__(
        self,
        layers: Sequence[int],
        classes: int,
        in_channels: int = 3,
        *,
        growth_rate: int = 6,
        growth_factors: Sequence[int] = (1, 2, 4),
        bottleneck_factors: Sequence[int] = (1, 2, 4),
        initial_channels: int = 16,
        reduction: float = 0.5,
    ) -> None:
        super().__init__()
        if not layers or min(layers) < 1:
            raise ValueError(f"every block needs a layer, not {tuple(layers)}")
        if len(growth_factors) != len(bottleneck_factors):
            raise ValueError("there must be one growth and one bottleneck factor for each scale")
        if any(growth_rate * factor % 2 for factor in growth_factors[1:]):
            raise ValueError("the growth rate of every scale but the finest must be even")
        scales = len(growth_factors)
        layers_per_drop = math.ceil(sum(layers) / scales)
        # The channels of every scale stay in the proportion of the growth factors.
        width = initial_channels
        finest = number = 0
        blocks = []
        for count in layers:
            parts: list[nn.Module] = []
            if number == 0:
                parts.append(
                    _FirstLayer(in_channels, [width * factor for factor in growth_factors])
                )
            for _ in range(count):
                kept = number // layers_per_drop
                parts.append(
                    _Layer(width, growth_rate, growth_factors, bottleneck_factors, finest, kept)
                )
                width += growth_rate
                if kept > finest:
                    reduced = math.floor(reduction * width)
                    parts.append(_Transition(width, reduced, growth_factors[kept:]))
                    width = reduced
                finest = kept
                number += 1
            blocks.append(nn.Sequential(*parts))
        self.blocks = nn.ModuleList(blocks)
        self.classifier = msdnet_classifier(width * growth_factors[-1], classes)

    def forward(self, x: Tensor) -> Tensor:
        """(N, in_channels, H, W) images -> (N, classes) logits of the last classifier."""
        features = x
        for block in self.blocks:
            features = block(features)
        logits: Tensor = self.classifier(features[-1])
        return logits


#: Builders ``(classes, in_channels)`` of the paper's networks for CIFAR.
MSDNETS: dict[str, Callable[[int, int], MSDNet]] = {
    name: partial(MSDNet, layers) for name, layers in MSDNET_LAYERS.items()
}


class _FirstLayer(nn.Module):
    """Image -> feature maps of every scale, each half the size of the one before."""

    def __init__(self, in_channels: int, channels: Sequence[int]) -> None:
        super().__init__()
        self.scales = nn.ModuleList(
            _convolution(before, after, 3, stride=1 if scale == 0 else 2)
            for scale, (before, after) in enumerate(
                zip([in_channels, *channels], channels, strict=False)
            )
        )

    def forward(self, x: Tensor) -> list[Tensor]:
        """(N, in_channels, H, W) -> [(N, channels[s], H / 2^s, W / 2^s) for each scale s]."""
        features = []
        for scale in self.scales:
            x = scale(x)
            features.append(x)
        return features


class _Layer(nn.Module):
    """One layer across the scales (section 4, figure 2).

    Args:
        width: channels of each incoming scale, divided by its growth factor.
        finest, kept: the finest scale that comes in, and that goes out.
    """

    def __init__(
        self,
        width: int,
        growth_rate: int,
        growth_factors: Sequence[int],
        bottleneck_factors: Sequence[int],
        finest: int,
        kept: int,
    ) -> None:
        super().__init__()
        self.dropped = kept - finest
        self.scales = nn.ModuleList()
        for scale in range(kept, len(growth_factors)):
            growth = growth_rate * growth_factors[scale]
            sources = [scale - 1, scale] if scale > finest else [scale]
            transforms = [
                _transform(
                    width * growth_factors[source],
                    growth // len(sources),
                    bottleneck_factors[source],
                    stride=1 if source == scale else 2,
                )
                for source in sources
            ]
            self.scales.append(_DenseScale(transforms))

    def forward(self, features: list[Tensor]) -> list[Tensor]:
        """Feature maps of each incoming scale, finest first -> those of each scale kept."""
        # Finest first, so that the coarsest is the last operation of a block.
        return [
            scale(features[max(index - 1, 0) : index + 1])
            for index, scale in enumerate(self.scales, start=self.dropped)
        ]


class _DenseScale(nn.Module):
    """Joins a scale's feature maps with new ones made of them and of the next finer scale."""

    def __init__(self, transforms: Sequence[nn.Module]) -> None:
        super().__init__()
        self.transforms = nn.ModuleList(transforms)

    def forward(self, sources: list[Tensor]) -> Tensor:
        """Feature maps of the next finer scale, where there is one, and of this one -> joined."""
        new = [
            transform(source) for transform, source in zip(self.transforms, sources, strict=True)
        ]
        return torch.cat([sources[-1], *new], dim=1)


class _Transition(nn.Module):
    """1x1 convolutions that narrow every scale where one has been dropped (section 4)."""

    def __init__(self, width: int, reduced: int, growth_factors: Sequence[int]) -> None:
        super().__init__()
        self.scales = nn.ModuleList(
            _convolution(width * factor, reduced * factor, 1) for factor in growth_factors
        )

    def forward(self, features: list[Tensor]) -> list[Tensor]:
        """Feature maps of each scale, finest first -> the same with fewer channels."""
        return [scale(x) for scale, x in zip(self.scales, features, strict=True)]


def _transform(channels: int, new: int, bottleneck_factor: int, stride: int) -> nn.Sequential:
    """Conv(1x1)-BN-ReLU-Conv(3x3)-BN-ReLU (appendix A)."""
    inner = min(channels, bottleneck_factor * new)
    return nn.Sequential(_convolution(channels, inner, 1), _convolution(inner, new, 3, stride))


def _convolution(channels: int, new: int, kernel: int, stride: int = 1) -> nn.Module:
    """Convolution, batch norm and ReLU, with the weights of the authors' code."""
    made: nn.Sequential = Conv2dNormActivation(channels, new, kernel, stride, inplace=False)
    for part in made:
        if isinstance(part, nn.Conv2d):
            nn.init.kaiming_normal_(part.weight, mode="fan_out", nonlinearity="relu")
    return made
