"""Small worlds for tests: every part has a default, so that a test states only what it is about."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from hypothesis import HealthCheck, settings

from models.artifacts import Predictions, Profile
from sim.distributions import Constant, Distribution
from sim.network.capacity import ConstantCapacity
from sim.network.links import Direction, Link
from sim.nodes.service import DistributedService
from sim.nodes.spec import NodeSpec
from sim.policies import FixedExit
from sim.policy import ANSWER, DROP, run_to
from sim.results.metrics import confidence_interval
from sim.results.run import Run, record_table
from sim.running.slices import Slices
from sim.simulation import simulate
from sim.workload.arrivals import Created, Poisson
from sim.workload.device_groups import DeviceGroup
from sim.world import World


def examples(count: int):
    """Hypothesis settings: ``count`` examples, the same ones every time."""
    return settings(
        max_examples=count,
        derandomize=True,
        deadline=None,
        suppress_health_check=[HealthCheck.too_slow],
    )


# --- parts ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class AtTimes:
    """Arrivals written down: one tuple of times for each device."""

    times_s: tuple[tuple[float, ...], ...]

    def rate(self) -> float:
        return 1.0

    def cv(self) -> float:
        return float("nan")

    def begin(self, devices: int, uniforms: Any) -> AtTimesStream:
        return AtTimesStream(self.times_s)


class AtTimesStream:
    """Gives the times that are written down, slice by slice."""

    def __init__(self, times_s: tuple[tuple[float, ...], ...]) -> None:
        rows = sorted(
            (time, device, number)
            for device, times in enumerate(times_s)
            for number, time in enumerate(times)
        )
        columns = list(zip(*rows, strict=True)) if rows else [(), (), ()]
        self._created = Created(
            np.array(columns[1], dtype=np.int64),
            np.array(columns[2], dtype=np.int64),
            np.array(columns[0], dtype=np.float64),
        )
        self._given = 0

    def until(self, time_s: float) -> Created:
        end = int(np.searchsorted(self._created.created_s, time_s))
        part = slice(self._given, end)
        self._given = end
        return Created(*(column[part] for column in self._created))


class WrittenService:
    """Service times written down: ``seconds_of[request][exit - 1]``, cumulated from the image."""

    def __init__(self, seconds_of: Sequence[Sequence[float]]) -> None:
        self.exit_count = len(seconds_of[0])
        self._seconds_of = seconds_of

    def draw(self, u: np.ndarray) -> list[float]:
        assert len(u) == len(self._seconds_of), "one line of service times for each request"
        return list(range(len(u)))

    def seconds(self, drawn: float, since: int, to: int) -> float:
        row = self._seconds_of[int(drawn)]
        return row[to - 1] - (row[since - 1] if since else 0.0)

    def batch_seconds(self, drawn: Sequence[float], since: int, to: int) -> float:
        return max(self.seconds(one, since, to) for one in drawn)

    def resumed(self, drawn: float, since: int) -> float:
        return drawn

    def quantiles(self, q: float, since: int, resumed: bool = False) -> tuple[float, ...]:
        table = np.array(self._seconds_of)
        begun = table[:, [since - 1]] if since else 0.0
        return tuple(np.quantile((table - begun)[:, since:], q, axis=0).tolist())


def direction(
    delay: Distribution | float = 0.0, bits_per_s: float = float("inf"), **more: Any
) -> Direction:
    """One direction of a link, instant unless told otherwise."""
    if isinstance(delay, int | float):
        delay = Constant(float(delay))
    return Direction(delay, ConstantCapacity(bits_per_s), **more)


#: Links of the groups made here, by the name that the groups know.
LINKS: dict[str, Link] = {}


def named(link: Link) -> str:
    """A name for a link."""
    for name, known in LINKS.items():
        if known == link:
            return name
    name = f"link-{len(LINKS)}"
    LINKS[name] = link
    return name


def group(
    name: str = "devices",
    count: int = 1,
    arrivals: Any = None,
    deadline: Distribution | float = 1.0,
    link: Link | None = None,
    node: str = "edge",
    request_bytes: int = 1000,
    response_bytes: int = 100,
    **more: Any,
) -> DeviceGroup:
    """Devices on instant links that send one request a second each."""
    if isinstance(deadline, int | float):
        deadline = Constant(float(deadline))
    return DeviceGroup(
        name,
        count,
        arrivals or Poisson(1.0),
        deadline,
        named(link or Link()),
        node,
        request_bytes,
        response_bytes,
        **more,
    )


def node(
    service: Any = None, name: str = "edge", workers: int = 1, mean_s: float = 0.1, **more: Any
) -> NodeSpec:
    """A node with one exit; ``service`` may be a distribution of service times."""
    if service is None:
        service = Constant(mean_s)
    if hasattr(service, "ppf"):
        service = DistributedService(service, exit_count=1)
    return NodeSpec(name, workers, service, **more)


def world(
    *parts: DeviceGroup | NodeSpec,
    warm_up_s: float = 0.0,
    duration_s: float = 10.0,
    seed: int = 1,
    **more: Any,
) -> World:
    """A world of the device groups and nodes given."""
    groups = tuple(part for part in parts if isinstance(part, DeviceGroup))
    nodes = tuple(part for part in parts if isinstance(part, NodeSpec))
    groups, nodes = groups or (group(),), nodes or (node(),)
    links = {it.link: LINKS[it.link] for it in groups} | more.pop("links", {})
    return World(groups, nodes, links, warm_up_s, duration_s, seed, **more)


def written_world(
    times_s: Sequence[float] | Sequence[Sequence[float]],
    seconds_of: Sequence[float] | Sequence[Sequence[float]],
    *,
    workers: int = 1,
    duration_s: float = 100.0,
    warm_up_s: float = 0.0,
    **of_group: Any,
) -> World:
    """A world written down: when requests are created, and how long each takes.

    Args:
        times_s: creation times of one device, or one sequence of them for each device.
        seconds_of: in the order of creation, the service time of each request, or one for each
            exit.
    """
    devices = tuple(
        (tuple(times_s),)
        if not times_s or isinstance(times_s[0], int | float)
        else (tuple(times) for times in times_s)
    )
    rows = [[row] if isinstance(row, int | float) else list(row) for row in seconds_of]
    return world(
        group(count=len(devices), arrivals=AtTimes(devices), **of_group),
        node(WrittenService(rows), workers=workers),
        warm_up_s=warm_up_s,
        duration_s=duration_s,
    )


def predictions(
    samples: int = 10,
    exits: int = 1,
    confidence: Sequence[Sequence[float]] | None = None,
    predicted: Sequence[Sequence[int]] | None = None,
    label: Sequence[int] | None = None,
) -> Predictions:
    """A network that is right about every sample at every exit, unless told otherwise."""
    if confidence is not None:
        samples, exits = np.shape(confidence)
    if predicted is not None:
        samples, exits = np.shape(predicted)
    labels = np.arange(samples) % 10 if label is None else np.asarray(label)
    return Predictions(
        sample=np.arange(samples, dtype=np.int32),
        label=labels.astype(np.int32),
        predicted=(
            np.repeat(labels[:, None], exits, axis=1)
            if predicted is None
            else np.asarray(predicted)
        ).astype(np.int32),
        confidence=np.full((samples, exits), 0.9, dtype=np.float32)
        if confidence is None
        else np.asarray(confidence, dtype=np.float32),
        about={"architecture": "none"},
    )


def random_predictions(samples: int, exits: int, seed: int) -> Predictions:
    """A network that guesses; its samples bear numbers that are not their positions."""
    random = np.random.default_rng(seed)
    return Predictions(
        sample=random.permutation(1000)[:samples].astype(np.int32),
        label=random.integers(0, 3, samples, dtype=np.int32),
        predicted=random.integers(0, 3, (samples, exits), dtype=np.int32),
        confidence=random.uniform(0.3, 1.0, (samples, exits)).astype(np.float32),
        about={"architecture": "none"},
    )


def profile(
    exit: Sequence[Sequence[float]],
    segment: Sequence[Sequence[float]] | None = None,
    branch: Sequence[Sequence[float]] | None = None,
    batch_size: int = 1,
) -> Profile:
    """A profile from (inferences, exits) tables; segments and branches cost nothing by default."""
    tables = {"exit": exit, "segment": segment, "branch": branch}
    return Profile(
        {
            batch_size: {
                name: np.zeros(np.shape(exit)) if table is None else np.asarray(table, float)
                for name, table in tables.items()
            }
        },
        about={"architecture": "none", "host": {}},
    )


class Deciding:
    """A policy made of a function of the request's and the node's view."""

    def __init__(self, decide: Callable[[Any, Any], Any]) -> None:
        self.decide = decide


@dataclass
class Fickle:
    """Goes on exit by exit; drops every ``period``-th time it is asked, whatever was computed."""

    period: int
    asked: int = 0

    def decide(self, request: Any, node: Any) -> Any:
        self.asked += 1
        if self.asked % self.period == 0:
            return DROP
        if request.exit == node.exit_count or (request.exit and self.asked % 3 == 0):
            return ANSWER
        return run_to(request.exit + 1)


# --- runs ----------------------------------------------------------------------------------------


def run_of(
    world: World,
    policy: Any = None,
    says: Predictions | None = None,
    replication: int = 0,
    deadline_scale: float = 1.0,
) -> Run:
    """Simulate one replication; by default, every node answers at its first exit."""
    says = says or predictions(exits=max(node.service.exit_count for node in world.nodes))
    workload = Slices(world, says.label, replication)
    return simulate(world, workload, says, policy or FixedExit(1), deadline_scale)


def table_of(world: World, run: Run, says: Predictions | None = None):
    """Records of a run as an Arrow table."""
    says = says or predictions(exits=max(node.service.exit_count for node in world.nodes))
    return record_table(world, run, says, "standard", 0, "policy")


def records_of(world: World, run: Run, says: Predictions | None = None) -> pd.DataFrame:
    """Records of a run as a frame: times are NaN and numbers <NA> where they never happened."""
    frame = table_of(world, run, says).to_pandas()
    whole = dict.fromkeys(("exit", "predicted"), "Int64")
    names = ("strategy", "policy", "device", "group", "node", "outcome")
    return frame.astype(whole | dict.fromkeys(names, object))


def assert_confirms(expected: float, replications: Sequence[float], within: float) -> None:
    """The mean over independent ``replications`` is ``expected``, as far as chance allows.

    The interval (Student's t, 99.9 %) must hold ``expected`` and be narrower than
    ``within * expected`` on either side: a wide one confirms nothing.
    """
    interval = confidence_interval(replications, level=0.999)
    assert interval.low <= expected <= interval.high, f"{expected} is not in {interval}"
    assert interval.half_width <= within * expected, f"{interval} is too wide to confirm anything"
