"""The report page, in Markdown: the answer, the table, the figures and how they were made."""

from __future__ import annotations

import io
import math
from pathlib import Path

import pandas as pd
from ruamel.yaml import YAML

from models.files import write_text
from offramp.report.results import Results, interval_over, node_verdicts, validity
from offramp.stages.layout import DIFFERENCES, FIGURES, RECORDS, REPORT, SUMMARY_CSV


def percent(value: float, half_width: float | None = None) -> str:
    """A share in per cent, with the half width of its interval if there is one."""
    if math.isnan(value):
        return "-"
    if half_width is None:
        return f"{100 * value:.1f} %"
    if math.isnan(half_width):
        return f"{100 * value:.1f} % (no interval)"
    return f"{100 * value:.1f} ± {100 * half_width:.1f} %"


def points(value: float, half_width: float) -> str:
    """A difference of shares in percentage points, with the half width of its interval."""
    interval = "(no interval)" if math.isnan(half_width) else f"± {100 * half_width:.2f}"
    return f"{100 * value:+.2f} {interval}"


def milliseconds(*seconds: float) -> str:
    """Durations in ms, parted by slashes."""
    return " / ".join("-" if math.isnan(one) else f"{1e3 * one:.1f}" for one in seconds)


def write_page(
    results: Results,
    summary: pd.DataFrame,
    differences: pd.DataFrame,
    captions: dict[str, str],
    folder: Path,
) -> Path:
    """Write the page into ``folder``, beside the figures, and return its path."""
    scenario = results.scenario
    verdict, reasons = validity(results)
    parts = [f"# {scenario['name']}", scenario["description"]]
    parts += [answer(results, differences), _verdict_lines(verdict, reasons)]
    parts += ["## Accuracy under deadline", _summary_table(summary)]
    parts.append(
        "AUD is correct and on-time requests over all requests offered. Intervals: 95 %, "
        f"Student's t, of AUD and accuracy over {_units(results, 'aud')}, of the hit ratio over "
        f"{_units(results, 'hit_ratio')}. Latency percentiles (ms) are "
        f"over answered requests, from creation to answer. {results.replications} replications of "
        f"{scenario['simulation']['duration_s']:g} s after "
        f"{scenario['simulation']['warm_up_s']:g} s of warm-up; all arms see the same requests, "
        "links and samples."
    )
    if len(differences):
        parts += ["## Differences", _difference_table(differences)]
    parts.append("## Figures")
    for name, caption in captions.items():
        parts.append(f"![{caption}]({FIGURES}/{name}.png)")
        parts.append(f"*{caption}* ([PDF]({FIGURES}/{name}.pdf), [data]({FIGURES}/{name}.csv))")
    parts += ["## Nodes", _node_table(node_verdicts(results))]
    if results.profile:
        host = results.profile.about["host"]
        parts += [
            "## Host of the profile",
            _table(["", ""], [[k, str(v)] for k, v in host.items()]),
        ]
    parts += ["## Scenario", "```yaml\n" + _yaml(scenario) + "```"]
    parts.append(f"Data: `{RECORDS}` (one row per request), `{SUMMARY_CSV}`, `{DIFFERENCES}`.")
    path = folder / REPORT
    write_text(path, "\n\n".join(part for part in parts if part) + "\n")
    return path


def _units(results: Results, metric: str) -> str:
    over = interval_over(metric, results.training_seeds)
    if over == "training seeds":
        return f"{results.training_seeds} training seeds"
    return f"{results.replications} replications" + (
        " of one training" if results.training_seeds < 2 else ""
    )


def answer(results: Results, differences: pd.DataFrame) -> str:
    """In one sentence per policy: does another strategy gain over the baseline?"""
    sentences = []
    for row in differences[differences["over"] == "training seeds"].itertuples():
        gain = points(row.aud_difference, row.half_width)
        if math.isnan(row.half_width):
            verdict = "with one training seed, that says nothing of another training"
        elif abs(row.aud_difference) <= row.half_width:
            verdict = "the interval includes zero: no difference shown"
        else:
            verdict = "more" if row.aud_difference > 0 else "less"
            verdict = f"{verdict} accuracy under deadline than {row.less}"
        sentences.append(
            f"Under `{row.given}`, **{row.of}** against {row.less}: {gain} points of AUD "
            f"(95 %, paired over {row.n} training seeds); {verdict}."
        )
    training = results.scenario["training"]
    if sentences and "curriculum" in results.strategies and not training["checkpoints"]:
        extra = training["scoring"]["folds"] * training["scoring"]["steps"]
        sentences.append(
            f"Scoring the difficulty took {extra} optimiser steps for each seed on top of the "
            f"{training['steps']} that every strategy gets. Intervals are not corrected for the "
            f"{len(sentences)} comparisons."
        )
    return "\n".join(f"- {sentence}" for sentence in sentences)


def _verdict_lines(verdict: str, reasons: list[str]) -> str:
    if not reasons:
        return f"Verdict: **{verdict}**."
    return f"Verdict: **{verdict}**.\n\n" + "\n".join(f"- {reason}" for reason in reasons)


def _summary_table(summary: pd.DataFrame) -> str:
    header = [
        "strategy",
        "policy",
        "AUD",
        "hit ratio",
        "accuracy of answers",
        "p50 / p95 / p99 (ms)",
    ]
    header += ["late", "dropped", "lost"]
    rows = [
        [
            row.strategy,
            row.policy,
            percent(row.aud, row.aud_half_width),
            percent(row.hit_ratio, row.hit_ratio_half_width),
            percent(row.accuracy, row.accuracy_half_width),
            milliseconds(row.latency_p50_s, row.latency_p95_s, row.latency_p99_s),
            percent(row.late),
            percent(row.dropped),
            percent(row.lost),
        ]
        for row in summary.itertuples()
    ]
    return _table(header, rows)


def _difference_table(differences: pd.DataFrame) -> str:
    header = ["difference", "given", "AUD, points", "paired over"]
    rows = [
        [
            f"{row.of} − {row.less}",
            row.given,
            points(row.aud_difference, row.half_width),
            f"{row.n} {row.over}",
        ]
        for row in differences.itertuples()
    ]
    return _table(header, rows) + (
        "\n\nStrategies differ over training seeds; policies differ over replications, given these "
        "checkpoints."
    )


def _node_table(nodes: pd.DataFrame) -> str:
    header = ["policy", "node", "work per worker", "mean wait (ms)", "drain (ms)", "verdict"]
    rows = [
        [
            row.policy,
            row.node,
            f"{row.work:.2f}",
            milliseconds(row.wait_mean_s),
            milliseconds(row.drain_s),
            row.verdict,
        ]
        for row in nodes.itertuples()
    ]
    return _table(header, rows)


def _table(header: list[str], rows: list[list[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _yaml(scenario: dict[str, object]) -> str:
    stream = io.StringIO()
    yaml = YAML()
    yaml.default_flow_style = None
    yaml.dump(scenario, stream)
    return stream.getvalue()
