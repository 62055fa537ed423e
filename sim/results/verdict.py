"""Whether a world can carry its load, and whether a result may be relied on."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from sim.nodes.spec import NodeSpec
from sim.outcomes import OUTCOMES
from sim.results.finished_visits import Finished, FinishedVisits
from sim.results.metrics import ExactMetrics, half_widths, take_in
from sim.results.run import Run
from sim.workload.arrivals import ClosedLoop
from sim.world import World

#: The latency of the first quarter of the window may differ from the rest by this much.
SETTLED_WITHIN = 0.1

#: A node whose queue cannot grow is always busy from this much work per worker-second on; a little
#: less than 1, since work counts for the window in which its request was created.
SATURATED_FROM = 0.95

#: Fewer measured requests than this in a run are too few for percentiles.
ENOUGH_REQUESTS = 100

#: Verdicts on the load of a node, the worst last; see :func:`load_verdict`.
VERDICTS = ("STABLE", "BACKLOGGED", "SATURATED", "OVERLOADED")

#: Then all arms are equal, whatever they are.
NOTHING_IN_TIME = (
    "no request was answered in time under any policy: nothing can be said of strategies or "
    "policies"
)


@dataclass(frozen=True)
class OfferedLoad:
    """What is asked of a node before a run.

    Attributes:
        rate_hz: requests per second from all its devices.
        load: mean work brought per second and worker if every request stopped at exit *k + 1*;
            from 1 on, the queue grows without bound.
        stepwise: as ``load``, had each gone there exit by exit, as policies do that look at every
            answer: they compute the classifiers of all exits on the way.
        sent_on_hz: requests per second that nodes before it may send on at most, besides.
        looping: devices that ask it in closed loops, besides: they send as fast as they are served.
    """

    node: str
    workers: int
    rate_hz: float
    load: tuple[float, ...]
    stepwise: tuple[float, ...]
    sent_on_hz: float = 0.0
    looping: int = 0


def offered_loads(world: World) -> list[OfferedLoad]:
    """The offered load of every kind of node, for each exit."""

    def asked_hz(name: str, computing: bool = False) -> float:
        """Of devices that send all they have, or of those that compute, which may send it on."""
        return sum(
            group.count * group.arrivals.rate()
            for group in world.groups
            if group.node == name
            and not isinstance(group.arrivals, ClosedLoop)
            and (group.service is not None) == computing
        )

    loads = []
    for node in world.nodes:
        rate = asked_hz(node.name)
        before = [other.name for other in world.nodes if leads_to(world, other, node.name)]
        workers = node.workers * node.replicas
        per_second = rate / workers / _undelayed(node, rate)
        besides_s = node.overheads.occupied_s if node.overheads else 0.0
        straight, stepwise = (
            tuple(per_second * (mean_s + besides_s) for mean_s in means[: node.last_exit])
            for means in (node.service.means(), node.service.stepwise_means())
        )
        loads.append(
            OfferedLoad(
                node.name,
                workers,
                rate,
                straight,
                stepwise,
                asked_hz(node.name, computing=True)
                + sum(asked_hz(it) + asked_hz(it, computing=True) for it in before),
                sum(
                    group.count
                    for group in world.groups
                    if group.node == node.name and isinstance(group.arrivals, ClosedLoop)
                ),
            )
        )
    return loads


def _undelayed(node: NodeSpec, rate_hz: float) -> float:
    """Share of the time of busy workers that messages do not take from them.

    Each message delays the B workers of its node that are busy, B on average: their work a second
    is B = rate * (mean + delay * B). Near nothing where messages alone take all of it.
    """
    if node.overheads is None:
        return 1.0
    return max(1.0 - rate_hz / node.replicas * node.overheads.disturb_s, 1e-9)


def leads_to(world: World, node: NodeSpec, name: str) -> bool:
    """Whether requests that reach ``node`` may be sent on to ``name``."""
    while node.next_tier is not None and node.next_tier != name:
        node = world.nodes[world.kind(node.next_tier)]
    return node.next_tier == name


def node_metrics(world: World, run: Run) -> list[dict[str, float | str]]:
    """See :class:`NodeLoads`, of a whole run."""
    loads = NodeLoads(world)
    loads.add(FinishedVisits().add(run))
    return loads.metrics()


class NodeLoads:
    """For each kind of node of one run: work brought, waiting, and what was left at the end.

    ``work`` is the seconds for which the requests of the measured window kept workers busy, over
    the worker-seconds of the window; a batch counts for the first created of its requests.
    ``drain_s`` is how long after the window a worker was still busy with a request that had reached
    the node by then. Devices that compute are not among the nodes. Memory does not grow with the
    requests.
    """

    def __init__(self, world: World) -> None:
        self._world = world
        kinds = len(world.nodes)
        #: Worker-seconds, by kind of node.
        self.busy_s = np.zeros(kinds)
        self._waited_s, self._started = np.zeros(kinds), np.zeros(kinds, dtype=np.int64)
        self._deadlines_s, self._visits = np.zeros(kinds), np.zeros(kinds, dtype=np.int64)
        self._last_s = np.zeros(kinds)

    def add(self, finished: Finished) -> None:
        """Take in visits."""
        world, kinds = self._world, len(self._world.nodes)
        visits = finished.visits
        counts = (finished.created_s >= world.warm_up_s) & (visits.node < len(world.node_names))
        number = visits.service_number()
        services = visits.services(number)
        # Visits come in the order of creation: the first of a batch stands for it.
        served = np.flatnonzero(number >= 0)
        began = served[np.unique(number[served], return_index=True)[1]]
        of_window = counts[began]
        kind = np.searchsorted(world.first_node, visits.node, side="right") - 1
        busy_s = (services.ended_s - services.started_s)[of_window]
        self.busy_s += np.bincount(kind[began[of_window]], weights=busy_s, minlength=kinds)
        visits, kind = visits.where(counts), kind[counts]
        started = ~np.isnan(visits.started_s)
        waited_s = (visits.started_s - visits.arrived_s)[started]
        self._waited_s += np.bincount(kind[started], weights=waited_s, minlength=kinds)
        self._started += np.bincount(kind[started], minlength=kinds)
        deadline_s = finished.deadline_s[counts]
        self._deadlines_s += np.bincount(kind, weights=deadline_s, minlength=kinds)
        self._visits += np.bincount(kind, minlength=kinds)
        reached = visits.arrived_s <= world.horizon_s
        np.fmax.at(self._last_s, kind[reached], visits.released_s[reached])

    def metrics(self) -> list[dict[str, float | str]]:
        """One row for each kind of node."""
        return [
            {
                "node": node.name,
                "work": float(self.busy_s[kind])
                / (self._world.duration_s * node.workers * node.replicas),
                "wait_mean_s": float(self._waited_s[kind]) / max(1, int(self._started[kind])),
                "drain_s": max(0.0, float(self._last_s[kind]) - self._world.horizon_s),
                "deadline_mean_s": float(self._deadlines_s[kind]) / max(1, int(self._visits[kind])),
                "bounded": _is_bounded(self._world, node),
            }
            for kind, node in enumerate(self._world.nodes)
        ]


def _is_bounded(world: World, node: NodeSpec) -> bool:
    """Whether the queue of a node cannot grow with the window, whatever it is asked.

    So it is where the queue has a limit, and where every request comes from a closed loop: no
    device has two of them waiting.
    """
    if node.queue_limit is not None:
        return True
    asking = {node.name}
    asking |= {other.name for other in world.nodes if leads_to(world, other, node.name)}
    return all(
        isinstance(group.arrivals, ClosedLoop) for group in world.groups if group.node in asking
    )


def load_verdict(work: float, drain_s: float, deadline_s: float, bounded: bool = False) -> str:
    """``STABLE``, ``BACKLOGGED``, ``SATURATED`` or ``OVERLOADED``.

    Args:
        work: brought per second and worker; from 1 on the queue grows for as long as the window
            lasts, and results depend on its length: OVERLOADED.
        drain_s: until the queue was empty after the window. If that is longer than a mean
            deadline, the node kept up in the long run but answered in vain: BACKLOGGED.
        deadline_s: mean deadline of the requests.
        bounded: whether the queue cannot grow: then a node that is (nearly) always busy is
            SATURATED, and results are what they are however long the window is.
    """
    if bounded and work >= SATURATED_FROM:
        return "SATURATED"
    if work >= 1:
        return "OVERLOADED"
    return "BACKLOGGED" if drain_s > deadline_s else "STABLE"


def settling(world: World, run: Run) -> tuple[float, float]:
    """Mean latency of answered requests in the first quarter of the window, and in the rest."""
    exact = ExactMetrics(world.warm_up_s, world.duration_s)
    take_in(exact, run)
    return exact.settling()


def doubts(
    runs: pd.DataFrame,
    nodes: pd.DataFrame,
    training_seeds: int,
    replications: int,
    compares: bool,
    links: pd.DataFrame | None = None,
    replications_key: str = "simulation.replications",
    seeds_key: str = "training.seeds",
    planned_changes: Sequence[str] = (),
) -> list[str]:
    """Reasons why a result is INVALID; none if it is VALID.

    Args:
        runs: one row per run, with ``offered``, ``on_time``, ``first_quarter_s`` and ``rest_s``.
        nodes: one row per policy, node and strategy, with ``verdict``.
        compares: whether strategies are compared, for which training seeds are counted.
        links: one row per policy, link, direction and strategy, with ``load`` and ``verdict``.
        replications_key, seeds_key: what the user changes to have more of them.
        planned_changes: what of the world changes inside the window at times that are the same in
            every replication, as a rate that follows a curve. Latency moves with it, whatever the
            warm-up, so that settling is not judged.
    """
    reasons = []
    if len(policies_in_vain(runs)) == runs["policy"].nunique():
        reasons.append(NOTHING_IN_TIME)
    if replications < 2:
        reasons.append(f"too few replications: 1 gives no interval ({replications_key})")
    if compares and training_seeds < 2:
        reasons.append(f"too few training seeds: 1 says nothing of another training ({seeds_key})")
    fewest = int(runs["offered"].min())
    if fewest < ENOUGH_REQUESTS:
        reasons.append(
            f"too short: a run measured {fewest} requests, at least {ENOUGH_REQUESTS} are needed "
            "(simulation.duration_s)"
        )
    reasons += [
        f"node {node!r} is overloaded under {arms}: figures depend on the window's length"
        for (node,), arms in _overloaded(nodes, ["node"])
    ]
    if links is not None:
        shown = links.assign(carried=[f"{load:.2f}" for load in links["load"]])
        reasons += [
            f"the {direction} of link {link!r} is offered {load} of what it can carry under "
            f"{arms}: figures depend on the window's length"
            for (link, direction, load), arms in _overloaded(
                shown, ["link", "direction", "carried"]
            )
        ]
    # Each strategy by itself: the mean over those that have settled may hide one that has not.
    unsettled = [] if planned_changes else unsettled_arms(runs, ["policy", "strategy"])
    if unsettled:
        reasons.append(
            f"warm-up not settled for {_named_arms(unsettled)}: latency still moves inside the "
            "window (simulation.warm_up_s)"
        )
    return reasons


def _overloaded(verdicts: pd.DataFrame, keys: list[str]) -> list[tuple[tuple[str, ...], str]]:
    """What is overloaded, by ``keys``, and the arms with which it is, as text."""
    overloaded = verdicts[verdicts["verdict"] == "OVERLOADED"]
    return [
        (place, _named_arms(zip(of_place["policy"], of_place["strategy"], strict=True)))
        for place, of_place in overloaded.groupby(keys, sort=False)
    ]


def _named_arms(arms: Iterable[tuple[Any, Any]]) -> str:
    """Policies and strategies as text: policies of the same strategies together."""
    by_policy: dict[str, list[str]] = {}
    for policy, strategy in arms:
        by_policy.setdefault(str(policy), []).append(str(strategy))
    by_strategies: dict[str, list[str]] = {}
    for policy, strategies in by_policy.items():
        by_strategies.setdefault(", ".join(strategies), []).append(policy)
    return "; ".join(
        f"{', '.join(policies)} with {strategies}" for strategies, policies in by_strategies.items()
    )


def overloaded_runs(runs: pd.DataFrame) -> pd.Series:
    """Of each run, whether a node or link was OVERLOADED, so that the window's length matters.

    Args:
        runs: with ``verdict``; none is known to be without it.
    """
    if "verdict" not in runs:
        return pd.Series(False, index=runs.index)
    return runs["verdict"] == VERDICTS[-1]


def policies_in_vain(runs: pd.DataFrame) -> list[str]:
    """Policies under which requests were offered, and none was answered in time."""
    totals = runs.groupby("policy", sort=False)[["offered", "on_time"]].sum()
    return list(totals.index[(totals["offered"] > 0) & (totals["on_time"] == 0)])


def unsettled_arms(runs: pd.DataFrame, arm: list[str]) -> list[tuple[Any, ...]]:
    """Arms whose latency in the first quarter of the window differs from that in the rest.

    Args:
        runs: one row per arm, training seed and ``replication``, with ``first_quarter_s`` and
            ``rest_s``.
        arm: columns that tell arms apart.

    Returns:
        Values of ``arm`` where the difference is beyond 10 % and, by its 99 % interval over
        replications (Student's t), beyond chance.
    """
    by_replication = runs.groupby([*arm, "replication"], sort=False)
    means = by_replication[["first_quarter_s", "rest_s"]].mean()
    change = (means["first_quarter_s"] / means["rest_s"] - 1).dropna().groupby(arm, sort=False)
    mean = change.mean()
    beyond_chance = mean.abs() > half_widths(change, 0.99)
    unsettled = beyond_chance & (mean.abs() > SETTLED_WITHIN)
    return list(mean.index[unsettled])


def outcome_shares(runs: pd.DataFrame) -> pd.DataFrame:
    """Share of all offered requests that met each outcome, by strategy and policy."""
    totals = runs.groupby(["strategy", "policy"], sort=False)[["offered", *OUTCOMES]].sum()
    return totals[list(OUTCOMES)].div(totals["offered"], axis=0)
