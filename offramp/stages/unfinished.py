"""Trainings that were stopped: their last state is kept in the artefact store."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from models.files import remove_old
from models.training.regimes import Phase
from models.training.train import TrainingCurve
from models.training.training_state import TrainingState, read_state, write_state
from offramp.console import Console
from offramp.store import Store, content_key

#: A state is kept after so many seconds, and all that is lost is what came after it.
KEEP_EVERY_S = 60.0

#: Nobody comes back to a training after this.
_FORGOTTEN_AFTER_S = 30 * 24 * 3600


class UnfinishedTraining:
    """The state of one training, kept until it is finished; of a phase, a ``StateKeeper``.

    Attributes:
        phase: number of the phase in which it goes on, and ``curve`` that of the phases before.
    """

    def __init__(self, store: Store, made_from: dict[str, Any], console: Console) -> None:
        self._path = store.root / "unfinished" / f"{content_key(made_from)}.safetensors"
        self._console = console
        self._kept_s = time.monotonic()
        self.phase, self.curve = 0, TrainingCurve()
        self._state: TrainingState | None = None
        found = read_state(self._path)
        if found is not None:
            self._state, about = found
            self.phase, self.curve = about["phase"], TrainingCurve(**about["curve"])
            console.note(f"goes on with a training that was stopped ({self._path})")

    def steps_done(self, phases: Sequence[Phase]) -> int:
        """Steps of all phases that need not be done again."""
        before = sum(phase.steps for phase in phases[: self.phase])
        return before + (self._state.step if self._state else 0)

    def of_phase(self, number: int, curve: TrainingCurve) -> UnfinishedTraining:
        """For a phase that begins, or goes on, now.

        Args:
            curve: of the phases before.
        """
        self.phase, self.curve = number, curve
        return self

    def take(self) -> TrainingState | None:
        """See :class:`models.training.training_state.StateKeeper`.

        There is one for the phase in which the training goes on.
        """
        state, self._state = self._state, None
        return state

    def is_due(self) -> bool:
        """See :class:`models.training.training_state.StateKeeper`."""
        return time.monotonic() >= self._kept_s + KEEP_EVERY_S

    def keep(self, state: TrainingState) -> None:
        """See :class:`models.training.training_state.StateKeeper`."""
        try:
            write_state(self._path, state, {"phase": self.phase, "curve": asdict(self.curve)})
            # States of other trainings, too, and what is half-written.
            remove_old(self._path.parent.iterdir(), _FORGOTTEN_AFTER_S)
        except OSError as error:
            # The training is worth more than what it could go on from.
            self._console.note(f"the state of the training is not kept in {self._path}: {error}")
        self._kept_s = time.monotonic()

    def forget(self) -> None:
        """The training has come to its end."""
        self._path.unlink(missing_ok=True)
