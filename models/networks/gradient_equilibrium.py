"""Gradient equilibrium: keep a trunk's gradient from growing with the exits behind it.

Where K exits' losses are summed, the trunk before exit k receives K - k + 1 gradients, and the
earliest layers are pulled the most. Scaled as here, it receives their mean instead (Li, Zhang, Qi,
Yang & Huang 2019, "Improved Techniques for Training Adaptive Deep Networks", ICCV, section 3.1).
Nothing changes in the forward pass, and a branch's own weights receive their full gradient.
"""

from __future__ import annotations

from typing import Any, TypeVar

import torch
from torch import Tensor

State = TypeVar("State", Tensor, tuple[Tensor, ...])


class _ScaleGradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, factor: float) -> Tensor:
        ctx.factor = factor
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return gradients[0] * ctx.factor, None


def scale_gradient(x: State, factor: float) -> State:
    """``x`` itself in the forward pass; the gradient that comes back is multiplied by ``factor``.

    The result shares its memory with ``x``, whose dtype and memory format it and its gradient
    keep; autograd refuses to let an operation change it in place.

    Args:
        x: a tensor of any shape, or a tuple of tensors.
    """
    if isinstance(x, tuple):
        # A state may hold sizes and the like beside its tensors.
        return tuple(scale_gradient(part, factor) if torch.is_tensor(part) else part for part in x)
    scaled: Tensor = _ScaleGradient.apply(x, factor)
    return scaled


def equilibrium_factors(exit: int, exit_count: int) -> tuple[float, float]:
    """Factors of the gradients that meet at exit k = ``exit`` of K = ``exit_count``.

    Returns:
        (to_branch, to_trunk) = (1 / (K - k + 1), (K - k) / (K - k + 1)): the first for the
        gradient that the branch sends back into the trunk, the second for the gradient that
        arrives from the segments behind. They sum to 1, so that a running mean results.

    Raises:
        ValueError: ``exit`` is not in 1 to ``exit_count``.
    """
    if not 1 <= exit <= exit_count:
        raise ValueError(f"exit {exit} is not one of 1 to {exit_count}")
    behind = exit_count - exit
    return 1 / (behind + 1), behind / (behind + 1)
