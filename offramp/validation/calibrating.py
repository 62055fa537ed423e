"""When a session is calibrated, and which of its calibrations are of the time of a replication.

A machine that others share is faster now and slower then. So each replication is simulated with
what was measured just before, within and just after it.
"""

from __future__ import annotations

import math
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from models.errors import ArtifactError
from offramp.live.session import LiveSession
from offramp.validation.calibration import (
    DESCRIPTION,
    Calibration,
    pooled,
    read_calibration,
    write_calibration,
)
from offramp.words import enumerated

#: After so many seconds of measuring, what is calibrated may be otherwise.
CALIBRATE_EVERY_S = 30.0

#: Folders within that of the pooled calibration, with the number of each.
_MEASURED, _REPLICATION = "measured-", "replication-"

#: Of what is told about a calibration: how many arms of the run lay before it.
_ARMS_BEFORE = "arms_before"


class Calibrating:
    """Calibrates before the first arm, after the last one, and now and then between them.

    Each calibration is written beneath ``folder``, and all of them, pooled, into it.

    Attributes:
        measured: all of this validation; none where one was given.

    Args:
        given: one that was made before: then none is measured.
        kept: of the same validation, before it was interrupted.
        measure: makes one.
        clock: seconds.
    """

    def __init__(
        self,
        folder: Path,
        given: Calibration | None,
        kept: Sequence[Calibration],
        measure: Callable[[LiveSession], Calibration],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.measured = list(kept)
        self._folder = folder
        self._given = given
        self._measure = measure
        self._clock = clock
        self._measured_at = -math.inf

    def __call__(self, session: LiveSession, arms_before: int, over: bool) -> None:
        """See :func:`offramp.live.run.run_live`."""
        if self._given is not None:
            write_calibration(self._folder, self._given)
        elif over or self._clock() - self._measured_at > CALIBRATE_EVERY_S:
            calibration = self._measure(session)
            self._measured_at = self._clock()
            calibration.about[_ARMS_BEFORE] = arms_before
            if self.measured and self.measured[-1].about[_ARMS_BEFORE] > arms_before:
                self.measured.clear()  # arms of another run, which begins anew
            if not self.measured:
                _remove_parts(self._folder)
            write_calibration(self._folder / f"{_MEASURED}{len(self.measured)}", calibration)
            self.measured.append(calibration)
            write_calibration(self._folder, pooled(self.measured))


def _remove_parts(folder: Path) -> None:
    """Remove what is beneath, of an earlier validation."""
    for name in (_MEASURED, _REPLICATION):
        for path in folder.glob(f"{name}*"):
            shutil.rmtree(path)


def read_measured(folder: Path, **of: str) -> list[Calibration]:
    """The calibrations that were measured, in their order.

    Args:
        of: what they must be of, such as a profile, by the name that it has in their ``about``.

    Raises:
        ArtifactError: one is damaged, of another version, or of something else.
    """
    names = (path.parent.name for path in folder.glob(f"{_MEASURED}*/{DESCRIPTION}"))
    numbers = (name.removeprefix(_MEASURED) for name in names)
    of_ours = sorted(int(number) for number in numbers if number.isdecimal())
    measured = [read_calibration(folder / f"{_MEASURED}{number}") for number in of_ours]
    unlike = [name for name in of if any(it.about.get(name) != of[name] for it in measured)]
    if unlike:
        raise ArtifactError(f"{folder}: calibrated with another {enumerated(unlike)}")
    return measured


def around(calibrations: Sequence[Calibration], first: int, end: int) -> Calibration:
    """What was measured around some arms: from just before the first until just after the last.

    Args:
        calibrations: of a validation, in their order.
        first, end: numbers of the first arm and of the one behind the last.
    """
    before = [calibration.about[_ARMS_BEFORE] for calibration in calibrations]
    start = max((number for number, it in enumerate(before) if it <= first), default=0)
    last = min((number for number, it in enumerate(before) if it >= end), default=len(before) - 1)
    return pooled(calibrations[start : last + 1])


def write_around(
    folder: Path, calibrations: Sequence[Calibration], replications: int, arms: int
) -> Iterator[tuple[Path, Calibration]]:
    """Write what was measured around each replication; yields its folder and the calibration.

    Args:
        calibrations: of a validation, in their order; nothing is written for none.
        arms: in each replication.

    Raises:
        OSError: it cannot be written.
    """
    for replication in range(replications if calibrations else 0):
        first = replication * arms
        of_its_time = around(calibrations, first, first + arms)
        path = folder / f"{_REPLICATION}{replication}"
        write_calibration(path, of_its_time)
        yield path, of_its_time
