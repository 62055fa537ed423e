"""``offramp sweep``."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from models.errors import OfframpError, ScenarioError
from offramp.options import QuietOption, ScenarioArgument, StoreOption, YesOption

if TYPE_CHECKING:
    from collections.abc import Callable

    from offramp.console import Console
    from offramp.store import Store
    from offramp.sweep.backend import Backend
    from offramp.sweep.definition import Sweep
    from offramp.sweep.run import Swept

#: A sweep of more points asks first.
ASKS_FROM_POINTS = 10_000


def sweep(
    scenario: ScenarioArgument,
    set: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=V1,V2,...",
            help="Values of a key, all of which are tried, such as devices.cameras.count=5,10,20; "
            "one value alone is an override, as elsewhere. Several keys are crossed.",
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", metavar="FOLDER", help="Results folder (default: results/NAME-sweep)."
        ),
    ] = None,
    store: StoreOption = None,
    jobs: Annotated[
        int | None,
        typer.Option(
            "--jobs",
            "-j",
            min=1,
            help="Worker processes (default: as many as processors). With --dask slurm they are "
            "asked for and have to be given; a running scheduler has its own.",
        ),
    ] = None,
    dask: Annotated[
        str | None,
        typer.Option(
            metavar="ADDRESS|local|slurm",
            help="Run on a Dask cluster: a scheduler's address such as tcp://host:8786, or its "
            "scheduler file (.json), or one that is started here or through SLURM.",
        ),
    ] = None,
    retry_failed: Annotated[
        bool, typer.Option("--retry-failed", help="Run the points again that failed before.")
    ] = False,
    yes: YesOption = False,
    quiet: QuietOption = False,
) -> None:
    """Run a scenario at many points: every combination of some keys' values.

    What varies is given by --set, by the scenario's block `sweep`, or by both. What several points
    share is trained and profiled once. Ctrl-C keeps what is finished; the same command goes on from
    there, and the results are the same as without a stop. Status 1: all is done, and points failed.
    """
    from offramp.console import Console
    from offramp.store import Store, default_root
    from offramp.sweep.definition import load_sweep
    from offramp.sweep.run import run_sweep

    console = Console(quiet)
    loaded = load_sweep(scenario, set or [])
    _ask(len(loaded.points), yes)
    results = output or Path("results") / f"{loaded.base.scenario.name}-sweep"
    for warning in loaded.base.warnings:
        console.note(f"warning: {warning}")
    artefacts = Store(store or default_root(), console.note)
    swept = run_sweep(
        loaded,
        artefacts,
        results,
        console,
        _opening(loaded, jobs, dask, artefacts, console),
        retry_failed,
        may_drop=yes,
    )
    _show(swept, loaded, results, console)
    if swept.counts.failed:
        raise typer.Exit(1)


def _ask(points: int, yes: bool) -> None:
    """Ask back about very many points."""
    if points <= ASKS_FROM_POINTS or yes:
        return
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise ScenarioError(
            f"this sweep has {points:,} points, more than {ASKS_FROM_POINTS:,}: say --yes if that "
            "is meant"
        )
    if not typer.confirm(f"This sweep has {points:,} points. Run them all?"):
        raise typer.Exit(2)


def _opening(
    loaded: Sweep, jobs: int | None, dask: str | None, store: Store, console: Console
) -> Callable[[], Backend]:
    """What opens the backend that was asked for."""

    def open_backend() -> Backend:
        if dask is not None:
            from offramp.sweep.dask import open_dask

            return open_dask(dask, jobs, store, console)
        from offramp.sweep.local import LocalBackend

        return LocalBackend(_workers(loaded, jobs, console))

    return open_backend


def _workers(loaded: Sweep, jobs: int | None, console: Console) -> int:
    """How many worker processes: no more than there are points, or than fit into memory."""
    from offramp.checks.memory import most_workers

    asked = min(jobs or os.cpu_count() or 1, len(loaded.points))
    fitting = asked
    step = max(1, (len(loaded.points) - 1) // 15)
    for index in {*range(0, len(loaded.points), step), len(loaded.points) - 1}:
        try:
            at = loaded.scenario_at(loaded.points[index])
            fitting = min(fitting, most_workers(at.scenario, at.folder))
        except OfframpError:
            continue  # a point that is not valid takes no memory
    if fitting < asked:
        console.note(f"{fitting} worker(s): no more of them fit into memory")
    return fitting


def _show(swept: Swept, loaded: Sweep, results: Path, console: Console) -> None:
    """The table that ends a sweep, and where everything is."""
    from rich.table import Table

    from offramp.report.markdown import percent
    from offramp.report.sweep import write_sweep_report
    from offramp.report.sweep_table import overloaded_text
    from offramp.sweep.template import as_json

    def where(values: tuple[Any, ...]) -> str:
        texts = (it if isinstance(it, str) else as_json(it) for it in values)
        return ", ".join(f"{key}={it}" for key, it in zip(loaded.keys, texts, strict=True))

    table = Table("strategy", "policy", "points", "best AUD", "at", "worst AUD", "at")
    for (strategy, policy), arm in swept.summary.arms.items():
        table.add_row(
            strategy,
            policy,
            str(arm.points),
            percent(arm.best.aud),
            where(arm.best.values),
            percent(arm.worst.aud),
            where(arm.worst.values),
        )
    if swept.summary.arms:
        console.table(table)
    counts = swept.counts
    console.result(f"{counts.done} of {len(loaded.points)} points done, {counts.failed} failed")
    if swept.summary.overloaded:
        console.result(overloaded_text(swept.summary.overloaded, counts.done))
    if counts.failed:
        console.result(f"why: {results / 'failures.csv'}")
    if counts.died:
        console.result(f"the same command tries the {counts.died} again on which workers died")
    if counts.failed > counts.died:
        console.result("to run those again that failed by themselves, add --retry-failed to it")
    console.result(f"table: {results / 'sweep.parquet'}")
    if counts.done:
        console.result(f"report: {write_sweep_report(results)}")
