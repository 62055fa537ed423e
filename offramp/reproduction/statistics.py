"""Whether the figures of a run and of its reproduction differ by more than chance.

Which repetitions are independent depends on what came about anew:

===================  ==============  =======================================================
networks             requests        the difference varies over
===================  ==============  =======================================================
the same             the same        replications, paired (Student's t)
the same             others          replications, not paired (Welch 1947): all of both runs
trained again        the same        training seeds, paired: these requests are given
trained again        others          training seeds and replications, paired, both at random
===================  ==============  =======================================================

In the last case the mean square between seeds and that between replications are added, which
counts the residual twice and errs on the side of no difference (see
:func:`sim.results.metrics.added_error`).

A difference that is the same in every repetition has no spread to test with. Counts, and shares of
them, may differ so by chance: their p is that of the sign test, 2^(1 − n), or of all ways to divide
what is not paired. Times and joules do not, unless networks or requests are others.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import special

from offramp.report.paired import SIGNIFICANCE, holm
from offramp.reproduction.figures import is_continuous
from sim.results.metrics import LEVEL, added_error

Floats = NDArray[np.float64]

SAME = "same"
COMPATIBLE = "compatible"
MOVED = "moved"
UNTESTED = "untested"

#: Numbers that differ by less, relative to the largest, are equal: sums are added in other orders.
_RESOLUTION = 1e-9

#: How a difference was tested.
PAIRED, WELCH, CROSSED = "paired t-test", "Welch's t-test, unpaired", "paired t-test, crossed"

SEEDS, REPLICATIONS, BOTH = "training seeds", "replications", "seeds and replications"


@dataclass(frozen=True)
class Anew:
    """What of a run was not the same when it was run again.

    Attributes:
        networks: they say something else of some sample.
        requests: other ones were created, or nobody knows whether they were.
    """

    networks: bool
    requests: bool


@dataclass(frozen=True)
class _Tested:
    """Of each difference: arrays of one shape. NaN where there is none.

    Attributes:
        n: repetitions of the first run and of the second; the same where they are paired.
    """

    half_width: Floats
    p: Floats
    n: tuple[NDArray[np.int64], NDArray[np.int64]]
    freedom: Floats


def differences(
    before: pd.DataFrame, after: pd.DataFrame, arms: Sequence[str], anew: Anew
) -> pd.DataFrame:
    """Compare every metric of every arm.

    Args:
        before, after: one row per arm, ``training_seed`` and ``replication``; every other column
            that both have is a metric.
        arms: columns that tell arms apart.

    Returns:
        One row per arm and metric: ``arms``, ``metric``; ``before``, ``after``, means of the
        runs; ``difference``, their mean difference; ``half_width`` of its 95 % interval, not
        corrected for the number of comparisons; ``test``, how it was tested, with ``freedom``
        degrees of freedom; ``n_before`` and ``n_after`` repetitions, ``n`` the fewer of the two,
        ``over`` what; ``p``, two-sided; ``same``, whether every run gave the same number. Runs
        without a metric (no answer has no latency) are left out of it, on both sides where runs
        are paired.
    """
    keys = [*arms, "training_seed", "replication"]
    metrics = [name for name in before.columns if name in after.columns and name not in keys]
    old, new, index = _cells(before, after, arms, metrics)
    difference = new - old
    scale = np.fmax.reduce(np.fmax(np.abs(old), np.abs(new)), axis=(2, 3), initial=0.0)
    tiny = _RESOLUTION * scale
    difference[np.abs(difference) <= tiny[:, :, None, None]] = 0.0
    continuous = np.array([is_continuous(name) for name in metrics])
    tested, test, over = _test(old, new, difference, tiny, anew, continuous)
    nowhere = np.isnan(old).all(axis=(2, 3)) & np.isnan(new).all(axis=(2, 3))
    same = (difference == 0).sum(axis=(2, 3)) == (~np.isnan(old) | ~np.isnan(new)).sum(axis=(2, 3))
    if test == WELCH:
        before, after = (_mean(values, -1) for values in _by_replication(old, new))
        gap = after - before
        gap[np.abs(gap) <= tiny] = 0.0
    else:
        paired = np.isnan(difference)

        def as_tested(values: Floats) -> Floats:
            """Where cells are missing, a mean of means is another number than that of all."""
            values = np.where(paired, np.nan, values)
            if over == BOTH:
                return _mean(values, (2, 3))
            return _mean(_mean(values, 3 if over == SEEDS else 2), -1)

        before, after, gap = map(as_tested, (old, new, difference))
    columns = {
        "before": before,
        "after": after,
        "difference": gap,
        "half_width": np.where(same, 0.0, tested.half_width),
        "n": np.minimum(*tested.n),
        "n_before": tested.n[0],
        "n_after": tested.n[1],
        "freedom": np.where(same, math.nan, tested.freedom),
        "p": np.where(same, math.nan, tested.p),
        "same": same,
    }
    table = index.loc[index.index.repeat(len(metrics))].reset_index(drop=True)
    table["metric"] = metrics * len(index)
    for name, values in columns.items():
        table[name] = values.ravel()
    table.insert(table.columns.get_loc("n") + 1, "over", over)
    table.insert(table.columns.get_loc("n"), "test", test)
    return table[~nowhere.ravel()].reset_index(drop=True)


def with_verdicts(table: pd.DataFrame) -> pd.DataFrame:
    """The rows of :func:`differences` with Holm's adjusted ``p_holm`` and a ``verdict``.

    All rows are one family: with nothing moved, the chance that any is called ``moved`` is at
    most 5 %. ``compatible`` is no proof of equality; how large a difference may hide is what the
    interval says. ``untested``: there is a difference, and too few repetitions to judge it.
    """
    table = table.assign(p_holm=holm(table["p"]))
    table["verdict"] = np.select(
        [table["same"], table["p_holm"] < SIGNIFICANCE, table["p_holm"].notna()],
        [SAME, MOVED, COMPATIBLE],
        UNTESTED,
    )
    return table.drop(columns="same")


# --- tests ---------------------------------------------------------------------------------------


def _test(
    old: Floats,
    new: Floats,
    difference: Floats,
    tiny: Floats,
    anew: Anew,
    continuous: NDArray[np.bool_],
) -> tuple[_Tested, str, str]:
    """Test arrays (arms, metrics, seeds, replications) against chance: how, and over what."""
    if anew.networks and anew.requests:
        return _crossed(difference, tiny), CROSSED, BOTH
    if anew.networks:
        return _paired(_mean(difference, 3), tiny), PAIRED, SEEDS
    if anew.requests:
        return _welch(*_by_replication(old, new), tiny), WELCH, REPLICATIONS
    flat_within = np.where(continuous, -1.0, tiny)
    return _paired(_mean(difference, 2), flat_within), PAIRED, REPLICATIONS


def _by_replication(old: Floats, new: Floats) -> tuple[Floats, Floats]:
    """Means of both runs over the seeds that both have: (arms, metrics, replications)."""
    absent = [np.asarray(np.isnan(it).all(axis=3, keepdims=True)) for it in (old, new)]
    common = ~(absent[0] | absent[1])
    before, after = (_mean(np.where(common, it, np.nan), 2) for it in (old, new))
    return before, after


def _paired(difference: Floats, tiny: Floats) -> _Tested:
    """Student's t over the last axis.

    Args:
        tiny: values that spread by no more do not vary.
    """
    n = np.sum(~np.isnan(difference), axis=-1)
    mean, variance = _mean(difference, -1), _variance(difference)
    with np.errstate(divide="ignore", invalid="ignore"):
        se = np.sqrt(variance / n)
    return _judged(mean, se, n - 1.0, (n, n), _spread(difference) <= tiny, _sign_test(n))


def _welch(before: Floats, after: Floats, tiny: Floats) -> _Tested:
    """Welch's t over the last axis, whose values are not paired, nor as many in both."""
    n = (np.sum(~np.isnan(before), axis=-1), np.sum(~np.isnan(after), axis=-1))
    se, freedom = added_error((_variance(before), _variance(after)), n)
    flat = (_spread(before) <= tiny) & (_spread(after) <= tiny)
    # Of all ways to divide them, one gives so large a difference, and two where both are as many.
    ways = np.where(n[0] == n[1], 2.0, 1.0)
    chance = np.where(np.minimum(*n) > 1, ways / special.binom(n[0] + n[1], n[0]), math.nan)
    mean = _mean(after, -1) - _mean(before, -1)
    mean[np.abs(mean) <= tiny] = 0.0
    return _judged(mean, se, freedom, n, flat, chance)


def _crossed(difference: Floats, tiny: Floats) -> _Tested:
    """Both of the last axes at random, crossed."""
    seeds, replications = _mean(difference, 3), _mean(difference, 2)
    counts = [np.sum(~np.isnan(part), axis=-1) for part in (seeds, replications)]
    se, freedom = added_error((_variance(seeds), _variance(replications)), counts)
    n = np.minimum(*counts)
    flat = (_spread(seeds) <= tiny) & (_spread(replications) <= tiny)
    return _judged(_mean(difference, (2, 3)), se, freedom, (n, n), flat, _sign_test(n))


def _judged(
    mean: Floats,
    se: Floats,
    freedom: Floats,
    n: tuple[NDArray[np.int64], NDArray[np.int64]],
    flat: NDArray[np.bool_],
    chance: Floats,
) -> _Tested:
    """Interval and p of t statistics.

    Args:
        flat: where values do not vary at all, as few counts may not: an interval without width
            would claim a certainty that they cannot give.
        chance: the p there.
    """
    few, equal = np.minimum(*n) < 2, mean == 0
    with np.errstate(divide="ignore", invalid="ignore"):
        half_width = special.stdtrit(freedom, 0.5 + LEVEL / 2) * se
        p = 2 * special.stdtr(freedom, -np.abs(mean / se))
    half_width = np.where(flat, np.where(equal, 0.0, math.nan), half_width)
    p = np.where(flat, np.where(equal, 1.0, chance), p)
    half_width, p = np.where(few, math.nan, half_width), np.where(few, math.nan, p)
    return _Tested(half_width, p, n, np.where(few | flat, math.nan, freedom))


def _sign_test(n: NDArray[np.int64]) -> Floats:
    """Two-sided p of n differences of one sign."""
    return np.asarray(2.0 ** (1.0 - n))


# --- arrays --------------------------------------------------------------------------------------


def _cells(
    before: pd.DataFrame, after: pd.DataFrame, arms: Sequence[str], metrics: list[str]
) -> tuple[Floats, Floats, pd.DataFrame]:
    """Both tables as arrays (arms, metrics, seeds, replications), and the arms."""
    keys = [*arms, "training_seed", "replication"]
    both = pd.concat([before[keys], after[keys]], ignore_index=True)
    arm = both.groupby(list(arms), sort=False, dropna=False).ngroup().to_numpy()
    seed, seeds = pd.factorize(both["training_seed"], sort=True)
    replication, replications = pd.factorize(both["replication"], sort=True)
    index = both.loc[~pd.Series(arm).duplicated(), list(arms)].reset_index(drop=True)
    arrays = []
    for table, rows in ((before, slice(0, len(before))), (after, slice(len(before), None))):
        cells = np.full((len(index), len(metrics), len(seeds), len(replications)), math.nan)
        values = table[metrics].to_numpy(dtype=np.float64)
        cells[arm[rows], :, seed[rows], replication[rows]] = values
        arrays.append(cells)
    return arrays[0], arrays[1], index


def _mean(values: Floats, axis: int | tuple[int, ...]) -> Floats:
    """Mean of what is there; NaN of nothing."""
    there = ~np.isnan(values)
    count = there.sum(axis=axis)
    total = np.where(there, values, 0.0).sum(axis=axis)
    return np.asarray(np.divide(total, count, out=np.full(count.shape, math.nan), where=count > 0))


def _variance(values: Floats) -> Floats:
    """Sample variance over the last axis of what is there; NaN of fewer than two."""
    there = ~np.isnan(values)
    count = there.sum(axis=-1)
    square = np.where(there, values - _mean(values, -1)[..., None], 0.0) ** 2
    out = np.full(count.shape, math.nan)
    return np.asarray(np.divide(square.sum(axis=-1), count - 1, out=out, where=count > 1))


def _spread(values: Floats) -> Floats:
    """Largest less smallest over the last axis; 0 of nothing."""
    low = np.fmin.reduce(values, axis=-1, initial=math.inf)
    high = np.fmax.reduce(values, axis=-1, initial=-math.inf)
    return np.where(np.isfinite(low), high - low, 0.0)
