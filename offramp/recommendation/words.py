"""What a recommendation says of itself, in sentences: for the page and the command line."""

from __future__ import annotations

import math
from collections.abc import Iterator

from offramp.recommendation.cost import shown_cost
from offramp.recommendation.estimate import Estimate
from offramp.recommendation.files import SCENARIO
from offramp.recommendation.outcome import Outcome
from offramp.recommendation.target import Target
from offramp.recommendation.verification import ALPHA, Candidate, Verified
from offramp.sweep.template import as_json
from offramp.words import counted, enumerated

#: So many training seeds, at least, check what is recommended.
_FURTHER_SEEDS = 5


def answer(outcome: Outcome) -> str:
    """The answer in one sentence, with its uncertainty."""
    found = outcome.recommended
    targets = " and ".join(map(str, outcome.question.targets))
    if found is not None:
        return (
            f"The cheapest configuration that meets {targets} is {where(outcome, found)}: "
            f"{cost_text(outcome, found)}, with {metrics(outcome, found)}."
        )
    best = outcome.best
    return (
        f"Nothing that was tried is shown to meet {targets}: the best is "
        f"{where(outcome, best)} ({cost_text(outcome, best)}), with {metrics(outcome, best)}, "
        f"{off(outcome, best)}."
    )


def where(outcome: Outcome, it: Verified | Candidate) -> str:
    """Which configuration it is."""
    screened = it.screened if isinstance(it, Verified) else it
    configuration = screened.configuration
    values = zip(outcome.question.space.keys, configuration.values, strict=True)
    named = ", ".join(
        f"{key}={value if isinstance(value, str) else as_json(value)}" for key, value in values
    )
    return f"{screened.strategy} with {configuration.label}" + (f" at {named}" if named else "")


def cost_text(outcome: Outcome, it: Verified | Candidate) -> str:
    """What it costs, with the unit."""
    question = outcome.question
    priced = any(price != 1 for price in question.section.prices.values())
    return shown_cost(question.cost, it.cost.amount, priced)


def metrics(outcome: Outcome, it: Verified | Candidate) -> str:
    """Every metric, with its 95 % interval and what that is over."""
    parts = []
    for target, estimate in zip(outcome.question.targets, it.evidence.estimates, strict=True):
        if math.isnan(estimate.mean):
            parts.append(f"{target.metric} unknown (over {estimate.over})")
            continue
        unit = "%" if target.is_share else "ms"
        parts.append(
            f"{target.metric} {figure(target, estimate)} {unit} (95 % interval over "
            f"{estimate.over})"
        )
    return ", ".join(parts)


def figure(target: Target, estimate: Estimate) -> str:
    """A metric with half its interval, in per cent or ms; a dash where nothing was answered."""
    scale = 100 if target.is_share else 1e3
    if math.isnan(estimate.mean):
        return "-"
    half = scale * estimate.half_width
    return f"{scale * estimate.mean:.2f}" + (
        " (no interval)" if math.isnan(half) else f" ± {half:.2f}"
    )


def is_unknown(it: Verified | Candidate) -> bool:
    """Whether a metric is not known, since no request was answered in some run."""
    return any(math.isnan(estimate.mean) for estimate in it.evidence.estimates)


def off(outcome: Outcome, it: Verified | Candidate) -> str:
    """How far the metric that is met least is from its target."""
    pairs = zip(outcome.question.targets, it.evidence.estimates, strict=True)
    target, estimate = min(pairs, key=lambda pair: pair[0].slack(pair[1].mean))
    text = target.difference(estimate.mean)
    return text if len(outcome.question.targets) == 1 else f"{target.metric} {text}"


def verdict_text(outcome: Outcome, it: Verified) -> str:
    """A verdict in words."""
    if it.verdict == "not shown" and is_unknown(it):
        return "is not shown to meet the target, since no request is answered"
    if it.verdict == "not shown" and any(map(math.isnan, it.evidence.bounds(outcome.level))):
        return (
            "is not shown to meet the target, since so few replications that are all alike say "
            "nothing of how far others may be"
        )
    return {
        "met": "meets the target",
        "not shown": "is not shown to meet the target, which lies in its interval",
        "missed": "misses the target",
        "not judged": "was not judged, since a dearer one of its sequence did not pass",
    }[it.verdict]


def warnings(outcome: Outcome) -> Iterator[str]:
    """What whoever relies on the recommended one has to know before."""
    if outcome.recommended is None:
        return
    evidence = outcome.recommended.evidence
    if evidence.overloaded:
        yield (
            f"a node or a link is OVERLOADED in {evidence.overloaded} of "
            f"{counted(evidence.runs, 'run')} of what is recommended: it cannot keep up, what is "
            "reached depends on the window's length (simulation.duration_s), and in service it "
            "would get worse."
        )
    keys = outcome.question.trained_keys
    if not keys:
        return
    yield (
        f"{enumerated(keys)} {'is' if len(keys) == 1 else 'are'} searched, so that configurations "
        "have trainings of their own, and the search chose among these very networks. For other "
        "trainings of the same settings it may miss its target far more often than in "
        f"{100 * ALPHA:g} % of cases. Networks of other training seeds show whether it does: "
        f"{_check(outcome)}."
    )


def of_other_trainings(outcome: Outcome) -> str:
    """What a verdict says of networks that the search has not seen."""
    question = outcome.question
    if outcome.best.evidence.estimates[0].training_seeds < 2:
        return (
            "All of this is of one training: how far another one of the same settings is from it, "
            "one does not tell (training.seeds)."
        )
    if question.trained_keys:
        return (
            "Bounds count the spread between training seeds too, but the search saw the networks "
            f"of the verification, and chose among trainings: the {100 * ALPHA:g} % do not hold "
            "for other trainings."
        )
    text = (
        "Bounds count the spread between training seeds too, but the search saw the networks of "
        f"the verification. For other trainings, the {100 * ALPHA:g} % hold as far as networks "
        "that are lucky with one configuration are so with all of them; as far as some suit one "
        "exit or threshold by chance, it is more."
    )
    if outcome.recommended is None:
        return text
    return f"{text} Networks of other training seeds are the stricter check: {_check(outcome)}."


def _check(outcome: Outcome) -> str:
    """How the recommended scenario is run with networks that the search has not seen."""
    seen = outcome.question.base.scenario.training.seed_list
    first = max(seen) + 1
    further = as_json([*range(first, first + max(len(seen), _FURTHER_SEEDS))])
    return f"`offramp run {SCENARIO} --set 'training.seeds={further}'`"


def next_cheaper(outcome: Outcome) -> str:
    """What there is below the recommended one, and why it will not do."""
    it = outcome.next_cheaper
    if it is None:
        if outcome.exhaustive:
            return "Nothing cheaper exists in the space that was searched."
        return "Nothing cheaper was found in the space that was searched."
    return (
        f"The next cheaper one, {where(outcome, it)} ({cost_text(outcome, it)}), "
        f"{verdict_text(outcome, it)}: {metrics(outcome, it)}, {off(outcome, it)}."
    )


def by_strategy(outcome: Outcome) -> Iterator[str]:
    """The cheapest of every strategy, and whether the strategy makes a difference."""
    strategies = outcome.question.strategies
    if len(strategies) < 2 or outcome.recommended is None:
        return
    costs = []
    for strategy in strategies:
        found = outcome.recommended_of(strategy)
        if found is None:
            yield f"cheapest with {strategy}: none is shown to meet the target"
            continue
        costs.append(found.cost.amount)
        yield (
            f"cheapest with {strategy}: {cost_text(outcome, found)}, "
            f"{found.screened.configuration.label}, {metrics(outcome, found)}"
        )
    if len(costs) == len(strategies) and len(set(costs)) == 1:
        yield "the strategy makes no difference to the cost"


def by_policy(outcome: Outcome) -> Iterator[str]:
    """The cheapest of every policy in the search, and whether the policy makes a difference."""
    found = outcome.cheapest_by_policy()
    if len(found) < 2 or not any(found.values()):
        return
    parts = [
        f"{kind} from {cost_text(outcome, it)}" if it else f"{kind} never"
        for kind, it in found.items()
    ]
    yield f"by policy, as the search saw it: {', '.join(parts)}"
    amounts = {it.cost.amount if it else None for it in found.values()}
    if len(amounts) == 1:
        yield "the policy makes no difference to the cost"


def failures(outcome: Outcome) -> str:
    """How many trials failed, and why the first did; nothing if none did."""
    failed = [it for it in outcome.tried if it.candidate is None]
    if not failed:
        return ""
    return (
        f"{len(failed)} of {len(outcome.tried)} trials failed, the first since: {failed[0].error}"
    )


def advice(outcome: Outcome) -> Iterator[str]:
    """What would help where nothing is shown to meet the target."""
    if outcome.recommended is not None:
        return
    best = outcome.best
    if is_unknown(best):
        yield (
            "No request was answered, so that nothing is known of what was asked for: what nodes, "
            "links and faults do to requests comes first (offramp simulate, and its report)."
        )
        return
    if best.evidence.slack < 0:
        doubt = (
            ", beyond doubt"
            if best.verdict == "missed"
            else ", though the interval holds the target"
        )
        yield (
            f"The best that was found falls short{doubt}: a wider space (recommend.keys), more "
            "trials (recommend.trials), other policies or a longer training may do."
        )
        return
    lacking = [
        (target, it)
        for target, it, bound in zip(
            outcome.question.targets,
            best.evidence.estimates,
            best.evidence.bounds(outcome.level),
            strict=True,
        )
        if not target.is_met_by(bound)
    ]
    if any(target.is_share and target.value == 1 for target, _ in lacking):
        yield (
            "No request missed it, and no number of requests shows that none ever will: only a "
            "target below 100 % can be shown to be met."
        )
        return
    seeds = any(it.varies_most_with_seeds for _, it in lacking)
    more = "training seeds (training.seeds)" if seeds else "replications (recommend.replications)"
    yield (
        f"Its mean meets the target, and its interval is too wide to be sure: more {more} would "
        "narrow it."
    )
