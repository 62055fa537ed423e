"""The simulation stage: every arm on the same workloads, replication by replication.

Never imports torch: it starts from the predictions and profiles that earlier stages left.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa

from models.artifacts import Predictions, read_predictions
from models.errors import ArtifactError
from models.files import whole_file
from offramp.checks import policy_label
from offramp.checks.memory import most_workers
from offramp.console import Console
from offramp.parallel import in_processes
from offramp.scenario import LoadedScenario
from offramp.stages import keys
from offramp.stages.arms import Arm, Job, Network, PolicyText, Replication, replicate
from offramp.stages.inputs import Inputs
from offramp.stages.layout import (
    ALWAYS_SIMULATED,
    DEVICES,
    EXIT_ACCURACY,
    MANIFEST,
    PERCENTILES,
    PREDICTIONS,
    PROFILE,
    RECORDS,
    SOMETIMES_SIMULATED,
    TRACES,
)
from offramp.stages.record_parts import read_parts
from offramp.store import Store
from sim.outcome_counts import OutcomeCounts
from sim.policies import POLICIES
from sim.records import write_records
from sim.summary import RunSummary
from sim.world import World


def run_simulation(
    loaded: LoadedScenario,
    inputs: Inputs,
    world: World,
    store: Store,
    results: Path,
    console: Console,
    jobs: int | None = None,
) -> bool:
    """Simulate all arms and copy the result into ``results``; return whether it was reused.

    Args:
        jobs: worker processes; None takes all processors. No more are used than fit into memory.
            The result does not depend on it.
    """
    job = _job_of(loaded, inputs, world)
    jobs = min(jobs or os.cpu_count() or 1, most_workers(loaded.scenario, loaded.folder))
    results.mkdir(parents=True, exist_ok=True)
    if any(spec.policy not in POLICIES for spec in loaded.scenario.policies):
        # The code of a user's own policy may change without its name: never reuse.
        with _scratch(store) as folder:
            _simulate_into(folder, job, console, jobs)
            _copy_results(folder, inputs, results)
        return False
    made_from = keys.simulation_key(loaded.scenario, inputs.hashes(loaded))
    found = store.find("simulation", made_from)
    if found is None:
        with store.make("simulation", made_from) as folder:
            _simulate_into(folder, job, console, jobs)
    _copy_results(store.path("simulation", made_from), inputs, results)
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


def _copy_results(folder: Path, inputs: Inputs, results: Path) -> None:
    # Without its manifest a folder is unfinished: it never passes for a whole run half-copied.
    (results / MANIFEST).unlink(missing_ok=True)
    there = [folder / name for name in (*ALWAYS_SIMULATED, *SOMETIMES_SIMULATED)]
    there = [*filter(Path.exists, there), *sorted(folder.glob(TRACES))]
    of_before = [results / name for name in SOMETIMES_SIMULATED]
    for file in [*of_before, *results.glob(TRACES)]:
        if file.name not in {it.name for it in there}:
            file.unlink(missing_ok=True)
    for file in there:
        _copy(file, results / file.name)
    if inputs.profile:
        _copy(inputs.profile, results / PROFILE)
    else:
        (results / PROFILE).unlink(missing_ok=True)


def _copy(source: Path, target: Path) -> None:
    with whole_file(target) as partial:
        shutil.copyfile(source, partial)


# --- simulating --------------------------------------------------------------------------------


def _job_of(loaded: LoadedScenario, inputs: Inputs, world: World) -> Job:
    scenario, simulation = loaded.scenario, loaded.scenario.simulation
    architecture = loaded.experiment.architecture.fingerprint()

    def read(file: Path) -> Predictions:
        predictions = read_predictions(file)
        if predictions.architecture != architecture:
            raise ArtifactError(f"{file} was made for another network")
        return predictions

    window_s = simulation.trace_window_s
    job = Job(
        world=world,
        predictions={arm: read(folder / PREDICTIONS) for arm, folder in inputs.trained.items()},
        validation={arm: read(file) for arm, file in inputs.validation.items()},
        policies=[
            PolicyText(policy_label(spec), spec.policy, spec.parameters)
            for spec in scenario.policies
        ],
        folder=loaded.folder,
        deadline_scales=sorted({1.0, *simulation.deadline_scales}),
        replications=simulation.replications,
        keeps_records=simulation.records == "full",
        telemetry_step_s=simulation.telemetry_step_s,
        trace_window_s=(window_s[0], window_s[1]) if window_s else None,
    )
    for network in job.predictions:
        for text in job.policies:
            job.policy(text, network)  # says what is wrong with it before anything is simulated
    return job


def _simulate_into(folder: Path, job: Job, console: Console, jobs: int) -> None:
    """Simulate every replication, and write what came of them all into ``folder``."""
    tables = _Tables()
    with tempfile.TemporaryDirectory(prefix=".replications-", dir=folder) as parts:
        with console.task("simulate replications", job.replications) as update:

            def done() -> Iterator[Replication]:
                for number, result in enumerate(_replications(job, Path(parts), jobs), start=1):
                    tables.add(result)
                    update(number)
                    yield result

            if job.keeps_records:
                write_records(folder / RECORDS, _records(done()), {"world": "simulated"})
            else:
                for _ in done():
                    pass
        for trace in sorted(Path(parts).glob(TRACES)):
            trace.rename(folder / trace.name)
    for name, frame in tables.frames(job.world).items():
        frame.to_csv(folder / name, index=False)
    exit_accuracy(job.predictions).to_csv(folder / EXIT_ACCURACY, index=False)


def _replications(job: Job, folder: Path, jobs: int) -> Iterator[Replication]:
    """All replications in order, whichever process made them."""
    workers = min(jobs, job.replications)
    if workers == 1:
        return (replicate(job, replication, folder) for replication in range(job.replications))
    calls = [(job, replication, folder) for replication in range(job.replications)]
    return in_processes(replicate, calls, workers, ordered=True)


def _records(results: Iterator[Replication]) -> Iterator[pa.Table]:
    """The records of all replications, a part at a time."""
    for result in results:
        assert result.records is not None
        yield from read_parts(result.records)
        result.records.unlink()


class _Tables:
    """The tables of all replications, in their order."""

    def __init__(self) -> None:
        self._rows: dict[str, list[dict[str, Any]]] = {}
        self._frames: dict[str, list[pd.DataFrame]] = {}
        self._devices: dict[Arm, OutcomeCounts] = {}
        self._summaries: dict[tuple[str, str], RunSummary] = {}

    def add(self, result: Replication) -> None:
        """Append what a replication gave."""
        for name, rows in result.rows.items():
            self._rows.setdefault(name, []).extend(rows)
        for name, frames in result.frames.items():
            self._frames.setdefault(name, []).extend(frames)
        for arm, counts in result.devices.items():
            before = self._devices.get(arm)
            self._devices[arm] = before.plus(counts) if before else counts
        for (strategy, _, policy), summary in result.summaries.items():
            if (strategy, policy) in self._summaries:
                self._summaries[strategy, policy].merge(summary)
            else:
                self._summaries[strategy, policy] = summary

    def frames(self, world: World) -> dict[str, pd.DataFrame]:
        """Every table that has rows, by the name of its file."""
        found = {name: pd.DataFrame(rows) for name, rows in self._rows.items() if rows}
        found |= {name: pd.concat(frames) for name, frames in self._frames.items()}
        if self._devices:
            found[DEVICES] = self._by_device(world)
        if self._summaries:
            found[PERCENTILES] = self._percentiles()
        return found

    def _by_device(self, world: World) -> pd.DataFrame:
        names = [world.device_name(device) for device in range(world.devices)]
        groups = [group.name for group in world.groups for _ in range(group.count)]
        frames = []
        for (strategy, seed, policy), counts in self._devices.items():
            frame = counts.table()
            arm = {"strategy": strategy, "training_seed": seed, "policy": policy}
            owner = {**arm, "device": names, "group": groups}
            for column, (name, values) in enumerate(owner.items()):
                frame.insert(column, name, values)
            frames.append(frame)
        return pd.concat(frames)

    def _percentiles(self) -> pd.DataFrame:
        return pd.DataFrame(
            {
                "strategy": strategy,
                "policy": policy,
                **{
                    name: value
                    for name, value in summary.metrics().items()
                    if name.startswith("latency_p")
                },
            }
            for (strategy, policy), summary in self._summaries.items()
        )


def exit_accuracy(predictions: dict[Network, Predictions]) -> pd.DataFrame:
    """Test accuracy of each exit of each trained network."""
    return pd.DataFrame(
        {"strategy": strategy, "training_seed": seed, "exit": exit, "accuracy": accuracy}
        for (strategy, seed), predicted in predictions.items()
        for exit, accuracy in enumerate(predicted.accuracy().tolist(), start=1)
    )
