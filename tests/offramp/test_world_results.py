"""What results tell of the world beside AUD: energy, fairness, links, faults, groups, traces."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from scipy import stats

from offramp import Pipeline, load_scenario
from offramp.report.build import build_report
from offramp.report.results import read_results
from offramp.report.style import paper_style
from offramp.report.tables import best_arm
from offramp.report.tradeoff import tradeoff_points
from offramp.report.world_figures import telemetry_over_time
from offramp.store import Store
from tests.offramp.latex_papers import needs_latex, paper_of

Change = dict[str, Any]

ENERGY = {"idle_w": 0.5, "compute_w": 1, "transmit_w": 1.2, "receive_w": 0.9, "source": "a guess"}

#: Two groups on a shared link, energy, faults, telemetry and a trace.
RICH: Change = {
    "links.wifi": {
        "shared_by": 3,
        "uplink": {"latency_ms": 3, "jitter_ms": 1, "bandwidth_mbps": 2},
        "downlink": {"latency_ms": 3, "bandwidth_mbps": 2},
    },
    "nodes.edge": {
        "workers": 1,
        "replicas": 2,
        "service_ms": {"distribution": "lognormal", "median": 5, "sigma": 0.4},
        "energy": {**ENERGY, "source": "another guess"},
    },
    "devices.cameras.energy": ENERGY,
    "devices.meters": {
        "count": 2,
        "arrivals": {"process": "periodic", "rate_hz": 10},
        "deadline_ms": 20,
        "link": "wifi",
        "node": "edge",
    },
    "faults": [
        {"kind": "node_crash", "node": "edge", "at_s": 1.5, "for_s": 0.5},
        {"kind": "slow_node", "node": "edge", "factor": 0.5, "mtbf_s": 1, "mttr_s": 0.3},
    ],
    "policies": ["deadline_aware", {"policy": "fixed_exit", "exit": 2}, "oracle"],
    "simulation.telemetry_step_s": 0.25,
    "simulation.trace_window_s": [2, 2.5],
}


@pytest.fixture(scope="module")
def results(
    trained: Any, written: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """Results of the rich world with their report; read only."""
    folder = tmp_path_factory.mktemp("rich")
    store = Store(Path(shutil.copytree(trained.store, folder / "store")))
    path = written(folder / "tiny.yaml", RICH)
    Pipeline(load_scenario(str(path)), store).simulate(folder / "results", jobs=1)
    build_report(folder / "results")
    return folder / "results"


@pytest.fixture
def rich(
    simulated: Callable[..., tuple[Pipeline, Path]],
) -> Callable[..., Path]:
    def simulate(changes: Change | None = None, jobs: int = 1) -> Path:
        return simulated({**RICH, **(changes or {})}, jobs=jobs)[1]

    return simulate


def arms(results: Path) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = json.loads((results / "summary.json").read_text())["arms"]
    return rows


def records(results: Path) -> pd.DataFrame:
    return pq.read_table(results / "records.parquet").to_pandas()


# --- files --------------------------------------------------------------------------------------


def test_only_what_is_there_makes_files_columns_and_sections(trained: Any) -> None:
    names = {path.name for path in trained.results.iterdir()}
    assert names.isdisjoint(
        {"energy.csv", "faults.csv", "telemetry_nodes.csv", "latency_percentiles.csv"}
    )
    assert not list(trained.results.glob("trace-*.json"))
    columns = pd.read_csv(trained.results / "summary.csv").columns
    assert not [name for name in columns if "j_per" in name or "oracle" in name]
    page = (trained.results / "report.md").read_text()
    for title in ("Energy", "Faults", "Groups of devices"):
        assert f"## {title}" not in page


def test_one_and_several_processes_give_the_same_bytes_in_every_file(
    rich: Callable[..., Path], store: Path
) -> None:
    one = rich({"simulation.replications": 3})
    shutil.rmtree(store / "simulation")
    several = rich({"simulation.replications": 3}, jobs=2)
    names = {path.name for path in one.iterdir() if path.is_file()} - {"manifest.json"}
    files = {path.name for path in several.iterdir() if path.is_file()}
    assert names == files - {"manifest.json"}
    assert {"links.csv", "energy.csv", "fault_times.csv", "devices.csv"} < names
    for name in names:
        assert (one / name).read_bytes() == (several / name).read_bytes(), name


def test_files_of_another_run_do_not_stay(
    results: Path, simulated: Callable[..., tuple[Pipeline, Path]], tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(results, tmp_path / "used"))
    pipeline, _ = simulated()
    pipeline.simulate(folder, jobs=1)
    build_report(folder)
    assert not [*folder.glob("telemetry_*"), *folder.glob("trace-*"), *folder.glob("energy.csv")]
    assert not (folder / "figures" / "telemetry_over_time.png").exists()
    assert (folder / "figures" / "latency_ecdf.png").exists()


# --- tables -------------------------------------------------------------------------------------


def test_groups_and_devices_are_those_of_the_records(results: Path) -> None:
    frame = records(results)
    frame["aud"] = (frame["outcome"] == "on_time") & frame["correct"]
    arm = ["strategy", "training_seed", "policy"]
    groups = pd.read_csv(results / "groups.csv").set_index([*arm, "replication", "group"])
    expected = frame.groupby([*arm, "replication", "group"], observed=True)["aud"].agg(
        ["mean", "size"]
    )
    expected = expected.reindex(groups.index)
    np.testing.assert_allclose(groups["aud"], expected["mean"])
    np.testing.assert_array_equal(groups["offered"], expected["size"])
    devices = pd.read_csv(results / "devices.csv").set_index([*arm, "device"])
    assert len(devices) == 2 * 2 * 3 * 7
    by_device = frame.groupby([*arm, "device"], observed=True)["aud"].mean()
    np.testing.assert_allclose(devices["aud"], by_device.reindex(devices.index))


def test_fairness_is_jains_index_of_aud_over_devices(results: Path) -> None:
    frame = records(results)
    frame["aud"] = (frame["outcome"] == "on_time") & frame["correct"]
    runs = pd.read_csv(results / "runs.csv")
    arm = ["strategy", "training_seed", "policy", "replication"]
    for key, of_run in frame.groupby(arm, observed=True):
        aud = of_run.groupby("device", observed=True)["aud"].mean()
        expected = aud.sum() ** 2 / (len(aud) * (aud**2).sum())
        row = runs.set_index(arm).loc[key]
        assert row["jain_aud"] == pytest.approx(expected)


def test_energy_adds_up_from_states_to_runs_to_the_summary(results: Path) -> None:
    runs = pd.read_csv(results / "runs.csv")
    energy = pd.read_csv(results / "energy.csv")
    parts = energy[["idle_j", "compute_j", "transmit_j", "receive_j"]].sum(axis=1)
    total = parts.sum()
    assert total == pytest.approx((runs["device_j"] + runs["node_j"]).sum())
    assert set(energy["name"]) == {"cameras", "edge"}, "meters have no power states"
    cameras = energy[energy["name"] == "cameras"]
    assert cameras["idle_j"].unique() == pytest.approx([0.5 * 5 * 3])
    for row in arms(results):
        arm = runs[(runs["strategy"] == row["strategy"]) & (runs["policy"] == row["policy"])]
        joules = (arm["device_j"] + arm["node_j"]).groupby(arm["training_seed"]).sum()
        correct = (arm["aud"] * arm["offered"]).groupby(arm["training_seed"]).sum()
        cost = joules.sum() / correct.sum()
        assert row["j_per_correct_on_time"] == pytest.approx(cost)
        beyond = (joules - cost * correct) / correct.mean()
        half = stats.t.ppf(0.975, len(beyond) - 1) * beyond.std() / len(beyond) ** 0.5
        assert row["j_per_correct_on_time_half_width"] == pytest.approx(half)
        drawn = pd.read_csv(results / "figures" / "energy_per_correct_answer.csv")
        bar = drawn.set_index(["strategy", "policy"]).loc[(row["strategy"], row["policy"])]
        assert (bar["n"], bar["over"]) == (len(beyond), "training seeds")
        assert bar["high"] - bar["j"] == pytest.approx(half)
    page = (results / "report.md").read_text()
    assert "## Energy" in page
    assert "a guess; another guess" in page


def test_the_report_says_how_close_each_policy_comes_to_the_oracle(
    results: Path, offramp: Callable[..., Any], tmp_path: Path
) -> None:
    ran = offramp("report", results, "-o", tmp_path / "elsewhere")
    page = (results / "report.md").read_text()
    for row in arms(results):
        share = row["oracle_share"]
        if row["policy"] == "oracle":
            assert share is None
            continue
        both = {
            arm["policy"]: arm["aud"] for arm in arms(results) if arm["strategy"] == row["strategy"]
        }
        assert share == pytest.approx(both[row["policy"]] / both["oracle"])
        assert 0 < share <= 1
        text = f"{100 * share:.1f} ± {100 * row['oracle_share_half_width']:.1f} %"
        assert f"Under `{row['policy']}`, **{row['strategy']}** reaches {text}" in page
        assert f"{row['strategy']}, {row['policy']}: {text} of the AUD of oracle" in ran.out


def test_faults_are_counted(results: Path) -> None:
    faults = pd.read_csv(results / "faults.csv")
    crashes = faults[faults["kind"] == "node_crash"]
    assert crashes["count"].tolist() == [2, 2], "both nodes, in both replications"
    assert crashes["down_s"].tolist() == [1.0, 1.0]
    assert (records(results)["outcome"] == "lost").any()
    page = (results / "report.md").read_text()
    assert "| node crash | edge | 2 | 2 | 1 |" in page


def test_a_trace_of_each_arm_opens_in_perfetto(results: Path) -> None:
    traces = sorted(results.glob("trace-*.json"))
    assert len(traces) == 2 * 2 * 3
    assert traces[1].name == "trace-02-standard-0-fixed_exit_exit=2_.json"
    for path in traces:
        events = json.loads(path.read_text())["traceEvents"]
        assert {"M", "X", "C"} <= {event["ph"] for event in events}


# --- figures ------------------------------------------------------------------------------------


def test_figures_of_the_world_are_drawn_from_what_they_say(results: Path) -> None:
    page = (results / "report.md").read_text()
    captions = {
        name: caption for caption, name in re.findall(r"!\[(.*?)\]\(figures/(\w+)\.png\)", page)
    }
    for name in ("aud_by_group", "energy_per_correct_answer", "telemetry_over_time"):
        assert (results / "figures" / f"{name}.pdf").read_bytes().startswith(b"%PDF-")
        assert "2 replications" in captions[name]
    assert "Shaded" in captions["telemetry_over_time"]
    telemetry = pd.read_csv(results / "telemetry_nodes.csv")
    drawn = pd.read_csv(results / "figures" / "telemetry_over_time.csv")
    first = telemetry[(telemetry["strategy"] == "standard") & (telemetry["training_seed"] == 0)]
    assert len(drawn) == len(first) == 3 * 2 * 14
    np.testing.assert_allclose(drawn["queue_length"], first["queue_length"])
    down = telemetry[telemetry["time_s"].isin([1.5, 1.75])]
    assert (down["utilisation"] == 0).all(), "both nodes are down"
    groups = pd.read_csv(results / "figures" / "aud_by_group.csv")
    assert len(groups) == 3 * 2 * 2


def test_what_went_on_is_drawn_to_the_end_of_the_last_step(results: Path) -> None:
    with paper_style():
        figure = telemetry_over_time(read_results(results))
        assert figure is not None
        panels = figure.drawing.axes
        plt.close(figure.drawing)
    for panel in panels:
        assert panel.get_xlim() == (0.0, 3.5)
        for line in panel.lines:
            times, values = line.get_data()
            assert list(times[-2:]) == [3.25, 3.5]
            assert values[-1] == values[-2]


@needs_latex
def test_figures_of_the_world_go_into_a_paper(results: Path, tmp_path: Path) -> None:
    assert len(paper_of(tmp_path, results / "figures", results / "tables")) == 10 + 3


def test_the_oracle_is_neither_on_the_front_nor_bold(results: Path) -> None:
    whole = read_results(results)
    points = tradeoff_points(whole)
    assert points.loc[points["on_front"], "policy"].ne("oracle").all()
    assert points["on_front"].any()
    best = best_arm(whole)
    assert best is not None
    assert "oracle" not in {best.arm[1], best.next[1]}
    assert best.tested <= 4 * 3 // 2, "pairs of two strategies under two policies"
    for text in ("figures/accuracy_against_latency.txt", "tables/summary.tex"):
        assert "The oracle is a yardstick" in (results / text).read_text(encoding="utf-8")


def test_of_one_replication_the_figures_of_the_world_claim_no_interval(
    rich: Callable[..., Path],
) -> None:
    once = rich({"simulation.replications": 1, "training.seeds": 1})
    build_report(once)
    for name in ("aud_by_group", "energy_per_correct_answer"):
        caption = (once / "figures" / f"{name}.txt").read_text(encoding="utf-8")
        assert "No intervals: 1 replication" in caption
        assert "95 %" not in caption


# --- links --------------------------------------------------------------------------------------


def test_a_link_without_capacity_for_its_load_runs_and_is_warned_of(
    scenario: Callable[..., Path],
    store: Path,
    offramp: Callable[..., Any],
    fixed_service: Change,
    tmp_path: Path,
) -> None:
    slow = {"latency_ms": 3, "bandwidth_mbps": 0.006}
    changes = {**fixed_service, "links.wifi": {"shared_by": "all", "uplink": slow}}
    path = scenario({**changes, "policies": ["full"]})
    ran = offramp("simulate", path, "--store", store, "-o", tmp_path / "results", "-j", 1)
    assert ran.status == 0, ran.err
    assert re.search(r"^offered load  link wifi, uplink: \d\.\d+ of what", ran.out, re.M)
    assert "link wifi cannot carry it" in ran.out
    assert "link wifi, uplink, full, standard and curriculum: OVERLOADED" in ran.out
    summary = json.loads((tmp_path / "results" / "summary.json").read_text())
    assert summary["verdict"] == "INVALID"
    assert any("uplink of link 'wifi'" in reason for reason in summary["reasons"])
    page = (tmp_path / "results" / "report.md").read_text()
    assert "| wifi | uplink | standard and curriculum | 5 |" in page
    assert any("warm-up not settled" in reason for reason in summary["reasons"])
    checked = offramp("check", path, "--store", store)
    assert "link wifi cannot carry it" in checked.err


# --- records: summary ---------------------------------------------------------------------------


def test_a_summary_has_the_same_counts_and_says_what_it_leaves_out(
    results: Path, rich: Callable[..., Path]
) -> None:
    full, summary = results, rich({"simulation.records": "summary"})
    assert not (summary / "records.parquet").exists()
    build_report(summary)
    for exact, rough in zip(arms(full), arms(summary), strict=True):
        for name, value in exact.items():
            close = 0.1 if name.startswith("latency") else 1e-6
            if isinstance(value, float):
                assert rough[name] == pytest.approx(value, rel=close, abs=1e-12), name
            else:
                assert rough[name] == value, name
    sweeps = [pd.read_csv(folder / "deadline_sweep.csv") for folder in (full, summary)]
    np.testing.assert_allclose(sweeps[0]["aud"], sweeps[1]["aud"])
    page = (summary / "report.md").read_text()
    assert "No record per request was kept" in page
    assert "t-digest" in page
    assert not (summary / "figures" / "latency_ecdf.png").exists()
    assert "exits_taken" in page  # the counts of exits are kept
    verdicts = [json.loads((it / "summary.json").read_text())["reasons"] for it in (full, summary)]
    assert verdicts[0] == verdicts[1]


def test_a_summary_is_the_same_for_any_number_of_processes(
    rich: Callable[..., Path], store: Path
) -> None:
    changes = {"simulation.records": "summary", "simulation.replications": 3}
    one = rich(changes)
    shutil.rmtree(store / "simulation")
    several = rich(changes, jobs=2)
    for name in ("runs.csv", "latency_percentiles.csv", "nodes.csv", "deadline_sweep.csv"):
        assert (one / name).read_bytes() == (several / name).read_bytes(), name


# --- the sweep of deadlines ---------------------------------------------------------------------


def test_a_policy_that_never_looks_at_deadlines_is_simulated_once_with_the_same_sweep(
    rich: Callable[..., Path], store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    changes = {"policies": [{"policy": "fixed_exit", "exit": 1}, "full"]}
    quick = pd.read_csv(rich(changes) / "deadline_sweep.csv")
    shutil.rmtree(store / "simulation")
    looks = "offramp.stages.arm_tables.never_looks_at_deadlines"
    monkeypatch.setattr(looks, lambda *arguments: False)
    slow = pd.read_csv(rich(changes) / "deadline_sweep.csv")
    assert quick["aud"].nunique() > 2
    pd.testing.assert_frame_equal(quick, slow)


# --- policies that are fitted -------------------------------------------------------------------

FITTED: Change = {"policies": [{"policy": "confidence", "wanted_accuracy": 0.05}]}


def test_a_fitted_policy_needs_validation_predictions_which_training_makes_without_training(
    scenario: Callable[..., Path],
    store: Path,
    offramp: Callable[..., Any],
    fixed_service: Change,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def never(*arguments: object) -> None:
        raise AssertionError("a network was trained again")

    monkeypatch.setattr("offramp.stages.training.run_training", never)
    path = scenario({**fixed_service, **FITTED})
    arguments = ("--store", store, "-o", tmp_path / "results", "-j", 1)
    ran = offramp("simulate", path, *arguments)
    assert ran.status == 2
    assert "'confidence' is fitted on validation predictions" in ran.err
    assert f"offramp train {path}" in ran.err
    assert not (tmp_path / "results").exists()

    ran = offramp("train", path, "--store", store)
    assert ran.status == 0
    assert re.search(r"^made    validation predictions", ran.out, re.M)
    ran = offramp("train", path, "--store", store)
    assert re.search(r"^reused  validation predictions", ran.out, re.M)
    assert offramp("simulate", path, *arguments).status == 0
    inputs = json.loads((tmp_path / "results" / "manifest.json").read_text())["inputs"]
    assert "validation predictions of curriculum, seed 1" in inputs


def test_what_a_fitted_policy_wishes_and_cannot_have_is_said_before_anything_is_simulated(
    scenario: Callable[..., Path],
    store: Path,
    offramp: Callable[..., Any],
    fixed_service: Change,
    tmp_path: Path,
) -> None:
    path = scenario(
        {**fixed_service, "policies": [{"policy": "confidence", "wanted_accuracy": 0.9999}]}
    )
    assert offramp("train", path, "--store", store).status == 0
    ran = offramp("simulate", path, "--store", store, "-o", tmp_path / "results")
    assert ran.status == 2
    assert "no confidence threshold gives a accuracy of 0.9999 or more" in ran.err
    assert not (tmp_path / "results").exists()


def test_a_policy_without_fitting_needs_no_validation_predictions(
    store: Path, simulated: Callable[..., tuple[Pipeline, Path]]
) -> None:
    simulated({"policies": [{"policy": "confidence", "threshold": 0.8}]})
    assert not (store / "validation").exists()
