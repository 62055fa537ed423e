"""Difficulty scores of an experiment's training samples, each an artefact of its own."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from models.data.published_scores import scores_from_file
from models.errors import TrainingError
from models.networks.multi_exit import MultiExitNetwork, build_network
from models.training.difficulty import (
    early_checkpoint,
    final_exit,
    last_features,
    self_taught,
    transfer,
)
from models.training.regimes import backbone_phase, phases
from offramp.console import Console
from offramp.experiment import Experiment
from offramp.stages import keys
from offramp.stages.layout import SCORES
from offramp.stages.network import no_classifier_to_rank_by, scoring_network
from offramp.stages.starting_networks import StartingNetworks
from offramp.stages.steps import random_numbers, steps_shown, training_settings
from offramp.stages.training_data import TrainingData
from offramp.store import Store


class Scoring:
    """Scores the training samples of one experiment, as its scoring function says."""

    def __init__(
        self,
        experiment: Experiment,
        store: Store,
        console: Console,
        data: TrainingData,
        networks: StartingNetworks,
    ) -> None:
        self.experiment = experiment
        self.store = store
        self.console = console
        self.data = data
        self.networks = networks

    def easiness(self, seed: int, network: MultiExitNetwork, whole: bool) -> NDArray[np.float64]:
        """Difficulty scores for one seed, (N,) or (N, exits): an artefact of their own."""
        made_from = keys.scores_key(self.experiment, seed)

        def make() -> None:
            scores = self._score(seed, network, whole)
            with self.store.make("scores", made_from) as folder:
                np.save(folder / SCORES, scores, allow_pickle=False)

        found = self.store.find_or_make("scores", made_from, make)
        easiness: NDArray[np.float64] = np.load(found / SCORES, allow_pickle=False)
        return easiness

    def _score(self, seed: int, network: MultiExitNetwork, whole: bool) -> NDArray[np.float64]:
        scoring = self.experiment.training.scoring
        data = self.data.dataset
        if scoring.function == "c_score":
            return self.published_scores()
        if scoring.function == "final_exit":
            if not whole:
                raise TrainingError(no_classifier_to_rank_by(self.experiment))
            return final_exit(network, self.data.plain(seed, network))
        if scoring.function == "transfer":
            other = scoring_network(self.experiment).to(self.data.device)
            features = last_features(other, self.data.images(data.train))
            return transfer(features, data.train.labels, scoring.folds, seed=0)
        return self._score_by_training(seed, network, whole)

    def published_scores(self) -> NDArray[np.float64]:
        """The scores in the file that the experiment names."""
        scoring = self.experiment.training.scoring
        assert scoring.file is not None  # the scenario was checked for it
        file = self.experiment.file(scoring.file)
        data = self.data.dataset
        return scores_from_file(file, scoring.key, data.train.index, data.official_count)

    def _score_by_training(
        self, seed: int, network: MultiExitNetwork, whole: bool
    ) -> NDArray[np.float64]:
        training = self.experiment.training
        scoring = training.scoring
        steps = scoring.steps or training.steps
        frozen = training.regime == "classifier_wise"
        exit_count = network.exit_count
        if frozen:
            # The classifiers are what learns: the last of them stands for the network.
            phase = replace(self.networks.phases(whole, ranked=False)[0], steps=steps)
        elif scoring.per_exit:
            (phase,) = phases("end_to_end", exit_count, steps)
        else:
            phase = backbone_phase(exit_count, steps)
        settings = replace(
            training_settings(self.experiment), loss="cross_entropy", exit_weights=(), evaluations=1
        )
        networks = (
            (lambda: self.networks.of_seed(seed)[0])
            if frozen or self.experiment.model.weights
            else (lambda: build_network(self.experiment.architecture, seed).to(self.data.device))
        )
        inputs, plain = self.data.inputs("train", seed, network), self.data.plain(seed, network)
        parts = scoring.folds if scoring.function == "self_taught" else 1
        with (
            steps_shown(self.console, f"score difficulty, seed {seed}", parts * steps) as on_step,
            random_numbers(seed),
        ):
            if scoring.function == "self_taught":
                margins = self_taught(
                    networks, phase, inputs, plain, settings, scoring.folds, seed, on_step
                )
            else:
                margins = early_checkpoint(networks, phase, inputs, plain, settings, seed, on_step)
        of_last: NDArray[np.float64] = margins[:, max(phase.exits) - 1]
        return margins if scoring.per_exit else of_last
