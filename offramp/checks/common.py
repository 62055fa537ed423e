"""What checks have in common: problems with their places, names, files, distributions."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from models.errors import OfframpError, ScenarioError, did_you_mean
from offramp.experiment import user_file
from offramp.schema import (
    ConstantSpec,
    DistributionSpec,
    EmpiricalSpec,
    ScipySpec,
    UniformSpec,
)
from offramp.world_parts import distribution
from offramp.yaml_lines import Location
from sim.distributions import check_not_negative, quantile

#: Something wrong: where, and what.
Problem = tuple[Location, str]


def check_name(place: Location, kind: str, name: str, known: Iterable[str]) -> Iterator[Problem]:
    """Whether a name refers to something."""
    known = list(known)
    if name not in known:
        yield (
            place,
            f"no {kind} is called {name!r}{did_you_mean(name, known)} "
            f"(there are: {', '.join(known)})",
        )


def check_file(place: Location, name: str | None, folder: Path) -> Iterator[Problem]:
    """Whether the file that a key names is there; a key that is absent names none."""
    if name is None:
        return
    try:
        file = user_file(name, folder)
    except ScenarioError as error:
        yield place, str(error)
        return
    if not file.is_file():
        yield place, f"no such file: {file}"


def attempt(place: Location, build: Callable[[], object]) -> Iterator[Problem]:
    """What building a part of the world says against it."""
    try:
        build()
    except (ValueError, OfframpError) as error:
        yield place, str(error)


def attempt_file(
    place: Location, name: str, folder: Path, read: Callable[[], object]
) -> Iterator[Problem]:
    """Whether a file is there and what reading it says against it."""
    missing = list(check_file(place, name, folder))
    yield from missing or attempt(place, read)


def check_distribution(
    place: Location, spec: DistributionSpec, folder: Path, needs_mean: bool
) -> Iterator[Problem]:
    """Whether there is such a distribution of durations.

    Args:
        needs_mean: whether its mean must be finite.
    """
    if isinstance(spec, UniformSpec) and spec.low >= spec.high:
        yield place, f"low ({spec.low}) must be below high ({spec.high})"
    if isinstance(spec, EmpiricalSpec):
        read = (*place, "file")
        yield from attempt_file(read, spec.file, folder, lambda: distribution(spec, folder))
    if isinstance(spec, ScipySpec):
        yield from attempt(place, lambda: _check_scipy(spec, folder, needs_mean))


def _check_scipy(spec: ScipySpec, folder: Path, needs_mean: bool) -> None:
    built = distribution(spec, folder)
    check_not_negative(built)
    if needs_mean and not math.isfinite(built.mean()):
        raise ValueError(
            f"{built} has no finite mean: whatever is simulated with it depends on how long one "
            "looks; use a distribution with a lighter tail"
        )


def can_be_zero(spec: DistributionSpec, folder: Path) -> bool:
    """Whether a distribution gives 0 with a probability above 0."""
    match spec:
        case int() | float():
            return spec == 0
        case ConstantSpec():
            return spec.value == 0
        case EmpiricalSpec():
            try:
                return quantile(distribution(spec, folder), 0.0) == 0.0
            except OfframpError:
                return False  # said elsewhere
        case _:
            return False
