"""Tables of the faults that one replication met; every arm met the same."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from sim.faults import Intervals
from sim.network.topology import Absences
from sim.world import World

#: Links of one kind that go down together are one row; of more that do not, none is listed.
_MOST_LISTED = 100


def fault_counts(world: World, absences: Absences) -> list[dict[str, Any]]:
    """How often each kind of fault befell each target, and for how long in all until the end.

    ``count`` and ``down_s`` are sums over the nodes, links or devices of that name; of a slow
    node, ``down_s`` is how long it was slow.
    """
    rows = []
    for kind, target, names, times in _faults(world, absences):
        start_s = np.minimum(times.start_s, world.horizon_s)
        seconds = np.minimum(times.end_s, world.horizon_s) - start_s
        rows.append(
            {
                "kind": kind,
                "target": target,
                "targets": len(names),
                "count": times.total,
                "down_s": float(seconds.sum()),
            }
        )
    return rows


def fault_times(world: World, absences: Absences) -> list[dict[str, Any]]:
    """When nodes, links and the broker were down, or nodes slow: one row per interval.

    ``name`` is the node's, or empty where all links of a kind were down together.
    """
    rows = []
    for kind, target, names, times in _faults(world, absences):
        if kind == "device_churn":
            continue
        together = bool(
            (times.start_s == times.start_s[:1]).all() and (times.end_s == times.end_s[:1]).all()
        )
        if kind == "link_outage" and together:
            names = [""]
        elif len(names) > _MOST_LISTED:
            continue
        for thing, name in enumerate(names):
            for start_s, end_s in times.of(thing):
                row = {"kind": kind, "target": target, "name": name}
                rows.append({**row, "start_s": start_s, "end_s": end_s})
    return rows


def _faults(world: World, absences: Absences) -> Iterator[tuple[str, str, list[str], Intervals]]:
    """Kind, target, names of the single things, and when each was down; where there are any."""
    slow: dict[str, list[tuple[str, list[tuple[float, float]]]]] = {}
    for index, _, intervals in absences.slow:
        kind = world.node_specs[index].name
        slow.setdefault(kind, []).append((world.node_names[index], intervals))
    for index, node in enumerate(world.nodes):
        first, end = world.first_node[index], world.first_node[index + 1]
        if absences.nodes is not None:
            times = Intervals(absences.nodes.start_s[first:end], absences.nodes.end_s[first:end])
            if times.total:
                yield "node_crash", node.name, world.node_names[first:end], times
        of_kind = slow.get(node.name, [])
        found = Intervals.of_rows([intervals for _, intervals in of_kind])
        if found is not None:
            yield "slow_node", node.name, [name for name, _ in of_kind], found
    if absences.broker is not None:
        yield "broker_restart", "", ["broker"], absences.broker
    for name, times in absences.links.items():
        yield "link_outage", name, [f"{name}-{it}" for it in range(len(times.start_s))], times
    for group, away in zip(world.groups, absences.devices, strict=True):
        if away is not None:
            yield "device_churn", group.name, [""] * group.count, away
