"""Fairness: how evenly something is shared among devices."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray


def jain_index(values: ArrayLike) -> float:
    """Jain's fairness index: ``(sum x)^2 / (n * sum x^2)``.

    1 if all are equal, and 1/n if one of n has everything; it does not depend on the unit.
    Source: Jain, Chiu & Hawe 1984, "A quantitative measure of fairness and discrimination for
    resource allocation in shared computer systems", DEC-TR-301, equation 1.

    Args:
        values: for each device, such as its AUD; none negative. NaN is left out: a device that
            offered nothing was treated neither well nor badly.

    Returns:
        1 if all values are 0 (nobody is favoured), and NaN if there is none.

    Raises:
        ValueError: a value is negative or infinite.
    """
    given: NDArray[np.float64] = np.asarray(values, dtype=np.float64)
    shares = given[~np.isnan(given)]
    if not len(shares):
        return math.nan
    if shares.min() < 0 or np.isinf(shares).any():
        raise ValueError("Jain's index is defined for finite values that are not negative")
    largest = float(shares.max())
    if largest == 0:
        return 1.0
    shares = shares / largest  # squares then neither overflow nor vanish
    return float(shares.sum() ** 2 / (len(shares) * np.square(shares).sum()))
