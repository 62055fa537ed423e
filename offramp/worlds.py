"""From a scenario to the world that is simulated: people's units become seconds and bytes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from models.architecture import Architecture
from models.artifacts import Profile, read_profile
from models.datasets import DATASETS
from models.errors import ArtifactError
from offramp.scenario import LoadedScenario
from offramp.schema import (
    ArrivalsSection,
    ConstantSpec,
    DirectionSection,
    DistributionSpec,
    ExponentialSpec,
    GammaSpec,
    LognormalSpec,
    NodeSection,
    NormalSpec,
    UniformSpec,
)
from sim.distributions import (
    Constant,
    Distribution,
    Exponential,
    Gamma,
    Lognormal,
    TruncatedNormal,
    Uniform,
)
from sim.links import Direction, Link
from sim.nodes import NodeSpec
from sim.service import DistributedService, ProfiledService, Service
from sim.workload import Arrivals, DeviceGroup, Periodic, Poisson
from sim.world import World

MILLI = 1e-3
MEGA = 1e6


def build_world(loaded: LoadedScenario, profile: Profile | None) -> World:
    """The world of a scenario.

    Args:
        profile: of this host; may be None if every node has times of its own.

    Raises:
        ArtifactError: a profile that the scenario names is damaged or of another network.
    """
    scenario = loaded.scenario
    info = DATASETS[scenario.data.dataset]
    links = {
        name: Link(_direction(link.uplink), _direction(link.downlink))
        for name, link in scenario.links.items()
    }
    groups = tuple(
        DeviceGroup(
            name=name,
            count=group.count,
            arrivals=_arrivals(group.arrivals),
            deadline=distribution(group.deadline_ms, MILLI),
            link=links[group.link],
            node=group.node,
            request_bytes=group.request_bytes or info.image_bytes,
            response_bytes=group.response_bytes,
        )
        for name, group in scenario.devices.items()
    )
    nodes = tuple(
        NodeSpec(name, node.workers, _service(name, node, loaded, profile))
        for name, node in scenario.nodes.items()
    )
    simulation = scenario.simulation
    return World(groups, nodes, simulation.warm_up_s, simulation.duration_s, scenario.seed)


def needs_host_profile(loaded: LoadedScenario) -> bool:
    """Whether any node takes its times from the profile of this host."""
    return any(
        node.profile is None and node.service_ms is None for node in loaded.scenario.nodes.values()
    )


def node_profiles(loaded: LoadedScenario) -> Mapping[str, Path]:
    """Profile files that nodes of a scenario name."""
    return {
        name: loaded.folder / node.profile
        for name, node in loaded.scenario.nodes.items()
        if node.profile is not None
    }


def distribution(spec: DistributionSpec, unit: float) -> Distribution:
    """The distribution that a number or a mapping describes, times ``unit``."""
    match spec:
        case ConstantSpec():
            return Constant(spec.value * unit)
        case UniformSpec():
            return Uniform(spec.low * unit, spec.high * unit)
        case ExponentialSpec():
            return Exponential(spec.mean * unit)
        case NormalSpec():
            return TruncatedNormal(spec.mean * unit, spec.sd * unit)
        case LognormalSpec():
            return Lognormal(spec.median * unit, spec.sigma)
        case GammaSpec():
            return Gamma(spec.mean * unit, spec.sd * unit)
        case _:
            return Constant(spec * unit)


def _direction(section: DirectionSection) -> Direction:
    if section.jitter_ms:
        assert isinstance(section.latency_ms, int | float)  # the scenario was checked for it
        delay: Distribution = Gamma(section.latency_ms * MILLI, section.jitter_ms * MILLI)
    else:
        delay = distribution(section.latency_ms, MILLI)
    if section.bandwidth_mbps is None:
        return Direction(delay)
    return Direction(delay, section.bandwidth_mbps * MEGA)


def _arrivals(section: ArrivalsSection) -> Arrivals:
    processes: dict[str, Callable[[float], Arrivals]] = {"poisson": Poisson, "periodic": Periodic}
    return processes[section.process](section.rate_hz)


def _service(
    name: str, node: NodeSection, loaded: LoadedScenario, host_profile: Profile | None
) -> Service:
    architecture = loaded.experiment.architecture
    if node.service_ms is not None:
        times = distribution(node.service_ms, MILLI)
        return DistributedService(times, architecture.exit_count, node.speed)
    profile = host_profile
    if node.profile is not None:
        profile = read_matching_profile(loaded.folder / node.profile, architecture)
    if profile is None:
        raise ArtifactError(f"node {name!r} needs a profile of this host")
    return ProfiledService(profile, node.speed)


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
    """Read the profiles that nodes name, before hours of training depend on them.

    Raises:
        ArtifactError: as :func:`read_matching_profile`.
    """
    for path in node_profiles(loaded).values():
        read_matching_profile(path, loaded.experiment.architecture)
