"""One run in progress: the nodes, and what becomes of requests that leave them."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Iterator, Sequence
from itertools import chain, islice
from typing import Any

import numpy as np
import simpy

from models.artifacts import Predictions
from models.errors import PolicyError
from sim.clock import Call, Clock
from sim.distributions import Floats
from sim.network.tiers import NextNode, TierLink, tier_links
from sim.network.topology import reception_times, ways
from sim.network.transport import Messages, travel_quantile_s
from sim.nodes.autocorrelation import AlikeInTime
from sim.nodes.batching import BatchingNode
from sim.nodes.node import Node
from sim.nodes.overheads import ServiceWithOverheads
from sim.nodes.requests import Request, VisitRow
from sim.nodes.spec import NodeSpec
from sim.outcomes import LATE, LOST, ON_TIME
from sim.policy import Policy, policy_text
from sim.results.run import Run
from sim.results.visits import Visits
from sim.running.finished import Finished
from sim.running.ledger import Ledger
from sim.running.slices import Slices
from sim.workload.device_groups import Requests, Row
from sim.world import World

FaultProcess = Generator[simpy.Event, Any, None]


def _copy_of(policy: Policy) -> Policy:
    try:
        return copy.deepcopy(policy)
    except Exception as error:
        raise PolicyError(
            f"policy {policy_text(policy)} cannot be copied for each node: "
            f"{type(error).__name__}: {error}"
        ) from error


class Engine(ABC):
    """One run in progress: the nodes, and what becomes of requests that leave them."""

    def __init__(
        self,
        world: World,
        workload: Slices,
        predictions: Predictions,
        policy: Policy,
        deadline_scale: float,
    ) -> None:
        self.world = world
        self.workload = workload
        self.predictions = predictions
        self.deadline_scale = deadline_scale
        self._policy = policy
        self._has_priorities = any(group.priority for group in world.groups)
        self.clock = Clock()
        self.way_up, self.way_home = ways(world, workload.streams, workload.absences)
        self._reception = reception_times(world, workload.streams)
        # Python lists: twice as fast as arrays for one element at a time.
        self.scores: list[list[float]] = predictions.confidence.tolist()
        self.done: list[Request] = []
        #: Of each kind of node, requests that another tier has sent there: its nodes take turns.
        self._turns = [0] * len(world.nodes)
        self.links: dict[str, TierLink] = tier_links(world, workload.streams)
        one_node = not self.links and not len(world.computing_devices)
        # Where requests are at one node each, visits follow from their own times.
        self.visits: list[VisitRow] | None
        self.visits = None if one_node else []
        self.has_batches = any(node.batch_size > 1 for node in world.nodes)
        if one_node and type(self).answered is Engine.answered:
            # The hot path: an answer needs no look at where it was computed.
            setattr(self, "answered", self.done.append)  # noqa: B010
        self.nodes = [
            self.node(spec, world.node_names[index], index, policy)
            for index, spec in enumerate(world.node_specs)
        ]
        draw = [f"draw {world.slow_moments}"] if world.slow_moments else []
        #: By node; devices that compute have no overheads.
        self._alike = {
            node.index: AlikeInTime(
                overheads.autocorrelation, workload.streams.generator("service", node.name, *draw)
            )
            for node in self.nodes
            if (overheads := node.spec.overheads) and overheads.autocorrelation
        }
        for node in self.nodes:
            if node.spec.next_tier is not None:
                link = self.links[node.spec.name]
                node.next_tier = self.next_tier(node.spec.next_tier, link.round_trip_s)
        self._schedule_faults()

    def node(self, spec: NodeSpec, name: str, index: int, policy: Policy) -> Node:
        """A node of this run, with a policy of its own."""
        kind = BatchingNode if spec.batch_size > 1 else Node
        clock = self.clock_of_node()
        return kind(clock, spec, name, index, _copy_of(policy), self, self.scores, self.visits)

    def next_tier(self, kind: str, round_trip_s: Callable[[int, int, float], float]) -> NextNode:
        """A kind of node as the policies before it see it; all its nodes take requests over."""
        tier = [self.nodes[it] for it in self.world.nodes_of(self.world.kind(kind))]
        for node in tier:
            node.takes_over = True
        return NextNode(tier[0], round_trip_s)

    def clock_of_node(self) -> Clock:
        """The clock of the next node that is built: the world's, unless nodes have their own."""
        return self.clock

    # --- faults of nodes, as SimPy processes ---------------------------------------------------

    def _schedule_faults(self) -> None:
        down = self.workload.absences.nodes
        for node in self.nodes:
            if down is not None and down.of(node.index):
                node.can_go_down()
                node.clock.process(self._crashes(node, down.of(node.index)))
        for index, factor, intervals in self.workload.absences.slow:
            node = self.nodes[index]
            node.clock.process(self._slow_times(node, factor, intervals))

    def _crashes(self, node: Node, intervals: Sequence[tuple[float, float]]) -> FaultProcess:
        for start_s, end_s in intervals:
            yield node.clock.at(start_s)
            node.go_down()
            yield node.clock.at(end_s)
            node.come_back()

    def _slow_times(
        self, node: Node, factor: float, intervals: Sequence[tuple[float, float]]
    ) -> FaultProcess:
        for start_s, end_s in intervals:
            yield node.clock.at(start_s)
            node.slow_down(factor)
            yield node.clock.at(end_s)
            node.speed_up(factor)

    # --- what becomes of requests that leave a node (see :class:`sim.nodes.node.Site`) ----------

    def answered(self, request: Request) -> None:
        """See :class:`sim.nodes.node.Site`: an answer from another tier comes back first.

        From node to node as it was sent on, and home from the first.
        """
        if not request.sent_on_by:
            self.home_from(request)
            return
        *before, node = request.sent_on_by
        request.sent_on_by = tuple(before)
        link = self.links[self.nodes[node].spec.name]
        at_s = link.back(request, node, self.row(request), self.clock._now)
        self.clock.call_at(at_s, self._came_back, request)

    def _came_back(self, call: Call) -> None:
        self.answered(call.value)

    def home_from(self, request: Request) -> None:
        """An answer sets out home from the node that its device knows."""
        request.home_s = self.clock._now
        self.done.append(request)

    @abstractmethod
    def row(self, request: Request) -> Row:
        """What was drawn for a request."""

    @abstractmethod
    def parts(self) -> Iterator[Run]:
        """The run, in parts: the requests that are done after each slice of time."""

    def refused(self, request: Request) -> None:
        """See :class:`sim.nodes.node.Site`."""
        self.done.append(request)

    def sent_on(self, request: Request) -> None:
        """See :class:`sim.nodes.node.Site`: with what was computed of it, over the tier's link."""
        node = request.node
        request.sent_on_by = (*request.sent_on_by, node.index)
        at_s = self.links[node.spec.name].on(
            request, node.index, self.row(request), self.clock._now
        )
        self.clock.call_at(at_s, self._reached_tier, request)

    def _reached_tier(self, call: Call) -> None:
        request: Request = call.value
        name = request.node.spec.next_tier
        assert name is not None
        kind = self.world.kind(name)
        pool = self.nodes[self.world.first_node[kind] : self.world.first_node[kind + 1]]
        up = [node for node in pool if not node.is_down]
        if up:
            self._turns[kind] += 1
            self.enter(request, up[(self._turns[kind] - 1) % len(up)])
        else:
            request.node, request.outcome = pool[0], LOST
            self.refused(request)

    def enter(self, request: Request, node: Node) -> None:
        """A request reaches a node that it was not made for."""
        now = np.array([self.clock._now])
        drawn = self._services(node, np.array([self.row(request)[7]]), now)[0]
        if request.exit:
            drawn = node.spec.service.resumed(drawn, request.exit)
        request.came_to(self.clock._now, drawn)
        node.arrive(request)

    def way_home_s(self, node: Node, group: int, quantile: float) -> float:
        """See :class:`sim.nodes.node.Site`."""
        home_s = self.way_home.quantile_s(group, quantile)
        # From another tier, an answer first comes back to the node that the group's devices know.
        back, at = [], self.world.nodes[self.world.kind(self.world.groups[group].node)]
        while at.name != node.spec.name and at.next_tier is not None:
            back.append(self.links[at.name].legs(group, 0)[1].travel())
            at = self.world.nodes[self.world.kind(at.next_tier)]
        return home_s + travel_quantile_s(back, quantile)

    def correct_exits(self, request: Request) -> tuple[bool, ...]:
        """See :class:`sim.nodes.node.Site`."""
        right = self.predictions.predicted[request.sample] == self.predictions.label[request.sample]
        return tuple(right.tolist())

    # --- requests, into nodes and out of them --------------------------------------------------

    def made(self, arrived: Messages, requests: Requests) -> list[list[Request]]:
        """Requests for each node, in the order of their arrival.

        Args:
            requests: the row of each message.
        """
        if len(self.nodes) > 1:
            by_node = np.argsort(arrived.node, kind="stable")
            arrived, requests = arrived.where(by_node), requests.where(by_node)
        counts = np.bincount(arrived.node, minlength=len(self.nodes))
        ends = np.cumsum(counts)[:-1]
        drawn = map(
            self._services,
            self.nodes,
            np.split(requests.service_u, ends),
            np.split(arrived.at_s, ends),
        )
        deadline_at_s = requests.created_s + requests.deadline_s * self.deadline_scale
        columns = [
            arrived.request,
            requests.group,
            arrived.node,
            requests.sample,
            deadline_at_s,
            arrived.at_s,
        ]
        priorities = [self._priorities(requests)] if self._has_priorities else []
        made = map(Request, *(column.tolist() for column in columns), chain(*drawn), *priorities)
        return [list(islice(made, count)) for count in counts.tolist()]

    def _services(self, node: Node, u: Floats, at_s: Floats) -> Sequence[Any]:
        """What the service of a node makes of uniform numbers, for requests that come at a time."""
        alike, service = self._alike.get(node.index), node.spec.service
        if alike is None:
            return service.draw(u)
        assert isinstance(service, ServiceWithOverheads)
        return service.draw(u, alike(u, at_s))

    def _priorities(self, requests: Requests) -> list[int]:
        priorities = [group.priority for group in self.world.groups]
        return [priorities[group] for group in requests.group.tolist()]

    def note_arrivals(self, ledger: Ledger) -> None:
        """Which node the requests that are done reached first, and when it read them."""
        arrived_s = [it.began[0] if it.began else it.arrived_s for it in self.done]
        ledger.note(
            np.array([it.index for it in self.done], dtype=np.int64),
            np.array([it.entry for it in self.done], dtype=np.int64),
            np.array(arrived_s, dtype=np.float64),
        )

    def outcomes(self, ledger: Ledger, pool: Finished) -> Run:
        """Take what is final out of the pool, as a part of the run."""
        requests = ledger.rows(pool.index)
        entry, arrived_s = ledger.entries(pool.index)
        ledger.close(pool.index)
        if self._reception is not None:
            # It arrived when its message did, and could be taken a little later; at a device that
            # computes, no message did.
            by_message = ~np.isin(requests.device, self.world.computing_devices)
            it = requests.where(by_message)
            read_s = self._reception(it.group, it.local, it.number, entry[by_message])
            # Rounding must not let it come before it was made.
            arrived_s[by_message] = np.maximum(arrived_s[by_message] - read_s, it.created_s)
        deadline_s = requests.deadline_s * self.deadline_scale
        answered = ~np.isnan(pool.received_s)
        computed = pool.exit > 0
        column = np.maximum(pool.exit, 1) - 1
        predicted = self.predictions.predicted[requests.sample, column]
        outcome = pool.outcome.copy()
        in_time = pool.received_s - requests.created_s <= deadline_s
        outcome[answered] = np.where(in_time[answered], ON_TIME, LATE)
        noted = None
        if self.visits is not None:
            noted = Visits.of_rows(self.visits)
            self.visits.clear()
        return Run(
            replication=self.workload.replication,
            requests=requests,
            index=pool.index,
            deadline_s=deadline_s,
            node=np.where(pool.later < 0, entry, pool.later),
            arrived_s=arrived_s,
            started_s=pool.started_s,
            finished_s=np.where(computed, pool.left_s, np.nan),
            received_s=pool.received_s,
            left_s=pool.left_s,
            released_s=pool.released_s,
            exit=pool.exit,
            predicted=predicted,
            confidence=self.predictions.confidence[requests.sample, column],
            correct=computed & (predicted == self.predictions.label[requests.sample]),
            batch=pool.batch,
            outcome=outcome,
            noted=noted,
        )
