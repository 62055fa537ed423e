"""The page on runs that were compared, in Markdown, and its table for LaTeX."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from offramp.comparison.differences import GAIN
from offramp.comparison.runs import Compared
from offramp.report.figure import repetitions
from offramp.report.latex import Numbers, Text, table_environment
from offramp.report.markdown import milliseconds, percent, points, rendered
from offramp.report.offline_page import write_pages
from offramp.report.results import interval_over
from offramp.report.run_tables import POOLED, SAME_REQUESTS
from offramp.report.table import Table
from offramp.report.verdicts import not_judged, validity
from offramp.reproduction.statistics import MOVED, UNTESTED, WELCH
from offramp.words import counted

#: Further keys that differ are counted, not shown.
_MOST_KEYS = 40

_HEADS = {
    "aud": "AUD",
    GAIN: "gain in AUD",
    "hit_ratio": "hit ratio",
    "accuracy": "accuracy",
    "latency_p50_s": "p50 (ms)",
    "latency_p95_s": "p95 (ms)",
    "latency_p99_s": "p99 (ms)",
}


def write_page(
    compared: Compared,
    summaries: Sequence[pd.DataFrame],
    differences: pd.DataFrame,
    scenarios: pd.DataFrame,
    captions: dict[str, str],
    path: Path,
    figures: str,
    latex: str,
) -> None:
    """Write the page.

    Args:
        summaries: of each run; see :func:`offramp.report.results.summary`.
        differences: of :func:`offramp.comparison.differences.run_differences`.
        scenarios: of :func:`offramp.comparison.runs.scenario_differences`.
        figures: name of the folder of figures beside it.
        latex: the table of differences beside it.
    """
    first, *others = compared.labels
    parts = [f"# {', '.join(others)} against {first}", answer(compared, differences)]
    parts += ["## Runs", rendered(_runs_table(compared))]
    parts += ["## What differs between the scenarios", _scenario_part(scenarios)]
    parts += ["## Accuracy under deadline", rendered(_summary_table(compared, summaries))]
    if len(differences):
        parts += ["## Differences", rendered(_difference_table(compared, differences))]
        parts.append(f"The differences in AUD as [LaTeX]({latex}).")
    parts.append("## Figures")
    for name, caption in captions.items():
        parts.append(f"![{caption}]({figures}/{name}.png)")
        place = f"{figures}/{name}"
        parts.append(f"*{caption}* ([PDF]({place}.pdf), [data]({place}.csv), [LaTeX]({place}.tex))")
    write_pages(path, "a comparison of runs", parts)


def answer(compared: Compared, differences: pd.DataFrame) -> str:
    """One line for each run: its AUD against that of the first run."""
    of_aud = differences[differences["metric"] == "aud"]
    lines = [f"- {sentence}" for sentence in compared.invalid.values()]
    if not len(of_aud):
        lines.append(
            f"- No strategy and policy of {compared.labels[0]} is in another run too: there are "
            "figures side by side, and no differences."
        )
    for label, rows in of_aud.groupby("run", sort=False):
        known = rows[rows["difference"].notna()]
        if not len(known):
            text = (
                "no repetition is in both (training seeds or replications differ), so that no "
                "difference can be given"
            )
        else:
            text = f"{_extent(compared, known)}; {_counts(known, len(differences))}"
        lines.append(f"- **{label}** against {compared.labels[0]}: {text}.")
        gains = differences[(differences["metric"] == GAIN) & (differences["run"] == label)]
        gains = gains[gains["difference"].notna()]
        if len(gains):
            lines.append(
                f"- What strategies gain in **{label}**, less what they gain in "
                f"{compared.labels[0]}: {_extent(compared, gains)}; "
                f"{_counts(gains, len(differences))}."
            )
    return "\n".join(lines)


def _extent(compared: Compared, rows: pd.DataFrame) -> str:
    """The difference, or the smallest and the largest of several."""
    ends = rows.sort_values("difference").iloc[[0, -1] if len(rows) > 1 else [0]]
    said = []
    for row in ends.itertuples():
        arm = f"`{row.policy}`" + (f", {row.strategy}" if len(compared.strategies) > 1 else "")
        said.append(f"{points(row.difference, row.half_width)} ({arm})")
    return f"{' to '.join(said)} points of AUD (95 %, {how_tested(rows)})"


def how_tested(rows: pd.DataFrame) -> str:
    """The test of some differences of one run, and over how many repetitions."""
    test, unit = rows["test"].iloc[0], rows["over"].iloc[0].removesuffix("s")
    if test != WELCH:
        return f"{test} over {counted(int(rows['n'].min()), unit)}"
    freedom = sorted({f"{value:.1f}" for value in rows["freedom"].dropna()}, key=float)
    df = f", df {' to '.join(dict.fromkeys((freedom[0], freedom[-1])))}" if freedom else ""
    return f"{test}, n = {_range(rows['n_before'])} and {_range(rows['n_after'])} {unit}s{df}"


def _range(counts: pd.Series) -> str:
    low, high = int(counts.min()), int(counts.max())
    return f"{low}" if low == high else f"{low} to {high}"


def _counts(rows: pd.DataFrame, figures: int) -> str:
    """In how many arms it is more or less, beyond chance.

    Args:
        figures: that were compared in all, and corrected for.
    """
    moved = rows[rows["verdict"] == MOVED]
    more, less = int((moved["difference"] > 0).sum()), int((moved["difference"] < 0).sum())
    untested = int((rows["verdict"] == UNTESTED).sum())
    parts = [f"{count} {word}" for count, word in ((more, "more"), (less, "less")) if count]
    text = (
        f"of {counted(len(rows), 'arm')}, beyond chance: {', '.join(parts) or 'none'} (p < 0.05 "
        f"after Holm's correction over all {counted(figures, 'figure')} compared)"
    )
    return text + (f"; {untested} with too few repetitions to tell" if untested else "")


def difference_latex(compared: Compared, differences: pd.DataFrame) -> str:
    """Differences in AUD, as LaTeX; bold where they are beyond chance."""
    rows = differences[differences["metric"] == "aud"]
    columns: list[Text | Numbers] = [
        Text("run", list(rows["run"])),
        Text("policy", list(rows["policy"])),
        Text("strategy", [name.replace("_", " ") for name in rows["strategy"]]),
        Numbers(
            "AUD (points)",
            list(100 * rows["difference"]),
            2,
            list(100 * rows["half_width"]),
            [verdict == MOVED for verdict in rows["verdict"]],
            signed=True,
        ),
        Text("over", [_repetitions(row) for row in rows.itertuples()]),
    ]
    tests = "; ".join(
        f"{label}: {how_tested(of_run)}" for label, of_run in rows.groupby("run", sort=False)
    )
    bold = bool((rows["verdict"] == MOVED).any())
    caption = (
        f"Accuracy under deadline, in percentage points, less that of {compared.labels[0]}. "
        f"{'±: 95 % t intervals' if rows['half_width'].notna().any() else 'No intervals'} "
        f"({tests}). {'Bold' if bold else 'None is bold, that is'}: beyond chance, p < 0.05 after "
        f"Holm's correction over all {counted(len(differences), 'figure')} compared."
    )
    caption = " ".join([caption, *compared.invalid.values()])
    return table_environment("comparison", columns, caption)


# --- tables --------------------------------------------------------------------------------------


def _runs_table(compared: Compared) -> Table:
    rows = []
    for label, run in compared.named:
        verdict, reasons = validity(run)
        about = verdict + (f": {'; '.join(reasons)}" if reasons else "")
        about = ". ".join([about, *not_judged(run)])
        rows.append([label, f"`{run.folder}`", run.world, repetitions(run), about])
    return Table(["run", "folder", "world", "repetitions", "verdict"], rows)


def _scenario_part(scenarios: pd.DataFrame) -> str:
    if not len(scenarios):
        return "Nothing but their names."
    rows = [[f"`{row[0]}`", *row[1:]] for row in scenarios.head(_MOST_KEYS).to_numpy().tolist()]
    left = len(scenarios) - len(rows)
    note = f"And {counted(left, 'further key')}; see the manifests." if left else ""
    return rendered(Table(list(scenarios.columns), rows, note))


def _summary_table(compared: Compared, summaries: Sequence[pd.DataFrame]) -> Table:
    header = ["run", "strategy", "policy", "AUD", "hit ratio", "p50 / p95 / p99 (ms)"]
    rows, over = [], dict[str, None]()
    for (label, run), arms in zip(compared.named, summaries, strict=True):
        over[interval_over("aud", run.training_seeds)] = None
        rows += [
            [
                label,
                row.strategy,
                row.policy,
                percent(row.aud, row.aud_half_width),
                percent(row.hit_ratio, row.hit_ratio_half_width),
                milliseconds(row.latency_p50_s, row.latency_p95_s, row.latency_p99_s),
            ]
            for row in arms.itertuples()
        ]
    note = (
        f"Intervals: 95 %, Student's t, over {' or '.join(over)}. {POOLED} "
        + (f"{SAME_REQUESTS} " if "training seeds" in over else "")
        + "Percentiles are over answered requests of all repetitions together."
    )
    return Table(header, rows, note, names=3)


def _difference_table(compared: Compared, differences: pd.DataFrame) -> Table:
    rows = []
    for (run, strategy, policy), arm in differences.groupby(
        ["run", "strategy", "policy"], sort=False
    ):
        by_metric = {row.metric: row for row in arm.itertuples()}
        cells = [_difference(by_metric.get(metric)) for metric in _HEADS]
        aud = by_metric["aud"]
        n = f"{aud.n_before} / {aud.n_after}" if aud.test == WELCH else str(aud.n)
        rows.append([run, strategy, policy, *cells, n])
    header = ["run", "strategy", "policy", *_HEADS.values(), "n"]
    note = (
        f"Of each run, less {compared.labels[0]}; shares in percentage points. Intervals: 95 %, "
        f"not corrected. \\*: beyond chance, p < 0.05 after Holm's correction over all "
        f"{len(differences)} figures. Where two runs have the same networks, differences are over "
        "replications and say nothing of another training; where networks were trained anew, they "
        "are over training seeds. Runs that were asked the same are paired; where requests differ, "
        "Welch's t-test is of all replications of both. Gains in AUD are over the baseline "
        "strategy, with the same seed and requests; their differences are over training seeds, and "
        "over replications too where requests differ. All are of figures of single simulations, "
        "averaged, each of which counts once: where some had more requests than others, they are "
        "not those of the table above. n, of all but the gain: replications or training seeds, of "
        "both where they are not paired; the test of each run is said above."
    )
    return Table(header, rows, note, names=3)


def _repetitions(row: Any) -> str:
    if row.test == WELCH:
        return f"{row.n_before} and {row.n_after} {row.over}, unpaired"
    return counted(row.n, row.over.removesuffix("s"))


def _difference(row: Any | None) -> str:
    if row is None or math.isnan(row.difference):
        return "-"
    scale = 1e3 if row.metric.startswith("latency_") else 100
    half = "" if math.isnan(row.half_width) else f" ± {scale * row.half_width:.2f}"
    mark = " \\*" if row.verdict == MOVED else ""
    return f"{scale * row.difference:+.2f}{half}{mark}"
