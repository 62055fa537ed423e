"""Predictions of a network: every sample at every exit, with where they come from."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from tiny_networks import DIGITS, TINY, tiny_split

from models.checkpoint import Origin
from models.data.augmentation import normalise
from models.data.inputs import ImageInputs
from models.errors import TrainingError
from models.inference.predicting import predict
from models.networks.multi_exit import build_network
from models.training.train import TrainingCurve

ORIGIN = Origin(TINY, "digits", "end_to_end", "curriculum", 7, 3, TrainingCurve())


def predictions_of(network, split, name="test"):
    """What ``network`` says of the images of ``split``."""
    return predict(network, ORIGIN, ImageInputs(split, DIGITS), split, name)


def test_every_exit_says_a_class_and_its_confidence_for_every_sample():
    network = build_network(TINY, 0).eval()
    split = replace(tiny_split(11), index=np.arange(50, 61))
    said = predictions_of(network, split)
    with torch.no_grad():
        logits = network(normalise(torch.from_numpy(split.images), DIGITS))
    assert said.exit_count == 3
    assert said.sample.tolist() == list(range(50, 61))
    assert said.label.tolist() == split.labels.tolist()
    for exit, of_exit in enumerate(logits):
        confidence, predicted = of_exit.softmax(dim=1).max(dim=1)
        assert said.predicted[:, exit].tolist() == predicted.tolist()
        assert said.confidence[:, exit] == pytest.approx(confidence.numpy(), rel=1e-4)
    assert [said.sample.dtype, said.label.dtype, said.predicted.dtype] == [np.int32] * 3
    assert said.confidence.dtype == np.float32


def test_they_say_where_they_come_from():
    said = predictions_of(build_network(TINY, 0), tiny_split(3), "validation")
    assert said.architecture == TINY.fingerprint()
    assert said.about == {
        "architecture": TINY.fingerprint(),
        "dataset": "digits",
        "split": "validation",
        "strategy": "curriculum",
        "regime": "end_to_end",
        "seed": 7,
    }


def test_a_confidence_never_exceeds_one_by_rounding(monkeypatch):
    above = np.zeros((2, 3, 10), dtype=np.float32)
    above[:, :, 4] = np.nextafter(np.float32(1), np.float32(2))
    monkeypatch.setattr("models.inference.predicting.class_probabilities", lambda *_: above)
    said = predictions_of(build_network(TINY, 0), tiny_split(2))
    assert said.confidence.tolist() == [[1.0] * 3] * 2
    assert said.predicted.tolist() == [[4] * 3] * 2


def test_a_network_that_diverged_in_its_last_step_predicts_nothing():
    # No later step saw its loss, so training could not tell.
    network = build_network(TINY, 0)
    with torch.no_grad():
        network.branches[1][2].weight[3, 5] = float("nan")
    with pytest.raises(TrainingError, match=r"curriculum, seed 7, .*not finite"):
        predictions_of(network, tiny_split(3))
