"""Preparing batches of uint8 images: normalisation, and vectorised crop-and-flip augmentation."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from models.data.datasets import DatasetInfo


def normalise(images: Tensor, info: DatasetInfo) -> Tensor:
    """uint8 images (N, C, H, W) to float32 with the dataset's mean 0 and deviation 1."""
    mean = torch.tensor(info.mean, device=images.device).mul(255).view(1, -1, 1, 1)
    std = torch.tensor(info.std, device=images.device).mul(255).view(1, -1, 1, 1)
    return (images.float() - mean) / std


def random_crop_and_flip(images: Tensor, info: DatasetInfo, generator: torch.Generator) -> Tensor:
    """Shift each image by up to ``crop_padding`` pixels (zeros move in), and mirror half of them.

    Mirrors only where ``info.flip`` allows. One gather for the whole batch of shape (N, C, H, W).
    """
    count, _, height, width = images.shape
    padding = info.crop_padding
    padded = F.pad(images, (padding,) * 4)
    offsets = torch.randint(0, 2 * padding + 1, (2, count, 1), generator=generator)
    rows = offsets[0] + torch.arange(height)
    columns = offsets[1] + torch.arange(width)
    if info.flip:
        mirrored = torch.rand(count, 1, generator=generator) < 0.5
        columns = torch.where(mirrored, columns.flip(1), columns)
    # (N, 1, 1), (N, H, 1) and (N, 1, W) indices around the channel slice give (N, H, W, C).
    picked = padded.permute(0, 2, 3, 1)[
        torch.arange(count).view(-1, 1, 1).to(images.device),
        rows[:, :, None].to(images.device),
        columns[:, None, :].to(images.device),
    ]
    return picked.permute(0, 3, 1, 2)
