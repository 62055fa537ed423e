"""What a configuration costs: the workers that it takes, or the energy of a request."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import pandas as pd

from models.errors import ScenarioError, did_you_mean
from offramp.schema import Scenario

CostKind = Literal["workers", "energy"]

#: Joules of a request, at devices and nodes that declare their power.
ENERGY = "j_per_request"
#: Seconds of computing of a run, wherever it is done.
COMPUTED = "computed_s"


@dataclass(frozen=True, order=True)
class Cost:
    """What a configuration costs; of two that cost the same, the next line decides.

    Attributes:
        amount: workers times their prices, or joules of a request.
        compute_s: mean seconds of computing for each request offered.
        energy_j: mean joules of a request; 0 where nobody declares any.
    """

    amount: float
    compute_s: float
    energy_j: float


def check_cost(kind: CostKind, prices: Mapping[str, float], scenario: Scenario) -> None:
    """See that a cost can be told.

    Raises:
        ScenarioError: a price is of no node, or energy is to be saved and none is declared.
    """
    for name in prices:
        if name not in scenario.nodes:
            raise ScenarioError(
                f"recommend.prices.{name}: no node is called {name!r}"
                f"{did_you_mean(name, scenario.nodes)} (there are: {', '.join(scenario.nodes)})"
            )
    if kind == "energy" and not declares_energy(scenario):
        raise ScenarioError(
            "--cost energy: no node and no device declares its power: give one of them a section "
            "`energy`, or let workers be the cost"
        )


def declares_energy(scenario: Scenario) -> bool:
    """Whether anything has power states."""
    return any(node.energy for node in scenario.nodes.values()) or any(
        group.energy for group in scenario.devices.values()
    )


def worker_cost(scenario: Scenario, prices: Mapping[str, float]) -> float:
    """Workers of all nodes, each replica's counted, times their prices."""
    return sum(
        node.workers * node.replicas * prices.get(name, 1.0)
        for name, node in scenario.nodes.items()
    )


def cost_of(kind: CostKind, workers: float, runs: pd.DataFrame) -> Cost:
    """The cost of a configuration.

    Args:
        workers: see :func:`worker_cost`.
        runs: of its simulation.
    """
    offered = float(runs["offered"].sum())
    compute_s = float(runs[COMPUTED].sum()) / offered
    energy_j = 0.0
    if ENERGY in runs:
        energy_j = float((runs[ENERGY] * runs["offered"]).sum()) / offered
    amount = workers if kind == "workers" else energy_j
    return Cost(amount, compute_s, energy_j)


def shown_cost(kind: CostKind, amount: float, priced: bool) -> str:
    """An amount with its unit.

    Args:
        priced: whether any price differs from 1.
    """
    if math.isnan(amount):
        return "unknown"
    if kind == "energy":
        return f"{amount:.4g} J per request"
    if priced:
        return f"{amount:g} (workers × price)"
    return f"{amount:g} worker{'' if amount == 1 else 's'}"
