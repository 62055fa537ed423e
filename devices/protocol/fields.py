"""Reading one field of a message that anyone may have sent: its type and range, strictly.

A field that is missing, null or undefined reads as None. ``true`` is no integer.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeGuard, TypeVar

from cbor2 import undefined

from devices.protocol.cbor_limits import short

T = TypeVar("T")
RequestId = int | str | bytes

#: Longest id that is a text or byte string, bytes.
MOST_ID_BYTES = 64

#: Longest text of any field but ids, characters.
MOST_TEXT = 256


class FieldError(Exception):
    """A field has the wrong type, is out of its range, or is missing."""


def required(value: T | None, key: str) -> T:
    """``value`` itself, or :class:`FieldError` where the field is missing."""
    if value is None:
        raise FieldError(f"{key} is missing")
    return value


def is_request_id(value: object) -> TypeGuard[RequestId]:
    """Whether this may be an id: an integer from 0 to 2^63 - 1, or 1 to 64 bytes or UTF-8."""
    if type(value) is int:
        return 0 <= value < 1 << 63
    if type(value) is bytes:
        return 0 < len(value) <= MOST_ID_BYTES
    if type(value) is str:
        return 0 < len(value) <= MOST_ID_BYTES and len(value.encode()) <= MOST_ID_BYTES
    return False


def request_id(fields: Mapping[str, Any], key: str = "id") -> RequestId | None:
    """The id of a request."""
    value = fields.get(key)
    if is_request_id(value):
        return value
    rule = f"an integer from 0 to 2^63 - 1, or a text or byte string of 1 to {MOST_ID_BYTES} bytes"
    _refuse_unless_absent(value, key, f"must be {rule}")
    return None


def integer(fields: Mapping[str, Any], key: str, least: int, most: int) -> int | None:
    """An integer from ``least`` to ``most``."""
    value = fields.get(key)
    # Not isinstance: a bool is an int to it.
    if type(value) is int and least <= value <= most:
        return value
    _refuse_unless_absent(value, key, f"must be an integer from {least} to {most}")
    return None


def number(fields: Mapping[str, Any], key: str, least: float, most: float) -> float | None:
    """An integer or float from ``least`` to ``most``; NaN and ±∞ are in no range."""
    value = fields.get(key)
    if (type(value) is float or type(value) is int) and least <= value <= most:
        return float(value)
    _refuse_unless_absent(value, key, f"must be a number from {least:.12g} to {most:.12g}")
    return None


def text(fields: Mapping[str, Any], key: str) -> str | None:
    """A text of at most :data:`MOST_TEXT` characters."""
    value = fields.get(key)
    if type(value) is str and len(value) <= MOST_TEXT:
        return value
    _refuse_unless_absent(value, key, f"must be a text of at most {MOST_TEXT} characters")
    return None


def one_of(fields: Mapping[str, Any], key: str, allowed: tuple[str, ...]) -> str | None:
    """One of the texts ``allowed``."""
    value = fields.get(key)
    if type(value) is str and value in allowed:
        return value
    _refuse_unless_absent(value, key, f"must be one of {', '.join(allowed)}")
    return None


def byte_string(fields: Mapping[str, Any], key: str) -> bytes | None:
    """A byte string that is not empty."""
    value = fields.get(key)
    if type(value) is bytes and value:
        return value
    _refuse_unless_absent(value, key, "must be a byte string that is not empty")
    return None


def image_shape(fields: Mapping[str, Any], key: str) -> tuple[int, ...] | None:
    """Channels, height and width: an array of three integers from 1 to 65535."""
    value = fields.get(key)
    if (
        type(value) is list
        and len(value) == 3
        and all(type(size) is int and 0 < size < 65536 for size in value)
    ):
        return tuple(value)
    _refuse_unless_absent(value, key, "must be [channels, height, width], each from 1 to 65535")
    return None


def _refuse_unless_absent(value: object, key: str, rule: str) -> None:
    if value is None or value is undefined:
        return
    if isinstance(value, bytes | list | dict):
        given = {bytes: "a byte string", list: "an array", dict: "a map"}[type(value)]
    else:
        given = short(repr(value), 40)
    raise FieldError(f"{key} is {given}; it {rule}")
