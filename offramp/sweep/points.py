"""The points of a sweep: its axes crossed, each point found by its number."""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from typing import overload

from models.errors import ScenarioError
from offramp.sweep.axes import Axis, Row


class Points(Sequence[Row]):
    """All combinations of the points of some axes; the last axis changes fastest.

    Nothing is kept of them: a point is made when it is asked for.

    Args:
        axes: at least one, each with at least one point.

    Raises:
        ScenarioError: there are more points than can be counted.
    """

    def __init__(self, axes: Sequence[Axis]) -> None:
        self.axes = tuple(axes)
        self._count = math.prod(len(axis) for axis in self.axes)
        if self._count > sys.maxsize:
            raise ScenarioError(
                f"the sweep makes {self._count:.3g} points: no computer counts so far; cross fewer "
                "values, or draw points at random (`random`, `latin_hypercube`)"
            )

    @property
    def keys(self) -> tuple[str, ...]:
        """Dotted keys, in the order of the values of each point."""
        return tuple(key for axis in self.axes for key in axis.keys)

    def __len__(self) -> int:
        return self._count

    @overload
    def __getitem__(self, index: int) -> Row: ...
    @overload
    def __getitem__(self, index: slice) -> list[Row]: ...
    def __getitem__(self, index: int | slice) -> Row | list[Row]:
        """The values of a point, one for each of :attr:`keys`; of a slice, a list of points."""
        if isinstance(index, slice):
            return [self[one] for one in range(*index.indices(self._count))]
        if not -self._count <= index < self._count:
            raise IndexError(f"point {index} of {self._count}")
        left = index % self._count
        rows: list[Row] = []
        for axis in reversed(self.axes):
            left, position = divmod(left, len(axis))
            rows.append(axis[position])
        return tuple(value for row in reversed(rows) for value in row)
