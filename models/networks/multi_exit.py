"""Multi-exit networks that run segment by segment and can resume where they stopped."""

from __future__ import annotations

import operator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F

from models.errors import NetworkError
from models.networks.architecture import Architecture
from models.networks.backbones import build_backbone
from models.networks.branches import build_branch, channels_last, frozen_prefix
from models.networks.exit_places import (
    flop_counter,
    is_activation,
    keeps_channels_last,
    place_by_flops,
)
from models.networks.segments import State, classifier_input, exit_cuts, split
from models.networks.tracing import Traced, trace

#: Pixels by which an image grows to tell channels from rows: a multiple of every usual stride.
_LARGER = 32

#: By which logits may differ where a processor sums in another order; nothing differs on most.
_SAME = 1e-4


class MultiExitNetwork(nn.Module):
    """A backbone cut into segments, with a classifier at the end of each.

    Exits are numbered from 1 (the earliest) to ``exit_count`` (the backbone's own classifier).
    Segment *k* leads from exit *k - 1*, or from the input, to exit *k*. What passes from one to
    the next is a state: a tuple of the activation at the exit and of every other value that later
    segments need, so that the backbone can be cut inside blocks too.

    Attributes:
        exit_nodes: names of the backbone's nodes after which the early exits sit.

    Raises:
        NetworkError: the backbone cannot be built or traced, an exit's node does not exist or
            does not lie where it should, or the network does not run on its images.
    """

    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        self.architecture = architecture
        self.backbone = build_backbone(architecture).eval()
        # Of a blank image, whose activations are equal, no mistake would be seen.
        noise = torch.randn(
            1, *architecture.input_shape, generator=torch.Generator().manual_seed(0)
        )
        image = self._resized(noise)
        # Before it is traced, for that takes operations out of place.
        whole = self._whole(image)
        traced = trace(self.backbone)
        self.exit_nodes = _exit_nodes(architecture, traced, image)
        before_classifier = classifier_input(traced)
        early = exit_cuts(traced, self.exit_nodes)
        position = {node: index for index, node in enumerate(traced.graph.nodes)}
        last_end = before_classifier or list(traced.graph.nodes)[-2]
        for name, cut in zip(self.exit_nodes, early, strict=True):
            if position[cut] >= position[last_end]:
                raise NetworkError(
                    f"node {name!r} lies where the backbone's own classifier begins, which is "
                    "the last exit already"
                )
        if before_classifier is None:
            self._segments = tuple(split(traced, early))
            self._last_classifier = None
        else:
            *segments, self._last_classifier = split(traced, [*early, before_classifier])
            self._segments = tuple(segments)
        activations = self._example_activations(image, whole)
        self.branches = nn.ModuleList(
            build_branch(
                architecture.branch,
                activation,
                architecture.classes,
                self._channels_last(exit, activation, image, traced, cut),
            )
            for exit, (activation, cut) in enumerate(zip(activations, early, strict=True), start=1)
        )
        #: Leading modules of each branch that hold no weights; see :func:`frozen_prefix`.
        self.frozen_prefixes = tuple(
            frozen_prefix(self.branch(exit)) for exit in range(1, self.exit_count)
        )
        self.train()

    @property
    def exit_count(self) -> int:
        """Number of exits, the backbone's own classifier included."""
        return len(self._segments)

    @property
    def device(self) -> torch.device:
        """Where its weights are."""
        return next(self.parameters()).device

    def branch(self, exit: int) -> nn.Sequential:
        """The classifier of early exit ``exit``."""
        branch: nn.Sequential = self.branches[exit - 1]  # type: ignore[assignment]
        return branch

    def start(self, images: Tensor) -> State:
        """The state before the first segment; images (N, C, H, W)."""
        return (self._resized(images),)

    def run_segment(self, exit: int, state: State) -> State:
        """The state at exit ``exit`` from the state at exit ``exit - 1``, or from ``start``."""
        return self._segments[exit - 1].run(self.backbone, *state)

    def classify(self, exit: int, state: State) -> Tensor:
        """Logits (N, classes) of exit ``exit`` from the state that its segment produced."""
        return self.last_layer(exit, self.features(exit, state))

    def features(self, exit: int, state: State) -> Tensor:
        """What the last layer of exit ``exit`` takes: (N, features) from the state there."""
        if exit == self.exit_count:
            return state[0]  # type: ignore[no-any-return]
        features: Tensor = self.branch(exit)[:-1](state[0])
        return features

    def last_layer(self, exit: int, features: Tensor) -> Tensor:
        """Logits (N, classes) of exit ``exit`` from its features."""
        if exit < self.exit_count:
            logits: Tensor = self.branch(exit)[-1](features)
            return logits
        if self._last_classifier is None:
            return features
        (logits,) = self._last_classifier.run(self.backbone, features)
        return logits

    def parts(self, exit: int) -> list[nn.Module | nn.Parameter]:
        """What segment ``exit`` computes with and no segment before it does.

        With the last segment goes the backbone's own classifier.
        """
        before = {name for segment in self._segments[: exit - 1] for name in segment.owns}
        owned = list(self._segments[exit - 1].owns)
        if exit == self.exit_count and self._last_classifier is not None:
            owned += self._last_classifier.owns
        return [self._part(name) for name in owned if name not in before]

    def classifier(self, exit: int) -> list[nn.Module | nn.Parameter]:
        """The modules that make logits at exit ``exit``, and nothing else."""
        if exit < self.exit_count:
            return [self.branch(exit)]
        owned = self._last_classifier.owns if self._last_classifier else ()
        return [self._part(name) for name in owned]

    def _part(self, name: str) -> nn.Module | nn.Parameter:
        part: nn.Module | nn.Parameter = operator.attrgetter(name)(self.backbone)
        return part

    def infer(self, images: Tensor, exit: int) -> Tensor:
        """Logits (N, classes) of ``exit`` alone; the exits before it are passed, not computed."""
        state = self.start(images)
        for segment in range(1, exit + 1):
            state = self.run_segment(segment, state)
        return self.classify(exit, state)

    def forward(self, images: Tensor) -> list[Tensor]:
        """Logits of every exit, earliest first; each (N, classes) from images (N, C, H, W)."""
        logits = []
        state = self.start(images)
        for exit in range(1, self.exit_count + 1):
            state = self.run_segment(exit, state)
            logits.append(self.classify(exit, state))
        return logits

    def _resized(self, images: Tensor) -> Tensor:
        size = self.architecture.resize
        if size is None:
            return images
        return F.interpolate(images, (size, size), mode="bilinear", align_corners=False)

    def _whole(self, image: Tensor) -> Any:
        """What the backbone gives for one image, uncut."""
        try:
            with torch.no_grad():
                return self.backbone(image.clone())
        except Exception as error:
            raise _does_not_run(self.architecture, image, error) from error

    def _example_activations(self, image: Tensor, whole: Any) -> list[Tensor]:
        """The activation of one image at each early exit.

        Args:
            whole: the backbone's own logits of that image.
        """
        activations = []
        state: State = (image,)
        last = self.exit_count
        shape = "x".join(str(size) for size in image.shape[1:])
        try:
            with torch.no_grad():
                for exit in range(1, last + 1):
                    state = self.run_segment(exit, state)
                    activations.append(state[0])
                logits = self.classify(last, state)
        except Exception as error:
            raise _does_not_run(self.architecture, image, error) from error
        for name, activation in zip(self.exit_nodes, activations, strict=False):
            if not is_activation(activation, image):
                found = tuple(activation.shape) if torch.is_tensor(activation) else activation
                raise NetworkError(
                    f"no exit can be attached after {name!r}: on {shape} images it gives "
                    f"{found}, and neither feature maps, nor tokens, nor a vector"
                )
        if not torch.is_tensor(logits) or logits.shape != (1, self.architecture.classes):
            found = tuple(logits.shape) if torch.is_tensor(logits) else type(logits).__name__
            raise NetworkError(
                f"{self.architecture.backbone} gives {found} for one image, and not logits of "
                f"shape (1, {self.architecture.classes})"
            )
        same = logits.is_meta or torch.allclose(logits, whole, _SAME, _SAME, equal_nan=True)
        if not same:
            raise NetworkError(
                f"{self.architecture.backbone} gives other logits in segments than whole: it may "
                "change a value in place of which it has a view, keep a state in forward, draw "
                "random numbers in inference, or have a hook on the whole network"
            )
        return activations[:-1]

    def _channels_last(
        self, exit: int, activation: Tensor, image: Tensor, traced: Traced, cut: fx.Node
    ) -> bool:
        """Whether the feature maps at an early exit, after ``cut``, have their channels last.

        Where there are as many channels as rows, a larger image tells: channels stay as many. In
        a network for one size of images alone, the layers before it tell.
        """
        told = channels_last(activation)
        if told is not None:
            return told
        state: State = (F.pad(image, (0, _LARGER, 0, _LARGER)),)
        try:
            with torch.no_grad():
                for segment in range(1, exit + 1):
                    state = self.run_segment(segment, state)
        except Exception:
            return bool(keeps_channels_last(traced, cut))
        _, first, _, last = state[0].shape
        return bool(first != activation.shape[1] and last == activation.shape[3])


def _exit_nodes(architecture: Architecture, traced: Traced, image: Tensor) -> tuple[str, ...]:
    named = [exit for exit in architecture.exits if isinstance(exit, str)]
    if len(named) == len(architecture.exits):
        return tuple(named)
    shares = [float(exit) for exit in architecture.exits]
    try:
        return tuple(place_by_flops(traced, image, shares))
    except NetworkError:
        raise
    except Exception as error:
        raise _does_not_run(architecture, image, error) from error


def _does_not_run(architecture: Architecture, image: Tensor, error: Exception) -> NetworkError:
    """Whatever a backbone raises on images of this shape."""
    shape = "x".join(str(size) for size in image.shape[1:])
    return NetworkError(f"{architecture.backbone} does not run on {shape} images: {error}")


def build_network(architecture: Architecture, seed: int) -> MultiExitNetwork:
    """Build a network whose initial weights depend on ``architecture`` and ``seed`` alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return MultiExitNetwork(architecture)


@dataclass(frozen=True)
class ExitCost:
    """What an answer at one exit costs.

    Attributes:
        exit: its number.
        node: where it sits; empty for the last.
        parameters: of the segments up to the exit and of its own classifier.
        flops: of one image up to and including its own classifier; a multiply-accumulate is two.
        state_bytes: of what must be kept, or sent, to resume after the exit; fp32, one image.
    """

    exit: int
    node: str
    parameters: int
    flops: int
    state_bytes: int


def exit_costs(network: MultiExitNetwork) -> list[ExitCost]:
    """Costs of every exit, earliest first."""
    state = network.start(torch.zeros(1, *network.architecture.input_shape))
    flops, costs = 0, []
    passed: list[nn.Module | nn.Parameter] = []
    was_training = network.training
    network.eval()
    for exit in range(1, network.exit_count + 1):
        with flop_counter() as counter:
            state = network.run_segment(exit, state)
        flops += counter.get_total_flops()
        with flop_counter() as counter:
            network.classify(exit, state)
        passed += network.parts(exit)
        used = parameters_of([*passed, *network.classifier(exit)])
        costs.append(
            ExitCost(
                exit=exit,
                node=[*network.exit_nodes, ""][exit - 1],
                parameters=sum(parameter.numel() for parameter in used),
                flops=flops + counter.get_total_flops(),
                state_bytes=sum(4 * value.numel() for value in state if torch.is_tensor(value)),
            )
        )
    network.train(was_training)
    return costs


def parameters_of(parts: list[nn.Module | nn.Parameter]) -> list[nn.Parameter]:
    """The parameters of ``parts``, each once."""
    found: dict[int, nn.Parameter] = {}
    for part in parts:
        for parameter in part.parameters() if isinstance(part, nn.Module) else [part]:
            if isinstance(parameter, nn.Parameter):  # and no buffer
                found[id(parameter)] = parameter
    return list(found.values())
