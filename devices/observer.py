"""Sees what devices ask that a run did not start itself, and what they are answered.

An MQTT client of its own, subscribed to the requests, replies and reports of all edges. The broker
then sends every message once more, also those of the run's own devices, which are passed over: to
be used where physical devices take part, and not else.
"""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Callable, Collection, Sequence
from typing import Any

from paho.mqtt.client import Client, MQTTMessage

from devices.joined import JoinedLog
from devices.mqtt.connections import Broker, connect, disconnect, new_client
from devices.protocol.topics import (
    device_of,
    is_name,
    reply_filter,
    report_filter,
    reporter_of,
    request_filter,
)
from models.errors import LiveError

#: Response Topics outside of the protocol's own that are listened to; more are not.
_MOST_TOPICS = 1000

#: Replies are waited for no longer than this after the end of a run.
_LONGEST_DRAIN_S = 600.0


class Observer:
    """Watches a broker; a context manager that is connected inside its ``with``.

    Args:
        edges: kinds of nodes whose devices are watched.
        own: names of the devices that the run started itself.

    Attributes:
        log: what joined devices did. Callbacks write to it while the observer is connected.
        connections: to the broker so far: after a second one something may have been missed.
        own_send: whether the run's own devices may be sending; until then whoever asks under one of
            their names is somebody else.
    """

    def __init__(self, broker: Broker, edges: Sequence[str], own: Collection[str]) -> None:
        self.log = JoinedLog()
        self.connections = 0
        self.own_send = False
        self._broker = broker
        self._edges = edges
        self._own = frozenset(own)
        self._told = 0
        #: Of the run's own names those that somebody else has too, and whether that was told.
        self._namesakes: dict[str, bool] = {}
        #: Whose replies come on a topic that devices chose themselves: edges and devices.
        self._chosen: dict[str, set[tuple[str, str]]] = {}
        self._filters = [
            name
            for edge in edges
            for name in (
                request_filter(edge),
                # A device may have its replies on topics below its own (MQTT 5).
                f"{reply_filter(edge)}/#",
                report_filter(edge),
            )
        ]
        # Whatever QoS a message has, it is given on with that.
        self._client = new_client(broker, f"offramp-observer-{secrets.token_hex(4)}")
        self._client.on_connect = self._connected
        self._client.on_message = self._heard
        self._changed = threading.Event()

    def __enter__(self) -> Observer:
        """Connect.

        Raises:
            BrokerError: as :func:`devices.mqtt.connections.connect`.
        """
        connect(self._client, self._broker)
        return self

    def __exit__(self, *error: object) -> None:
        disconnect(self._client)

    def wait_for(
        self,
        devices: int,
        within_s: float,
        told: Callable[[str], None],
        meanwhile: Callable[[], None] = lambda: None,
        look_every_s: float = 0.2,
    ) -> None:
        """Wait until so many devices have asked something.

        Args:
            told: called with the name of each that was not told before.
            meanwhile: called again and again; what it raises ends the wait.

        Raises:
            LiveError: fewer have asked within ``within_s`` seconds.
        """
        until_s = time.monotonic() + within_s
        while True:
            names = list(self.log.devices)
            for name in names[self._told :]:
                told(name)
            self._told = len(names)
            if len(names) >= devices:
                return
            if time.monotonic() >= until_s:
                raise LiveError(self._who_is_missing(devices, within_s))
            meanwhile()
            self._changed.wait(look_every_s)
            self._changed.clear()

    def _who_is_missing(self, devices: int, within_s: float) -> str:
        asked = list(self.log.devices)
        text = f"after {within_s:g} s {len(asked)} of {devices} devices that are to join have asked"
        if asked:
            text += f" ({', '.join(asked)})"
        if self._namesakes:
            text += f"; under the name of a virtual device asked {', '.join(self._namesakes)}"
        if self.log.malformed:
            text += f"; {self.log.malformed} message(s) came that are no requests"
        return text

    def new_namesakes(self) -> list[str]:
        """Names of the run's own devices under which somebody else asks too; each is told once."""
        new = [name for name, told in list(self._namesakes.items()) if not told]
        self._namesakes.update(dict.fromkeys(new, True))
        return new

    def drain(self, grace_s: float) -> None:
        """Wait until no reply may come any more to what was asked so far.

        Devices go on asking; and one with a deadline of a day keeps nobody waiting for a day.
        """
        asked_by_s = time.monotonic()
        time.sleep(min(grace_s, 0.2))  # a report comes after its reply
        while self.log.waits(time.monotonic(), grace_s, asked_by_s):
            if time.monotonic() > asked_by_s + _LONGEST_DRAIN_S:
                return
            time.sleep(0.05)

    def _connected(
        self, client: Client, userdata: Any, flags: Any, reason: Any, properties: Any
    ) -> None:
        if reason.is_failure:
            return
        self.connections += 1
        client.subscribe([(name, 2) for name in [*self._filters, *self._chosen]])

    def _heard(self, client: Client, userdata: Any, message: MQTTMessage) -> None:
        at_s, payload = time.monotonic(), bytes(message.payload)
        if message.retain:
            return  # said before now; nodes do not answer it either
        chosen = self._chosen.get(message.topic)
        if chosen is not None:
            self.log.reply_to_one_of(chosen, payload, at_s)
            return
        for edge in self._edges:
            if (device := device_of(message.topic, edge)) is not None:
                if device not in self._own:
                    self._look_at_response_topic(edge, device, message)
                    self.log.request(edge, device, payload, at_s)
                    self._changed.set()
                elif not self.own_send:
                    self._namesakes.setdefault(device, False)
                return
            if (device := self._replied_to(message.topic, edge)) is not None:
                self.log.reply(edge, device, payload, at_s)
                return
            if (device := reporter_of(message.topic, edge)) is not None:
                if device not in self._own:
                    self.log.report(edge, device, payload)
                else:  # virtual devices report nothing
                    self._namesakes.setdefault(device, False)
                return

    def _replied_to(self, topic: str, edge: str) -> str | None:
        """The device, not one of ours, that a message on ``topic`` is the reply to."""
        before = reply_filter(edge).removesuffix("+")
        if not topic.startswith(before):
            return None
        device = topic[len(before) :].partition("/")[0]
        return device if is_name(device) and device not in self._own else None

    def _look_at_response_topic(self, edge: str, device: str, message: MQTTMessage) -> None:
        """Listen to a topic outside of the protocol's on which a device wants its replies."""
        topic = getattr(message.properties, "ResponseTopic", None)
        if topic is None or topic.startswith(("offramp/", "$")) or {"+", "#"} & set(topic):
            return
        if topic in self._chosen:
            if len(self._chosen[topic]) < _MOST_TOPICS:
                self._chosen[topic].add((edge, device))
        elif len(self._chosen) < _MOST_TOPICS:
            self._chosen[topic] = {(edge, device)}
            self._client.subscribe(topic, 2)
