"""What each artefact is made from: the whole identity of a stage's result. Free of torch."""

from __future__ import annotations

from collections.abc import Iterator
from importlib import metadata
from typing import Any

from models.data.datasets import SPLIT_SEED
from models.host import resolved_device, resolved_precision
from models.importing import is_import_path
from models.inference.fingerprint import fingerprint
from models.networks.architecture import (
    IMAGENET,
    SMALL_IMAGE_BACKBONES,
    TORCHVISION_BACKBONES,
    code_hash,
)
from models.training.strategies import PER_EXIT_SCORING, RANKED_STRATEGIES
from offramp.experiment import Experiment
from offramp.schema import Scenario, Strategy
from offramp.store import file_hash

#: Raise when a change of code changes what a stage makes from the same settings.
TRAINING_VERSION = 2
PROFILING_VERSION = 4
SIMULATION_VERSION = 13


def _data_key(experiment: Experiment) -> dict[str, Any]:
    """What the training samples and their labels are made from."""
    data = experiment.data
    noise: dict[str, Any] | None = None
    if data.label_noise:
        noise = data.label_noise.model_dump()
        if data.label_noise.file:
            noise["file"] = file_hash(experiment.file(data.label_noise.file))
    return {
        **_images_key(experiment),
        "label_noise": noise,
    }


def _images_key(experiment: Experiment) -> dict[str, Any]:
    return {
        "dataset": experiment.data.dataset,
        "mean": list(experiment.info.mean),
        "std": list(experiment.info.std),
        "validation_fraction": experiment.data.validation_fraction,
        "split_seed": SPLIT_SEED,
    }


def _weights_key(experiment: Experiment, weights: str | None) -> str | None:
    if weights is None or weights == IMAGENET:
        return weights
    return file_hash(experiment.file(weights))


def _software(backbone: str) -> dict[str, str]:
    """Versions of the packages that compute a network."""
    names = ["torch"]
    built_by_torchvision = (*TORCHVISION_BACKBONES, *SMALL_IMAGE_BACKBONES)
    if backbone in built_by_torchvision or is_import_path(backbone):
        names.append("torchvision")
    return {name: metadata.version(name) for name in names}


def _computed_by(experiment: Experiment) -> dict[str, str]:
    """Versions, and the device where it is not the processor, whose results differ in rounding."""
    device = resolved_device(experiment.training.device)
    return {
        **_software(experiment.model.backbone),
        **({} if device == "cpu" else {"device": device}),
    }


def _precision(experiment: Experiment) -> str:
    training = experiment.training
    return resolved_precision(training.precision, resolved_device(training.device))


def _training_key(experiment: Experiment, seed: int) -> dict[str, Any]:
    """What every training of an experiment depends on."""
    settings = experiment.training.model_dump(
        include={
            "steps",
            "batch_size",
            "learning_rate",
            "momentum",
            "weight_decay",
            "warm_up_fraction",
            "loss",
            "gradient_equilibrium",
            "exit_weights",
            "augment",
            "evaluations",
        }
    )
    return {
        "version": TRAINING_VERSION,
        **_computed_by(experiment),
        "data": _data_key(experiment),
        "architecture": experiment.architecture.identity(),
        "weights": _weights_key(experiment, experiment.model.weights),
        "regime": experiment.training.regime,
        "settings": {**settings, "precision": _precision(experiment)},
        "seed": seed,
    }


def backbone_key(experiment: Experiment, seed: int) -> dict[str, Any]:
    """What a backbone trained for the regime ``classifier_wise`` is made from."""
    training = experiment.training
    key = _training_key(experiment, seed)
    # The same for every budget of the exits that are trained on it, and for their losses.
    key["settings"] |= {
        "steps": training.backbone_steps or training.steps,
        "loss": "cross_entropy",
        "exit_weights": [],
    }
    return {**key, "trains": "backbone"}


def frozen_backbone_key(experiment: Experiment, seed: int) -> dict[str, Any]:
    """What decides the activations of a frozen backbone."""
    if experiment.model.weights:
        return {
            "weights": _weights_key(experiment, experiment.model.weights),
            **_computed_by(experiment),
        }
    return backbone_key(experiment, seed)


def activations_key(experiment: Experiment, seed: int, split: str, dtype: str) -> dict[str, Any]:
    """What the activations of a split are made from."""
    return {
        "version": TRAINING_VERSION,
        "backbone": frozen_backbone_key(experiment, seed),
        "images": _images_key(experiment),
        "architecture": experiment.architecture.identity(),
        "split": split,
        "dtype": dtype,
        **(_stored_arithmetic(experiment) if dtype == "bfloat16" else {}),
    }


def reads_stored_activations(experiment: Experiment) -> bool:
    """Whether exits are trained on a frozen backbone's activations, as far as there is room."""
    training = experiment.training
    return training.regime == "classifier_wise" and not training.augment


def _stored_arithmetic(experiment: Experiment) -> dict[str, Any]:
    """In which numbers the stored activations of training images were computed, if not in fp32."""
    stored = reads_stored_activations(experiment)
    return {"computed_in": "bf16"} if stored and _precision(experiment) == "bf16" else {}


def scores_key(experiment: Experiment, seed: int) -> dict[str, Any]:
    """What difficulty scores are made from."""
    scoring = experiment.training.scoring
    common = {"version": TRAINING_VERSION, "scoring": _scoring_key(experiment)}
    if scoring.function in ("c_score", "transfer"):
        return {**common, "data": _data_key(experiment)}
    common |= _stored_arithmetic(experiment)
    if scoring.function == "final_exit":
        backbone = frozen_backbone_key(experiment, seed)
        # Stored activations are rounded, and images are not.
        stored = reads_stored_activations(experiment)
        return {
            **common,
            **({"reads": "stored activations"} if stored else {}),
            "data": _data_key(experiment),
            "architecture": experiment.architecture.identity(),
            "backbone": backbone,
        }
    key = _training_key(experiment, seed)
    # Scores know of no loss, and of no budget but their own steps.
    for unused in ("steps", "loss", "exit_weights", "gradient_equilibrium", "evaluations"):
        del key["settings"][unused]
    if experiment.training.regime == "classifier_wise":
        key["backbone"] = frozen_backbone_key(experiment, seed)
    return {**common, **key}


def _scoring_key(experiment: Experiment) -> dict[str, Any]:
    """What the experiment's scoring function depends on besides its data and networks."""
    scoring = experiment.training.scoring
    key: dict[str, Any] = {"function": scoring.function}
    if scoring.function in PER_EXIT_SCORING:
        key["steps"] = scoring.steps or experiment.training.steps
        key["per_exit"] = scoring.per_exit
    if scoring.function in ("self_taught", "transfer"):
        key["folds"] = scoring.folds
    if scoring.function == "transfer":
        assert scoring.backbone  # the experiment was checked for it
        key["versions"] = {
            **_software(scoring.backbone),
            "scikit-learn": metadata.version("scikit-learn"),
        }
        key["backbone"] = scoring.backbone
        key["code"] = code_hash(scoring.backbone, experiment.folder)
        key["weights"] = _weights_key(experiment, scoring.weights)
        key["resize"] = scoring.resize
        if resolved_device(experiment.training.device) != "cpu":
            key["device"] = resolved_device(experiment.training.device)
    if scoring.file:
        key["file"] = file_hash(experiment.file(scoring.file))
        key["key"] = scoring.key
    return key


def trained_key(experiment: Experiment, strategy: str, seed: int) -> dict[str, Any]:
    """What a trained network and its predictions are made from."""
    training = experiment.training
    key = {**_training_key(experiment, seed), "strategy": strategy}
    if training.regime == "classifier_wise":
        key["backbone"] = frozen_backbone_key(experiment, seed)
    if strategy != "standard":
        key["pacing"] = training.pacing.model_dump()
    if strategy in RANKED_STRATEGIES:
        key["scoring"] = _scoring_key(experiment)
    return key


def trained_networks(experiment: Experiment) -> Iterator[tuple[Strategy, int, dict[str, Any]]]:
    """Strategy, seed and key of every trained network of an experiment, seed by seed.

    Whether trained here, or predicted from a checkpoint file that the user named.
    """
    training = experiment.training
    for index, seed in enumerate(training.seed_list):
        for strategy in training.strategies:
            if training.checkpoints:
                content = file_hash(experiment.file(training.checkpoints[strategy][index]))
                yield strategy, seed, named_checkpoint_key(experiment, strategy, seed, content)
            else:
                yield strategy, seed, trained_key(experiment, strategy, seed)


def named_checkpoint_key(
    experiment: Experiment, strategy: str, seed: int, content: str
) -> dict[str, Any]:
    """What the predictions of a checkpoint file that the user named are made from."""
    return {
        "version": TRAINING_VERSION,
        **_computed_by(experiment),
        "images": _images_key(experiment),
        "architecture": experiment.architecture.identity(),
        "regime": experiment.training.regime,
        "strategy": strategy,
        "seed": seed,
        "checkpoint": content,
    }


def profile_key(scenario: Scenario, experiment: Experiment) -> dict[str, Any]:
    """What a profile is made from: the network's shape, the settings, and this host."""
    settings = scenario.profile
    return {
        **asked_profile_key(scenario, experiment),
        "host": fingerprint(settings.threads, settings.precision, settings.runtime),
    }


def asked_profile_key(scenario: Scenario, experiment: Experiment) -> dict[str, Any]:
    """What is asked of a profile, whatever host measures it."""
    return {
        "version": PROFILING_VERSION,
        "architecture": experiment.architecture.identity(),
        "settings": scenario.profile.model_dump(),
    }


def validation_key(trained: dict[str, Any]) -> dict[str, Any]:
    """What the predictions of a trained network for the validation split are made from.

    Args:
        trained: the key of the network.
    """
    return {"split": "validation", "trained": trained}


def simulation_key(scenario: Scenario, inputs: dict[str, str]) -> dict[str, Any]:
    """What the records of a simulation are made from: the world, and hashes of its inputs."""
    parts = ("seed", "nodes", "links", "mqtt", "devices", "faults", "policies", "simulation")
    return {
        "version": SIMULATION_VERSION,
        "versions": {
            name: metadata.version(name) for name in ("numpy", "scipy", "simpy", "datasketches")
        },
        "dataset": scenario.data.dataset,
        "scenario": scenario.model_dump(include=set(parts)),
        "inputs": inputs,
    }


#: What of a key differs between hosts that were asked for the same.
_OF_THE_HOST = ("torch", "torchvision", "scikit-learn", "versions", "device", "computed_in")


def asked_key(experiment: Experiment, trained: dict[str, Any]) -> dict[str, Any]:
    """What of a trained network's key was asked for, whatever host computed it.

    Networks of the same such key differ in rounding alone: in versions, the device, or the
    precision where that was left to the host.

    Args:
        trained: the network's key.
    """
    training = experiment.training
    key: dict[str, Any] = _without(trained, _OF_THE_HOST)
    for one in (key, key.get("backbone", {})):
        if "settings" in one:
            one["settings"]["precision"] = training.precision
    return {**key, "device": training.device}


def computed_by(experiment: Experiment) -> str:
    """Versions, device and precision with which this host trains an experiment's networks."""
    software = " ".join(
        f"{name} {version}" for name, version in _software(experiment.model.backbone).items()
    )
    device = resolved_device(experiment.training.device)
    return f"{software}, {device}, {_precision(experiment)}"


def _without(value: Any, names: tuple[str, ...]) -> Any:
    """A nested mapping without some names, wherever they stand."""
    if not isinstance(value, dict):
        return value
    return {name: _without(it, names) for name, it in value.items() if name not in names}
