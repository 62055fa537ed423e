"""Running a manifest again: what is taken from the run, what is computed, what is refused."""

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from models.artifacts import read_predictions, write_predictions
from offramp import Pipeline, load_scenario
from offramp.manifest import simulated_files
from offramp.scenario import shipped_scenarios
from offramp.schema import Scenario
from offramp.stages.keys import SIMULATION_VERSION
from offramp.store import Store, file_hash
from tests.offramp.reproductions import outcome, rewrite_manifest

Offramp = Callable[..., Any]


@pytest.fixture
def run(trained: Any, tmp_path: Path) -> Path:
    """A copy of the results of the tiny scenario."""
    return Path(shutil.copytree(trained.results, tmp_path / "run"))


def rewrite(results: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Change a manifest as if the run had been another one."""
    rewrite_manifest(results, simulated_files(results), change)


# --- the same again -----------------------------------------------------------------------------


def test_the_same_versions_give_identical_records(
    offramp: Offramp, run: Path, trained: Any, tmp_path: Path, snapshot: Callable[..., Any]
) -> None:
    before = snapshot(run, trained.store)
    ran = offramp("reproduce", run, "--store", trained.store, "-j", 1)
    assert ran.status == 0, ran.err
    assert ran.out.splitlines()[-2].startswith("IDENTICAL: all records and tables")
    again = tmp_path / "run-again"
    assert outcome(again)["verdict"] == "IDENTICAL"
    assert outcome(again)["environment"] == []
    assert "nothing was trained" in " ".join(outcome(again)["notes"])
    assert (again / "records.parquet").read_bytes() == (run / "records.parquet").read_bytes()
    assert snapshot(run, trained.store) == before, "neither run nor store is touched"
    assert not (again / ".reproduction").exists()
    page = (again / "reproduction.md").read_text()
    assert page.startswith("# Reproduction of run: IDENTICAL")


def test_records_are_computed_and_not_taken_from_the_store(
    offramp: Offramp, run: Path, store: Path
) -> None:
    """A simulation in the store that says something else is not looked at."""
    for file in store.glob("simulation/*/runs.csv"):
        file.write_text("wrong")
        description = file.parent / "artifact.json"
        content = json.loads(description.read_text())
        content["files"]["runs.csv"] = file_hash(file)
        description.write_text(json.dumps(content))
    ran = offramp("reproduce", run, "--store", store, "-j", 1)
    assert ran.status == 0, ran.err
    assert outcome(run.with_name("run-again"))["verdict"] == "IDENTICAL"


def test_the_manifest_alone_and_a_reproduction_can_be_reproduced(
    offramp: Offramp, run: Path, trained: Any, tmp_path: Path
) -> None:
    first = offramp(
        "reproduce", run / "manifest.json", "--store", trained.store, "-j", 1, "-o", "one"
    )
    assert first.status == 0, first.err
    second = offramp("reproduce", "one", "--store", trained.store, "-j", 1, "-o", "two", "-q")
    assert second.status == 0, second.err
    assert outcome(tmp_path / "two")["verdict"] == "IDENTICAL"


def test_without_a_store_the_copies_in_the_results_folder_do(
    offramp: Offramp, run: Path, tmp_path: Path
) -> None:
    ran = offramp("reproduce", run, "--store", tmp_path / "empty", "-j", 1)
    assert ran.status == 0, ran.err
    said = outcome(tmp_path / "run-again")
    assert said["verdict"] == "IDENTICAL"
    assert "from the results folder: nothing was trained" in said["notes"][0]
    assert not (tmp_path / "empty").exists(), "nothing was made there"


def test_networks_that_are_nowhere_are_trained_again(
    offramp: Offramp, run: Path, tmp_path: Path
) -> None:
    shutil.rmtree(run / "predictions")
    ran = offramp("reproduce", run, "--store", tmp_path / "empty", "-j", 1)
    assert ran.status == 0, ran.err
    said = outcome(tmp_path / "run-again")
    assert said["verdict"] == "IDENTICAL", "training is repeatable on one machine"
    assert "trained again" in said["notes"][0]
    assert {row["changed"] for row in said["networks"]} == {0.0}, "their hash is known"


def test_from_scratch_takes_nothing_from_the_store(
    offramp: Offramp, run: Path, trained: Any, tmp_path: Path, snapshot: Callable[..., Any]
) -> None:
    before = snapshot(trained.store)
    ran = offramp("reproduce", run, "--store", trained.store, "--from-scratch", "-j", 1)
    assert ran.status == 0, ran.err
    assert ran.out.count("made    ") == 5, "four networks and the simulation"
    assert "reused" not in ran.out
    said = outcome(tmp_path / "run-again")
    assert "trained again in a store of their own" in said["notes"][0]
    assert {row["changed"] for row in said["networks"]} == {0.0}
    assert snapshot(trained.store) == before


@pytest.fixture
def changed(
    store: Path, scenario: Callable[..., Path], tmp_path: Path
) -> Callable[[dict[str, Any]], Path]:
    """Results of the tiny scenario, changed, with all that it needs in ``store``."""

    def simulate(changes: dict[str, Any]) -> Path:
        pipeline = Pipeline(load_scenario(str(scenario(changes))), Store(store))
        pipeline.train()
        pipeline.simulate(tmp_path / "run", jobs=1)
        return tmp_path / "run"

    return simulate


def test_fitted_policies_take_the_validation_predictions_of_the_run(
    offramp: Offramp, changed: Callable[..., Path], store: Path, tmp_path: Path
) -> None:
    run = changed({"policies": [{"policy": "confidence", "wanted_accuracy": 0.05}]})
    assert len([*(run / "predictions").glob("*.validation.parquet")]) == 4
    ran = offramp("reproduce", run, "--store", store, "-j", 1, "-o", "one")
    assert ran.status == 0, ran.err
    assert "from the store" in outcome(tmp_path / "one")["notes"][0]
    shutil.rmtree(store / "validation")
    ran = offramp("reproduce", run, "--store", store, "-j", 1, "-o", "two")
    assert ran.status == 0, ran.err
    assert "from the results folder" in outcome(tmp_path / "two")["notes"][0]
    for folder in ("one", "two"):
        assert outcome(tmp_path / folder)["verdict"] == "IDENTICAL"
    shutil.rmtree(run / "predictions")
    ran = offramp("reproduce", run, "--store", store, "-j", 1, "-o", "three")
    assert ran.status == 0, ran.err
    assert outcome(tmp_path / "three")["verdict"] == "IDENTICAL"
    assert (store / "validation").is_dir(), "predicted again"


def test_a_summary_without_records_is_identical_too(
    offramp: Offramp, changed: Callable[..., Path], store: Path, tmp_path: Path
) -> None:
    run = changed({"simulation.records": "summary", "simulation.telemetry_step_s": 0.5})
    ran = offramp("reproduce", run, "--store", store, "-j", 1)
    assert ran.status == 0, ran.err
    assert "IDENTICAL: all tables" in ran.out
    names = {file["name"] for file in outcome(tmp_path / "run-again")["files"]}
    assert {"latency_percentiles.csv", "telemetry_nodes.csv"} < names
    assert "records.parquet" not in names


def test_records_that_were_removed_are_compared_by_their_hash(
    offramp: Offramp, run: Path, trained: Any, tmp_path: Path
) -> None:
    (run / "records.parquet").unlink()
    ran = offramp("reproduce", run, "--store", trained.store, "-j", 1, "-o", "one")
    assert ran.status == 0, ran.err
    assert outcome(tmp_path / "one")["verdict"] == "IDENTICAL"
    for file in run.iterdir():
        if file.is_file() and file.name != "manifest.json":
            file.unlink()
    ran = offramp(
        "reproduce", run / "manifest.json", "--store", trained.store, "-j", 1, "-o", "two"
    )
    assert ran.status == 0, ran.err
    assert outcome(tmp_path / "two")["verdict"] == "IDENTICAL", "profile: from the store"


# --- not the same -------------------------------------------------------------------------------


def test_other_random_numbers_are_compatible(
    offramp: Offramp, run: Path, trained: Any, tmp_path: Path
) -> None:
    """As when a library draws others: other requests of the same kind, the same networks."""
    rewrite(run, lambda it: it["scenario"].update(seed=4) or it["versions"].update(numpy="1.0"))
    ran = offramp("reproduce", run, "--store", trained.store, "-j", 1)
    assert ran.status == 0, ran.err
    said = outcome(tmp_path / "run-again")
    assert said["verdict"] == "COMPATIBLE"
    assert {"what": "numpy", "before": "1.0", "after": np.__version__} in said["environment"]
    files = {file["name"]: file for file in said["files"]}
    assert files["exit_accuracy.csv"]["state"] == "identical"
    records = files["records.parquet"]
    assert records["state"] == "different"
    assert records["same_requests"] is False
    figures = pd.DataFrame(said["figures"])
    assert set(figures["over"]) == {"replications"}
    assert set(figures["verdict"]) <= {"compatible", "same", "untested"}
    runs = {name: pd.read_csv(name / "runs.csv") for name in (run, tmp_path / "run-again")}
    for row in figures[figures["metric"] == "aud"].itertuples():
        for folder, value in ((run, row.before), (tmp_path / "run-again", row.after)):
            of_arm = runs[folder][
                (runs[folder]["strategy"] == row.strategy) & (runs[folder]["policy"] == row.policy)
            ]
            assert value == pytest.approx(of_arm["aud"].mean(), rel=1e-12)


def test_a_world_that_is_another_is_different_and_what_moved_is_named(
    offramp: Offramp, changed: Callable[..., Path], store: Path, tmp_path: Path
) -> None:
    run = changed(
        {
            "simulation.replications": 5,
            "nodes.edge.speed": 1.0,
            "policies": [{"policy": "fixed_exit", "exit": 2}],
        }
    )

    def slower(manifest: dict[str, Any]) -> None:
        manifest["scenario"]["links"]["wifi"]["downlink"]["latency_ms"] = 9

    rewrite(run, slower)
    ran = offramp("reproduce", run, "--store", store, "-j", 1)
    assert ran.status == 1
    assert "DIFFERENT: " in ran.out
    assert "latency_p50_s" in ran.out
    said = outcome(tmp_path / "run-again")
    assert said["verdict"] == "DIFFERENT"
    first = next(file for file in said["files"] if file["name"] == "records.parquet")["first"]
    assert first["column"] == "received_s"
    assert first["where"]["strategy"] == "standard"
    assert first["after"] - first["before"] == pytest.approx(0.006, abs=1e-9)
    figures = pd.DataFrame(said["figures"]).set_index(["strategy", "policy", "metric"])
    moved = figures.loc[("standard", "fixed_exit(exit=2)", "latency_p50_s")]
    assert moved["verdict"] == "moved"
    assert moved["difference"] == pytest.approx(0.006, abs=1e-6)
    offered = figures.loc[("standard", "fixed_exit(exit=2)", "offered")]
    assert offered["verdict"] == "same"
    assert any("Nothing is known to have changed" in note for note in said["notes"])


def test_networks_of_other_software_are_told_apart_exit_by_exit(
    offramp: Offramp, run: Path, tmp_path: Path
) -> None:
    """The run's networks predict otherwise than those that are trained here."""
    shares = {}
    for entry in ("standard-0", "standard-1", "curriculum-0", "curriculum-1"):
        file = run / "predictions" / f"{entry}.parquet"
        predictions = read_predictions(file)
        flipped = predictions.predicted.copy()
        count = 10 + len(shares)
        flipped[:count, 0] = (flipped[:count, 0] + 1) % 10
        write_predictions(file, replace(predictions, predicted=flipped))
        shares[entry] = count / len(flipped)

    def other(manifest: dict[str, Any]) -> None:
        manifest["versions"]["torch"] = "1.0"
        for network in manifest["networks"]:
            name = f"{network['strategy']}-{network['training_seed']}.parquet"
            network["predictions"] = file_hash(run / "predictions" / name)

    rewrite(run, other)
    ran = offramp("reproduce", run, "--from-scratch", "-j", 1)
    said = outcome(tmp_path / "run-again")
    changed = {
        f"{row['strategy']}-{row['training_seed']}": row["changed"]
        for row in said["networks"]
        if row["exit"] == 1
    }
    assert changed == pytest.approx(shares, abs=1e-12)
    assert {row["changed"] for row in said["networks"] if row["exit"] == 2} == {0.0}
    assert said["verdict"] == "IDENTICAL", "the records were made from what is trained here"
    assert ran.status == 0
    metrics = pd.DataFrame(said["figures"])["metric"]
    assert {"test_accuracy_exit_1", "test_accuracy_exit_2"} < set(metrics)
    page = (tmp_path / "run-again" / "reproduction.md").read_text()
    assert "the share of test samples of which it predicts another class" in page


def test_one_training_seed_cannot_tell_whether_networks_moved(
    offramp: Offramp, changed: Callable[..., Path], store: Path, tmp_path: Path
) -> None:
    run = changed({"training.seeds": 1})
    shutil.rmtree(run / "predictions")

    def longer(manifest: dict[str, Any]) -> None:
        manifest["scenario"]["training"]["steps"] = 9
        for network in manifest["networks"]:
            network["key"] = "of-another-store"

    rewrite(run, longer)
    ran = offramp("reproduce", run, "--store", store, "-j", 1)
    assert ran.status == 1, ran.err
    assert "UNDECIDED: " in ran.out
    figures = pd.DataFrame(outcome(tmp_path / "run-again")["figures"])
    assert set(figures["verdict"]) <= {"same", "untested"}
    assert (figures["verdict"] == "untested").any()
    before = pd.read_csv(run / "exit_accuracy.csv")["accuracy"].tolist()
    networks = outcome(tmp_path / "run-again")["networks"]
    # Networks are in the same order in both; no one knows which samples changed.
    assert [row["accuracy_before"] for row in networks] == pytest.approx(before, abs=1e-12)
    assert {row["changed"] for row in networks} == {None}


# --- files that a scenario names ----------------------------------------------------------------

MINE = """
from sim.policy import ANSWER, run_to
class Mine:
    def decide(self, request, node):
        return ANSWER if request.exit else run_to(1)
"""


def test_code_of_a_policy_that_changed_is_refused_and_its_effect_can_be_seen(
    offramp: Offramp, changed: Callable[..., Path], store: Path, tmp_path: Path
) -> None:
    (tmp_path / "mine.py").write_text(MINE)
    run = changed({"policies": ["mine.py:Mine"], "simulation.replications": 6})
    files = json.loads((run / "manifest.json").read_text())["files"]
    assert files == {
        "policies.0": {
            "name": "mine.py:Mine",
            "sha256": file_hash(tmp_path / "mine.py"),
            "is_code": True,
        }
    }
    same = offramp("reproduce", run, "--store", store, "-j", 1)
    assert same.status == 0, same.err
    (tmp_path / "old").mkdir()
    shutil.copy(tmp_path / "mine.py", tmp_path / "old")
    (tmp_path / "mine.py").write_text(MINE.replace("run_to(1)", "run_to(2)"))
    refused = offramp("reproduce", run, "--store", store, "-j", 1)
    assert refused.status == 2
    assert f"policies.0: {tmp_path / 'mine.py'} is not what it was" in refused.err
    elsewhere = offramp("reproduce", run, "--store", store, "--files", tmp_path / "old", "-j", 1)
    assert elsewhere.status == 0, elsewhere.err
    accepted = offramp("reproduce", run, "--store", store, "--accept-changes", "-j", 1)
    assert accepted.status == 1, accepted.err
    said = outcome(tmp_path / "run-again")
    assert said["verdict"] == "DIFFERENT"
    assert any("Changed since the run: policies.0" in note for note in said["notes"])
    assert not any("Nothing is known" in note for note in said["notes"])
    (tmp_path / "mine.py").unlink()
    for more in ((), ("--accept-changes",)):
        gone = offramp("reproduce", run, "--store", store, *more)
        assert gone.status == 2
        assert "mine.py is not there" in gone.err


def test_a_trace_that_changed_or_is_missing_is_named(
    offramp: Offramp, changed: Callable[..., Path], store: Path, tmp_path: Path
) -> None:
    trace = tmp_path / "delays.txt"
    trace.write_text("3\n4\n5\n")
    uplink = {"latency_file": "delays.txt", "bandwidth_mbps": 20}
    run = changed({"links.wifi.uplink": uplink})
    trace.write_text("3\n4\n6\n")
    ran = offramp("reproduce", run, "--store", store)
    assert ran.status == 2
    assert f"links.wifi.uplink.latency_file: {trace} is not what it was" in ran.err
    trace.unlink()
    ran = offramp("reproduce", run, "--store", store)
    assert ran.status == 2
    assert f"links.wifi.uplink.latency_file: {trace} is not there" in ran.err
    assert "--files" in ran.err
    (tmp_path / "copies").mkdir()
    (tmp_path / "copies" / "delays.txt").write_text("3\n4\n5\n")
    ran = offramp("reproduce", run, "--store", store, "--files", "copies", "-j", 1)
    assert ran.status == 0, ran.err


def test_without_its_profile_a_run_is_not_repeated(
    offramp: Offramp, run: Path, tmp_path: Path
) -> None:
    (run / "profile.parquet").unlink()
    ran = offramp("reproduce", run, "--store", tmp_path / "empty")
    assert ran.status == 2
    assert "profile.parquet is not there" in ran.err
    assert "a new measurement never gives the same" in ran.err


# --- what is refused ----------------------------------------------------------------------------


def damaged(run: Path, damage: str) -> str:
    """Damage a results folder; returns what the message says of it."""
    path = run / "manifest.json"
    text = path.read_text()
    match damage:
        case "missing":
            path.unlink()
            return "manifest.json is not there"
        case "empty":
            path.write_text("")
            return "is damaged"
        case "cut":
            path.write_text(text[: len(text) // 2])
            return "is damaged"
        case "foreign":
            path.write_text('{"name": "of another program"}')
            return "not a manifest of Offramp"
        case "a list":
            path.write_text("[]")
            return "not a manifest of Offramp"
        case "binary":
            path.write_bytes(b"\xff\xfe\x00")
            return "is damaged"
        case "edited":
            path.write_text(text.replace('"rate_hz": 12', '"rate_hz": 13'))
            return "was changed after it was written"
        case "older":
            old = json.loads(text)
            for key in ("format", "checksum", "files", "networks", "folder", "results"):
                del old[key]
            path.write_text(json.dumps(old))
            return "written by an older Offramp"
        case "newer":
            path.write_text(text.replace("offramp-manifest-2", "offramp-manifest-9"))
            return "'offramp-manifest-9'"
        case "live":
            rewrite(run, lambda it: it.update(world="live", live={}))
            return "measured live"
        case "other kind":
            rewrite(run, lambda it: it.update(kind="study"))
            return "not of a run or a sweep"
        case "table edited":
            (run / "runs.csv").write_text((run / "runs.csv").read_text().replace("0", "1"))
            return "runs.csv was changed after the run"
        case _:
            rewrite(run, lambda it: it["scenario"].update(colour="red"))
            return "colour"


@pytest.mark.parametrize(
    "damage",
    [
        "missing",
        "empty",
        "cut",
        "foreign",
        "a list",
        "binary",
        "edited",
        "older",
        "newer",
        "live",
        "other kind",
        "table edited",
        "unknown key",
    ],
)
def test_what_cannot_be_run_again_is_one_message(
    damage: str, offramp: Offramp, run: Path, trained: Any, tmp_path: Path
) -> None:
    expected = damaged(run, damage)
    ran = offramp("reproduce", run, "--store", trained.store)
    assert ran.status == 2
    assert expected in ran.err
    assert str(run) in ran.err
    assert not (tmp_path / "run-again" / "runs.csv").exists()


def test_a_folder_that_is_not_there_is_one_message(offramp: Offramp) -> None:
    ran = offramp("reproduce", "nowhere")
    assert ran.status == 2
    assert "nowhere: no such folder or file" in ran.err


def test_a_run_is_never_overwritten_by_its_reproduction(
    offramp: Offramp, run: Path, trained: Any, snapshot: Callable[..., Any]
) -> None:
    before = snapshot(run)
    ran = offramp("reproduce", run, "--store", trained.store, "-o", run / ".." / "run")
    assert ran.status == 2
    assert "is the run itself" in ran.err
    assert snapshot(run) == before


def test_results_of_something_else_are_never_overwritten(
    offramp: Offramp, run: Path, trained: Any, tmp_path: Path, snapshot: Callable[..., Any]
) -> None:
    shutil.copytree(run, tmp_path / "run-again")
    before = snapshot(tmp_path / "run-again")
    ran = offramp("reproduce", run, "--store", trained.store)
    assert ran.status == 2
    assert "run-again holds the results of something else" in ran.err
    assert snapshot(tmp_path / "run-again") == before


def test_a_live_run_is_told_what_to_do_instead(offramp: Offramp, run: Path) -> None:
    rewrite(run, lambda it: it.update(world="live", live={}))
    ran = offramp("reproduce", run)
    assert ran.status == 2
    assert "offramp live run" in ran.err
    assert "offramp run" in ran.err


def test_a_stopped_reproduction_has_no_verdict_and_goes_on(
    offramp: Offramp, run: Path, trained: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert offramp("reproduce", run, "--store", trained.store, "-j", 1).status == 0

    def stopped(self: Pipeline, *arguments: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(Pipeline, "simulate_from", stopped)
        ran = offramp("reproduce", run, "--store", trained.store, "--from-scratch")
    assert ran.status == 130
    again = tmp_path / "run-again"
    assert not (again / "reproduction.json").exists()
    assert not (again / "reproduction.md").exists()
    ran = offramp("reproduce", run, "--store", trained.store, "--from-scratch", "-j", 1)
    assert ran.status == 0, ran.err
    assert ran.out.count("reused  ") == 4, "the networks that were trained before it was stopped"
    assert not (again / ".reproduction").exists()


# --- the manifest -------------------------------------------------------------------------------


def test_the_manifest_holds_what_a_reproduction_needs(trained: Any) -> None:
    manifest = json.loads((trained.results / "manifest.json").read_text())
    assert manifest["format"] == "offramp-manifest-2"
    assert manifest["kind"] == "run"
    assert manifest["folder"] == str(trained.scenario.parent)
    assert manifest["host"]["cores"] == os.cpu_count()
    assert set(manifest["training"]) == {"device", "precision", "threads"}
    assert manifest["stages"]["simulation"] == SIMULATION_VERSION
    for name, expected in manifest["results"].items():
        assert file_hash(trained.results / name) == expected
    assert {"records.parquet", "runs.csv", "exit_accuracy.csv"} <= set(manifest["results"])
    assert len(manifest["networks"]) == 4
    for network in manifest["networks"]:
        folder = trained.store / "trained" / network["key"]
        assert network["predictions"] == file_hash(folder / "predictions.parquet")
        assert network["host"] == manifest["host"]
        copy = f"{network['strategy']}-{network['training_seed']}.parquet"
        assert file_hash(trained.results / "predictions" / copy) == network["predictions"]


@pytest.mark.usefixtures("named_files")
def test_every_scenario_that_ships_survives_its_manifest() -> None:
    for name in shipped_scenarios():
        scenario = load_scenario(name).scenario
        read = json.loads(json.dumps(scenario.model_dump()))
        assert Scenario.model_validate(read) == scenario
