"""What a worker does before points can be simulated: it trains networks, and predicts with them.

Each of these makes one artefact, if the store lacks it. torch is imported when one is called.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from models.errors import error_text
from models.files import is_disk_full
from offramp.console import Console
from offramp.scenario import LoadedScenario
from offramp.schema import Strategy
from offramp.stages import keys
from offramp.store import Store
from offramp.sweep.point import Context

if TYPE_CHECKING:
    from offramp.stages.training import TrainingStage


@dataclass(frozen=True)
class Made:
    """How making an artefact ended.

    Attributes:
        error: why it failed.
        disk_full: whether that was for want of room, which has nothing to do with the artefact.
        died: whether that was since workers ended each time it was tried.
    """

    error: str | None = None
    disk_full: bool = False
    died: bool = False


def prepare_backbone(context: Context, values: dict[str, Any], seed: int) -> Made:
    """Make a frozen backbone and its activations.

    Args:
        values: of swept keys, by key, as for the others.
    """

    def make(stage: TrainingStage) -> None:
        network, _ = stage.initial_network(seed)
        for split in ("train", "validation", "test"):
            stage.inputs(split, seed, network)

    return _made(context, values, make)


def prepare_scores(context: Context, values: dict[str, Any], seed: int) -> Made:
    """Score the training samples."""

    def make(stage: TrainingStage) -> None:
        network, whole = stage.initial_network(seed)
        stage.easiness(seed, network, whole)

    return _made(context, values, make)


def train_network(context: Context, values: dict[str, Any], strategy: Strategy, seed: int) -> Made:
    """Train a network, or take it from the file that the scenario names, and predict the test set.

    On one thread, unless the scenario says otherwise: the network does not depend on how many are
    trained at a time.
    """

    def make(stage: TrainingStage) -> None:
        made_from = _network_key(stage, strategy, seed)
        stage.store.find_or_make(
            "trained", made_from, lambda: stage.make_network(strategy, seed, made_from)
        )

    return _made(context, values, make)


def predict_validation(
    context: Context, values: dict[str, Any], strategy: Strategy, seed: int
) -> Made:
    """Predict the validation split with a network that is trained."""

    def make(stage: TrainingStage) -> None:
        from offramp.stages.validating import ValidationStage

        validation = ValidationStage(stage.experiment, stage.store, stage.console)
        validation.predict(_network_key(stage, strategy, seed))

    return _made(context, values, make)


def _network_key(stage: TrainingStage, strategy: str, seed: int) -> dict[str, Any]:
    networks = keys.trained_networks(stage.experiment)
    return next(made_from for name, of, made_from in networks if (name, of) == (strategy, seed))


def _made(context: Context, values: dict[str, Any], make: Callable[[TrainingStage], None]) -> Made:
    try:
        make(_stage(context.scenario_with(values), Store(context.store_root)))
    except (Exception, SystemExit) as error:  # a network of the user's own may do anything
        return Made(error_text(error), is_disk_full(error))
    return Made()


def _stage(loaded: LoadedScenario, store: Store) -> TrainingStage:
    import torch

    from offramp.stages.network import check_network
    from offramp.stages.training import TrainingStage

    torch.set_num_threads(loaded.scenario.training.threads or 1)
    check_network(loaded.experiment, loaded.error_at)
    return TrainingStage(loaded.experiment, store, Console(quiet=True))
