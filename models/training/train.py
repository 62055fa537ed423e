"""Training a multi-exit network for a fixed number of steps.

Strategies differ only in the batches they are given; everything else here is common to all of
them: the optimiser, the schedule, the number of steps, the augmentation and its random numbers.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field
from itertools import islice

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from models.data.inputs import Inputs
from models.errors import NetworkError, TrainingError
from models.host import resolved_precision
from models.networks.multi_exit import MultiExitNetwork
from models.training.losses import build_loss
from models.training.regimes import Phase, trained_parameters, trained_parts
from models.training.training_state import (
    StateKeeper,
    TrainingState,
    random_states,
    set_random_states,
)

#: Told after each step the number of steps done and the loss.
OnStep = Callable[[int, float], None]


@dataclass(frozen=True)
class TrainingSettings:
    """What every strategy shares.

    Attributes:
        batch_size: samples a step.
        learning_rate: peak of the schedule: linear warm-up over ``warm_up_fraction`` of the steps,
            then half a cosine down to zero.
        momentum: of SGD with Nesterov momentum.
        weight_decay: L2 penalty.
        warm_up_fraction: part of the steps spent warming up, in [0, 1).
        loss: ``cross_entropy``, or a self-distillation: a name in :mod:`models.training.losses`.
        exit_weights: weight of each exit's loss, earliest first; empty weighs all the same.
        precision: ``fp32``, ``bf16`` (autocast), or ``auto``: bf16 where the host computes in it.
        evaluations: how often validation accuracy is taken, evenly spaced, the last at the end.
    """

    batch_size: int = 128
    learning_rate: float = 0.1
    momentum: float = 0.9
    weight_decay: float = 5e-4
    warm_up_fraction: float = 0.1
    loss: str = "cross_entropy"
    exit_weights: tuple[float, ...] = ()
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

    def append(self, later: TrainingCurve, done: int) -> None:
        """Add the curve of a phase that began after ``done`` steps."""
        self.step += [done + step for step in later.step]
        self.loss += later.loss
        self.validation_accuracy += later.validation_accuracy

    def take_exits(self, other: TrainingCurve, exits: Sequence[int]) -> None:
        """Take over ``exits`` from a training of the same length that trained those alone."""
        if not self.step:
            self.append(other, 0)
            return
        self.loss = [first + second for first, second in zip(self.loss, other.loss, strict=True)]
        for row, taken in zip(self.validation_accuracy, other.validation_accuracy, strict=True):
            for exit in exits:
                row[exit - 1] = taken[exit - 1]


class DivergedError(TrainingError):
    """The loss is not finite. The network is as it was when it was last known to be good.

    Attributes:
        good_step: the step after which that was.
    """

    def __init__(self, message: str, good_step: int) -> None:
        super().__init__(message)
        self.good_step = good_step


def learning_rate_at(step: int, steps: int, settings: TrainingSettings) -> float:
    """Learning rate of ``step`` (0-based) of ``steps``: linear warm-up, then half a cosine to 0."""
    warm_up = round(settings.warm_up_fraction * steps)
    if step < warm_up:
        return settings.learning_rate * (step + 1) / warm_up
    progress = (step - warm_up) / max(1, steps - warm_up)
    return settings.learning_rate * 0.5 * (1 + math.cos(math.pi * progress))


def counted_from(done: int, on_step: OnStep | None) -> OnStep | None:
    """``on_step`` for a training that follows ``done`` steps."""
    return (lambda step, loss: on_step(done + step, loss)) if on_step else None


def train(
    network: MultiExitNetwork,
    phase: Phase,
    batches: Iterable[NDArray[np.int64]],
    inputs: Inputs,
    validation: Inputs | None,
    settings: TrainingSettings,
    on_step: OnStep | None = None,
    keeper: StateKeeper | None = None,
) -> TrainingCurve:
    """Train ``network`` in place, one step for each of ``batches`` (positions in ``inputs``).

    Args:
        validation: what the learning curve is taken on; without it there is none.
        on_step: called after each step with the number of steps done and the loss.
        keeper: keeps the state of the training, and knows that of one which was stopped.

    Raises:
        DivergedError: the loss is not finite.
        TrainingError: ``batches`` are not ``phase.steps`` many.
    """
    parts = trained_parts(network, phase)
    network.requires_grad_(False).eval()
    parameters = trained_parameters(network, phase)
    for parameter in parameters:
        parameter.requires_grad_(True)
    network.to(memory_format=torch.channels_last)
    objective = _Objective(network, phase, settings, inputs)
    optimiser = torch.optim.SGD(
        [*parameters, *objective.loss.parameters()],
        lr=settings.learning_rate,
        momentum=settings.momentum,
        nesterov=settings.momentum > 0,
        weight_decay=settings.weight_decay,
    )
    evaluate_after = {
        round(phase.steps * (part + 1) / settings.evaluations)
        for part in range(settings.evaluations)
    }
    curve, losses, step = TrainingCurve(), list[float](), 0
    # A mask of -inf, say, is a buffer that never was.
    finite_at_first = _finite(network)
    if keeper and (state := keeper.take()):
        step, losses, curve = state.step, list(state.losses), TrainingCurve(**state.curve)
        network.load_state_dict(state.network)
        optimiser.load_state_dict(state.optimiser)
        objective.loss.load_state_dict(state.loss)
        set_random_states(state.random, network.device, inputs.generator)
    good_step, good_state = step, _copy_of_state(network)
    _set_training(parts)
    to_do = islice(batches, good_step, None)
    for step, batch in enumerate(to_do, start=good_step + 1):
        optimiser.param_groups[0]["lr"] = learning_rate_at(step - 1, phase.steps, settings)
        loss = objective(batch)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
        # A finite loss may be the last before an update that overflows.
        overflown = step in evaluate_after and bool(finite_at_first - _finite(network))
        if overflown or not math.isfinite(losses[-1]):
            network.load_state_dict(good_state)
            network.eval()
            what = "the weights are not finite" if overflown else f"the loss is {losses[-1]}"
            raise DivergedError(
                f"{what} at step {step} of {phase.steps}; lower the learning rate (now "
                f"{settings.learning_rate}) or lengthen the warm-up",
                good_step,
            )
        if on_step:
            on_step(step, losses[-1])
        if step in evaluate_after:
            good_step, good_state = step, _copy_of_state(network)
            if validation is not None:
                curve.step.append(step)
                curve.loss.append(float(np.mean(losses)))
                curve.validation_accuracy.append(accuracy_per_exit(network, validation))
                losses.clear()
                _set_training(parts)
        if keeper and keeper.is_due() and not finite_at_first - _finite(network):
            keeper.keep(
                TrainingState(
                    step,
                    network.state_dict(),
                    objective.loss.state_dict(),
                    optimiser.state_dict(),
                    asdict(curve),
                    losses,
                    random_states(network.device, inputs.generator),
                )
            )
    if step != phase.steps:
        raise TrainingError(f"{step} batches were given for a budget of {phase.steps} steps")
    network.eval()
    return curve


_NOT_COMPUTED = torch.empty(0)


class _Objective:
    """The loss of a batch."""

    def __init__(
        self, network: MultiExitNetwork, phase: Phase, settings: TrainingSettings, inputs: Inputs
    ) -> None:
        self.network = network
        self.inputs = inputs
        # They weigh exits against each other in a common trunk, and set the pace of classifiers.
        weighed = len(phase.exits) > 1 or not phase.segments
        weights = settings.exit_weights if weighed else ()
        self.computed = set(phase.exits)
        if settings.loss != "cross_entropy":
            self.computed.add(network.exit_count)  # the teacher, trained or not
        self.device = network.device
        precision = resolved_precision(settings.precision, self.device.type)
        self.autocast = precision == "bf16"
        with torch.no_grad():
            example = inputs.features(network, np.zeros(1, dtype=np.int64), self.computed)
        if settings.loss == "byot" and any(part.ndim != 2 for part in example.values()):
            raise NetworkError(
                f"loss 'byot' compares vectors, but {network.architecture.backbone} ends in a "
                "classifier of feature maps"
            )
        self.all_exits = range(1, network.exit_count + 1)
        self.loss = build_loss(
            settings.loss,
            weights or (1.0,) * network.exit_count,
            phase.exits,
            [example[exit].shape[1] if exit in example else 0 for exit in self.all_exits],
        ).to(self.device)

    def __call__(self, batch: NDArray[np.int64]) -> Tensor:
        targets = self.inputs.labels[torch.from_numpy(batch)]
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.autocast):
            features = self.inputs.features(self.network, batch, self.computed)
            logits = {
                exit: self.network.last_layer(exit, feature).float()
                for exit, feature in features.items()
            }
        loss: Tensor = self.loss(
            [logits.get(exit, _NOT_COMPUTED) for exit in self.all_exits],
            [features.get(exit, _NOT_COMPUTED) for exit in self.all_exits],
            targets,
        )
        return loss


def _set_training(parts: list[nn.Module | nn.Parameter]) -> None:
    for part in parts:
        if isinstance(part, nn.Module):
            part.train()


def _finite(network: nn.Module) -> set[str]:
    """Names of the weights and buffers of which all values are finite."""
    return {name for name, value in network.state_dict().items() if torch.isfinite(value).all()}


def _copy_of_state(network: nn.Module) -> dict[str, Tensor]:
    state = network.state_dict()  # with the versions that some modules look for
    for name, value in state.items():
        state[name] = value.clone()
    return state


def class_probabilities(
    network: MultiExitNetwork,
    inputs: Inputs,
    positions: NDArray[np.int64] | None = None,
    batch_size: int = 256,
) -> NDArray[np.float32]:
    """Softmax outputs (samples, exits, classes) in inference mode, in fp32.

    Args:
        positions: of the samples that are asked for; all by default.
    """
    network.eval()
    exits = range(1, network.exit_count + 1)
    asked = np.arange(len(inputs.labels)) if positions is None else positions
    parts = []
    with torch.inference_mode():
        for start in range(0, len(asked), batch_size):
            features = inputs.features(network, asked[start : start + batch_size], exits)
            softmaxes = [F.softmax(network.last_layer(exit, features[exit]), 1) for exit in exits]
            parts.append(torch.stack(softmaxes, dim=1).cpu().numpy())
    return np.concatenate(parts)


def accuracy_per_exit(network: MultiExitNetwork, inputs: Inputs) -> list[float]:
    """Share of ``inputs`` that each exit classifies correctly, earliest exit first."""
    predicted = class_probabilities(network, inputs).argmax(axis=2)
    labels = inputs.labels.cpu().numpy()
    accuracies: list[float] = (predicted == labels[:, None]).mean(axis=0).tolist()
    return accuracies
