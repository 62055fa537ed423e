"""One replication of every arm, all on the same workload: what a worker process does."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from models.artifacts import Predictions
from models.errors import PolicyError, ScenarioError
from offramp.stages.layout import (
    DEADLINE_SWEEP,
    ENERGY,
    FAULT_TIMES,
    FAULTS,
    GROUPS,
    LINKS,
    NODE_TELEMETRY,
    NODES,
    REQUEST_TELEMETRY,
    RUNS,
)
from offramp.stages.record_parts import RecordParts
from sim.fault_tables import fault_counts, fault_times
from sim.gathering import Gathering, Telemetry, Trace, Watcher, metrics_of
from sim.metrics import take_in
from sim.outcome_counts import OutcomeCounts
from sim.policies import Confidence, FixedExit, Full
from sim.policy import Policy
from sim.policy_building import build_policy, fit_policy
from sim.run import Run, record_table
from sim.simulation import simulate_in_slices
from sim.slices import Workload
from sim.summary import RunSummary
from sim.trace_events import write_trace
from sim.world import World

#: Of more devices than this, no table by device is written.
MOST_LISTED_DEVICES = 10_000

#: Strategy and training seed of a network.
Network = tuple[str, int]
#: Strategy, training seed and policy: one line of a comparison.
Arm = tuple[str, int, str]

Row = dict[str, Any]


@dataclass(frozen=True)
class PolicyText:
    """A policy as the scenario names it; workers build it anew, since its code may be a user's."""

    label: str
    reference: str
    parameters: dict[str, Any]


@dataclass(frozen=True)
class Job:
    """Everything that a worker process needs to simulate one replication of all arms.

    Attributes:
        validation: predictions for the validation split, where a policy is fitted on them.
        folder: of the scenario, in which policies of a user are found.
        keeps_records: one for every request; else their summary alone.
        telemetry_step_s, trace_window_s: what the first replication of each arm shows.
    """

    world: World
    predictions: dict[Network, Predictions]
    validation: dict[Network, Predictions]
    policies: list[PolicyText]
    folder: Path
    deadline_scales: list[float]
    replications: int
    keeps_records: bool
    telemetry_step_s: float | None
    trace_window_s: tuple[float, float] | None

    def policy(self, text: PolicyText, network: Network) -> Policy:
        """A policy for one network, fitted on its validation predictions if it asks for that.

        Raises:
            PolicyError: it refuses its parameters, or what it wishes cannot be had.
        """
        exit_count = self.predictions[network].exit_count
        policy = build_policy(text.reference, text.parameters, self.folder, exit_count)
        if network not in self.validation:
            return policy
        # What an exit costs is known of the node that the first devices ask.
        node = self.world.nodes[self.world.kind(self.world.groups[0].node)]
        costs_s = tuple(node.service.means())
        return fit_policy(policy, text.reference, self.validation[network], costs_s)


@dataclass
class Replication:
    """What one replication of all arms gave.

    Attributes:
        rows: of each table, by the name of its file.
        frames: tables that one arm fills alone.
        summaries: digests of each arm's run, where no records are kept.
        devices: outcomes by device, where these are few.
        records: the temporary file with the records, if they are kept.
    """

    rows: dict[str, list[Row]] = field(default_factory=dict)
    frames: dict[str, list[pd.DataFrame]] = field(default_factory=dict)
    summaries: dict[Arm, RunSummary] = field(default_factory=dict)
    devices: dict[Arm, OutcomeCounts] = field(default_factory=dict)
    records: Path | None = None

    def add(self, file: str, rows: list[Row]) -> None:
        """Append rows to a table."""
        self.rows.setdefault(file, []).extend(rows)


def replicate(job: Job, replication: int, folder: Path) -> Replication:
    """Simulate one replication of every arm, all on the same workload.

    Args:
        folder: for temporary records, and for traces.

    Raises:
        PolicyError: a policy raised or decided something impossible.
        ScenarioError: no request is created in the measured window.
    """
    result = Replication()
    labels = next(iter(job.predictions.values())).label
    workload = Workload(job.world, labels, replication)
    faults = fault_counts(job.world, workload.absences)
    result.add(FAULTS, [{"replication": replication, **row} for row in faults])
    if replication == 0 and job.telemetry_step_s is not None:
        result.add(FAULT_TIMES, fault_times(job.world, workload.absences))
    if not job.keeps_records:
        _all_arms(job, workload, result, folder, None)
        return result
    result.records = folder / f"{replication}.arrow"
    with RecordParts(result.records) as parts:
        _all_arms(job, workload, result, folder, parts)
    return result


def _all_arms(
    job: Job, workload: Workload, result: Replication, folder: Path, parts: RecordParts | None
) -> None:
    number = 0
    for network, predictions in job.predictions.items():
        for text in job.policies:
            number += 1
            arm = _OneArm(job, workload, network, predictions, text)
            try:
                arm.simulate(result, folder, parts, number)
            except PolicyError as error:
                strategy, seed = network
                raise PolicyError(
                    f"{error} (replication {workload.replication}, strategy {strategy}, "
                    f"training seed {seed})"
                ) from error


class _OneArm:
    """One network under one policy, in one replication."""

    def __init__(
        self,
        job: Job,
        workload: Workload,
        network: Network,
        predictions: Predictions,
        text: PolicyText,
    ) -> None:
        self._job = job
        self._world = job.world
        self._workload = workload
        self._predictions = predictions
        self._policy = job.policy(text, network)
        self._arm: Arm = (*network, text.label)
        self._row: Row = {
            "strategy": network[0],
            "training_seed": network[1],
            "policy": text.label,
            "replication": workload.replication,
        }

    def simulate(
        self, result: Replication, folder: Path, parts: RecordParts | None, number: int
    ) -> None:
        """Simulate at every scale of the deadlines, and tell of the run at scale 1."""
        scales = [scale for scale in self._job.deadline_scales if scale != 1.0]
        blind = never_looks_at_deadlines(self._world, self._policy)
        rescaled = [_Rescaled(self._world, scale) for scale in scales] if blind else []
        watchers = self._watchers()
        gathering = Gathering(self._world, self._job.keeps_records, list(watchers.values()))
        for part in self._parts(1.0):
            gathering.add(part)
            for other in rescaled:
                other.add(part)
            if parts is not None:
                strategy, seed, policy = self._arm
                parts.add(
                    record_table(self._world, part, self._predictions, strategy, seed, policy)
                )
        metrics = gathering.metrics()
        if not metrics["offered"]:
            raise ScenarioError(
                "no request is created in the measured window of replication "
                f"{self._workload.replication}: raise simulation.duration_s, or the rates of the "
                "devices"
            )
        sweep = {1.0: gathering.request_metrics()}
        sweep |= {other.scale: other.metrics(sweep[1.0]) for other in rescaled}
        sweep |= {scale: self._metrics_at(scale) for scale in scales if scale not in sweep}
        result.add(
            DEADLINE_SWEEP,
            [
                {**self._row, "deadline_scale": scale, **sweep[scale]}
                for scale in self._job.deadline_scales
            ],
        )
        self._tell(result, gathering, metrics)
        self._show(result, watchers, folder, number)

    def _parts(self, scale: float) -> Iterator[Run]:
        return simulate_in_slices(
            self._world, self._workload, self._predictions, self._policy, scale
        )

    def _metrics_at(self, scale: float) -> dict[str, float]:
        gathered = metrics_of(self._world, self._job.keeps_records)
        for part in self._parts(scale):
            take_in(gathered, part)
        return gathered.metrics()

    def _watchers(self) -> dict[str, Watcher]:
        job, watchers = self._job, dict[str, Watcher]()
        if self._workload.replication == 0:
            if job.telemetry_step_s is not None:
                watchers["telemetry"] = Telemetry(self._world, job.telemetry_step_s)
            if job.trace_window_s is not None:
                watchers["trace"] = Trace(self._world, *job.trace_window_s)
        return watchers

    def _tell(self, result: Replication, gathering: Gathering, metrics: dict[str, float]) -> None:
        result.add(RUNS, [{**self._row, **metrics}])
        result.add(NODES, [{**self._row, **row} for row in gathering.nodes.metrics()])
        result.add(LINKS, [{**self._row, **vars(load)} for load in gathering.links()])
        devices, nodes = gathering.energy()
        groups = gathering.devices.of_groups(self._world).table()
        groups.insert(0, "group", [group.name for group in self._world.groups])
        if devices:
            groups["device_j"] = [
                float(devices[name].total.sum()) if name in devices else np.nan
                for name in groups["group"]
            ]
        result.add(GROUPS, [{**self._row, **row} for row in groups.to_dict(orient="records")])
        for what, parts in (("devices", devices), ("node", nodes)):
            for name, joules in parts.items():
                taken = {f"{cause}_j": float(by.sum()) for cause, by in vars(joules).items()}
                result.add(ENERGY, [{**self._row, "what": what, "name": name, **taken}])
        if self._world.devices <= MOST_LISTED_DEVICES:
            result.devices[self._arm] = gathering.devices
        if gathering.summary is not None:
            result.summaries[self._arm] = gathering.summary

    def _show(
        self, result: Replication, watchers: dict[str, Watcher], folder: Path, number: int
    ) -> None:
        telemetry, trace = watchers.get("telemetry"), watchers.get("trace")
        arm = {name: self._row[name] for name in ("strategy", "training_seed", "policy")}
        if isinstance(telemetry, Telemetry):
            for file, frame in (
                (NODE_TELEMETRY, telemetry.nodes()),
                (REQUEST_TELEMETRY, telemetry.requests()),
            ):
                for column, name in enumerate(arm):
                    frame.insert(column, name, arm[name])
                result.frames.setdefault(file, []).append(frame)
        if isinstance(trace, Trace):
            name = re.sub(r"[^A-Za-z0-9_.=-]+", "_", "-".join(map(str, arm.values())))
            write_trace(folder / f"trace-{number:02d}-{name}.json", trace.events())


def never_looks_at_deadlines(world: World, policy: Policy) -> bool:
    """Whether other deadlines would change nothing but who is late."""
    return (
        world.is_open
        and type(policy) in (FixedExit, Full, Confidence)
        and all(node.discipline != "edf" and node.admission == "all" for node in world.nodes)
    )


class _Rescaled:
    """What a run gives at other deadlines, when only their being met depends on them."""

    def __init__(self, world: World, scale: float) -> None:
        self.scale = scale
        self._world = world
        self._on_time = self._correct = 0

    def add(self, part: Run) -> None:
        """Take in a slice of the run at scale 1."""
        latency_s = part.received_s - part.requests.created_s
        in_time = part.measured(self._world) & part.answered
        in_time &= latency_s <= part.deadline_s * self.scale
        self._on_time += int(np.count_nonzero(in_time))
        self._correct += int(np.count_nonzero(in_time & part.correct))

    def metrics(self, at_1: dict[str, float]) -> dict[str, float]:
        """All metrics, from those at scale 1."""
        return {
            **at_1,
            "on_time": self._on_time,
            "late": at_1["answered"] - self._on_time,
            "aud": self._correct / at_1["offered"],
            "hit_ratio": self._on_time / at_1["offered"],
        }
