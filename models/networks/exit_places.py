"""Where exits can be attached: what can be answered from there, and what it costs to get there."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from models.errors import NetworkError
from models.networks.segments import classifier_input, places_not_passed_by
from models.networks.tracing import Traced


@contextmanager
def flop_counter() -> Iterator[FlopCounterMode]:
    """Counts the FLOPs of what runs inside; a multiply-accumulate counts as two."""
    fused = torch.backends.mha.get_fastpath_enabled()
    # The counter knows neither the fused attention of inference mode nor, in some versions, that
    # of processors; as matrix products it counts attention everywhere.
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with (
            torch.no_grad(),
            sdpa_kernel(SDPBackend.MATH),
            FlopCounterMode(display=False) as counter,
        ):
            yield counter
    finally:
        torch.backends.mha.set_fastpath_enabled(fused)


class Rehearsal(fx.Interpreter):
    """Runs a traced network on one image, and notes what each operation gives.

    Attributes:
        flops: spent up to and including each operation.
        values: the result of each operation.
    """

    def __init__(self, traced: Traced, image: Tensor) -> None:
        super().__init__(fx.GraphModule(traced.module, traced.graph))
        self.flops: dict[fx.Node, int] = {}
        self.values: dict[fx.Node, Any] = {}
        with flop_counter() as self._counter:
            self.run(image)

    def run_node(self, n: fx.Node) -> Any:
        """Run one operation."""
        result = super().run_node(n)
        self.flops[n] = self._counter.get_total_flops()
        self.values[n] = result
        return result


def is_activation(value: Any, image: Tensor) -> bool:
    """Whether a branch can be attached to ``value``, computed from ``image`` (1, C, H, W).

    Feature maps with channels first or last, tokens, or a vector.
    """
    if not torch.is_tensor(value) or not value.is_floating_point() or len(value) != len(image):
        return False
    if value.ndim != 4 or image.shape[2] != image.shape[3]:
        return 2 <= value.ndim <= 4
    return value.shape[2] == value.shape[3] or value.shape[1] == value.shape[2]


#: Layers that take channels first, and last.
_CHANNELS_FIRST = (
    nn.Conv2d,
    nn.BatchNorm2d,
    nn.InstanceNorm2d,
    nn.GroupNorm,
    nn.MaxPool2d,
    nn.AvgPool2d,
    nn.AdaptiveAvgPool2d,
)
_CHANNELS_LAST = (nn.LayerNorm, nn.Linear)
#: What becomes of feature maps by a permutation: channels last, or first.
_PERMUTED: dict[tuple[Any, ...], bool] = {(0, 2, 3, 1): True, (0, 3, 1, 2): False}


def keeps_channels_last(traced: Traced, node: fx.Node) -> bool | None:
    """Whether feature maps at an operation have their channels last; None: nothing tells.

    The nearest layer or permutation before it tells, which takes or gives them on one side.
    """
    seen: set[fx.Node] = set()
    here = [node]
    while here:
        for one in here:
            told = _told_channels_last(traced, one)
            if told is not None:
                return told
        seen.update(here)
        before = [source for one in here for source in one.all_input_nodes]
        here = [source for source in dict.fromkeys(before) if source not in seen]
    return None


def _told_channels_last(traced: Traced, node: fx.Node) -> bool | None:
    layer = traced.module.get_submodule(str(node.target)) if node.op == "call_module" else None
    if isinstance(layer, _CHANNELS_FIRST):
        return False
    if isinstance(layer, _CHANNELS_LAST):
        return True
    if node.target in ("permute", torch.permute):
        given: Any = node.kwargs.get("dims") or node.args[1:]
        axes = given[0] if isinstance(given[0], tuple | list) else given
        return _PERMUTED.get(tuple(axis % 4 for axis in axes if isinstance(axis, int)))
    return None


def place_by_flops(traced: Traced, image: Tensor, shares: Sequence[float]) -> list[str]:
    """Names of the operations after which the spent share of the FLOPs is nearest to ``shares``.

    Only operations that nothing else by-passes are considered, so that no exit sits inside a
    block: cuts that cross no skip connection.

    Raises:
        NetworkError: there are not enough such places, or two shares fall on the same.
    """
    rehearsal = Rehearsal(traced, image)
    spent = rehearsal.flops
    total = max(spent.values())
    last = classifier_input(traced)
    # What costs as much as to reach the network's own classifier is that classifier's place.
    reached = total if last is None else spent[last]
    free = places_not_passed_by(traced)
    candidates = [
        node
        for node in traced.names
        if 0 < spent[node] < reached
        and is_activation(rehearsal.values[node], image)
        and node in free
    ]
    costs = sorted({spent[node] for node in candidates})
    chosen: list[int] = []
    for share in shares:
        nearest = min([*costs, reached], key=lambda cost: abs(cost / total - share))
        if nearest == reached or (chosen and nearest <= chosen[-1]):
            places = ", ".join(dict.fromkeys(f"{cost / total:.3f}" for cost in costs)) or "none"
            raise NetworkError(
                f"there is no place of its own for an exit at {share:g} of the FLOPs; "
                f"{type(traced.module).__name__} can be cut between its blocks at {places}"
            )
        chosen.append(nearest)
    # Of places with equal cost, such as a convolution and the activation after it, the last.
    return [
        traced.names[[node for node in candidates if spent[node] == cost][-1]] for cost in chosen
    ]
