"""What a search and its verification gave: the whole of what files, page and figure tell."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from offramp.recommendation.definition import Question
from offramp.recommendation.search import Trial
from offramp.recommendation.verification import Candidate, Verified, cheapest
from offramp.report.tradeoff import pareto_front
from offramp.sweep.template import as_json


@dataclass(frozen=True)
class Tried:
    """A trial, and what it gave.

    Attributes:
        candidate: None where it failed.
        error: why it failed.
    """

    strategy: str
    trial: Trial
    candidate: Candidate | None
    error: str | None = None


@dataclass(frozen=True)
class Outcome:
    """What came of a question.

    Attributes:
        tried: of every strategy, in the order of its trials.
        verified: by strategy, the safest first.
        level: of the one-sided bounds.
        exhaustive: whether the whole space was simulated.
    """

    question: Question
    tried: tuple[Tried, ...]
    verified: dict[str, list[Verified]]
    level: float
    exhaustive: bool

    @property
    def recommended(self) -> Verified | None:
        """The cheapest that is shown to meet every target; None if there is none."""
        return cheapest([it for steps in self.verified.values() for it in steps])

    def recommended_of(self, strategy: str) -> Verified | None:
        """The cheapest of one strategy."""
        return cheapest(self.verified.get(strategy, []))

    @property
    def best(self) -> Verified:
        """The verified one that is the least short of its targets, or the most beyond them."""
        steps = [it for steps in self.verified.values() for it in steps]
        return max(steps, key=lambda it: (it.evidence.slack, -it.cost.amount))

    @property
    def next_cheaper(self) -> Verified | None:
        """What was verified after the recommended one: the first that costs less, if one does."""
        found = self.recommended
        if found is None:
            return None
        steps = self.verified[found.screened.strategy]
        rest = steps[steps.index(found) + 1 :]
        less = [it for it in rest if it.cost.amount < found.cost.amount]
        return next(iter(less or rest), None)

    @property
    def candidates(self) -> list[Candidate]:
        """What was simulated, of all strategies."""
        return [it.candidate for it in self.tried if it.candidate is not None]

    @property
    def given(self) -> list[Candidate]:
        """The scenario as it is, with each of its policies and strategies."""
        return [
            it.candidate
            for it in self.tried
            if it.candidate is not None and it.trial.why == "given"
        ]

    def cheapest_by_policy(self) -> dict[str, Candidate | None]:
        """Of every kind of policy, the cheapest that met the targets in the search, if one did."""
        found: dict[str, Candidate | None] = {}
        for candidate in self.candidates:
            kind = str(candidate.configuration.policy["policy"])
            best = found.setdefault(kind, None)
            meets = candidate.evidence.slack >= 0
            if meets and (best is None or candidate.cost < best.cost):
                found[kind] = candidate
        return found


# --- tables --------------------------------------------------------------------------------------


def trials_table(outcome: Outcome) -> pd.DataFrame:
    """One row for each trial, as the search saw it; the same bytes however it was run."""
    question = outcome.question
    rows = []
    for it in outcome.tried:
        row = _what(question, it.strategy, it.trial.number, it.trial.configuration.policy,
                    it.trial.configuration.values)  # fmt: skip
        row |= {"why": it.trial.why}
        if it.candidate is not None:
            row |= _figures(question, it.candidate)
            row |= {"meets": it.candidate.evidence.slack >= 0}
        else:
            row |= {"error": it.error}
        rows.append(row)
    frame = pd.DataFrame(rows)
    for name in ("training_seeds", "replications", "overloaded_runs"):
        frame[name] = frame[name].astype("Int64")
    frame["on_front"] = False
    for strategy in question.strategies:
        slack = [
            np.nan if it.candidate is None else it.candidate.evidence.slack
            for it in outcome.tried
            if it.strategy == strategy
        ]
        of_it = frame["strategy"] == strategy
        frame.loc[of_it, "on_front"] = pareto_front(frame["cost"][of_it], slack)
    return frame


def verified_table(outcome: Outcome) -> pd.DataFrame:
    """One row for each configuration that was verified, strategy by strategy, the safest first."""
    question, rows = outcome.question, []
    for strategy, steps in outcome.verified.items():
        for it in steps:
            screened = it.screened
            row = _what(question, strategy, screened.number, screened.configuration.policy,
                        screened.configuration.values)  # fmt: skip
            row |= _figures(question, it)
            bounds = it.evidence.bounds(outcome.level)
            for target, bound in zip(question.targets, bounds, strict=True):
                row[f"{target.column}_bound"] = bound
            row |= {"verdict": it.verdict, "recommended": it is outcome.recommended}
            rows.append(row)
    return pd.DataFrame(rows)


def _what(
    question: Question, strategy: str, number: int, policy: dict[str, Any], values: tuple[Any, ...]
) -> dict[str, Any]:
    named = {
        key: value if value is None or isinstance(value, int | float | str) else as_json(value)
        for key, value in zip(question.space.keys, values, strict=True)
    }
    return {"strategy": strategy, "trial": number, "policy": as_json(policy), **named}


def _figures(question: Question, it: Candidate | Verified) -> dict[str, Any]:
    row: dict[str, Any] = {"cost": it.cost.amount, "compute_s": it.cost.compute_s}
    if question.knows_energy:
        row |= {"j_per_request": it.cost.energy_j}
    any_of_them = it.evidence.estimates[0]
    row |= {
        "training_seeds": any_of_them.training_seeds,
        "replications": any_of_them.replications,
        "overloaded_runs": it.evidence.overloaded,
    }
    for target, estimate in zip(question.targets, it.evidence.estimates, strict=True):
        row |= {
            target.column: estimate.mean,
            f"{target.column}_half_width": estimate.half_width,
        }
    return row
