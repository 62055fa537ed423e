"""Closed loops: devices that send their next request when they have heard of the last."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from sim.streams import Streams
from sim.workload.arrivals import ClosedLoop, Created
from sim.workload.device_groups import DeviceGroup, GroupRequests, Row, rows_of

if TYPE_CHECKING:
    from collections.abc import Iterator

#: Requests of a device that are drawn together.
BLOCK = 32


class ClosedLoops:
    """The devices of one group, each of which thinks after every answer.

    Args:
        requests: draws what they send.
    """

    def __init__(self, group: DeviceGroup, requests: GroupRequests, streams: Streams) -> None:
        assert isinstance(group.arrivals, ClosedLoop)
        self._think = group.arrivals.think
        self._uniforms = streams.uniforms("arrivals", group.name)
        self._requests = requests
        self._drawn: list[Iterator[tuple[float, Row]]] = [iter(()) for _ in range(group.count)]
        self._sent = [0] * group.count

    def next(self, local: int, from_s: float) -> Row:
        """A device's next request, created once it has thought from ``from_s`` on."""
        drawn = next(self._drawn[local], None)
        if drawn is None:
            self._drawn[local] = self._block(local)
            drawn = next(self._drawn[local])
        think_s, row = drawn
        created_s = self._requests.back_s(local, from_s + think_s)
        return (*row[:4], created_s, *row[5:])

    def _block(self, local: int) -> Iterator[tuple[float, Row]]:
        number = np.arange(self._sent[local], self._sent[local] + BLOCK)
        self._sent[local] += BLOCK
        device = np.full(BLOCK, local)
        think_s = self._think.ppf(self._uniforms(device, number)).tolist()
        rows = rows_of(self._requests.draw(Created(device, number, np.zeros(BLOCK))))
        return zip(think_s, rows, strict=True)
