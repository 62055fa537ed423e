"""What a run left: every request and its outcome, and the records of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import cached_property

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from models.artifacts import Predictions
from sim.distributions import Floats
from sim.outcomes import OUTCOMES
from sim.results import records
from sim.results.visits import Visits
from sim.workload.device_groups import Requests
from sim.world import World


@dataclass(frozen=True)
class Run:
    """What became of requests, warm-up included, in the order of their creation; arrays (N,).

    Times are NaN and exits 0 where they never happened.

    Attributes:
        index: of each request among all of its run.
        deadline_s: relative deadlines, as scaled for this run.
        node: who served it last, or would have; an index of :meth:`World.server_name`.
        arrived_s, started_s: at the first node that it reached.
        left_s: when it left its node, answered, refused or lost.
        released_s: when its worker was free again; see :class:`sim.results.visits.Visits`.
        received_s: when the answer was back at the device.
        outcome: index into :data:`sim.outcomes.OUTCOMES`.
        batch: requests computed together with it at most.
        noted: visits to nodes, where requests may have several.
    """

    replication: int
    requests: Requests
    index: NDArray[np.int64]
    deadline_s: Floats
    node: NDArray[np.int64]
    arrived_s: Floats
    started_s: Floats
    finished_s: Floats
    received_s: Floats
    left_s: Floats
    released_s: Floats
    exit: NDArray[np.int64]
    predicted: NDArray[np.int32]
    confidence: NDArray[np.float32]
    correct: NDArray[np.bool_]
    batch: NDArray[np.int64]
    outcome: NDArray[np.int8]
    noted: Visits | None = None

    def __len__(self) -> int:
        return len(self.index)

    def measured(self, world: World) -> NDArray[np.bool_]:
        """Which requests were created inside the measured window."""
        return self.requests.created_s >= world.warm_up_s

    @property
    def answered(self) -> NDArray[np.bool_]:
        """Which requests were answered, in time or not."""
        answered: NDArray[np.bool_] = ~np.isnan(self.received_s)
        return answered

    def where(self, rows: NDArray[np.bool_]) -> Run:
        """Some of the requests, without the visits that were noted."""
        columns = {
            field.name: getattr(self, field.name)[rows]
            for field in fields(Run)
            if field.name not in ("replication", "requests", "noted")
        }
        return Run(replication=self.replication, requests=self.requests.where(rows), **columns)

    @cached_property
    def visits(self) -> Visits:
        """Every visit of a request to a node."""
        if self.noted is not None:
            return self.noted
        came = ~np.isnan(self.arrived_s)
        return Visits(
            self.index[came],
            self.node[came],
            self.arrived_s[came],
            self.started_s[came],
            self.left_s[came],
            self.released_s[came],
            self.batch[came],
        )

    @staticmethod
    def joined(parts: Sequence[Run]) -> Run:
        """The whole run, of the parts that its slices gave."""
        if len(parts) == 1:
            return parts[0]
        order = np.argsort(np.concatenate([part.index for part in parts]), kind="stable")
        columns = {
            field.name: np.concatenate([getattr(part, field.name) for part in parts])[order]
            for field in fields(Run)
            if field.name not in ("replication", "requests", "noted")
        }
        noted = [part.noted for part in parts if part.noted is not None]
        return Run(
            replication=parts[0].replication,
            requests=Requests.joined([part.requests for part in parts]).where(order),
            noted=Visits.joined(noted) if noted else None,
            **columns,
        )


def record_table(
    world: World,
    run: Run,
    predictions: Predictions,
    strategy: str,
    training_seed: int,
    policy: str,
) -> pa.Table:
    """The records of the requests created in the measured window of ``run``."""
    rows = run.measured(world)
    requests = run.requests.where(rows)
    count = len(requests)
    exit = run.exit[rows]
    computed = exit > 0

    def present(values: Floats) -> pa.Array:
        there = values[rows]
        return records.present(there, ~np.isnan(there), pa.float64())

    columns: Sequence[pa.Array] = [
        records.repeated(strategy, count),
        np.full(count, training_seed),
        records.repeated(policy, count),
        np.full(count, run.replication),
        run.index[rows],
        records.named_where_used(requests.device, world.devices, world.device_name),
        records.named(requests.group, [group.name for group in world.groups]),
        records.named_where_used(run.node[rows], world.servers, world.server_name),
        predictions.sample[requests.sample],
        predictions.label[requests.sample],
        requests.created_s,
        run.deadline_s[rows],
        present(run.arrived_s),
        present(run.started_s),
        present(run.finished_s),
        present(run.received_s),
        records.present(exit, computed, pa.int32()),
        records.present(run.predicted[rows], computed, pa.int32()),
        records.present(run.confidence[rows], computed, pa.float32()),
        run.correct[rows],
        records.named(run.outcome[rows], OUTCOMES),
    ]
    arrays = [
        pa.array(column, type=field.type) if isinstance(column, np.ndarray) else column
        for column, field in zip(columns, records.SCHEMA, strict=True)
    ]
    return pa.Table.from_arrays(arrays, schema=records.SCHEMA)
