"""Tables of the arms, of the nodes and of the network on a report's pages."""

from __future__ import annotations

from typing import Any

import pandas as pd

from offramp.report.live import live_table
from offramp.report.markdown import milliseconds, number, p_value, percent, points
from offramp.report.results import (
    Results,
    fault_counts,
    interval_over,
    repetitions_of,
)
from offramp.report.table import Table
from offramp.report.verdicts import alike, link_verdicts, node_verdicts
from offramp.report.world_tables import energy_table, fault_table, group_table, link_table
from offramp.words import counted

#: What shares are, and what their intervals are of.
POOLED = (
    "Shares are those of all requests together, and ± is of such a ratio: a repetition with more "
    "requests counts for more."
)

#: What an interval over trainings leaves out.
SAME_REQUESTS = (
    "All trainings meet the same requests: where a policy never looks at what a network says, the "
    "hit ratio's ± has no width, and says nothing of other requests."
)


def further_tables(results: Results, summary: pd.DataFrame) -> dict[str, Table]:
    """What is told besides the arms, by the titles of its sections, in order."""
    found = {
        "Nodes": node_table(node_verdicts(results)),
        "Links": link_table(results, link_verdicts(results)),
        "Groups of devices": group_table(results),
        "Energy": energy_table(results, summary),
        "Faults": fault_table(fault_counts(results)),
        "Live run": live_table(results) if results.is_live else None,
    }
    if results.profile:
        host = {name: fact for name, fact in results.profile.about["host"].items() if fact != ""}
        found["Exits"] = exit_table(results.profile.about["exits"])
        found["Host of the profile"] = Table(["", ""], [[k, str(v)] for k, v in host.items()])
    return {title: table for title, table in found.items() if table is not None}


def summary_table(results: Results, summary: pd.DataFrame) -> Table:
    """The figures of every arm."""
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
    note = (
        "AUD is correct and on-time requests over all requests offered. Intervals: 95 %, "
        f"Student's t, over {repetitions_of(results, 'aud')}. {pooled_note(results)}"
        "Latency percentiles (ms) are over answered requests of all repetitions together, from "
        f"creation to answer{_digest(results)}. "
        f"{counted(results.replications, 'replication')} of "
        f"{results.scenario['simulation']['duration_s']:g} s after "
        f"{results.scenario['simulation']['warm_up_s']:g} s of warm-up; {_same_for_all(results)}."
        + _fairness(results)
    )
    return Table(header, rows, note, names=2)


def difference_table(differences: pd.DataFrame) -> Table:
    """Paired differences between strategies, and between policies."""
    header = ["difference", "given", "AUD, points", "p", "paired over"]
    rows = [
        [
            f"{row.of} − {row.less}",
            row.given,
            points(row.aud_difference, row.half_width),
            p_value(row.p_holm),
            counted(row.n, row.over.removesuffix("s")),
        ]
        for row in differences.itertuples()
    ]
    return Table(
        header,
        rows,
        "Strategies differ over training seeds; policies differ over replications, given these "
        "checkpoints. Intervals are not corrected for the number of comparisons; p, of paired "
        "t-tests, is, by Holm's method: over all of strategies, and over all of policies.",
        names=2,
    )


def node_table(nodes: pd.DataFrame) -> Table:
    """What nodes were asked, and whether they kept up: strategies that did alike in one row.

    Args:
        nodes: of :func:`offramp.report.verdicts.node_verdicts`.
    """
    header = ["policy", "node", "strategies", "work per worker", "mean wait (ms)", "drain (ms)"]
    header.append("verdict")
    rows = [
        [
            row.policy,
            row.node,
            row.strategies,
            f"{row.work:.2f}",
            milliseconds(row.wait_mean_s),
            milliseconds(row.drain_s),
            row.verdict,
        ]
        for row in alike(nodes, ["policy", "node"]).itertuples()
    ]
    return Table(
        header,
        rows,
        "Each strategy is judged by itself; numbers are means over the runs of a row.",
        names=3,
    )


def exit_table(exits: list[dict[str, Any]]) -> Table:
    """What each exit of the network costs."""
    header = ["exit", "after", "parameters", "MFLOPs", "to resume after it (kB)"]
    rows = [
        [
            str(exit["exit"]),
            exit["node"] or "the whole backbone",
            f"{exit['parameters']:,}",
            f"{exit['flops'] / 1e6:.1f}",
            f"{exit['state_bytes'] / 1e3:.1f}",
        ]
        for exit in exits
    ]
    return Table(
        header,
        rows,
        "To answer one image at that exit alone; a multiply-accumulate counts as two FLOPs.",
    )


def pooled_note(results: Results) -> str:
    """See :data:`POOLED` and :data:`SAME_REQUESTS`; nothing where there is no interval."""
    if results.training_seeds < 2 and results.replications < 2:
        return ""
    seeds = interval_over("hit_ratio", results.training_seeds) == "training seeds"
    return f"{POOLED} {SAME_REQUESTS} " if seeds else f"{POOLED} "


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
