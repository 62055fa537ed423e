"""Files of SQLite that keep what was simulated, whatever happens to their process."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from models.errors import ResultsError


class SqliteFile:
    """One file; it is made if it is not there.

    Args:
        schema: statements that make its tables.
        format: number of the format that they have.
        upgrades: statements that make this format of an older one, by its number.

    Raises:
        ResultsError: it is something else, or cannot be read or written.
    """

    def __init__(
        self, path: Path, schema: str, format: int, upgrades: Mapping[int, str] | None = None
    ) -> None:
        self.path = path
        with self.telling():
            self.base = sqlite3.connect(path, timeout=60, isolation_level=None)
            (found,) = self.base.execute("PRAGMA user_version").fetchone()
            (tables,) = self.base.execute("SELECT count(*) FROM sqlite_master").fetchone()
            change = schema if not tables else (upgrades or {}).get(found)
            if change is not None:
                self.base.executescript(f"BEGIN;{change}PRAGMA user_version = {format};COMMIT;")
            elif found != format:
                raise ResultsError(
                    f"{path} was not written by this version of Offramp: name another folder with "
                    "--output, or remove it"
                )

    def begin(self) -> None:
        """Begin what is committed, or dropped, together; unless it has begun already."""
        if not self.base.in_transaction:
            self.base.execute("BEGIN IMMEDIATE")

    def commit(self) -> None:
        """Make what was added last, whatever happens to this process."""
        with self.telling():
            if self.base.in_transaction:
                self.base.execute("COMMIT")

    def close(self) -> None:
        """Close the file; what was not committed is dropped."""
        self.base.close()

    @contextmanager
    def telling(self) -> Iterator[None]:
        """Say what is wrong with the file, if SQLite finds something."""
        try:
            yield
        except sqlite3.Error as error:
            raise ResultsError(
                f"{self.path}: {error}. What was noted there before is kept; when that is mended, "
                "the same command goes on from there"
            ) from error
