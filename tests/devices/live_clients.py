"""Clients of other makes for tests of a node: paho by itself, on its own thread."""

from __future__ import annotations

import queue
import threading
import time
from typing import Any

from fake_runtime import CLASSES, INPUT_SHAPE, FakeRuntime, image_of, node_spec
from paho.mqtt.client import MQTTMessage
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from devices.mqtt.connections import Broker, connect, disconnect, new_client
from devices.node.edge import EdgeNode, EdgeSettings
from devices.protocol.messages import InferenceRequest, Reply, decode_reply, encode_request
from devices.protocol.topics import reply_topic, request_topic
from sim.policies import FixedExit


def properties(**values: Any) -> Properties:
    made = Properties(PacketTypes.PUBLISH)
    for name, value in values.items():
        setattr(made, name, value)
    return made


class Device:
    """Sends requests to ``edge``; ``heard`` holds every message that comes back."""

    def __init__(self, broker: Broker, name: str = "d0", qos: int = 1, edge: str = "edge") -> None:
        self.name, self.qos, self.edge = name, qos, edge
        self.heard: queue.Queue[MQTTMessage] = queue.Queue()
        self.own_topic = reply_topic(edge, name)
        self._topics = [self.own_topic]
        self._subscribed = threading.Event()
        self.client = new_client(broker, f"device-{name}-{time.monotonic_ns()}", keepalive_s=2)
        self.client.on_connect = self._connected
        self.client.on_subscribe = lambda *_: self._subscribed.set()
        self.client.on_message = lambda client, userdata, message: self.heard.put(message)
        connect(self.client, broker)
        assert self._subscribed.wait(5)

    def __enter__(self) -> Device:
        return self

    def __exit__(self, *_: object) -> None:
        disconnect(self.client)

    def _connected(self, client: Any, *_: Any) -> None:
        client.subscribe([(topic, self.qos) for topic in self._topics])

    def listen(self, topic: str) -> None:
        self._topics.append(topic)
        self._subscribed.clear()
        self.client.subscribe(topic, self.qos)
        assert self._subscribed.wait(5)

    def send(self, payload: bytes, qos: int | None = None, **wanted: Any) -> None:
        self.client.publish(
            request_topic(self.edge, self.name),
            payload,
            self.qos if qos is None else qos,
            properties=properties(**wanted) if wanted else None,
        )

    def ask(self, id: Any = 1, pixel: int = 7, deadline_s: float = 5.0, **asked: Any) -> None:
        asked = {"image": image_of(pixel), **asked}
        self.send(encode_request(InferenceRequest(id, deadline_s, **asked)))

    def message(self, within_s: float = 10.0) -> MQTTMessage:
        return self.heard.get(timeout=within_s)

    def reply(self, within_s: float = 10.0) -> Reply:
        return decode_reply(self.message(within_s).payload)

    def hears_nothing(self, for_s: float = 0.3) -> bool:
        try:
            self.heard.get(timeout=for_s)
        except queue.Empty:
            return True
        return False


def edge_node(
    broker: Broker,
    policy: Any = None,
    runtime: FakeRuntime | None = None,
    settings: dict[str, Any] | None = None,
    samples: Any = None,
    **spec: Any,
) -> EdgeNode:
    """A node that is not started yet; it answers at exit 2."""
    runtime = runtime or FakeRuntime()
    return EdgeNode(
        broker,
        EdgeSettings(**{"edge": "edge", "node": "edge", "network": "fake", **(settings or {})}),
        node_spec(exits=runtime.exit_count, **spec),
        runtime,
        policy or FixedExit(2),
        INPUT_SHAPE,
        CLASSES,
        samples,
    )


class Serving:
    """A node for the length of a block."""

    def __init__(self, *arguments: Any, **settings: Any) -> None:
        self.node = edge_node(*arguments, **settings)

    def __enter__(self) -> EdgeNode:
        self.node.start()
        return self.node

    def __exit__(self, *_: object) -> None:
        self.node.stop()
