"""Difficulty scores that others measured and published, such as C-scores.

A C-score (Jiang et al. 2021, "Characterizing structural regularities of labeled data in
overparameterized models") is the expected accuracy on a sample of networks trained without it:
high for a consistent, easy sample.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from models.data.array_files import read_official_values
from models.errors import DataError


def scores_from_file(
    path: Path, key: str | None, index: NDArray[np.int64], official_count: int
) -> NDArray[np.float64]:
    """Easiness (N,), high for easy, at ``index`` from a file with a score for each official image.

    Args:
        path: .npz, .npy, or .csv with one score on each line; in the official order.
        key: name of the scores within an .npz file.
        index: (N,) positions in the official training set.
        official_count: images in that set.

    Raises:
        DataError: the file is missing, damaged or foreign, or does not hold such scores.
    """
    values = read_official_values(path, key, official_count, (".npz", ".npy", ".csv"))
    finite = np.isfinite(values)
    if not finite.all():
        position = int(np.argmin(finite))
        raise DataError(
            f"{path}: holds {values[position]} at position {position}, but every image needs a "
            "score"
        )
    return values[index].astype(np.float64)
