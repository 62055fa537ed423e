"""MQTT between devices, broker and nodes: what a message costs in packets and round trips."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from sim.distributions import Constant, Distribution
from sim.network.links import Link
from sim.network.mqtt_packets import (
    EXCHANGES,
    QoS,
    Version,
    exchange_bytes,
    ping_bytes,
    properties_bytes,
    tcp_bytes,
)

Share = Literal["round_robin", "random"]


@dataclass(frozen=True)
class Mqtt:
    """How requests and replies travel over MQTT.

    Attributes:
        qos: of requests and replies, between clients and broker.
        processing: seconds of the broker for each message, one after the other.
        backhaul: between the broker and a node; ``uplink`` leads to the node.
        inflight: messages that a device may have on the way to the broker without an
            acknowledgement (MQTT 5: Receive Maximum); None: never reached.
        persistent: sessions outlive connections: at QoS 1 and 2 the broker keeps messages for a
            client that is away, and a client keeps them for the broker. Else they are lost.
        reconnect_s: from the end of an absence until messages flow again.
        share: how the nodes of a pool share its requests (``$share``).
        request_topic, response_topic: bytes.
        correlation: bytes of the correlation data, MQTT 5 only.
    """

    version: Version = "5"
    qos: QoS = 1
    tls: bool = False
    processing: Distribution = field(default_factory=lambda: Constant(0.0))
    backhaul: Link = field(default_factory=Link)
    inflight: int | None = None
    persistent: bool = False
    reconnect_s: float = 0.0
    keep_alive_s: float = 60.0
    share: Share = "round_robin"
    request_topic: int = 40
    response_topic: int = 40
    correlation: int = 8

    @property
    def keeps_messages(self) -> bool:
        """Whether messages wait for whom they cannot reach."""
        return self.persistent and self.qos > 0

    def request_packets(self, payload_bytes: int) -> tuple[int, ...]:
        """Bytes on the wire of each packet of a request, there and back in turn."""
        properties = 0
        if self.version == "5":
            properties = properties_bytes(
                "message_expiry_interval",
                response_topic=self.response_topic,
                correlation_data=self.correlation,
            )
        return self._packets(self.request_topic, payload_bytes, properties)

    def reply_packets(self, payload_bytes: int) -> tuple[int, ...]:
        """Bytes on the wire of each packet of a reply, there and back in turn."""
        properties = 0
        if self.version == "5":
            properties = properties_bytes(correlation_data=self.correlation)
        return self._packets(self.response_topic, payload_bytes, properties)

    def _packets(self, topic: int, payload: int, properties: int) -> tuple[int, ...]:
        sizes = exchange_bytes(self.version, self.qos, topic, payload, properties)
        return tuple(tcp_bytes(size, tls=self.tls) for size in sizes)

    @property
    def trips_to_act(self) -> int:
        """One-way trips until the receiver of a message hands it on."""
        return EXCHANGES[self.qos].trips_to_act

    @property
    def keep_alive_bytes(self) -> int:
        """Bytes that keeping an idle connection alive takes, there and back, each time."""
        return 2 * tcp_bytes(ping_bytes(), tls=self.tls)
