"""How every figure looks: sizes for two-column papers, one colour and line per strategy."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import matplotlib as mpl
import seaborn as sns
from matplotlib.ticker import PercentFormatter

#: Widths of one and of two columns of a paper, in inches.
COLUMN = 3.5
DOUBLE_COLUMN = 7.16

#: Okabe & Ito's colours, which colour-blind readers can tell apart.
STRATEGY_COLOURS = {
    "standard": "#0072B2",
    "curriculum": "#D55E00",
    "anti_curriculum": "#009E73",
    "random_curriculum": "#CC79A7",
}
STRATEGY_DASHES: dict[str, Any] = {
    "standard": "",
    "curriculum": (4, 1.5),
    "anti_curriculum": (1, 1),
    "random_curriculum": (3, 1, 1, 1),
}
STRATEGY_MARKERS = {
    "standard": "o",
    "curriculum": "s",
    "anti_curriculum": "^",
    "random_curriculum": "D",
}

#: For bars, legible in grey.
STRATEGY_HATCHES: dict[str, str] = {
    "standard": "",
    "curriculum": "///",
    "anti_curriculum": "...",
    "random_curriculum": "xxx",
}

#: So that lines that coincide show through each other.
LINE_STYLES = ("-", "--", "-.", ":")

#: Behind lines, by kind of fault: how it is shaded, and what the legend calls it.
FAULT_SHADES: dict[str, tuple[str, dict[str, Any]]] = {
    "node_crash": ("node down", {"facecolor": ("#882255", 0.15), "edgecolor": "none"}),
    "broker_restart": (
        "broker restarts",
        {"facecolor": ("#332288", 0.15), "edgecolor": ("#332288", 0.4), "hatch": "...."},
    ),
    "slow_node": (
        "node slow",
        {"facecolor": "none", "edgecolor": ("#999933", 0.5), "hatch": "////"},
    ),
}

#: Requests that no exit answered.
UNANSWERED_COLOUR = "#BBBBBB"

PERCENT = PercentFormatter(xmax=1, decimals=None, symbol=" %")

_RC: dict[Any, Any] = {
    "pdf.fonttype": 42,
    "ps.fonttype": 42,
    "font.size": 8,
    "axes.titlesize": 8,
    "axes.labelsize": 8,
    "figure.labelsize": 8,
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
    "legend.fontsize": 7,
    "legend.title_fontsize": 7,
    "lines.linewidth": 1.4,
    "lines.markersize": 4,
    "axes.linewidth": 0.6,
    "grid.linewidth": 0.4,
    "figure.constrained_layout.use": True,
    "savefig.dpi": 300,
    # Without a date in the file, the same data gives the same bytes.
    "svg.hashsalt": "offramp",
}


@contextmanager
def paper_style() -> Iterator[None]:
    """Apply the style to every figure made inside."""
    with mpl.rc_context(), sns.axes_style("ticks", {"axes.grid": True, "grid.color": "0.9"}):
        mpl.use("agg")
        mpl.rcParams.update(_RC)
        yield


def policy_colours(count: int) -> list[Any]:
    """Colours of policies, which colour-blind readers can tell apart as far as they go."""
    return list(sns.color_palette("colorblind", count))


def exit_colours(count: int) -> list[Any]:
    """Colours of exits 1 to ``count``, dark for late ones, legible in grey."""
    return list(sns.color_palette("crest", count))
