"""The training stage: every strategy and seed of a scenario, each an artefact of its own."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from models.artifacts import write_predictions
from models.checkpoint import Origin, load_checkpoint, save_checkpoint
from models.datasets import Dataset, load_dataset
from models.difficulty import CrossFittedScoring, cross_fitted_easiness
from models.errors import CheckpointError
from models.multi_exit import MultiExitNetwork, build_network
from models.pacing import FixedExponentialPacing, paced_batches
from models.predicting import predict
from models.strategies import RANKED_STRATEGIES, sample_order, strategy_pacing
from models.training import TrainingCurve, TrainingSettings, train
from offramp.console import Console
from offramp.scenario import LoadedScenario
from offramp.schema import Scenario
from offramp.stages import keys
from offramp.stages.layout import CHECKPOINT, PREDICTIONS, SCORES
from offramp.store import Store


def run_training(
    loaded: LoadedScenario, store: Store, console: Console
) -> Iterator[tuple[str, int, Path]]:
    """Train whatever the scenario needs and the store lacks, and predict the test set.

    Yields strategy, seed and folder of each network once it is in the store.
    """
    stage = _TrainingStage(loaded.scenario, store, console)
    training = loaded.scenario.training
    torch.set_num_threads(training.threads or os.cpu_count() or 1)
    for strategy, seed, made_from in keys.trained_networks(loaded):
        if store.find("trained", made_from):
            continue
        if training.checkpoints:
            index = training.seed_list.index(seed)
            file = loaded.folder / training.checkpoints[strategy][index]
            stage.predict_named_checkpoint(strategy, seed, file, made_from)
        else:
            stage.train_network(strategy, seed, made_from)
        yield strategy, seed, store.path("trained", made_from)


def training_settings(scenario: Scenario) -> TrainingSettings:
    """The settings that every strategy of a scenario shares."""
    training = scenario.training
    return TrainingSettings(
        steps=training.steps,
        batch_size=training.batch_size,
        learning_rate=training.learning_rate,
        momentum=training.momentum,
        weight_decay=training.weight_decay,
        warm_up_fraction=training.warm_up_fraction,
        exit_weights=tuple(training.exit_weights),
        augment=training.augment,
        precision=training.precision,
        evaluations=training.evaluations,
    )


def scenario_pacing(scenario: Scenario) -> FixedExponentialPacing:
    """The pacing function that a scenario names."""
    pacing = scenario.training.pacing
    return FixedExponentialPacing(pacing.start_fraction, pacing.increase, pacing.full_at)


class _TrainingStage:
    """What the trainings of one scenario share; the data is loaded when first needed."""

    def __init__(self, scenario: Scenario, store: Store, console: Console) -> None:
        self.scenario = scenario
        self.store = store
        self.console = console
        self.architecture = keys.scenario_architecture(scenario)
        self.settings = training_settings(scenario)
        self._data: Dataset | None = None

    @property
    def data(self) -> Dataset:
        if self._data is None:
            data = self.scenario.data
            self._data = load_dataset(data.dataset, data.validation_fraction)
        return self._data

    def train_network(self, strategy: str, seed: int, made_from: dict[str, Any]) -> None:
        """Train one network and store it with its predictions."""
        easiness = self.easiness(seed) if strategy in RANKED_STRATEGIES else None
        network = self.initial_network(seed)
        regime = self.scenario.training.regime
        with self._progress(f"train {strategy}, seed {seed}", self.settings.steps) as on_step:
            curve = self._train(network, regime, strategy, easiness, seed, on_step)
        self._store_trained(made_from, network, self._origin(regime, strategy, seed, curve))

    def predict_named_checkpoint(
        self, strategy: str, seed: int, file: Path, made_from: dict[str, Any]
    ) -> None:
        """Store the predictions of a checkpoint file that the user named."""
        network, origin = load_checkpoint(file)
        if origin.architecture != self.architecture:
            raise CheckpointError(
                f"{file}: made for another network: {origin.architecture}; "
                f"the scenario describes {self.architecture}"
            )
        if origin.dataset != self.scenario.data.dataset:
            raise CheckpointError(
                f"{file}: trained on {origin.dataset}, but the scenario's dataset is "
                f"{self.scenario.data.dataset}"
            )
        if origin.strategy != strategy:
            raise CheckpointError(
                f"{file}: trained with strategy {origin.strategy!r}, "
                f"but the scenario lists it under {strategy!r}"
            )
        if origin.regime != self.scenario.training.regime:
            raise CheckpointError(
                f"{file}: trained {origin.regime}, but the scenario's regime is "
                f"{self.scenario.training.regime}"
            )
        if origin.seed != seed:
            raise CheckpointError(
                f"{file}: trained with seed {origin.seed}, but the scenario lists it as seed "
                f"{seed}: strategies are compared seed by seed (training.seeds)"
            )
        self._store_trained(made_from, network, origin)

    def initial_network(self, seed: int) -> MultiExitNetwork:
        """The weights that every strategy starts from."""
        if self.scenario.training.regime != "classifier_wise":
            return build_network(self.architecture, seed)
        made_from = keys.backbone_key(self.scenario, seed)
        found = self.store.find("backbone", made_from)
        if not found:
            network = build_network(self.architecture, seed)
            with self._progress(f"train backbone, seed {seed}", self.settings.steps) as on_step:
                curve = self._train(network, "backbone", "standard", None, seed, on_step)
            with self.store.make("backbone", made_from) as folder:
                origin = self._origin("backbone", "standard", seed, curve)
                save_checkpoint(folder / CHECKPOINT, network, origin)
            found = self.store.path("backbone", made_from)
        return load_checkpoint(found / CHECKPOINT)[0]

    def easiness(self, seed: int) -> NDArray[np.float64]:
        """Difficulty scores for one seed, an artefact of their own."""
        made_from = keys.scores_key(self.scenario, seed)
        found = self.store.find("scores", made_from)
        if not found:
            spec = self.scenario.training.scoring
            scoring = CrossFittedScoring(spec.folds, spec.steps)
            total = scoring.folds * scoring.steps
            with self._progress(f"score difficulty, seed {seed}", total) as on_step:
                scores = cross_fitted_easiness(
                    self.architecture,
                    self.data.train,
                    self.data.info,
                    self.settings,
                    scoring,
                    seed,
                    on_step,
                )
            with self.store.make("scores", made_from) as folder:
                np.save(folder / SCORES, scores, allow_pickle=False)
            found = self.store.path("scores", made_from)
        easiness: NDArray[np.float64] = np.load(found / SCORES, allow_pickle=False)
        return easiness

    def _train(
        self,
        network: MultiExitNetwork,
        regime: str,
        strategy: str,
        easiness: NDArray[np.float64] | None,
        seed: int,
        on_step: Callable[[int, float], None],
    ) -> TrainingCurve:
        data = self.data
        batches = paced_batches(
            sample_order(strategy, data.train.labels, easiness, seed),
            strategy_pacing(strategy, scenario_pacing(self.scenario)),
            self.settings.steps,
            self.settings.batch_size,
            np.random.default_rng([seed, 0]),
        )
        return train(
            network,
            regime,
            batches,
            data.train,
            data.validation,
            data.info,
            self.settings,
            seed,
            on_step,
        )

    def _origin(self, regime: str, strategy: str, seed: int, curve: TrainingCurve) -> Origin:
        dataset = self.scenario.data.dataset
        return Origin(
            self.architecture, dataset, regime, strategy, seed, self.settings.steps, curve
        )

    def _store_trained(
        self, made_from: dict[str, Any], network: MultiExitNetwork, origin: Origin
    ) -> None:
        predictions = predict(network, origin, self.data.test, "test", self.data.info)
        with self.store.make("trained", made_from) as folder:
            save_checkpoint(folder / CHECKPOINT, network, origin)
            write_predictions(folder / PREDICTIONS, predictions)

    @contextmanager
    def _progress(self, description: str, total: int) -> Iterator[Callable[[int, float], None]]:
        with self.console.task(description, total) as update:
            yield lambda step, loss: update(step)
