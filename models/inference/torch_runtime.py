"""Runtimes on PyTorch: operation by operation, or compiled."""

from __future__ import annotations

import logging
import types
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from models.data.datasets import DatasetInfo
from models.errors import NetworkError, innermost_reason
from models.inference.network_parts import ClassifierPart, NetworkParts, SegmentPart, network_parts
from models.inference.runtimes import InferenceSettings, warm_up
from models.inference.state_layouts import Reached
from models.networks.multi_exit import MultiExitNetwork

#: A segment, or a classifier, as a function of tensors.
Run = Callable[..., tuple[Tensor, ...]]

#: How many images the code for any number of them is compiled with.
_EXAMPLE_BATCH = 3


def build_torch_runtime(
    network: MultiExitNetwork,
    info: DatasetInfo,
    settings: InferenceSettings,
    batch_sizes: Sequence[int] = (1,),
) -> TorchRuntime:
    """See :func:`models.inference.runtimes.build_runtime`."""
    with thread_count(settings.threads):
        parts = network_parts(network, info)
        if settings.precision == "bf16":
            _store_weights_as_bf16(parts.network)
        runtime = TorchRuntime(parts, settings)
        if settings.runtime == "compile":
            runtime.compile(info.input_shape, any_batch=max(batch_sizes) > 1)
        warm_up(runtime, info.input_shape, batch_sizes)
    return runtime


@contextmanager
def thread_count(count: int) -> Iterator[None]:
    """Torch computes with ``count`` threads inside, and as before after."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


class TorchRuntime:
    """A network's parts computed by PyTorch.

    The state is made of tensors, images in channels_last.

    Attributes:
        name: ``eager`` or ``compile``.
        exit_count: the backbone's own classifier included.
    """

    def __init__(self, parts: NetworkParts, settings: InferenceSettings) -> None:
        self.name = settings.runtime
        self.exit_count = parts.exit_count
        self._parts = parts
        self._threads = settings.threads
        self._bf16 = settings.precision == "bf16"
        # For a single image, and for any number of them.
        self._segments: tuple[Sequence[Run], ...] = (parts.segments, parts.segments)
        self._classifiers: tuple[Sequence[Run], ...] = (parts.classifiers, parts.classifiers)

    def start(self, images: NDArray[np.uint8]) -> Reached:
        """See :class:`~models.inference.runtimes.SegmentRuntime`."""
        if not images.flags.writeable:  # a tensor cannot be told so
            images = images.copy()
        return Reached(0, (torch.from_numpy(np.ascontiguousarray(images)),))

    def run_segment(self, exit: int, state: Reached) -> Reached:
        """See :class:`~models.inference.runtimes.SegmentRuntime`."""
        with torch.inference_mode(), self._precision():
            run = self._segments[self._is_batch(state)][exit - 1]
            return Reached(exit, run(*state.tensors))

    def classify(self, exit: int, state: Reached) -> tuple[list[float], list[int]]:
        """See :class:`~models.inference.runtimes.SegmentRuntime`."""
        with torch.inference_mode(), self._precision():
            run = self._classifiers[self._is_batch(state)][exit - 1]
            confidences, classes = run(state.tensors[0])
            # Rounding may have left a confidence just above 1.
            return [min(one, 1.0) for one in confidences.tolist()], classes.tolist()

    def join(self, states: Sequence[Reached]) -> Reached:
        """See :class:`~models.inference.runtimes.SegmentRuntime`."""
        exit = states[0].exit
        layout = self._parts.layouts[exit]
        with torch.inference_mode():
            joined = layout.join([state.tensors for state in states], torch.cat)
            return Reached(exit, layout.dense(joined))

    def take(self, state: Reached, rows: Sequence[int]) -> Reached:
        """See :class:`~models.inference.runtimes.SegmentRuntime`."""
        layout = self._parts.layouts[state.exit]
        with torch.inference_mode():
            taken = layout.take(state.tensors, rows, _select)
            return Reached(state.exit, layout.dense(taken))

    def prepare_thread(self) -> None:
        """Set the number of torch's threads, which OpenMP keeps for each thread."""
        torch.set_num_threads(self._threads)

    def compile(self, input_shape: tuple[int, int, int], any_batch: bool) -> None:
        """Compile all parts, for single images and, with ``any_batch``, for any number of them.

        Raises:
            NetworkError: there is no compiler, or it cannot compile a part.
        """
        from torch._inductor import config

        # Each part is one file of C++: nothing to compile side by side, in processes of their own.
        with _quiet_compiler(), config.patch(compile_threads=1):
            self._compile(input_shape, batch=False)
            if any_batch:
                self._compile(input_shape, batch=True)

    def _compile(self, input_shape: tuple[int, int, int], batch: bool) -> None:
        segments: list[Run] = []
        classifiers: list[Run] = []
        count = _EXAMPLE_BATCH if batch else 1
        tensors: tuple[Tensor, ...] = (torch.zeros(count, *input_shape, dtype=torch.uint8),)
        for exit, layout in enumerate(self._parts.layouts[:-1], start=1):
            segment, classifier = self._parts.segments[exit - 1], self._parts.classifiers[exit - 1]
            with torch.inference_mode(), self._precision():
                run = _compiled(segment, batch)
                marks = [entry.dim for entry in layout.travelling]
                tensors = _first_run(run, tensors, marks if batch else [], f"segment {exit}")
                segments.append(run)
                run = _compiled(classifier, batch)
                dim = self._parts.layouts[exit].travelling[0].dim
                _first_run(run, tensors[:1], [dim] if batch else [], f"classifier {exit}")
                classifiers.append(run)
        if batch:
            self._segments = (self._segments[0], segments)
            self._classifiers = (self._classifiers[0], classifiers)
        else:
            self._segments = (segments, self._parts.segments)
            self._classifiers = (classifiers, self._parts.classifiers)

    def _is_batch(self, state: Reached) -> bool:
        return self._parts.layouts[state.exit].images(state.tensors) > 1

    def _precision(self) -> torch.autocast:
        return torch.autocast("cpu", torch.bfloat16, enabled=self._bf16, cache_enabled=False)


def _select(tensor: Tensor, indices: list[int], dim: int) -> Tensor:
    return tensor.index_select(dim, torch.tensor(indices))


def _store_weights_as_bf16(network: nn.Module) -> None:
    """Convert once what autocast would convert anew in every inference; the results are the same.

    Layers whose weights autocast leaves alone, such as norms, keep theirs.
    """
    for module in network.modules():
        if isinstance(module, nn.Linear | nn.modules.conv._ConvNd):
            module.to(torch.bfloat16)


# --- compiling -----------------------------------------------------------------------------------


def _compiled(part: SegmentPart | ClassifierPart, batch: bool) -> Run:
    """``part``'s forward, to be compiled when it is first called."""
    forward = type(part).forward
    # A code object of its own: the compiler keeps what it made by code object, and looks through
    # all that was made for others of the class at every call, up to a limit.
    kind = "batch" if batch else "single"
    code = forward.__code__.replace(co_name=f"{forward.__name__}_{part.exit}_{kind}")
    own = types.FunctionType(
        code, forward.__globals__, code.co_name, forward.__defaults__, forward.__closure__
    )
    # It is called with one kind of tensors alone, so no call need check what it was compiled for:
    # checking takes longer than many a segment, and could start the compiler while serving.
    options: dict[str, Any] = {"guard_filter_fn": torch.compiler.skip_all_guards_unsafe}
    run: Run = torch.compile(types.MethodType(own, part), fullgraph=True, options=options)
    return run


def _first_run(
    run: Run, tensors: tuple[Tensor, ...], dims: Sequence[int | None], name: str
) -> tuple[Tensor, ...]:
    """Compile ``run`` by calling it; ``dims`` of its arguments may have any size above 1."""
    for tensor, dim in zip(tensors, dims, strict=False):
        if dim is not None:
            torch._dynamo.mark_dynamic(tensor, dim)
    try:
        return run(*tensors)
    except Exception as error:
        if _lacks_compiler(error):
            raise NetworkError(
                "runtime 'compile' needs a C++ compiler (such as g++), and finds none: install "
                "one, name it in the environment variable CXX, or use runtime 'eager' or "
                "'onnxruntime'"
            ) from error
        raise NetworkError(
            f"torch.compile cannot compile {name} of this network: {innermost_reason(error)}\n"
            "Use runtime 'eager'."
        ) from error


def _lacks_compiler(error: BaseException) -> bool:
    from torch._inductor.exc import InvalidCxxCompiler

    inner = getattr(error, "inner_exception", error)
    return isinstance(inner, InvalidCxxCompiler)


@contextmanager
def _quiet_compiler() -> Iterator[None]:
    """The compiler's own remarks are not a user's."""
    loggers = [
        logging.getLogger(name)
        for name in ("torch._inductor", "torch._dynamo", "torch.utils.cpp_extension")
    ]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
