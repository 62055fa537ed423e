"""Branches: the small classifiers attached to a backbone at its early exits."""

from __future__ import annotations

from torch import nn


def linear_branch(channels: int, classes: int) -> nn.Module:
    """Global average pooling and one linear layer; (N, C, H, W) -> (N, classes)."""
    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, classes))


def conv_branch(channels: int, classes: int) -> nn.Module:
    """3x3 convolution to twice the channels, batch norm, ReLU, then as ``linear_branch``."""
    return nn.Sequential(
        nn.Conv2d(channels, 2 * channels, 3, padding=1, bias=False),
        nn.BatchNorm2d(2 * channels),
        nn.ReLU(inplace=True),
        linear_branch(2 * channels, classes),
    )


BRANCH_DESIGNS = {"linear": linear_branch, "conv": conv_branch}
