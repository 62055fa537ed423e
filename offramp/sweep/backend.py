"""What runs the calls of a sweep: worker processes here, or a cluster."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

from models.errors import OfframpError

#: Kind of an artefact and its key: where it lies in a store.
Artefact = tuple[str, str]

#: A call whose worker dies is tried so often in all: once may be chance, as when workers are
#: killed to make room, or by hand.
TRIES = 6


class BackendError(OfframpError):
    """What runs a sweep's calls cannot be reached, is gone, or will not do."""


@dataclass(frozen=True)
class Call:
    """One call of the function that :meth:`Backend.run` is given.

    Attributes:
        arguments: of the function; the first is the :class:`~offramp.sweep.point.Context`, the
            same object for all calls of a run.
        needs: artefacts of the driver's store that it reads.
        makes: artefacts that it leaves in the store of its context where all goes well.
    """

    arguments: tuple[Any, ...]
    needs: tuple[Artefact, ...] = ()
    makes: tuple[Artefact, ...] = ()


@dataclass(frozen=True)
class Done:
    """A call that ended.

    Attributes:
        number: of the call, counted from 0 in the order in which they were drawn.
        value: what the function returned; it returns errors and raises none.
        error: set where there is no value, since its workers died, every time it was tried.
    """

    number: int
    value: Any = None
    error: str | None = None


class Backend(Protocol):
    """Runs calls in workers, several at a time."""

    @property
    def workers(self) -> int:
        """How many calls run at a time, as of now."""

    def run(self, function: Callable[..., Any], calls: Iterable[Call]) -> Iterator[Done]:
        """Call ``function`` for each of ``calls``, and give the results as they come.

        Calls are drawn when they are needed: at most a few for each worker are under way. One whose
        worker dies is tried again, :data:`TRIES` times in all, at last alone.

        Raises:
            BackendError: all workers are gone for good.
        """

    def close(self) -> None:
        """End the workers; what is under way is dropped."""
