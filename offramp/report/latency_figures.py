"""The distribution of latencies, and the deadlines that they are held against."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from offramp.report.figure import (
    Figure,
    common_deadline_ms,
    group_deadlines_ms,
    label_left,
    legend_above,
    note_inside,
    panels_for,
    repetitions,
)
from offramp.report.results import Results
from offramp.report.style import GUIDE, PERCENT, SMALL, STRATEGY_LOOKS

#: Points of a latency curve: enough for a paper's column, few enough for a small CSV.
ECDF_POINTS = 400

#: More different deadlines than this are drawn as a distribution of their own.
MOST_DEADLINES = 3

#: A line further right than this part of a panel has its name at its left.
_NEAR_END = 0.88

_COLUMNS = ("policy", "strategy", "latency_ms", "share")


def latency_ecdf(results: Results) -> Figure | None:
    """Distribution of latency over offered requests, by strategy, one panel per policy."""
    if not results.has_records:
        return None
    figure, panels = panels_for(results.policies)
    curves = []
    deadlines = results.deadlines_s * 1e3
    lines = _deadline_lines(results)
    handles: dict[str, object] = {}
    for policy, axes in zip(results.policies, panels, strict=True):
        longest = 0.0
        for strategy in results.strategies:
            arm = results.answers[strategy, policy]
            latency_ms = arm.latency_s * 1e3
            if not len(latency_ms):
                continue
            longest = max(longest, float(np.quantile(latency_ms, 0.99)))
            curve = ecdf_points(latency_ms, arm.offered)
            curves.append(curve.assign(policy=policy, strategy=strategy)[list(_COLUMNS)])
            look = STRATEGY_LOOKS[strategy]
            axes.plot(curve["latency_ms"], curve["share"], **look.line(), label=strategy)
        if not longest:
            note_inside(axes, "no request was answered")
        axes.set_ylim(0, 1)
        axes.yaxis.set_major_formatter(PERCENT)
        if lines:
            last = max(lines.values())
        else:
            distribution = ecdf_points(deadlines, len(deadlines))
            axes.plot(distribution["latency_ms"], distribution["share"], **GUIDE, label="deadlines")
            last = float(np.quantile(deadlines, 0.99)) if len(deadlines) else 0.0
        axes.set_xlim(0, 1.05 * max(longest, last) or 1.0)
        draw_deadlines(axes, lines)
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True):
            handles.setdefault(label, handle)
    if not lines:
        distribution = ecdf_points(deadlines, len(deadlines))
        curves.append(distribution.assign(policy="", strategy="deadlines")[list(_COLUMNS)])
    figure.supxlabel("latency (ms)")
    label_left(panels, "share of offered requests")
    order = [name for name in (*results.strategies, "deadlines") if name in handles]
    legend_above(figure, [handles[name] for name in order], order)  # type: ignore[misc]
    caption = (
        "Latency from creation to answer, as the share of all offered requests answered by then; "
        "a curve that ends below 100 % leaves requests unanswered. Each axis ends past the 99th "
        f"percentile of the answers. All requests of {repetitions(results)}; no interval is drawn."
    )
    if not lines:
        caption += (
            " Deadlines vary: their line is the share of requests whose deadline has passed by "
            "then."
        )
    elif len(lines) > 1:
        caption += " Vertical lines: the deadline of each group of devices."
    data = pd.concat(curves) if curves else pd.DataFrame(columns=list(_COLUMNS))
    return Figure(figure, data, caption)


def ecdf_points(values_ms: np.ndarray, offered: int) -> pd.DataFrame:
    """At most 400 points of the curve, of values of which each stands for one of ``offered``."""
    share = np.linspace(0, 1, ECDF_POINTS)
    if not len(values_ms):
        return pd.DataFrame({"latency_ms": [], "share": []})
    points = np.quantile(values_ms, share, method="inverted_cdf")
    return pd.DataFrame({"latency_ms": points, "share": share * len(values_ms) / offered})


def draw_deadlines(axes: Axes, lines: dict[str, float]) -> None:
    """A named vertical line for each deadline, in ms; the limits of the axis must be set."""
    for name, deadline_ms in lines.items():
        # Right of the line, or left of it where it is near the end of the panel.
        is_last = deadline_ms > _NEAR_END * axes.get_xlim()[1]
        axes.axvline(deadline_ms, **GUIDE, linestyle=":")
        axes.annotate(
            name,
            (deadline_ms, 0.03),
            xytext=(-2 if is_last else 2, 0),
            textcoords="offset points",
            ha="right" if is_last else "left",
            rotation=90,
            fontsize=SMALL,
            color="0.2",
            va="bottom",
            bbox={"facecolor": "white", "alpha": 0.7, "edgecolor": "none", "pad": 0.3},
        )


def _deadline_lines(results: Results) -> dict[str, float]:
    """Names and deadlines, if there are few; none if they are a distribution."""
    common = common_deadline_ms(results)
    if common is not None:
        return {"deadline": common}
    found: dict[float, list[str]] = {}
    for group, deadline_ms in group_deadlines_ms(results).items():
        if deadline_ms is None:
            return {}
        found.setdefault(deadline_ms, []).append(group)
    if len(found) > MOST_DEADLINES:
        return {}
    return {f"deadline, {', '.join(groups)}": value for value, groups in found.items()}
