"""The figures of a run that are compared with those of its reproduction."""

from __future__ import annotations

import re
from collections.abc import Sequence

import pandas as pd

from sim.outcomes import OUTCOMES

#: Columns of runs that are compared as they are, where they are there.
_AS_THEY_ARE = (
    "offered",
    "aud",
    "hit_ratio",
    "accuracy",
    "latency_mean_s",
    "latency_p50_s",
    "latency_p95_s",
    "latency_p99_s",
    "jain_aud",
    "device_j_per_request",
    "j_per_request",
    "j_per_correct_on_time",
)

#: Counts of requests, of which the share of those offered is compared.
_SHARES = tuple(outcome for outcome in OUTCOMES if outcome != "on_time")  # that is the hit ratio


def run_figures(runs: pd.DataFrame, arms: Sequence[str]) -> pd.DataFrame:
    """The figures of each run, one column each, of a table such as ``runs.csv``.

    Args:
        arms: columns that tell arms apart.
    """
    figures = runs[[*arms, "training_seed", "replication"]].copy()
    for name in _AS_THEY_ARE:
        if name in runs:
            figures[name] = pd.to_numeric(runs[name])
    exits = [name for name in runs.columns if re.fullmatch(r"exit_\d+", str(name))]
    for name in (*_SHARES, *exits):
        if name in runs:
            figures[f"{name}_share"] = runs[name] / runs["offered"]
    return figures


def is_continuous(figure: str) -> bool:
    """Whether a figure is a time or an energy, and no count of requests or share of them."""
    return figure.startswith("latency_") or "j_per_" in figure


def exit_figures(changes: pd.DataFrame, column: str) -> pd.DataFrame:
    """Test accuracy of each exit as figures: one row per strategy and training seed.

    Args:
        changes: of :func:`offramp.reproduction.networks.network_changes`.
        column: ``accuracy_before`` or ``accuracy_after``.
    """
    table = changes.pivot(index=["strategy", "training_seed"], columns="exit", values=column)
    table.columns = pd.Index([f"test_accuracy_exit_{exit}" for exit in table.columns])
    return table.reset_index().assign(replication=0)
