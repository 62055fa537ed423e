"""Writing files whole or not at all."""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside ``path``; rename it to ``path`` only if the block succeeds.

    The temporary file keeps the suffix of ``path``, since some writers choose the format by it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(
        prefix=f".{path.stem}-", suffix=f".partial{path.suffix}", dir=path.parent
    )
    os.close(handle)
    partial = Path(name)
    try:
        yield partial
        os.chmod(partial, 0o644)
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def try_to_write(folder: Path) -> None:
    """Raise OSError if ``folder`` cannot be written to, or made; nothing is left behind."""
    existing = next(place for place in (folder, *folder.absolute().parents) if place.exists())
    if not existing.is_dir():
        raise NotADirectoryError(errno.ENOTDIR, f"{existing} is a file", str(existing))
    with tempfile.TemporaryFile(dir=existing):
        pass


def remove_old(paths: Iterable[Path], age_s: float) -> None:
    """Remove files and folders that nobody has changed for so long, as far as that is possible."""
    for path in paths:
        with suppress(OSError):  # another process was first
            if time.time() - path.stat().st_mtime <= age_s:
                continue
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink()


def write_text(path: Path, text: str) -> None:
    """Write ``text`` to ``path`` as UTF-8, whole or not at all."""
    with whole_file(path) as partial:
        partial.write_text(text, encoding="utf-8")


#: How the system says that a disk, or what one may use of it, is full.
_DISK_FULL = (errno.ENOSPC, errno.EDQUOT)


def is_disk_full(error: BaseException | None) -> bool:
    """Whether an error, or what it comes from, is that a disk is full."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in _DISK_FULL:
            return True
        if "No space left" in str(error):  # as libraries say it that do not pass the number on
            return True
        error = error.__cause__ or error.__context__
    return False
