"""Predictions of a trained network, sample by sample and exit by exit."""

from __future__ import annotations

import numpy as np

from models.artifacts import Predictions
from models.checkpoint import Origin
from models.datasets import DatasetInfo, Split
from models.errors import TrainingError
from models.multi_exit import MultiExitNetwork
from models.training import class_probabilities


def predict(
    network: MultiExitNetwork, origin: Origin, split: Split, split_name: str, info: DatasetInfo
) -> Predictions:
    """Run every sample of ``split`` through every exit of ``network``."""
    probabilities = class_probabilities(network, split, info)
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
            "dataset": info.name,
            "split": split_name,
            "strategy": origin.strategy,
            "regime": origin.regime,
            "seed": origin.seed,
        },
    )
