"""Errands to Dask workers, and what comes back, as a queue that one thread reads."""

from __future__ import annotations

import asyncio
import pickle
import queue
import uuid
from contextlib import suppress
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Outcome:
    """What became of an errand: a value, or an error of the worker's or of Dask's."""

    key: str
    value: Any = None
    error: BaseException | None = None


class Post:
    """Errands under way.

    Args:
        client: a ``distributed.Client`` that is not asynchronous.
    """

    def __init__(self, client: Any) -> None:
        self._client = client
        self._outcomes: queue.SimpleQueue[Outcome] = queue.SimpleQueue()
        self._futures: dict[str, Any] = {}

    def send(self, address: str, payload: bytes) -> str:
        """Have ``payload`` unpickled by one worker and by no other; return the errand's key.

        If that worker ends, nothing is heard of the errand: it waits until it is dropped.
        """
        key = f"offramp-{uuid.uuid4().hex}"
        future = self._client.submit(pickle.loads, payload, key=key, workers=[address], pure=False)
        self._futures[key] = future
        asyncio.run_coroutine_threadsafe(self._follow(key, future), self._client.loop.asyncio_loop)
        return key

    async def _follow(self, key: str, future: Any) -> None:
        try:
            # Through the scheduler: a driver may be where it cannot reach the workers.
            value = await self._client.gather(future, asynchronous=True, direct=False)
            outcome = Outcome(key, value)
        except BaseException as error:
            outcome = Outcome(key, error=error)
        self._outcomes.put(outcome)

    def next(self, timeout_s: float) -> Outcome | None:
        """The next outcome of an errand that was not dropped; None if there is none in time."""
        while True:
            try:
                outcome = self._outcomes.get(timeout=timeout_s)
            except queue.Empty:
                return None
            # With the last reference the future goes, and what the cluster holds of it.
            if self._futures.pop(outcome.key, None) is not None:
                return outcome
            timeout_s = 0.0 if self._outcomes.empty() else timeout_s

    def drop(self, *keys: str) -> None:
        """Call errands off: what has not begun never will, and what comes is not looked at."""
        futures = [self._futures.pop(key) for key in keys if key in self._futures]
        # Without a scheduler there is nothing left to call off.
        with suppress(OSError, RuntimeError, AttributeError, TimeoutError):
            if futures and self._client.status == "running":
                self._client.cancel(futures)

    def drop_all(self) -> None:
        """Call all errands off."""
        self.drop(*self._futures)
