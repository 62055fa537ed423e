"""Making everything that compares runs, from their results folders alone."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from models.errors import ResultsError
from models.files import whole_file, write_text
from offramp.comparison.differences import run_differences
from offramp.comparison.figures import write_figures
from offramp.comparison.page import answer, difference_latex, write_page
from offramp.comparison.runs import Compared, read_runs, scenario_differences
from offramp.pipeline import check_writable
from offramp.report.results import summary
from offramp.stages.layout import FIGURES, MANIFEST, TABLES

PAGE, DIFFERENCES, SCENARIOS = "comparison.md", "comparison.csv", "scenario_differences.csv"

#: So many runs are named in the name of the folder.
_NAMED = 3


@dataclass(frozen=True)
class Comparison:
    """A comparison that was written.

    Attributes:
        page: its path.
        differences: of every run from the first; see
            :func:`offramp.comparison.differences.run_differences`.
        answer: the lines on AUD, in Markdown.
    """

    page: Path
    compared: Compared
    differences: pd.DataFrame
    answer: str


def compare_runs(folders: Sequence[Path], output: Path | None = None) -> Comparison:
    """Compare finished runs, simulated or live, with the first of them.

    Args:
        output: where to write; by default in ``results``, by the names of the runs.

    Raises:
        ResultsError: they cannot be compared, or the output cannot be written.
    """
    compared = read_runs(folders)
    target = output or _default_folder(compared)
    if (target / MANIFEST).exists():
        raise ResultsError(
            f"{target} holds the results of something else: write the comparison somewhere else "
            "(-o)"
        )
    # All numbers before the first file: what cannot be read leaves nothing behind.
    differences, scenarios = run_differences(compared), scenario_differences(compared)
    summaries = [summary(run) for run in compared.runs]
    check_writable(target)
    try:
        for frame, name in ((differences, DIFFERENCES), (scenarios, SCENARIOS)):
            with whole_file(target / name) as partial:
                frame.to_csv(partial, index=False)
        captions = write_figures(compared, target / FIGURES)
        latex = f"{TABLES}/comparison.tex"
        if len(differences):
            write_text(target / latex, difference_latex(compared, differences))
        page = target / PAGE
        write_page(compared, summaries, differences, scenarios, captions, page, FIGURES, latex)
    except OSError as error:
        raise ResultsError(f"cannot write the comparison to {target}: {error.strerror}") from error
    return Comparison(target / PAGE, compared, differences, answer(compared, differences))


def _default_folder(compared: Compared) -> Path:
    names = [re.sub(r"[^\w.-]+", "_", label).strip("_") for label in compared.labels]
    more = len(names) - _NAMED
    name = "-and-".join(names[:_NAMED]) + (f"-and-{more}-more" if more > 0 else "")
    return Path("results") / name
