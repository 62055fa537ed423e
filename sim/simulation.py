"""Simulating a world: every request from its creation to its outcome."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager

from models.artifacts import Predictions
from sim.policy import Policy
from sim.results.run import Run
from sim.running.ahead import Ahead
from sim.running.slices import Slices
from sim.running.stepwise import Stepwise
from sim.world import World


def simulate(
    world: World,
    workload: Slices,
    predictions: Predictions,
    policy: Policy,
    deadline_scale: float = 1.0,
) -> Run:
    """Follow every request of ``workload`` to its outcome.

    Args:
        predictions: of the network that every node serves.
        policy: copied for each node, so that it may keep state there.
        deadline_scale: factor on all deadlines.

    Raises:
        PolicyError: the policy raised or decided something impossible.
    """
    return Run.joined(
        list(simulate_in_slices(world, workload, predictions, policy, deadline_scale))
    )


def simulate_in_slices(
    world: World,
    workload: Slices,
    predictions: Predictions,
    policy: Policy,
    deadline_scale: float = 1.0,
) -> Iterator[Run]:
    """As :func:`simulate`, giving the requests that are done after each slice of time.

    Each is in one of the parts, which hold them in the order of their creation.
    """
    kind = Ahead if world.is_open else Stepwise
    with _no_garbage_collection():
        yield from kind(world, workload, predictions, policy, deadline_scale).parts()


@contextmanager
def _no_garbage_collection() -> Iterator[None]:
    """Millions of live requests make each search for cycles long; there are none to find."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
