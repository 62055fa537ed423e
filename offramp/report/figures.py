"""The figures: each a function from results to a matplotlib figure, its data and its caption."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure as MplFigure

from models.files import whole_file
from offramp.report.figure import (
    TITLE_LINE,
    Figure,
    common_deadline_ms,
    counted,
    legend_above,
    t_interval,
    wrapped,
)
from offramp.report.results import Results
from offramp.report.style import (
    COLUMN,
    DOUBLE_COLUMN,
    PERCENT,
    STRATEGY_COLOURS,
    STRATEGY_DASHES,
    STRATEGY_MARKERS,
    UNANSWERED_COLOUR,
    exit_colours,
    paper_style,
)
from offramp.report.world_figures import (
    aud_by_group,
    energy_per_correct_answer,
    telemetry_over_time,
)
from sim.metrics import confidence_interval

#: Points of a latency curve: enough for a paper's column, few enough for a small CSV.
ECDF_POINTS = 400


FIGURE_SUFFIXES = (".pdf", ".png", ".csv")


def save_figure(figure: Figure, folder: Path, name: str) -> None:
    """Write a figure as PDF and PNG and its data as CSV, and close it."""
    for suffix in (".pdf", ".png"):
        metadata = {"CreationDate": None} if suffix == ".pdf" else None
        with whole_file(folder / f"{name}{suffix}") as partial:
            figure.drawing.savefig(partial, metadata=metadata)
    with whole_file(folder / f"{name}.csv") as partial:
        figure.data.to_csv(partial, index=False)
    plt.close(figure.drawing)


def write_figures(results: Results, folder: Path) -> dict[str, str]:
    """Write every figure as PDF, PNG and CSV into ``folder``; return captions by name."""
    folder.mkdir(parents=True, exist_ok=True)
    captions = {}
    with paper_style():
        for name, draw in FIGURES.items():
            figure = draw(results)
            if figure is None:
                for suffix in FIGURE_SUFFIXES:  # of a report on other results
                    (folder / f"{name}{suffix}").unlink(missing_ok=True)
                continue
            save_figure(figure, folder, name)
            captions[name] = figure.caption
    return captions


def aud_against_deadline(results: Results) -> Figure:
    """AUD against the deadline, by strategy, one panel per policy."""
    deadline_ms = common_deadline_ms(results)
    seeds, replications = results.training_seeds, results.replications
    unit = "training_seed" if seeds > 1 else "replication"
    by_unit = (
        results.sweep.groupby(["strategy", "policy", unit, "deadline_scale"], sort=False)["aud"]
        .mean()
        .reset_index()
    )
    if deadline_ms is None:
        x, label = "deadline_scale", "deadline, as a multiple of the scenario's"
    else:
        x, label = "deadline_ms", "deadline (ms)"
        by_unit[x] = by_unit["deadline_scale"] * deadline_ms
    figure, panels = _panels_per_policy(results)
    rows = []
    for policy, axes in zip(results.policies, panels, strict=True):
        of_policy = by_unit[by_unit["policy"] == policy]
        sns.lineplot(
            of_policy,
            x=x,
            y="aud",
            hue="strategy",
            style="strategy",
            hue_order=results.strategies,
            style_order=results.strategies,
            palette=STRATEGY_COLOURS,
            dashes=STRATEGY_DASHES,
            markers=STRATEGY_MARKERS,
            errorbar=t_interval,
            legend="auto" if axes is panels[0] else False,
            ax=axes,
        )
        axes.set(xlabel="", ylabel="")
        axes.set_xlim(left=0)
        axes.yaxis.set_major_formatter(PERCENT)
        for (strategy, at), group in of_policy.groupby(["strategy", x], sort=False):
            interval = confidence_interval(group["aud"].to_numpy())
            rows.append(
                {
                    "policy": policy,
                    "strategy": strategy,
                    x: at,
                    "aud": interval.mean,
                    "low": interval.low,
                    "high": interval.high,
                    "training_seeds": seeds,
                    "replications": replications,
                }
            )
    # Once all panels are drawn: they share the axis. No share passes 100 %, whatever its band.
    highest = np.nanmax([[row["aud"], row["high"]] for row in rows])
    panels[0].set_ylim(0, 1.04 * min(1.0, max(0.01, highest)))
    handles, labels = panels[0].get_legend_handles_labels()
    panels[0].legend().remove()
    figure.supxlabel(label)
    _label_left(panels, "accuracy under deadline")
    legend_above(figure, handles, labels)
    trained, repeated = counted(seeds, "training seed"), counted(replications, "replication")
    caption = "Accuracy under deadline against the deadline. "
    if seeds > 1:
        caption += (
            f"Bands: 95 % t intervals over {trained}, each the mean of {repeated} of "
            f"{_window(results)}"
        )
    elif replications > 1:
        caption += (
            f"Bands: 95 % t intervals over {repeated} of {_window(results)} with {trained}: they "
            "say nothing of another training"
        )
    else:
        caption += f"One training seed and one replication of {_window(results)}: no band"
    caption += "; all arms see the same requests."
    if results.is_live:
        caption += (
            " Measured live at the scenario's deadlines alone; curves are of policies that never "
            "look at deadlines, whose answers would have come at the same times."
        )
    return Figure(figure, pd.DataFrame(rows), caption)


def exits_accuracy_and_latency(results: Results) -> Figure:
    """Test accuracy of each exit by strategy, and the latency of reaching it."""
    profile = results.profile
    width = DOUBLE_COLUMN if profile else COLUMN
    figure, panels = plt.subplots(1, 2 if profile else 1, figsize=(width, 2.3), squeeze=False)
    axes = panels[0, 0]
    sns.pointplot(
        results.exit_accuracy,
        x="exit",
        y="accuracy",
        hue="strategy",
        hue_order=results.strategies,
        palette=STRATEGY_COLOURS,
        markers=[STRATEGY_MARKERS[strategy] for strategy in results.strategies],
        linestyles=["-" if strategy == "standard" else "--" for strategy in results.strategies],
        errorbar=t_interval,
        dodge=0.15 if len(results.strategies) > 1 else False,
        linewidth=1.2,
        err_kws={"linewidth": 1},
        ax=axes,
    )
    axes.set(xlabel="exit", ylabel="test accuracy")
    axes.legend(title=None, loc="lower right")
    axes.yaxis.set_major_formatter(PERCENT)
    rows = []
    for (strategy, exit), group in results.exit_accuracy.groupby(["strategy", "exit"], sort=False):
        interval = confidence_interval(group["accuracy"].to_numpy())
        rows.append(
            {
                "strategy": strategy,
                "exit": exit,
                "accuracy": interval.mean,
                "low": interval.low,
                "high": interval.high,
            }
        )
    data = pd.DataFrame(rows)
    caption = (
        "Test accuracy of each exit (95 % t intervals over "
        f"{results.training_seeds} training seeds)"
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
        quantiles = latency.quantile([0.05, 0.25, 0.5, 0.75, 0.95])
        for percent, values in zip((5, 25, 50, 75, 95), quantiles.to_numpy(), strict=True):
            data[f"latency_p{percent}_ms"] = data["exit"].map(
                dict(zip(latency.columns, values, strict=True))
            )
        caption += (
            f", and the measured latency of one inference to it: median, quartiles and 5th to 95th "
            f"percentile of {len(times)} inferences, {profile.about['host']['threads']} thread(s)"
        )
    return Figure(figure, data, caption + ".")


def exits_taken(results: Results) -> Figure | None:
    """Share of all offered requests answered at each exit, by strategy and policy."""
    if not results.has_records:
        return None
    last = int(results.exit_accuracy["exit"].max())
    shares = {
        (policy, strategy, exit): count / results.answers[strategy, policy].offered
        for policy in results.policies
        for strategy in results.strategies
        for exit, count in enumerate(results.answers[strategy, policy].exits.tolist())
        if count
    }
    colours = [UNANSWERED_COLOUR, *exit_colours(last)]
    arms = [(policy, strategy) for policy in results.policies for strategy in results.strategies]
    figure, axes = plt.subplots(figsize=(DOUBLE_COLUMN, 0.7 + 0.26 * len(arms)))
    lefts = np.zeros(len(arms))
    for exit in [*range(1, last + 1), 0]:
        widths = np.array([shares.get((*arm, exit), 0.0) for arm in arms])
        if exit == 0 and not widths.any():
            continue
        label = f"exit {exit}" if exit else "not answered"
        axes.barh(
            range(len(arms)), widths, left=lefts, color=colours[exit], label=label, height=0.7
        )
        for row, (left, width) in enumerate(zip(lefts, widths, strict=True)):
            if width >= 0.06:
                colour = "white" if exit > last / 2 else "black"
                axes.text(
                    left + width / 2,
                    row,
                    f"{width:.0%}",
                    ha="center",
                    va="center",
                    color=colour,
                    fontsize=6,
                )
        lefts += widths
    axes.set_yticks(range(len(arms)), [f"{policy}, {strategy}" for policy, strategy in arms])
    axes.invert_yaxis()
    axes.set(xlabel="share of offered requests", xlim=(0, 1))
    axes.xaxis.set_major_formatter(PERCENT)
    axes.grid(visible=False)
    legend_above(figure, *axes.get_legend_handles_labels())
    caption = (
        "Share of all offered requests that each exit answered, over "
        f"{counted(results.training_seeds, 'training seed')} and "
        f"{counted(results.replications, 'replication')}."
    )
    data = [(*arm, exit, share) for (*arm, exit), share in shares.items()]
    return Figure(
        figure, pd.DataFrame(data, columns=["policy", "strategy", "exit", "share"]), caption
    )


def latency_ecdf(results: Results) -> Figure | None:
    """Distribution of latency over offered requests, by strategy, one panel per policy."""
    if not results.has_records:
        return None
    deadline_ms = common_deadline_ms(results)
    figure, panels = _panels_per_policy(results)
    curves = []
    for policy, axes in zip(results.policies, panels, strict=True):
        longest = 0.0
        for strategy in results.strategies:
            arm = results.answers[strategy, policy]
            latency_ms = arm.latency_s * 1e3
            if not len(latency_ms):
                continue
            share = np.linspace(0, 1, ECDF_POINTS)
            points = np.quantile(latency_ms, share, method="inverted_cdf")
            longest = max(longest, float(np.quantile(latency_ms, 0.99)))
            curve = pd.DataFrame(
                {
                    "policy": policy,
                    "strategy": strategy,
                    "latency_ms": points,
                    "share": share * len(latency_ms) / arm.offered,
                }
            )
            curves.append(curve)
            axes.plot(
                curve["latency_ms"],
                curve["share"],
                color=STRATEGY_COLOURS[strategy],
                dashes=STRATEGY_DASHES[strategy] or (None, None),
                label=strategy,
            )
        axes.set_ylim(0, 1)
        axes.yaxis.set_major_formatter(PERCENT)
        if deadline_ms is not None:
            axes.axvline(deadline_ms, color="0.3", linewidth=0.8, linestyle=":")
            axes.annotate(
                "deadline",
                (deadline_ms, 0.02),
                xytext=(2, 0),
                textcoords="offset points",
                rotation=90,
                fontsize=6,
                color="0.3",
                va="bottom",
            )
        axes.set_xlim(0, 1.05 * max(longest, deadline_ms or 0.0) or 1.0)
    figure.supxlabel("latency (ms)")
    _label_left(panels, "share of offered requests")
    legend_above(figure, *panels[0].get_legend_handles_labels())
    caption = (
        "Latency from creation to answer, as the share of all offered requests answered by then; "
        "a curve that ends below 100 % leaves requests unanswered. Each axis ends past the 99th "
        f"percentile. {counted(results.training_seeds, 'training seed')}, "
        f"{counted(results.replications, 'replication')}."
    )
    if deadline_ms is None:
        caption += " Deadlines vary: none is drawn."
    return Figure(figure, pd.concat(curves) if curves else pd.DataFrame(), caption)


#: By name, in the order of the page; None where results have nothing to draw.
FIGURES: dict[str, Callable[[Results], Figure | None]] = {
    "aud_against_deadline": aud_against_deadline,
    "exits_accuracy_and_latency": exits_accuracy_and_latency,
    "exits_taken": exits_taken,
    "latency_ecdf": latency_ecdf,
    "aud_by_group": aud_by_group,
    "energy_per_correct_answer": energy_per_correct_answer,
    "telemetry_over_time": telemetry_over_time,
}


def _panels_per_policy(results: Results) -> tuple[MplFigure, list[Axes]]:
    """A figure with a panel, and its title, for each policy."""
    count = len(results.policies)
    width = COLUMN if count == 1 else DOUBLE_COLUMN
    columns = 2 if count == 4 else min(count, 3)
    rows = -(-count // columns)
    titles = [wrapped(policy, (width - 0.6) / columns - 0.15) for policy in results.policies]
    height = 2.2 + TITLE_LINE * max(title.count("\n") for title in titles)
    figure, panels = plt.subplots(
        rows, columns, figsize=(width, 0.2 + height * rows), sharey=True, squeeze=False
    )
    used = list(panels.flat)
    for axes in used[count:]:
        axes.set_visible(False)
    for axes, title in zip(used, titles, strict=False):
        axes.set_title(title)
    return figure, used[:count]


def _label_left(panels: list[Axes], label: str) -> None:
    """The label of the y axis, which panels share, once a row."""
    for axes in panels:
        place = axes.get_subplotspec()
        if place is not None and place.is_first_col():
            axes.set_ylabel(label)


def _window(results: Results) -> str:
    return f"{results.scenario['simulation']['duration_s']:g} s"
