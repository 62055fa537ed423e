"""Predictions for the validation split, on which policies are fitted: from stored networks."""

from __future__ import annotations

from typing import Any

from models.artifacts import write_predictions
from models.checkpoint import load_checkpoint
from models.inference.predicting import predict
from offramp.console import Console
from offramp.experiment import Experiment
from offramp.stages import keys
from offramp.stages.device import device_of
from offramp.stages.layout import CHECKPOINT, VALIDATION_PREDICTIONS
from offramp.stages.training_data import TrainingData
from offramp.store import Store


def predict_validation(experiment: Experiment, store: Store, console: Console) -> None:
    """Predict the validation split with every trained network for which that is missing.

    The networks must be in the store; nothing is trained.
    """
    missing = [
        made_from
        for _, _, made_from in keys.trained_networks(experiment)
        if not store.find("validation", keys.validation_key(made_from))
    ]
    stage = ValidationStage(experiment, store, console)
    with console.task("predict the validation split", len(missing)) as update:
        for done, made_from in enumerate(missing, start=1):
            stage.predict(made_from)
            update(done)


class ValidationStage:
    """Predicts the validation split of one experiment."""

    def __init__(self, experiment: Experiment, store: Store, console: Console) -> None:
        self._experiment = experiment
        self._store = store
        self._device = device_of(experiment.training.device)
        self._data = TrainingData(experiment, store, console, self._device)

    def predict(self, trained: dict[str, Any]) -> None:
        """Predict with one network, if that is missing.

        Args:
            trained: its key; it is in the store.
        """
        made_from = keys.validation_key(trained)
        self._store.find_or_make("validation", made_from, lambda: self._make(trained, made_from))

    def _make(self, trained: dict[str, Any], made_from: dict[str, Any]) -> None:
        path = self._store.path("trained", trained) / CHECKPOINT
        network, origin = load_checkpoint(path, self._experiment.folder)
        split = self._data.dataset.validation
        images = self._data.images(split)
        predictions = predict(network.to(self._device), origin, images, split, "validation")
        with self._store.make("validation", made_from) as folder:
            write_predictions(folder / VALIDATION_PREDICTIONS, predictions)
