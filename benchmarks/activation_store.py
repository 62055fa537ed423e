"""Exits trained from stored activations against running the frozen backbone at every step.

4 strategies x 5 seeds x 3 exits on a frozen ResNet, on images of CIFAR-10's shape and number. Both
ways train the same exits with the same batches, in turn in one process; the time to compute the
store, once, counts. Without the store, the backbone runs only as far as the last exit.

    python benchmarks/activation_store.py [--backbone resnet20] [--steps 391]
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from models.activations import StoredInputs, compute_activations
from models.architecture import Architecture
from models.datasets import DATASETS, Split
from models.inputs import ImageInputs, Inputs
from models.multi_exit import build_network
from models.pacing import FixedExponentialPacing, paced_batches
from models.regimes import phases
from models.strategies import STRATEGIES, sample_order, strategy_pacing
from models.training import TrainingSettings, resolved_precision, train

SAMPLES, BATCH, SEEDS = 45_000, 128, 5
INFO = DATASETS["cifar10"]


def train_all(architecture: Architecture, inputs: Inputs, labels: np.ndarray, steps: int) -> float:
    """Seconds for all strategies and seeds."""
    easiness = np.random.default_rng(1).random(SAMPLES)
    start = time.perf_counter()
    for strategy in STRATEGIES:
        for seed in range(SEEDS):
            network = build_network(architecture, seed)
            (phase,) = phases("classifier_wise", network.exit_count, steps)
            batches = paced_batches(
                sample_order(strategy, labels, easiness, seed),
                strategy_pacing(strategy, FixedExponentialPacing()),
                steps,
                BATCH,
                np.random.default_rng(seed),
            )
            train(network, phase, batches, inputs, None, TrainingSettings(evaluations=1))
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--backbone", default="resnet20")
    parser.add_argument("--steps", type=int, default=391)
    given = parser.parse_args()
    exits = ("relu", "layer1", "layer2")
    architecture = Architecture(given.backbone, exits, "linear", 10, (3, 32, 32))
    generator = np.random.default_rng(0)
    images = generator.integers(0, 256, (SAMPLES, *INFO.input_shape), dtype=np.uint8)
    split = Split(images, generator.integers(0, 10, SAMPLES), np.arange(SAMPLES))
    print(
        f"{given.backbone}, {given.steps} steps, threads {torch.get_num_threads()}, precision "
        f"{resolved_precision('auto')}"
    )
    with tempfile.TemporaryDirectory() as name:
        start = time.perf_counter()
        compute_activations(build_network(architecture, 0), split, INFO, Path(name), torch.bfloat16)
        computing = time.perf_counter() - start
        stored = train_all(
            architecture, StoredInputs(Path(name), split.labels), split.labels, given.steps
        )
    print(f"with the store: {computing:.1f} s to compute it, {stored:.1f} s to train", flush=True)
    anew = train_all(architecture, ImageInputs(split, INFO), split.labels, given.steps)
    print(f"without: {anew:.1f} s")
    print(f"the store takes {anew / (computing + stored):.1f}x less time")


if __name__ == "__main__":
    main()
