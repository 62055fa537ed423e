"""The command line."""

from __future__ import annotations

import json
import math
import os
import re
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table
from typer.core import TyperGroup

from models.errors import OfframpError, ResultsError, ScenarioError
from models.files import write_text
from offramp import __version__
from offramp.console import Console
from offramp.live.cli import live
from offramp.options import (
    JobsOption,
    OutputOption,
    QuietOption,
    ScenarioArgument,
    SetOption,
    StoreOption,
)
from offramp.recommendation.cli import recommend
from offramp.reproduction.cli import reproduce
from offramp.sweep.cli import sweep
from offramp.validation.cli import validate

if TYPE_CHECKING:
    from offramp.pipeline import Pipeline
    from offramp.scenario import LoadedScenario


class OfframpGroup(TyperGroup):
    """Ends every command that fails for a reason the user can mend with one message."""

    def invoke(self, ctx: Any) -> Any:
        """Run a command; status 2 for what the user can mend, 130 for Ctrl-C."""
        try:
            return super().invoke(ctx)
        except BrokenPipeError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # `| head` has enough
            sys.exit(0)
        except (OfframpError, OSError) as error:
            print(f"error: {error}", file=sys.stderr)
            sys.exit(2)
        except KeyboardInterrupt:
            print(
                "interrupted: what was finished is kept; the same command goes on from there",
                file=sys.stderr,
            )
            sys.exit(130)


app = typer.Typer(
    cls=OfframpGroup,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="How often does a correct answer arrive before its deadline? Train multi-exit networks, "
    "profile them on this host, simulate fleets of IoT devices around them, or run them live.",
)

app.add_typer(live, name="live")


@app.callback(invoke_without_command=True)
def offramp(
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    """Options that belong to no command."""
    if version:
        typer.echo(__version__)
        raise typer.Exit


@app.command()
def init(
    path: Annotated[Path, typer.Argument(help="File to write.")] = Path("scenario.yaml"),
    template: Annotated[
        str, typer.Option("--from", metavar="NAME", help="Scenario that ships to start from.")
    ] = "quickstart",
    force: Annotated[bool, typer.Option("--force", help="Overwrite an existing file.")] = False,
) -> None:
    """Write a commented scenario to start from."""
    from offramp.scenario import find_scenario, shipped_scenarios

    shipped = shipped_scenarios()
    if template not in shipped:
        find_scenario(template)  # names the scenarios that ship
        raise ScenarioError(f"--from {template}: a name is expected: {', '.join(shipped)}")
    if path.exists() and not force:
        raise ResultsError(f"{path} exists already; --force overwrites it")
    if not path.parent.is_dir():
        raise ResultsError(f"cannot write {path}: No such file or directory: {path.parent}")
    name = re.sub(r"[^A-Za-z0-9_.-]", "-", path.stem).lstrip("_.-") or "scenario"
    text = shipped[template].read_text(encoding="utf-8")
    try:
        # A name of its own, so that it has a results folder of its own.
        write_text(path, re.sub(r"^name: .*$", f'name: "{name}"', text, flags=re.MULTILINE))
    except OSError as error:
        raise ResultsError(f"cannot write {path}: {error.strerror}") from error
    written = shlex.quote(str(path))
    typer.echo(f"wrote {path}; now: offramp check {written}, offramp run {written}")


@app.command()
def check(scenario: ScenarioArgument, set: SetOption = None, store: StoreOption = None) -> None:
    """Validate a scenario and print it with every default filled in.

    What is doubtful, and the load that is offered to nodes and shared links, go to standard error.
    """
    from ruamel.yaml import YAML

    from offramp.report.terminal import show_load
    from offramp.stages.network import check_training

    pipeline = _pipeline(scenario, set, store, quiet=True)
    loaded = pipeline.loaded
    check_training(loaded.experiment, loaded.error_at)
    for warning in loaded.warnings:
        typer.echo(f"warning: {warning}", err=True)
    show_load(*pipeline.offered_load(), lambda line: typer.echo(line, err=True))
    if loaded.scenario.sweep:
        from offramp.sweep.definition import load_block

        typer.echo(load_block(scenario, set or []).summary(), err=True)
    if loaded.scenario.recommend:
        from offramp.recommendation.definition import load_question

        for line in load_question(scenario, set or [], (), "workers").space.lines():
            typer.echo(f"recommend: {line}", err=True)
    yaml = YAML()
    yaml.default_flow_style = None
    yaml.dump(loaded.scenario.model_dump(), sys.stdout)


@app.command()
def schema() -> None:
    """Print the JSON Schema of scenarios, for editors."""
    from offramp.schema import Scenario

    typer.echo(json.dumps(Scenario.model_json_schema(), indent=2))


@app.command()
def run(
    scenario: ScenarioArgument,
    set: SetOption = None,
    output: OutputOption = None,
    store: StoreOption = None,
    jobs: JobsOption = None,
    quiet: QuietOption = False,
) -> None:
    """Do everything: train, profile, simulate and report; what was done before is reused."""
    from offramp.report.terminal import show_report

    pipeline = _pipeline(scenario, set, store, quiet)
    report = pipeline.run(_results(pipeline.loaded, output), jobs)
    show_report(report, pipeline.console)


@app.command()
def train(
    scenario: ScenarioArgument,
    set: SetOption = None,
    store: StoreOption = None,
    quiet: QuietOption = False,
) -> None:
    """Train every strategy and seed, and predict the test set."""
    from models.artifacts import read_predictions
    from offramp.stages.layout import PREDICTIONS

    pipeline = _pipeline(scenario, set, store, quiet)
    table = Table("strategy", "seed", "test accuracy per exit", "folder")
    for (strategy, seed), folder in pipeline.train().items():
        accuracy = read_predictions(folder / PREDICTIONS).accuracy()
        shares = " / ".join(f"{100 * share:.1f}" for share in accuracy) + " %"
        table.add_row(strategy, str(seed), shares, str(folder))
    pipeline.console.table(table)


@app.command()
def profile(
    scenario: ScenarioArgument,
    set: SetOption = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="FILE", help="Copy the profile here.")
    ] = None,
    again: Annotated[
        bool, typer.Option("--again", help="Measure even if measured before.")
    ] = False,
    store: StoreOption = None,
    quiet: QuietOption = False,
) -> None:
    """Measure the latency of every exit on this host."""
    from models.artifacts import read_profile, write_profile

    pipeline = _pipeline(scenario, set, store, quiet)
    measured = read_profile(pipeline.profile(again))
    table = Table("batch size", "exit", "median (ms)", "p95 (ms)", "of that, its own segment (ms)")
    for batch_size, seconds in measured.seconds.items():
        for exit in range(measured.exit_count):
            times, segment = 1e3 * seconds["exit"][:, exit], 1e3 * seconds["segment"][:, exit]
            times.sort()
            table.add_row(
                str(batch_size),
                str(exit + 1),
                f"{_quantile(times, 0.5):.3f}",
                f"{_quantile(times, 0.95):.3f}",
                f"{_quantile(segment, 0.5):.3f}",
            )
    pipeline.console.table(table)
    if output:
        try:
            write_profile(output, measured)
        except OSError as error:
            raise ResultsError(f"cannot write {output}: {error.strerror}") from error
        pipeline.console.result(f"profile: {output}")


@app.command()
def simulate(
    scenario: ScenarioArgument,
    set: SetOption = None,
    output: OutputOption = None,
    store: StoreOption = None,
    jobs: JobsOption = None,
    quiet: QuietOption = False,
) -> None:
    """Simulate with networks and profiles that are there already, and report."""
    from offramp.report.terminal import show_report

    pipeline = _pipeline(scenario, set, store, quiet)
    results = _results(pipeline.loaded, output)
    pipeline.simulate(results, jobs)
    show_report(pipeline.report(results), pipeline.console)


@app.command()
def study(
    study: Annotated[
        str,
        typer.Argument(metavar="STUDY", help="A YAML file, or the name of a study that ships."),
    ],
    set: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="KEY=VALUE", help="Override a key, such as training.seeds=10."
        ),
    ] = None,
    output: OutputOption = None,
    store: StoreOption = None,
    jobs: JobsOption = None,
    quiet: QuietOption = False,
) -> None:
    """Train a grid of configurations, strategies and seeds, and compare the strategies."""
    from offramp.store import Store, default_root
    from offramp.study.definition import load_study
    from offramp.study.run import run_study

    console = Console(quiet)
    loaded = load_study(study, set or [])
    results = output or Path("results") / loaded.name
    page = run_study(loaded, Store(store or default_root()), results, console, jobs)
    console.result(f"report: {page}")


@app.command()
def report(
    results: Annotated[
        list[Path], typer.Argument(metavar="RESULTS...", help="Folders of finished runs.")
    ],
    compare: Annotated[
        bool, typer.Option("--compare", help="Overlay the runs, and compare them with the first.")
    ] = False,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="FOLDER", help="Write the report here.")
    ] = None,
) -> None:
    """Make tables, figures and page of finished runs anew, or compare them."""
    from offramp.report.build import build_report
    from offramp.report.terminal import show_report

    console = Console()
    if compare:
        show_comparison(results, output, console)
        return
    if output and len(results) > 1:
        raise ResultsError(
            "--output names one folder, and there are several runs: --compare makes one report of "
            "them all"
        )
    for folder in results:
        show_report(build_report(folder, output), console)


app.command()(sweep)
app.command()(reproduce)
app.command()(validate)
app.command()(recommend)


def show_comparison(results: list[Path], output: Path | None, console: Console) -> None:
    """Compare runs, and print how far each is from the first."""
    from offramp.comparison.build import compare_runs
    from offramp.comparison.differences import GAIN
    from offramp.report.markdown import points

    made = compare_runs(results, output)
    table = Table(
        "run", "strategy", "policy", f"AUD, less {made.compared.labels[0]}", "beyond chance"
    )
    of_aud = made.differences[made.differences["metric"].isin(["aud", GAIN])]
    for row in of_aud.itertuples():
        table.add_row(
            str(row.run),
            f"gain of {row.strategy}" if row.metric == GAIN else str(row.strategy),
            str(row.policy),
            # Where no repetition is in both, there is no difference.
            "-"
            if math.isnan(row.difference)
            else f"{points(row.difference, row.half_width)} points",
            {"moved": "yes", "untested": "?"}.get(row.verdict, "no"),
        )
    if len(of_aud):
        console.table(table)
        console.result(
            "beyond chance: p < 0.05 after Holm's correction over all "
            f"{len(made.differences)} figures compared"
        )
        for sentence in made.compared.invalid.values():
            console.result(sentence)
    else:
        console.result(made.answer)
    console.result(f"report: {made.page}")


def _pipeline(scenario: str, set: list[str] | None, store: Path | None, quiet: bool) -> Pipeline:
    from offramp.pipeline import Pipeline
    from offramp.report.terminal import show_load
    from offramp.scenario import load_scenario
    from offramp.store import Store, default_root

    console = Console(quiet)
    loaded = load_scenario(scenario, set or [])
    if loaded.scenario.sweep:
        console.note("the block `sweep` is for `offramp sweep`; this is the scenario without it")
    if loaded.scenario.recommend:
        console.note("the block `recommend` is for `offramp recommend`, and is left out here")
    return Pipeline(
        loaded,
        Store(store or default_root()),
        console,
        lambda nodes, links: show_load(nodes, links, console.note),
    )


def _results(loaded: LoadedScenario, output: Path | None) -> Path:
    return output or Path("results") / loaded.scenario.name


def _quantile(times: object, q: float) -> float:
    import numpy as np

    return float(np.quantile(np.asarray(times), q))


def main() -> None:
    """Run the command line."""
    app()


if __name__ == "__main__":
    main()
