"""A network as ONNX models: one for each segment and for each exit's classifier, in memory."""

from __future__ import annotations

import contextlib
import itertools
import logging
import sys
import threading
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib import util
from typing import Any, TextIO, cast

import torch
from torch import Tensor, nn

from models.data.datasets import DatasetInfo
from models.errors import NetworkError, innermost_reason
from models.inference.network_parts import NetworkParts, network_parts
from models.inference.runtimes import INSTALL_ONNX
from models.inference.state_layouts import StateLayout, TensorEntry
from models.networks.multi_exit import MultiExitNetwork

#: How many images the example has from which the export learns shapes.
_EXAMPLE_BATCH = 3


@dataclass(frozen=True)
class OnnxPart:
    """One model.

    Attributes:
        model: serialised; None where there is nothing to compute.
        inputs: its inputs by name, each with its place among the tensors before it.
        outputs: names of its outputs.
        places: for each tensor after it, the place in the list of its outputs followed by the
            tensors before it; what no operation changes goes on as it came.
    """

    model: bytes | None
    inputs: dict[str, int]
    outputs: list[str]
    places: list[int]


@dataclass(frozen=True)
class OnnxNetwork:
    """A network as ONNX models.

    Attributes:
        segments: from the tensors of one exit to those of the next; the first takes uint8 images.
        classifiers: from the first tensor at an exit to confidences (N,) and classes (N,).
        layouts: of the state at every exit, the input (exit 0) first.
        parts: from which it was exported.
    """

    segments: list[OnnxPart]
    classifiers: list[OnnxPart]
    layouts: list[StateLayout]
    parts: NetworkParts


def export_network(network: MultiExitNetwork, info: DatasetInfo) -> OnnxNetwork:
    """Export ``network``; takes seconds, most of them for the first of a process.

    Raises:
        NetworkError: packages are missing, or a part cannot be exported; the message says which.
    """
    for package in ("onnx", "onnxscript"):
        if util.find_spec(package) is None:
            raise NetworkError(
                f"runtime 'onnxruntime' needs the package {package} to export networks: "
                f"{INSTALL_ONNX}"
            )
    parts = network_parts(network, info, torch.contiguous_format)
    rehearsed = list(_rehearsed(parts, info))
    try:
        exported = _export(rehearsed)
    except Exception:
        # Whatever stops the exporter lies in one of the parts.
        for part in rehearsed:
            try:
                _export([part])
            except Exception as error:
                raise NetworkError(
                    f"{part.name} of {network.architecture.backbone} cannot be exported to ONNX: "
                    f"{innermost_reason(error)}\nUse runtime 'eager'."
                ) from error
        raise
    return OnnxNetwork(
        exported[: parts.exit_count], exported[parts.exit_count :], parts.layouts, parts
    )


@dataclass(frozen=True)
class _Rehearsed:
    """A part, what it was given once, and what it made of it.

    Attributes:
        number: tells its inputs and outputs from those of others.
        entries: of its inputs.
        made: its outputs that are no inputs, each once.
        places: see :class:`OnnxPart`.
    """

    number: int
    name: str
    part: nn.Module
    inputs: tuple[Tensor, ...]
    entries: tuple[TensorEntry, ...]
    made: list[Tensor]
    places: list[int]

    @property
    def input_names(self) -> list[str]:
        return [f"part_{self.number}_input_{index}" for index in range(len(self.inputs))]

    @property
    def output_names(self) -> list[str]:
        return [f"part_{self.number}_output_{index}" for index in range(len(self.made))]


def _rehearsed(parts: NetworkParts, info: DatasetInfo) -> Iterator[_Rehearsed]:
    """All segments, then all classifiers, with an example of what they compute."""
    tensors: tuple[Tensor, ...] = (
        torch.zeros(_EXAMPLE_BATCH, *info.input_shape, dtype=torch.uint8),
    )
    reached = []
    for exit, segment in enumerate(parts.segments, start=1):
        entries = parts.layouts[exit - 1].travelling
        rehearsed = _rehearse(exit, f"segment {exit}", segment, tensors, entries)
        tensors = tuple([*rehearsed.made, *rehearsed.inputs][place] for place in rehearsed.places)
        reached.append(tensors[:1])
        yield rehearsed
    for exit, classifier in enumerate(parts.classifiers, start=1):
        entries = parts.layouts[exit].travelling[:1]
        number, name = parts.exit_count + exit, f"the classifier of exit {exit}"
        yield _rehearse(number, name, classifier, reached[exit - 1], entries)


def _rehearse(
    number: int,
    name: str,
    part: nn.Module,
    inputs: tuple[Tensor, ...],
    entries: tuple[TensorEntry, ...],
) -> _Rehearsed:
    # The exporter takes one tensor in two places for one input.
    inputs = tuple(tensor.clone() for tensor in inputs)
    with torch.no_grad():
        outputs = part(*inputs)
    made: list[Tensor] = []
    for output in outputs:
        if not any(output is known for known in (*made, *inputs)):
            made.append(output)
    known = [*made, *inputs]
    places = [next(at for at, one in enumerate(known) if one is output) for output in outputs]
    return _Rehearsed(number, name, part, inputs, entries, made, places)


class _SideBySide(nn.Module):
    """Parts that have nothing to do with one another, exported together.

    Every export takes a second or more to prepare, whatever it exports.
    """

    def __init__(self, rehearsed: Sequence[_Rehearsed]) -> None:
        super().__init__()
        self.parts = nn.ModuleList(one.part for one in rehearsed)
        self.counts = [len(one.inputs) for one in rehearsed]
        # Of each part's outputs, those that are made by it.
        self.kept = [[one.places.index(at) for at in range(len(one.made))] for one in rehearsed]

    def forward(self, inputs: list[Tensor]) -> list[Tensor]:
        """What each part makes, one after the other, of the inputs of all."""
        left = iter(inputs)
        made = []
        for part, count, kept in zip(self.parts, self.counts, self.kept, strict=True):
            outputs = part(*itertools.islice(left, count))
            made += [outputs[at] for at in kept]
        return made


def _export(rehearsed: Sequence[_Rehearsed]) -> list[OnnxPart]:
    from onnx.utils import Extractor

    inputs = [tensor for one in rehearsed for tensor in one.inputs]
    shapes: list[dict[int, Any]] = []
    for one in rehearsed:
        batch = torch.export.Dim(f"batch_{one.number}")
        for entry in one.entries:
            size = batch if entry.per_image == 1 else entry.per_image * batch
            shapes.append({} if entry.dim is None else {entry.dim: size})
    with _quiet_exporter(), torch.no_grad():
        program = torch.export.export(
            _SideBySide(rehearsed).eval(), (inputs,), dynamic_shapes=(shapes,), strict=False
        )
        onnx_program = torch.onnx.export(
            program,
            dynamo=True,
            input_names=[name for one in rehearsed for name in one.input_names],
            output_names=[name for one in rehearsed for name in one.output_names],
            verbose=False,
        )
        assert onnx_program is not None
        extractor = Extractor(onnx_program.model_proto)
    return [_extracted(one, extractor) for one in rehearsed]


def _extracted(rehearsed: _Rehearsed, extractor: Any) -> OnnxPart:
    """The model of one part alone."""
    names, outputs = rehearsed.input_names, rehearsed.output_names
    if not outputs:
        return OnnxPart(None, {}, [], rehearsed.places)
    model = extractor.extract_model(names, outputs)
    taken = {name for node in model.graph.node for name in node.input}
    inputs = {name: place for place, name in enumerate(names) if name in taken}
    for given in [given for given in model.graph.input if given.name not in taken]:
        model.graph.input.remove(given)
    return OnnxPart(model.SerializeToString(), inputs, outputs, rehearsed.places)


class _OtherThreads:
    """A stream that takes what other threads than the present one write, such as progress bars."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._silent = threading.get_ident()

    def write(self, text: str) -> int:
        """Write ``text``, or nothing."""
        if threading.get_ident() == self._silent:
            return len(text)
        return self._stream.write(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@contextlib.contextmanager
def _quiet_exporter() -> Iterator[None]:
    """The exporter's own remarks, printed, logged and warned of, are not a user's."""
    loggers = [logging.getLogger(name) for name in ("torch", "onnxscript", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    try:
        with (
            warnings.catch_warnings(),
            contextlib.redirect_stdout(cast(TextIO, _OtherThreads(sys.stdout))),
            contextlib.redirect_stderr(cast(TextIO, _OtherThreads(sys.stderr))),
        ):
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
