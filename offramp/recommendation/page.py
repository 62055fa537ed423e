"""The page of a recommendation, in Markdown."""

from __future__ import annotations

from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

from offramp.recommendation import words
from offramp.recommendation.figure import FIGURE, FIGURES
from offramp.recommendation.files import SCENARIO, TRIALS, VERIFIED
from offramp.recommendation.outcome import Outcome
from offramp.recommendation.verification import ALPHA, Verified
from offramp.report.markdown import table
from offramp.report.offline_page import write_pages
from offramp.words import counted

PAGE = "recommendation.md"


def write_page(outcome: Outcome, folder: Path, caption: str, command: str) -> Path:
    """Write the page.

    Args:
        caption: of the figure, which is there.

    Raises:
        OSError: it cannot be written.
    """
    page = folder / PAGE
    write_pages(page, "a recommendation", _sections(outcome, caption, command))
    return page


def _sections(outcome: Outcome, caption: str, command: str) -> Iterator[str]:
    question = outcome.question
    targets = " and ".join(map(str, question.targets))
    yield f"# {question.base.scenario.name}: what is the least that meets {targets}?"
    if question.base.scenario.description:
        yield question.base.scenario.description
    yield f"**{words.answer(outcome)}**"
    for warning in words.warnings(outcome):
        yield f"**Warning:** {warning}"
    yield from words.advice(outcome)
    if outcome.recommended is not None:
        yield words.next_cheaper(outcome)
        yield f"[{SCENARIO}]({SCENARIO}) is it, to be run: `offramp run {SCENARIO}`."
    compared = [*words.by_strategy(outcome), *words.by_policy(outcome)]
    if compared:
        yield "\n".join(f"- {line}" for line in compared)
    given = [
        f"- {words.where(outcome, it)}: {words.cost_text(outcome, it)}, "
        f"{words.metrics(outcome, it)}, {words.off(outcome, it)}"
        for it in outcome.given
    ]
    if given:
        yield "As the scenario is given, as the search saw it:"
        yield "\n".join(given)
    yield f"![{FIGURE}]({FIGURES}/{FIGURE}.png)"
    yield f"*{caption}*"
    yield "## What was verified"
    yield from _verified(outcome)
    yield "## How it was searched"
    yield from _searched(outcome)
    yield "## Made by"
    versions = ", ".join(f"{name} {metadata.version(name)}" for name in ("offramp", "optuna"))
    yield (
        f"{versions}; seed {question.base.scenario.seed} of the verification, "
        f"{question.screening_seed} of the screening, {question.section.seed} of the search.\n\n"
        f"    {command}"
    )


def _verified(outcome: Outcome) -> Iterator[str]:
    question = outcome.question
    header = ["strategy", "configuration", "cost", *(str(it) for it in question.targets)]
    header += [f"bound ({it.metric})" for it in question.targets] + ["verdict"]
    rows = [_row(outcome, it) for steps in outcome.verified.values() for it in steps]
    yield table(header, rows)
    yield (
        f"Each with {counted(question.replications, 'replication')} whose requests the search had "
        f"not seen. ± is half of the 95 % interval over {outcome.best.evidence.estimates[0].over}; "
        f"a verdict looks at the one-sided bound of confidence {100 * outcome.level:g} %. Of every "
        "strategy, candidates are judged from the safest to the cheapest, until one does not pass; "
        "so the probability that what is recommended misses a target with other requests to these "
        f"networks is at most {100 * ALPHA:g} %, whatever number of candidates there are. That is "
        "as far as these replications show what can happen: what comes in few of them may have "
        "come in none."
    )
    yield words.of_other_trainings(outcome)


def _row(outcome: Outcome, it: Verified) -> list[str]:
    estimates = it.evidence.estimates
    cells = [it.screened.strategy, words.where(outcome, it).partition(" with ")[2]]
    cells.append(words.cost_text(outcome, it))
    targets = outcome.question.targets
    for target, estimate in zip(targets, estimates, strict=True):
        cells.append(words.figure(target, estimate))
    bounds = it.evidence.bounds(outcome.level)
    cells += [target.shown(bound) for target, bound in zip(targets, bounds, strict=True)]
    mark = "**recommended**: " if it is outcome.recommended else ""
    return [*cells, f"{mark}{it.verdict}"]


def _searched(outcome: Outcome) -> Iterator[str]:
    question, section = outcome.question, outcome.question.section
    cost = "joules of a request" if question.cost == "energy" else "workers times their prices"
    prices = ", ".join(f"{name} {price:g}" for name, price in section.prices.items())
    yield (
        f"Cost: {cost}{f' ({prices})' if prices else ''}; of equal cost, the one that computes "
        "less for a request is cheaper. Every strategy is searched by itself, in the same space, "
        "with as many trials and the same requests:"
    )
    yield "\n".join(f"- {line}" for line in question.space.lines())
    how = (
        "every configuration there is"
        if outcome.exhaustive
        else "proposed by Optuna's tree-structured Parzen estimator, constrained by the targets"
    )
    yield (
        f"{counted(len(outcome.tried), 'trial')}, {how}; each with "
        f"{counted(section.screening_replications, 'replication')} "
        f"({TRIALS}; what was verified is in {VERIFIED})."
    )
    if words.failures(outcome):
        yield words.failures(outcome)
