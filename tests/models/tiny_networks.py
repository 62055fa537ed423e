"""The smallest networks, data and settings that these tests share."""

import numpy as np
import torch
from hypothesis import settings

from models.data.datasets import DATASETS, Split
from models.networks.architecture import Architecture
from models.training.train import TrainingSettings

DIGITS = DATASETS["digits"]

#: Two early exits and the backbone's own classifier.
TINY = Architecture("resnet8", ("relu", "layer1"), "linear", 10, (1, 8, 8))

#: The same with branches that have batch norm.
TINY_CONV = Architecture("resnet8", ("relu", "layer1"), "conv", 10, (1, 8, 8))


def examples(count):
    """Settings of a property: the same ``count`` examples in every run."""
    return settings(derandomize=True, database=None, deadline=None, max_examples=count)


def tiny_settings(**changes):
    """Settings of a training in plain fp32, with one evaluation."""
    values = {
        "batch_size": 8,
        "learning_rate": 0.05,
        "precision": "fp32",
        "evaluations": 1,
    }
    return TrainingSettings(**{**values, **changes})


def tiny_split(count=48, seed=0):
    """``count`` images of noise with the classes in turn."""
    images = np.random.default_rng(seed).integers(0, 256, (count, 1, 8, 8), dtype=np.uint8)
    return Split(images, np.arange(count) % 10, np.arange(count))


def tiny_batches(steps, batch_size=8, samples=48, seed=0):
    """``steps`` batches of random positions."""
    generator = np.random.default_rng(seed)
    return [generator.permutation(samples)[:batch_size] for _ in range(steps)]


def some_images(count=5, shape=(1, 8, 8), seed=0):
    """Normalised images of noise."""
    return torch.randn(count, *shape, generator=torch.Generator().manual_seed(seed))


def state_of(network):
    """A copy of every weight and buffer, by name."""
    return {name: tensor.clone() for name, tensor in network.state_dict().items()}


def changed(before, after):
    """Names of the weights and buffers that are not bit-identical."""
    assert before.keys() == after.keys()
    return {name for name in before if not torch.equal(before[name], after[name])}
