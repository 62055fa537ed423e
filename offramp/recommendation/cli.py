"""``offramp recommend``: what is the least that meets a target?"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from offramp.options import JobsOption, QuietOption, ScenarioArgument, SetOption, StoreOption

if TYPE_CHECKING:
    from collections.abc import Callable

    from offramp.console import Console
    from offramp.recommendation.definition import Question
    from offramp.recommendation.run import Recommendation
    from offramp.sweep.backend import Backend

#: Of a search that finds nothing that meets the target.
_NOT_MET = 1


def recommend(
    scenario: ScenarioArgument,
    target: Annotated[
        list[str] | None,
        typer.Option(
            "--target",
            "-t",
            metavar="NAME=VALUE",
            help="What is to be met: aud, hit_ratio or accuracy at least (0.85, or 85%), "
            "latency_p50_ms, latency_p95_ms or latency_p99_ms at most. Several are met together.",
        ),
    ] = None,
    cost: Annotated[
        Literal["workers", "energy"],
        typer.Option(
            help="What is to be small: workers times their prices (recommend.prices), or joules "
            "of a request."
        ),
    ] = "workers",
    set: SetOption = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            metavar="FOLDER",
            help="Results folder (default: results/NAME-recommend).",
        ),
    ] = None,
    store: StoreOption = None,
    jobs: JobsOption = None,
    quiet: QuietOption = False,
) -> None:
    """Find the cheapest configuration that meets a target, and verify it.

    Searches strategies, policies, exits, thresholds and numbers of workers, or what the scenario's
    block `recommend` names, and verifies the best with requests that the search has not seen.
    Status 1 if nothing is shown to meet the target. Ctrl-C keeps what is simulated; the same
    command goes on from there, and the results are the same as without a stop.
    """
    from offramp.console import Console
    from offramp.recommendation.definition import load_question
    from offramp.recommendation.run import recommend as run_recommend
    from offramp.recommendation.target import read_targets
    from offramp.store import Store, default_root

    console = Console(quiet)
    targets = read_targets(target or [])
    question = load_question(scenario, set or [], targets, cost)
    results = output or Path("results") / f"{question.base.scenario.name}-recommend"
    for warning in question.base.warnings:
        console.note(f"warning: {warning}")
    console.note("searched for every strategy:")
    for line in question.space.lines():
        console.note(f"  {line}")
    made = run_recommend(
        question,
        Store(store or default_root(), console.note),
        results,
        console,
        _opening(question, jobs, console),
    )
    show(made, console)
    if made.outcome.recommended is None:
        raise typer.Exit(_NOT_MET)


def _opening(question: Question, jobs: int | None, console: Console) -> Callable[[], Backend]:
    """What opens the worker processes: no more of them than fit into memory."""

    def open_backend() -> Backend:
        from offramp.checks.memory import most_workers
        from offramp.sweep.local import LocalBackend

        asked = jobs or os.cpu_count() or 1
        fitting = min(asked, most_workers(question.base.scenario, question.base.folder))
        if fitting < asked:
            console.note(f"{fitting} worker(s): no more of them fit into memory")
        return LocalBackend(fitting)

    return open_backend


def show(made: Recommendation, console: Console) -> None:
    """Print what was verified, the answer, and where the page is."""
    from rich.table import Table

    from offramp.recommendation import words

    outcome = made.outcome
    question = outcome.question
    table = Table("strategy", "policy", *question.space.keys, "cost",
                  *map(str, question.targets), "verdict")  # fmt: skip
    for steps in outcome.verified.values():
        for it in steps:
            estimates = it.evidence.estimates
            configuration = it.screened.configuration
            table.add_row(
                it.screened.strategy,
                configuration.label,
                *map(str, configuration.values),
                words.cost_text(outcome, it),
                *map(words.figure, question.targets, estimates),
                "recommended" if it is outcome.recommended else it.verdict,
            )
    console.table(table)
    console.result(words.answer(outcome))
    for warning in words.warnings(outcome):
        console.result(f"warning: {warning}")
    for line in words.advice(outcome):
        console.result(line)
    if outcome.recommended is not None:
        console.result(words.next_cheaper(outcome))
    for line in (*words.by_strategy(outcome), *words.by_policy(outcome)):
        console.result(line)
    if words.failures(outcome):
        console.result(words.failures(outcome))
    console.result(f"report: {made.page}")
