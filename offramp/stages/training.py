"""The training stage: every strategy and seed of an experiment, each an artefact of its own."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import cached_property, lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from models.activations import StoredInputs, compute_activations, store_bytes
from models.artifacts import write_predictions
from models.checkpoint import Origin, load_checkpoint, save_checkpoint
from models.datasets import Dataset, Split, data_root, load_dataset
from models.difficulty import early_checkpoint, final_exit, last_features, self_taught, transfer
from models.errors import CheckpointError, TrainingError
from models.inputs import ImageInputs, Inputs
from models.label_noise import labels_from_file, symmetric_noise
from models.multi_exit import MultiExitNetwork, build_network
from models.pacing import PACING_FUNCTIONS, PacingFunction, paced_batches
from models.predicting import predict
from models.published_scores import scores_from_file
from models.regimes import Phase, backbone_phase, exit_by_exit, phases, with_last_classifier
from models.strategies import RANKED_STRATEGIES, sample_order, strategy_pacing
from models.training import (
    DivergedError,
    OnStep,
    TrainingCurve,
    TrainingSettings,
    counted_from,
    train,
)
from offramp.console import Console
from offramp.experiment import Experiment
from offramp.schema import PacingSection
from offramp.stages import keys
from offramp.stages.layout import CHECKPOINT, PREDICTIONS, SCORES
from offramp.stages.network import scoring_network, starting_network
from offramp.store import Store

#: The wrong labels are part of the data: all arms and seeds share them.
_NOISE_SEED = 20210719


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
        stage.published_scores()  # says what is wrong with the file before anything is trained
    for strategy, seed, made_from in keys.trained_networks(experiment):
        if store.find("trained", made_from):
            continue
        if training.checkpoints:
            index = training.seed_list.index(seed)
            file = experiment.file(training.checkpoints[strategy][index])
            stage.predict_named_checkpoint(strategy, seed, file, made_from)
        else:
            stage.train_network(strategy, seed, made_from)
        yield strategy, seed, store.path("trained", made_from)


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


@lru_cache(maxsize=1)
def _load_once(name: str, validation_fraction: float, root: Path) -> Dataset:
    """The dataset; a study's experiments follow each other in one process."""
    return load_dataset(name, validation_fraction, root)


def _device(name: str) -> torch.device:
    if name == "cuda" and not torch.cuda.is_available():
        raise TrainingError("training.device is cuda, but torch finds no CUDA device here")
    cuda = name != "cpu" and torch.cuda.is_available()
    return torch.device("cuda" if cuda else "cpu")


@contextmanager
def _random_numbers(seed: int) -> Iterator[None]:
    """What dropout draws: the same for all arms, whatever the process did before."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        yield


class TrainingStage:
    """What the trainings of one experiment share; data is loaded when first needed."""

    def __init__(self, experiment: Experiment, store: Store, console: Console) -> None:
        self.experiment = experiment
        self.store = store
        self.console = console
        self.settings = training_settings(experiment)
        training = experiment.training
        self.device = _device(training.device)
        self._stored: dict[Path, StoredInputs | None] = {}

    # --- data ----------------------------------------------------------------------------------

    @cached_property
    def data(self) -> Dataset:
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

    def _images(
        self, split: Split, seed: int = 0, augment: bool = False, equilibrium: bool = False
    ) -> ImageInputs:
        return ImageInputs(split, self.data.info, augment, seed, equilibrium, self.device)

    def inputs(
        self, split: str, seed: int, network: MultiExitNetwork, equilibrium: bool = False
    ) -> Inputs:
        """What exits are trained on (``train``) or scored on (any split without augmentation)."""
        samples: Split = getattr(self.data, split)
        training = self.experiment.training
        if training.regime == "classifier_wise" and not training.augment:
            stored = self._activations(split, samples, seed, network)
            if stored:
                return stored
        augment = split == "train" and training.augment
        return self._images(samples, seed, augment, equilibrium)

    def plain(self, seed: int, network: MultiExitNetwork) -> Inputs:
        """The training samples without augmentation."""
        if self.experiment.training.augment:
            return self._images(self.data.train)
        return self.inputs("train", seed, network)

    def _activations(
        self, split: str, samples: Split, seed: int, network: MultiExitNetwork
    ) -> StoredInputs | None:
        """The frozen backbone's activations, or None where the limit has no room for them."""
        dtype = torch.bfloat16 if split == "train" else torch.float32
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
        size = store_bytes(network, len(samples), dtype)
        limit = self.experiment.training.activation_store_gb * 1e9
        if size > limit:
            self.console.note(
                f"activations of the {split} images would take {size / 1e9:.1f} GB, more than "
                f"training.activation_store_gb ({limit / 1e9:g}): the frozen backbone runs anew "
                "at every step"
            )
            return None
        if not self.store.find("activations", made_from):
            with (
                self.console.task(f"activations, {split}", len(samples)) as update,
                self.store.make("activations", made_from) as folder,
            ):
                compute_activations(network, samples, self.data.info, folder, dtype, update)
        folder = self.store.path("activations", made_from)
        return StoredInputs(folder, samples.labels, self.device)

    # --- networks ------------------------------------------------------------------------------

    def initial_network(self, seed: int) -> tuple[MultiExitNetwork, bool]:
        """The weights that every strategy starts from, and whether the last exit has its own."""
        experiment = self.experiment
        network, whole = starting_network(experiment, seed)
        if experiment.model.weights or experiment.training.regime != "classifier_wise":
            return network.to(self.device), whole
        made_from = keys.backbone_key(experiment, seed)
        found = self.store.find("backbone", made_from)
        if not found:
            phase = backbone_phase(
                network.exit_count, experiment.training.backbone_steps or experiment.training.steps
            )
            settings = replace(self.settings, loss="cross_entropy", exit_weights=())
            augment = experiment.training.augment
            origin = partial(self._origin, "standard", seed, regime="backbone")
            with (
                self._progress(f"train backbone, seed {seed}", phase.steps) as on_step,
                self._keeping_the_last_good(network, origin, made_from),
            ):
                curve = self._train_phases(
                    network.to(self.device),
                    [phase],
                    "standard",
                    None,
                    lambda: self._images(self.data.train, seed, augment),
                    self._images(self.data.validation),
                    settings,
                    seed,
                    on_step,
                )
            with self.store.make("backbone", made_from) as folder:
                save_checkpoint(folder / CHECKPOINT, network, origin(phase.steps, curve))
            found = self.store.path("backbone", made_from)
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

    def train_network(self, strategy: str, seed: int, made_from: dict[str, Any]) -> None:
        """Train one network and store it with its predictions."""
        training = self.experiment.training
        ranked = strategy in RANKED_STRATEGIES
        network, whole = self.initial_network(seed)
        easiness = self.easiness(seed, network, whole) if ranked else None
        parts = self.phases(whole, ranked)
        total = sum(phase.steps for phase in parts)
        origin = partial(self._origin, strategy, seed)
        with (
            self._progress(f"train {strategy}, seed {seed}", total) as on_step,
            self._keeping_the_last_good(network, origin, made_from),
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
            )
        self._store_trained(made_from, network, origin(training.steps, curve))

    @contextmanager
    def _keeping_the_last_good(
        self,
        network: MultiExitNetwork,
        origin: Callable[[int, TrainingCurve], Origin],
        made_from: dict[str, Any],
    ) -> Iterator[None]:
        """Store the network as it was last known to be good, if its training diverges."""
        try:
            yield
        except DivergedError as error:
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
    ) -> TrainingCurve:
        pacing = strategy_pacing(strategy, pacing_function(self.experiment.training.pacing))
        curve, done = TrainingCurve(), 0
        separate = len({phase.steps for phase in parts}) == 1 and not any(
            phase.segments for phase in parts
        )
        for number, phase in enumerate(parts):
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
                with _random_numbers(seed if separate else seed + number * 2**31):
                    trained = train(
                        network,
                        phase,
                        batches,
                        inputs,
                        validation,
                        settings,
                        counted_from(done, on_step),
                    )
            except DivergedError as error:
                raise DivergedError(str(error), done + error.good_step) from error
            if separate:
                curve.take_exits(trained, phase.exits)
            else:
                curve.append(trained, done)
            done += phase.steps
        return curve

    # --- scores --------------------------------------------------------------------------------

    def easiness(self, seed: int, network: MultiExitNetwork, whole: bool) -> NDArray[np.float64]:
        """Difficulty scores for one seed, (N,) or (N, exits): an artefact of their own."""
        made_from = keys.scores_key(self.experiment, seed)
        found = self.store.find("scores", made_from)
        if not found:
            scores = self._score(seed, network, whole)
            with self.store.make("scores", made_from) as folder:
                np.save(folder / SCORES, scores, allow_pickle=False)
            found = self.store.path("scores", made_from)
        easiness: NDArray[np.float64] = np.load(found / SCORES, allow_pickle=False)
        return easiness

    def _score(self, seed: int, network: MultiExitNetwork, whole: bool) -> NDArray[np.float64]:
        scoring = self.experiment.training.scoring
        data = self.data
        if scoring.function == "c_score":
            return self.published_scores()
        if scoring.function == "final_exit":
            if not whole:
                raise TrainingError(
                    "scoring function final_exit needs a backbone with a classifier of its own for "
                    f"these {data.info.classes} classes; {self.experiment.model.weights} has none: "
                    "set training.scoring.function to self_taught"
                )
            return final_exit(network, self.plain(seed, network))
        if scoring.function == "transfer":
            other = scoring_network(self.experiment).to(self.device)
            features = last_features(other, self._images(data.train))
            return transfer(features, data.train.labels, scoring.folds, seed=0)
        return self._score_by_training(seed, network, whole)

    def published_scores(self) -> NDArray[np.float64]:
        """The scores in the file that the experiment names."""
        scoring = self.experiment.training.scoring
        assert scoring.file is not None  # the scenario was checked for it
        file = self.experiment.file(scoring.file)
        data = self.data
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
            phase = replace(self.phases(whole, ranked=False)[0], steps=steps)
        elif scoring.per_exit:
            (phase,) = phases("end_to_end", exit_count, steps)
        else:
            phase = backbone_phase(exit_count, steps)
        settings = replace(self.settings, loss="cross_entropy", exit_weights=(), evaluations=1)
        networks = (
            (lambda: self.initial_network(seed)[0])
            if frozen or self.experiment.model.weights
            else (lambda: build_network(self.experiment.architecture, seed).to(self.device))
        )
        inputs, plain = self.inputs("train", seed, network), self.plain(seed, network)
        parts = scoring.folds if scoring.function == "self_taught" else 1
        with (
            self._progress(f"score difficulty, seed {seed}", parts * steps) as on_step,
            _random_numbers(seed),
        ):
            if scoring.function == "self_taught":
                margins = self_taught(
                    networks, phase, inputs, plain, settings, scoring.folds, seed, on_step
                )
            else:
                margins = early_checkpoint(networks, phase, inputs, plain, settings, seed, on_step)
        of_last: NDArray[np.float64] = margins[:, max(phase.exits) - 1]
        return margins if scoring.per_exit else of_last

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
        predictions = predict(network, origin, self._images(self.data.test), self.data.test, "test")
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

    @contextmanager
    def _progress(self, description: str, total: int) -> Iterator[OnStep]:
        with self.console.task(description, total) as update:
            yield lambda step, loss: update(step)
