"""Losses of a multi-exit network: labels alone, or the last exit as a teacher of the early ones.

All share one interface: ``loss(logits, features, targets)`` is a scalar, the sum over the exits
that train of their weight times their own loss. ``logits`` holds (N, classes) and ``features``
(N, F_k) for every exit, earliest first; a feature is what the exit's last linear layer sees.
``targets`` is (N,) of class numbers. Every mean is over the samples of the batch.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def softened_divergence(student: Tensor, teacher: Tensor, temperature: float | Tensor) -> Tensor:
    """Kullback-Leibler divergence of softened outputs from the teacher's, mean over the samples.

    It is 0 where they agree, and differs from the cross entropy with soft targets (Hinton, Vinyals
    & Dean 2015) by the teacher's entropy, a constant: both have the same gradient, none for the
    teacher.

    Args:
        student, teacher: logits (N, classes).
        temperature: what both are divided by before the softmax.
    """
    return F.kl_div(
        F.log_softmax(student / temperature, dim=1),
        F.log_softmax(teacher.detach() / temperature, dim=1),
        reduction="batchmean",
        log_target=True,
    )


class ExitLoss(nn.Module):
    """Weighted sum of the losses of the exits that train; subclasses say what one exit's is.

    Attributes:
        weights: of every exit's loss, earliest first; at 0 an exit's gradient is 0.
        exits: those that train, numbered from 1; None is all. The last exit teaches either way:
            where it is not among them, it is a frozen teacher.
    """

    def __init__(self, weights: Sequence[float], exits: Sequence[int] | None = None) -> None:
        super().__init__()
        self.weights = tuple(weights)
        self.exits = tuple(range(1, len(weights) + 1) if exits is None else exits)

    def forward(
        self, logits: Sequence[Tensor], features: Sequence[Tensor], targets: Tensor
    ) -> Tensor:
        """The loss, a scalar; shapes as in the module's description."""
        total = logits[0].new_zeros(())
        for exit in self.exits:
            total = total + self.weights[exit - 1] * self.of_exit(exit, logits, features, targets)
        return total

    def of_exit(
        self, exit: int, logits: Sequence[Tensor], features: Sequence[Tensor], targets: Tensor
    ) -> Tensor:
        """Unweighted loss of ``exit``, a scalar."""
        raise NotImplementedError


class WeightedCrossEntropy(ExitLoss):
    """Every exit learns from the labels (BranchyNet, Teerapittayanon et al. 2016, eq. 1)."""

    def of_exit(
        self, exit: int, logits: Sequence[Tensor], features: Sequence[Tensor], targets: Tensor
    ) -> Tensor:
        """Cross entropy of ``exit``."""
        return F.cross_entropy(logits[exit - 1], targets)


class ExitDistillation(ExitLoss):
    """Early exits also learn the last exit's softened outputs (Phuong & Lampert 2019, section 3).

    The loss of an early exit is CE + alpha / (1 - alpha) * T**2 * divergence, of the last exit CE.
    These are (1 - alpha) CE + alpha T**2 * distillation and (1 - alpha) CE, divided by 1 - alpha,
    as the authors' code does by its global scale of 2 at alpha = 1/2: the labels then count as
    much as under ``WeightedCrossEntropy``, and the same learning rate fits.

    The temperature T is annealed: it starts at 1 and is multiplied by ``growth`` after each
    training batch on which the softened teacher's mean top confidence is above
    ``confidence_bound``. A teacher that grows sure of itself so keeps telling its classes apart.

    Args:
        alpha: share of the distillation, in [0, 1); the authors' 0.5.
        growth: factor of the temperature; the authors' 1.05.
        confidence_bound: the authors' 0.5.

    Raises:
        ValueError: ``alpha`` is not in [0, 1).
    """

    #: The next batch's temperature, a scalar; in the state dict, so that a training can resume.
    temperature: Tensor

    def __init__(
        self,
        weights: Sequence[float],
        exits: Sequence[int] | None = None,
        alpha: float = 0.5,
        growth: float = 1.05,
        confidence_bound: float = 0.5,
    ) -> None:
        super().__init__(weights, exits)
        if not 0 <= alpha < 1:
            raise ValueError(f"alpha is {alpha}; it must be in [0, 1)")
        self.alpha = alpha
        self.growth = growth
        self.confidence_bound = confidence_bound
        self.register_buffer("temperature", torch.tensor(1.0))

    def forward(
        self, logits: Sequence[Tensor], features: Sequence[Tensor], targets: Tensor
    ) -> Tensor:
        """The loss, a scalar; in training mode the temperature then moves on."""
        loss = super().forward(logits, features, targets)
        if self.training:
            self._anneal(logits[-1].detach())
        return loss

    def _anneal(self, teacher: Tensor) -> None:
        if self.confidence_bound * teacher.shape[1] <= 1:
            return  # no temperature brings two classes under 1/2: it would grow for ever
        confidence = F.softmax(teacher / self.temperature, dim=1).amax(dim=1).mean()
        if confidence > self.confidence_bound:
            # Not in place: the backward pass of this batch still needs the old value.
            self.temperature = self.temperature * self.growth

    def of_exit(
        self, exit: int, logits: Sequence[Tensor], features: Sequence[Tensor], targets: Tensor
    ) -> Tensor:
        """Cross entropy, and for an early exit its distance from the teacher."""
        loss = F.cross_entropy(logits[exit - 1], targets)
        if exit == len(logits):
            return loss
        # T**2 undoes the softening's shrinking of the gradient (Hinton et al. 2015, section 2).
        divergence = softened_divergence(logits[exit - 1], logits[-1], self.temperature)
        return loss + self.alpha / (1 - self.alpha) * self.temperature**2 * divergence


class BeYourOwnTeacher(ExitLoss):
    """Early exits learn labels, the last exit's outputs and its feature (Zhang et al. 2019, 3.2).

    The loss of an early exit is (1 - alpha) CE + alpha * divergence + hint_weight * squared
    distance, of the last exit CE. The distance is that of the last exit's feature from the early
    exit's own, which a linear adapter brings to the same width. The adapters are this module's
    parameters: train them with the network, then throw them away.

    The distance is the paper's, squared, with its mean over the samples, at every early exit that
    trains. The authors' code (``train.py`` in pytorch-self-distillation-final of
    ArchipLab-LinfengZhang) takes the norm of the whole batch's differences, not squared, and
    leaves out one early exit. Only the number 0.03 is from there: it was chosen for that function,
    and has not been tuned for this one.

    Args:
        feature_widths: width F_k of every exit's feature, earliest first.
        alpha: share of the distillation, in [0, 1]; the authors' code has 0.3.
        hint_weight: the paper's lambda; 0.03 is what the authors' code has before its other
            distance.
        temperature: of both softened outputs; the authors' code has 3.
        seed: of the adapters' initial weights; the global random numbers are left as they were.

    Raises:
        ValueError: ``alpha`` is not in [0, 1].
    """

    def __init__(
        self,
        weights: Sequence[float],
        feature_widths: Sequence[int],
        exits: Sequence[int] | None = None,
        alpha: float = 0.3,
        hint_weight: float = 0.03,
        temperature: float = 3.0,
        seed: int = 0,
    ) -> None:
        super().__init__(weights, exits)
        if not 0 <= alpha <= 1:
            raise ValueError(f"alpha is {alpha}; it must be in [0, 1]")
        self.alpha = alpha
        self.hint_weight = hint_weight
        self.temperature = temperature
        self.adapters = nn.ModuleDict()
        for exit in self.exits:
            if exit < len(feature_widths):
                # From a seed of its own: the same, whichever other exits train with it.
                with torch.random.fork_rng(devices=[]):
                    torch.manual_seed(seed * len(feature_widths) + exit)
                    adapter = nn.Linear(feature_widths[exit - 1], feature_widths[-1])
                self.adapters[str(exit)] = adapter

    def of_exit(
        self, exit: int, logits: Sequence[Tensor], features: Sequence[Tensor], targets: Tensor
    ) -> Tensor:
        """Cross entropy, for an early exit mixed with its distances from the teacher."""
        loss = F.cross_entropy(logits[exit - 1], targets)
        if exit == len(logits):
            return loss
        divergence = softened_divergence(logits[exit - 1], logits[-1], self.temperature)
        # In fp32 whatever autocast made of the features: a squared distance of bf16 is coarse.
        adapted: Tensor = self.adapters[str(exit)](features[exit - 1].float()).float()
        hint = (adapted - features[-1].detach().float()).square().sum(dim=1).mean()
        return (1 - self.alpha) * loss + self.alpha * divergence + self.hint_weight * hint


#: The losses by their names in YAML.
LOSSES: dict[str, type[ExitLoss]] = {
    "cross_entropy": WeightedCrossEntropy,
    "exit_distillation": ExitDistillation,
    "byot": BeYourOwnTeacher,
}


def build_loss(
    name: str,
    weights: Sequence[float],
    exits: Sequence[int],
    feature_widths: Sequence[int],
    seed: int = 0,
) -> ExitLoss:
    """Build a loss with its paper's settings; give its parameters to the optimiser.

    Args:
        name: one of ``LOSSES``.
        weights: of every exit's loss, earliest first.
        exits: those that train, numbered from 1.
        feature_widths: width of every exit's feature, earliest first.
        seed: of the initial weights of what the loss itself trains.

    Raises:
        KeyError: there is no loss of this ``name``.
    """
    kind = LOSSES[name]
    if kind is BeYourOwnTeacher:
        return BeYourOwnTeacher(weights, feature_widths, exits, seed=seed)
    return kind(weights, exits)
