"""The search of `offramp recommend`, on functions that are known: no world is simulated."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable

from offramp.recommendation.search import BATCH, Search, Trial
from offramp.recommendation.space import Configuration, PolicyOption, Space
from offramp.sweep.axes import Choices, Integers, LogUniform, Uniform

#: 64 × 64 workers under two policies, one with a threshold: half a million configurations.
SPACE = Space(
    {"a": Integers(1, 64), "b": Integers(1, 64)},
    (
        PolicyOption("full", {"policy": "full"}, {}),
        PolicyOption(
            "confidence",
            {"policy": "confidence"},
            {"threshold": Choices(tuple(it / 100 for it in range(100)))},
        ),
    ),
)

Told = tuple[float, float]


def gives(configuration: Configuration) -> tuple[Told, list[float]]:
    """Cost, and what is missing to a target that full reaches from 40 workers on, a confident
    policy of a threshold near 0.6 from 20 on, and none with fewer than 5 of either kind."""
    a, b = configuration.values
    threshold = configuration.policy.get("threshold")
    needed = 40 if threshold is None else 20 + 100 * abs(threshold - 0.6)
    return (float(a + b), 0.01), [(needed - a - b) / 100, (5 - min(a, b)) / 10]


def run(
    search: Search, of: Callable[[Configuration], tuple[Told | None, list[float]]] = gives
) -> list[Trial]:
    asked = []
    while batch := search.ask():
        assert len(batch) <= BATCH
        asked += batch
        for trial in batch:
            search.tell(trial, *of(trial.configuration))
    return asked


def cheapest(trials: list[Trial]) -> float:
    told = [gives(trial.configuration) for trial in trials]
    return min((cost[0] for cost, missing in told if max(missing) <= 0), default=999.0)


def test_it_finds_what_chance_does_not() -> None:
    found = cheapest(run(Search(SPACE, 200, 1, [])))
    assert found <= 26, "the cheapest that there is costs 20"


def test_steps_down_from_the_cheapest_find_what_lies_below_it() -> None:
    without, with_steps = (run(Search(SPACE, 120, 2, [], lowered)) for lowered in ((), ("a", "b")))
    assert not any(it.why == "step" for it in without)
    assert cheapest(with_steps) == 20 < cheapest(without), "nothing costs less"


def test_a_step_is_tried_under_every_policy_as_it_did_best() -> None:
    first = [
        ("given", Configuration({"policy": "full"}, (30, 30))),
        ("given", Configuration({"policy": "confidence", "threshold": 0.1}, (30, 30))),
        ("given", Configuration({"policy": "confidence", "threshold": 0.5}, (60, 60))),
    ]
    search = Search(SPACE, 4 * BATCH, 1, first, ("a", "b"))
    steps = []
    while batch := search.ask():
        assert sum(it.why == "step" for it in batch) <= BATCH // 2
        steps += [it.configuration for it in batch if it.why == "step"]
        for trial in batch:
            cost, missing = gives(trial.configuration)
            search.tell(trial, cost, missing if trial.number < 3 else [1.0])
    assert [(it.policy.get("threshold"), it.values) for it in steps] == [
        *((None, (15, 30)), (None, (29, 30)), (None, (30, 15)), (None, (30, 29))),
        *((0.5, (15, 30)), (0.5, (29, 30))),
    ]


def test_nothing_is_asked_for_twice_and_numbers_rise() -> None:
    trials = run(Search(SPACE, 60, 1, []))
    assert [trial.number for trial in trials] == [*range(60)]
    assert len({trial.configuration.key for trial in trials}) == 60


def test_the_seed_decides_what_is_asked_for() -> None:
    asked = [
        [trial.configuration.key for trial in run(Search(SPACE, 40, seed, []))]
        for seed in (1, 1, 2)
    ]
    assert asked[0] == asked[1] != asked[2]


def test_what_is_told_decides_what_is_asked_for() -> None:
    def other(configuration: Configuration) -> tuple[Told, list[float]]:
        return (-gives(configuration)[0][0], 0.0), [0.0, 0.0]

    asked = [
        [trial.configuration.key for trial in run(Search(SPACE, 40, 1, []), of)]
        for of in (gives, other)
    ]
    assert asked[0][:BATCH] == asked[1][:BATCH], "before anything is told"
    assert asked[0] != asked[1]


def test_what_is_given_comes_first_though_it_lies_outside() -> None:
    inside = Configuration({"policy": "confidence", "threshold": 0.3}, (3, 4))
    outside = Configuration({"policy": "anytime"}, (3, 400))
    first = [("given", inside), ("given", outside), ("corner", inside)]
    trials = run(Search(SPACE, 20, 1, first))
    assert [(it.why, it.configuration.key) for it in trials[:2]] == [
        ("given", inside.key),
        ("given", outside.key),
    ]
    assert {it.why for it in trials[2:]} == {"search"}, "the corner was there already"
    assert len(trials) == 20


def test_a_space_that_is_small_enough_is_simulated_whole() -> None:
    space = Space({"a": Integers(1, 9)}, SPACE.policies[:1])
    outside = Configuration({"policy": "anytime"}, (3,))
    search = Search(space, 9, 1, [("given", outside)])
    trials = run(search, lambda it: ((1.0, 0.0), [0.0]))
    assert search.is_exhaustive
    assert [it.configuration.values for it in trials] == [(3,), *((it,) for it in range(1, 10))]
    assert not Search(space, 8, 1, []).is_exhaustive


def test_a_space_that_is_nearly_used_up_ends_the_search() -> None:
    """Ranges without steps have no end, but rounded to a few digits they do."""
    space = Space({"a": Uniform(1.0, 1.002)}, SPACE.policies[:1])
    trials = run(Search(space, 50, 1, []), lambda it: ((it.values[0], 0.0), [0.0]))
    assert sorted(it.configuration.values[0] for it in trials) == [1.0, 1.001, 1.002]


def test_trials_that_fail_do_not_stop_it() -> None:
    def half(configuration: Configuration) -> tuple[Told | None, list[float]]:
        return (None, []) if configuration.values[0] % 2 else gives(configuration)

    trials = run(Search(SPACE, 80, 1, []), half)
    assert len(trials) == 80
    assert cheapest([it for it in trials if it.configuration.values[0] % 2 == 0]) < 64


def test_every_kind_of_range_is_searched() -> None:
    keys = {
        "whole": Integers(1, 1000),
        "even": Uniform(0.0, 1.0),
        "log": LogUniform(1e-3, 1.0),
        "words": Choices(("x", "y", None)),
        "lists": Choices(([1], {"a": 2}, True)),
    }
    trials = run(
        Search(Space(keys, SPACE.policies[:1]), 60, 1, []), lambda it: ((it.values[2], 0.0), [0.0])
    )
    columns = list(zip(*(it.configuration.values for it in trials), strict=True))
    assert all(1 <= it <= 1000 and isinstance(it, int) for it in columns[0])
    assert all(0 <= it <= 1 for it in columns[1])
    assert min(columns[2]) < 0.003, "which is what it is told to make small"
    assert {*columns[3]} == {"x", "y", None}
    assert {str(it) for it in columns[4]} == {"[1]", "{'a': 2}", "True"}


_ASK = """
from tests.offramp.test_recommend_search import SPACE, Search, run
print([trial.configuration.key for trial in run(Search(SPACE, 40, 1, []))])
"""


def test_it_asks_for_the_same_in_any_process() -> None:
    """Optuna keeps names of parameters in sets, whose order differs from process to process."""
    here = [trial.configuration.key for trial in run(Search(SPACE, 40, 1, []))]
    there = subprocess.run(
        [sys.executable, "-c", _ASK],
        env={**os.environ, "PYTHONHASHSEED": "1", "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert there.strip() == str(here)
