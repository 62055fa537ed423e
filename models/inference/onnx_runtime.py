"""The runtime on ONNX Runtime: one session for each segment and each exit's classifier."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import util
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.data.datasets import DatasetInfo
from models.errors import NetworkError
from models.inference.onnx_export import OnnxNetwork, OnnxPart, export_network
from models.inference.runtimes import INSTALL_ONNX, InferenceSettings, SegmentRuntime, warm_up
from models.inference.state_layouts import Reached
from models.networks.multi_exit import MultiExitNetwork

#: By how much a confidence may differ from PyTorch's: other orders of summation, and no more.
_TOLERANCE = 1e-3


def build_onnx_runtime(
    network: MultiExitNetwork,
    info: DatasetInfo,
    settings: InferenceSettings,
    batch_sizes: Sequence[int] = (1,),
) -> OnnxRuntime:
    """See :func:`models.inference.runtimes.build_runtime`."""
    if util.find_spec("onnxruntime") is None:
        raise NetworkError(f"runtime 'onnxruntime' is not installed: {INSTALL_ONNX}")
    if settings.precision != "fp32":
        raise NetworkError(f"runtime 'onnxruntime' computes in fp32, not {settings.precision}")
    exported = export_network(network, info)
    runtime = OnnxRuntime(exported, settings.threads)
    warm_up(runtime, info.input_shape, batch_sizes)
    _check_agreement(runtime, exported, info)
    return runtime


class OnnxRuntime:
    """An exported network computed by ONNX Runtime.

    The state is made of numpy arrays.

    Attributes:
        name: ``onnxruntime``.
        exit_count: the backbone's own classifier included.
    """

    def __init__(self, exported: OnnxNetwork, threads: int) -> None:
        self.name = "onnxruntime"
        self.exit_count = len(exported.segments)
        self._layouts = exported.layouts
        self._segments = [_Session(part, threads) for part in exported.segments]
        self._classifiers = [_Session(part, threads) for part in exported.classifiers]

    def start(self, images: NDArray[np.uint8]) -> Reached:
        """See :class:`~models.inference.runtimes.SegmentRuntime`."""
        return Reached(0, (images,))

    def run_segment(self, exit: int, state: Reached) -> Reached:
        """See :class:`~models.inference.runtimes.SegmentRuntime`."""
        return Reached(exit, self._segments[exit - 1].run(state.tensors))

    def classify(self, exit: int, state: Reached) -> tuple[list[float], list[int]]:
        """See :class:`~models.inference.runtimes.SegmentRuntime`."""
        confidences, classes = self._classifiers[exit - 1].run(state.tensors)
        # Rounding may have left a confidence just above 1.
        return [min(one, 1.0) for one in confidences.tolist()], classes.tolist()

    def join(self, states: Sequence[Reached]) -> Reached:
        """See :class:`~models.inference.runtimes.SegmentRuntime`."""
        exit = states[0].exit
        joined = self._layouts[exit].join([state.tensors for state in states], np.concatenate)
        return Reached(exit, joined)

    def take(self, state: Reached, rows: Sequence[int]) -> Reached:
        """See :class:`~models.inference.runtimes.SegmentRuntime`."""
        return Reached(state.exit, self._layouts[state.exit].take(state.tensors, rows, np.take))

    def prepare_thread(self) -> None:
        """Sessions have threads of their own: nothing to do."""


class _Session:
    """One model, ready to run."""

    def __init__(self, part: OnnxPart, threads: int) -> None:
        import onnxruntime

        self._inputs = list(part.inputs.items())
        self._outputs = part.outputs
        self._places = part.places
        self._session: Any = None
        if part.model is not None:
            options = onnxruntime.SessionOptions()
            options.intra_op_num_threads = threads
            options.inter_op_num_threads = 1
            # Threads that wait for work by spinning would take the cores from all else.
            options.add_session_config_entry("session.intra_op.allow_spinning", "0")
            options.log_severity_level = 3  # errors, which are raised too
            self._session = onnxruntime.InferenceSession(
                part.model, options, providers=["CPUExecutionProvider"]
            )

    def run(self, tensors: tuple[Any, ...]) -> tuple[Any, ...]:
        """The tensors after the part from those before it."""
        made: list[Any] = []
        if self._session is not None:
            made = self._session.run(
                self._outputs, {name: tensors[place] for name, place in self._inputs}
            )
        known = (*made, *tensors)
        return tuple([known[place] for place in self._places])


def _check_agreement(runtime: SegmentRuntime, exported: OnnxNetwork, info: DatasetInfo) -> None:
    """Whether ``runtime`` answers as the network it was exported from, image by image."""
    from models.inference.torch_runtime import TorchRuntime

    eager = TorchRuntime(exported.parts, InferenceSettings())
    generator = np.random.default_rng(1)
    for count in (1, 2):
        images = generator.integers(0, 256, (count, *info.input_shape), dtype=np.uint8)
        state, expected_state = runtime.start(images), eager.start(images)
        for exit in range(1, runtime.exit_count + 1):
            state = runtime.run_segment(exit, state)
            expected_state = eager.run_segment(exit, expected_state)
            found, _ = runtime.classify(exit, state)
            expected, _ = eager.classify(exit, expected_state)
            if not np.allclose(found, expected, rtol=0, atol=_TOLERANCE):
                raise NetworkError(
                    f"exported to ONNX, exit {exit} answers {count} image(s) with confidence "
                    f"{found}, and not {expected} as the network does; use runtime 'eager'"
                )
