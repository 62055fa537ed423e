"""Which configurations are verified, in which order, and what that shows.

The best of many noisy figures is better than what it is a figure of (the winner's curse), so what
is recommended has to pass with requests that the search has not seen. Several are tried: from one
that will surely pass, step by step to cheaper ones, until one does not. Such a fixed sequence needs
no correction for how many there are: to recommend one that misses the target, the first of the
sequence that misses it must have passed, which happens with a probability of at most the level
(Maurer, Hothorn & Lehmacher 1995, "Multiple comparisons in drug clinical trials and preclinical
assays: a-priori ordered hypotheses"). Strategies have a sequence each, and share the level
(Bonferroni).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import Literal

from offramp.recommendation.cost import Cost
from offramp.recommendation.evidence import Evidence
from offramp.recommendation.space import Configuration

#: Probability of recommending what misses the target, at most.
ALPHA = 0.05

#: Steps of a sequence: the cheapest that, by its screening, has so many times the margin that it
#: needs to pass.
_STEPS = (3.0, 2.0, 1.0, 0.0)

Verdict = Literal["met", "not shown", "missed", "not judged"]


@dataclass(frozen=True)
class Candidate:
    """A configuration that was simulated.

    Attributes:
        number: of its trial.
        amount: what its cost is before compute and energy.
    """

    strategy: str
    number: int
    configuration: Configuration
    cost: Cost
    evidence: Evidence


@dataclass(frozen=True)
class Verified:
    """A candidate, and what its verification says.

    Attributes:
        screened: as the search saw it.
        verdict: ``met`` beyond doubt; ``not shown``: the interval holds the target; ``missed``
            beyond doubt; ``not judged``: it may meet it, but a dearer one of its sequence did not
            pass, and so this one has no say.
    """

    screened: Candidate
    cost: Cost
    evidence: Evidence
    verdict: Verdict


def level_of(strategies: int) -> float:
    """Level of every one-sided bound, where so many strategies have a sequence."""
    return 1 - ALPHA / strategies


def sequence(screened: Sequence[Candidate], level: float, replications: int) -> list[Candidate]:
    """What is verified of one strategy, the safest first and each cheaper than the one before.

    The last is the best of those that cost less than whatever seems to meet the target.

    Args:
        screened: at least one.
        level: of the bounds.
        replications: of a verification.
    """
    usual = _usual_sd(screened)
    margins = [it.evidence.margin(level, replications, usual) for it in screened]
    meeting = [
        (margin, it) for margin, it in zip(margins, screened, strict=True) if it.evidence.slack >= 0
    ]
    if not meeting:
        return [max(screened, key=lambda it: (it.evidence.slack, -it.cost.amount, -it.number))]
    steps: list[Candidate] = []
    safest = max(meeting, key=lambda item: (item[0], item[1].evidence.slack, -item[1].number))
    if safest[0] < _STEPS[0]:
        steps.append(safest[1])
    for step in _STEPS:
        enough = [it for margin, it in meeting if margin >= step]
        if enough:
            steps.append(min(enough, key=lambda it: (it.cost, it.number)))
    below = [it for it in screened if it.cost.amount < steps[-1].cost.amount]
    if below:
        steps.append(max(below, key=lambda it: (it.evidence.slack, -it.cost.amount, -it.number)))
    return list({it.number: it for it in steps}.values())


def _usual_sd(screened: Sequence[Candidate]) -> list[float]:
    """Of each metric, the median spread: of few repetitions some are alike by chance."""
    spreads = [[it.sd for it in candidate.evidence.estimates] for candidate in screened]
    return [
        median([sd for sd in of_metric if not math.isnan(sd)] or [0.0])
        for of_metric in zip(*spreads, strict=True)
    ]


def judged(steps: Sequence[tuple[Candidate, Cost, Evidence]], level: float) -> list[Verified]:
    """What the verification of a sequence shows.

    Args:
        steps: what was screened, with its cost and evidence now.
    """
    found: list[Verified] = []
    goes_on = True
    for candidate, cost, evidence in steps:
        verdict: Verdict = "not shown" if goes_on else "not judged"
        if evidence.fails(level):
            verdict = "missed"
        elif goes_on and evidence.meets(level):
            verdict = "met"
        goes_on = goes_on and verdict == "met"
        found.append(Verified(candidate, cost, evidence, verdict))
    return found


def cheapest(verified: Sequence[Verified]) -> Verified | None:
    """The cheapest that meets the target; None if none does."""
    meeting = [it for it in verified if it.verdict == "met"]
    return min(meeting, key=lambda it: (it.cost, it.screened.number)) if meeting else None
