"""Arms of a live run that were measured, kept until all are: a killed run goes on with them.

Each is one file in a folder of the results, written whole or not at all. What was measured is never
taken for another run: the folder is named by a hash of everything that a run depends on, and goes
when the results are there. The same command measures anew then.
"""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from models.errors import ArtifactError
from models.files import whole_file
from offramp.stages.jobs import Arm
from offramp.store import content_key
from sim.results.run import Run
from sim.workload.device_groups import Requests

#: Folder in a results folder.
LIVE_PARTS = ".live-parts"

_FORMAT = "offramp-live-part-2"
_REQUESTS = [field.name for field in fields(Requests)]
_RUN = [
    field.name for field in fields(Run) if field.name not in ("replication", "requests", "noted")
]


@dataclass(frozen=True)
class LivePart:
    """One replication of one arm, measured.

    Attributes:
        run: devices that joined are the last of all, in the order of ``joined``, their names.
        about: what else a reader of the results has to know: ``notes``, ``lag_ms``,
            ``same_clock``, and ``processors`` if nodes had some of their own.
    """

    run: Run
    joined: tuple[str, ...]
    about: dict[str, Any]


class PartsFolder:
    """The parts of one live run.

    Args:
        results: its results folder.
        key: hash of everything that the run depends on.
    """

    def __init__(self, results: Path, key: str) -> None:
        self._folder = results / LIVE_PARTS / key

    def path(self, arm: Arm, replication: int) -> Path:
        """Where a part lies, or would lie."""
        name = re.sub(r"[^A-Za-z0-9_.=-]+", "_", "-".join(map(str, arm)))[:100]
        # Names that differ in other letters alone are names of different arms.
        hash = content_key({"arm": list(arm)})[:8]
        return self._folder / f"{replication:03d}-{name}-{hash}.parquet"

    def read(self, arm: Arm, replication: int) -> LivePart | None:
        """A part, or None if it was not measured yet or its file is damaged."""
        try:
            return _read(self.path(arm, replication), arm, replication)
        except (OSError, ArtifactError):
            return None

    def write(self, arm: Arm, replication: int, part: LivePart) -> None:
        """Keep a part.

        Raises:
            OSError: it cannot be written.
        """
        about = {
            "format": _FORMAT,
            "arm": list(arm),
            "replication": replication,
            "joined": list(part.joined),
            "about": part.about,
        }
        run = part.run
        columns = {f"requests.{name}": getattr(run.requests, name) for name in _REQUESTS}
        columns |= {f"run.{name}": getattr(run, name) for name in _RUN}
        table = pa.table(columns).replace_schema_metadata({"offramp": json.dumps(about)})
        with whole_file(self.path(arm, replication)) as partial:
            pq.write_table(table, partial, compression="zstd")


def remove_parts(results: Path) -> None:
    """Remove all parts in a results folder, also those of runs that were given up."""
    shutil.rmtree(results / LIVE_PARTS, ignore_errors=True)


def _read(path: Path, arm: Arm, replication: int) -> LivePart:
    try:
        table = pq.read_table(path)
        about = json.loads((table.schema.metadata or {})[b"offramp"])
        columns = {name: table[name].to_numpy() for name in table.column_names}
        if [about["format"], about["arm"], about["replication"]] != [
            _FORMAT,
            list(arm),
            replication,
        ]:
            raise ArtifactError(f"{path} is another part")
        of_run: dict[str, Any] = {name: columns[f"run.{name}"] for name in _RUN}
        requests = Requests(*(columns[f"requests.{name}"] for name in _REQUESTS))
        run = Run(replication=replication, requests=requests, **of_run)
        return LivePart(run, tuple(about["joined"]), about["about"])
    except (pa.ArrowException, ValueError, KeyError, TypeError) as error:
        raise ArtifactError(f"{path} is damaged: {error}") from error
