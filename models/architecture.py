"""The description of a multi-exit network: everything that fixes its shape, nothing learned.

Free of torch, so that a scenario can be checked and a profile matched without importing it.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass

#: CIFAR ResNets of He et al. (2016), section 4.2: depth 6n + 2, by name, with n.
RESNET_BLOCKS = {"resnet8": 1, "resnet20": 3, "resnet32": 5, "resnet44": 7, "resnet56": 9}

#: Places in a CIFAR ResNet after which an early exit may sit, in the order of computation.
RESNET_NODES = ("stem", "layer1", "layer2", "layer3")

BRANCHES = ("linear", "conv")


def backbone_nodes(backbone: str) -> tuple[str, ...]:
    """Names of the nodes of ``backbone`` after which an exit may be attached, in order."""
    if backbone not in RESNET_BLOCKS:
        raise KeyError(backbone)
    # The backbone's own classifier follows its last node: an early exit there would repeat it.
    return RESNET_NODES[:-1]


@dataclass(frozen=True)
class Architecture:
    """A backbone with its early exits.

    Attributes:
        backbone: name of the backbone, such as ``resnet20``.
        exits: nodes after which an early exit is attached, earliest first. The backbone's own
            classifier is always one more exit, the last.
        branch: design of the early exits' classifiers, ``linear`` or ``conv``.
        classes: number of classes.
        input_shape: channels, height and width of one image.
    """

    backbone: str
    exits: tuple[str, ...]
    branch: str
    classes: int
    input_shape: tuple[int, int, int]

    @property
    def exit_count(self) -> int:
        """Number of exits, the backbone's own classifier included."""
        return len(self.exits) + 1

    def fingerprint(self) -> str:
        """A hash that two architectures share exactly if they are the same."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()[:16]

    def __str__(self) -> str:
        exits = ", ".join(self.exits) or "none"
        shape = "x".join(str(size) for size in self.input_shape)
        return (
            f"{self.backbone}, early exits after {exits}, {self.branch} branches, "
            f"{self.classes} classes, {shape} input"
        )
