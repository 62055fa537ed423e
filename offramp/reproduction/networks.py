"""How networks that were trained again differ from those of the run."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pandas as pd

from models.artifacts import Predictions, read_predictions
from models.errors import ArtifactError
from offramp.stages.inputs import Inputs
from offramp.stages.jobs import Network
from offramp.stages.layout import PREDICTIONS

#: Columns of :func:`network_changes`.
COLUMNS = (
    "strategy",
    "training_seed",
    "exit",
    "accuracy_before",
    "accuracy_after",
    "changed",
    "confidence_moved",
)


def network_changes(
    before: dict[Network, Path], inputs: Inputs, accuracy: dict[tuple[str, int, int], float]
) -> pd.DataFrame:
    """Every exit of every network, before and after.

    Args:
        before: predictions of the run's own networks, as far as they are there.
        inputs: of the reproduction.
        accuracy: test accuracy of the run's networks by strategy, training seed and exit, as far
            as it is known; for those whose predictions are nowhere.

    Returns:
        One row per network and exit: its test accuracy before and after; ``changed``, the share
        of test samples of which it predicts another class; ``confidence_moved``, the largest
        change of a confidence. NaN where predictions of the run are nowhere.
    """
    rows = []
    for network, folder in inputs.trained.items():
        new = read_predictions(folder / PREDICTIONS)
        old = _comparable(before.get(network), new)
        for exit in range(new.exit_count):
            after = float((new.predicted[:, exit] == new.label).mean())
            changed = moved = math.nan
            if old is None:
                was = accuracy.get((*network, exit + 1), math.nan)
            else:
                was = float((old.predicted[:, exit] == old.label).mean())
                changed = float((old.predicted[:, exit] != new.predicted[:, exit]).mean())
                moved = float(np.abs(old.confidence[:, exit] - new.confidence[:, exit]).max())
            rows.append((*network, exit + 1, was, after, changed, moved))
    return pd.DataFrame(rows, columns=list(COLUMNS))


def are_anew(changes: pd.DataFrame) -> bool:
    """Whether any network says something else of any sample, or nobody knows that it does not."""
    return not bool(((changes["changed"] == 0) & (changes["confidence_moved"] == 0)).all())


def _comparable(file: Path | None, new: Predictions) -> Predictions | None:
    """The predictions in a file, if they are of the same samples and exits."""
    if file is None:
        return None
    try:
        old = read_predictions(file)
    except ArtifactError:
        return None
    same = old.predicted.shape == new.predicted.shape and np.array_equal(old.sample, new.sample)
    return old if same else None
