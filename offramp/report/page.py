"""The report page, in Markdown: the answer, the table, the figures and how they were made."""

from __future__ import annotations

import io
import math
from pathlib import Path
from typing import Any

import pandas as pd
from ruamel.yaml import YAML

from models.files import write_text
from offramp.report.figure import counted
from offramp.report.live import live_table, live_warnings
from offramp.report.markdown import milliseconds, number, percent, points, table
from offramp.report.results import (
    Results,
    fault_counts,
    interval_over,
    link_verdicts,
    node_verdicts,
    validity,
)
from offramp.report.world_tables import (
    energy_table,
    fault_table,
    further_files,
    group_table,
    link_table,
    oracle_lines,
)
from offramp.stages.layout import DIFFERENCES, FIGURES, RECORDS, REPORT, SUMMARY_CSV


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
    parts += [answer(results, differences), oracle_lines(results, summary)]
    parts.append(_verdict_lines(verdict, reasons))
    if results.is_live:
        parts.append(live_warnings(results))
    parts += ["## Accuracy under deadline", _summary_table(summary)]
    parts.append(
        "AUD is correct and on-time requests over all requests offered. Intervals: 95 %, "
        f"Student's t, of AUD and accuracy over {_units(results, 'aud')}, of the hit ratio over "
        f"{_units(results, 'hit_ratio')}. Latency percentiles (ms) are "
        f"over answered requests, from creation to answer{_digest(results)}. "
        f"{counted(results.replications, 'replication')} of "
        f"{scenario['simulation']['duration_s']:g} s after "
        f"{scenario['simulation']['warm_up_s']:g} s of warm-up; {_same_for_all(results)}."
        + _fairness(results)
    )
    if len(differences):
        parts += ["## Differences", _difference_table(differences)]
    parts.append("## Figures")
    for name, caption in captions.items():
        parts.append(f"![{caption}]({FIGURES}/{name}.png)")
        parts.append(f"*{caption}* ([PDF]({FIGURES}/{name}.pdf), [data]({FIGURES}/{name}.csv))")
    parts += ["## Nodes", _node_table(node_verdicts(results))]
    for title, text in (
        ("Links", link_table(results, link_verdicts(results))),
        ("Groups of devices", group_table(results)),
        ("Energy", energy_table(results, summary)),
        ("Faults", fault_table(fault_counts(results))),
    ):
        if text:
            parts += [f"## {title}", text]
    if results.is_live:
        parts += ["## Live run", live_table(results)]
    if results.profile:
        parts += ["## Exits", _exit_table(results.profile.about["exits"])]
        host = results.profile.about["host"]
        parts += [
            "## Host of the profile",
            table(["", ""], [[k, str(v)] for k, v in host.items()]),
        ]
    parts += ["## Scenario", "```yaml\n" + _yaml(scenario) + "```"]
    parts.append(_data_line(results))
    path = folder / REPORT
    write_text(path, "\n\n".join(part for part in parts if part) + "\n")
    return path


def _same_for_all(results: Results) -> str:
    if results.is_live:
        return (
            "measured in real time over MQTT, one arm after the other, all with the same requests "
            "and samples"
        )
    return "all arms see the same requests, links and samples"


def _digest(results: Results) -> str:
    if results.has_records:
        return ""
    return (
        ", and come from a t-digest (`simulation.records: summary`): off by at most 0.1 % of the "
        "requests in rank"
    )


def _fairness(results: Results) -> str:
    if "jain_aud" not in results.runs:
        return ""
    return (
        " Fairness is Jain's index of AUD over devices: 1 if all fare alike, 1/n if one of n has "
        "everything; mean over replications."
    )


def _data_line(results: Results) -> str:
    files = [f"`{name}`" for name in (SUMMARY_CSV, DIFFERENCES)] + further_files(results)
    if results.has_records:
        return f"Data: `{RECORDS}` (one row per request), {', '.join(files)}."
    return (
        f"Data: {', '.join(files)}. No record per request was kept (`simulation.records: "
        "summary`), so there is no figure of the exits taken or of the distribution of latencies."
    )


def _units(results: Results, metric: str) -> str:
    over = interval_over(metric, results.training_seeds)
    if over == "training seeds":
        return f"{results.training_seeds} training seeds"
    return counted(results.replications, "replication") + (
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
            f"(95 %, paired over {counted(row.n, 'training seed')}); {verdict}."
        )
    training = results.scenario["training"]
    if sentences and "curriculum" in results.strategies and not training["checkpoints"]:
        sentences.append(
            f"{_scoring_cost(training)} Intervals are not corrected for the {len(sentences)} "
            "comparisons."
        )
    return "\n".join(f"- {sentence}" for sentence in sentences)


def _scoring_cost(training: dict[str, Any]) -> str:
    scoring = training["scoring"]
    networks = {"self_taught": scoring["folds"], "early_checkpoint": 1}.get(scoring["function"], 0)
    if not networks:
        return f"Difficulty was scored by {scoring['function']}, without optimiser steps."
    return (
        f"Scoring the difficulty took {networks * (scoring['steps'] or training['steps'])} "
        f"optimiser steps for each seed on top of the {training['steps']} that every strategy gets."
    )


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
    fairness = "jain_aud" in summary
    header += ["fairness"] if fairness else []
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
            *([number(row.jain_aud)] if fairness else []),
        ]
        for row in summary.itertuples()
    ]
    return table(header, rows)


def _difference_table(differences: pd.DataFrame) -> str:
    header = ["difference", "given", "AUD, points", "paired over"]
    rows = [
        [
            f"{row.of} − {row.less}",
            row.given,
            points(row.aud_difference, row.half_width),
            counted(row.n, row.over.removesuffix("s")),
        ]
        for row in differences.itertuples()
    ]
    return table(header, rows) + (
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
    return table(header, rows)


def _exit_table(exits: list[dict[str, Any]]) -> str:
    header = ["exit", "after", "parameters", "MFLOPs", "to resume after it (kB)"]
    rows = [
        [
            str(exit["exit"]),
            exit["node"] or "the backbone's own classifier",
            f"{exit['parameters']:,}",
            f"{exit['flops'] / 1e6:.1f}",
            f"{exit['state_bytes'] / 1e3:.1f}",
        ]
        for exit in exits
    ]
    return table(header, rows) + (
        "\n\nTo answer one image at that exit alone; a multiply-accumulate counts as two FLOPs."
    )


def _yaml(scenario: dict[str, object]) -> str:
    stream = io.StringIO()
    yaml = YAML()
    yaml.default_flow_style = None
    yaml.dump(scenario, stream)
    return stream.getvalue()
