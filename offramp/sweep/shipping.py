"""What calls need of the driver's disk, and bringing home what they made."""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from models.brought_files import brought_place
from models.errors import ArtifactError, OfframpError, ResultsError
from models.importing import code_beside, is_import_path, module_file
from offramp.experiment import user_file
from offramp.store import DESCRIPTION, Store, content_key, file_hash
from offramp.sweep.backend import Artefact
from offramp.sweep.mirror import Layout, Piece, put_folder

#: Bytes that are sent at once: what a scheduler has to hold for each worker.
PIECE_BYTES = 8 * 2**20


@dataclass(frozen=True)
class Luggage:
    """What a call takes along, by blob.

    Attributes:
        context: the pickled context.
        files: of the scenario, by their place in its folder.
        elsewhere: which of them lie elsewhere, and where, for messages.
        artefacts: files of each artefact.
    """

    context: str
    files: Layout = field(default_factory=dict)
    elsewhere: dict[str, str] = field(default_factory=dict)
    artefacts: dict[Artefact, Layout] = field(default_factory=dict)

    def blobs(self) -> list[str]:
        """All of them, each once."""
        layouts = [self.files, *self.artefacts.values()]
        found = dict.fromkeys(blob for layout in layouts for blob in layout.values())
        return [self.context, *(blob for blob in found if blob != self.context)]


class Packer:
    """Finds and reads what calls need, file by file.

    Args:
        folder: files that scenarios name are relative to it.
        store_root: of the driver's artefact store.
    """

    def __init__(self, folder: Path, store_root: Path) -> None:
        self._folder = folder
        self._store_root = store_root
        self._files: dict[str, list[tuple[str, Path]]] = {}
        self._hashes: dict[Path, tuple[tuple[int, int], str]] = {}
        self._sources: dict[str, Path | bytes] = {}

    def add(self, content: bytes) -> str:
        """Make a blob of what is in memory; return which."""
        blob = hashlib.sha256(content).hexdigest()
        self._sources[blob] = content
        return blob

    def files(self, *data: Any) -> dict[str, Path]:
        """Every file that a text in ``data`` names, at any depth, by its place among files brought.

        Beside code, other code too.
        """
        return {place: path for text in texts_in(data) for place, path in self._files_of(text)}

    def layout(self, files: dict[str, Path]) -> Layout:
        """Blobs of files, by their place."""
        return {place: self.blob(path) for place, path in files.items()}

    def artefact(self, artefact: Artefact) -> Layout:
        """The files of an artefact in the driver's store.

        Raises:
            ArtifactError: it is not there (any more).
        """
        path = self._store_root.joinpath(*artefact)
        try:
            description = json.loads((path / DESCRIPTION).read_text(encoding="utf-8"))
            return self.layout({name: path / name for name in (DESCRIPTION, *description["files"])})
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ArtifactError(f"artefact {path} is damaged or gone: {error}") from error

    def pieces(self, blobs: Iterable[str]) -> Iterator[list[Piece]]:
        """The contents of blobs, in parts of at most :data:`PIECE_BYTES`.

        Raises:
            ResultsError: a file was changed since it was first read.
        """
        parts: list[Piece] = []
        room = PIECE_BYTES
        for blob in blobs:
            content = self._read(blob)
            start = 0
            while True:
                part = content[start : start + room]
                parts.append(Piece(blob, start, len(content), part))
                start, room = start + len(part), room - len(part)
                if room == 0:
                    yield parts
                    parts, room = [], PIECE_BYTES
                if start == len(content):
                    break
        if parts:
            yield parts

    def _read(self, blob: str) -> bytes:
        source = self._sources[blob]
        if isinstance(source, bytes):
            return source
        try:
            content = source.read_bytes()
        except OSError as error:
            raise ResultsError(f"cannot read {source} again: {error.strerror}") from error
        if hashlib.sha256(content).hexdigest() != blob:
            raise ResultsError(
                f"{source} was changed while the sweep was running: start it again, and what "
                "depends on that file is run anew"
            )
        return content

    def blob(self, path: Path) -> str:
        """Hash of a file, taken anew only if it looks changed."""
        status = path.stat()
        looks = (status.st_mtime_ns, status.st_size)
        known = self._hashes.get(path)
        if known is None or known[0] != looks:
            self._hashes[path] = known = (looks, file_hash(path))
            self._sources[known[1]] = path
        return known[1]

    def _files_of(self, text: str) -> list[tuple[str, Path]]:
        found = self._files.get(text)
        if found is None:
            found = self._files[text] = list(named_by(text, self._folder))
        return found


def texts_in(data: Any) -> Iterator[str]:
    """Every text in nested mappings and sequences, keys left out."""
    if isinstance(data, str):
        yield data
    elif isinstance(data, dict):
        for value in data.values():
            yield from texts_in(value)
    elif isinstance(data, list | tuple):
        for value in data:
            yield from texts_in(value)


def named_by(text: str, folder: Path) -> Iterator[tuple[str, Path]]:
    """The files that a text of a scenario names, with their places among files brought along.

    None for most texts. Code (``file.py:Name``) comes with all code beside it, which it may import.
    """
    name, path = text, None
    if is_import_path(text) and text.partition(":")[0].endswith(".py"):
        name, path = text.partition(":")[0], module_file(text, folder)
    try:
        path = path or user_file(name, folder)
        if not name or not path.is_file():
            return
    except (OSError, ValueError, OfframpError):
        return  # too long for a name, or with a variable that is not set: none that can be read
    place = brought_place(name)
    yield place.as_posix(), path
    if path.suffix == ".py":
        # Packages beside it, too, where it imports them.
        for beside in sorted({*path.parent.glob("*.py"), *code_beside(path)} - {path}):
            if beside.is_file():
                yield (place.parent / beside.relative_to(path.parent)).as_posix(), beside


# --- on the way home -----------------------------------------------------------------------------


def pack_artefact(store_root: Path, artefact: Artefact) -> dict[str, bytes]:
    """The files of an artefact, by name; none if it is not there."""
    folder = store_root.joinpath(*artefact)
    if not (folder / DESCRIPTION).is_file():
        return {}
    return {file.name: file.read_bytes() for file in sorted(folder.iterdir())}


def unpack_artefact(store_root: Path, artefact: Artefact, files: dict[str, bytes]) -> None:
    """Put an artefact that a worker made into a store, unless it was made there meanwhile.

    Raises:
        ArtifactError: it is not what it says, or cannot be written.
    """
    kind, key = artefact
    try:
        description = json.loads(files[DESCRIPTION])
        hashes = {
            name: hashlib.sha256(content).hexdigest()
            for name, content in files.items()
            if name != DESCRIPTION
        }
        whole = description["files"] == hashes and content_key(description["made_from"]) == key
    except (ValueError, KeyError, TypeError):
        whole = False
    if not whole or any("/" in name for name in files):
        raise ArtifactError(f"a worker sent a damaged artefact {kind}/{key}")
    if Store(store_root).at(kind, key):
        return
    path = store_root / kind / key
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = Path(tempfile.mkdtemp(prefix=".partial-", dir=path.parent))
        try:
            for name, content in files.items():
                (partial / name).write_bytes(content)
            partial.chmod(0o755)
            put_folder(partial, path)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
    except OSError as error:
        raise ArtifactError(f"cannot write to the artefact store {store_root}: {error}") from error
