"""The world: devices, links and nodes put together, and one run of it."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pyarrow as pa
import simpy
from numpy.typing import NDArray

from models.artifacts import Predictions
from models.errors import PolicyError
from sim import records
from sim.distributions import Floats
from sim.links import travel_quantile_s
from sim.nodes import Clock, Node, NodeSpec
from sim.policies import Policy, policy_text
from sim.streams import Streams
from sim.workload import DeviceGroup, Requests, draw_requests


@dataclass(frozen=True)
class World:
    """What is simulated, apart from the network's predictions and the policy.

    Requests are created from time 0 on. The measured window opens after ``warm_up_s`` and lasts
    ``duration_s``; nothing is created after it, and everything created is followed to its end.
    """

    groups: tuple[DeviceGroup, ...]
    nodes: tuple[NodeSpec, ...]
    warm_up_s: float
    duration_s: float
    seed: int

    @property
    def horizon_s(self) -> float:
        """End of the measured window."""
        return self.warm_up_s + self.duration_s

    def workload(self, samples: int, replication: int) -> Workload:
        """What the devices send in one replication; all arms of a comparison share it."""
        streams = Streams(self.seed, replication)
        requests = draw_requests(self.groups, samples, self.horizon_s, streams)
        node_index = {node.name: index for index, node in enumerate(self.nodes)}
        node_of_group = np.array([node_index[group.node] for group in self.groups])
        return Workload(requests, node_of_group[requests.group], replication)

    @cached_property
    def device_names(self) -> list[str]:
        """Names of all devices, in the order in which they are counted."""
        return [f"{group.name}-{number}" for group in self.groups for number in range(group.count)]


@dataclass(frozen=True)
class Workload:
    """The requests of one replication, and the index of the node that serves each."""

    requests: Requests
    node: NDArray[np.int64]
    replication: int

    @cached_property
    def arrival_order(self) -> list[int]:
        """Requests in the order in which they reach their nodes."""
        order: list[int] = np.argsort(self.requests.arrived_s, kind="stable").tolist()
        return order


@dataclass(frozen=True)
class Run:
    """What became of every request of a workload, warm-up included; arrays of length N.

    Times are NaN and exits 0 where they never happened.

    Attributes:
        deadline_s: relative deadlines, as scaled for this run.
        released_s: when the worker was free again, whether it had answered or refused.
        outcome: index into :data:`sim.records.OUTCOMES`.
    """

    workload: Workload
    deadline_s: Floats
    started_s: Floats
    finished_s: Floats
    received_s: Floats
    released_s: Floats
    exit: NDArray[np.int64]
    predicted: NDArray[np.int32]
    confidence: NDArray[np.float32]
    correct: NDArray[np.bool_]
    outcome: NDArray[np.int8]

    def measured(self, world: World) -> NDArray[np.bool_]:
        """Which requests were created inside the measured window."""
        return self.workload.requests.created_s >= world.warm_up_s


def simulate(
    world: World,
    workload: Workload,
    predictions: Predictions,
    policy: Policy,
    deadline_scale: float = 1.0,
) -> Run:
    """Follow every request of ``workload`` to its outcome.

    Args:
        predictions: of the network that every node serves.
        policy: copied for each node, so that it may keep state there.
        deadline_scale: factor on all deadlines.

    Raises:
        PolicyError: the policy raised or decided something impossible.
    """
    return _Simulation(world, workload, predictions, policy, deadline_scale).run()


def _copy_of(policy: Policy) -> Policy:
    try:
        return copy.deepcopy(policy)
    except Exception as error:
        raise PolicyError(
            f"policy {policy_text(policy)} cannot be copied for each node: "
            f"{type(error).__name__}: {error}"
        ) from error


class _Simulation:
    """One run in progress."""

    def __init__(
        self,
        world: World,
        workload: Workload,
        predictions: Predictions,
        policy: Policy,
        deadline_scale: float,
    ) -> None:
        requests = workload.requests
        count = len(requests)
        self.world = world
        self.workload = workload
        self.predictions = predictions
        self.deadline_s = requests.deadline_s * deadline_scale
        self.clock = Clock()
        # Python lists: twice as fast as arrays for one element at a time.
        self.started_s = [float("nan")] * count
        self.finished_s = [float("nan")] * count
        self.received_s = [float("nan")] * count
        self.released_s = [float("nan")] * count
        self.exit = [0] * count
        self.dropped = [False] * count
        self.arrived_s: list[float] = requests.arrived_s.tolist()
        self.downlink_s: list[float] = requests.downlink_s.tolist()
        self.device: list[int] = requests.device.tolist()
        self.group: list[int] = requests.group.tolist()
        self.node: list[int] = workload.node.tolist()
        self.downlinks = [(group.link.downlink, group.response_bytes) for group in world.groups]
        self.transmission_s = [link.transmission_s(size) for link, size in self.downlinks]
        devices = sum(group.count for group in world.groups)
        self.downlink_free_s = [0.0] * devices
        self.last_received_s = [0.0] * devices
        confidence: list[list[float]] = predictions.confidence.tolist()
        sample: list[int] = requests.sample.tolist()
        deadline_at_s: list[float] = (requests.created_s + self.deadline_s).tolist()
        self.nodes = [
            Node(
                self.clock,
                spec,
                _copy_of(policy),
                confidence,
                sample,
                deadline_at_s,
                spec.service.draw(requests.service_u),
                self.way_home_s,
                self.start,
                self.answer,
                self.drop,
            )
            for spec in world.nodes
        ]

    def run(self) -> Run:
        self.coming = iter(self.workload.arrival_order)
        self.schedule_next_arrival()
        self.clock.run()
        return self.result()

    def schedule_next_arrival(self) -> None:
        request = next(self.coming, None)
        if request is not None:
            self.clock.call_at(self.arrived_s[request], self.arrive, request)

    def arrive(self, event: simpy.Event) -> None:
        request: int = event._value
        self.schedule_next_arrival()
        self.nodes[self.node[request]].arrive(request)

    def start(self, request: int) -> None:
        self.started_s[request] = self.clock.now

    def answer(self, request: int, exit: int) -> None:
        """The answer leaves the node; nothing can influence its way home, so it is computed."""
        now = self.clock.now
        device = self.device[request]
        self.finished_s[request] = self.released_s[request] = now
        self.exit[request] = exit
        sent = max(now, self.downlink_free_s[device]) + self.transmission_s[self.group[request]]
        self.downlink_free_s[device] = sent
        received = max(sent + self.downlink_s[request], self.last_received_s[device])
        self.received_s[request] = self.last_received_s[device] = received

    def drop(self, request: int) -> None:
        self.dropped[request] = True
        self.released_s[request] = self.clock.now

    def way_home_s(self, request: int, quantile: float) -> float:
        link, size = self.downlinks[self.group[request]]
        return travel_quantile_s(link, size, quantile)

    def result(self) -> Run:
        requests = self.workload.requests
        exit = np.array(self.exit, dtype=np.int64)
        received_s = np.array(self.received_s)
        answered = exit > 0
        # Exit 0 looks up exit 1 here; those entries are void, as `answered` says.
        column = np.maximum(exit, 1) - 1
        predicted = self.predictions.predicted[requests.sample, column]
        label = self.predictions.label[requests.sample]
        in_time = received_s - requests.created_s <= self.deadline_s
        outcome = np.full(len(requests), records.LOST, dtype=np.int8)
        outcome[np.array(self.dropped, dtype=bool)] = records.DROPPED
        outcome[answered] = np.where(in_time[answered], records.ON_TIME, records.LATE)
        return Run(
            workload=self.workload,
            deadline_s=self.deadline_s,
            started_s=np.array(self.started_s),
            finished_s=np.array(self.finished_s),
            received_s=received_s,
            released_s=np.array(self.released_s),
            exit=exit,
            predicted=predicted,
            confidence=self.predictions.confidence[requests.sample, column],
            correct=answered & (predicted == label),
            outcome=outcome,
        )


def record_table(
    world: World,
    run: Run,
    predictions: Predictions,
    strategy: str,
    training_seed: int,
    policy: str,
) -> pa.Table:
    """The records of the requests created in the measured window of ``run``."""
    rows = run.measured(world)
    requests = run.workload.requests
    count = int(rows.sum())
    sample = requests.sample[rows]
    exit, started = run.exit[rows], run.started_s[rows]
    answered, was_started = exit > 0, ~np.isnan(started)
    columns: Sequence[pa.Array] = [
        records.repeated(strategy, count),
        np.full(count, training_seed),
        records.repeated(policy, count),
        np.full(count, run.workload.replication),
        np.flatnonzero(rows),
        records.named(requests.device[rows], world.device_names),
        records.named(requests.group[rows], [group.name for group in world.groups]),
        records.named(run.workload.node[rows], [node.name for node in world.nodes]),
        predictions.sample[sample],
        predictions.label[sample],
        requests.created_s[rows],
        run.deadline_s[rows],
        requests.arrived_s[rows],
        records.present(started, was_started, pa.float64()),
        records.present(run.finished_s[rows], answered, pa.float64()),
        records.present(run.received_s[rows], answered, pa.float64()),
        records.present(exit, answered, pa.int32()),
        records.present(run.predicted[rows], answered, pa.int32()),
        records.present(run.confidence[rows], answered, pa.float32()),
        run.correct[rows],
        records.named(run.outcome[rows], records.OUTCOMES),
    ]
    arrays = [
        pa.array(column, type=field.type) if isinstance(column, np.ndarray) else column
        for column, field in zip(columns, records.SCHEMA, strict=True)
    ]
    return pa.Table.from_arrays(arrays, schema=records.SCHEMA)
