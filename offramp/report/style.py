"""How every figure looks: sizes for two-column papers, and one look per strategy and policy.

A look is a colour, a line, a marker and a hatch: what is told by colour is told by one of the
others too, so that figures can be read in grey and by colour-blind readers.
"""

from __future__ import annotations

import colorsys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import matplotlib as mpl
import seaborn as sns
from matplotlib.colors import to_hex, to_rgb
from matplotlib.ticker import PercentFormatter

#: Widths of one and of two columns of a paper, in inches.
COLUMN = 3.5
DOUBLE_COLUMN = 7.16

#: Dots per inch of figures that are no drawings.
PNG_DPI = 300


@dataclass(frozen=True)
class Look:
    """How a strategy, a policy or a run looks in every figure.

    Attributes:
        dashes: lengths of dashes and gaps; none for a solid line.
    """

    colour: str
    dashes: tuple[float, ...]
    marker: str
    hatch: str = ""

    def line(self) -> dict[str, Any]:
        """Arguments of ``Axes.plot`` for a line without markers."""
        return {"color": self.colour, "dashes": self.dashes or (None, None)}


_SOLID: tuple[float, ...] = ()
_DASHED, _DOTTED, _DASH_DOTTED, _LONG = (4.0, 1.5), (1.0, 1.0), (3.0, 1.0, 1.0, 1.0), (7.0, 2.0)

#: Okabe & Ito's colours, which colour-blind readers can tell apart.
STRATEGY_LOOKS = {
    "standard": Look("#0072B2", _SOLID, "o"),
    "curriculum": Look("#D55E00", _DASHED, "s", "///"),
    "anti_curriculum": Look("#009E73", _DOTTED, "^", "..."),
    "random_curriculum": Look("#CC79A7", _DASH_DOTTED, "D", "xxx"),
}
STRATEGY_COLOURS = {name: look.colour for name, look in STRATEGY_LOOKS.items()}
STRATEGY_DASHES: dict[str, Any] = {name: look.dashes or "" for name, look in STRATEGY_LOOKS.items()}
STRATEGY_MARKERS = {name: look.marker for name, look in STRATEGY_LOOKS.items()}
STRATEGY_HATCHES = {name: look.hatch for name, look in STRATEGY_LOOKS.items()}

#: How markers are filled where colour and marker tell the policy.
STRATEGY_FILLS: dict[str, Any] = {
    "standard": "none",
    "curriculum": "full",
    "anti_curriculum": "left",
    "random_curriculum": "bottom",
}

#: Of the policies that ship: Tol's "muted" colours (SRON/EPS/TN/09-002), and black.
POLICY_LOOKS = {
    "deadline_aware": Look("#332288", _SOLID, "o"),
    "confidence": Look("#CC6677", _DASHED, "s"),
    "fixed_exit": Look("#999933", _DOTTED, "^"),
    "full": Look("#882255", _DASH_DOTTED, "v"),
    "deadline_confidence": Look("#44AA99", _LONG, "D"),
    "load_adaptive": Look("#117733", _DASHED, "P"),
    "offload": Look("#AA4499", _SOLID, "X"),
    "anytime": Look("#88CCEE", _DASH_DOTTED, "<"),
    "imprecise": Look("#DDCC77", _LONG, ">"),
    "oracle": Look("#000000", _DOTTED, "*"),
}

#: Of policies of the user's own, and of runs that are compared, in their order: Tol's "bright".
OTHER_LOOKS = (
    Look("#4477AA", _SOLID, "o", ""),
    Look("#EE6677", _DASHED, "s", "///"),
    Look("#228833", _DOTTED, "^", "..."),
    Look("#AA3377", _DASH_DOTTED, "D", "xxx"),
    Look("#CCBB44", _LONG, "v", "\\\\\\"),
    Look("#66CCEE", _DASHED, "P", "++"),
    Look("#555555", _DOTTED, "X", "oo"),
)

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
UNANSWERED_COLOUR = "#D9D9D9"

#: Lines that are no data: zero, a deadline, a Pareto front.
GUIDE: dict[str, Any] = {"color": "0.3", "linewidth": 0.8}

#: What is said below a drawing that must not be relied on.
MARK_COLOUR = "#B2182B"

#: The smallest text, in points: what stands inside a panel.
SMALL = 6.5

#: Maps of shares, and of gains around zero; both can be read by colour-blind readers.
SHARE_MAP, GAIN_MAP = "cividis", "PuOr_r"

PERCENT = PercentFormatter(xmax=1, decimals=None, symbol=" %")

_RC: dict[Any, Any] = {
    "pdf.fonttype": 42,
    "ps.fonttype": 42,
    "font.size": 8,
    "axes.titlesize": 8,
    "axes.labelsize": 8,
    "figure.labelsize": 8,
    "figure.titlesize": 8,
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
    "legend.fontsize": 7,
    "legend.title_fontsize": 7,
    "lines.linewidth": 1.4,
    "lines.markersize": 4,
    "axes.linewidth": 0.6,
    "grid.linewidth": 0.4,
    "hatch.linewidth": 0.6,
    "figure.constrained_layout.use": True,
    "savefig.dpi": PNG_DPI,
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


def policy_looks(policies: Sequence[str]) -> dict[str, Look]:
    """The look of each policy, by its name.

    A policy that ships looks the same in all figures of all runs, whatever its parameters; of
    several that differ in parameters alone, later ones are lighter and have other lines and
    markers. Policies with names of the user's own get looks in their order.
    """
    found: dict[str, Look] = {}
    of_kind: dict[str, int] = {}
    others = 0
    for policy in dict.fromkeys(policies):
        kind = policy_kind(policy)
        if kind in POLICY_LOOKS:
            found[policy] = _variant(POLICY_LOOKS[kind], of_kind.get(kind, 0))
            of_kind[kind] = of_kind.get(kind, 0) + 1
        else:
            found[policy] = _other(others)
            others += 1
    return found


def run_looks(labels: Sequence[str]) -> dict[str, Look]:
    """The look of each run that is compared, by its label, in their order."""
    return {label: _other(index) for index, label in enumerate(labels)}


def policy_kind(policy: str) -> str:
    """A policy's name without its parameters."""
    return policy.split("(", 1)[0].strip()


def exit_colours(count: int) -> list[Any]:
    """Colours of exits 1 to ``count``, dark for late ones, legible in grey."""
    return list(sns.color_palette("crest", count))


def _other(index: int) -> Look:
    rounds, place = divmod(index, len(OTHER_LOOKS))
    return _variant(OTHER_LOOKS[place], rounds)


def _variant(look: Look, number: int) -> Look:
    """A look's further versions: lighter, with another line and marker."""
    if not number:
        return look
    markers = [it.marker for it in POLICY_LOOKS.values()]
    lines = [_SOLID, _DASHED, _DOTTED, _DASH_DOTTED, _LONG]
    hue, lightness, saturation = colorsys.rgb_to_hls(*to_rgb(look.colour))
    # Towards light by a fifth of what is left at each step, and never too pale to be seen.
    lightness = min(0.8, lightness + (1 - lightness) * (1 - 0.8**number))
    return replace(
        look,
        colour=to_hex(colorsys.hls_to_rgb(hue, lightness, saturation)),
        dashes=lines[(lines.index(look.dashes) + number) % len(lines)],
        marker=markers[(markers.index(look.marker) + number) % len(markers)],
    )
