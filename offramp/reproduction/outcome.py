"""What came of running a manifest again."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from offramp.reproduction.contents import FileComparison
from offramp.reproduction.judging import Change, Verdict

PAGE = "reproduction.md"
OUTCOME = "reproduction.json"
FIGURES_TABLE = "reproduction.csv"


@dataclass(frozen=True)
class Reproduction:
    """A run, or a sweep, and what it gave when it was run again.

    Attributes:
        original, output: results folders of both.
        manifest: what was run again.
        files: what became of records and tables.
        figures: what moved, of :func:`offramp.reproduction.statistics.with_verdicts`; None where
            the tables of the run are not there.
        networks: of :func:`offramp.reproduction.networks.network_changes`; None for a sweep.
        changes: of software and machine.
        notes: what else a reader has to know, a sentence each.
    """

    original: Path
    output: Path
    manifest: Path
    verdict: Verdict
    files: list[FileComparison]
    figures: pd.DataFrame | None
    networks: pd.DataFrame | None
    changes: list[Change]
    notes: list[str]

    @property
    def page(self) -> Path:
        """The page that says it all."""
        return self.output / PAGE
