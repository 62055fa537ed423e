"""A table of a report, as text: what the pages in Markdown and in HTML both show."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Table:
    """Cells as a reader sees them.

    Attributes:
        header: titles of the columns; all empty where rows are pairs of a name and a value.
        note: what a reader has to know of it; code in backticks.
        names: how many of the first columns say what the row is about.
    """

    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    note: str = ""
    names: int = 1
