"""From messages to requests, and from requests that have left to replies: errors, duplicates, ways.

Between MQTT's client, which brings messages and takes replies, and the inference server.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import cast

import numpy as np
from numpy.typing import NDArray
from paho.mqtt.client import MQTTMessage

from devices.node.node_metrics import NodeMetrics
from devices.node.recent_requests import RecentRequests
from devices.node.replies import ReplyWay, error_to, reply_to, reply_way
from devices.node.views import Clock, LiveRequest
from devices.node.way_estimates import WayEstimates
from devices.protocol.images import decode_image
from devices.protocol.messages import (
    BadRequest,
    InferenceRequest,
    Reply,
    decode_request,
    encode_reply,
)
from devices.protocol.topics import device_of, reply_topic

_BAD_RESPONSE_TOPIC = (
    "below offramp/ a Response Topic is the device's own reply topic or one below that; elsewhere "
    "any topic without wildcards that does not begin with $"
)


class RequestExchange:
    """What one node takes in and gives back.

    Args:
        edge, node: the kind of node, and its name.
        input_shape: channels, height and width that the network takes.
        samples: (N, C, H, W) images that devices may name by their number; None: there are none.
        publish: sends a payload, which is worthless after so many seconds; called on any thread.
    """

    def __init__(
        self,
        edge: str,
        node: str,
        input_shape: Sequence[int],
        samples: NDArray[np.uint8] | None,
        publish: Callable[[ReplyWay, bytes, float], None],
        metrics: NodeMetrics,
        clock: Clock,
    ) -> None:
        self._edge = edge
        self._node = node
        self._input_shape = tuple(input_shape)
        self._samples = samples
        self._publish = publish
        self._metrics = metrics
        self._clock = clock
        self._ways = WayEstimates()
        self._recent = RecentRequests()

    def take(self, message: MQTTMessage, arrived_s: float) -> LiveRequest | None:
        """The request that a message is, on the network thread; takes no longer than it must.

        None if it is none, or came before: then whoever sent it has been told.
        """
        device, own_topic = _sender(message.topic, self._edge)
        self._metrics.add("received_bytes", len(message.payload))
        if device is None or message.retain:
            # There is nobody to reply to; or it was sent long ago, and is repeated at every start.
            self._metrics.failed("bad_topic" if device is None else "retained")
            return None
        way, refused = reply_way(message, own_topic)
        try:
            asked = decode_request(message.payload)
            if refused is not None:
                raise BadRequest("bad_response_topic", _BAD_RESPONSE_TOPIC, asked.id)
            image = self._image(asked)
        except BadRequest as bad:
            self._metrics.failed(bad.code)
            self._send(way, error_to(bad, self._node, arrived_s, self._clock()), 1.0)
            return None
        if message.qos:
            before = self._recent.find(device, asked.id, asked.sent_s, message.dup)
            if before is not None:
                self._metrics.add("duplicate_requests")
                if before.reply is not None:
                    self._publish(way, before.reply, asked.deadline_s)
                return None
            way.recent = self._recent.add(device, asked.id, asked.sent_s)
        return LiveRequest(asked, self._ways.of(device), arrived_s, self._clock, image, way)

    def answer(self, request: LiveRequest) -> None:
        """Reply to a request that has left, on any thread."""
        way: ReplyWay = request.sender
        remaining_s = request.deadline_at_s - request.finished_s
        self._send(way, reply_to(request, self._node), remaining_s)

    def _send(self, way: ReplyWay, reply: Reply, remaining_s: float) -> None:
        payload = encode_reply(reply)
        if way.recent is not None:
            way.recent.reply = payload
        self._publish(way, payload, remaining_s)

    def _image(self, asked: InferenceRequest) -> NDArray[np.uint8] | None:
        """The image of a request, as far as it takes no time to have: else a worker decodes it."""
        if asked.image is not None:
            return decode_image(asked, self._input_shape) if asked.format == "raw" else None
        number, samples = cast(int, asked.sample), self._samples
        if samples is None:
            raise BadRequest(
                "unknown_sample", "the node has no dataset; send the image itself", asked.id
            )
        if number >= len(samples):
            raise BadRequest(
                "unknown_sample", f"there are samples 0 to {len(samples) - 1}", asked.id
            )
        image: NDArray[np.uint8] = samples[number]
        return image


@lru_cache(maxsize=4096)
def _sender(topic: str, edge: str) -> tuple[str | None, str]:
    """Who sent a request, and its reply topic; None where that cannot be told."""
    device = device_of(topic, edge)
    return device, "" if device is None else reply_topic(edge, device)
