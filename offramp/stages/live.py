"""The live stage: every arm in real time, replication by replication, on the same workloads.

Never imports torch: nodes are processes of their own.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from devices.joined import with_group
from models.artifacts import Predictions
from models.errors import ResultsError
from offramp.stages.arm_tables import ArmTables
from offramp.stages.inputs import Inputs
from offramp.stages.jobs import Arm, Job, Network, Replication
from offramp.stages.live_parts import LivePart, PartsFolder
from offramp.stages.record_parts import RecordParts
from offramp.stages.result_tables import copy_results, write_tables
from sim.results.run import Run
from sim.world import World


@dataclass(frozen=True)
class ArmRun:
    """One arm in one replication: what is measured at a time; the policy by its label."""

    network: Network
    policy: str
    replication: int

    @property
    def arm(self) -> Arm:
        """As it is called in tables."""
        return (*self.network, self.policy)


def arms_in_order(job: Job) -> list[ArmRun]:
    """All arms of all replications, in the order in which they are measured.

    A host gets warm, and others use it: what is compared lies next to each other in time.
    Strategies do within one replication, policy and seed.
    """
    seeds = dict.fromkeys(seed for _, seed in job.predictions)
    return [
        ArmRun(network, text.label, replication)
        for replication in range(job.replications)
        for text in job.policies
        for seed in seeds
        for network in job.predictions
        if network[1] == seed
    ]


def measure_missing(
    arms: Sequence[ArmRun], parts: PartsFolder, measure: Callable[[ArmRun], LivePart]
) -> None:
    """Measure the arms that are not there yet, and keep each as soon as it is.

    Raises:
        ResultsError: a part cannot be written.
    """
    for arm in arms:
        if parts.read(arm.arm, arm.replication) is None:
            part = measure(arm)
            try:
                parts.write(arm.arm, arm.replication, part)
            except OSError as error:
                raise ResultsError(f"cannot keep what was measured: {error}") from error


def write_live_results(
    job: Job,
    classes: int,
    arms: Sequence[ArmRun],
    parts: PartsFolder,
    inputs: Inputs,
    results: Path,
) -> dict[ArmRun, LivePart]:
    """Write the tables and records of all arms into ``results``.

    Args:
        classes: of the dataset.

    Returns:
        What was measured.

    Raises:
        ScenarioError: an arm had no request in its window.
        ResultsError: a part has vanished.
    """
    measured = {arm: parts.read(arm.arm, arm.replication) for arm in arms}
    found = {arm: part for arm, part in measured.items() if part is not None}
    if len(found) < len(measured):
        raise ResultsError(f"arms that were measured have vanished from {results}")
    world, runs = _on_one_world(job.world, found)
    job = replace(job, world=world)

    def replications(scratch: Path) -> Iterator[Replication]:
        for replication in range(job.replications):
            yield _replication(job, classes, runs, replication, scratch)

    results.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".live-", dir=results) as folder:
        write_tables(Path(folder), job, replications, "live", lambda done: None)
        copy_results(Path(folder), inputs, results)
    return found


def _replication(
    job: Job, classes: int, runs: dict[tuple[Arm, int], Run], replication: int, scratch: Path
) -> Replication:
    """The tables and records of one replication, in the order of those of a simulation."""
    result = Replication(records=scratch / f"{replication}.arrow")
    assert result.records is not None
    number = 0
    with RecordParts(result.records) as parts:
        for network, predictions in job.predictions.items():
            for text in job.policies:
                number += 1
                policy = job.policy(text, network)
                samples = _with_classes(predictions, classes)
                tables = ArmTables(job, network, samples, text, policy, replication)
                tables.add(runs[(*network, text.label), replication], parts)
                tables.tell(result, scratch, number, {})
    return result


def _with_classes(predictions: Predictions, classes: int) -> Predictions:
    """With a row for each class after the samples: of images that are none of them.

    Their number is −1 in the records, and no network has predicted anything for them.
    """
    nothing = np.full((classes, predictions.exit_count), -1, dtype=np.int32)
    return replace(
        predictions,
        sample=np.concatenate([predictions.sample, np.full(classes, -1, dtype=np.int32)]),
        label=np.concatenate([predictions.label, np.arange(classes, dtype=np.int32)]),
        predicted=np.concatenate([predictions.predicted, nothing]),
        confidence=np.concatenate([predictions.confidence, nothing.astype(np.float32)]),
    )


def _on_one_world(
    world: World, parts: dict[ArmRun, LivePart]
) -> tuple[World, dict[tuple[Arm, int], Run]]:
    """The world with everyone who joined any arm, and the runs with devices counted in it."""
    names = dict.fromkeys(name for part in parts.values() for name in part.joined)
    runs = {(arm.arm, arm.replication): part.run for arm, part in parts.items()}
    if not names:
        return world, runs
    places = {name: number for number, name in enumerate(names)}
    for arm, part in parts.items():
        requests = part.run.requests
        of_group = requests.group == len(world.groups)
        local = requests.local.copy()
        local[of_group] = np.array([places[name] for name in part.joined] or [0])[local[of_group]]
        device = np.where(of_group, world.devices + local, requests.device)
        runs[arm.arm, arm.replication] = replace(
            part.run, requests=replace(requests, local=local, device=device)
        )
    joined = sum(int((run.requests.group == len(world.groups)).sum()) for run in runs.values())
    rate_hz = joined / (len(runs) * world.horizon_s)
    return with_group(world, tuple(names), rate_hz), runs
