"""Training a multi-exit network for a fixed number of steps, under one regime.

Strategies differ only in the batches they are given; everything else here is common to all of
them: the optimiser, the schedule, the number of steps, the augmentation and its random numbers.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from models.augmentation import normalise, random_crop_and_flip
from models.datasets import DatasetInfo, Split
from models.errors import TrainingError
from models.host import has_fast_bf16
from models.multi_exit import MultiExitNetwork

#: ``backbone`` trains the backbone with its own classifier only: the first phase of
#: ``classifier_wise``, which then trains the early exits on the frozen backbone. ``end_to_end``
#: trains everything jointly on the weighted sum of the exits' losses (BranchyNet, Teerapittayanon
#: et al. 2016, eq. 1).
REGIMES = ("end_to_end", "backbone", "classifier_wise")


@dataclass(frozen=True)
class TrainingSettings:
    """What every strategy shares.

    Attributes:
        steps: optimiser steps, the budget.
        batch_size: samples a step.
        learning_rate: peak of the schedule: linear warm-up over ``warm_up_fraction`` of the steps,
            then half a cosine down to zero.
        momentum: of SGD with Nesterov momentum.
        weight_decay: L2 penalty.
        warm_up_fraction: part of the steps spent warming up, in [0, 1).
        exit_weights: weight of each exit's loss, earliest first; empty weighs all the same.
        augment: random crops, and flips where they keep the label.
        precision: ``fp32``, ``bf16`` (autocast), or ``auto``: bf16 where the CPU computes in it.
        evaluations: how often validation accuracy is taken, evenly spaced, the last at the end.
    """

    steps: int
    batch_size: int = 128
    learning_rate: float = 0.1
    momentum: float = 0.9
    weight_decay: float = 5e-4
    warm_up_fraction: float = 0.1
    exit_weights: tuple[float, ...] = ()
    augment: bool = True
    precision: str = "auto"
    evaluations: int = 5


@dataclass
class TrainingCurve:
    """Loss and validation accuracy over a training.

    Attributes:
        step: step after which each evaluation was made.
        loss: mean training loss since the evaluation before.
        validation_accuracy: one list per evaluation, one accuracy per exit.
    """

    step: list[int] = field(default_factory=list)
    loss: list[float] = field(default_factory=list)
    validation_accuracy: list[list[float]] = field(default_factory=list)


def resolved_precision(precision: str) -> str:
    """``auto`` becomes ``bf16`` where the CPU has instructions for it, else ``fp32``.

    Without such instructions, bf16 autocast was measured to train ten times slower than fp32.
    """
    return ("bf16" if has_fast_bf16() else "fp32") if precision == "auto" else precision


def trained_exits(regime: str, exit_count: int) -> list[int]:
    """Exits whose losses a regime sums."""
    if regime == "backbone":
        return [exit_count]
    return list(range(1, exit_count + (regime == "end_to_end")))


def trained_modules(network: MultiExitNetwork, regime: str) -> list[nn.Module]:
    """Modules that a regime trains; every other is frozen, its batch-norm statistics included."""
    modules: dict[str, list[nn.Module]] = {
        "end_to_end": [network.backbone, network.branches],
        "backbone": [network.backbone],
        "classifier_wise": [network.branches],
    }
    return modules[regime]


def learning_rate_at(step: int, settings: TrainingSettings) -> float:
    """Learning rate of ``step`` (0-based): linear warm-up, then half a cosine to zero."""
    warm_up = round(settings.warm_up_fraction * settings.steps)
    if step < warm_up:
        return settings.learning_rate * (step + 1) / warm_up
    progress = (step - warm_up) / max(1, settings.steps - warm_up)
    return settings.learning_rate * 0.5 * (1 + math.cos(math.pi * progress))


def train(
    network: MultiExitNetwork,
    regime: str,
    batches: Iterable[NDArray[np.int64]],
    train_split: Split,
    validation_split: Split | None,
    info: DatasetInfo,
    settings: TrainingSettings,
    seed: int,
    on_step: Callable[[int, float], None] | None = None,
) -> TrainingCurve:
    """Train ``network`` in place, one step for each of ``batches`` (positions in ``train_split``).

    Args:
        seed: of the augmentation; the same for all strategies, which then see the same shifts.
        on_step: called after each step with the number of steps done and the loss.

    Raises:
        TrainingError: the loss is not finite, or ``batches`` are not ``settings.steps`` many.
    """
    exits = trained_exits(regime, network.exit_count)
    weights = settings.exit_weights or (1.0,) * network.exit_count
    if regime == "backbone":
        weights = (1.0,) * network.exit_count  # they weigh exits against each other
    network.requires_grad_(False).eval()
    for module in trained_modules(network, regime):
        module.requires_grad_(True).train()
    parameters = [parameter for parameter in network.parameters() if parameter.requires_grad]
    network.to(memory_format=torch.channels_last)
    optimiser = torch.optim.SGD(
        parameters,
        lr=settings.learning_rate,
        momentum=settings.momentum,
        nesterov=settings.momentum > 0,
        weight_decay=settings.weight_decay,
    )
    augmentation = torch.Generator().manual_seed(seed)
    images, labels = torch.from_numpy(train_split.images), torch.from_numpy(train_split.labels)
    autocast = resolved_precision(settings.precision) == "bf16"
    evaluate_after = {
        round(settings.steps * (part + 1) / settings.evaluations)
        for part in range(settings.evaluations)
    }
    curve, losses, step = TrainingCurve(), [], 0
    for step, batch in enumerate(batches, start=1):
        positions = torch.from_numpy(batch)
        inputs = images[positions]
        if settings.augment:
            inputs = random_crop_and_flip(inputs, info, augmentation)
        inputs = normalise(inputs, info).contiguous(memory_format=torch.channels_last)
        targets = labels[positions]
        optimiser.param_groups[0]["lr"] = learning_rate_at(step - 1, settings)
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            loss = _weighted_loss(network(inputs), targets, exits, weights)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
        if not math.isfinite(losses[-1]):
            raise TrainingError(
                f"the loss is {losses[-1]} at step {step} of {settings.steps}; "
                f"lower the learning rate (now {settings.learning_rate}) or lengthen the warm-up"
            )
        if on_step:
            on_step(step, losses[-1])
        if step in evaluate_after and validation_split is not None:
            trained = [module for module in network.modules() if module.training]
            curve.step.append(step)
            curve.loss.append(float(np.mean(losses)))
            curve.validation_accuracy.append(accuracy_per_exit(network, validation_split, info))
            losses.clear()
            for module in trained:
                module.training = True
    if step != settings.steps:
        raise TrainingError(f"{step} batches were given for a budget of {settings.steps} steps")
    network.eval()
    return curve


def _weighted_loss(
    logits: list[Tensor], targets: Tensor, exits: list[int], weights: Sequence[float]
) -> Tensor:
    total = torch.zeros(())
    for exit in exits:
        total = total + weights[exit - 1] * F.cross_entropy(logits[exit - 1].float(), targets)
    return total


def class_probabilities(
    network: MultiExitNetwork, split: Split, info: DatasetInfo, batch_size: int = 256
) -> NDArray[np.float32]:
    """Softmax outputs (samples, exits, classes) in inference mode, in fp32."""
    network.eval()
    parts = []
    with torch.inference_mode():
        for start in range(0, len(split), batch_size):
            inputs = normalise(torch.from_numpy(split.images[start : start + batch_size]), info)
            logits = network(inputs.contiguous(memory_format=torch.channels_last))
            parts.append(torch.stack([F.softmax(exit, dim=1) for exit in logits], dim=1).numpy())
    return np.concatenate(parts)


def accuracy_per_exit(network: MultiExitNetwork, split: Split, info: DatasetInfo) -> list[float]:
    """Share of ``split`` that each exit classifies correctly, earliest exit first."""
    predicted = class_probabilities(network, split, info).argmax(axis=2)
    accuracies: list[float] = (predicted == split.labels[:, None]).mean(axis=0).tolist()
    return accuracies
