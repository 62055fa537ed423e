"""What a run prints in a terminal: what is asked of its world before, and how it ended."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from rich.table import Table

from offramp.console import Console
from offramp.report.markdown import load_share, milliseconds, percent, points

if TYPE_CHECKING:
    from offramp.report.build import Report
    from sim.results.link_loads import LinkLoad
    from sim.results.verdict import OfferedLoad


def show_report(report: Report, console: Console) -> None:
    """Print the table that ends a run, the verdict, and where the report is."""
    table = Table("strategy", "policy", "AUD ± 95 % CI", "deadline-hit ratio", "p50/p95/p99 (ms)")
    for row in report.summary.itertuples():
        table.add_row(
            str(row.strategy),
            str(row.policy),
            percent(row.aud, row.aud_half_width),
            percent(row.hit_ratio),
            milliseconds(row.latency_p50_s, row.latency_p95_s, row.latency_p99_s),
        )
    console.table(table)
    for row in report.differences[report.differences["over"] == "training seeds"].itertuples():
        gain = points(row.aud_difference, row.half_width)
        console.result(f"{row.of} − {row.less}, {row.given}: {gain} points of AUD")
    if report.oracle is not None:
        for row in report.summary[report.summary["policy"] != report.oracle].itertuples():
            share = percent(row.oracle_share, row.oracle_share_half_width)
            note = ", which is greedy: no strict bound" if row.oracle_share > 1 else ""
            console.result(
                f"{row.strategy}, {row.policy}: {share} of the AUD of {report.oracle}{note}"
            )
    for row in report.links[report.links["verdict"] != "STABLE"].itertuples():
        arms = f"{row.policy}, {row.strategies}"
        console.result(f"link {row.link}, {row.direction}, {arms}: {row.verdict}")
    for row in report.nodes[report.nodes["verdict"] != "STABLE"].itertuples():
        console.result(f"node {row.node}, {row.policy}, {row.strategies}: {row.verdict}")
    console.result(report.verdict + "".join(f"\n  {reason}" for reason in report.reasons))
    for sentence in report.not_judged:
        console.result(sentence)
    console.result(f"report: {report.page}")


def show_load(nodes: list[OfferedLoad], links: list[LinkLoad], say: Callable[[str], None]) -> None:
    """Say what every node and link is asked, before a run."""
    for node in nodes:
        shares = ", ".join(f"{share:.2f} at exit {exit}" for exit, share in enumerate(node.load, 1))
        if node.stepwise[-1] - node.load[-1] >= 0.005:
            shares += f" ({node.stepwise[-1]:.2f} for policies that go there exit by exit)"
        say(
            f"offered load  node {node.node}: {node.rate_hz:g} requests/s on {node.workers} "
            f"worker(s); work per worker {shares}{_besides(node)}"
        )
        if node.load[0] >= 1:
            say(f"  node {node.node} cannot keep up even at its first exit")
    for link in links:
        # A device's own link says nothing new unless it is too slow for that device.
        if link.shared_by > 1 or link.load >= 1:
            say(
                f"offered load  link {link.link}, {link.direction}: {load_share(link.load)} of "
                f"what it can carry, shared by {link.shared_by} device(s)"
            )
        if link.load >= 1:
            say(f"  link {link.link} cannot carry it: its {link.direction} queue grows")


def _besides(node: OfferedLoad) -> str:
    """What a node is asked besides, of which nobody knows before a run how much it is."""
    parts = []
    if node.sent_on_hz:
        parts.append(f"at most {node.sent_on_hz:g} requests/s that others send on")
    if node.looping:
        parts.append(f"{node.looping} device(s) in closed loops")
    return "; besides, " + " and ".join(parts) if parts else ""
