"""Checks of how the world is simulated."""

from __future__ import annotations

from collections.abc import Iterator

from offramp.checks.common import Problem
from offramp.schema import Scenario

#: Samples of the telemetry of one run.
MOST_SAMPLES = 1_000_000


def check_simulation(scenario: Scenario) -> Iterator[Problem]:
    """What is wrong with the window, and with what is looked at in it."""
    simulation = scenario.simulation
    horizon_s = simulation.warm_up_s + simulation.duration_s
    step_s = simulation.telemetry_step_s
    if step_s is not None and horizon_s / step_s > MOST_SAMPLES:
        yield (
            ("simulation", "telemetry_step_s"),
            f"given {step_s:g}: {horizon_s / step_s:.3g} samples of a run of {horizon_s:g} s; "
            f"allowed: at least {horizon_s / MOST_SAMPLES:g}",
        )
    if step_s is not None and step_s > horizon_s:
        yield (
            ("simulation", "telemetry_step_s"),
            f"given {step_s:g}; allowed: at most the {horizon_s:g} s that a run lasts",
        )
    if simulation.trace_window_s is not None:
        from_s, to_s = simulation.trace_window_s
        if not from_s < to_s:
            yield (
                ("simulation", "trace_window_s"),
                f"given [{from_s:g}, {to_s:g}]; the window must end after it begins",
            )
        elif from_s >= horizon_s:
            yield (
                ("simulation", "trace_window_s"),
                f"given [{from_s:g}, {to_s:g}]; allowed: within the {horizon_s:g} s that a run "
                "lasts",
            )
