"""Checks across the keys of a scenario: names that refer to others, values that must fit."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from models.architecture import backbone_nodes
from models.errors import PolicyError, did_you_mean
from offramp.schema import PolicySection, Scenario
from offramp.yaml_lines import Location
from sim.policies import build_policy

#: Requests of one replication that are held in memory, at about 500 bytes each.
MOST_REQUESTS = 10_000_000


def check_across_keys(scenario: Scenario, folder: Path) -> list[tuple[Location, str]]:
    """Everything wrong with a scenario that no key shows alone: where, and what.

    Args:
        folder: files that the scenario names are relative to it.
    """
    return [
        *_check_model(scenario),
        *_check_training(scenario, folder),
        *_check_profile(scenario),
        *_check_world(scenario, folder),
        *_check_size(scenario),
        *_check_policies(scenario, folder),
    ]


def _check_model(scenario: Scenario) -> Iterable[tuple[Location, str]]:
    nodes = backbone_nodes(scenario.model.backbone)
    for index, exit in enumerate(scenario.model.exits):
        place: Location = ("model", "exits", index)
        if exit not in nodes:
            yield (
                place,
                (
                    f"{scenario.model.backbone} has no node {exit!r}{did_you_mean(exit, nodes)} "
                    f"(allowed: {', '.join(nodes)})"
                ),
            )
        elif exit in scenario.model.exits[:index]:
            yield place, f"node {exit!r} is named twice"
        elif any(
            earlier in nodes and nodes.index(earlier) > nodes.index(exit)
            for earlier in scenario.model.exits[:index]
        ):
            yield place, f"exits are named from the earliest to the last: {', '.join(nodes)}"


def _check_training(scenario: Scenario, folder: Path) -> Iterable[tuple[Location, str]]:
    training = scenario.training
    exit_count = len(scenario.model.exits) + 1
    if training.exit_weights and len(training.exit_weights) != exit_count:
        yield (
            ("training", "exit_weights"),
            f"{len(training.exit_weights)} weights are given for {exit_count} exits "
            "(the backbone's own classifier is the last)",
        )
    if training.exit_weights and not any(training.exit_weights):
        yield ("training", "exit_weights"), "at least one weight must be above 0"
    if training.regime == "classifier_wise" and not scenario.model.exits:
        yield (
            ("training", "regime"),
            "classifier_wise trains early exits, but model.exits names none",
        )
    if training.evaluations > training.steps:
        yield (
            ("training", "evaluations"),
            f"{training.evaluations} evaluations do not fit into {training.steps} steps",
        )
    for key, values in (("strategies", training.strategies), ("seeds", training.seed_list)):
        for index, value in enumerate(values):
            if value in values[:index]:
                yield ("training", key, index), f"{value!r} is named twice"
    if training.checkpoints:
        for strategy in training.strategies:
            files = training.checkpoints.get(strategy, [])
            if len(files) != len(training.seed_list):
                yield (
                    ("training", "checkpoints"),
                    f"{len(files)} files are given for strategy {strategy!r}, "
                    f"but there are {len(training.seed_list)} seeds",
                )
            for index, file in enumerate(files):
                if file in files[:index]:
                    yield (
                        ("training", "checkpoints", strategy, index),
                        f"{file} is named twice: each seed needs a training of its own",
                    )
                if not (folder / file).is_file():
                    yield (
                        ("training", "checkpoints", strategy, index),
                        f"no such file: {folder / file}",
                    )


def _check_profile(scenario: Scenario) -> Iterable[tuple[Location, str]]:
    batch_sizes = scenario.profile.batch_sizes
    if 1 not in batch_sizes:
        yield ("profile", "batch_sizes"), f"given {batch_sizes}; 1 must be among them"
    if len(set(batch_sizes)) < len(batch_sizes):
        yield ("profile", "batch_sizes"), f"given {batch_sizes}; each batch size once"


def _check_world(scenario: Scenario, folder: Path) -> Iterable[tuple[Location, str]]:
    for group, devices in scenario.devices.items():
        for key, name, known in (
            ("link", devices.link, scenario.links),
            ("node", devices.node, scenario.nodes),
        ):
            if name not in known:
                yield (
                    ("devices", group, key),
                    f"no {key} is called {name!r}{did_you_mean(name, known)} "
                    f"(there are: {', '.join(known)})",
                )
        if _can_be_zero(devices.deadline_ms):
            yield ("devices", group, "deadline_ms"), "a deadline must be above 0"
    for name, link in scenario.links.items():
        for direction, part in (("uplink", link.uplink), ("downlink", link.downlink)):
            if part.jitter_ms and not isinstance(part.latency_ms, int | float):
                yield (
                    ("links", name, direction, "jitter_ms"),
                    "latency_ms is a distribution already; give one or the other",
                )
            elif part.jitter_ms and not part.latency_ms:
                yield (
                    ("links", name, direction, "jitter_ms"),
                    "jitter about a latency of 0 would need negative delays; give latency_ms",
                )
    for location, spec in _distributions(scenario):
        if getattr(spec, "distribution", None) == "uniform" and spec.low >= spec.high:
            yield location, f"low ({spec.low}) must be below high ({spec.high})"
    for name, node in scenario.nodes.items():
        if node.profile is not None and node.service_ms is not None:
            yield ("nodes", name, "service_ms"), "give either profile or service_ms, not both"
        if node.profile is not None and not (folder / node.profile).is_file():
            yield ("nodes", name, "profile"), f"no such file: {folder / node.profile}"
        if node.service_ms is not None and _can_be_zero(node.service_ms):
            yield ("nodes", name, "service_ms"), "a service time must be above 0"


def _check_size(scenario: Scenario) -> Iterable[tuple[Location, str]]:
    horizon_s = scenario.simulation.warm_up_s + scenario.simulation.duration_s
    requests = horizon_s * sum(
        group.count * group.arrivals.rate_hz for group in scenario.devices.values()
    )
    if requests > MOST_REQUESTS:
        yield (
            ("simulation", "duration_s"),
            f"{requests:.3g} requests in one replication; at most {MOST_REQUESTS:,} fit into "
            "memory: shorten the window, or lower counts or rates",
        )


def _can_be_zero(spec: Any) -> bool:
    value = spec if isinstance(spec, int | float) else getattr(spec, "value", None)
    return value == 0


def _distributions(scenario: Scenario) -> Iterable[tuple[Location, Any]]:
    for group, devices in scenario.devices.items():
        yield ("devices", group, "deadline_ms"), devices.deadline_ms
    for name, link in scenario.links.items():
        yield ("links", name, "uplink", "latency_ms"), link.uplink.latency_ms
        yield ("links", name, "downlink", "latency_ms"), link.downlink.latency_ms
    for name, node in scenario.nodes.items():
        yield ("nodes", name, "service_ms"), node.service_ms


def _check_policies(scenario: Scenario, folder: Path) -> Iterable[tuple[Location, str]]:
    exit_count = len(scenario.model.exits) + 1
    labels: list[str] = []
    for index, spec in enumerate(scenario.policies):
        place: Location = ("policies", index)
        try:
            build_policy(spec.policy, spec.parameters, folder, exit_count)
        except PolicyError as error:
            yield place, str(error)
            continue
        label = policy_label(spec)
        if label in labels:
            yield place, f"two policies are called {label!r}; give one of them a label"
        labels.append(label)


def policy_label(spec: PolicySection) -> str:
    """Name of a policy in records and figures: its label, or its last name and parameters."""
    if spec.label:
        return spec.label
    reference = spec.policy
    name = reference.rpartition(":")[2] if ":" in reference else reference.rpartition(".")[2]
    values = ", ".join(f"{key}={value}" for key, value in spec.parameters.items())
    return f"{name}({values})" if values else name
