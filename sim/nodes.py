"""Edge nodes: one FIFO queue before k workers, each of which serves one request at a time."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from heapq import heappush
from typing import Any

import simpy
from simpy.events import NORMAL

from models.errors import PolicyError
from sim.policies import ANSWER, DROP, Decision, Policy, policy_text
from sim.service import Service


@dataclass(frozen=True)
class NodeSpec:
    """What a node is; shared by all runs."""

    name: str
    workers: int
    service: Service


class Clock(simpy.Environment):
    """A SimPy environment that can call back at an absolute time.

    SimPy schedules by delay, and ``now + (time - now)`` need not be ``time``: events that should
    coincide would swap by a rounding error.
    """

    def call_at(self, time: float, callback: Callable[[simpy.Event], None], value: object) -> None:
        """Call ``callback(event)`` at ``time``, with ``event.value`` set to ``value``."""
        event = simpy.Event(self)
        event._ok = True
        event._value = value
        event.callbacks = [callback]
        heappush(self._queue, (time, NORMAL, next(self._eid), event))


class Journey:
    """A worker and the request that it serves: what a policy sees as the request's view.

    There is one for each worker, used again for request after request.
    """

    __slots__ = ("_clock", "_way_home", "confidence", "deadline_at_s", "drawn", "exit", "request")

    def __init__(self, clock: Clock, way_home: Callable[[int, float], float]) -> None:
        self._clock = clock
        self._way_home = way_home
        self.request = -1
        self.exit = 0
        self.confidence = float("nan")
        self.deadline_at_s = 0.0
        self.drawn: Any = None

    @property
    def remaining_s(self) -> float:
        """See :class:`sim.policies.RequestView`."""
        return self.deadline_at_s - self._clock.now

    def way_home_s(self, quantile: float) -> float:
        """See :class:`sim.policies.RequestView`."""
        return self._way_home(self.request, quantile)


class Node:
    """A node in one run; it is its own view for the policy.

    Args:
        confidence: per sample, the confidence of each exit.
        sample, deadline_at_s: per request.
        way_home: quantile of the seconds home, by request and quantile.
        started: called with the request when a worker takes it.
        answered: called with the request and the exit that answers it.
        dropped: called with the request when the policy refuses it.
    """

    def __init__(
        self,
        clock: Clock,
        spec: NodeSpec,
        policy: Policy,
        confidence: Sequence[Sequence[float]],
        sample: Sequence[int],
        deadline_at_s: Sequence[float],
        drawn: Sequence[Any],
        way_home: Callable[[int, float], float],
        started: Callable[[int], None],
        answered: Callable[[int, int], None],
        dropped: Callable[[int], None],
    ) -> None:
        self.name = spec.name
        self.workers = spec.workers
        self.exit_count = spec.service.exit_count
        self._clock = clock
        self._service = spec.service
        self._policy = policy
        self._confidence = confidence
        self._sample = sample
        self._deadline_at_s = deadline_at_s
        self._drawn = drawn
        self._started, self._answered, self._dropped = started, answered, dropped
        self._queue: deque[int] = deque()
        self._idle = [Journey(clock, way_home) for _ in range(spec.workers)]
        self._latencies: dict[tuple[float, int], tuple[float, ...]] = {}

    @property
    def queue_length(self) -> int:
        """Requests that wait for a worker."""
        return len(self._queue)

    def latencies_s(self, quantile: float, since: int = 0) -> tuple[float, ...]:
        """See :class:`sim.policies.NodeView`."""
        key = (quantile, since)
        known = self._latencies.get(key)
        if known is None:
            known = self._latencies[key] = self._service.quantiles(quantile, since)
        return known

    # --- the way of a request through a node, from arrival to answer ---------------------------

    def arrive(self, request: int) -> None:
        """A request has reached the node: an idle worker takes it, or it joins the queue."""
        if self._idle:
            journey = self._idle.pop()
            self._take(journey, request)
            self._serve(journey)
        else:
            self._queue.append(request)

    def _take(self, journey: Journey, request: int) -> None:
        journey.request = request
        journey.exit = 0
        journey.confidence = float("nan")
        journey.deadline_at_s = self._deadline_at_s[request]
        journey.drawn = self._drawn[request]
        self._started(request)

    def _serve(self, journey: Journey) -> None:
        """Do what the policy says; once a request is answered or refused, take the next."""
        while True:
            decision = self._ask(journey)
            if decision is ANSWER:
                self._answered(journey.request, journey.exit)
            elif decision is DROP:
                self._dropped(journey.request)
            else:
                busy = self._service.seconds(journey.drawn, journey.exit, decision.exit)
                journey.exit = decision.exit
                self._clock.call_at(self._clock.now + busy, self._exit_computed, journey)
                return
            if not self._queue:
                self._idle.append(journey)
                return
            self._take(journey, self._queue.popleft())

    def _exit_computed(self, event: simpy.Event) -> None:
        journey: Journey = event._value
        sample = self._sample[journey.request]
        journey.confidence = self._confidence[sample][journey.exit - 1]
        self._serve(journey)

    # -------------------------------------------------------------------------------------------

    def _ask(self, journey: Journey) -> Decision:
        try:
            decision = self._policy.decide(journey, self)
        except Exception as error:
            raise PolicyError(
                f"policy {policy_text(self._policy)} raised {type(error).__name__}: {error} "
                f"{self._situation(journey)}"
            ) from error
        if decision is ANSWER:
            possible = journey.exit > 0
        elif decision is DROP:
            possible = True
        else:
            possible = isinstance(decision, Decision) and (
                journey.exit < decision.exit <= self.exit_count
            )
        if not possible:
            raise PolicyError(
                f"policy {policy_text(self._policy)} decided {decision!r} "
                f"{self._situation(journey)}; possible are run_to({journey.exit + 1}) to "
                f"run_to({self.exit_count}), DROP, and ANSWER once an exit is computed"
            )
        return decision

    def _situation(self, journey: Journey) -> str:
        return (
            f"for request {journey.request} at node {self.name!r}, {self._clock.now:.6f} s into "
            f"the run, after exit {journey.exit}"
        )
