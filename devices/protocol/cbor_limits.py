"""What a CBOR payload may cost, checked on its headers before any decoder sees it.

CBOR (RFC 8949) lets a few bytes declare gigabytes, nest without end, or name tags that make a
decoder build other objects. One pass over the headers refuses all of that. It allocates nothing
that grows with the payload, and takes time in the number of headers, which is limited.
"""

from __future__ import annotations

from typing import Any

import cbor2

#: Longest payload of any message of the protocol, bytes.
MAX_PAYLOAD_BYTES = 1 << 20
#: Containers within each other; the message's own map is the first.
MAX_DEPTH = 4
#: Keys, values and entries of a message, all counted.
MAX_ITEMS = 256

_TEXT, _ARRAY, _MAP, _TAG = 3, 4, 5, 6


class CborError(Exception):
    """A payload is not well-formed CBOR, or uses more of CBOR than the protocol allows.

    Attributes:
        too_large: it is longer than allowed, whatever it says.
    """

    def __init__(self, message: str, too_large: bool = False) -> None:
        super().__init__(message)
        self.too_large = too_large


def check_headers(payload: bytes | bytearray, max_bytes: int = MAX_PAYLOAD_BYTES) -> None:
    """Refuse a payload that is malformed, or could cost more than its own length.

    Allowed is exactly one data item of definite lengths (RFC 8949, section 4.2.1) without tags,
    whose maps have text keys, at most :data:`MAX_DEPTH` deep and of :data:`MAX_ITEMS` items.
    Whether text is UTF-8 and keys are unique is left to the decoder.

    Raises:
        CborError: with the reason.
    """
    length = len(payload)
    if length > max_bytes:
        raise CborError(f"the payload has {length} bytes, at most {max_bytes}", too_large=True)
    position = items = 0
    # Items that the innermost open container still lacks, and the same of those around it.
    lacking, in_map = 1, False
    around: list[tuple[int, bool]] = []
    while True:
        while not lacking:
            if not around:
                if position == length:
                    return
                if position < length:
                    raise CborError(f"{length - position} bytes follow the message")
                raise CborError("the payload is truncated")
            lacking, in_map = around.pop()
        if position >= length:
            raise CborError("the payload is truncated" if length else "the payload is empty")
        head = payload[position]
        position += 1
        items += 1
        if items > MAX_ITEMS:
            raise CborError(f"the payload has more than {MAX_ITEMS} items")
        major, argument = head >> 5, head & 31
        if argument > 23:
            if argument > 27:
                raise CborError("lengths must be definite (RFC 8949, section 4.2.1)")
            end = position + (1 << (argument - 24))
            # A slice beyond the end is short, which the next look at the position refuses.
            argument = int.from_bytes(payload[position:end])
            position = end
        if in_map and not lacking & 1 and major != _TEXT:
            raise CborError("a map has a key that is no text")
        lacking -= 1
        if major < 2 or major > _TAG:
            continue
        if major <= _TEXT:
            position += argument
        elif major == _TAG:
            raise CborError("tags are not part of the protocol")
        else:
            if len(around) == MAX_DEPTH:
                raise CborError(f"containers are nested more than {MAX_DEPTH} deep")
            around.append((lacking, in_map))
            lacking, in_map = argument * (major - 3), major == _MAP
        if position + lacking > length:
            raise CborError("a length is declared that the payload does not have")


def decode_map(payload: bytes | bytearray, max_bytes: int = MAX_PAYLOAD_BYTES) -> dict[str, Any]:
    """The map that a payload is, after :func:`check_headers`.

    Raises:
        CborError: no other exception leaves this function.
    """
    try:
        check_headers(payload, max_bytes)
        decoded = cbor2.loads(payload, max_depth=MAX_DEPTH, allow_duplicate_keys=False)
    except CborError:
        raise
    except Exception as problem:  # of cbor2's, Unicode's or the memory's
        raise CborError(f"the payload is not CBOR: {short(str(problem))}") from None
    if not isinstance(decoded, dict):
        raise CborError("the message is no map")
    return decoded


def short(text: str, most: int = 100) -> str:
    """At most ``most`` characters of a text that may be of any length."""
    return text if len(text) <= most else f"{text[: most - 1]}…"
