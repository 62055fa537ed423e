"""``offramp reproduce``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from offramp.options import JobsOption, QuietOption, StoreOption

if TYPE_CHECKING:
    from offramp.console import Console
    from offramp.reproduction.outcome import Reproduction

#: Of figures that moved, this many are printed; the page has all.
_MOST_SHOWN = 20


def reproduce(
    run: Annotated[
        Path,
        typer.Argument(metavar="RUN", help="Results folder of a finished run, or its manifest."),
    ],
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", metavar="FOLDER", help="Results folder (default: RUN-again)."
        ),
    ] = None,
    store: StoreOption = None,
    jobs: JobsOption = None,
    from_scratch: Annotated[
        bool,
        typer.Option(
            "--from-scratch", help="Train the networks again too, even if they are there."
        ),
    ] = False,
    files: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            help="Where the files are that the scenario names (default: where they were).",
        ),
    ] = None,
    accept_changes: Annotated[
        bool,
        typer.Option(
            "--accept-changes", help="Go on with named files that are not what they were."
        ),
    ] = False,
    quiet: QuietOption = False,
) -> None:
    """Run a manifest again: are the results identical, or else compatible, and what moved?

    The simulation is computed anew from the run's own networks and profile. Ends with IDENTICAL,
    COMPATIBLE (status 0), DIFFERENT or UNDECIDED (status 1).
    """
    from offramp.console import Console
    from offramp.reproduction.options import Options
    from offramp.reproduction.run import reproduce
    from offramp.store import Store, default_root

    console = Console(quiet)
    options = Options(output, from_scratch, files, accept_changes, jobs)
    outcome = reproduce(run, Store(store or default_root(), console.note), console, options)
    show_outcome(outcome, console)
    if not outcome.verdict.confirms:
        raise typer.Exit(1)


def show_outcome(outcome: Reproduction, console: Console) -> None:
    """Print what moved, where records part, and the verdict."""
    from rich.table import Table

    from offramp.reproduction.statistics import MOVED
    from offramp.stages.layout import RECORDS
    from offramp.sweep.table import TABLE

    parted = [file for file in outcome.files if file.state != "identical"]
    main = [file for file in parted if file.name in (RECORDS, TABLE)] or parted[:1]
    for file in main:
        place = f"parts at {file.first}" if file.first else file.note or file.state
        console.result(f"{file.name} {place}")
    for change in outcome.changes:
        console.result(f"{change.what}: {change.before} → {change.after}")
    figures = outcome.figures
    if figures is not None and (figures["verdict"] == MOVED).any():
        moved = figures[figures["verdict"] == MOVED].sort_values("p_holm", kind="stable")
        arms = list(figures.columns[: figures.columns.get_loc("metric")])
        table = Table(*arms, "figure", "before", "after", "difference ± 95 % CI", "p (Holm)")
        for row in moved.head(_MOST_SHOWN).to_dict(orient="records"):
            table.add_row(
                *(str(row[name]) for name in arms),
                str(row["metric"]),
                f"{row['before']:.4g}",
                f"{row['after']:.4g}",
                f"{row['difference']:+.3g} ± {row['half_width']:.2g}",
                f"{row['p_holm']:.2g}",
            )
        console.table(table)
        if len(moved) > _MOST_SHOWN:
            console.result(f"and {len(moved) - _MOST_SHOWN} more")
    for note in outcome.notes:
        console.result(f"{note}")
    console.result(f"{outcome.verdict}")
    console.result(f"page: {outcome.page}")
