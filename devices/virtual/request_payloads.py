"""The messages that virtual devices send: an image or its number, as long as the scenario says."""

from __future__ import annotations

import math
import struct

import numpy as np
from numpy.typing import NDArray

from devices.protocol.messages import MAX_PAYLOAD_BYTES, InferenceRequest, encode_request
from models.errors import LiveError
from sim.workload.device_groups import DeviceGroup

#: Of the key "pad" in CBOR; the header of its value comes on top.
_PAD_KEY_BYTES = 4

# MQTT 5, sections 2.2.2.2 and 3.3.2.3.3.
_MESSAGE_EXPIRY_INTERVAL = 0x02
_MOST_EXPIRY_S = 0xFFFFFFFF


class GroupPayloads:
    """Payloads of the requests of one device group.

    A message holds the raw image and is padded to the group's ``request_bytes``. If these are just
    those of the image, keys and times come on top. Where not even the image fits, the message
    names it by its number instead, and the node looks it up in its own copy of the dataset.

    Args:
        images: (samples, C, H, W) of the test set.
        sample: (samples,) their numbers in the dataset's test split.

    Raises:
        LiveError: nodes would not accept messages of this length.
    """

    def __init__(
        self, group: DeviceGroup, images: NDArray[np.uint8], sample: NDArray[np.integer]
    ) -> None:
        self._images = images
        self._sample = sample
        self._priority = group.priority
        self.refers = group.request_bytes < images[0].size
        self.bytes = group.request_bytes
        longest = self._encode((1 << 63) - 1, 0, 1.0, 1.0, 1.0, 1.0, pad=0)
        self._pad = _padding(group.request_bytes - len(longest))
        if max(len(longest), group.request_bytes) > MAX_PAYLOAD_BYTES:
            raise LiveError(
                f"devices {group.name!r}: requests of {group.request_bytes} bytes are longer than "
                f"nodes accept ({MAX_PAYLOAD_BYTES})"
            )

    def encode(
        self,
        id: int,
        position: int,
        deadline_s: float,
        age_s: float,
        sent_s: float,
        way_s: float | None,
    ) -> bytes:
        """The payload of a request.

        Args:
            position: of its sample in the test set.
        """
        return self._encode(id, position, deadline_s, age_s, sent_s, way_s, self._pad)

    def _encode(
        self,
        id: int,
        position: int,
        deadline_s: float,
        age_s: float,
        sent_s: float,
        way_s: float | None,
        pad: int,
    ) -> bytes:
        request = InferenceRequest(
            id=id,
            deadline_s=deadline_s,
            sample=int(self._sample[position]),
            image=None if self.refers else self._images[position].tobytes(),
            priority=self._priority,
            age_s=age_s,
            sent_s=sent_s,
            way_s=way_s,
        )
        return encode_request(request, pad)


def _padding(missing: int) -> int:
    """Bytes of padding for a message to which ``missing`` bytes are missing, key and all."""
    for header, most in ((1, 23), (2, 0xFF), (3, 0xFFFF), (5, MAX_PAYLOAD_BYTES)):
        pad = missing - _PAD_KEY_BYTES - header
        if 0 < pad <= most:
            return pad
    return 0


class ExpiryProperties:
    """Properties of a PUBLISH in MQTT 5 that let the message expire.

    paho takes any object that can be packed; its own takes 50 µs for this.

    Args:
        remaining_s: until the message is worthless; rounded up to whole seconds, 1 at least.
    """

    __slots__ = ("_packed",)

    def __init__(self, remaining_s: float) -> None:
        seconds = min(max(1, math.ceil(remaining_s)), _MOST_EXPIRY_S)
        self._packed = struct.pack(">BBI", 5, _MESSAGE_EXPIRY_INTERVAL, seconds)

    def pack(self) -> bytes:
        """The properties as they are sent, their length before them."""
        return self._packed
