"""Figures of the world: groups of devices, energy, and what went on over time."""

from __future__ import annotations

import math
from collections.abc import Iterator

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.patches import Patch

from offramp.report.figure import (
    TITLE_LINE,
    Figure,
    legend_above,
    no_interval,
    repetitions,
    wrapped,
)
from offramp.report.results import (
    Results,
    correct_on_time,
    interval_over,
    repetitions_of,
    unit_of,
)
from offramp.report.style import (
    COLUMN,
    DOUBLE_COLUMN,
    FAULT_SHADES,
    PERCENT,
    STRATEGY_COLOURS,
    STRATEGY_HATCHES,
    policy_looks,
)
from offramp.stages.layout import FAULT_TIMES, GROUPS, NODE_TELEMETRY
from offramp.words import counted
from sim.distributions import Floats
from sim.results.metrics import Interval, ratio_interval

#: More nodes, or groups, than this make no figure that can be read.
MOST_NODES = 5
MOST_GROUPS = 12


def aud_by_group(results: Results) -> Figure | None:
    """AUD of each group of devices, by strategy, one panel per policy."""
    groups = results.others.get(GROUPS)
    if groups is None or not 2 <= groups["group"].nunique() <= MOST_GROUPS:
        return None
    names = list(groups["group"].unique())
    groups = groups.assign(hits=groups["aud"].fillna(0) * groups["offered"])
    over = interval_over("aud", results.training_seeds)
    arm = ["policy", "strategy", "group"]
    totals = groups.groupby([*arm, unit_of(over)], sort=False)[["hits", "offered"]].sum()
    intervals = _ratios(totals, arm)
    panels = len(results.policies)
    columns = 2 if panels in (2, 4) else min(panels, 3)
    rows = -(-panels // columns)
    width = COLUMN if panels == 1 else DOUBLE_COLUMN
    titles = [wrapped(policy, (width - 0.6) / columns - 0.15) for policy in results.policies]
    height = 1.9 + TITLE_LINE * max(title.count("\n") for title in titles)
    figure, axes = plt.subplots(
        rows,
        columns,
        figsize=(width, 0.4 + height * rows),
        sharey=True,
        squeeze=False,
    )
    for axis in axes.flat[panels:]:
        axis.set_visible(False)
    for policy, title, axis in zip(results.policies, titles, axes.flat, strict=False):
        for place, strategy in _places(results.strategies):
            bars = [
                intervals.get((policy, strategy, name), Interval(np.nan, np.nan, 0))
                for name in names
            ]
            at: Floats = np.arange(len(names), dtype=np.float64) + place
            _bars(axis, at, bars, strategy, 1 / len(results.strategies))
        axis.set_title(title)
        axis.set_xticks(range(len(names)), names)
        if max(map(len, names)) * len(names) > 30:
            axis.tick_params(axis="x", labelrotation=30)
        axis.yaxis.set_major_formatter(PERCENT)
        axis.grid(visible=False, axis="x")
    for axis in axes[:, 0]:
        axis.set_ylabel("accuracy under deadline")
    note = no_interval(_repeated(intervals), over.removesuffix("s"))
    handles, labels = axes[0, 0].get_legend_handles_labels()
    legend_above(figure, handles, labels, note)
    caption = (
        "Accuracy under deadline of each group of devices. "
        f"{_interval_text(intervals, repetitions_of(results, 'aud'))}, over all requests of "
        f"{repetitions(results)}."
    )
    data = _table(intervals, arm, "aud", over)
    return Figure(figure, data, caption)


def energy_per_correct_answer(results: Results) -> Figure | None:
    """Energy of devices and nodes for every correct answer in time, by policy and strategy."""
    runs = results.runs
    if "j_per_request" not in runs:
        return None
    runs = runs.assign(
        joules=runs["j_per_request"] * runs["offered"], correct=correct_on_time(runs)
    )
    over = interval_over("j_per_correct_on_time", results.training_seeds)
    arm = ["policy", "strategy"]
    totals = runs.groupby([*arm, unit_of(over)], sort=False)[["joules", "correct"]].sum()
    intervals = _ratios(totals, arm)
    if not intervals:
        return None
    names = [wrapped(policy, COLUMN / 2) for policy in results.policies]
    lines = sum(max(2, 1 + name.count("\n")) for name in names)
    figure, axis = plt.subplots(figsize=(COLUMN, 0.9 + 0.15 * lines))
    height = 0.8 / len(results.strategies)
    scale, joules = _unit(max(interval.mean for interval in intervals.values()))
    for place, strategy in _places(results.strategies):
        at = [row for row, it in enumerate(results.policies) if (it, strategy) in intervals]
        bars = [intervals[results.policies[row], strategy] for row in at]
        axis.barh(
            np.array(at) + place,
            [scale * bar.mean for bar in bars],
            height=height,
            xerr=_errors(bars, scale),
            color=STRATEGY_COLOURS[strategy],
            hatch=STRATEGY_HATCHES[strategy],
            edgecolor="white",
            linewidth=0.4,
            label=strategy,
            error_kw={"linewidth": 1, "ecolor": "0.2", "capsize": 2},
        )
    axis.set_yticks(range(len(names)), names)
    axis.invert_yaxis()
    axis.grid(visible=False, axis="y")
    figure.supxlabel(f"{joules} per correct answer in time")
    note = no_interval(_repeated(intervals), over.removesuffix("s"))
    legend_above(figure, *axis.get_legend_handles_labels(), note=note)
    repeated = repetitions_of(results, "j_per_correct_on_time")
    text = _interval_text(intervals, repeated, "Bars, which end at 0 J")
    who = " and ".join(
        name
        for name, column in (("devices", "device_j"), ("nodes", "node_j"))
        if column in results.runs
    )
    caption = (
        f"Energy of {who} with power states, for every correct answer in time: that of requests "
        f"that were late, wrong or unanswered is counted too. {text}; all requests of "
        f"{repetitions(results)}."
    )
    return Figure(figure, _table(intervals, arm, "j", over), caption)


def telemetry_over_time(results: Results) -> Figure | None:
    """Queue length and utilisation of each node over time, faults shaded; one line per policy."""
    telemetry = results.others.get(NODE_TELEMETRY)
    if telemetry is None:
        return None
    strategy, seed = telemetry["strategy"].iloc[0], telemetry["training_seed"].iloc[0]
    shown = telemetry[(telemetry["strategy"] == strategy) & (telemetry["training_seed"] == seed)]
    busiest = shown.groupby("node", sort=False)["utilisation"].mean()
    busiest = busiest.sort_values(ascending=False, kind="stable")[:MOST_NODES]
    nodes = [node for node in shown["node"].unique() if node in busiest.index]
    figure, axes = plt.subplots(
        len(nodes),
        2,
        figsize=(DOUBLE_COLUMN, 0.6 + 1.35 * len(nodes)),
        sharex=True,
        squeeze=False,
    )
    looks = policy_looks(results.policies)
    step_s, warm_up_s, duration_s = (
        float(results.scenario["simulation"][key])
        for key in ("telemetry_step_s", "warm_up_s", "duration_s")
    )
    end_s = warm_up_s + duration_s
    shaded: set[str] = set()
    for node, (queue, utilisation) in zip(nodes, axes, strict=True):
        for policy, look in looks.items():
            of_arm = shown[(shown["node"] == node) & (shown["policy"] == policy)]
            for axis, column in ((queue, "queue_length"), (utilisation, "utilisation")):
                axis.step(
                    [*of_arm["time_s"], *[end_s][: len(of_arm)]],
                    [*of_arm[column], *of_arm[column][-1:]],
                    where="post",
                    **look.line(),
                    label=policy,
                    linewidth=1,
                )
        for axis in (queue, utilisation):
            shaded |= _shade(axis, results, node)
            axis.set_title(node)
            axis.set_xlim(0, end_s)
        queue.set(ylabel="queue length")
        queue.set_ylim(bottom=0)
        utilisation.set(ylabel="utilisation", ylim=(0, 1.03))
        utilisation.yaxis.set_major_formatter(PERCENT)
    figure.supxlabel("time since the start of the run (s)")
    handles, labels = axes[0, 0].get_legend_handles_labels()
    for kind, (label, shade) in FAULT_SHADES.items():
        if kind in shaded:
            handles.append(Patch(**shade, linewidth=0))
            labels.append(label)
    legend_above(figure, handles, labels)
    caption = (
        f"Requests that wait, and share of worker time in use, at each node: means over "
        f"{step_s:g} s in the first of {counted(results.replications, 'replication')}, {strategy}, "
        f"training seed {seed} of {counted(results.training_seeds, 'training seed')}; "
        f"{warm_up_s:g} s of warm-up included."
    )
    if shaded:
        faults = [label for kind, (label, _) in FAULT_SHADES.items() if kind in shaded]
        caption += f" Shaded: {', '.join(faults)}."
    if len(nodes) < shown["node"].nunique():
        caption += f" The {len(nodes)} busiest of {shown['node'].nunique()} nodes."
    return Figure(figure, shown.drop(columns=["strategy", "training_seed"]), caption)


# --- parts ---------------------------------------------------------------------------------------


def _places(strategies: list[str]) -> Iterator[tuple[float, str]]:
    """Where the bar of each strategy lies beside the middle of its group."""
    count = len(strategies)
    for index, strategy in enumerate(strategies):
        yield 0.8 * ((index + 0.5) / count - 0.5), strategy


def _bars(axis: Axes, at: Floats, bars: list[Interval], strategy: str, width: float) -> None:
    axis.bar(
        at,
        [bar.mean for bar in bars],
        width=0.8 * width,
        yerr=_errors(bars),
        color=STRATEGY_COLOURS[strategy],
        hatch=STRATEGY_HATCHES[strategy],
        edgecolor="white",
        linewidth=0.4,
        label=strategy,
        error_kw={"linewidth": 1, "ecolor": "0.2", "capsize": 2},
    )


def _errors(bars: list[Interval], scale: float = 1.0) -> Floats | None:
    """Lengths of error bars below and above, none below zero; None where there are none."""
    above = scale * np.array([bar.half_width for bar in bars])
    if np.isnan(above).all():
        return None
    return np.array([np.minimum(above, [scale * bar.mean for bar in bars]), above])


def _repeated(intervals: dict[tuple[str, ...], Interval]) -> int:
    """Most repetitions that an interval is over."""
    return max((interval.n for interval in intervals.values()), default=0)


def _interval_text(
    intervals: dict[tuple[str, ...], Interval], repeated: str, bars: str = "Bars"
) -> str:
    """What a caption says of error bars, or of there being none."""
    if _repeated(intervals) > 1:
        return f"{bars}: 95 % t intervals over {repeated}"
    return f"No intervals: {repeated}"


def _unit(largest_j: float) -> tuple[float, str]:
    return (1e3, "mJ") if largest_j < 1 else (1.0, "J")


def _shade(axis: Axes, results: Results, node: str) -> set[str]:
    """Shade when the node or the broker was down, or the node slow; return the kinds of fault.

    Not when one of many links was down or a device away.
    """
    shaded: set[str] = set()
    times = results.others.get(FAULT_TIMES)
    if times is None:
        return shaded
    for row in times.itertuples():
        if row.kind not in FAULT_SHADES or (row.kind != "broker_restart" and row.name != node):
            continue
        _, look = FAULT_SHADES[row.kind]
        axis.axvspan(row.start_s, row.end_s, **look, linewidth=0, zorder=0)
        shaded.add(row.kind)
    return shaded


def _ratios(totals: pd.DataFrame, arm: list[str]) -> dict[tuple[str, ...], Interval]:
    """The first column over the second by ``arm``, where there is any of the second.

    Args:
        totals: indexed by ``arm`` and repetition.
    """
    above, below = totals.columns
    intervals = {
        place: ratio_interval(of_arm[above], of_arm[below])
        for place, of_arm in totals.groupby(level=arm, sort=False)
    }
    return {place: it for place, it in intervals.items() if not math.isnan(it.mean)}


def _table(
    intervals: dict[tuple[str, ...], Interval], keys: list[str], name: str, over: str
) -> pd.DataFrame:
    return pd.DataFrame(
        {
            **dict(zip(keys, arm, strict=True)),
            name: interval.mean,
            "low": interval.low,
            "high": interval.high,
            "n": interval.n,
            "over": over,
        }
        for arm, interval in intervals.items()
    )
