"""What an experiment's training steps are run with, whatever they train."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from models.training.pacing import PACING_FUNCTIONS, PacingFunction
from models.training.train import OnStep, TrainingSettings
from offramp.console import Console
from offramp.experiment import Experiment
from offramp.schema import PacingSection


def training_settings(experiment: Experiment) -> TrainingSettings:
    """The settings that every strategy of an experiment shares."""
    training = experiment.training
    return TrainingSettings(
        batch_size=training.batch_size,
        learning_rate=training.learning_rate,
        momentum=training.momentum,
        weight_decay=training.weight_decay,
        warm_up_fraction=training.warm_up_fraction,
        loss=training.loss,
        exit_weights=tuple(training.exit_weights),
        precision=training.precision,
        evaluations=training.evaluations,
    )


def pacing_function(section: PacingSection) -> PacingFunction:
    """The pacing function that an experiment names."""
    arguments: dict[str, Any] = {"start_fraction": section.start_fraction}
    if section.function == "varied_exponential":
        arguments["increases_at"] = tuple(section.increases_at)
    else:
        arguments["full_at"] = section.full_at
    if section.function in ("fixed_exponential", "varied_exponential"):
        arguments["increase"] = section.increase
    pacing: PacingFunction = PACING_FUNCTIONS[section.function](**arguments)
    return pacing


@contextmanager
def random_numbers(seed: int) -> Iterator[None]:
    """What dropout draws: the same for all arms, whatever the process did before."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        yield


@contextmanager
def steps_shown(console: Console, description: str, total: int, done: int = 0) -> Iterator[OnStep]:
    """Show how many of ``total`` steps are done; the yielded function is told after each.

    Args:
        done: how many are done already.
    """
    with console.task(description, total, done) as update:
        yield lambda step, loss: update(step)
