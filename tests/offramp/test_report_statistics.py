"""Means and intervals of reports belong together, and are over what they say."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from scipy import stats

from offramp.report.deadline_figures import aud_against_deadline
from offramp.report.exit_figures import exits_taken
from offramp.report.results import Results, differences, interval_over, summary
from offramp.report.run_tables import summary_table
from offramp.report.sweep_table import read_sweep
from offramp.report.tables import best_arm
from offramp.report.tables import summary_table as latex_summary
from offramp.report.tradeoff import tradeoff_points
from offramp.report.world_figures import aud_by_group, energy_per_correct_answer
from offramp.sweep.summary import Summary
from sim.results.metrics import ratio_interval

#: Four replications, of which the last has ten times as many requests as each of the others.
OFFERED = (100, 100, 100, 1000)
AUD = (0.9, 0.9, 0.9, 0.5)
#: (90 + 90 + 90 + 500) of 1300 requests; residuals of 30.77 three times and of -92.31, over 325.
POOLED, HALF_WIDTH = 770 / 1300, 3.18245 * 0.189349 / 2


def results_of(rows: list[dict[str, Any]], **others: pd.DataFrame) -> Results:
    """Results of runs of which only what the rows say is of interest; no record is kept."""
    runs = pd.DataFrame(rows)
    known = {
        "strategy": "standard",
        "policy": "full",
        "training_seed": 0,
        "replication": 0,
        "offered": 100,
        "late": 0,
        "dropped": 0,
        "lost": 0,
    }
    for name, value in known.items():
        runs[name] = runs[name].fillna(value) if name in runs else value
    if "hit_ratio" not in runs:
        runs["hit_ratio"] = runs["aud"]
    runs["answered"] = runs["offered"]
    runs["accuracy"] = runs["aud"]
    runs["on_time"] = runs["hit_ratio"] * runs["offered"]
    runs["exit_1"] = (runs["aud"] * runs["offered"]).round()
    runs["exit_2"] = runs["offered"] - runs["exit_1"]
    runs["latency_p95_s"] = runs["first_quarter_s"] = runs["rest_s"] = 0.01
    arms = runs[["strategy", "policy"]].drop_duplicates()
    percentiles = arms.assign(latency_p50_s=0.01, latency_p95_s=0.01, latency_p99_s=0.01)
    policies = [{"policy": policy} for policy in runs["policy"].unique()]
    scenario = {
        "name": "made up",
        "policies": policies,
        "simulation": {"records": "summary", "duration_s": 10, "warm_up_s": 1},
        "devices": {
            "cameras": {"deadline_ms": 40, "arrivals": {"process": "poisson"}, "link": "wifi"}
        },
    }
    tables = {"latency_percentiles.csv": percentiles} | {
        f"{name}.csv": table for name, table in others.items()
    }
    sweep = runs.assign(deadline_scale=1.0)
    empty = pd.DataFrame()
    idle = {"node": "edge", "work": 0.1, "wait_mean_s": 0.0, "drain_s": 0.0}
    nodes = runs.assign(**idle, deadline_mean_s=0.04, bounded=False)
    return Results(Path(), runs, nodes, sweep, empty, tables, None, {"scenario": scenario})


def unequal(**more: Any) -> list[dict[str, Any]]:
    """A row for each of the replications with :data:`OFFERED` requests."""
    return [
        {"replication": replication, "offered": offered, "aud": aud, **more}
        for replication, (offered, aud) in enumerate(zip(OFFERED, AUD, strict=True))
    ]


# --- one point estimate, and the interval about it ----------------------------------------------


def test_the_interval_of_a_share_of_unequal_replications_lies_about_the_share() -> None:
    row = summary(results_of(unequal())).iloc[0]
    for metric in ("aud", "hit_ratio", "accuracy"):
        assert row[metric] == pytest.approx(POOLED)
        assert row[f"{metric}_half_width"] == pytest.approx(HALF_WIDTH, rel=1e-4)


def test_figures_show_the_same_share_and_interval_as_the_summary() -> None:
    groups = pd.DataFrame(unequal(group="a") + unequal(group="b")).assign(
        strategy="standard", policy="full", training_seed=0
    )
    results = results_of(unequal(), groups=groups)
    curve = aud_against_deadline(results).data.iloc[0]
    bars = aud_by_group(results)
    assert bars is not None
    points = tradeoff_points(results).iloc[0]
    for mean, low, high in (
        (curve["aud"], curve["low"], curve["high"]),
        (bars.data["aud"][0], bars.data["low"][0], bars.data["high"][0]),
        (points["correct"], points["correct_low"], points["correct_high"]),
    ):
        assert mean == pytest.approx(POOLED)
        assert (high - low) / 2 == pytest.approx(HALF_WIDTH, rel=1e-4)
    taken = exits_taken(results).data.set_index("exit")
    assert taken["share"][1] == pytest.approx(POOLED)
    assert taken["sd"][1] == pytest.approx(0.189349, rel=1e-4)


def test_a_difference_of_policies_is_that_of_their_shares() -> None:
    other = [row | {"policy": "first", "aud": row["aud"] - 0.1} for row in unequal()]
    other[3]["aud"] = 0.6
    results = results_of(unequal() + other)
    aud = summary(results).set_index("policy")["aud"]
    [gap] = differences(results)["aud_difference"]
    assert gap == pytest.approx(aud["first"] - aud["full"])
    assert gap == pytest.approx((3 * 80 + 600 - 770) / 1300)
    best = best_arm(results)
    assert best is not None
    assert best.arm[1] == "first", "worse in three of four replications, better in most requests"


def test_a_part_of_the_oracles_aud_is_that_of_the_shares() -> None:
    oracle = [row | {"policy": "oracle", "aud": 0.95} for row in unequal()]
    row = summary(results_of(unequal() + oracle)).iloc[0]
    assert row["oracle_share"] == pytest.approx(POOLED / 0.95)
    assert row["oracle_share_half_width"] == pytest.approx(HALF_WIDTH / 0.95, rel=1e-4)


def test_a_sweeps_summary_and_figures_have_the_share_of_all_requests_too(tmp_path: Path) -> None:
    rows = results_of(unequal()).runs.assign(point=0, **{"nodes.edge.workers": 1}, verdict="STABLE")
    rows = rows.assign(**{f"latency_{name}_s": 0.01 for name in ("mean", "p50", "p95", "p99")})
    keys = ["point", "nodes.edge.workers", "strategy"]
    rows = rows[[*keys, *(name for name in rows if name not in keys)]]
    Summary(["nodes.edge.workers"], tmp_path / "summary.csv").add(pa.Table.from_pandas(rows))
    rows.to_parquet(tmp_path / "sweep.parquet")
    row = pd.read_csv(tmp_path / "summary.csv").iloc[0]
    for metric in ("aud", "hit_ratio", "accuracy"):
        assert row[metric] == pytest.approx(POOLED)
        assert row[f"{metric}_half_width"] == pytest.approx(HALF_WIDTH, rel=1e-4)
    sweep = read_sweep(tmp_path)
    mean = sweep.means(sweep.aud("replication"), ["nodes.edge.workers"], "replication").iloc[0]
    assert mean["mean"] == pytest.approx(POOLED)
    assert mean["high"] - mean["mean"] == pytest.approx(HALF_WIDTH, rel=1e-4)


# --- energy -------------------------------------------------------------------------------------


def test_joules_of_replications_without_a_correct_answer_are_part_of_what_one_costs() -> None:
    rows = [
        {"replication": replication, "aud": aud, "j_per_request": 1.0}
        | {"j_per_correct_on_time": 100 / (100 * aud) if aud else math.nan}
        for replication, aud in enumerate((0.0, 0.0, 0.0, 0.8))
    ]
    results = results_of(rows)
    row = summary(results).iloc[0]
    expected = ratio_interval([100.0] * 4, [0.0, 0.0, 0.0, 80.0])
    assert row["j_per_correct_on_time"] == expected.mean == 5.0
    assert row["j_per_correct_on_time_half_width"] == pytest.approx(expected.half_width)
    figure = energy_per_correct_answer(results)
    assert figure is not None
    bar = figure.data.iloc[0]
    assert (bar["j"], bar["n"]) == (5.0, 4)
    assert bar["high"] - bar["j"] == pytest.approx(expected.half_width)


def test_without_a_correct_answer_there_is_no_cost_of_one() -> None:
    rows = [
        {"replication": it, "aud": 0.0, "j_per_request": 1.0, "j_per_correct_on_time": math.nan}
        for it in range(3)
    ]
    results = results_of(rows)
    assert math.isnan(summary(results)["j_per_correct_on_time"][0])
    assert energy_per_correct_answer(results) is None


# --- what intervals are over --------------------------------------------------------------------


def test_the_hit_ratio_of_several_trainings_has_an_interval_over_them() -> None:
    """Under a policy that looks at confidence, the network decides how long an answer takes."""
    trainings = (0.52, 0.71, 0.79, 0.61)
    rows = [
        {"training_seed": seed, "replication": replication, "aud": 0.5, "hit_ratio": hits + noise}
        for seed, hits in enumerate(trainings)
        for replication, noise in enumerate((-0.01, 0.0, 0.01))
    ]
    results = results_of(rows)
    arms = summary(results)
    half_width = stats.t.ppf(0.975, 3) * np.std(trainings, ddof=1) / 2
    assert arms["hit_ratio"][0] == pytest.approx(0.6575)
    assert arms["hit_ratio_half_width"][0] == pytest.approx(half_width)
    note = summary_table(results, arms).note
    assert "Intervals: 95 %, Student's t, over 4 training seeds." in note
    assert "hit ratio's ± has no width" in note
    assert "95 % t intervals over 4 training seeds." in latex_summary(results, arms).replace(
        r"\%", "%"
    ).replace("~", " ")


def test_shares_and_joules_are_over_trainings_where_there_are_several_and_latencies_never() -> None:
    for metric in ("aud", "hit_ratio", "accuracy", "j_per_request"):
        assert interval_over(metric, 2) == "training seeds"
        assert interval_over(metric, 1) == "replications"
    for metric in ("latency_p95_s", "jain_aud"):
        assert interval_over(metric, 4) == "replications"


def test_a_sweeps_hit_ratio_is_over_trainings_where_there_are_several(tmp_path: Path) -> None:
    rows = results_of(
        [{"training_seed": seed, "aud": 0.5, "hit_ratio": 0.5 + 0.1 * seed} for seed in range(3)]
    ).runs.assign(point=0, verdict="STABLE")
    rows = rows.assign(**{f"latency_{name}_s": 0.01 for name in ("mean", "p50", "p95", "p99")})
    Summary([], tmp_path / "summary.csv").add(pa.Table.from_pandas(rows))
    row = pd.read_csv(tmp_path / "summary.csv").iloc[0]
    half_width = stats.t.ppf(0.975, 2) * 0.1 / 3**0.5
    assert row["hit_ratio_half_width"] == pytest.approx(half_width)


def test_nothing_in_time_has_no_interval_and_no_fairness() -> None:
    rows = [
        {"policy": policy, "replication": replication, "aud": aud, "jain_aud": 1.0}
        for policy, aud in (("full", 0.0), ("early", 0.9))
        for replication in range(3)
    ]
    results = results_of(rows)
    found = summary(results).set_index("policy")
    assert found.loc["full", "aud"] == 0
    assert found.loc["full", ["aud_half_width", "hit_ratio_half_width", "jain_aud"]].isna().all()
    assert found.loc["early", ["aud_half_width", "jain_aud"]].tolist() == [0.0, 1.0]
    of_full = summary_table(results, summary(results)).rows[0]
    assert of_full[2] == "0.0 % (no interval)"
    assert of_full[-1] == "-"


def test_p_is_corrected_over_all_comparisons_of_a_kind() -> None:
    rng = np.random.default_rng(3)
    rows = [
        {
            "strategy": strategy,
            "policy": policy,
            "training_seed": seed,
            "replication": replication,
            "aud": 0.5 + 0.05 * (strategy == "curriculum") + 0.02 * rng.standard_normal(),
        }
        for strategy in ("standard", "curriculum")
        for policy in ("full", "early", "late")
        for seed in range(4)
        for replication in range(3)
    ]
    found = differences(results_of(rows))
    for over, count in (("training seeds", 3), ("replications", 4)):
        of_kind = found[found["over"] == over]
        assert len(of_kind) == count
        least = of_kind["p"].idxmin()
        assert of_kind.loc[least, "p_holm"] == pytest.approx(min(1, count * of_kind["p"].min()))
        assert (of_kind["p_holm"] >= of_kind["p"]).all()
