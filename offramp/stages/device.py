"""The device that networks are computed on."""

from __future__ import annotations

import torch

from models.errors import TrainingError
from models.host import resolved_device


def device_of(name: str) -> torch.device:
    """The device of ``training.device``.

    Raises:
        TrainingError: it is not here, or torch cannot use it.
    """
    device = resolved_device(name)  # as keys do
    if device == "cuda" and not torch.cuda.is_available():
        if name == "cuda":
            raise TrainingError("training.device is cuda, but torch finds no CUDA device here")
        raise TrainingError(
            "this host has a CUDA device that torch cannot use: update its driver, or set "
            "training.device to cpu"
        )
    return torch.device(device)
