"""By how much each run differs from the first, arm by arm, and whether by more than chance."""

from __future__ import annotations

import pandas as pd

from offramp.comparison.runs import Compared, has_arm, same_networks, same_requests
from offramp.report.results import Results, baseline_strategy
from offramp.reproduction.figures import run_figures
from offramp.reproduction.statistics import Anew, differences, with_verdicts

#: What is compared: few figures, so that correcting for their number costs little.
METRICS = ("aud", "hit_ratio", "accuracy", "latency_p50_s", "latency_p95_s", "latency_p99_s")

#: AUD less that of the baseline strategy with the same seed, policy and requests.
GAIN = "aud_gain"

ARM = ["strategy", "policy"]


def run_differences(compared: Compared) -> pd.DataFrame:
    """Every later run less the first one, for the arms that both have.

    Which repetitions count as independent depends on what the two runs share, as in
    :mod:`offramp.reproduction.statistics`. Whether a strategy gains more in one run than in the
    other (:data:`GAIN`) is asked of trainings, and is over training seeds though networks are the
    same; over replications too where requests differ. All rows are one family of Holm's correction.

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
        before, after = _figures(reference, arms), _figures(run, arms)
        found = [differences(before, after, ARM, anew)]
        strategies = list(dict.fromkeys(strategy for strategy, _ in arms))
        if len(strategies) > 1:
            baseline = baseline_strategy(strategies)
            before, after = _gains(before, baseline), _gains(after, baseline)
            of_trainings = Anew(networks=True, requests=anew.requests)
            found.append(differences(before, after, ARM, of_trainings))
        for part in found:
            part.insert(0, "run", label)
        parts += found
    if not parts:
        return pd.DataFrame(columns=["run", *ARM, "metric", "difference", "half_width", "verdict"])
    return with_verdicts(pd.concat(parts, ignore_index=True))


def _figures(run: Results, arms: list[tuple[str, str]]) -> pd.DataFrame:
    figures = run_figures(run.runs, ARM)
    kept = [arm in arms for arm in zip(figures["strategy"], figures["policy"], strict=True)]
    return figures.loc[kept, [*ARM, "training_seed", "replication", *METRICS]]


def _gains(figures: pd.DataFrame, baseline: str) -> pd.DataFrame:
    """What each strategy but the baseline gains over it, run by run."""
    keys = ["policy", "training_seed", "replication"]
    aud = figures.set_index(["strategy", *keys])["aud"]
    others = aud.drop(index=baseline, level="strategy")
    gains = others - aud.xs(baseline, level="strategy").reindex(others.index.droplevel(0)).array
    return gains.rename(GAIN).reset_index()
