"""From a scenario to the world that is simulated, and the files that it is read from."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from models.artifacts import Profile, read_profile
from models.data.datasets import DATASETS
from models.errors import ArtifactError
from models.networks.architecture import Architecture
from offramp import world_parts as parts
from offramp.experiment import user_file
from offramp.schema import ComputeSection, DeviceGroupSection, NodeSection, Scenario
from offramp.schema.places import files_in
from sim.nodes.service import DistributedService, ProfiledService, Service
from sim.nodes.spec import NodeSpec
from sim.workload.device_groups import DeviceGroup
from sim.world import World

if TYPE_CHECKING:
    from offramp.scenario import LoadedScenario


def build_world(loaded: LoadedScenario, profile: Profile | None) -> World:
    """The world of a scenario.

    Args:
        profile: of this host; may be None if every node and device has times of its own.

    Raises:
        ArtifactError: a file that the scenario names is damaged, or a profile of another network.
    """
    scenario = loaded.scenario
    outline = outline_of(scenario, loaded.folder)
    services = _Services(loaded, profile)
    groups = tuple(
        replace(group, service=services.of_devices(group.name, section.compute))
        if section.compute
        else group
        for group, section in zip(outline.groups, scenario.devices.values(), strict=True)
    )
    nodes = tuple(_node(name, node, services) for name, node in scenario.nodes.items())
    return replace(outline, groups=groups, nodes=nodes, state_bytes=services.state_bytes)


def outline_of(scenario: Scenario, folder: Path) -> World:
    """The world without its nodes and without what devices compute, which take profiles.

    Raises:
        OfframpError: a file that the scenario names is damaged.
    """
    users = dict.fromkeys(scenario.links, 0)
    for group in scenario.devices.values():
        users[group.link] += group.count
    links = {
        name: parts.link(section, folder, users[name]) for name, section in scenario.links.items()
    }
    image_bytes = DATASETS[scenario.data.dataset].image_bytes
    simulation = scenario.simulation
    return World(
        groups=tuple(
            _group(name, group, image_bytes, folder) for name, group in scenario.devices.items()
        ),
        nodes=(),
        links=links,
        warm_up_s=simulation.warm_up_s,
        duration_s=simulation.duration_s,
        seed=scenario.seed,
        mqtt=parts.mqtt(scenario.mqtt, links, folder),
        faults=tuple(parts.fault(fault) for fault in scenario.faults),
    )


def _group(name: str, section: DeviceGroupSection, image_bytes: int, folder: Path) -> DeviceGroup:
    trace = parts.trace_of(section, folder)
    # A trace that brings deadlines goes before any distribution of them.
    deadline = 0.0 if section.deadline_ms is None else section.deadline_ms
    return DeviceGroup(
        name=name,
        count=section.count,
        arrivals=parts.arrivals(section.arrivals, folder, section.count, trace),
        deadline=parts.distribution(deadline, folder),
        link=section.link,
        node=section.node,
        request_bytes=section.request_bytes or image_bytes,
        response_bytes=section.response_bytes,
        samples=parts.samples(section, trace),
        priority=section.priority,
        last_exit=section.compute.last_exit if section.compute else None,
        energy=parts.power(section.energy),
    )


def _node(name: str, section: NodeSection, services: _Services) -> NodeSpec:
    batch, tier = section.batch, section.next_tier
    return NodeSpec(
        name=name,
        workers=section.workers,
        service=services.of_node(name, section),
        discipline=section.queue,
        queue_limit=section.queue_limit,
        admission=section.admission,
        batch_size=batch.size if batch else 1,
        batch_wait_s=batch.wait_ms * parts.MILLI if batch else 0.0,
        replicas=section.replicas,
        next_tier=tier.node if tier else None,
        tier_link=tier.link if tier else None,
        last_exit=section.last_exit,
        energy=parts.power(section.energy),
        overheads=parts.overheads(section.overhead, services.folder),
    )


# --- service times -------------------------------------------------------------------------------


class _Services:
    """Service times of the nodes and devices of a scenario.

    Attributes:
        state_bytes: of what a request takes along after each exit, if a profile says it.
    """

    def __init__(self, loaded: LoadedScenario, host_profile: Profile | None) -> None:
        self.folder = loaded.folder
        self._architecture = loaded.experiment.architecture
        self._host_profile = host_profile
        self.state_bytes = _state_bytes(host_profile)

    def of_node(self, name: str, section: NodeSection) -> Service:
        size = section.batch.size if section.batch else 1
        return self._of(f"node {name!r}", section, size)

    def of_devices(self, name: str, section: ComputeSection) -> Service:
        return self._of(f"devices {name!r}", section, 1)

    def _of(self, who: str, section: NodeSection | ComputeSection, largest_batch: int) -> Service:
        if section.service_ms is not None:
            times = parts.distribution(section.service_ms, self.folder)
            return DistributedService(times, self._architecture.exit_count, section.speed)
        profile = self._host_profile
        if section.profile is not None:
            path = user_file(section.profile, self.folder)
            profile = read_matching_profile(path, self._architecture)
        if profile is None:
            raise ArtifactError(f"{who} needs a profile of this host")
        self.state_bytes = self.state_bytes or _state_bytes(profile)
        try:
            return ProfiledService(profile, section.speed, largest_batch)
        except ArtifactError as error:
            raise ArtifactError(f"{who}: {error}") from error


def _state_bytes(profile: Profile | None) -> tuple[int, ...]:
    """Bytes of what resuming after each exit takes, from a profile that says it."""
    exits = profile.about.get("exits", []) if profile else []
    if not all("state_bytes" in exit for exit in exits):
        return ()
    return tuple(int(exit["state_bytes"]) for exit in exits)


# --- files ---------------------------------------------------------------------------------------


def needs_host_profile(loaded: LoadedScenario) -> bool:
    """Whether any node or device takes its times from the profile of this host."""
    computing: list[NodeSection | ComputeSection] = [*loaded.scenario.nodes.values()]
    computing += [group.compute for group in loaded.scenario.devices.values() if group.compute]
    return any(section.profile is None and section.service_ms is None for section in computing)


def world_files(loaded: LoadedScenario) -> dict[str, Path]:
    """Every file that the world is read from, by the key that names it."""
    return {
        ".".join(map(str, place)): user_file(name, loaded.folder)
        for place, name in files_in(loaded.scenario)
    }


def read_matching_profile(path: Path, architecture: Architecture) -> Profile:
    """Read a profile that must be of ``architecture`` and serve single images.

    Raises:
        ArtifactError: it is damaged, of another network, or was never measured with one image.
    """
    profile = read_profile(path)
    if profile.architecture != architecture.fingerprint():
        raise ArtifactError(
            f"{path} was made for another network: {profile.about.get('network', 'unknown')}; "
            f"the scenario describes {architecture}"
        )
    if profile.exit_count != architecture.exit_count:
        raise ArtifactError(
            f"{path}: the profile has {profile.exit_count} exits, but the network "
            f"{architecture.exit_count}"
        )
    if 1 not in profile.seconds:
        sizes = ", ".join(map(str, profile.seconds))
        raise ArtifactError(f"{path}: the profile has batch sizes {sizes}, but not 1")
    return profile


def check_node_profiles(loaded: LoadedScenario) -> None:
    """Read the profiles that nodes and devices name, before hours of training depend on them.

    Raises:
        ArtifactError: as :func:`read_matching_profile`.
    """
    for place, name in files_in(loaded.scenario):
        if place[-1] == "profile":
            path = user_file(name, loaded.folder)
            read_matching_profile(path, loaded.experiment.architecture)
