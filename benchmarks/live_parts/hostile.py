"""Payloads that nobody should send: each a kind of attack, or of damage on the way."""

from __future__ import annotations

import math
import struct
import zlib
from collections.abc import Callable
from random import Random

from cbor2 import dumps

from devices.protocol.messages import MAX_PAYLOAD_BYTES


def _request(**fields: object) -> bytes:
    given = {"v": 1, "id": 1 << 62, "deadline_ms": 100.0, "image": bytes(3072), **fields}
    return dumps({key: value for key, value in given.items() if value is not None})


def _chunk(kind: bytes, data: bytes) -> bytes:
    check = struct.pack(">I", zlib.crc32(kind + data))
    return struct.pack(">I", len(data)) + kind + data + check


def _png(width: int, height: int, *chunks: bytes) -> bytes:
    header = _chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"".join((b"\x89PNG\r\n\x1a\n", header, *chunks, _chunk(b"IEND", b"")))


_BOMB = zlib.compress(bytes(50 << 20), 9)
_PNGS = (
    _png(60_000, 60_000, _chunk(b"IDAT", _BOMB)),
    _png(32, 32, _chunk(b"IDAT", _BOMB)),
    _png(32, 32, _chunk(b"zTXt", b"a\0\0" + _BOMB), _chunk(b"IDAT", b"nothing")),
)
_JPEG = b"\xff\xd8\xff\xc0\0\x11\x08" + struct.pack(">HH", 65_000, 65_000) + bytes(200)


def _cut(random: Random) -> bytes:
    whole = _request()
    return whole[: random.randrange(len(whole))]


def _flipped(random: Random) -> bytes:
    damaged = bytearray(_request())
    for _ in range(4):
        damaged[random.randrange(80)] ^= 1 << random.randrange(8)
    return bytes(damaged)


KINDS: dict[str, Callable[[Random], bytes]] = {
    "empty": lambda random: b"",
    "random bytes": lambda random: random.randbytes(random.randrange(1, 300)),
    "cut off": _cut,
    "bits flipped": _flipped,
    "declares 2^60 bytes": lambda random: b"\xa1\x65image\x5b" + struct.pack(">Q", 1 << 60),
    "nested 10,000 deep": lambda random: b"\x81" * 10_000,
    "10,000 keys": lambda random: dumps({str(key): key for key in range(10_000)}),
    "tags": lambda random: b"\xc2\x58\x20" + random.randbytes(32),
    "no map": lambda random: dumps([1, 2, 3]),
    "deadline": lambda random: _request(deadline_ms=random.choice((math.nan, math.inf, -1, 0))),
    "version": lambda random: _request(v=random.choice((0, 2, "1", None, True))),
    "id": lambda random: _request(id=random.choice((-1, 1 << 63, "", "x" * 65, 1.5, [1]))),
    "shape": lambda random: _request(shape=random.choice(([65535] * 3, [-1, 1, 1], [3], "3"))),
    "sample": lambda random: _request(image=None, sample=random.choice((-1, 1 << 40, "a"))),
    "PNG": lambda random: _request(format="png", image=random.choice(_PNGS)),
    "JPEG": lambda random: _request(format="jpeg", image=_JPEG),
    "format": lambda random: _request(format=random.choice(("gif", 7, "x" * 5000))),
    "too long": lambda random: _request(pad=bytes(MAX_PAYLOAD_BYTES)),
}


def hostile_payload(random: Random) -> bytes:
    """One of a random kind. What may be a valid request all the same has an id of 2^62 or more."""
    return random.choice(list(KINDS.values()))(random)
