"""Training from memory against a plain DataLoader loop, and what the strategies cost.

Images of CIFAR-10's shape and number, ResNet-20 with two early exits, batches of 128.

- The baseline is what a tutorial writes: fp32, torchvision transforms on PIL images in a DataLoader
  with two worker processes. Ours is `models.training.train.train`: images as one tensor, augmented
  by a gather, channels_last, and bf16 where the processor computes in it.
- What a strategy adds to `standard` is ranking the samples once and cutting batches from the
  visible ones; scoring is a training of its own and not counted.

    python benchmarks/training.py
"""

from __future__ import annotations

import statistics
import time
from itertools import islice

import numpy as np
import torch
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

from models.data.datasets import DATASETS, Split
from models.data.inputs import ImageInputs
from models.host import resolved_precision
from models.networks.architecture import Architecture
from models.networks.multi_exit import build_network
from models.training.pacing import FixedExponentialPacing, paced_batches
from models.training.regimes import phases
from models.training.strategies import sample_order, strategy_pacing
from models.training.train import TrainingSettings, train

SAMPLES, BATCH, STEPS, ROUNDS = 45_000, 128, 30, 3
BUDGET = 391
INFO = DATASETS["cifar10"]
ARCHITECTURE = Architecture("resnet20", ("layer1", "layer2"), "linear", 10, (3, 32, 32))


def samples() -> Split:
    generator = np.random.default_rng(0)
    images = generator.integers(0, 256, (SAMPLES, *INFO.input_shape), dtype=np.uint8)
    return Split(images, generator.integers(0, 10, SAMPLES), np.arange(SAMPLES))


class PilImages(Dataset[tuple[torch.Tensor, int]]):
    """The samples as torchvision's datasets give them."""

    def __init__(self, split: Split) -> None:
        self.images = np.ascontiguousarray(split.images.transpose(0, 2, 3, 1))
        self.labels = split.labels
        self.transform = transforms.Compose(
            [
                transforms.ToPILImage(),
                transforms.RandomCrop(32, padding=4),
                transforms.RandomHorizontalFlip(),
                transforms.ToTensor(),
                transforms.Normalize(INFO.mean, INFO.std),
            ]
        )

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        return self.transform(self.images[index]), int(self.labels[index])


def plain_loop(split: Split) -> float:
    """Images a second of the baseline; its workers are started before the clock."""
    loader = DataLoader(PilImages(split), BATCH, shuffle=True, num_workers=2, drop_last=True)
    network = build_network(ARCHITECTURE, 0).train()
    optimiser = torch.optim.SGD(network.parameters(), 0.1, 0.9, weight_decay=5e-4, nesterov=True)
    batches = iter(loader)
    start = 0.0
    for number, (images, labels) in enumerate(islice(batches, STEPS + 2)):
        if number == 2:
            start = time.perf_counter()
        loss = sum(F.cross_entropy(logits, labels) for logits in network(images))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return STEPS * BATCH / (time.perf_counter() - start)


def our_loop(split: Split) -> float:
    """Images a second of ours."""
    network = build_network(ARCHITECTURE, 0)
    (phase,) = phases("end_to_end", 3, STEPS + 2)
    order = np.arange(SAMPLES)
    pacing = strategy_pacing("standard", FixedExponentialPacing())
    batches = paced_batches(order, pacing, STEPS + 2, BATCH, np.random.default_rng(0))
    inputs = ImageInputs(split, INFO, augment=True)
    times: list[float] = []
    train(
        network,
        phase,
        batches,
        inputs,
        None,
        TrainingSettings(evaluations=1),
        lambda step, loss: times.append(time.perf_counter()),
    )
    return STEPS * BATCH / (times[-1] - times[1])


def batches_s(strategy: str, split: Split) -> float:
    """Seconds to order the samples and to cut all batches of a budget."""
    easiness = np.random.default_rng(1).random(SAMPLES)
    start = time.perf_counter()
    order = sample_order(strategy, split.labels, easiness, seed=0)
    pacing = strategy_pacing(strategy, FixedExponentialPacing())
    for _ in paced_batches(order, pacing, BUDGET, BATCH, np.random.default_rng(0)):
        pass
    return time.perf_counter() - start


def main() -> None:
    split = samples()
    print(f"threads {torch.get_num_threads()}, precision {resolved_precision('auto')}")
    ratios, ours = [], []
    for round in range(ROUNDS):
        base, own = plain_loop(split), our_loop(split)
        ratios.append(own / base)
        ours.append(own)
        print(f"round {round + 1}: plain {base:,.0f}, ours {own:,.0f} images/s: {own / base:.2f}x")
    print(f"end to end: {statistics.median(ratios):.2f}x the images/s of the plain loop")
    step_s = BATCH / statistics.median(ours)
    standard = statistics.median(batches_s("standard", split) for _ in range(ROUNDS))
    for strategy in ("curriculum", "anti_curriculum", "random_curriculum"):
        added = statistics.median(batches_s(strategy, split) for _ in range(ROUNDS)) - standard
        print(
            f"{strategy}: {added * 1e3:+.1f} ms over standard for {BUDGET} steps, "
            f"{added / (BUDGET * step_s):+.3%} of the training"
        )


if __name__ == "__main__":
    main()
