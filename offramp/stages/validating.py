"""Predictions for the validation split, on which policies are fitted: from stored networks."""

from __future__ import annotations

import torch

from models.artifacts import write_predictions
from models.checkpoint import load_checkpoint
from models.host import resolved_device
from models.predicting import predict
from offramp.console import Console
from offramp.experiment import Experiment
from offramp.stages import keys
from offramp.stages.layout import CHECKPOINT, VALIDATION_PREDICTIONS
from offramp.stages.training_data import TrainingData
from offramp.store import Store


def predict_validation(experiment: Experiment, store: Store, console: Console) -> None:
    """Predict the validation split with every trained network for which that is missing.

    The networks must be in the store; nothing is trained.
    """
    device = torch.device(resolved_device(experiment.training.device))
    data = TrainingData(experiment, store, console, device)
    missing = [
        made_from
        for _, _, made_from in keys.trained_networks(experiment)
        if not store.find("validation", keys.validation_key(made_from))
    ]
    with console.task("predict the validation split", len(missing)) as update:
        for done, made_from in enumerate(missing, start=1):
            path = store.path("trained", made_from) / CHECKPOINT
            network, origin = load_checkpoint(path, experiment.folder)
            split = data.dataset.validation
            images = data.images(split)
            predictions = predict(network.to(device), origin, images, split, "validation")
            with store.make("validation", keys.validation_key(made_from)) as folder:
                write_predictions(folder / VALIDATION_PREDICTIONS, predictions)
            update(done)
