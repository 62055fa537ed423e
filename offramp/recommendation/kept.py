"""What was simulated so far, on disk: a search that was stopped finds it there, and goes on.

The search itself is not kept. It is made anew from its seed each time, and asks for the same
configurations in the same order; those that are here are not simulated again. Trials that failed
are not kept: what they failed of may be mended.
"""

from __future__ import annotations

import sqlite3
from contextlib import AbstractContextManager
from pathlib import Path

import pandas as pd

from models.errors import ResultsError
from offramp.stages.layout import KEPT_TRIALS
from offramp.sweep.journal import telling_of
from offramp.sweep.point import PointResult
from offramp.sweep.rows import read_layout, unpack

_FORMAT = 1

_SCHEMA = """
CREATE TABLE trials (
    identity BLOB PRIMARY KEY,
    layout TEXT NOT NULL,
    rows BLOB NOT NULL
);
"""


class Kept:
    """Simulated trials in a results folder, by their identity; it is made if it is not there.

    Raises:
        ResultsError: the file is something else, or cannot be read or written; so do all methods.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / KEPT_TRIALS
        with self._telling():
            self._base = sqlite3.connect(self._path, timeout=60, isolation_level=None)
            (format,) = self._base.execute("PRAGMA user_version").fetchone()
            (tables,) = self._base.execute("SELECT count(*) FROM sqlite_master").fetchone()
            if not tables:
                self._base.executescript(f"BEGIN;{_SCHEMA}PRAGMA user_version = {_FORMAT};COMMIT;")
            elif format != _FORMAT:
                raise ResultsError(
                    f"{self._path} is not of this Offramp: name another folder with --output, or "
                    "remove it"
                )

    def close(self) -> None:
        """Close the file; what was not committed is dropped."""
        self._base.close()

    def add(self, identity: bytes, result: PointResult) -> None:
        """Note the runs of a trial that did not fail."""
        with self._telling():
            if not self._base.in_transaction:
                self._base.execute("BEGIN IMMEDIATE")
            self._base.execute(
                "INSERT OR REPLACE INTO trials VALUES (?, ?, ?)",
                (identity, result.layout, result.rows),
            )

    def commit(self) -> None:
        """Make what was added last, whatever happens to this process."""
        with self._telling():
            if self._base.in_transaction:
                self._base.execute("COMMIT")

    def find(self, identity: bytes) -> pd.DataFrame | None:
        """The runs of a trial; None if it is not here."""
        with self._telling():
            found = self._base.execute(
                "SELECT layout, rows FROM trials WHERE identity = ?", (identity,)
            ).fetchone()
        if found is None:
            return None
        layout, rows = found
        return pd.DataFrame(unpack(read_layout(layout), rows))

    def _telling(self) -> AbstractContextManager[None]:
        return telling_of(self._path)
