"""The artefact store: results of stages, addressed by a hash of what they were made from.

An artefact is a folder ``<root>/<kind>/<key>/`` with the files of one stage's result and an
``artifact.json`` that says what it was made from and the SHA-256 of each file. It appears by one
rename, so it is there whole or not at all.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import filelock
import platformdirs

from models.errors import ArtifactError
from models.files import remove_old, try_to_write
from models.host import host_facts

DESCRIPTION = "artifact.json"

_PARTIAL = ".partial-"

#: What is made anew lies aside meanwhile; it is as old as it is, and no partial one.
_ASIDE = ".before-"

_LOCKS = "locks"

#: Whoever waits for a lock looks this often whether it is free.
_LOOK_EVERY_S = 0.2

#: Why a folder cannot be renamed to a path where something lies.
_TAKEN = (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR)

#: A partial artefact this old was left by a process that was killed.
_ABANDONED_AFTER_S = 7 * 24 * 3600


def default_root() -> Path:
    """``$OFFRAMP_STORE``, or a folder in the user's cache."""
    named = os.environ.get("OFFRAMP_STORE")
    return Path(named) if named else Path(platformdirs.user_cache_dir("offramp")) / "store"


def content_key(made_from: dict[str, Any]) -> str:
    """Hash of what an artefact is made from."""
    canonical = json.dumps(made_from, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()[:24]


def file_hash(path: Path) -> str:
    """SHA-256 of a file's content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class Store:
    """Artefacts under one root folder.

    Args:
        say: told what this process waits for, if another is making it.
    """

    def __init__(self, root: Path, say: Callable[[str], None] = lambda line: None) -> None:
        self.root = root
        self._say = say

    def path(self, kind: str, made_from: dict[str, Any]) -> Path:
        """Where the artefact lies, or would lie."""
        return self.root / kind / content_key(made_from)

    def find(self, kind: str, made_from: dict[str, Any]) -> Path | None:
        """The artefact's folder, or None if it is not there or one of its files is damaged."""
        return self.at(kind, content_key(made_from))

    def at(self, kind: str, key: str) -> Path | None:
        """As :meth:`find`, by the hash of what the artefact was made from."""
        path = self.root / kind / key
        try:
            files = json.loads((path / DESCRIPTION).read_text(encoding="utf-8"))["files"]
            whole = all(file_hash(path / name) == expected for name, expected in files.items())
        except (OSError, ValueError, KeyError, AttributeError, TypeError):
            return None
        return path if whole else None

    def find_or_make(
        self, kind: str, made_from: dict[str, Any], make: Callable[[], object]
    ) -> Path:
        """The artefact's folder, after ``make`` was called if it was not there.

        Of several processes that want the same artefact one makes it, and the others wait.

        Args:
            make: leaves the artefact in this store, or raises.
        """
        found = self.find(kind, made_from)
        if found is None:
            with self._lock(kind, made_from):
                found = self.find(kind, made_from)
                if found is None:
                    make()
                    found = self.path(kind, made_from)
        return found

    @contextmanager
    def _lock(self, kind: str, made_from: dict[str, Any]) -> Iterator[None]:
        """Hold the artefact's lock; the system lets go of it when the process ends, however."""
        path = self.root / _LOCKS / f"{kind}-{content_key(made_from)}.lock"
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            lock = filelock.FileLock(path)
            try:
                lock.acquire(timeout=0)
            except filelock.Timeout:
                self._say(f"waiting for another process, which is making the same {kind} artefact")
                lock.acquire(poll_interval=_LOOK_EVERY_S)
        except OSError as error:
            raise ArtifactError(
                f"cannot write to the artefact store {self.root}: {error}"
            ) from error
        try:
            yield
        finally:
            lock.release()

    def _put(self, partial: Path, path: Path, kind: str, made_from: dict[str, Any]) -> None:
        """Rename ``partial`` to ``path``, unless another process made the same meanwhile."""
        while True:
            try:
                partial.rename(path)
                return
            except OSError as error:
                if error.errno not in _TAKEN:
                    raise
            if self.find(kind, made_from) is not None:
                return  # made meanwhile: that copy is as good
            # What is there is damaged: out of the way in one step, since others may do the same.
            damaged = Path(tempfile.mkdtemp(prefix=_PARTIAL, dir=path.parent))
            try:
                with suppress(FileNotFoundError):  # another process was first
                    path.rename(damaged / path.name)
            finally:
                shutil.rmtree(damaged, ignore_errors=True)

    def check_writable(self) -> None:
        """Try to write, before hours of work depend on it.

        Raises:
            ArtifactError: the store cannot be made or written to.
        """
        try:
            try_to_write(self.root)
        except OSError as error:
            raise ArtifactError(
                f"cannot write to the artefact store {self.root}: {error.strerror or error}"
            ) from error

    @contextmanager
    def anew(self, kind: str, made_from: dict[str, Any]) -> Iterator[None]:
        """Within the block the artefact is not there, to be made again; if not, it is back."""
        path = self.path(kind, made_from)
        aside = path.with_name(f"{_ASIDE}{path.name}")
        if self.find(kind, made_from) is not None:
            shutil.rmtree(aside, ignore_errors=True)
            path.rename(aside)
        # Else one may lie aside since a process was killed in this block.
        try:
            yield
        finally:
            if self.find(kind, made_from) is None and aside.exists():
                shutil.rmtree(path, ignore_errors=True)
                aside.rename(path)
            shutil.rmtree(aside, ignore_errors=True)

    def discard(self, kind: str, made_from: dict[str, Any]) -> None:
        """Remove the artefact if it is there."""
        shutil.rmtree(self.path(kind, made_from), ignore_errors=True)

    @contextmanager
    def make(self, kind: str, made_from: dict[str, Any]) -> Iterator[Path]:
        """Yield a folder to fill; it becomes the artefact when the block ends without error."""
        path = self.path(kind, made_from)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            remove_old(path.parent.glob(f"{_PARTIAL}*"), _ABANDONED_AFTER_S)
            partial = Path(tempfile.mkdtemp(prefix=_PARTIAL, dir=path.parent))
        except OSError as error:
            raise ArtifactError(
                f"cannot write to the artefact store {self.root}: {error}"
            ) from error
        try:
            yield partial
            files = {file.name: file_hash(file) for file in sorted(partial.iterdir())}
            description = {
                "kind": kind,
                "made_from": made_from,
                "made_on": host_facts(),
                "files": files,
            }
            (partial / DESCRIPTION).write_text(json.dumps(description, indent=1, sort_keys=True))
            partial.chmod(0o755)
            self._put(partial, path, kind, made_from)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
