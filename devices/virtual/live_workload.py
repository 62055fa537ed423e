"""The requests of a live run, in the order in which they fall due.

They are drawn by the code that draws those of the simulator, from the same streams: replication *r*
of an open workload is the same requests in both worlds. In a closed loop think times, samples and
deadlines are the same, and when a request is created follows from the answers.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Collection, Iterator
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from sim.running.closed_loop import ClosedLoops
from sim.running.slices import Slices
from sim.workload.arrivals import ClosedLoop
from sim.workload.device_groups import NO_REQUESTS, Row, in_order_of_creation, rows_of
from sim.world import World

#: Position of the creation time in a row.
CREATED_S = 4


class LiveWorkload:
    """What the devices of a world send in one replication; faults of the scenario are left out.

    Args:
        labels: (samples,) classes of the test set.
        groups: indices of the groups whose devices send.
    """

    def __init__(
        self,
        world: World,
        labels: NDArray[np.int32],
        replication: int,
        groups: Collection[int],
    ) -> None:
        # Each stream has a name: without faults none of the others changes.
        workload = Slices(replace(world, faults=()), labels, replication)
        self._horizon_s = world.horizon_s
        drawn = workload.groups()
        opened = [drawn[index].until(world.horizon_s) for index in groups] or [NO_REQUESTS]
        self._open: Iterator[Row] = rows_of(in_order_of_creation(opened))
        self._next_open = next(self._open, None)
        self._loops: dict[int, ClosedLoops] = {}
        #: Rows of closed loops by creation, then device.
        self._due: list[tuple[float, int, Row]] = []
        for index in groups:
            group = world.groups[index]
            if isinstance(group.arrivals, ClosedLoop):
                self._loops[index] = ClosedLoops(group, drawn[index], workload.streams)
                for local in range(group.count):
                    self._think(index, local, 0.0)

    @property
    def due_s(self) -> float:
        """When the next request is created; infinite if none will be, as far as is known."""
        of_open = math.inf if self._next_open is None else self._next_open[CREATED_S]
        return min(of_open, self._due[0][0] if self._due else math.inf)

    @property
    def is_empty(self) -> bool:
        """Whether nothing will be created, unless a device of a closed loop goes round."""
        return self._next_open is None and not self._due

    def take(self) -> Row:
        """The request that is due next."""
        row = self._next_open
        if row is not None and (not self._due or row[CREATED_S] <= self._due[0][0]):
            self._next_open = next(self._open, None)
            return row
        return heapq.heappop(self._due)[2]

    def loops(self, group: int) -> bool:
        """Whether devices of a group wait for answers."""
        return group in self._loops

    def go_round(self, row: Row, from_s: float) -> None:
        """The device of a closed loop thinks from ``from_s`` on: it has heard of its request."""
        self._think(row[0], row[2], from_s)

    def _think(self, group: int, local: int, from_s: float) -> None:
        row = self._loops[group].next(local, from_s)
        if row[CREATED_S] < self._horizon_s:
            heapq.heappush(self._due, (row[CREATED_S], row[1], row))
