"""Calls for tests of sweeps on workers: what they find there, and ways to end."""

from __future__ import annotations

import os
import signal
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from models.importing import import_callable
from offramp.experiment import user_file
from offramp.store import Store
from offramp.sweep.errands import Joined, join
from offramp.sweep.training import Made


@dataclass(frozen=True)
class Somewhere:
    """A context as backends know it."""

    folder: Path
    store_root: Path
    data: dict[str, Any]

    def moved(self, folder: Path, store_root: Path) -> Somewhere:
        return replace(self, folder=folder, store_root=store_root)


@dataclass(frozen=True)
class Result:
    error: str | None


def join_from_elsewhere(store_root: Path, identity: str) -> Joined:
    """Join as a worker on another machine, which does not see the driver's store."""
    return join(Path("/nowhere"), identity)


def square(context: Somewhere, number: int) -> tuple[int, int]:
    time.sleep(0.01)
    return number * number, os.getpid()


def read_files(context: Somewhere, names: list[str], code: list[str]) -> dict[str, str]:
    texts = {name: user_file(name, context.folder).read_text() for name in names}
    return texts | {name: import_callable(name, context.folder)() for name in code}


def places(context: Somewhere, names: list[str]) -> list[Result]:
    return [Result(f"{user_file(name, context.folder)}: bad") for name in names]


def read_artefact(context: Somewhere, kind: str, key: str) -> bytes:
    found = Store(context.store_root).at(kind, key)
    assert found
    return (found / "content").read_bytes()


def make_artefact(context: Somewhere, made_from: dict[str, Any], content: bytes) -> str:
    with Store(context.store_root).make("made", made_from) as folder:
        (folder / "content").write_bytes(content)
    return str(context.store_root)


def make_where_there_is_room(context: Somewhere, full: str) -> Made:
    """Make an artefact, unless this worker is that whose disk is full."""
    if Path.home().name == full:
        return Made("[Errno 28] No space left on device", disk_full=True)
    make_artefact(context, {"full": full}, b"made")
    return Made()


def die_of(context: Somewhere, number: int, deadly: int) -> int:
    if number == deadly:
        os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(0.02)
    return number


def die_once(context: Somewhere, number: int, marks: str) -> int:
    """End the process the first time that this is tried."""
    mark = Path(marks, str(number))
    if not mark.exists():
        mark.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return number


def run_out_of_memory(context: Somewhere) -> None:
    raise MemoryError


def divide_by_zero(context: Somewhere) -> float:
    return 1 / 0


def tasks(dask_scheduler: Any) -> int:
    """How many a scheduler knows of."""
    return len(dask_scheduler.tasks)
