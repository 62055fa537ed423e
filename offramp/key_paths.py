"""Dotted keys such as ``policies.0.exit``: where in a scenario's data they lead, and setting them.

A key may lead where the file says nothing: into an optional section, a list that has a default, or
a policy that is written as its name alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from copy import deepcopy
from typing import Any, get_args

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from models.errors import did_you_mean
from offramp.schema import Scenario
from offramp.yaml_lines import Location

#: Parts of a scenario under which the user chooses the names.
NAMED_PARTS = ("links", "nodes", "devices")

#: Mappings whose keys are dotted keys of the scenario themselves.
_OF_KEYS = (
    ("sweep", "grid"),
    ("sweep", "zip"),
    ("sweep", "random", "keys"),
    ("sweep", "latin_hypercube", "keys"),
    ("recommend", "keys"),
)


class KeyPathError(Exception):
    """A key leads nowhere: something on its way has no keys, or no such item."""


def locate(data: Any, key: str) -> Location:
    """Where in ``data`` a dotted key leads; names that hold dots themselves are known there.

    Raises:
        KeyPathError: it leads through a value without keys, past the end of a list, or into a node,
            a link or a group of devices that the scenario does not have.
    """
    location: Location = ()
    node, parts = data, key.strip().split(".")
    while parts:
        node = _opened(node, location)
        step: str | int
        if isinstance(node, list):
            step = index = _index(node, parts, location)
            node, parts = node[index], parts[1:]
        elif isinstance(node, dict):
            count = _longest_name(node, parts, location)
            step = ".".join(parts[:count])
            if location and location[0] in NAMED_PARTS and len(location) == 1 and parts[count:]:
                _check_name(node, step, str(location[0]))
            node, parts = node.get(step), parts[count:]
        else:
            raise KeyPathError(f"{_dotted(location)} is {node!r} and has no keys")
        location = (*location, step)
    return location


def _check_name(known: dict[str, Any], name: str, part: str) -> None:
    """Refuse to lead into what would be made by being set, and be nobody's."""
    if name not in known:
        there = f"there are: {', '.join(known)}" if known else "there are none"
        raise KeyPathError(
            f"unknown key: nothing under {part} is called {name!r}{did_you_mean(name, known)} "
            f"({there}; {part}.{name}={{...}} makes one)"
        )


def put(data: dict[str, Any], location: Location, value: Any) -> None:
    """Set the value at a location that :func:`locate` found in such data."""
    node: Any = data
    for depth, step in enumerate(location[:-1], start=1):
        inner = node[int(step)] if isinstance(node, list) else node.get(step)
        opened = _opened(inner, location[:depth])
        if opened is not inner:
            node[step] = opened
        node = opened
    node[location[-1]] = value


def _dotted(location: Location) -> str:
    return ".".join(str(part) for part in location)


def _index(node: list[Any], parts: list[str], location: Location) -> int:
    part = parts[0]
    if not (part.isascii() and part.isdigit()) or int(part) >= len(node):
        raise KeyPathError(
            f"{_dotted(location)} is a list of {len(node)}; "
            f"its items are 0 to {len(node) - 1}, not {part!r}"
        )
    return int(part)


def _longest_name(node: dict[Any, Any], parts: list[str], location: Location) -> int:
    """How many parts the longest key of ``node`` that they begin with takes up.

    Of a new key 1; all, where keys of a scenario are the keys.
    """
    for count in range(len(parts), 0, -1):
        if ".".join(parts[:count]) in node:
            return count
    return len(parts) if location in _OF_KEYS else 1


def _opened(value: Any, location: Location) -> Any:
    """A value as something that has keys or items, if it can be written so."""
    if value is None:
        return _default_list(location) or {}
    if isinstance(value, str) and len(location) == 2 and location[0] == "policies":
        return {"policy": value}
    return value


def _default_list(location: Location) -> list[Any]:
    """The default of a key that holds a list; nothing if it holds none."""
    section: type[BaseModel] | None = Scenario
    field: FieldInfo | None = None
    for part in location:
        field = section.model_fields.get(str(part)) if section else None
        section = _section_of(field) if field else None
    default = field.default if field else None
    return deepcopy(default) if isinstance(default, list) else []


def _section_of(field: FieldInfo) -> type[BaseModel] | None:
    """The section that a key holds, optional or not."""
    for kind in (field.annotation, *get_args(field.annotation)):
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            return kind
    return None


def flat(node: Any, key: str = "") -> Iterator[tuple[str, str]]:
    """Every dotted key that is set, and its value as text; an entry of a list of blocks is one."""
    if isinstance(node, dict):
        for name, value in node.items():
            yield from flat(value, f"{key}.{name}" if key else str(name))
    elif isinstance(node, list) and any(isinstance(entry, dict) for entry in node):
        for index, entry in enumerate(node):
            yield f"{key}.{index}", _compact(entry)
    elif node not in (None, []):
        yield key, _compact(node)


def _compact(value: Any) -> str:
    """A value as YAML in one line, without keys that are not set."""
    if isinstance(value, dict):
        parts = [f"{name}: {_compact(it)}" for name, it in value.items() if it is not None]
        return "{" + ", ".join(parts) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_compact, value)) + "]"
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return str(value)
