"""One process at a time in a results folder."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import filelock

from models.errors import ResultsError


@contextmanager
def alone_in(results: Path, lock: str, what: str) -> Iterator[None]:
    """Keep others of the same kind out of a folder.

    Args:
        lock: name of the file that is locked.
        what: is running there, such as ``sweep``.

    Raises:
        ResultsError: another one is running there.
    """
    held = filelock.FileLock(results / lock)
    try:
        held.acquire(timeout=0)
    except filelock.Timeout:
        raise ResultsError(
            f"another {what} is running in {results}: wait until it is done, or name another "
            "folder with --output"
        ) from None
    try:
        yield
    finally:
        held.release()
