"""Calls in worker processes of this machine, of which any may be killed at any time.

Every worker is a pool of one process (joblib's loky), so that it is known which call a process
died on, and the others go on.
"""

from __future__ import annotations

import os
import signal
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from typing import Any

from joblib.externals.loky import process_executor
from joblib.externals.loky.process_executor import ProcessPoolExecutor, ShutdownExecutorError

from devices.tether import end_with
from offramp.sweep.backend import TRIES, BackendError, Call, Done

#: A worker gets a second call to go on with at once, as long as calls take less than this.
SHORT_CALL_S = 2.0

#: From this try on, a call whose workers die is alone with its worker.
_ALONE_FROM_TRY = 3

#: Numerical libraries keep to one thread: workers are as many as processors.
_ONE_THREAD = dict.fromkeys(
    ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS"), "1"
)

#: So many processes in a row that end before they can be given anything are no chance.
_MOST_STILLBORN = 20

_DIED = (
    f"its worker process was killed each of the {TRIES} times it was tried, as the system does "
    "when memory runs out: shorten what is simulated, or use fewer workers (--jobs 1)"
)


@dataclass
class _Task:
    """A call and how often a worker died on it."""

    number: int
    call: Call
    deaths: int = 0


class _Worker:
    """A process, started when it is first needed, and what it was given to do, in order."""

    def __init__(self) -> None:
        self.tasks: deque[tuple[Future[Any], _Task]] = deque()
        self._pool: ProcessPoolExecutor | None = None
        self._ready: Future[None] | None = None

    @property
    def was_ready(self) -> bool:
        """Whether the process could do anything before it died."""
        return self._ready is not None and self._ready.exception() is None

    def submit(self, function: Callable[..., Any], task: _Task) -> Future[Any]:
        """Give it a call; it is started anew if it died meanwhile."""
        while True:
            try:
                if self._pool is None:
                    self._pool = ProcessPoolExecutor(
                        max_workers=1, initializer=_begin, initargs=(os.getpid(),), env=_ONE_THREAD
                    )
                    self._ready = self._pool.submit(_answer)
                future: Future[Any] = self._pool.submit(function, *task.call.arguments)
            except (BrokenProcessPool, ShutdownExecutorError):
                self.end()
                continue
            self.tasks.append((future, task))
            return future

    def end(self) -> None:
        """Kill the process; the next call starts another."""
        if self._pool is not None:
            self._pool.shutdown(wait=False, kill_workers=True)
            self._pool = None


def _begin(parent: int) -> None:
    """What a worker does first."""
    end_with(parent)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the driver to hear
    # Where psutil is installed, loky takes a worker that has grown by 300 MB for one that leaks.
    setattr(process_executor, "_USE_PSUTIL", False)  # noqa: B010


def _answer() -> None:
    """Done by a worker that is there."""


class LocalBackend:
    """Runs calls in ``workers`` processes of this machine.

    A process that is killed, as the system does when memory runs out, is started again, and its
    call tried anew. None outlives this process, however it ends.
    """

    def __init__(self, workers: int) -> None:
        self._workers = [_Worker() for _ in range(workers)]

    @property
    def workers(self) -> int:
        """How many calls run at a time."""
        return len(self._workers)

    def run(self, function: Callable[..., Any], calls: Iterable[Call]) -> Iterator[Done]:
        """See :meth:`offramp.sweep.backend.Backend.run`."""
        return _Running(self._workers, function, calls).results()

    def close(self) -> None:
        """End all processes at once."""
        for worker in self._workers:
            worker.end()


class _Running:
    """One run of a function over calls."""

    def __init__(
        self, workers: list[_Worker], function: Callable[..., Any], calls: Iterable[Call]
    ) -> None:
        self._workers = workers
        self._function = function
        self._fresh = iter(enumerate(calls))
        self._again: deque[_Task] = deque()
        self._alone: deque[_Task] = deque()
        self._under_way: dict[Future[Any], _Worker] = {}
        self._depth = 1
        self._since_s: dict[int, float] = {}
        self._stillborn = 0

    def results(self) -> Iterator[Done]:
        """What the calls gave, as it comes."""
        try:
            while self._give_work():
                ended, _ = wait(self._under_way, return_when=FIRST_COMPLETED)
                for future in ended:
                    # A worker that died took others of these along.
                    if future in self._under_way:
                        yield from self._take(future)
        finally:
            for worker in self._workers:
                if worker.tasks:
                    worker.tasks.clear()
                    worker.end()

    def _give_work(self) -> bool:
        """Give every worker what it can do; whether any has something to do."""
        for depth in range(1, self._depth + 1):
            for worker in self._workers:
                if len(worker.tasks) < depth and (task := self._next()):
                    self._give(worker, task)
        # What workers die of is tried alone when all the rest is done.
        if not self._under_way and self._alone:
            self._give(self._workers[0], self._alone.popleft())
        return bool(self._under_way)

    def _next(self) -> _Task | None:
        if self._again:
            return self._again.popleft()
        number, call = next(self._fresh, (-1, None))
        return _Task(number, call) if call else None

    def _give(self, worker: _Worker, task: _Task) -> None:
        self._under_way[worker.submit(self._function, task)] = worker
        if len(worker.tasks) == 1:
            self._since_s[id(worker)] = time.monotonic()

    def _take(self, future: Future[Any]) -> Iterator[Done]:
        worker = self._under_way[future]
        try:
            value = future.result()
        except BrokenProcessPool:
            yield from self._bury(worker)
            return
        now_s = time.monotonic()
        self._depth = 2 if now_s - self._since_s[id(worker)] < SHORT_CALL_S else 1
        self._since_s[id(worker)] = now_s
        self._stillborn = 0
        yield self._done(worker, future, value)

    def _done(self, worker: _Worker, future: Future[Any], value: Any) -> Done:
        del self._under_way[future]
        task = next(task for ours, task in worker.tasks if ours is future)
        worker.tasks.remove((future, task))
        return Done(task.number, value)

    def _bury(self, worker: _Worker) -> Iterator[Done]:
        """A worker died: on the first of its calls that has no result."""
        was_ready = worker.was_ready
        worker.end()
        for future, _ in list(worker.tasks):
            if future.exception() is None:
                yield self._done(worker, future, future.result())
        for future, _ in worker.tasks:
            del self._under_way[future]
        tasks = [task for _, task in worker.tasks]
        worker.tasks.clear()
        if was_ready and tasks:
            yield from self._try_again(tasks.pop(0))
        elif not was_ready:
            self._stillborn += 1
            if self._stillborn >= _MOST_STILLBORN:
                raise BackendError(
                    f"{_MOST_STILLBORN} worker processes in a row ended as soon as they were "
                    "started: is there memory and room for processes? What was done is kept"
                )
        self._again.extendleft(reversed(tasks))

    def _try_again(self, task: _Task) -> Iterator[Done]:
        task.deaths += 1
        if task.deaths >= TRIES:
            yield Done(task.number, error=_DIED)
        elif task.deaths + 1 >= _ALONE_FROM_TRY:
            self._alone.append(task)
        else:
            self._again.append(task)
