"""The block ``recommend:`` of a scenario: what ``offramp recommend`` searches."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from offramp.schema.base import Section
from offramp.schema.sweep import Draw


class RecommendSection(Section):
    """How `offramp recommend` looks for the cheapest configuration that meets a target."""

    keys: dict[str, Draw] = Field(
        {},
        description="for each key a list of choices, or a range: {uniform: [low, high]}, "
        "{log_uniform: [low, high]} or {integers: [low, high]}. Empty: the workers of every node, "
        "from 1 to 8, or to twice those given where that is more",
    )
    policies: Literal["all", "scenario"] = Field(
        "all",
        description="those of the scenario, and fixed_exit, deadline_aware, load_adaptive, "
        "confidence, deadline_confidence and, with tiers, offload; or the scenario's alone",
    )
    prices: dict[str, Annotated[float, Field(ge=0)]] = Field(
        {}, description="of one worker of each node; of nodes that are not named: 1"
    )
    trials: Annotated[int, Field(ge=1, le=10_000)] = Field(
        60,
        description="configurations that are simulated for each strategy, at most; besides them "
        "those that the scenario gives, where the whole space is simulated",
    )
    screening_replications: Annotated[int, Field(ge=1)] = Field(
        3, description="replications with which they are compared; at least 2"
    )
    replications: Annotated[int, Field(ge=1)] | None = Field(
        None,
        description="fresh replications with which the best are verified, at least 2; absent: as "
        "many as simulation.replications, and not fewer than 10",
    )
    seed: Annotated[int, Field(ge=0)] = Field(1, description="of the search")
