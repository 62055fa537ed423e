"""Confidence thresholds of policies: given, or to be fitted on the validation split."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Self

from models.artifacts import Predictions
from sim.policy import MOST_EXITS
from sim.thresholds import fit_threshold


class _Unfitted:
    """In place of thresholds that are yet to be fitted."""

    def __getitem__(self, exit: int) -> float:
        raise ValueError("its threshold is not fitted yet; fitted() returns the policy to use")


@dataclass(frozen=True)
class ByConfidence:
    """What policies that answer once they are confident have in common.

    At most one of these is given; none means a threshold of 0.9.

    Attributes:
        threshold: the confidence that is enough, at every exit.
        thresholds: one for each exit but the last.
        wanted_accuracy: fit one threshold on the validation split: the least mean inference time
            with at least this accuracy.
        wanted_cost_ms: fit one threshold on the validation split: the best accuracy with at most
            this mean inference time.

    Inference time is that of a request which goes exit by exit, alone, at the node that is asked
    first, as if that computed every exit: no queue, no batch, no overhead, no way.
    """

    threshold: float | None = None
    thresholds: Sequence[float] | None = None
    wanted_accuracy: float | None = None
    wanted_cost_ms: float | None = None
    #: By the exit that was computed; 0 at exits without a threshold of their own.
    _enough: tuple[float, ...] | _Unfitted = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        names = ("threshold", "thresholds", "wanted_accuracy", "wanted_cost_ms")
        given = [name for name in names if getattr(self, name) is not None]
        if len(given) > 1:
            raise ValueError(f"{' and '.join(given)} exclude each other; give one of them")
        if not given:
            object.__setattr__(self, "threshold", 0.9)
        if self.thresholds is not None:
            object.__setattr__(self, "thresholds", tuple(self.thresholds))
        for name in ("threshold", "wanted_accuracy"):
            value = getattr(self, name)
            if value is not None and not 0 <= value <= 1:
                raise ValueError(f"{name} is {value}; it lies between 0 and 1")
        for value in self.thresholds or ():
            if not 0 <= value <= 1:
                raise ValueError(f"thresholds has {value}; each lies between 0 and 1")
        if self.wanted_cost_ms is not None and not self.wanted_cost_ms > 0:
            raise ValueError(f"wanted_cost_ms is {self.wanted_cost_ms}; it must be above 0")
        object.__setattr__(self, "_enough", self._by_exit())

    def _by_exit(self) -> tuple[float, ...] | _Unfitted:
        if self.threshold is not None:
            return (self.threshold,) * (MOST_EXITS + 1)
        if self.thresholds is not None:
            return (0.0, *self.thresholds, *(0.0,) * MOST_EXITS)
        return _Unfitted()

    def check(self, exit_count: int) -> None:
        """Refuse thresholds that are more or fewer than the exits that need one."""
        if self.thresholds is not None and len(self.thresholds) != exit_count - 1:
            raise ValueError(
                f"thresholds has {len(self.thresholds)} entries, but the network has exits 1 to "
                f"{exit_count}: give one for each exit but the last, {exit_count - 1}"
            )

    @property
    def needs_fitting(self) -> bool:
        """Whether the policy cannot decide before it is fitted."""
        return self.wanted_accuracy is not None or self.wanted_cost_ms is not None

    def fitted(self, validation: Predictions, costs_s: tuple[float, ...]) -> Self:
        """The policy with the threshold that meets its wish.

        A deadline may cut short what the threshold alone would let run: the accuracy is that
        without deadlines.

        Args:
            costs_s: as :func:`sim.policy_building.fit_policy`.

        Raises:
            ValueError: no threshold does, and the message says what is within reach.
        """
        if not self.needs_fitting:
            return self
        wish = "wanted_cost_ms" if self.wanted_accuracy is None else "wanted_accuracy"
        try:
            found = fit_threshold(
                validation,
                [1e3 * cost for cost in costs_s],
                wanted_accuracy=self.wanted_accuracy,
                wanted_cost=self.wanted_cost_ms,
            )
        except ValueError as error:
            raise ValueError(f"{wish}: {error}") from error
        return dataclasses.replace(
            self, threshold=found.threshold, wanted_accuracy=None, wanted_cost_ms=None
        )
