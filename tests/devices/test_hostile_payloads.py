"""Payloads from anyone: whatever they are, a request comes out or a BadRequest, at small cost.

Each family is a seeded generator. Those named *malformed* must be refused, every one.
"""

import contextlib
import io
import math
import random
import resource
import struct
import tracemalloc
import zlib

import cbor2
import numpy as np
import pytest
from PIL import Image

from devices.protocol.images import decode_image
from devices.protocol.messages import (
    ERROR_CODES,
    MAX_PAYLOAD_BYTES,
    BadReply,
    BadReport,
    BadRequest,
    BadStatus,
    InferenceRequest,
    NodeStatus,
    Reply,
    decode_reply,
    decode_report,
    decode_request,
    decode_status,
    encode_reply,
    encode_request,
    encode_status,
)

INPUT_SHAPE = (3, 24, 32)
PIXELS = np.random.default_rng(1).integers(0, 256, INPUT_SHAPE, dtype=np.uint8)
# Of what Python and numpy allocate; the longest payload is copied once or twice.
MOST_BYTES_FOR_ONE = 4 * MAX_PAYLOAD_BYTES


def encoded(format, **settings):
    file = io.BytesIO()
    Image.fromarray(PIXELS.transpose(1, 2, 0)).save(file, format, **settings)
    return file.getvalue()


PNG, JPEG = encoded("PNG"), encoded("JPEG")
PROGRESSIVE = encoded("JPEG", progressive=True)


def asking(**fields):
    request = {"v": 1, "id": 7, "deadline_ms": 200, "image": PIXELS.tobytes(), **fields}
    return cbor2.dumps(request)


VALID = [
    asking(),
    asking(image=PNG, format="png", label=3, age_ms=1.5, sent_ms=1e6, way_ms=3),
    asking(image=JPEG, format="jpeg", id="some id", priority=-2),
    asking(image=b"\0" * 768, shape=[1, 24, 32], id=b"\1\2", extra={"deep": [1, 2.5, None]}),
    cbor2.dumps({"v": 1, "id": 2**63 - 1, "deadline_ms": 0.25, "sample": 17}),
]


# --- Malformed: to be refused, every one ------------------------------------------------------


def random_bytes(draw):
    """Nothing in particular; the first byte is not that of a map that could be a request."""
    return bytes([draw.choice([*range(0xA4), *range(0xBC, 256)])]) + draw.randbytes(
        draw.randrange(300)
    )


def random_maps(draw):
    """What begins as a map does."""
    return bytes([draw.randrange(0xA0, 0xBC)]) + draw.randbytes(draw.randrange(300))


def truncated(draw):
    payload = draw.choice(VALID)
    return payload[: draw.randrange(len(payload))]


def followed(draw):
    return draw.choice(VALID) + draw.randbytes(draw.randrange(1, 50))


def nested(draw):
    """Containers and tags in each other, hundreds of thousands deep at most."""
    openers = [b"\x81", b"\x82\0", b"\xa1\x61a", b"\x9f", b"\xbf\x61a", b"\xc1", b"\xd9\xd9\xf7"]
    depth = draw.choice([5, 20, 1000, 300_000])
    mixed = b"".join(draw.choice(openers) for _ in range(min(depth, 1000)))
    deep = (mixed * (depth // 1000 + 1))[: MAX_PAYLOAD_BYTES - 60]
    if draw.random() < 0.5:
        return deep + b"\0"
    return asking()[:1].replace(b"\xa4", b"\xa5") + asking()[1:] + b"\x61x" + deep + b"\0"


def huge_lengths(draw):
    """Lengths that no payload has, in the message itself or in a field of it."""
    length = draw.choice([draw.getrandbits(64) | 1 << 63, 2**31, 2**32 - 1, 2**62, 2**63, 10**9])
    head = bytes([draw.randrange(2, 6) << 5 | 27]) + struct.pack(">Q", length)
    content = draw.randbytes(draw.randrange(40))
    if draw.random() < 0.3:
        return head + content
    key = draw.choice([b"\x65image", b"\x62id", b"\x65shape", b"\x61x"])
    return b"\xa5\x61v\x01\x66sample\x01\x62ix\x01\x6bdeadline_ms\x18\x32" + key + head + content


def many_items(draw):
    count = draw.randrange(250, 20_000)
    if draw.random() < 0.5:
        return asking(x=count * [0])
    return asking(**{f"key{number}": 0 for number in range(count)})


def tagged(draw):
    """Tags of which decoders build dates, big numbers, patterns, sets, references …"""
    tag = draw.choice([*range(6), *range(21, 40), 100, 258, 260, 261, 1004, 43000, 55799, 2**63])
    value = draw.choice(["x", 1, b"\1" * 300, [1, 2], 1e300, "2020-01-01T00:00:00Z", "(a+)+$"])
    key = draw.choice(["id", "deadline_ms", "image", "sample", "shape", "x"])
    return asking(**{key: cbor2.CBORTag(tag, value)})


def indefinite(draw):
    key = draw.choice([b"\x65image", b"\x62id", b"\x65shape", b"\x61x"])
    value = draw.choice([b"\x5f\x41a\xff", b"\x7f\x61a\xff", b"\x9f\1\xff", b"\xbf\x61a\1\xff"])
    if draw.random() < 0.5:
        return b"\xbf\x61v\x01" + key + value + b"\xff"
    return b"\xa2\x61v\x01" + key + value


def doubled_keys(draw):
    key = draw.choice(["v", "id", "deadline_ms", "image", "x"])
    once = {"v": 1, "id": 7, "deadline_ms": 200, "image": b"1", "x": 1}
    pairs = [cbor2.dumps(name) + cbor2.dumps(value) for name, value in once.items()]
    pairs.append(cbor2.dumps(key) + cbor2.dumps(draw.choice([1, 2, b"1", "x"])))
    draw.shuffle(pairs)
    return b"\xa6" + b"".join(pairs)


def other_keys(draw):
    key = draw.choice([1, -1, 2.5, True, None, b"v", (1, 2)])
    return cbor2.dumps({"v": 1, "id": 7, "deadline_ms": 200, "sample": 1, key: 1})


def broken_text(draw):
    """Text that is no UTF-8: cut, overlong, a surrogate, beyond the last character."""
    text = draw.choice(
        [b"\xc3", b"\xc0\xaf", b"\xed\xa0\x80", b"\xf5\x80\x80\x80", b"\xff\xfe", b"a\x80b"]
    )
    head = bytes([0x60 | len(text)])
    pair = head + text + b"\1" if draw.random() < 0.5 else b"\x62id" + head + text
    return b"\xa4\x61v\x01\x66sample\x01\x6bdeadline_ms\x18\x32" + pair


NO_NUMBER = [math.nan, math.inf, -math.inf, -1, -1e-300, -(2**63), 1e18, 2**64 - 1, "1", b"1"]
NO_NUMBER += [True, False, [1], {"a": 1}]
NO_COUNT = [-1, 2**31, 2**64 - 1, -(2**63), 1.0, math.nan, "1", b"1", True, [1], {"a": 1}]
WRONG = {
    "v": [*NO_COUNT, 0, 2, 255, None],
    "id": [-1, 2**63, 1.0, math.nan, True, "", b"", "x" * 65, "é" * 33, b"x" * 65, [], [1], {}],
    "deadline_ms": [*NO_NUMBER, 0, 0.0, -0.0, 5e-324, 2.2e-308, 86_400_000.5, None],
    "image": [0, 1.5, "text", b"", True, [1, 2], {"a": 1}],
    "sample": NO_COUNT,
    "format": ["RAW", "bmp", "", "x" * 100_000, 1, b"raw", True, ["png"], {}],
    "shape": [
        *[3, "3", b"\3", [], [3], [3, 24], [3, 24, 32, 1], {}, [3, 24, -32], [3, 0, 32]],
        *[[2**64 - 1] * 3, [65_536, 1, 1], [3.0, 24, 32], [True, 24, 32], [[3], 24, 32], 50 * [1]],
    ],
    "label": NO_COUNT,
    "priority": [2**31, -(2**31), 0.5, "1", True, [1]],
    "age_ms": NO_NUMBER,
    "sent_ms": [math.nan, math.inf, -math.inf, 1e17, 2**64 - 1, "1", True, [1]],
    "way_ms": [math.nan, math.inf, -math.inf, 1e9, -1e9, "1", True, [1]],
}


def wrong_fields(draw):
    """One field, or several, of a wrong type or out of its range."""
    wrong = draw.sample(sorted(WRONG), draw.choice([1, 1, 1, 2, 5]))
    return asking(**{"sample": 1, **{key: draw.choice(WRONG[key]) for key in wrong}})


def wrong_deadlines(draw):
    """Bit patterns of floats that are no deadline: NaNs with payloads, ±∞, negative, denormal."""
    kind = draw.randrange(4)
    if kind == 0:
        bits = 0x7FF << 52 | draw.getrandbits(52) | draw.getrandbits(1) << 63
    elif kind == 1:
        bits = 1 << 63 | draw.getrandbits(63)
    elif kind == 2:
        bits = draw.getrandbits(52)
    else:
        bits = draw.randrange(0x41B, 0x7FF) << 52 | draw.getrandbits(52)
    deadline = b"\xfb" + struct.pack(">Q", bits)
    return b"\xa4\x61v\x01\x62id\x07\x66sample\x01\x6bdeadline_ms" + deadline


def missing_fields(draw):
    fields = {"v": 1, "id": 7, "deadline_ms": 200, "sample": 1}
    for key in draw.sample(sorted(fields), draw.randrange(1, 5)):
        del fields[key]
    return cbor2.dumps(fields)


def oversized(draw):
    return asking(pad=bytes(draw.randrange(MAX_PAYLOAD_BYTES, MAX_PAYLOAD_BYTES + 5000)))


def wrong_raw(draw):
    """Shapes that are not the network's or not the image's, some of them huge."""
    shape = draw.choice(
        [
            [65_535, 65_535, 65_535],
            [3, 65_535, 65_535],
            [65_535, 24, 32],
            [1, 24, 32],
            [2, 24, 32],
            [4, 24, 32],
            [3, 32, 24],
            [24, 32, 3],
            [3, 24, 31],
        ]
    )
    return asking(shape=shape, image=draw.randbytes(draw.choice([1, 2304, 3072])))


def chunk(kind, content):
    return (
        struct.pack(">I", len(content))
        + kind
        + content
        + struct.pack(">I", zlib.crc32(kind + content))
    )


def png(width, height, *chunks, bits=8, colour=2, interlaced=0):
    head = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, interlaced)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + b"".join(chunks) + chunk(b"IEND", b"")


INFLATES = chunk(b"IDAT", zlib.compress(bytes(50_000_000), 9))


def png_bombs(draw):
    """Small files that declare many pixels, in a first or a second header, or inflate much."""
    width, height = draw.choice(
        [(30_000, 30_000), (65_535, 65_535), (2**31 - 1, 2**31 - 1), (2**32 - 1, 1), (0, 0)]
    )
    if draw.random() < 0.5:
        return asking(image=png(width, height, INFLATES), format="png")
    second = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return asking(image=png(32, 24, second, INFLATES), format="png")


def jpeg_bombs(draw):
    """A header that declares many pixels."""
    image = bytearray(draw.choice([JPEG, PROGRESSIVE]))
    start = max(image.find(b"\xff\xc0"), image.find(b"\xff\xc2"))
    size = draw.choice([(30_000, 30_000), (65_535, 65_535), (1, 65_535), (0, 0), (25, 32)])
    image[start + 5 : start + 9] = struct.pack(">HH", *size)
    return asking(image=bytes(image), format="jpeg")


def truncated_images(draw):
    format, image = draw.choice([("png", PNG), ("jpeg", JPEG), ("jpeg", PROGRESSIVE)])
    return asking(image=image[: draw.randrange(1, len(image) - 2)], format=format)


def foreign_images(draw):
    """Other formats that Pillow knows, and nothing in particular."""
    image = encoded(draw.choice(["GIF", "BMP", "TIFF", "WEBP", "PPM", "TGA", "ICO", "PCX"]))
    if draw.random() < 0.3:
        image = draw.choice([PNG[:8], JPEG[:4], b"\xff\xd8", b""]) + draw.randbytes(500)
    return asking(image=image, format=draw.choice(["png", "jpeg"]))


MALFORMED = {
    random_bytes: 1500,
    random_maps: 1500,
    truncated: 1200,
    followed: 300,
    nested: 200,
    huge_lengths: 800,
    many_items: 60,
    tagged: 500,
    indefinite: 100,
    doubled_keys: 200,
    other_keys: 50,
    broken_text: 100,
    wrong_fields: 1500,
    wrong_deadlines: 800,
    missing_fields: 100,
    oversized: 20,
    wrong_raw: 200,
    png_bombs: 60,
    jpeg_bombs: 100,
    truncated_images: 400,
    foreign_images: 150,
}


# --- Damaged: refused, or a request like any other --------------------------------------------


def mutated(draw):
    """A valid request of which some bytes are changed, taken out, put in or moved."""
    payload = bytearray(draw.choice(VALID))
    for _ in range(draw.choice([1, 1, 2, 5, 20])):
        at = draw.randrange(min(len(payload), draw.choice([80, len(payload)])))
        kind = draw.randrange(4)
        if kind == 0:
            payload[at] = draw.randrange(256)
        elif kind == 1:
            payload[at] ^= 1 << draw.randrange(8)
        elif kind == 2:
            del payload[at : at + draw.randrange(1, 8)]
        else:
            payload[at:at] = draw.randbytes(draw.randrange(1, 8))
    return bytes(payload)


def any_value(draw, depth=0):
    if depth < 3 and draw.random() < 0.3:
        length = draw.randrange(4)
        if draw.random() < 0.5:
            return [any_value(draw, depth + 1) for _ in range(length)]
        return {draw.choice("abcd"): any_value(draw, depth + 1) for _ in range(length)}
    values = [0, 1, 7, -1, 2**40, 0.5, 200.0, math.nan, True, None, cbor2.undefined, "raw", b"x"]
    return draw.choice([*values, draw.randbytes(draw.randrange(20)), cbor2.CBORSimpleValue(99)])


def any_fields(draw):
    """Known and unknown keys with any values at all."""
    keys = [*WRONG, "pad", "x", ""]
    fields = {key: any_value(draw) for key in draw.sample(keys, draw.randrange(len(keys)))}
    fields.update(draw.choice([{}, {"v": 1}, {"v": 1, "id": 7, "deadline_ms": 200, "sample": 1}]))
    return cbor2.dumps(fields)


def mutated_images(draw):
    """An image of the right size in which some bytes are changed, behind its declared size too."""
    format, image = draw.choice([("png", PNG), ("jpeg", JPEG), ("jpeg", PROGRESSIVE)])
    image = bytearray(image)
    for _ in range(draw.choice([1, 2, 5, 50])):
        image[draw.randrange(len(image))] = draw.randrange(256)
    return asking(image=bytes(image), format=format)


def odd_pngs(draw):
    """Headers of the right size with any depth, colour and filter, and chunks of any content."""
    kinds = [
        b"PLTE",
        b"tRNS",
        b"IDAT",
        b"zTXt",
        b"iTXt",
        b"iCCP",
        b"eXIf",
        b"acTL",
        b"fcTL",
        b"gAMA",
    ]
    chunks = [
        chunk(draw.choice(kinds), draw.randbytes(draw.randrange(30)))
        for _ in range(draw.randrange(3))
    ]
    pixels = draw.choice([bytes(draw.choice([10, 2328, 9000])), draw.randbytes(2328)])
    chunks.append(chunk(b"IDAT", zlib.compress(pixels)))
    image = png(
        32,
        24,
        *chunks,
        bits=draw.choice([0, 1, 2, 4, 8, 16, 255]),
        colour=draw.choice([0, 1, 2, 3, 4, 6, 7, 255]),
        interlaced=draw.choice([0, 1, 2]),
    )
    return asking(image=image, format="png")


def text_bombs(draw):
    """Compressed text and profiles that inflate to 50 MB, beside pixels that are right."""
    kind = draw.choice([b"zTXt", b"iCCP"])
    bomb = chunk(kind, b"a\0\0" + zlib.compress(bytes(50_000_000), 9))
    return asking(image=PNG[:33] + bomb + PNG[33:], format="png")


DAMAGED = {
    mutated: 3000,
    any_fields: 1200,
    mutated_images: 1200,
    odd_pngs: 600,
    text_bombs: 10,
}


# --- What must hold ---------------------------------------------------------------------------


def payloads(family, count):
    draw = random.Random(family.__name__)
    return (family(draw) for _ in range(count))


def outcome(payload):
    """The request, or why it was refused; only a BadRequest may come out."""
    try:
        request = decode_request(payload)
        image = None if request.image is None else decode_image(request, INPUT_SHAPE)
    except BadRequest as problem:
        check_refusal(problem)
        return problem
    if image is not None:
        assert image.shape == INPUT_SHAPE
        assert image.dtype == np.uint8
    check_invariants(request)
    return request


def check_refusal(problem):
    """It can be sent back as it is, and read."""
    assert problem.code in ERROR_CODES
    assert problem.message
    reply = Reply(problem.id, "error", "edge", code=problem.code, message=problem.message)
    assert decode_reply(encode_reply(reply)) == reply


def check_invariants(request):
    assert type(request.id) in (int, str, bytes)
    assert 0 < request.deadline_s <= 86_400
    assert 0 <= request.age_s <= 86_400
    assert request.sent_s is None or math.isfinite(request.sent_s)
    assert request.way_s is None or 0 <= request.way_s <= 86_400
    assert request.sample is None or 0 <= request.sample < 2**31
    assert request.image is not None or request.sample is not None
    assert decode_request(encode_request(request)).id == request.id


def test_there_are_ten_thousand_of_them():
    assert sum(MALFORMED.values()) + sum(DAMAGED.values()) >= 10_000


def test_the_valid_ones_are_taken():
    for payload in VALID:
        assert isinstance(outcome(payload), InferenceRequest)


@pytest.mark.parametrize("family", MALFORMED, ids=lambda family: family.__name__)
def test_malformed_payloads_are_refused(family):
    for payload in payloads(family, MALFORMED[family]):
        assert isinstance(outcome(payload), BadRequest), payload[:200].hex()


@pytest.mark.parametrize("family", DAMAGED, ids=lambda family: family.__name__)
def test_damaged_payloads_are_refused_or_sound(family):
    outcomes = [outcome(payload) for payload in payloads(family, DAMAGED[family])]
    # Else the family would not test what it is to test.
    assert len({type(came) for came in outcomes}) == (1 if family is text_bombs else 2)


@pytest.mark.parametrize(
    ("decode", "refusal"),
    [(decode_reply, BadReply), (decode_status, BadStatus), (decode_report, BadReport)],
)
def test_other_messages_are_refused_in_the_same_way(decode, refusal):
    draw = random.Random(3)
    valid = [
        encode_reply(Reply(7, "ok", "edge", 3, 0.5, 1, 0.1, 0.1, 0.1, 0.1, 1)),
        encode_status(NodeStatus("online", "edge", "3f", "net", 4, (3, 32, 32), 10)),
        cbor2.dumps({"v": 1, "id": 7, "latency_ms": 3.5}),
    ]
    for number in range(3000):
        payload = bytearray(draw.choice(valid))
        for _ in range(draw.choice([1, 2, 5])):
            payload[draw.randrange(len(payload))] = draw.randrange(256)
        hostile = [bytes(payload), *(family(draw) for family in (random_maps, truncated, tagged))]
        with contextlib.suppress(refusal):
            decode(hostile[number % 4])


def test_what_a_payload_costs_is_bounded_and_nothing_is_kept():
    """The most expensive families, one payload after the other."""
    expensive = (
        *(nested, huge_lengths, many_items, tagged, wrong_fields, oversized, wrong_raw),
        *(png_bombs, jpeg_bombs, odd_pngs, text_bombs, mutated_images),
    )
    made = [payload for family in expensive for payload in payloads(family, 20)]
    for payload in made:  # whatever is imported or cached at first use
        outcome(payload)
    resident = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    tracemalloc.start()
    try:
        begun, _ = tracemalloc.get_traced_memory()
        for payload in made:
            before, _ = tracemalloc.get_traced_memory()
            tracemalloc.reset_peak()
            outcome(payload)
            _, peak = tracemalloc.get_traced_memory()
            assert peak - before < MOST_BYTES_FOR_ONE, payload[:200].hex()
        ended, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert ended - begun < 200_000
    # Pillow's and zlib's memory is not Python's: the whole process's, in KiB.
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - resident < 100_000
