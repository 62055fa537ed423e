"""Two worlds compared, where it is known how far they are apart."""

import copy
import json
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from scipy import stats

from models.errors import ResultsError
from offramp.validation.comparison import compare, run_metrics
from offramp.validation.figures import latency_steps, write_figures
from offramp.validation.page import misses, verdict_line
from offramp.validation.runs import read_side
from sim.results.records import SCHEMA, write_records
from tests.offramp.latex_papers import needs_latex, paper_of

SCENARIO: dict[str, Any] = {
    "name": "pair",
    "seed": 1,
    "data": {"dataset": "digits"},
    "model": {"backbone": "resnet8"},
    "training": {"seeds": [0]},
    "devices": {"cameras": {"count": 2, "arrivals": {"process": "poisson"}, "energy": None}},
    "policies": [{"policy": "full"}],
    "simulation": {"duration_s": 10.0, "warm_up_s": 0.0, "replications": 2},
    "nodes": {"edge": {"workers": 1, "replicas": 1, "queue": "fifo", "batch": None}},
    "mqtt": {"qos": 1},
}


@dataclass
class World:
    """Requests and what became of them; ``latency_s`` NaN for no answer."""

    latency_s: list[list[float]]
    exit: int = 1
    correct: list[bool] | None = None
    work: list[float] = field(default_factory=lambda: [0.5, 0.5])
    world: str = "live"
    scenario: dict[str, Any] = field(default_factory=lambda: copy.deepcopy(SCENARIO))
    inputs: dict[str, str] = field(default_factory=dict)
    shift: Callable[[pd.DataFrame], None] = lambda table: None

    def write(self, folder: Path) -> Path:
        parts = []
        for replication, latencies in enumerate(self.latency_s):
            latency_s, count = np.array(latencies), len(latencies)
            answered = ~np.isnan(latency_s)
            created_s = np.arange(count) * 0.01
            on_time = answered & (np.nan_to_num(latency_s) <= 0.1)
            correct = np.array(self.correct or [True] * count) & answered
            parts.append(
                pd.DataFrame(
                    {
                        "strategy": "standard",
                        "training_seed": 0,
                        "policy": "full",
                        "replication": replication,
                        "request": np.arange(count),
                        "device": [f"cameras-{it % 2}" for it in range(count)],
                        "group": "cameras",
                        "node": "edge",
                        "sample": np.arange(count) % 7,
                        "label": np.arange(count) % 10,
                        "created_s": created_s,
                        "deadline_s": 0.1,
                        "arrived_s": np.where(answered, created_s + 0.001, np.nan),
                        "started_s": np.where(answered, created_s + 0.002, np.nan),
                        "finished_s": created_s + latency_s - 0.001,
                        "received_s": created_s + latency_s,
                        "exit": pd.array(np.where(answered, self.exit, None), dtype="Int32"),
                        "predicted": pd.array(np.where(answered, 1, None), dtype="Int32"),
                        "confidence": 0.5,
                        "correct": correct,
                        "outcome": np.where(on_time, "on_time", np.where(answered, "late", "lost")),
                    }
                )
            )
        table = pd.concat(parts) if parts else pd.DataFrame(columns=SCHEMA.names)
        self.shift(table)
        folder.mkdir(parents=True)
        arrow = pa.Table.from_pandas(table, preserve_index=False)
        arrow = pa.table([arrow[it.name].cast(it.type) for it in SCHEMA], schema=SCHEMA)
        write_records(folder / "records.parquet", [arrow], {"world": self.world})
        pd.DataFrame(
            {
                "strategy": "standard",
                "training_seed": 0,
                "policy": "full",
                "replication": range(len(self.work)),
                "node": "edge",
                "work": self.work,
            }
        ).to_csv(folder / "nodes.csv", index=False)
        manifest = {"scenario": self.scenario, "world": self.world, "inputs": self.inputs}
        (folder / "manifest.json").write_text(json.dumps(manifest))
        return folder


@pytest.fixture
def compared(tmp_path: Path) -> Callable[[World, World], Any]:
    def run(live: World, simulated: World) -> Any:
        simulated.world = "simulated" if simulated.world == "live" else simulated.world
        return compare(live.write(tmp_path / "live"), simulated.write(tmp_path / "simulated"))

    return run


def row_of(comparison: Any, metric: str) -> dict[str, Any]:
    rows = comparison.table[comparison.table["metric"] == metric]
    assert len(rows) == 1
    found: dict[str, Any] = rows.iloc[0].to_dict()
    return found


def even(low: float, high: float, count: int = 200) -> list[float]:
    return np.linspace(low, high, count).tolist()


@needs_latex
def test_the_figures_of_a_validation_go_into_a_paper(compared: Any, tmp_path: Path) -> None:
    comparison = compared(World([even(0.01, 0.05)] * 2), World([even(0.02, 0.06)] * 2))
    arm = {"strategy": "standard", "training_seed": 0, "policy": "full", "requests": 400}
    parts = pd.DataFrame(
        arm | {"world": world, "part": part, "seconds": 0.01}
        for world in ("live", "simulated")
        for part in ("uplink", "broker", "queue", "inference", "downlink")
    )
    write_figures(comparison, parts, tmp_path / "figures")
    assert len(paper_of(tmp_path, tmp_path / "figures")) == 2


# --- the truth ------------------------------------------------------------------------------------


def test_a_simulation_that_is_slower_by_a_tenth_is_off_by_a_tenth(compared: Any) -> None:
    live = World([even(0.01, 0.05), even(0.02, 0.06)])
    slower = World([[1.1 * it for it in latencies] for latencies in live.latency_s])
    comparison = compared(live, slower)
    for q in (50, 95, 99):
        row = row_of(comparison, f"latency_p{q}_s")
        assert row["error"] == pytest.approx(0.1)
        assert row["error_half_width"] == pytest.approx(0.0, abs=1e-9)
        expected = np.mean([np.percentile(it, q) for it in live.latency_s])
        assert row["live"] == pytest.approx(expected, rel=1e-6)
        assert row["error_in"] == "relative"
    assert row_of(comparison, "aud")["error"] == 0.0
    assert comparison.same_requests == 400


def test_shares_are_compared_in_points_of_all_requests_offered(compared: Any) -> None:
    # 150 of 200 in time, half of all right; then 160 of 200.
    right = [True, False] * 100
    live = World([[0.01] * 150 + [0.2] * 30 + [math.nan] * 20] * 2, correct=right)
    other = World([[0.01] * 160 + [0.2] * 40] * 2, correct=right, exit=2, work=[0.6, 0.7])
    comparison = compared(live, other)
    expected = {
        "aud": (75 / 200, 80 / 200),
        "hit_ratio": (0.75, 0.8),
        "exit_0": (0.1, 0.0),
        "exit_1": (0.9, 0.0),
        "exit_2": (0.0, 1.0),
        "utilisation_edge": (0.5, 0.65),
        "throughput_hz": (18.0, 20.0),
    }
    for metric, (mine, theirs) in expected.items():
        row = row_of(comparison, metric)
        assert (row["live"], row["simulated"]) == pytest.approx((mine, theirs)), metric
        error = theirs / mine - 1 if metric == "throughput_hz" else theirs - mine
        assert row["error"] == pytest.approx(error), metric


def test_the_interval_of_an_error_is_of_what_is_paired_by_replication(compared: Any) -> None:
    live = World([even(0.01, 0.02), even(0.03, 0.04), even(0.05, 0.06)], work=[0.5] * 3)
    factors = np.array([1.00, 1.05, 1.13])
    pairs = zip(live.latency_s, factors, strict=True)
    other = World([[factor * it for it in mine] for mine, factor in pairs], work=[0.5] * 3)
    row = row_of(compared(live, other), "latency_p50_s")
    p50_s = np.array([0.015, 0.035, 0.055])
    error = (factors * p50_s).sum() / p50_s.sum() - 1
    assert row["error"] == pytest.approx(error)
    assert row["error"] == pytest.approx(row["simulated"] / row["live"] - 1)
    rest = (factors - 1 - error) * p50_s / p50_s.mean()
    assert row["error_half_width"] == pytest.approx(
        stats.t.ppf(0.975, 2) * rest.std(ddof=1) / math.sqrt(3)
    )
    # The replications differ far more from one another than the worlds do.
    assert row["live_half_width"] > 5 * row["error_half_width"] * row["live"]


def test_draws_of_slow_moments_are_averaged_within_each_replication(tmp_path: Path) -> None:
    live = World([even(0.01, 0.02), even(0.03, 0.04)]).write(tmp_path / "live")
    factors = ((1.0, 1.2), (1.1, 0.9), (1.2, 1.2))
    draws = []
    for number, pair in enumerate(factors):
        slow = zip(pair, (even(0.01, 0.02), even(0.03, 0.04)), strict=True)
        latencies = [[factor * it for it in part] for factor, part in slow]
        # One draw takes another exit.
        world = World(latencies, world="simulated", exit=2 if number == 2 else 1)
        draws.append(world.write(tmp_path / f"simulated-{number}"))
    others = [run_metrics(read_side(draw)) for draw in draws[1:]]
    comparison = compare(live, draws[0], others)
    assert comparison.draws == 3
    row = row_of(comparison, "latency_p50_s")
    means = np.array([0.015, 0.035]) * np.mean(factors, axis=0)
    assert row["simulated"] == pytest.approx(means.mean())
    assert row["error"] == pytest.approx(means.sum() / 0.05 - 1)
    assert row["replications"] == 2
    assert row_of(comparison, "exit_1")["simulated"] == pytest.approx(2 / 3)
    assert row_of(comparison, "exit_2")["simulated"] == pytest.approx(1 / 3)
    assert compare(live, draws[0]).draws == 1


def test_draws_that_all_agree_with_the_live_run_are_off_by_nothing(tmp_path: Path) -> None:
    # Sums of eight such shares, one after the other, are rounded.
    latencies, correct = [even(0.01, 0.02, 201)], [number % 3 > 0 for number in range(201)]
    live = World(latencies, correct=correct).write(tmp_path / "live")
    simulated = World(latencies, correct=correct, world="simulated").write(tmp_path / "simulated")
    same = [run_metrics(read_side(simulated))] * 7
    assert (compare(live, simulated, same).table["error"] == 0.0).all()


@pytest.mark.parametrize(
    ("factor", "p50", "verdict"),
    [(1.05, "yes", "AGREES"), (0.95, "yes", "AGREES"), (1.12, "no", "DIFFERS"),
     (0.85, "no", "DIFFERS")],
)  # fmt: skip
def test_targets(compared: Any, factor: float, p50: str, verdict: str) -> None:
    live = World([even(0.01, 0.05)] * 2)
    comparison = compared(live, World([[factor * it for it in even(0.01, 0.05)]] * 2))
    assert row_of(comparison, "latency_p50_s")["met"] == p50
    assert row_of(comparison, "latency_p95_s")["met"] == "yes"
    assert row_of(comparison, "latency_p99_s")["met"] == ""
    assert comparison.verdict == verdict
    assert verdict_line(comparison).startswith(verdict)
    assert len([*misses(comparison)]) == (p50 == "no")


def test_accuracy_under_deadline_may_be_off_by_two_points(compared: Any) -> None:
    live = World([[0.01] * 100 + [0.2] * 100] * 2)
    comparison = compared(live, World([[0.01] * 105 + [0.2] * 95] * 2))
    assert row_of(comparison, "aud")["error"] == pytest.approx(0.025)
    assert row_of(comparison, "aud")["met"] == "no"


def test_the_curve_of_latencies_ends_at_the_share_that_was_answered(tmp_path: Path) -> None:
    world = World([[0.01, 0.02, 0.03, math.nan], [0.04, 0.05, 0.06, math.nan]])
    side = read_side(world.write(tmp_path / "live"))
    steps = latency_steps(side, ("standard", 0, "full"))
    assert steps["share"].tolist() == pytest.approx([it / 8 for it in range(1, 7)])
    assert steps["latency_s"].tolist() == pytest.approx([0.01, 0.02, 0.03, 0.04, 0.05, 0.06])


# --- what can be said with little -----------------------------------------------------------------


def test_one_replication_has_no_interval_and_says_so(compared: Any) -> None:
    comparison = compared(World([even(0.01, 0.05)], work=[0.5]), World([even(0.01, 0.05)]))
    assert math.isnan(row_of(comparison, "aud")["error_half_width"])
    assert comparison.doubts[0].startswith("a single replication")
    assert "one replication: no intervals" in verdict_line(comparison)


def test_where_all_is_lost_in_both_worlds_latencies_are_not_judged(compared: Any) -> None:
    comparison = compared(World([[math.nan] * 200] * 2), World([[math.nan] * 200] * 2))
    assert row_of(comparison, "latency_p50_s")["met"] == ""
    assert math.isnan(row_of(comparison, "latency_p50_s")["error"])
    assert row_of(comparison, "aud")["met"] == "yes"
    assert sum("not one request was answered" in doubt for doubt in comparison.doubts) == 2


def test_where_all_is_lost_in_one_world_alone_they_differ(compared: Any) -> None:
    comparison = compared(World([[math.nan] * 200] * 2), World([even(0.01, 0.05)] * 2))
    assert row_of(comparison, "latency_p50_s")["met"] == "no"
    assert comparison.verdict == "DIFFERS"
    assert "unknown" in next(line for line in misses(comparison) if "p50" in line)


# --- what cannot be compared ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("data.dataset", "cifar10"),
        ("seed", 2),
        ("simulation.duration_s", 20.0),
        ("nodes.edge.queue", "edf"),
        ("devices.cameras.count", 3),
        ("mqtt.qos", 0),
    ],
)
def test_results_of_other_scenarios_are_refused_by_field(
    compared: Any, key: str, value: object
) -> None:
    other = World([even(0.01, 0.05)] * 2)
    *parents, last = key.split(".")
    place = other.scenario
    for part in parents:
        place = place[part]
    place[last] = value
    with pytest.raises(ResultsError, match="cannot be compared") as caught:
        compared(World([even(0.01, 0.05)] * 2), other)
    assert f"{key} differs" in str(caught.value)
    assert json.dumps(value) in str(caught.value)


def test_other_networks_are_refused(compared: Any) -> None:
    name = "predictions of standard, seed 0"
    other = World([even(0.01, 0.05)] * 2, inputs={name: "b"})
    with pytest.raises(ResultsError, match=f"the {name} are not the same"):
        compared(World([even(0.01, 0.05)] * 2, inputs={name: "a"}), other)


def test_two_simulations_are_no_validation(compared: Any) -> None:
    with pytest.raises(ResultsError, match="is of a simulated world, not a live one"):
        compared(World([even(0.01, 0.05)] * 2, world="simulated"), World([even(0.01, 0.05)] * 2))


@pytest.mark.parametrize("name", ["created_s", "deadline_s", "sample"])
def test_other_requests_are_refused_to_the_last_bit(compared: Any, name: str) -> None:
    def shift(table: pd.DataFrame) -> None:
        values = table[name].to_numpy().copy()
        values[57] = np.nextafter(values[57], 9.0) if values.dtype == float else values[57] + 1
        table[name] = values

    other = World([even(0.01, 0.05)] * 2, shift=shift)
    with pytest.raises(ResultsError, match=f"{name} of request 57 of the run standard, 0, full, 0"):
        compared(World([even(0.01, 0.05)] * 2), other)


def test_a_request_too_few_is_refused(compared: Any) -> None:
    with pytest.raises(ResultsError, match="has 200 requests live and 199 simulated"):
        compared(World([even(0.01, 0.05)] * 2), World([even(0.01, 0.05, 199)] * 2))


def test_runs_that_one_world_alone_has_are_refused(compared: Any) -> None:
    with pytest.raises(ResultsError, match="only one of the worlds has the run standard, 0, full"):
        compared(World([even(0.01, 0.05)] * 2), World([even(0.01, 0.05)], work=[0.5]))


def test_closed_loops_create_requests_at_other_times(compared: Any) -> None:
    def shift(table: pd.DataFrame) -> None:
        table["created_s"] += 0.001
        table["received_s"] += 0.001

    live, other = World([even(0.01, 0.05)] * 2), World([even(0.01, 0.05)] * 2, shift=shift)
    for world in (live, other):
        world.scenario["devices"]["cameras"]["arrivals"]["process"] = "closed_loop"
    comparison = compared(live, other)
    assert comparison.same_requests == 0
    assert any("closed loops" in doubt for doubt in comparison.doubts)


def test_an_empty_run_is_refused(compared: Any) -> None:
    with pytest.raises(ResultsError, match="holds no request"):
        compared(World([], work=[]), World([even(0.01, 0.05)] * 2))


def test_records_of_another_version_are_refused(compared: Any, tmp_path: Path) -> None:
    folder = World([even(0.01, 0.05)] * 2).write(tmp_path / "old")
    table = pq.read_table(folder / "records.parquet")
    header = {**table.schema.metadata, b"format": b"offramp-records-0"}
    pq.write_table(table.replace_schema_metadata(header), folder / "records.parquet")
    with pytest.raises(ResultsError, match="not a records file of this version"):
        read_side(folder)


@pytest.mark.parametrize("missing", ["manifest.json", "records.parquet", "nodes.csv"])
def test_a_folder_without_results_is_refused(tmp_path: Path, missing: str) -> None:
    folder = World([even(0.01, 0.05)] * 2).write(tmp_path / "live")
    (folder / missing).unlink()
    with pytest.raises(ResultsError, match=str(folder)):
        read_side(folder)
