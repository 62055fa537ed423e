"""What is wrong with data, checkpoints, profiles and folders: one message, nothing half-written."""

import re
import shutil
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

from models.artifacts import read_profile, write_profile
from offramp import Pipeline, load_scenario
from offramp.store import Store

Change = dict[str, Any]

ONE_NETWORK: Change = {
    "training.strategies": ["standard"],
    "training.seeds": 1,
    "training.steps": 2,
}


@pytest.fixture
def untrained(monkeypatch: pytest.MonkeyPatch) -> None:
    """Training must not begin: what is wrong could have been said before."""

    def never(*arguments: object) -> None:
        raise AssertionError("a network was trained before the mistake was reported")

    monkeypatch.setattr("offramp.stages.training.train", never)


def one_message(ran: Any, *fragments: object) -> None:
    assert ran.status == 2
    assert ran.err.startswith("error: ")
    assert "Traceback" not in ran.err
    for fragment in fragments:
        assert str(fragment) in ran.err


# --- data ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("damaged", [False, True], ids=["absent", "truncated"])
def test_without_the_data_and_without_a_network(
    damaged: bool,
    scenario: Callable[..., Path],
    offramp: Callable[..., Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def no_network(*arguments: object, **options: object) -> None:
        raise urllib.error.URLError("no network")

    monkeypatch.setattr(urllib.request, "urlopen", no_network)
    data = tmp_path / "data"
    data.mkdir()
    if damaged:
        (data / "cifar-10-python.tar.gz").write_bytes(b"half")
    monkeypatch.setenv("OFFRAMP_DATA", str(data))
    store, results = tmp_path / "own", tmp_path / "results"
    path = scenario({"data.dataset": "cifar10"})
    ran = offramp("run", path, "--store", store, "-o", results)
    one_message(ran, "'cifar10'", data, "no network", "OFFRAMP_DATA")
    assert not (store / "trained").exists()
    assert not results.exists()


# --- checkpoints --------------------------------------------------------------------------------


@pytest.fixture
def checkpoint(trained: Any, store: Path, tmp_path: Path) -> Path:
    """A copy of the network trained with ``standard``, seed 0."""
    folders = Pipeline(load_scenario(str(trained.scenario)), Store(store)).train()
    source = folders["standard", 0] / "checkpoint.safetensors"
    return Path(shutil.copy(source, tmp_path / "mine.safetensors"))


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def foreign(path: Path) -> None:
    from safetensors.numpy import save_file

    save_file({"weight": np.zeros(3)}, path)


def pickled(path: Path) -> None:
    import torch

    torch.save({"weight": torch.zeros(3)}, path)


def with_origin(path: Path, **changes: object) -> None:
    from models.checkpoint import load_checkpoint, save_checkpoint

    network, origin = load_checkpoint(path)
    save_checkpoint(path, network, replace(origin, **changes))


CHECKPOINTS: dict[str, tuple[Callable[[Path], object], Change, list[str]]] = {
    "truncated": (cut, {}, ["not a readable checkpoint"]),
    "empty": (lambda path: path.write_bytes(b""), {}, ["not a readable checkpoint"]),
    "text": (lambda path: path.write_text("weights " * 99), {}, ["not a readable checkpoint"]),
    "pickle": (pickled, {}, ["not a readable checkpoint"]),
    "another program's": (foreign, {}, ["not an Offramp checkpoint"]),
    "other exits": (
        lambda path: None,
        {"model.exits": ["layer2"]},
        ["another network", "early exits after layer1", "early exits after layer2"],
    ),
    "other backbone": (
        lambda path: None,
        {"model.backbone": "resnet20"},
        ["another network", "resnet8", "resnet20"],
    ),
    "other dataset": (
        lambda path: with_origin(path, dataset="mnist"),
        {},
        ["trained on mnist", "digits"],
    ),
    "other strategy": (
        lambda path: None,
        {
            "training.strategies": ["curriculum"],
            "training.checkpoints": {"curriculum": ["mine.safetensors"]},
        },
        ["strategy 'standard'", "under 'curriculum'"],
    ),
    "other regime": (
        lambda path: None,
        {"training.regime": "layer_wise"},
        ["trained end_to_end", "regime is layer_wise"],
    ),
    "other seed": (
        lambda path: None,
        {"training.seeds": [1]},
        ["trained with seed 0", "as seed 1", "training.seeds"],
    ),
    "other images": (
        lambda path: None,
        {"model.resize": 16},
        ["another network", "resized to 16x16"],
    ),
}


@pytest.mark.parametrize(
    ("spoil", "changes", "fragments"), CHECKPOINTS.values(), ids=CHECKPOINTS.keys()
)
def test_a_checkpoint_that_does_not_fit(
    spoil: Callable[[Path], object],
    changes: Change,
    fragments: list[str],
    checkpoint: Path,
    scenario: Callable[..., Path],
    offramp: Callable[..., Any],
    tmp_path: Path,
) -> None:
    spoil(checkpoint)
    path = scenario(
        {
            **ONE_NETWORK,
            "training.checkpoints": {"standard": ["mine.safetensors"]},
            **changes,
        }
    )
    own, results = tmp_path / "own", tmp_path / "results"
    ran = offramp("run", path, "--store", own, "-o", results)
    one_message(ran, checkpoint, *fragments)
    assert not (own / "trained").exists()
    assert not results.exists()


def test_a_loss_that_is_no_number_any_more(
    scenario: Callable[..., Path], offramp: Callable[..., Any], tmp_path: Path
) -> None:
    path = scenario({**ONE_NETWORK, "training.steps": 5, "training.learning_rate": 1e30})
    ran = offramp("train", path, "--store", tmp_path / "own")
    one_message(ran, "the loss is", "learning rate", "1e+30")
    assert not (tmp_path / "own" / "trained").exists()
    [kept] = re.findall(r"known to be good, is (.+\.safetensors)\n", ran.err)
    assert set((tmp_path / "own").rglob("*.safetensors")) == {Path(kept)}
    assert np.isfinite(np.concatenate([it.ravel() for it in load_file(kept).values()])).all()


# --- profiles -----------------------------------------------------------------------------------


def for_another_network(path: Path) -> None:
    profile = read_profile(path)
    about = {**profile.about, "architecture": "0" * 16, "network": "a network of elsewhere"}
    write_profile(path, replace(profile, about=about))


def without_single_images(path: Path) -> None:
    profile = read_profile(path)
    write_profile(path, replace(profile, seconds={8: profile.seconds[1]}))


def with_a_time_of_zero(path: Path) -> None:
    profile = read_profile(path)
    profile.seconds[1]["exit"][0, 0] = 0
    write_profile(path, profile)


PROFILES: dict[str, tuple[Callable[[Path], object], list[str]]] = {
    "truncated": (cut, ["not a readable profile"]),
    "empty": (lambda path: path.write_bytes(b""), ["not a readable profile"]),
    "text": (lambda path: path.write_text("1 ms"), ["not a readable profile"]),
    "for another network": (
        for_another_network,
        ["another network", "a network of elsewhere", "resnet8, early exits after layer1"],
    ),
    "without batch size 1": (without_single_images, ["batch sizes 8", "but not 1"]),
    "a time of zero": (with_a_time_of_zero, ["positive and finite"]),
}


@pytest.mark.parametrize("command", ["simulate", "run"])
@pytest.mark.parametrize(("spoil", "fragments"), PROFILES.values(), ids=PROFILES.keys())
def test_a_profile_that_does_not_fit(
    command: str,
    spoil: Callable[[Path], object],
    fragments: list[str],
    trained: Any,
    store: Path,
    scenario: Callable[..., Path],
    offramp: Callable[..., Any],
    snapshot: Callable[..., dict[str, str]],
    tmp_path: Path,
) -> None:
    board = Path(shutil.copy(trained.results / "profile.parquet", tmp_path / "board.parquet"))
    spoil(board)
    path = scenario({"nodes.edge.profile": "board.parquet"})
    before = snapshot(store)
    ran = offramp(command, path, "--store", store, "-o", tmp_path / "results")
    one_message(ran, board, *fragments)
    assert snapshot(store, tmp_path / "results") == before


def test_predictions_in_place_of_a_profile(
    checkpoint: Path,
    store: Path,
    scenario: Callable[..., Path],
    offramp: Callable[..., Any],
    tmp_path: Path,
) -> None:
    predictions = next(store.glob("trained/*/predictions.parquet"))
    shutil.copy(predictions, tmp_path / "board.parquet")
    path = scenario({"nodes.edge.profile": "board.parquet"})
    ran = offramp("simulate", path, "--store", store, "-o", tmp_path / "results")
    one_message(ran, tmp_path / "board.parquet", "not a profile file")


@pytest.mark.usefixtures("untrained")
@pytest.mark.parametrize("name", ["truncated", "for another network", "without batch size 1"])
def test_a_profile_that_does_not_fit_is_reported_before_hours_of_training(
    name: str,
    trained: Any,
    scenario: Callable[..., Path],
    offramp: Callable[..., Any],
    tmp_path: Path,
) -> None:
    board = Path(shutil.copy(trained.results / "profile.parquet", tmp_path / "board.parquet"))
    PROFILES[name][0](board)
    path = scenario({**ONE_NETWORK, "nodes.edge.profile": "board.parquet"})
    ran = offramp("run", path, "--store", tmp_path / "own", "-o", tmp_path / "results")
    one_message(ran, board, *PROFILES[name][1])
    assert not (tmp_path / "own").exists()


def test_a_profile_in_the_store_that_was_damaged_is_measured_again_and_not_believed(
    store: Path, scenario: Callable[..., Path], offramp: Callable[..., Any], tmp_path: Path
) -> None:
    path = scenario()
    profile = next(store.glob("profile/*/profile.parquet"))
    cut(profile)
    ran = offramp("simulate", path, "--store", store, "-o", tmp_path / "results")
    one_message(ran, f"offramp profile {path}")
    assert offramp("profile", path, "--store", store).status == 0
    assert read_profile(profile).exit_count == 2


# --- folders ------------------------------------------------------------------------------------


@pytest.mark.usefixtures("untrained")
@pytest.mark.parametrize("command", ["run", "simulate"])
@pytest.mark.parametrize("place", ["taken", "taken/below"])
def test_results_that_cannot_be_written(
    command: str,
    place: str,
    store: Path,
    scenario: Callable[..., Path],
    offramp: Callable[..., Any],
    snapshot: Callable[..., dict[str, str]],
    tmp_path: Path,
) -> None:
    (tmp_path / "taken").write_text("a file")
    before = snapshot(tmp_path)
    path = scenario()
    before[str(path)] = snapshot(tmp_path)[str(path)]
    ran = offramp(command, path, "--store", store, "-o", tmp_path / place)
    one_message(ran, "cannot write results", tmp_path / place)
    assert ran.out == ""
    assert snapshot(tmp_path) == before


@pytest.mark.usefixtures("untrained")
@pytest.mark.parametrize("command", ["run", "train", "profile"])
@pytest.mark.parametrize("place", ["taken", "taken/below"])
def test_a_store_that_cannot_be_written_is_reported_before_any_work(
    command: str,
    place: str,
    scenario: Callable[..., Path],
    offramp: Callable[..., Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def never(*arguments: object) -> None:
        raise AssertionError("the network was profiled before the mistake was reported")

    monkeypatch.setattr("offramp.stages.profiling.measure_profile", never)
    (tmp_path / "taken").write_text("a file")
    ran = offramp(command, scenario(ONE_NETWORK), "--store", tmp_path / place)
    one_message(ran, "cannot write to the artefact store", tmp_path / place)


def test_a_profile_that_cannot_be_copied_where_the_user_wants_it(
    store: Path, scenario: Callable[..., Path], offramp: Callable[..., Any], tmp_path: Path
) -> None:
    (tmp_path / "folder").mkdir()
    ran = offramp("profile", scenario(), "--store", store, "-o", tmp_path / "folder")
    one_message(ran, "cannot write", tmp_path / "folder")
    assert list((tmp_path / "folder").iterdir()) == []


# --- in the wrong order -------------------------------------------------------------------------


def test_simulating_before_training_names_the_command_that_trains(
    scenario: Callable[..., Path], offramp: Callable[..., Any], tmp_path: Path
) -> None:
    path = scenario()
    ran = offramp("simulate", path, "-o", tmp_path / "results")
    one_message(ran, "'standard'", "seed 0", f"`offramp train {path}`")
    assert not (tmp_path / "results").exists()
    assert not (tmp_path / "default-store").exists()


def test_simulating_a_shipped_scenario_before_training_names_it_as_the_user_did(
    offramp: Callable[..., Any],
) -> None:
    one_message(offramp("simulate", "quickstart"), "`offramp train quickstart`")


def test_simulating_before_profiling_names_the_command_that_profiles(
    store: Path, scenario: Callable[..., Path], offramp: Callable[..., Any]
) -> None:
    path = scenario()
    shutil.rmtree(store / "profile")
    one_message(offramp("simulate", path, "--store", store), f"offramp profile {path}")


def test_the_command_that_is_named_has_the_options_that_were_given(
    scenario: Callable[..., Path], offramp: Callable[..., Any], tmp_path: Path
) -> None:
    """Without them it would train other networks, or into another store, and help nobody."""
    own = tmp_path / "own"
    ran = offramp("simulate", scenario(), "--set", "training.steps=4", "--store", own)
    one_message(ran, "offramp train", "--set training.steps=4", f"--store {own}")
