"""Workloads: which device sends what, when, and with which deadline; drawn ahead of the run."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from sim.distributions import Distribution, Floats
from sim.links import Link
from sim.streams import DeviceUniforms, Streams


class Arrivals(Protocol):
    """An arrival process of one device."""

    def rate(self) -> float:
        """Requests per second, in the long run."""

    def cv(self) -> float:
        """Coefficient of variation of the times between requests."""

    def times(self, uniforms: DeviceUniforms, horizon_s: float) -> Floats:
        """(devices, columns) ascending times from 0; those at or after ``horizon_s`` are void.

        Enough columns are returned that every device reaches the horizon.
        """


@dataclass(frozen=True)
class Poisson:
    """Poisson process: exponential times between requests."""

    rate_hz: float

    def rate(self) -> float:
        """See :class:`Arrivals`."""
        return self.rate_hz

    def cv(self) -> float:
        """See :class:`Arrivals`."""
        return 1.0

    def times(self, uniforms: DeviceUniforms, horizon_s: float) -> Floats:
        """See :class:`Arrivals`."""
        columns = block_length(self.rate_hz, horizon_s)
        while True:
            gaps = -np.log1p(-uniforms.first(columns)) / self.rate_hz
            times: Floats = np.cumsum(gaps, axis=1)
            if times[:, -1].min() >= horizon_s:
                return times
            columns *= 2


@dataclass(frozen=True)
class Periodic:
    """Equal times between requests, from a random phase of each device."""

    rate_hz: float

    def rate(self) -> float:
        """See :class:`Arrivals`."""
        return self.rate_hz

    def cv(self) -> float:
        """See :class:`Arrivals`."""
        return 0.0

    def times(self, uniforms: DeviceUniforms, horizon_s: float) -> Floats:
        """See :class:`Arrivals`."""
        phase = uniforms.first(1)
        times: Floats = (phase + np.arange(math.ceil(self.rate_hz * horizon_s) + 1)) / self.rate_hz
        return times


def block_length(rate_hz: float, horizon_s: float) -> int:
    """Numbers drawn at a time for one device: rarely too few for the whole horizon.

    Independent of the number of devices, on which no device's numbers may depend.
    """
    expected = rate_hz * horizon_s
    return math.ceil(expected + 4 * math.sqrt(expected) + 4)


@dataclass(frozen=True)
class DeviceGroup:
    """Devices that are alike.

    Attributes:
        deadline: of a request, in seconds from its creation.
        node: name of the node that serves them.
        request_bytes, response_bytes: sizes of the messages on the link.
    """

    name: str
    count: int
    arrivals: Arrivals
    deadline: Distribution
    link: Link
    node: str
    request_bytes: int
    response_bytes: int


@dataclass(frozen=True)
class Requests:
    """The requests of one replication, in the order of their creation; arrays of length N.

    Attributes:
        group: index of the device group.
        device: index of the device, counted through all groups.
        created_s, deadline_s: creation, and relative deadline.
        sample: position in the predictions.
        arrived_s: when the request reaches its node.
        service_u: uniform number that chooses the service time.
        downlink_s: delay of the answer's way home, without its transmission.
    """

    group: NDArray[np.int64]
    device: NDArray[np.int64]
    created_s: Floats
    deadline_s: Floats
    sample: NDArray[np.int64]
    arrived_s: Floats
    service_u: Floats
    downlink_s: Floats

    def __len__(self) -> int:
        return len(self.created_s)


def draw_requests(
    groups: Sequence[DeviceGroup], samples: int, horizon_s: float, streams: Streams
) -> Requests:
    """Draw every request created before ``horizon_s``.

    Args:
        samples: size of the test set; each request picks one of its samples at random.
    """
    first_device = np.cumsum([0, *(group.count for group in groups)])
    parts = [
        _draw_group(index, group, int(first_device[index]), samples, horizon_s, streams)
        for index, group in enumerate(groups)
    ]
    merged = {
        name: np.concatenate([getattr(part, name) for part in parts])
        for name in Requests.__dataclass_fields__
    }
    order = np.lexsort((merged["device"], merged["created_s"]))
    return Requests(**{name: column[order] for name, column in merged.items()})


def _draw_group(
    index: int,
    group: DeviceGroup,
    first_device: int,
    samples: int,
    horizon_s: float,
    streams: Streams,
) -> Requests:
    block = block_length(group.arrivals.rate(), horizon_s)

    def uniforms(component: str) -> DeviceUniforms:
        return streams.device_uniforms(component, group.name, group.count, block)

    times = group.arrivals.times(uniforms("arrivals"), horizon_s)
    columns = max(1, int((times < horizon_s).sum(axis=1).max()))
    times = times[:, :columns]
    sent = times < horizon_s
    uplink = group.link.uplink
    arrived = uplink.arrivals(
        np.where(sent, times, np.inf), uniforms("uplink").first(columns), group.request_bytes
    )

    def drawn(component: str) -> Floats:
        values: Floats = uniforms(component).first(columns)[sent]
        return values

    return Requests(
        group=np.full(sent.sum(), index),
        device=first_device + np.nonzero(sent)[0],
        created_s=times[sent],
        deadline_s=group.deadline.ppf(drawn("deadline")),
        sample=(drawn("sample") * samples).astype(np.int64),
        arrived_s=arrived[sent],
        service_u=drawn("service"),
        downlink_s=group.link.downlink.delay.ppf(drawn("downlink")),
    )
