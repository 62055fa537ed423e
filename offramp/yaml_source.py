"""Where each key of a YAML file was written, and messages that say so."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic_core import ErrorDetails

from models.errors import ScenarioError, did_you_mean
from offramp.key_paths import KeyPathError, locate, put
from offramp.schema import OR_ELSE
from offramp.yaml_lines import Location, NotYamlError, read_yaml


@dataclass
class Source:
    """Where each key of the data was written: a line of the file, or an override."""

    file: str
    lines: dict[Location, int]
    overrides: dict[Location, str]

    def message(self, location: Location, text: str) -> str:
        """``text`` after the place where the key, or else the one above it, was written."""
        place = self.file
        key = ".".join(str(part) for part in location)
        for below, override in self.overrides.items():
            if location and below[: len(location)] == location:
                return f"--set {override}: {key}: {text}"
        for length in range(len(location), 0, -1):
            above = location[:length]
            if above in self.lines:
                place = f"{self.file}:{self.lines[above]}"
                break
            overrides = [text for at, text in self.overrides.items() if at[:length] == above]
            if overrides:
                place = f"--set {overrides[0]}"
                break
        return f"{place}: {key}: {text}" if key else f"{place}: {text}"


def read_file(path: Path) -> tuple[dict[str, Any], dict[Location, int]]:
    """The mapping in a YAML file, and the line of each of its keys.

    Raises:
        ScenarioError: it cannot be read, is not YAML, or holds no mapping.
    """
    try:
        data, lines = read_yaml(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise ScenarioError(f"{path}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise ScenarioError(f"{path}: not a text file in UTF-8: {error.reason}") from None
    except NotYamlError as error:
        place = f"{path}:{error.line}" if error.line else str(path)
        raise ScenarioError(f"{place}: {error.problem}") from None
    if not isinstance(data, dict):
        raise ScenarioError(f"{path}: a scenario is a mapping of keys, but this file holds none")
    return data, lines


def apply_override(data: dict[str, Any], override: str, source: Source) -> None:
    """Set ``key.path=value``, the value in YAML, in ``data``; note it in ``source``.

    Raises:
        ScenarioError: it is not written so, or its path leads nowhere.
    """
    key, separator, text = override.partition("=")
    if not separator or not key.strip():
        raise ScenarioError(f"--set {override}: write it as key.path=value")
    try:
        value, _ = read_yaml(text)
    except NotYamlError as error:
        raise ScenarioError(f"--set {override}: the value is {error.problem}") from None
    try:
        location = locate(data, key)
    except KeyPathError as error:
        raise ScenarioError(f"--set {override}: {error}") from None
    put(data, location, value)
    source.overrides[location] = override
    for known in [known for known in source.lines if known[: len(location)] == location]:
        del source.lines[known]  # the file no longer says this


# --- describing --------------------------------------------------------------------------------


def describe_all(source: Source, data: Any, errors: list[ErrorDetails]) -> list[str]:
    """What pydantic found wrong, with places.

    One message for each place; a value that fits no member of a union fails once for each.
    """
    messages: dict[str, list[str]] = {}
    for details in errors:
        if details["type"] == "unknown_keys":
            for text in _describe_unknown_keys(source, data, details):
                messages[text] = [""]
            continue
        place, separator, allowed = _describe(source, data, details).partition("; allowed: ")
        messages.setdefault(place + separator, []).append(allowed)
    return [place + ", or ".join(allowed) for place, allowed in messages.items()]


def _describe_unknown_keys(source: Source, data: Any, details: ErrorDetails) -> list[str]:
    location, context = _location_in(data, details["loc"]), details["ctx"]
    allowed = context["allowed"]
    return [
        source.message(
            (*location, key),
            f"unknown key{did_you_mean(key, allowed)} (allowed: {', '.join(allowed)})",
        )
        for key in context["keys"]
    ]


def _describe(source: Source, data: Any, details: ErrorDetails) -> str:
    location = _location_in(data, details["loc"])
    context = details.get("ctx", {})
    given = details["input"]
    if details["type"] == "missing":
        return source.message((*location, details["loc"][-1]), "this key is required")
    if details["type"].startswith("union_tag"):
        return _describe_tag(source, location, details)
    if details["type"] == "literal_error":
        values = str(context["expected"]).replace(" or ", ", ").replace("'", "").split(", ")
        near = did_you_mean(given, values)
        if details["loc"][-1] in OR_ELSE:
            values.append(f"or {OR_ELSE[str(details['loc'][-1])]}")
        return source.message(
            location, f"given {_shown(given)}{near} (allowed: {', '.join(values)})"
        )
    if details["type"] == "string_pattern_mismatch":
        return source.message(
            location, f"given {_shown(given)}; allowed: letters, digits, '_', '-' and '.'"
        )
    if details["type"] in ("model_type", "model_attributes_type"):
        return source.message(location, f"given {_shown(given)}; a mapping of keys is expected")
    if details["type"] == "too_short":
        kind = "mapping" if isinstance(given, dict) else "list"
        least = context["min_length"]
        entries = "an entry" if least == 1 else f"{least} entries"
        return source.message(location, f"given {_shown(given)}; allowed: a {kind} with {entries}")
    if details["type"] == "too_long":
        most = context["max_length"]
        return source.message(
            location, f"given {_shown(given)}; allowed: a list with {most} entries"
        )
    allowed_text = (
        details["msg"]
        .replace("Input should be ", "")
        .replace("a valid dictionary", "a mapping of names")
        .replace("a valid list", "a list")
        .replace("a valid integer", "an integer")
        .replace("a valid number", "a number")
        .replace("a valid string", "text")
        .replace("a valid boolean", "true or false")
    )
    if details["loc"][-1] in OR_ELSE:
        allowed_text += f", or {OR_ELSE[str(details['loc'][-1])]}"
    return source.message(location, f"given {_shown(given)}; allowed: {allowed_text}")


def _describe_tag(source: Source, location: Location, details: ErrorDetails) -> str:
    """A mapping whose key says of which kind it is, and that key is absent or wrong."""
    context = details["ctx"]
    key = str(context["discriminator"]).strip("'")
    if "(" in key:  # a function, which looks at numbers too
        key = "distribution"
    if details["type"] == "union_tag_not_found":
        given = details["input"]
        if key == "distribution":
            allowed = "allowed: a number, or a mapping with 'distribution'"
            return source.message(location, f"given {_shown(given)}; {allowed}")
        return source.message((*location, key), "this key is required")
    tags = [tag.strip("' ") for tag in str(context["expected_tags"]).split(",")]
    tag, near = context["tag"], did_you_mean(context["tag"], tags)
    tags = [tag for tag in tags if tag != "number"]
    given = f"unknown distribution {tag!r}" if key == "distribution" else f"given {tag!r}"
    return source.message((*location, key), f"{given}{near} (allowed: {', '.join(tags)})")


def _shown(value: Any) -> str:
    text = "nothing" if value is None else repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _location_in(data: Any, loc: tuple[str | int, ...]) -> Location:
    """``loc`` without the parts that name a member of a union rather than a key of the data."""
    location: Location = ()
    node: Any = data
    for part in loc:
        in_mapping = isinstance(node, dict) and part in node
        in_list = isinstance(node, list) and isinstance(part, int) and part < len(node)
        if in_mapping or in_list:
            node = node[part]
            location = (*location, part)
    return location
