"""What a state holds of each image, so that states can be joined, taken apart and exported.

A state between two segments may hold, beside activations, tensors with the batch in another
dimension or spread over one (windows of attention), tensors that no image changes, sizes, and
tuples of all these. A layout says which is which: it is found by running the network on batches of
one, two and three images. What travels between the segments of a runtime are the tensors alone;
the rest is the same for every batch, or follows from the number of images.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from models.errors import NetworkError
from models.networks.multi_exit import MultiExitNetwork
from models.networks.segments import State


@dataclass(frozen=True)
class TensorEntry:
    """A tensor.

    Attributes:
        dim: the dimension that holds the batch; None where no image changes the tensor.
        per_image: elements of that dimension that belong to one image.
        memory_format: in which it is dense.
    """

    dim: int | None
    per_image: int = 1
    memory_format: torch.memory_format = torch.contiguous_format


@dataclass(frozen=True)
class CountEntry:
    """A whole number that grows with the number of images: ``each`` * images + ``more``."""

    each: int
    more: int


@dataclass(frozen=True)
class ConstantEntry:
    """A value that is the same for every batch."""

    value: Any


@dataclass(frozen=True)
class TupleEntry:
    """A tuple or a list; ``build`` makes it from a list of its parts."""

    parts: tuple[Entry, ...]
    build: Callable[[list[Any]], Any]


Entry = TensorEntry | CountEntry | ConstantEntry | TupleEntry


@dataclass(frozen=True)
class StateLayout:
    """How the state at one exit is made up; exit 0 is the input.

    Attributes:
        entries: of each part of the state.
        travelling: entries of the tensors in the state, in order, those inside tuples included.
    """

    entries: tuple[Entry, ...]
    travelling: tuple[TensorEntry, ...]

    def tensors(self, state: State) -> tuple[Tensor, ...]:
        """The tensors in ``state``, each dense in its memory format."""
        return self.dense(_tensors(self.entries, state))

    def dense(self, tensors: Iterable[Tensor]) -> tuple[Tensor, ...]:
        """The tensors of a state, each dense in its memory format."""
        return tuple(
            tensor.contiguous(memory_format=entry.memory_format)
            for entry, tensor in zip(self.travelling, tensors, strict=True)
        )

    def state(self, tensors: Sequence[Tensor]) -> State:
        """The whole state again from its tensors."""
        left = iter(tensors)
        return tuple(self._rebuilt(entry, left, tensors) for entry in self.entries)

    def _rebuilt(self, entry: Entry, left: Iterator[Tensor], tensors: Sequence[Tensor]) -> Any:
        if isinstance(entry, TensorEntry):
            return next(left)
        if isinstance(entry, CountEntry):
            return entry.each * self.images(tensors) + entry.more
        if isinstance(entry, TupleEntry):
            return entry.build([self._rebuilt(part, left, tensors) for part in entry.parts])
        return entry.value

    def images(self, tensors: Sequence[Any]) -> int:
        """The number of images in a state, from its tensors."""
        entry, tensor = self.travelling[0], tensors[0]
        assert entry.dim is not None  # a state begins with an activation of every image
        count: int = tensor.shape[entry.dim] // entry.per_image
        return count

    def join(
        self, states: Sequence[Sequence[Any]], concatenate: Callable[[list[Any], int], Any]
    ) -> tuple[Any, ...]:
        """The tensors of all images of ``states``; ``concatenate`` is the tensors' library's."""
        return tuple(
            parts[0] if entry.dim is None else concatenate(list(parts), entry.dim)
            for entry, parts in zip(self.travelling, zip(*states, strict=True), strict=True)
        )

    def take(
        self,
        tensors: Sequence[Any],
        rows: Sequence[int],
        select: Callable[[Any, list[int], int], Any],
    ) -> tuple[Any, ...]:
        """The tensors of the images at ``rows``; ``select`` picks indices of a dimension."""
        return tuple(
            tensor
            if entry.dim is None
            else select(
                tensor,
                [row * entry.per_image + part for row in rows for part in range(entry.per_image)],
                entry.dim,
            )
            for entry, tensor in zip(self.travelling, tensors, strict=True)
        )


def _tensors(entries: Sequence[Entry], values: Sequence[Any]) -> Iterator[Tensor]:
    for entry, value in zip(entries, values, strict=True):
        if isinstance(entry, TensorEntry):
            yield value
        elif isinstance(entry, TupleEntry):
            yield from _tensors(entry.parts, value)


def state_layouts(
    network: MultiExitNetwork, memory_format: torch.memory_format
) -> list[StateLayout]:
    """The layout of the state at every exit, the input (exit 0) first.

    Args:
        memory_format: of the images that the network is given.

    Raises:
        NetworkError: some value does not grow with the number of images as it must.
    """
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(3, *network.architecture.input_shape, generator=generator)
    images = images.contiguous(memory_format=memory_format)
    with torch.inference_mode():
        found = [network.start(images[:count]) for count in (1, 2, 3)]
        last = network.start(images[1:])
        layouts = [StateLayout((TensorEntry(0),), (TensorEntry(0),))]
        for exit in range(1, network.exit_count + 1):
            found = [network.run_segment(exit, state) for state in found]
            last = network.run_segment(exit, last)
            try:
                layout = _layout(*found)
                _check_order(layout, found[0], last, found[2])
            except _UnclearError as problem:
                raise NetworkError(
                    f"{network.architecture.backbone}: at exit {exit} a value of the state "
                    f"{problem}, so that images cannot be computed in batches; put the exit "
                    "between two blocks"
                ) from None
            layouts.append(layout)
    return layouts


class Reached(NamedTuple):
    """A state as runtimes hand it on.

    Attributes:
        exit: how far it has come; 0 is the input.
        tensors: what travels of it, tensors or arrays; see :class:`StateLayout`.
    """

    exit: int
    tensors: tuple[Any, ...]


class _UnclearError(Exception):
    """A value that is not made up of parts for each image."""


def _layout(one: State, two: State, three: State) -> StateLayout:
    entries = tuple(_entry(values) for values in zip(one, two, three, strict=True))
    if not isinstance(entries[0], TensorEntry) or entries[0].dim is None:
        raise _UnclearError("is no activation of every image")
    return StateLayout(entries, tuple(_flat(entries)))


def _flat(entries: Sequence[Entry]) -> Iterator[TensorEntry]:
    for entry in entries:
        if isinstance(entry, TensorEntry):
            yield entry
        elif isinstance(entry, TupleEntry):
            yield from _flat(entry.parts)


def _entry(values: tuple[Any, Any, Any]) -> Entry:
    """What a value is, from what it is for one, two and three images."""
    one, two, three = values
    if torch.is_tensor(one):
        return _tensor_entry(values)
    if isinstance(one, tuple | list):
        if not len(one) == len(two) == len(three):
            raise _UnclearError("has more or fewer parts for more images")
        parts = tuple(_entry(parts) for parts in zip(one, two, three, strict=True))
        if isinstance(one, torch.Size):
            return TupleEntry(parts, tuple)
        return TupleEntry(parts, getattr(type(one), "_make", type(one)))
    if one == two == three:
        return ConstantEntry(one)
    if isinstance(one, int) and two - one == three - two:
        return CountEntry(two - one, one - (two - one))
    raise _UnclearError(f"is {one}, {two} and {three} for one, two and three images")


def _tensor_entry(tensors: tuple[Tensor, Tensor, Tensor]) -> TensorEntry:
    shapes = [tuple(tensor.shape) for tensor in tensors]
    memory_format = torch.contiguous_format
    whole = tensors[2]
    is_channels_last = whole.ndim == 4 and whole.is_contiguous(memory_format=torch.channels_last)
    # Where both fit, either will do; where neither does, it is copied to be dense.
    if is_channels_last and not whole.is_contiguous():
        memory_format = torch.channels_last
    if shapes[0] == shapes[1] == shapes[2]:
        return TensorEntry(None, memory_format=memory_format)
    if len({len(shape) for shape in shapes}) == 1:
        changing = [dim for dim, sizes in enumerate(zip(*shapes, strict=True)) if len({*sizes}) > 1]
        each = shapes[0][changing[0]]
        sizes = [shape[changing[0]] for shape in shapes]
        if len(changing) == 1 and sizes == [each, 2 * each, 3 * each]:
            return TensorEntry(changing[0], each, memory_format)
    raise _UnclearError(
        f"has shapes {', '.join(map(str, shapes[:2]))} and {shapes[2]} for one, two and three "
        "images"
    )


def _check_order(layout: StateLayout, first: State, others: State, whole: State) -> None:
    """Whether images follow one another where that is not plain from the shapes."""
    joined = layout.join([layout.tensors(first), layout.tensors(others)], torch.cat)
    for entry, made, expected in zip(layout.travelling, joined, layout.tensors(whole), strict=True):
        plain = entry.dim is None or (entry.dim == 0 and entry.per_image == 1)
        if not plain and not torch.allclose(made, expected, 1e-3, 1e-4, equal_nan=True):
            raise _UnclearError("mixes the images of a batch")
