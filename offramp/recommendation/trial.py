"""What a worker does with a trial: it simulates one strategy under one policy. Free of torch."""

from __future__ import annotations

from collections.abc import Sequence

from offramp.recommendation.cost import COMPUTED
from offramp.stages.arm_tables import ArmTables
from offramp.stages.jobs import Row
from offramp.sweep.point import Context, PointResult, PointSimulator, Values


class TrialSimulator(PointSimulator):
    """Simulates trials, and remembers what they share."""

    def row(self, tables: ArmTables) -> Row:
        """A run, and how long it computed."""
        return {**super().row(tables), COMPUTED: tables.computed_s}


def simulate_trials(context: Context, trials: Sequence[tuple[int, Values]]) -> list[PointResult]:
    """Simulate trials, one after the other, each by a number and its values.

    Nothing is raised: a trial that fails has its error.
    """
    global _LATEST
    if _LATEST is None or _LATEST.context != context:
        _LATEST = TrialSimulator(context)
    return [_LATEST.simulate(number, values) for number, values in trials]


_LATEST: TrialSimulator | None = None
