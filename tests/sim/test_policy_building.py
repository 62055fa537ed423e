"""How policies are found by name or import path, built, fitted and refused."""

import textwrap

import pytest
from fake_views import FakeNode, FakeRequest
from tiny_worlds import predictions, run_of, world

from models.errors import OfframpError, PolicyError
from sim.policies import (
    POLICIES,
    Anytime,
    Confidence,
    DeadlineAware,
    DeadlineConfidence,
    FixedExit,
    Full,
    Imprecise,
    LoadAdaptive,
    Offload,
    Oracle,
)
from sim.policy import ANSWER, DROP, run_to
from sim.policy_building import build_policy, fit_policy, needs_fitting

# --- building: by name ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "parameters", "expected"),
    [
        ("fixed_exit", {"exit": 2}, FixedExit(2)),
        ("fixed_exit", {"exit": 3}, FixedExit(3)),
        ("confidence", {}, Confidence(0.9)),
        ("confidence", {"threshold": 0.5}, Confidence(0.5)),
        ("deadline_aware", {}, DeadlineAware(0.95, "earliest_exit")),
        (
            "deadline_aware",
            {"quantile": 0.5, "when_none_fits": "drop"},
            DeadlineAware(0.5, "drop"),
        ),
        ("full", {}, Full()),
        ("confidence", {"thresholds": [0.5, 0.25]}, Confidence(thresholds=(0.5, 0.25))),
        ("confidence", {"wanted_accuracy": 0.7}, Confidence(wanted_accuracy=0.7)),
        ("confidence", {"wanted_cost_ms": 4}, Confidence(wanted_cost_ms=4)),
        ("confidence", {"threshold": None}, Confidence(0.9)),
        ("deadline_confidence", {"threshold": 0.5}, DeadlineConfidence(0.5)),
        ("load_adaptive", {"when_none_fits": "drop"}, LoadAdaptive(0.95, "drop")),
        ("anytime", {"first_exit": "cut"}, Anytime(0.95, "cut")),
        ("offload", {"raw_input": True}, Offload(raw_input=True)),
        ("imprecise", {"mandatory": 2}, Imprecise(2)),
        ("oracle", {}, Oracle(0.05)),
    ],
)
def test_policies_by_name(name, parameters, expected, tmp_path):
    assert build_policy(name, parameters, tmp_path, exit_count=3) == expected


def test_the_policies_that_ship_are_those_named_in_the_documentation():
    assert list(POLICIES) == [
        "fixed_exit",
        "full",
        "confidence",
        "deadline_aware",
        "deadline_confidence",
        "anytime",
        "load_adaptive",
        "offload",
        "imprecise",
        "oracle",
    ]


@pytest.mark.parametrize(
    ("name", "parameters", "parts"),
    [
        ("fixed_exti", {}, ["unknown policy 'fixed_exti'", "did you mean 'fixed_exit'?"]),
        ("deadline-aware", {}, ["did you mean 'deadline_aware'?"]),
        ("zzz", {}, ["unknown policy 'zzz'", "allowed: fixed_exit, full, confidence"]),
        ("", {}, ["unknown policy ''"]),
        ("confidence", {"treshold": 0.5}, ["no parameter 'treshold'", "did you mean 'threshold'?"]),
        ("confidence", {"x": 0.5}, ["no parameter 'x'", "allowed: threshold"]),
        ("fixed_exit", {}, ["needs the parameter 'exit'"]),
        ("fixed_exit", {"exit": 4}, ["exit is 4", "exits 1 to 3"]),
        ("fixed_exit", {"exit": 0}, ["exit is 0", "numbered from 1"]),
        ("confidence", {"threshold": 1.5}, ["threshold is 1.5", "between 0 and 1"]),
        ("confidence", {"threshold": "high"}, ["threshold is 'high'", "a number"]),
        ("deadline_aware", {"quantile": 1}, ["quantile is 1"]),
        ("deadline_aware", {"quantile": 0}, ["quantile is 0"]),
        ("deadline_aware", {"when_none_fits": "dorp"}, ["'dorp'", "earliest_exit, drop"]),
        ("full", {"exit": 3}, ["no parameter 'exit'", "it has none"]),
        ("imprecise", {"mandatory": 4}, ["mandatory is 4", "exits 1 to 3"]),
        ("imprecise", {"mandatory": 0}, ["mandatory is 0", "numbered from 1"]),
        (
            "confidence",
            {"thresholds": [0.5]},
            ["thresholds has 1 entries", "each exit but the last, 2"],
        ),
        ("offload", {"thresholds": [0.5] * 3}, ["thresholds has 3 entries", "exits 1 to 3"]),
        ("confidence", {"thresholds": [0.5, 7.0]}, ["thresholds has 7.0", "between 0 and 1"]),
        ("confidence", {"threshold": 0.5, "wanted_accuracy": 0.5}, ["exclude each other"]),
        ("confidence", {"wanted_accuracy": 75}, ["wanted_accuracy is 75", "between 0 and 1"]),
        ("confidence", {"wanted_cost_ms": 0.0}, ["wanted_cost_ms is 0.0", "above 0"]),
        ("deadline_confidence", {"quantile": 1}, ["quantile is 1"]),
        ("offload", {"quantile": 1}, ["quantile is 1"]),
        ("load_adaptive", {"quantile": 1}, ["quantile is 1"]),
        ("anytime", {"quantile": 1}, ["quantile is 1"]),
        ("imprecise", {"quantile": 1}, ["quantile is 1"]),
        ("oracle", {"quantile": 0}, ["quantile is 0"]),
        ("anytime", {"first_exit": "run"}, ["'run'", "finish, cut"]),
    ],
)
def test_what_is_wrong_with_a_policy_is_said(name, parameters, parts, tmp_path):
    with pytest.raises(PolicyError) as error:
        build_policy(name, parameters, tmp_path, exit_count=3)
    for part in parts:
        assert part in str(error.value)
    assert isinstance(error.value, OfframpError)


def test_a_far_fetched_name_gets_no_suggestion(tmp_path):
    with pytest.raises(PolicyError) as error:
        build_policy("zzz", {}, tmp_path, exit_count=3)
    assert "did you mean" not in str(error.value)


@pytest.mark.parametrize(
    ("name", "parameters", "parts"),
    [
        ("fixed_exit", {"exit": 1.5}, ["exit is 1.5", "an integer"]),
        ("fixed_exit", {"exit": "2"}, ["exit is '2'", "an integer"]),
        ("fixed_exit", {"exit": True}, ["exit is True", "an integer"]),
        ("fixed_exit", {"exit": None}, ["exit is None"]),
        ("confidence", {"threshold": [0.5]}, ["threshold is [0.5]", "a number"]),
        ("confidence", {"threshold": float("nan")}, ["threshold is nan"]),
        ("deadline_aware", {"when_none_fits": False}, ["when_none_fits is False"]),
        ("confidence", {"threshold": "high"}, ["a number or null"]),
        ("confidence", {"thresholds": 0.5}, ["thresholds is 0.5", "a list of numbers or null"]),
        ("confidence", {"thresholds": "0.5"}, ["thresholds is '0.5'", "a list of numbers"]),
        ("confidence", {"thresholds": [0.5, "high"]}, ["thresholds is [0.5, 'high']"]),
        ("confidence", {"thresholds": [0.5, None]}, ["thresholds is [0.5, None]"]),
        ("confidence", {"thresholds": [0.5, True]}, ["thresholds is [0.5, True]"]),
        ("offload", {"raw_input": 1}, ["raw_input is 1", "true or false"]),
    ],
)
def test_parameters_are_checked_against_their_annotations(name, parameters, parts, tmp_path):
    with pytest.raises(PolicyError) as error:
        build_policy(name, parameters, tmp_path, exit_count=3)
    for part in [repr(name), *parts]:
        assert part in str(error.value)


def test_a_whole_number_is_a_number_too(tmp_path):
    assert build_policy("confidence", {"threshold": 1}, tmp_path, 3) == Confidence(1)


# --- building: by import path --------------------------------------------------------------------

SHEDDING = """
    from dataclasses import dataclass

    from sim.policy import ANSWER, DROP, run_to


    @dataclass(frozen=True)
    class Shedding:
        longest_queue: int = 10

        def decide(self, request, node):
            if request.exit:
                return ANSWER
            return DROP if node.queue_length > self.longest_queue else run_to(node.exit_count)


    class Undecided:
        def decline(self, request, node):
            return DROP


    LIMIT = 10
"""


@pytest.fixture
def written(tmp_path):
    """Writes a Python file, ``my_policies.py`` by default, into a folder that it returns."""

    def write(source, name="my_policies.py"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(source), encoding="utf-8")
        return tmp_path

    return write


def test_a_policy_from_a_file_beside_the_scenario(written):
    policy = build_policy("my_policies.py:Shedding", {"longest_queue": 5}, written(SHEDDING), 3)
    assert policy.decide(FakeRequest(), FakeNode(queue_length=5)) is run_to(3)
    assert policy.decide(FakeRequest(), FakeNode(queue_length=6)) is DROP
    assert policy.decide(FakeRequest(exit=3), FakeNode()) is ANSWER


def test_a_policy_from_a_file_runs_in_a_world(written):
    policy = build_policy("my_policies.py:Shedding", {}, written(SHEDDING), 1)
    a_world = world()
    run = run_of(a_world, policy)
    assert len(run.exit) > 0
    assert (run.exit == 1).all()


def test_a_file_in_a_folder_below(written):
    folder = written(SHEDDING, "below/deep.py")
    assert build_policy("below/deep.py:Shedding", {}, folder, 3).longest_queue == 10


@pytest.mark.parametrize("reference", ["sim.policies:FixedExit", "sim.policies.FixedExit"])
def test_a_policy_from_an_installed_module(reference, tmp_path):
    assert build_policy(reference, {"exit": 2}, tmp_path, 3) == FixedExit(2)
    with pytest.raises(PolicyError, match="exits 1 to 3"):
        build_policy(reference, {"exit": 4}, tmp_path, 3)


def test_files_of_the_same_name_in_different_folders_do_not_mix(written):
    folder = written(SHEDDING, "one/mine.py")
    written(SHEDDING.replace("DROP if", "run_to(1) if"), "other/mine.py")
    one = build_policy("one/mine.py:Shedding", {}, folder, 3)
    other = build_policy("other/mine.py:Shedding", {}, folder, 3)
    crowded = FakeNode(queue_length=99)
    assert one.decide(FakeRequest(), crowded) is DROP
    assert other.decide(FakeRequest(), crowded) is run_to(1)


@pytest.mark.parametrize(
    ("source", "parts"),
    [
        ("raise RuntimeError('no luck')", ["cannot be imported", "RuntimeError", "no luck"]),
        ("1 / 0", ["cannot be imported", "ZeroDivisionError"]),
        ("class Shedding:", ["cannot be imported", "Error"]),
        ("import no_such_module_anywhere", ["cannot be imported", "no_such_module_anywhere"]),
    ],
)
def test_a_file_that_cannot_be_imported(source, parts, written):
    with pytest.raises(PolicyError) as error:
        build_policy("my_policies.py:Shedding", {}, written(source), 3)
    for part in ["'my_policies.py:Shedding'", *parts]:
        assert part in str(error.value)


@pytest.mark.parametrize(
    ("reference", "parameters", "parts"),
    [
        ("my_policies.py:Sheding", {}, ["no class 'Sheding'", "did you mean 'Shedding'?"]),
        ("my_policies.py:LIMIT", {}, ["no class 'LIMIT'"]),
        ("my_policies.py:Undecided", {}, ["no method decide"]),
        ("my_policies.py:Shedding", {"longest": 5}, ["no parameter 'longest'", "longest_queue"]),
        ("my_policies.py:Undecided", {"longest": 5}, ["no parameter 'longest'", "it has none"]),
        ("your_policies.py:Shedding", {}, ["no such file", "your_policies.py"]),
        ("no_such_module.policies:Shedding", {}, ["cannot be imported"]),
        (".policies:Shedding", {}, ["cannot be imported"]),
    ],
)
def test_what_is_wrong_with_an_import_path_is_said(reference, parameters, parts, written):
    with pytest.raises(PolicyError) as error:
        build_policy(reference, parameters, written(SHEDDING), 3)
    for part in parts:
        assert part in str(error.value)


@pytest.mark.parametrize("error", ["ValueError", "TypeError", "KeyError", "ZeroDivisionError"])
def test_whatever_a_policy_raises_while_it_is_built_is_a_policy_error(error, written):
    folder = written(
        f"""
        class Fussy:
            def __init__(self, mood):
                raise {error}("not " + mood)

            def decide(self, request, node):
                pass
        """
    )
    with pytest.raises(PolicyError, match="not today"):
        build_policy("my_policies.py:Fussy", {"mood": "today"}, folder, 3)


def test_a_policy_with_open_parameters_is_asked_itself(written):
    folder = written(
        """
        class Open:
            def __init__(self, **settings):
                self.settings = settings

            def decide(self, request, node):
                pass
        """
    )
    assert build_policy("my_policies.py:Open", {"any": 1}, folder, 3).settings == {"any": 1}


@pytest.mark.parametrize(
    "signature",
    [
        "self, limit: int = 1",
        "self, limit: 'int' = 1",
    ],
)
def test_annotations_of_a_plain_class_count_like_those_of_a_dataclass(signature, written):
    folder = written(
        f"""
        class Plain:
            def __init__({signature}):
                self.limit = limit

            def decide(self, request, node):
                pass
        """
    )
    assert build_policy("my_policies.py:Plain", {"limit": 3}, folder, 3).limit == 3
    with pytest.raises(PolicyError, match="limit is 'high'"):
        build_policy("my_policies.py:Plain", {"limit": "high"}, folder, 3)


def test_annotations_that_cannot_be_looked_up_are_not_held_against_a_policy(written):
    folder = written(
        """
        from __future__ import annotations

        import math


        class Annotated:
            limit: math.NoSuchType
            other: NoSuchTypeEither

            def __init__(self, limit):
                self.limit = limit

            def decide(self, request, node):
                pass
        """
    )
    assert build_policy("my_policies.py:Annotated", {"limit": 3}, folder, 3).limit == 3


@pytest.mark.parametrize(
    ("hint", "fit", "unfit", "text"),
    [
        ("list[float]", [[], [1, 0.5]], ["half", 0.5, [[0.5]], [None]], "a list of numbers"),
        ("list[int]", [[1, 2]], [[1.5], None], "a list of integers"),
        ("tuple[str, ...]", [["a", "b"]], ["ab", [1]], "a list of texts"),
        ("list", [[], [None]], [3], "a list"),
        ("tuple[int, str]", [[1, "a"]], [3], "a list"),
        ("float | None", [None, 2], ["two", True], "a number or null"),
        ("typing.Optional[int]", [None, 2], [2.5], "an integer or null"),
        ("int | list[int]", [3, [3]], [3.5, [3.5]], "an integer or a list of integers"),
        ("typing.Any", [None, 3, [3]], [], ""),
        ("dict[str, int]", [{}, 3], [], ""),
    ],
)
def test_lists_and_optional_parameters_are_checked_too(hint, fit, unfit, text, written):
    folder = written(
        f"""
        import typing

        class Plain:
            def __init__(self, given: {hint}):
                self.given = given

            def decide(self, request, node):
                pass
        """
    )
    for value in fit:
        policy = build_policy("my_policies.py:Plain", {"given": value}, folder, 3)
        assert policy.given == value
    for value in unfit:
        with pytest.raises(PolicyError) as error:
            build_policy("my_policies.py:Plain", {"given": value}, folder, 3)
        assert str(error.value).endswith(f"given is {value!r}; allowed: {text}")


# --- fitting -------------------------------------------------------------------------------------

#: Two samples; the second is right at the last exit only. Sure of 7/8 and 1/2 at the first.
VALIDATION = predictions(
    label=[1, 1], predicted=[[1, 1], [0, 1]], confidence=[[0.875, 0.9], [0.5, 0.9]]
)
COSTS_S = (0.002, 0.006)


@pytest.mark.parametrize("name", ["confidence", "deadline_confidence", "offload"])
def test_a_wanted_accuracy_or_cost_becomes_a_threshold(name, tmp_path):
    for wish, threshold in (
        ({"wanted_accuracy": 1.0}, 0.875),
        ({"wanted_accuracy": 0.5}, 0.5),
        ({"wanted_cost_ms": 4.0}, 0.875),
        ({"wanted_cost_ms": 2.0}, 0.5),
    ):
        policy = build_policy(name, wish, tmp_path, exit_count=2)
        assert needs_fitting(policy)
        fitted = fit_policy(policy, name, VALIDATION, COSTS_S)
        assert fitted == POLICIES[name](threshold)
        assert not needs_fitting(fitted)


def test_fitting_leaves_the_other_parameters_alone():
    policy = Offload(wanted_accuracy=1.0, quantile=0.5, when_none_fits="drop", raw_input=True)
    fitted = fit_policy(policy, "offload", VALIDATION, COSTS_S)
    assert (fitted.quantile, fitted.when_none_fits, fitted.raw_input) == (0.5, "drop", True)


@pytest.mark.parametrize(
    "policy", [Full(), FixedExit(1), Confidence(0.5), Confidence(thresholds=[0.5])]
)
def test_what_wishes_nothing_is_not_fitted(policy):
    assert not needs_fitting(policy)
    assert fit_policy(policy, "mine", VALIDATION, COSTS_S) is policy


@pytest.mark.parametrize(
    ("wish", "parts"),
    [
        ({"wanted_cost_ms": 1.5}, ["wanted_cost_ms", "1.5", "give 2 to 6"]),
        ({"wanted_accuracy": 0.75}, ["wanted_accuracy", "0.75", "give 0.5 to 0.5"]),
    ],
)
def test_a_wish_that_cannot_be_met_is_a_policy_error_with_what_can(wish, parts):
    hopeless = predictions(
        label=[1, 1], predicted=[[1, 1], [0, 0]], confidence=[[0.875, 0.9], [0.5, 0.9]]
    )
    with pytest.raises(PolicyError) as error:
        fit_policy(Confidence(**wish), "confidence", hopeless, COSTS_S)
    for part in ["policy 'confidence'", *parts]:
        assert part in str(error.value)


def test_a_policy_that_is_used_unfitted_says_so():
    policy = Confidence(wanted_accuracy=0.5)
    with pytest.raises(ValueError, match="not fitted yet"):
        policy.decide(FakeRequest(exit=1, confidence=0.5), FakeNode())


def test_a_policy_of_ones_own_can_be_fitted(written):
    folder = written(
        """
        from sim.policy import run_to

        class BestExit:
            exit = None

            def fitted(self, validation, costs_s):
                made = BestExit()
                made.exit = 1 + int(validation.accuracy().argmax())
                return made

            def decide(self, request, node):
                return run_to(self.exit)


        class Forgetful(BestExit):
            def fitted(self, validation, costs_s):
                pass


        class Failing(BestExit):
            def fitted(self, validation, costs_s):
                return costs_s["first"]
        """
    )

    def fitted(name):
        policy = build_policy(f"my_policies.py:{name}", {}, folder, 2)
        assert needs_fitting(policy)
        return fit_policy(policy, name, VALIDATION, COSTS_S)

    assert fitted("BestExit").decide(FakeRequest(), FakeNode()) is run_to(2)
    with pytest.raises(PolicyError, match="'Forgetful' has no method decide"):
        fitted("Forgetful")
    with pytest.raises(PolicyError, match="'Failing': TypeError"):
        fitted("Failing")
