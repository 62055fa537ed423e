"""Exits trained from stored activations against running the frozen backbone at every step.

4 strategies x 5 seeds x 3 exits on a frozen ResNet, on images of CIFAR-10's shape and number. Both
ways train the same exits with the same batches in as many processes as the host has cores, one
thread each, as a study does. The time to compute the store, once, counts, the last exit included,
which only scores and teachers read; without the store, the backbone runs only as far as the last
exit that is trained.

    python benchmarks/activation_store.py [--backbone resnet20] [--steps 391]
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from itertools import product
from pathlib import Path

import joblib
import numpy as np
import torch

from models.data.activations import StoredInputs, compute_activations
from models.data.datasets import DATASETS, Split
from models.data.inputs import ImageInputs
from models.host import resolved_precision
from models.networks.architecture import Architecture
from models.networks.multi_exit import build_network
from models.training.pacing import FixedExponentialPacing, paced_batches
from models.training.regimes import phases
from models.training.strategies import STRATEGIES, sample_order, strategy_pacing
from models.training.train import TrainingSettings, train

SAMPLES, BATCH, SEEDS = 45_000, 128, 5
INFO = DATASETS["cifar10"]


def train_one(
    architecture: Architecture,
    split: Split,
    store: Path | None,
    strategy: str,
    seed: int,
    steps: int,
) -> None:
    """Train all early exits of one arm."""
    torch.set_num_threads(1)
    inputs = StoredInputs(store, split.labels) if store else ImageInputs(split, INFO)
    easiness = np.random.default_rng(1).random(SAMPLES)
    network = build_network(architecture, seed)
    (phase,) = phases("classifier_wise", network.exit_count, steps)
    batches = paced_batches(
        sample_order(strategy, split.labels, easiness, seed),
        strategy_pacing(strategy, FixedExponentialPacing()),
        steps,
        BATCH,
        np.random.default_rng(seed),
    )
    train(network, phase, batches, inputs, None, TrainingSettings(evaluations=1))


def train_all(
    pool: joblib.Parallel, architecture: Architecture, split: Split, store: Path | None, steps: int
) -> float:
    """Seconds for all strategies and seeds."""
    start = time.perf_counter()
    pool(
        joblib.delayed(train_one)(architecture, split, store, strategy, seed, steps)
        for strategy, seed in product(STRATEGIES, range(SEEDS))
    )
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
    precision, cores = resolved_precision("auto"), os.cpu_count() or 1
    print(f"{given.backbone}, {given.steps} steps, {cores} processes, precision {precision}")
    with (
        tempfile.TemporaryDirectory() as name,
        joblib.Parallel(n_jobs=cores, mmap_mode="c") as pool,
    ):
        folder = Path(name)
        start = time.perf_counter()
        network = build_network(architecture, 0)
        compute_activations(
            network, split, INFO, folder, torch.bfloat16, autocast=precision == "bf16"
        )
        computing = time.perf_counter() - start
        train_all(pool, architecture, split, folder, 1)  # the processes start, and import torch
        stored = train_all(pool, architecture, split, folder, given.steps)
        print(
            f"with the store: {computing:.1f} s to compute it, {stored:.1f} s to train", flush=True
        )
        anew = train_all(pool, architecture, split, None, given.steps)
    print(f"without: {anew:.1f} s")
    print(f"the store takes {anew / (computing + stored):.1f}x less time")


if __name__ == "__main__":
    main()
