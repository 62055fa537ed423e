"""Figures of a validation: the latencies of both worlds, and where the time went."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from offramp.report.figure import Figure, legend_above, save_figure, wrapped
from offramp.report.style import COLUMN, DOUBLE_COLUMN, PERCENT, paper_style
from offramp.validation.comparison import Comparison
from offramp.validation.runs import ARM, Side
from offramp.validation.time_parts import PARTS

LATENCIES, TIME_PARTS = "latency_ecdf", "time_parts"

#: Okabe & Ito's colours, with a line each: legible in grey.
_WORLDS: dict[str, dict[str, Any]] = {
    "live": {"color": "#0072B2", "linestyle": "-"},
    "simulated": {"color": "#D55E00", "linestyle": "--"},
}
_PARTS: dict[str, tuple[str, str]] = {
    "uplink": ("#56B4E9", "///"),
    "broker": ("#F0E442", "..."),
    "queue": ("#BBBBBB", ""),
    "inference": ("#0072B2", ""),
    "downlink": ("#009E73", "\\\\\\"),
}

#: More steps than this are drawn, and written down, at as many even quantiles.
_MOST_STEPS = 2000


def write_figures(comparison: Comparison, parts: pd.DataFrame, folder: Path) -> dict[str, str]:
    """Draw everything into ``folder``; captions by name of figure.

    Raises:
        OSError: a file cannot be written.
    """
    captions = {}
    with paper_style():
        for name, figure in (
            (LATENCIES, latency_figure(comparison)),
            (TIME_PARTS, parts_figure(comparison, parts)),
        ):
            save_figure(figure, folder, name)
            captions[name] = figure.caption
    return captions


def latency_figure(comparison: Comparison) -> Figure:
    """Latency of both worlds, as shares of all requests offered."""
    arms = list(comparison.live.records.groupby(ARM, sort=False).groups)
    columns = min(2, len(arms))
    rows = -(-len(arms) // columns)
    width = COLUMN if columns == 1 else DOUBLE_COLUMN
    drawing, axes = plt.subplots(
        rows, columns, figsize=(width, 0.6 + 2.0 * rows), squeeze=False, sharey=True
    )
    data = []
    for panel, arm in zip(axes.flat, arms, strict=False):
        for side, world in ((comparison.live, "live"), (comparison.simulated, "simulated")):
            steps = latency_steps(side, arm)
            panel.plot(1e3 * steps["latency_s"], steps["share"], drawstyle="steps-post",
                       **_WORLDS[world])  # fmt: skip
            data.append(steps.assign(**dict(zip(ARM, arm, strict=True)), world=world))
        _panel(panel, comparison, arm, width / columns)
    for panel in axes.flat[len(arms) :]:
        panel.set_axis_off()
    for row in range(rows):
        axes[row, 0].set_ylabel("requests answered")
    handles = [Line2D([], [], label=world, **look) for world, look in _WORLDS.items()]
    handles.append(Line2D([], [], color="0.4", linestyle=":", label="deadline"))
    legend_above(drawing, handles, [str(handle.get_label()) for handle in handles])
    frame = pd.concat(data)[[*ARM, "world", "latency_s", "share"]]
    return Figure(drawing, frame, _latency_caption(comparison))


def _panel(panel: Axes, comparison: Comparison, arm: tuple[Any, ...], width: float) -> None:
    deadlines = comparison.live.records["deadline_s"].unique()
    if len(deadlines) == 1:
        panel.axvline(1e3 * deadlines[0], color="0.4", linestyle=":")
    panel.set_ylim(0, 1.02)
    panel.yaxis.set_major_formatter(PERCENT)
    panel.set_xlabel("latency (ms)")
    panel.set_xscale("log")
    panel.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    panel.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    panel.xaxis.set_minor_formatter(NullFormatter())
    panel.set_title(wrapped(f"{arm[0]}, {arm[2]}", 0.8 * width))


def latency_steps(side: Side, arm: tuple[Any, ...]) -> pd.DataFrame:
    """Of one arm, ``share`` of all requests offered that was answered within ``latency_s``."""
    records = side.records
    rows = np.all([records[name] == value for name, value in zip(ARM, arm, strict=True)], axis=0)
    part = records[rows]
    latency_s = np.sort((part["received_s"] - part["created_s"]).dropna().to_numpy())
    share = np.arange(1, len(latency_s) + 1) / len(part)
    if len(latency_s) > _MOST_STEPS:
        places = np.unique(np.linspace(0, len(latency_s) - 1, _MOST_STEPS).round().astype(int))
        latency_s, share = latency_s[places], share[places]
    return pd.DataFrame({"latency_s": latency_s, "share": share})


def _latency_caption(comparison: Comparison) -> str:
    live = comparison.live
    replications = live.records["replication"].nunique()
    requests = len(live.records) // max(1, live.records.groupby(ARM).ngroups)
    alone = "; no interval, since there is one replication" if replications == 1 else ""
    return (
        "Latency of the same requests, live and simulated: share of all requests offered that was "
        f"answered within so long. {requests:,} requests an arm in {replications} replication(s) "
        f"of {live.duration_s:g} s, taken together{alone}."
    )


def parts_figure(comparison: Comparison, parts: pd.DataFrame) -> Figure:
    """Mean time of answered requests, part by part, of both worlds next to each other."""
    arms = list(comparison.live.records.groupby(ARM, sort=False).groups)
    lines = [(arm, world) for arm in arms for world in _WORLDS]
    drawing, axes = plt.subplots(figsize=(DOUBLE_COLUMN, 0.9 + 0.3 * len(lines)))
    for place, (arm, world) in enumerate(lines):
        rows = np.all(
            [parts[name] == value for name, value in zip([*ARM, "world"], [*arm, world],
                                                         strict=True)], axis=0)  # fmt: skip
        left = 0.0
        for name in PARTS:
            ms = 1e3 * float(parts[rows & (parts["part"] == name)]["seconds"].sum())
            colour, hatch = _PARTS[name]
            axes.barh(place, ms, left=left, color=colour, hatch=hatch, edgecolor="0.2",
                      linewidth=0.4)  # fmt: skip
            left += ms
    axes.set_yticks(range(len(lines)), [f"{arm[0]}, {arm[2]}: {world}" for arm, world in lines])
    axes.invert_yaxis()
    axes.set_xlabel("mean time of an answered request (ms)")
    handles = [
        Patch(facecolor=colour, hatch=hatch, edgecolor="0.2", label=name)
        for name, (colour, hatch) in _PARTS.items()
    ]
    legend_above(drawing, handles, [str(handle.get_label()) for handle in handles])
    replications = comparison.live.records["replication"].nunique()
    caption = (
        "Where the time of answered requests went, on average, live and simulated. Queue and "
        "inference are from the node's clock; uplink contains what the device takes to send, "
        f"broker both of its directions and the clients. {replications} replication(s), no "
        "intervals."
    )
    return Figure(drawing, parts, caption)
