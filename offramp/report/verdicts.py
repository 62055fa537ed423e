"""Whether nodes and links carried their load, and whether a result may be relied on."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from offramp.planned_changes import planned_changes
from offramp.report.results import Results
from offramp.stages.layout import LINKS
from offramp.words import counted, enumerated
from sim.results.verdict import doubts, load_verdict

#: So many reasons are said in a caption; the report has all.
_SAID = 3

#: What a user of a live run changes to have more of what is too few.
_LIVE_KEYS = {"replications_key": "--replications", "seeds_key": "--seed"}


def node_verdicts(results: Results) -> pd.DataFrame:
    """One row per policy, node and strategy: mean work, waiting and the verdict over all its runs.

    Strategies are judged apart: their networks may take other exits, and a node that one of them
    overloads is not the better for another that leaves it idle.
    """
    means = results.nodes.groupby(["policy", "node", "strategy"], sort=False)[
        ["work", "wait_mean_s", "drain_s", "deadline_mean_s", "bounded"]
    ].mean()
    bounded = means.pop("bounded") > 0
    means["verdict"] = [
        load_verdict(row.work, row.drain_s, row.deadline_mean_s, is_bounded)
        for row, is_bounded in zip(means.itertuples(), bounded, strict=True)
    ]
    return means.reset_index()


def link_verdicts(results: Results) -> pd.DataFrame:
    """One row per policy, link, direction and strategy: mean load of the busiest, its verdict."""
    keys = ["policy", "link", "direction", "strategy"]
    if LINKS not in results.others:
        return pd.DataFrame(columns=[*keys, "shared_by", "load", "verdict"])
    loads = results.others[LINKS].groupby(keys, sort=False)[["shared_by", "load"]].mean()
    loads["shared_by"] = loads["shared_by"].astype(int)
    loads["verdict"] = ["OVERLOADED" if load >= 1 else "STABLE" for load in loads["load"]]
    return loads.reset_index()


def alike(verdicts: pd.DataFrame, keys: Sequence[str]) -> pd.DataFrame:
    """Strategies that share a verdict in one row: ``strategies`` names them, numbers are means.

    Args:
        verdicts: of :func:`node_verdicts` or :func:`link_verdicts`.
        keys: columns that tell rows apart, but for the strategy.
    """
    numbers = [name for name in verdicts if name not in (*keys, "strategy", "verdict")]
    rows = []
    for place, of_place in verdicts.groupby(list(keys), sort=False):
        for verdict, together in of_place.groupby("verdict", sort=False):
            row = dict(zip(keys, place, strict=True))
            row["strategies"] = enumerated(list(together["strategy"]))
            rows.append({**row, **together[numbers].mean(), "verdict": verdict})
    return pd.DataFrame(rows, columns=[*keys, "strategies", *numbers, "verdict"])


def validity(results: Results) -> tuple[str, list[str]]:
    """``VALID`` or ``INVALID``, and the reasons for the latter."""
    reasons = doubts(
        results.runs,
        node_verdicts(results),
        results.training_seeds,
        results.replications,
        compares=len(results.strategies) > 1,
        links=link_verdicts(results),
        planned_changes=planned_changes(results.scenario),
        **(_LIVE_KEYS if results.is_live else {}),
    )
    return ("INVALID" if reasons else "VALID"), reasons


def invalid_note(results: Results) -> str:
    """What a caption says of results that are INVALID: a sentence; nothing of valid ones."""
    _, reasons = validity(results)
    if not reasons:
        return ""
    said = reasons[:_SAID]
    left = len(reasons) - len(said)
    if left:
        said.append(f"and {counted(left, 'further reason')}")
    return f"INVALID: {'; '.join(said)}."


def not_judged(results: Results) -> list[str]:
    """What a verdict leaves open, and why: a sentence each."""
    changes = planned_changes(results.scenario)
    if not changes:
        return []
    return [
        "Whether the warm-up was long enough was not judged: "
        f"{enumerated(changes)}, and latency moves with that."
    ]
