"""The report page, in Markdown: the answer, the table, the figures and how they were made."""

from __future__ import annotations

import io
import math
from pathlib import Path

import pandas as pd
from ruamel.yaml import YAML

from models.files import write_text
from offramp.report.answer import scoring_cost, sign, vain_remarks
from offramp.report.markdown import points, rendered
from offramp.report.notices import notices
from offramp.report.paired import SIGNIFICANCE
from offramp.report.results import Results
from offramp.report.run_tables import difference_table, further_tables, summary_table
from offramp.report.verdicts import validity
from offramp.report.world_tables import further_files, oracle_lines
from offramp.stages.layout import DIFFERENCES, FIGURES, RECORDS, REPORT, SUMMARY_CSV
from offramp.words import capitalised, counted
from sim.results.verdict import NOTHING_IN_TIME, policies_in_vain


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
        parts.append("**Live**, not simulated.")
    if told := notices(results):
        parts += ["To know besides:", "\n".join(f"- {notice}" for notice in told)]
    parts += ["## Accuracy under deadline", rendered(summary_table(results, summary))]
    if len(differences):
        parts += ["## Differences", rendered(difference_table(differences))]
    parts.append("## Figures")
    for name, caption in captions.items():
        parts.append(f"![{caption}]({FIGURES}/{name}.png)")
        parts.append(f"*{caption}* ([PDF]({FIGURES}/{name}.pdf), [data]({FIGURES}/{name}.csv))")
    for title, shown in further_tables(results, summary).items():
        parts += [f"## {title}", rendered(shown)]
    parts += ["## Scenario", "```yaml\n" + scenario_yaml(scenario) + "```"]
    parts.append(_data_line(results))
    path = folder / REPORT
    write_text(path, "\n\n".join(part for part in parts if part) + "\n")
    return path


def _data_line(results: Results) -> str:
    files = [f"`{name}`" for name in (SUMMARY_CSV, DIFFERENCES)] + further_files(results)
    if results.has_records:
        return f"Data: `{RECORDS}` (one row per request), {', '.join(files)}."
    return f"Data: {', '.join(files)}."


def answer(results: Results, differences: pd.DataFrame) -> str:
    """In one sentence per policy: does another strategy gain over the baseline?"""
    vain = policies_in_vain(results.runs)
    if len(vain) == len(results.policies):
        return f"{capitalised(NOTHING_IN_TIME)}."
    rows = differences[differences["over"] == "training seeds"]
    shown = rows[~rows["given"].isin(vain)]
    tested = int(shown["p"].notna().sum())
    corrected = ", after Holm's correction" if tested > 1 else ""
    sentences = []
    for row in shown.itertuples():
        gain = points(row.aud_difference, row.half_width)
        way = sign(row.aud_difference, row.half_width, row.p_holm)
        if way is None:
            verdict = "with one training seed, that says nothing of another training"
        elif not way:
            chance = "" if math.isnan(row.p_holm) else f" (p = {row.p_holm:.2g}{corrected})"
            verdict = f"no difference shown{chance}"
        else:
            verdict = "more" if way > 0 else "less"
            verdict += f" accuracy under deadline than {row.less} (p < {SIGNIFICANCE:g}{corrected})"
        sentences.append(
            f"Under `{row.given}`, **{row.of}** against {row.less}: {gain} points of AUD "
            f"(95 %, paired over {counted(row.n, 'training seed')}); {verdict}."
        )
    sentences += vain_remarks(vain)
    training = results.scenario["training"]
    if sentences and "curriculum" in results.strategies and not training["checkpoints"]:
        sentences.append(
            f"{scoring_cost(training)} Intervals are not corrected for the "
            f"{counted(len(shown), 'comparison')}."
        )
    return "\n".join(f"- {sentence}" for sentence in sentences)


def _verdict_lines(verdict: str, reasons: list[str]) -> str:
    if not reasons:
        return f"Verdict: **{verdict}**."
    return f"Verdict: **{verdict}**.\n\n" + "\n".join(f"- {reason}" for reason in reasons)


def scenario_yaml(scenario: dict[str, object]) -> str:
    """The resolved scenario, as a file that can be run."""
    stream = io.StringIO()
    yaml = YAML()
    yaml.default_flow_style = None
    yaml.dump(scenario, stream)
    return stream.getvalue()
