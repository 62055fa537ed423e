"""What is run, simulated or live: every arm on every replication, and what one of these gives."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from models.artifacts import Predictions, read_predictions
from models.errors import ArtifactError
from offramp.checks import policy_label
from offramp.scenario import LoadedScenario
from offramp.stages.inputs import Inputs
from offramp.stages.layout import PREDICTIONS
from sim.policy import Policy
from sim.policy_building import build_policy, fit_policy
from sim.results.outcome_counts import OutcomeCounts
from sim.results.summary import RunSummary
from sim.world import World

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
    """Everything that one replication of all arms needs.

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
        costs_s = node.service.stepwise_means()
        return fit_policy(policy, text.reference, self.validation[network], costs_s)


def job_of(loaded: LoadedScenario, inputs: Inputs, world: World) -> Job:
    """The job of a scenario, its policies tried.

    Raises:
        ArtifactError: predictions are damaged, or were made for another network.
        PolicyError: a policy refuses its parameters, or what it wishes cannot be had.
    """
    job = untried_job(loaded, inputs, world, read_predictions)
    for network in job.predictions:
        for text in job.policies:
            job.policy(text, network)  # says what is wrong with it before anything is simulated
    return job


def untried_job(
    loaded: LoadedScenario, inputs: Inputs, world: World, reader: Callable[[Path], Predictions]
) -> Job:
    """The job of a scenario whose policies may refuse when they are built.

    Args:
        reader: of predictions, which may know them already.

    Raises:
        ArtifactError: predictions are damaged, or were made for another network.
    """
    scenario, simulation = loaded.scenario, loaded.scenario.simulation
    architecture = loaded.experiment.architecture.fingerprint()

    def read(file: Path) -> Predictions:
        predictions = reader(file)
        if predictions.architecture != architecture:
            raise ArtifactError(f"{file} was made for another network")
        return predictions

    window_s = simulation.trace_window_s
    return Job(
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
