"""The tables of all replications of all arms, and which of their files lie in a results folder."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa

from models.artifacts import Predictions
from models.files import whole_file
from offramp.stages.inputs import Inputs
from offramp.stages.jobs import Arm, Job, Network, Replication
from offramp.stages.layout import (
    ALWAYS_SIMULATED,
    DEVICES,
    EXIT_ACCURACY,
    MANIFEST,
    PERCENTILES,
    PROFILE,
    RECORDS,
    SOMETIMES_SIMULATED,
    TRACES,
)
from offramp.stages.record_parts import read_parts
from sim.results.outcome_counts import OutcomeCounts
from sim.results.records import write_records
from sim.results.summary import RunSummary
from sim.world import World


def write_tables(
    folder: Path,
    job: Job,
    replications: Callable[[Path], Iterable[Replication]],
    world: str,
    update: Callable[[int], None],
) -> None:
    """Write what came of all replications, one after the other, into ``folder``.

    Args:
        replications: gives them in order; told a folder for temporary records, and for traces.
        world: ``simulated`` or ``live``, kept with the records.
        update: told after each replication how many are written.
    """
    tables = ResultTables()
    with tempfile.TemporaryDirectory(prefix=".replications-", dir=folder) as scratch:

        def done() -> Iterator[Replication]:
            for number, result in enumerate(replications(Path(scratch)), start=1):
                tables.add(result)
                update(number)
                yield result

        if job.keeps_records:
            write_records(folder / RECORDS, _records(done()), {"world": world})
        else:
            for _ in done():
                pass
        for trace in sorted(Path(scratch).glob(TRACES)):
            trace.rename(folder / trace.name)
    for name, frame in tables.frames(job.world).items():
        frame.to_csv(folder / name, index=False)
    exit_accuracy(job.predictions).to_csv(folder / EXIT_ACCURACY, index=False)


def _records(results: Iterable[Replication]) -> Iterator[pa.Table]:
    """The records of all replications, a part at a time."""
    for result in results:
        assert result.records is not None
        yield from read_parts(result.records)
        result.records.unlink()


class ResultTables:
    """The tables of all replications, in their order."""

    def __init__(self) -> None:
        self._rows: dict[str, list[dict[str, Any]]] = {}
        self._frames: dict[str, list[pd.DataFrame]] = {}
        self._devices: dict[Arm, OutcomeCounts] = {}
        self._summaries: dict[tuple[str, str], RunSummary] = {}

    def add(self, result: Replication) -> None:
        """Append what a replication gave."""
        for name, rows in result.rows.items():
            self._rows.setdefault(name, []).extend(rows)
        for name, frames in result.frames.items():
            self._frames.setdefault(name, []).extend(frames)
        for arm, counts in result.devices.items():
            before = self._devices.get(arm)
            self._devices[arm] = before.plus(counts) if before else counts
        for (strategy, _, policy), summary in result.summaries.items():
            if (strategy, policy) in self._summaries:
                self._summaries[strategy, policy].merge(summary)
            else:
                self._summaries[strategy, policy] = summary

    def frames(self, world: World) -> dict[str, pd.DataFrame]:
        """Every table that has rows, by the name of its file."""
        found = {name: pd.DataFrame(rows) for name, rows in self._rows.items() if rows}
        found |= {name: pd.concat(frames) for name, frames in self._frames.items()}
        if self._devices:
            found[DEVICES] = self._by_device(world)
        if self._summaries:
            found[PERCENTILES] = self._percentiles()
        return found

    def _by_device(self, world: World) -> pd.DataFrame:
        names = [world.device_name(device) for device in range(world.devices)]
        groups = [group.name for group in world.groups for _ in range(group.count)]
        frames = []
        for (strategy, seed, policy), counts in self._devices.items():
            frame = counts.table()
            arm = {"strategy": strategy, "training_seed": seed, "policy": policy}
            owner = {**arm, "device": names, "group": groups}
            for column, (name, values) in enumerate(owner.items()):
                frame.insert(column, name, values)
            frames.append(frame)
        return pd.concat(frames)

    def _percentiles(self) -> pd.DataFrame:
        return pd.DataFrame(
            {
                "strategy": strategy,
                "policy": policy,
                **{
                    name: value
                    for name, value in summary.metrics().items()
                    if name.startswith("latency_p")
                },
            }
            for (strategy, policy), summary in self._summaries.items()
        )


def exit_accuracy(predictions: dict[Network, Predictions]) -> pd.DataFrame:
    """Test accuracy of each exit of each trained network."""
    return pd.DataFrame(
        {"strategy": strategy, "training_seed": seed, "exit": exit, "accuracy": accuracy}
        for (strategy, seed), predicted in predictions.items()
        for exit, accuracy in enumerate(predicted.accuracy().tolist(), start=1)
    )


def copy_results(folder: Path, inputs: Inputs, results: Path) -> None:
    """Copy what a stage left in ``folder`` to the results, and remove what was there before."""
    # Without its manifest a folder is unfinished: it never passes for a whole run half-copied.
    (results / MANIFEST).unlink(missing_ok=True)
    there = [folder / name for name in (*ALWAYS_SIMULATED, *SOMETIMES_SIMULATED)]
    there = [*filter(Path.exists, there), *sorted(folder.glob(TRACES))]
    of_before = [results / name for name in SOMETIMES_SIMULATED]
    for file in [*of_before, *results.glob(TRACES)]:
        if file.name not in {it.name for it in there}:
            file.unlink(missing_ok=True)
    for file in there:
        _copy(file, results / file.name)
    if inputs.profile:
        _copy(inputs.profile, results / PROFILE)
    else:
        (results / PROFILE).unlink(missing_ok=True)


def _copy(source: Path, target: Path) -> None:
    with whole_file(target) as partial:
        shutil.copyfile(source, partial)
