"""Micro-batching: nodes whose workers serve several requests together."""

from __future__ import annotations

from collections import deque
from typing import Any

from sim.clock import Call
from sim.nodes.node import Node
from sim.nodes.requests import NEVER, Request
from sim.policy import ANSWER, DROP, Decision


class BatchingNode(Node):
    """A node whose workers serve several requests together.

    A worker takes what waits, up to the batch size; if that is less, it waits until some request
    has waited for ``batch_wait_s``. Each member is asked about by itself. All of them are
    computed to the nearest exit that any of them wants; who leaves makes the rest faster.
    """

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._starting = False

    def _start(self, alone: bool = False) -> None:
        if self._starting:
            return  # who has left at once has an idle worker below
        self._starting = True
        self._start_batches(alone)
        while alone and self._idle and not self._queue and self._skips_to_arrival():
            self._start_batches(alone)
        self._starting = False
        self._await_next()

    def _start_batches(self, alone: bool) -> None:
        size, wait_s, queue = self.spec.batch_size, self.spec.batch_wait_s, self._queue
        while self._idle and queue:
            if wait_s and len(queue) < size:
                ripe_s = self._ripe_s()
                if self.clock._now < ripe_s:
                    self.clock.call_at(ripe_s, self._look_for_work, None)
                    break
            self._idle -= 1
            if len(queue) == 1:
                self._serve(self._take(), alone)
                continue
            batch = [self._take()]
            # Requests that come from another tier go on where they were.
            position = batch[0].exit
            while len(batch) < size and queue and queue.head().exit == position:
                batch.append(self._take(behind=True))
            if len(batch) == 1:
                self._serve(batch[0], alone)
            else:
                for request in batch:
                    request.batch = 0  # until it is computed with others
                self._serve_batch(batch, position, alone)

    def _ripe_s(self) -> float:
        """When a batch that is not full is begun: its head need not be who has waited longest."""
        return min(it.arrived_s for it in self._queue) + self.spec.batch_wait_s

    def _serve_batch(self, batch: list[Request], position: int, alone: bool) -> None:
        """Ask about every member whose exit was reached; compute on those that stay."""
        if self._reply_s is not None:
            self._ask_in_turn(deque(batch), [], position)
            return
        clock = self.clock
        while True:
            if self._feed:
                self._admit_arrived()
            staying = [it for it in batch if it.exit != position or self._goes_on(it)]
            if not staying:
                self._idle += 1
                self._start(alone)
                return
            to, busy = self._next_step(staying, position)
            done_s = clock._now + busy
            if not alone or not self._undisturbed_until(done_s):
                clock.call_at(done_s, self._batch_computed, (staying, to, self._incarnation))
                return
            clock._now = done_s
            self._reached(staying, to)
            batch, position = staying, to

    def _next_step(self, batch: list[Request], position: int) -> tuple[int, float]:
        """To which exit a batch is computed next, and the seconds that it takes."""
        to = min([request.target for request in batch])
        drawn = [request.drawn for request in batch]
        busy = self.spec.service.batch_seconds(drawn, position, to) * self._slowness
        together, reaches_s = len(batch), self.clock._now + busy
        for request in batch:
            request.reaches_s = reaches_s
            if request.batch < together:
                request.batch = together
        return to, busy

    def _ask_in_turn(self, asked: deque[Request], staying: list[Request], position: int) -> None:
        """As :meth:`_serve_batch`, where the reply to one member keeps the worker from the next."""
        assert self._reply_s is not None
        clock = self.clock
        if self._feed:
            self._admit_arrived()
        while asked:
            request = asked.popleft()
            if request.has_left:
                continue  # it was cut off while others were replied to
            if request.exit != position or self._goes_on(request):
                staying.append(request)
                continue
            done_s = clock._now + self._reply_s(request.drawn)
            clock.call_at(done_s, self._asks_next, (asked, staying, position, self._incarnation))
            return
        staying = [request for request in staying if not request.has_left]
        if not staying:
            self._idle += 1
            self._freed_s = clock._now
            self._start()
            return
        to, busy = self._next_step(staying, position)
        if self._disturb_s:
            staying[0].arrivals = self._arrivals
        if self._late_reading:
            self._late_reading.begin_computing()
        clock.call_at(clock._now + busy, self._batch_computed, (staying, to, self._incarnation))

    def _asks_next(self, call: Call) -> None:
        asked, staying, position, incarnation = call.value
        if incarnation == self._incarnation:  # else lost when the node went down
            self._ask_in_turn(asked, staying, position)

    def _goes_on_at_once(self) -> bool:
        """See :class:`Node`: a batch that still fills is not begun at once."""
        queue, spec = self._queue, self.spec
        if not queue or len(queue) >= spec.batch_size:
            return bool(queue)
        return self.clock._now >= self._ripe_s()

    def _goes_on(self, request: Request) -> bool:
        """Ask the policy; whether the request stays to be computed to its new target."""
        try:
            decision = self._decide(request, self)
        except Exception as error:
            raise self._raised(request, error) from error
        if decision.__class__ is Decision and request.exit < decision.exit <= self.exit_count:
            request.target = decision.exit
            request.pass_over(decision.exit)
            if decision.within_s is not None:
                at = self.clock._now + decision.within_s
                self.clock.call_at(at, self._cut_member, (request, request.exit))
            return True
        if self._reply_s is not None:
            request.released_s = self.clock._now + self._reply_s(request.drawn)
        self._leave(request, decision)
        return False

    def _batch_computed(self, call: Call) -> None:
        batch, position, incarnation = call.value
        if incarnation != self._incarnation:
            return  # lost when the node went down
        if self._disturb_s and (more_s := self._disturbed_s(batch[0])):
            done_s = self.clock._now + more_s
            for request in batch:
                request.reaches_s = done_s
            self.clock.call_at(done_s, self._batch_computed, call.value)
            return
        if self._late_reading:
            self._admit_arrived()
            self._late_reading.end_computing()
        self._go_on(batch, position)

    def _go_on(self, batch: list[Request], position: int) -> None:
        """What was computed: some members have reached their target, some were cut off before."""
        staying = [request for request in batch if not request.has_left]
        self._reached(staying, position)
        self._serve_batch(staying, position, alone=True)

    def _reached(self, batch: list[Request], position: int) -> None:
        for request in batch:
            if request.target == position:
                request.exit = position
                request.confidence = self.scores[request.sample][position - 1]

    def _note_leaving(self, request: Request, left_s: float) -> None:
        """See :class:`Node`."""
        if not request.batch:
            # Nothing was computed of it here: others of its batch kept the worker until now.
            request.batch, request.started_s, request.released_s = 1, left_s, NEVER
        super()._note_leaving(request, left_s)

    def _cut_member(self, call: Call) -> None:
        """Time is up for one member: it is answered, and its batch is computed on."""
        request, exit = call.value
        if request.exit == exit and not request.has_left:
            self._admit_arrived()
            if request.batch:
                request.released_s = request.reaches_s
            self._leave(request, ANSWER if exit else DROP)
