"""What is told of a run, gathered from its slices while it goes on.

Memory grows with devices, nodes and bins of time, and not with requests, unless exact latency
percentiles are asked for.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from sim.distributions import Floats
from sim.energy import Joules, energy_metrics
from sim.outcomes import ON_TIME
from sim.results import energy_meter
from sim.results.fairness import jain_index
from sim.results.finished_visits import Finished, FinishedVisits
from sim.results.link_loads import LinkLoad, link_loads
from sim.results.metrics import ExactMetrics, RunMetrics, take_in
from sim.results.outcome_counts import OutcomeCounts
from sim.results.run import Run
from sim.results.summary import RunSummary
from sim.results.telemetry import bin_edges, events_in_bins, node_telemetry
from sim.results.trace_events import Event, TracedRequests, trace_events
from sim.results.traffic import TrafficMeter
from sim.results.verdict import NodeLoads
from sim.results.visits import Visits
from sim.world import World


def metrics_of(world: World, exact: bool) -> ExactMetrics | RunSummary:
    """What gathers the metrics of a run: exactly, or in memory that does not grow with it."""
    kind = ExactMetrics if exact else RunSummary
    return kind(world.warm_up_s, world.duration_s)


class Watcher(Protocol):
    """Looks at a run, slice by slice."""

    def add(self, part: Run, finished: Finished) -> None:
        """Take in a slice, and the visits that are finished with it."""


class Gathering:
    """Takes in one run, slice by slice.

    Args:
        exact: whether latency percentiles are exact, or come from a digest.
        watchers: what else looks at the run.
    """

    def __init__(self, world: World, exact: bool, watchers: Sequence[Watcher] = ()) -> None:
        self._world = world
        self._visits = FinishedVisits()
        self._watchers = watchers
        self._metrics: RunMetrics = metrics_of(world, exact)
        self._traffic = TrafficMeter(world)
        self.nodes = NodeLoads(world)
        self.devices = OutcomeCounts.none(world.devices)

    def add(self, part: Run) -> None:
        """Take in a slice."""
        finished = self._visits.add(part)
        take_in(self._metrics, part)
        self.devices.add_part(self._world, part)
        self._traffic.add(part, finished)
        self.nodes.add(finished)
        for watcher in self._watchers:
            watcher.add(part, finished)

    @property
    def computed_s(self) -> float:
        """Seconds of computing that the window took, at nodes and at devices that compute."""
        return float(self.nodes.busy_s.sum() + self._traffic.computed_s.sum())

    @property
    def summary(self) -> RunSummary | None:
        """The digest of the run, if its percentiles are not exact."""
        return self._metrics if isinstance(self._metrics, RunSummary) else None

    def request_metrics(self) -> dict[str, float]:
        """Metrics of the run's requests alone: see :func:`sim.results.metrics.run_metrics`."""
        return self._metrics.metrics()

    def metrics(self) -> dict[str, float]:
        """All metrics of the run; energy only where something has power states.

        As :func:`sim.results.metrics.run_metrics`, the latency of the first quarter and of the
        rest, the fairness among devices (Jain's index of AUD), and energy in joules.
        """
        first_quarter_s, rest_s = self._metrics.settling()
        return {
            **self.request_metrics(),
            "first_quarter_s": first_quarter_s,
            "rest_s": rest_s,
            "jain_aud": jain_index(self.devices.aud),
            **self._energy_metrics(),
        }

    def links(self) -> list[LinkLoad]:
        """Load of the links that can only carry so much."""
        return link_loads(self._world, self._traffic.traffic())

    def energy(self) -> tuple[dict[str, Joules], dict[str, Joules]]:
        """Energy over the measured window, by device group and by kind of node."""
        traffic, computed_s = self._traffic.traffic(), self._traffic.computed_s
        return (
            energy_meter.device_joules(self._world, traffic, computed_s),
            energy_meter.node_joules(self._world, self.nodes.busy_s),
        )

    def _energy_metrics(self) -> dict[str, float]:
        if not energy_meter.has_energy(self._world):
            return {}
        devices, nodes = self.energy()
        metrics = energy_metrics(
            energy_meter.together(list(devices.values())),
            energy_meter.together(list(nodes.values())),
            int(self.devices.offered.sum()),
            int(self.devices.correct_on_time.sum()),
        )
        unknown = [] if devices else ["device_j", "device_j_per_request"]
        unknown += [] if nodes else ["node_j"]
        return {name: value for name, value in metrics.items() if name not in unknown}


# --- telemetry -----------------------------------------------------------------------------------


class Telemetry:
    """Queue lengths, utilisation and rates over time, from the start to the window's end."""

    def __init__(self, world: World, step_s: float) -> None:
        self._world = world
        self._edges_s = bin_edges(0.0, world.horizon_s, step_s)
        self._workers = [spec.workers for spec in world.node_specs]
        self._nodes = self._of_nodes(Visits.of_rows([]))
        bins = len(self._edges_s) - 1
        self._created, self._answered, self._on_time, self._correct = (
            np.zeros(bins, dtype=np.int64) for _ in range(4)
        )

    def _of_nodes(self, visits: Visits) -> pd.DataFrame:
        names = self._world.node_names
        return node_telemetry(visits, names, self._workers, self._edges_s)

    def add(self, part: Run, finished: Finished) -> None:
        """See :class:`Watcher`."""
        visits = finished.visits
        at_nodes = self._of_nodes(visits.where(visits.node < len(self._workers)))
        for name in at_nodes.columns[2:]:  # all but time and node: each visit adds its own
            self._nodes[name] += at_nodes[name]
        created_s, on_time = part.requests.created_s, part.outcome == ON_TIME
        self._created += self._count(created_s)
        self._answered += self._count(part.received_s[part.answered])
        self._on_time += self._count(created_s[on_time])
        self._correct += self._count(created_s[on_time & part.correct])

    def _count(self, time_s: Floats) -> NDArray[np.int64]:
        all_one = np.zeros(len(time_s), dtype=np.int64)
        count: NDArray[np.int64] = events_in_bins(all_one, 1, time_s, self._edges_s)[0]
        return count

    def nodes(self) -> pd.DataFrame:
        """See :func:`sim.results.telemetry.node_telemetry`."""
        return self._nodes

    def requests(self) -> pd.DataFrame:
        """See :func:`sim.results.telemetry.request_telemetry`."""
        width_s, offered = np.diff(self._edges_s), np.maximum(self._created, 1)
        some = self._created > 0
        return pd.DataFrame(
            {
                "time_s": self._edges_s[:-1],
                "offered_hz": self._created / width_s,
                "answered_hz": self._answered / width_s,
                "aud": np.where(some, self._correct / offered, np.nan),
                "hit_ratio": np.where(some, self._on_time / offered, np.nan),
            }
        )


# --- trace ---------------------------------------------------------------------------------------


class Trace:
    """Keeps the requests that are under way in a window of time, to be drawn as a trace."""

    def __init__(self, world: World, from_s: float, to_s: float) -> None:
        self._world = world
        self._from_s, self._to_s = from_s, to_s
        self._parts: list[Run] = []
        self._kept = np.zeros(0, dtype=np.int64)
        self._visits: list[Visits] = [Visits.of_rows([])]

    def add(self, part: Run, finished: Finished) -> None:
        """See :class:`Watcher`."""
        created_s = part.requests.created_s
        seen_s = np.fmax(created_s, part.released_s)
        ended_s = np.where(part.answered, part.received_s, seen_s)
        under_way = (created_s < self._to_s) & (
            (ended_s > self._from_s) | (created_s >= self._from_s)
        )
        if under_way.any():
            self._parts.append(part.where(under_way))
            self._kept = np.union1d(self._kept, part.index[under_way])
        # A visit is finished with its request, or after it.
        kept = np.isin(finished.visits.request, self._kept)
        if kept.any():
            self._visits.append(finished.visits.where(kept))

    def events(self) -> list[Event]:
        """See :func:`sim.results.trace_events.trace_events`."""
        world, index = self._world, self._kept
        if not self._parts:
            return trace_events(
                _NO_TRACED, self._visits[0], str, world.node_names, self._from_s, self._to_s
            )
        run = Run.joined(self._parts)
        visits = Visits.joined(self._visits)
        # Nodes that a device is are drawn only if they are seen.
        names = list(world.node_names)
        own = np.unique(visits.node[visits.node >= len(names)])
        node = np.where(
            visits.node < len(names), visits.node, len(names) + np.searchsorted(own, visits.node)
        )
        names += [world.server_name(it) for it in own.tolist()]
        events = trace_events(
            TracedRequests(
                run.requests.device,
                run.requests.created_s,
                run.deadline_s,
                np.where(run.answered, run.received_s, np.nan),
                np.where(run.answered, run.exit, 0),
                run.correct,
                run.outcome,
            ),
            Visits(
                np.searchsorted(index, visits.request),
                node,
                visits.arrived_s,
                visits.started_s,
                visits.left_s,
                visits.released_s,
                visits.batch,
            ),
            world.device_name,
            names,
            self._from_s,
            self._to_s,
        )
        for event in events:  # with the numbers that requests have in the records
            if "request" in event.get("args", {}):
                event["args"]["request"] = int(index[event["args"]["request"]])
        return events


_NONE = np.zeros(0)
_NO_TRACED = TracedRequests(
    np.zeros(0, dtype=np.int64),
    _NONE,
    _NONE,
    _NONE,
    np.zeros(0, dtype=np.int64),
    np.zeros(0, dtype=bool),
    np.zeros(0, dtype=np.int64),
)
