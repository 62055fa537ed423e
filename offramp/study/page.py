"""The page of a study, in Markdown: what was run, what came out, and how sure that is."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from models.files import whole_file, write_text
from offramp.report.markdown import percent, points, table
from offramp.report.paired import SIGNIFICANCE
from offramp.study.panels import value_text
from offramp.study.statistics import (
    IDENTICAL,
    check_table,
    configurations,
    verdict_counts,
)
from offramp.words import counted

REPORT = "report.md"
GAINS_OVER_STANDARD = "gains_over_standard.csv"
GAINS_OVER_RANDOM = "gains_over_random_order.csv"

#: What each measure is, as a heading and in a sentence.
MEASURES = {
    "test_accuracy": (
        "Test accuracy",
        "Accuracy on the test set after the last optimiser step.",
    ),
    "validation_accuracy": (
        "Validation accuracy",
        "Accuracy on the validation split after the last optimiser step.",
    ),
    "curve_area": (
        "Area under the learning curve",
        "Mean accuracy on the validation split over the training budget: how good the exit is "
        "along the way.",
    ),
}


def write_page(
    folder: Path,
    *,
    name: str,
    description: str,
    command: str,
    axes: Sequence[str],
    accuracy: pd.DataFrame,
    gains_over_standard: pd.DataFrame,
    gains_over_random: pd.DataFrame | None = None,
    captions: Mapping[str, str] | None = None,
    figures: str = "figures",
    notes: Sequence[str] = (),
) -> Path:
    """Write ``report.md`` and, as CSV, the gains that it shows; return the page's path.

    Args:
        command: regenerates the study.
        axes: columns that tell configurations apart.
        accuracy: the study's table; see :func:`offramp.study.statistics.paired_gains`.
        gains_over_standard: every strategy's gains over ``standard``.
        gains_over_random: gains over ``random_curriculum``, best of the ranked strategies only:
            others would make the family of comparisons larger. None if it was not trained.
        captions: of the figures, by name; see :func:`offramp.study.figures.write_figures`.
        figures: folder of the figures, relative to ``folder``.
        notes: more that a reader must know, such as the cost of scoring; a paragraph each.

    Raises:
        ResultsError: ``accuracy`` lacks columns or has a row twice.
        OSError: the folder cannot be written to.
    """
    check_table(accuracy, [*axes, "strategy", "seed", "exit"], [])
    comparisons = [(gains_over_standard, GAINS_OVER_STANDARD)]
    if gains_over_random is not None:
        comparisons.append((gains_over_random, GAINS_OVER_RANDOM))
    for gains, file in comparisons:
        with whole_file(folder / file) as partial:
            gains.to_csv(partial, index=False)
    parts = [f"# {name}", description, "## What came out", answer(gains_over_standard)]
    if len(list(configurations(accuracy, axes))) > 1:
        parts += ["By exit, pooled over the configurations:", count_table(gains_over_standard)]
    if gains_over_random is None:
        parts.append(
            "No strategy with a random order was trained: a gain may come from the pacing alone."
        )
    else:
        parts += [_control(gains_over_random), answer(gains_over_random)]
    parts += ["## What was run", _what_was_run(axes, accuracy), *notes, "Run it again with"]
    parts.append(f"```sh\n{command}\n```")
    parts += ["## How to read the tables", _reading(gains_over_standard, gains_over_random)]
    for gains, file in comparisons:
        for measure, of_measure in gains.groupby("measure", sort=False):
            baseline = of_measure["baseline"].iloc[0]
            parts.append(f"## {_heading(str(measure))}: gain over {baseline}")
            parts.append(MEASURES.get(str(measure), ("", ""))[1])
            parts += [gain_table(of_measure, axes), f"Data: [{file}]({file})."]
    if captions:
        parts.append("## Figures")
        for figure, caption in captions.items():
            place = f"{figures}/{figure}"
            parts.append(f"![{caption}]({place}.png)")
            parts.append(f"*{caption}* ([PDF]({place}.pdf), [data]({place}.csv))")
    path = folder / REPORT
    write_text(path, "\n\n".join(part for part in parts if part) + "\n")
    return path


def answer(gains: pd.DataFrame) -> str:
    """A sentence for each strategy and measure, from the numbers alone: how often which won."""
    sentences = []
    for row in verdict_counts(gains, ("measure", "strategy", "baseline")).itertuples():
        of_arm = (gains["measure"] == row.measure) & (gains["strategy"] == row.strategy)
        arms = gains[of_arm & (gains["baseline"] == row.baseline)]
        sentences.append(f"- {_subject(row)} {_outcome(row)}. {_size(row, arms)}")
    return "\n".join(sentences) or "There was nothing to compare."


def count_table(gains: pd.DataFrame) -> str:
    """How many comparisons came out how, by measure, strategy and exit."""
    header = ["measure", "strategy", "exit", "comparisons", "better", "worse"]
    header += ["no difference shown", "identical", "mean gain, points"]
    counts = verdict_counts(gains)
    rows = [
        [
            _heading(row.measure).lower(),
            row.strategy,
            str(row.exit),
            str(row.comparisons),
            str(row.better),
            str(row.worse),
            str(row.undecided),
            str(row.identical),
            "-" if math.isnan(row.mean_gain_points) else f"{row.mean_gain_points:+.2f}",
        ]
        for row in counts.itertuples()
    ]
    return table(header, rows)


def gain_table(gains: pd.DataFrame, axes: Sequence[str]) -> str:
    """The gains of one measure: a row per configuration, exit and strategy.

    The mean and the half width of its 95 % interval are in percentage points.
    """
    baseline = gains["baseline"].iloc[0] if len(gains) else "baseline"
    header = [*axes, "exit", "strategy", "seeds", f"{baseline} mean", "strategy mean"]
    header += ["gain, points", "p (Holm)", "verdict"]
    rows = []
    for values, of_configuration in configurations(gains, axes):
        for row in of_configuration.itertuples():
            left_out = f" ({row.left_out} left out)" if row.left_out else ""
            rows.append(
                [
                    *(value_text(value) for value in values),
                    str(row.exit),
                    row.strategy,
                    f"{row.n}{left_out}",
                    percent(row.baseline_mean),
                    percent(row.strategy_mean),
                    _gain(row.gain_points, row.half_width_points),
                    _p(row.p_holm),
                    row.verdict,
                ]
            )
    return table(header, rows)


def _subject(row: Any) -> str:
    return f"{_heading(row.measure)}: **{row.strategy}** against {row.baseline}:"


def _heading(measure: str) -> str:
    return MEASURES.get(measure, (measure, ""))[0]


def _outcome(row: Any) -> str:
    parts = [
        f"better in {row.better} of {counted(row.comparisons, 'comparison')}",
        f"worse in {row.worse}",
        f"no difference shown in {row.undecided}",
    ]
    if row.identical:
        parts.append(f"identical in {row.identical}")
    return ", ".join(parts)


def _size(row: Any, arms: pd.DataFrame) -> str:
    """Which way the gains lean, and how small a difference could have been shown."""
    if not (arms["n"] >= 2).any():
        return "With fewer than two common training seeds, nothing was tested."
    tested = arms[arms["verdict"] != IDENTICAL]
    if tested.empty:
        return "There was nothing to test."
    # Where the numbers are identical by construction, there is no uncertainty to speak of.
    text = (
        f"Mean gain {row.mean_gain_points:+.2f} points; before correction, the 95 % interval lies "
        f"above zero in {row.interval_above} and below zero in {row.interval_below}"
    )
    half_width = float(tested["half_width_points"].median())
    if not math.isnan(half_width):
        text += f"; its median half width is {half_width:.2f} points"
    return f"{text}."


def _control(gains: pd.DataFrame) -> str:
    baseline = gains["baseline"].iloc[0] if len(gains) else "random_curriculum"
    return (
        f"Against the control: `{baseline}` shows as many samples at each step as the ranked "
        "strategies do, in a random order. What differs between them is due to the ranking alone; "
        "a gain over standard that is not there over the control cannot be credited to it."
    )


def _what_was_run(axes: Sequence[str], accuracy: pd.DataFrame) -> str:
    found = accuracy[[*axes, "strategy", "seed"]].drop_duplicates()
    settings = len(list(configurations(accuracy, axes)))
    strategies = list(accuracy["strategy"].unique())
    seeds = sorted(accuracy["seed"].unique())
    lines = [f"- {axis}: {_listed(accuracy[axis].drop_duplicates())}" for axis in axes]
    lines += [f"- strategies: {_listed(strategies)}", f"- training seeds: {_listed(seeds)}"]
    expected = settings * len(strategies) * len(seeds)
    total = (
        f"{counted(settings, 'configuration')} × {len(strategies)} strategies × "
        f"{counted(len(seeds), 'training seed')}: "
    )
    if len(found) == expected:
        total += f"{counted(expected, 'training')}."
    else:
        total += f"{len(found)} of {expected} trainings (missing: {expected - len(found)})."
    return "\n".join(lines) + f"\n\n{total}"


def _reading(over_standard: pd.DataFrame, over_random: pd.DataFrame | None) -> str:
    families = []
    for gains in (over_standard, over_random):
        if gains is None:
            continue
        for (baseline, measure), group in gains.groupby(["baseline", "measure"], sort=False):
            families.append(f"{group['p'].notna().sum()} ({measure}, over {baseline})")
    return (
        "A comparison is one strategy against one other, at one exit of one configuration. For a "
        "seed, both start from the same weights and take the same number of optimiser steps, so "
        "gains are paired by training seed. A gain is the mean of strategy minus baseline in "
        "percentage points ± the half width of its 95 % interval (paired, Student's t), which is "
        "not corrected for the number of comparisons. p is that of the paired t-test, two-sided, "
        "after Holm's correction over all tested comparisons of one measure with one baseline: "
        f"{', '.join(families) or 'none'}. The verdict is *better* or *worse* where that p is "
        f"below {SIGNIFICANCE:g}, else *no difference shown*, which does not mean that there is "
        "none. *Identical*: the same number at every seed, as at an exit that no strategy trains."
    )


def _gain(gain: float, half_width: float) -> str:
    return "-" if math.isnan(gain) else points(gain / 100, half_width / 100)


def _p(value: float) -> str:
    if math.isnan(value):
        return "-"
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def _listed(values: Any) -> str:
    return ", ".join(value_text(value) for value in values)
