"""What virtual devices send and hear: requests when they are due, replies matched to them."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

from devices.mqtt.mqtt_loop import Make, Packable
from devices.protocol.messages import BadReply, Reply, decode_reply
from devices.virtual.alarm import Alarm, now_s
from devices.virtual.fleet_log import UNSENT, WAITING, FleetLog, Oddities
from devices.virtual.live_workload import LiveWorkload
from devices.virtual.progress import ProgressMeter
from devices.virtual.request_payloads import ExpiryProperties, GroupPayloads
from sim.workload.device_groups import Row

#: Requests that are sent before the loop looks at the network again.
_SENDS_AT_ONCE = 32

#: Ids are 30 bits that the run drew, which tell it from earlier ones, then 32 for the request.
_RUN_BITS, _INDEX_BITS = 30, 32
_INDEX_MASK = (1 << _INDEX_BITS) - 1


@dataclass
class Device:
    """One virtual device.

    Attributes:
        topic: of its requests.
        send: sends on a topic what is made when it is sent; False if it is lost at once.
        way_s: the travel time there and back that it measured last.
    """

    topic: str
    payloads: GroupPayloads
    send: Callable[[str, Make], bool]
    way_s: float | None = None


class Exchange:
    """Requests and replies of a run; all on the running loop.

    Args:
        devices: by their number among all devices.
        labels: class of each sample.
        nodes: names of the nodes that may reply.
        expires: whether messages expire with their deadline (MQTT 5).
        grace_s: how long after its deadline a device of a closed loop waits for an answer.

    Attributes:
        start_s: of the run, on the devices' monotonic clock.
        waiting: requests without a reply, by index: their rows.
        last_deadline_s: of all requests so far, on the clock of the run.
    """

    def __init__(
        self,
        workload: LiveWorkload,
        devices: Mapping[int, Device],
        labels: list[int],
        nodes: list[str],
        warm_up_s: float,
        expires: bool,
        grace_s: float,
    ) -> None:
        self._workload = workload
        self._devices = devices
        self._labels = labels
        self._nodes = set(nodes)
        self._expires = expires
        self._grace_s = grace_s
        self._run_id = secrets.randbits(_RUN_BITS)
        self._loop = asyncio.get_running_loop()
        self._alarm = Alarm(self._due)
        self._stopped = False
        #: Of devices in closed loops: when each request is given up.
        self._giving_up: dict[int, asyncio.TimerHandle] = {}
        self.log = FleetLog()
        self.oddities = Oddities()
        self.meter = ProgressMeter(warm_up_s)
        self.waiting: dict[int, Row] = {}
        self.start_s = 0.0
        self.last_deadline_s = 0.0

    def start(self, at_s: float) -> None:
        """Let the clock of the run be 0 at ``at_s`` of the monotonic clock."""
        self.start_s = at_s
        self._set_alarm()

    def stop(self) -> None:
        """Create nothing more, and hear nothing more."""
        self._stopped = True
        self._alarm.close()
        for handle in self._giving_up.values():
            handle.cancel()

    @property
    def time_s(self) -> float:
        """Since the start of the run."""
        return now_s() - self.start_s

    @property
    def is_quiet(self) -> bool:
        """Whether nothing is waited for, and nothing will be created, as far as is known."""
        return not self.waiting and self._workload.is_empty

    def overdue(self, time_s: float) -> list[float]:
        """When each of the requests was created that wait although their deadline has passed."""
        return [row[4] for row in self.waiting.values() if row[4] + row[5] < time_s]

    # --- creating and sending ------------------------------------------------------------------

    def _set_alarm(self) -> None:
        self._alarm.set(self.start_s + self._workload.due_s)

    def _due(self) -> None:
        """Create what is due, a few at a time so that replies are heard in between."""
        for _ in range(_SENDS_AT_ONCE):
            if self._workload.due_s > self.time_s:
                break
            self._create(self._workload.take())
        self._set_alarm()

    def _create(self, row: Row) -> None:
        device = self._devices[row[1]]
        created_s, deadline_s = row[4], row[5]
        index = self.log.create(row)
        self.last_deadline_s = max(self.last_deadline_s, created_s + deadline_s)
        sent = device.send(device.topic, partial(self._message, device, index, row))
        self.log.seen["lag_s"][index] = self.time_s - created_s
        if sent:
            self.waiting[index] = row
        else:
            self.log.seen["status"][index] = UNSENT
            self.oddities.unsent += 1
            self.meter.loss(created_s)
        if self._workload.loops(row[0]):
            # What was not sent is known to be lost, as the simulator's devices know it.
            patience_s = deadline_s + (self._grace_s if sent else 0.0)
            at_s = self.start_s + created_s + patience_s
            self._giving_up[index] = self._loop.call_at(at_s, self._give_up, index, row)

    def _message(self, device: Device, index: int, row: Row) -> tuple[bytes, Packable | None]:
        """The request as it is sent, now."""
        now = now_s()
        sent_s = now - self.start_s
        self.log.seen["sent_s"][index] = sent_s
        created_s, deadline_s = row[4], row[5]
        age_s = max(0.0, sent_s - created_s)
        id = self._run_id << _INDEX_BITS | index
        payload = device.payloads.encode(id, row[6], deadline_s, age_s, now, device.way_s)
        return payload, ExpiryProperties(deadline_s - age_s) if self._expires else None

    # --- hearing -------------------------------------------------------------------------------

    def heard(self, number: int, payload: bytes) -> None:
        """A message came to a device."""
        heard_s = self.time_s
        if self._stopped:
            return
        try:
            reply = decode_reply(payload)
        except BadReply:
            self.oddities.malformed += 1
            return
        index = self._index_of(number, reply)
        if index is None:
            return
        row = self.waiting.pop(index)
        self.log.replied(index, reply, heard_s)
        if reply.node_s is not None:
            travel_s = heard_s - self.log.seen["sent_s"][index] - reply.node_s
            self._devices[number].way_s = max(0.0, travel_s)
        if reply.node not in self._nodes:
            self.oddities.strangers[reply.node] += 1
        self._count(row, reply, heard_s)
        given_up = self._giving_up.pop(index, None)
        if given_up is not None:
            given_up.cancel()
            # As in the simulator: of anything but an answer, a device learns at its deadline.
            from_s = heard_s if reply.status == "ok" else max(heard_s, row[4] + row[5])
            self._go_round(row, from_s)

    def _index_of(self, number: int, reply: Reply) -> int | None:
        """The request of a device that a reply is the first one to; None, counted, if to none."""
        id = reply.id
        if id is None:
            # An error about a message that the node could not read.
            self.oddities.errors[reply.code or "unknown"] += 1
            return None
        if not isinstance(id, int) or id >> _INDEX_BITS != self._run_id:
            self.oddities.stale += 1
            return None
        index = id & _INDEX_MASK
        if index >= len(self.log) or self.log.rows["device"][index] != number:
            self.oddities.unknown += 1
            return None
        if self.log.seen["status"][index] != WAITING:
            self.oddities.duplicates += 1
            return None
        return index

    def _count(self, row: Row, reply: Reply, heard_s: float) -> None:
        created_s, deadline_s = row[4], row[5]
        if reply.status == "ok":
            assert reply.exit is not None  # or it would have been malformed
            correct = reply.predicted == self._labels[row[6]]
            self.meter.answer(created_s, heard_s, deadline_s, correct, reply.exit)
        elif reply.status == "dropped":
            self.meter.refusal(created_s)
        else:
            self.oddities.errors[reply.code or "unknown"] += 1
            self.meter.loss(created_s)

    # --- closed loops --------------------------------------------------------------------------

    def _give_up(self, index: int, row: Row) -> None:
        del self._giving_up[index]
        self._go_round(row, max(self.time_s, row[4] + row[5]))

    def _go_round(self, row: Row, from_s: float) -> None:
        self._workload.go_round(row, from_s)
        self._set_alarm()
