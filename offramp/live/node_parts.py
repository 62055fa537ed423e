"""What an edge node is made of: its place in the scenario, its network, its profile, its images.

torch is imported by the functions that compute.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from models.artifacts import Profile
from models.data.datasets import load_dataset
from models.errors import ArtifactError, CheckpointError, DataError, LiveError, did_you_mean
from offramp.console import Console
from offramp.live.arms import LiveArm, arm_policy, network_folder
from offramp.pipeline import Pipeline
from offramp.scenario import LoadedScenario
from offramp.schema import MqttSection, NodeSection
from offramp.stages import keys
from offramp.stages.layout import CHECKPOINT, PROFILE
from offramp.store import Store
from offramp.worlds import read_matching_profile
from sim.nodes.service import ProfiledService
from sim.nodes.spec import NodeSpec

if TYPE_CHECKING:
    from devices.mqtt.broker_address import Broker
    from devices.node.edge import EdgeNode
    from devices.node.node_metrics import NodeMetrics
    from models.checkpoint import Origin
    from models.inference.runtimes import SegmentRuntime
    from models.networks.multi_exit import MultiExitNetwork


@dataclass(frozen=True)
class NodeFiles:
    """Where a node finds its network and its latencies.

    Attributes:
        checkpoint, profile: files that the user named; None: in the store.
    """

    store: Store
    checkpoint: Path | None = None
    profile: Path | None = None


@dataclass(frozen=True)
class NodePlace:
    """Which node of a scenario a process is.

    Attributes:
        edge: its kind, to which devices send.
        node: its own name, with a number where there are replicas.
    """

    edge: str
    node: str
    section: NodeSection

    @property
    def is_replica(self) -> bool:
        """Whether others share its requests."""
        return self.section.replicas > 1

    @property
    def batch_size(self) -> int:
        """Requests that it computes together at most."""
        return self.section.batch.size if self.section.batch else 1


def node_place(loaded: LoadedScenario, name: str | None, replica: int | None) -> NodePlace:
    """The node that the user chose.

    Args:
        name: of a kind of node, or of one node, such as ``edge-1``; None: the only one there is.
        replica: number of the node of its kind, from 0.

    Raises:
        LiveError: there is no such node, or several.
    """
    sections = loaded.scenario.nodes
    kind, number = name, replica
    if kind is None:
        if len(sections) > 1:
            raise LiveError(f"the scenario has nodes {', '.join(sections)}: choose one (--node)")
        kind = next(iter(sections))
    if kind not in sections:
        stem, _, digits = kind.rpartition("-")
        if replica is None and stem in sections and digits.isdigit():
            kind, number = stem, int(digits)
        else:
            there = ", ".join(sections)
            raise LiveError(
                f"--node {kind}: the scenario has {there}{did_you_mean(kind, sections)}"
            )
    section = sections[kind]
    if section.replicas == 1:
        if number:
            raise LiveError(f"there is one node {kind!r}, and no replica {number} of it")
        return NodePlace(kind, kind, section)
    if number is None:
        raise LiveError(
            f"there are {section.replicas} replicas of node {kind!r}: choose one (--replica 0 to "
            f"{section.replicas - 1})"
        )
    if not 0 <= number < section.replicas:
        raise LiveError(
            f"--replica {number}: node {kind!r} has replicas 0 to {section.replicas - 1}"
        )
    return NodePlace(kind, f"{kind}-{number}", section)


def load_network(loaded: LoadedScenario, file: Path) -> tuple[MultiExitNetwork, Origin]:
    """The network of a checkpoint file, which must be the scenario's.

    Raises:
        CheckpointError: it cannot be read, or is of another network or dataset.
    """
    from models.checkpoint import load_checkpoint

    network, origin = load_checkpoint(file, loaded.folder)
    architecture, dataset = loaded.experiment.architecture, loaded.scenario.data.dataset
    if origin.architecture.fingerprint() != architecture.fingerprint():
        raise CheckpointError(
            f"{file}: made for another network: {origin.architecture}; the scenario describes "
            f"{architecture}"
        )
    if origin.dataset != dataset:
        raise CheckpointError(
            f"{file}: trained on {origin.dataset}, but the scenario's dataset is {dataset}"
        )
    return network, origin


def serving_runtime(
    loaded: LoadedScenario, network: MultiExitNetwork, batch_size: int
) -> SegmentRuntime:
    """The runtime that the scenario's profile names, warmed up for single images and batches.

    Raises:
        NetworkError: it is not installed, or cannot compute this network.
    """
    from models.inference.runtimes import InferenceSettings, build_runtime

    spec = loaded.scenario.profile
    settings = InferenceSettings(spec.runtime, spec.precision, spec.threads)
    sizes = sorted({1, batch_size})
    return build_runtime(network, loaded.experiment.info, settings, sizes)


def serving_profile(
    loaded: LoadedScenario,
    store: Store,
    file: Path | None,
    network: MultiExitNetwork,
    runtime: SegmentRuntime,
    batch_size: int,
    console: Console,
) -> Profile:
    """Latencies of the runtime that serves: from a file, from the store, or measured now.

    What is measured is kept in the store, for the next start, unless the node serves larger batches
    than the scenario profiles (``profile.batch_sizes``).

    Raises:
        ArtifactError: the file is damaged or of another network.
        LiveError: it was measured with another runtime.
    """
    spec = loaded.scenario.profile
    if file is not None:
        profile = read_matching_profile(file, loaded.experiment.architecture)
        measured = profile.about.get("settings", {}).get("runtime", "eager")
        if measured != spec.runtime:
            raise LiveError(
                f"{file} was measured with runtime {measured}, but the node serves with "
                f"{spec.runtime} (profile.runtime)"
            )
        return profile
    if max(spec.batch_sizes) < batch_size:
        return _measured(loaded, network, runtime, batch_size, console)
    from offramp.stages.profiling import run_profiling

    key = keys.profile_key(loaded.scenario, loaded.experiment)
    folder = store.find_or_make("profile", key, lambda: run_profiling(loaded, store, console, key))
    return read_matching_profile(folder / PROFILE, loaded.experiment.architecture)


def _measured(
    loaded: LoadedScenario,
    network: MultiExitNetwork,
    runtime: SegmentRuntime,
    batch_size: int,
    console: Console,
) -> Profile:
    from models.inference.profiler import ProfilingSettings, measure_runtime

    spec = loaded.scenario.profile
    sizes = tuple(sorted({1, batch_size}))
    settings = ProfilingSettings(
        sizes, spec.repetitions, spec.warm_up, spec.threads, spec.precision, spec.runtime
    )
    with console.task("profile exits", spec.repetitions * len(sizes)) as update:
        return measure_runtime(runtime, network, settings, update)


def live_spec(place: NodePlace, profile: Profile) -> NodeSpec:
    """The node as it is simulated, but as fast as it is measured to be.

    Raises:
        ArtifactError: the profile lacks batches as large as the node's.
    """
    section, size = place.section, place.batch_size
    try:
        service = ProfiledService(profile, 1.0, size)
    except ArtifactError as error:
        raise ArtifactError(f"node {place.edge!r}: {error}") from error
    return NodeSpec(
        name=place.edge,
        workers=section.workers,
        service=service,
        discipline=section.queue,
        queue_limit=section.queue_limit,
        admission=section.admission,
        batch_size=size,
        batch_wait_s=section.batch.wait_ms * 1e-3 if section.batch else 0.0,
        replicas=section.replicas,
        last_exit=section.last_exit,
    )


def sample_images(loaded: LoadedScenario, console: Console) -> NDArray[np.uint8] | None:
    """The test split's images, which devices may name by number; None where it is not here.

    Nothing is downloaded for it: devices may as well send images.
    """
    data = loaded.scenario.data
    try:
        return load_dataset(data.dataset, data.validation_fraction, download=False).test.images
    except DataError as error:
        reason = str(error).splitlines()[0]
        console.note(f"note: devices must send images themselves, not sample numbers: {reason}")
        return None


def build_node(
    loaded: LoadedScenario,
    broker: Broker,
    place: NodePlace,
    arm: LiveArm,
    files: NodeFiles,
    metrics: NodeMetrics,
    console: Console,
) -> EdgeNode:
    """An edge node, ready to start.

    Args:
        arm: with ``files.checkpoint``, its policy alone counts.

    Raises:
        OfframpError: something is missing, or does not fit the scenario.
    """
    from devices.node.edge import EdgeNode, EdgeSettings

    command = Pipeline(loaded, files.store, console).arguments()
    file = files.checkpoint or network_folder(loaded, files.store, arm, command) / CHECKPOINT
    network, origin = load_network(loaded, file)
    runtime = serving_runtime(loaded, network, place.batch_size)
    profile = serving_profile(
        loaded, files.store, files.profile, network, runtime, place.batch_size, console
    )
    spec = live_spec(place, profile)
    named = files.checkpoint is not None
    policy = arm_policy(loaded, files.store, arm, spec.service, command, named)
    mqtt, architecture = loaded.scenario.mqtt or MqttSection(), loaded.experiment.architecture
    settings = EdgeSettings(
        edge=place.edge,
        node=place.node,
        shared=place.is_replica,
        persistent=mqtt.session == "persistent",
        keep_alive_s=mqtt.keep_alive_s,
        network=str(architecture),
        policy=arm.policy,
        strategy=origin.strategy,
        training_seed=origin.seed,
    )
    images = sample_images(loaded, console)
    shape, classes = architecture.input_shape, architecture.classes
    return EdgeNode(broker, settings, spec, runtime, policy, shape, classes, images, metrics)
