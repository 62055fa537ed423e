"""Multi-exit networks that run segment by segment and can resume where they stopped."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from models.architecture import Architecture
from models.backbones import build_backbone, node_channels
from models.branches import BRANCH_DESIGNS


class MultiExitNetwork(nn.Module):
    """A backbone cut into segments, with a classifier at the end of each.

    Exits are numbered from 1 (the earliest) to ``exit_count`` (the backbone's own classifier).
    Segment *k* leads from exit *k - 1*, or from the input, to exit *k*.
    """

    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        self.architecture = architecture
        self.backbone = build_backbone(
            architecture.backbone, architecture.classes, architecture.input_shape[0]
        )
        channels = node_channels(self.backbone, architecture.input_shape)
        design = BRANCH_DESIGNS[architecture.branch]
        self.branches = nn.ModuleList(
            design(channels[node], architecture.classes) for node in architecture.exits
        )
        # Views on modules that `backbone` and `branches` own: kept in tuples, which torch does
        # not register, so that no weight appears twice in the state dict.
        self._segments = tuple(self._cut(architecture.exits))
        self._classifiers = (*self.branches, self.backbone.classifier())

    def _cut(self, exits: tuple[str, ...]) -> list[nn.Sequential]:
        segments = []
        part: list[nn.Module] = []
        for name, node in self.backbone.nodes().items():
            part.append(node)
            if name in exits:
                segments.append(nn.Sequential(*part))
                part = []
        return [*segments, nn.Sequential(*part)]

    @property
    def exit_count(self) -> int:
        """Number of exits, the backbone's own classifier included."""
        return len(self._classifiers)

    def run_segment(self, exit: int, activation: Tensor) -> Tensor:
        """Compute segment ``exit`` from the activation at exit ``exit - 1`` (or the images)."""
        result: Tensor = self._segments[exit - 1](activation)
        return result

    def classify(self, exit: int, activation: Tensor) -> Tensor:
        """Logits (N, classes) of exit ``exit`` from the activation that its segment produced."""
        logits: Tensor = self._classifiers[exit - 1](activation)
        return logits

    def infer(self, images: Tensor, exit: int) -> Tensor:
        """Logits (N, classes) of ``exit`` alone; the exits before it are passed, not computed."""
        activation = images
        for segment in range(1, exit + 1):
            activation = self.run_segment(segment, activation)
        return self.classify(exit, activation)

    def forward(self, images: Tensor) -> list[Tensor]:
        """Logits of every exit, earliest first; each (N, classes) from images (N, C, H, W)."""
        logits = []
        activation = images
        for exit in range(1, self.exit_count + 1):
            activation = self.run_segment(exit, activation)
            logits.append(self.classify(exit, activation))
        return logits


def build_network(architecture: Architecture, seed: int) -> MultiExitNetwork:
    """Build a network whose initial weights depend on ``architecture`` and ``seed`` alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return MultiExitNetwork(architecture)
