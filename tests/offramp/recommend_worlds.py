"""Worlds for tests of recommendations, whose networks are made up: nothing is trained."""

from __future__ import annotations

import pickle
import random
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from models.artifacts import Predictions, write_predictions
from offramp import load_scenario
from offramp.console import Console
from offramp.recommendation.cost import CostKind
from offramp.recommendation.definition import load_question
from offramp.recommendation.outcome import Outcome
from offramp.recommendation.run import recommend
from offramp.recommendation.target import read_targets
from offramp.stages import keys
from offramp.stages.layout import PREDICTIONS
from offramp.store import Store
from offramp.sweep.backend import Call, Done

#: A node that one worker cannot keep up with; two answer most in time. Milliseconds to simulate.
BUSY: dict[str, Any] = {
    "training.seeds": 1,
    "training.strategies": ["standard"],
    "nodes.edge": {"workers": 1, "service_ms": 20},
    "policies": [{"policy": "fixed_exit", "exit": 2}],
    "simulation.duration_s": 2,
    "simulation.warm_up_s": 0.2,
    "recommend": {
        "policies": "scenario",
        "keys": {"nodes.edge.workers": {"integers": [1, 6]}},
        "replications": 6,
    },
}

#: Share of samples that each exit of a strategy's networks classifies correctly.
ACCURACY = {"standard": (0.5, 0.9), "curriculum": (0.8, 0.9)}

_SAMPLES = 400


def make_networks(
    path: Path, store: Path, accuracy: dict[str, tuple[float, ...]] = ACCURACY
) -> None:
    """Put predictions of made-up networks where training would; earlier exits are less sure."""
    experiment = load_scenario(str(path)).experiment
    for strategy, seed, made_from in keys.trained_networks(experiment):
        drawn = np.random.default_rng([seed, len(strategy)])
        label = drawn.integers(0, 10, _SAMPLES).astype(np.int32)
        easy = drawn.permutation(_SAMPLES)
        columns, sure = [], []
        for exit, share in enumerate(accuracy[strategy], start=1):
            correct = easy < round((share + 0.01 * drawn.uniform(-1, 1)) * _SAMPLES)
            columns.append(np.where(correct, label, (label + 1) % 10))
            sure.append(np.where(correct, 0.6, 0.2) + 0.1 * exit + 0.1 * drawn.random(_SAMPLES))
        predictions = Predictions(
            sample=np.arange(_SAMPLES, dtype=np.int32),
            label=label,
            predicted=np.column_stack(columns).astype(np.int32),
            confidence=np.column_stack(sure).astype(np.float32),
            about={
                "architecture": experiment.architecture.fingerprint(),
                "dataset": "digits",
                "split": "test",
                "strategy": strategy,
                "seed": seed,
            },
        )
        with Store(store).make("trained", made_from) as folder:
            write_predictions(folder / PREDICTIONS, predictions)


class Here:
    """Makes calls in this process; those under way end in a random order.

    Args:
        stop_after: raise what ``stop`` says once so many trials ended.
    """

    def __init__(
        self,
        workers: int = 1,
        seed: int = 0,
        stop_after: int | None = None,
        stop: type[BaseException] = KeyboardInterrupt,
    ) -> None:
        self.workers = workers
        self.simulated = 0
        self.opened = 0
        self.closed = False
        self._random = random.Random(seed)
        self._stop_after = stop_after
        self._stop = stop

    def run(self, function: Callable[..., Any], calls: Iterable[Call]) -> Iterator[Done]:
        fresh = enumerate(calls)
        under_way: list[tuple[int, Call]] = []
        while True:
            under_way += islice(fresh, self.workers - len(under_way))
            if not under_way:
                return
            number, call = under_way.pop(self._random.randrange(len(under_way)))
            if self.simulated == self._stop_after:
                raise self._stop
            arguments = pickle.loads(pickle.dumps(call.arguments))
            yield Done(number, function(*arguments))
            self.simulated += 1

    def close(self) -> None:
        self.closed = True


def recommended(
    path: Path,
    store: Path,
    results: Path,
    *targets: str,
    overrides: tuple[str, ...] = (),
    cost: CostKind = "workers",
    backend: Here | None = None,
) -> Outcome:
    """Search and verify in this process."""
    question = load_question(str(path), overrides, read_targets(targets), cost)
    console = Console(quiet=True)
    made = recommend(question, Store(store), results, console, lambda: backend or Here())
    return made.outcome
