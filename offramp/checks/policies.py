"""Checks of policies."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from models.errors import PolicyError
from offramp.checks.common import Problem
from offramp.checks.nodes import exits_in_reach
from offramp.schema import PolicySection, Scenario
from offramp.yaml_lines import Location
from sim.policy_building import build_policy


def check_policies(scenario: Scenario, folder: Path, exit_count: int) -> Iterator[Problem]:
    """What is wrong with the policies.

    Args:
        exit_count: of the network.
    """
    labels: list[str] = []
    for index, spec in enumerate(scenario.policies):
        place: Location = ("policies", index)
        try:
            build_policy(spec.policy, spec.parameters, folder, exit_count)
        except PolicyError as error:
            yield place, str(error)
            continue
        yield from _check_plain(place, spec)
        yield from _check_in_reach(place, spec, scenario, folder, exit_count)
        label = policy_label(spec)
        if label in labels:
            yield place, f"two policies are called {label!r}; give one of them a label"
        labels.append(label)


def _check_plain(place: Location, spec: PolicySection) -> Iterator[Problem]:
    """Whether parameters can be written into a manifest: YAML knows dates, and JSON does not."""
    for key, value in spec.parameters.items():
        try:
            json.dumps(value)
        except TypeError:
            yield (*place, key), f"{value!s} is read as a date or the like: write it in quotes"


def _check_in_reach(
    place: Location, spec: PolicySection, scenario: Scenario, folder: Path, exit_count: int
) -> Iterator[Problem]:
    """Whether the exits that a policy wants are held by somebody whom requests can reach."""
    for name, group in scenario.devices.items():
        deepest = exits_in_reach(scenario, group.node, exit_count)
        if not 0 < deepest < exit_count:
            continue
        # Lists have an entry for each exit of the network but the last.
        parameters = {
            key: value[: deepest - 1]
            if isinstance(value, list) and len(value) == exit_count - 1
            else value
            for key, value in spec.parameters.items()
        }
        try:
            build_policy(spec.policy, parameters, folder, deepest)
        except PolicyError as error:
            yield (
                place,
                f"{error}, as far as requests of devices {name!r} come: node {group.node!r} and "
                "its next tiers hold no more (last_exit)",
            )
            return


def policy_label(spec: PolicySection) -> str:
    """Name of a policy in records and figures: its label, or its last name and parameters."""
    if spec.label:
        return spec.label
    reference = spec.policy
    name = reference.rpartition(":")[2] if ":" in reference else reference.rpartition(".")[2]
    values = ", ".join(f"{key}={value}" for key, value in spec.parameters.items())
    return f"{name}({values})" if values else name
