"""The figures of a study: gains at each exit, and learning curves."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.figure import Figure as MplFigure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from offramp.report.figure import Figure, save_figure
from offramp.report.style import (
    DOUBLE_COLUMN,
    PERCENT,
    STRATEGY_COLOURS,
    STRATEGY_DASHES,
    STRATEGY_MARKERS,
    paper_style,
)
from offramp.study.panels import (
    common_settings,
    configuration_panels,
    exit_panels,
    parts,
)
from offramp.study.statistics import BETTER, WORSE, check_table, configurations
from offramp.words import counted
from sim.results.metrics import confidence_interval

#: Configurations on one figure: panels of gains, and rows of learning curves.
MOST_PANELS = 12
MOST_ROWS = 5

MEASURE_TEXTS = {
    "test_accuracy": "test accuracy",
    "validation_accuracy": "validation accuracy",
    "curve_area": "the area under the learning curve",
}

#: Curves of at most so many points show them.
_MARKED_POINTS = 12

#: Distance of the strategies' points at one exit.
_DODGE = 0.2

#: What a caption says of what there is of one seed.
_ONE_SEED = "1 training seed: no intervals"

#: Bands are drawn of so many seeds or more: of two, t is 12.7.
_BAND_SEEDS = 3


def write_figures(
    folder: Path,
    axes: Sequence[str],
    gains: pd.DataFrame,
    curves: pd.DataFrame,
    baseline: str = "standard",
) -> dict[str, str]:
    """Write every figure as PDF, PNG and CSV into ``folder``; return captions by name.

    Args:
        gains: of :func:`offramp.study.statistics.paired_gains`, over ``baseline``.
        curves: one row per configuration, ``strategy``, ``seed``, ``exit`` and ``step``, with
            ``validation_accuracy`` from 0 to 1.

    Raises:
        ResultsError: ``curves`` lacks columns or has a row twice.
        OSError: the folder cannot be written to.
    """
    captions = {}
    with paper_style():
        # One at a time: each is closed before the next is drawn.
        for name, figure in chain(
            gain_figures(gains, axes),
            curve_figures(curves, axes),
            gain_curve_figures(curves, axes, baseline),
        ):
            save_figure(figure, folder, name)
            captions[name] = figure.caption
    return captions


def gain_figures(gains: pd.DataFrame, axes: Sequence[str]) -> Iterator[tuple[str, Figure]]:
    """Gain over the baseline at each exit, one panel per configuration; one figure per measure.

    Yields names and figures; more than 12 configurations are cut into several figures.
    """
    for measure, of_measure in gains.groupby("measure", sort=False):
        family = int(of_measure["p"].notna().sum())
        for suffix, part in parts(of_measure, axes, MOST_PANELS):
            yield f"gain_{measure}{suffix}", _gain_figure(part, axes, str(measure), family)


def curve_figures(curves: pd.DataFrame, axes: Sequence[str]) -> Iterator[tuple[str, Figure]]:
    """Validation accuracy against the step: a row per configuration, a column per exit.

    Yields names and figures; more than 5 configurations are cut into several figures.
    """
    check_table(curves, [*axes, "strategy", "seed", "exit", "step"], ["validation_accuracy"])
    for suffix, part in parts(curves, axes, MOST_ROWS):
        data = _mean_curves(part, axes, "validation_accuracy")
        caption = "Validation accuracy during training, by exit. Lines: means over " + (
            f"{_seeds(data['n'])}; bands: their 95 % t intervals, each arm by itself. The "
            "bands also hold what seeds share, so arms whose bands overlap may still differ."
            if data["n"].max() > 1
            else f"{_ONE_SEED}."
        )
        figure = _curve_figure(data, axes, "validation accuracy", caption)
        for panel in figure.drawing.axes:
            panel.yaxis.set_major_formatter(PERCENT)
        yield f"learning_curves{suffix}", figure


def gain_curve_figures(
    curves: pd.DataFrame, axes: Sequence[str], baseline: str
) -> Iterator[tuple[str, Figure]]:
    """Gain in validation accuracy over ``baseline`` against the step, paired by seed.

    Yields names and figures, laid out as those of :func:`curve_figures`; none if there is no
    other strategy.
    """
    keys = [*axes, "seed", "exit", "step"]
    check_table(curves, [*keys, "strategy"], ["validation_accuracy"])
    others = curves[curves["strategy"] != baseline]
    reference = curves.loc[curves["strategy"] == baseline, [*keys, "validation_accuracy"]]
    paired = others.merge(reference, on=keys, suffixes=("", "_baseline"))
    paired["gain_points"] = 100 * (
        paired["validation_accuracy"] - paired["validation_accuracy_baseline"]
    )
    if paired.empty:
        return
    for suffix, part in parts(paired, axes, MOST_ROWS):
        data = _mean_curves(part, axes, "gain_points")
        caption = (
            f"Gain in validation accuracy over {baseline} during training, by exit, in percentage "
            "points. Lines: means over "
            + (
                f"{_seeds(data['n'])}, paired; bands: 95 % t intervals of the paired gain, at each "
                "step by itself."
                if data["n"].max() > 1
                else f"{_ONE_SEED}."
            )
        )
        label = f"gain in validation accuracy\nover {baseline} (points)"
        figure = _curve_figure(data, axes, label, caption)
        for panel in figure.drawing.axes:
            panel.axhline(0, color="0.3", linewidth=0.8, zorder=1)
        yield f"gain_during_training{suffix}", figure


def _gain_figure(gains: pd.DataFrame, axes: Sequence[str], measure: str, family: int) -> Figure:
    strategies = _in_order(gains)
    figure, panels = configuration_panels(gains, axes)
    for rows, panel in panels:
        exits = sorted(rows["exit"].unique())
        panel.axhline(0, color="0.3", linewidth=0.8, zorder=1)
        for index, strategy in enumerate(strategies):
            of_strategy = rows[rows["strategy"] == strategy]
            shift = _DODGE * (index - (len(strategies) - 1) / 2)
            for row in of_strategy.itertuples():
                shown = row.verdict in (BETTER, WORSE)
                panel.errorbar(
                    exits.index(row.exit) + shift,
                    row.gain_points,
                    yerr=None if math.isnan(row.half_width_points) else row.half_width_points,
                    color=STRATEGY_COLOURS[strategy],
                    marker=STRATEGY_MARKERS[strategy],
                    markerfacecolor=STRATEGY_COLOURS[strategy] if shown else "white",
                    elinewidth=1,
                    markeredgewidth=0.9,
                )
        panel.set_xticks(range(len(exits)), [str(exit) for exit in exits])
        panel.set_xlim(-0.5, len(exits) - 0.5)
        panel.grid(visible=False, axis="x")
    baseline = gains["baseline"].iloc[0]
    text = MEASURE_TEXTS.get(measure, measure)
    figure.supxlabel("exit", fontsize=8)
    short = "curve area" if measure == "curve_area" else text
    figure.supylabel(f"gain in {short}\nover {baseline} (points)", fontsize=8)
    _legend(figure, strategies, linestyle="", marker=True)
    caption = f"Gain in {text} over {baseline} at each exit, in percentage points: means over " + (
        f"{_seeds(gains['n'])}, paired, with 95 % t intervals, not corrected for the number of "
        "comparisons. Filled markers: p < 0.05 after Holm's correction over the study's "
        f"{family} tested comparisons of this measure; open markers: no difference shown."
        if gains["n"].max() > 1
        else f"{_ONE_SEED}, and {family} tested comparisons of this measure."
    )
    return Figure(figure, gains, caption + _common(gains, axes))


def _curve_figure(data: pd.DataFrame, axes: Sequence[str], label: str, caption: str) -> Figure:
    strategies = _in_order(data)
    figure, panels = exit_panels(data, axes)
    marked = data["step"].nunique() <= _MARKED_POINTS
    for rows, panel in panels:
        for strategy in strategies:
            curve = rows[rows["strategy"] == strategy].sort_values("step")
            panel.plot(
                curve["step"],
                curve["mean"],
                color=STRATEGY_COLOURS[strategy],
                dashes=STRATEGY_DASHES[strategy] or (None, None),
                marker=STRATEGY_MARKERS[strategy] if marked else None,
                markersize=2.5,
                linewidth=1.1,
            )
            panel.fill_between(
                curve["step"],
                curve["low"],
                curve["high"],
                where=curve["n"] >= _BAND_SEEDS,
                color=STRATEGY_COLOURS[strategy],
                alpha=0.15,
                linewidth=0,
            )
        panel.set_xlim(0, 1.05 * rows["step"].max() or 1)
        panel.xaxis.set_major_locator(MaxNLocator(3, steps=[1, 2, 2.5, 5, 10], integer=True))
    figure.supxlabel("optimiser step", fontsize=8)
    figure.supylabel(label, fontsize=8)
    _legend(figure, strategies, marker=marked)
    if (data["n"] == 2).any():
        caption += " Of two seeds no band is drawn: their t interval would hide the means."
    return Figure(figure, data, caption + _common(data, axes))


def _mean_curves(curves: pd.DataFrame, axes: Sequence[str], of: str) -> pd.DataFrame:
    """Mean and interval over seeds of column ``of``, at every step."""
    rows = []
    for setting, of_configuration in configurations(curves, axes):
        arms = of_configuration.groupby(["exit", "strategy", "step"], sort=False)
        for (exit, strategy, step), group in arms:
            interval = confidence_interval(group[of].dropna().to_numpy())
            rows.append(
                dict(zip(axes, setting, strict=True))
                | {"exit": exit, "strategy": strategy, "step": step, "mean": interval.mean}
                | {"low": interval.low, "high": interval.high, "n": interval.n}
            )
    return pd.DataFrame(rows)


def _in_order(frame: pd.DataFrame) -> list[str]:
    """The strategies in ``frame``, in the order of the house style."""
    present = set(frame["strategy"])
    return [strategy for strategy in STRATEGY_COLOURS if strategy in present]


def _legend(
    figure: MplFigure, strategies: Sequence[str], *, linestyle: str = "-", marker: bool
) -> None:
    """One legend for the whole figure, above it, on two lines if one is too narrow."""
    handles = []
    for strategy in strategies:
        style: dict[str, Any] = {"linestyle": linestyle}
        if linestyle and STRATEGY_DASHES[strategy]:
            style = {"dashes": STRATEGY_DASHES[strategy]}
        handles.append(
            Line2D(
                [],
                [],
                color=STRATEGY_COLOURS[strategy],
                marker=STRATEGY_MARKERS[strategy] if marker else None,
                label=strategy,
                **style,
            )
        )
    wide = figure.get_figwidth() >= DOUBLE_COLUMN
    figure.legend(
        handles=handles, loc="outside upper center", ncols=4 if wide else 2, frameon=False
    )


def _seeds(counts: pd.Series) -> str:
    few, many = int(counts.min()), int(counts.max())
    if few == many:
        return counted(many, "training seed")
    return f"{few} to {many} training seeds"


def _common(frame: pd.DataFrame, axes: Sequence[str]) -> str:
    settings = common_settings(frame, axes)
    return f" Here {settings}." if settings else ""
