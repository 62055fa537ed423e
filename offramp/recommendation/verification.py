"""Which configurations are verified, in which order, and what that shows.

The best of many noisy figures is better than what it is a figure of (the winner's curse), so what
is recommended has to pass with requests that the search has not seen. Several are tried: from one
that will surely pass, step by step to cheaper ones, until one does not. Such a fixed sequence needs
no correction for how many there are: to recommend one that misses the target, the first of the
sequence that misses it must have passed, which happens with a probability of at most the level
(Maurer, Hothorn & Lehmacher 1995, "Multiple comparisons in drug clinical trials and preclinical
assays: a-priori ordered hypotheses"). Strategies have a sequence each, and share the level
(Bonferroni).

This needs an order that was fixed without what verifies, and only the requests are new: the
networks are those by which the search fixed it. So what is said holds for other requests to these
networks. Bounds count the spread between training seeds, too, and the level holds for other
trainings where a network that is lucky for one candidate is so for all: then it does not matter
which one is asked about. Where the search could choose candidates whose networks are lucky, it does
not hold. Of ten that all just miss the target, whose search and verification saw five networks
with little else at random, one was recommended in 5 % of cases where all had the luck of the
networks in common, in 12 % and 20 % where a fifth and a half of its variance was their own, and in
31 % where each had trainings of its own.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import Literal

from offramp.recommendation.cost import Cost
from offramp.recommendation.estimate import Spread
from offramp.recommendation.evidence import Evidence
from offramp.recommendation.space import Configuration

#: Probability of recommending what misses the target with other requests to the same networks, at
#: most.
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
        verdict: ``met``, by its bound; ``not shown``: the interval holds the target, or there is
            none; ``missed``, by the other bound; ``not judged``: it may meet it, but a dearer one
            of its sequence did not pass, and so this one has no say.
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
    usual = _usual_spreads(screened)
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


def _usual_spreads(screened: Sequence[Candidate]) -> list[Spread]:
    """Of each metric, the median spread: of few repetitions some are alike by chance."""
    of_metrics = zip(*(candidate.evidence.estimates for candidate in screened), strict=True)
    return [
        Spread(
            _median([it.spread.replications for it in of_metric]),
            _median([it.spread.seeds for it in of_metric]),
        )
        for of_metric in of_metrics
    ]


def _median(values: Sequence[float]) -> float:
    """Of what is known; 0 if nothing is."""
    return median([value for value in values if not math.isnan(value)] or [0.0])


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
