"""The network that every arm of a seed starts from, and the phases that it is then trained in."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from models.checkpoint import load_checkpoint
from models.errors import TrainingError
from models.networks.multi_exit import MultiExitNetwork
from models.training.regimes import Phase, exit_by_exit, phases, with_last_classifier
from offramp.experiment import Experiment
from offramp.stages import keys
from offramp.stages.layout import CHECKPOINT
from offramp.stages.network import starting_network
from offramp.store import Store


class StartingNetworks:
    """The starting networks of one experiment.

    Args:
        train_backbone: trains the backbone of a fresh network for a seed, and puts it into the
            store as what it is made from.
    """

    def __init__(
        self,
        experiment: Experiment,
        store: Store,
        device: torch.device,
        train_backbone: Callable[[MultiExitNetwork, int, dict[str, Any]], None],
    ) -> None:
        self.experiment = experiment
        self.store = store
        self.device = device
        self.train_backbone = train_backbone

    def of_seed(self, seed: int) -> tuple[MultiExitNetwork, bool]:
        """The weights that every strategy starts from, and whether the last exit has its own."""
        experiment = self.experiment
        network, whole = starting_network(experiment, seed)
        if experiment.model.weights or experiment.training.regime != "classifier_wise":
            return network.to(self.device), whole
        made_from = keys.backbone_key(experiment, seed)
        found = self.store.find_or_make(
            "backbone",
            made_from,
            lambda: self.train_backbone(network.to(self.device), seed, made_from),
        )
        network, _ = load_checkpoint(found / CHECKPOINT, experiment.folder)
        return network.to(self.device), True

    def phases(self, whole: bool, ranked: bool) -> list[Phase]:
        """The phases of a training.

        Args:
            whole: the last exit has weights of its own already.
            ranked: the order of samples comes from a score.
        """
        training = self.experiment.training
        exit_count = self.experiment.architecture.exit_count
        parts = phases(training.regime, exit_count, training.steps)
        if training.regime == "classifier_wise":
            (phase,) = parts
            if not whole:
                phase = with_last_classifier(phase, exit_count)
            if not training.scoring.per_exit:
                return [phase]
            if not whole and training.loss != "cross_entropy":
                raise TrainingError(
                    f"loss {training.loss} with training.scoring.per_exit needs a last exit that "
                    f"is trained already; {self.experiment.model.weights} has none for these "
                    "classes"
                )
            return exit_by_exit(phase) if ranked else [phase]
        return parts
