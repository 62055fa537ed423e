"""What is searched: values of keys, and policies with their parameters."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from typing import Any

from offramp.checks import policy_label
from offramp.schema import PolicySection
from offramp.sweep.axes import Choices, Draw, Integers, LogUniform, Uniform
from offramp.sweep.template import as_json

#: Digits of a number that is drawn from a range without steps: more say nothing that is measured.
_DIGITS = 4

#: Where a configuration lies in the space, by parameter: a position in a list, or a number.
Coordinates = dict[str, Any]

#: The parameter that says which policy it is.
POLICY = "policy"


@dataclass(frozen=True)
class Configuration:
    """One policy with its parameters, and a value for every searched key.

    Attributes:
        policy: as a scenario has it.
        values: in the order of :attr:`Space.keys`.
    """

    policy: dict[str, Any]
    values: tuple[Any, ...]

    @cached_property
    def key(self) -> str:
        """A text that tells it from others."""
        return as_json([sorted(self.policy.items()), list(self.values)])

    @property
    def label(self) -> str:
        """Of its policy, in tables."""
        return policy_label(PolicySection.model_validate(self.policy))


@dataclass(frozen=True)
class PolicyOption:
    """A policy that may be chosen, and the parameters of it that are searched.

    Attributes:
        name: tells it from the others.
        fixed: the policy as a scenario has it, without what is searched.
    """

    name: str
    fixed: dict[str, Any]
    draws: dict[str, Draw]

    def coordinate(self, parameter: str) -> str:
        """What a parameter of it is called in :data:`Coordinates`."""
        return f"{POLICY} {self.name}: {parameter}"


@dataclass(frozen=True)
class Space:
    """All configurations that may be tried.

    Attributes:
        keys: dotted keys, and what their values are drawn from.
        policies: at least one.
    """

    keys: dict[str, Draw]
    policies: tuple[PolicyOption, ...]

    def option(self, name: str) -> PolicyOption:
        """A policy by its name."""
        return next(option for option in self.policies if option.name == name)

    def first_of(self, option: PolicyOption) -> dict[str, Any]:
        """A policy with the first value of everything that is searched of it."""
        return {**option.fixed, **{name: ends(draw)[0] for name, draw in option.draws.items()}}

    def dimensions(self, policy: str) -> dict[str, Draw]:
        """What else there is to choose once the policy is: by coordinate."""
        option = self.option(policy)
        own = {option.coordinate(name): draw for name, draw in option.draws.items()}
        return {**own, **self.keys}

    def configuration(self, at: Mapping[str, Any]) -> Configuration:
        """The configuration at some coordinates."""
        option = self.option(at[POLICY])
        own = {
            name: value_at(draw, at[option.coordinate(name)]) for name, draw in option.draws.items()
        }
        values = tuple(value_at(draw, at[key]) for key, draw in self.keys.items())
        return Configuration({**option.fixed, **own}, values)

    def coordinates(self, configuration: Configuration) -> Coordinates | None:
        """Where a configuration lies; None if it is not in the space."""
        for option in self.policies:
            at: Coordinates | None = {POLICY: option.name}
            for name, draw in self.dimensions(option.name).items():
                value = self._value(configuration, option, name)
                found = coordinate_of(draw, value)
                at = None if at is None or found is None else {**at, name: found}
            if at is not None and self.configuration(at).key == configuration.key:
                return at
        return None

    def _value(self, configuration: Configuration, option: PolicyOption, dimension: str) -> Any:
        for name in option.draws:
            if option.coordinate(name) == dimension:
                return configuration.policy.get(name)
        return configuration.values[list(self.keys).index(dimension)]

    @property
    def size(self) -> float:
        """How many configurations there are; infinite if a range has no steps."""
        return sum(
            math.prod(count(draw) for draw in self.dimensions(option.name).values())
            for option in self.policies
        )

    def all(self) -> Iterator[Configuration]:
        """Every configuration of a space of finite size, in order."""
        for option in self.policies:
            draws = self.dimensions(option.name)
            for row in product(*(range(int(count(draw))) for draw in draws.values())):
                at = {
                    name: index + (draw.low if isinstance(draw, Integers) else 0)
                    for (name, draw), index in zip(draws.items(), row, strict=True)
                }
                yield self.configuration({POLICY: option.name, **at})

    def lines(self) -> Iterator[str]:
        """What is searched, a line for each dimension."""
        for key, draw in self.keys.items():
            yield f"{key}: {shown_draw(draw)}"
        for option in self.policies:
            own = ", ".join(f"{name} {shown_draw(draw)}" for name, draw in option.draws.items())
            yield f"policy {option.name}" + (f" with {own}" if own else "")


# --- one dimension -------------------------------------------------------------------------------


def count(draw: Draw) -> float:
    """How many values there are."""
    match draw:
        case Choices(values):
            return len(values)
        case Integers(low, high):
            return high - low + 1
    return math.inf


def is_ordered(draw: Draw) -> bool:
    """Whether values are numbers that rise with their coordinate."""
    if not isinstance(draw, Choices):
        return True
    numbers = [
        value
        for value in draw.values
        if isinstance(value, int | float) and not isinstance(value, bool)
    ]
    return len(numbers) == len(draw.values) and numbers == sorted(numbers)


def value_at(draw: Draw, coordinate: Any) -> Any:
    """The value at a coordinate: of a range without steps rounded to a few digits."""
    match draw:
        case Choices(values):
            return values[coordinate]
        case Uniform(low, high) | LogUniform(low, high):
            return min(high, max(low, float(f"{coordinate:.{_DIGITS}g}")))
    return coordinate


def coordinate_of(draw: Draw, value: Any) -> Any:
    """Where a value lies; None if it does not."""
    if isinstance(draw, Choices):
        texts = [as_json(choice) for choice in draw.values]
        return texts.index(as_json(value)) if as_json(value) in texts else None
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    assert isinstance(draw, Integers | Uniform | LogUniform)
    if not draw.low <= value <= draw.high:
        return None
    if isinstance(draw, Integers):
        return int(value) if value == int(value) else None
    return float(value)


def below(draw: Draw, value: Any) -> list[Any]:
    """Of a range in steps, the value half-way to its lowest, and the next lower one."""
    at = coordinate_of(draw, value)
    if at is None or not is_ordered(draw) or not isinstance(draw, Choices | Integers):
        return []
    low = draw.low if isinstance(draw, Integers) else 0
    steps = dict.fromkeys(((at + low) // 2, at - 1))
    return [value_at(draw, it) for it in steps if low <= it < at]


def ends(draw: Draw) -> tuple[Any, Any]:
    """The lowest and the highest value; of choices without an order the first and the last."""
    if isinstance(draw, Choices):
        return draw.values[0], draw.values[-1]
    assert isinstance(draw, Integers | Uniform | LogUniform)
    return draw.low, draw.high


def shown_draw(draw: Draw) -> str:
    """What is drawn from, in words."""
    match draw:
        case Choices(values) if len(values) > 6 and is_ordered(draw):
            return f"{values[0]} to {values[-1]} in {len(values)} steps"
        case Choices(values):
            return "one of " + ", ".join(
                it if isinstance(it, str) else as_json(it) for it in values
            )
        case LogUniform(low, high):
            return f"{low:g} to {high:g}, by its logarithm"
    low, high = ends(draw)
    return f"{low:g} to {high:g}"
