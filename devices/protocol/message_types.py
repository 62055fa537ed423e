"""What the messages of Offramp's wire protocol say, apart from how they are written.

``docs/protocol.md`` is the specification. Durations are seconds in here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from devices.protocol.fields import RequestId

#: What an error reply may say is wrong, and what each means.
ERROR_CODES = {
    "too_large": "the payload is longer than the node accepts",
    "bad_cbor": "the payload is no CBOR map within the limits",
    "unsupported_version": "`v` is missing, or no version that the node speaks",
    "bad_field": "a field is missing, has the wrong type or is out of its range",
    "bad_image": "the image cannot be read, or does not have the size that the network takes",
    "unknown_sample": "the node has no image with this number",
    "bad_response_topic": "the Response Topic is not one that this device may have replies on",
    "policy_failed": "the node's policy raised, or decided what cannot be done",
    "internal_error": "the node failed at a valid request",
}

#: Why a node may refuse a valid request on purpose.
DROP_REASONS = {
    "policy": "the policy decided to drop it",
    "queue_full": "too many requests wait already",
    "infeasible": "it could not be answered before its deadline any more",
    "draining": "the node is about to stop",
}


class MessageError(Exception):
    """A payload is no valid message of its kind."""


class BadRequest(MessageError):  # noqa: N818
    """A payload is no valid request.

    Attributes:
        code: one of :data:`ERROR_CODES`.
        message: what is wrong, for a person.
        id: of the request, where it could be read; an error reply repeats it.
    """

    def __init__(self, code: str, message: str, id: RequestId | None = None) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code
        self.message = message
        self.id = id


class BadReply(MessageError):  # noqa: N818
    """A payload is no valid reply."""


class BadReport(MessageError):  # noqa: N818
    """A payload is no valid report."""


class BadStatus(MessageError):  # noqa: N818
    """A payload is no valid status of a node."""


@dataclass(frozen=True, slots=True)
class InferenceRequest:
    """One image to classify before a deadline.

    Attributes:
        id: chosen by the device; unique among its requests that may still be on their way.
        deadline_s: from the creation of the request at the device until the reply is there.
        sample: number of the image in the dataset's test split; what to classify unless there is
            an ``image``.
        image: encoded as ``format`` says.
        format: "raw" (uint8, channels first), "jpeg" or "png".
        shape: channels, height and width of a raw image; None: as the network takes them.
        label: true class, where the device knows it; not used to classify.
        age_s: from creation to sending.
        sent_s: the device's own monotonic clock at sending, from any instant on.
        way_s: travel time there and back that the device last measured, without the time at
            the node.
    """

    id: RequestId
    deadline_s: float
    sample: int | None = None
    image: bytes | None = None
    format: str = "raw"
    shape: tuple[int, ...] | None = None
    label: int | None = None
    priority: int = 0
    age_s: float = 0.0
    sent_s: float | None = None
    way_s: float | None = None


@dataclass(frozen=True, slots=True)
class Reply:
    """What became of a request.

    Attributes:
        id: of the request; None if the node could not read it.
        node: name of the node that replies.
        predicted: class, from 0; with ``confidence`` (largest softmax probability) and ``exit``
            (from 1) in every reply that is "ok".
        queued_s: from arrival until a worker took the request.
        service_s: time of the inference.
        node_s: from arrival to this reply, the whole time at the node.
        arrived_s: the node's monotonic clock at the arrival.
        batch: requests that were computed together.
        reason: of "dropped", one of :data:`DROP_REASONS`.
        code: of "error", one of :data:`ERROR_CODES`.
        message: of "error", for a person.
    """

    id: RequestId | None
    status: Literal["ok", "dropped", "error"]
    node: str = ""
    predicted: int | None = None
    confidence: float | None = None
    exit: int | None = None
    queued_s: float | None = None
    service_s: float | None = None
    node_s: float | None = None
    arrived_s: float | None = None
    batch: int | None = None
    reason: str | None = None
    code: str | None = None
    message: str | None = None


@dataclass(frozen=True, slots=True)
class NodeStatus:
    """What a node retains at the broker about itself; only the first three in its last will.

    Attributes:
        instance: random; tells a node from another that took over its name.
        network: description for a person.
        exits: number of exits.
        input_shape: channels, height and width of the images that it takes.
        classes: number of classes.
        boot_id: of the node's machine. On the same machine its monotonic clock is the device's.
        policy: label; ``strategy`` and ``training_seed``: of the network, as records name it.
    """

    state: Literal["online", "draining", "offline"]
    node: str
    instance: str
    network: str = ""
    exits: int | None = None
    input_shape: tuple[int, ...] | None = None
    classes: int | None = None
    boot_id: str = ""
    runtime: str = ""
    policy: str = ""
    strategy: str = ""
    training_seed: int | None = None


@dataclass(frozen=True, slots=True)
class LatencyReport:
    """What a device measured of one request itself.

    Attributes:
        latency_s: from creation to reply; None if no reply came.
    """

    id: RequestId
    latency_s: float | None
