"""What a worker keeps that has no access to the driver's disk: files of the scenario, artefacts.

All comes as *blobs*: contents of files, addressed by their SHA-256, each sent once. From them are
made, by linking, a folder with the files that the scenario names, and a store that holds, of the
driver's artefacts, those that were needed, and what the worker itself makes.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
import uuid
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from models.errors import ArtifactError
from offramp.store import file_hash
from offramp.sweep.backend import Artefact

#: The file in a folder that says which folder it is.
IDENTITY = "identity"

_PARTIAL = ".partial-"

#: Names of files, relative to a folder, and their blobs.
Layout = dict[str, str]


@dataclass(frozen=True)
class Piece:
    """A part of a blob on its way.

    Attributes:
        start: bytes before it.
        size: bytes of the whole blob.
    """

    blob: str
    start: int
    size: int
    content: bytes


class MissingBlobsError(Exception):
    """The mirror does not hold (any more) what a call needs: it must be sent."""

    def __init__(self, blobs: Iterable[str]) -> None:
        super().__init__(sorted(blobs))
        self.blobs = frozenset(blobs)


class Mirror:
    """A folder that stands in for the disk of one driver. Safe to use from several processes."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.store_root = root / "store"
        self._blobs = root / "blobs"
        self._placed: dict[Artefact, Layout] = {}
        self._checked: set[tuple[Path, int, int, int, str]] = set()

    def identity(self) -> str:
        """What tells this folder from all others: workers that share a disk share a mirror."""
        return identity_in(self.root)

    def blobs(self) -> frozenset[str]:
        """The blobs that are here."""
        with suppress(FileNotFoundError):
            return frozenset(name for name in os.listdir(self._blobs) if name[0] != ".")
        return frozenset()

    def read(self, blob: str) -> bytes:
        """The content of a blob.

        Raises:
            MissingBlobsError: it is not here.
        """
        try:
            return (self._blobs / blob).read_bytes()
        except FileNotFoundError:
            raise MissingBlobsError([blob]) from None

    def take_in(self, pieces: list[Piece], sender: str) -> None:
        """Write pieces down; a blob is here once its last piece is.

        Args:
            sender: tells pieces of one sending from those of another.

        Raises:
            ArtifactError: a blob is not what was sent.
        """
        self._blobs.mkdir(parents=True, exist_ok=True)
        for piece in pieces:
            path = self._blobs / f"{_PARTIAL}{piece.blob}-{sender}"
            with path.open("ab" if piece.start else "wb") as file:
                file.write(piece.content)
            if piece.start + len(piece.content) < piece.size:
                continue
            try:
                if file_hash(path) != piece.blob:
                    raise ArtifactError("what was received is not what was sent")
                os.replace(path, self._blobs / piece.blob)
            finally:
                path.unlink(missing_ok=True)

    def keep(self, file: Path) -> str:
        """Make a blob of a file; return which."""
        blob = file_hash(file)
        path = self._blobs / blob
        if not path.exists():
            self._blobs.mkdir(parents=True, exist_ok=True)
            partial = self._blobs / f"{_PARTIAL}{uuid.uuid4().hex}"
            try:
                _link(file, partial)
                os.replace(partial, path)
            finally:
                partial.unlink(missing_ok=True)
        return blob

    def folder(self, layout: Layout) -> Path:
        """A folder with the files of a scenario, as they lie in the driver's folder.

        Raises:
            MissingBlobsError: some are not here.
        """
        text = json.dumps(layout, sort_keys=True)
        path = self.root / "scenarios" / hashlib.sha256(text.encode()).hexdigest()[:24]
        if not path.is_dir():
            self._lay_out(layout, path)
        return path.resolve()

    def place_artefact(self, artefact: Artefact, layout: Layout) -> bool:
        """Put an artefact of the driver's into the store, instead of one that differs.

        Returns:
            Whether this process had it before with other content.

        Raises:
            MissingBlobsError: some of its files are not here.
        """
        path = self.store_root.joinpath(*artefact)
        if not all(self._is(path / name, blob) for name, blob in layout.items()):
            self._lay_out(layout, path)
        before = self._placed.setdefault(artefact, layout)
        self._placed[artefact] = layout
        return before != layout

    def _lay_out(self, layout: Layout, path: Path) -> None:
        blobs = {blob: self._blobs / blob for blob in layout.values()}
        damaged = [blob for blob, file in blobs.items() if not self._is(file, blob)]
        if damaged:
            raise MissingBlobsError(damaged)
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = Path(tempfile.mkdtemp(prefix=_PARTIAL, dir=path.parent))
        try:
            for name, blob in layout.items():
                file = partial / name
                file.parent.mkdir(parents=True, exist_ok=True)
                _link(blobs[blob], file)
            partial.chmod(0o755)
            put_folder(partial, path)
        except FileNotFoundError as error:  # the mirror is being cleared
            raise MissingBlobsError(blobs) from error
        finally:
            shutil.rmtree(partial, ignore_errors=True)

    def _is(self, file: Path, blob: str) -> bool:
        """Whether a file has the content that is expected: read whole once in each process."""
        try:
            status = file.stat()
            looks = (file, status.st_ino, status.st_mtime_ns, status.st_size, blob)
            if looks not in self._checked:
                if file_hash(file) != blob:
                    return False
                self._checked.add(looks)
        except FileNotFoundError:
            return False
        return True


def _link(source: Path, target: Path) -> None:
    """The same file under another name; a copy, where the disk has no hard links."""
    try:
        os.link(source, target)
    except FileNotFoundError:
        raise
    except OSError:
        shutil.copyfile(source, target)


def put_folder(partial: Path, path: Path) -> None:
    """Rename a folder to ``path``; what may lie there is first put away."""
    for _ in range(100):
        try:
            partial.rename(path)
            return
        except OSError:
            if not path.exists():
                raise
        away = Path(tempfile.mkdtemp(prefix=_PARTIAL, dir=path.parent))
        with suppress(FileNotFoundError):  # another process was first
            path.rename(away / path.name)
        shutil.rmtree(away, ignore_errors=True)
    raise ArtifactError(f"{path} is put there by others again and again")


def identity_in(folder: Path) -> str:
    """A word that tells a folder from all others, wherever it is seen from; made on first use."""
    file = folder / IDENTITY
    if not file.exists():
        folder.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=_PARTIAL, dir=folder)
        with os.fdopen(handle, "w") as partial:
            partial.write(uuid.uuid4().hex)
        try:
            with suppress(FileExistsError):  # another process was first
                os.link(name, file)
        except OSError:  # a disk without hard links
            os.replace(name, file)
        Path(name).unlink(missing_ok=True)
    return file.read_text()
