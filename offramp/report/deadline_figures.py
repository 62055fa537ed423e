"""Figures over the deadline: accuracy under deadline, and what a strategy gains."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd
from matplotlib.axes import Axes

from offramp.report.figure import (
    Figure,
    common_deadline_ms,
    cut_note,
    label_left,
    legend_above,
    no_interval,
    panels_for,
    spread,
    window,
)
from offramp.report.results import Results, baseline_strategy, interval_over, unit_of
from offramp.report.style import GUIDE, PERCENT, STRATEGY_LOOKS, Look
from offramp.words import counted
from sim.results.metrics import linearised


def aud_against_deadline(results: Results) -> Figure:
    """AUD against the deadline, by strategy, one panel per policy."""
    seeds, replications = results.training_seeds, results.replications
    over = interval_over("aud", seeds)
    x, label = deadline_axis([results])
    values = aud_at_deadlines(results, x, unit_of(over))
    rows = [
        {"policy": policy, "strategy": strategy, x: at, **spread(of_arm, over)}
        for (policy, strategy, at), of_arm in values.groupby(["policy", "strategy", x], sort=False)
    ]
    data = pd.DataFrame(rows)
    data.insert(len(data.columns), "training_seeds", seeds)
    data.insert(len(data.columns), "replications", replications)
    figure, panels = panels_for(results.policies)
    for policy, axes in zip(results.policies, panels, strict=True):
        _lines(axes, data[data["policy"] == policy], x, results.strategies)
        axes.set_xlim(left=0)
        axes.yaxis.set_major_formatter(PERCENT)
    # Once all panels are drawn: they share the axis. No share passes 100 %, whatever its band.
    highest = data[["mean", "high"]].max(axis=None)
    panels[0].set_ylim(0, 1.04 * min(1.0, max(0.01, highest)))
    figure.supxlabel(label)
    label_left(panels, "accuracy under deadline")
    note = no_interval(max(seeds, replications), "training seed and replication")
    legend_above(figure, *panels[0].get_legend_handles_labels(), note=note)
    trained, repeated = counted(seeds, "training seed"), counted(replications, "replication")
    caption = "Accuracy under deadline against the deadline. "
    if seeds > 1:
        caption += (
            f"Bands: 95 % t intervals over {trained}, each over the requests of {repeated} of "
            f"{window(results)}"
        )
    elif replications > 1:
        caption += (
            f"Bands: 95 % t intervals over {repeated} of {window(results)} with {trained}: they "
            "say nothing of another training"
        )
    else:
        caption += f"One training seed and one replication of {window(results)}: no band"
    caption += "; all arms see the same requests." + cut_note(data["low"], data["high"])
    return Figure(figure, data.rename(columns={"mean": "aud"}), caption + _live_note(results))


def gain_against_deadline(results: Results) -> Figure | None:
    """Gain in AUD over the baseline strategy, paired by training seed, one panel per policy."""
    baseline = baseline_strategy(results.strategies)
    others = [name for name in results.strategies if name != baseline]
    if not others:
        return None
    x, label = deadline_axis([results])
    by_seed = aud_at_deadlines(results, x, "training_seed")
    wide = by_seed.unstack("strategy")
    gains = (100 * wide[others].sub(wide[baseline], axis=0)).stack()
    rows = [
        {
            "policy": policy,
            "strategy": strategy,
            "baseline": baseline,
            x: at,
            **spread(of_arm, "training seeds"),
        }
        for (policy, strategy, at), of_arm in gains.groupby(["policy", "strategy", x], sort=False)
    ]
    data = pd.DataFrame(rows)
    figure, panels = panels_for(results.policies)
    for policy, axes in zip(results.policies, panels, strict=True):
        axes.axhline(0, **GUIDE, zorder=1)
        _lines(axes, data[data["policy"] == policy], x, others)
        axes.set_xlim(left=0)
    figure.supxlabel(label)
    label_left(panels, f"gain in AUD over\n{baseline} (points)")
    note = no_interval(results.training_seeds, "training seed")
    legend_above(figure, *panels[0].get_legend_handles_labels(), note=note)
    trained = counted(results.training_seeds, "training seed")
    caption = (
        f"Gain in accuracy under deadline over {baseline} against the deadline, in percentage "
        f"points, paired by training seed: the mean over {trained}, each over the requests of "
        f"{counted(results.replications, 'replication')} of {window(results)}, which are the same "
        "for all. "
    )
    if results.training_seeds > 1:
        caption += (
            "Bands: 95 % t intervals of the paired gain, at each deadline by itself and not "
            "corrected for their number."
        )
    else:
        caption += "No interval: one training seed says nothing of another training."
    return Figure(
        figure, data.rename(columns={"mean": "gain_points"}), caption + _live_note(results)
    )


def deadline_axis(runs: Sequence[Results]) -> tuple[str, str]:
    """Column and label of the x axis of figures of some runs."""
    if any(common_deadline_ms(run) is None for run in runs):
        return "deadline_scale", "deadline, as a multiple of the scenario's"
    return "deadline_ms", "deadline (ms)"


def aud_at_deadlines(results: Results, x: str, unit: str) -> pd.Series:
    """AUD by policy, strategy, deadline and unit of evidence, in this order of levels.

    As :func:`sim.results.metrics.linearised`: means over the unit are those of all requests.
    """
    sweep = results.sweep
    if x == "deadline_ms":
        sweep = sweep.assign(deadline_ms=sweep["deadline_scale"] * common_deadline_ms(results))
    arm = ["policy", "strategy", x]
    by = [sweep[key] for key in (*arm, unit)]
    correct = (sweep["aud"] * sweep["offered"]).groupby(by, sort=False).sum()
    return linearised(correct, sweep["offered"].groupby(by, sort=False).sum(), arm)


def _lines(axes: Axes, data: pd.DataFrame, x: str, strategies: list[str]) -> None:
    """A line with its band for each strategy."""
    for strategy in strategies:
        curve_with_band(
            axes, data[data["strategy"] == strategy], x, STRATEGY_LOOKS[strategy], strategy
        )


def curve_with_band(axes: Axes, curve: pd.DataFrame, x: str, look: Look, label: str) -> None:
    """A line through means, and the band of their intervals."""
    curve = curve.sort_values(x)
    axes.plot(curve[x], curve["mean"], **look.line(), marker=look.marker, label=label)
    axes.fill_between(
        curve[x], curve["low"], curve["high"], color=look.colour, alpha=0.15, linewidth=0
    )


def _live_note(results: Results) -> str:
    if not results.is_live:
        return ""
    return (
        " Measured live at the scenario's deadlines alone; curves are of policies that never "
        "look at deadlines, whose answers would have come at the same times."
    )
