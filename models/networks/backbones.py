"""Backbones by name: ours for small images, torchvision's, or a user's own ``nn.Module``."""

from __future__ import annotations

from typing import Any

from torch import nn
from torchvision import models as torchvision_models

from models.errors import NetworkError, did_you_mean
from models.importing import import_callable, is_import_path
from models.networks.architecture import (
    BACKBONES,
    MSDNET_LAYERS,
    RESNET_BLOCKS,
    SMALL_IMAGE_BACKBONES,
    TORCHVISION_BACKBONES,
    Architecture,
)
from models.networks.cifar_resnet import CifarResNet
from models.networks.msdnet import MSDNETS
from models.networks.small_images import SMALL_IMAGE_NETWORKS

#: Arguments without which a torchvision network is not one that maps images to logits.
_TORCHVISION_ARGUMENTS: dict[str, dict[str, Any]] = {
    "googlenet": {"aux_logits": False, "init_weights": True},
    "inception_v3": {"aux_logits": False, "init_weights": True},
}


def build_backbone(architecture: Architecture) -> nn.Module:
    """The backbone with fresh weights from torch's global generator.

    A user's class is called with ``num_classes``, as torchvision's are.

    Raises:
        NetworkError: there is none of that name, or it cannot be built.
    """
    name, classes = architecture.backbone, architecture.classes
    channels = architecture.input_shape[0]
    if name in RESNET_BLOCKS:
        return CifarResNet(RESNET_BLOCKS[name], classes, channels)
    if name in MSDNET_LAYERS:
        return MSDNETS[name](classes, channels)
    if name in SMALL_IMAGE_BACKBONES:
        return SMALL_IMAGE_NETWORKS[name](classes, channels)
    if name in TORCHVISION_BACKBONES:
        return _torchvision_network(architecture)
    return _users_network(architecture)


def _torchvision_network(architecture: Architecture) -> nn.Module:
    name = architecture.backbone
    size = architecture.resize or architecture.input_shape[1]
    arguments = dict(_TORCHVISION_ARGUMENTS.get(name, {}))
    if arguments:
        # As with torchvision's weights: images are normalised as for every other network.
        arguments["transform_input"] = architecture.input_shape[0] == 3
    if name.startswith("vit_"):
        arguments["image_size"] = size
    if name.startswith("maxvit"):
        arguments["input_size"] = (size, size)
    try:
        network: nn.Module = torchvision_models.get_model(
            name, weights=None, num_classes=architecture.classes, **arguments
        )
    except (ValueError, AssertionError, RuntimeError) as error:
        raise NetworkError(f"{name} cannot be built for {size}x{size} images: {error}") from error
    if architecture.input_shape[0] != 3:
        _take_channels(network, architecture.input_shape[0])
    return network


def _take_channels(network: nn.Module, channels: int) -> None:
    """Replace the first convolution by one for images of other than three channels."""
    name, old = next(
        (name, part) for name, part in network.named_modules() if isinstance(part, nn.Conv2d)
    )
    new = nn.Conv2d(
        channels,
        old.out_channels,
        old.kernel_size,  # type: ignore[arg-type]
        old.stride,  # type: ignore[arg-type]
        old.padding,  # type: ignore[arg-type]
        bias=old.bias is not None,
    )
    network.set_submodule(name, new)


def _users_network(architecture: Architecture) -> nn.Module:
    if not is_import_path(architecture.backbone):
        raise NetworkError(
            f"no backbone is called {architecture.backbone!r}"
            f"{did_you_mean(architecture.backbone, BACKBONES)}"
        )
    try:
        factory = import_callable(architecture.backbone, architecture.folder)
    except ImportError as error:
        raise NetworkError(f"backbone {architecture.backbone!r} {error}") from error
    try:
        network = factory(num_classes=architecture.classes)
    except Exception as error:
        # Whatever a user's class raises is theirs to mend.
        raise NetworkError(
            f"backbone {architecture.backbone!r} cannot be built with "
            f"num_classes={architecture.classes}: {type(error).__name__}: {error}"
        ) from error
    if not isinstance(network, nn.Module):
        raise NetworkError(f"backbone {architecture.backbone!r} is no torch.nn.Module")
    return network
