"""What a node is: its workers, its queue, and what it takes for a request."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from sim.energy import PowerStates
from sim.nodes.overheads import Overheads, ServiceWithOverheads
from sim.nodes.queues import Discipline
from sim.nodes.service import Service

Admission = Literal["all", "feasible"]


@dataclass(frozen=True)
class NodeSpec:
    """What a node is; shared by all runs.

    Attributes:
        workers: requests, or batches, served at the same time.
        discipline: which waiting request a free worker takes.
        queue_limit: requests that may wait; more are refused. None: any number.
        admission: ``feasible`` refuses what could not answer in time even at the first exit, given
            the mean work that waits.
        batch_size, batch_wait_s: a worker takes up to so many requests together, and waits so long
            for a batch to fill.
        replicas: nodes of this kind that share the work.
        next_tier: name of the node to which requests may be sent on, and ``tier_link`` that of the
            link to it.
        last_exit: of the part of the network that it holds; None: all exits.
        energy: what it takes in each of its states.
        overheads: what it takes for a request besides inference, which ``service`` then knows too.
    """

    name: str
    workers: int
    service: Service
    discipline: Discipline = "fifo"
    queue_limit: int | None = None
    admission: Admission = "all"
    batch_size: int = 1
    batch_wait_s: float = 0.0
    replicas: int = 1
    next_tier: str | None = None
    tier_link: str | None = None
    last_exit: int | None = None
    energy: PowerStates | None = None
    overheads: Overheads | None = None

    def __post_init__(self) -> None:
        service = self.service
        if isinstance(service, ServiceWithOverheads):
            service = service.inference
        if self.overheads is not None:
            service = ServiceWithOverheads(service, self.overheads)
        object.__setattr__(self, "service", service)
