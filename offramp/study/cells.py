"""The trainings of a study: one for each configuration, strategy and seed."""

from __future__ import annotations

from dataclasses import dataclass

from offramp.stages import keys
from offramp.store import content_key
from offramp.study.definition import Configuration, Study


@dataclass(frozen=True)
class Cell:
    """One training of a study.

    Attributes:
        made_from: key of the trained network in the store.
        asked: the same without what differs between hosts, such as versions and precision.
        computed_by: these.
    """

    configuration: Configuration
    strategy: str
    seed: int
    made_from: str
    asked: str
    computed_by: str


def cells(study: Study) -> list[Cell]:
    """Every training of a study, seed by seed, so that a stopped study has seeds that are whole."""
    found = []
    for configuration in study.configurations:
        experiment = configuration.experiment
        here = keys.computed_by(experiment)
        for strategy, seed, made_from in keys.trained_networks(experiment):
            asked = content_key(keys.asked_key(experiment, made_from))
            found.append(Cell(configuration, strategy, seed, content_key(made_from), asked, here))
    return sorted(found, key=lambda cell: cell.seed)


def by_training(wanted: list[Cell]) -> dict[str, list[Cell]]:
    """Cells by what they are made from: configurations may share a training, such as standard's."""
    trainings: dict[str, list[Cell]] = {}
    for cell in wanted:
        trainings.setdefault(cell.made_from, []).append(cell)
    return trainings
