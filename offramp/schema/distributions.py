"""Distributions as they are written in a scenario."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Discriminator, Field, Tag

from offramp.schema.base import Section


class ConstantSpec(Section):
    """Always the same value."""

    distribution: Literal["constant"]
    value: Annotated[float, Field(ge=0)]


class UniformSpec(Section):
    """Uniform between two values."""

    distribution: Literal["uniform"]
    low: Annotated[float, Field(ge=0)]
    high: Annotated[float, Field(gt=0)]


class ExponentialSpec(Section):
    """Exponential with a given mean."""

    distribution: Literal["exponential"]
    mean: Annotated[float, Field(gt=0)]


class NormalSpec(Section):
    """Normal, truncated at zero."""

    distribution: Literal["normal"]
    mean: Annotated[float, Field(gt=0)]
    sd: Annotated[float, Field(gt=0)]


class LognormalSpec(Section):
    """Lognormal, by its median and the standard deviation of its logarithm."""

    distribution: Literal["lognormal"]
    median: Annotated[float, Field(gt=0)]
    sigma: Annotated[float, Field(gt=0)]


class GammaSpec(Section):
    """Gamma, by its mean and standard deviation."""

    distribution: Literal["gamma"]
    mean: Annotated[float, Field(gt=0)]
    sd: Annotated[float, Field(gt=0)]


class ScipySpec(Section):
    """A continuous distribution of scipy.stats with its parameters there, loc and scale too."""

    model_config = ConfigDict(extra="allow", strict=True, frozen=True, allow_inf_nan=False)
    __pydantic_extra__: dict[str, float] = Field(init=False)

    distribution: Literal["scipy"]
    name: str

    @property
    def parameters(self) -> dict[str, float]:
        """Keys other than ``distribution`` and ``name``."""
        return dict(self.__pydantic_extra__ or {})


class EmpiricalSpec(Section):
    """One of the values in a file, one on each line, in the unit of the key."""

    distribution: Literal["empirical"]
    file: str


def _distribution_tag(value: Any) -> str | None:
    if isinstance(value, dict):
        return value.get("distribution")
    return "number" if not isinstance(value, Section) else getattr(value, "distribution", None)


DistributionSpec = Annotated[
    Annotated[Annotated[float, Field(ge=0)], Tag("number")]
    | Annotated[ConstantSpec, Tag("constant")]
    | Annotated[UniformSpec, Tag("uniform")]
    | Annotated[ExponentialSpec, Tag("exponential")]
    | Annotated[NormalSpec, Tag("normal")]
    | Annotated[LognormalSpec, Tag("lognormal")]
    | Annotated[GammaSpec, Tag("gamma")]
    | Annotated[ScipySpec, Tag("scipy")]
    | Annotated[EmpiricalSpec, Tag("empirical")],
    Discriminator(_distribution_tag),
]
