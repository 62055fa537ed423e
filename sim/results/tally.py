"""What became of the requests of a measured window, counted."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from sim.distributions import Floats
from sim.outcomes import ON_TIME, OUTCOMES


class Tally:
    """Counts requests that come in slices.

    Args:
        warm_up_s: requests created before it are left out.
        duration_s: of the measured window.
    """

    def __init__(self, warm_up_s: float, duration_s: float) -> None:
        self._window_s = (warm_up_s, duration_s)
        self._outcomes = np.zeros(len(OUTCOMES), dtype=np.int64)
        self._answered = self._correct = self._correct_on_time = 0

    def add(
        self,
        created_s: Floats,
        received_s: Floats,
        exit: NDArray[np.integer],
        correct: NDArray[np.bool_],
        outcome: NDArray[np.integer],
    ) -> tuple[Floats, NDArray[np.bool_]]:
        """Take in a slice of finished requests; arrays of length N.

        Args:
            received_s: of answers; ignored where there was none.
            exit: that answered; 0 if none did.
            outcome: index into :data:`sim.outcomes.OUTCOMES`.

        Returns:
            (A,) seconds that the answers of the window took, and whether each was of a request
            created in its first quarter.
        """
        warm_up_s, duration_s = self._window_s
        measured = created_s >= warm_up_s
        answered = measured & (exit > 0)
        on_time = measured & (outcome == ON_TIME)
        self._outcomes += np.bincount(outcome[measured], minlength=len(OUTCOMES))
        self._answered += int(np.count_nonzero(answered))
        self._correct += int(np.count_nonzero(correct & answered))
        self._correct_on_time += int(np.count_nonzero(correct & on_time))
        created_s = created_s[answered]
        return received_s[answered] - created_s, created_s < warm_up_s + duration_s / 4

    def merge(self, other: Tally) -> None:
        """Take in what another tally of the same window counted.

        Raises:
            ValueError: the windows differ.
        """
        if self._window_s != other._window_s:
            raise ValueError("only requests of the same window can be counted together")
        self._outcomes += other._outcomes
        self._answered += other._answered
        self._correct += other._correct
        self._correct_on_time += other._correct_on_time

    def metrics(self) -> dict[str, float]:
        """Those of :func:`sim.results.metrics.run_metrics` that are not latencies."""
        offered = int(self._outcomes.sum())
        outcomes = dict(zip(OUTCOMES, self._outcomes.tolist(), strict=True))
        return {
            "offered": offered,
            "answered": self._answered,
            **outcomes,
            "aud": _ratio(self._correct_on_time, offered),
            "hit_ratio": _ratio(outcomes["on_time"], offered),
            "accuracy": _ratio(self._correct, self._answered),
        }


def _ratio(part: float, whole: float) -> float:
    return part / whole if whole else math.nan
