"""The search of one strategy: which configurations are simulated next.

Optuna's tree-structured Parzen estimator (Bergstra et al. 2011; Watanabe 2023) with constraints:
trials that miss a target are told by how much, those that meet them by their cost. It is asked for
a batch of fixed size before it is told anything of it, so that what it asks for depends on the seed
and on what was simulated, and never on how many processes simulate or on where it was stopped.

What the sampler does not know is that fewer workers always cost less. So a part of every batch is
one step down from the cheapest that met the targets, under each policy as it did best so far.
"""

from __future__ import annotations

import warnings
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from typing import Any

import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)

from offramp.recommendation.space import (
    POLICY,
    Configuration,
    Coordinates,
    Space,
    below,
    count,
    is_ordered,
)
from offramp.sweep.axes import Choices, Draw, Integers, LogUniform, Uniform

#: Configurations that are asked for before anything is told of them.
BATCH = 8

#: Of these, steps down from the cheapest so far, at most.
_STEPS = 2

#: If the sampler proposes what was simulated before, it is asked so often again; and then chance.
_ASKED_AGAIN, _DRAWN = 4, 200

#: The part that compute has in what the sampler is told: it decides between equal costs alone.
_TIE = 1e-6


@dataclass(frozen=True)
class Trial:
    """A configuration that is to be simulated.

    Attributes:
        number: from 0, of its strategy.
        why: ``given`` in the scenario, a ``corner`` of the space, proposed by the ``search``, a
            ``step`` down from the cheapest, or simulated because ``all`` are.
        asked: what the sampler wants to be told of; None if it cannot know it.
    """

    number: int
    configuration: Configuration
    why: str
    asked: optuna.Trial | None = None


@dataclass(frozen=True)
class _Told:
    """What a trial gave: its cost, and how much its means leave of the targets."""

    trial: Trial
    cost: tuple[float, float]
    slack: float


class Search:
    """Asks for configurations, none twice, and is told what they gave.

    Where there are no more than it may ask for, it asks for all.

    Args:
        trials: configurations, at most.
        first: the first that it asks for, each with the reason.
        lowered: keys whose lower values cost less.
    """

    def __init__(
        self,
        space: Space,
        trials: int,
        seed: int,
        first: Sequence[tuple[str, Configuration]],
        lowered: Collection[str] = (),
    ) -> None:
        self._space = space
        self._lowered = [index for index, key in enumerate(space.keys) if key in lowered]
        self._told: list[_Told] = []
        self._seen: set[str] = set()
        self.is_exhaustive = space.size <= trials
        #: Configurations that it asks for, at most.
        self.most = int(space.size) + len(first) if self.is_exhaustive else trials
        with warnings.catch_warnings():
            # The sampler says that groups are experimental.
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            self._sampler = optuna.samplers.TPESampler(seed=seed, multivariate=True, group=True)
        self._chance = optuna.samplers.RandomSampler(seed=seed)
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._study = optuna.create_study(sampler=self._sampler)
        self._next = self._in_order(first)

    def ask(self) -> list[Trial]:
        """The next configurations: none when the search has ended."""
        room = min(BATCH, self.most - len(self._seen))
        batch: list[Trial] = []
        for configuration in () if self.is_exhaustive else self._steps():
            if len(batch) < min(_STEPS, room) and configuration.key not in self._seen:
                batch.append(self._trial(configuration, "step", self._known(configuration)))
        return [*batch, *islice(self._next, room - len(batch))]

    def tell(
        self, trial: Trial, cost: tuple[float, float] | None, shortfalls: Sequence[float] = ()
    ) -> None:
        """What a trial gave.

        Args:
            cost: what is to be small, and what decides if that is equal; None if it failed.
            shortfalls: by how much it misses each target; 0 or less where it does not.
        """
        if cost is not None:
            self._told.append(_Told(trial, cost, -max(shortfalls, default=0.0)))
        if trial.asked is None:
            return
        if cost is None:
            self._study.tell(trial.asked, state=optuna.trial.TrialState.FAIL)
            return
        for index, shortfall in enumerate(shortfalls):
            trial.asked.set_constraint(str(index), shortfall)
        amount, tie = cost
        self._study.tell(trial.asked, amount + _TIE * max(amount, 1.0) * tie / (1 + tie))

    # --- what comes next -------------------------------------------------------------------------

    def _in_order(self, first: Sequence[tuple[str, Configuration]]) -> Iterator[Trial]:
        written = chain(first, (("all", it) for it in self._all()))
        for why, configuration in written:
            if configuration.key not in self._seen:
                yield self._trial(configuration, why, self._known(configuration))
        while not self.is_exhaustive:
            found = self._proposed()
            if found is None:
                return
            yield self._trial(found[0], "search", found[1])

    def _steps(self) -> Iterator[Configuration]:
        """Configurations one step below the cheapest that met the targets, the likeliest first."""
        met = [it for it in self._told if it.slack >= 0]
        if not met:
            return
        best = min(met, key=lambda it: (it.cost, it.trial.number)).trial.configuration
        policies: dict[str, dict[str, Any]] = {}
        for it in sorted(self._told, key=lambda it: (-it.slack, it.trial.number)):
            policy = it.trial.configuration.policy
            policies.setdefault(str(policy["policy"]), policy)
        draws = list(self._space.keys.values())
        for policy in (best.policy, *policies.values()):
            for index in self._lowered:
                for lower in below(draws[index], best.values[index]):
                    values = (*best.values[:index], lower, *best.values[index + 1 :])
                    yield Configuration(policy, values)

    def _all(self) -> Iterator[Configuration]:
        return self._space.all() if self.is_exhaustive else iter(())

    def _trial(self, configuration: Configuration, why: str, asked: optuna.Trial | None) -> Trial:
        number = len(self._seen)
        self._seen.add(configuration.key)
        return Trial(number, configuration, why, asked)

    def _known(self, configuration: Configuration) -> optuna.Trial | None:
        """A configuration that the sampler did not propose, as it would have."""
        at = None if self.is_exhaustive else self._space.coordinates(configuration)
        if at is None:
            return None
        self._study.enqueue_trial(at)
        asked = self._study.ask()
        self._choose(asked)
        return asked

    def _proposed(self) -> tuple[Configuration, optuna.Trial] | None:
        """A configuration that was not seen yet; None if none is found."""
        for attempt in range(_ASKED_AGAIN + _DRAWN):
            self._study.sampler = self._sampler if attempt < _ASKED_AGAIN else self._chance
            asked = self._study.ask()
            configuration = self._space.configuration(self._choose(asked))
            if configuration.key not in self._seen:
                return configuration, asked
            self._study.tell(asked, state=optuna.trial.TrialState.FAIL)
        return None

    def _choose(self, asked: optuna.Trial) -> Coordinates:
        names = [option.name for option in self._space.policies]
        at: dict[str, Any] = {POLICY: asked.suggest_categorical(POLICY, names)}
        for name, draw in self._space.dimensions(at[POLICY]).items():
            at[name] = _suggested(asked, name, distribution(draw))
        return at


def distribution(draw: Draw) -> BaseDistribution:
    """The coordinates of a dimension, as Optuna has them: positions in lists, and numbers."""
    match draw:
        case Choices() if is_ordered(draw):
            return IntDistribution(0, int(count(draw)) - 1)
        case Choices():
            return CategoricalDistribution(tuple(range(int(count(draw)))))
        case Integers(low, high):
            return IntDistribution(low, high)
        case Uniform(low, high):
            return FloatDistribution(low, high)
        case LogUniform(low, high):
            return FloatDistribution(low, high, log=True)
    raise TypeError(f"{draw} is no range")


def _suggested(asked: optuna.Trial, name: str, distribution: BaseDistribution) -> Any:
    match distribution:
        case IntDistribution():
            return asked.suggest_int(name, distribution.low, distribution.high)
        case FloatDistribution():
            return asked.suggest_float(
                name, distribution.low, distribution.high, log=distribution.log
            )
        case CategoricalDistribution():
            return asked.suggest_categorical(name, distribution.choices)
    raise TypeError(f"{distribution} is not asked for")
