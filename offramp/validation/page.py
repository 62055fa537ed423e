"""The page of a validation, in Markdown, and its table."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from models.files import whole_file
from models.inference.quietness import NOT_QUIET, slowdown
from offramp.report.markdown import table
from offramp.report.offline_page import write_pages
from offramp.validation.calibration import Calibration, NodeSamples
from offramp.validation.comparison import POINTS, Comparison
from offramp.validation.figures import LATENCIES, TIME_PARTS
from offramp.validation.runs import ARM
from offramp.validation.time_parts import PARTS
from offramp.words import counted

PAGE, TABLE, TIMES = "validation.md", "validation.csv", "time_parts.csv"


@dataclass(frozen=True)
class Findings:
    """Everything that a page says.

    Attributes:
        parts: see :func:`offramp.validation.time_parts.time_parts`.
        links: ``measured`` or ``scenario``.
        around: whether each replication was simulated with calibrations of its time.
        command: that simulates what was compared.
        notes: what else a reader has to know.
    """

    comparison: Comparison
    calibration: Calibration
    parts: pd.DataFrame
    links: str
    around: bool
    command: str
    notes: tuple[str, ...] = ()


def write_findings(folder: Path, findings: Findings, captions: dict[str, str]) -> Path:
    """Write table and page.

    Args:
        captions: of the figures, which are there.

    Returns:
        The page.

    Raises:
        OSError: a file cannot be written.
    """
    for name, frame in ((TABLE, findings.comparison.table), (TIMES, findings.parts)):
        with whole_file(folder / name) as partial:
            frame.to_csv(partial, index=False)
    page = folder / PAGE
    write_pages(page, "a validation of the simulator", _sections(findings, captions))
    return page


def verdict_line(comparison: Comparison) -> str:
    """The verdict in one line, with the targets that are missed."""
    judged = comparison.judged
    if not len(judged):
        return "UNDECIDED: not one request was answered, and nothing can be judged"
    met = int((judged["met"] == "yes").sum())
    sure = sum(_beyond_doubt(row) for row in judged.to_dict(orient="records"))
    of = f"{met} of {len(judged)} targets met"
    known = comparison.live.records["replication"].nunique() > 1
    doubt = f", {sure} of them beyond doubt (95 %)" if known else " (one replication: no intervals)"
    return f"{comparison.verdict}: {of}{doubt if met else ''}"


def misses(comparison: Comparison) -> Iterator[str]:
    """Each target that is missed, in one line."""
    judged = comparison.judged
    for row in judged[judged["met"] == "no"].to_dict(orient="records"):
        yield (
            f"{row['strategy']}, {row['policy']}: {_name(row['metric'])} is off by {_error(row)}, "
            f"the target is {_target(row)}"
        )


def quietness_note(calibration: Calibration) -> str | None:
    """That the host was not quiet, if it was not, in one sentence."""
    times = slowdown(calibration.work_s)
    if times < NOT_QUIET:
        return None
    least, usual, most = (
        f"{1e3 * it:.1f}" for it in np.quantile(calibration.work_s, (0.05, 0.5, 0.95))
    )
    return (
        f"This host was not quiet when it was calibrated, and targets are for one that is: the "
        f"same work took {least} ms at the 5th percentile, {usual} in the median and {most} at the "
        f"95th, {times:.1f} times as long."
    )


def _beyond_doubt(row: dict[str, Any]) -> bool:
    if row["met"] != "yes" or math.isnan(row["error_half_width"]):
        return False
    return bool(abs(row["error"]) + row["error_half_width"] <= row["target"])


# --- sections ------------------------------------------------------------------------------------


def _sections(findings: Findings, captions: dict[str, str]) -> Iterator[str]:
    comparison = findings.comparison
    scenario = comparison.live.scenario
    yield f"# {scenario['name']}: simulated against live"
    yield f"**{verdict_line(comparison)}**"
    if missed := [*misses(comparison)]:
        yield "\n".join(f"- {line}" for line in missed)
    yield _what(findings)
    found = [quietness_note(findings.calibration), *comparison.doubts, *findings.notes]
    if doubts := [doubt for doubt in found if doubt]:
        yield "Read with care:\n\n" + "\n".join(f"- {doubt}" for doubt in doubts)
    for arm, rows in comparison.table.groupby(ARM, sort=False):
        yield f"## {arm[0]}, {arm[2]}, training seed {arm[1]}"
        yield _table(rows)
    yield (
        "Means over replications with 95 % intervals (Student's t). An error is simulated less "
        "live, paired by replication: of shares in percentage points, of the others relative to "
        "the live mean. Latencies are over answered requests, exits and exit_0 (nobody answered) "
        f"over all requests offered.{_draws(comparison)}"
    )
    for name, title in ((LATENCIES, "Latency"), (TIME_PARTS, "Where the time went")):
        yield f"## {title}\n\n![{title}](figures/{name}.png)\n\n{captions[name]}"
    yield _parts(findings.parts)
    yield _clocks(findings)
    yield "## Calibration\n\n" + _calibration(findings)


def _draws(comparison: Comparison) -> str:
    if comparison.draws == 1:
        return ""
    return (
        f" Each replication was simulated {comparison.draws} times with the same requests and "
        "other slow moments of the host: simulated values are the means (`draws.csv`), and "
        "figures show the first."
    )


def _what(findings: Findings) -> str:
    comparison = findings.comparison
    same = (
        f"The same {comparison.same_requests:,} requests in both worlds: device, creation, "
        "deadline, sample and label of each are equal to the last bit."
        if comparison.same_requests
        else "The same devices in both worlds."
    )
    return (
        f"{same} Live: real broker, inference and clients, over MQTT ([live](live/report.md)). "
        f"Simulated: the same scenario with what was calibrated ([simulated](simulated/report.md))."
        f"\n\n    {findings.command}"
    )


def _table(rows: pd.DataFrame) -> str:
    return table(
        ("metric", "live", "simulated", "error", "target", "met"),
        [shown(row) for row in rows.to_dict(orient="records")],
    )


def shown(row: dict[str, Any]) -> list[str]:
    """A row of a comparison for people: metric, live, simulated, error, target, met."""
    return [
        _name(row["metric"]),
        _value(row, "live"),
        _value(row, "simulated"),
        _error(row),
        _target(row) if row["met"] else "",
        row["met"],
    ]


_NAMES = {
    "aud": "accuracy under deadline",
    "hit_ratio": "deadline-hit ratio",
    "latency_p50_s": "p50 (ms)",
    "latency_p95_s": "p95 (ms)",
    "latency_p99_s": "p99 (ms)",
    "throughput_hz": "answers per second",
    "exit_0": "no answer",
}


def _name(metric: str) -> str:
    if metric in _NAMES:
        return _NAMES[metric]
    kind, _, of = metric.partition("_")
    return f"exit {of}" if kind == "exit" else f"utilisation of {of}"


def _value(row: dict[str, Any], world: str) -> str:
    mean, half = row[world], row[f"{world}_half_width"]
    if math.isnan(mean):
        return "-"
    factor, unit, digits = 1.0, "", 1
    if row["error_in"] == POINTS:
        factor, unit = 100.0, " %"
    elif row["metric"].startswith("latency"):
        factor, digits = 1e3, 2
    text = f"{factor * mean:.{digits}f}"
    return text + ("" if math.isnan(half) else f" ± {factor * half:.{digits}f}") + unit


def _error(row: dict[str, Any]) -> str:
    if math.isnan(row["error"]):
        return "unknown"
    unit, digits = ("points", 2) if row["error_in"] == POINTS else ("%", 1)
    half = row["error_half_width"]
    interval = "" if math.isnan(half) else f" ± {100 * half:.{digits}f}"
    return f"{100 * row['error']:+.{digits}f}{interval} {unit}"


def _target(row: dict[str, Any]) -> str:
    return f"{100 * row['target']:g} {'points' if row['error_in'] == POINTS else '%'}"


def _parts(parts: pd.DataFrame) -> str:
    rows = []
    for key, part in parts.groupby([*ARM, "world"], sort=False):
        seconds = part.set_index("part")["seconds"]
        ms = [f"{1e3 * float(seconds[name]):.3f}" for name in PARTS]
        rows.append([f"{key[0]}, {key[2]}", key[3], *ms, f"{1e3 * float(seconds.sum()):.3f}"])
    return table(("arm", "mean of answers (ms)", *PARTS, "sum"), rows)


def _clocks(findings: Findings) -> str:
    live = findings.comparison.live.manifest.get("live", {})
    rule = (
        "the network what broker and clients took not when they were calibrated"
        if findings.links == "scenario"
        else "broker and clients what the network does not, whose round trip was measured"
    )
    if live.get("same_clock"):
        clock = (
            "Devices and nodes ran on one machine, under one boot: both read its monotonic clock "
            "(CLOCK_MONOTONIC, which is one for all processes and is never set), so the arrival of "
            "a request at its node needs no estimate."
        )
    else:
        clock = (
            "Devices and nodes had clocks of their own. Queue and inference are durations on the "
            "node's, the whole latency on the device's; when a request arrived is estimated: the "
            "time that is left is taken to be halved between both ways, which is off by half the "
            "difference of the two at most, and moves time between uplink and downlink alone."
        )
    return (
        f"{clock} No broker tells when a message came: of a way, {rule}. The simulated side is "
        "divided by the same rule."
    )


def _calibration(findings: Findings) -> str:
    it = findings.calibration
    rows = [
        _spread("the same work, again and again", it.work_s),
        _spread("network, round trip of a TCP handshake", it.rtt_s),
        _spread("device, creation to sent", it.lag_s),
        _spread("way up, sent to arrived (warm)", it.up_s),
        _spread("way home, answer ready to heard (warm)", it.home_s),
    ]
    for name, samples in it.nodes.items():
        rows += [
            _spread(f"node {name}, arrival until a worker has it (idle)", samples.receive_s),
            _spread(f"node {name}, inference beyond the profile (busy)", samples.begin_s),
            _spread(
                f"node {name}, inference beyond the profile (idle, warm)", samples.begin_idle_s
            ),
            _spread(f"node {name}, reply until the next request (busy)", samples.reply_s),
            _spread(f"node {name}, way there beyond that (computing)", samples.ingress_busy_s),
            _spread(f"node {name}, way home beyond that (computing)", samples.egress_busy_s),
        ]
    broker = (
        "The broker is not ours: what it takes is in the ways."
        if math.isnan(it.broker_s)
        else f"The broker's process took {1e3 * it.broker_s:.3f} ms of a processor for a message."
    )
    rates = ", ".join(
        f"{node} {phase} {rates[node]:.0f}/s"
        for phase, rates in it.about["rate_hz"].items()
        for node in rates
    )
    asked = ", ".join(
        f"{node} {rate_hz:.0f}/s"
        for node, rate_hz in it.about.get("asked_hz", {}).items()
        if rate_hz is not None and node in it.about["rate_hz"].get("half busy", {})
    )
    at_rate = f", interpolated to the rate of the scenario ({asked})" if asked else ""
    times = it.about.get("calibrations", 1)
    again = (
        f", and {counted(times - 1, 'time')} more until after the last one "
        f"({it.about['measured_last_at']})"
        if times > 1
        else ""
    )
    if findings.around:
        again += "; each replication is simulated with those around it"
    rest = "".join(f" {_besides(node, samples)}" for node, samples in it.nodes.items())
    return (
        f"Measured at {it.about['measured_at']} on {it.about['host']} with requests of its own "
        f"({rates}{at_rate}) and the policy {it.about['policy']}, before the first arm{again}; "
        f"nothing of it comes from the run. Its samples are in `calibration/`. {broker}{rest}\n\n"
        + table(("what (ms)", "p5", "median", "p95", "mean", "samples"), rows)
    )


def _besides(node: str, samples: NodeSamples) -> str:
    """What of a node is no time of a single request."""
    delay, alike = samples.disturb_s, samples.autocorrelation
    text = (
        f"By how much a message that arrives at node {node} delays what it computes is not known"
        if delay is None
        else f"A message that arrived at node {node} delayed what it computed by "
        f"{1e3 * delay:.3f} ms"
    )
    if (cooling := samples.cooling) is None:
        text += "; that anything takes longer after a pause was not found"
    else:
        text += (
            f"; after a long pause an inference took longer by {1e3 * cooling.begin_s:.2f} ms, and "
            f"both ways by {1e3 * (cooling.read_s + cooling.answer_s):.2f} ms together (63 % of "
            f"that after {1e3 * cooling.time_s:.0f} ms; each inference leaves "
            f"{100 * cooling.kept:.0f} % of it)"
        )
    if alike is None:
        return f"{text}; that its service times are alike from one to the next was not found."
    return (
        f"{text}; its service times are drawn alike in time (correlation {alike.share:.2f} "
        f"at once, 1/e of that after {alike.time_s:.2g} s)."
    )


def _spread(name: str, seconds: np.ndarray) -> list[str]:
    quantiles = np.quantile(seconds, (0.05, 0.5, 0.95))
    figures = [*quantiles.tolist(), float(np.mean(seconds))]
    return [name, *(f"{1e3 * figure:.3f}" for figure in figures), str(len(seconds))]
