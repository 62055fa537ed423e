"""The question that a run puts, and its answer in one sentence, with its uncertainty."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import pandas as pd

from offramp.report.figure import counted
from offramp.report.markdown import percent, points
from offramp.report.results import Results, baseline_strategy, interval_over

AUD = "accuracy under deadline"

_TRAININGS = {
    "standard": "standard training",
    "curriculum": "curriculum training",
    "anti_curriculum": "anti-curriculum training",
    "random_curriculum": "training in random order at a curriculum's pace",
}


@dataclass(frozen=True)
class Answer:
    """What was asked, and what came out; names of policies in backticks.

    Attributes:
        remarks: what else belongs to the answer.
    """

    question: str
    sentence: str
    remarks: list[str]


@dataclass(frozen=True)
class _Comparison:
    """One paired difference in AUD, as the sentence names it."""

    where: str
    gain: float
    half_width: float

    @property
    def sign(self) -> int | None:
        """1 or -1 where the interval lies beside zero, 0 where it includes it; None: unknown."""
        if math.isnan(self.gain) or math.isnan(self.half_width):
            return None
        if abs(self.gain) <= self.half_width:
            return 0
        return 1 if self.gain > 0 else -1

    def __str__(self) -> str:
        return f"{points(self.gain, self.half_width)} points"


def answer(results: Results, summary: pd.DataFrame, differences: pd.DataFrame) -> Answer:
    """Of the strategies if there are several, else of the policies, else of the only arm."""
    if len(results.strategies) > 1:
        return _of_strategies(results, differences)
    if len(results.policies) > 1:
        return _of_policies(results, differences)
    return _of_one_arm(results, summary)


def scoring_cost(training: dict[str, Any]) -> str:
    """What a curriculum costs on top of the steps that every strategy gets."""
    scoring = training["scoring"]
    networks = {"self_taught": scoring["folds"], "early_checkpoint": 1}.get(scoring["function"], 0)
    if not networks:
        return f"Difficulty was scored by {scoring['function']}, without optimiser steps."
    return (
        f"Scoring the difficulty took {networks * (scoring['steps'] or training['steps'])} "
        f"optimiser steps for each seed on top of the {training['steps']} that every strategy gets."
    )


def _of_strategies(results: Results, differences: pd.DataFrame) -> Answer:
    baseline = baseline_strategy(results.strategies)
    others = [strategy for strategy in results.strategies if strategy != baseline]
    lead = "curriculum" if "curriculum" in others else others[0]
    rows = differences[(differences["over"] == "training seeds") & (differences["of"] == lead)]
    compared = [
        _Comparison(f"under `{row.given}`", row.aud_difference, row.half_width)
        for row in rows.itertuples()
    ]
    question = (
        f"Does {_TRAININGS.get(lead, lead)} make more correct answers arrive before their deadline "
        f"than {_TRAININGS.get(baseline, baseline)}?"
    )
    seeds = counted(results.training_seeds, "training seed")
    sentence = _sentence(
        compared,
        of_all="under each of the {} policies",
        of_none="under any of the {} policies",
        difference=f"{lead} − {baseline}",
        interval=f"95 % intervals, paired over {seeds}",
        unknown="With one training seed there is no interval: this says nothing of another "
        "training.",
    )
    remarks = []
    count = int((differences["over"] == "training seeds").sum())
    training = results.scenario.get("training", {})
    if "curriculum" in others and "scoring" in training and not training.get("checkpoints"):
        remarks.append(scoring_cost(training))
    if count > 1 and results.training_seeds > 1:
        remarks.append(f"Intervals are not corrected for the {count} comparisons of strategies.")
    if len(others) > 1:
        remarks.append(f"Further strategies are compared with {baseline} under “Differences”.")
    return Answer(question, sentence, remarks)


def _of_policies(results: Results, differences: pd.DataFrame) -> Answer:
    first, strategy = results.policies[0], results.strategies[0]
    rows = differences[differences["over"] == "replications"]
    # The oracle knows what no policy can know: it is a yardstick, and no candidate.
    if first != results.oracle and (rows["of"] != results.oracle).any():
        rows = rows[rows["of"] != results.oracle]
    compared = [
        _Comparison(f"with `{row.of}`", row.aud_difference, row.half_width)
        for row in rows.itertuples()
    ]
    repeated = counted(results.replications, "replication")
    trained = f"{counted(results.training_seeds, 'training')} of {strategy}"
    sentence = _sentence(
        compared,
        of_all="with each of the {} other policies",
        of_none="with any of the {} other policies",
        difference="the difference",
        interval=f"95 % intervals, paired over {repeated}, of {trained}",
        unknown="With one replication there is no interval: this says nothing of another run.",
    )
    remarks = ["Replications say nothing of another training."]
    if len(compared) > 1 and results.replications > 1:
        remarks.append(f"Intervals are not corrected for the {len(compared)} comparisons.")
    return Answer(
        f"Do other policies get more correct answers in before their deadline than `{first}`?",
        sentence,
        remarks,
    )


def _of_one_arm(results: Results, summary: pd.DataFrame) -> Answer:
    arm = summary.iloc[0]
    question = "How often does a correct answer arrive before its deadline?"
    if math.isnan(arm["aud"]):
        return Answer(question, "That is not known: no request was offered.", [])
    over = interval_over("aud", results.training_seeds)
    units = counted(
        results.training_seeds if over == "training seeds" else results.replications,
        over.removesuffix("s"),
    )
    if math.isnan(arm["aud_half_width"]):
        sentence = (
            f"For {percent(arm['aud'])} of all requests offered, in {units} of one training, "
            "which gives no interval."
        )
        return Answer(question, sentence, [])
    shown = percent(arm["aud"], arm["aud_half_width"])
    of_one = "" if over == "training seeds" else " of one training"
    sentence = f"For {shown} of all requests offered (95 % interval over {units}{of_one})."
    return Answer(question, sentence, [])


def _sentence(
    compared: list[_Comparison],
    of_all: str,
    of_none: str,
    difference: str,
    interval: str,
    unknown: str,
) -> str:
    """One sentence on all comparisons: which differ beyond doubt, and which do not.

    Args:
        of_all, of_none: all the places together, with a place for their number.
        difference: what of is compared less what it is compared with.
    """
    known = [one for one in compared if one.sign is not None]
    if not known:
        there = [one for one in compared if not math.isnan(one.gain)]
        if not there:
            return "That is not known: no request was offered."
        shown = _listed([f"{100 * one.gain:+.2f} points {one.where}" for one in there])
        return f"That cannot be said: {difference} was {shown} of {AUD}. {unknown}"
    gains = [one for one in known if one.sign == 1]
    losses = [one for one in known if one.sign == -1]
    even = [one for one in known if one.sign == 0]
    tail = f"({interval})" if len(known) > 1 else f"({interval.replace('intervals', 'interval')})"
    if len(even) == len(known):
        largest = max(even, key=lambda one: abs(one.gain) + one.half_width)
        if len(known) == 1:
            return (
                f"No difference beyond doubt: {largest.where}, {difference} is {largest} of {AUD} "
                f"{tail}, and the interval contains 0."
            )
        return (
            f"No difference beyond doubt {of_none.format(len(known))}: the widest interval, "
            f"{largest.where}, is {largest} of {AUD} {tail}, and all of them contain 0."
        )
    if not even and not (gains and losses):
        word = "Yes" if gains else "No, fewer"
        where = f" {of_all.format(len(known))}" if len(known) > 1 else ""
        if len(known) > 3:
            least, *_, most = sorted(known, key=lambda one: one.gain)
            shown = f"from {least} {least.where} to {most} {most.where}"
        else:
            shown = _listed([f"{one} {one.where}" for one in known])
        return f"{word}, in this scenario{where}: {shown} of {AUD} {tail}."
    parts = [
        f"{word} {_listed([f'{one.where} ({one})' for one in some])}"
        for word, some in (("more", gains), ("fewer", losses))
        if some
    ]
    if even:
        parts.append(f"no difference beyond doubt {_listed([one.where for one in even])}")
    word = "That depends on the policy" if gains and losses else "In part" if gains else "No"
    return f"{word}: {'; '.join(parts)}; in points of {AUD} {tail}."


def _listed(parts: list[str]) -> str:
    """``a, b and c``."""
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"
