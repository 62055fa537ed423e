"""What came of a reproduction, as a page, as JSON and as a table."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any

import pandas as pd

from models.errors import ResultsError
from models.files import whole_file, write_text
from offramp.report.markdown import number, percent, table
from offramp.reproduction.contents import IDENTICAL, FileComparison
from offramp.reproduction.outcome import FIGURES_TABLE, OUTCOME, Reproduction
from offramp.reproduction.statistics import COMPATIBLE, MOVED, SAME, UNTESTED
from offramp.store import file_hash

#: Figures that did not move are listed up to this many.
_MOST_LISTED = 200

_ORDER = {MOVED: 0, UNTESTED: 1, COMPATIBLE: 2, SAME: 3}


def write_outcome(outcome: Reproduction) -> None:
    """Write ``reproduction.json``, ``reproduction.csv`` and the page into the output folder.

    Raises:
        ResultsError: they cannot be written.
    """
    output = outcome.output
    try:
        if outcome.figures is not None:
            with whole_file(output / FIGURES_TABLE) as partial:
                outcome.figures.to_csv(partial, index=False)
        else:
            (output / FIGURES_TABLE).unlink(missing_ok=True)
        write_text(outcome.page, "\n".join(_page(outcome)).rstrip() + "\n")
        write_text(output / OUTCOME, json.dumps(_content(outcome), indent=1) + "\n")
    except OSError as error:
        raise ResultsError(f"cannot write to {output}: {error.strerror or error}") from error


def _content(outcome: Reproduction) -> dict[str, Any]:
    return {
        "verdict": outcome.verdict.word,
        "sentence": outcome.verdict.sentence,
        "original": str(outcome.original.absolute()),
        "original_manifest": file_hash(outcome.manifest),
        "output": str(outcome.output.absolute()),
        "notes": outcome.notes,
        "files": [file.plain() for file in outcome.files],
        "environment": [asdict(change) for change in outcome.changes],
        "networks": _rows(outcome.networks),
        "figures": _rows(outcome.figures),
    }


def _rows(frame: pd.DataFrame | None) -> list[dict[str, Any]] | None:
    """Rows as JSON values; NaN, which JSON lacks, becomes null."""
    if frame is None:
        return None
    return [
        {
            str(key): None if isinstance(value, float) and math.isnan(value) else value
            for key, value in row.items()
        }
        for row in frame.to_dict(orient="records")
    ]


def _page(outcome: Reproduction) -> Iterator[str]:
    yield f"# Reproduction of {outcome.original.absolute().name}: {outcome.verdict.word}"
    yield ""
    yield f"{outcome.verdict.sentence[:1].upper()}{outcome.verdict.sentence[1:]}."
    yield ""
    for note in outcome.notes:
        yield f"- {note}."
    yield from ("", "## Records and tables", "", *_files(outcome.files))
    if outcome.networks is not None:
        yield from ("", "## Networks", "", *_networks(outcome.networks))
    if outcome.figures is not None:
        yield from ("", "## What moved", "", *_figures(outcome.figures))
    yield from ("", "## Software and machine", "")
    if outcome.changes:
        rows = [(it.what, _text(it.before), _text(it.after)) for it in outcome.changes]
        yield table(("", "run", "reproduction"), rows)
    else:
        yield "The same versions, on a machine of the same kind."


def _files(files: Sequence[FileComparison]) -> Iterator[str]:
    rows = []
    for file in files:
        said = [file.note] if file.note else []
        if file.first:
            said.append(f"first at {file.first}")
        if file.differing:
            counts = ", ".join(f"{name} {count}" for name, count in file.differing.items())
            of = f" of {file.rows[0]}" if file.rows else ""
            said.append(f"rows{of} that differ: {counts}")
        state = file.state if file.state == IDENTICAL else f"**{file.state}**"
        rows.append((file.name, state, "; ".join(said)))
    yield table(("file", "contents", ""), rows)


def _networks(networks: pd.DataFrame) -> Iterator[str]:
    if bool(((networks["changed"] == 0) & (networks["confidence_moved"] == 0)).all()):
        yield "Every network says the same of every test sample, to the last digit of confidence."
        return
    yield (
        "Test accuracy of each exit; the share of test samples of which it predicts another "
        "class; the largest change of a confidence. A dash: the run's predictions are no longer "
        "there."
    )
    yield ""
    rows = [
        (
            str(row.strategy),
            str(row.training_seed),
            str(row.exit),
            percent(row.accuracy_before),
            percent(row.accuracy_after),
            percent(row.changed),
            number(row.confidence_moved),
        )
        for row in networks.itertuples()
    ]
    header = ("strategy", "seed", "exit", "before", "after", "changed", "confidence")
    yield table(header, rows)


def _figures(figures: pd.DataFrame) -> Iterator[str]:
    if (figures["verdict"] == SAME).all():
        yield f"All {len(figures)} are the same."
        return
    counts = figures["verdict"].value_counts()
    over = ", ".join(dict.fromkeys(figures["over"]))
    said = ", ".join(f"{counts[word]} {word}" for word in _ORDER if word in counts)
    yield (
        f"{said}. Differences are over {over}; intervals are 95 % ones of a single comparison. A "
        "figure has *moved* if its p, corrected after Holm for all "
        f"{int(figures['p'].notna().sum())} that were tested, is below 0.05; *compatible* is no "
        "proof of equality: a difference as large as the interval may hide. Values are means of "
        "the runs (times in seconds); percentiles are means of the runs' percentiles."
    )
    yield ""
    listed = figures.assign(order=figures["verdict"].map(_ORDER))
    listed = listed[listed["verdict"] != SAME].sort_values(["order", "p_holm"], kind="stable")
    left_out = max(0, len(listed) - _MOST_LISTED)
    arms = list(figures.columns[: figures.columns.get_loc("metric")])
    rows = [
        (
            *(str(row[name]) for name in arms),
            str(row["metric"]),
            number(row["before"]),
            number(row["after"]),
            _difference(row["difference"], row["half_width"]),
            str(row["n"]),
            _p(row["p_holm"]),
            f"**{MOVED}**" if row["verdict"] == MOVED else str(row["verdict"]),
        )
        for row in listed.head(_MOST_LISTED).to_dict(orient="records")
    ]
    header = (*arms, "figure", "before", "after", "difference", "n", "p (Holm)", "")
    yield table(header, rows)
    if left_out:
        yield from ("", f"{left_out} more are in {FIGURES_TABLE}.")


def _difference(value: float, half_width: float) -> str:
    if math.isnan(half_width):
        return f"{value:+.3g} (no interval)"
    return f"{value:+.3g} ± {half_width:.2g}"


def _p(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.2g}"


def _text(value: Any) -> str:
    return "-" if value is None else str(value)
