"""Predictions of a trained network, sample by sample and exit by exit."""

from __future__ import annotations

import numpy as np

from models.artifacts import Predictions
from models.checkpoint import Origin
from models.data.datasets import Split
from models.data.inputs import Inputs
from models.errors import TrainingError
from models.networks.multi_exit import MultiExitNetwork
from models.training.train import class_probabilities


def predict(
    network: MultiExitNetwork, origin: Origin, inputs: Inputs, split: Split, split_name: str
) -> Predictions:
    """What every exit of ``network`` says of every sample of ``split``, which ``inputs`` hold."""
    probabilities = class_probabilities(network, inputs)
    if not np.isfinite(probabilities).all():
        raise TrainingError(
            f"the network trained with {origin.strategy}, seed {origin.seed}, gives outputs that "
            "are not finite; lower the learning rate or lengthen the warm-up"
        )
    return Predictions(
        sample=split.index.astype(np.int32),
        label=split.labels.astype(np.int32),
        predicted=probabilities.argmax(axis=2).astype(np.int32),
        confidence=np.minimum(probabilities.max(axis=2), 1.0),
        about={
            "architecture": origin.architecture.fingerprint(),
            "dataset": origin.dataset,
            "split": split_name,
            "strategy": origin.strategy,
            "regime": origin.regime,
            "seed": origin.seed,
        },
    )
