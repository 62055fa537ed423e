"""Figures of a sweep against one swept key: AUD, gain over the baseline, exits taken."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure as MplFigure
from matplotlib.patches import Patch
from pandas.api.types import is_integer_dtype

from offramp.report.figure import (
    TITLE_LINE,
    Figure,
    label_left,
    legend_above,
    name_row,
    no_interval,
    panels_for,
    wrapped,
)
from offramp.report.style import (
    COLUMN,
    DOUBLE_COLUMN,
    GUIDE,
    PERCENT,
    STRATEGY_LOOKS,
    UNANSWERED_COLOUR,
    Look,
    exit_colours,
)
from offramp.report.sweep_table import SweepResults, file_part, key_label, setting_text, value_text
from offramp.words import counted

#: Values of a second swept key that become columns of panels, and policies that become rows.
MOST_COLUMNS = 4
MOST_ROWS = 4

#: Values over more than this factor, in even steps of a factor, are drawn on a logarithmic axis.
_LOG_FROM = 20

#: More markers than this are drawn as a picture inside the PDF.
_MOST_MARKERS = 2000

#: More values than this are told by the first and the last.
_MOST_NAMED = 8

#: What a mark of a point in a figure says.
OVERLOAD = "a node or a link was OVERLOADED, and the figure depends on the window's length"

#: How a marker is crossed out.
CROSS: dict[str, Any] = {
    "color": "0.25",
    "marker": "x",
    "markersize": 3,
    "markeredgewidth": 0.6,
    "linestyle": "none",
}

#: A panel of the figure, and the rows of the table that belong into it.
Panel = tuple[Axes, pd.DataFrame]


def figures_against(sweep: SweepResults, key: str) -> Iterator[tuple[str, Figure]]:
    """Every figure against one swept key, by name."""
    balanced = sweep.balanced([key])
    crossed = _crossed_with(sweep, key)
    name = file_part(key)
    if balanced.empty:
        yield f"aud_against_{name}", _scattered(sweep, key, gain=False)
        if sweep.others:
            yield f"gain_against_{name}", _scattered(sweep, key, gain=True)
        return
    for part, policies in sweep.policy_parts(MOST_ROWS):
        yield f"aud_against_{name}{part}", _lines(sweep, key, crossed, policies, balanced)
    if sweep.others:
        for part, policies in sweep.policy_parts(MOST_ROWS):
            yield (
                f"gain_against_{name}{part}",
                _lines(sweep, key, crossed, policies, balanced, gain=True),
            )
    for part, policies in sweep.policy_parts(MOST_ROWS):
        yield f"exits_against_{name}{part}", _exits(sweep, key, policies, balanced)


def _crossed_with(sweep: SweepResults, key: str) -> str | None:
    """The other key, if there is just one more and every value of it meets every one of ``key``."""
    others = [other for other in sweep.varying if other != key]
    if len(others) != 1:
        return None
    pairs = len(sweep.rows[[key, others[0]]].drop_duplicates())
    cells = sweep.rows[key].nunique() * sweep.rows[others[0]].nunique()
    return others[0] if pairs == cells else None


def _lines(
    sweep: SweepResults,
    key: str,
    crossed: str | None,
    policies: list[str],
    points: pd.DataFrame,
    *,
    gain: bool = False,
) -> Figure:
    """Lines with bands by strategy; panels by policy, and by value of a second key if crossed."""
    values = sweep.paired_gains() * 100 if gain else sweep.aud(sweep.unit)
    unit = "training_seed" if gain else sweep.unit
    chosen = values[
        values.index.get_level_values("point").isin(points["point"])
        & values.index.get_level_values("policy").isin(policies)
    ]
    over = [key, *([crossed] if crossed else [])]
    data = sweep.means(chosen, over, unit)
    data = sweep.with_overload(data, over, points["point"], gain=gain)
    columns = evenly_chosen(sweep.values(crossed), MOST_COLUMNS) if crossed else []
    figure, panels = _panels(data, policies, crossed, columns)
    strategies = sweep.others if gain else sweep.strategies
    for axes, rows in panels:
        if gain:
            axes.axhline(0, **GUIDE, zorder=1)
        for shift, strategy in _shifts(sweep, key, strategies):
            look = STRATEGY_LOOKS[strategy]
            curve = rows[rows["strategy"] == strategy]
            x = _places(sweep, key, curve[key]) + shift
            order = np.argsort(x)
            curve, x = curve.iloc[order], x[order]
            if sweep.is_number(key):
                axes.plot(x, curve["mean"], **look.line(), marker=look.marker, label=strategy)
                _hollow(axes, x, curve, look)
                band: dict[str, Any] = {"color": look.colour, "alpha": 0.15, "linewidth": 0}
                axes.fill_between(x, curve["low"], curve["high"], **band)
                continue
            half = curve["high"] - curve["mean"]
            axes.errorbar(
                x,
                curve["mean"],
                yerr=None if half.isna().all() else half,
                color=look.colour,
                marker=look.marker,
                linestyle="none",
                elinewidth=1,
                label=strategy,
            )
            _hollow(axes, x, curve, look)
        if not gain:
            axes.yaxis.set_major_formatter(PERCENT)
        _x_axis(sweep, key, axes)
    shown = [axes for axes, _ in panels]
    if not gain:
        highest = data[["mean", "high"]].max(axis=None)
        shown[0].set_ylim(0, 1.04 * min(1.0, max(0.01, highest)))
    figure.supxlabel(key_label(key))
    label = f"gain in AUD over\n{sweep.baseline} (points)" if gain else "accuracy under deadline"
    label_left(shown, label)
    seeds = sweep.training_seeds if gain else max(sweep.training_seeds, sweep.replications)
    what = "training seed" if gain else "training seed and replication"
    note = no_interval(seeds, what)
    legend_above(figure, *shown[0].get_legend_handles_labels(), note=note)
    caption = _line_caption(sweep, key, crossed, columns, points, data, gain=gain)
    named = {"mean": "gain_points" if gain else "aud"}
    return Figure(figure, data.rename(columns=named), caption)


def _line_caption(
    sweep: SweepResults,
    key: str,
    crossed: str | None,
    columns: list[Any],
    points: pd.DataFrame,
    data: pd.DataFrame,
    *,
    gain: bool,
) -> str:
    what = (
        f"Gain in accuracy under deadline over {sweep.baseline}, in percentage points, paired by "
        "training seed,"
        if gain
        else "Accuracy under deadline"
    )
    text = f"{what} against {key_label(key)} (swept: {key}). "
    if crossed and len(columns) < sweep.rows[crossed].nunique():
        text += f"Columns: {len(columns)} of {sweep.rows[crossed].nunique()} values of {crossed}. "
    text += _averaged(sweep, [key, *([crossed] if crossed else [])], points)
    most, over = int(data["n"].max()), str(data["over"].iloc[0])
    marks = "Bands" if sweep.is_number(key) else "Bars"
    if most > 1:
        text += (
            f"{marks}: 95 % t intervals over {counted(most, over.removesuffix('s'))}, each value "
            "by itself"
        )
        if not gain and over == "replications":
            text += " and with one training: they say nothing of another"
    else:
        text += f"No intervals: {counted(most, over.removesuffix('s'))}"
    text += f"; {sweep.repetitions}."
    if data["overloaded"].any():
        text += f" Hollow markers: {OVERLOAD}."
    return text


def _hollow(axes: Axes, x: np.ndarray, curve: pd.DataFrame, look: Look) -> None:
    """Hollow markers over those of what depends on the window's length."""
    there = curve["overloaded"].to_numpy(dtype=bool)
    axes.plot(
        x[there],
        curve["mean"].to_numpy()[there],
        linestyle="none",
        marker=look.marker,
        color=look.colour,
        markerfacecolor="white",
        zorder=3,
    )


def _averaged(sweep: SweepResults, over: list[str], points: pd.DataFrame) -> str:
    """What a mean is over, where other keys were swept too."""
    others = [key for key in sweep.varying if key not in over]
    if not others:
        return ""
    settings = len(points[others].drop_duplicates())
    text = f"Means over {counted(settings, 'setting')} of {', '.join(others)}"
    left_out = sweep.points - len(points)
    if left_out:
        text += f" that all values have ({counted(left_out, 'point')} left out)"
    return text + ". "


def _panels(
    data: pd.DataFrame, policies: list[str], crossed: str | None, columns: list[Any]
) -> tuple[MplFigure, list[Panel]]:
    """Panels and their rows: one per policy, or per policy (row) and value of a key (column)."""
    if not crossed:
        figure, panels = panels_for(policies)
        return figure, [
            (axes, data[data["policy"] == policy])
            for axes, policy in zip(panels, policies, strict=True)
        ]
    width = COLUMN if len(columns) == 1 else DOUBLE_COLUMN
    titles = [
        wrapped(setting_text(crossed, value), width / len(columns) - 0.2) for value in columns
    ]
    lines = max(title.count("\n") for title in titles)
    figure, grid = plt.subplots(
        len(policies),
        len(columns),
        figsize=(width, 0.75 + TITLE_LINE * lines + 1.35 * len(policies)),
        sharex=True,
        sharey=True,
        squeeze=False,
    )
    placed = []
    for row, policy in enumerate(policies):
        for column, value in enumerate(columns):
            axes = grid[row, column]
            if row == 0:
                axes.set_title(titles[column])
            rows = data[(data["policy"] == policy) & (data[crossed] == value)]
            placed.append((axes, rows))
        if len(policies) > 1:
            name_row(grid[row, -1], wrapped(policy, 1.3))
    return figure, placed


def _exits(sweep: SweepResults, key: str, policies: list[str], points: pd.DataFrame) -> Figure:
    """Shares of the exits taken, stacked, by policy (rows) and strategy (columns)."""
    shares = sweep.exit_shares()
    shares = shares[shares.index.get_level_values("point").isin(points["point"])]
    means = shares.groupby(["policy", "strategy", key]).mean()
    of_policy, of_strategy = map(means.index.get_level_values, ("policy", "strategy"))
    last = len(means.columns) - 1
    colours = [UNANSWERED_COLOUR, *exit_colours(last)]
    strategies = sweep.strategies
    width = COLUMN if len(strategies) == 1 else DOUBLE_COLUMN
    figure, grid = plt.subplots(
        len(policies),
        len(strategies),
        figsize=(width, 0.85 + 1.3 * len(policies)),
        sharex=True,
        sharey=True,
        squeeze=False,
    )
    has_unanswered = bool((means[0] > 0).any())
    for row, policy in enumerate(policies):
        for column, strategy in enumerate(strategies):
            axes = grid[row, column]
            # Not every arm is at these points, where policies or strategies were swept.
            of_arm = means[(of_policy == policy) & (of_strategy == strategy)].droplevel([0, 1])
            x = _places(sweep, key, of_arm.index)
            order = np.argsort(x)
            x, of_arm = x[order], of_arm.iloc[order]
            lower = np.zeros(len(x))
            for exit in [*range(1, last + 1), *([0] if has_unanswered else [])]:
                upper = lower + of_arm[exit].to_numpy()
                look = {
                    "facecolor": colours[exit],
                    "edgecolor": "white",
                    "linewidth": 0.4,
                    "hatch": "" if exit else "////",
                }
                if sweep.is_number(key) and len(x) > 1:
                    axes.fill_between(x, lower, upper, **look)
                else:
                    axes.bar(x, upper - lower, bottom=lower, width=0.7, **look)
                lower = upper
            if row == 0:
                axes.set_title(strategy)
            axes.grid(visible=False)
            axes.set_ylim(0, 1)
            axes.yaxis.set_major_formatter(PERCENT)
            _x_axis(sweep, key, axes)
            if sweep.is_number(key) and len(x) > 1:
                axes.set_xlim(x[0], x[-1])
        if len(policies) > 1:
            name_row(grid[row, -1], wrapped(policy, 1.2))
    figure.supxlabel(key_label(key))
    figure.supylabel("share of offered requests")
    handles = [Patch(facecolor=colours[exit], edgecolor="white") for exit in range(1, last + 1)]
    labels = [f"exit {exit}" for exit in range(1, last + 1)]
    if has_unanswered:
        handles.append(Patch(facecolor=colours[0], edgecolor="white", hatch="////"))
        labels.append("not answered")
    legend_above(figure, handles, labels)
    data = means[of_policy.isin(policies)].rename(
        columns=lambda exit: f"exit_{exit}" if exit else "unanswered"
    )
    caption = (
        "Share of all offered requests that each exit answered, against "
        f"{key_label(key)} (swept: {key}), stacked. {_averaged(sweep, [key], points)}"
        f"Over all requests of {sweep.repetitions}; no interval is drawn"
        + (
            "; between the values that were run, lines are straight."
            if sweep.is_number(key)
            else "."
        )
    )
    overloaded = sweep.rows.loc[sweep.overloaded_rows & sweep.rows["policy"].isin(policies), key]
    if len(overloaded):
        values = [value_text(value) for value in sweep.values(key) if value in set(overloaded)]
        if len(values) > _MOST_NAMED:
            values = [f"{len(values)} values from {values[0]} to {values[-1]}"]
        caption += f" At {', '.join(values)}, {OVERLOAD}."
    return Figure(figure, data.reset_index(), caption)


def _scattered(sweep: SweepResults, key: str, *, gain: bool) -> Figure:
    """A marker for each point and strategy, where values were drawn and meet nothing equal."""
    if gain:
        data = sweep.with_overload(sweep.gains, ["point"], sweep.gains["point"], gain=True)
        data = data.rename(columns={"mean": "gain_points"})
        column, strategies = "gain_points", sweep.others
    else:
        levels = ["point", *sweep.keys]
        data = sweep.means(sweep.aud(sweep.unit), levels, sweep.unit)
        data = sweep.with_overload(data, ["point"], data["point"], gain=False)
        data = data.rename(columns={"mean": "aud"})
        column, strategies = "aud", sweep.strategies
    figure, panels = panels_for(sweep.policies)
    for axes, policy in zip(panels, sweep.policies, strict=True):
        if gain:
            axes.axhline(0, **GUIDE, zorder=1)
        for shift, strategy in _shifts(sweep, key, strategies):
            rows = data[(data["policy"] == policy) & (data["strategy"] == strategy)]
            look = STRATEGY_LOOKS[strategy]
            axes.plot(
                _places(sweep, key, rows[key]) + shift,
                rows[column],
                color=look.colour,
                marker=look.marker,
                markerfacecolor="none",
                markersize=3,
                markeredgewidth=0.7,
                linestyle="none",
                label=strategy,
                rasterized=len(data) > _MOST_MARKERS,
            )
            crossed = rows[rows["overloaded"]]
            axes.plot(
                _places(sweep, key, crossed[key]) + shift,
                crossed[column],
                **CROSS,
                rasterized=len(data) > _MOST_MARKERS,
            )
        if not gain:
            axes.set_ylim(0, 1.02)
            axes.yaxis.set_major_formatter(PERCENT)
        _x_axis(sweep, key, axes)
    figure.supxlabel(key_label(key))
    label = f"gain in AUD over\n{sweep.baseline} (points)" if gain else "accuracy under deadline"
    label_left(panels, label)
    legend_above(figure, *panels[0].get_legend_handles_labels())
    what = f"Gain in AUD over {sweep.baseline} (paired)" if gain else "Accuracy under deadline"
    caption = (
        f"{what} against {key_label(key)} (swept: {key}), a marker for each of "
        f"{counted(sweep.points, 'point')}, at which other keys differ too: "
        f"{', '.join(other for other in sweep.varying if other != key)}. Each marker is over "
        f"{sweep.repetitions}; {where_intervals_are(data)}."
    )
    if data["overloaded"].any():
        caption += f" Crossed out: {OVERLOAD}."
    return Figure(figure, data, caption)


def where_intervals_are(data: pd.DataFrame) -> str:
    """What a caption says of intervals that are not drawn."""
    none = data["high"].isna().all()
    return "there are no intervals" if none else "intervals are in the data, not drawn"


# --- axes ---------------------------------------------------------------------------------------


def evenly_chosen(values: list[Any], most: int) -> list[Any]:
    """At most so many of the values, evenly from the first to the last."""
    if len(values) <= most:
        return values
    return [values[round(index * (len(values) - 1) / (most - 1))] for index in range(most)]


def _places(sweep: SweepResults, key: str, values: Any) -> np.ndarray:
    """Where values of a key lie on its axis: numbers at themselves, others one after another."""
    if sweep.is_number(key):
        return np.asarray(values, dtype=np.float64)
    order = {value: index for index, value in enumerate(sweep.values(key))}
    return np.array([order[value] for value in values], dtype=np.float64)


def _shifts(sweep: SweepResults, key: str, strategies: list[str]) -> list[tuple[float, str]]:
    """Strategies, and how far apart their markers are where values are names."""
    step = 0.0 if sweep.is_number(key) else 0.16
    middle = (len(strategies) - 1) / 2
    return [(step * (index - middle), strategy) for index, strategy in enumerate(strategies)]


def _x_axis(sweep: SweepResults, key: str, axes: Axes) -> None:
    values = sweep.values(key)
    if not sweep.is_number(key):
        texts = [wrapped(value_text(value), 0.9) for value in values]
        axes.set_xticks(range(len(values)), texts)
        axes.set_xlim(-0.5, len(values) - 0.5)
        if sum(map(len, texts)) > 24:
            axes.tick_params(axis="x", labelrotation=30)
        return
    logarithmic = is_logarithmic(values)
    if logarithmic:
        axes.set_xscale("log")
    elif min(values) >= 0 and min(values) < 0.3 * max(values):
        axes.set_xlim(left=0)
    if is_integer_dtype(sweep.rows[key]):
        shown = _ticks_that_fit(axes, [float(value) for value in values], logarithmic)
        axes.set_xticks(shown, [f"{value:g}" for value in shown])
        axes.minorticks_off()


def _ticks_that_fit(axes: Axes, values: list[float], logarithmic: bool) -> list[float]:
    """The values that were run, but for those whose numbers would touch the one before."""
    place, figure = axes.get_subplotspec(), axes.get_figure(root=True)
    assert place is not None
    assert figure is not None
    inches = 0.8 * figure.get_figwidth() / place.get_gridspec().ncols
    at = np.log(values) if logarithmic else np.asarray(values)
    low = at[0] if logarithmic else min(0.0, at[0])
    scaled = inches * (at - low) / ((at[-1] - low) or 1.0)
    shown = [0]
    for index in range(1, len(values)):
        width = 0.03 * (len(f"{values[shown[-1]]:g}") + len(f"{values[index]:g}")) + 0.06
        if scaled[index] - scaled[shown[-1]] >= width:
            shown.append(index)
    return [values[index] for index in shown]


def is_logarithmic(values: list[float]) -> bool:
    """Whether numbers grow by factors rather than by steps."""
    if len(values) < 3 or values[0] <= 0 or values[-1] < _LOG_FROM * values[0]:
        return False
    steps, factors = np.diff(values), np.diff(np.log(values))
    return bool(factors.std() / factors.mean() < steps.std() / steps.mean())
