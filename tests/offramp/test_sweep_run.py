"""Sweeps: every point once, the same bytes however it was scheduled, stopped or killed."""

from __future__ import annotations

import csv
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import filelock
import pandas as pd
import pyarrow.parquet as pq
import pytest
import torch

from models.errors import ResultsError
from models.networks.cifar_resnet import CifarResNet
from offramp.console import Console
from offramp.manifest import read_manifest
from offramp.store import Store
from offramp.sweep.definition import load_sweep
from offramp.sweep.run import LOCK, Swept, run_sweep
from tests.offramp.sweep_backends import Inline

TABLES = ("sweep.parquet", "summary.csv", "failures.csv")

COUNTS = "devices.cameras.count=1,2,3,4"
SPEEDS = "nodes.edge.speed=0.1,0.5"

Sweeping = Callable[..., tuple[Swept, Inline]]


@pytest.fixture
def swept(store: Path, scenario: Callable[..., Path], tmp_path: Path) -> Sweeping:
    """Sweeps the tiny scenario with one training seed, from its trained networks."""

    def sweep(
        *overrides: str,
        results: Path = tmp_path / "results",
        backend: Inline | None = None,
        changes: dict[str, Any] | None = None,
        retry_failed: bool = False,
        may_drop: bool = True,
    ) -> tuple[Swept, Inline]:
        short = {"training.seeds": 1, "simulation.duration_s": 1, "simulation.warm_up_s": 0.2}
        path = scenario({**short, **(changes or {})})
        backend = backend or Inline()
        loaded = load_sweep(str(path), overrides)
        console = Console(quiet=True)
        ran = run_sweep(
            loaded, Store(store), results, console, lambda: backend, retry_failed, may_drop
        )
        return ran, backend

    return sweep


def bytes_of(results: Path) -> dict[str, bytes]:
    return {name: (results / name).read_bytes() for name in TABLES}


def table_of(results: Path) -> pd.DataFrame:
    return pq.read_table(results / "sweep.parquet").to_pandas()


# --- what is in the table ------------------------------------------------------------------------


def test_a_point_has_the_numbers_that_offramp_run_writes(
    swept: Sweeping, store: Path, offramp: Callable[..., Any], tmp_path: Path
) -> None:
    swept("devices.cameras.count=3,5")
    ran = offramp(
        "run", tmp_path / "tiny.yaml", "--store", store, "-o", tmp_path / "run", "-j", 1,
        "--set", "devices.cameras.count=5",
    )  # fmt: skip
    assert ran.status == 0, ran.err
    with (tmp_path / "run" / "runs.csv").open(newline="") as file:
        runs = [*csv.DictReader(file)]
    table = pq.read_table(tmp_path / "results" / "sweep.parquet").to_pylist()
    point = [row for row in table if row["point"] == 1]
    assert len(runs) == len(point) == 2 * 2 * 2, "strategies, policies, replications"
    for row, run in zip(point, runs, strict=True):
        assert {name: str(row[name]) for name in run} == run


def test_a_row_says_which_point_it_is_of_and_the_types_are_those_of_the_values(
    swept: Sweeping, tmp_path: Path
) -> None:
    swept(COUNTS, "devices.cameras.deadline_ms=20,{distribution: uniform, low: 10, high: 40}")
    table = pq.read_table(tmp_path / "results" / "sweep.parquet")
    assert table.schema.field("devices.cameras.count").type == "int64"
    frame = table.to_pandas().groupby("point", sort=False).first()
    assert list(frame["devices.cameras.count"]) == [1, 1, 2, 2, 3, 3, 4, 4]
    assert set(frame["devices.cameras.deadline_ms"]) == {
        "20",
        '{"distribution": "uniform", "low": 10, "high": 40}',
    }
    assert set(frame["verdict"]) <= {"STABLE", "BACKLOGGED", "SATURATED", "OVERLOADED"}


def test_the_summary_has_a_line_for_each_point_and_arm(swept: Sweeping, tmp_path: Path) -> None:
    ran, _ = swept(COUNTS)
    summary = pd.read_csv(tmp_path / "results" / "summary.csv")
    assert len(summary) == 4 * 2 * 2
    runs = table_of(tmp_path / "results")
    first = runs[(runs["point"] == 0) & (runs["strategy"] == "standard")]
    first = first[first["policy"] == "deadline_aware"]
    pooled = (first["aud"] * first["offered"]).sum() / first["offered"].sum()
    assert summary["aud"][0] == pytest.approx(pooled)
    assert summary["hit_ratio_half_width"][0] >= 0
    severity = ["STABLE", "BACKLOGGED", "SATURATED", "OVERLOADED"]
    runs = pq.read_table(tmp_path / "results" / "sweep.parquet").to_pandas()
    for row in summary.itertuples():
        arm = runs[["point", "strategy", "policy"]] == [row.point, row.strategy, row.policy]
        of_arm = runs.loc[arm.all(axis=1), "verdict"]
        assert row.verdict == max(of_arm, key=severity.index)
    overloaded = runs.loc[runs["verdict"] == "OVERLOADED", "point"]
    assert ran.summary.overloaded == overloaded.nunique()
    best = max(summary["aud"][(summary["strategy"] == "standard")])
    assert max(ran.summary.arms["standard", p].best.aud for p in summary["policy"]) == best


def test_a_link_that_cannot_carry_its_load_is_a_verdict_too(
    swept: Sweeping, tmp_path: Path
) -> None:
    ran, _ = swept("links.wifi.uplink.bandwidth_mbps=0.002,20")
    table = table_of(tmp_path / "results")
    of_key = table.groupby("links.wifi.uplink.bandwidth_mbps")["verdict"].unique()
    assert [*of_key[0.002]] == ["OVERLOADED"]
    assert "OVERLOADED" not in of_key[20]
    assert ran.summary.overloaded == 1


def test_points_at_which_the_world_changes_on_schedule_are_told(
    swept: Sweeping, tmp_path: Path
) -> None:
    crash = "{kind: node_crash, node: edge, at_s: 0.5, for_s: 0.1}"
    swept(f"faults=[],[{crash}]", "simulation.warm_up_s=0.1,0.7")
    table = table_of(tmp_path / "results")
    of_point = table.groupby("point")["planned_changes"].agg(["all", "any"])
    # With the longer warm-up, the crash is over before the window opens.
    assert of_point.to_numpy().tolist() == [[False] * 2, [False] * 2, [True] * 2, [False] * 2]


def test_the_manifest_holds_the_sweep(swept: Sweeping, tmp_path: Path) -> None:
    swept(COUNTS)
    manifest = read_manifest(tmp_path / "results" / "manifest.json")
    assert manifest["kind"] == "sweep"
    assert manifest["overrides"] == [COUNTS]
    assert {*TABLES} == {*manifest["results"]}
    assert any(name.startswith("predictions ") for name in manifest["inputs"])


def test_the_manifest_of_a_sweep_that_was_stopped_names_the_networks_of_all_points(
    swept: Sweeping, tmp_path: Path
) -> None:
    def networks() -> dict[str, str]:
        inputs = read_manifest(tmp_path / "results" / "manifest.json")["inputs"]
        return {name: hash for name, hash in inputs.items() if name.startswith("predictions ")}

    two = "training.seeds=1,[3]"
    with pytest.raises(KeyboardInterrupt):
        swept(two, backend=Inline(1, stop_after=1, stop=KeyboardInterrupt))
    swept(two)
    whole = networks()
    assert len(whole) == 4, "two strategies with two seeds"
    swept(two)
    assert networks() == whole, "nothing was missing"


# --- however it was scheduled --------------------------------------------------------------------


def test_the_tables_have_the_same_bytes_in_any_order_and_for_any_number_of_workers(
    swept: Sweeping, tmp_path: Path
) -> None:
    swept(COUNTS, SPEEDS)
    for seed, workers in ((1, 2), (2, 5)):
        other = tmp_path / f"of-{workers}"
        swept(COUNTS, SPEEDS, results=other, backend=Inline(workers, seed))
        assert bytes_of(other) == bytes_of(tmp_path / "results")


@pytest.mark.parametrize("stop", [KeyboardInterrupt, MemoryError])
def test_a_stopped_sweep_goes_on_where_it_was_and_ends_with_the_same_bytes(
    swept: Sweeping, tmp_path: Path, stop: type[BaseException]
) -> None:
    swept(COUNTS, SPEEDS)
    other = tmp_path / "stopped"
    done: list[int] = []
    for calls in (2, 1):
        backend = Inline(2, seed=calls, stop_after=calls, stop=stop)
        with pytest.raises(stop):
            swept(COUNTS, SPEEDS, results=other, backend=backend)
        assert backend.closed
        done += backend.simulated
        assert not (other / "manifest.json").exists(), "it is not finished"
    if stop is KeyboardInterrupt:
        assert sorted(table_of(other)["point"].unique()) == sorted(done), "can be read meanwhile"
    _, backend = swept(COUNTS, SPEEDS, results=other, backend=Inline(3))
    assert sorted(done + backend.simulated) == [*range(8)], "each point is simulated once"
    assert bytes_of(other) == bytes_of(tmp_path / "results")


def test_a_finished_sweep_does_nothing_more(swept: Sweeping, tmp_path: Path) -> None:
    swept(COUNTS)
    before = bytes_of(tmp_path / "results")
    ran, backend = swept(COUNTS)
    assert (backend.called, ran.counts.done) == ([], 4)
    assert bytes_of(tmp_path / "results") == before


def test_points_that_still_fit_are_kept_and_others_dropped(swept: Sweeping, tmp_path: Path) -> None:
    swept("devices.cameras.count=1,2,3")
    _, backend = swept("devices.cameras.count=3,4,1")
    assert backend.simulated == [1], "4 devices are new, and what was point 2 is point 0"
    fresh = tmp_path / "fresh"
    swept("devices.cameras.count=3,4,1", results=fresh)
    assert bytes_of(tmp_path / "results") == bytes_of(fresh)


def test_another_axis_keeps_the_points_that_are_written_the_same(swept: Sweeping) -> None:
    swept(COUNTS)
    _, backend = swept(COUNTS, SPEEDS)
    assert sorted(backend.simulated) == [1, 3, 5, 7], "the scenario itself says speed 0.1"


@pytest.mark.parametrize(
    "changes", [{"seed": 4}, {"simulation.replications": 1}, {"links.wifi.downlink.latency_ms": 4}]
)
def test_a_change_to_the_scenario_runs_all_points_again(
    swept: Sweeping, changes: dict[str, Any]
) -> None:
    swept(COUNTS)
    _, backend = swept(COUNTS, changes=changes)
    assert sorted(backend.simulated) == [0, 1, 2, 3]


def test_a_change_to_a_named_file_runs_all_points_again_and_a_new_name_none(
    swept: Sweeping, tmp_path: Path
) -> None:
    trace = tmp_path / "up.csv"
    trace.write_text("latency_ms\n3\n4\n")
    link = {"links.wifi.uplink": {"latency_file": "up.csv"}}
    swept(COUNTS, changes=link)
    assert swept(COUNTS, changes={**link, "name": "other"})[1].simulated == []
    trace.write_text("latency_ms\n3\n5\n")
    assert len(swept(COUNTS, changes=link)[1].simulated) == 4


def test_finished_points_of_another_sweep_are_dropped_only_if_that_is_allowed(
    swept: Sweeping, tmp_path: Path
) -> None:
    swept(COUNTS)
    results = tmp_path / "results"
    before = {path: path.read_bytes() for path in results.iterdir() if path.is_file()}
    with pytest.raises(ResultsError, match=r"has 2 finished point\(s\) that are not of this sweep"):
        swept("devices.cameras.count=1,2", may_drop=False)
    # What is added drops nothing.
    _, backend = swept("devices.cameras.count=1,2,3,4,5", may_drop=False)
    assert backend.simulated == [4]
    swept(COUNTS)
    after = {path: path.read_bytes() for path in before}
    for name in TABLES:
        assert after[results / name] == before[results / name]


def test_a_sweep_that_cannot_begin_leaves_the_manifest_of_a_finished_one(
    swept: Sweeping, store: Path, tmp_path: Path
) -> None:
    swept(COUNTS)
    manifest = (tmp_path / "results" / "manifest.json").read_bytes()
    loaded = load_sweep(str(tmp_path / "tiny.yaml"), ["devices.cameras.count=1,2,3,4,5"])

    def nowhere() -> Inline:
        raise ResultsError("no scheduler there")

    with pytest.raises(ResultsError, match="no scheduler there"):
        run_sweep(loaded, Store(store), tmp_path / "results", Console(quiet=True), nowhere)
    assert (tmp_path / "results" / "manifest.json").read_bytes() == manifest
    assert swept(COUNTS)[1].simulated == []


def test_a_folder_whose_manifest_became_that_of_a_run_is_refused(
    swept: Sweeping, tmp_path: Path
) -> None:
    swept(COUNTS)
    path = tmp_path / "results" / "manifest.json"
    path.write_text(path.read_text().replace('"kind": "sweep"', '"kind": "run"'))
    with pytest.raises(ResultsError, match="holds the results of something else"):
        swept(COUNTS)


# --- failures ------------------------------------------------------------------------------------


@pytest.mark.parametrize("functions", ["self_taught,final_exit", "final_exit,self_taught"])
def test_a_ranking_that_cannot_be_made_fails_only_the_points_that_need_it(
    functions: str, swept: Sweeping, tmp_path: Path
) -> None:
    backbone = CifarResNet(blocks=1, classes=100, in_channels=1)
    torch.save(backbone.state_dict(), tmp_path / "of_100_classes.pt")
    frozen = {"model.weights": "of_100_classes.pt", "training.regime": "classifier_wise"}
    ran, _ = swept(f"training.scoring.function={functions}", changes=frozen)
    assert (ran.counts.done, ran.counts.failed) == (1, 1), "both share the standard network"
    failures = pd.read_csv(tmp_path / "results" / "failures.csv")
    assert list(failures["training.scoring.function"]) == ["final_exit"]
    assert "final_exit ranks by the classifier" in failures["error"][0]


FUSSY = """
from dataclasses import dataclass
from pathlib import Path

from sim.policy import ANSWER, run_to


@dataclass(frozen=True)
class Fussy:
    taste: int = 0

    def decide(self, request, node):
        if self.taste == 2 and Path(__file__).with_name("annoyed").exists():
            raise RuntimeError("not to my taste")
        return ANSWER if request.exit else run_to(1)
"""

TASTES = "policies.0.taste=1,2,3"


@pytest.fixture
def fussy(tmp_path: Path) -> dict[str, Any]:
    (tmp_path / "own.py").write_text(FUSSY)
    (tmp_path / "annoyed").touch()
    return {"policies": [{"policy": "own.py:Fussy", "taste": 1}]}


def test_a_policy_that_ends_its_process_fails_its_point_alone(
    swept: Sweeping, fussy: dict[str, Any], tmp_path: Path
) -> None:
    text = FUSSY.replace('RuntimeError("not to my taste")', "SystemExit(3)")
    (tmp_path / "own.py").write_text(text)
    ran, _ = swept(TASTES, changes=fussy)
    assert (ran.counts.done, ran.counts.failed) == (2, 1)
    assert "SystemExit" in (tmp_path / "results" / "failures.csv").read_text()


def test_a_failed_point_is_recorded_and_stops_no_other(
    swept: Sweeping, fussy: dict[str, Any], tmp_path: Path
) -> None:
    ran, _ = swept(TASTES, changes=fussy)
    assert (ran.counts.done, ran.counts.failed) == (2, 1)
    failures = pd.read_csv(tmp_path / "results" / "failures.csv")
    assert list(failures["point"]) == [1]
    assert list(failures["policies.0.taste"]) == [2]
    assert "not to my taste" in failures["error"][0]
    assert set(table_of(tmp_path / "results")["point"]) == {0, 2}


def test_a_failed_point_is_run_again_only_when_asked(
    swept: Sweeping, fussy: dict[str, Any], tmp_path: Path
) -> None:
    swept(TASTES, changes=fussy)
    (tmp_path / "annoyed").unlink()
    ran, backend = swept(TASTES, changes=fussy)
    assert (backend.simulated, ran.counts.failed, ran.failed_before) == ([], 1, 1)
    ran, backend = swept(TASTES, changes=fussy, retry_failed=True)
    assert (backend.simulated, ran.counts.failed) == ([1], 0)
    fresh = tmp_path / "fresh"
    swept(TASTES, changes=fussy, results=fresh)
    assert bytes_of(tmp_path / "results") == bytes_of(fresh)


def test_values_that_are_not_valid_together_are_a_failed_point(
    swept: Sweeping, tmp_path: Path
) -> None:
    ran, _ = swept("simulation.trace_window_s=[0,1],[4,5]", "simulation.duration_s=2,6")
    failures = pd.read_csv(tmp_path / "results" / "failures.csv")
    assert ran.counts.failed == len(failures) == 1
    assert "trace_window_s" in failures["error"][0]


def test_a_point_on_which_workers_die_fails_alone(swept: Sweeping, tmp_path: Path) -> None:
    backend = Inline(deadly=(5,))
    ran, _ = swept("devices.cameras.count=1,2,3,4,5,6,7,8", backend=backend)
    assert (ran.counts.done, ran.counts.failed) == (7, 1)
    failures = pd.read_csv(tmp_path / "results" / "failures.csv")
    assert (failures["point"][0], failures["error"][0]) == (5, "its worker process was killed")


def test_a_point_on_which_workers_died_is_run_again_by_the_next_start(
    swept: Sweeping, tmp_path: Path
) -> None:
    axis = "devices.cameras.count=1,2,3,4,5,6,7,8"
    swept(axis, backend=Inline(deadly=(5,)))
    ran, backend = swept(axis)
    assert (backend.simulated, ran.counts.failed) == ([5], 0)
    swept(axis, results=tmp_path / "fresh")
    assert bytes_of(tmp_path / "results") == bytes_of(tmp_path / "fresh")


def test_a_point_whose_network_could_not_be_trained_for_want_of_workers_is_too(
    swept: Sweeping, store: Path
) -> None:
    shutil.rmtree(store / "trained")
    rates = "training.learning_rate=0.1,0.2"
    ran, _ = swept(rates, backend=Inline(dies_in=("train_network",)))
    assert ran.counts.failed == 2
    ran, backend = swept(rates)
    assert (ran.counts.done, ran.counts.failed) == (2, 0)
    assert backend.called.count("train_network") == 4, "both strategies at both rates"


def test_a_failed_training_fails_the_points_that_need_it(swept: Sweeping, tmp_path: Path) -> None:
    ran, backend = swept("training.learning_rate=0.1,1e30", "devices.cameras.count=1,2")
    assert (ran.counts.done, ran.counts.failed) == (2, 2)
    failures = pd.read_csv(tmp_path / "results" / "failures.csv")
    assert list(failures["point"]) == [2, 3]
    assert backend.called.count("train_network") == 2, "both strategies, at the new rate alone"
    assert swept("training.learning_rate=0.1,1e30", "devices.cameras.count=1,2")[1].called == []


# --- preparing -----------------------------------------------------------------------------------


def test_what_points_share_is_made_once_and_nothing_twice(
    swept: Sweeping, store: Path, tmp_path: Path
) -> None:
    for kind in ("trained", "scores", "profile"):
        shutil.rmtree(store / kind)
    backend = Inline(2)
    swept(COUNTS, "training.steps=2,3", backend=backend)
    assert backend.called.count("prepare_scores") == 1, "scores know of no steps of the training"
    assert backend.called.count("train_network") == 4, "two strategies, two budgets"
    assert len([*(store / "profile").iterdir()]) == 1
    assert len(table_of(tmp_path / "results")["point"].unique()) == 8


def test_a_policy_that_is_fitted_gets_validation_predictions(
    swept: Sweeping, tmp_path: Path
) -> None:
    policies = {"policies": [{"policy": "confidence", "wanted_accuracy": 0.01}]}
    ran, backend = swept(COUNTS, changes=policies)
    assert backend.called.count("predict_validation") == 2
    assert ran.counts.done == 4, (tmp_path / "results" / "failures.csv").read_text()


# --- the folder ----------------------------------------------------------------------------------


def test_a_second_sweep_in_one_folder_at_once_is_refused(swept: Sweeping, tmp_path: Path) -> None:
    (tmp_path / "results").mkdir()
    with (
        filelock.FileLock(tmp_path / "results" / LOCK),
        pytest.raises(ResultsError, match="another sweep is running"),
    ):
        swept(COUNTS)
    swept(COUNTS)


def test_a_folder_with_other_results_is_refused(swept: Sweeping, tmp_path: Path) -> None:
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "manifest.json").write_text("{}")
    with pytest.raises(ResultsError, match="something else"):
        swept(COUNTS)


def test_a_run_into_the_folder_of_a_sweep_is_refused(
    swept: Sweeping, scenario: Callable[..., Path], store: Path, offramp: Any, tmp_path: Path
) -> None:
    results = tmp_path / "results"
    swept(COUNTS)
    before = {path.name: path.read_bytes() for path in results.iterdir() if path.is_file()}
    for command in ("run", "simulate"):
        ran = offramp(command, scenario(), "--store", store, "-o", results)
        assert ran.status == 2
        assert "holds a sweep or a search" in ran.err
    assert {path.name: path.read_bytes() for path in results.iterdir() if path.is_file()} == before


def test_a_damaged_journal_is_told(swept: Sweeping, tmp_path: Path) -> None:
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "points.sqlite").write_bytes(b"nothing of the kind" * 100)
    with pytest.raises(ResultsError, match=r"points\.sqlite: file is not a database"):
        swept(COUNTS)


def test_very_many_points_are_asked_back(scenario: Callable[..., Path], offramp: Any) -> None:
    ran = offramp(
        "sweep", scenario(), "--set", f"seed={','.join(map(str, range(101)))}",
        "--set", f"devices.cameras.count={','.join(map(str, range(1, 101)))}",
    )  # fmt: skip
    assert ran.status == 2
    assert "10,100 points" in ran.err
    assert "--yes" in ran.err
