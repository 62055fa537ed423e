"""The block ``sweep:`` of a scenario: which keys take which values in ``offramp sweep``."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Discriminator, Field, Tag, model_validator
from pydantic_core import PydanticCustomError

from offramp.schema.base import CHOICES, Section

Values = Annotated[list[Any], Field(min_length=1)]
Bounds = Annotated[list[float], Field(min_length=2, max_length=2)]
IntegerBounds = Annotated[list[int], Field(min_length=2, max_length=2)]


class RangeSection(Section):
    """A range to draw values from, and how; exactly one key."""

    uniform: Bounds | None = Field(None, description="[low, high]: evenly between them")
    log_uniform: Bounds | None = Field(
        None, description="[low, high]: evenly between their logarithms"
    )
    integers: IntegerBounds | None = Field(
        None, description="[low, high]: whole numbers from low to high, both included"
    )

    @model_validator(mode="after")
    def _one_range(self) -> RangeSection:
        given = [name for name in RangeSection.model_fields if getattr(self, name) is not None]
        if len(given) != 1:
            raise PydanticCustomError("one_range", "one of uniform, log_uniform and integers")
        low, high = getattr(self, given[0])
        if not low < high:
            raise PydanticCustomError("empty_range", "[low, high] with low below high")
        if given == ["log_uniform"] and low <= 0:
            raise PydanticCustomError("no_logarithm", "log_uniform of numbers above 0")
        return self


Draw = Annotated[
    Annotated[Values, Tag(CHOICES)] | Annotated[RangeSection, Tag("range")],
    Discriminator(lambda value: "range" if isinstance(value, dict | RangeSection) else CHOICES),
]


class SampledSection(Section):
    """Keys whose values are drawn."""

    points: Annotated[int, Field(ge=1, le=10_000_000)] = Field(
        description="how many combinations of values are drawn"
    )
    keys: Annotated[dict[str, Draw], Field(min_length=1)] = Field(
        description="for each key a list of choices, or a range: {uniform: [low, high]}, "
        "{log_uniform: [low, high]} or {integers: [low, high]}"
    )


class SweepSection(Section):
    """What `offramp sweep` varies; its parts are crossed with each other and with `--set`."""

    grid: dict[str, Values] = Field(
        {}, description="for each key its values; all combinations are made"
    )
    zip: dict[str, Values] = Field(
        {},
        description="for each key its values, as many for each: first with first, second with "
        "second",
    )
    random: SampledSection | None = Field(
        None, description="every combination drawn by itself; absent: none"
    )
    latin_hypercube: SampledSection | None = Field(
        None,
        description="combinations drawn so that each key's range is covered evenly: one in each "
        "of as many parts as there are points; absent: none",
    )
    seed: Annotated[int, Field(ge=0)] = Field(1, description="of what is drawn")
