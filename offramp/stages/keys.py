"""What each artefact is made from: the whole identity of a stage's result. Free of torch."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from importlib import metadata
from typing import Any

from models.architecture import Architecture
from models.datasets import DATASETS, SPLIT_SEED
from models.host import fingerprint, has_fast_bf16
from models.strategies import RANKED_STRATEGIES
from offramp.scenario import LoadedScenario
from offramp.schema import Scenario, Strategy
from offramp.store import file_hash

#: Raise when a change of code changes what a stage makes from the same settings.
TRAINING_VERSION = 1
PROFILING_VERSION = 1
SIMULATION_VERSION = 1


def scenario_architecture(scenario: Scenario) -> Architecture:
    """The network that a scenario describes."""
    info = DATASETS[scenario.data.dataset]
    return Architecture(
        backbone=scenario.model.backbone,
        exits=tuple(scenario.model.exits),
        branch=scenario.model.branch,
        classes=info.classes,
        input_shape=info.input_shape,
    )


def _training_basis(scenario: Scenario, seed: int) -> dict[str, Any]:
    training = scenario.training
    settings = training.model_dump(
        include={
            "steps",
            "batch_size",
            "learning_rate",
            "momentum",
            "weight_decay",
            "warm_up_fraction",
            "exit_weights",
            "augment",
            "evaluations",
        }
    )
    precision = training.precision
    if precision == "auto":
        precision = "bf16" if has_fast_bf16() else "fp32"
    return {
        "version": TRAINING_VERSION,
        "torch": metadata.version("torch"),
        "dataset": scenario.data.dataset,
        "validation_fraction": scenario.data.validation_fraction,
        "split_seed": SPLIT_SEED,
        "architecture": asdict(scenario_architecture(scenario)),
        "settings": {**settings, "precision": precision},
        "seed": seed,
    }


def scores_key(scenario: Scenario, seed: int) -> dict[str, Any]:
    """What difficulty scores are made from."""
    basis = _training_basis(scenario, seed)
    return {**basis, "scoring": scenario.training.scoring.model_dump()}


def backbone_key(scenario: Scenario, seed: int) -> dict[str, Any]:
    """What a backbone trained for the regime ``classifier_wise`` is made from."""
    return {**_training_basis(scenario, seed), "regime": "backbone"}


def trained_key(scenario: Scenario, strategy: str, seed: int) -> dict[str, Any]:
    """What a trained network and its predictions are made from."""
    key = _training_basis(scenario, seed)
    key |= {"regime": scenario.training.regime, "strategy": strategy}
    if strategy != "standard":
        key["pacing"] = scenario.training.pacing.model_dump()
    if strategy in RANKED_STRATEGIES:
        key["scoring"] = scenario.training.scoring.model_dump()
    return key


def trained_networks(loaded: LoadedScenario) -> Iterator[tuple[Strategy, int, dict[str, Any]]]:
    """Strategy, seed and key of every trained network of a scenario, seed by seed.

    Whether trained here, or predicted from a checkpoint file that the user named.
    """
    training = loaded.scenario.training
    for index, seed in enumerate(training.seed_list):
        for strategy in training.strategies:
            if training.checkpoints:
                content = file_hash(loaded.folder / training.checkpoints[strategy][index])
                yield strategy, seed, named_checkpoint_key(loaded.scenario, strategy, seed, content)
            else:
                yield strategy, seed, trained_key(loaded.scenario, strategy, seed)


def named_checkpoint_key(
    scenario: Scenario, strategy: str, seed: int, content: str
) -> dict[str, Any]:
    """What the predictions of a checkpoint file that the user named are made from."""
    return {
        "version": TRAINING_VERSION,
        "torch": metadata.version("torch"),
        "dataset": scenario.data.dataset,
        "architecture": asdict(scenario_architecture(scenario)),
        "strategy": strategy,
        "seed": seed,
        "checkpoint": content,
    }


def profile_key(scenario: Scenario) -> dict[str, Any]:
    """What a profile is made from: the network's shape, the settings, and this host."""
    settings = scenario.profile
    return {
        "version": PROFILING_VERSION,
        "architecture": asdict(scenario_architecture(scenario)),
        "settings": settings.model_dump(),
        "host": fingerprint(settings.threads, settings.precision),
    }


def simulation_key(scenario: Scenario, inputs: dict[str, str]) -> dict[str, Any]:
    """What the records of a simulation are made from: the world, and hashes of its inputs."""
    parts = ("seed", "nodes", "links", "devices", "policies", "simulation")
    return {
        "version": SIMULATION_VERSION,
        "versions": {name: metadata.version(name) for name in ("numpy", "scipy", "simpy")},
        "dataset": scenario.data.dataset,
        "scenario": scenario.model_dump(include=set(parts)),
        "inputs": inputs,
    }
