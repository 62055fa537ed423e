"""The parts of a network that a runtime computes: tensors in, tensors out.

Each segment and each exit's classifier is a module of its own, the normalisation of images within
the first segment, softmax and maximum within the classifiers; so that a compiler sees the whole.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.data.datasets import DatasetInfo
from models.inference.state_layouts import StateLayout, state_layouts
from models.networks.multi_exit import MultiExitNetwork


@dataclass(frozen=True)
class NetworkParts:
    """A network in parts.

    Attributes:
        network: whose weights they share, in inference mode.
        layouts: of the state at every exit, the input (exit 0) first.
        segments: from the tensors of one exit to those of the next; the first takes uint8 images.
        classifiers: from the first tensor at an exit to confidences (N,) and classes (N,).
    """

    network: MultiExitNetwork
    layouts: list[StateLayout]
    segments: list[SegmentPart]
    classifiers: list[ClassifierPart]

    @property
    def exit_count(self) -> int:
        """Number of exits, the backbone's own classifier included."""
        return len(self.segments)


class SegmentPart(nn.Module):
    """The segment that leads to ``exit``, as a function of tensors."""

    def __init__(
        self, network: MultiExitNetwork, exit: int, before: StateLayout, after: StateLayout
    ) -> None:
        super().__init__()
        self.network = network
        self.exit = exit
        self.before = before
        self.after = after

    def forward(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        """The tensors of the state at the exit."""
        state = self.before.state(tensors)
        return self.after.tensors(self.network.run_segment(self.exit, state))


class FirstSegmentPart(SegmentPart):
    """The first segment, which takes uint8 images.

    Args:
        memory_format: that of normalised images.
    """

    def __init__(
        self,
        network: MultiExitNetwork,
        layouts: Sequence[StateLayout],
        info: DatasetInfo,
        memory_format: torch.memory_format,
    ) -> None:
        super().__init__(network, 1, layouts[0], layouts[1])
        self.memory_format = memory_format
        # As models.data.augmentation.normalise does, in training.
        for name, values in (("mean", info.mean), ("std", info.std)):
            scaled = torch.tensor(values).mul(255).view(1, -1, 1, 1)
            self.register_buffer(name, scaled, persistent=False)
        self.mean: Tensor
        self.std: Tensor

    def forward(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        """The tensors of the state at exit 1 from images (N, C, H, W)."""
        (images,) = tensors
        normalised = (images.float() - self.mean) / self.std
        normalised = normalised.contiguous(memory_format=self.memory_format)
        state = self.network.run_segment(1, self.network.start(normalised))
        return self.after.tensors(state)


class ClassifierPart(nn.Module):
    """The classifier of ``exit``, with softmax and maximum."""

    def __init__(self, network: MultiExitNetwork, exit: int) -> None:
        super().__init__()
        self.network = network
        self.exit = exit

    def forward(self, activation: Tensor) -> tuple[Tensor, Tensor]:
        """Confidences (N,) and classes (N,) from the activation at the exit."""
        logits = self.network.classify(self.exit, (activation,))
        confidences, classes = F.softmax(logits.float(), dim=1).max(dim=1)
        return confidences, classes


def network_parts(
    network: MultiExitNetwork,
    info: DatasetInfo,
    memory_format: torch.memory_format = torch.channels_last,
) -> NetworkParts:
    """The parts of a copy of ``network`` on the processor, in inference mode.

    Raises:
        NetworkError: its states cannot be told apart into images.
    """
    network = copy.deepcopy(network).cpu().eval().to(memory_format=memory_format)
    layouts = state_layouts(network, memory_format)
    segments = [FirstSegmentPart(network, layouts, info, memory_format)]
    return NetworkParts(
        network,
        layouts,
        [
            *segments,
            *(
                SegmentPart(network, exit, layouts[exit - 1], layouts[exit])
                for exit in range(2, network.exit_count + 1)
            ),
        ],
        [ClassifierPart(network, exit) for exit in range(1, network.exit_count + 1)],
    )
