"""The words of a report, as far as one report uses them."""

from __future__ import annotations

from offramp.report.results import Results

_ALWAYS = {
    "accuracy under deadline (AUD)": "Requests that were answered correctly and in time, over all "
    "requests offered. Dropped and lost requests stay in the denominator.",
    "on time": "Answered, and the answer reached the device before the deadline, rightly or "
    "wrongly. Its share of all requests offered is the hit ratio.",
    "late": "Answered after the deadline.",
    "dropped": "Refused by a node on purpose.",
    "lost": "Never answered.",
    "accuracy of answers": "Correct answers over answers, in time or not: what a test set sees.",
    "exit": "A place in the network where inference may stop. Exit 1 is the earliest; the last is "
    "the backbone's own classifier.",
    "policy": "What decides at a node: which exit, continue or stop, offload, drop.",
    "training seed": "One training of every strategy from the same initial weights. Intervals over "
    "training seeds say what to expect of another training.",
    "replication": "One run of the world with requests and times drawn anew, the same for every "
    "arm. Intervals over replications say what to expect of another run of these networks.",
    "95 % interval": "Mean ± half width by Student's t over independent repetitions. Where an "
    "interval of a difference contains 0, the sign of the difference is in doubt.",
    "VALID, INVALID": "Whether the numbers may be relied on as far as can be told: enough "
    "repetitions, enough requests, no overload with any strategy, a warm-up that was long enough.",
    "STABLE": "The node, or link, carries what it is asked.",
}

_VERDICTS = {
    "BACKLOGGED": "The node keeps up in the long run, but its queue took longer than a mean "
    "deadline to empty after the window.",
    "SATURATED": "The node is nearly always busy, but its queue cannot grow: results do not depend "
    "on the length of the window.",
    "OVERLOADED": "More work arrives than can be done: the queue grows for as long as the window "
    "lasts, and results depend on its length.",
}

_STRATEGIES = {
    "standard": "Samples are shown in random order, as usual.",
    "curriculum": "Easy samples are shown first.",
    "anti_curriculum": "Hard samples are shown first: a control.",
    "random_curriculum": "As many samples are shown as in a curriculum, in random order: a control "
    "that tells the order from the pace.",
}


def words(results: Results) -> dict[str, str]:
    """Definitions of what a report of these results says, in order."""
    return {
        **_ALWAYS,
        **_VERDICTS,
        **{name: text for name, text in _STRATEGIES.items() if name in results.strategies},
    }
