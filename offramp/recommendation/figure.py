"""Cost against what is reached: everything that was tried, and what was verified of it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from offramp.recommendation.outcome import Outcome
from offramp.recommendation.target import Target
from offramp.recommendation.verification import ALPHA, Candidate, Verified
from offramp.report.figure import Figure, label_left, legend_above, panels_for, save_figure
from offramp.report.style import GUIDE, PERCENT, STRATEGY_LOOKS, Look, paper_style
from offramp.report.tradeoff import pareto_front
from offramp.words import counted

FIGURES, FIGURE = "figures", "cost_against_target"

#: Costs, and latencies, that differ by more than this factor are drawn on a logarithmic axis.
_LOG_FROM = 20
#: Strategies stand beside each other, so far apart: a part of the axis.
_APART = 0.02

_GREY = "0.65"


def write_figure(outcome: Outcome, folder: Path) -> str:
    """Draw the figure into the folder of figures; returns its caption.

    Raises:
        OSError: a file cannot be written.
    """
    with paper_style():
        figure = cost_figure(outcome)
        save_figure(figure, folder / FIGURES, FIGURE)
    return figure.caption


def cost_figure(outcome: Outcome) -> Figure:
    """A panel for each target: what every trial costs, and what it reaches."""
    question = outcome.question
    data = figure_data(outcome)
    titles = [str(target) for target in question.targets]
    drawing, panels = panels_for(titles, 3.0, sharey=False)
    shifts = _shifts(data, question.strategies)
    for index, (axes, target) in enumerate(zip(panels, question.targets, strict=True)):
        if len(titles) == 1:
            axes.set_title("")
        _panel(axes, outcome, target, data[data["target"] == index], shifts)
    label = {"workers": "cost (workers × price)", "energy": "energy of a request (J)"}
    drawing.supxlabel(label[question.cost])
    if len(panels) == 1:
        label_left(panels, panels[0].get_ylabel())
    handles, labels = _legend(outcome)
    legend_above(drawing, handles, labels)
    return Figure(drawing, data.drop(columns="target"), _caption(outcome))


def figure_data(outcome: Outcome) -> pd.DataFrame:
    """One row for each metric and what was screened or verified, with its interval."""
    rows = [
        _row(index, target, it, "screened")
        for index, target in enumerate(outcome.question.targets)
        for it in outcome.candidates
    ]
    rows += [
        _row(index, target, it, "recommended" if it is outcome.recommended else it.verdict)
        for index, target in enumerate(outcome.question.targets)
        for steps in outcome.verified.values()
        for it in steps
    ]
    return pd.DataFrame(rows)


def _row(index: int, target: Target, it: Candidate | Verified, stage: str) -> dict[str, Any]:
    screened = it.screened if isinstance(it, Verified) else it
    estimate = it.evidence.estimates[index]
    scale = 1.0 if target.is_share else 1e3
    return {
        "target": index,
        "metric": target.metric,
        "strategy": screened.strategy,
        "trial": screened.number,
        "policy": screened.configuration.label,
        "stage": stage,
        "cost": it.cost.amount,
        "mean": scale * estimate.mean,
        "half_width": scale * estimate.half_width,
        "training_seeds": estimate.training_seeds,
        "replications": estimate.replications,
    }


def _panel(
    axes: Axes, outcome: Outcome, target: Target, data: pd.DataFrame, shifts: dict[str, float]
) -> None:
    scale = 1.0 if target.is_share else 1e3
    costs = data["cost"]
    logarithmic = costs.max() > _LOG_FROM * costs.min() > 0
    for strategy, shift in shifts.items():
        look = STRATEGY_LOOKS[strategy]
        of_it = data[data["strategy"] == strategy]
        screened = of_it[of_it["stage"] == "screened"]
        x = screened["cost"] if logarithmic else screened["cost"] + shift
        axes.plot(x, screened["mean"], look.marker, color=_GREY, markersize=2.5, zorder=1,
                  fillstyle="none", markeredgewidth=0.6)  # fmt: skip
        gain = screened["mean"] if target.is_share else -screened["mean"]
        front = screened[pareto_front(screened["cost"], gain)].sort_values("cost")
        axes.step(
            front["cost"] + (0 if logarithmic else shift),
            front["mean"],
            where="post",
            linewidth=0.7,
            alpha=0.7,
            **look.line(),
            zorder=2,
        )
        for row in of_it[of_it["stage"] != "screened"].itertuples():
            _verified_point(axes, row, float(row.cost) + (0 if logarithmic else shift), look)
    axes.axhline(scale * target.value, **GUIDE, linestyle=":", zorder=0)
    axes.set_ylabel(target.title if target.is_share else f"{target.title} (ms)")
    axes.margins(0.06)
    if target.is_share:
        axes.yaxis.set_major_formatter(PERCENT)
        low, high = axes.get_ylim()  # of two training seeds, an interval leaves what shares can be
        axes.set_ylim(max(low, -0.05), min(high, 1.05))
    elif data["mean"].max() > _LOG_FROM * data["mean"].min() > 0:
        axes.set_yscale("log")
    if logarithmic:
        axes.set_xscale("log")
    else:
        whole = outcome.question.cost == "workers"
        axes.xaxis.set_major_locator(MaxNLocator(8 if whole else 4, integer=whole))


def _verified_point(axes: Axes, row: Any, x: float, look: Look) -> None:
    met = row.stage in ("met", "recommended")
    axes.errorbar(
        x,
        row.mean,
        yerr=None if np.isnan(row.half_width) else row.half_width,
        color=look.colour,
        elinewidth=0.9,
        linestyle="none",
        marker=look.marker,
        markersize=5,
        fillstyle="full" if met else "none",
        markeredgewidth=0.9,
        zorder=3,
    )
    if row.stage == "recommended":
        axes.plot(x, row.mean, "o", color="black", markersize=10, fillstyle="none",
                  markeredgewidth=0.9, zorder=4)  # fmt: skip


def _shifts(data: pd.DataFrame, strategies: Sequence[str]) -> dict[str, float]:
    """How far each strategy stands beside its cost, so that none hides another."""
    width = float(data["cost"].max() - data["cost"].min())
    middle = (len(strategies) - 1) / 2
    return {
        strategy: _APART * width * (place - middle) for place, strategy in enumerate(strategies)
    }


def _legend(outcome: Outcome) -> tuple[list[Artist], list[str]]:
    handles: list[Artist] = []
    labels = []
    for strategy in outcome.question.strategies:
        look = STRATEGY_LOOKS[strategy]
        handles.append(Line2D([], [], **look.line(), linewidth=0.9, marker=look.marker,
                              markersize=4))  # fmt: skip
        labels.append(strategy)
    handles.append(Line2D([], [], color=_GREY, marker="o", linestyle="none", markersize=2.5,
                          fillstyle="none"))  # fmt: skip
    labels.append("screened")
    verdicts = {it.verdict for steps in outcome.verified.values() for it in steps}
    fills: tuple[tuple[Any, str, set[str]], ...] = (
        ("full", "met", {"met"}),
        ("none", "not met", {"not shown", "missed", "not judged"}),
    )
    for fill, label, wanted in fills:
        if verdicts & wanted:
            handles.append(Line2D([], [], color="0.2", marker="o", linestyle="none",
                                  markersize=5, fillstyle=fill))  # fmt: skip
            labels.append(label)
    if outcome.recommended is not None:
        handles.append(Line2D([], [], color="black", marker="o", linestyle="none", markersize=8,
                              fillstyle="none"))  # fmt: skip
        labels.append("recommended")
    handles.append(Line2D([], [], **GUIDE, linestyle=":"))
    labels.append("target")
    return handles, labels


def _caption(outcome: Outcome) -> str:
    question = outcome.question
    duration = f"{question.base.scenario.simulation.duration_s:g} s"
    targets = " and ".join(map(str, question.targets))
    over = outcome.best.evidence.estimates[0].over
    recommended = (
        "The ringed one is recommended. "
        if outcome.recommended is not None
        else "None is shown to meet it. "
    )
    return (
        f"Cost of every configuration that was tried, and what it reaches; target: {targets}. "
        f"Grey: {counted(len(outcome.candidates), 'trial')} of the search, each with "
        f"{counted(question.section.screening_replications, 'replication')} of {duration}, without "
        "intervals; lines: the best of these for a cost, of each strategy. Coloured: "
        f"verified with {counted(question.replications, 'replication')} of {duration} that the "
        "search had not seen; filled where every target is met with one-sided confidence "
        f"{100 * outcome.level:g} %, so that what is recommended misses it with other requests to "
        f"the same networks with a probability of at most {100 * ALPHA:g} %. {recommended}Bars: "
        f"95 % intervals over {over}. Strategies stand a little beside their cost."
    )
