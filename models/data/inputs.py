"""What a training or an evaluation feeds its exits with: images through the network, by position.

:mod:`models.data.activations` has the other kind: activations of a frozen backbone, computed once.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from models.data.augmentation import normalise, random_crop_and_flip
from models.data.datasets import DatasetInfo, Split
from models.networks.gradient_equilibrium import equilibrium_factors, scale_gradient
from models.networks.multi_exit import MultiExitNetwork


class Inputs(Protocol):
    """Samples by position.

    Attributes:
        labels: (N,) classes.
        generator: of the random numbers that it draws; None: it draws none.
    """

    labels: Tensor
    generator: torch.Generator | None

    def features(
        self, network: MultiExitNetwork, positions: NDArray[np.int64], exits: Collection[int]
    ) -> dict[int, Tensor]:
        """For each of ``exits``, what its last layer takes for the samples at ``positions``."""
        ...


class ImageInputs:
    """Images in memory, augmented if asked, that pass through the whole network.

    Args:
        augment: shift and mirror at random, anew each time.
        seed: of the augmentation.
        equilibrium: scale gradients where branches leave the trunk (Li et al. 2019).
        device: where images and labels are kept, and augmented.
    """

    def __init__(
        self,
        split: Split,
        info: DatasetInfo,
        augment: bool = False,
        seed: int = 0,
        equilibrium: bool = False,
        device: torch.device | None = None,
    ) -> None:
        self.images = torch.from_numpy(split.images).to(device)
        self.labels = torch.from_numpy(split.labels).to(device)
        self.info = info
        self.equilibrium = equilibrium
        self.generator = torch.Generator().manual_seed(seed) if augment else None

    def batch(self, positions: NDArray[np.int64]) -> Tensor:
        """Normalised images (len(positions), C, H, W), augmented if asked."""
        images = self.images[torch.from_numpy(positions).to(self.images.device)]
        if self.generator is not None:
            images = random_crop_and_flip(images, self.info, self.generator)
        return normalise(images, self.info).contiguous(memory_format=torch.channels_last)

    def features(
        self, network: MultiExitNetwork, positions: NDArray[np.int64], exits: Collection[int]
    ) -> dict[int, Tensor]:
        """For each of ``exits``, what its last layer takes for the samples at ``positions``."""
        state = network.start(self.batch(positions))
        balance = self.equilibrium and len(exits) > 1  # one gradient is its own mean
        features = {}
        for exit in range(1, max(exits) + 1):
            state = network.run_segment(exit, state)
            branch = state
            if balance and exit < network.exit_count:
                to_branch, to_trunk = equilibrium_factors(exit, network.exit_count)
                branch = scale_gradient(state, to_branch)
                state = scale_gradient(state, to_trunk)
            if exit in exits:
                features[exit] = network.features(exit, branch)
        return features
