"""Maps of two swept keys: AUD of each policy and strategy, and the gain over the baseline."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations
from typing import Any

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize, TwoSlopeNorm
from matplotlib.figure import Figure as MplFigure
from matplotlib.patches import Rectangle

from offramp.report.figure import TITLE_LINE, Figure, name_row, wrapped
from offramp.report.paired import SIGNIFICANCE, compare_groups
from offramp.report.style import COLUMN, DOUBLE_COLUMN, GAIN_MAP, PERCENT, SHARE_MAP, SMALL
from offramp.report.sweep_figures import CROSS, OVERLOAD, where_intervals_are
from offramp.report.sweep_table import SweepResults, file_part, key_label, value_text
from offramp.words import capitalised, counted

#: Maps of more pairs of keys, and with more cells on a side, help nobody.
MOST_PAIRS = 3
MOST_CELLS = 40

#: Policies on one map; more make further figures.
MOST_POLICIES = 3

#: Width of a cell's number, in inches.
_NUMBER = 0.3


def maps(sweep: SweepResults) -> Iterator[tuple[str, Figure]]:
    """Maps of the first pairs of swept keys, by name."""
    for pair in list(combinations(sweep.varying, 2))[:MOST_PAIRS]:
        name = "_".join(file_part(key) for key in pair)
        points = sweep.balanced(list(pair))
        full = len(points[list(pair)].drop_duplicates())
        sides = [sweep.rows[key].nunique() for key in pair]
        is_grid = full == sides[0] * sides[1] and max(sides) <= MOST_CELLS
        if not is_grid and not all(sweep.is_number(key) for key in pair):
            continue
        for part, policies in sweep.policy_parts(MOST_POLICIES):
            if is_grid:
                x, y = pair if sides[0] >= sides[1] else pair[::-1]
                yield f"aud_map_{name}{part}", _grid(sweep, x, y, policies, points, gain=False)
                if sweep.others:
                    yield f"gain_map_{name}{part}", _grid(sweep, x, y, policies, points, gain=True)
            else:
                yield f"aud_map_{name}{part}", _scatter(sweep, *pair, policies)


def _grid(
    sweep: SweepResults,
    x: str,
    y: str,
    policies: list[str],
    points: pd.DataFrame,
    *,
    gain: bool,
) -> Figure:
    """Cells by two keys: a panel for each policy (column) and strategy (row)."""
    data = _cells(sweep, x, y, policies, points, gain=gain)
    strategies = sweep.others if gain else sweep.strategies
    column = "gain_points" if gain else "aud"
    norm, colours = _scale(data[column], gain=gain)
    xs, ys = sweep.values(x), sweep.values(y)
    cell_height = min(0.26, 2.4 / len(ys))
    height = 0.35 + cell_height * len(ys)
    figure, panels = _panels(policies, strategies, height)
    panel_width = (figure.get_figwidth() - 1.2) / len(policies)
    numbers = panel_width / len(xs) >= _NUMBER and cell_height >= 0.13
    for (policy, strategy), axes in panels.items():
        of_arm = data[(data["policy"] == policy) & (data["strategy"] == strategy)]
        cells = of_arm.pivot(index=y, columns=x, values=column).reindex(index=ys, columns=xs)
        mesh = axes.pcolormesh(
            np.arange(len(xs) + 1) - 0.5,
            np.arange(len(ys) + 1) - 0.5,
            cells.to_numpy(),
            norm=norm,
            cmap=colours,
            linewidth=0.3,
            edgecolor="white",
        )
        axes.grid(visible=False)
        marks = of_arm.pivot(index=y, columns=x, values="overloaded").reindex(index=ys, columns=xs)
        _hatch(axes, marks)
        _ticks(axes, xs, ys, panel_width)
        if numbers:
            _write(axes, cells, mesh, _significant(of_arm, x, y, xs, ys) if gain else None)
    figure.supxlabel(key_label(x))
    figure.supylabel(wrapped(key_label(y), height * len(strategies)))
    bar = figure.colorbar(
        ScalarMappable(norm, colours), ax=list(panels.values()), aspect=25, pad=0.02
    )
    label = f"gain over {sweep.baseline} (points)" if gain else "accuracy under deadline"
    bar.set_label(wrapped(label, height * len(strategies)))
    bar.outline.set_linewidth(0.4)
    if not gain:
        bar.formatter = PERCENT
        bar.update_ticks()
    return Figure(figure, data, _caption(sweep, x, y, points, data, numbers, gain=gain))


def _cells(
    sweep: SweepResults,
    x: str,
    y: str,
    policies: list[str],
    points: pd.DataFrame,
    *,
    gain: bool,
) -> pd.DataFrame:
    values = 100 * sweep.paired_gains() if gain else sweep.aud(sweep.unit)
    level = values.index.get_level_values
    values = values[level("point").isin(points["point"]) & level("policy").isin(policies)]
    if not gain:
        means = sweep.means(values, [x, y], sweep.unit)
        means = sweep.with_overload(means, [x, y], points["point"], gain=False)
        return means.rename(columns={"mean": "aud"})
    levels = [x, y, "policy", "strategy"]
    by_seed = values.groupby([*levels, "training_seed"], sort=False).mean()
    found = compare_groups(by_seed, levels).reset_index()
    found = sweep.with_overload(found, [x, y], points["point"], gain=True)
    return found.rename(columns={"mean": "gain_points"}).assign(over="training seeds")


def _scale(values: pd.Series, *, gain: bool) -> tuple[Normalize, mpl.colors.Colormap]:
    if gain:
        most = max(float(values.abs().max()), 0.1)
        return TwoSlopeNorm(0.0, -most, most), mpl.colormaps[GAIN_MAP]
    low, high = float(values.min()), float(values.max())
    return Normalize(low, max(high, low + 1e-3)), mpl.colormaps[SHARE_MAP]


def _panels(
    policies: list[str], strategies: list[str], height: float
) -> tuple[MplFigure, dict[tuple[str, str], Axes]]:
    width = COLUMN if len(policies) == 1 else DOUBLE_COLUMN
    titles = [wrapped(policy, (width - 1.2) / len(policies) - 0.1) for policy in policies]
    lines = 1 + max(title.count("\n") for title in titles)
    figure, grid = plt.subplots(
        len(strategies),
        len(policies),
        figsize=(width, 0.45 + TITLE_LINE * lines + height * len(strategies)),
        sharex=True,
        sharey=True,
        squeeze=False,
    )
    panels = {}
    for row, strategy in enumerate(strategies):
        for column, policy in enumerate(policies):
            axes = grid[row, column]
            if row == 0:
                axes.set_title(titles[column])
            panels[policy, strategy] = axes
        if len(strategies) > 1:
            name_row(grid[row, -1], wrapped(strategy, 1.2))
    return figure, panels


def _ticks(axes: Axes, xs: list[Any], ys: list[Any], width: float) -> None:
    """As many names of values as fit."""
    longest = max(len(value_text(value)) for value in xs)
    step = max(1, int(np.ceil(len(xs) * (0.065 * longest + 0.05) / width)))
    axes.set_xticks(range(0, len(xs), step), [value_text(value) for value in xs[::step]])
    step = -(-len(ys) // 14)
    axes.set_yticks(range(0, len(ys), step), [value_text(value) for value in ys[::step]])
    axes.tick_params(length=2)


def _hatch(axes: Axes, marks: pd.DataFrame) -> None:
    """Hatch the cells that depend on the window's length."""
    for (row, column), is_marked in np.ndenumerate(marks.eq(True).to_numpy()):
        if is_marked:
            axes.add_patch(
                Rectangle(
                    (column - 0.5, row - 0.5), 1, 1, fill=False, hatch="////", edgecolor="0.5", lw=0
                )
            )


def _write(axes: Axes, cells: pd.DataFrame, mesh: Any, bold: np.ndarray | None) -> None:
    """The number of each cell, in black or white, whichever can be read."""
    faces = mesh.cmap(mesh.norm(cells.to_numpy()))
    for (row, column), value in np.ndenumerate(cells.to_numpy()):
        if np.isnan(value):
            continue
        light = faces[row, column, :3] @ np.array([0.2126, 0.7152, 0.0722]) > 0.45
        axes.text(
            column,
            row,
            f"{value:+.1f}" if bold is not None else f"{100 * value:.0f}",
            ha="center",
            va="center",
            fontsize=SMALL,
            color="black" if light else "white",
            fontweight="bold" if bold is not None and bold[row, column] else "normal",
            bbox={"facecolor": faces[row, column], "edgecolor": "none", "pad": 0.8},
        )


def _significant(cells: pd.DataFrame, x: str, y: str, xs: list[Any], ys: list[Any]) -> np.ndarray:
    p = cells.pivot(index=y, columns=x, values="p_holm").reindex(index=ys, columns=xs)
    return np.asarray(p < SIGNIFICANCE)


def _caption(
    sweep: SweepResults,
    x: str,
    y: str,
    points: pd.DataFrame,
    data: pd.DataFrame,
    numbers: bool,
    *,
    gain: bool,
) -> str:
    what = (
        f"Gain in accuracy under deadline over {sweep.baseline}, in percentage points, paired by "
        "training seed,"
        if gain
        else "Accuracy under deadline, in per cent,"
    )
    text = f"{what} by {key_label(x)} (swept: {x}) and {key_label(y)} ({y})"
    others = [key for key in sweep.varying if key not in (x, y)]
    if others:
        settings = len(points[others].drop_duplicates())
        text += f"; means over {counted(settings, 'setting')} of {', '.join(others)}"
    text += f". {capitalised(sweep.repetitions)}"
    tested = int(data["p"].notna().sum()) if gain else 0
    if gain and tested and numbers:
        text += (
            f". Bold: p < {SIGNIFICANCE:g} (paired t-test) after Holm's correction over the "
            f"{tested} tested cells; intervals are in the data."
        )
    elif gain and not tested:
        text += ". Nothing could be tested: one training seed says nothing of another."
    else:
        text += f"; {where_intervals_are(data)}."
    return text + (f" Hatched: {OVERLOAD}." if data["overloaded"].any() else "")


def _scatter(sweep: SweepResults, x: str, y: str, policies: list[str]) -> Figure:
    """A dot for each point, coloured by its AUD, where values were drawn at random."""
    levels = ["point", *sweep.keys]
    aud = sweep.aud(sweep.unit)
    aud = aud[aud.index.get_level_values("policy").isin(policies)]
    data = sweep.means(aud, levels, sweep.unit)
    data = sweep.with_overload(data, ["point"], data["point"], gain=False)
    data = data.rename(columns={"mean": "aud"})
    norm, colours = _scale(data["aud"], gain=False)
    figure, panels = _panels(policies, sweep.strategies, 1.5)
    for (policy, strategy), axes in panels.items():
        rows = data[(data["policy"] == policy) & (data["strategy"] == strategy)]
        axes.scatter(
            rows[x],
            rows[y],
            c=rows["aud"],
            norm=norm,
            cmap=colours,
            s=14,
            edgecolor="0.4",
            linewidth=0.3,
            rasterized=len(data) > 2000,
        )
        crossed = rows[rows["overloaded"]]
        axes.plot(crossed[x], crossed[y], **CROSS, rasterized=len(data) > 2000)
    figure.supxlabel(key_label(x))
    figure.supylabel(key_label(y))
    bar = figure.colorbar(
        ScalarMappable(norm, colours), ax=list(panels.values()), aspect=25, pad=0.02
    )
    bar.set_label("accuracy under deadline")
    bar.formatter = PERCENT
    bar.update_ticks()
    others = [key for key in sweep.varying if key not in (x, y)]
    caption = (
        f"Accuracy under deadline by {key_label(x)} (swept: {x}) and {key_label(y)} ({y}): a dot "
        f"for each of {counted(sweep.points, 'point')}"
        + (f", at which {', '.join(others)} differ too" if others else "")
        + f". Each is over {sweep.repetitions}; {where_intervals_are(data)}."
        + (f" Crossed out: {OVERLOAD}." if data["overloaded"].any() else "")
    )
    return Figure(figure, data, caption)
