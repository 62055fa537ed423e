"""A node for tests of devices: it answers at once, or as it is told to."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from devices.mqtt.connections import Broker, connect, disconnect, new_client
from devices.protocol.messages import (
    InferenceRequest,
    NodeStatus,
    Reply,
    decode_request,
    encode_reply,
    encode_status,
)
from devices.protocol.topics import device_of, reply_topic, request_filter, status_topic
from devices.virtual.node_watch import boot_id

Answer = Callable[[InferenceRequest, Reply], Sequence[Reply]]


def as_it_is(request: InferenceRequest, reply: Reply) -> Sequence[Reply]:
    return [reply]


class FakeEdge:
    """Answers on paho's network thread: a class in exit 1 or 2, by the number of the sample.

    ``answer`` may change a reply, repeat it, or give none. ``requests`` are all that came.
    """

    def __init__(
        self,
        broker: Broker,
        edge: str = "edge",
        node: str = "edge",
        qos: int = 1,
        answer: Answer = as_it_is,
        **status: Any,
    ) -> None:
        self.edge, self.node, self.qos, self.answer = edge, node, qos, answer
        self.requests: list[tuple[str, InferenceRequest, bytes]] = []
        self.lock = threading.Lock()
        online = NodeStatus("online", node, "instance-1", boot_id=boot_id())
        self.status = replace(online, **status)
        self.client = new_client(broker, f"fake-{edge}-{node}", keepalive_s=5)
        self.client.on_connect = self._connected
        self.client.on_message = self._message
        connect(self.client, broker)

    def _connected(self, client: Any, *_: Any) -> None:
        client.subscribe(request_filter(self.edge), self.qos)
        self.tell(self.status)

    def tell(self, status: NodeStatus) -> None:
        topic = status_topic(self.edge, self.node)
        self.client.publish(topic, encode_status(status), 1, retain=True)

    def _message(self, client: Any, userdata: Any, message: Any) -> None:
        arrived_s = time.monotonic()
        device = device_of(message.topic, self.edge)
        assert device is not None
        request = decode_request(message.payload)
        with self.lock:
            self.requests.append((device, request, message.payload))
        sample = request.sample or 0
        reply = Reply(
            request.id,
            "ok",
            self.node,
            predicted=sample % 10,
            confidence=0.75,
            exit=1 + sample % 2,
            queued_s=0.0,
            service_s=1e-4,
            node_s=time.monotonic() - arrived_s + 1e-4,
            arrived_s=arrived_s,
            batch=1,
        )
        for one in self.answer(request, reply):
            client.publish(reply_topic(self.edge, device), encode_reply(one), self.qos)

    def close(self) -> None:
        disconnect(self.client)


@contextmanager
def fake_edge(broker: Broker, **settings: Any) -> Iterator[FakeEdge]:
    edge = FakeEdge(broker, **settings)
    try:
        yield edge
    finally:
        edge.close()
