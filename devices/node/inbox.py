"""Requests that wait at a live node: bounded, in the order of a discipline, shared by threads."""

from __future__ import annotations

import threading
import time
from typing import Literal

from devices.node.views import Clock, LiveRequest
from sim.nodes.queues import Queue, queue_of
from sim.nodes.spec import NodeSpec

#: However patient the scenario is, no more requests may wait than this,
MOST_WAITING = 10_000
#: nor requests that keep more bytes than this.
MOST_WAITING_BYTES = 256 << 20

Refusal = Literal["queue_full", "infeasible", "draining"]


class Inbox:
    """What the network thread puts in and workers take out, as :class:`sim.nodes.node.Node` queues.

    A worker is idle while it is in :meth:`take`, and busy until it says :meth:`done`.

    Args:
        spec: discipline, admission, limits, batches and workers of the node.
        most_waiting, most_bytes: bounds that hold whatever ``spec`` says.
    """

    def __init__(
        self,
        spec: NodeSpec,
        clock: Clock = time.monotonic,
        most_waiting: int = MOST_WAITING,
        most_bytes: int = MOST_WAITING_BYTES,
    ) -> None:
        self.workers = spec.workers
        self._spec = spec
        self._clock = clock
        self._most_waiting = most_waiting
        self._most_bytes = most_bytes
        self._first_exit_s = spec.service.means()[0] if spec.admission == "feasible" else None
        self._queue: Queue[LiveRequest] = queue_of(spec.discipline)
        self._bytes = 0
        self._busy = 0
        self._draining = self._closed = False
        self._lock = threading.Lock()
        self._something_waits = threading.Condition(self._lock)
        self._nothing_is_left = threading.Condition(self._lock)

    def __len__(self) -> int:
        return len(self._queue)

    @property
    def idle_workers(self) -> int:
        """Workers that serve nothing."""
        return self.workers - self._busy

    def offer(self, request: LiveRequest) -> Refusal | None:
        """Let a request wait, unless that is refused; say why. Never waits itself."""
        needed_s = 0.0
        if self._first_exit_s is not None:
            needed_s = self._first_exit_s + request.way_home_s(0.5)
        with self._lock:
            if self._draining:
                return "draining"
            waiting, idle = len(self._queue), self.workers - self._busy
            limit = self._spec.queue_limit
            # A worker that is idle takes it at once: nobody waits then.
            if limit is not None and waiting >= limit + idle:
                return "queue_full"
            if waiting >= self._most_waiting or self._bytes + request.bytes > self._most_bytes:
                return "queue_full"
            if self._first_exit_s is not None:
                before = max(0, waiting + 1 - idle)
                needed_s += before / self.workers * self._first_exit_s
                if needed_s > request.deadline_at_s - request.arrived_s:
                    return "infeasible"
            self._queue.push(request)
            self._bytes += request.bytes
            self._something_waits.notify()
        return None

    def take(self) -> list[LiveRequest]:
        """Wait for requests to serve together, and take them; none once the inbox is closed.

        As many as a batch holds; fewer when one of them has waited for its time.
        """
        size, wait_s = self._spec.batch_size, self._spec.batch_wait_s
        with self._lock:
            while not self._closed:
                waiting = len(self._queue)
                if not waiting:
                    self._something_waits.wait()
                    continue
                if waiting < size and not self._draining:
                    # With EDF, the head need not be who has waited longest.
                    oldest_s = min(request.arrived_s for request in self._queue)
                    left_s = oldest_s + wait_s - self._clock()
                    if left_s > 0:
                        self._something_waits.wait(left_s)
                        continue
                batch = [self._queue.take() for _ in range(min(size, waiting))]
                self._bytes -= sum(request.bytes for request in batch)
                self._busy += 1
                return batch
        return []

    def done(self) -> None:
        """The calling worker serves what it took no longer."""
        with self._lock:
            self._busy -= 1
            if self._draining and not self._busy and not self._queue:
                self._nothing_is_left.notify_all()

    # --- the end -------------------------------------------------------------------------------

    def drain(self, timeout_s: float) -> bool:
        """Refuse requests from now on, and wait until those that are here are served.

        Returns:
            Whether they were, within ``timeout_s``.
        """
        with self._lock:
            self._draining = True
            self._something_waits.notify_all()  # batches fill no more
            return self._nothing_is_left.wait_for(
                lambda: not self._busy and not self._queue, timeout_s
            )

    def close(self) -> list[LiveRequest]:
        """Refuse requests from now on, and send the workers home; return what still waits."""
        with self._lock:
            self._draining = self._closed = True
            left = list(self._queue)
            self._queue.clear()
            self._bytes = 0
            self._something_waits.notify_all()
            self._nothing_is_left.notify_all()
        return left
