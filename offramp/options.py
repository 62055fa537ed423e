"""Arguments and options that several commands share, each said once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

ScenarioArgument = Annotated[
    str,
    typer.Argument(metavar="SCENARIO", help="A YAML file, or the name of a scenario that ships."),
]
SetOption = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="KEY=VALUE", help="Override a key, such as devices.cameras.count=50."
    ),
]
OutputOption = Annotated[
    Path | None,
    typer.Option(
        "--output", "-o", metavar="FOLDER", help="Results folder (default: results/NAME)."
    ),
]
StoreOption = Annotated[
    Path | None,
    typer.Option(
        "--store",
        metavar="FOLDER",
        help="Artefact store (default: $OFFRAMP_STORE, or in the user's cache).",
    ),
]
JobsOption = Annotated[
    int | None,
    typer.Option("--jobs", "-j", min=1, help="Worker processes (default: as many as processors)."),
]
QuietOption = Annotated[bool, typer.Option("--quiet", "-q", help="Print results only.")]
YesOption = Annotated[bool, typer.Option("--yes", "-y", help="Ask nothing.")]
