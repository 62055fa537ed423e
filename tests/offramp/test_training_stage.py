"""The training stage: every regime, strategy, score and loss, and what one training shares."""

import json
import os
import resource
import shutil
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

import offramp.stages.scoring as scoring_module
import offramp.stages.training as stage_module
import offramp.stages.training_data as data_module
from models import host
from models.artifacts import Predictions, read_predictions
from models.checkpoint import Origin, load_checkpoint
from models.data.activations import StoredInputs
from models.data.datasets import load_dataset
from models.data.inputs import ImageInputs
from models.errors import DataError, NetworkError, TrainingError
from models.networks.architecture import Architecture
from models.networks.multi_exit import MultiExitNetwork, build_network
from models.training.difficulty import final_exit
from models.training.regimes import REGIMES, Phase
from models.training.strategies import RANKED_STRATEGIES, STRATEGIES, sample_order
from models.training.train import DivergedError, class_probabilities
from models.training.training_state import TrainingState
from offramp.console import Console
from offramp.experiment import Experiment
from offramp.schema import DataSection, ModelSection, TrainingSection
from offramp.stages import keys
from offramp.stages import unfinished as unfinished_module
from offramp.stages.training import TrainingStage, run_training
from offramp.stages.unfinished import UnfinishedTraining
from offramp.store import Store

DIGITS = load_dataset("digits")

#: Images of digits in the official training set, before some are kept for validation.
OFFICIAL = len(DIGITS.train) + len(DIGITS.validation)

FROZEN: dict[str, Any] = {"regime": "classifier_wise", "augment": False, "backbone_steps": 3}


class Notes(Console):
    """A console that keeps its lines."""

    def __init__(self) -> None:
        super().__init__(quiet=True)
        self.lines: list[str] = []

    def note(self, line: str) -> None:
        self.lines.append(line)


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def empty_store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


@pytest.fixture
def console() -> Notes:
    return Notes()


def experiment(
    folder: Path = Path(),
    data: dict[str, Any] | None = None,
    model: dict[str, Any] | None = None,
    **training: Any,
) -> Experiment:
    """A tiny experiment on digits, changed."""
    values = {
        "strategies": ["standard", "curriculum"],
        "seeds": 1,
        "steps": 4,
        "batch_size": 16,
        "evaluations": 1,
        "precision": "fp32",
        "device": "cpu",
        "threads": 1,
        "scoring": {"folds": 2, "steps": 2},
    }
    shape = {"backbone": "resnet8", "exits": ["relu", "layer1"]}
    return Experiment(
        DataSection.model_validate({"dataset": "digits", **(data or {})}),
        ModelSection.model_validate({**shape, **(model or {})}),
        TrainingSection.model_validate({**values, **training}),
        folder,
    )


Trained = dict[tuple[str, int], Path]


def run(made: Experiment, store: Store, console: Console | None = None) -> Trained:
    """Train what is missing; the folders by strategy and seed."""
    found = run_training(made, store, console or Notes())
    return {(strategy, seed): folder for strategy, seed, folder in found}


def network_of(folder: Path) -> MultiExitNetwork:
    network, _ = load_checkpoint(folder / "checkpoint.safetensors")
    return network


def origin_of(folder: Path) -> Origin:
    _, origin = load_checkpoint(folder / "checkpoint.safetensors")
    return origin


def predictions_of(folder: Path) -> Predictions:
    return read_predictions(folder / "predictions.parquet")


def changed(first: nn.Module, second: nn.Module) -> set[str]:
    """Names of the weights and buffers that are not bit-identical."""
    before, after = first.state_dict(), second.state_dict()
    assert before.keys() == after.keys()
    return {name for name in before if not torch.equal(before[name], after[name])}


def artefacts(store: Store, kind: str) -> list[dict[str, Any]]:
    """What each artefact of a kind was made from."""
    files = sorted((store.root / kind).glob("*/artifact.json"))
    return [json.loads(file.read_text())["made_from"] for file in files]


def scores_of(store: Store) -> np.ndarray:
    """The one set of scores in a store."""
    (file,) = (store.root / "scores").glob("*/easiness.npy")
    scores: np.ndarray = np.load(file)
    return scores


def keep_scores(made: Experiment, store: Store, scores: np.ndarray, seed: int = 0) -> None:
    """Put scores into a store as if they had been computed."""
    with store.make("scores", keys.scores_key(made, seed)) as folder:
        np.save(folder / "easiness.npy", scores)


class Spied:
    """The phases that are trained, with the inputs and the batches of each."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.phases: list[Phase] = []
        self.inputs: list[Any] = []
        self.batches: list[list[np.ndarray]] = []
        real = stage_module.train

        def train(network: Any, phase: Phase, batches: Any, inputs: Any, *rest: Any) -> Any:
            batches = list(batches)
            self.phases.append(phase)
            self.inputs.append(inputs)
            self.batches.append(batches)
            return real(network, phase, batches, inputs, *rest)

        monkeypatch.setattr(stage_module, "train", train)


@pytest.fixture
def spied(monkeypatch: pytest.MonkeyPatch) -> Spied:
    return Spied(monkeypatch)


@pytest.fixture
def computed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Of the activations that are computed, how many images', and in which numbers."""
    found: list[str] = []
    real = data_module.compute_activations

    def compute(network: Any, split: Any, info: Any, folder: Any, dtype: Any, *rest: Any) -> None:
        found.append(f"{len(split)} {dtype}")
        real(network, split, info, folder, dtype, *rest)

    monkeypatch.setattr(data_module, "compute_activations", compute)
    return found


# --- regimes and strategies ----------------------------------------------------------------------


@pytest.mark.parametrize("augment", [True, False], ids=["augmented", "plain"])
@pytest.mark.parametrize("regime", REGIMES)
def test_every_strategy_trains_in_every_regime_and_stores_its_predictions(
    regime: str, augment: bool, empty_store: Store
) -> None:
    made = experiment(regime=regime, augment=augment, strategies=list(STRATEGIES))
    folders = run(made, empty_store)
    assert folders.keys() == {(strategy, 0) for strategy in STRATEGIES}
    for (strategy, seed), folder in folders.items():
        origin, predictions = origin_of(folder), predictions_of(folder)
        assert (origin.strategy, origin.seed, origin.regime) == (strategy, seed, regime)
        assert (origin.steps, origin.architecture) == (4, made.architecture)
        assert origin.curve.step[-1] == 4
        assert all(len(row) == 3 for row in origin.curve.validation_accuracy)
        assert np.isfinite(origin.curve.loss).all()
        assert predictions.predicted.shape == (len(DIGITS.test), 3)
        assert np.array_equal(predictions.label, DIGITS.test.labels)
        assert predictions.about["strategy"] == strategy
        assert predictions.about["split"] == "test"
    networks = [network_of(folder) for folder in folders.values()]
    for first, second in pairwise(networks):
        moved = changed(first, second)
        assert moved
        if regime == "classifier_wise":
            assert all(name.startswith("branches.") for name in moved), "one backbone for all"


def test_phases_follow_each_other_in_one_curve(empty_store: Store) -> None:
    made = experiment(regime="mixed", steps=7, evaluations=3, strategies=["standard"])
    (folder,) = run(made, empty_store).values()
    # Three steps of the backbone, evaluated at each; then four, evaluated after 1, 3 and 4.
    assert origin_of(folder).curve.step == [1, 2, 3, 4, 6, 7]


def test_a_second_run_trains_nothing(empty_store: Store, spied: Spied) -> None:
    made = experiment(**FROZEN)
    run(made, empty_store)
    count = len(spied.phases)
    assert count
    assert run(made, empty_store) == {}
    assert len(spied.phases) == count


def test_every_arm_of_a_seed_gets_a_network_of_the_same_first_weights(
    empty_store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    starts = []
    real = stage_module.train

    def train(network: Any, *rest: Any) -> Any:
        starts.append({name: value.clone() for name, value in network.state_dict().items()})
        return real(network, *rest)

    monkeypatch.setattr(stage_module, "train", train)
    run(experiment(strategies=["standard", "random_curriculum"], seeds=[0, 5]), empty_store)
    assert len(starts) == 4
    first, second, third, fourth = starts
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert all(torch.equal(third[name], fourth[name]) for name in first)
    assert not all(torch.equal(first[name], third[name]) for name in first)


@pytest.mark.parametrize("regime", ["layer_wise", "mixed"])
def test_no_phase_draws_the_random_numbers_of_another_purpose(
    regime: str, empty_store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    states = []
    real = stage_module.paced_batches

    def paced(order: Any, pacing: Any, steps: int, size: int, generator: Any) -> Any:
        states.append(generator.bit_generator.state["state"])
        return real(order, pacing, steps, size, generator)

    monkeypatch.setattr(stage_module, "paced_batches", paced)
    run(experiment(regime=regime, strategies=["random_curriculum"], seeds=[5]), empty_store)
    # The folds of a score, and the random order itself.
    others = [np.random.default_rng([5, use]).bit_generator.state["state"] for use in (1, 2)]
    assert all(state not in others for state in states)
    assert all(first != second for first, second in pairwise(states))


def test_a_device_that_is_not_there_is_named(
    empty_store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(TrainingError, match=r"training\.device is cuda"):
        TrainingStage(experiment(device="cuda"), empty_store, Notes())


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("change", [{}, FROZEN], ids=["end_to_end", "stored_activations"])
def test_a_cuda_device_trains_what_a_processor_does(change: dict[str, Any], tmp_path: Path) -> None:
    said = []
    for device in ("cpu", "cuda"):
        made = experiment(**change, device=device)
        folders = run(made, Store(tmp_path / device))
        said.append([predictions_of(folder).confidence for folder in folders.values()])
    np.testing.assert_allclose(said[0], said[1], rtol=0.05)


# --- losses --------------------------------------------------------------------------------------


@pytest.mark.parametrize("regime", ["end_to_end", "classifier_wise", "mixed"])
@pytest.mark.parametrize("loss", ["exit_distillation", "byot"])
def test_self_distillation_trains_in_every_regime_that_has_a_teacher(
    loss: str, regime: str, empty_store: Store
) -> None:
    made = experiment(regime=regime, loss=loss, augment=False, strategies=["standard"])
    plain = experiment(regime=regime, augment=False, strategies=["standard"])
    (with_teacher,) = run(made, empty_store).values()
    (without,) = run(plain, empty_store).values()
    network = network_of(with_teacher)
    assert network.state_dict().keys() == build_network(made.architecture, 0).state_dict().keys()
    if regime == "classifier_wise":
        moved = changed(network, network_of(without))
        assert all(name.startswith("branches.") for name in moved)
        assert len(artefacts(empty_store, "backbone")) == 1, "the backbone learns from labels"
    else:
        assert changed(network, network_of(without))


# --- the activation store ------------------------------------------------------------------------


def test_activations_are_computed_once_for_all_strategies_and_budgets(
    empty_store: Store, computed: list[str], spied: Spied
) -> None:
    run(experiment(strategies=list(STRATEGIES), **FROZEN), empty_store)
    run(experiment(**{**FROZEN, "steps": 6}), empty_store)
    run(experiment(**{**FROZEN, "loss": "exit_distillation"}), empty_store)
    assert set(computed) == {
        f"{len(DIGITS.train)} torch.bfloat16",
        f"{len(DIGITS.validation)} torch.float32",
        f"{len(DIGITS.test)} torch.float32",
    }
    assert len(computed) == 3
    assert len(artefacts(empty_store, "activations")) == 3
    assert len(artefacts(empty_store, "backbone")) == 1
    backbone, *classifiers = zip(spied.phases, spied.inputs, strict=True)
    assert backbone[0].segments == (1, 2, 3)
    assert isinstance(backbone[1], ImageInputs)
    assert len(classifiers) == 8
    for phase, inputs in classifiers:
        assert phase.segments == ()
        assert isinstance(inputs, StoredInputs)


def test_activations_are_hashed_once_in_a_process(
    empty_store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, hashed = Store.find, []

    def find(store: Store, kind: str, made_from: dict[str, Any]) -> Path | None:
        found = real(store, kind, made_from)
        if found:
            hashed.append(kind)
        return found

    monkeypatch.setattr(Store, "find", find)
    for steps in (4, 5, 6):
        run(experiment(**{**FROZEN, "steps": steps}), empty_store)
    assert "backbone" in hashed
    assert hashed.count("activations") == 3, "one for each split"


def test_activations_that_were_removed_are_computed_anew(
    empty_store: Store, computed: list[str]
) -> None:
    run(experiment(**FROZEN), empty_store)
    shutil.rmtree(empty_store.root / "activations")
    run(experiment(**{**FROZEN, "steps": 6}), empty_store)
    assert len(computed) == 6


@pytest.mark.parametrize("precision", ["bf16", "fp32"])
def test_only_training_images_are_computed_in_the_numbers_of_the_training(
    precision: str, empty_store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, asked = data_module.compute_activations, {}

    def compute(network: Any, split: Any, info: Any, folder: Any, dtype: Any, *rest: Any) -> None:
        asked[dtype] = rest[-1]
        real(network, split, info, folder, dtype, *rest)

    monkeypatch.setattr(data_module, "compute_activations", compute)
    run(experiment(**FROZEN, precision=precision), empty_store)
    assert asked == {torch.bfloat16: precision == "bf16", torch.float32: False}


def weights_file(path: Path, classes: int = 10) -> Path:
    """Weights of a backbone that is good for nothing, but whole."""
    shape = Architecture("resnet8", (), "linear", classes, (1, 8, 8))
    save_file(build_network(shape, 77).backbone.state_dict(), path)
    return path


def test_with_weights_from_a_file_all_seeds_share_the_activations(
    empty_store: Store, computed: list[str], tmp_path: Path
) -> None:
    weights_file(tmp_path / "mine.safetensors")
    run(
        experiment(tmp_path, model={"weights": "mine.safetensors"}, **{**FROZEN, "seeds": 3}),
        empty_store,
    )
    assert len(computed) == 3
    assert not artefacts(empty_store, "backbone")


def test_without_them_each_seed_has_a_backbone_and_activations_of_its_own(
    empty_store: Store, computed: list[str]
) -> None:
    run(experiment(**{**FROZEN, "seeds": 2}), empty_store)
    assert len(computed) == 6
    assert sorted(made["seed"] for made in artefacts(empty_store, "backbone")) == [0, 1]


@pytest.mark.parametrize("change", [{"augment": True}, {"regime": "layer_wise"}], ids=str)
def test_images_that_change_or_a_backbone_that_learns_has_no_store(
    change: dict[str, Any], empty_store: Store, spied: Spied
) -> None:
    made = experiment(**{**FROZEN, **change})
    run(made, empty_store)
    assert not artefacts(empty_store, "activations")
    assert all(isinstance(inputs, ImageInputs) for inputs in spied.inputs)
    assert all((inputs.generator is not None) == made.training.augment for inputs in spied.inputs)


def test_over_its_limit_nothing_is_stored_and_that_is_said_once(
    empty_store: Store, console: Notes, spied: Spied, tmp_path: Path
) -> None:
    # 96 numbers of an image: 2 bytes each for training, 4 else. No split is over it by itself.
    training, others = len(DIGITS.train) * 96 * 2, len(DIGITS.test) * 96 * 4
    limit = 0.0003
    assert max(training, others) < limit * 1e9 < training + others
    small = experiment(**FROZEN, activation_store_gb=limit)
    run(small, empty_store, console)
    (line,) = [line for line in console.lines if "activation" in line]
    assert "activations of all images would take" in line
    assert "training.activation_store_gb" in line
    assert not artefacts(empty_store, "activations")
    assert all(isinstance(inputs, ImageInputs) for inputs in spied.inputs)


def test_without_the_store_the_same_is_learned(tmp_path: Path) -> None:
    said = []
    for limit in (0.0, 8.0):
        store = Store(tmp_path / f"store-{limit:g}")
        folders = run(experiment(**FROZEN, activation_store_gb=limit), store)
        said.append([predictions_of(folder).confidence for folder in folders.values()])
        assert bool(artefacts(store, "activations")) == (limit > 0)
    # Training reads bf16 from the store.
    np.testing.assert_allclose(said[0], said[1], rtol=0.02)


@pytest.mark.parametrize("branch", ["linear", "conv"])
def test_predictions_from_the_store_are_those_of_the_checkpoint_on_images(
    branch: str, empty_store: Store
) -> None:
    folders = run(experiment(model={"branch": branch}, **FROZEN), empty_store)
    for folder in folders.values():
        predictions = predictions_of(folder)
        images = ImageInputs(DIGITS.test, DIGITS.info)
        probabilities = class_probabilities(network_of(folder), images)
        assert np.array_equal(predictions.predicted, probabilities.argmax(axis=2))
        np.testing.assert_allclose(
            predictions.confidence, probabilities.max(axis=2), rtol=1e-4, atol=1e-6
        )


def test_the_learning_curve_from_the_store_is_that_of_images(tmp_path: Path) -> None:
    curves = []
    for limit in (0.0, 8.0):
        made = experiment(**FROZEN, activation_store_gb=limit, strategies=["standard"])
        (folder,) = run(made, Store(tmp_path / f"store-{limit:g}")).values()
        curves.append(origin_of(folder).curve)
    assert curves[0].step == curves[1].step
    assert curves[0].loss == pytest.approx(curves[1].loss, rel=0.02)
    # A share or two of the 143 images may fall otherwise.
    np.testing.assert_allclose(
        curves[0].validation_accuracy, curves[1].validation_accuracy, atol=0.03
    )


def test_a_classifier_for_other_classes_is_trained_with_the_exits(
    empty_store: Store, spied: Spied, tmp_path: Path
) -> None:
    weights_file(tmp_path / "mine.safetensors", classes=7)
    scoring = {"function": "self_taught", "steps": 2}
    made = experiment(tmp_path, model={"weights": "mine.safetensors"}, **FROZEN, scoring=scoring)
    folders = run(made, empty_store)
    assert {phase.classifiers for phase in spied.phases} == {(3, 1, 2)}
    start = build_network(made.architecture, 0)
    for folder in folders.values():
        moved = changed(start, network_of(folder))
        assert {"backbone.linear.weight", "backbone.linear.bias"} <= moved


# --- scores --------------------------------------------------------------------------------------


@pytest.mark.parametrize("regime", ["classifier_wise", "layer_wise"])
@pytest.mark.parametrize("function", ["self_taught", "early_checkpoint"])
def test_each_exit_is_shown_the_samples_in_its_own_order(
    function: str, regime: str, empty_store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    orders = []
    real = stage_module.paced_batches

    def paced(order: np.ndarray, *rest: Any) -> Any:
        orders.append(order)
        return real(order, *rest)

    made = experiment(
        regime=regime,
        augment=False,
        strategies=list(RANKED_STRATEGIES),
        scoring={"function": function, "folds": 2, "steps": 2, "per_exit": True},
    )
    stage = TrainingStage(made, empty_store, Notes())
    stage.initial_network(0)
    monkeypatch.setattr(stage_module, "paced_batches", paced)
    run(made, empty_store)
    scores = scores_of(empty_store)
    assert scores.shape == (len(DIGITS.train), 3)
    exits = (0, 1) if regime == "classifier_wise" else (0, 1, 2)
    expected = [
        sample_order(strategy, DIGITS.train.labels, scores[:, exit], 0)
        for strategy in RANKED_STRATEGIES
        for exit in exits
    ]
    assert len(orders) == len(expected)
    assert all(np.array_equal(one, other) for one, other in zip(orders, expected, strict=True))
    assert not np.array_equal(orders[0], orders[1])


@pytest.mark.parametrize("function", ["self_taught", "early_checkpoint"])
def test_on_a_frozen_backbone_the_last_exit_that_learns_ranks_for_all(
    function: str, tmp_path: Path
) -> None:
    found = {}
    for per_exit in (False, True):
        store = Store(tmp_path / f"store-{per_exit}")
        scoring = {"function": function, "folds": 2, "steps": 2, "per_exit": per_exit}
        run(experiment(**FROZEN, strategies=["curriculum"], scoring=scoring), store)
        found[per_exit] = scores_of(store)
    assert found[False].shape == (len(DIGITS.train),)
    assert np.array_equal(found[False], found[True][:, 1])


@pytest.mark.parametrize("regime", ["end_to_end", "layer_wise", "mixed"])
def test_else_the_plain_backbone_ranks(
    regime: str, empty_store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []
    real = scoring_module.self_taught

    def scored(make: Any, phase: Phase, *rest: Any) -> Any:
        asked.append(phase)
        return real(make, phase, *rest)

    monkeypatch.setattr(scoring_module, "self_taught", scored)
    run(experiment(regime=regime, strategies=["curriculum"]), empty_store)
    assert asked == [Phase((3,), (1, 2, 3), (3,), 2)]
    assert scores_of(empty_store).shape == (len(DIGITS.train),)


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"augment": True},
        {"model": {"branch": "conv"}, "loss": "byot"},
        {"exit_weights": [0.5, 2.0, 1.0]},
    ],
    ids=["plain", "augmented", "byot", "weighted"],
)
def test_exits_of_equal_orders_are_trained_one_by_one_as_together(
    change: dict[str, Any], empty_store: Store
) -> None:
    # The arms of an experiment, of which some train exits one by one, must differ in order alone.
    ranking = np.random.default_rng(3).random(len(DIGITS.train))
    networks = []
    for per_exit in (False, True):
        made = experiment(
            **{
                **FROZEN,
                "strategies": ["curriculum"],
                "scoring": {"folds": 2, "steps": 2, "per_exit": per_exit},
                **change,
            }
        )
        scores = np.repeat(ranking[:, None], 3, axis=1) if per_exit else ranking
        keep_scores(made, empty_store, scores)
        (folder,) = run(made, empty_store).values()
        networks.append(network_of(folder))
    assert not changed(*networks)


def test_exits_trained_one_by_one_share_the_curve(empty_store: Store) -> None:
    made = experiment(
        **{**FROZEN, "steps": 6, "evaluations": 3},
        strategies=["standard", "curriculum"],
        scoring={"folds": 2, "steps": 2, "per_exit": True},
    )
    folders = run(made, empty_store)
    network, curve = (read(folders["curriculum", 0]) for read in (network_of, origin_of))
    assert curve.curve.step == [2, 4, 6]
    assert len(curve.curve.loss) == 3
    predicted = class_probabilities(network, ImageInputs(DIGITS.validation, DIGITS.info))
    accuracy = (predicted.argmax(axis=2) == DIGITS.validation.labels[:, None]).mean(axis=0)
    assert curve.curve.validation_accuracy[-1] == pytest.approx(accuracy, abs=0.008)


def test_the_final_exit_ranks_by_the_frozen_backbones_own_classifier(
    empty_store: Store, tmp_path: Path
) -> None:
    weights_file(tmp_path / "mine.safetensors")
    made = experiment(
        tmp_path,
        model={"weights": "mine.safetensors"},
        **{**FROZEN, "seeds": 2, "strategies": ["curriculum"]},
        scoring={"function": "final_exit"},
    )
    run(made, empty_store)
    network, _ = TrainingStage(made, empty_store, Notes()).initial_network(1)
    expected = final_exit(network, ImageInputs(DIGITS.train, DIGITS.info))
    scores = scores_of(empty_store)  # all seeds share them
    np.testing.assert_allclose(scores, expected, rtol=0.1, atol=0.05)


def test_a_classifier_that_was_never_trained_ranks_nothing(
    empty_store: Store, tmp_path: Path
) -> None:
    # Weights for other classes: the last classifier has random weights, its margins mean nothing.
    weights_file(tmp_path / "mine.safetensors", classes=7)
    made = experiment(
        tmp_path,
        model={"weights": "mine.safetensors"},
        **{**FROZEN, "strategies": ["curriculum"]},
        scoring={"function": "final_exit"},
    )
    with pytest.raises((TrainingError, NetworkError), match="final_exit"):
        run(made, empty_store)


def test_scores_by_transfer_are_shared_by_all_seeds(empty_store: Store, tmp_path: Path) -> None:
    weights_file(tmp_path / "other.safetensors")
    made = experiment(
        tmp_path,
        seeds=2,
        strategies=["curriculum"],
        scoring={
            "function": "transfer",
            "backbone": "resnet8",
            "weights": "other.safetensors",
            "folds": 2,
        },
    )
    assert len(run(made, empty_store)) == 2
    scores = scores_of(empty_store)
    assert scores.shape == (len(DIGITS.train),)
    # Even random features tell digits apart by far more than chance.
    assert (scores > 0).mean() > 0.5


def published(tmp_path: Path, count: int = OFFICIAL) -> dict[str, Any]:
    """Scoring by a file of ``count`` scores."""
    np.save(tmp_path / "c_scores.npy", np.random.default_rng(0).random(count))
    return {"function": "c_score", "file": "c_scores.npy"}


def test_published_scores_stand_at_the_samples_that_are_trained_on(
    empty_store: Store, tmp_path: Path
) -> None:
    made = experiment(tmp_path, scoring=published(tmp_path), strategies=["curriculum"], seeds=2)
    run(made, empty_store)
    expected = np.load(tmp_path / "c_scores.npy")[DIGITS.train.index]
    assert np.array_equal(scores_of(empty_store), expected)


@pytest.mark.parametrize("count", [OFFICIAL - 1, OFFICIAL + 1, len(DIGITS.train)])
def test_published_scores_of_another_number_of_images_are_refused(
    count: int, empty_store: Store, tmp_path: Path
) -> None:
    made = experiment(tmp_path, scoring=published(tmp_path, count), strategies=["curriculum"])
    with pytest.raises(DataError, match=f"holds {count} values, but {OFFICIAL} "):
        run(made, empty_store)
    assert not artefacts(empty_store, "scores")
    assert not artefacts(empty_store, "trained")


def test_samples_are_scored_without_augmentation(empty_store: Store) -> None:
    for augment in (True, False):
        made = experiment(augment=augment)
        stage = TrainingStage(made, empty_store, Notes())
        network, _ = stage.initial_network(0)
        plain = stage.plain(0, network)
        assert isinstance(plain, ImageInputs)
        assert plain.generator is None
        trained_on = stage.inputs("train", 0, network)
        assert isinstance(trained_on, ImageInputs)
        assert (trained_on.generator is not None) == augment
        validation = stage.inputs("validation", 0, network)
        assert isinstance(validation, ImageInputs)
        assert validation.generator is None


# --- label noise ---------------------------------------------------------------------------------


@pytest.mark.parametrize("per_cent", [1, 20, 62.5, 100])
def test_exactly_the_asked_share_of_training_labels_is_wrong_and_no_other(
    per_cent: float, empty_store: Store
) -> None:
    made = experiment(data={"label_noise": {"symmetric_percent": per_cent}})
    data = TrainingStage(made, empty_store, Notes()).data
    wrong = data.train.labels != DIGITS.train.labels
    assert wrong.sum() == round(per_cent / 100 * len(DIGITS.train))
    assert set(data.train.labels) == set(range(10))
    assert np.array_equal(data.train.images, DIGITS.train.images)
    for noisy, clean in ((data.validation, DIGITS.validation), (data.test, DIGITS.test)):
        assert np.array_equal(noisy.labels, clean.labels)


def test_arms_and_seeds_share_the_wrong_labels_and_see_them_whatever_they_train_on(
    empty_store: Store,
) -> None:
    found = []
    for change in ({}, {**FROZEN, "seeds": [9]}, {"strategies": ["anti_curriculum"]}):
        made = experiment(data={"label_noise": {"symmetric_percent": 30}}, **change)
        stage = TrainingStage(made, empty_store, Notes())
        network, _ = stage.initial_network(0)
        inputs = [stage.inputs("train", 0, network), stage.plain(0, network)]
        found += [one.labels.numpy() for one in inputs]
    assert isinstance(inputs[0], ImageInputs)
    assert all(np.array_equal(found[0], other) for other in found[1:])
    assert not np.array_equal(found[0], DIGITS.train.labels)


def test_labels_from_a_file_stand_at_the_samples_that_are_trained_on(
    empty_store: Store, tmp_path: Path
) -> None:
    labels = np.random.default_rng(0).integers(0, 10, OFFICIAL)
    np.savez(tmp_path / "human.npz", worst=labels, other=labels[::-1])
    made = experiment(
        tmp_path,
        data={"label_noise": {"file": "human.npz", "key": "worst"}},
        strategies=["standard"],
    )
    data = TrainingStage(made, empty_store, Notes()).data
    assert np.array_equal(data.train.labels, labels[DIGITS.train.index])
    assert np.array_equal(data.validation.labels, DIGITS.validation.labels)
    (folder,) = run(made, empty_store).values()
    assert np.array_equal(predictions_of(folder).label, DIGITS.test.labels)


# --- keys ----------------------------------------------------------------------------------------


#: A change of each key of an experiment, and whether a trained network depends on it.
CHANGES: dict[str, tuple[Any, bool]] = {
    "data.validation_fraction": (0.2, True),
    "data.mean": ([0.5], True),
    "data.std": ([0.5], True),
    "data.label_noise": ({"symmetric_percent": 10}, True),
    "model.backbone": ("resnet20", True),
    "model.exits": (["layer2"], True),
    "model.branch": ("mlp", True),
    "model.weights": ("mine.safetensors", True),
    "model.resize": (16, True),
    "training.regime": ("mixed", True),
    "training.loss": ("byot", True),
    "training.gradient_equilibrium": (True, True),
    "training.steps": (5, True),
    "training.batch_size": (17, True),
    "training.learning_rate": (0.2, True),
    "training.momentum": (0.8, True),
    "training.weight_decay": (0.0, True),
    "training.warm_up_fraction": (0.2, True),
    "training.exit_weights": ([1, 2, 3], True),
    "training.augment": (False, True),
    "training.precision": ("bf16", True),
    "training.evaluations": (2, True),
    "training.pacing": ({"full_at": 0.4}, True),
    "training.scoring": ({"folds": 3}, True),
    # Which arms and seeds an experiment has is no property of one of them.
    "training.strategies": (["standard"], False),
    "training.seeds": (7, False),
    # How and where it is computed.
    "training.device": ("auto", False),
    "training.threads": (2, False),
    "training.activation_store_gb": (1.0, False),
    # Only of a frozen backbone.
    "training.backbone_steps": (9, False),
    # These are used instead of training, and have keys of their own.
    "training.checkpoints": ({}, False),
}


def with_change(tmp_path: Path, name: str, value: Any) -> Experiment:
    section, key = name.split(".")
    if section == "training":
        return experiment(tmp_path, **{key: value})
    return experiment(tmp_path, **{section: {key: value}})


def test_every_key_of_an_experiment_is_known_to_change_its_trainings_or_not() -> None:
    sections = {"data": DataSection, "model": ModelSection, "training": TrainingSection}
    every = {f"{name}.{key}" for name, section in sections.items() for key in section.model_fields}
    assert every - {"data.dataset"} == CHANGES.keys()


@pytest.mark.parametrize("name", CHANGES)
def test_a_trained_network_depends_on_what_makes_it_and_on_nothing_else(
    name: str, tmp_path: Path
) -> None:
    weights_file(tmp_path / "mine.safetensors")
    value, matters = CHANGES[name]
    before, after = experiment(tmp_path), with_change(tmp_path, name, value)
    first, second = (keys.trained_key(made, "curriculum", 0) for made in (before, after))
    assert (first != second) == matters


@pytest.fixture
def on_cuda(monkeypatch: pytest.MonkeyPatch) -> Callable[[bool], None]:
    """Lets this host have a CUDA device, or none, as far as keys know."""
    return lambda there: monkeypatch.setattr(host, "has_cuda", lambda: there)


def test_keys_know_the_device_that_auto_stands_for(on_cuda: Callable[[bool], None]) -> None:
    found = {}
    for there in (False, True):
        on_cuda(there)
        for device in ("auto", "cpu", "cuda"):
            made = experiment(**FROZEN, device=device)
            found[there, device] = [
                keys.trained_key(made, "standard", 0),
                keys.activations_key(made, 0, "test", "float32"),
                keys.scores_key(made, 0),
                keys.named_checkpoint_key(made, "standard", 0, ""),
            ]
    on_processor, on_device = found[False, "cpu"], found[True, "cuda"]
    assert found[False, "auto"] == found[True, "cpu"] == on_processor
    assert found[True, "auto"] == found[False, "cuda"] == on_device
    for first, second in zip(on_processor, on_device, strict=True):
        assert "device" not in json.dumps(first), "keys from before the device was in them"
        assert first != second


@pytest.mark.parametrize("fast", [True, False])
def test_keys_know_in_which_numbers_the_device_computes(
    fast: bool, on_cuda: Callable[[bool], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(host, "has_fast_bf16", lambda: fast)
    for there, precision in ((True, "bf16"), (False, "bf16" if fast else "fp32")):
        on_cuda(there)
        made = experiment(device="auto", precision="auto")
        assert keys.trained_key(made, "standard", 0)["settings"]["precision"] == precision


@pytest.mark.parametrize(
    ("backbone", "counts"),
    [("resnet8", False), ("cifar_resnet18", True), ("squeezenet1_1", True)],
)
def test_torchvisions_version_counts_where_it_builds_the_network(
    backbone: str, counts: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    weights_file(tmp_path / "other.safetensors")
    scoring = {"function": "transfer", "backbone": backbone, "weights": "other.safetensors"}
    found = []
    for version in ("0.29.0", "0.30.0"):
        monkeypatch.setattr(
            keys.metadata,
            "version",
            lambda name, version=version: {"torchvision": version}.get(name, "1"),
        )
        made = experiment(tmp_path, model={"backbone": backbone, "exits": None})
        found.append(
            [
                keys.trained_key(made, "standard", 0),
                keys.scores_key(experiment(tmp_path, scoring=scoring), 0),
            ]
        )
    for first, second in zip(*found, strict=True):
        assert (first != second) == counts


def test_activations_for_training_count_by_the_numbers_they_were_computed_in() -> None:
    def key(precision: str, split: str, dtype: str, **changes: Any) -> dict[str, Any]:
        made = experiment(**{**FROZEN, "precision": precision, **changes}, model={"weights": None})
        return keys.activations_key(made, 0, split, dtype) | {"backbone": None}

    assert key("bf16", "train", "bfloat16") != key("fp32", "train", "bfloat16")
    assert key("bf16", "test", "float32") == key("fp32", "test", "float32")
    assert "computed_in" not in key("fp32", "train", "bfloat16"), "keys from before it was in them"


def test_each_strategy_depends_only_on_what_it_uses() -> None:
    plain = experiment()
    paced = experiment(pacing={"function": "linear"})
    scored = experiment(scoring={"folds": 3})
    for strategy, by_pacing, by_score in (
        ("standard", False, False),
        ("random_curriculum", True, False),
        ("curriculum", True, True),
        ("anti_curriculum", True, True),
    ):
        key = keys.trained_key(plain, strategy, 0)
        assert (key != keys.trained_key(paced, strategy, 0)) == by_pacing
        assert (key != keys.trained_key(scored, strategy, 0)) == by_score
        assert key != keys.trained_key(plain, strategy, 1)
    assert len({json.dumps(keys.trained_key(plain, one, 0)) for one in STRATEGIES}) == 4


def test_files_count_by_their_content_not_by_their_name(tmp_path: Path) -> None:
    for number, name in enumerate(("a", "b", "c")):
        np.save(tmp_path / f"{name}.npy", np.full(OFFICIAL, number // 2, dtype=float))
    a, b, c = (
        keys.trained_key(
            experiment(tmp_path, scoring={"function": "c_score", "file": f"{name}.npy"}),
            "curriculum",
            0,
        )
        for name in ("a", "b", "c")
    )
    assert a == b != c
    a, b, c = (
        keys.trained_key(
            experiment(tmp_path, data={"label_noise": {"file": f"{name}.npy"}}), "standard", 0
        )
        for name in ("a", "b", "c")
    )
    assert a == b != c


def test_a_scoring_network_of_ones_own_counts_by_its_code(tmp_path: Path) -> None:
    weights_file(tmp_path / "other.safetensors")
    scoring = {"function": "transfer", "backbone": "mine.py:Net", "weights": "other.safetensors"}
    found = []
    for code in ("class Net: pass", "class Net: pass  # another"):
        (tmp_path / "mine.py").write_text(code)
        found.append(keys.scores_key(experiment(tmp_path, scoring=scoring), 0))
    assert found[0] != found[1]


#: What may change while the scores of a network of the same kind stay what they were.
SCORES_STAY: dict[str, dict[str, Any]] = {
    "steps": {"steps": 9},
    "loss": {"loss": "exit_distillation"},
    "exit_weights": {"exit_weights": [3, 1, 2]},
    "evaluations": {"evaluations": 2},
    "pacing": {"pacing": {"full_at": 0.3}},
    "gradient_equilibrium": {"gradient_equilibrium": True},
}


@pytest.mark.parametrize("change", SCORES_STAY.values(), ids=SCORES_STAY)
def test_what_shares_scores_would_have_got_the_same(change: dict[str, Any], tmp_path: Path) -> None:
    scores, made_from = [], []
    for number, made in enumerate((experiment(), experiment(**change))):
        stage = TrainingStage(made, Store(tmp_path / str(number)), Notes())
        network, whole = stage.initial_network(0)
        scores.append(stage.easiness(0, network, whole))
        made_from.append(keys.scores_key(made, 0))
    assert (made_from[0] == made_from[1]) == np.array_equal(*scores)


@pytest.mark.parametrize("change", [{"steps": 9}, {"loss": "byot"}, {"exit_weights": [3, 1, 2]}])
@pytest.mark.parametrize("function", ["self_taught", "early_checkpoint", "final_exit"])
def test_scores_on_a_frozen_backbone_are_shared_by_budgets_and_losses(
    function: str, change: dict[str, Any]
) -> None:
    scoring = {"function": function, "folds": 2, "steps": 2}
    first = experiment(**FROZEN, scoring=scoring)
    second = experiment(**{**FROZEN, **change}, scoring=scoring)
    assert keys.scores_key(first, 0) == keys.scores_key(second, 0)
    assert keys.backbone_key(first, 0) == keys.backbone_key(second, 0)
    assert keys.trained_key(first, "curriculum", 0) != keys.trained_key(second, "curriculum", 0)
    assert keys.scores_key(first, 0) != keys.scores_key(first, 1)


@pytest.mark.parametrize("function", ["self_taught", "early_checkpoint", "final_exit"])
def test_scores_depend_on_the_labels_the_backbone_and_the_scoring(
    function: str, tmp_path: Path
) -> None:
    weights_file(tmp_path / "mine.safetensors")
    scoring = {"function": function, "folds": 2, "steps": 2}
    common = {**FROZEN, "scoring": scoring}
    made = [
        experiment(tmp_path, **common),
        experiment(tmp_path, **{**common, "backbone_steps": 9}),
        experiment(tmp_path, **common, data={"label_noise": {"symmetric_percent": 5}}),
        experiment(tmp_path, **common, model={"weights": "mine.safetensors"}),
    ]
    longer = experiment(tmp_path, **{**common, "scoring": {**scoring, "steps": 3}})
    if function == "final_exit":  # takes no steps
        assert keys.scores_key(longer, 0) == keys.scores_key(made[0], 0)
    else:
        made.append(longer)
    found = {json.dumps(keys.scores_key(one, 0), sort_keys=True) for one in made}
    assert len(found) == len(made)


def test_activations_depend_on_images_and_backbone_and_not_on_labels(tmp_path: Path) -> None:
    weights_file(tmp_path / "mine.safetensors")
    given = {"model": {"weights": "mine.safetensors"}}

    def key(*arguments: Any, **changes: Any) -> dict[str, Any]:
        made = experiment(tmp_path, **{**FROZEN, **given, **changes})
        return keys.activations_key(made, *(arguments or (0, "train", "bfloat16")))

    same = [
        key(1, "train", "bfloat16"),
        key(data={"label_noise": {"symmetric_percent": 5}}),
        key(steps=9),
        key(learning_rate=0.5),
    ]
    assert all(other == key() for other in same)
    others = [
        key(0, "test", "bfloat16"),
        key(0, "train", "float32"),
        key(data={"mean": [0.1]}),
        key(data={"validation_fraction": 0.2}),
        key(model={**given["model"], "resize": 16}),
        key(model={**given["model"], "branch": "conv"}),
        key(model={}),
    ]
    assert all(other != key() for other in others)


# --- divergence ----------------------------------------------------------------------------------


def test_a_diverging_training_leaves_a_checkpoint_of_the_last_good_state(
    empty_store: Store,
) -> None:
    made = experiment(learning_rate=1e25, warm_up_fraction=0.0, strategies=["standard"])
    with pytest.raises(DivergedError, match="lower the learning rate") as caught:
        run(made, empty_store)
    (folder,) = (empty_store.root / "diverged").iterdir()
    assert str(folder / "checkpoint.safetensors") in str(caught.value)
    assert "the network after step 0, the last known to be good" in str(caught.value)
    assert not changed(network_of(folder), build_network(made.architecture, 0))
    origin = origin_of(folder)
    assert (origin.strategy, origin.seed, origin.steps) == ("standard", 0, 0)
    assert not artefacts(empty_store, "trained")
    with pytest.raises(DivergedError):
        run(made, empty_store)
    assert len(list((empty_store.root / "diverged").iterdir())) == 1


def test_so_does_a_backbone_that_diverges_before_its_exits_are_trained(empty_store: Store) -> None:
    made = experiment(**FROZEN, learning_rate=1e25, warm_up_fraction=0.0)
    with pytest.raises(DivergedError, match="lower the learning rate") as caught:
        run(made, empty_store)
    (folder,) = (empty_store.root / "diverged").iterdir()
    assert str(folder / "checkpoint.safetensors") in str(caught.value)
    assert not changed(network_of(folder), build_network(made.architecture, 0))
    assert not artefacts(empty_store, "backbone")


@pytest.mark.parametrize(("regime", "before"), [("mixed", 2), ("layer_wise", 1)])
def test_steps_of_earlier_phases_count_when_a_later_one_diverges(
    regime: str, before: int, empty_store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, phases_seen = stage_module.train, []

    def train(network: Any, phase: Phase, *rest: Any) -> Any:
        phases_seen.append(phase)
        if len(phases_seen) == 2:
            raise DivergedError("the loss is nan at step 2 of 2", 1)
        return real(network, phase, *rest)

    monkeypatch.setattr(stage_module, "train", train)
    made = experiment(regime=regime, strategies=["standard"])
    with pytest.raises(DivergedError, match=f"after step {before + 1}, the last known") as caught:
        run(made, empty_store)
    assert caught.value.good_step == before + 1
    (folder,) = (empty_store.root / "diverged").iterdir()
    assert origin_of(folder).steps == before + 1


def test_on_the_command_line_a_diverging_training_ends_with_one_message(
    scenario: Callable[..., Path], offramp: Callable[..., Any], tmp_path: Path
) -> None:
    path = scenario(
        {
            "training.learning_rate": 1.0e25,
            "training.warm_up_fraction": 0.0,
            "training.strategies": ["standard"],
        }
    )
    ran = offramp("train", path, "--store", tmp_path / "store")
    assert ran.status == 2
    assert ran.err.startswith("error: the loss is nan at step ")
    assert "lower the learning rate" in ran.err
    (file,) = (tmp_path / "store" / "diverged").glob("*/checkpoint.safetensors")
    assert str(file) in ran.err


# --- trainings that are stopped ------------------------------------------------------------------


class StoppedError(Exception):
    """A training was stopped."""


def stop_after(monkeypatch: pytest.MonkeyPatch, kept: int) -> list[int]:
    """Keep a state after each step, stop once there are so many, and tell the steps."""
    real, seen = UnfinishedTraining.keep, list[int]()

    def keep(self: UnfinishedTraining, state: TrainingState) -> None:
        real(self, state)
        seen.append(state.step)
        if len(seen) == kept:
            raise StoppedError

    monkeypatch.setattr(unfinished_module, "KEEP_EVERY_S", 0.0)
    monkeypatch.setattr(UnfinishedTraining, "keep", keep)
    return seen


@pytest.mark.parametrize(
    ("training", "model"),
    [
        ({"regime": "end_to_end"}, {}),
        ({"regime": "end_to_end", "loss": "byot", "gradient_equilibrium": True}, {}),
        ({"regime": "layer_wise"}, {}),
        ({"regime": "mixed"}, {}),
        (FROZEN, {}),
        ({**FROZEN, "scoring": {"folds": 2, "steps": 2, "per_exit": True}}, {}),
        ({"momentum": 0.0}, {}),
        ({}, {"backbone": "mobilenet_v2", "exits": ["features.3"]}),  # which has dropout
    ],
    ids=[
        "end_to_end",
        "byot",
        "layer_wise",
        "mixed",
        "classifier_wise",
        "per_exit",
        "no momentum",
        "dropout",
    ],
)
def test_a_training_that_is_stopped_goes_on_and_ends_as_if_it_had_not_been(
    training: dict[str, Any],
    model: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    values = {"strategies": ["curriculum"], "steps": 6, "evaluations": 2, "augment": True}
    made = experiment(model=model, **{**values, **training})
    whole = Store(tmp_path / "whole")
    at_once = run(made, whole)["curriculum", 0]
    for kept in (1, 3, 5):
        store = Store(tmp_path / f"stopped after {kept}")
        with monkeypatch.context() as patch:
            stop_after(patch, kept)
            with pytest.raises(StoppedError):
                run(made, store)
        (state,) = (store.root / "unfinished").iterdir()
        notes = Notes()
        with monkeypatch.context() as patch:
            # It is stopped a second time.
            stop_after(patch, 1)
            with pytest.raises(StoppedError):
                run(made, store, notes)
        assert [line for line in notes.lines if "was stopped" in line and str(state) in line]
        resumed = run(made, store)["curriculum", 0]
        assert not changed(network_of(at_once), network_of(resumed))
        assert origin_of(at_once) == origin_of(resumed)
        assert not list((store.root / "unfinished").iterdir())


def test_a_state_that_cannot_be_read_is_none(
    empty_store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = experiment(strategies=["standard"])
    with monkeypatch.context() as patch:
        stop_after(patch, 2)
        with pytest.raises(StoppedError):
            run(made, empty_store)
    (state,) = (empty_store.root / "unfinished").iterdir()
    whole = state.read_bytes()
    at_once = run(made, Store(tmp_path / "whole"))["standard", 0]
    for damaged in (b"", whole[: len(whole) // 2], b"something else"):
        state.write_bytes(damaged)
        with monkeypatch.context() as patch:
            steps = stop_after(patch, 1)
            with pytest.raises(StoppedError):
                run(made, empty_store)
        assert steps == [1]
    assert not changed(network_of(at_once), network_of(run(made, empty_store)["standard", 0]))


def test_a_state_that_cannot_be_kept_stops_no_training(
    empty_store: Store, console: Notes, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = unfinished_module.write_state

    def write_state(*arguments: Any) -> None:
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
        try:
            real(*arguments)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)

    monkeypatch.setattr(unfinished_module, "KEEP_EVERY_S", 0.0)
    monkeypatch.setattr(unfinished_module, "write_state", write_state)
    assert run(experiment(strategies=["standard"]), empty_store, console)
    assert any("is not kept" in line and "File too large" in line for line in console.lines)
    assert not list((empty_store.root / "unfinished").iterdir())


def test_states_that_nobody_goes_on_with_are_removed(
    empty_store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = empty_store.root / "unfinished"
    folder.mkdir(parents=True)
    (old := folder / ".half-written.partial").write_bytes(b"")
    (young := folder / "other.safetensors").write_bytes(b"")
    os.utime(old, (0, 0))
    monkeypatch.setattr(unfinished_module, "KEEP_EVERY_S", 0.0)
    run(experiment(strategies=["standard"]), empty_store)
    assert list(folder.iterdir()) == [young]


def test_a_training_that_diverges_does_not_go_on_from_there(
    empty_store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(unfinished_module, "KEEP_EVERY_S", 0.0)
    made = experiment(
        learning_rate=1e4, warm_up_fraction=0.0, steps=30, evaluations=30, strategies=["standard"]
    )
    with pytest.raises(DivergedError, match="lower the learning rate"):
        run(made, empty_store)
    assert not list((empty_store.root / "unfinished").iterdir())
