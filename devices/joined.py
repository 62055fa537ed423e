"""Devices that were not started by a run but take part in it: what they asked, and what came back.

Physical devices keep their own clocks, and nothing is asked of them but the protocol. A recorder
that sees requests and replies pass at the broker knows of each request:

- that it was created ``age`` and the way to the broker before it was seen. Half of the device's
  travel time stands for that way, where the device tells its travel time (``way_ms``);
- its latency: as the device reports it; else its age, and from request to reply as seen at the
  broker, or the time at the node and the device's travel time, whichever is longer. Without a
  travel time the ways between device and broker are missing in it.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields, replace

import numpy as np
from numpy.typing import NDArray

from devices.protocol.fields import RequestId
from devices.protocol.messages import (
    BadReply,
    BadReport,
    BadRequest,
    InferenceRequest,
    Reply,
    decode_reply,
    decode_report,
    decode_request,
)
from devices.virtual.fleet_log import FleetLog, FleetResult, Sightings
from sim.distributions import Constant
from sim.workload.arrivals import Poisson
from sim.workload.device_groups import DeviceGroup, Requests
from sim.world import World

#: Name of the group of devices that joined, in records and tables.
JOINED = "joined"

#: Requests whose repetition is recognised; more would let a flood of them fill the memory.
_REMEMBERED = 10_000
#: Requests of one run that are kept.
_MOST_KEPT = 1_000_000
#: Clients give up a request so long after its deadline.
_GIVEN_UP_S = 2.0
#: Devices that may join; anybody can ask under any name.
_MOST_DEVICES = 10_000


@dataclass(slots=True)
class Asked:
    """A request of a joined device; times on the recorder's monotonic clock.

    Attributes:
        asked_s, replied_s: when request and reply were seen at the broker; NaN without a reply.
        way_s: travel time that the device measured with this request, if it told with its next.
        reported: whether the device reported, and ``latency_s``: what; None: no reply came.
    """

    edge: str
    device: str
    request: InferenceRequest
    asked_s: float
    reply: Reply | None = None
    replied_s: float = math.nan
    way_s: float | None = None
    reported: bool = False
    latency_s: float | None = None

    @property
    def travel_s(self) -> float | None:
        """Travel time there and back; what the device measured last, if not for this request."""
        return self.request.way_s if self.way_s is None else self.way_s

    @property
    def created_s(self) -> float:
        """When the device created it."""
        return self.asked_s - (self.travel_s or 0.0) / 2 - self.request.age_s

    def waits(self, at_s: float, grace_s: float) -> bool:
        """Whether a reply may still come, so long after its deadline."""
        overdue_s = self.asked_s + self.request.deadline_s + grace_s
        return self.reply is None and not self.reported and at_s < overdue_s

    @property
    def heard_s(self) -> float:
        """When the device had its reply; NaN if it has none."""
        if self.reported:
            return math.nan if self.latency_s is None else self.created_s + self.latency_s
        if self.reply is None:
            return math.nan
        seen_s = self.replied_s - self.asked_s
        if self.travel_s is not None and self.reply.node_s is not None:
            seen_s = max(seen_s, self.reply.node_s + self.travel_s)
        return self.created_s + self.request.age_s + seen_s


class JoinedLog:
    """Puts together what joined devices ask, are answered and report.

    Attributes:
        devices: names of all that asked anything, in the order in which they were heard of.
        malformed: messages that were no requests; nodes answer them with an error.
        turned_away: requests of more devices than may join.
        ambiguous: replies on a topic that several devices chose, to requests with the same id.
        kept: requests since the last :meth:`clear`.
    """

    def __init__(self) -> None:
        self.devices: dict[str, None] = {}
        self.malformed = self.turned_away = self.ambiguous = 0
        self.kept: list[Asked] = []
        self._asked: OrderedDict[tuple[str, str, RequestId], tuple[int, Asked]] = OrderedDict()
        self._last: dict[tuple[str, str], Asked] = {}

    def clear(self) -> None:
        """Forget the requests so far, but not who asked."""
        self.kept = []
        self.malformed = self.turned_away = self.ambiguous = 0

    def request(self, edge: str, device: str, payload: bytes, at_s: float) -> None:
        """A request was seen; one that was delivered twice, or is tried again, counts once."""
        try:
            request = decode_request(payload)
        except BadRequest:
            self.malformed += 1
            return
        if device not in self.devices and len(self.devices) >= _MOST_DEVICES:
            self.turned_away += 1
            return
        self.devices[device] = None
        key, content = (edge, device, request.id), hash(payload)
        request = replace(request, image=None)  # up to a megabyte each
        before = self._asked.pop(key, None)
        if before is not None and (before[0] == content or before[1].reply is None):
            self._asked[key] = before
            return
        asked = Asked(edge, device, request, at_s)
        last = self._last.get((edge, device))
        if last is not None and last.reply is not None:
            last.way_s = request.way_s
        self._last[edge, device] = asked
        self._asked[key] = content, asked
        if len(self._asked) > _REMEMBERED:
            self._asked.popitem(last=False)
        if len(self.kept) < _MOST_KEPT:
            self.kept.append(asked)

    def reply(self, edge: str, device: str, payload: bytes, at_s: float) -> None:
        """A reply was seen; the first to a request counts."""
        self.reply_to_one_of([(edge, device)], payload, at_s)

    def reply_to_one_of(
        self, devices: Iterable[tuple[str, str]], payload: bytes, at_s: float
    ) -> None:
        """A reply was seen on a topic of several devices, each with its edge.

        It counts where one of them alone waits for a reply with its id.
        """
        try:
            reply = decode_reply(payload)
        except BadReply:
            return
        if reply.id is None:
            return
        asked = [self._asked[edge, device, reply.id][1] for edge, device in devices
                 if (edge, device, reply.id) in self._asked]  # fmt: skip
        waiting = [it for it in asked if it.reply is None]
        if len(waiting) > 1:  # what was lost long ago waits no more
            waiting = [it for it in waiting if it.waits(at_s, _GIVEN_UP_S)]
        if len(waiting) == 1:
            waiting[0].reply, waiting[0].replied_s = reply, at_s
        elif waiting:
            self.ambiguous += 1

    def report(self, edge: str, device: str, payload: bytes) -> None:
        """A device told what it measured of a request."""
        try:
            report = decode_report(payload)
        except BadReport:
            return
        _, asked = self._asked.get((edge, device, report.id), (0, None))
        if asked is not None and not asked.reported:
            asked.reported, asked.latency_s = True, report.latency_s

    def waits(self, at_s: float, grace_s: float, asked_by_s: float = math.inf) -> bool:
        """Whether a reply may still come to one of the requests kept.

        Args:
            asked_by_s: later ones are not looked at.
        """
        return any(
            asked.asked_s <= asked_by_s and asked.waits(at_s, grace_s) for asked in self.kept
        )


@dataclass(frozen=True)
class WithJoined:
    """A fleet's result with the requests of the devices that joined it.

    Attributes:
        world: with the group of the joined devices, the last.
        labels: (samples + classes,) of the samples, then each class once, for images that are
            none of the samples.
        notes: what a reader of the results has to know of it.
    """

    world: World
    result: FleetResult
    labels: NDArray[np.int32]
    notes: list[str]


def with_joined(
    world: World,
    result: FleetResult,
    log: JoinedLog,
    sample: NDArray[np.int32],
    labels: NDArray[np.int32],
    classes: int,
) -> WithJoined:
    """Add what joined devices created between the start and the end of a fleet's run.

    Args:
        sample, labels: (samples,) numbers in the dataset's test split, and classes.
        classes: their number.
    """
    if not log.devices:
        return WithJoined(world, result, labels, [])
    start_s = result.start_s
    end_s = world.horizon_s if result.cut_s is None else min(result.cut_s, world.horizon_s)
    within = [it for it in log.kept if 0 <= it.created_s - start_s < end_s]
    places = dict(zip(sample.tolist(), range(len(sample)), strict=True))
    judged = [(it, _place(it.request, places, labels, classes)) for it in within]
    unjudged = sum(place is None for _, place in judged)
    names = tuple(log.devices)
    world = with_group(world, names, len(within) / world.horizon_s)
    added = FleetLog()
    numbers = dict.fromkeys(names, 0)
    for asked, place in judged:
        if place is None:
            continue
        local = names.index(asked.device)
        number = numbers[asked.device]
        numbers[asked.device] += 1
        created_s = asked.created_s - start_s
        index = added.create(
            (
                len(world.groups) - 1,
                world.first_device[-2] + local,
                local,
                number,
                created_s,
                asked.request.deadline_s,
                place,
                0.5,
            )
        )
        added.seen["sent_s"][index] = created_s + asked.request.age_s
        added.seen["lag_s"][index] = 0.0
        if asked.reply is not None and not math.isnan(asked.heard_s):
            added.replied(index, asked.reply, asked.heard_s - start_s)
    counted = [asked for asked, place in judged if place is not None]
    return WithJoined(
        world,
        _together(result, added),
        np.concatenate([labels, np.arange(classes, dtype=labels.dtype)]),
        _notes(counted, unjudged, log),
    )


def with_group(world: World, names: Sequence[str], rate_hz: float) -> World:
    """The world with a group of joined devices, the last of all.

    Args:
        rate_hz: of the requests of all of them.
    """
    group = DeviceGroup(
        name=JOINED if all(it.name != JOINED for it in world.groups) else f"{JOINED}-devices",
        count=len(names),
        # They ask when they like; on average that is this.
        arrivals=Poisson(max(rate_hz, 1e-9) / max(1, len(names))),
        deadline=Constant(0.0),
        link=world.groups[0].link,
        node=world.groups[0].node,
        request_bytes=world.groups[0].request_bytes,
        response_bytes=world.groups[0].response_bytes,
        names=tuple(names),
    )
    return replace(world, groups=(*world.groups, group))


def _place(
    request: InferenceRequest,
    places: dict[int, int],
    labels: NDArray[np.int32],
    classes: int,
) -> int | None:
    """Which sample a request is about, or one that stands for its class; None if nobody knows."""
    place = None if request.sample is None else places.get(request.sample)
    if place is not None and request.label in (None, int(labels[place])):
        return place
    if request.label is not None and request.label < classes:
        return len(labels) + request.label
    return None


def _together(result: FleetResult, added: FleetLog) -> FleetResult:
    """The requests of the fleet, then those that were added."""
    nodes = dict.fromkeys([*result.nodes, *added.nodes])
    same_clock = dict(zip(result.nodes, result.same_clock, strict=True))
    places = [*nodes]
    more = added.sightings()
    of_added = np.array([*(places.index(name) for name in added.nodes), -1], dtype=np.int64)
    more = replace(more, node=of_added[more.node])
    return replace(
        result,
        requests=Requests.joined([result.requests, added.requests()]),
        seen=Sightings(
            *(
                np.concatenate([getattr(result.seen, field.name), getattr(more, field.name)])
                for field in fields(Sightings)
            )
        ),
        nodes=tuple(nodes),
        same_clock=tuple(same_clock.get(name, False) for name in nodes),
    )


def _notes(counted: list[Asked], unjudged: int, log: JoinedLog) -> list[str]:
    notes = []
    answered = [asked for asked in counted if asked.reply is not None]
    estimated = [asked for asked in answered if not asked.reported]
    unknown = [asked for asked in estimated if asked.travel_s is None]
    if estimated:
        notes.append(
            f"devices that joined reported no latency of {len(estimated)} of {len(answered)} "
            "answers: it was estimated from what passed at the broker"
        )
    if unknown:
        notes.append(
            f"for {len(unknown)} of them the device told no travel time (way_ms): the ways between "
            "device and broker are missing in their latency"
        )
    if unjudged:
        notes.append(
            f"{unjudged} requests of devices that joined had neither a label nor a known sample: "
            "whether their answers are right is unknown, and they are in no figure"
        )
    if log.malformed:
        notes.append(f"{log.malformed} messages of devices that joined were no requests")
    if log.turned_away:
        notes.append(
            f"{log.turned_away} requests of further devices are in no figure: no more than "
            f"{_MOST_DEVICES:,} may join"
        )
    if log.ambiguous:
        notes.append(
            f"{log.ambiguous} replies came on a topic that several devices share, to requests with "
            "the same id: nobody can tell whose they are, and these requests count as lost"
        )
    return notes
