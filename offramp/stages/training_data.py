"""What an experiment's trainings read: images, labels, or activations of a frozen backbone."""

from __future__ import annotations

from dataclasses import replace
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import torch

from models.data.activations import StoredInputs, compute_activations, store_bytes
from models.data.datasets import Dataset, Split, data_root, load_dataset
from models.data.inputs import ImageInputs, Inputs
from models.data.label_noise import labels_from_file, symmetric_noise
from models.host import resolved_precision
from models.networks.multi_exit import MultiExitNetwork
from offramp.console import Console
from offramp.experiment import Experiment
from offramp.stages import keys
from offramp.store import DESCRIPTION, Store

#: The wrong labels are part of the data: all arms and seeds share them.
_NOISE_SEED = 20210719


@lru_cache(maxsize=1)
def _load_once(name: str, validation_fraction: float, root: Path) -> Dataset:
    """The dataset; a study's experiments follow each other in one process."""
    return load_dataset(name, validation_fraction, root)


class TrainingData:
    """The samples of one experiment; they are loaded when first needed.

    Args:
        device: where images, labels and batches are kept.
    """

    def __init__(
        self, experiment: Experiment, store: Store, console: Console, device: torch.device
    ) -> None:
        self.experiment = experiment
        self.store = store
        self.console = console
        self.device = device
        self.precision = resolved_precision(experiment.training.precision, device.type)
        self._stored: dict[Path, StoredInputs | None] = {}

    @cached_property
    def dataset(self) -> Dataset:
        """The dataset, its training labels made wrong where the experiment asks for it."""
        section = self.experiment.data
        data = _load_once(section.dataset, section.validation_fraction, data_root())
        noise = section.label_noise
        labels = data.train.labels
        if noise and noise.file:
            labels = labels_from_file(
                self.experiment.file(noise.file),
                noise.key,
                data.train.index,
                data.info.classes,
                data.official_count,
            )
        if noise and noise.symmetric_percent:
            labels = symmetric_noise(
                labels, noise.symmetric_percent / 100, data.info.classes, _NOISE_SEED
            )
        train = replace(data.train, labels=labels)
        return replace(data, info=self.experiment.info, train=train)

    def images(
        self, split: Split, seed: int = 0, augment: bool = False, equilibrium: bool = False
    ) -> ImageInputs:
        """Images of a split, where they are trained on or scored."""
        return ImageInputs(split, self.dataset.info, augment, seed, equilibrium, self.device)

    def inputs(
        self, split: str, seed: int, network: MultiExitNetwork, equilibrium: bool = False
    ) -> Inputs:
        """What exits are trained on (``train``) or scored on (any split without augmentation)."""
        samples: Split = getattr(self.dataset, split)
        training = self.experiment.training
        if keys.reads_stored_activations(self.experiment):
            stored = self._activations(split, samples, seed, network)
            if stored:
                return stored
        augment = split == "train" and training.augment
        return self.images(samples, seed, augment, equilibrium)

    def plain(self, seed: int, network: MultiExitNetwork) -> Inputs:
        """The training samples without augmentation."""
        if self.experiment.training.augment:
            return self.images(self.dataset.train)
        return self.inputs("train", seed, network)

    def _activations(
        self, split: str, samples: Split, seed: int, network: MultiExitNetwork
    ) -> StoredInputs | None:
        """The frozen backbone's activations, or None where the limit has no room for them."""
        dtype = _stored_as(split)
        name = str(dtype).removeprefix("torch.")
        made_from = keys.activations_key(self.experiment, seed, split, name)
        opened = self.store.path("activations", made_from)
        if opened not in self._stored:
            self._stored[opened] = self._open_activations(split, samples, network, made_from, dtype)
        return self._stored[opened]

    def _open_activations(
        self,
        split: str,
        samples: Split,
        network: MultiExitNetwork,
        made_from: dict[str, Any],
        dtype: torch.dtype,
    ) -> StoredInputs | None:
        size = sum(
            store_bytes(network, len(getattr(self.dataset, name)), _stored_as(name))
            for name in ("train", "validation", "test")
        )
        limit = self.experiment.training.activation_store_gb * 1e9
        if size > limit:
            if split == "train":
                self.console.note(
                    f"activations of all images would take {size / 1e9:.1f} GB, more than "
                    f"training.activation_store_gb ({limit / 1e9:g}): the frozen backbone runs "
                    "anew at every step"
                )
            return None
        # The arithmetic of a training that would run the frozen backbone at every step.
        autocast = dtype == torch.bfloat16 and self.precision == "bf16"

        def make() -> None:
            with (
                self.console.task(f"activations, {split}", len(samples)) as update,
                self.store.make("activations", made_from) as folder,
            ):
                compute_activations(
                    network, samples, self.dataset.info, folder, dtype, update, autocast
                )

        if not _whole(self.store, made_from):
            self.store.find_or_make("activations", made_from, make)
        folder = self.store.path("activations", made_from)
        return StoredInputs(folder, samples.labels, self.device)


def _stored_as(split: str) -> torch.dtype:
    return torch.bfloat16 if split == "train" else torch.float32


#: Folders of activations that this process has read through, with the time of their description.
_READ_THROUGH: dict[Path, int] = {}


def _whole(store: Store, made_from: dict[str, Any]) -> bool:
    """Whether activations are in the store, undamaged.

    They are hashed once in a process: a study opens the same gigabytes for every training.
    """
    folder = store.path("activations", made_from)
    try:
        described = (folder / DESCRIPTION).stat().st_mtime_ns
    except OSError:
        return False
    if _READ_THROUGH.get(folder) != described:
        if not store.find("activations", made_from):
            return False
        _READ_THROUGH[folder] = described
    return True
