"""What a figure is, and what several of them need."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd
from matplotlib.artist import Artist
from matplotlib.figure import Figure as MplFigure

from offramp.report.results import Results
from sim.metrics import confidence_interval

#: Widths of an average character of a title, and of a legend's text and of what stands beside it,
#: in inches.
TITLE_CHARACTER = 0.068
LEGEND_CHARACTER, LEGEND_HANDLE = 0.06, 0.55

#: Height of a further line of a title, in inches.
TITLE_LINE = 0.14


@dataclass(frozen=True)
class Figure:
    """A figure, the data behind it and what its caption says."""

    drawing: MplFigure
    data: pd.DataFrame
    caption: str


def common_deadline_ms(results: Results) -> float | None:
    """The deadline if it is the same for every request, else None."""
    deadlines = [group["deadline_ms"] for group in results.scenario["devices"].values()]
    if None in deadlines:
        return None  # a trace brings them
    values = {spec.get("value") if isinstance(spec, dict) else float(spec) for spec in deadlines}
    value = values.pop() if len(values) == 1 else None
    return None if value is None else float(value)


def counted(number: int, what: str) -> str:
    """So many things, in the singular if there is one."""
    return f"{number:,} {what}" + ("" if number == 1 else "s")


def wrapped(text: str, width_inches: float) -> str:
    """A title in lines that fit; names break behind a bracket, comma, underscore or space."""
    most = max(8, int(width_inches / TITLE_CHARACTER))
    lines = [""]
    for part in re.findall(r"[^(,\s_=-]*[(,\s_=-]?", text):
        pieces = [part[it : it + most] for it in range(0, len(part), most)]
        for piece in pieces:
            if len((lines[-1] + piece).rstrip()) > most:
                lines.append("")
            lines[-1] += piece
    return "\n".join(line.strip() for line in lines)


def legend_above(figure: MplFigure, handles: Sequence[Artist], labels: Sequence[str]) -> None:
    """One legend for the whole figure, where it hides no data and nothing is cut off."""
    if not labels:
        return
    width = figure.get_size_inches()[0]
    labels = [wrapped(label, 0.9 * width) for label in labels]
    longest = max(len(line) for label in labels for line in label.split("\n"))
    columns = int(width / (LEGEND_CHARACTER * longest + LEGEND_HANDLE))
    figure.legend(
        handles,
        labels,
        loc="outside upper center",
        ncols=min(max(columns, 1), 5, len(labels)),
        frameon=False,
    )


def t_interval(values: pd.Series) -> tuple[float, float]:
    """Ends of the 95 % interval, for seaborn."""
    interval = confidence_interval(values.to_numpy())
    return interval.low, interval.high
