"""Building an experiment's networks, and checking them before anything depends on them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from models.errors import NetworkError, ScenarioError
from models.networks.architecture import IMAGENET, IMAGENET_CLASSES
from models.networks.multi_exit import MultiExitNetwork, build_network
from models.networks.weights import load_weights
from offramp.experiment import Experiment, architecture_of
from offramp.schema import ModelSection
from offramp.yaml_lines import Location


def starting_network(experiment: Experiment, seed: int) -> tuple[MultiExitNetwork, bool]:
    """The network with fresh weights, or those that ``model.weights`` names.

    Returns:
        The network, and whether its last exit has a classifier for the data's classes.

    Raises:
        NetworkError: it cannot be built, cut where the exits are, or given its weights.
    """
    network = build_network(experiment.architecture, seed)
    weights = experiment.model.weights
    return network, weights is None or load_weights(network, weights_file(experiment, weights))


def scoring_network(experiment: Experiment) -> MultiExitNetwork:
    """The other network that scoring function ``transfer`` takes features from.

    Raises:
        NetworkError: it cannot be built, or given its weights.
    """
    scoring = experiment.training.scoring
    assert scoring.backbone  # the experiment was checked for both
    assert scoring.weights
    model = ModelSection(backbone=scoring.backbone, exits=[], resize=scoring.resize)
    network = build_network(architecture_of(model, experiment.info, experiment.folder), 0)
    load_weights(network, weights_file(experiment, scoring.weights))
    return network


def weights_file(experiment: Experiment, source: str) -> Path | None:
    """The file that a key names; None for torchvision's own weights."""
    return None if source == IMAGENET else experiment.file(source)


def check_network(
    experiment: Experiment, error_at: Callable[[Location, str], ScenarioError]
) -> tuple[MultiExitNetwork, bool]:
    """Build the network and read its weights, to say what is wrong before work begins.

    ImageNet's weights, which may have to be downloaded, are left to the work itself.

    Args:
        error_at: makes an error about a key.

    Returns:
        The network, and whether its last exit has a classifier for the data's classes.

    Raises:
        ScenarioError: the network cannot be built, cut, or given its weights.
    """
    try:
        network = build_network(experiment.architecture, seed=0)
    except NetworkError as error:
        raise error_at(("model",), str(error)) from error
    weights = experiment.model.weights
    if weights == IMAGENET:
        return network, experiment.info.classes == IMAGENET_CLASSES
    try:
        return network, weights is None or load_weights(network, experiment.file(weights))
    except NetworkError as error:
        raise error_at(("model", "weights"), str(error)) from error


def check_training(
    experiment: Experiment, error_at: Callable[[Location, str], ScenarioError]
) -> None:
    """As :func:`check_network`, and the same of what samples are ranked by.

    Args:
        error_at: makes an error about a key.

    Raises:
        ScenarioError: a network cannot be built, cut, or given its weights, or ``final_exit`` is
            to rank by weights that hold no classifier for these classes.
    """
    _, classified = check_network(experiment, error_at)
    training = experiment.training
    scoring = training.scoring
    if not training.needs_scores or training.checkpoints:
        return
    if scoring.function == "transfer" and scoring.weights != IMAGENET:
        try:
            scoring_network(experiment)
        except NetworkError as error:
            raise error_at(("training", "scoring"), str(error)) from error
    if scoring.function == "final_exit" and not classified:
        raise error_at(("training", "scoring"), no_classifier_to_rank_by(experiment))


def no_classifier_to_rank_by(experiment: Experiment) -> str:
    """What is said where ``final_exit`` is to rank by weights of other classes, and what does."""
    model = experiment.model
    transfer = ["function: transfer", f"backbone: {model.backbone}", f"weights: {model.weights}"]
    if model.resize is not None:
        transfer.append(f"resize: {model.resize}")
    return (
        "final_exit ranks by the classifier of the frozen backbone, and its weights hold none for "
        f"these {experiment.info.classes} classes; give {{{', '.join(transfer)}}}, which fits one "
        "to its features, or {function: self_taught}"
    )
