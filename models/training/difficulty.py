"""Scoring functions: how easy each training sample is.

A score never comes from the loss of a network that was fitted on the sample it ranks: a memorised
sample looks easy whatever it is. Held-out predictions, early predictions and the margin between
logits still rank; :mod:`models.data.published_scores` reads scores that others measured.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from models.data.inputs import Inputs
from models.networks.multi_exit import MultiExitNetwork
from models.training.pacing import all_visible, paced_batches
from models.training.regimes import Phase
from models.training.train import OnStep, TrainingSettings, class_probabilities, counted_from, train


def margin(values: NDArray[np.float32], labels: NDArray[np.int64]) -> NDArray[np.float64]:
    """Value of the label less the largest other one; (N, ..., classes), (N,) -> (N, ...).

    Of probabilities it lies in [-1, 1]; of logits anywhere.
    """
    at = labels.reshape(-1, *(1,) * (values.ndim - 1))
    of_label = np.take_along_axis(values, at, axis=-1)[..., 0].astype(np.float64)
    others = values.copy()
    np.put_along_axis(others, at, -np.inf, axis=-1)
    difference: NDArray[np.float64] = of_label - others.max(axis=-1)
    return difference


def self_taught(
    make_network: Callable[[], MultiExitNetwork],
    phase: Phase,
    inputs: Inputs,
    plain: Inputs,
    settings: TrainingSettings,
    folds: int,
    seed: int,
    on_step: OnStep | None = None,
) -> NDArray[np.float64]:
    """Easiness (N, exits): held-out margins of networks trained on the other folds.

    Args:
        make_network: gives the network that each fold starts from.
        phase: how it is trained; its steps are those of one fold.
        inputs: what it is trained on.
        plain: the same samples without augmentation, to be scored.
        folds: parts of the samples, each scored by a network trained on the others.
        on_step: called with the number of steps done in all folds and the loss.
    """
    generator = np.random.default_rng([seed, 1])
    labels = plain.labels.cpu().numpy()
    fold = generator.permutation(np.arange(len(labels)) % folds)
    easiness = np.empty((0, 0))
    for part in range(folds):
        fitted, held_out = np.flatnonzero(fold != part), np.flatnonzero(fold == part)
        network = make_network()
        batches = paced_batches(fitted, all_visible, phase.steps, settings.batch_size, generator)
        counted = counted_from(part * phase.steps, on_step)
        train(network, phase, batches, inputs, None, settings, counted)
        margins = margin(class_probabilities(network, plain, held_out), labels[held_out])
        if not easiness.size:
            easiness = np.empty((len(labels), margins.shape[1]))
        easiness[held_out] = margins
    return easiness


def early_checkpoint(
    make_network: Callable[[], MultiExitNetwork],
    phase: Phase,
    inputs: Inputs,
    plain: Inputs,
    settings: TrainingSettings,
    seed: int,
    on_step: OnStep | None = None,
) -> NDArray[np.float64]:
    """Easiness (N, exits): margins of a network that has trained for a few steps only.

    Early in training, networks learn simple patterns that hold for many samples, and memorise
    none (Arpit et al. 2017). Arguments as for :func:`self_taught`.
    """
    generator = np.random.default_rng([seed, 1])
    network = make_network()
    everything = np.arange(len(plain.labels))
    batches = paced_batches(everything, all_visible, phase.steps, settings.batch_size, generator)
    train(network, phase, batches, inputs, None, settings, on_step)
    return margin(class_probabilities(network, plain), plain.labels.cpu().numpy())


def transfer(
    features: NDArray[np.float32], labels: NDArray[np.int64], folds: int, seed: int
) -> NDArray[np.float64]:
    """Easiness (N,): held-out margins of logistic regression on another network's features.

    Hacohen & Weinshall (2019) fit an SVM on Inception features; logistic regression gives
    probabilities without a further calibration.

    Args:
        features: (N, F).
    """
    classifier = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=100, tol=1e-3))
    splitter = StratifiedKFold(folds, shuffle=True, random_state=seed)
    probabilities = cross_val_predict(
        classifier, features, labels, cv=splitter, method="predict_proba"
    )
    classes, encoded = np.unique(labels, return_inverse=True)
    assert probabilities.shape[1] == len(classes)
    return margin(probabilities.astype(np.float32), encoded)


def final_exit(network: MultiExitNetwork, plain: Inputs) -> NDArray[np.float64]:
    """Easiness (N,): margin between the logits of the backbone's own classifier.

    It still ranks where the network was fitted on these samples and is sure of nearly all.
    """
    return margin(_at_last_exit(network, plain, logits=True), plain.labels.cpu().numpy())


def last_features(network: MultiExitNetwork, plain: Inputs) -> NDArray[np.float32]:
    """What the backbone's own classifier takes, (N, F)."""
    return _at_last_exit(network, plain, logits=False)


def _at_last_exit(network: MultiExitNetwork, plain: Inputs, logits: bool) -> NDArray[np.float32]:
    network.eval()
    last = network.exit_count
    parts = []
    with torch.inference_mode():
        for positions in _in_batches(len(plain.labels)):
            values = plain.features(network, positions, (last,))[last]
            values = network.last_layer(last, values) if logits else values.flatten(1)
            parts.append(values.cpu().numpy())
    return np.concatenate(parts)


def _in_batches(count: int, size: int = 256) -> Iterable[NDArray[np.int64]]:
    return np.split(np.arange(count), range(size, count, size))
