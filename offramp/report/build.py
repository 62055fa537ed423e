"""Making the whole report from a results folder."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from models.errors import ResultsError
from models.files import whole_file, write_text
from offramp.report.figures import write_figures
from offramp.report.html import write_html
from offramp.report.page import write_page
from offramp.report.results import (
    differences,
    fault_counts,
    read_results,
    summary,
)
from offramp.report.tables import write_tables
from offramp.report.verdicts import alike, link_verdicts, node_verdicts, not_judged, validity
from offramp.stages.layout import DIFFERENCES, FIGURES, SUMMARY_CSV, SUMMARY_JSON, TABLES


@dataclass(frozen=True)
class Report:
    """A report that was written.

    Attributes:
        page: its path.
        summary: one row per strategy and policy.
        differences: paired differences in AUD.
        nodes, links: verdict on every node, and on every link that can only carry so much, by
            policy; ``strategies`` with the same one in a row, see
            :func:`offramp.report.verdicts.alike`.
        oracle: the policy that knows everything, if it is among the policies.
        verdict: ``VALID`` or ``INVALID``.
        reasons: why it is not valid.
        not_judged: what the verdict leaves open, and why.
    """

    page: Path
    summary: pd.DataFrame
    differences: pd.DataFrame
    nodes: pd.DataFrame
    links: pd.DataFrame
    oracle: str | None
    verdict: str
    reasons: list[str]
    not_judged: list[str]


def build_report(results_folder: Path, output: Path | None = None) -> Report:
    """Write summary, figures and page from the files in ``results_folder``.

    Args:
        output: where to write them; by default into the results folder itself.

    Raises:
        ResultsError: the folder does not hold results, or the output cannot be written.
    """
    results = read_results(results_folder)
    target = output or results_folder
    arms, gaps = summary(results), differences(results)
    nodes, links, faults = node_verdicts(results), link_verdicts(results), fault_counts(results)
    verdict, reasons = validity(results)
    left_open = not_judged(results)
    try:
        for frame, name in ((arms, SUMMARY_CSV), (gaps, DIFFERENCES)):
            with whole_file(target / name) as partial:
                frame.to_csv(partial, index=False)
        content = {
            "scenario": results.scenario["name"],
            "world": results.world,
            "verdict": verdict,
            "reasons": reasons,
            "not_judged": left_open,
            "arms": _plain(arms),
            "differences": _plain(gaps),
            "nodes": _plain(nodes),
        }
        for name, frame in (("links", links), ("faults", faults)):
            if len(frame):
                content[name] = _plain(frame)
        write_text(target / SUMMARY_JSON, json.dumps(content, indent=1) + "\n")
        captions = write_figures(results, target / FIGURES)
        write_tables(results, arms, gaps, target / TABLES)
        page = write_page(results, arms, gaps, captions, target)
        write_html(results, arms, gaps, captions, target)
    except OSError as error:
        raise ResultsError(f"cannot write the report to {target}: {error.strerror}") from error
    nodes = alike(nodes, ["policy", "node"])
    links = alike(links, ["policy", "link", "direction"])
    oracle = results.oracle
    return Report(page, arms, gaps, nodes, links, oracle, verdict, reasons, left_open)


def _plain(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """Rows as JSON values; NaN, which JSON lacks, becomes null."""
    return [
        {
            str(key): None if isinstance(value, float) and math.isnan(value) else value
            for key, value in row.items()
        }
        for row in frame.to_dict(orient="records")
    ]
