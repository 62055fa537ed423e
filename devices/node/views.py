"""Requests at a live node, and what a policy sees of them and of the node (:mod:`sim.policy`)."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from devices.node.way_estimates import DeviceWays
from devices.protocol.message_types import InferenceRequest
from models.errors import PolicyError
from sim.nodes.service import Service
from sim.policy import Foresight, NextTier

if TYPE_CHECKING:
    from devices.node.inbox import Inbox

#: On which everything at a node is timed; its zero is arbitrary, and it never jumps.
Clock = Callable[[], float]


class LiveRequest:
    """One request at a node; it is its own view for the policy (:class:`sim.policy.RequestView`).

    Times are on the node's monotonic clock, in seconds.

    Attributes:
        asked: what came from the device.
        image: (C, H, W); None until a worker has decoded what came.
        sender: what the caller needs to reply; nobody else looks at it.
        deadline_at_s: when its deadline passes at the device, as far as the node can know.
        exit: the last exit computed, 0 before the first; ``target``: the one being computed.
        predicted: the class at the last exit computed.
        batch: the most requests it was computed together with, itself included.
        cut_at_s: when its computation is cut off; infinite for never.
        has_left: somebody has decided what becomes of it; nobody else may.
        finished_s: when that was.
        reason: of a drop; ``error``: code and message of a failure; neither, once it has left:
            answered.
    """

    __slots__ = (
        "arrived_s",
        "asked",
        "batch",
        "clock",
        "computed",
        "confidence",
        "cut_at_s",
        "deadline_at_s",
        "error",
        "exit",
        "finished_s",
        "has_left",
        "image",
        "predicted",
        "priority",
        "reason",
        "sender",
        "started_s",
        "target",
        "ways",
    )

    def __init__(
        self,
        asked: InferenceRequest,
        ways: DeviceWays,
        arrived_s: float,
        clock: Clock,
        image: NDArray[np.uint8] | None = None,
        sender: Any = None,
    ) -> None:
        self.asked = asked
        self.image = image
        self.sender = sender
        self.ways = ways
        self.clock = clock
        self.priority = asked.priority
        self.arrived_s = arrived_s
        up_s = ways.heard(arrived_s, asked.sent_s, asked.way_s)
        self.deadline_at_s = arrived_s + asked.deadline_s - asked.age_s - up_s
        self.started_s = self.finished_s = math.nan
        self.exit = self.target = 0
        self.confidence = math.nan
        self.predicted = -1
        self.computed: list[float] = []
        self.batch = 1
        self.cut_at_s = math.inf
        self.has_left = False
        self.reason: str | None = None
        self.error: tuple[str, str] | None = None

    @property
    def bytes(self) -> int:
        """What it keeps in memory while it waits, without small change."""
        return len(self.asked.image or b"") if self.image is None else self.image.nbytes

    # --- what a policy may know ----------------------------------------------------------------

    @property
    def remaining_s(self) -> float:
        """See :class:`sim.policy.RequestView`."""
        return self.deadline_at_s - self.clock()

    @property
    def confidences(self) -> tuple[float, ...]:
        """See :class:`sim.policy.RequestView`."""
        return tuple(self.computed)

    def way_home_s(self, quantile: float) -> float:
        """See :class:`sim.policy.RequestView`."""
        return self.ways.home_s(quantile)

    def foresight(self) -> Foresight:
        """See :class:`sim.policy.RequestView`.

        Raises:
            PolicyError: always.
        """
        raise PolicyError(
            "only a simulator has foresight: a live node knows of no request what will come of it"
        )


class LiveNode:
    """What a policy sees of a live node (:class:`sim.policy.NodeView`).

    Args:
        name: of this node, which has a number where there are replicas.
        service: latencies that were measured with the runtime that serves.
        exit_count: the last exit that the node computes.
    """

    next_tier: NextTier | None = None

    def __init__(self, name: str, service: Service, exit_count: int, inbox: Inbox) -> None:
        self.name = name
        self.exit_count = exit_count
        self.workers = inbox.workers
        self._service = service
        self._inbox = inbox
        self._latencies: dict[tuple[float, int], tuple[float, ...]] = {}

    @property
    def queue_length(self) -> int:
        """See :class:`sim.policy.NodeView`."""
        return len(self._inbox)

    @property
    def idle_workers(self) -> int:
        """See :class:`sim.policy.NodeView`."""
        return self._inbox.idle_workers

    def latencies_s(self, quantile: float, since: int = 0) -> tuple[float, ...]:
        """See :class:`sim.policy.NodeView`."""
        key = (quantile, since)
        known = self._latencies.get(key)
        if known is None:
            known = self._service.quantiles(quantile, since)[: self.exit_count - since]
            self._latencies[key] = known
        return known
