"""A request on its way through the nodes: what they keep of it, and what a policy sees of it."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from sim.policy import Foresight

if TYPE_CHECKING:
    from sim.nodes.node import Node

#: Times that never happened.
NEVER = math.nan

#: What is noted of a visit to a node: indices of request and node; when it arrived, was taken by a
#: worker, left, and when that had done with it; and how many were computed together.
VisitRow = tuple[int, int, float, float, float, float, int]


class Request:
    """One request; it is its own view for the policy (:class:`sim.policy.RequestView`).

    Attributes:
        index: in the order of creation.
        group: its device group.
        entry: index of the first node that it reaches.
        deadline_at_s: when its deadline passes at the device.
        drawn: what its node's service made of its uniform number.
        sample: its position in the predictions.
        arrived_s, started_s: at the node where it is.
        began: (arrived, started) at its first node, once it has left that one for another.
        finished_s: when its answer was ready; ``home_s``: when that sets out from the node that
            devices know, which is later if another tier computed it.
        exit: the last exit computed, 0 before the first; ``target``: the one being computed.
        came_with: the last exit that was computed before it came to its node; ``passed_over``: bits
            of the exits that were not computed on the way to a later one here.
        released_s: when its worker has done with it, if that is later than ``finished_s``; NaN
            if it is not.
        reaches_s: when ``target`` will be computed, as far as is known.
        arrivals: how many requests had come to its node when it was last looked at.
        is_read_late: whether its node read it later than it came: a worker computed, or had paused.
        sent_on_by: nodes that sent it on to another tier, in order; its answer comes back by them.
        cut_at_s: when whatever exit was reached by then is to answer.
        outcome: an index into :data:`sim.outcomes.OUTCOMES` once it is lost or refused,
            else -1.
    """

    __slots__ = (
        "arrivals",
        "arrived_s",
        "batch",
        "began",
        "callbacks",
        "came_with",
        "confidence",
        "cut_at_s",
        "deadline_at_s",
        "drawn",
        "entry",
        "exit",
        "finished_s",
        "group",
        "home_s",
        "index",
        "is_read_late",
        "node",
        "outcome",
        "passed_over",
        "priority",
        "reaches_s",
        "released_s",
        "sample",
        "sent_on_by",
        "started_s",
        "target",
    )

    #: For SimPy's loop (:class:`sim.clock.Timed`): while it is computed, it is its own event.
    _ok = True
    callbacks: tuple[Callable[[Request], None], ...] | None
    node: Node
    target: int
    arrivals: int
    cut_at_s: float
    reaches_s: float

    def __init__(
        self,
        index: int,
        group: int,
        entry: int,
        sample: int,
        deadline_at_s: float,
        arrived_s: float,
        drawn: Any,
        priority: int = 0,
    ) -> None:
        self.index = index
        self.group = group
        self.entry = entry
        self.sample = sample
        self.deadline_at_s = deadline_at_s
        self.arrived_s = arrived_s
        self.drawn = drawn
        self.priority = priority
        self.exit = 0
        self.outcome = -1
        self.came_with = self.passed_over = 0
        self.confidence = self.started_s = self.finished_s = self.home_s = NEVER
        self.released_s = NEVER
        self.began: tuple[float, float] | None = None
        self.batch = 1
        self.is_read_late = False
        self.sent_on_by: tuple[int, ...] = ()

    @property
    def has_left(self) -> bool:
        """Whether it was answered, refused or lost."""
        return self.outcome >= 0 or not math.isnan(self.finished_s)

    @property
    def confidences(self) -> tuple[float, ...]:
        """See :class:`sim.policy.RequestView`."""
        scores = self.node.scores[self.sample]
        return tuple(
            scores[exit - 1]
            for exit in range(self.came_with + 1, self.exit + 1)
            if not self.passed_over >> exit & 1
        )

    def pass_over(self, target: int) -> None:
        """Exits between the last computed and ``target`` are not computed."""
        self.passed_over |= (1 << target) - (1 << self.exit + 1)

    def came_to(self, arrived_s: float, drawn: Any) -> None:
        """It has reached another node, whose service made ``drawn`` of its uniform number."""
        self.arrived_s = arrived_s
        self.drawn = drawn
        self.came_with, self.passed_over = self.exit, 0
        self.started_s = self.released_s = NEVER
        self.batch = 1
        self.is_read_late = False

    @property
    def remaining_s(self) -> float:
        """See :class:`sim.policy.RequestView`."""
        return self.deadline_at_s - self.node.clock._now

    def way_home_s(self, quantile: float) -> float:
        """See :class:`sim.policy.RequestView`."""
        node = self.node
        known = node.ways_home.get((self.group, quantile))
        return node.way_home_s(self.group, quantile) if known is None else known

    def foresight(self) -> Foresight:
        """See :class:`sim.policy.RequestView`."""
        return Foresight(self.node.correct_exits(self), self.node.service_times_s(self))
