"""Every file that a scenario names, code of the user's own included."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from models.importing import source_file
from models.networks.architecture import IMAGENET
from offramp.experiment import user_file
from offramp.schema import ModelSection, Scenario, TrainingSection
from offramp.schema.places import files_in
from sim.policies import POLICIES

if TYPE_CHECKING:
    from offramp.scenario import LoadedScenario

#: Packages whose code a version tells apart.
_VERSIONED = ("torch", "torchvision", "models", "sim", "devices", "offramp")


@dataclass(frozen=True)
class NamedFile:
    """A file that a key names.

    Attributes:
        name: as it is written in the scenario.
        path: where it lies.
        is_code: whether the name is an import path.
    """

    name: str
    path: Path
    is_code: bool = False


def named_files(loaded: LoadedScenario) -> dict[str, NamedFile]:
    """What the world and the training are read from, by the dotted key that names it.

    Of code, the file that holds the class; what it imports is not in it.

    Raises:
        ScenarioError: an environment variable in a name is not set.
    """
    scenario, folder = loaded.scenario, loaded.folder
    found = {
        ".".join(map(str, place)): NamedFile(name, user_file(name, folder))
        for place, name in files_in(scenario)
    }
    for key, name in _training_files(scenario.model, scenario.training):
        found[key] = NamedFile(name, user_file(name, folder))
    noise = scenario.data.label_noise
    if noise and noise.file:
        found["data.label_noise.file"] = NamedFile(noise.file, user_file(noise.file, folder))
    return found | _code(scenario, folder)


def policy_code(scenario: Scenario, folder: Path) -> dict[str, NamedFile]:
    """The files that hold the user's own policies, by key."""
    return {
        f"policies.{index}": NamedFile(spec.policy, file, is_code=True)
        for index, spec in enumerate(scenario.policies)
        if spec.policy not in POLICIES and (file := _own_code(spec.policy, folder))
    }


def _own_code(reference: str, folder: Path) -> Path | None:
    """The file that an import path leads to, unless a version says what is in it."""
    if reference.replace(":", ".").split(".")[0] in _VERSIONED:
        return None
    return source_file(reference, folder)


def _training_files(model: ModelSection, training: TrainingSection) -> Iterator[tuple[str, str]]:
    scoring = training.scoring
    for key, name in (
        ("model.weights", model.weights),
        ("training.scoring.weights", scoring.weights),
        ("training.scoring.file", scoring.file),
    ):
        if name is not None and name != IMAGENET:
            yield key, name
    for strategy, names in training.checkpoints.items():
        for index, name in enumerate(names):
            yield f"training.checkpoints.{strategy}.{index}", name


def _code(scenario: Scenario, folder: Path) -> dict[str, NamedFile]:
    found = policy_code(scenario, folder)
    networks = {
        "model.backbone": scenario.model.backbone,
        "training.scoring.backbone": scenario.training.scoring.backbone,
    }
    for key, name in networks.items():
        file = _own_code(name, folder) if name else None
        if name and file:
            found[key] = NamedFile(name, file, is_code=True)
    return found
