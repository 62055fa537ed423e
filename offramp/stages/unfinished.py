"""Trainings that were stopped: their last state is kept in the artefact store."""

from __future__ import annotations

import time
from dataclasses import asdict
from typing import Any

from models.training import TrainingCurve
from models.training_state import TrainingState, read_state, write_state
from offramp.console import Console
from offramp.store import Store, content_key

#: A state is kept after so many seconds, and all that is lost is what came after it.
KEEP_EVERY_S = 60.0


class UnfinishedTraining:
    """The state of one training, kept until it is finished; of a phase, a ``StateKeeper``.

    Attributes:
        phase: number of the phase in which it goes on, and ``curve`` that of the phases before.
        state: in that phase; None: it begins.
    """

    def __init__(self, store: Store, made_from: dict[str, Any], console: Console) -> None:
        self._path = store.root / "unfinished" / f"{content_key(made_from)}.pt"
        self._console = console
        self._kept_s = time.monotonic()
        self.phase, self.curve = 0, TrainingCurve()
        self.state: TrainingState | None = None
        found = read_state(self._path)
        if found is not None:
            self.state, about = found
            self.phase, self.curve = about["phase"], TrainingCurve(**about["curve"])
            console.note(f"goes on with a training that was stopped ({self._path})")

    def of_phase(self, number: int, curve: TrainingCurve) -> UnfinishedTraining:
        """For a phase that begins, or goes on, now.

        Args:
            curve: of the phases before.
        """
        if number != self.phase:
            self.state = None
        self.phase, self.curve = number, curve
        return self

    def is_due(self) -> bool:
        """See :class:`models.training_state.StateKeeper`."""
        return time.monotonic() >= self._kept_s + KEEP_EVERY_S

    def keep(self, state: TrainingState) -> None:
        """See :class:`models.training_state.StateKeeper`."""
        self._kept_s = time.monotonic()
        try:
            write_state(self._path, state, {"phase": self.phase, "curve": asdict(self.curve)})
        except OSError as error:
            # The training is worth more than what it could go on from.
            self._console.note(f"the state of the training is not kept in {self._path}: {error}")

    def forget(self) -> None:
        """The training has come to its end."""
        self._path.unlink(missing_ok=True)
