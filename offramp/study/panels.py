"""Where the panels of a study's figures go, and how configurations are named on them."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator, Sequence
from typing import Any

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure as MplFigure

from offramp.report.figure import name_row
from offramp.report.style import COLUMN, DOUBLE_COLUMN
from offramp.study.statistics import configurations

#: Panels side by side on two columns of a paper, each wide enough for a few exits.
MOST_COLUMNS = 4

#: Of the house style's font, at 7 to 8 points.
_LETTERS_PER_INCH = 16

#: Room for a row's name.
_ROW_INCHES = 1.25


def value_text(value: Any) -> str:
    """A value of an axis in words; no value is ``none``."""
    if pd.isna(value):
        return "none"
    return f"{value:.12g}" if isinstance(value, float) else str(value)


def setting_text(axes: Sequence[str], values: Sequence[Any]) -> str:
    """Settings as ``backbone = resnet20, steps = 100``."""
    return ", ".join(
        f"{axis} = {value_text(value)}" for axis, value in zip(axes, values, strict=True)
    )


def varying_axes(frame: pd.DataFrame, axes: Sequence[str]) -> list[str]:
    """The axes that take more than one value in ``frame``."""
    return [axis for axis in axes if frame[axis].nunique(dropna=False) > 1]


def common_settings(frame: pd.DataFrame, axes: Sequence[str]) -> str:
    """The settings that all configurations in ``frame`` share."""
    varying = varying_axes(frame, axes)
    common = [axis for axis in axes if axis not in varying]
    return setting_text(common, [frame[axis].iloc[0] for axis in common])


def parts(
    frame: pd.DataFrame, axes: Sequence[str], most: int
) -> Iterator[tuple[str, pd.DataFrame]]:
    """Cut a study into figures of at most ``most`` configurations.

    One figure if they fit; else one for each value of the first axis that varies, cut again if
    that has too many. Yields a suffix for the file's name, and the rows.
    """
    varying = varying_axes(frame, axes)
    if not varying or len(list(configurations(frame, axes))) <= most:
        yield "", frame
        return
    suffixes: set[str] = set()
    for (value,), rows in configurations(frame, varying[:1]):
        frames = [of_configuration for _, of_configuration in configurations(rows, axes)]
        pieces = -(-len(frames) // most)
        size = -(-len(frames) // pieces)
        for piece in range(pieces):
            suffix = "_" + re.sub(r"[^a-z0-9.]+", "-", value_text(value).lower()).strip("-")
            if pieces > 1:
                suffix += f"_{piece + 1}"
            while suffix in suffixes:
                suffix += "_"
            suffixes.add(suffix)
            yield suffix, pd.concat(frames[piece * size : (piece + 1) * size])


def configuration_panels(
    frame: pd.DataFrame, axes: Sequence[str]
) -> tuple[MplFigure, list[tuple[pd.DataFrame, Axes]]]:
    """A figure with one panel for each configuration, and the rows of each.

    If one axis crosses all others completely, its values are columns, named once above, and the
    others' are rows, named once at the right; else panels follow one another, each with a title.
    All share y; they share x if they have the same exits.
    """
    settings, groups = _settings(frame, axes)
    crossed = _crossing(settings)
    cells = crossed[1] if crossed else _wrapped(len(groups))
    height, width = max(row for row, _ in cells) + 1, max(column for _, column in cells) + 1
    figure, grid = plt.subplots(
        height,
        width,
        figsize=(COLUMN if width == 1 else DOUBLE_COLUMN, 0.75 + min(1.45, 8 / height) * height),
        sharey=True,
        sharex=len({tuple(sorted(rows["exit"].unique())) for rows in groups}) == 1,
        squeeze=False,
    )
    for panel in grid.flat:
        panel.set_visible(False)
    placed = []
    for (row, column), setting, rows in zip(cells, settings, groups, strict=True):
        panel = grid[row, column]
        panel.set_visible(True)
        placed.append((rows, panel))
        if (row + 1, column) not in cells:
            panel.tick_params(labelbottom=True)
        above = setting
        if crossed:
            across = crossed[0]
            above = {across: setting.pop(across)} if row == 0 else {}
            if column == width - 1:
                setting.pop(across, None)
                _name_row(panel, setting)
        panel.set_title(_lines(above, figure.get_figwidth() / width))
    return figure, placed


def exit_panels(
    frame: pd.DataFrame, axes: Sequence[str]
) -> tuple[MplFigure, list[tuple[pd.DataFrame, Axes]]]:
    """A figure with a row for each configuration and a column for each exit, and the rows of each.

    Panels of a row share y.
    """
    settings, groups = _settings(frame, axes)
    exits = sorted(frame["exit"].unique())
    figure, grid = plt.subplots(
        len(groups),
        len(exits),
        figsize=(
            COLUMN if len(exits) == 1 else max(DOUBLE_COLUMN, 1.2 * len(exits)),
            0.75 + 1.4 * len(groups),
        ),
        sharey="row",
        squeeze=False,
    )
    placed = []
    titled = set()
    for row, (setting, rows) in enumerate(zip(settings, groups, strict=True)):
        of_exits = dict(iter(rows.groupby("exit")))
        for panel, exit in zip(grid[row], exits, strict=True):
            if exit not in of_exits:
                panel.set_visible(False)
                continue
            placed.append((of_exits[exit], panel))
            if exit not in titled:
                panel.set_title(f"exit {exit}")
                titled.add(exit)
        _name_row(grid[row, exits.index(max(of_exits))], setting)
    return figure, placed


def _settings(
    frame: pd.DataFrame, axes: Sequence[str]
) -> tuple[list[dict[str, str]], list[pd.DataFrame]]:
    """Of each configuration, its values on the axes that vary, as text, and its rows."""
    varying = varying_axes(frame, axes)
    settings, groups = [], []
    for values, rows in configurations(frame, axes):
        texts = {axis: value_text(value) for axis, value in zip(axes, values, strict=True)}
        settings.append({axis: texts[axis] for axis in varying})
        groups.append(rows)
    return settings, groups


def _crossing(settings: list[dict[str, str]]) -> tuple[str, list[tuple[int, int]]] | None:
    """The axis that becomes columns, and the row and column of each configuration.

    None if no axis crosses the others completely in few enough columns. Of several that do, the
    one with most values, else the last.
    """
    best, most = None, 0
    for axis in reversed(settings[0]):
        keys = [
            (tuple(text for name, text in setting.items() if name != axis), setting[axis])
            for setting in settings
        ]
        rows, columns = (list(dict.fromkeys(side)) for side in zip(*keys, strict=True))
        complete = len(set(keys)) == len(settings) == len(rows) * len(columns)
        if complete and most < len(columns) <= MOST_COLUMNS:
            most = len(columns)
            best = axis, [(rows.index(row), columns.index(column)) for row, column in keys]
    return best


def _wrapped(count: int) -> list[tuple[int, int]]:
    """Rows and columns of panels that follow one another."""
    width = {4: 2, 7: 4, 8: 4}.get(count, MOST_COLUMNS if count > 9 else min(count, 3))
    return [divmod(index, width) for index in range(count)]


def _lines(setting: dict[str, str], inches: float) -> str:
    """Settings, each on a line of its own, and on two if it is too long for ``inches``."""
    width = max(8, int(_LETTERS_PER_INCH * inches))
    lines = [f"{axis} = {text}" for axis, text in setting.items()]
    return "\n".join(
        textwrap.fill(line, width, break_long_words=False, break_on_hyphens=False) for line in lines
    )


def _name_row(panel: Axes, setting: dict[str, str]) -> None:
    """Name a row of panels at its right; without settings, it needs no name."""
    if setting:
        name_row(panel, _lines(setting, _ROW_INCHES))
