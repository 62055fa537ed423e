"""The workload of one replication, in slices of time: what is created, and what reaches nodes."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sim.network.topology import draw_absences, ways
from sim.network.transport import Messages
from sim.running.ledger import Ledger
from sim.streams import Streams
from sim.workload.arrivals import ClosedLoop
from sim.workload.device_groups import GroupRequests, Requests, in_order_of_creation
from sim.world import World

#: Requests of a slice of time, about: enough for numpy, little enough for memory and caches.
SLICE_REQUESTS = 20_000

#: Workloads of fewer requests than this are kept for the next arm.
KEPT_REQUESTS = 500_000


@dataclass(frozen=True)
class Slice:
    """What happens on the way to the nodes in a slice of time.

    Attributes:
        until_s: its end.
        requests: that are created in it; the first has index ``first``.
        arrived: messages that reach their nodes in it, ascending in time; ``arriving``: what was
            drawn for them.
        lost: messages that nobody will answer.
    """

    until_s: float
    first: int
    requests: Requests
    arrived: Messages
    arriving: Requests
    lost: Messages


class Slices:
    """What the devices of a world send in one replication; all arms of a comparison share it.

    Args:
        labels: (samples,) classes of the test set.
    """

    def __init__(self, world: World, labels: NDArray[np.int32], replication: int) -> None:
        self.world = world
        self.replication = replication
        self.streams = Streams(world.seed, replication)
        self.absences = draw_absences(world, self.streams)
        self._labels = labels
        self._kept: list[Slice] | None = None

    def groups(self) -> list[GroupRequests]:
        """Each group's requests, from the first."""
        return [
            GroupRequests(
                index,
                group,
                self.world.first_device[index],
                self._labels,
                self.streams,
                self.absences.devices[index],
            )
            for index, group in enumerate(self.world.groups)
        ]

    def slices(self) -> Iterator[Slice]:
        """The slices of an open world, which are kept if they are small."""
        if self._kept is not None:
            yield from self._kept
            return
        kept: list[Slice] | None = []
        count = 0
        for part in self._made():
            count += len(part.requests)
            if kept is not None:
                kept = [*kept, part] if count < KEPT_REQUESTS else None
            yield part
        self._kept = kept

    def _made(self) -> Iterator[Slice]:
        groups = self.groups()
        way, _ = ways(self.world, self.streams, self.absences)
        ledger = Ledger()
        first = 0
        for until_s in slice_ends(self.world):
            requests = in_order_of_creation(
                [group.until(min(until_s, self.world.horizon_s)) for group in groups]
            )
            arrived, lost = way.advance(messages_of(requests, first), until_s)
            ledger.add(first, requests)
            arriving = ledger.rows(arrived.request)
            ledger.close(np.concatenate([arrived.request, lost.request]))
            yield Slice(until_s, first, requests, arrived, arriving, lost)
            first += len(requests)


def slice_ends(world: World) -> list[float]:
    """Ends of the slices of time of a run; the last is infinite, for what is still on its way."""
    rates_hz = [
        group.count * group.arrivals.rate()
        for group in world.groups
        if not isinstance(group.arrivals, ClosedLoop)
    ]
    # A trace whose requests all come at time 0 has none.
    rate_hz = sum(filter(math.isfinite, rates_hz))
    # Some work is done for every device in every slice.
    requests = max(SLICE_REQUESTS, world.devices / 32)
    slices = max(1, min(10_000, round(world.horizon_s * rate_hz / requests)))
    return [world.horizon_s * number / slices for number in range(1, slices + 1)] + [float("inf")]


def messages_of(requests: Requests, first: int) -> Messages:
    """The requests as messages that set out at their devices."""
    none = np.zeros(len(requests), dtype=np.int64)
    return Messages(
        np.arange(first, first + len(requests)),
        requests.group,
        requests.device,
        requests.local,
        requests.number,
        none,
        none,
        requests.created_s,
    )
