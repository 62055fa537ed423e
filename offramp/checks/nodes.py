"""Checks of nodes and tiers, and of the devices that compute."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from models.artifacts import read_profile
from models.errors import ArtifactError
from offramp.checks.common import Problem, can_be_zero, check_file, check_name
from offramp.experiment import user_file
from offramp.schema import ComputeSection, EnergySection, NodeSection, Scenario
from offramp.world_parts import power
from offramp.yaml_lines import Location


def check_nodes(scenario: Scenario, folder: Path, exit_count: int) -> Iterator[Problem]:
    """What is wrong with the nodes.

    Args:
        exit_count: of the network.
    """
    for name, node in scenario.nodes.items():
        place = ("nodes", name)
        yield from check_service(place, node, folder, exit_count)
        yield from check_energy((*place, "energy"), node.energy)
        yield from _check_batch(place, node, scenario, folder)
        if node.next_tier is None:
            continue
        tier = node.next_tier
        yield from check_name((*place, "next_tier", "node"), "node", tier.node, scenario.nodes)
        if tier.link is not None:
            yield from check_name((*place, "next_tier", "link"), "link", tier.link, scenario.links)
        if tier.node in scenario.nodes:
            yield from check_goes_on(
                (*place, "next_tier", "node"), name, node, tier.node, scenario, exit_count
            )
    yield from _check_cycles(scenario)


def check_service(
    place: Location, section: NodeSection | ComputeSection, folder: Path, exit_count: int
) -> Iterator[Problem]:
    """What is wrong with the service times of a node, or of devices that compute."""
    both = section.profile is not None and section.service_ms is not None
    if both:
        yield (*place, "service_ms"), "give either profile or service_ms, not both"
    if section.service_ms is not None and can_be_zero(section.service_ms, folder):
        yield (*place, "service_ms"), "a service time must be above 0"
    if not both or isinstance(section, ComputeSection):
        yield from check_file((*place, "profile"), section.profile, folder)
    if section.last_exit is not None and section.last_exit > exit_count:
        yield (
            (*place, "last_exit"),
            f"given {section.last_exit}, but the network has exits 1 to {exit_count}",
        )


def check_energy(place: Location, section: EnergySection | None) -> Iterator[Problem]:
    """What is wrong with the power states."""
    states = power(section)
    for problem in states.problems() if states else ():
        yield (*place, problem.split()[0]), problem


def check_goes_on(
    place: Location,
    who: str,
    section: NodeSection | ComputeSection,
    tier: str,
    scenario: Scenario,
    exit_count: int,
) -> Iterator[Problem]:
    """Whether the next tier can go on with whatever it is sent."""
    here = min(section.last_exit or exit_count, exit_count)
    there = min(scenario.nodes[tier].last_exit or exit_count, exit_count)
    if there < here:
        yield (
            place,
            f"{tier!r} holds exits 1 to {there}, fewer than {who!r} with {here}: it could not go "
            f"on after exit {here}; raise nodes.{tier}.last_exit",
        )


def exits_in_reach(scenario: Scenario, node: str, exit_count: int) -> int:
    """The deepest exit that is computed at a node or at the tiers behind it."""
    deepest, seen = 0, set[str]()
    name: str | None = node
    while name in scenario.nodes and name not in seen:
        seen.add(name)
        section = scenario.nodes[name]
        deepest = max(deepest, section.last_exit or exit_count)
        name = section.next_tier.node if section.next_tier else None
    return deepest


def _check_batch(
    place: Location, node: NodeSection, scenario: Scenario, folder: Path
) -> Iterator[Problem]:
    """Batches are measured, not guessed: the profile must have sizes as large."""
    if node.batch is None or node.service_ms is not None:
        return
    measured, whose = max(scenario.profile.batch_sizes), "profile.batch_sizes"
    change = f"add {node.batch.size} there"
    if node.profile is not None:
        if list(check_file((*place, "profile"), node.profile, folder)):
            return  # said already
        try:
            measured = max(read_profile(user_file(node.profile, folder)).seconds)
        except ArtifactError as error:
            yield (*place, "profile"), str(error)
            return
        whose, change = f"its profile {node.profile}", "measure one with more images at once"
    if node.batch.size > measured:
        yield (
            (*place, "batch", "size"),
            f"batches of {node.batch.size} are asked for, but {whose} has at most {measured} "
            f"images; {change}, or lower the size",
        )


def _check_cycles(scenario: Scenario) -> Iterator[Problem]:
    """Report every circle of tiers once, at the first of its nodes."""
    reported: set[str] = set()
    for start in scenario.nodes:
        way = [start]
        while True:
            tier = scenario.nodes[way[-1]].next_tier
            if tier is None or tier.node not in scenario.nodes:
                break
            if tier.node == start and start not in reported:
                reported.update(way)
                circle = " → ".join([*way, start])
                yield (
                    ("nodes", start, "next_tier"),
                    f"the tiers go round in a circle: {circle}; the last tier has no next_tier",
                )
            if tier.node in way:
                break
            way.append(tier.node)
