"""Queue disciplines: which of the waiting requests a free worker takes."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from heapq import heappop, heappush
from itertools import count
from typing import Any, Generic, Literal, Protocol, TypeVar

Discipline = Literal["fifo", "edf", "priority"]


class Waiting(Protocol):
    """What a queue looks at: requests of the simulator have it, and those of a live node."""

    @property
    def deadline_at_s(self) -> float:
        """When the deadline passes, on the clock of whoever queues."""

    @property
    def priority(self) -> int:
        """Higher is more urgent."""


T = TypeVar("T", bound=Waiting)


class Queue(Protocol[T]):
    """Requests that wait."""

    def push(self, request: T, /) -> None:
        """Join the queue."""

    def take(self) -> T:
        """Remove and return the request at the head."""

    def head(self) -> T:
        """The request that is taken next."""

    def clear(self) -> None:
        """Empty the queue."""

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[T]: ...


class Fifo(deque[T]):
    """First in, first out."""

    push = deque.append
    take = deque.popleft

    def head(self) -> T:
        """See :class:`Queue`."""
        return self[0]


class _Ranked(Generic[T]):
    """The lowest rank first; first in, first out among equals."""

    def __init__(self, rank: Callable[[T], float]) -> None:
        self._rank = rank
        self._heap: list[tuple[float, int, T]] = []
        self._joined = count()

    def push(self, request: T, /) -> None:
        """See :class:`Queue`."""
        heappush(self._heap, (self._rank(request), next(self._joined), request))

    def take(self) -> T:
        """See :class:`Queue`."""
        return heappop(self._heap)[2]

    def head(self) -> T:
        """See :class:`Queue`."""
        return self._heap[0][2]

    def clear(self) -> None:
        """See :class:`Queue`."""
        self._heap.clear()

    def __len__(self) -> int:
        return len(self._heap)

    def __iter__(self) -> Iterator[T]:
        return (request for _, _, request in sorted(self._heap))


def earliest_deadline_first() -> Queue[Any]:
    """The deadline that passes first, first (Jackson 1955; Liu & Layland 1973)."""
    return _Ranked(lambda request: request.deadline_at_s)


def by_priority() -> Queue[Any]:
    """The highest priority of a device group first; nobody who is served is interrupted."""
    return _Ranked(lambda request: -request.priority)


def queue_of(discipline: Discipline) -> Queue[Any]:
    """An empty queue."""
    queues: dict[Discipline, Callable[[], Queue[Any]]] = {
        "fifo": Fifo,
        "edf": earliest_deadline_first,
        "priority": by_priority,
    }
    return queues[discipline]()
