"""The simulation stage: every arm on the same workloads, replication by replication.

Never imports torch: it starts from the predictions and profiles that earlier stages left.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import joblib
import pandas as pd
import pyarrow as pa

from models.artifacts import Predictions, read_predictions
from models.errors import ArtifactError, ScenarioError
from models.files import whole_file
from offramp.checks import policy_label
from offramp.console import Console
from offramp.scenario import LoadedScenario
from offramp.stages import keys
from offramp.stages.layout import (
    DEADLINE_SWEEP,
    EXIT_ACCURACY,
    MANIFEST,
    NODES,
    PREDICTIONS,
    PROFILE,
    RECORDS,
    RUNS,
    SIMULATION_FILES,
)
from offramp.store import Store, file_hash
from offramp.worlds import (
    build_world,
    needs_host_profile,
    node_profiles,
    read_matching_profile,
)
from sim.metrics import run_metrics
from sim.policies import POLICIES, build_policy
from sim.records import write_records
from sim.verdict import node_metrics, settling
from sim.world import World, record_table, simulate


@dataclass(frozen=True)
class Inputs:
    """What a simulation starts from.

    Attributes:
        trained: folders of the trained networks, by strategy and training seed.
        profile: this host's profile, or None where no node needs it.
    """

    trained: dict[tuple[str, int], Path]
    profile: Path | None

    def hashes(self, loaded: LoadedScenario) -> dict[str, str]:
        """SHA-256 of every input file, by a name that says what it is."""
        found = {
            f"predictions of {strategy}, seed {seed}": file_hash(folder / PREDICTIONS)
            for (strategy, seed), folder in self.trained.items()
        }
        if self.profile:
            found["profile of this host"] = file_hash(self.profile)
        for node, path in node_profiles(loaded).items():
            found[f"profile of node {node}"] = file_hash(path)
        return found


def find_inputs(loaded: LoadedScenario, store: Store, command: str) -> Inputs:
    """What training and profiling left in the store for this scenario.

    Args:
        command: arguments that name the scenario and the store, for the advice in errors.

    Raises:
        ArtifactError: something is not there; the message says which command makes it.
    """
    trained: dict[tuple[str, int], Path] = {}
    for strategy, seed, made_from in keys.trained_networks(loaded.experiment):
        folder = store.find("trained", made_from)
        if folder is None:
            raise ArtifactError(
                f"strategy {strategy!r} with seed {seed} has not been trained with these "
                f"settings: run `offramp train{command}` first"
            )
        trained[strategy, seed] = folder
    profile = None
    if needs_host_profile(loaded):
        folder = store.find("profile", keys.profile_key(loaded.scenario, loaded.experiment))
        if folder is None:
            raise ArtifactError(
                "this network has not been profiled on this host with these settings: "
                f"run `offramp profile{command}` first"
            )
        profile = folder / PROFILE
    return Inputs(trained, profile)


def world_of(loaded: LoadedScenario, inputs: Inputs) -> World:
    """The scenario's world with the profiles found."""
    architecture = loaded.experiment.architecture
    profile = read_matching_profile(inputs.profile, architecture) if inputs.profile else None
    return build_world(loaded, profile)


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
        jobs: worker processes; None takes all processors. The result does not depend on it.
    """
    job = _Job.of(loaded, inputs, world)
    results.mkdir(parents=True, exist_ok=True)
    if any(spec.policy not in POLICIES for spec in loaded.scenario.policies):
        # The code of a user's own policy may change without its name: never reuse.
        with tempfile.TemporaryDirectory(prefix=".simulation-", dir=results) as folder:
            _simulate_into(Path(folder), job, console, jobs)
            _copy_results(Path(folder), inputs, results)
        return False
    made_from = keys.simulation_key(loaded.scenario, inputs.hashes(loaded))
    found = store.find("simulation", made_from)
    if found is None:
        with store.make("simulation", made_from) as folder:
            _simulate_into(folder, job, console, jobs)
    _copy_results(store.path("simulation", made_from), inputs, results)
    return found is not None


def _copy_results(folder: Path, inputs: Inputs, results: Path) -> None:
    # Without its manifest a folder is unfinished: it never passes for a whole run half-copied.
    (results / MANIFEST).unlink(missing_ok=True)
    for name in SIMULATION_FILES:
        _copy(folder / name, results / name)
    if inputs.profile:
        _copy(inputs.profile, results / PROFILE)
    else:
        (results / PROFILE).unlink(missing_ok=True)


def _copy(source: Path, target: Path) -> None:
    with whole_file(target) as partial:
        shutil.copyfile(source, partial)


# --- simulating --------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Job:
    """Everything that a worker process needs to simulate one replication of all arms."""

    world: World
    predictions: dict[tuple[str, int], Predictions]
    policies: list[tuple[str, str, dict[str, Any]]]
    folder: Path
    deadline_scales: list[float]
    replications: int

    @classmethod
    def of(cls, loaded: LoadedScenario, inputs: Inputs, world: World) -> _Job:
        scenario = loaded.scenario
        architecture = loaded.experiment.architecture.fingerprint()
        predictions = {}
        for arm, folder in inputs.trained.items():
            predictions[arm] = read_predictions(folder / PREDICTIONS)
            if predictions[arm].architecture != architecture:
                raise ArtifactError(f"{folder / PREDICTIONS} was made for another network")
        return cls(
            world=world,
            predictions=predictions,
            policies=[
                (policy_label(spec), spec.policy, spec.parameters) for spec in scenario.policies
            ],
            folder=loaded.folder,
            deadline_scales=sorted({1.0, *scenario.simulation.deadline_scales}),
            replications=scenario.simulation.replications,
        )


@dataclass(frozen=True)
class _Replication:
    """What one replication of all arms gave."""

    records: pa.Table
    runs: list[dict[str, Any]]
    nodes: list[dict[str, Any]]
    sweep: list[dict[str, Any]]


def _simulate_into(folder: Path, job: _Job, console: Console, jobs: int | None) -> None:
    runs: list[dict[str, Any]] = []
    nodes: list[dict[str, Any]] = []
    sweep: list[dict[str, Any]] = []

    def tables() -> Iterator[pa.Table]:
        with console.task("simulate replications", job.replications) as update:
            for done, part in enumerate(_replications(job, jobs), start=1):
                runs.extend(part.runs)
                nodes.extend(part.nodes)
                sweep.extend(part.sweep)
                update(done)
                yield part.records

    write_records(folder / RECORDS, tables(), {"world": "simulated"})
    for name, rows in ((RUNS, runs), (NODES, nodes), (DEADLINE_SWEEP, sweep)):
        pd.DataFrame(rows).to_csv(folder / name, index=False)
    exit_accuracy(job.predictions).to_csv(folder / EXIT_ACCURACY, index=False)


def _replications(job: _Job, jobs: int | None) -> Iterator[_Replication]:
    """All replications in order, whichever process made them."""
    workers = min(jobs or os.cpu_count() or 1, job.replications)
    if workers == 1:
        return (_replicate(job, replication) for replication in range(job.replications))
    parallel = joblib.Parallel(n_jobs=workers, return_as="generator")
    results: Iterator[_Replication] = parallel(
        joblib.delayed(_replicate)(job, replication) for replication in range(job.replications)
    )
    return results


def _replicate(job: _Job, replication: int) -> _Replication:
    """Simulate one replication of every arm, all on the same workload."""
    first = next(iter(job.predictions.values()))
    workload = job.world.workload(len(first.label), replication)
    if not (workload.requests.created_s >= job.world.warm_up_s).any():
        raise ScenarioError(
            f"no request is created in the measured window of replication {replication}: raise "
            "simulation.duration_s, or the rates of the devices"
        )
    tables: list[pa.Table] = []
    runs: list[dict[str, Any]] = []
    nodes: list[dict[str, Any]] = []
    sweep: list[dict[str, Any]] = []
    for (strategy, seed), predictions in job.predictions.items():
        for label, reference, parameters in job.policies:
            arm = {
                "strategy": strategy,
                "training_seed": seed,
                "policy": label,
                "replication": replication,
            }
            for scale in job.deadline_scales:
                policy = build_policy(reference, parameters, job.folder, first.exit_count)
                run = simulate(job.world, workload, predictions, policy, scale)
                metrics = run_metrics(job.world, run)
                sweep.append({**arm, "deadline_scale": scale, **metrics})
                if scale != 1.0:
                    continue
                tables.append(record_table(job.world, run, predictions, strategy, seed, label))
                first_quarter, rest = settling(job.world, run)
                runs.append({**arm, **metrics, "first_quarter_s": first_quarter, "rest_s": rest})
                nodes.extend({**arm, **row} for row in node_metrics(job.world, run))
    return _Replication(pa.concat_tables(tables).unify_dictionaries(), runs, nodes, sweep)


def exit_accuracy(predictions: dict[tuple[str, int], Predictions]) -> pd.DataFrame:
    """Test accuracy of each exit of each trained network."""
    return pd.DataFrame(
        {"strategy": strategy, "training_seed": seed, "exit": exit, "accuracy": accuracy}
        for (strategy, seed), predicted in predictions.items()
        for exit, accuracy in enumerate(predicted.accuracy().tolist(), start=1)
    )
