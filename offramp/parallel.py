"""Work shared among processes, and what a user is told if one of them dies."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures.process import BrokenProcessPool
from typing import Any

import joblib
from joblib.externals.loky import process_executor

from models.errors import OfframpError

#: Arrays of more bytes than this are handed to worker processes once, as files.
_SHARED_FROM = "32K"


class WorkerError(OfframpError):
    """A worker process ended before its work was done."""


def in_processes(
    function: Callable[..., Any], calls: Sequence[tuple[Any, ...]], workers: int, ordered: bool
) -> Iterator[Any]:
    """The results of ``function`` for each tuple of arguments, from ``workers`` processes.

    Args:
        ordered: in the order of ``calls``; else as they come.

    Raises:
        WorkerError: a process was killed.
    """
    parallel = joblib.Parallel(
        n_jobs=workers,
        return_as="generator" if ordered else "generator_unordered",
        max_nbytes=_SHARED_FROM,
    )
    try:
        yield from parallel(joblib.delayed(_call)(function, *arguments) for arguments in calls)
    except BrokenProcessPool as error:
        raise WorkerError(
            "a worker process was killed before it was done, as the system does when memory runs "
            "out: use fewer of them (--jobs 1), or shorten what is simulated"
        ) from error


def _call(function: Callable[..., Any], *arguments: Any) -> Any:
    """What a worker process does with one of the calls."""
    # Where psutil is installed, loky takes a worker that has grown by 300 MB, as one that trains
    # does, for one that leaks, ends it, and was seen to wait for it forever.
    setattr(process_executor, "_USE_PSUTIL", False)  # noqa: B010
    return function(*arguments)
