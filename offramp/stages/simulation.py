"""The simulation stage: every arm on the same workloads, replication by replication.

Never imports torch: it starts from the predictions and profiles that earlier stages left.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from offramp.checks.memory import most_workers
from offramp.console import Console
from offramp.parallel import in_processes
from offramp.scenario import LoadedScenario
from offramp.stages import keys
from offramp.stages.arms import replicate
from offramp.stages.inputs import Inputs
from offramp.stages.jobs import Job, Replication, job_of
from offramp.stages.result_tables import copy_results, write_tables
from offramp.store import Store
from sim.policies import POLICIES
from sim.world import World


def run_simulation(
    loaded: LoadedScenario,
    inputs: Inputs,
    world: World,
    store: Store,
    results: Path,
    console: Console,
    jobs: int | None = None,
    own_worlds: Sequence[World] = (),
) -> bool:
    """Simulate all arms and copy the result into ``results``; return whether it was reused.

    Args:
        jobs: worker processes; None takes all processors. No more are used than fit into memory.
            The result does not depend on it.
        own_worlds: of each replication, where they are not all in the same; such a result is not
            kept for another time.
    """
    job = job_of(loaded, inputs, world)
    of_replications = [replace(job, world=it) for it in own_worlds] or [job] * job.replications
    jobs = min(jobs or os.cpu_count() or 1, most_workers(loaded.scenario, loaded.folder))
    results.mkdir(parents=True, exist_ok=True)
    if own_worlds or any(spec.policy not in POLICIES for spec in loaded.scenario.policies):
        # The code of a user's own policy may change without its name: never reuse.
        with _scratch(store) as folder:
            _simulate_into(folder, of_replications, console, jobs)
            copy_results(folder, inputs, results)
        return False
    made_from = keys.simulation_key(loaded.scenario, inputs.hashes(loaded))
    found = store.find("simulation", made_from)
    if found is None:
        with store.make("simulation", made_from) as folder:
            _simulate_into(folder, of_replications, console, jobs)
    copy_results(store.path("simulation", made_from), inputs, results)
    return found is not None


@contextmanager
def _scratch(store: Store) -> Iterator[Path]:
    """A folder of the store for what is not kept; one that a killed process left is swept away."""
    made_from = {"scratch": os.getpid()}
    try:
        with store.make("scratch", made_from) as folder:
            yield folder
    finally:
        store.discard("scratch", made_from)


# --- simulating --------------------------------------------------------------------------------


def _simulate_into(
    folder: Path, of_replications: Sequence[Job], console: Console, jobs: int
) -> None:
    """Simulate every replication, and write what came of them all into ``folder``."""

    def replications(scratch: Path) -> Iterator[Replication]:
        return _replications(of_replications, scratch, jobs)

    with console.task("simulate replications", len(of_replications)) as update:
        write_tables(folder, of_replications[0], replications, "simulated", update)


def _replications(of_replications: Sequence[Job], folder: Path, jobs: int) -> Iterator[Replication]:
    """All replications in order, whichever process made them."""
    calls = [(job, replication, folder) for replication, job in enumerate(of_replications)]
    workers = min(jobs, len(calls))
    if workers == 1:
        return (replicate(*call) for call in calls)
    return in_processes(replicate, calls, workers, ordered=True)
