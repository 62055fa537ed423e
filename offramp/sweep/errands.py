"""What a Dask worker does for the driver of a sweep.

A task is ``pickle.loads`` of bytes whose loading calls one of these functions: neither the
scheduler nor a worker without Offramp has to know them to pass them on, or to say what is wrong.
"""

from __future__ import annotations

import pickle
import platform
import socket
import sys
import threading
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field, is_dataclass, replace
from functools import cache, lru_cache
from importlib import metadata
from pathlib import Path
from typing import Any

import distributed

from models.errors import ArtifactError, OfframpError
from models.files import try_to_write
from offramp.store import default_root
from offramp.sweep.backend import Artefact
from offramp.sweep.mirror import IDENTITY, Mirror, Piece
from offramp.sweep.point import forget
from offramp.sweep.shipping import Luggage, pack_artefact
from offramp.sweep.training import Made
from offramp.sweep.versions import PACKAGES, code_hash


class WorkerTroubleError(OfframpError):
    """A worker cannot keep what it is sent: its disk is full, or nothing can be written."""


class Later:
    """A call that is made where this is unpickled."""

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self._call = (function, arguments)

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return self._call


def errand(function: Callable[..., Any], *arguments: Any) -> bytes:
    """Bytes that call ``function`` where they are unpickled."""
    return pickle.dumps(Later(function, *arguments), protocol=5)


# --- on joining ----------------------------------------------------------------------------------


def ask_versions() -> bytes:
    """What asks any worker for its versions, by name; Offramp need not be there.

    Raises, where it is unpickled:
        PackageNotFoundError: a package is not installed; its argument is the name.
    """
    packages = {name: Later(metadata.version, name) for name in PACKAGES}
    return pickle.dumps({"python": Later(platform.python_version), **packages}, protocol=5)


@dataclass(frozen=True)
class Joined:
    """A worker that may be given work.

    Attributes:
        code: hash of Offramp's code there.
        shares_store: it sees the driver's artefact store.
        mirror: identity of the folder in which it keeps what it is sent.
        blobs: what it has there.
    """

    code: str
    shares_store: bool
    mirror: str
    blobs: frozenset[str]


def join(store_root: Path, identity: str) -> Joined:
    """Say who one is, and what one has of the driver's files.

    Args:
        identity: of the driver's store.

    Raises:
        WorkerTroubleError: this worker can write nowhere.
    """
    mirror = _mirror(identity)
    shares_store = _is_store(store_root, identity)
    try:
        return Joined(code_hash(), shares_store, mirror.identity(), mirror.blobs())
    except OSError as error:
        raise _trouble(mirror, error) from error


def _is_store(root: Path, identity: str) -> bool:
    try:
        return (root / IDENTITY).read_text() == identity
    except OSError:
        return False


@cache
def _mirror(identity: str) -> Mirror:
    """Where this worker keeps what it is sent: in its user's store, or else where Dask lets it."""
    root = default_root() / "mirrors" / identity
    try:
        try_to_write(root)
    except OSError:
        root = Path(distributed.get_worker().local_directory) / "offramp" / identity
    return Mirror(root)


def _trouble(mirror: Mirror, error: Exception) -> WorkerTroubleError:
    return WorkerTroubleError(
        f"cannot keep what it is sent in {mirror.root} on {socket.gethostname()}: {error}"
    )


# --- being sent what a call needs ----------------------------------------------------------------


def receive(identity: str, pieces: list[Piece], sender: str) -> None:
    """Take in parts of blobs.

    Raises:
        WorkerTroubleError: they cannot be kept.
    """
    mirror = _mirror(identity)
    try:
        mirror.take_in(pieces, sender)
    except (OSError, ArtifactError) as error:
        raise _trouble(mirror, error) from error


# --- calls ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Task:
    """A call as it is sent.

    Attributes:
        function: pickled.
        arguments: pickled, all but the first.
        context: the first argument, pickled; or None where it is a blob.
        luggage: what it needs, where the worker does not see the driver's disk.
        makes: artefacts to send back.
        identity: of the driver's store.
        folder, store_root: the driver's, named in messages instead of the worker's own.
        shares_store: whether the worker sees the driver's store.
    """

    function: bytes
    arguments: bytes
    context: bytes | None
    luggage: Luggage | None
    makes: tuple[Artefact, ...]
    identity: str
    folder: Path
    store_root: Path
    shares_store: bool


@dataclass(frozen=True)
class Answer:
    """What came of a call.

    Attributes:
        value: what the function returned.
        artefacts: what it made, file by file.
        blobs: what the worker now has.
        raised: text and exception, where it raised one.
        wall_s: seconds that it took.
    """

    value: Any = None
    artefacts: dict[Artefact, dict[str, bytes]] = field(default_factory=dict)
    blobs: frozenset[str] = frozenset()
    raised: tuple[str, BaseException | None] | None = None
    wall_s: float = 0.0


#: Trainings and simulations are not made to run in several threads of a process.
_ONE_AT_A_TIME = threading.Lock()


def work(task: Task) -> bytes:
    """Do one call; return the pickled :class:`Answer`.

    Raises:
        MissingBlobsError: something that the call needs is not here.
        WorkerTroubleError: what it needs cannot be laid out on this worker's disk.
    """
    with _ONE_AT_A_TIME:
        function = pickle.loads(task.function)
        arguments = pickle.loads(task.arguments)
        if task.luggage is None:
            assert task.context is not None
            return _pickled(_called(function, (_context(task.context), *arguments)))
        mirror = _mirror(task.identity)
        try:
            folder = mirror.folder(task.luggage.files)
            artefacts = task.luggage.artefacts.items()
            changed = [mirror.place_artefact(artefact, layout) for artefact, layout in artefacts]
            context = _context(mirror.read(task.luggage.context))
        except (OSError, ArtifactError) as error:
            raise _trouble(mirror, error) from error
        if any(changed):
            forget()
        _forget_other_code(mirror, folder)
        store_root = task.store_root if task.shares_store else mirror.store_root
        answer = _called(function, (context.moved(folder, store_root), *arguments))
        if isinstance(answer.value, Made) and answer.value.disk_full and not task.shares_store:
            raise WorkerTroubleError(f"{answer.value.error} (on {socket.gethostname()})")
        theirs = {f"{folder}/{place}": path for place, path in task.luggage.elsewhere.items()}
        theirs |= {str(folder): str(task.folder), str(store_root): str(task.store_root)}
        value = _as_if_there(answer.value, theirs)
        if task.shares_store:
            return _pickled(replace(answer, value=value))
        try:
            made = {artefact: pack_artefact(store_root, artefact) for artefact in task.makes}
            made = {artefact: files for artefact, files in made.items() if files}
            blobs = frozenset(
                mirror.keep(store_root.joinpath(*artefact, name))
                for artefact, files in made.items()
                for name in files
            )
        except OSError as error:
            raise _trouble(mirror, error) from error
        return _pickled(replace(answer, value=value, artefacts=made, blobs=blobs))


@lru_cache(maxsize=4)
def _context(pickled: bytes) -> Any:
    return pickle.loads(pickled)


def _called(function: Callable[..., Any], arguments: tuple[Any, ...]) -> Answer:
    start = time.perf_counter()
    try:
        value = function(*arguments)
    except BaseException as error:
        # Functions return their errors. What they raise is a defect, and told as one.
        return Answer(raised=(traceback.format_exc(), error))
    return Answer(value, wall_s=time.perf_counter() - start)


def _pickled(answer: Answer) -> bytes:
    try:
        return pickle.dumps(answer, protocol=5)
    except Exception as error:
        text = traceback.format_exc() if answer.raised is None else answer.raised[0]
        return pickle.dumps(Answer(raised=(f"{text}\n({error})", None)), protocol=5)


def _as_if_there(value: Any, places: dict[str, str]) -> Any:
    """A result whose errors name files as the driver knows them."""
    if isinstance(value, str):
        for here, there in places.items():
            value = value.replace(here, there)
        return value
    if isinstance(value, list):
        return [_as_if_there(item, places) for item in value]
    error = getattr(value, "error", None)
    if isinstance(error, str) and is_dataclass(value) and not isinstance(value, type):
        return replace(value, error=_as_if_there(error, places))
    return value


_last_folder: Path | None = None


def _forget_other_code(mirror: Mirror, folder: Path) -> None:
    """Drop modules that user's code imported from beside itself, in another folder of the mirror.

    A worker outlives a sweep, and the next may bring a module of the same name and other content.
    """
    global _last_folder
    if folder == _last_folder:
        return
    _last_folder = folder
    root = str(mirror.root.resolve())
    for name, module in list(sys.modules.items()):
        if (getattr(module, "__file__", None) or "").startswith(root):
            del sys.modules[name]
    sys.path[:] = [entry for entry in sys.path if not entry.startswith(root)]
