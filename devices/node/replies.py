"""Replies of a node: what they say, where they go, and the MQTT properties they carry."""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass

from paho.mqtt.client import MQTTMessage

from devices.node.recent_requests import RecentRequest
from devices.node.views import LiveRequest
from devices.protocol.message_types import BadRequest, Reply

_RESERVED = "offramp/"

# Identifiers of MQTT 5, section 2.2.2.2.
_MESSAGE_EXPIRY_INTERVAL = 0x02
_CORRELATION_DATA = 0x09
_MOST_EXPIRY_S = 0xFFFFFFFF


@dataclass(slots=True)
class ReplyWay:
    """How a reply reaches whoever asked.

    Attributes:
        qos: that of the request.
        correlation: Correlation Data of the request, MQTT 5; None if there was none.
        recent: where the reply is remembered, in case the request comes again.
    """

    topic: str
    qos: int
    correlation: bytes | None = None
    recent: RecentRequest | None = None


def reply_way(message: MQTTMessage, own: str) -> tuple[ReplyWay, str | None]:
    """Where the reply to a request goes.

    A Response Topic (MQTT 5) is honoured: below ``offramp/`` only the device's own reply topic and
    those below it, so that no device can speak to another in a node's name; elsewhere any topic
    that can be published to.

    Args:
        own: the device's own reply topic.

    Returns:
        The way; and the Response Topic that was refused, if it was: then the way leads to the
        device's own reply topic.
    """
    properties = message.properties
    if properties is None:
        return ReplyWay(own, message.qos), None
    wanted: str | None = getattr(properties, "ResponseTopic", None)
    correlation: bytes | None = getattr(properties, "CorrelationData", None)
    if wanted is None or wanted == own:
        return ReplyWay(own, message.qos, correlation), None
    if _may_reply_on(wanted, own):
        return ReplyWay(wanted, message.qos, correlation), None
    return ReplyWay(own, message.qos, correlation), wanted


def _may_reply_on(topic: str, own: str) -> bool:
    if not topic or len(topic.encode()) > 65535 or any(sign in topic for sign in "+#\0"):
        return False
    if topic.startswith(_RESERVED):
        return topic.startswith(own + "/")
    return not topic.startswith("$")


class ReplyProperties:
    """Properties of a PUBLISH in MQTT 5, as far as replies need them.

    paho takes any object that can be packed; its own takes 60 µs to fill and pack, this one 1 µs.
    """

    __slots__ = ("_packed",)

    def __init__(self, remaining_s: float, correlation: bytes | None) -> None:
        expiry_s = min(max(1, math.ceil(remaining_s)), _MOST_EXPIRY_S)
        packed = struct.pack(">BI", _MESSAGE_EXPIRY_INTERVAL, expiry_s)
        if correlation is not None:
            packed += struct.pack(">BH", _CORRELATION_DATA, len(correlation)) + correlation
        self._packed = _variable_byte_integer(len(packed)) + packed

    def pack(self) -> bytes:
        """The properties as they are sent, their length before them."""
        return self._packed


def _variable_byte_integer(value: int) -> bytes:
    """MQTT 5, section 1.5.5."""
    encoded = bytearray()
    while True:
        value, digit = divmod(value, 128)
        encoded.append(digit | (0x80 if value else 0))
        if not value:
            return bytes(encoded)


def reply_to(request: LiveRequest, node: str) -> Reply:
    """What became of a request that has left."""
    id, arrived_s = request.asked.id, request.arrived_s
    node_s = request.finished_s - arrived_s
    if request.error is not None:
        code, message = request.error
        return Reply(
            id, "error", node, node_s=node_s, arrived_s=arrived_s, code=code, message=message
        )
    queued_s = service_s = None
    if not math.isnan(request.started_s):
        queued_s, service_s = request.started_s - arrived_s, request.finished_s - request.started_s
    if request.reason is not None:
        return Reply(
            id,
            "dropped",
            node,
            queued_s=queued_s,
            service_s=service_s,
            node_s=node_s,
            arrived_s=arrived_s,
            reason=request.reason,
        )
    return Reply(
        id,
        "ok",
        node,
        predicted=request.predicted,
        confidence=request.confidence,
        exit=request.exit,
        queued_s=queued_s,
        service_s=service_s,
        node_s=node_s,
        arrived_s=arrived_s,
        batch=request.batch,
    )


def error_to(bad: BadRequest, node: str, arrived_s: float, now_s: float) -> Reply:
    """What a message is told that is no valid request."""
    return Reply(
        bad.id,
        "error",
        node,
        node_s=now_s - arrived_s,
        arrived_s=arrived_s,
        code=bad.code,
        message=bad.message,
    )
