"""The messages of Offramp's wire protocol, version 1, as payloads: CBOR maps with text keys.

``docs/protocol.md`` is the specification. Payloads may come from anyone: whatever their bytes,
decoding either returns a valid message or raises the one exception that its function names.
Durations are milliseconds on the wire and seconds in here.
"""

from __future__ import annotations

from typing import Any, Literal, cast

from cbor2 import dumps

from devices.protocol.cbor_limits import MAX_PAYLOAD_BYTES, CborError, decode_map, short
from devices.protocol.fields import (
    MOST_TEXT,
    FieldError,
    RequestId,
    byte_string,
    image_shape,
    integer,
    is_request_id,
    number,
    one_of,
    request_id,
    required,
    text,
)
from devices.protocol.message_types import (
    DROP_REASONS,
    ERROR_CODES,
    BadReply,
    BadReport,
    BadRequest,
    BadStatus,
    InferenceRequest,
    LatencyReport,
    MessageError,
    NodeStatus,
    Reply,
)
from devices.protocol.topics import VERSION

__all__ = [
    "DROP_REASONS",
    "ERROR_CODES",
    "MAX_PAYLOAD_BYTES",
    "BadReply",
    "BadReport",
    "BadRequest",
    "BadStatus",
    "InferenceRequest",
    "LatencyReport",
    "MessageError",
    "NodeStatus",
    "Reply",
    "RequestId",
    "decode_reply",
    "decode_report",
    "decode_request",
    "decode_status",
    "encode_reply",
    "encode_report",
    "encode_request",
    "encode_status",
]

FORMATS = ("raw", "jpeg", "png")
STATUSES = ("ok", "dropped", "error")
STATES = ("online", "draining", "offline")

_DAY_MS = 86_400_000
_LEAST_DEADLINE_MS = 1e-3
# Beyond it a double does not tell one millisecond from the next.
_MOST_CLOCK_MS = 1 << 53
_INT31 = (1 << 31) - 1


def encode_request(request: InferenceRequest, pad: int = 0) -> bytes:
    """The payload of a request.

    Args:
        pad: zero bytes to add in a field that nodes ignore, for a message of realistic length.
    """
    fields: dict[str, Any] = {
        "v": VERSION,
        "id": request.id,
        "deadline_ms": request.deadline_s * 1e3,
    }
    if request.image is not None:
        fields["image"] = request.image
        if request.format != "raw":
            fields["format"] = request.format
        if request.shape is not None:
            fields["shape"] = request.shape
    if request.sample is not None:
        fields["sample"] = request.sample
    if request.label is not None:
        fields["label"] = request.label
    if request.priority:
        fields["priority"] = request.priority
    if request.age_s:
        fields["age_ms"] = request.age_s * 1e3
    if request.sent_s is not None:
        fields["sent_ms"] = request.sent_s * 1e3
    if request.way_s is not None:
        fields["way_ms"] = request.way_s * 1e3
    if pad:
        fields["pad"] = bytes(pad)
    return dumps(fields)


def decode_request(
    payload: bytes | bytearray, max_bytes: int = MAX_PAYLOAD_BYTES
) -> InferenceRequest:
    """The request that a payload is.

    Args:
        max_bytes: longest payload to accept.

    Raises:
        BadRequest: no other exception leaves this function.
    """
    try:
        fields = decode_map(payload, max_bytes)
    except CborError as problem:
        code = "too_large" if problem.too_large else "bad_cbor"
        raise BadRequest(code, str(problem)) from None
    # First of all, so that an error reply can name it.
    id = fields.get("id")
    if not is_request_id(id):
        id = None
    version = fields.get("v")
    if version != VERSION or type(version) is not int:
        raise BadRequest("unsupported_version", f"v must be {VERSION}", id)
    try:
        image = byte_string(fields, "image")
        sample = integer(fields, "sample", 0, _INT31)
        if image is None and sample is None:
            raise FieldError("image and sample are both missing")
        deadline_ms = number(fields, "deadline_ms", _LEAST_DEADLINE_MS, _DAY_MS)
        age_ms = number(fields, "age_ms", 0, _DAY_MS)
        sent_ms = number(fields, "sent_ms", -_MOST_CLOCK_MS, _MOST_CLOCK_MS)
        way_ms = number(fields, "way_ms", -_DAY_MS, _DAY_MS)
        return InferenceRequest(
            id=id if id is not None else _required_id(fields),
            deadline_s=required(deadline_ms, "deadline_ms") / 1e3,
            sample=sample,
            image=image,
            format=one_of(fields, "format", FORMATS) or "raw",
            shape=image_shape(fields, "shape"),
            label=integer(fields, "label", 0, _INT31),
            priority=integer(fields, "priority", -_INT31, _INT31) or 0,
            age_s=0.0 if age_ms is None else age_ms / 1e3,
            sent_s=None if sent_ms is None else sent_ms / 1e3,
            # Clocks of a coarse tick measure a little less than nothing on a fast network.
            way_s=None if way_ms is None else max(0.0, way_ms / 1e3),
        )
    except FieldError as problem:
        raise BadRequest("bad_field", str(problem), id) from None


def encode_reply(reply: Reply) -> bytes:
    """The payload of a reply."""
    fields: dict[str, Any] = {
        "v": VERSION,
        "id": reply.id,
        "status": reply.status,
        "node": reply.node,
    }
    if reply.predicted is not None:
        fields["class"] = reply.predicted
    if reply.confidence is not None:
        fields["confidence"] = reply.confidence
    if reply.exit is not None:
        fields["exit"] = reply.exit
    if reply.queued_s is not None:
        fields["queued_ms"] = reply.queued_s * 1e3
    if reply.service_s is not None:
        fields["service_ms"] = reply.service_s * 1e3
    if reply.node_s is not None:
        fields["node_ms"] = reply.node_s * 1e3
    if reply.arrived_s is not None:
        fields["arrived_ms"] = reply.arrived_s * 1e3
    if reply.batch is not None:
        fields["batch"] = reply.batch
    if reply.reason is not None:
        fields["reason"] = reply.reason
    if reply.code is not None:
        fields["code"] = reply.code
    if reply.message is not None:
        fields["message"] = short(reply.message, MOST_TEXT)
    return dumps(fields)


def decode_reply(payload: bytes | bytearray) -> Reply:
    """The reply that a payload is.

    A reason or code that this version does not list is kept as it is: a newer node may have it.

    Raises:
        BadReply: no other exception leaves this function.
    """
    try:
        fields = _message(payload)
        status = required(one_of(fields, "status", STATUSES), "status")
        predicted = integer(fields, "class", 0, _INT31)
        exit = integer(fields, "exit", 1, _INT31)
        id = request_id(fields)
        if status != "error":
            required(id, "id")
        if status == "ok":
            required(predicted, "class")
            required(exit, "exit")
        arrived_ms = number(fields, "arrived_ms", -_MOST_CLOCK_MS, _MOST_CLOCK_MS)
        return Reply(
            id=id,
            status=cast(Literal["ok", "dropped", "error"], status),
            node=text(fields, "node") or "",
            predicted=predicted,
            confidence=number(fields, "confidence", 0, 1),
            exit=exit,
            queued_s=_seconds(fields, "queued_ms"),
            service_s=_seconds(fields, "service_ms"),
            node_s=_seconds(fields, "node_ms"),
            arrived_s=None if arrived_ms is None else arrived_ms / 1e3,
            batch=integer(fields, "batch", 1, _INT31),
            reason=text(fields, "reason"),
            code=text(fields, "code"),
            message=text(fields, "message"),
        )
    except (CborError, FieldError) as problem:
        raise BadReply(str(problem)) from None


def encode_status(status: NodeStatus) -> bytes:
    """The payload of a node's status."""
    fields = {
        "v": VERSION,
        "state": status.state,
        "node": status.node,
        "instance": status.instance,
        "network": short(status.network, MOST_TEXT),
        "exits": status.exits,
        "input_shape": status.input_shape,
        "classes": status.classes,
        "boot_id": status.boot_id,
        "runtime": status.runtime,
        "policy": short(status.policy, MOST_TEXT),
        "strategy": status.strategy,
        "training_seed": status.training_seed,
    }
    return dumps({key: value for key, value in fields.items() if value not in (None, "")})


def decode_status(payload: bytes | bytearray) -> NodeStatus:
    """The status that a payload is.

    Raises:
        BadStatus: no other exception leaves this function.
    """
    try:
        fields = _message(payload)
        state = required(one_of(fields, "state", STATES), "state")
        return NodeStatus(
            state=cast(Literal["online", "draining", "offline"], state),
            node=required(text(fields, "node"), "node"),
            instance=required(text(fields, "instance"), "instance"),
            network=text(fields, "network") or "",
            exits=integer(fields, "exits", 1, _INT31),
            input_shape=image_shape(fields, "input_shape"),
            classes=integer(fields, "classes", 1, _INT31),
            boot_id=text(fields, "boot_id") or "",
            runtime=text(fields, "runtime") or "",
            policy=text(fields, "policy") or "",
            strategy=text(fields, "strategy") or "",
            training_seed=integer(fields, "training_seed", 0, _INT31),
        )
    except (CborError, FieldError) as problem:
        raise BadStatus(str(problem)) from None


def encode_report(report: LatencyReport) -> bytes:
    """The payload of a device's report."""
    latency_s = report.latency_s
    latency_ms = None if latency_s is None else latency_s * 1e3
    return dumps({"v": VERSION, "id": report.id, "latency_ms": latency_ms})


def decode_report(payload: bytes | bytearray) -> LatencyReport:
    """The report that a payload is.

    Raises:
        BadReport: no other exception leaves this function.
    """
    try:
        fields = _message(payload)
        return LatencyReport(_required_id(fields), _seconds(fields, "latency_ms"))
    except (CborError, FieldError) as problem:
        raise BadReport(str(problem)) from None


def _message(payload: bytes | bytearray) -> dict[str, Any]:
    """The map of a message of this version."""
    fields = decode_map(payload)
    if integer(fields, "v", VERSION, VERSION) is None:
        raise FieldError("v is missing")
    return fields


def _required_id(fields: dict[str, Any]) -> RequestId:
    id = request_id(fields)
    if id is None:
        raise FieldError("id is missing")
    return id


def _seconds(fields: dict[str, Any], key: str) -> float | None:
    milliseconds = number(fields, key, 0, _DAY_MS)
    return None if milliseconds is None else milliseconds / 1e3
