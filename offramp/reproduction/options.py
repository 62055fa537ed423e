"""What a reproduction is asked to do, and where it works."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from offramp.reproduction.outcome import FIGURES_TABLE, OUTCOME, PAGE

#: In the output folder while work goes on; of one that was stopped, what was trained so far.
WORK = ".reproduction"

#: How a note about a changed file begins.
CHANGED = "Changed since the run:"


@dataclass(frozen=True)
class Options:
    """What a user chose.

    Attributes:
        output: folder to write to; None: that of the run with ``-again``.
        from_scratch: train all networks again, in a store of their own.
        files: folder of the files that the scenario names; None: where it was.
        accept_changes: go on with files that are not what they were.
        jobs: worker processes; None: as many as processors.
    """

    output: Path | None = None
    from_scratch: bool = False
    files: Path | None = None
    accept_changes: bool = False
    jobs: int | None = None


@contextmanager
def work_folder(output: Path) -> Iterator[Path]:
    """A folder for what is not kept; it stays, with what was trained so far, if work is stopped."""
    work = output.absolute() / WORK
    work.mkdir(parents=True, exist_ok=True)
    for name in (OUTCOME, FIGURES_TABLE, PAGE):  # of before: work that is stopped has no verdict
        (output / name).unlink(missing_ok=True)
    yield work
    shutil.rmtree(work, ignore_errors=True)
