"""The training stage: every strategy and seed of an experiment, each an artefact of its own."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from models.artifacts import write_predictions
from models.checkpoint import Origin, load_checkpoint, save_checkpoint
from models.data.datasets import Dataset
from models.data.inputs import Inputs
from models.errors import CheckpointError
from models.inference.predicting import predict
from models.networks.multi_exit import MultiExitNetwork
from models.training.pacing import paced_batches
from models.training.regimes import Phase, backbone_phase
from models.training.strategies import RANKED_STRATEGIES, sample_order, strategy_pacing
from models.training.train import (
    DivergedError,
    OnStep,
    TrainingCurve,
    TrainingSettings,
    counted_from,
    train,
)
from offramp.console import Console
from offramp.experiment import Experiment
from offramp.schema import Strategy
from offramp.stages import keys
from offramp.stages.device import device_of
from offramp.stages.layout import CHECKPOINT, PREDICTIONS
from offramp.stages.scoring import Scoring
from offramp.stages.starting_networks import StartingNetworks
from offramp.stages.steps import pacing_function, random_numbers, steps_shown, training_settings
from offramp.stages.training_data import TrainingData
from offramp.stages.unfinished import UnfinishedTraining
from offramp.store import Store


def run_training(
    experiment: Experiment, store: Store, console: Console
) -> Iterator[tuple[str, int, Path]]:
    """Train whatever the experiment needs and the store lacks, and predict the test set.

    Yields strategy, seed and folder of each network once it is in the store.
    """
    stage = TrainingStage(experiment, store, console)
    training = experiment.training
    torch.set_num_threads(training.threads or os.cpu_count() or 1)
    if training.scoring.function == "c_score" and training.needs_scores:
        # Says what is wrong with the file before anything is trained.
        stage.scoring.published_scores()
    for strategy, seed, made_from in keys.trained_networks(experiment):
        if store.find("trained", made_from):
            continue
        make = partial(stage.make_network, strategy, seed, made_from)
        yield strategy, seed, store.find_or_make("trained", made_from, make)


class TrainingStage:
    """What the trainings of one experiment share."""

    def __init__(self, experiment: Experiment, store: Store, console: Console) -> None:
        self.experiment = experiment
        self.store = store
        self.console = console
        self.settings = training_settings(experiment)
        self.device = device_of(experiment.training.device)
        self.samples = TrainingData(experiment, store, console, self.device)
        self.networks = StartingNetworks(experiment, store, self.device, self._train_backbone)
        self.scoring = Scoring(experiment, store, console, self.samples, self.networks)

    @property
    def data(self) -> Dataset:
        """The dataset, its training labels made wrong where the experiment asks for it."""
        return self.samples.dataset

    def inputs(
        self, split: str, seed: int, network: MultiExitNetwork, equilibrium: bool = False
    ) -> Inputs:
        """What exits are trained on (``train``) or scored on (any split without augmentation)."""
        return self.samples.inputs(split, seed, network, equilibrium)

    def plain(self, seed: int, network: MultiExitNetwork) -> Inputs:
        """The training samples without augmentation."""
        return self.samples.plain(seed, network)

    def initial_network(self, seed: int) -> tuple[MultiExitNetwork, bool]:
        """The weights that every strategy starts from, and whether the last exit has its own."""
        return self.networks.of_seed(seed)

    def easiness(self, seed: int, network: MultiExitNetwork, whole: bool) -> NDArray[np.float64]:
        """Difficulty scores for one seed, (N,) or (N, exits)."""
        return self.scoring.easiness(seed, network, whole)

    # --- training ------------------------------------------------------------------------------

    def make_network(self, strategy: Strategy, seed: int, made_from: dict[str, Any]) -> None:
        """Store one network of the experiment: trained, or from the file that the user named."""
        training = self.experiment.training
        if training.checkpoints:
            name = training.checkpoints[strategy][training.seed_list.index(seed)]
            file = self.experiment.file(name)
            self.predict_named_checkpoint(strategy, seed, file, made_from)
        else:
            self.train_network(strategy, seed, made_from)

    def train_network(self, strategy: str, seed: int, made_from: dict[str, Any]) -> None:
        """Train one network and store it with its predictions."""
        training = self.experiment.training
        ranked = strategy in RANKED_STRATEGIES
        network, whole = self.initial_network(seed)
        easiness = self.easiness(seed, network, whole) if ranked else None
        parts = self.networks.phases(whole, ranked)
        origin = partial(self._origin, strategy, seed)
        with (
            self._kept(network, origin, made_from) as unfinished,
            self._shown(f"train {strategy}, seed {seed}", parts, unfinished) as on_step,
        ):
            curve = self._train_phases(
                network,
                parts,
                strategy,
                easiness,
                lambda: self.inputs("train", seed, network, training.gradient_equilibrium),
                self.inputs("validation", seed, network),
                self.settings,
                seed,
                on_step,
                unfinished,
            )
        self._store_trained(made_from, network, origin(training.steps, curve))
        unfinished.forget()

    def _train_backbone(
        self, network: MultiExitNetwork, seed: int, made_from: dict[str, Any]
    ) -> None:
        """Train the backbone of ``network`` with its own classifier, and store it."""
        training = self.experiment.training
        phase = backbone_phase(network.exit_count, training.backbone_steps or training.steps)
        origin = partial(self._origin, "standard", seed, regime="backbone")
        with (
            self._kept(network, origin, made_from) as unfinished,
            self._shown(f"train backbone, seed {seed}", [phase], unfinished) as on_step,
        ):
            curve = self._train_phases(
                network,
                [phase],
                "standard",
                None,
                lambda: self.samples.images(self.data.train, seed, training.augment),
                self.samples.images(self.data.validation),
                replace(self.settings, loss="cross_entropy", exit_weights=()),
                seed,
                on_step,
                unfinished,
            )
        with self.store.make("backbone", made_from) as folder:
            save_checkpoint(folder / CHECKPOINT, network, origin(phase.steps, curve))
        unfinished.forget()

    def _shown(
        self, description: str, parts: list[Phase], unfinished: UnfinishedTraining
    ) -> AbstractContextManager[OnStep]:
        total = sum(phase.steps for phase in parts)
        return steps_shown(self.console, description, total, unfinished.steps_done(parts))

    @contextmanager
    def _kept(
        self,
        network: MultiExitNetwork,
        origin: Callable[[int, TrainingCurve], Origin],
        made_from: dict[str, Any],
    ) -> Iterator[UnfinishedTraining]:
        """What a training keeps: its state, to go on from, and the last good one if it diverges."""
        unfinished = UnfinishedTraining(self.store, made_from, self.console)
        try:
            yield unfinished
        except DivergedError as error:
            unfinished.forget()
            self.store.discard("diverged", made_from)
            with self.store.make("diverged", made_from) as folder:
                save_checkpoint(
                    folder / CHECKPOINT, network, origin(error.good_step, TrainingCurve())
                )
            kept = self.store.path("diverged", made_from) / CHECKPOINT
            raise DivergedError(
                f"{error}\nthe network after step {error.good_step}, the last known to be good, "
                f"is {kept}",
                error.good_step,
            ) from error

    def _train_phases(
        self,
        network: MultiExitNetwork,
        parts: list[Phase],
        strategy: str,
        easiness: NDArray[np.float64] | None,
        make_inputs: Callable[[], Inputs],
        validation: Inputs,
        settings: TrainingSettings,
        seed: int,
        on_step: OnStep,
        unfinished: UnfinishedTraining,
    ) -> TrainingCurve:
        pacing = strategy_pacing(strategy, pacing_function(self.experiment.training.pacing))
        curve, done = unfinished.curve, 0
        separate = len({phase.steps for phase in parts}) == 1 and not any(
            phase.segments for phase in parts
        )
        for number, phase in enumerate(parts):
            if number < unfinished.phase:
                done += phase.steps
                continue
            ranking = easiness
            if easiness is not None and easiness.ndim == 2:
                ranking = easiness[:, max(phase.exits) - 1]
            batches = paced_batches(
                sample_order(strategy, self.data.train.labels, ranking, seed),
                pacing,
                phase.steps,
                settings.batch_size,
                np.random.default_rng([seed, 0, 0 if separate else number]),
            )
            # Anew for each phase: exits that are trained one by one see the same augmentation.
            inputs = make_inputs()
            try:
                with random_numbers(seed if separate else seed + number * 2**31):
                    trained = train(
                        network,
                        phase,
                        batches,
                        inputs,
                        validation,
                        settings,
                        counted_from(done, on_step),
                        unfinished.of_phase(number, curve),
                    )
            except DivergedError as error:
                raise DivergedError(str(error), done + error.good_step) from error
            if separate:
                curve.take_exits(trained, phase.exits)
            else:
                curve.append(trained, done)
            done += phase.steps
        return curve

    # --- results -------------------------------------------------------------------------------

    def predict_named_checkpoint(
        self, strategy: str, seed: int, file: Path, made_from: dict[str, Any]
    ) -> None:
        """Store the predictions of a checkpoint file that the user named."""
        experiment = self.experiment
        network, origin = load_checkpoint(file, experiment.folder)
        network = network.to(self.device)
        if origin.architecture != experiment.architecture:
            raise CheckpointError(
                f"{file}: made for another network: {origin.architecture}; "
                f"the scenario describes {experiment.architecture}"
            )
        if origin.dataset != experiment.data.dataset:
            raise CheckpointError(
                f"{file}: trained on {origin.dataset}, but the scenario's dataset is "
                f"{experiment.data.dataset}"
            )
        if origin.strategy != strategy:
            raise CheckpointError(
                f"{file}: trained with strategy {origin.strategy!r}, "
                f"but the scenario lists it under {strategy!r}"
            )
        if origin.regime != experiment.training.regime:
            raise CheckpointError(
                f"{file}: trained {origin.regime}, but the scenario's regime is "
                f"{experiment.training.regime}"
            )
        if origin.seed != seed:
            raise CheckpointError(
                f"{file}: trained with seed {origin.seed}, but the scenario lists it as seed "
                f"{seed}: strategies are compared seed by seed (training.seeds)"
            )
        if origin.steps != experiment.training.steps:
            self.console.note(
                f"warning: {file}: trained for {origin.steps} steps, and the scenario says "
                f"{experiment.training.steps} (training.steps): compare strategies of equal steps"
            )
        predictions = predict(
            network, origin, self.samples.images(self.data.test), self.data.test, "test"
        )
        with self.store.make("trained", made_from) as folder:
            save_checkpoint(folder / CHECKPOINT, network, origin)
            write_predictions(folder / PREDICTIONS, predictions)

    def _origin(
        self, strategy: str, seed: int, steps: int, curve: TrainingCurve, regime: str = ""
    ) -> Origin:
        return Origin(
            self.experiment.architecture,
            self.experiment.data.dataset,
            regime or self.experiment.training.regime,
            strategy,
            seed,
            steps,
            curve,
        )

    def _store_trained(
        self, made_from: dict[str, Any], network: MultiExitNetwork, origin: Origin
    ) -> None:
        test = self.inputs("test", origin.seed, network)
        predictions = predict(network, origin, test, self.data.test, "test")
        with self.store.make("trained", made_from) as folder:
            save_checkpoint(folder / CHECKPOINT, network, origin)
            write_predictions(folder / PREDICTIONS, predictions)
