"""Simulating what is asked for: networks and profiles are made once, nothing is simulated twice."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, TypeAlias

import pandas as pd

from offramp.console import Console
from offramp.recommendation.kept import Kept
from offramp.recommendation.trial import simulate_trials
from offramp.store import Store
from offramp.sweep.backend import Backend, Call, Done
from offramp.sweep.identity import identities_of
from offramp.sweep.point import Context, PointResult, Values
from offramp.sweep.preparation import Preparation
from offramp.sweep.template import Template

#: What became of a trial: its runs, or why it failed.
Simulated: TypeAlias = pd.DataFrame | str


class OpenedLater:
    """A backend that is opened when it first has something to do."""

    def __init__(self, open_backend: Callable[[], Backend]) -> None:
        self._open = open_backend
        self._backend: Backend | None = None

    @property
    def workers(self) -> int:
        """How many calls run at a time."""
        return self._opened().workers

    def run(self, function: Callable[..., Any], calls: Iterable[Call]) -> Iterator[Done]:
        """See :meth:`offramp.sweep.backend.Backend.run`."""
        return self._opened().run(function, calls)

    def close(self) -> None:
        """Close it if it was opened."""
        if self._backend is not None:
            self._backend.close()

    def _opened(self) -> Backend:
        if self._backend is None:
            self._backend = self._open()
        return self._backend


class Simulating:
    """Gives what trials give: as it was kept, or simulated now.

    Args:
        kept: takes in what is simulated.
        backend: runs it.
    """

    def __init__(
        self, template: Template, store: Store, console: Console, kept: Kept, backend: Backend
    ) -> None:
        context = Context.here(template, store)
        self._at_first = Preparation(context, store, console)
        # Later there is a bar of the search, and one at a time is all that a terminal can show.
        self._preparation = Preparation(context, store, Console(quiet=True))
        self._identities = identities_of(context)
        self._kept = kept
        self._backend = backend
        #: Trials that were simulated now, and those that were there.
        self.simulated = self.found = 0

    def prepare(self, trials: Sequence[Values]) -> None:
        """Make the networks and profiles that some trials need, and show how that goes.

        Raises:
            OfframpError: the disk is full, or the workers are gone; what was done is kept.
        """
        _prepare(self._at_first, trials, self._backend)

    def of(
        self, trials: Sequence[Values], done: Callable[[int], None] = lambda count: None
    ) -> list[Simulated]:
        """What some trials give, in their order.

        Args:
            done: told how many of them are done.

        Raises:
            OfframpError: the disk is full, or the workers are gone; what was done is kept.
        """
        preparation = self._preparation
        _prepare(preparation, trials, self._backend)
        names = [
            self._identities.of(values, preparation.profile_hash(values) or "") for values in trials
        ]
        results: list[Simulated | None] = [self._kept.find(name) for name in names]
        self.found += sum(it is not None for it in results)
        missing = []
        for index, values in enumerate(trials):
            if results[index] is None:
                failure = preparation.failure(preparation.needs(values))
                results[index] = failure and failure.error
            if results[index] is None:
                missing.append(index)
        finished = len(trials) - len(missing)
        done(finished)
        try:
            for index, result in self._run(trials, missing):
                if isinstance(result, PointResult):
                    self._kept.add(names[index], result)
                    results[index] = self._kept.find(names[index])
                else:
                    results[index] = result
                self.simulated += 1
                finished += 1
                done(finished)
        finally:
            self._kept.commit()
        return [it if it is not None else "it was not simulated" for it in results]

    def _run(
        self, trials: Sequence[Values], missing: Sequence[int]
    ) -> Iterator[tuple[int, PointResult | str]]:
        """What trials gave, or why they failed, by position, as they end."""
        preparation = self._preparation
        calls = (
            Call((preparation.context, [(index, trials[index])]), preparation.needs(trials[index]))
            for index in missing
        )
        for ended in self._backend.run(simulate_trials, calls) if missing else ():
            index = missing[ended.number]
            if ended.error is not None:
                yield index, ended.error
            else:
                (result,) = ended.value
                yield index, result if result.error is None else result.error

    def hashes(self) -> dict[str, str]:
        """SHA-256 of the predictions and profiles that were used, by artefact."""
        return self._preparation.hashes()


def _prepare(preparation: Preparation, trials: Sequence[Values], backend: Backend) -> None:
    for values in trials:
        preparation.look(values)
        preparation.profile_hash(values)
    preparation.make_networks(backend)
    preparation.make_profiles()
