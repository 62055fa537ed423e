"""Running a sweep's manifest again."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from offramp import load_scenario
from offramp.store import file_hash
from offramp.sweep.definition import load_sweep
from offramp.sweep.recorded import named_files_of, recorded, recorded_sweep
from tests.offramp.reproductions import outcome, rewrite_manifest

Offramp = Callable[..., Any]
TABLES = ("sweep.parquet", "summary.csv", "failures.csv")


@pytest.fixture
def swept(offramp: Offramp, trained: Any, tmp_path: Path) -> Path:
    """Four points of the tiny scenario."""
    ran = offramp(
        "sweep",
        trained.scenario,
        *("--set", "devices.cameras.count=2,4"),
        *("--set", "simulation.warm_up_s=0.5,1"),
        *("--set", "simulation.duration_s=2", "--set", "simulation.replications=4"),
        *("--store", trained.store, "-o", tmp_path / "sweep", "-j", 1, "-q"),
    )
    assert ran.status == 0, ran.err
    return tmp_path / "sweep"


def rewrite(results: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Change a manifest as if the sweep had been another one."""
    rewrite_manifest(results, TABLES, change)


def test_the_same_versions_give_an_identical_table(
    offramp: Offramp, swept: Path, trained: Any, tmp_path: Path, snapshot: Callable[..., Any]
) -> None:
    before = snapshot(swept, trained.store / "trained")
    ran = offramp("reproduce", swept, "--store", trained.store, "-j", 1, "-q")
    assert ran.status == 0, ran.err
    again = tmp_path / "sweep-again"
    said = outcome(again)
    assert said["verdict"] == "IDENTICAL"
    assert said["notes"][0] == "The sweep's own 4 networks, from the store"
    for name in TABLES:
        assert (again / name).read_bytes() == (swept / name).read_bytes()
    assert not (again / ".reproduction").exists()
    assert snapshot(swept, trained.store / "trained") == before
    # A sweep that was reproduced is computed again when it is asked for again.
    (again / "sweep.parquet").write_bytes(b"")
    ran = offramp("reproduce", swept, "--store", trained.store, "-j", 1)
    assert ran.status == 0, ran.err
    assert "0 of 4 points are in" in ran.out


def test_its_profiles_are_its_own_even_where_the_store_has_another(
    offramp: Offramp, swept: Path, store: Path, tmp_path: Path
) -> None:
    shutil.rmtree(store / "profile")
    ran = offramp("reproduce", swept, "--store", store, "-j", 1, "-q")
    assert ran.status == 0, ran.err
    assert outcome(tmp_path / "sweep-again")["verdict"] == "IDENTICAL"
    assert not (store / "profile").exists(), "nothing is measured"
    shutil.rmtree(swept / "profiles")
    ran = offramp("reproduce", swept, "--store", store, "-j", 1)
    assert ran.status == 2
    assert "a new measurement never gives the same" in ran.err


def test_what_moved_is_named_point_by_point(
    offramp: Offramp, swept: Path, trained: Any, tmp_path: Path
) -> None:
    def slower(manifest: dict[str, Any]) -> None:
        manifest["data"]["links"]["wifi"]["downlink"]["latency_ms"] = 30

    rewrite(swept, slower)
    ran = offramp("reproduce", swept, "--store", trained.store, "-j", 1)
    assert ran.status == 1, ran.err
    said = outcome(tmp_path / "sweep-again")
    assert said["verdict"] == "DIFFERENT"
    assert said["files"][0]["first"]["where"]["point"] == 0
    figures = pd.DataFrame(said["figures"])
    moved = figures[figures["verdict"] == "moved"]
    assert set(moved["point"]) == {0, 1, 2, 3}
    assert "latency_p50_s" in set(moved["metric"])
    offered = figures[figures["metric"] == "offered"]
    assert set(offered["verdict"]) == {"same"}


#: Raises, but where the taste is 1, as long as a file is there.
FICKLE = """
from pathlib import Path
from sim.policy import ANSWER, run_to


class Fickle:
    def __init__(self, taste):
        self.taste = taste

    def decide(self, request, node):
        if self.taste > 1 and Path(__file__).with_name("fails").exists():
            raise RuntimeError("not now")
        return ANSWER if request.exit else run_to(1)
"""


def test_a_point_that_gives_results_in_one_of_both_alone_is_a_difference(
    offramp: Offramp, scenario: Callable[..., Path], trained: Any, tmp_path: Path
) -> None:
    (tmp_path / "own.py").write_text(FICKLE)
    path = scenario({"policies": [{"policy": "own.py:Fickle", "taste": 1}]})
    store = ("--store", trained.store, "-j", 1, "-q")
    sweep = ("sweep", path, "--set", "simulation.duration_s=1", *store, "-o", tmp_path / "sweep")
    assert offramp(*sweep, "--set", "policies.0.taste=1,2").status == 0
    (tmp_path / "fails").touch()
    ran = offramp("reproduce", tmp_path / "sweep", *store)
    assert ran.status == 1, ran.err
    said = outcome(tmp_path / "sweep-again")
    assert said["verdict"] == "DIFFERENT"
    assert "1 point that gave results failed now (number 1)" in said["sentence"]
    again = offramp(*sweep[:-1], tmp_path / "failing", "--set", "policies.0.taste=2,3")
    assert again.status == 1, "both of its points fail"
    ran = offramp("reproduce", tmp_path / "failing", *store)
    assert outcome(tmp_path / "failing-again")["verdict"] == "IDENTICAL", "it fails alike"
    (tmp_path / "fails").unlink()
    ran = offramp("reproduce", tmp_path / "failing", *store, "-o", tmp_path / "third")
    assert ran.status == 1, ran.err
    assert "2 points that failed before gave results now" in outcome(tmp_path / "third")["sentence"]


def test_the_folder_of_a_sweep_that_is_not_finished_is_left_alone(
    offramp: Offramp, swept: Path, trained: Any, tmp_path: Path, snapshot: Callable[..., Any]
) -> None:
    unfinished = Path(shutil.copytree(swept, tmp_path / "unfinished"))
    (unfinished / "manifest.json").unlink()
    before = snapshot(unfinished)
    for original in (swept, trained.results):
        ran = offramp("reproduce", original, "--store", trained.store, "-o", unfinished, "-q")
        assert ran.status == 2
        assert "holds the results of something else" in ran.err
        assert snapshot(unfinished) == before


def test_networks_that_are_gone_are_trained_again(
    offramp: Offramp, swept: Path, trained: Any, store: Path, tmp_path: Path
) -> None:
    shutil.rmtree(store / "trained")
    ran = offramp("reproduce", swept, "--store", store, "-j", 1, "-q")
    assert ran.status == 0, ran.err
    said = outcome(tmp_path / "sweep-again")
    assert said["verdict"] == "IDENTICAL", "training is repeatable on one machine"
    assert "0 of the sweep's own 4 networks" in said["notes"][0]
    assert not (store / "trained").exists()
    ran = offramp("reproduce", swept, "--store", trained.store, "-j", 1, "--from-scratch", "-q")
    assert ran.status == 0, ran.err
    assert "trained again in a store of their own" in outcome(tmp_path / "sweep-again")["notes"][0]


def test_a_sweep_survives_its_manifest(scenario: Callable[..., Path], tmp_path: Path) -> None:
    block = {
        "grid": {"nodes.edge.workers": [1, 2]},
        "zip": {"links.wifi.uplink.latency_ms": [1, 2], "links.wifi.downlink.latency_ms": [3, 4]},
        "random": {
            "points": 3,
            "keys": {
                "simulation.duration_s": {"uniform": [1, 9]},
                "devices.cameras.count": {"integers": [1, 9]},
                "policies": [["deadline_aware"], [{"policy": "fixed_exit", "exit": 1}]],
            },
        },
        "latin_hypercube": {
            "points": 3,
            "keys": {"devices.cameras.arrivals.rate_hz": {"log_uniform": [1, 9]}},
        },
        "seed": 7,
    }
    path = scenario({"sweep": block, "name": "swept"})
    sweep = load_sweep(str(path), ["seed=5", "training.steps=2,4"])
    manifest = json.loads(json.dumps(recorded(sweep)))
    path.unlink()
    again = recorded_sweep(manifest, tmp_path, tmp_path / "manifest.json")
    assert again.keys == sweep.keys
    assert [*again.points] == [*sweep.points]
    assert len(again.points) == 2 * 2 * 3 * 3 * 2
    assert again.base.scenario == sweep.base.scenario
    assert again.base.scenario.seed == 5
    for values in sweep.points[::7]:
        assert again.scenario_at(values).scenario == sweep.scenario_at(values).scenario


def test_every_file_that_a_value_names_is_known(
    scenario: Callable[..., Path], tmp_path: Path
) -> None:
    for name in ("a.txt", "b.txt"):
        (tmp_path / name).write_text("1\n2\n")
    uplink = {"latency_file": "a.txt"}
    path = scenario({"links.wifi.uplink": uplink})
    assert load_scenario(str(path))
    sweep = load_sweep(str(path), ["links.wifi.uplink.latency_file=a.txt,b.txt"])
    found = {file.name: file.path for file in named_files_of(sweep).values()}
    assert found == {"a.txt": tmp_path / "a.txt", "b.txt": tmp_path / "b.txt"}


def test_a_file_of_a_point_that_changed_is_named(
    offramp: Offramp,
    scenario: Callable[..., Path],
    store: Path,
    tmp_path: Path,
) -> None:
    for name in ("a.txt", "b.txt"):
        (tmp_path / name).write_text("1\n2\n")
    path = scenario({"links.wifi.uplink": {"latency_file": "a.txt"}})
    ran = offramp(
        "sweep",
        path,
        *("--set", "links.wifi.uplink.latency_file=a.txt,b.txt", "-o", "sweep"),
        *("--store", store, "-j", 1, "-q"),
    )
    assert ran.status == 0, ran.err
    (tmp_path / "b.txt").write_text("1\n3\n")
    assert file_hash(tmp_path / "a.txt") != file_hash(tmp_path / "b.txt")
    ran = offramp("reproduce", "sweep", "--store", store)
    assert ran.status == 2
    assert "b.txt is not what it was" in ran.err
    assert "a.txt" not in ran.err


def test_a_manifest_without_its_axes_is_one_message(
    offramp: Offramp, swept: Path, trained: Any
) -> None:
    rewrite(swept, lambda it: it.pop("axes"))
    ran = offramp("reproduce", swept, "--store", trained.store)
    assert ran.status == 2
    assert "does not hold the axes" in ran.err
