"""The stages put together: what is made, what is reused, and that the numbers are the same."""

import json
import math
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from safetensors.numpy import load_file
from scipy import stats

from models.artifacts import read_predictions, read_profile
from models.inference import quietness
from offramp import LoadedScenario, Pipeline, load_scenario
from offramp.stages import keys
from offramp.store import Store, file_hash

Change = dict[str, Any]

#: One network, not trained by the session, in a second or two.
ONE_NETWORK: Change = {
    "training.strategies": ["standard"],
    "training.seeds": 1,
    "training.steps": 2,
}
NETWORKS = [
    f"{strategy}, seed {seed}" for seed in (0, 1) for strategy in ("standard", "curriculum")
]


def artefacts(store: Path, kind: str) -> list[str]:
    folder = store / kind
    return sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []


def records(results: Path) -> pd.DataFrame:
    return pq.read_table(results / "records.parquet").to_pandas()


# --- made once, then reused ---------------------------------------------------------------------


def test_a_first_run_says_what_it_made_and_what_is_asked_of_each_node(trained: Any) -> None:
    said = [line.split("  (")[0].strip() for line in trained.first_run.out.splitlines()]
    made = [line for line in said if line.startswith("made")]
    assert made == [f"made    {name}" for name in (*NETWORKS, "profile", "simulation")]
    assert "reused" not in trained.first_run.out
    assert re.search(
        r"^offered load  node edge: 60 requests/s on 1 worker", trained.first_run.out, re.M
    )


def test_a_second_run_reuses_everything_says_so_and_gives_the_same_results(
    trained: Any,
    store: Path,
    offramp: Callable[..., Any],
    snapshot: Callable[..., dict[str, str]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def never(*arguments: object) -> None:
        raise AssertionError("something was made again")

    for stage in ("training.run_training", "profiling.run_profiling", "simulation._simulate_into"):
        monkeypatch.setattr(f"offramp.stages.{stage}", never)
    before = snapshot(store)
    ran = offramp("run", trained.scenario, "--store", store, "-o", tmp_path / "again")
    assert ran.status == 0
    for name in (*NETWORKS, "profile", "simulation"):
        assert re.search(rf"^reused  {name}  \(", ran.out, re.M)
    assert not re.search(r"^made", ran.out, re.M)
    assert snapshot(store) == before
    first = {path.name: path for path in trained.results.rglob("*") if path.is_file()}
    again = {path.name: path for path in (tmp_path / "again").rglob("*") if path.is_file()}
    assert set(first) == set(again)
    for name in set(first) - {"manifest.json"}:  # which tells times and what was reused
        assert first[name].read_bytes() == again[name].read_bytes(), name


def test_only_the_world_changed_reuses_trainings_and_profile(
    store: Path, simulated: Callable[..., tuple[Pipeline, Path]]
) -> None:
    trained, profiled = artefacts(store, "trained"), artefacts(store, "profile")
    pipeline, results = simulated({"devices.cameras.count": 6, "nodes.edge.workers": 2})
    pipeline.train()
    pipeline.profile()
    assert pipeline.reused == {
        "simulation": False,
        "profile": True,
        **dict.fromkeys(NETWORKS, True),
    }
    assert artefacts(store, "trained") == trained
    assert artefacts(store, "profile") == profiled
    assert records(results)["device"].nunique() == 6


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({"name": "other", "description": "Another text."}, "tiny.yaml"),
        ({}, "moved.yaml"),
        ({"devices.cameras.arrivals.rate_hz": 12.0, "nodes.edge.speed": 1e-1}, "tiny.yaml"),
        ({"training.threads": 2}, "tiny.yaml"),
        ({"training.device": "cpu"}, "tiny.yaml"),
        ({"training.backbone_steps": 9, "training.activation_store_gb": 1}, "tiny.yaml"),
    ],
    ids=[
        "name and description",
        "another file",
        "the same numbers",
        "threads",
        "device",
        "keys of another regime",
    ],
)
def test_what_changes_no_result_is_reused_whole(
    changes: Change, name: str, simulated: Callable[..., tuple[Pipeline, Path]]
) -> None:
    pipeline, _ = simulated(changes, name=name)
    pipeline.train()
    assert set(pipeline.reused.values()) == {True}


@pytest.mark.parametrize(
    "changes",
    [
        {"seed": 4},
        {"devices.cameras.deadline_ms": 1},
        {"links.wifi.downlink.latency_ms": 4},
        {"nodes.edge.speed": 0.2},
        {"policies": ["confidence"]},
        {"simulation.duration_s": 2},
        {"simulation.deadline_scales": [1]},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_what_changes_the_world_is_simulated_anew(
    changes: Change, trained: Any, simulated: Callable[..., tuple[Pipeline, Path]]
) -> None:
    pipeline, results = simulated(changes)
    assert pipeline.reused["simulation"] is False
    ran, anew = (it / "deadline_sweep.csv" for it in (trained.results, results))
    assert ran.read_bytes() != anew.read_bytes()


def test_other_steps_train_again_and_a_paced_strategy_alone_when_its_pacing_changes(
    store: Path, scenario: Callable[..., Path]
) -> None:
    scores = artefacts(store, "scores")
    one_seed = {"training.seeds": 1}
    pacing = {**one_seed, "training.pacing": {"start_fraction": 0.5}}
    pipeline = Pipeline(load_scenario(str(scenario(pacing))), Store(store))
    pipeline.train()
    assert pipeline.reused == {"standard, seed 0": True, "curriculum, seed 0": False}
    assert artefacts(store, "scores") == scores, "the scores do not depend on the pacing"

    pipeline = Pipeline(load_scenario(str(scenario(ONE_NETWORK))), Store(store))
    folder = pipeline.train()["standard", 0]
    assert pipeline.reused == {"standard, seed 0": False}
    assert json.loads((folder / "artifact.json").read_text())["made_from"]["settings"]["steps"] == 2


def test_a_damaged_network_is_trained_again_to_the_same_weights(
    trained: Any, store: Path, scenario: Callable[..., Path]
) -> None:
    loaded = load_scenario(str(scenario({"training.strategies": ["standard"]})))
    folder = Pipeline(loaded, Store(store)).train()["standard", 1]
    checkpoint, predictions = folder / "checkpoint.safetensors", folder / "predictions.parquet"
    predicted, weights = predictions.read_bytes(), load_file(checkpoint)
    checkpoint.write_bytes(checkpoint.read_bytes()[:100])
    pipeline = Pipeline(loaded, Store(store))
    assert pipeline.train()["standard", 1] == folder
    assert pipeline.reused == {"standard, seed 0": True, "standard, seed 1": False}
    assert predictions.read_bytes() == predicted
    assert all(
        np.array_equal(weights[name], again) for name, again in load_file(checkpoint).items()
    )


def _profile_of(loaded: LoadedScenario, store: Path) -> Path:
    key = keys.profile_key(loaded.scenario, loaded.experiment)
    return Store(store).path("profile", key) / "profile.parquet"


def test_measuring_again_replaces_the_profile(
    store: Path, scenario: Callable[..., Path], offramp: Callable[..., Any], tmp_path: Path
) -> None:
    path = scenario()
    loaded = load_scenario(str(path))
    profile = _profile_of(loaded, store)
    before = profile.read_bytes()
    copied = tmp_path / "copied.parquet"
    assert offramp("profile", path, "--store", store, "-o", copied).status == 0
    assert profile.read_bytes() == before
    assert read_profile(copied).seconds[1]["exit"].shape == (10, 2)
    ran = offramp("profile", path, "--store", store, "--again")
    assert ran.status == 0
    assert re.search(r"^made    profile", ran.out, re.M)
    assert profile.read_bytes() != before


def test_results_of_another_scenario_are_not_replaced_without_a_word(
    store: Path, scenario: Callable[..., Path], offramp: Callable[..., Any], tmp_path: Path
) -> None:
    command = ("simulate", scenario(), "--store", store, "-o", tmp_path / "results", "-j", 1)
    first, again = offramp(*command), offramp(*command)
    assert "this replaces" not in first.out + first.err + again.out + again.err
    more = [f"devices.cameras.{key}" for key in ("count=3", "deadline_ms=30")]
    ran = offramp(*command, *(part for it in more for part in ("--set", it)))
    assert ran.status == 0
    assert re.search(
        r"this replaces the results in \S+, which are of another scenario "
        r"\(devices.cameras.count and devices.cameras.deadline_ms\)",
        " ".join((ran.out + ran.err).split()),
    )


@pytest.mark.parametrize(("not_quiet", "warned"), [(0.0, True), (math.inf, False)])
def test_a_profile_of_a_host_that_was_not_quiet_is_warned_of_whenever_it_is_used(
    store: Path,
    scenario: Callable[..., Path],
    offramp: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
    not_quiet: float,
    warned: bool,
) -> None:
    monkeypatch.setattr(quietness, "NOT_QUIET", not_quiet)
    for command in (("profile",), ("run", "-o", store / "results")):
        ran = offramp(command[0], scenario(), "--store", store, *command[1:])
        assert ran.status == 0
        assert ("offramp profile --again" in ran.out + ran.err) == warned
    page = (store / "results" / "report.html").read_text()
    assert ("does not seem to have been quiet" in page) == warned


# --- one and several processes ------------------------------------------------------------------


def test_one_and_several_processes_give_the_same_bytes(
    simulated: Callable[..., tuple[Pipeline, Path]], store: Path, fixed_service: Change
) -> None:
    changes = {**fixed_service, "simulation.replications": 3}
    _, one = simulated(changes, jobs=1)
    shutil.rmtree(store / "simulation")
    pipeline, several = simulated(changes, jobs=2)
    assert pipeline.reused["simulation"] is False
    for name in ("records.parquet", "runs.csv", "nodes.csv", "deadline_sweep.csv"):
        assert (one / name).read_bytes() == (several / name).read_bytes(), name


# --- interrupted --------------------------------------------------------------------------------


def test_an_interrupted_training_keeps_whole_networks_and_goes_on_from_there(
    scenario: Callable[..., Path],
    offramp: Callable[..., Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import offramp.stages.training as stage

    path = scenario({**ONE_NETWORK, "training.strategies": ["standard", "random_curriculum"]})
    store, results = tmp_path / "own", tmp_path / "results"
    calls = 0
    train = stage.train

    def interrupted(*arguments: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == 2:
            raise KeyboardInterrupt
        return train(*arguments)

    monkeypatch.setattr(stage, "train", interrupted)
    ran = offramp("run", path, "--store", store, "-o", results)
    assert ran.status == 130
    assert ran.err.startswith("interrupted")
    assert "Traceback" not in ran.err
    [kept] = artefacts(store, "trained")
    assert sorted(file.name for file in (store / "trained" / kept).iterdir()) == [
        "artifact.json",
        "checkpoint.safetensors",
        "predictions.parquet",
    ]
    assert not results.exists()

    ran = offramp("train", path, "--store", store)
    assert ran.status == 0
    assert calls == 3, "the first network is not trained again"
    assert re.search(r"^reused  standard, seed 0", ran.out, re.M)
    assert re.search(r"^made    random_curriculum, seed 0", ran.out, re.M)
    assert len(artefacts(store, "trained")) == 2
    assert kept in artefacts(store, "trained")


def test_an_interrupted_simulation_leaves_store_and_results_as_they_were(
    trained: Any,
    store: Path,
    scenario: Callable[..., Path],
    offramp: Callable[..., Any],
    snapshot: Callable[..., dict[str, str]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import offramp.stages.simulation as stage

    results = Path(shutil.copytree(trained.results, tmp_path / "results"))
    path = scenario({"seed": 8})
    before = snapshot(store, results)
    replicate = stage.replicate

    def interrupted(job: Any, replication: int, folder: Path) -> Any:
        if replication == 1:
            raise KeyboardInterrupt
        return replicate(job, replication, folder)

    monkeypatch.setattr(stage, "replicate", interrupted)
    ran = offramp("simulate", path, "--store", store, "-o", results, "-j", 1)
    assert ran.status == 130
    assert snapshot(store, results) == before


def test_a_simulation_that_is_killed_leaves_nothing_half_written(
    store: Path,
    scenario: Callable[..., Path],
    fixed_service: Change,
    snapshot: Callable[..., dict[str, str]],
    tmp_path: Path,
) -> None:
    results = tmp_path / "results"
    (tmp_path / "mine.py").write_text(
        "from pathlib import Path\n"
        "from sim.policy import ANSWER, run_to\n"
        "class Mine:\n"
        "    def decide(self, request, node):\n"
        f"        Path({str(tmp_path / 'begun')!r}).touch()\n"
        "        return ANSWER if request.exit else run_to(1)\n"
    )
    long = {"simulation.duration_s": 3000, "policies": ["mine.py:Mine"]}
    path = scenario({**fixed_service, **long})
    arguments = ("simulate", path, "--store", store, "-o", results, "-j", 1)
    process = subprocess.Popen([sys.executable, "-m", "offramp", *map(str, arguments)])
    try:
        for _ in range(600):
            if (tmp_path / "begun").exists():
                break
            time.sleep(0.1)
        assert process.poll() is None
    finally:
        process.kill()
        process.wait()
    assert snapshot(results) == {}
    assert all(name.startswith(".partial-") for name in artefacts(store, "scratch"))


# --- networks and times from elsewhere ----------------------------------------------------------


def test_checkpoints_of_the_users_own_give_the_same_records_as_the_training_did(
    trained: Any,
    store: Path,
    scenario: Callable[..., Path],
    simulated: Callable[..., tuple[Pipeline, Path]],
    tmp_path: Path,
) -> None:
    folders = Pipeline(load_scenario(str(trained.scenario)), Store(store)).train()
    checkpoints: dict[str, list[str]] = {"standard": [], "curriculum": []}
    for (strategy, seed), folder in folders.items():
        name = f"{strategy}-{seed}.safetensors"
        shutil.copy(folder / "checkpoint.safetensors", tmp_path / name)
        checkpoints[strategy].append(name)  # relative to the scenario
    shutil.rmtree(store / "trained")
    changes = {"training.checkpoints": checkpoints, "training.steps": 999}
    pipeline = Pipeline(load_scenario(str(scenario(changes))), Store(store))
    pipeline.train()
    assert set(pipeline.reused.values()) == {False}
    _, results = simulated(changes)
    assert (results / "records.parquet").read_bytes() == (
        trained.results / "records.parquet"
    ).read_bytes()
    again = Pipeline(load_scenario(str(scenario(changes))), Store(store))
    again.train()
    assert set(again.reused.values()) == {True}


def test_another_file_under_the_same_name_is_another_checkpoint(
    trained: Any, store: Path, scenario: Callable[..., Path], tmp_path: Path
) -> None:
    folders = Pipeline(load_scenario(str(trained.scenario)), Store(store)).train()
    predicted = []
    for seed in (0, 1):
        path = scenario(
            {
                "training.strategies": ["standard"],
                "training.seeds": [seed],
                "training.checkpoints": {"standard": ["mine.safetensors"]},
            }
        )
        shutil.copy(folders["standard", seed] / "checkpoint.safetensors", "mine.safetensors")
        folder = Pipeline(load_scenario(str(path)), Store(store)).train()["standard", seed]
        predicted.append(read_predictions(folder / "predictions.parquet").confidence)
    assert not np.array_equal(*predicted)


def test_a_node_with_a_profile_of_its_own_needs_none_of_this_host(
    trained: Any,
    store: Path,
    simulated: Callable[..., tuple[Pipeline, Path]],
    tmp_path: Path,
) -> None:
    shutil.copy(trained.results / "profile.parquet", tmp_path / "board.parquet")
    shutil.rmtree(store / "profile")
    pipeline, results = simulated({"nodes.edge.profile": "board.parquet"})
    assert (results / "records.parquet").read_bytes() == (
        trained.results / "records.parquet"
    ).read_bytes()
    assert not (results / "profile.parquet").exists()
    inputs = json.loads((results / "manifest.json").read_text())["inputs"]
    assert inputs["nodes.edge.profile"] == file_hash(tmp_path / "board.parquet")
    # Another profile under the same name is another world.
    slower = read_profile(tmp_path / "board.parquet")
    slower.seconds[1]["exit"][:] *= 3
    from models.artifacts import write_profile

    write_profile(tmp_path / "board.parquet", slower)
    pipeline, results = simulated({"nodes.edge.profile": "board.parquet"})
    assert pipeline.reused["simulation"] is False


def test_service_times_from_a_distribution_need_no_profile(
    store: Path,
    scenario: Callable[..., Path],
    simulated: Callable[..., tuple[Pipeline, Path]],
    fixed_service: Change,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    def never(*arguments: object) -> None:
        raise AssertionError("a profile that nothing needs was measured")

    monkeypatch.setattr("offramp.stages.profiling.run_profiling", never)
    monkeypatch.setattr(Pipeline, "report", lambda self, results: None)
    shutil.rmtree(store / "profile")
    pipeline = Pipeline(load_scenario(str(scenario(fixed_service))), Store(store))
    pipeline.run(tmp_path / "results", jobs=1)
    assert not (tmp_path / "results" / "profile.parquet").exists()
    assert "profile" not in pipeline.reused
    service = records(tmp_path / "results").eval("finished_s - started_s").to_numpy()
    assert np.median(service) == pytest.approx(0.005, rel=0.15)


def test_a_profile_that_results_had_before_does_not_stay(
    simulated: Callable[..., tuple[Pipeline, Path]], fixed_service: Change
) -> None:
    pipeline, results = simulated()
    assert (results / "profile.parquet").exists()
    pipeline, _ = simulated(fixed_service)
    pipeline.simulate(results, jobs=1)
    assert not (results / "profile.parquet").exists()


# --- the records and what is computed from them -------------------------------------------------


def test_records_have_the_columns_that_stand_for_both_worlds(trained: Any) -> None:
    assert pq.read_schema(trained.results / "records.parquet").names == [
        "strategy",
        "training_seed",
        "policy",
        "replication",
        "request",
        "device",
        "group",
        "node",
        "sample",
        "label",
        "created_s",
        "deadline_s",
        "arrived_s",
        "started_s",
        "finished_s",
        "received_s",
        "exit",
        "predicted",
        "confidence",
        "correct",
        "outcome",
    ]


def test_every_arm_meets_the_same_requests(trained: Any) -> None:
    common = [
        "request",
        "device",
        "node",
        "sample",
        "label",
        "created_s",
        "deadline_s",
        "arrived_s",
    ]
    for _, replication in records(trained.results).groupby("replication"):
        arms = [
            arm[common].reset_index(drop=True)
            for _, arm in replication.groupby(
                ["strategy", "training_seed", "policy"], observed=True
            )
        ]
        assert len(arms) == 8
        for arm in arms[1:]:
            pd.testing.assert_frame_equal(arm, arms[0])


def test_predictions_in_the_records_are_those_of_the_network(trained: Any) -> None:
    folders = Pipeline(load_scenario(str(trained.scenario)), Store(trained.store)).train()
    answered = records(trained.results).dropna(subset="exit")
    for (strategy, seed), rows in answered.groupby(["strategy", "training_seed"], observed=True):
        predictions = read_predictions(folders[strategy, seed] / "predictions.parquet")
        position = {sample: at for at, sample in enumerate(predictions.sample.tolist())}
        at = rows["sample"].map(position).to_numpy()
        exit = rows["exit"].to_numpy(dtype=int) - 1
        np.testing.assert_array_equal(rows["predicted"], predictions.predicted[at, exit])
        np.testing.assert_array_equal(rows["label"], predictions.label[at])
        np.testing.assert_array_equal(rows["correct"], rows["predicted"] == rows["label"])


def by_hand(results: Path) -> pd.DataFrame:
    """One row per run, from the records alone."""
    frame = records(results)
    frame["outcome"] = frame["outcome"].astype(str)
    frame["on_time"] = frame["received_s"] - frame["created_s"] <= frame["deadline_s"]
    frame["aud"] = frame["on_time"] & (frame["predicted"] == frame["label"])
    assert ((frame["outcome"] == "on_time") == frame["on_time"]).all()
    arm = ["strategy", "policy", "training_seed", "replication"]
    return frame.groupby(arm, observed=True)[["aud", "on_time"]].mean()


def t_half_width(values: pd.Series) -> float:
    """Of the 95 % interval; scipy's own ``t.interval`` is NaN where all values are the same."""
    n = len(values)
    return float(stats.t.ppf(0.975, n - 1) * np.std(values, ddof=1) / np.sqrt(n))


def test_summary_recomputed_from_the_records_by_hand(trained: Any) -> None:
    summary = pd.read_csv(trained.results / "summary.csv").set_index(["strategy", "policy"])
    assert len(summary) == 4
    for arm, row in summary.iterrows():
        frame = records(trained.results)
        frame = frame[(frame["strategy"] == arm[0]) & (frame["policy"] == arm[1])]
        on_time = frame["outcome"] == "on_time"
        frame = frame.assign(aud=on_time & frame["correct"], on_time=on_time)
        seeds = frame.groupby("training_seed")[["aud", "on_time"]].mean()
        assert row["aud"] == pytest.approx(frame["aud"].mean(), abs=1e-12)
        assert row["hit_ratio"] == pytest.approx(frame["on_time"].mean(), abs=1e-12)
        for metric, column in (("hit_ratio", "on_time"), ("aud", "aud")):
            assert row[f"{metric}_half_width"] == pytest.approx(
                t_half_width(seeds[column]), rel=1e-9, abs=1e-12
            )
        shares = row[["hit_ratio", "late", "dropped", "lost"]]
        assert shares.sum() == pytest.approx(1.0, abs=1e-12)
        assert (row["training_seeds"], row["replications"]) == (2, 2)
        latency = (frame["received_s"] - frame["created_s"]).dropna()
        for percent in (50, 95, 99):
            expected = np.percentile(latency, percent)
            assert row[f"latency_p{percent}_s"] == pytest.approx(expected, rel=1e-12)
        for outcome in ("late", "dropped", "lost"):
            share = (frame["outcome"] == outcome).mean()
            assert row[outcome] == pytest.approx(share, abs=1e-12)


def test_the_printed_table_shows_the_summary(trained: Any) -> None:
    summary = pd.read_csv(trained.results / "summary.csv")
    rows = [
        [cell.strip() for cell in line.strip("│ ").split("│")]
        for line in trained.first_run.out.splitlines()
        if line.startswith("│")
    ]
    assert len(rows) == len(summary)
    for cells, row in zip(rows, summary.itertuples(), strict=True):
        assert cells == [
            row.strategy,
            row.policy,
            f"{100 * row.aud:.1f} ± {100 * row.aud_half_width:.1f} %",
            f"{100 * row.hit_ratio:.1f} %",
            f"{1e3 * row.latency_p50_s:.1f} / {1e3 * row.latency_p95_s:.1f} / "
            f"{1e3 * row.latency_p99_s:.1f}",
        ]


def test_runs_csv_has_one_row_for_each_run_and_agrees_with_the_records(trained: Any) -> None:
    runs = pd.read_csv(trained.results / "runs.csv")
    assert len(runs) == 2 * 2 * 2 * 2
    arm = ["strategy", "policy", "training_seed", "replication"]
    recomputed = by_hand(trained.results)
    runs = runs.set_index(arm).sort_index()
    np.testing.assert_allclose(runs["aud"], recomputed["aud"].reindex(runs.index), atol=1e-12)
    counts = records(trained.results).groupby(arm, observed=True).size()
    np.testing.assert_array_equal(runs["offered"], counts.reindex(runs.index))
    outcomes = runs[["on_time", "late", "dropped", "lost"]].sum(axis=1)
    np.testing.assert_array_equal(outcomes, runs["offered"])


def test_differences_between_strategies_are_paired_over_training_seeds(trained: Any) -> None:
    runs = pd.read_csv(trained.results / "runs.csv")
    differences = pd.read_csv(trained.results / "differences.csv")
    rows = differences[differences["over"] == "training seeds"]
    assert list(rows["given"]) == ["deadline_aware", "fixed_exit(exit=2)"]
    for row in rows.itertuples():
        of_policy = runs[runs["policy"] == row.given]
        of_policy = of_policy.assign(hits=of_policy["aud"] * of_policy["offered"])
        sums = of_policy.groupby(["strategy", "training_seed"])[["hits", "offered"]].sum()
        aud = sums["hits"] / sums["offered"]
        gain = aud[row.of] - aud[row.less]
        assert (row.of, row.less, row.n) == ("curriculum", "standard", 2)
        assert row.aud_difference == pytest.approx(gain.mean(), abs=1e-12)
        if np.ptp(gain) > 1e-9:  # else there is none, unless all are 0
            assert row.half_width == pytest.approx(t_half_width(gain), rel=1e-9, abs=1e-12)


def test_differences_between_policies_are_paired_over_replications(trained: Any) -> None:
    runs = pd.read_csv(trained.results / "runs.csv")
    differences = pd.read_csv(trained.results / "differences.csv")
    rows = differences[differences["over"] == "replications"]
    assert list(rows["given"]) == ["standard", "curriculum"]
    for row in rows.itertuples():
        of_strategy = runs[runs["strategy"] == row.given]
        of_strategy = of_strategy.assign(hits=of_strategy["aud"] * of_strategy["offered"])
        sums = of_strategy.groupby(["policy", "replication"])[["hits", "offered"]].sum()
        shares, beyond = {}, {}
        for policy in (row.of, row.less):
            arm = sums.loc[policy]
            shares[policy] = arm["hits"].sum() / arm["offered"].sum()
            gaps = arm["hits"] - shares[policy] * arm["offered"]
            beyond[policy] = gaps / arm["offered"].mean()
        assert (row.of, row.less, row.n) == ("fixed_exit(exit=2)", "deadline_aware", 2)
        assert row.aud_difference == pytest.approx(shares[row.of] - shares[row.less], abs=1e-12)
        gaps = beyond[row.of] - beyond[row.less]
        if np.ptp(gaps) > 1e-9:
            assert row.half_width == pytest.approx(t_half_width(gaps), rel=1e-9, abs=1e-12)


def test_summary_json_says_the_same_in_strict_json(trained: Any) -> None:
    def never(name: str) -> None:
        raise AssertionError(f"{name} is not JSON")

    content = json.loads((trained.results / "summary.json").read_text(), parse_constant=never)
    summary = pd.read_csv(trained.results / "summary.csv")
    assert content["scenario"] == "tiny"
    assert content["verdict"] in ("VALID", "INVALID")
    pd.testing.assert_frame_equal(pd.DataFrame(content["arms"]), summary)


def test_the_manifest_tells_scenario_seeds_versions_inputs_and_times(trained: Any) -> None:
    manifest = json.loads((trained.results / "manifest.json").read_text())
    loaded = load_scenario(str(trained.scenario))
    assert manifest["scenario"] == json.loads(loaded.scenario.model_dump_json())
    assert manifest["source"] == str(trained.scenario)
    assert manifest["seeds"] == {"simulation": 3, "training": [0, 1]}
    assert {"python", "torch", "numpy", "simpy", "offramp"} <= set(manifest["versions"])
    assert set(manifest["wall_s"]) == {"train", "profile", "simulate"}
    assert all(seconds > 0 for seconds in manifest["wall_s"].values())
    folders = Pipeline(loaded, Store(trained.store)).train()
    assert manifest["inputs"] == {
        **{
            f"predictions of {strategy}, seed {seed}": file_hash(folder / "predictions.parquet")
            for (strategy, seed), folder in folders.items()
        },
        "profile of this host": file_hash(trained.results / "profile.parquet"),
    }
