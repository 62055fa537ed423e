"""A recommendation from its question to its page."""

from __future__ import annotations

import shlex
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import pandas as pd

from models.errors import ResultsError
from offramp.console import Console
from offramp.folder_lock import alone_in
from offramp.manifest import environment, file_facts, write_manifest
from offramp.named_files import named_files
from offramp.pipeline import check_writable
from offramp.recommendation.cost import Cost, cost_of, worker_cost
from offramp.recommendation.definition import Question
from offramp.recommendation.evidence import Evidence
from offramp.recommendation.figure import write_figure
from offramp.recommendation.files import JSON, SCENARIO, TRIALS, VERIFIED, write_files
from offramp.recommendation.kept import Kept
from offramp.recommendation.outcome import Outcome, Tried
from offramp.recommendation.page import write_page
from offramp.recommendation.search import Search, Trial
from offramp.recommendation.simulating import OpenedLater, Simulated, Simulating
from offramp.recommendation.space import Configuration
from offramp.recommendation.verification import Candidate, Verified, judged, level_of, sequence
from offramp.stages.layout import KEPT_TRIALS, MANIFEST, POINTS
from offramp.store import Store
from offramp.sweep.backend import Backend

LOCK = ".recommend.lock"


@dataclass(frozen=True)
class Recommendation:
    """What the command made."""

    outcome: Outcome
    page: Path


def recommend(
    question: Question,
    store: Store,
    results: Path,
    console: Console,
    open_backend: Callable[[], Backend],
) -> Recommendation:
    """Search, verify, and write everything down.

    What is simulated is kept at once: a search that is stopped goes on where it was, and gives the
    same.

    Args:
        open_backend: gives what simulates, when there is something to do.

    Raises:
        ResultsError: the folder cannot be written to, or holds something else; or not one
            configuration could be simulated.
        BackendError: nothing is left to simulate with; what was done is kept.
    """
    check_writable(results)
    store.check_writable()
    results.mkdir(parents=True, exist_ok=True)
    start_s = time.monotonic()
    with _alone_in(results):
        kept, backend = Kept(results), OpenedLater(open_backend)
        try:
            simulating = Simulating(question.template, store, console, kept, backend)
            outcome = _outcome(question, simulating, console)
        finally:
            backend.close()
            kept.close()
        command = _command(question, results)
        try:
            write_files(results, outcome, command)
            caption = write_figure(outcome, results)
            page = write_page(outcome, results, caption, command)
            _write_manifest(question, simulating, results, time.monotonic() - start_s)
        except OSError as error:
            raise ResultsError(
                f"cannot write to {results}: {error.strerror or error}. Nothing that was simulated "
                "is lost: when that is mended, the same command goes on from there"
            ) from error
    return Recommendation(outcome, page)


@contextmanager
def _alone_in(results: Path) -> Iterator[None]:
    """Keep other searches out of the folder, and stay out of folders of other things."""
    others = (MANIFEST, POINTS)
    if any((results / name).exists() for name in others) and not (results / KEPT_TRIALS).exists():
        raise ResultsError(
            f"{results} holds the results of something else: name another folder with --output"
        )
    with alone_in(results, LOCK, "search"):
        yield


# --- searching and verifying ---------------------------------------------------------------------


def _outcome(question: Question, simulating: Simulating, console: Console) -> Outcome:
    tried, exhaustive = _searched(question, simulating, console)
    candidates = [it.candidate for it in tried if it.candidate is not None]
    if not candidates:
        reasons = list(dict.fromkeys(str(it.error) for it in tried))
        raise ResultsError(
            f"not one of {len(tried)} configurations could be simulated: {reasons[0]}"
        )
    strategies = [
        name for name in question.strategies if any(it.strategy == name for it in candidates)
    ]
    level = level_of(len(strategies))
    steps = {
        name: sequence(
            [it for it in candidates if it.strategy == name], level, question.replications
        )
        for name in strategies
    }
    verified = _verified(question, steps, level, simulating, console)
    return Outcome(question, tuple(tried), verified, level, exhaustive)


def _searched(
    question: Question, simulating: Simulating, console: Console
) -> tuple[list[Tried], bool]:
    """All trials, and whether they are all that there could be."""
    first = [("given", it) for it in question.given()]
    first += [("corner", it) for it in question.corners()]
    section = question.section
    searches = {
        strategy: Search(
            question.space, section.trials, section.seed, first, question.cheaper_if_lower
        )
        for strategy in question.strategies
    }
    simulating.prepare(
        [question.screened(strategy, it) for strategy in searches for _, it in first]
    )
    tried: dict[str, list[Tried]] = {strategy: [] for strategy in searches}
    with console.task("search", sum(search.most for search in searches.values())) as update:
        while True:
            batch = [
                (strategy, trial) for strategy, search in searches.items() for trial in search.ask()
            ]
            if not batch:
                break
            before = sum(map(len, tried.values()))
            found = simulating.of(
                [question.screened(strategy, trial.configuration) for strategy, trial in batch],
                lambda done, before=before: update(before + done),  # type: ignore[misc]
            )
            for (strategy, trial), simulated in zip(batch, found, strict=True):
                it = _tried(question, strategy, trial, simulated)
                tried[strategy].append(it)
                _tell(searches[strategy], it)
    exhaustive = all(search.is_exhaustive for search in searches.values())
    return [it for of_strategy in tried.values() for it in of_strategy], exhaustive


def _tried(question: Question, strategy: str, trial: Trial, simulated: Simulated) -> Tried:
    if isinstance(simulated, str):
        return Tried(strategy, trial, None, simulated)
    cost, evidence = _seen(question, strategy, trial.configuration, simulated)
    candidate = Candidate(strategy, trial.number, trial.configuration, cost, evidence)
    return Tried(strategy, trial, candidate)


def _tell(search: Search, it: Tried) -> None:
    if it.candidate is None:
        search.tell(it.trial, None)
    else:
        cost = it.candidate.cost
        search.tell(it.trial, (cost.amount, cost.compute_s), it.candidate.evidence.shortfalls)


def _seen(
    question: Question, strategy: str, configuration: Configuration, runs: pd.DataFrame
) -> tuple[Cost, Evidence]:
    at = question.template.scenario_at(question.screened(strategy, configuration))
    workers = worker_cost(at.scenario, question.section.prices)
    return cost_of(question.cost, workers, runs), Evidence.of(runs, question.targets)


def _verified(
    question: Question,
    steps: dict[str, list[Candidate]],
    level: float,
    simulating: Simulating,
    console: Console,
) -> dict[str, list[Verified]]:
    """Simulate every sequence with fresh requests, and judge it."""
    wanted = [it for candidates in steps.values() for it in candidates]
    with console.task("verify", len(wanted)) as update:
        found = simulating.of(
            [question.verified(it.strategy, it.configuration) for it in wanted], update
        )
    seen: dict[tuple[str, int], tuple[Cost, Evidence]] = {}
    for it, runs in zip(wanted, found, strict=True):
        if isinstance(runs, str):
            raise ResultsError(
                f"{it.strategy}, trial {it.number} was simulated in the search, and its "
                f"verification failed: {runs}"
            )
        seen[it.strategy, it.number] = _seen(question, it.strategy, it.configuration, runs)
    return {
        strategy: judged([(it, *seen[strategy, it.number]) for it in candidates], level)
        for strategy, candidates in steps.items()
    }


# --- writing it down -----------------------------------------------------------------------------


def _command(question: Question, results: Path) -> str:
    """What makes the same again."""
    parts = ["offramp", "recommend", question.base.source]
    for target in question.targets:
        value = target.value if target.is_share else 1e3 * target.value
        parts += ["--target", f"{target.metric}={value:.12g}"]
    if question.cost != "workers":
        parts += ["--cost", question.cost]
    for override in question.base.overrides:
        parts += ["--set", override]
    parts += ["-o", str(results)]
    return " ".join(shlex.quote(part) for part in parts)


def _write_manifest(
    question: Question, simulating: Simulating, results: Path, wall_s: float
) -> None:
    facts = environment()
    facts["versions"]["optuna"] = metadata.version("optuna")
    manifest = {
        "kind": "recommendation",
        "name": question.base.scenario.name,
        "source": question.base.source,
        "overrides": list(question.base.overrides),
        "folder": str(question.base.folder.absolute()),
        "targets": [str(target) for target in question.targets],
        "cost": question.cost,
        "recommend": question.section.model_dump(),
        "data": question.template.data,
        "scenario": question.base.scenario.model_dump(),
        "files": file_facts(named_files(question.base)),
        **facts,
        "inputs": simulating.hashes(),
        "wall_s": wall_s,
    }
    write_manifest(results / MANIFEST, manifest, [TRIALS, VERIFIED, JSON, SCENARIO])
