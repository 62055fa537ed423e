"""Image datasets as arrays in memory, with one fixed train / validation / test split each.

``digits`` ships with scikit-learn. The others are read by torchvision from a folder in its own
layout, and downloaded by it where they are absent. torchvision is imported only when needed.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import platformdirs
from numpy.typing import NDArray

from models.errors import DataError

#: The split never varies with the training seed: all arms and seeds share one test set.
SPLIT_SEED = 20210718


@dataclass(frozen=True)
class DatasetInfo:
    """What is known of a dataset without loading it.

    Attributes:
        name: its name in scenarios.
        classes: number of classes.
        input_shape: channels, height, width.
        mean, std: per channel, of pixel values scaled to 0..1, over the training images.
        crop_padding: pixels of padding for random-crop augmentation in training.
        flip: whether a mirrored image keeps its label, so that training may mirror.
    """

    name: str
    classes: int
    input_shape: tuple[int, int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    crop_padding: int
    flip: bool

    @property
    def image_bytes(self) -> int:
        """Bytes of one raw uint8 image, what a device sends."""
        channels, height, width = self.input_shape
        return channels * height * width


DATASETS = {
    info.name: info
    for info in (
        DatasetInfo("digits", 10, (1, 8, 8), (0.3053,), (0.3760,), 1, False),
        DatasetInfo("fashion_mnist", 10, (1, 28, 28), (0.2860,), (0.3530,), 2, True),
        DatasetInfo(
            "cifar10", 10, (3, 32, 32), (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616), 4, True
        ),
        DatasetInfo(
            "cifar100",
            100,
            (3, 32, 32),
            (0.5071, 0.4865, 0.4409),
            (0.2673, 0.2564, 0.2762),
            4,
            True,
        ),
    )
}


@dataclass(frozen=True)
class Split:
    """Images (N, C, H, W) uint8 and labels (N,) int64; ``index`` numbers them within the dataset.

    ``index`` (N,) int64 is the position in the official training set (train, validation) or in
    the official test set (test).
    """

    images: NDArray[np.uint8]
    labels: NDArray[np.int64]
    index: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, positions: NDArray[np.int64]) -> Split:
        """The samples at ``positions``, in that order."""
        return Split(self.images[positions], self.labels[positions], self.index[positions])


@dataclass(frozen=True)
class Dataset:
    """A dataset in memory."""

    info: DatasetInfo
    train: Split
    validation: Split
    test: Split

    @property
    def official_count(self) -> int:
        """Size of the official training set, of which the validation split is a part."""
        return len(self.train) + len(self.validation)


def data_root() -> Path:
    """Where datasets lie: ``$OFFRAMP_DATA``, or a folder in the user's cache."""
    named = os.environ.get("OFFRAMP_DATA")
    return Path(named) if named else Path(platformdirs.user_cache_dir("offramp")) / "datasets"


def load_dataset(
    name: str, validation_fraction: float = 0.1, root: Path | None = None, download: bool = True
) -> Dataset:
    """Load dataset ``name``; ``validation_fraction`` of each class's training images validates.

    Raises:
        DataError: the files are absent and cannot be downloaded, or may not be, or are damaged.
    """
    info = DATASETS[name]
    if name == "digits":
        official_train, test = _load_digits()
    else:
        official_train, test = _load_torchvision(info, root or data_root(), download)
    held_out = stratified_choice(official_train.labels, validation_fraction, SPLIT_SEED)
    rest = np.setdiff1d(np.arange(len(official_train)), held_out)
    if not len(held_out) or not len(rest):
        raise DataError(
            f"validation_fraction {validation_fraction:g} of dataset {name!r} leaves "
            f"{len(rest)} images to train on and {len(held_out)} to validate with"
        )
    return Dataset(info, official_train.take(rest), official_train.take(held_out), test)


def stratified_choice(labels: NDArray[np.int64], fraction: float, seed: int) -> NDArray[np.int64]:
    """Sorted positions of a random ``fraction`` of each class, rounded per class."""
    generator = np.random.default_rng(seed)
    chosen = [
        generator.permutation(members)[: round(fraction * len(members))]
        for members in (np.flatnonzero(labels == label) for label in np.unique(labels))
    ]
    return np.sort(np.concatenate(chosen, dtype=np.int64))


def _load_digits() -> tuple[Split, Split]:
    """scikit-learn's 1,797 digits, 8x8; a fifth of each class is the test set."""
    from sklearn.datasets import load_digits

    bunch = load_digits()
    images = np.round(bunch.images * (255 / 16)).astype(np.uint8)[:, None]
    labels = bunch.target.astype(np.int64)
    test = stratified_choice(labels, 0.2, SPLIT_SEED + 1)
    train = np.setdiff1d(np.arange(len(labels)), test)
    return (
        Split(images[train], labels[train], np.arange(len(train))),
        Split(images[test], labels[test], np.arange(len(test))),
    )


def _load_torchvision(info: DatasetInfo, root: Path, download: bool) -> tuple[Split, Split]:
    from torchvision import datasets

    classes: dict[str, Callable[..., Any]] = {
        "fashion_mnist": datasets.FashionMNIST,
        "cifar10": datasets.CIFAR10,
        "cifar100": datasets.CIFAR100,
    }
    build = classes[info.name]
    unreadable = (RuntimeError, OSError, EOFError, ValueError, AssertionError, TypeError, KeyError)
    try:
        parts = [build(root=str(root), train=train, download=False) for train in (True, False)]
    except unreadable as error:
        if "download=True" not in str(error):
            raise DataError(
                f"dataset {info.name!r} in {root} is damaged: {error}\n"
                "Delete its files there, so that they are downloaded again, or replace them."
            ) from error
        if not download:
            raise DataError(f"dataset {info.name!r} is not (whole) in {root}") from error
        # Absent, or not what its checksum says: torchvision fetches what it must.
        try:
            root.mkdir(parents=True, exist_ok=True)
            parts = [build(root=str(root), train=train, download=True) for train in (True, False)]
        except unreadable as error:
            raise DataError(
                f"dataset {info.name!r} is not (whole) in {root}, and downloading it failed: "
                f"{error}\n"
                "Set OFFRAMP_DATA to a folder that holds it in torchvision's layout, "
                "or run again with a network connection."
            ) from error
    train, test = (_to_split(part, info) for part in parts)
    return train, test


def _to_split(part: Any, info: DatasetInfo) -> Split:
    images = np.asarray(part.data, dtype=np.uint8)
    if images.ndim == 3:
        images = images[..., None]
    images = np.ascontiguousarray(images.transpose(0, 3, 1, 2))
    labels = np.asarray(part.targets, dtype=np.int64)
    if images.shape[1:] != info.input_shape or len(images) != len(labels) or not len(labels):
        raise DataError(
            f"dataset {info.name!r} holds {len(labels)} labels and images of shape {images.shape}, "
            f"but images of shape {info.input_shape} are expected"
        )
    return Split(images, labels, np.arange(len(labels)))
