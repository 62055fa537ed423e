"""What became of the requests of each device, counted over a run that comes in slices."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from sim.distributions import Floats
from sim.outcomes import ON_TIME, OUTCOMES
from sim.results.run import Run
from sim.world import World


@dataclass
class OutcomeCounts:
    """Of the requests of the measured window, by owner: arrays of length D.

    Attributes:
        outcomes: (D, outcomes) of :data:`sim.outcomes.OUTCOMES`.
        correct_on_time: that count for AUD.
        answered, latency_s: answers, and the sum of their latencies.
    """

    outcomes: NDArray[np.int64]
    correct_on_time: NDArray[np.int64]
    answered: NDArray[np.int64]
    latency_s: Floats

    @staticmethod
    def none(owners: int) -> OutcomeCounts:
        """Nothing yet."""
        return OutcomeCounts(
            np.zeros((owners, len(OUTCOMES)), dtype=np.int64),
            np.zeros(owners, dtype=np.int64),
            np.zeros(owners, dtype=np.int64),
            np.zeros(owners),
        )

    def add(
        self,
        owner: NDArray[np.integer],
        created_s: Floats,
        received_s: Floats,
        correct: NDArray[np.bool_],
        outcome: NDArray[np.integer],
    ) -> None:
        """Take in requests; arrays of length N.

        Args:
            owner: index of the device or group of each.
            created_s, received_s: NaN where no answer came.
            outcome: index into :data:`sim.outcomes.OUTCOMES`.
        """
        owners, kinds = self.outcomes.shape
        counts = np.bincount(owner * kinds + outcome, minlength=owners * kinds)
        self.outcomes += counts.reshape(owners, kinds)
        in_aud = correct & (outcome == ON_TIME)
        self.correct_on_time += np.bincount(owner[in_aud], minlength=owners)
        latency_s = received_s - created_s
        answered = ~np.isnan(latency_s)
        owner, latency_s = owner[answered], latency_s[answered]
        self.answered += np.bincount(owner, minlength=owners)
        self.latency_s += np.bincount(owner, weights=latency_s, minlength=owners)

    def add_part(self, world: World, part: Run) -> None:
        """Take in a slice of a run, by device; the warm-up is left out."""
        rows = part.measured(world)
        requests = part.requests.where(rows)
        self.add(
            requests.device,
            requests.created_s,
            np.where(part.answered, part.received_s, np.nan)[rows],
            part.correct[rows],
            part.outcome[rows],
        )

    def plus(self, other: OutcomeCounts) -> OutcomeCounts:
        """Those of two runs together."""
        return OutcomeCounts(
            self.outcomes + other.outcomes,
            self.correct_on_time + other.correct_on_time,
            self.answered + other.answered,
            self.latency_s + other.latency_s,
        )

    def of_groups(self, world: World) -> OutcomeCounts:
        """Of each device group, from those of its devices."""
        first = world.first_device[:-1]
        return OutcomeCounts(
            np.add.reduceat(self.outcomes, first, axis=0),
            np.add.reduceat(self.correct_on_time, first),
            np.add.reduceat(self.answered, first),
            np.add.reduceat(self.latency_s, first),
        )

    @property
    def offered(self) -> NDArray[np.int64]:
        """(D,) all requests."""
        offered: NDArray[np.int64] = self.outcomes.sum(axis=1)
        return offered

    @property
    def aud(self) -> Floats:
        """(D,) accuracy under deadline; NaN of an owner that offered nothing."""
        return _ratio(self.correct_on_time, self.offered)

    def table(self) -> pd.DataFrame:
        """One row per owner; columns as in :func:`sim.results.telemetry.outcome_table`."""
        return pd.DataFrame(
            {
                "offered": self.offered,
                **dict(zip(OUTCOMES, self.outcomes.T, strict=True)),
                "aud": self.aud,
                "hit_ratio": _ratio(self.outcomes[:, ON_TIME], self.offered),
                "latency_mean_s": _ratio(self.latency_s, self.answered),
            }
        )


def _ratio(part: NDArray[np.number], whole: NDArray[np.number]) -> Floats:
    """``part / whole``, NaN where ``whole`` is 0."""
    ratio: Floats = np.divide(part, whole, out=np.full(len(whole), np.nan), where=whole > 0)
    return ratio
