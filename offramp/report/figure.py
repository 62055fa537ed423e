"""What a figure is, how it is written down, and what several of them need."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure as MplFigure
from matplotlib.transforms import Bbox
from numpy.typing import ArrayLike, NDArray

from models.files import whole_file, write_text
from offramp.report.latex import figure_environment
from offramp.report.results import Results
from offramp.report.style import COLUMN, DOUBLE_COLUMN, MARK_COLOUR, SMALL
from offramp.words import counted
from sim.results.metrics import confidence_interval

#: Widths of an average character of a title, and of a legend's text and of what stands beside it,
#: in inches.
TITLE_CHARACTER = 0.068
LEGEND_CHARACTER, LEGEND_HANDLE = 0.06, 0.55

#: Height of a further line of a title, in inches.
TITLE_LINE = 0.14

#: Height of a line below a drawing that must not be relied on, in inches.
MARK_LINE = 0.16

#: The files of a figure: drawing, picture, data, caption, and all of it for LaTeX.
FIGURE_SUFFIXES = (".pdf", ".png", ".csv", ".txt", ".tex")


@dataclass(frozen=True)
class Figure:
    """A figure, the data behind it and what its caption says.

    Attributes:
        data: with every interval's mean, standard deviation and n, or the values themselves.
        caption: plain text; says n, replications and seeds, and the kind of interval.
        mark: stands below the drawing, for who sees it without its caption: that it must not be
            relied on.
    """

    drawing: MplFigure
    data: pd.DataFrame
    caption: str
    mark: str = ""

    def marked(self, mark: str, why: str) -> Figure:
        """The same with a mark, and a caption that ends with its reason."""
        return replace(self, mark=mark, caption=f"{self.caption} {why}")


def save_figure(figure: Figure, folder: Path, name: str) -> None:
    """Write a figure's files, and close it."""
    area = _with_mark(figure)
    # Both files have one layout: each savefig would make its own, a seventh of all the work.
    figure.drawing.draw_without_rendering()
    figure.drawing.set_layout_engine("none")
    for suffix in (".pdf", ".png"):
        metadata = {"CreationDate": None} if suffix == ".pdf" else None
        with whole_file(folder / f"{name}{suffix}") as partial:
            figure.drawing.savefig(partial, metadata=metadata, bbox_inches=area)
    with whole_file(folder / f"{name}.csv") as partial:
        figure.data.to_csv(partial, index=False)
    write_text(folder / f"{name}.txt", figure.caption + "\n")
    wide = figure.drawing.get_figwidth() > COLUMN
    write_text(folder / f"{name}.tex", figure_environment(name, figure.caption, wide))
    plt.close(figure.drawing)


def _with_mark(figure: Figure) -> Bbox | None:
    """Write the mark below the drawing; what is then to be saved, in inches."""
    if not figure.mark:
        return None
    width, height = figure.drawing.get_size_inches()
    said = wrapped(figure.mark, width)
    room = MARK_LINE * (1 + said.count("\n"))
    text = figure.drawing.text(
        *(0.5, -0.5 * room / height, said),
        ha="center",
        va="center",
        color=MARK_COLOUR,
        fontsize=SMALL,
        fontweight="bold",
    )
    text.set_in_layout(False)  # the drawing is as large as without it
    return Bbox([[0, -room], [width, height]])


def remove_figure(folder: Path, name: str) -> None:
    """Remove a figure that an earlier report on other results left."""
    for suffix in FIGURE_SUFFIXES:
        (folder / f"{name}{suffix}").unlink(missing_ok=True)


# --- numbers ------------------------------------------------------------------------------------


def spread(values: ArrayLike, over: str) -> dict[str, float | int | str]:
    """Mean, standard deviation and 95 % t interval of the finite ones of independent values.

    Columns of a figure's data: ``low`` and ``high`` are ``mean`` ± t(0.975, n − 1) ``sd`` / √n.

    Args:
        over: what the values are of, such as ``training seeds``.
    """
    sample: NDArray[np.float64] = np.asarray(values, dtype=np.float64)
    sample = sample[np.isfinite(sample)]
    interval = confidence_interval(sample)
    return {
        "mean": interval.mean,
        "sd": float(sample.std(ddof=1)) if len(sample) > 1 else math.nan,
        "low": interval.low,
        "high": interval.high,
        "n": interval.n,
        "over": over,
    }


def common_deadline_ms(results: Results) -> float | None:
    """The deadline if it is the same for every request, else None."""
    values = set(group_deadlines_ms(results).values())
    return values.pop() if len(values) == 1 else None


def group_deadlines_ms(results: Results) -> dict[str, float | None]:
    """The deadline of each group of devices; None where it varies, or a trace brings it."""
    found: dict[str, float | None] = {}
    for name, group in results.scenario["devices"].items():
        deadline = group["deadline_ms"]
        value = deadline.get("value") if isinstance(deadline, dict) else deadline
        found[name] = None if value is None else float(value)
    return found


def window(results: Results) -> str:
    """How long the measured window of a replication is."""
    return f"{results.scenario['simulation']['duration_s']:g} s"


def repetitions(results: Results) -> str:
    """How many training seeds and replications there are."""
    return (
        f"{counted(results.training_seeds, 'training seed')}, "
        f"{counted(results.replications, 'replication')} of {window(results)}"
    )


def no_interval(n: int, what: str) -> str:
    """What a figure says on itself where there can be no interval; nothing where there is one."""
    return "" if n > 1 else f"one {what}: no interval"


# --- panels, titles and legends -----------------------------------------------------------------


def wrapped(text: str, width_inches: float) -> str:
    """A title in lines that fit.

    Names break behind a bracket, comma, underscore or space, and behind an equals sign where what
    is around it is too long for a line.
    """
    most = max(8, int(width_inches / TITLE_CHARACTER))
    lines = [""]
    for part in re.findall(r"\(?[^(,\s_-]*[(,\s_-]?", text):
        words = re.findall(r"[^=]*=?", part) if len(part) > most else [part]
        pieces = [word[it : it + most] for word in words for it in range(0, len(word), most)]
        for piece in pieces:
            if len((lines[-1] + piece).rstrip()) > most:
                lines.append("")
            lines[-1] += piece
    return "\n".join(line.strip() for line in lines)


def name_row(axes: Axes, text: str) -> None:
    """Name a row of panels at the right of its last one.

    Args:
        text: the name, in the lines that it takes.
    """
    axes.annotate(
        text,
        (1, 0.5),
        xytext=(4, 0),
        xycoords="axes fraction",
        textcoords="offset points",
        rotation=270,
        fontsize=7,
        ha="left",
        va="center",
        multialignment="center",
    )


def panels_for(
    names: Sequence[str], height: float = 2.2, *, sharey: bool = True
) -> tuple[MplFigure, list[Axes]]:
    """A figure with a panel, and its title, for each name."""
    count = len(names)
    width = COLUMN if count == 1 else DOUBLE_COLUMN
    columns = 2 if count == 4 else min(count, 3)
    rows = -(-count // columns)
    titles = [wrapped(name, (width - 0.6) / columns - 0.15) for name in names]
    height += TITLE_LINE * max(title.count("\n") for title in titles)
    figure, panels = plt.subplots(
        rows, columns, figsize=(width, 0.2 + height * rows), sharey=sharey, squeeze=False
    )
    used = list(panels.flat)
    for axes in used[count:]:
        axes.set_visible(False)
    for axes, title in zip(used, titles, strict=False):
        axes.set_title(title)
    return figure, used[:count]


def label_left(panels: Sequence[Axes], label: str) -> None:
    """The label of the y axis, which panels share: once, since those of rows would overlap."""
    if len({axes.get_position().y0 for axes in panels}) > 1:
        figure = panels[0].figure.get_figure(root=True)
        assert figure is not None
        figure.supylabel(label.replace("\n", " "))
    else:
        panels[0].set_ylabel(label)


def legend_above(
    figure: MplFigure, handles: Sequence[Artist], labels: Sequence[str], note: str = ""
) -> None:
    """One legend for the whole figure, where it hides no data and nothing is cut off.

    Args:
        note: stands above the legend, such as that there is no interval.
    """
    if not labels:
        if note:
            figure.suptitle(note, fontsize=7)
        return
    width = figure.get_size_inches()[0]
    labels = [wrapped(label, 0.9 * width) for label in labels]
    figure.legend(
        handles,
        labels,
        loc="outside upper center",
        ncols=_legend_columns(labels, width),
        frameon=False,
        title=note or None,
        columnspacing=1.2,
    )


def _legend_columns(labels: Sequence[str], width: float) -> int:
    """As many columns as fit into ``width`` inches; each is as wide as its longest label."""
    widths = [
        LEGEND_CHARACTER * max(map(len, label.split("\n"))) + LEGEND_HANDLE for label in labels
    ]
    for columns in range(min(6, len(labels)), 1, -1):
        parts = np.array_split(widths, columns)  # as matplotlib fills them
        if sum(part.max() for part in parts) <= width:
            return columns
    return 1


def cut_to_shares(axes: Axes) -> None:
    """End the y axis at 0 and 100 %, which no share passes, whatever its interval."""
    low, high = axes.get_ylim()
    axes.set_ylim(max(0.0, low), min(1.04, high))


def cut_note(low: pd.Series, high: pd.Series) -> str:
    """What a caption says where intervals of shares reach further than the axis."""
    beyond = bool((low < 0).any() or (high > 1).any())
    return " Intervals reach beyond 0 or 100 %, where the axis ends." if beyond else ""


def note_inside(axes: Axes, text: str) -> None:
    """A short text in the middle of a panel that has nothing to draw."""
    axes.text(0.5, 0.5, text, transform=axes.transAxes, ha="center", va="center", fontsize=SMALL)
