"""Reading the axes of a sweep: several values of ``--set``, and the block ``sweep`` of the YAML."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from models.errors import ScenarioError
from offramp.schema import RangeSection, SampledSection, SweepSection
from offramp.sweep.axes import (
    Axis,
    Choices,
    Draw,
    Integers,
    LatinHypercubeAxis,
    ListedAxis,
    LogUniform,
    RandomAxis,
    Uniform,
)
from offramp.sweep.template import as_json
from offramp.yaml_lines import Location, NotYamlError, read_yaml
from offramp.yaml_source import Source

#: Longest text of an override that is quoted whole in a message.
QUOTED = 80


@dataclass(frozen=True)
class GivenAxis:
    """An axis and where it was given: an override, or a part of the block."""

    axis: Axis
    where: str | Location

    def place(self, key: str) -> str | Location:
        """Where one of its keys stands."""
        return self.where if isinstance(self.where, str) else (*self.where, key)


def read_override(override: str) -> GivenAxis | None:
    """The axis that an override of several values, parted by commas, makes; None: it has one.

    Raises:
        ScenarioError: it is not written so, or names no value.
    """
    key, separator, text = override.partition("=")
    key = key.strip()
    place = _quoted(override)
    if not separator or not key:
        raise ScenarioError(f"{place}: write it as key.path=value, or key.path=value,value,...")
    try:
        values = _read_list(text)
    except NotYamlError as error:
        raise ScenarioError(f"{place}: the value is {error.problem}") from None
    if not values:
        raise ScenarioError(f"{place}: no value is given; for none at all, write {key}=null")
    if len(values) == 1:
        return None
    twice = _named_twice(values)
    if twice:
        raise ScenarioError(f"{place}: {key}: {twice}")
    return GivenAxis(_one_key(key, values), place)


def _read_list(text: str) -> list[Any]:
    """The items of a YAML list without its brackets."""
    try:
        # A list of numbers is JSON too, whose reader is hundreds of times as fast.
        values = json.loads(f"[{text}]", parse_constant=_refuse, object_pairs_hook=_refuse)
    except (ValueError, RecursionError):
        # A comment must not hide the bracket.
        values, _ = read_yaml(f"[{text}\n]")
    if not isinstance(values, list):
        raise NotYamlError("not valid YAML: a list ends before its end", None)
    return values


def _refuse(given: object) -> Any:
    raise ValueError(given)


def _quoted(override: str) -> str:
    return f"--set {override if len(override) <= QUOTED else override[: QUOTED - 3] + '...'}"


def _one_key(key: str, values: Sequence[Any]) -> ListedAxis:
    return ListedAxis((key,), tuple((value,) for value in values))


def _named_twice(values: Sequence[Any]) -> str | None:
    """What is wrong with a grid in which a value stands twice: two points would be the same."""
    seen: set[str] = set()
    for value in values:
        text = as_json(value)
        if text in seen:
            return f"{text} is named twice"
        seen.add(text)
    return None


# --- the block -----------------------------------------------------------------------------------


def block_axes(
    block: SweepSection | None, order: dict[str, Any] | None, written: Source
) -> Iterator[GivenAxis]:
    """The axes of the block ``sweep``.

    Args:
        order: the block as it is written; the axes come in this order.
        written: where it is.

    Raises:
        ScenarioError: a value stands twice in a grid, or the lists of a zip differ in length.
    """
    if block is None or order is None:
        return
    for part in order:
        where: Location = ("sweep", part)
        match part, getattr(block, part):
            case "grid", dict(grid):
                for key, values in grid.items():
                    twice = _named_twice(values)
                    if twice:
                        raise ScenarioError(written.message((*where, key), twice))
                    yield GivenAxis(_one_key(key, values), where)
            case "zip", dict(columns) if columns:
                yield GivenAxis(_zipped(columns, written), where)
            case "random", SampledSection() as section:
                axis: Axis = RandomAxis(_draws(section), section.points, block.seed)
                yield GivenAxis(axis, (*where, "keys"))
            case "latin_hypercube", SampledSection() as section:
                axis = LatinHypercubeAxis(_draws(section), section.points, block.seed)
                yield GivenAxis(axis, (*where, "keys"))


def _zipped(columns: dict[str, list[Any]], written: Source) -> ListedAxis:
    counts = {key: len(values) for key, values in columns.items()}
    if len(set(counts.values())) > 1:
        shown = ", ".join(f"{count} for {key}" for key, count in counts.items())
        text = f"first goes with first, second with second, but there are {shown}: give as many"
        raise ScenarioError(written.message(("sweep", "zip"), text))
    return ListedAxis(tuple(columns), tuple(zip(*columns.values(), strict=True)))


def _draws(section: SampledSection) -> dict[str, Draw]:
    return {key: read_draw(values) for key, values in section.keys.items()}


def read_draw(values: list[Any] | RangeSection) -> Draw:
    """What the values of a key are drawn from."""
    if isinstance(values, list):
        return Choices(tuple(values))
    if values.integers is not None:
        return Integers(*values.integers)
    if values.log_uniform is not None:
        return LogUniform(*values.log_uniform)
    assert values.uniform is not None  # the schema says that one of them is
    return Uniform(*values.uniform)
