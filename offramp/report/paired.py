"""Paired comparisons over independent repetitions, corrected for their number."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from sim.results.metrics import confidence_interval

#: Differences are called significant where the corrected p is below this.
SIGNIFICANCE = 0.05

#: Shares that differ by less are equal: one image of a million is a thousand times more.
RESOLUTION = 1e-9


@dataclass(frozen=True)
class Comparison:
    """The mean of paired differences.

    Attributes:
        n: pairs.
        sd: sample standard deviation of the differences; NaN for fewer than two.
        half_width: of the 95 % interval (Student's t); NaN where the spread is not known.
        p: two-sided; NaN where nothing was tested.
    """

    mean: float
    sd: float
    half_width: float
    n: int
    p: float


def compare_pairs(differences: ArrayLike) -> Comparison:
    """Compare paired values by their differences: interval, and the paired t-test.

    If all differ by the same amount other than zero, as on small test sets, the spread is unknown:
    there is no interval, and p is that of the two-sided sign test, 2^(1 − n). If all are zero,
    there is nothing to test, and no p.

    Raises:
        ValueError: a difference is not a number. Whoever compares knows which pairs are whole, and
            leaves the others out.
    """
    values: NDArray[np.float64] = np.asarray(differences, dtype=np.float64)
    if np.isnan(values).any():
        raise ValueError(f"{np.isnan(values).sum()} of {len(values)} differences are not numbers")
    interval = confidence_interval(values)
    mean, half_width, p = interval.mean, interval.half_width, math.nan
    if interval.n >= 2:
        if np.ptp(values) > RESOLUTION:
            p = float(stats.ttest_1samp(values, 0.0).pvalue)
        elif abs(mean) > RESOLUTION:
            # An interval without width would claim a certainty that a few pairs cannot give.
            half_width, p = math.nan, 2.0 ** (1 - interval.n)
        else:
            mean, half_width = 0.0, 0.0
    sd = float(values.std(ddof=1)) if interval.n >= 2 else math.nan
    return Comparison(mean, sd, half_width, interval.n, p)


def compare_arms(values: pd.Series, level: str, of: str, less: str) -> Comparison:
    """Compare two arms, paired by the levels of the index that remain; NaN is left out.

    Args:
        values: indexed by the arms and the repetition, over one policy or strategy.
        level: name of the index level that tells the arms apart.
        of, less: the arms; differences are ``of`` minus ``less``.
    """
    return compare_pairs((values.xs(of, level=level) - values.xs(less, level=level)).dropna())


def compare_groups(differences: pd.Series, by: Sequence[str]) -> pd.DataFrame:
    """As :func:`compare_pairs`, of many comparisons at once: a row for each group of pairs.

    Args:
        differences: with the levels ``by`` in its index; NaN, a pair of which one is missing, is
            left out.
        by: what tells the comparisons apart; order of appearance is kept.

    Returns:
        Columns ``mean``, ``sd``, ``low``, ``high``, ``n``, ``p`` and ``p_holm``, corrected over
        all rows, indexed by ``by``.
    """
    groups = differences.dropna().groupby(list(by), sort=False)
    found = pd.DataFrame({"mean": groups.mean(), "sd": groups.std(), "n": groups.count()})
    spans = (groups.max() - groups.min()).to_numpy()
    n, mean, sd = (found[name].to_numpy(dtype=np.float64) for name in ("n", "mean", "sd"))
    several, spread = n >= 2, spans > RESOLUTION
    moved = np.abs(mean) > RESOLUTION
    tested = several & spread
    error = np.where(tested, sd, 1.0) / np.sqrt(n)
    freedom = np.maximum(n - 1, 1)
    half_width = np.where(tested, stats.t.ppf(0.975, freedom) * error, math.nan)
    half_width[several & ~spread & ~moved] = 0.0
    p = np.where(tested, 2 * stats.t.sf(np.abs(mean) / error, freedom), math.nan)
    same = several & ~spread & moved  # the sign test; see compare_pairs
    p[same] = 2.0 ** (1 - n[same])
    found["mean"] = np.where(several & ~spread & ~moved, 0.0, mean)
    found["low"], found["high"] = found["mean"] - half_width, found["mean"] + half_width
    found["p"], found["p_holm"] = p, holm(p)
    return found[["mean", "sd", "low", "high", "n", "p", "p_holm"]]


def holm(p: ArrayLike) -> NDArray[np.float64]:
    """Holm's (1979) adjusted p-values, which bound the chance of any false positive in a family.

    NaN stays NaN and does not count: where nothing was tested, nothing is corrected for.
    """
    values: NDArray[np.float64] = np.asarray(p, dtype=np.float64)
    adjusted = np.full(values.shape, math.nan)
    tested = np.flatnonzero(~np.isnan(values))
    order = tested[np.argsort(values[tested], kind="stable")]
    factors = np.arange(len(order), 0, -1)
    adjusted[order] = np.minimum(1.0, np.maximum.accumulate(factors * values[order]))
    return adjusted
