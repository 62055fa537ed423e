"""What one run of an arm gives to the tables, whether it was simulated or measured live."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from models.artifacts import Predictions
from models.errors import ScenarioError
from offramp.stages.jobs import Job, Network, PolicyText, Replication, Row
from offramp.stages.layout import (
    DEADLINE_SWEEP,
    ENERGY,
    GROUPS,
    LINKS,
    NODE_TELEMETRY,
    NODES,
    REQUEST_TELEMETRY,
    RUNS,
)
from offramp.stages.record_parts import RecordParts
from sim.policies import Confidence, FixedExit, Full
from sim.policy import Policy
from sim.results.gathering import Gathering, Telemetry, Trace, Watcher
from sim.results.link_loads import LinkLoad
from sim.results.run import Run, record_table
from sim.results.trace_events import write_trace
from sim.world import World

#: Of more devices than this, no table by device is written.
MOST_LISTED_DEVICES = 10_000


class ArmTables:
    """Takes in the run of one network under one policy, slice by slice, and tells of it.

    Args:
        text: the policy's; ``policy`` is what was built of it for this network.
    """

    def __init__(
        self,
        job: Job,
        network: Network,
        predictions: Predictions,
        text: PolicyText,
        policy: Policy,
        replication: int,
    ) -> None:
        self._job = job
        self._world = job.world
        self._predictions = predictions
        self._arm = (*network, text.label)
        self._replication = replication
        self._row: Row = {
            "strategy": network[0],
            "training_seed": network[1],
            "policy": text.label,
            "replication": replication,
        }
        self._scales = [scale for scale in job.deadline_scales if scale != 1.0]
        blind = never_looks_at_deadlines(self._world, policy)
        self._rescaled = [_Rescaled(self._world, scale) for scale in self._scales if blind]
        self._watchers = self._first_watchers()
        self._gathering = Gathering(self._world, job.keeps_records, [*self._watchers.values()])
        #: Answered requests of the window, by exit; at 0, those without an answer.
        self._exits = np.zeros(predictions.exit_count + 1, dtype=np.int64)

    @property
    def unknown_scales(self) -> list[float]:
        """Scales of the deadlines of which the run at scale 1 tells nothing."""
        return [] if self._rescaled else self._scales

    def add(self, part: Run, parts: RecordParts | None) -> None:
        """Take in a slice of the run at scale 1, and write its records down if they are kept."""
        self._gathering.add(part)
        exits = np.where(part.answered, part.exit, 0)[part.measured(self._world)]
        self._exits += np.bincount(exits, minlength=len(self._exits))
        for other in self._rescaled:
            other.add(part)
        if parts is not None:
            table = record_table(self._world, part, self._predictions, *self._arm)
            parts.add(table)

    def tell(
        self, result: Replication, folder: Path, number: int, sweep: dict[float, dict[str, float]]
    ) -> None:
        """Once the run is whole, add its rows to the tables.

        Args:
            folder: for traces.
            number: of the arm.
            sweep: metrics at :attr:`unknown_scales`, as far as they are known.

        Raises:
            ScenarioError: no request was created in the measured window.
        """
        run = self.run_row()
        at_1 = self._gathering.request_metrics()
        sweep = {1.0: at_1, **{it.scale: it.metrics(at_1) for it in self._rescaled}, **sweep}
        result.add(
            DEADLINE_SWEEP,
            [
                {**self._row, "deadline_scale": scale, **sweep[scale]}
                for scale in self._job.deadline_scales
                if scale in sweep
            ],
        )
        self._tell(result, run)
        self._show(result, folder, number)

    def run_row(self) -> Row:
        """The metrics of the whole run, after what tells it from others: a row of ``runs.csv``.

        Raises:
            ScenarioError: no request was created in the measured window.
        """
        metrics = self._gathering.metrics()
        if not metrics["offered"]:
            raise ScenarioError(
                f"no request is created in the measured window of replication {self._replication}: "
                "raise simulation.duration_s, or the rates of the devices"
            )
        exits = {f"exit_{exit}": int(count) for exit, count in enumerate(self._exits) if exit}
        return {**self._row, **metrics, **exits}

    @property
    def computed_s(self) -> float:
        """Seconds that computing the run took: see :class:`sim.results.gathering.Gathering`."""
        return self._gathering.computed_s

    def node_rows(self) -> list[dict[str, float | str]]:
        """What the run asked of each kind of node; see :class:`sim.results.verdict.NodeLoads`."""
        return self._gathering.nodes.metrics()

    def link_loads(self) -> list[LinkLoad]:
        """What the run asked of links that can only carry so much."""
        return self._gathering.links()

    def _first_watchers(self) -> dict[str, Watcher]:
        job, watchers = self._job, dict[str, Watcher]()
        if self._replication == 0:
            if job.telemetry_step_s is not None:
                watchers["telemetry"] = Telemetry(self._world, job.telemetry_step_s)
            if job.trace_window_s is not None:
                watchers["trace"] = Trace(self._world, *job.trace_window_s)
        return watchers

    def _tell(self, result: Replication, run: Row) -> None:
        gathering = self._gathering
        result.add(RUNS, [run])
        result.add(NODES, [{**self._row, **row} for row in self.node_rows()])
        result.add(LINKS, [{**self._row, **vars(load)} for load in self.link_loads()])
        devices, nodes = gathering.energy()
        groups = gathering.devices.of_groups(self._world).table()
        groups.insert(0, "group", [group.name for group in self._world.groups])
        if devices:
            groups["device_j"] = [
                float(devices[name].total.sum()) if name in devices else np.nan
                for name in groups["group"]
            ]
        result.add(GROUPS, [{**self._row, **row} for row in groups.to_dict(orient="records")])
        for what, parts in (("devices", devices), ("node", nodes)):
            for name, joules in parts.items():
                taken = {f"{cause}_j": float(by.sum()) for cause, by in vars(joules).items()}
                result.add(ENERGY, [{**self._row, "what": what, "name": name, **taken}])
        if self._world.devices <= MOST_LISTED_DEVICES:
            result.devices[self._arm] = gathering.devices
        if gathering.summary is not None:
            result.summaries[self._arm] = gathering.summary

    def _show(self, result: Replication, folder: Path, number: int) -> None:
        telemetry, trace = self._watchers.get("telemetry"), self._watchers.get("trace")
        arm = {name: self._row[name] for name in ("strategy", "training_seed", "policy")}
        if isinstance(telemetry, Telemetry):
            for file, frame in (
                (NODE_TELEMETRY, telemetry.nodes()),
                (REQUEST_TELEMETRY, telemetry.requests()),
            ):
                for column, name in enumerate(arm):
                    frame.insert(column, name, arm[name])
                result.frames.setdefault(file, []).append(frame)
        if isinstance(trace, Trace):
            name = re.sub(r"[^A-Za-z0-9_.=-]+", "_", "-".join(map(str, arm.values())))
            write_trace(folder / f"trace-{number:02d}-{name}.json", trace.events())


def never_looks_at_deadlines(world: World, policy: Policy) -> bool:
    """Whether other deadlines would change nothing but who is late."""
    return (
        world.is_open
        and type(policy) in (FixedExit, Full, Confidence)
        and all(node.discipline != "edf" and node.admission == "all" for node in world.nodes)
    )


class _Rescaled:
    """What a run gives at other deadlines, when only their being met depends on them."""

    def __init__(self, world: World, scale: float) -> None:
        self.scale = scale
        self._world = world
        self._on_time = self._correct = 0

    def add(self, part: Run) -> None:
        """Take in a slice of the run at scale 1."""
        latency_s = part.received_s - part.requests.created_s
        in_time = part.measured(self._world) & part.answered
        in_time &= latency_s <= part.deadline_s * self.scale
        self._on_time += int(np.count_nonzero(in_time))
        self._correct += int(np.count_nonzero(in_time & part.correct))

    def metrics(self, at_1: dict[str, float]) -> dict[str, float]:
        """All metrics, from those at scale 1."""
        return {
            **at_1,
            "on_time": self._on_time,
            "late": at_1["answered"] - self._on_time,
            "aud": self._correct / at_1["offered"],
            "hit_ratio": self._on_time / at_1["offered"],
        }
