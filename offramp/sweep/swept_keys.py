"""Where the keys of a sweep lead, and whether they go together."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from models.errors import ScenarioError
from offramp.key_paths import KeyPathError, locate
from offramp.sweep.reading import GivenAxis
from offramp.yaml_lines import Location
from offramp.yaml_source import Source


def locate_all(
    data: dict[str, Any], given: Sequence[GivenAxis], written: Source
) -> dict[Location, str | Location]:
    """Where each swept key leads, and where it was given.

    Raises:
        ScenarioError: a key leads nowhere, stands twice, or contains another.
    """
    found: dict[Location, str | Location] = {}
    for one in given:
        for key in one.axis.keys:
            place = one.place(key)
            try:
                location = locate(data, key)
            except KeyPathError as error:
                raise _error(written, place, str(error)) from None
            problem = _overlap(location, found, written)
            if problem:
                raise _error(written, place, problem)
            found[location] = place
    return found


def _error(written: Source, place: str | Location, text: str) -> ScenarioError:
    if isinstance(place, str):
        return ScenarioError(f"{place}: {text}")
    return ScenarioError(written.message(place, text))


def _overlap(
    location: Location, found: dict[Location, str | Location], written: Source
) -> str | None:
    """What a swept key has in common with another one, or with an override."""
    key = _dotted(location)
    if location[0] == "sweep":
        return "what a sweep varies cannot itself be varied"
    for other, place in found.items():
        by = place if isinstance(place, str) else written.message(place, "").removesuffix(": ")
        if other == location:
            return f"{key} is varied twice, by {by} too"
        if other[: len(location)] == location:
            return f"{key} holds {_dotted(other)}, which is varied too, by {by}: vary one of them"
        if location[: len(other)] == other:
            return f"{key} is a part of {_dotted(other)}, which is varied too, by {by}: vary one"
    for fixed, override in written.overrides.items():
        if fixed[: len(location)] == location:
            return f"{key} varies, and --set {override} sets it: only one of them can be meant"
    return None


def _dotted(location: Location) -> str:
    return ".".join(str(part) for part in location)


def with_places(written: Source, swept: dict[Location, str | Location]) -> Source:
    """Where keys were written at a point: swept ones where their values stand."""
    lines = {
        location: line
        for location, line in written.lines.items()
        if location[0] != "sweep" and not any(location[: len(above)] == above for above in swept)
    }
    overrides = {
        location: override
        for location, override in written.overrides.items()
        if location[0] != "sweep"
    }
    for location, place in swept.items():
        match _origin(written, place):
            case int(line):
                lines[location] = line
            case str(override):
                overrides[location] = override
    return Source(written.file, lines, overrides)


def _origin(written: Source, place: str | Location) -> int | str | None:
    """The line, or the override, that says what a key is at each point."""
    if isinstance(place, str):
        return place.removeprefix("--set ")
    for length in range(len(place), 0, -1):
        for at, override in written.overrides.items():
            if at[:length] == place[:length]:
                return override
        if place[:length] in written.lines:
            return written.lines[place[:length]]
    return None
