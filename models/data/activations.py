"""Activations of a frozen backbone, computed once and kept in memory-mapped files.

Where only classifiers are trained, the backbone says the same of an image at every step, for every
strategy and seed. What is kept for an exit is what its branch makes of the activation without any
weight: after global average pooling, a few numbers. Training reads bf16, computed in the arithmetic
in which the training itself would run the backbone; validation and test accuracies are taken on
fp32, so that they are those of the network as it will be deployed.
"""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable, Collection
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from models.data.datasets import DatasetInfo, Split
from models.data.inputs import ImageInputs
from models.errors import ArtifactError
from models.networks.multi_exit import MultiExitNetwork

_SHAPES = "activations.json"

_BATCH = 256


def activation_shapes(network: MultiExitNetwork) -> list[tuple[int, ...]]:
    """Shape of what is kept of one image at each exit, earliest first."""
    image = torch.zeros(1, *network.architecture.input_shape, device=network.device)
    network.eval()
    with torch.inference_mode():
        return [tuple(part.shape[1:]) for part in _kept(network, image)]


def store_bytes(network: MultiExitNetwork, samples: int, dtype: torch.dtype) -> int:
    """Size of the activations of ``samples`` images."""
    values = sum(math.prod(shape) for shape in activation_shapes(network))
    return samples * values * dtype.itemsize


def compute_activations(
    network: MultiExitNetwork,
    split: Split,
    info: DatasetInfo,
    folder: Path,
    dtype: torch.dtype,
    on_images: Callable[[int], None] | None = None,
    autocast: bool = False,
) -> None:
    """Write the activations of every image of ``split`` at every exit to files in ``folder``.

    Only a batch of them is in memory at a time.

    Args:
        on_images: called with the number of images done.
        autocast: compute in bf16, as a training with precision ``bf16`` does.

    Raises:
        ArtifactError: the disk has no room for them; nothing is left in ``folder`` then.
    """
    size = store_bytes(network, len(split), dtype)
    free = shutil.disk_usage(folder).free
    if size > free:
        raise ArtifactError(
            f"the activations of {len(split)} images take {size / 1e9:.1f} GB, but {folder} has "
            f"room for {free / 1e9:.1f} GB"
        )
    images = ImageInputs(split, info, device=network.device)
    files = [(folder / _file(exit)).open("wb") for exit in range(1, network.exit_count + 1)]
    shapes: list[tuple[int, ...]] = []
    network.eval().to(memory_format=torch.channels_last)
    try:
        with (
            torch.inference_mode(),
            torch.autocast(network.device.type, torch.bfloat16, enabled=autocast),
        ):
            for start in range(0, len(split), _BATCH):
                positions = np.arange(start, min(start + _BATCH, len(split)))
                parts = _kept(network, images.batch(positions))
                shapes = [tuple(part.shape[1:]) for part in parts]
                for file, part in zip(files, parts, strict=True):
                    values = part.to(dtype).contiguous().cpu()
                    file.write(values.view(torch.uint8).numpy().data)
                if on_images:
                    on_images(start + len(positions))
    except BaseException:
        for file in files:
            file.close()
            Path(file.name).unlink(missing_ok=True)
        raise
    finally:
        for file in files:
            file.close()
    described = {"samples": len(split), "dtype": str(dtype).removeprefix("torch."), "exits": shapes}
    (folder / _SHAPES).write_text(json.dumps(described))


class StoredInputs:
    """Activations in memory-mapped files, as a training's or an evaluation's inputs.

    Args:
        device: where batches of them are sent, and labels are kept.

    Raises:
        ArtifactError: the files are not whole, or not of ``labels`` many samples.
    """

    generator: torch.Generator | None = None

    def __init__(
        self, folder: Path, labels: NDArray[np.int64], device: torch.device | None = None
    ) -> None:
        described = json.loads((folder / _SHAPES).read_text())
        samples, dtype = described["samples"], getattr(torch, described["dtype"])
        self.labels = torch.from_numpy(labels).to(device)
        self.device = device
        self.stored: list[Tensor] = []
        for exit, shape in enumerate(described["exits"], start=1):
            file = folder / _file(exit)
            size = samples * math.prod(shape)
            there = file.stat().st_size if file.is_file() else 0
            if samples != len(labels) or there != size * dtype.itemsize:
                raise ArtifactError(f"{file}: does not hold the activations of this dataset")
            # Shared, though nothing is written: a private mapping counts as memory in use.
            values = torch.from_file(str(file), shared=True, size=size, dtype=dtype)
            self.stored.append(values.view(samples, *shape))

    def features(
        self, network: MultiExitNetwork, positions: NDArray[np.int64], exits: Collection[int]
    ) -> dict[int, Tensor]:
        """For each of ``exits``, what its last layer takes for the samples at ``positions``."""
        rows = torch.from_numpy(positions)
        features = {}
        for exit in exits:
            values = self.stored[exit - 1][rows].to(self.device).float()
            if exit < network.exit_count:
                # One by one: a slice of a sequence is a new module, at every step.
                for module in list(network.branch(exit))[network.frozen_prefixes[exit - 1] : -1]:
                    values = module(values)
            features[exit] = values
        return features


def _kept(network: MultiExitNetwork, images: Tensor) -> list[Tensor]:
    """What is kept of a batch at each exit."""
    state = network.start(images)
    parts = []
    for exit in range(1, network.exit_count + 1):
        state = network.run_segment(exit, state)
        value: Tensor = state[0]
        if exit < network.exit_count:
            value = network.branch(exit)[: network.frozen_prefixes[exit - 1]](value)
        parts.append(value)
    return parts


def _file(exit: int) -> str:
    return f"exit{exit}.bin"
