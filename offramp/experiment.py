"""An experiment: the part of a scenario, or of a study, that trains networks."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from models.brought_files import brought_file
from models.data.datasets import DATASETS, DatasetInfo
from models.errors import ScenarioError
from models.networks.architecture import Architecture, code_hash, default_exits
from offramp.schema import DataSection, FlopsShares, ModelSection, TrainingSection


@dataclass(frozen=True)
class Experiment:
    """Data, network and training; files they name are relative to ``folder``."""

    data: DataSection
    model: ModelSection
    training: TrainingSection
    folder: Path

    @cached_property
    def info(self) -> DatasetInfo:
        """The dataset, normalised as asked."""
        info = DATASETS[self.data.dataset]
        return replace(
            info,
            mean=tuple(self.data.mean or info.mean),
            std=tuple(self.data.std or info.std),
        )

    @cached_property
    def architecture(self) -> Architecture:
        """The network."""
        return architecture_of(self.model, self.info, self.folder)

    def file(self, name: str) -> Path:
        """A file that a key names."""
        return user_file(name, self.folder)


def architecture_of(model: ModelSection, info: DatasetInfo, folder: Path) -> Architecture:
    """The network that a model section describes, for a dataset's images."""
    exits: tuple[str, ...] | tuple[float, ...]
    if model.exits is None:
        exits = default_exits(model.backbone)
    elif isinstance(model.exits, FlopsShares):
        exits = tuple(model.exits.at_flops)
    else:
        exits = tuple(model.exits)
    try:
        code = code_hash(model.backbone, folder)
    except (OSError, ValueError):
        code = ""  # building the network says what is wrong
    return Architecture(
        backbone=model.backbone,
        exits=exits,
        branch=model.branch,
        classes=info.classes,
        input_shape=info.input_shape,
        resize=model.resize,
        code=code,
        folder=folder,
    )


def user_file(name: str, folder: Path) -> Path:
    """A file that a user named: ``~`` and ``$VARIABLES`` are expanded, the rest is in ``folder``.

    Raises:
        ScenarioError: a variable is not set.
    """
    brought = brought_file(name, folder)
    if brought:
        return brought
    expanded = os.path.expanduser(os.path.expandvars(name))
    if "$" in expanded:
        variable = expanded[expanded.index("$") :].split("/")[0]
        raise ScenarioError(f"{name}: the environment variable {variable} is not set")
    return folder / expanded
