"""What became of every point so far, on disk: a sweep that was killed goes on from there.

One SQLite file. What is committed survives the end of the process at any instant; what was added
since is run again.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from offramp.sqlite_file import SqliteFile
from offramp.stages.layout import POINTS
from offramp.sweep.point import PointResult
from offramp.sweep.rows import Columns, common_layout, read_layout, unpack

_FORMAT = 2

#: The first format did not know whose workers died.
_UPGRADES = {1: "ALTER TABLE points ADD COLUMN died INTEGER NOT NULL DEFAULT 0;"}

_SCHEMA = """
CREATE TABLE layouts (number INTEGER PRIMARY KEY, columns TEXT UNIQUE NOT NULL);
CREATE TABLE points (
    point INTEGER PRIMARY KEY,
    identity BLOB NOT NULL,
    layout INTEGER,
    rows BLOB,
    error TEXT,
    wall_s REAL NOT NULL,
    died INTEGER NOT NULL DEFAULT 0
);
"""

#: Points that are looked up together.
_BLOCK = 1000


@dataclass(frozen=True)
class Counts:
    """How many points have a result, and how many failed.

    Attributes:
        died: of these, how many since workers ended each time.
    """

    done: int
    failed: int
    died: int = 0


class Journal:
    """The journal in a results folder; it is made if it is not there.

    Raises:
        ResultsError: it is not a journal, or cannot be read or written; so do all methods.
    """

    def __init__(self, folder: Path) -> None:
        self._file = SqliteFile(folder / POINTS, _SCHEMA, _FORMAT, _UPGRADES)
        self._base = self._file.base
        with self._file.telling():
            # One writer at a time, and nothing beside the file that a network disk cannot share.
            self._base.execute("PRAGMA journal_mode = TRUNCATE")
            self._layouts = dict(self._base.execute("SELECT columns, number FROM layouts"))

    def close(self) -> None:
        """Close the file; what was not committed is dropped."""
        self._file.close()

    # --- writing ---------------------------------------------------------------------------------

    def add(self, result: PointResult, identity: bytes) -> None:
        """Note what became of a point."""
        with self._file.telling():
            self._file.begin()
            layout = None if result.layout is None else self._layout(result.layout)
            self._base.execute(
                "INSERT OR REPLACE INTO points VALUES (?, ?, ?, ?, ?, ?, ?)",
                (
                    result.index,
                    identity,
                    layout,
                    result.rows,
                    result.error,
                    result.wall_s,
                    result.died,
                ),
            )

    def commit(self) -> None:
        """Make what was added last, whatever happens to this process."""
        self._file.commit()

    def forget_failed(self) -> None:
        """Drop the points that failed, so that they are run again."""
        with self._file.telling():
            self._file.begin()
            self._base.execute("DELETE FROM points WHERE error IS NOT NULL")
            self.commit()

    def keep(self, identities: Iterable[tuple[int, bytes]], may_drop: bool = True) -> int:
        """Keep the points that are asked for, under their numbers now, and drop all others.

        Args:
            identities: number and identity of every point, in order.
            may_drop: whether points with a result may be dropped; else nothing is changed if there
                is one that would be.

        Returns:
            How many points with a result are not asked for.
        """
        with self._file.telling():
            self._file.begin()
            self._base.execute("CREATE INDEX by_identity ON points (identity)")
            self._base.execute("CREATE TABLE kept AS SELECT * FROM points WHERE 0")
            self._base.executemany(
                "INSERT INTO kept SELECT ?, identity, layout, rows, error, wall_s, died "
                "FROM points WHERE identity = ? LIMIT 1",
                identities,
            )
            (dropped,) = self._base.execute(
                "SELECT count(*) FROM points "
                "WHERE error IS NULL AND identity NOT IN (SELECT identity FROM kept)"
            ).fetchone()
            self._base.execute("DELETE FROM points")
            self._base.execute("INSERT INTO points SELECT * FROM kept")
            self._base.execute("DROP TABLE kept")
            self._base.execute("DROP INDEX by_identity")
            if dropped and not may_drop:
                self._base.execute("ROLLBACK")
            self.commit()
        return int(dropped)

    def _layout(self, columns: str) -> int:
        number = self._layouts.get(columns)
        if number is None:
            cursor = self._base.execute("INSERT INTO layouts (columns) VALUES (?)", (columns,))
            number = self._layouts[columns] = int(cursor.lastrowid or 0)
        return number

    # --- reading ---------------------------------------------------------------------------------

    def counts(self) -> Counts:
        """How many points there are."""
        with self._file.telling():
            all_of_them, failed, died = self._base.execute(
                "SELECT count(*), count(error), count(*) FILTER (WHERE died) FROM points"
            ).fetchone()
        return Counts(all_of_them - failed, failed, died)

    def fits(self, identities: Iterable[tuple[int, bytes]]) -> bool:
        """Whether every point that is here is asked for, under the number that it has.

        Args:
            identities: as of :meth:`keep`.
        """
        with self._file.telling():
            (left,) = self._base.execute("SELECT count(*) FROM points").fetchone()
            for block in _blocks(identities):
                here = dict(
                    self._base.execute(
                        "SELECT point, identity FROM points WHERE point BETWEEN ? AND ?",
                        (block[0][0], block[-1][0]),
                    )
                )
                left -= len(here)
                asked = dict(block)
                if any(asked.get(point) != identity for point, identity in here.items()):
                    return False
        return bool(left == 0)

    def missing(self, count: int) -> Iterator[int]:
        """Numbers, of the first ``count``, of points that are not here when they are reached.

        Those whose workers died are as if they were not.
        """
        for first in range(0, count, _BLOCK):
            last = min(count, first + _BLOCK) - 1
            with self._file.telling():
                here = {
                    point
                    for (point,) in self._base.execute(
                        "SELECT point FROM points WHERE point BETWEEN ? AND ? AND NOT died",
                        (first, last),
                    )
                }
            yield from (point for point in range(first, last + 1) if point not in here)

    def columns(self) -> dict[str, str]:
        """Columns of the rows of all points, and what they hold, in order."""
        with self._file.telling():
            found = self._base.execute(
                "SELECT columns FROM points JOIN layouts ON layout = number "
                "GROUP BY number ORDER BY min(point)"
            ).fetchall()
        return common_layout(read_layout(columns) for (columns,) in found)

    def results(self) -> Iterator[tuple[int, Columns]]:
        """Number and rows of every point that has a result, in order."""
        with self._file.telling():
            layouts = {
                number: read_layout(columns)
                for columns, number in self._base.execute("SELECT columns, number FROM layouts")
            }
            for point, layout, rows in self._base.execute(
                "SELECT point, layout, rows FROM points WHERE error IS NULL ORDER BY point"
            ):
                yield point, unpack(layouts[layout], rows)

    def failures(self) -> Iterator[tuple[int, str]]:
        """Number and error of every point that failed, in order."""
        with self._file.telling():
            yield from self._base.execute(
                "SELECT point, error FROM points WHERE error IS NOT NULL ORDER BY point"
            )


def _blocks(identities: Iterable[tuple[int, bytes]]) -> Iterator[list[tuple[int, bytes]]]:
    block: list[tuple[int, bytes]] = []
    for item in identities:
        block.append(item)
        if len(block) == _BLOCK:
            yield block
            block = []
    if block:
        yield block
