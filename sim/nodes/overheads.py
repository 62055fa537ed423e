"""What a node takes for a request besides inference: reading it, beginning with it, replying.

A node is a program on an operating system. Its network thread reads a message and wakes a worker
before that can begin; a worker takes longer for a request than a profiler for the same inference,
which keeps the caches warm and waits for nobody; and it sends the reply itself before it takes the
next request. A worker is busy with the last two, not with the first. While an inference is on, the
threads that read messages and send answers wait for processors and locks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import repeat
from typing import Any

from sim.distributions import Constant, Distribution, Floats
from sim.nodes.autocorrelation import Autocorrelation
from sim.nodes.cooling import Cooling
from sim.nodes.service import Service
from sim.streams import scrambled


@dataclass(frozen=True)
class Overheads:
    """Seconds that a node takes for each request besides inference.

    Attributes:
        receive: from the arrival of a device's message until it can be taken by a worker.
        begin: of a worker for each request, or for each batch, before the first exit that it
            computes; and ``begin_idle``, if the request, or the first of its batch, found it
            idle: a thread has to wake up. None: the same. Both are of the same
            rank as the inference: a request whose inference is slow begins slowly.
        reply: of a worker for each answer, after it was ready.
        autocorrelation: of service times that follow one another; None: there is none.
        disturb_s: by which a message that arrives delays whatever workers compute meanwhile: it is
            received on processors, caches and locks that they share.
        ingress_busy: by which a message is read later that comes while a worker computes; those
            that come while it waits are read with it. None: it is not.
        egress_busy: by which an answer leaves later whose worker has the next request waiting;
            None: it does not.
        cooling: what takes longer at a node that has had nothing to do; None: nothing.
    """

    receive: Distribution = field(default_factory=lambda: Constant(0.0))
    begin: Distribution = field(default_factory=lambda: Constant(0.0))
    reply: Distribution = field(default_factory=lambda: Constant(0.0))
    begin_idle: Distribution | None = None
    autocorrelation: Autocorrelation | None = None
    disturb_s: float = 0.0
    ingress_busy: Distribution | None = None
    egress_busy: Distribution | None = None
    cooling: Cooling | None = None

    @property
    def reads_late(self) -> bool:
        """Whether messages may be read later than they come."""
        return self.ingress_busy is not None or (
            self.cooling is not None and self.cooling.read_s > 0
        )

    @property
    def answers_late(self) -> bool:
        """Whether answers may leave later than they are ready."""
        return self.egress_busy is not None or (
            self.cooling is not None and self.cooling.answer_s > 0
        )

    @property
    def occupied_s(self) -> float:
        """Mean seconds of a busy worker for each request."""
        return self.begin.mean() + self.reply.mean()


#: What the service drew, seconds to begin at a worker that was busy, at one that was idle, and to
#: reply, those by which it is read and leaves later if a worker computes, that by which its answer
#: leaves later since the node was cold, and the exit with which it came.
Drawn = tuple[Any, float, float, float, float, float, float, int]

_NO_TIME = Constant(0.0)


class ServiceWithOverheads:
    """Service times with what a worker takes besides.

    What a policy is told, and what admission goes by, are the times of ``inference`` alone: a live
    node knows no others.

    Args:
        inference: its times alone.
    """

    def __init__(self, inference: Service, overheads: Overheads) -> None:
        self.exit_count = inference.exit_count
        self.inference = inference
        self._begin, self._reply = overheads.begin, overheads.reply
        self._begin_idle = overheads.begin_idle or overheads.begin
        self._ingress_busy = overheads.ingress_busy or _NO_TIME
        self._egress_busy = overheads.egress_busy or _NO_TIME
        self._cooling = overheads.cooling

    def draw(self, u: Floats, worker_u: Floats | None = None) -> Sequence[Drawn]:
        """See :class:`Service`.

        Args:
            worker_u: (N,) numbers for the inference and its beginning, if they have others. What
                else is made of ``u`` changes altogether with its last bit: nothing that is computed
                belongs there.
        """
        if worker_u is None:
            worker_u = u
        # One number: what a node takes beyond the profile is the distance of quantiles.
        begin_s, begin_idle_s = self._begin.ppf(worker_u), self._begin_idle.ppf(worker_u)
        reply_s = self._reply.ppf(scrambled(u, 2))
        ingress_s = self._ingress_busy.ppf(scrambled(u, 3))
        egress_s = self._egress_busy.ppf(scrambled(u, 4))
        columns = (it.tolist() for it in (begin_s, begin_idle_s, reply_s, ingress_s, egress_s))
        return list(zip(self.inference.draw(worker_u), *columns, repeat(0.0), repeat(0)))

    def taken(self, drawn: Drawn, at_once: bool, cold: float) -> Drawn:
        """What was drawn, now that a worker takes the request.

        Args:
            at_once: whether the worker has just served another, or takes it behind another.
            cold: how cold the node was, see :class:`Cooling`.
        """
        begin_s = drawn[1] if at_once else drawn[2]
        if self._cooling is None:
            return drawn if at_once else (drawn[0], begin_s, *drawn[2:])
        begin_s += cold * self._cooling.begin_s
        return drawn[0], begin_s, *drawn[2:6], cold * self._cooling.answer_s, drawn[-1]

    def seconds(self, drawn: Drawn, since: int, to: int) -> float:
        """See :class:`Service`."""
        step_s = self.inference.seconds(drawn[0], since, to)
        return step_s + drawn[1] if since == drawn[-1] else step_s

    def batch_seconds(self, drawn: Sequence[Drawn], since: int, to: int) -> float:
        """See :class:`Service`: a worker begins with a whole batch as with its first member."""
        step_s = self.inference.batch_seconds([one[0] for one in drawn], since, to)
        return step_s + next((one[1] for one in drawn if since == one[-1]), 0.0)

    def resumed(self, drawn: Drawn, since: int) -> Drawn:
        """See :class:`Service`."""
        return self.inference.resumed(drawn[0], since), *drawn[1:-1], since

    def reply_s(self, drawn: Drawn) -> float:
        """Seconds of a worker to send the reply."""
        return drawn[3]

    def ingress_s(self, drawn: Drawn) -> float:
        """Seconds by which its message is read later if a worker computes, and none waits yet."""
        return drawn[4]

    def egress_s(self, drawn: Drawn) -> float:
        """Seconds by which its answer leaves later if the worker goes on at once."""
        return drawn[5]

    def answer_late_s(self, drawn: Drawn) -> float:
        """Seconds by which its answer leaves later if it does not."""
        return drawn[6]

    def quantiles(self, q: float, since: int, resumed: bool = False) -> tuple[float, ...]:
        """See :class:`Service`: of inference."""
        return self.inference.quantiles(q, since, resumed)

    def means(self) -> tuple[float, ...]:
        """See :class:`Service`: of inference."""
        return self.inference.means()

    def stepwise_means(self) -> tuple[float, ...]:
        """See :class:`Service`: of inference."""
        return self.inference.stepwise_means()
