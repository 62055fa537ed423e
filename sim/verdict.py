"""Whether a world can carry its load, and whether a result may be relied on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from sim import records
from sim.metrics import confidence_interval
from sim.world import Run, World

#: The latency of the first quarter of the window may differ from the rest by this much.
SETTLED_WITHIN = 0.1

#: Fewer measured requests than this in a run are too few for percentiles.
ENOUGH_REQUESTS = 100


@dataclass(frozen=True)
class OfferedLoad:
    """What is asked of a node before a run.

    Attributes:
        rate_hz: requests per second from all its devices.
        load: mean work brought per second and worker if every request stopped at exit *k + 1*;
            from 1 on, the queue grows without bound.
    """

    node: str
    workers: int
    rate_hz: float
    load: tuple[float, ...]


def offered_loads(world: World) -> list[OfferedLoad]:
    """The offered load of every node, for each exit."""
    loads = []
    for node in world.nodes:
        rate = sum(
            group.count * group.arrivals.rate() for group in world.groups if group.node == node.name
        )
        load = tuple(rate * mean / node.workers for mean in node.service.means())
        loads.append(OfferedLoad(node.name, node.workers, rate, load))
    return loads


def node_metrics(world: World, run: Run) -> list[dict[str, float | str]]:
    """For each node of one run: work brought, waiting, and what was left at the window's end.

    ``work`` is the seconds of service that the requests of the measured window took, over the
    worker-seconds of the window. ``drain_s`` is how long after the window a worker was still busy
    with a request that had reached the node by then.
    """
    requests = run.workload.requests
    rows = run.measured(world)
    metrics: list[dict[str, float | str]] = []
    for index, node in enumerate(world.nodes):
        here = rows & (run.workload.node == index)
        work = float(np.nansum((run.released_s - run.started_s)[here]))
        waited = (run.started_s - requests.arrived_s)[here & ~np.isnan(run.started_s)]
        reached = here & (requests.arrived_s <= world.horizon_s)
        last = float(np.nanmax(run.released_s[reached], initial=0.0))
        metrics.append(
            {
                "node": node.name,
                "work": work / (world.duration_s * node.workers),
                "wait_mean_s": float(waited.mean()) if len(waited) else 0.0,
                "drain_s": max(0.0, last - world.horizon_s),
                "deadline_mean_s": float(run.deadline_s[here].mean()) if here.any() else 0.0,
            }
        )
    return metrics


def load_verdict(work: float, drain_s: float, deadline_s: float) -> str:
    """``STABLE``, ``BACKLOGGED`` or ``OVERLOADED``.

    Args:
        work: brought per second and worker; from 1 on the queue grows for as long as the window
            lasts, and results depend on its length: OVERLOADED.
        drain_s: until the queue was empty after the window. If that is longer than a mean
            deadline, the node kept up in the long run but answered in vain: BACKLOGGED.
        deadline_s: mean deadline of the requests.
    """
    if work >= 1:
        return "OVERLOADED"
    return "BACKLOGGED" if drain_s > deadline_s else "STABLE"


def settling(world: World, run: Run) -> tuple[float, float]:
    """Mean latency of answered requests in the first quarter of the window, and in the rest."""
    created = run.workload.requests.created_s
    latency = run.received_s - created
    answered = run.measured(world) & (run.exit > 0)
    early = created < world.warm_up_s + world.duration_s / 4
    first, rest = latency[answered & early], latency[answered & ~early]
    return (
        float(first.mean()) if len(first) else float("nan"),
        float(rest.mean()) if len(rest) else float("nan"),
    )


def doubts(
    runs: pd.DataFrame, nodes: pd.DataFrame, training_seeds: int, replications: int, compares: bool
) -> list[str]:
    """Reasons why a result is INVALID; none if it is VALID.

    Args:
        runs: one row per run, with ``offered``, ``first_quarter_s`` and ``rest_s``.
        nodes: one row per run and node, with ``verdict``.
        compares: whether strategies are compared, for which training seeds are counted.
    """
    reasons = []
    if replications < 2:
        reasons.append("too few replications: 1 gives no interval (simulation.replications)")
    if compares and training_seeds < 2:
        reasons.append(
            "too few training seeds: 1 says nothing of another training (training.seeds)"
        )
    fewest = int(runs["offered"].min())
    if fewest < ENOUGH_REQUESTS:
        reasons.append(
            f"too short: a run measured {fewest} requests, at least {ENOUGH_REQUESTS} are needed "
            "(simulation.duration_s)"
        )
    overloaded = nodes[nodes["verdict"] == "OVERLOADED"]
    reasons += [
        f"node {row.node!r} is overloaded under {row.policy}: figures depend on the window's length"
        for row in overloaded.itertuples()
    ]
    unsettled = _unsettled(runs)
    if unsettled:
        reasons.append(
            f"warm-up not settled for {', '.join(unsettled)}: latency still moves inside the "
            "window (simulation.warm_up_s)"
        )
    return reasons


def _unsettled(runs: pd.DataFrame) -> Sequence[str]:
    """Policies whose latency in the first quarter differs from the rest, beyond chance and 10 %."""
    names = []
    for policy, of_policy in runs.groupby("policy", sort=False):
        by_replication = of_policy.groupby("replication")[["first_quarter_s", "rest_s"]].mean()
        change = (by_replication["first_quarter_s"] / by_replication["rest_s"] - 1).dropna()
        interval = confidence_interval(change.to_numpy(), level=0.99)
        beyond_chance = interval.low > 0 or interval.high < 0
        if interval.n >= 2 and beyond_chance and abs(interval.mean) > SETTLED_WITHIN:
            names.append(str(policy))
    return names


def outcome_shares(runs: pd.DataFrame) -> pd.DataFrame:
    """Share of all offered requests that met each outcome, by strategy and policy."""
    totals = runs.groupby(["strategy", "policy"], sort=False)[["offered", *records.OUTCOMES]].sum()
    return totals[list(records.OUTCOMES)].div(totals["offered"], axis=0)
