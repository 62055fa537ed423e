"""A sweep's calls on a Dask cluster, whose workers need not see the driver's disk."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from offramp.console import Console
from offramp.store import Store
from offramp.sweep.backend import Backend, BackendError, Call, Done
from offramp.sweep.clusters import Cluster

#: Longest wait for anything before looking around, in seconds.
_TICK_S = 0.25

#: How long nothing is said while there is no worker, in seconds.
_SILENT_S = 3.0


def open_dask(where: str, jobs: int | None, store: Store, console: Console) -> Backend:
    """Connect to a cluster, and wait until its first worker may be given work.

    Args:
        where: address of a running scheduler, its ``.json`` file, ``local`` or ``slurm``.
        jobs: workers to start, for ``local`` and ``slurm``.

    Raises:
        BackendError: it cannot be reached or started, has no workers, or workers with other
            versions of what results depend on.
    """
    store.check_writable()
    cluster = Cluster(where, jobs)
    try:
        backend = DaskBackend(cluster, store, console)
        backend.muster()
    except BaseException:
        cluster.close()
        raise
    return backend


class DaskBackend:
    """Runs calls on the workers of a cluster; see :class:`~offramp.sweep.backend.Backend`."""

    def __init__(self, cluster: Cluster, store: Store, console: Console) -> None:
        # Only here, since all of them import Dask, which need not be installed.
        from offramp.sweep.crew import Crew
        from offramp.sweep.mirror import identity_in
        from offramp.sweep.post import Post

        self._cluster = cluster
        self._store = store
        self._identity = identity_in(store.root)
        self._post = Post(cluster.client)
        self._crew = Crew(cluster.client, self._post, console, store.root, self._identity)
        self._idle_since = time.monotonic()

    @property
    def workers(self) -> int:
        """How many workers there are now."""
        return max(1, len(self._crew.ready()))

    def close(self) -> None:
        """Call off what is under way and let go of the cluster; one that is ours ends."""
        self._post.drop_all()
        self._cluster.close()

    def muster(self) -> None:
        """Wait until there is a worker, and all who are there have said what they are.

        Raises:
            BackendError: none comes, or some have other versions.
        """
        while not self._crew.ready() or self._crew.joining():
            self._look()
            outcome = self._post.next(_TICK_S)
            if outcome:
                self._crew.hear(outcome)
            if self._crew.refusals:
                raise BackendError("\n".join(self._crew.refusals))

    def run(self, function: Callable[..., Any], calls: Iterable[Call]) -> Iterator[Done]:
        """The results of ``function`` for each of ``calls``, as they come."""
        from offramp.sweep.dispatch import Dispatch

        dispatch = Dispatch(
            self._crew,
            self._post,
            function,
            calls,
            self._store.root,
            self._identity,
            ships=not self._cluster.shares_disk,
        )
        try:
            while not dispatch.finished():
                for member in self._look():
                    dispatch.lost(member, gone=member.address not in self._crew.members)
                dispatch.hand_out()
                outcome = self._post.next(_TICK_S)
                if outcome and not dispatch.hear(outcome):
                    self._crew.hear(outcome)
                    self._say_refused()
                yield from dispatch.ended()
        finally:
            dispatch.drop_all()

    def _say_refused(self) -> None:
        for refusal in self._crew.refusals:
            self._crew.tell(f"{refusal}: it gets no work")

    def _look(self) -> list[Any]:
        """Workers that were lost.

        Raises:
            BackendError: the scheduler is lost, or there was no worker for too long.
        """
        where, patience_s = self._cluster.where, self._cluster.patience_s
        try:
            lost = self._crew.look()
        except BackendError as error:
            raise BackendError(f"--dask {where}: {error}") from error
        self._crew.give_up_waiting()
        now = time.monotonic()
        if self._crew.working() or self._crew.joining():
            self._idle_since = now
        elif now - self._idle_since > patience_s:
            message = f"--dask {where}: no worker could be used for {_in_words(patience_s)}"
            reasons = (*self._crew.refusals, *self._crew.put_aside)
            raise BackendError("\n".join((message, *reasons)))
        elif now - self._idle_since > _SILENT_S:
            self._crew.tell(f"waiting for workers of {where}, for up to {_in_words(patience_s)}")
        return lost


def _in_words(duration_s: float) -> str:
    for unit, seconds in (("days", 86400), ("minutes", 60)):
        if duration_s >= 2 * seconds:
            return f"{duration_s / seconds:.0f} {unit}"
    return f"{duration_s:.0f} s"
