"""By how much each run differs from the first, arm by arm, and whether by more than chance."""

from __future__ import annotations

import pandas as pd

from offramp.comparison.runs import Compared, has_arm, same_networks, same_requests
from offramp.report.results import Results
from offramp.reproduction.figures import run_figures
from offramp.reproduction.statistics import Anew, differences, with_verdicts

#: What is compared: few figures, so that correcting for their number costs little.
METRICS = ("aud", "hit_ratio", "accuracy", "latency_p50_s", "latency_p95_s", "latency_p99_s")

ARM = ["strategy", "policy"]


def run_differences(compared: Compared) -> pd.DataFrame:
    """Every later run less the first one, for the arms that both have.

    Which repetitions count as independent depends on what the two runs share, as in
    :mod:`offramp.reproduction.statistics`. All rows are one family of Holm's correction.

    Returns:
        One row per run, arm and metric: ``run``, ``strategy``, ``policy``, ``metric``, ``before``
        (the first run's mean), ``after``, ``difference``, ``half_width``, ``test``, ``n``,
        ``over``, ``n_before``, ``n_after``, ``freedom``, ``p``, ``p_holm``, ``verdict``.
    """
    reference = compared.runs[0]
    parts = []
    for label, run in list(compared.named)[1:]:
        arms = [arm for arm in compared.arms if has_arm(reference, arm) and has_arm(run, arm)]
        if not arms:
            continue
        anew = Anew(
            networks=not same_networks(reference, run), requests=not same_requests(reference, run)
        )
        part = differences(_figures(reference, arms), _figures(run, arms), ARM, anew)
        part.insert(0, "run", label)
        parts.append(part)
    if not parts:
        return pd.DataFrame(columns=["run", *ARM, "metric", "difference", "half_width", "verdict"])
    return with_verdicts(pd.concat(parts, ignore_index=True))


def _figures(run: Results, arms: list[tuple[str, str]]) -> pd.DataFrame:
    figures = run_figures(run.runs, ARM)
    kept = [arm in arms for arm in zip(figures["strategy"], figures["policy"], strict=True)]
    return figures.loc[kept, [*ARM, "training_seed", "replication", *METRICS]]
