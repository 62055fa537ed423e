"""Label noise: training labels of which some are wrong, at random or by human hands.

Noise is one of two conditions under which Wu, Dyer & Neyshabur (2021), "When do curricula work?",
found that curricula help; a short budget is the other.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from models.data.array_files import read_official_values
from models.errors import DataError

#: Sets the noise apart from every other use of a seed. Large, because numpy takes [seed, 3] and
#: [seed, 3, 0] for the same seed.
_STREAM = 20160613


def symmetric_noise(
    labels: NDArray[np.int64], fraction: float, classes: int, seed: int
) -> NDArray[np.int64]:
    """A copy of ``labels`` (N,) in which round(fraction * N) are wrong.

    Each of them, chosen at random, becomes one of the other classes with the same probability
    ("symmetric" or "uniform" noise). ``fraction`` is thus the share of wrong labels; papers that
    draw from all classes name a rate of which one in ``classes`` stays right.

    Args:
        labels: in 0..classes-1.
        fraction: from 0 to 1.
        seed: decides which labels change, and to what.

    Raises:
        ValueError: an argument is out of its range.
    """
    if not 0 <= fraction <= 1:
        raise ValueError(f"fraction is {fraction!r}, but must lie in [0, 1]")
    if classes < 2:
        raise ValueError(f"a label cannot be wrong among {classes} classes")
    if len(labels) and not 0 <= labels.min() <= labels.max() < classes:
        raise ValueError(f"labels go from {labels.min()} to {labels.max()} in {classes} classes")
    generator = np.random.default_rng([seed, _STREAM])
    wrong = generator.choice(len(labels), round(fraction * len(labels)), replace=False)
    noisy = labels.astype(np.int64)
    noisy[wrong] = (noisy[wrong] + generator.integers(1, classes, len(wrong))) % classes
    return noisy


def labels_from_file(
    path: Path, key: str | None, index: NDArray[np.int64], classes: int, official_count: int
) -> NDArray[np.int64]:
    """Labels (N,) at ``index`` from a file that has one for each official training image.

    For example CIFAR-10N, labels by people who often err (Wei et al. 2022).

    Args:
        path: .npz or .npy; whole numbers, in the official order.
        key: name of the labels within an .npz file.
        index: (N,) positions in the official training set.
        official_count: images in that set.

    Raises:
        DataError: the file is missing, damaged or foreign, or does not hold these labels.
    """
    values = read_official_values(path, key, official_count, (".npz", ".npy"))
    # True of neither a fraction nor NaN.
    valid = (values >= 0) & (values < classes) & (values == np.floor(values))
    if not valid.all():
        position = int(np.argmin(valid))
        raise DataError(
            f"{path}: holds {values[position]} at position {position}, but labels are whole "
            f"numbers from 0 to {classes - 1}"
        )
    return values[index].astype(np.int64)
