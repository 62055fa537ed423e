"""Workloads: which device sends what, when, and with which deadline."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, fields

import numpy as np
from numpy.typing import NDArray

from sim.distributions import Distribution, Floats, constant_value
from sim.energy import PowerStates
from sim.faults import Intervals
from sim.nodes.service import Service
from sim.streams import Streams, Uniforms
from sim.workload.arrivals import Arrivals, ArrivalStream, ClosedLoop, Created, TraceArrivals
from sim.workload.samples import Drawn, Samples

Indices = NDArray[np.int64]


@dataclass(frozen=True)
class DeviceGroup:
    """Devices that are alike.

    Attributes:
        deadline: of a request, in seconds from its creation; a trace may bring its own.
        node: name of the node, or pool of nodes, that serves them.
        request_bytes, response_bytes: payloads of the messages.
        samples: which sample a request sends.
        priority: higher is more urgent, to nodes whose queue looks at it.
        service: of the devices themselves, which then compute what their policy lets them before
            they ask the node; None where they only send. ``last_exit``: of the part of the
            network that they hold.
        energy: what a device takes in each of its states.
        names: of the devices; empty: the group's, with a number each.
    """

    name: str
    count: int
    arrivals: Arrivals | ClosedLoop
    deadline: Distribution
    link: str
    node: str
    request_bytes: int
    response_bytes: int
    samples: Samples = field(default_factory=Drawn)
    priority: int = 0
    service: Service | None = None
    last_exit: int | None = None
    energy: PowerStates | None = None
    names: tuple[str, ...] = ()


@dataclass(frozen=True)
class Requests:
    """Requests in the order of their creation; arrays of length N.

    Attributes:
        group: index of the device group.
        device: index of the device, counted through all groups; ``local``: within its group.
        number: of the request within its device.
        created_s, deadline_s: creation, and relative deadline.
        sample: position in the predictions.
        service_u: uniform number that chooses the service times.
    """

    group: Indices
    device: Indices
    local: Indices
    number: Indices
    created_s: Floats
    deadline_s: Floats
    sample: Indices
    service_u: Floats

    def __len__(self) -> int:
        return len(self.created_s)

    def where(self, rows: NDArray[np.bool_] | Indices) -> Requests:
        """Some of the requests."""
        return Requests(*(getattr(self, field.name)[rows] for field in fields(self)))

    @staticmethod
    def joined(parts: Sequence[Requests]) -> Requests:
        """All requests of several parts."""
        return Requests(
            *(
                np.concatenate([getattr(part, field.name) for part in parts])
                for field in fields(Requests)
            )
        )


_NONE = np.zeros(0, dtype=np.int64)
NO_REQUESTS = Requests(_NONE, _NONE, _NONE, _NONE, np.zeros(0), np.zeros(0), _NONE, np.zeros(0))


class GroupRequests:
    """Draws the requests of one device group.

    Args:
        index: of the group; ``first_device``: of its first device, counted through all groups.
        labels: (samples,) classes of the test set.
        away: when devices are away and create nothing.
    """

    def __init__(
        self,
        index: int,
        group: DeviceGroup,
        first_device: int,
        labels: NDArray[np.int32],
        streams: Streams,
        away: Intervals | None,
    ) -> None:
        self._index = index
        self._group = group
        self._first_device = first_device
        self._away = away

        def uniforms(component: str) -> Uniforms:
            return streams.uniforms(component, group.name)

        self._deadline_u = uniforms("deadline")
        self._service_u = uniforms("service")
        self._samples = group.samples.begin(labels, group.count, uniforms)
        arrivals = group.arrivals
        self._stream: ArrivalStream | None = None
        self._trace = arrivals.trace if isinstance(arrivals, TraceArrivals) else None
        if not isinstance(arrivals, ClosedLoop):
            self._stream = arrivals.begin(group.count, uniforms)

    def until(self, time_s: float) -> Requests:
        """Requests of an open workload created before ``time_s`` and not returned before."""
        if self._stream is None:
            return NO_REQUESTS
        requests = self.draw(self._stream.until(time_s))
        if self._away is None:
            return requests
        return requests.where(~np.isfinite(self._away.until(requests.local, requests.created_s)))

    def back_s(self, local: int, time_s: float) -> float:
        """When a device that would send at ``time_s`` is there to do so."""
        if self._away is None:
            return time_s
        return max(time_s, float(self._away.until(np.array([local]), np.array([time_s]))[0]))

    def draw(self, created: Created) -> Requests:
        """Deadlines, samples and service times of requests."""
        local, number, created_s = created
        sample = self._samples.next(local, number)
        constant = constant_value(self._group.deadline)
        if self._trace is not None and self._trace.deadline_s is not None:
            deadline_s = self._trace.deadline_s[self._trace.rows(local, number)]
        elif constant is not None:
            deadline_s = np.full(len(local), constant)
        else:
            deadline_s = self._group.deadline.ppf(self._deadline_u(local, number))
        return Requests(
            group=np.full(len(local), self._index),
            device=local + self._first_device,
            local=local,
            number=number,
            created_s=created_s,
            deadline_s=deadline_s,
            sample=sample,
            service_u=self._service_u(local, number),
        )


def in_order_of_creation(parts: Sequence[Requests]) -> Requests:
    """The requests of all groups."""
    merged = Requests.joined(parts)
    if len(parts) == 1:
        return merged
    return merged.where(np.lexsort((merged.device, merged.created_s)))


#: A request's columns, as in :class:`Requests`, of one request.
Row = tuple[int, int, int, int, float, float, int, float]


def rows_of(requests: Requests) -> Iterator[Row]:
    """One tuple for each request."""
    columns = [getattr(requests, field.name).tolist() for field in fields(Requests)]
    return zip(*columns, strict=True)


def requests_of(rows: Sequence[Row]) -> Requests:
    """The requests of one tuple each."""
    if not rows:
        return NO_REQUESTS
    return Requests(*(np.array(column) for column in zip(*rows, strict=True)))
