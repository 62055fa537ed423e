"""Nodes: a queue before k workers, each of which serves one request, or one batch, at a time."""

from __future__ import annotations

import math
from bisect import insort
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from operator import attrgetter
from typing import Any, Protocol

from models.errors import PolicyError
from sim.clock import Call, Clock
from sim.nodes.late_reading import LateReading
from sim.nodes.overheads import Overheads, ServiceWithOverheads
from sim.nodes.queues import Queue, queue_of
from sim.nodes.requests import Request, VisitRow
from sim.nodes.spec import NodeSpec
from sim.outcomes import DROPPED, LOST
from sim.policy import ANSWER, DROP, OFFLOAD, Decision, NextTier, Policy, policy_text

_ARRIVED_S = attrgetter("arrived_s")


class Site(Protocol):
    """Where a node stands: what becomes of requests that leave it."""

    def answered(self, request: Request) -> None:
        """The request's answer is ready."""

    def refused(self, request: Request) -> None:
        """The request was dropped or lost, as its ``outcome`` says."""

    def sent_on(self, request: Request) -> None:
        """The request goes on to the next tier."""

    def way_home_s(self, node: Node, group: int, quantile: float) -> float:
        """Quantile of the seconds that an answer takes from the node to a device of the group."""

    def correct_exits(self, request: Request) -> tuple[bool, ...]:
        """Whether each exit is right about the request's sample."""


class Node:
    """A node in one run; it is its own view for the policy (:class:`sim.policy.NodeView`).

    Requests that are known ahead wait in a feed, in the order of their arrival. They cost no event
    while every worker is busy: whatever has arrived joins the queue when a worker looks for work,
    or when a policy may look at the queue.

    Args:
        index: among the nodes of the run.
        scores: per sample, the confidence of each exit.
        visits: where every visit is noted; None where visits follow from the requests' own times.
    """

    def __init__(
        self,
        clock: Clock,
        spec: NodeSpec,
        name: str,
        index: int,
        policy: Policy,
        site: Site,
        scores: Sequence[Sequence[float]],
        visits: list[VisitRow] | None,
    ) -> None:
        self.clock = clock
        self.spec = spec
        self.name = name
        self.index = index
        self.workers = spec.workers
        self.exit_count = spec.last_exit or spec.service.exit_count
        self.next_tier: NextTier | None = None
        #: Whether requests come here of which another tier has computed a part.
        self.takes_over = False
        self._policy = policy
        self._decide = policy.decide
        self._seconds = spec.service.seconds
        self._site = site
        self.scores = scores
        self._visits = visits
        self._queue: Queue[Request] = queue_of(spec.discipline)
        self._idle = spec.workers
        self._feed: deque[Request] = deque()
        #: Requests that were expected here, and that came unexpected.
        self._expected = self._unexpected = 0
        besides = spec.overheads or Overheads()
        self._answered = self._answer_late if besides.answers_late else site.answered
        self._disturb_s = besides.disturb_s
        self._late_reading: LateReading | None = None
        self._waking = False
        self._factors: list[float] = []
        self._slowness = 1.0
        self._incarnation = 0
        #: Whether it has crashed, and when it was last repaired.
        self.is_down, self._back_s = False, -math.inf
        self._serving: set[Request] | None = None
        self._batches = spec.batch_size > 1
        self._takes_notes = visits is not None
        self._when_waking = (self._wake,)
        self._alarm = Call(self._wake, None)
        self._when_computed = (self._computed,)
        self._when_cut_off = (self._cut_off,)
        self._latencies: dict[tuple[float, int], tuple[float, ...]] = {}
        #: What is known of the way home, by device group and quantile.
        self.ways_home: dict[tuple[int, float], float] = {}
        plain = spec.queue_limit is None and spec.admission == "all"
        self._admit: Callable[[Request], None] = self._queue.push if plain else self._admit_if
        self._mean_s = spec.service.means() if spec.admission == "feasible" else ()
        #: Seconds of a worker for each reply, by what was drawn for the request.
        self._reply_s: Callable[[Any], float] | None = None
        #: When a worker last got free that had been busy.
        self._freed_s = -math.inf
        self._cooling = besides.cooling
        #: How cold the node was when the last service began, and how cold that leaves it.
        self._began_cold = self._left_cold = 1.0
        if isinstance(spec.service, ServiceWithOverheads):
            self._reply_s = spec.service.reply_s
            self._taken = spec.service.taken
            self._egress_s = spec.service.egress_s
            self._answer_late_s = spec.service.answer_late_s
            if besides.reads_late:
                self._late_reading = LateReading(clock, spec.service.ingress_s, self._wake_s)

    # --- what a policy may know ----------------------------------------------------------------

    @property
    def queue_length(self) -> int:
        """Requests that wait for a worker."""
        return len(self._queue)

    @property
    def idle_workers(self) -> int:
        """Workers that serve nothing."""
        return self._idle

    def latencies_s(self, quantile: float, since: int = 0) -> tuple[float, ...]:
        """See :class:`sim.policy.NodeView`."""
        key = (quantile, since)
        known = self._latencies.get(key)
        if known is None:
            # Where others send on, what came with a request and what was computed here look alike
            # from here: the whole time is the cautious answer.
            service, resumed = self.spec.service, self.takes_over and since > 0
            known = service.quantiles(quantile, since, resumed)[: self.exit_count - since]
            self._latencies[key] = known
        return known

    def way_home_s(self, group: int, quantile: float) -> float:
        """Quantile of the seconds that an answer takes to a device of ``group``."""
        known = self._site.way_home_s(self, group, quantile)
        self.ways_home[group, quantile] = known
        return known

    def correct_exits(self, request: Request) -> tuple[bool, ...]:
        """Whether each exit is right about the request's sample."""
        return self._site.correct_exits(request)

    def service_times_s(self, request: Request) -> tuple[float, ...]:
        """The seconds that ``request`` will truly take to each exit after its last."""
        return tuple(
            self._seconds(request.drawn, request.exit, exit) * self._slowness
            for exit in range(request.exit + 1, self.exit_count + 1)
        )

    # --- the way of a request through a node, from arrival to answer ---------------------------

    def expect(self, requests: Iterable[Request]) -> None:
        """Requests will arrive, at times that ascend and are not before those expected already."""
        before = len(self._feed)
        self._feed.extend(requests)
        self._expected += len(self._feed) - before
        if self._late_reading and before:
            # Who is read late may come after the first of them.
            in_order = sorted(self._feed, key=_ARRIVED_S)
            self._feed.clear()
            self._feed.extend(in_order)
        self._await_next()

    def arrive(self, request: Request) -> None:
        """A request has reached the node now."""
        if self.is_down:
            self._expect_again(request)
            return
        self._admit_arrived()
        if self._late_reading and self._late_reading.put_off(request):
            self._expect_again(request)
            self.clock.call_at(request.arrived_s, self._look_for_work, None)
            return
        self._unexpected += 1
        self._admit(request)
        self._start()

    def _expect_again(self, request: Request) -> None:
        """A request that came waits among those that are expected."""
        insort(self._feed, request, key=_ARRIVED_S)
        self._expected += 1

    def _look_for_work(self, call: Call) -> None:
        if not self.is_down:
            self._admit_arrived()
            self._start(alone=True)

    def _await_next(self) -> None:
        """While a worker is idle, wake when the next expected request arrives."""
        if self._idle and self._feed and not self._waking:
            self._waking = True
            clock = self.clock
            time = self._feed[0].arrived_s
            # What arrived while every worker was busy is found at once.
            self._alarm.callbacks = self._when_waking
            clock.push(time if time > clock._now else clock._now, self._alarm)

    def _wake(self, call: Call) -> None:
        self._waking = False
        if self._idle:  # else whoever frees a worker, or repairs the node, looks for work
            self._admit_arrived()
            self._start(alone=True)

    def _admit_arrived(self) -> None:
        """Whatever has arrived by now joins the queue."""
        feed, admit, now = self._feed, self._admit, self.clock._now
        late_reading = self._late_reading
        while feed and feed[0].arrived_s <= now:
            request = feed.popleft()
            if late_reading and late_reading.put_off(request):
                insort(feed, request, key=_ARRIVED_S)
            else:
                admit(request)

    def _admit_if(self, request: Request) -> None:
        """Let a request join the queue unless the node is full, or it would be in vain."""
        limit = self.spec.queue_limit
        waiting = len(self._queue)
        # A worker that is idle takes it at once: nobody waits then.
        refuse = limit is not None and waiting >= limit + self._idle
        # What came while the node was down is read when it is back.
        at_s = max(request.arrived_s, self._back_s)
        if not refuse and self._mean_s:
            request.node = self
            before = max(0, waiting + 1 - self._idle)
            work_s = before / self.workers * self._mean_s[0]
            remaining_s = request.deadline_at_s - at_s
            needed_s = work_s + self._mean_s[0] + request.way_home_s(0.5)
            refuse = needed_s > remaining_s
        if refuse:
            self._refuse(request, DROPPED, at_s)
        else:
            self._queue.push(request)

    def _start(self, alone: bool = False) -> None:
        """Idle workers take what waits.

        Args:
            alone: whether nothing else is done in this event, so that time may go on.
        """
        while self._idle and self._queue:
            self._idle -= 1
            self._serve(self._take(), alone)
        self._await_next()

    def _take(self, behind: bool = False) -> Request:
        """Take what is next in the queue.

        Args:
            behind: whether it comes behind another member of its batch.
        """
        request = self._queue.take()
        request.node = self
        request.started_s = self.clock._now
        if self._reply_s is not None:
            now = request.started_s
            # Who waited for a batch to fill, or for the node to be back, found the worker idle.
            at_once = behind or request.arrived_s < now == self._freed_s
            if self._cooling is not None and not behind:
                others_compute = self._idle < self.workers - 1
                self._began_cold = self._left_cold if others_compute else self._cold_at(now)
                self._left_cold = self._cooling.kept * self._began_cold
            request.drawn = self._taken(request.drawn, at_once, self._began_cold)
        if self._serving is not None:
            self._serving.add(request)
        return request

    def _cold_at(self, time_s: float) -> float:
        """How cold the node is if nothing has been computed since a worker last got free."""
        assert self._cooling is not None
        return self._cooling.after_pause(self._left_cold, time_s - self._freed_s)

    def _wake_s(self, came_s: float) -> float:
        """By how much a message is read later that comes while no worker computes."""
        if self._cooling is None or self._idle < self.workers:
            return 0.0
        return self._cooling.read_s * self._cold_at(came_s)

    def _serve(self, request: Request, alone: bool = False) -> None:
        """Do what the policy says; once a request has left, its worker takes the next.

        As long as nothing else in the world happens before the worker's next step, it costs no
        event: time goes on to it at once.

        Args:
            alone: whether nothing else is done in this event, so that time may go on.
        """
        clock, feed, queue = self.clock, self._feed, self._queue
        seconds, reply_s = self._seconds, self._reply_s
        now = clock._now
        while True:
            if feed and feed[0].arrived_s <= now:
                self._admit_arrived()
            try:
                decision = self._decide(request, self)
            except Exception as error:
                raise self._raised(request, error) from error
            if decision is ANSWER and request.exit:
                request.finished_s = request.home_s = now
                if reply_s is not None:
                    request.released_s = done_s = now + reply_s(request.drawn)
                if self._takes_notes:
                    self._note_leaving(request, now)
                self._answered(request)
            elif decision.__class__ is Decision and request.exit < decision.exit <= self.exit_count:
                exit, since = decision.exit, request.exit
                if exit != since + 1:
                    request.pass_over(exit)
                busy = seconds(request.drawn, since, exit) * self._slowness
                done_s = now + busy
                if (
                    not alone
                    or self._disturb_s
                    or self._late_reading
                    or (decision.within_s is not None and busy > decision.within_s)
                    or not self._undisturbed_until(done_s)
                ):
                    self._compute(request, decision, busy)
                    return
                clock._now = now = done_s
                request.exit = exit
                request.confidence = self.scores[request.sample][exit - 1]
                continue
            else:
                if reply_s is not None:
                    request.released_s = done_s = now + reply_s(request.drawn)
                self._leave(request, decision)
            if reply_s is not None:
                clock.call_at(done_s, self._replied, self._incarnation)
                return
            if self._batches:
                self._idle += 1
                self._start(alone)
                return
            if not queue:
                self._idle += 1
                if not alone or not self._skips_to_arrival():
                    self._await_next()
                    return
                self._idle -= 1
                now = clock._now
            request = queue.take()
            request.node = self
            request.started_s = now
            if self._serving is not None:
                self._serving.add(request)

    def _replied(self, call: Call) -> None:
        """A worker has sent its reply, and is free."""
        if call.value == self._incarnation:  # else the node went down meanwhile
            self._admit_arrived()
            self._free_worker()

    def _free_worker(self) -> None:
        """A worker that was busy looks for work; nothing else is done in this event."""
        self._idle += 1
        self._freed_s = self.clock._now
        self._start(alone=True)

    def _undisturbed_until(self, time_s: float) -> bool:
        """Whether nothing happens, here or elsewhere on this clock, before or at ``time_s``."""
        events = self.clock._queue
        if events and events[0][0] <= time_s:
            return False
        # An idle worker would take what waits, or what arrives.
        return not self._idle or not (self._queue or (self._feed and not self._waking))

    def _skips_to_arrival(self) -> bool:
        """Let time go on to arrivals, as long as nothing else happens before; whether one waits."""
        clock, feed, queue = self.clock, self._feed, self._queue
        events = clock._queue
        while not queue and feed and not self._waking:
            next_s = feed[0].arrived_s
            if events and events[0][0] <= next_s:
                return False
            if next_s > clock._now:
                clock._now = next_s
            self._admit_arrived()
        return bool(queue)

    def _compute(self, request: Request, decision: Decision, busy: float) -> None:
        """A worker computes on to the exit that was decided; the request is its own event."""
        request.target = decision.exit
        within = decision.within_s
        if self._late_reading:
            self._late_reading.begin_computing()
        if self._disturb_s:
            request.arrivals = self._arrivals
            request.cut_at_s = math.inf if within is None else self.clock._now + within
        if within is None or busy <= within:
            request.callbacks = self._when_computed
        else:
            request.callbacks = self._when_cut_off
            request.reaches_s = self.clock._now + busy
            busy = within
        self.clock.push(self.clock._now + busy, request)

    def _computed(self, request: Request) -> None:
        if request.outcome >= 0:
            return  # lost when the node went down
        if self._disturb_s and (more_s := self._disturbed_s(request)):
            done_s = self.clock._now + more_s
            is_cut = done_s > request.cut_at_s
            request.reaches_s = done_s
            request.callbacks = self._when_cut_off if is_cut else self._when_computed
            self.clock.push(min(done_s, request.cut_at_s), request)
            return
        if self._late_reading:
            self._admit_arrived()
            self._late_reading.end_computing()
        request.exit = exit = request.target
        request.confidence = self.scores[request.sample][exit - 1]
        self._serve(request, alone=True)

    @property
    def _arrivals(self) -> int:
        """Requests that have come here so far, as far as they were admitted."""
        return self._expected - len(self._feed) + self._unexpected

    def _disturbed_s(self, request: Request) -> float:
        """For how long a worker still computes, since messages came meanwhile."""
        self._admit_arrived()
        came = self._arrivals - request.arrivals
        request.arrivals += came
        return came * self._disturb_s

    def _cut_off(self, request: Request) -> None:
        """Time is up: the last exit that was finished answers.

        A thread that computes cannot be interrupted: its worker goes on to the segment's end.
        """
        if request.outcome < 0:
            self._admit_arrived()
            request.released_s = self._segment_ends_s(request)
            self._leave(request, ANSWER if request.exit else DROP)
            self.clock.call_at(request.released_s, self._segment_ended, self._incarnation)

    def _segment_ends_s(self, request: Request) -> float:
        """When the segment ends that is computed now, on the way to the request's target."""
        drawn, since, now = request.drawn, request.exit, self.clock._now
        whole_s = self._seconds(drawn, since, request.target)
        for exit in range(since + 1, request.target):
            after_s = (whole_s - self._seconds(drawn, since, exit)) * self._slowness
            if request.reaches_s - after_s >= now:
                return request.reaches_s - after_s
        return request.reaches_s

    def _segment_ended(self, call: Call) -> None:
        """A worker has finished the segment from which its request was cut off."""
        if call.value == self._incarnation:  # else the node went down meanwhile
            self._admit_arrived()
            if self._late_reading:
                self._late_reading.end_computing()
            self._free_worker()

    def _leave(self, request: Request, decision: Decision) -> None:
        """A request leaves its worker: answered, refused or sent on."""
        now = self.clock._now
        if decision is DROP:
            self._refuse(request, DROPPED, now)
        elif decision is ANSWER and request.exit:
            request.finished_s = request.home_s = now
            self._note_leaving(request, now)
            self._answered(request)
        elif decision is OFFLOAD and self.next_tier is not None:
            self._note_leaving(request, now)
            if request.began is None:
                request.began = (request.arrived_s, request.started_s)
            self._site.sent_on(request)
        else:
            raise self._impossible(request, decision)

    def _goes_on_at_once(self) -> bool:
        """Whether the worker that has just answered has the next request waiting."""
        return bool(self._queue)

    def _answer_late(self, request: Request) -> None:
        """An answer leaves late if its worker computes again, or was idle for long before it."""
        late_s = (self._egress_s if self._goes_on_at_once() else self._answer_late_s)(request.drawn)
        if late_s:
            request.home_s += late_s
            self.clock.call_at(request.home_s, self._leaves, (request, self._incarnation))
        else:
            self._site.answered(request)

    def _leaves(self, call: Call) -> None:
        request, incarnation = call.value
        if incarnation == self._incarnation:
            self._site.answered(request)
        else:  # the node went down meanwhile
            request.outcome = LOST
            self._site.refused(request)

    def _refuse(self, request: Request, outcome: int, left_s: float) -> None:
        request.outcome = outcome
        request.node = self
        request.finished_s = left_s
        self._note_leaving(request, left_s)
        self._site.refused(request)

    def _note_leaving(self, request: Request, left_s: float) -> None:
        if self._serving is not None:
            self._serving.discard(request)
        if self._visits is not None:
            self._visits.append(
                (
                    request.index,
                    self.index,
                    request.arrived_s,
                    request.started_s,
                    left_s,
                    request.released_s if request.released_s > left_s else left_s,
                    request.batch,
                )
            )

    # --- faults --------------------------------------------------------------------------------

    def can_go_down(self) -> None:
        """Keep account of what is being served, which a crash loses."""
        self._serving = set()
        self._takes_notes = True

    def go_down(self) -> None:
        """Crash: whatever waits or is being served here is lost."""
        assert self._serving is not None
        self._admit_arrived()
        now = self.clock._now
        lost = [*self._queue, *sorted(self._serving, key=lambda request: request.index)]
        self._queue.clear()
        self._serving.clear()
        if self._idle < self.workers:
            self._freed_s = now
        self._idle = 0
        if self._late_reading:
            self._late_reading.go_down()
        self._incarnation += 1
        self.is_down = True
        for request in lost:
            self._refuse(request, LOST, now)

    def come_back(self) -> None:
        """Repaired: every worker is idle, and what was not read before is read now."""
        self._idle = self.workers
        self.is_down, self._back_s = False, self.clock._now
        self._admit_arrived()
        self._start()

    def slow_down(self, factor: float) -> None:
        """From now on, steps that begin take 1 / ``factor`` as long, on top of what slows it."""
        self._factors.append(factor)
        self._slowness = 1.0 / math.prod(self._factors)

    def speed_up(self, factor: float) -> None:
        """A :meth:`slow_down` is over."""
        self._factors.remove(factor)
        self._slowness = 1.0 / math.prod(self._factors)

    # -------------------------------------------------------------------------------------------

    def _raised(self, request: Request, error: Exception) -> PolicyError:
        return PolicyError(
            f"policy {policy_text(self._policy)} raised {type(error).__name__}: {error} "
            f"{self._situation(request)}"
        )

    def _impossible(self, request: Request, decision: object) -> PolicyError:
        sent_on = ", OFFLOAD" if self.next_tier else ""
        return PolicyError(
            f"policy {policy_text(self._policy)} decided {decision!r} "
            f"{self._situation(request)}; possible are run_to({request.exit + 1}) to "
            f"run_to({self.exit_count}), DROP{sent_on}, and ANSWER once an exit is computed"
        )

    def _situation(self, request: Request) -> str:
        return (
            f"for request {request.index} at node {self.name!r}, {self.clock._now:.6f} s into "
            f"the run, after exit {request.exit}"
        )
