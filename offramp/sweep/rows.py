"""The rows of a point on their way from a worker to the tables: exact, small, and self-contained.

A point's rows are kept column by column as JSON, which gives every float back bit for bit, and
compressed. Which columns there are, and what they hold, is told beside, as the point's *layout*: a
table's columns are known without unpacking all of its rows.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterable
from typing import Any

import pyarrow as pa

#: Of rows, columns by name; all of one length.
Columns = dict[str, list[Any]]

_TYPES = {"boolean": pa.bool_(), "integer": pa.int64(), "number": pa.float64(), "text": pa.string()}

_INTEGERS = range(-(2**63), 2**63)


def pack(rows: list[dict[str, Any]]) -> tuple[str, bytes]:
    """Layout and packed columns of rows that have the same names."""
    columns = {name: [row[name] for row in rows] for name in rows[0]}
    layout = [[name, kind_of(values)] for name, values in columns.items()]
    content = json.dumps(list(columns.values()), separators=(",", ":"))
    return json.dumps(layout, separators=(",", ":")), zlib.compress(content.encode(), level=1)


def unpack(layout: list[tuple[str, str]], packed: bytes) -> Columns:
    """The columns of a layout that was read by :func:`read_layout`."""
    values = json.loads(zlib.decompress(packed))
    return {name: column for (name, _), column in zip(layout, values, strict=True)}


def read_layout(text: str) -> list[tuple[str, str]]:
    """Names and kinds of columns, in order."""
    return [(name, kind) for name, kind in json.loads(text)]


def kind_of(values: Iterable[Any]) -> str:
    """What a column holds: ``boolean``, ``integer``, ``number`` or ``text``; ``null`` if nothing.

    Integers beside numbers are numbers; anything else that is mixed is text.
    """
    kinds = {_kind(value) for value in values} - {"null"}
    return merged(kinds)


def merged(kinds: set[str]) -> str:
    """The kind of a column whose parts hold these."""
    kinds = kinds - {"null"}
    if kinds == {"integer", "number"}:
        return "number"
    return (kinds.pop() if kinds else "null") if len(kinds) < 2 else "text"


def _kind(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, int):
        return "integer" if value in _INTEGERS else "text"
    return "number" if isinstance(value, float) else "text"


def arrow_type(kind: str) -> pa.DataType:
    """How a column of a kind is kept in a table; one without any value as text."""
    return _TYPES.get(kind, pa.string())


def common_layout(layouts: Iterable[list[tuple[str, str]]]) -> dict[str, str]:
    """All columns of some layouts, and their kinds.

    A column that only later layouts have follows the one that it follows there.
    """
    order: list[str] = []
    kinds: dict[str, set[str]] = {}
    for layout in layouts:
        before = -1
        for name, kind in layout:
            if name not in kinds:
                order.insert(before + 1, name)
            kinds.setdefault(name, set()).add(kind)
            before = order.index(name)
    return {name: merged(kinds[name]) for name in order}
