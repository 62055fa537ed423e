"""Branches: the small classifiers attached to a backbone at its early exits.

Every design is a sequence that ends in one linear layer. The parameter-free modules it begins with
can be computed ahead for a frozen backbone.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from models.errors import NetworkError
from models.networks.msdnet import msdnet_classifier

#: Hidden units of ``mlp`` and channels of ``conv``, for each channel of the activation.
_WIDENING = 2

#: Height and width to which ``sdn`` pools, as Kaya et al. (2019) do on CIFAR.
_SDN_POOLED = 4


class TokenMean(nn.Module):
    """Mean over the tokens of a transformer; (N, tokens, C) -> (N, C)."""

    def forward(self, x: Tensor) -> Tensor:
        """(N, tokens, C) -> (N, C)."""
        return x.mean(dim=1)


class ChannelsFirst(nn.Module):
    """(N, H, W, C) -> (N, C, H, W), for networks that keep their channels last."""

    def forward(self, x: Tensor) -> Tensor:
        """(N, H, W, C) -> (N, C, H, W)."""
        return x.permute(0, 3, 1, 2)


class MaxAndAveragePool(nn.Module):
    """Max and average pooling side by side; (N, C, H, W) -> (N, 2, C, size, size)."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.max = nn.AdaptiveMaxPool2d(size)
        self.average = nn.AdaptiveAvgPool2d(size)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, 2, C, size, size)."""
        return torch.stack([self.max(x), self.average(x)], dim=1)


class LearnedMix(nn.Module):
    """A learned mixture of two kinds of pooling (Lee et al. 2016); (N, 2, ...) -> (N, ...)."""

    def __init__(self) -> None:
        super().__init__()
        self.share = nn.Parameter(torch.rand(1))

    def forward(self, x: Tensor) -> Tensor:
        """(N, 2, ...) -> (N, ...)."""
        return self.share * x[:, 0] + (1 - self.share) * x[:, 1]


def linear_branch(activation: Tensor, classes: int) -> nn.Sequential:
    """Global average pooling and one linear layer."""
    return nn.Sequential(*_pooling(activation), nn.Linear(_channels(activation), classes))


def mlp_branch(activation: Tensor, classes: int) -> nn.Sequential:
    """Global average pooling, one hidden layer of twice the channels, ReLU, linear."""
    channels = _channels(activation)
    return nn.Sequential(
        *_pooling(activation),
        nn.Linear(channels, _WIDENING * channels),
        nn.ReLU(),
        nn.Linear(_WIDENING * channels, classes),
    )


def conv_branch(activation: Tensor, classes: int) -> nn.Sequential:
    """3x3 convolution to twice the channels, batch norm, ReLU, then as ``linear_branch``."""
    channels = _image_channels(activation, "conv")
    return nn.Sequential(
        nn.Conv2d(channels, _WIDENING * channels, 3, padding=1, bias=False),
        nn.BatchNorm2d(_WIDENING * channels),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(_WIDENING * channels, classes),
    )


def sdn_branch(activation: Tensor, classes: int) -> nn.Sequential:
    """Mixed max and average pooling to at most 4x4, and one linear layer.

    Shallow-deep networks, Kaya et al. (2019), section 4.1: feature reduction.
    """
    channels = _image_channels(activation, "sdn")
    size = min(_SDN_POOLED, *activation.shape[2:])
    return nn.Sequential(
        MaxAndAveragePool(size),
        LearnedMix(),
        nn.Flatten(),
        nn.Linear(channels * size * size, classes),
    )


def msdnet_branch(activation: Tensor, classes: int) -> nn.Sequential:
    """The classifier of MSDNet (Huang et al. 2018, appendix A)."""
    return msdnet_classifier(_image_channels(activation, "msdnet"), classes)


BRANCH_DESIGNS = {
    "linear": linear_branch,
    "mlp": mlp_branch,
    "conv": conv_branch,
    "sdn": sdn_branch,
    "msdnet": msdnet_branch,
}


def channels_last(activation: Tensor) -> bool | None:
    """Whether ``activation`` is (1, H, W, C); None where its shape does not say.

    Images are square, and so are feature maps: that tells where the channels are, unless there
    are as many of them as rows.
    """
    _, *shape = activation.shape
    if len(shape) != 3 or shape[0] != shape[1]:
        return False
    return None if shape[1] == shape[2] else True


def build_branch(
    design: str, activation: Tensor, classes: int, last: bool | None = None
) -> nn.Sequential:
    """A branch of ``design`` for activations like ``activation``.

    Args:
        activation: an example, (1, C, H, W), (1, H, W, C), (1, tokens, C) or (1, C).
        last: whether it has its channels last; by default, its shape says.

    Raises:
        NetworkError: the design cannot take such activations.
    """
    if channels_last(activation) if last is None else last:
        first = ChannelsFirst()
        return nn.Sequential(first, *BRANCH_DESIGNS[design](first(activation), classes))
    return BRANCH_DESIGNS[design](activation, classes)


def frozen_prefix(branch: nn.Sequential) -> int:
    """Number of modules at the beginning that have no state, and so never change in training."""
    for count, module in enumerate(branch):
        if module.state_dict() or any(isinstance(part, nn.Dropout) for part in module.modules()):
            return count
    return len(branch)


def _pooling(activation: Tensor) -> list[nn.Module]:
    if activation.ndim == 4:
        return [nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    return [TokenMean()] if activation.ndim == 3 else []


def _channels(activation: Tensor) -> int:
    if not 2 <= activation.ndim <= 4:
        raise NetworkError(
            f"a branch cannot be attached to an activation of shape {tuple(activation.shape)}"
        )
    return activation.shape[1] if activation.ndim == 4 else activation.shape[-1]


def _image_channels(activation: Tensor, design: str) -> int:
    if activation.ndim != 4:
        raise NetworkError(
            f"a {design!r} branch takes feature maps (N, C, H, W), but the activation has shape "
            f"{tuple(activation.shape)}; use 'linear' or 'mlp'"
        )
    return activation.shape[1]
