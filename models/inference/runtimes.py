"""Runtimes: what computes a multi-exit network segment by segment, where it serves or is measured.

A node and the profiler use the same runtime in the same way, from uint8 images to class and
confidence; so a profile times what will serve. This module is free of torch: each runtime's own
module is imported when one is built.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from models.errors import NetworkError

if TYPE_CHECKING:
    from models.data.datasets import DatasetInfo
    from models.networks.multi_exit import MultiExitNetwork

#: PyTorch operation by operation; PyTorch's compiler; ONNX Runtime.
RUNTIMES = ("eager", "compile", "onnxruntime")

#: What installs ONNX Runtime, and what exports networks to it.
INSTALL_ONNX = "pip install 'offramp[onnx]'"


@dataclass(frozen=True)
class InferenceSettings:
    """How a network is computed.

    Attributes:
        runtime: one of :data:`RUNTIMES`.
        precision: ``fp32`` or ``bf16`` (autocast; not with ONNX Runtime).
        threads: of one inference.
    """

    runtime: str = "eager"
    precision: str = "fp32"
    threads: int = 1


class SegmentRuntime(Protocol):
    """Computes a network from exit to exit; safe to use by several threads at once.

    A state holds one or more images as far as an exit, or before the first. Only the runtime
    that made it can read it; none of the methods changes the states it is given.

    Attributes:
        name: one of :data:`RUNTIMES`.
        exit_count: the backbone's own classifier included.
    """

    name: str
    exit_count: int

    def start(self, images: NDArray[np.uint8]) -> Any:
        """The state before the first segment; images (N, C, H, W), normalised by the runtime.

        The state may share the images' memory: they must not be written to while it is in use.
        """

    def run_segment(self, exit: int, state: Any) -> Any:
        """The state at ``exit`` from the state at ``exit - 1``, or from :meth:`start`."""

    def classify(self, exit: int, state: Any) -> tuple[list[float], list[int]]:
        """Confidence (largest softmax probability) and class of each image at ``exit``."""

    def join(self, states: Sequence[Any]) -> Any:
        """One state of all images of ``states``, which have come equally far, in that order."""

    def take(self, state: Any, rows: Sequence[int]) -> Any:
        """A state of the images at ``rows`` of ``state`` alone, in that order."""

    def prepare_thread(self) -> None:
        """Make the calling thread's settings fit; each thread calls it once before others."""


def build_runtime(
    network: MultiExitNetwork,
    info: DatasetInfo,
    settings: InferenceSettings,
    batch_sizes: Sequence[int] = (1,),
) -> SegmentRuntime:
    """A runtime for a copy of ``network``, warmed up.

    Args:
        info: says how images are normalised.
        batch_sizes: of what it will compute. ``compile`` makes code for single images, and other
            code for any number of them where one of these sizes is above 1.

    Raises:
        NetworkError: the runtime is not installed, has no compiler, cannot compute this network,
            or not in this precision.
    """
    if settings.runtime == "onnxruntime":
        from models.inference.onnx_runtime import build_onnx_runtime

        return build_onnx_runtime(network, info, settings, batch_sizes)
    if settings.runtime in RUNTIMES:
        from models.inference.torch_runtime import build_torch_runtime

        return build_torch_runtime(network, info, settings, batch_sizes)
    raise NetworkError(
        f"no runtime is called {settings.runtime!r} (allowed: {', '.join(RUNTIMES)})"
    )


def warm_up(
    runtime: SegmentRuntime,
    input_shape: tuple[int, int, int],
    batch_sizes: Sequence[int],
    rounds: int = 3,
) -> None:
    """Compute every exit of images of noise, ``rounds`` times for each batch size.

    Raises:
        NetworkError: a confidence is not finite: the weights are no trained network's.
    """
    generator = np.random.default_rng(0)
    for count in batch_sizes:
        images = generator.integers(0, 256, (count, *input_shape), dtype=np.uint8)
        for _ in range(rounds):
            state = runtime.start(images)
            for exit in range(1, runtime.exit_count + 1):
                state = runtime.run_segment(exit, state)
                confidences, _ = runtime.classify(exit, state)
                if not np.isfinite(confidences).all():
                    raise NetworkError(
                        f"exit {exit} answers with confidence {confidences[0]:g}: its weights are "
                        "not those of a network that can be used"
                    )
