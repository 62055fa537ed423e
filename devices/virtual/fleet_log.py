"""What virtual devices note of every request while they run, and what is left of it afterwards."""

from __future__ import annotations

import math
from array import array
from collections import Counter
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from devices.protocol.message_types import DROP_REASONS, NodeStatus, Reply
from sim.distributions import Floats
from sim.workload.device_groups import Requests, Row
from sim.world import World

Indices = NDArray[np.int64]

#: What became of a request at its device: no reply (yet); a reply of each kind; never sent, which
#: is known at once.
WAITING, OK, DROPPED, ERROR, UNSENT = range(5)
_STATUS = {"ok": OK, "dropped": DROPPED, "error": ERROR}

REASONS = tuple(DROP_REASONS)

#: Sends that are later than this at the 99th percentile measured the devices' process, not the
#: network and the node.
LAG_WARNING_S = 0.003


@dataclass(frozen=True)
class Sightings:
    """What devices saw of their requests; arrays of length N. NaN or −1 where it never happened.

    Attributes:
        sent_s: when it was handed to the connection, on the clock of the run, as ``heard_s``, when
            its reply came.
        lag_s: from its planned creation until the device had dealt with it: sent it, or found that
            it had to wait for the connection.
        status: one of :data:`WAITING` to :data:`UNSENT`.
        node: who replied, an index of :attr:`FleetResult.nodes`.
        arrived_node_s: at the node, on the node's clock.
        reason: why it was dropped, an index of :data:`REASONS`.
        exit, predicted, confidence, queued_s, service_s, node_s, batch: as the reply says.
    """

    sent_s: Floats
    heard_s: Floats
    lag_s: Floats
    status: NDArray[np.int8]
    node: Indices
    reason: Indices
    exit: Indices
    predicted: Indices
    confidence: Floats
    queued_s: Floats
    service_s: Floats
    node_s: Floats
    arrived_node_s: Floats
    batch: Indices


_REQUEST_TYPES = {
    "group": "q",
    "device": "q",
    "local": "q",
    "number": "q",
    "created_s": "d",
    "deadline_s": "d",
    "sample": "q",
    "service_u": "d",
}
_SEEN_TYPES: dict[str, tuple[str, Any]] = {
    "sent_s": ("d", math.nan),
    "heard_s": ("d", math.nan),
    "lag_s": ("d", math.nan),
    "status": ("b", WAITING),
    "node": ("q", -1),
    "reason": ("q", -1),
    "exit": ("q", 0),
    "predicted": ("q", -1),
    "confidence": ("d", math.nan),
    "queued_s": ("d", math.nan),
    "service_s": ("d", math.nan),
    "node_s": ("d", math.nan),
    "arrived_node_s": ("d", math.nan),
    "batch": ("q", 1),
}


class FleetLog:
    """Columns that grow by a row for each request that is created.

    Attributes:
        nodes: names of those who replied, in the order in which they were heard of.
    """

    def __init__(self) -> None:
        self.rows: dict[str, array[Any]] = {
            name: array(type) for name, type in _REQUEST_TYPES.items()
        }
        self.seen: dict[str, array[Any]] = {
            name: array(type) for name, (type, _) in _SEEN_TYPES.items()
        }
        self.nodes: dict[str, int] = {}
        self._growing = [(self.seen[name], empty) for name, (_, empty) in _SEEN_TYPES.items()]
        self._status = self.seen["status"]

    def __len__(self) -> int:
        return len(self._status)

    def create(self, row: Row) -> int:
        """A request was created; returns its index."""
        for column, value in zip(self.rows.values(), row, strict=True):
            column.append(value)
        for column, empty in self._growing:
            column.append(empty)
        return len(self._status) - 1

    def replied(self, index: int, reply: Reply, heard_s: float) -> None:
        """The first reply to a request came."""
        seen = self.seen
        seen["heard_s"][index] = heard_s
        seen["status"][index] = _STATUS[reply.status]
        seen["node"][index] = self.nodes.setdefault(reply.node, len(self.nodes))
        if reply.reason in REASONS:
            seen["reason"][index] = REASONS.index(reply.reason)
        for name, value in (
            ("exit", reply.exit),
            ("predicted", reply.predicted),
            ("confidence", reply.confidence),
            ("queued_s", reply.queued_s),
            ("service_s", reply.service_s),
            ("node_s", reply.node_s),
            ("arrived_node_s", reply.arrived_s),
            ("batch", reply.batch),
        ):
            if value is not None:
                seen[name][index] = value

    def requests(self) -> Requests:
        """What was created."""
        return Requests(*(np.array(column) for column in self.rows.values()))

    def sightings(self) -> Sightings:
        """What was seen of it."""
        return Sightings(**{name: np.array(column) for name, column in self.seen.items()})


@dataclass
class Oddities:
    """What a fleet met that does not show in any record.

    Attributes:
        duplicates: further replies to a request.
        stale: replies to requests of an earlier run.
        unknown: replies to requests that the device never sent.
        malformed: messages that are no replies.
        refused: messages that the broker refused, and ``refusal``: with which reason last.
        unsent: requests that were lost at their device, which had no connection (QoS 0) or too
            many that waited for one.
        reconnections: connections of devices after their first.
        errors: error replies by code.
        strangers: replies of nodes that the scenario does not have, by name.
    """

    duplicates: int = 0
    stale: int = 0
    unknown: int = 0
    malformed: int = 0
    refused: int = 0
    refusal: str = ""
    unsent: int = 0
    reconnections: int = 0
    errors: Counter[str] = field(default_factory=Counter)
    strangers: Counter[str] = field(default_factory=Counter)


@dataclass(frozen=True)
class FleetResult:
    """A finished replication as its devices saw it; it can be pickled.

    Attributes:
        requests: all that were created, in this order.
        nodes: names of those who replied.
        same_clock: of these, whether the node's monotonic clock is the devices'.
        start_s: of the run, on the devices' monotonic clock.
        cut_s: when the run was ended early; None if it was not.
        notes: what a reader of the results has to know about how the devices were run.
        statuses: the last that each of the nodes said of itself.
    """

    replication: int
    requests: Requests
    seen: Sightings
    nodes: tuple[str, ...]
    same_clock: tuple[bool, ...]
    start_s: float
    cut_s: float | None
    oddities: Oddities
    notes: tuple[str, ...] = ()
    statuses: tuple[NodeStatus, ...] = ()

    def __len__(self) -> int:
        return len(self.requests)

    def lag_s(self, quantile: float) -> float:
        """Quantile of the seconds by which sends were late; NaN if nothing was created."""
        return float(np.quantile(self.seen.lag_s, quantile)) if len(self) else math.nan

    def warnings(self, world: World) -> list[str]:
        """What makes the result doubtful, one sentence each."""
        odd = self.oddities
        found = list(self.notes)
        if self.cut_s is not None:
            found.append(
                f"the run was cut short {self.cut_s:.1f} s after its start, of "
                f"{world.horizon_s:g} s: requests on their way then count as lost"
            )
        if self.lag_s(0.99) > LAG_WARNING_S:
            found.append(
                f"devices sent late: 1 % of the requests by more than {1e3 * self.lag_s(0.99):.1f} "
                "ms, which counts as latency; this host is too busy for so many devices"
            )
        if len(self) and not np.isin(self.seen.status, (OK, DROPPED, ERROR)).any():
            found.append(
                "no request had any reply, though nodes were there at first: may the broker's user "
                "write to offramp/1/request/# and read offramp/1/reply/#?"
            )
        if odd.unsent:
            found.append(f"{odd.unsent} requests were lost at devices that had no connection")
        if odd.reconnections:
            often = odd.reconnections > 5 * len(np.unique(self.requests.device))
            found.append(
                f"devices lost their connection to the broker {odd.reconnections} times"
                + ("; do the same devices run twice?" if often else "")
            )
        if odd.refused:
            found.append(f"the broker refused {odd.refused} requests: {odd.refusal}")
        for code, count in odd.errors.most_common():
            found.append(
                f"nodes answered {count} requests with the error {code}: they count as lost"
            )
        for name, count in odd.strangers.most_common(3):
            found.append(
                f"{count} replies came from {name or 'a node without a name'!r}, which the "
                "scenario does not have"
            )
        for count, what in (
            (odd.unknown, "to requests that were never sent"),
            (odd.malformed, "that were malformed"),
        ):
            if count:
                found.append(f"{count} replies {what} were ignored")
        return found


assert list(_REQUEST_TYPES) == [column.name for column in fields(Requests)]
assert list(_SEEN_TYPES) == [column.name for column in fields(Sightings)]
