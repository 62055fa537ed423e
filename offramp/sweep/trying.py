"""Trying the values of a sweep before anything is run: a value that fits nowhere is refused."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from typing import Any

from models.errors import ScenarioError
from offramp.sweep.axes import Axis
from offramp.sweep.points import Points
from offramp.sweep.template import Template, as_json

#: Values of an axis that are tried; of more, so many from the first to the last.
MOST_TRIED = 2000
#: Bad values that are reported.
MOST_REPORTED = 20
#: Combinations with other axes in which a value that is not valid alone is tried.
COMPANIES = 32


def try_values(template: Template, points: Points) -> None:
    """Try every value by itself on top of the base scenario.

    One that is not valid there may still be in the company of others, as a batch size is with a
    profile of such batches: it is refused only if it is in none of some combinations. Combinations
    that are not valid although their values are remain for their points to tell.

    Raises:
        ScenarioError: a value is refused; the message lists them.
    """
    problems: dict[str, list[str]] = {}
    for axis in points.axes:
        extremes = axis.extremes()
        for values in _spread(extremes):
            problem = _problem(template, values)
            if problem is None or _fits_in_company(template, points, axis, values):
                continue
            texts = problems.setdefault(problem, [])
            texts.append(", ".join(f"{key}={as_json(value)}" for key, value in values.items()))
            if len(problems) == MOST_REPORTED:
                raise _refused(problems)
    if problems:
        raise _refused(problems)


def _refused(problems: dict[str, list[str]]) -> ScenarioError:
    return ScenarioError(
        "\n".join(
            # What is the same for several values does not lie in any of them.
            f"{problem} (at {values[0]})" if len(values) == 1 else problem
            for problem, values in problems.items()
        )
    )


def _spread(values: Sequence[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    if len(values) <= MOST_TRIED:
        yield from values
        return
    for number in range(MOST_TRIED):
        yield values[number * (len(values) - 1) // (MOST_TRIED - 1)]


def _problem(template: Template, values: dict[str, Any]) -> str | None:
    try:
        template.scenario_with(values)
    except ScenarioError as error:
        return str(error)
    return None


def _fits_in_company(
    template: Template, points: Points, axis: Axis, values: dict[str, Any]
) -> bool:
    others = [other for other in points.axes if other is not axis]
    draw = random.Random(0)  # which combinations: the same every time
    tried: set[tuple[int, ...]] = set()
    for _ in range(COMPANIES if others else 0):
        rows = tuple(draw.randrange(len(other)) for other in others)
        if rows in tried:
            continue
        tried.add(rows)
        company = dict(values)
        for other, row in zip(others, rows, strict=True):
            company |= dict(zip(other.keys, other[row], strict=True))
        if _problem(template, company) is None:
            return True
    return False
