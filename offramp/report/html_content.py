"""What report.html says, before it is HTML: everything as text, numbers and pictures."""

from __future__ import annotations

import math
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from offramp.report.answer import Answer, answer
from offramp.report.html_text import Drawing, drawing
from offramp.report.markdown import percent
from offramp.report.notices import notices
from offramp.report.page import scenario_yaml
from offramp.report.results import Results
from offramp.report.run_tables import difference_table, further_tables, summary_table
from offramp.report.table import Table
from offramp.report.verdicts import validity
from offramp.report.world_tables import oracle_lines
from offramp.stages.layout import (
    DIFFERENCES,
    EXIT_ACCURACY,
    FIGURES,
    GROUPS,
    LINKS,
    MANIFEST,
    NODES,
    RECORDS,
    REPORT,
    RUNS,
    SUMMARY_CSV,
    SUMMARY_JSON,
)

#: What may lie beside the page, and what it is.
_FILES = {
    SUMMARY_CSV: "the table of arms",
    DIFFERENCES: "paired differences",
    SUMMARY_JSON: "both, and the verdict, for programs",
    RUNS: "every run",
    NODES: "every node in every run",
    LINKS: "every link in every run",
    GROUPS: "every group of devices in every run",
    EXIT_ACCURACY: "test accuracy of each exit",
    RECORDS: "one row per request",
    MANIFEST: "scenario, seeds, versions, hashes of all inputs",
    REPORT: "this report in Markdown",
}


@dataclass(frozen=True)
class Mark:
    """A number with its interval, drawn on a scale from 0 to 100; missing where it is not known."""

    at: float | None
    low: float | None
    high: float | None


@dataclass(frozen=True)
class Share:
    """Part of all requests offered, in per cent: where its bar begins, and how long it is."""

    outcome: str
    begin: float
    length: float


@dataclass(frozen=True)
class Arm:
    """What became of the requests of one strategy under one policy.

    Attributes:
        aud: with its interval, as text.
        told: the bar in words.
    """

    strategy: str
    policy: str
    aud: str
    mark: Mark
    shares: list[Share]
    told: str


@dataclass(frozen=True)
class Differences:
    """Paired differences over one kind of repetition, on one scale with zero in its middle.

    Attributes:
        marks: one for each row; none where nothing differs, or nothing is known.
        reach: how far the scale reaches to either side.
    """

    title: str
    table: Table
    marks: list[Mark]
    reach: str


@dataclass(frozen=True)
class Picture:
    """A figure of the report.

    Attributes:
        files: suffixes and paths of what lies beside the page.
    """

    name: str
    caption: str
    drawing: Drawing
    files: list[tuple[str, str]]


@dataclass(frozen=True)
class Content:
    """All that the page shows; see the template for how."""

    name: str
    description: str
    is_live: bool
    answer: Answer
    oracle: list[str]
    verdict: str
    reasons: list[str]
    notices: list[str]
    outcomes: dict[str, str]
    arms: list[Arm]
    summary: Table
    differences: list[Differences]
    pictures: list[Picture]
    tables: dict[str, Table]
    yaml: str
    made_with: Table
    inputs: Table | None
    commands: list[tuple[str, str]]
    files: list[tuple[str, str]]


def content_of(
    results: Results,
    summary: pd.DataFrame,
    differences: pd.DataFrame,
    captions: dict[str, str],
    folder: Path,
) -> Content:
    """Everything that the page says of some results.

    Args:
        captions: of the figures, by name; they lie in ``folder``.
        folder: where the page will be: what lies beside it is linked.
    """
    scenario = results.scenario
    verdict, reasons = validity(results)
    return Content(
        name=str(scenario["name"]),
        description=str(scenario.get("description") or ""),
        is_live=results.is_live,
        answer=answer(results, summary, differences),
        oracle=_oracle(results, summary),
        verdict=verdict,
        reasons=reasons,
        notices=notices(results),
        outcomes=_OUTCOMES,
        arms=list(_arms(results, summary)),
        summary=summary_table(results, summary),
        differences=list(_differences(differences)),
        pictures=[_picture(folder, name, caption) for name, caption in captions.items()],
        tables=further_tables(results, summary),
        yaml=scenario_yaml(scenario),
        made_with=_made_with(results),
        inputs=_inputs(results),
        commands=_commands(results),
        files=[(name, what) for name, what in _FILES.items() if (folder / name).exists()],
    )


def _oracle(results: Results, summary: pd.DataFrame) -> list[str]:
    """How close policies come to the oracle, as lines without Markdown."""
    text = oracle_lines(results, summary).replace("**", "")
    return [line.removeprefix("- ") for line in text.split("\n") if line]


def _arms(results: Results, summary: pd.DataFrame) -> Iterator[Arm]:
    runs = results.runs
    hits = (runs["aud"].fillna(0) * runs["offered"]).groupby([runs["strategy"], runs["policy"]])
    correct = hits.sum() / runs.groupby(["strategy", "policy"])["offered"].sum()
    for row in summary.itertuples():
        shares = {"correct": float(correct.loc[(row.strategy, row.policy)])}
        # Counts in a table may be rounded: no bar is shorter than nothing.
        shares["wrong"] = max(0.0, row.on_time - shares["correct"])
        shares |= {name: float(getattr(row, name)) for name in ("late", "dropped", "lost")}
        bars, begin = [], 0.0
        for outcome, share in shares.items():
            if share > 0:
                bars.append(Share(outcome, 100 * begin, 100 * share))
                begin += share
        told = ", ".join(f"{percent(share)} {_OUTCOMES[name]}" for name, share in shares.items())
        yield Arm(
            row.strategy,
            row.policy,
            percent(row.aud, row.aud_half_width),
            _mark(row.aud, row.aud_half_width, 0.0, 1.0),
            bars,
            told,
        )


_OUTCOMES = {
    "correct": "correct in time",
    "wrong": "wrong in time",
    "late": "late",
    "dropped": "dropped",
    "lost": "lost",
}


def _differences(differences: pd.DataFrame) -> Iterator[Differences]:
    """Between strategies, and between policies: these are far apart, and each has its scale."""
    shown = [
        ("Between strategies", differences[differences["over"] == "training seeds"]),
        ("Between policies", differences[differences["over"] == "replications"]),
    ]
    for title, rows in shown:
        if not len(rows):
            continue
        gains = list(zip(rows["aud_difference"], rows["half_width"], strict=True))
        ends = [abs(gain) + (0 if math.isnan(half) else half) for gain, half in gains]
        reach = 1.05 * max((end for end in ends if math.isfinite(end)), default=0.0)
        marks = [_mark(gain, half, -reach, reach) for gain, half in gains] if reach else []
        yield Differences(title, difference_table(rows), marks, f"{100 * reach:.2g} points")


def _mark(value: float, half_width: float, low: float, high: float) -> Mark:
    def place(at: float) -> float | None:
        if not math.isfinite(at):
            return None
        return round(100 * min(1.0, max(0.0, (at - low) / (high - low))), 3)

    return Mark(place(value), place(value - half_width), place(value + half_width))


def _picture(folder: Path, name: str, caption: str) -> Picture:
    files = [
        (what, f"{FIGURES}/{name}{suffix}")
        for suffix, what in ((".pdf", "PDF"), (".csv", "data (CSV)"), (".tex", "LaTeX"))
        if (folder / FIGURES / f"{name}{suffix}").exists()
    ]
    return Picture(name, caption, drawing(folder / FIGURES / f"{name}.png"), files)


def _made_with(results: Results) -> Table:
    manifest, seeds = results.manifest, results.manifest.get("seeds", {})
    rows = [[name, str(version)] for name, version in manifest.get("versions", {}).items()]
    rows += [[f"{name} seeds", _inline(value)] for name, value in seeds.items()]
    if results.world == "simulated":
        rows += [
            [f"host that simulated: {name}", str(value)]
            for name, value in manifest.get("host", {}).items()
            if value
        ]
    return Table(["", ""], rows)


def _inputs(results: Results) -> Table | None:
    inputs = results.manifest.get("inputs", {})
    if not inputs:
        return None
    rows = [[name, str(digest)] for name, digest in inputs.items()]
    return Table(["input", "SHA-256"], rows)


def _inline(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def _commands(results: Results) -> list[tuple[str, str]]:
    """What to type, and what it does."""
    command = "live run" if results.is_live else "run"
    found = []
    source = results.manifest.get("source")
    if source:
        words = [str(source)]
        for override in results.manifest.get("overrides", []):
            words += ["--set", str(override)]
        # A scenario may be a word that the command line takes for an option.
        found.append(
            (
                f"offramp {command} {' '.join(map(shlex.quote, words))}",
                "the scenario as it was named; "
                + (
                    "other options of the live run are not known"
                    if results.is_live
                    else "what is in the store is reused"
                ),
            )
        )
    found.append(
        (
            f"offramp {command} scenario.yaml",
            "the scenario printed above, saved as scenario.yaml; files that it names lie beside it",
        )
    )
    if "checksum" in results.manifest and not results.is_live:
        found.append(
            (
                "offramp reproduce . -o ../again",
                "this run once more, from its own networks and profile: are the results the same?",
            )
        )
    found.append(("offramp report .", "this report anew, in this folder"))
    return found
