"""Checks across the keys that train and measure networks."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise
from pathlib import Path

from models.data.datasets import DATASETS
from models.errors import did_you_mean
from models.importing import is_import_path
from models.networks.architecture import (
    BACKBONES,
    IMAGENET,
    MSDNET_LAYERS,
    RESNET_BLOCKS,
    SMALL_IMAGE_BACKBONES,
    TORCHVISION_BACKBONES,
)
from models.training.strategies import PER_EXIT_SCORING
from offramp.checks.common import check_file
from offramp.experiment import architecture_of
from offramp.schema import DataSection, FlopsShares, ModelSection, ProfileSection, TrainingSection
from offramp.yaml_lines import Location


def check_experiment(
    data: DataSection, model: ModelSection, training: TrainingSection, folder: Path
) -> list[tuple[Location, str]]:
    """What is wrong with the part of a scenario, or of a study, that trains networks."""
    exit_count = architecture_of(model, DATASETS[data.dataset], folder).exit_count
    return [
        *_check_data(data, folder),
        *_check_model(model, folder),
        *_check_training(training, exit_count, folder),
        *_check_scoring(training, folder),
    ]


def _check_data(data: DataSection, folder: Path) -> Iterable[tuple[Location, str]]:
    channels = DATASETS[data.dataset].input_shape[0]
    for key, values in (("mean", data.mean), ("std", data.std)):
        if values is not None and len(values) != channels:
            yield (
                ("data", key),
                f"{len(values)} values are given for {channels} channel(s) of {data.dataset}",
            )
    noise = data.label_noise
    if noise:
        if noise.symmetric_percent is None and noise.file is None:
            yield ("data", "label_noise"), "give symmetric_percent or a file"
        if noise.symmetric_percent is not None and noise.file is not None:
            yield ("data", "label_noise", "file"), "give symmetric_percent or a file, not both"
        yield from check_file(("data", "label_noise", "file"), noise.file, folder)


def _check_model(model: ModelSection, folder: Path) -> Iterable[tuple[Location, str]]:
    yield from _check_backbone(("model", "backbone"), model.backbone)
    if isinstance(model.exits, FlopsShares):
        place: Location = ("model", "exits", "at_flops")
        for index, (share, next_share) in enumerate(pairwise(model.exits.at_flops), start=1):
            if share >= next_share:
                yield (*place, index), "shares of the FLOPs are named in ascending order, each once"
    else:
        for index, exit in enumerate(model.exits or []):
            if exit in (model.exits or [])[:index]:
                yield ("model", "exits", index), f"node {exit!r} is named twice"
    yield from _check_weights(("model", "weights"), model.weights, model.backbone, folder)


def _check_backbone(place: Location, name: str) -> Iterable[tuple[Location, str]]:
    if name not in BACKBONES and not is_import_path(name):
        yield (
            place,
            f"no backbone is called {name!r}{did_you_mean(name, BACKBONES)} (allowed: "
            f"{', '.join((*RESNET_BLOCKS, *MSDNET_LAYERS, *SMALL_IMAGE_BACKBONES))}, any "
            "torchvision classification network, or an import path such as my_networks.py:MyNet)",
        )


def _check_weights(
    place: Location, weights: str | None, backbone: str | None, folder: Path
) -> Iterable[tuple[Location, str]]:
    if weights != IMAGENET:
        yield from check_file(place, weights, folder)
    elif backbone not in TORCHVISION_BACKBONES:
        yield place, f"torchvision has no ImageNet weights for {backbone!r}; name a file"


def _check_scoring(training: TrainingSection, folder: Path) -> Iterable[tuple[Location, str]]:
    scoring = training.scoring
    place: Location = ("training", "scoring")
    needed = {"transfer": ("backbone", "weights"), "c_score": ("file",)}.get(scoring.function, ())
    for key in needed:
        if getattr(scoring, key) is None:
            yield (*place, key), f"{scoring.function} needs this key"
    for key, function in (
        ("backbone", "transfer"),
        ("weights", "transfer"),
        ("resize", "transfer"),
        ("file", "c_score"),
        ("key", "c_score"),
    ):
        if getattr(scoring, key) is not None and scoring.function != function:
            yield (*place, key), f"belongs to function {function}, not {scoring.function}"
    if scoring.backbone is not None:
        yield from _check_backbone((*place, "backbone"), scoring.backbone)
    yield from _check_weights((*place, "weights"), scoring.weights, scoring.backbone, folder)
    yield from check_file((*place, "file"), scoring.file, folder)
    if scoring.function == "final_exit" and training.regime != "classifier_wise":
        yield (
            (*place, "function"),
            "final_exit ranks by a backbone that is trained already: regime classifier_wise",
        )
    if scoring.per_exit and training.regime not in ("classifier_wise", "layer_wise"):
        yield (
            (*place, "per_exit"),
            f"regime {training.regime} shows all exits the same batches; a ranking for each needs "
            "classifier_wise or layer_wise",
        )
    if scoring.per_exit and scoring.function not in PER_EXIT_SCORING:
        yield (
            (*place, "per_exit"),
            f"{scoring.function} sees no early exit; use {' or '.join(PER_EXIT_SCORING)}",
        )
    pacing = training.pacing
    if pacing.function == "varied_exponential" and not pacing.increases_at:
        yield ("training", "pacing", "increases_at"), "varied_exponential needs this key"
    if pacing.function != "varied_exponential" and pacing.increases_at:
        yield (
            ("training", "pacing", "increases_at"),
            f"belongs to varied_exponential, not {pacing.function}",
        )
    if any(earlier >= later for earlier, later in pairwise(pacing.increases_at)):
        yield ("training", "pacing", "increases_at"), "must be strictly increasing"


def _check_training(
    training: TrainingSection, exit_count: int, folder: Path
) -> Iterable[tuple[Location, str]]:
    if training.exit_weights and len(training.exit_weights) != exit_count:
        yield (
            ("training", "exit_weights"),
            f"{len(training.exit_weights)} weights are given for {exit_count} exits "
            "(the backbone's own classifier is the last)",
        )
    if training.exit_weights and not any(training.exit_weights):
        yield ("training", "exit_weights"), "at least one weight must be above 0"
    if training.regime == "classifier_wise" and exit_count == 1:
        yield (
            ("training", "regime"),
            "classifier_wise trains early exits, but model.exits names none",
        )
    if training.exit_weights and training.regime == "layer_wise":
        yield (
            ("training", "exit_weights"),
            "layer_wise trains one exit at a time: there is nothing to weigh",
        )
    if training.regime == "layer_wise" and training.loss != "cross_entropy":
        yield (
            ("training", "loss"),
            "layer_wise trains the last exit last: it cannot teach the others",
        )
    if training.gradient_equilibrium and training.regime not in ("end_to_end", "mixed"):
        yield (
            ("training", "gradient_equilibrium"),
            f"{training.regime} trains no exits jointly through a common trunk",
        )
    if training.steps < exit_count and training.regime == "layer_wise":
        yield ("training", "steps"), f"layer_wise shares them among {exit_count} exits"
    if training.steps < 2 and training.regime == "mixed":
        yield ("training", "steps"), "mixed shares them among two phases"
    if training.evaluations > training.steps:
        yield (
            ("training", "evaluations"),
            f"{training.evaluations} evaluations do not fit into {training.steps} steps",
        )
    for key, values in (("strategies", training.strategies), ("seeds", training.seed_list)):
        for index, value in enumerate(values):
            if value in values[:index]:
                yield ("training", key, index), f"{value!r} is named twice"
    if training.checkpoints:
        for strategy in training.strategies:
            files = training.checkpoints.get(strategy, [])
            if len(files) != len(training.seed_list):
                yield (
                    ("training", "checkpoints"),
                    f"{len(files)} files are given for strategy {strategy!r}, "
                    f"but there are {len(training.seed_list)} seeds",
                )
            for index, file in enumerate(files):
                if file in files[:index]:
                    yield (
                        ("training", "checkpoints", strategy, index),
                        f"{file} is named twice: each seed needs a training of its own",
                    )
                yield from check_file(("training", "checkpoints", strategy, index), file, folder)


def check_profile(profile: ProfileSection) -> Iterable[tuple[Location, str]]:
    """What is wrong with how latencies are to be measured."""
    batch_sizes = profile.batch_sizes
    if 1 not in batch_sizes:
        yield ("profile", "batch_sizes"), f"given {batch_sizes}; 1 must be among them"
    if len(set(batch_sizes)) < len(batch_sizes):
        yield ("profile", "batch_sizes"), f"given {batch_sizes}; each batch size once"
    if profile.runtime == "onnxruntime" and profile.precision != "fp32":
        yield (
            ("profile", "precision"),
            f"runtime onnxruntime computes in fp32, not {profile.precision} (eager and compile do)",
        )
