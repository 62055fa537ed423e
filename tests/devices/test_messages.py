"""The codec against itself, against the limits, and against what docs/protocol.md says."""

import math
import re
from dataclasses import replace
from pathlib import Path

import cbor2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from devices.protocol import cbor_limits, messages, topics
from devices.protocol.fields import MOST_TEXT
from devices.protocol.message_types import DROP_REASONS, ERROR_CODES
from devices.protocol.messages import (
    BadReply,
    BadReport,
    BadRequest,
    BadStatus,
    InferenceRequest,
    LatencyReport,
    NodeStatus,
    Reply,
    decode_reply,
    decode_report,
    decode_request,
    decode_status,
    encode_reply,
    encode_report,
    encode_request,
    encode_status,
)

PROTOCOL = (Path(__file__).parents[2] / "docs" / "protocol.md").read_text()
REQUEST = {"v": 1, "id": 7, "deadline_ms": 200, "image": b"1234"}

ids = st.one_of(
    st.integers(0, 2**63 - 1),
    st.binary(min_size=1, max_size=64),
    st.text(min_size=1, max_size=16),
)
# Those that a division by 1000 and a multiplication leave as they are.
seconds = st.integers(0, 86_400 * 8).map(lambda eighths: eighths / 8)
counts = st.integers(0, 2**31 - 1)
words = st.text(max_size=40)
shapes = st.tuples(*[st.integers(1, 65_535)] * 3)


def optional(values):
    return st.none() | values


requests = st.builds(
    InferenceRequest,
    id=ids,
    deadline_s=seconds.filter(bool),
    sample=counts,
    image=optional(st.binary(min_size=1, max_size=50)),
    label=optional(counts),
    priority=st.integers(-(2**31) + 1, 2**31 - 1),
    age_s=seconds,
    sent_s=optional(st.integers(-(2**40), 2**40).map(float)),
    way_s=optional(seconds),
)
replies = st.builds(
    Reply,
    id=ids,
    status=st.just("ok"),
    node=words,
    predicted=counts,
    confidence=optional(st.floats(0, 1)),
    exit=st.integers(1, 64),
    queued_s=optional(seconds),
    service_s=optional(seconds),
    node_s=optional(seconds),
    arrived_s=optional(seconds),
    batch=optional(st.integers(1, 512)),
    reason=optional(words),
    code=optional(words),
    message=optional(words),
)
statuses = st.builds(
    NodeStatus,
    state=st.sampled_from(messages.STATES),
    node=words.filter(bool),
    instance=words.filter(bool),
    network=words,
    exits=optional(st.integers(1, 64)),
    input_shape=optional(shapes),
    classes=optional(st.integers(1, 1000)),
    boot_id=words,
    runtime=words,
    policy=words,
    strategy=words,
    training_seed=optional(st.integers(0, 1000)),
)


@given(requests, st.sampled_from(messages.FORMATS), optional(shapes), st.integers(0, 3000))
def test_a_request_comes_out_as_it_went_in(request, format, shape, pad):
    if request.image is not None:
        request = replace(request, format=format, shape=shape)
    assert decode_request(encode_request(request, pad)) == request


@given(replies)
def test_a_reply_comes_out_as_it_went_in(reply):
    assert decode_reply(encode_reply(reply)) == reply


@given(statuses)
def test_a_status_comes_out_as_it_went_in(status):
    assert decode_status(encode_status(status)) == status


@given(ids, optional(seconds))
def test_a_report_comes_out_as_it_went_in(id, latency_s):
    assert decode_report(encode_report(LatencyReport(id, latency_s))) == LatencyReport(
        id, latency_s
    )


def test_an_error_and_a_drop_come_out_as_they_went_in():
    for reply in (
        Reply(None, "error", "edge", code="bad_cbor", message="cut"),
        Reply("x", "error", "edge", node_s=0.5, code="bad_image", message="cut"),
        Reply(b"x", "dropped", "edge", node_s=0.5, reason="queue_full"),
    ):
        assert decode_reply(encode_reply(reply)) == reply


def test_texts_that_are_too_long_are_shortened_and_can_be_read():
    long = "x" * (MOST_TEXT + 1)
    said = decode_reply(encode_reply(Reply(1, "error", code="policy_failed", message=long)))
    assert said.message == "x" * (MOST_TEXT - 1) + "…"
    status = NodeStatus("online", "n", "i", long, 1, (1, 1, 1), 2, "boot", "eager", long)
    heard = decode_status(encode_status(status))
    assert len(heard.network) == len(heard.policy) == MOST_TEXT


def test_durations_are_milliseconds_on_the_wire():
    request = InferenceRequest(1, 0.25, sample=3, age_s=0.5, sent_s=2.0, way_s=0.125)
    assert cbor2.loads(encode_request(request)) == {
        "v": 1,
        "id": 1,
        "sample": 3,
        "deadline_ms": 250,
        "age_ms": 500,
        "sent_ms": 2000,
        "way_ms": 125,
    }


def test_pad_lengthens_a_request_and_says_nothing():
    request = InferenceRequest(1, 0.25, sample=3)
    padded = encode_request(request, pad=1000)
    assert 1000 < len(padded) - len(encode_request(request)) < 1010
    assert decode_request(padded) == request


def test_the_format_of_numbers_does_not_matter():
    for deadline in ("18c8", "1900c8", "1a000000c8", "1b00000000000000c8"):
        payload = bytes.fromhex(
            "a46176016269640766" + b"sample".hex() + "116b" + b"deadline_ms".hex() + deadline
        )
        assert decode_request(payload) == InferenceRequest(7, 0.2, sample=17)
    for deadline in ("f95a40", "fa43480000", "fb4069000000000000"):
        payload = bytes.fromhex(
            "a46176016269640766" + b"sample".hex() + "116b" + b"deadline_ms".hex() + deadline
        )
        assert decode_request(payload) == InferenceRequest(7, 0.2, sample=17)


def test_a_bytearray_is_a_payload_too():
    payload = bytearray(cbor2.dumps(REQUEST))
    assert decode_request(payload).image == b"1234"


def test_unknown_keys_null_and_undefined_are_ignored():
    fields = {**REQUEST, "colour": {"deep": [1, [2]]}, "label": None, "way_ms": cbor2.undefined}
    assert decode_request(cbor2.dumps(fields)) == decode_request(cbor2.dumps(REQUEST))


def test_a_way_a_little_below_nothing_is_none():
    assert decode_request(cbor2.dumps({**REQUEST, "way_ms": -0.5})).way_s == 0.0


WRONG = [
    ("id", [-1, 2**63, 1.0, True, "", b"", 65 * "x", 17 * "😀", 65 * b"x", [1], {"a": 1}]),
    ("deadline_ms", [0, -1, -0.0, math.nan, math.inf, -math.inf, 5e-324, 1e-4, 1e300]),
    ("deadline_ms", [86_400_001, 2**64 - 1, True, "200", b"200", [200], {"ms": 200}]),
    ("image", ["text", b"", 3, [1, 2], True, {"a": 1}]),
    ("sample", [-1, 2**31, 1.0, True, "1", [1]]),
    ("format", ["RAW", "gif", "", 1, b"raw", ["raw"], 1000 * "x"]),
    ("shape", [3, [], [3, 2], [3, 2, 2, 2], [3, 0, 2], [3, -1, 2], [3, 65_536, 2], [3, True, 2]]),
    ("shape", [[3, 2.0, 2], [3, 2**64 - 1, 2], "322", b"\3\2\2", [[3], 2, 2], [3, None, 2]]),
    ("label", [-1, 2**31, 1.5, False, "cat"]),
    ("priority", [2**31, -(2**31), 1.0, True, "high"]),
    ("age_ms", [-1, math.nan, math.inf, 86_400_001, True, "1"]),
    ("sent_ms", [math.nan, math.inf, -math.inf, 1e17, -1e17, 2**64 - 1, True, "1"]),
    ("way_ms", [math.nan, math.inf, -math.inf, 1e9, True, "1"]),
]


@pytest.mark.parametrize(
    ("key", "value"), [(key, value) for key, values in WRONG for value in values]
)
def test_a_field_of_the_wrong_type_or_range_is_refused_by_name(key, value):
    with pytest.raises(BadRequest, match=key) as caught:
        decode_request(cbor2.dumps({**REQUEST, "sample": 1, key: value}))
    assert caught.value.code == "bad_field"
    assert caught.value.id == (None if key == "id" else 7)
    assert len(caught.value.message) < 300


@pytest.mark.parametrize("key", ["id", "deadline_ms", "image"])
def test_a_missing_field_is_refused_by_name(key):
    fields = {name: value for name, value in REQUEST.items() if name != key}
    with pytest.raises(BadRequest, match=rf"{key}.* missing") as caught:
        decode_request(cbor2.dumps(fields))
    assert caught.value.code == "bad_field"


@pytest.mark.parametrize("version", [0, 2, -1, 1.0, True, "1", None, [1], 2**64 - 1])
def test_another_version_is_refused_and_its_id_repeated(version):
    with pytest.raises(BadRequest) as caught:
        decode_request(cbor2.dumps({**REQUEST, "v": version, "deadline_ms": "soon"}))
    assert (caught.value.code, caught.value.id) == ("unsupported_version", 7)
    with pytest.raises(BadRequest) as caught:
        decode_request(cbor2.dumps({"id": [7]}))
    assert (caught.value.code, caught.value.id) == ("unsupported_version", None)


@pytest.mark.parametrize(
    ("hexadecimal", "reason"),
    [
        ("", "empty"),
        ("a1", "does not have"),
        ("a16176", "does not have"),
        ("a161761a0000", "truncated"),
        ("a16161fb40", "truncated"),
        ("a161610100", "1 bytes follow"),
        ("01", "no map"),
        ("80", "no map"),
        ("a10102", "no text"),
        ("a1416101", "no text"),
        ("a1a001", "no text"),
        ("a1f601", "no text"),
        ("a26161016161 02", "[Dd]uplicate"),
        ("a161616161ff", "follow"),
        ("a16161ff", "definite"),
        ("bf616101ff", "definite"),
        ("a161615f4101ff", "definite"),
        ("a161619f01ff", "definite"),
        ("a161611c", "definite"),
        ("a161615b7fffffffffffffff", "does not have"),
        ("a161617bffffffffffffffff", "does not have"),
        ("a161619bffffffffffffffff", "does not have"),
        ("bbffffffffffffffff", "does not have"),
        ("b9ffff616101", "does not have"),
        ("a16161c249010000000000000000", "tags"),
        ("a16161d9d9f701", "tags"),
        ("c0a0", "tags"),
        ("a1616162c328", "not CBOR"),
        ("a161ff01", "not CBOR"),
        ("a16161f800", "not CBOR"),
        ("a16161818181a0", "nested"),
        ("a16161" + 2000 * "81" + "00", "nested"),
        (2000 * "81" + "00", "nested"),
        (2000 * "a16161" + "00", "nested"),
    ],
)
def test_what_is_not_allowed_of_cbor_is_refused_with_a_reason(hexadecimal, reason):
    with pytest.raises(BadRequest, match=reason) as caught:
        decode_request(bytes.fromhex(hexadecimal))
    assert (caught.value.code, caught.value.id) == ("bad_cbor", None)


def test_limits_are_taken_exactly():
    deepest = {**REQUEST, "x": [[[1]]]}
    assert decode_request(cbor2.dumps(deepest)).id == 7
    # The map, its four pairs, the key x, the array and its entries.
    entries = cbor_limits.MAX_ITEMS - 1 - 8 - 1 - 1
    assert decode_request(cbor2.dumps({**REQUEST, "x": entries * [0]})).id == 7
    with pytest.raises(BadRequest, match="items"):
        decode_request(cbor2.dumps({**REQUEST, "x": (entries + 1) * [0]}))
    longest = cbor2.dumps({**REQUEST, "image": bytes(messages.MAX_PAYLOAD_BYTES - 33)})
    assert len(longest) == messages.MAX_PAYLOAD_BYTES
    assert decode_request(longest).id == 7
    with pytest.raises(BadRequest) as caught:
        decode_request(cbor2.dumps({**REQUEST, "image": bytes(messages.MAX_PAYLOAD_BYTES - 32)}))
    assert caught.value.code == "too_large"
    with pytest.raises(BadRequest) as caught:
        decode_request(cbor2.dumps(REQUEST), max_bytes=20)
    assert caught.value.code == "too_large"


@pytest.mark.parametrize(
    "change",
    [
        {"v": 2},
        {"v": True},
        {"id": None},
        {"id": 1.5},
        {"status": "fine"},
        {"status": None},
        {"class": None},
        {"class": -1},
        {"exit": 0},
        {"exit": None},
        {"confidence": 1.5},
        {"confidence": math.nan},
        {"node_ms": -1},
        {"queued_ms": math.inf},
        {"node": 5},
        {"node": 257 * "x"},
        {"batch": 0},
    ],
)
def test_a_reply_that_cannot_be_one_is_refused(change):
    fields = {"v": 1, "id": 7, "status": "ok", "class": 3, "exit": 1, "confidence": 0.5}
    decode_reply(cbor2.dumps(fields))
    with pytest.raises(BadReply):
        decode_reply(cbor2.dumps({**fields, **change}))


def test_a_reply_of_a_later_node_is_read():
    fields = {"v": 1, "id": 7, "status": "dropped", "reason": "tired", "mood": "bad"}
    assert decode_reply(cbor2.dumps(fields)) == Reply(7, "dropped", reason="tired")


@pytest.mark.parametrize("change", [{"state": "asleep"}, {"node": None}, {"exits": 0}, {"v": 3}])
def test_a_status_that_cannot_be_one_is_refused(change):
    fields = {"v": 1, "state": "online", "node": "edge", "instance": "3f", "exits": 4}
    decode_status(cbor2.dumps(fields))
    with pytest.raises(BadStatus):
        decode_status(cbor2.dumps({**fields, **change}))
    with pytest.raises(BadStatus):
        decode_status(b"")


@pytest.mark.parametrize("change", [{"id": None}, {"latency_ms": -1}, {"latency_ms": math.nan}])
def test_a_report_that_cannot_be_one_is_refused(change):
    with pytest.raises(BadReport):
        decode_report(cbor2.dumps({"v": 1, "id": 7, "latency_ms": 3.0, **change}))


# --- docs/protocol.md ------------------------------------------------------------------------


def documented(kind):
    """The payloads of a kind that the protocol shows byte by byte."""
    blocks = re.findall(rf"^```cbor-{kind}\n(.*?)^```", PROTOCOL, re.DOTALL | re.MULTILINE)
    assert blocks
    return [
        bytes.fromhex("".join(line.split("#")[0] for line in block.splitlines()))
        for block in blocks
    ]


def test_documented_requests_are_what_the_code_writes():
    whole, shortest = documented("request")
    request = InferenceRequest(
        id=7,
        deadline_s=0.2,
        image=bytes(range(12)),
        shape=(3, 2, 2),
        label=4,
        age_s=0.003,
        sent_s=12.5,
        way_s=0.0015,
    )
    assert encode_request(request) == whole
    assert decode_request(whole) == request
    assert cbor2.dumps({"v": 1, "id": 7, "deadline_ms": 200, "sample": 17}) == shortest
    assert decode_request(shortest) == InferenceRequest(7, 0.2, sample=17)


def test_documented_replies_are_what_the_code_writes():
    replies = [
        Reply(7, "ok", "edge", 3, 0.875, 2, 0.00025, 0.0015, 0.002, 86.5, 1),
        Reply(7, "dropped", "edge", node_s=0.00025, arrived_s=86.5, reason="queue_full"),
        Reply(None, "error", "edge", code="bad_cbor", message="the payload is truncated"),
    ]
    assert [encode_reply(reply) for reply in replies] == documented("reply")
    assert [decode_reply(payload) for payload in documented("reply")] == replies


def test_documented_status_and_report_are_what_the_code_writes():
    assert [encode_status(NodeStatus("offline", "edge", "3f9c20d1"))] == documented("status")
    assert [encode_report(LatencyReport(7, 0.0125))] == documented("report")


def test_every_key_of_a_status_is_documented():
    status = NodeStatus(
        "online", "edge", "3f", "net", 2, (1, 8, 8), 10, "boot", "eager", "policy", "standard", 0
    )
    section = PROTOCOL.partition("## Status")[2].partition("\n## ")[0]
    documented_keys = re.findall(r"^\| `(\w+)` \|", section, re.MULTILINE)
    assert documented_keys == list(cbor2.loads(encode_status(status)))


def test_documented_refusals_are_refused_with_their_codes():
    rows = re.findall(r"^\| `([0-9a-f ]+)` \| `(\w+)`: (.+) \|$", PROTOCOL, re.MULTILINE)
    assert len(rows) >= 6
    for payload, code, _ in rows:
        with pytest.raises(BadRequest) as caught:
            decode_request(bytes.fromhex(payload))
        assert caught.value.code == code


def test_codes_and_reasons_are_documented_with_their_meanings():
    reasons = dict(re.findall(r"^\| `(\w+)` \| ([^|]+) \|$", PROTOCOL, re.MULTILINE))
    for reason, meaning in DROP_REASONS.items():
        assert reasons[reason] == meaning
    codes = dict(re.findall(r"^\| `(\w+)` \| ([^|]+) \| [^|]+ \|$", PROTOCOL, re.MULTILINE))
    for code, meaning in ERROR_CODES.items():
        assert codes[code] == meaning


def test_keys_are_documented_in_the_order_of_the_sections():
    """Each key that the code writes stands in the table of its message."""
    full = {
        "Request": encode_request(
            InferenceRequest(1, 1.0, 2, b"x", "jpeg", (1, 1, 1), 3, 4, 5.0, 6.0, 7.0)
        ),
        "Reply": encode_reply(
            Reply(1, "ok", "n", 1, 0.5, 1, 1.0, 1.0, 1.0, 1.0, 1, "policy", "too_large", "m")
        ),
        "Status": encode_status(
            NodeStatus("online", "n", "i", "net", 1, (1, 1, 1), 2, "boot", "eager", "p")
        ),
        "Report": encode_report(LatencyReport(1, 1.0)),
    }
    for section, payload in full.items():
        text = PROTOCOL.split(f"\n## {section}\n")[1].split("\n## ")[0]
        table = [line.split("|")[1] for line in text.splitlines() if line.startswith("| `")]
        for key in cbor2.loads(payload):
            assert any(f"`{key}`" in cell for cell in table), (section, key)


def test_documented_limits_are_those_of_the_code():
    assert f"{messages.MAX_PAYLOAD_BYTES:,} bytes" in PROTOCOL
    assert f"| depth | {cbor_limits.MAX_DEPTH} containers" in PROTOCOL
    assert f"| items | {cbor_limits.MAX_ITEMS}," in PROTOCOL
    assert topics.request_filter("EDGE", shared=True) in PROTOCOL
