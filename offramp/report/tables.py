"""LaTeX tables of a run: its arms, the differences between them, and the exits."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

import pandas as pd

from models.files import write_text
from offramp.report.figure import window
from offramp.report.latex import Numbers, Text, table_environment
from offramp.report.markdown import p_value
from offramp.report.paired import SIGNIFICANCE, compare_pairs, holm
from offramp.report.results import Results, interval_over
from offramp.report.run_tables import pooled_note
from offramp.report.verdicts import invalid_note
from offramp.words import counted
from sim.results.metrics import confidence_interval, over_replications, over_training_seeds

TABLE_NAMES = ("summary", "differences", "exits")


@dataclass(frozen=True)
class Best:
    """Which arm has the highest AUD, and whether that is more than chance.

    Attributes:
        arm: strategy and policy.
        next: those of the runner-up.
        p: of their paired difference, corrected; NaN if it could not be tested.
        over: what the pairs are: ``training seeds`` or ``replications``.
        tested: comparisons that were corrected for.
    """

    arm: tuple[str, str]
    next: tuple[str, str]
    p: float
    over: str
    tested: int

    @property
    def is_significant(self) -> bool:
        """Whether the best arm is better than the runner-up."""
        return self.p < SIGNIFICANCE


def write_tables(
    results: Results, summary: pd.DataFrame, differences: pd.DataFrame, folder: Path
) -> list[str]:
    """Write every table into ``folder``; return the names of those that there are."""
    tables = {"summary": summary_table(results, summary)}
    if len(differences):
        tables["differences"] = differences_table(results, differences)
    tables["exits"] = exits_table(results)
    for name in TABLE_NAMES:
        if name in tables:
            write_text(folder / f"{name}.tex", tables[name])
        else:
            (folder / f"{name}.tex").unlink(missing_ok=True)
    return list(tables)


def best_arm(results: Results) -> Best | None:
    """The arm with the highest AUD, against the next; None if there is one arm alone.

    The oracle, which knows what no policy can, is none of them.

    Every arm is compared with every other, since the best was not named beforehand: over
    replications where the strategy is the same, else over training seeds (see
    :mod:`sim.results.metrics`), with Holm's correction over all these pairs.
    """
    arms = [(strategy, policy) for strategy in results.strategies for policy in results.candidates]
    if len(arms) < 2:
        return None
    by_seed = over_training_seeds(results.runs, "aud")
    by_replication = over_replications(results.runs, "aud")
    means = {arm: float(by_seed.xs(arm).mean()) for arm in arms}
    # Of arms that are equal, the first in the order of the scenario comes first.
    first, second = sorted(arms, key=lambda arm: -means[arm])[:2]
    pairs, p = list(combinations(arms, 2)), []
    for one, other in pairs:
        values = by_replication if one[0] == other[0] else by_seed
        p.append(compare_pairs((values.xs(one) - values.xs(other)).dropna()).p)
    corrected = dict(zip(pairs, holm(p).tolist(), strict=True))
    found = corrected.get((first, second), corrected.get((second, first), math.nan))
    over = "replications" if first[0] == second[0] else "training seeds"
    return Best(first, second, found, over, sum(not math.isnan(value) for value in p))


def summary_table(results: Results, summary: pd.DataFrame) -> str:
    """AUD, hit ratio, accuracy and latency of every arm, as LaTeX."""
    best = best_arm(results)
    bold = [
        best is not None and best.is_significant and (row.strategy, row.policy) == best.arm
        for row in summary.itertuples()
    ]
    columns: list[Text | Numbers] = [
        Text("strategy", [name.replace("_", " ") for name in summary["strategy"]]),
        Text("policy", list(summary["policy"])),
        *(
            _percent(head, summary[name], summary[f"{name}_half_width"], marks)
            for head, name, marks in (
                ("AUD (%)", "aud", bold),
                ("hit ratio (%)", "hit_ratio", None),
                ("accuracy (%)", "accuracy", None),
            )
        ),
        *(
            Numbers(f"p{percent} (ms)", list(1e3 * summary[f"latency_p{percent}_s"]))
            for percent in (50, 95, 99)
        ),
    ]
    over = _over(results, "aud")
    caption = (
        f"{results.scenario['name']}: accuracy under deadline (AUD: correct and on-time requests "
        "over all offered), share of requests answered in time, accuracy of the answers, and "
        f"percentiles of their latency. {counted(results.replications, 'replication')} of "
        f"{window(results)}, {counted(results.training_seeds, 'training seed')}. "
    )
    if results.training_seeds < 2 and results.replications < 2:
        caption += "No intervals: one training seed and one replication."
    elif results.training_seeds < 2:
        caption += f"±: 95 % t intervals over {over}; they say nothing of another training."
    else:
        caption += f"±: 95 % t intervals over {over}."
    caption = f"{caption} {pooled_note(results)}".rstrip()
    if best is not None:
        caption += " " + bold_sentence(best)
        if len(results.candidates) < len(results.policies):
            caption += " The oracle is a yardstick, and no candidate."
    groups = _group_starts(list(summary["policy"]))
    caption = f"{caption} {invalid_note(results)}".rstrip()
    return table_environment("summary", columns, caption, groups)


def bold_sentence(best: Best) -> str:
    """What bold means in a table, and why there is none where there is none."""
    corrected = f"after Holm's correction over {counted(best.tested, 'pair')} of arms"
    if best.is_significant:
        return (
            "Bold: the highest AUD, which differs from the next (paired t-test over "
            f"{best.over}, p < {SIGNIFICANCE:g} {corrected})."
        )
    if math.isnan(best.p):
        return (
            f"No AUD is bold: the highest could not be told from the next over {best.over} "
            "(too few, or equal in each)."
        )
    return (
        "No AUD is bold: the highest does not differ from the next (paired t-test over "
        f"{best.over}, p = {best.p:.2f} {corrected})."
    )


def differences_table(results: Results, differences: pd.DataFrame) -> str:
    """Paired differences in AUD, as LaTeX."""
    halves = 100 * differences["half_width"]
    decimals = _decimals(halves, 2)
    columns: list[Text | Numbers] = [
        Text(
            "difference",
            [f"{row.of} − {row.less}" for row in differences.itertuples()],
        ),
        Text("given", list(differences["given"])),
        Numbers(
            "AUD (points)",
            list(100 * differences["aud_difference"]),
            decimals,
            list(halves),
            signed=True,
        ),
        Text("p", [p_value(p) for p in differences["p_holm"]]),
        Text(
            "pairs",
            [counted(row.n, row.over.removesuffix("s")) for row in differences.itertuples()],
        ),
    ]
    caption = (
        f"{results.scenario['name']}: differences in accuracy under deadline, in percentage "
        "points, paired: strategies over training seeds, policies over replications given these "
        "trainings. "
    )
    caption += (
        f"±: 95 % t intervals, not corrected for {counted(len(differences), 'comparison')}."
        if halves.notna().any()
        else "No intervals: one repetition, or the same difference in each."
    )
    if differences["p_holm"].notna().any():
        caption += (
            " p: paired t-tests, or sign tests where all differ by the same, after Holm's "
            "correction over all of strategies, and over all of policies."
        )
    caption = f"{caption} {invalid_note(results)}".rstrip()
    return table_environment(
        "differences", columns, caption, _group_starts(list(differences["over"]))
    )


def exits_table(results: Results) -> str:
    """Test accuracy of each exit by strategy, and its latency where it was measured, as LaTeX."""
    accuracy = results.exit_accuracy
    exits = sorted(accuracy["exit"].unique())
    columns: list[Text | Numbers] = [Text("exit", [str(exit) for exit in exits])]
    for strategy in results.strategies:
        of_arm = accuracy[accuracy["strategy"] == strategy].groupby("exit")["accuracy"]
        halves = of_arm.apply(lambda values: confidence_interval(values).half_width)
        columns.append(
            _percent(
                f"{strategy.replace('_', ' ')} (%)", of_arm.mean().loc[exits], halves.loc[exits]
            )
        )
    caption = f"{results.scenario['name']}: test accuracy of each exit"
    if results.profile:
        times = 1e3 * results.profile.seconds[1]["exit"]
        quantiles = pd.DataFrame(times).quantile([0.5, 0.95]).to_numpy()
        columns += [
            Numbers("p50 (ms)", list(quantiles[0]), 2),
            Numbers("p95 (ms)", list(quantiles[1]), 2),
        ]
        caption += (
            f", and percentiles of the latency of one inference to it over {len(times)} "
            "inferences on the host"
        )
    caption += (
        f". ±: 95 % t intervals over {counted(results.training_seeds, 'training seed')}."
        if results.training_seeds > 1
        else ". No intervals: one training seed."
    )
    return table_environment("exits", columns, caption)


def _percent(
    head: str,
    shares: pd.Series,
    half_widths: pd.Series,
    bold: Sequence[bool] | None = None,
) -> Numbers:
    halves = 100 * half_widths
    return Numbers(head, list(100 * shares), _decimals(halves, 1), list(halves), bold)


def _decimals(half_widths: pd.Series, least: int) -> int:
    """One more than usual where a half width would be rounded to nothing."""
    small = half_widths[(half_widths > 1e-9) & (half_widths < 0.5 * 10.0**-least)]
    return least + 1 if len(small) else least


def _group_starts(values: list[str]) -> list[int]:
    """Rows at which a value differs from the one before."""
    return [row for row in range(1, len(values)) if values[row] != values[row - 1]]


def _over(results: Results, metric: str) -> str:
    over = interval_over(metric, results.training_seeds)
    number = results.training_seeds if over == "training seeds" else results.replications
    return counted(number, over.removesuffix("s"))
