"""The description of a multi-exit network: everything that fixes its shape, nothing learned.

Free of torch, so that a scenario can be checked and a profile matched without importing it.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from models.importing import code_beside, source_file

#: CIFAR ResNets of He et al. (2016), section 4.2: depth 6n + 2, by name, with n.
RESNET_BLOCKS = {"resnet8": 1, "resnet20": 3, "resnet32": 5, "resnet44": 7, "resnet56": 9}

#: MSDNets (Huang et al. 2018) by name: layers of each block; a classifier follows each block.
#: Anytime prediction: the first classifier after 4 layers, then one every 2; the paper's has 11.
#: Budgeted batches: the k-th classifier after 1 + 2 + ... + k layers; the paper's have 10 to 36.
MSDNET_LAYERS: dict[str, tuple[int, ...]] = {
    **{f"msdnet{count}": (4,) + (2,) * (count - 1) for count in (5, 7, 10, 11)},
    **{f"msdnet{count}_budgeted": tuple(range(1, count + 1)) for count in (4, 5, 6, 7, 8)},
}

#: Other networks made for images of about 32 x 32, in :mod:`models.networks.small_images`.
SMALL_IMAGE_BACKBONES = (
    "densenet_bc_100_12",
    "densenet_bc_40_12",
    "cifar_mobilenet_v2",
    "cifar_mobilenet_v3_small",
    "cifar_mobilenet_v3_large",
    "cifar_vgg11_bn",
    "cifar_vgg16_bn",
    "cifar_resnet18",
    "cifar_resnet34",
)

#: torchvision's classification networks.
TORCHVISION_BACKBONES = tuple(
    """
    alexnet convnext_base convnext_large convnext_small convnext_tiny densenet121 densenet161
    densenet169 densenet201 efficientnet_b0 efficientnet_b1 efficientnet_b2 efficientnet_b3
    efficientnet_b4 efficientnet_b5 efficientnet_b6 efficientnet_b7 efficientnet_v2_l
    efficientnet_v2_m efficientnet_v2_s googlenet inception_v3 maxvit_t mnasnet0_5 mnasnet0_75
    mnasnet1_0 mnasnet1_3 mobilenet_v2 mobilenet_v3_large mobilenet_v3_small regnet_x_16gf
    regnet_x_1_6gf regnet_x_32gf regnet_x_3_2gf regnet_x_400mf regnet_x_800mf regnet_x_8gf
    regnet_y_128gf regnet_y_16gf regnet_y_1_6gf regnet_y_32gf regnet_y_3_2gf regnet_y_400mf
    regnet_y_800mf regnet_y_8gf resnet101 resnet152 resnet18 resnet34 resnet50 resnext101_32x8d
    resnext101_64x4d resnext50_32x4d shufflenet_v2_x0_5 shufflenet_v2_x1_0 shufflenet_v2_x1_5
    shufflenet_v2_x2_0 squeezenet1_0 squeezenet1_1 swin_b swin_s swin_t swin_v2_b swin_v2_s
    swin_v2_t vgg11 vgg11_bn vgg13 vgg13_bn vgg16 vgg16_bn vgg19 vgg19_bn vit_b_16 vit_b_32
    vit_h_14 vit_l_16 vit_l_32 wide_resnet101_2 wide_resnet50_2
    """.split()  # noqa: SIM905
)

#: Every backbone that has a name of its own.
BACKBONES = (*RESNET_BLOCKS, *MSDNET_LAYERS, *SMALL_IMAGE_BACKBONES, *TORCHVISION_BACKBONES)

#: Designs of the early exits' classifiers; :mod:`models.networks.branches` builds them.
BRANCHES = ("linear", "mlp", "conv", "sdn", "msdnet")

#: In place of a file of weights: torchvision's best for ImageNet, downloaded where absent.
IMAGENET = "imagenet"

#: How many classes their classifiers tell apart.
IMAGENET_CLASSES = 1000

#: Where early exits sit in backbones for which nothing else is said: shares of the FLOPs.
_DEFAULT_SHARES = (1 / 3, 2 / 3)


def default_exits(backbone: str) -> tuple[str, ...] | tuple[float, ...]:
    """The early exits of ``backbone`` where a scenario names none."""
    if backbone in RESNET_BLOCKS:
        return ("layer1", "layer2")
    if backbone in MSDNET_LAYERS:
        return tuple(f"blocks.{block}" for block in range(len(MSDNET_LAYERS[backbone]) - 1))
    return _DEFAULT_SHARES


@dataclass(frozen=True)
class Architecture:
    """A backbone with its early exits.

    Attributes:
        backbone: a name that :mod:`models.networks.backbones` knows, or the import path of a user's
            ``nn.Module``.
        exits: early exits, earliest first: names of nodes after which they are attached, or the
            shares of the backbone's FLOPs, in (0, 1), at which they are placed. The backbone's own
            classifier is always one more exit, the last.
        branch: design of the early exits' classifiers, one of :data:`BRANCHES`.
        classes: number of classes.
        input_shape: channels, height and width of one image.
        resize: height and width to which images are scaled before the network; None leaves them.
        code: hash of the file that defines a user's backbone; see :func:`code_hash`.
        folder: a user's file is relative to it; no part of the network's identity.
    """

    backbone: str
    exits: tuple[str, ...] | tuple[float, ...]
    branch: str
    classes: int
    input_shape: tuple[int, int, int]
    resize: int | None = None
    code: str = ""
    folder: Path = field(default=Path(), compare=False)

    @property
    def exit_count(self) -> int:
        """Number of exits, the backbone's own classifier included."""
        return len(self.exits) + 1

    def identity(self) -> dict[str, Any]:
        """What two architectures share exactly if they are the same; fit for JSON."""
        return {
            "backbone": self.backbone,
            "exits": list(self.exits),
            "branch": self.branch,
            "classes": self.classes,
            "input_shape": list(self.input_shape),
            "resize": self.resize,
            "code": self.code,
        }

    def fingerprint(self) -> str:
        """A hash of the identity."""
        return hashlib.sha256(json.dumps(self.identity(), sort_keys=True).encode()).hexdigest()[:16]

    def __str__(self) -> str:
        places = ", ".join(
            exit if isinstance(exit, str) else f"{exit:.0%} of the FLOPs" for exit in self.exits
        )
        shape = "x".join(str(size) for size in self.input_shape)
        resized = f" resized to {self.resize}x{self.resize}" if self.resize else ""
        return (
            f"{self.backbone}, early exits after {places or 'none'}, {self.branch} branches, "
            f"{self.classes} classes, {shape} input{resized}"
        )


def read_architecture(identity: dict[str, Any], folder: Path = Path()) -> Architecture:
    """The architecture with an :meth:`~Architecture.identity`.

    Raises:
        KeyError, TypeError: a part is missing or foreign.
    """
    values = dict(identity)
    values["exits"] = tuple(values["exits"])
    values["input_shape"] = tuple(values["input_shape"])
    return Architecture(**values, folder=folder)


def code_hash(backbone: str, folder: Path) -> str:
    """Hash of the file that defines ``backbone``: a user's, or that of an installed module.

    Files beside it that it imports are in it, and what else it imports is not. Empty where there
    is none.

    Raises:
        OSError: the file cannot be read.
    """
    file = source_file(backbone, folder)
    if not file:
        return ""
    digest = hashlib.sha256(file.read_bytes())
    for path in code_beside(file):
        digest.update(path.relative_to(file.parent).as_posix().encode() + path.read_bytes())
    return digest.hexdigest()[:16]
