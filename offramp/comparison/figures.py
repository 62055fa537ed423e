"""Figures that overlay runs: one look for each run, one panel for each arm."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure as MplFigure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from offramp.comparison.runs import Arm, Compared, has_arm
from offramp.report.deadline_figures import aud_at_deadlines, curve_with_band, deadline_axis
from offramp.report.exit_figures import exit_bars
from offramp.report.figure import (
    Figure,
    common_deadline_ms,
    cut_note,
    label_left,
    legend_above,
    note_inside,
    panels_for,
    repetitions,
    save_figure,
    spread,
    wrapped,
)
from offramp.report.figures import INVALID_MARK
from offramp.report.latency_figures import draw_deadlines, ecdf_points
from offramp.report.results import Results, exit_counts, interval_over, unit_of
from offramp.report.style import DOUBLE_COLUMN, PERCENT, STRATEGY_LOOKS, paper_style, run_looks
from offramp.words import counted, enumerated
from sim.results.metrics import over_replications, over_training_seeds

#: Latencies of runs that differ so many times, at the 99th percentile, are of other scales.
_OTHER_SCALE = 10.0

#: How far beside each other the strategies of a run are drawn.
_DODGE = 0.26


def write_figures(compared: Compared, folder: Path) -> dict[str, str]:
    """Write every figure with its data and caption into ``folder``; return captions by name."""
    folder.mkdir(parents=True, exist_ok=True)
    captions = {}
    with paper_style():
        for name, draw in (
            ("aud_by_run", aud_by_run),
            ("aud_against_deadline", aud_against_deadline),
            ("latency_ecdf", latency_ecdf),
            ("exits_taken", exits_taken),
        ):
            figure = draw(compared)
            if figure is not None:
                if compared.invalid:
                    mark = f"{enumerated([*compared.invalid])} {INVALID_MARK}"
                    figure = figure.marked(mark, " ".join(compared.invalid.values()))
                save_figure(figure, folder, name)
                captions[name] = figure.caption
    return captions


def aud_by_run(compared: Compared) -> Figure:
    """AUD of every run with its interval, by strategy, one panel per policy."""
    rows = []
    for label, run in compared.named:
        for strategy, policy in _arms_of(compared, run):
            over = interval_over("aud", run.training_seeds)
            by_unit = over_training_seeds if over == "training seeds" else over_replications
            values = by_unit(run.runs, "aud").xs((strategy, policy))
            about = {"run": label, "policy": policy, "strategy": strategy}
            rows.append({**about, **spread(values, over)})
    data = pd.DataFrame(rows)
    height = 0.55 + 0.32 * len(compared.labels)
    figure, panels = panels_for(compared.policies, height)
    names = [wrapped(label, 1.4) for label in compared.labels]
    middle = (len(compared.strategies) - 1) / 2
    for policy, axes in zip(compared.policies, panels, strict=True):
        for place, strategy in enumerate(compared.strategies):
            look = STRATEGY_LOOKS[strategy]
            arm = data[(data["policy"] == policy) & (data["strategy"] == strategy)]
            at = [compared.labels.index(label) + _DODGE * (place - middle) for label in arm["run"]]
            axes.errorbar(
                arm["mean"],
                at,
                xerr=(arm["high"] - arm["mean"]).fillna(0.0),
                color=look.colour,
                marker=look.marker,
                linestyle="none",
                elinewidth=1,
                label=strategy,
            )
        axes.set_yticks(range(len(names)), names)
        axes.set_ylim(len(names) - 0.5, -0.5)
        axes.xaxis.set_major_locator(MaxNLocator(4, steps=[1, 2, 5, 10]))
        axes.xaxis.set_major_formatter(lambda share, _: f"{round(100 * share, 6):g} %")
        axes.grid(visible=False, axis="y")
    # One range for all panels, which are compared with each other too.
    low, high = data[["mean", "low"]].min(axis=None), data[["mean", "high"]].max(axis=None)
    margin = 0.04 * max(high - low, 0.01)
    for axes in panels:
        axes.set_xlim(max(0.0, low) - margin, min(1.0, high) + margin)
    figure.supxlabel("accuracy under deadline")
    legend_above(figure, *panels[0].get_legend_handles_labels())
    caption = (
        f"Accuracy under deadline of each run. Bars: 95 % t intervals over {_units(compared)}; "
        f"{_repeated(compared)}."
    )
    if data["high"].isna().any():
        caption += " Where there is one repetition, there is no bar."
    caption += cut_note(data["low"], data["high"])
    return Figure(figure, data.rename(columns={"mean": "aud"}), caption)


def aud_against_deadline(compared: Compared) -> Figure:
    """AUD against the deadline, a line for each run, one panel per arm."""
    x, label = deadline_axis(compared.runs)
    rows = []
    for name, run in compared.named:
        over = interval_over("aud", run.training_seeds)
        values = aud_at_deadlines(run, x, unit_of(over))
        for (policy, strategy, at), of_arm in values.groupby(["policy", "strategy", x], sort=False):
            about = {"run": name, "policy": policy, "strategy": strategy}
            rows.append({**about, x: at, **spread(of_arm, over)})
    data = pd.DataFrame(rows)
    figure, panels = _panels(compared)
    looks = run_looks(compared.labels)
    for (strategy, policy), axes in zip(compared.arms, panels, strict=True):
        arm = data[(data["policy"] == policy) & (data["strategy"] == strategy)]
        for name, look in looks.items():
            curve_with_band(axes, arm[arm["run"] == name], x, look, name)
        axes.set_xlim(left=0)
        axes.yaxis.set_major_formatter(PERCENT)
    highest = data[["mean", "high"]].max(axis=None)
    panels[0].set_ylim(0, 1.04 * min(1.0, max(0.01, highest)))
    figure.supxlabel(label)
    label_left(panels, "accuracy under deadline")
    legend_above(figure, *panels[0].get_legend_handles_labels())
    caption = (
        "Accuracy under deadline against the deadline, of each run. Bands: 95 % t intervals over "
        f"{_units(compared)}; {_repeated(compared)}."
    )
    if data["high"].isna().any():
        caption += " Where there is one repetition, there is no band."
    return Figure(figure, data.rename(columns={"mean": "aud"}), caption)


def latency_ecdf(compared: Compared) -> Figure | None:
    """Distribution of latency over offered requests, a line for each run, one panel per arm."""
    if not all(run.has_records for run in compared.runs):
        return None
    figure, panels = _panels(compared)
    looks = run_looks(compared.labels)
    deadlines = {common_deadline_ms(run) for run in compared.runs}
    deadline = deadlines.pop() if len(deadlines) == 1 else None
    shortest = _log_from_ms(compared)
    curves: list[pd.DataFrame] = []
    handles: dict[str, Line2D] = {}
    for arm, axes in zip(compared.arms, panels, strict=True):
        longest = deadline or 0.0
        for name, run in compared.named:
            if not has_arm(run, arm):
                continue
            answers = run.answers[arm]
            if len(answers.latency_s):
                longest = max(longest, 1e3 * float(np.quantile(answers.latency_s, 0.99)))
            curve = ecdf_points(1e3 * answers.latency_s, answers.offered)
            curves.append(curve.assign(run=name, strategy=arm[0], policy=arm[1]))
            line = axes.plot(curve["latency_ms"], curve["share"], **looks[name].line())
            handles.setdefault(name, line[0])
        if not any(len(run.answers[arm].latency_s) for run in compared.runs if has_arm(run, arm)):
            note_inside(axes, "no request was answered")
        axes.set(ylim=(0, 1), xlim=(shortest, max(1.05 * longest, 10 * shortest) or 1.0))
        if shortest:
            axes.set_xscale("log")
        axes.yaxis.set_major_formatter(PERCENT)
        if deadline is not None:
            draw_deadlines(axes, {"deadline": deadline})
    figure.supxlabel("latency (ms)")
    label_left(panels, "share of offered requests")
    legend_above(figure, list(handles.values()), list(handles))
    caption = (
        "Latency from creation to answer, as the share of all offered requests answered by then; "
        "a curve that ends below 100 % leaves requests unanswered. Each axis ends past the 99th "
        f"percentile of the answers. All requests: {_repeated(compared)}; no interval is drawn."
    )
    if shortest:
        caption += " Axes are logarithmic, since runs differ by a factor of ten or more."
    data = pd.concat(curves)[["run", "policy", "strategy", "latency_ms", "share"]]
    return Figure(figure, data, caption)


def _log_from_ms(compared: Compared) -> float:
    """Where logarithmic axes of latency begin; 0 where runs are of one scale, and axes linear."""
    latencies = [
        [run.answers[arm].latency_s for run in compared.runs if has_arm(run, arm)]
        for arm in compared.arms
    ]
    answered = [[of_run for of_run in of_arm if len(of_run)] for of_arm in latencies]
    ends = [[np.quantile(it, 0.99) for it in of_arm] for of_arm in answered if of_arm]
    if not any(max(of_arm) >= _OTHER_SCALE * min(of_arm) for of_arm in ends):
        return 0.0
    return 1e3 * float(min(np.quantile(it, 0.01) for of_arm in answered for it in of_arm))


def exits_taken(compared: Compared) -> Figure:
    """Share of all offered requests answered at each exit, a bar for each arm and run."""
    rows, bars, names = [], [], []
    last = max(len(exit_counts(run.runs).columns) for run in compared.runs)
    for arm in compared.arms:
        for label, run in compared.named:
            if not has_arm(run, arm):
                continue
            of_arm = (run.runs["strategy"] == arm[0]) & (run.runs["policy"] == arm[1])
            counts = exit_counts(run.runs[of_arm]).sum().reindex(range(last), fill_value=0)
            shares = (counts / counts.sum()).to_numpy() if counts.sum() else np.zeros(last)
            bars.append(shares)
            names.append(f"{', '.join(_name_parts(compared, arm))}: {label}")
            about = {"run": label, "policy": arm[1], "strategy": arm[0]}
            rows += [
                {**about, "exit": exit, "share": float(share), "offered": int(counts.sum())}
                for exit, share in enumerate(shares)
                if share
            ]
    figure, axes = plt.subplots(figsize=(DOUBLE_COLUMN, 0.7 + 0.24 * len(bars)))
    exit_bars(axes, bars)
    axes.set_yticks(range(len(bars)), names)
    axes.invert_yaxis()
    axes.set(xlabel="share of offered requests", xlim=(0, 1))
    axes.xaxis.set_major_formatter(PERCENT)
    axes.grid(visible=False)
    legend_above(figure, *axes.get_legend_handles_labels())
    caption = (
        "Share of all offered requests that each exit answered, over all requests of each run: "
        f"{_repeated(compared)}; no interval is drawn."
    )
    columns = ["run", "policy", "strategy", "exit", "share", "offered"]
    return Figure(figure, pd.DataFrame(rows, columns=columns), caption)


def _arms_of(compared: Compared, run: Results) -> list[Arm]:
    return [arm for arm in compared.arms if has_arm(run, arm)]


def _name_parts(compared: Compared, arm: Arm) -> list[str]:
    """What tells an arm from the others: not the strategy if all have the same."""
    strategy, policy = arm
    return [policy] if len(compared.strategies) == 1 else [policy, strategy]


def _panels(compared: Compared) -> tuple[MplFigure, Sequence[Axes]]:
    return panels_for([", ".join(_name_parts(compared, arm)) for arm in compared.arms])


def _units(compared: Compared) -> str:
    """What intervals of AUD are over."""
    units = dict.fromkeys(interval_over("aud", run.training_seeds) for run in compared.runs)
    return " or ".join(units) + (", whichever a run has several of" if len(units) > 1 else "")


def _repeated(compared: Compared) -> str:
    """How many repetitions each run has, said once where it is the same."""
    said = {label: repetitions(run) for label, run in compared.named}
    if len(set(said.values())) == 1:
        return f"{next(iter(said.values()))}, in each of {counted(len(said), 'run')}"
    return "; ".join(f"{label}: {text}" for label, text in said.items())
