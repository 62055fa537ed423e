"""Figures of exits: how accurate, how fast, what a strategy gains at each, and which answer."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb

from offramp.report.figure import (
    Figure,
    cut_note,
    cut_to_shares,
    legend_above,
    no_interval,
    repetitions,
    spread,
)
from offramp.report.paired import SIGNIFICANCE, compare_pairs, holm
from offramp.report.results import (
    Results,
    baseline_strategy,
    exit_counts,
    interval_over,
    unit_of,
)
from offramp.report.style import (
    COLUMN,
    DOUBLE_COLUMN,
    GUIDE,
    PERCENT,
    SMALL,
    STRATEGY_LOOKS,
    UNANSWERED_COLOUR,
    exit_colours,
)
from offramp.words import counted
from sim.results.metrics import linearised

#: Distance of strategies' points at one exit.
_DODGE = 0.16


def exits_accuracy_and_latency(results: Results) -> Figure:
    """Test accuracy of each exit by strategy, and the latency of reaching it."""
    profile = results.profile
    width = DOUBLE_COLUMN if profile else COLUMN
    figure, panels = plt.subplots(1, 2 if profile else 1, figsize=(width, 2.3), squeeze=False)
    rows = [
        {"strategy": strategy, "exit": exit, **spread(of_exit["accuracy"], "training seeds")}
        for (strategy, exit), of_exit in results.exit_accuracy.groupby(
            ["strategy", "exit"], sort=False
        )
    ]
    data = pd.DataFrame(rows).rename(columns={"mean": "accuracy"})
    axes = panels[0, 0]
    exits = sorted(data["exit"].unique())
    for shift, strategy in _dodged(results.strategies):
        look = STRATEGY_LOOKS[strategy]
        of_arm = data[data["strategy"] == strategy].sort_values("exit")
        half = of_arm["high"] - of_arm["accuracy"]
        axes.errorbar(
            of_arm["exit"] + shift,
            of_arm["accuracy"],
            yerr=None if half.isna().all() else half,
            color=look.colour,
            marker=look.marker,
            linestyle=(0, look.dashes) if look.dashes else "-",
            linewidth=1.1,
            elinewidth=1,
            label=strategy,
        )
    axes.set(xlabel="exit", ylabel="test accuracy")
    _exit_ticks(axes, exits)
    cut_to_shares(axes)
    axes.yaxis.set_major_formatter(PERCENT)
    note = no_interval(results.training_seeds, "training seed")
    caption = (
        "Test accuracy of each exit (95 % t intervals over "
        f"{counted(results.training_seeds, 'training seed')})"
        if results.training_seeds > 1
        else "Test accuracy of each exit (one training seed: no interval)"
    )
    if profile:
        times = profile.seconds[1]["exit"]
        latency = pd.DataFrame(times * 1e3, columns=range(1, times.shape[1] + 1))
        axes = panels[0, 1]
        axes.boxplot(
            latency.to_numpy(),
            whis=(5, 95),
            showfliers=False,
            widths=0.5,
            patch_artist=True,
            boxprops={"facecolor": "0.85"},
            medianprops={"color": "black"},
        )
        axes.set(xlabel="exit", ylabel="latency on the host (ms)")
        axes.set_ylim(bottom=0)
        axes.grid(visible=False, axis="x")
        quantiles = latency.quantile([0.05, 0.25, 0.5, 0.75, 0.95])
        for percent, values in zip((5, 25, 50, 75, 95), quantiles.to_numpy(), strict=True):
            data[f"latency_p{percent}_ms"] = data["exit"].map(
                dict(zip(latency.columns, values, strict=True))
            )
        caption += (
            f", and the measured latency of one inference to it: median, quartiles and 5th to 95th "
            f"percentile of {len(times)} inferences, "
            f"{counted(profile.about['host']['threads'], 'thread')}"
        )
    handles, labels = panels[0, 0].get_legend_handles_labels()
    legend_above(figure, handles, labels, note)
    return Figure(figure, data, caption + "." + cut_note(data["low"], data["high"]))


def gain_at_each_exit(results: Results) -> Figure | None:
    """Gain in test accuracy over the baseline strategy at each exit, paired by training seed."""
    baseline = baseline_strategy(results.strategies)
    others = [name for name in results.strategies if name != baseline]
    if not others:
        return None
    by_seed = results.exit_accuracy.pivot_table(
        index=["exit", "training_seed"], columns="strategy", values="accuracy"
    )
    rows = []
    for strategy in others:
        gains = (100 * (by_seed[strategy] - by_seed[baseline])).dropna()
        for exit, of_exit in gains.groupby("exit"):
            compared = compare_pairs(of_exit / 100)
            rows.append(
                {
                    "exit": exit,
                    "strategy": strategy,
                    "baseline": baseline,
                    "gain_points": 100 * compared.mean,
                    "sd": 100 * compared.sd,
                    "low": 100 * (compared.mean - compared.half_width),
                    "high": 100 * (compared.mean + compared.half_width),
                    "n": compared.n,
                    "over": "training seeds",
                    "p": compared.p,
                }
            )
    data = pd.DataFrame(rows)
    data["p_holm"] = holm(data["p"])
    figure, axes = plt.subplots(figsize=(COLUMN, 2.2))
    axes.axhline(0, **GUIDE, zorder=1)
    for shift, strategy in _dodged(others):
        look = STRATEGY_LOOKS[strategy]
        axes.plot([], [], color=look.colour, marker=look.marker, linestyle="none", label=strategy)
        for row in data[data["strategy"] == strategy].itertuples():
            half = row.high - row.gain_points
            axes.errorbar(
                row.exit + shift,
                row.gain_points,
                yerr=None if np.isnan(half) else half,
                color=look.colour,
                marker=look.marker,
                markersize=5,
                markerfacecolor=look.colour if row.p_holm < SIGNIFICANCE else "white",
                linestyle="none",
                elinewidth=1,
            )
    _exit_ticks(axes, sorted(data["exit"].unique()))
    axes.set(xlabel="exit", ylabel=f"gain in test accuracy\nover {baseline} (points)")
    handles, labels = axes.get_legend_handles_labels()
    note = no_interval(results.training_seeds, "training seed")
    legend_above(figure, handles, labels, note)
    trained = counted(results.training_seeds, "training seed")
    caption = (
        f"Gain in test accuracy over {baseline} at each exit, in percentage points: mean over "
        f"{trained}, paired"
    )
    tested = int(data["p"].notna().sum())
    if results.training_seeds > 1:
        caption += (
            ", with 95 % t intervals, not corrected for the number of comparisons. Filled markers: "
            f"p < {SIGNIFICANCE:g} (paired t-test) after Holm's correction over the {tested} "
            "tested comparisons; open markers: no difference shown."
        )
    else:
        caption += ". No interval: one training seed says nothing of another training."
    return Figure(figure, data, caption)


def exits_taken(results: Results) -> Figure:
    """Share of all offered requests answered at each exit, by strategy and policy."""
    over = interval_over("aud", results.training_seeds)
    unit = unit_of(over)
    counts = exit_counts(results.runs)
    last = len(counts.columns) - 1
    keys = [results.runs[key] for key in ("policy", "strategy")]
    pooled = counts.groupby(keys).sum()
    shares = pooled.div(pooled.sum(axis=1), axis=0)
    by_unit = counts.groupby([*keys, results.runs[unit]]).sum()
    offered = by_unit.sum(axis=1)
    by_unit = by_unit.apply(lambda answers: linearised(answers, offered, ["policy", "strategy"]))
    arms = [(policy, strategy) for policy in results.policies for strategy in results.strategies]
    figure, axes = plt.subplots(figsize=(DOUBLE_COLUMN, 0.7 + 0.24 * len(arms)))
    exit_bars(axes, [shares.loc[arm].to_numpy() for arm in arms])
    axes.set_yticks(range(len(arms)), [f"{policy}, {strategy}" for policy, strategy in arms])
    axes.invert_yaxis()
    axes.set(xlabel="share of offered requests", xlim=(0, 1))
    axes.xaxis.set_major_formatter(PERCENT)
    axes.grid(visible=False)
    legend_above(figure, *axes.get_legend_handles_labels())
    rows = []
    for policy, strategy in arms:
        for exit in range(last + 1):
            share = float(shares.loc[(policy, strategy), exit])
            if share:
                of_units = spread(by_unit.loc[(policy, strategy)][exit], over)
                row = {"policy": policy, "strategy": strategy, "exit": exit, "share": share}
                rows.append(row | {key: of_units[key] for key in ("sd", "n", "over")})
    caption = (
        "Share of all offered requests that each exit answered, over all requests of "
        f"{repetitions(results)}; no interval is drawn."
    )
    return Figure(figure, pd.DataFrame(rows), caption)


def exit_bars(axes: Axes, arms: list[np.ndarray]) -> None:
    """A bar for each arm, made of the shares of exits and, last, of what none answered.

    Args:
        arms: of each, (exits + 1,) shares; the first of requests without an answer.
    """
    last = len(arms[0]) - 1
    colours = [UNANSWERED_COLOUR, *exit_colours(last)]
    lefts = np.zeros(len(arms))
    for exit in [*range(1, last + 1), 0]:
        widths = np.array([arm[exit] for arm in arms])
        if exit == 0 and not widths.any():
            continue
        label = f"exit {exit}" if exit else "not answered"
        axes.barh(
            range(len(arms)),
            widths,
            left=lefts,
            color=colours[exit],
            hatch="" if exit else "////",
            edgecolor="white",
            linewidth=0.4,
            label=label,
            height=0.72,
        )
        for row, (left, width) in enumerate(zip(lefts, widths, strict=True)):
            if width >= 0.06:
                at = left + width / 2
                colour = "white" if exit and _is_dark(colours[exit]) else "black"
                text = axes.text(at, row, f"{width:.0%}", ha="center", va="center", color=colour)
                text.set_fontsize(SMALL)
        lefts += widths


def _is_dark(colour: object) -> bool:
    """Whether white text stands out more than black, by the colour's luminance (WCAG 2)."""
    linear = [
        part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4
        for part in to_rgb(colour)  # type: ignore[arg-type]
    ]
    return float(np.dot([0.2126, 0.7152, 0.0722], linear)) < 0.18


def _dodged(strategies: list[str]) -> list[tuple[float, str]]:
    """Strategies, and how far beside the exit each is drawn."""
    middle = (len(strategies) - 1) / 2
    return [(_DODGE * (index - middle), strategy) for index, strategy in enumerate(strategies)]


def _exit_ticks(axes: Axes, exits: list[int]) -> None:
    axes.set_xticks(exits, [str(exit) for exit in exits])
    axes.set_xlim(exits[0] - 0.5, exits[-1] + 0.5)
    axes.grid(visible=False, axis="x")
