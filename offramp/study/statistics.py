"""Paired comparisons of strategies over training seeds, corrected for their number."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pandas as pd

from models.errors import ResultsError
from offramp.report.paired import SIGNIFICANCE, compare_pairs, holm

#: What is compared: both are shares, of the test set and of the validation set.
MEASURES = ("test_accuracy", "curve_area")

BETTER = "better"
WORSE = "worse"
UNDECIDED = "no difference shown"
IDENTICAL = "identical"


def configurations(
    frame: pd.DataFrame, axes: Sequence[str]
) -> Iterator[tuple[tuple[Any, ...], pd.DataFrame]]:
    """Every configuration in order of appearance: its values on ``axes``, and its rows."""
    if not axes:
        if len(frame):
            yield (), frame
        return
    for values, rows in frame.groupby(list(axes), sort=False, dropna=False):
        yield tuple(values), rows


def paired_gains(
    accuracy: pd.DataFrame,
    axes: Sequence[str],
    baseline: str,
    measures: Sequence[str] = MEASURES,
    strategies: Sequence[str] | None = None,
) -> pd.DataFrame:
    """Compare strategies with ``baseline`` over common training seeds.

    One row per measure, configuration, exit and strategy, with the axis columns and

    - ``exit``, ``strategy``, ``baseline``, ``measure``;
    - ``n``: training seeds that both arms have; a seed without a value (no row, or NaN) in one arm
      is left out of the pair and counted in ``left_out``;
    - ``baseline_mean``, ``strategy_mean``: means over those ``n`` seeds, shares from 0 to 1;
    - ``gain_points``: mean of strategy minus baseline, in percentage points; ``half_width_points``,
      ``low_points``, ``high_points``: its 95 % interval (paired, Student's t), not corrected for
      the number of comparisons; NaN with fewer than two seeds;
    - ``p``: of the two-sided paired t-test; ``p_holm``: corrected
      (:func:`offramp.report.paired.holm`) over the family
      of all comparisons of one measure in the returned table that have a p;
    - ``verdict``: ``better`` or ``worse`` where ``p_holm`` < 0.05; ``identical`` where both arms
      gave the same number at every seed, as they do at an exit that no strategy trains: there is
      nothing to test, and no p; else ``no difference shown``, which is not a proof of equality.

    If all seeds differ by the same amount other than zero, as on small test sets, the spread is
    unknown: there is no interval, and p is that of the two-sided sign test, 2^(1 − n).

    Args:
        accuracy: one row per configuration, strategy, ``seed`` and ``exit``; see
            :func:`check_table`.
        axes: columns that tell configurations apart; may be empty.
        baseline: the strategy to compare with.
        measures: columns of shares from 0 to 1.
        strategies: what to compare with it; by default every other one in the table. Fewer
            comparisons make a smaller family.

    Raises:
        ResultsError: a column, the baseline or a strategy is missing, or a row occurs twice.
    """
    check_table(accuracy, [*axes, "strategy", "seed", "exit"], measures)
    present = list(accuracy["strategy"].unique())
    others = [name for name in present if name != baseline] if strategies is None else strategies
    for name in (baseline, *others):
        if name not in present:
            raise ResultsError(f"no training has the strategy {name!r}, only {', '.join(present)}")
    rows = []
    for measure in measures:
        for values, of_configuration in configurations(accuracy, axes):
            by_exit = of_configuration.groupby("exit", sort=True)
            for exit, frame in by_exit:
                arms = frame.pivot(index="seed", columns="strategy", values=measure)
                for strategy in others:
                    if strategy == baseline:
                        continue
                    rows.append(
                        dict(zip(axes, values, strict=True))
                        | {"exit": exit, "strategy": strategy, "baseline": baseline}
                        | {"measure": measure}
                        | _comparison(arms, strategy, baseline)
                    )
    gains = pd.DataFrame(rows, columns=[*axes, *_COLUMNS])
    gains["p_holm"] = gains.groupby("measure", sort=False)["p"].transform(holm)
    gains["verdict"] = [_verdict(row) for row in gains.itertuples()]
    return gains


_COLUMNS = (
    "exit",
    "strategy",
    "baseline",
    "measure",
    "n",
    "left_out",
    "baseline_mean",
    "strategy_mean",
    "gain_points",
    "half_width_points",
    "low_points",
    "high_points",
    "p",
)

#: Every column of the table of gains.
GAIN_COLUMNS = (*_COLUMNS, "p_holm", "verdict")

_COUNTS = (
    "comparisons",
    "better",
    "worse",
    "undecided",
    "identical",
    "interval_above",
    "interval_below",
    "mean_gain_points",
)


def check_table(frame: pd.DataFrame, keys: Sequence[str], measures: Sequence[str]) -> None:
    """Refuse a table that lacks columns, or in which ``keys`` do not tell the rows apart.

    Raises:
        ResultsError: so it is; the message names the columns or the row.
    """
    missing = [name for name in (*keys, *measures) if name not in frame]
    if missing:
        raise ResultsError(f"the study's table has no column {', '.join(missing)}")
    twice = frame.loc[frame.duplicated(list(keys)), list(keys)]
    if len(twice):
        row = ", ".join(f"{name} {value}" for name, value in twice.iloc[0].items())
        raise ResultsError(f"the study's table has more than one row for {row}")


def verdict_counts(
    gains: pd.DataFrame, by: Sequence[str] = ("measure", "strategy", "baseline", "exit")
) -> pd.DataFrame:
    """How many comparisons came out how, pooled over what is not in ``by``.

    Returns:
        One row per group in order of appearance: ``by``, ``comparisons`` (their number), the
        numbers ``better``, ``worse``, ``undecided`` and ``identical`` of them, which sum to it;
        ``interval_above`` and ``interval_below``, of how many the uncorrected interval lies wholly
        above and below zero, as one in forty does by chance; and ``mean_gain_points``, the
        unweighted mean of the gains, in percentage points.
    """
    columns = {BETTER: "better", WORSE: "worse", UNDECIDED: "undecided", IDENTICAL: "identical"}
    rows = []
    for values, group in gains.groupby(list(by), sort=False, dropna=False):
        counts = group["verdict"].value_counts()
        rows.append(
            dict(zip(by, values, strict=True))
            | {"comparisons": len(group)}
            | {name: int(counts.get(verdict, 0)) for verdict, name in columns.items()}
            | {"interval_above": int((group["low_points"] > 0).sum())}
            | {"interval_below": int((group["high_points"] < 0).sum())}
            | {"mean_gain_points": float(group["gain_points"].mean())}
        )
    return pd.DataFrame(rows, columns=[*by, *_COUNTS])


def _comparison(arms: pd.DataFrame, strategy: str, baseline: str) -> dict[str, Any]:
    """One comparison, from shares by seed (rows) and strategy (columns)."""
    pair = arms.reindex(columns=[baseline, strategy])
    common = pair.dropna()
    difference = (common[strategy] - common[baseline]).to_numpy(dtype=np.float64)
    compared = compare_pairs(difference)
    gain, half_width = compared.mean, compared.half_width
    return {
        "n": compared.n,
        "left_out": int(pair.notna().any(axis=1).sum()) - compared.n,
        "baseline_mean": float(common[baseline].mean()),
        "strategy_mean": float(common[strategy].mean()),
        "gain_points": 100 * gain,
        "half_width_points": 100 * half_width,
        "low_points": 100 * (gain - half_width),
        "high_points": 100 * (gain + half_width),
        "p": compared.p,
    }


def _verdict(row: Any) -> str:
    if row.p_holm < SIGNIFICANCE:
        return BETTER if row.gain_points > 0 else WORSE
    if row.n >= 2 and row.half_width_points == 0:
        return IDENTICAL
    return UNDECIDED
