"""The trade-off between accuracy and latency, with the front that nothing else dominates."""

from __future__ import annotations

from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from numpy.typing import ArrayLike, NDArray

from offramp.report.figure import (
    Figure,
    cut_note,
    cut_to_shares,
    legend_above,
    no_interval,
    spread,
    window,
)
from offramp.report.results import Results, interval_over, unit_of
from offramp.report.style import COLUMN, GUIDE, PERCENT, STRATEGY_FILLS, policy_looks
from offramp.words import counted
from sim.results.metrics import over_replications, over_training_seeds

#: Latencies that differ by more than this factor are drawn on a logarithmic axis.
_LOG_FROM = 10


def pareto_front(cost: ArrayLike, gain: ArrayLike) -> NDArray[np.bool_]:
    """Which points no other point beats: as low a cost and as high a gain, and one of them better.

    Args:
        cost, gain: (N,); a point with a NaN is never on the front and beats none.
    """
    costs: NDArray[np.float64] = np.asarray(cost, dtype=np.float64)
    gains: NDArray[np.float64] = np.asarray(gain, dtype=np.float64)
    known = ~(np.isnan(costs) | np.isnan(gains))
    on_front = known.copy()
    for index in np.flatnonzero(known):
        as_good = known & (costs <= costs[index]) & (gains >= gains[index])
        better = as_good & ((costs < costs[index]) | (gains > gains[index]))
        on_front[index] = not better.any()
    return on_front


def tradeoff_points(results: Results) -> pd.DataFrame:
    """One row per strategy and policy: correct answers of all requests, and latency, with spreads.

    Intervals as everywhere: see :func:`offramp.report.results.interval_over`. The oracle, which no
    policy can be, is never on the front and beats none.
    """
    runs = results.runs.assign(
        correct=(results.runs["accuracy"].fillna(0) * results.runs["answered"])
        / results.runs["offered"],
        latency_ms=1e3 * results.runs["latency_p95_s"],
    )
    over = interval_over("accuracy", results.training_seeds)
    seeds = over == "training seeds"
    correct = over_training_seeds(runs, "correct") if seeds else over_replications(runs, "correct")
    latency_over = interval_over("latency_p95_s", results.training_seeds)
    latency = runs.groupby(["strategy", "policy", unit_of(latency_over)])["latency_ms"].mean()
    rows = []
    for policy in results.policies:
        for strategy in results.strategies:
            arm = (strategy, policy)
            row: dict[str, Any] = {"strategy": strategy, "policy": policy}
            for name, part in (
                ("correct", spread(correct.xs(arm), over)),
                ("latency_p95_ms", spread(latency.xs(arm), latency_over)),
            ):
                row |= {name: part.pop("mean")}
                row |= {f"{name}_{key}": value for key, value in part.items()}
            rows.append(row)
    points = pd.DataFrame(rows)
    candidates = points["policy"].isin(results.candidates)
    points["on_front"] = pareto_front(points["latency_p95_ms"].where(candidates), points["correct"])
    return points


def accuracy_against_latency(results: Results) -> Figure | None:
    """Correct answers against latency for every strategy and policy, and their Pareto front."""
    points = tradeoff_points(results)
    if len(points) < 2 or not np.isfinite(points["latency_p95_ms"]).any():
        return None
    looks = policy_looks(results.policies)
    figure, axes = plt.subplots(figsize=(COLUMN, 2.5 + 0.13 * len(results.policies)))
    front_line(axes, points)
    for row in points.itertuples():
        look = looks[row.policy]
        _point(axes, row, look.colour, look.marker, STRATEGY_FILLS[row.strategy])
    finish_tradeoff(axes, points)
    handles = [_handle(looks[policy].colour, looks[policy].marker, "full") for policy in looks]
    labels = list(looks)
    if len(results.strategies) > 1:
        handles += [_handle("0.35", "o", STRATEGY_FILLS[name]) for name in results.strategies]
        labels += results.strategies
    handles.append(Line2D([], [], **GUIDE, linestyle="--"))
    labels.append("Pareto front")
    seeds, replications = results.training_seeds, results.replications
    note = no_interval(replications, "replication")
    if note and seeds > 1:
        note += " of latency"
    legend_above(figure, handles, labels, note)
    caption = _caption(seeds, replications, window(results))
    if len(results.candidates) < len(results.policies):
        caption += " The oracle is a yardstick, and no part of the front."
    return Figure(figure, points, caption + cut_note(points["correct_low"], points["correct_high"]))


def front_line(axes: Axes, points: pd.DataFrame) -> None:
    """The front as steps: what is between two points of it, neither of them reaches."""
    front = points[points["on_front"]].sort_values(["latency_p95_ms", "correct"])
    axes.step(
        front["latency_p95_ms"], front["correct"], where="post", **GUIDE, linestyle="--", zorder=1
    )


def finish_tradeoff(axes: Axes, points: pd.DataFrame) -> None:
    """Labels and scales."""
    latency = points["latency_p95_ms"].dropna()
    if latency.max() > _LOG_FROM * latency.min() > 0:
        axes.set_xscale("log")
    else:
        axes.set_xlim(left=0)
    axes.margins(0.08)
    cut_to_shares(axes)
    axes.set(xlabel="95th percentile of latency (ms)", ylabel="correct answers,\nof all requests")
    axes.yaxis.set_major_formatter(PERCENT)


def _point(axes: Axes, row: Any, colour: str, marker: str, fill: Any) -> None:
    halves: dict[str, float] = {
        "xerr": row.latency_p95_ms_high - row.latency_p95_ms,
        "yerr": row.correct_high - row.correct,
    }
    axes.errorbar(
        row.latency_p95_ms,
        row.correct,
        xerr=None if np.isnan(halves["xerr"]) else halves["xerr"],
        yerr=None if np.isnan(halves["yerr"]) else halves["yerr"],
        color=colour,
        elinewidth=0.8,
        linestyle="none",
        marker=marker,
        markersize=6,
        fillstyle=fill,
        markerfacecoloralt="white",
        markeredgewidth=0.9,
    )


def _handle(colour: str, marker: str, fill: Any) -> Line2D:
    return Line2D(
        [],
        [],
        color=colour,
        marker=marker,
        linestyle="none",
        markersize=5,
        fillstyle=fill,
        markerfacecoloralt="white",
    )


def _caption(seeds: int, replications: int, of: str) -> str:
    text = (
        "Correct answers, in time or not, of all requests offered, against the 95th percentile of "
        "the latency of answers (its mean over runs). Dashed: the Pareto front of the means; what "
        "lies below and right of it is beaten in both. "
    )
    trained, repeated = counted(seeds, "training seed"), counted(replications, "replication")
    if replications < 2:
        return text + (
            f"One replication of {of}: no interval of the latency; that of correct answers is over "
            f"{trained}."
            if seeds > 1
            else f"One training seed and one replication of {of}: no interval."
        )
    over = trained if seeds > 1 else f"{repeated} of one training"
    return text + (
        f"Bars: 95 % t intervals, upright over {over}, level over {repeated} of {of}, each with "
        f"{trained}."
    )
