"""Points put together to calls: enough for a worker to be busy for a while, and not too many."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from offramp.sweep.backend import Artefact
from offramp.sweep.point import PointResult

#: A call is to take about so long.
CHUNK_S = 0.5
#: Points in a chunk, at most.
_MOST = 1000
#: Part that the latest points have in the estimate of how long one takes.
_LATEST = 0.5


@dataclass
class Chunk:
    """Points that are one call.

    Attributes:
        points: numbers and values.
        needs: artefacts that they read.
        error: what workers died of.
    """

    points: list[tuple[int, tuple[Any, ...]]]
    needs: tuple[Artefact, ...] = ()
    error: str | None = None

    def parts(self) -> Iterator[Chunk]:
        """Each point as a chunk."""
        return (Chunk([point], self.needs) for point in self.points)


class Chunks:
    """Cuts points into chunks by how long points took so far.

    Args:
        points: how many there are.
        workers: how many chunks are run at a time, as of now.
    """

    def __init__(self, points: int, workers: Callable[[], int]) -> None:
        self._left = points
        self._workers = workers
        self._point_s: float | None = None

    def learn(self, results: Sequence[PointResult]) -> None:
        """Take in how long the points of a chunk took."""
        if results:
            mean_s = sum(result.wall_s for result in results) / len(results)
            before_s = mean_s if self._point_s is None else self._point_s
            self._point_s = _LATEST * mean_s + (1 - _LATEST) * before_s

    def of(self, points: Iterator[Chunk]) -> Iterator[Chunk]:
        """Neighbouring points put together."""
        chunk, size = Chunk([]), self._size()
        for point in points:
            chunk.points += point.points
            chunk.needs = tuple(dict.fromkeys((*chunk.needs, *point.needs)))
            if len(chunk.points) >= size:
                self._left -= len(chunk.points)
                yield chunk
                chunk, size = Chunk([]), self._size()
        if chunk.points:
            yield chunk

    def _size(self) -> int:
        """At the end smaller ones, so that no worker waits long for another."""
        if self._point_s is None:
            return 1
        fair = self._left // (2 * self._workers())
        return max(1, min(_MOST, fair, int(CHUNK_S / max(self._point_s, 1e-6))))
