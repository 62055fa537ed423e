"""The question that a run puts, and its answer in one sentence, with its uncertainty."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import pandas as pd

from offramp.report.markdown import listed, percent, points
from offramp.report.paired import SIGNIFICANCE
from offramp.report.results import Results, baseline_strategy, interval_over
from offramp.words import counted, enumerated
from sim.results.verdict import NOTHING_IN_TIME, policies_in_vain

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
    p_holm: float

    @property
    def sign(self) -> int | None:
        """1 or -1 where it is more than chance, 0 where it is not; None: nothing was tested."""
        return sign(self.gain, self.half_width, self.p_holm)

    @property
    def reach(self) -> float:
        """How far from zero it may be, as far as that is known."""
        return abs(self.gain) + (0.0 if math.isnan(self.half_width) else self.half_width)

    def __str__(self) -> str:
        return f"{points(self.gain, self.half_width)} points"


def sign(gain: float, half_width: float, p_holm: float) -> int | None:
    """1 or -1 where a gain is more than chance, 0 where it is not; None where nothing was tested.

    Args:
        p_holm: corrected over all that is said in one place.
    """
    if not math.isnan(p_holm):
        return 0 if p_holm >= SIGNIFICANCE else 1 if gain > 0 else -1
    # Pairs that are all equal are not tested, and do not differ.
    return 0 if gain == half_width == 0 else None


def answer(results: Results, summary: pd.DataFrame, differences: pd.DataFrame) -> Answer:
    """Of the strategies if there are several, else of the policies, else of the only arm."""
    found = _answer(results, summary, differences)
    if len(policies_in_vain(results.runs)) < len(results.policies):
        return found
    return Answer(found.question, f"That cannot be said: {NOTHING_IN_TIME}.", [])


def _answer(results: Results, summary: pd.DataFrame, differences: pd.DataFrame) -> Answer:
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
    vain = policies_in_vain(results.runs)
    rows = rows[~rows["given"].isin(vain)]
    compared = _compared(rows, [f"under `{policy}`" for policy in rows["given"]])
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
    remarks = vain_remarks(vain)
    of_strategies = differences[differences["over"] == "training seeds"]
    count = int((~of_strategies["given"].isin(vain)).sum())
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
    if first in results.candidates and rows["of"].isin(results.candidates).any():
        rows = rows[rows["of"].isin(results.candidates)]
    vain = policies_in_vain(results.runs)
    if first in vain:
        rows = rows[~rows["of"].isin(vain)]
    compared = _compared(rows, [f"with `{policy}`" for policy in rows["of"]])
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
    remarks = ["Replications say nothing of another training.", *vain_remarks(vain)]
    if len(compared) > 1 and results.replications > 1:
        remarks.append(f"Intervals are not corrected for the {len(compared)} comparisons.")
    return Answer(
        f"Do other policies get more correct answers in before their deadline than `{first}`?",
        sentence,
        remarks,
    )


def _compared(rows: pd.DataFrame, places: list[str]) -> list[_Comparison]:
    """Differences, as the sentence names them."""
    columns = (rows["aud_difference"], rows["half_width"], rows["p_holm"])
    return [_Comparison(*one) for one in zip(places, *columns, strict=True)]


def vain_remarks(policies: list[str]) -> list[str]:
    """What is said of policies that got no answer in time, where others did."""
    return [f"No request was answered in time under {listed(policies)}."] if policies else []


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
        shown = enumerated([f"{100 * one.gain:+.2f} points {one.where}" for one in there])
        return f"That cannot be said: {difference} was {shown} of {AUD}. {unknown}"
    gains = [one for one in known if one.sign == 1]
    losses = [one for one in known if one.sign == -1]
    even = [one for one in known if one.sign == 0]
    corrected = f"paired t-tests, p {{}} {SIGNIFICANCE:g} after Holm's correction"
    if len(even) == len(known):
        largest = max(even, key=lambda one: one.reach)
        if len(known) == 1:
            if math.isnan(largest.half_width):
                why = "and it is alike in too few pairs to be more than chance"
            elif abs(largest.gain) <= largest.half_width:
                why = "and the interval contains 0"
            else:
                why = f"and {corrected.format('≥')}, of all that the report compares"
            return (
                f"No difference beyond doubt: {largest.where}, {difference} is {largest} of {AUD} "
                f"({interval.replace('intervals', 'interval')}), {why}."
            )
        return (
            f"No difference beyond doubt {of_none.format(len(known))}: the widest interval, "
            f"{largest.where}, is {largest} of {AUD} ({interval}; {corrected.format('≥')})."
        )
    tail = (
        f"({interval}; {corrected.format('<')})"
        if len(known) > 1
        else f"({interval.replace('intervals', 'interval')})"
    )
    if not even and not (gains and losses):
        word = "Yes" if gains else "No, fewer"
        where = f" {of_all.format(len(known))}" if len(known) > 1 else ""
        if len(known) > 3:
            least, *_, most = sorted(known, key=lambda one: one.gain)
            shown = f"from {least} {least.where} to {most} {most.where}"
        else:
            shown = enumerated([f"{one} {one.where}" for one in known])
        return f"{word}, in this scenario{where}: {shown} of {AUD} {tail}."
    parts = [
        f"{word} {enumerated([f'{one.where} ({one})' for one in some])}"
        for word, some in (("more", gains), ("fewer", losses))
        if some
    ]
    if even:
        parts.append(f"no difference beyond doubt {enumerated([one.where for one in even])}")
    word = "That depends on the policy" if gains and losses else "In part" if gains else "No"
    return f"{word}: {'; '.join(parts)}; in points of {AUD} {tail}."
