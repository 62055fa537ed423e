"""Backends for tests of sweeps: calls are made in this process, in an order that a seed decides."""

from __future__ import annotations

import pickle
import random
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import Any

from offramp.sweep.backend import Call, Done
from offramp.sweep.point import simulate_points


class Inline:
    """Makes calls here; those under way end in a random order.

    Args:
        deadly: points on which workers die.
        dies_in: functions in which they do.
        stop_after: raise what ``stop`` says once so many calls ended.
    """

    def __init__(
        self,
        workers: int = 1,
        seed: int = 0,
        deadly: tuple[int, ...] = (),
        dies_in: tuple[str, ...] = (),
        stop_after: int | None = None,
        stop: type[BaseException] = KeyboardInterrupt,
    ) -> None:
        self.workers = workers
        self.closed = False
        self.simulated: list[int] = []
        self.called: list[str] = []
        self._random = random.Random(seed)
        self._deadly = deadly
        self._dies_in = dies_in
        self._stop_after = stop_after
        self._stop = stop

    def run(self, function: Callable[..., Any], calls: Iterable[Call]) -> Iterator[Done]:
        fresh = enumerate(calls)
        under_way: list[tuple[int, Call]] = []
        ended = 0
        while True:
            under_way += islice(fresh, self.workers - len(under_way))
            if not under_way:
                return
            number, call = under_way.pop(self._random.randrange(len(under_way)))
            if ended == self._stop_after and function is simulate_points:
                raise self._stop
            yield self._done(number, function, pickle.loads(pickle.dumps(call.arguments)))
            ended += 1

    def _done(self, number: int, function: Callable[..., Any], arguments: Any) -> Done:
        self.called.append(function.__name__)
        if function.__name__ in self._dies_in:
            return Done(number, error="its worker process was killed")
        if function is simulate_points:
            points = [index for index, _ in arguments[1]]
            if {*points} & {*self._deadly}:
                return Done(number, error="its worker process was killed")
            self.simulated += points
        return Done(number, function(*arguments))

    def close(self) -> None:
        self.closed = True
