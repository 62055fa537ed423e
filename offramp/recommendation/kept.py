"""What was simulated so far, on disk: a search that was stopped finds it there, and goes on.

The search itself is not kept. It is made anew from its seed each time, and asks for the same
configurations in the same order; those that are here are not simulated again. Trials that failed
are not kept: what they failed of may be mended.
"""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from offramp.sqlite_file import SqliteFile
from offramp.stages.layout import KEPT_TRIALS
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
        self._file = SqliteFile(folder / KEPT_TRIALS, _SCHEMA, _FORMAT)

    def close(self) -> None:
        """Close the file; what was not committed is dropped."""
        self._file.close()

    def add(self, identity: bytes, result: PointResult) -> None:
        """Note the runs of a trial that did not fail."""
        with self._file.telling():
            self._file.begin()
            self._file.base.execute(
                "INSERT OR REPLACE INTO trials VALUES (?, ?, ?)",
                (identity, result.layout, result.rows),
            )

    def commit(self) -> None:
        """Make what was added last, whatever happens to this process."""
        self._file.commit()

    def find(self, identity: bytes) -> pd.DataFrame | None:
        """The runs of a trial; None if it is not here."""
        with self._file.telling():
            found = self._file.base.execute(
                "SELECT layout, rows FROM trials WHERE identity = ?", (identity,)
            ).fetchone()
        if found is None:
            return None
        layout, rows = found
        return pd.DataFrame(unpack(read_layout(layout), rows))
