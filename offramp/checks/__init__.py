"""Checks across the keys of a scenario: names that refer to others, values that must fit.

Everything that is found is returned, each problem with its place.
"""

from __future__ import annotations

from pathlib import Path

from models.data.datasets import DATASETS
from offramp.checks.common import Problem, check_distribution
from offramp.checks.devices import check_devices
from offramp.checks.experiment import check_experiment, check_profile
from offramp.checks.faults import check_faults
from offramp.checks.memory import check_memory
from offramp.checks.network import check_network
from offramp.checks.nodes import check_nodes
from offramp.checks.policies import check_policies, policy_label
from offramp.checks.simulation import check_simulation
from offramp.experiment import architecture_of
from offramp.schema import Scenario
from offramp.schema.places import distributions_in

__all__ = ["check_across_keys", "check_experiment", "policy_label"]


def check_across_keys(scenario: Scenario, folder: Path) -> list[Problem]:
    """Everything wrong with a scenario that no key shows alone: where, and what.

    Args:
        folder: files that the scenario names are relative to it.
    """
    info = DATASETS[scenario.data.dataset]
    exit_count = architecture_of(scenario.model, info, folder).exit_count
    return [
        *check_experiment(scenario.data, scenario.model, scenario.training, folder),
        *check_profile(scenario.profile),
        *(
            problem
            for place, spec in distributions_in(scenario)
            for problem in check_distribution(place, spec, folder, place[-1] != "deadline_ms")
        ),
        *check_network(scenario, folder),
        *check_nodes(scenario, folder, exit_count),
        *check_devices(scenario, folder, exit_count),
        *check_faults(scenario),
        *check_simulation(scenario),
        *check_memory(scenario, folder),
        *check_policies(scenario, folder, exit_count),
    ]
