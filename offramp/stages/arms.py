"""One replication of every arm, all on the same workload: what a worker process simulates."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from models.artifacts import Predictions
from models.errors import PolicyError
from offramp.stages.arm_tables import ArmTables
from offramp.stages.jobs import Job, Network, PolicyText, Replication
from offramp.stages.layout import FAULT_TIMES, FAULTS
from offramp.stages.record_parts import RecordParts
from sim.policy import Policy
from sim.results.fault_tables import fault_counts, fault_times
from sim.results.gathering import metrics_of
from sim.results.metrics import take_in
from sim.results.run import Run
from sim.running.slices import Slices
from sim.simulation import simulate_in_slices


def replicate(job: Job, replication: int, folder: Path) -> Replication:
    """Simulate one replication of every arm, all on the same workload.

    Args:
        folder: for temporary records, and for traces.

    Raises:
        PolicyError: a policy raised or decided something impossible.
        ScenarioError: no request is created in the measured window.
    """
    result = Replication()
    labels = next(iter(job.predictions.values())).label
    workload = Slices(job.world, labels, replication)
    faults = fault_counts(job.world, workload.absences)
    result.add(FAULTS, [{"replication": replication, **row} for row in faults])
    if replication == 0 and job.telemetry_step_s is not None:
        result.add(FAULT_TIMES, fault_times(job.world, workload.absences))
    if not job.keeps_records:
        _all_arms(job, workload, result, folder, None)
        return result
    result.records = folder / f"{replication}.arrow"
    with RecordParts(result.records) as parts:
        _all_arms(job, workload, result, folder, parts)
    return result


def _all_arms(
    job: Job, workload: Slices, result: Replication, folder: Path, parts: RecordParts | None
) -> None:
    number = 0
    for network, predictions in job.predictions.items():
        for text in job.policies:
            number += 1
            try:
                arm = _OneArm(job, workload, network, predictions, text)
                arm.simulate(result, folder, parts, number)
            except PolicyError as error:
                strategy, seed = network
                raise PolicyError(
                    f"{error} (replication {workload.replication}, strategy {strategy}, "
                    f"training seed {seed})"
                ) from error


class _OneArm:
    """One network under one policy, in one replication."""

    def __init__(
        self,
        job: Job,
        workload: Slices,
        network: Network,
        predictions: Predictions,
        text: PolicyText,
    ) -> None:
        self._job = job
        self._workload = workload
        self._predictions = predictions
        self._policy: Policy = job.policy(text, network)
        self._tables = ArmTables(
            job, network, predictions, text, self._policy, workload.replication
        )

    def simulate(
        self, result: Replication, folder: Path, parts: RecordParts | None, number: int
    ) -> None:
        """Simulate at every scale of the deadlines, and tell of the run at scale 1."""
        for part in self._parts(1.0):
            self._tables.add(part, parts)
        sweep = {scale: self._metrics_at(scale) for scale in self._tables.unknown_scales}
        self._tables.tell(result, folder, number, sweep)

    def _parts(self, scale: float) -> Iterator[Run]:
        return simulate_in_slices(
            self._job.world, self._workload, self._predictions, self._policy, scale
        )

    def _metrics_at(self, scale: float) -> dict[str, float]:
        gathered = metrics_of(self._job.world, self._job.keeps_records)
        for part in self._parts(scale):
            take_in(gathered, part)
        return gathered.metrics()
