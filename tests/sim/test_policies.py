"""What each policy decides, worked by hand, and how policies are found, built and refused."""

import textwrap
from dataclasses import dataclass, field

import pytest
from tiny_worlds import run_of, world

from models.errors import OfframpError, PolicyError
from sim.policies import (
    ANSWER,
    DROP,
    POLICIES,
    Confidence,
    DeadlineAware,
    FixedExit,
    build_policy,
    run_to,
)


@dataclass
class FakeRequest:
    """A request's view with the same way home at every quantile."""

    remaining_s: float = 10.0
    exit: int = 0
    confidence: float = float("nan")
    home_s: float = 0.0
    asked: list[float] = field(default_factory=list)

    def way_home_s(self, quantile):
        self.asked.append(quantile)
        return self.home_s


@dataclass
class FakeNode:
    """A node's view with the same latencies at every quantile."""

    latencies: tuple[float, ...] = (1.0, 2.0, 4.0)
    name: str = "edge"
    queue_length: int = 0
    workers: int = 1
    asked: list[float] = field(default_factory=list)

    @property
    def exit_count(self):
        return len(self.latencies)

    def latencies_s(self, quantile, since=0):
        self.asked.append(quantile)
        return tuple(time - (self.latencies[since - 1] if since else 0) for time in self.latencies)


# --- fixed_exit ----------------------------------------------------------------------------------


@pytest.mark.parametrize("exit", [1, 2, 3])
def test_fixed_exit_runs_to_its_exit_at_once_and_answers(exit):
    policy = FixedExit(exit)
    assert policy.decide(FakeRequest(), FakeNode()) is run_to(exit)
    assert policy.decide(FakeRequest(exit=exit, confidence=0.1), FakeNode()) is ANSWER


def test_fixed_exit_does_not_look_at_the_deadline():
    assert FixedExit(3).decide(FakeRequest(remaining_s=-5.0), FakeNode()) is run_to(3)


# --- confidence ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("exit", "confidence", "decision"),
    [
        (0, float("nan"), run_to(1)),
        (1, 0.79, run_to(2)),
        (1, 0.8, ANSWER),
        (2, 0.5, run_to(3)),
        (2, 0.95, ANSWER),
        (3, 0.1, ANSWER),  # nothing comes after the last exit
    ],
)
def test_confidence_answers_at_the_first_exit_that_reaches_the_threshold(
    exit, confidence, decision
):
    request = FakeRequest(remaining_s=-1.0, exit=exit, confidence=confidence)
    assert Confidence(0.8).decide(request, FakeNode()) is decision


def test_confidence_thresholds_0_and_1_are_the_first_and_the_last_exit():
    assert Confidence(0.0).decide(FakeRequest(exit=1, confidence=0.0), FakeNode()) is ANSWER
    assert Confidence(1.0).decide(FakeRequest(exit=2, confidence=0.99), FakeNode()) is run_to(3)


# --- deadline_aware ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("remaining_s", "decision"),
    [
        (100.0, run_to(3)),
        (4.5, run_to(3)),  # 0.5 s home leave exactly the 4 s of exit 3
        (4.4, run_to(2)),
        (2.5, run_to(2)),
        (2.4, run_to(1)),
        (1.5, run_to(1)),
    ],
)
@pytest.mark.parametrize("when_none_fits", ["earliest_exit", "drop"])
def test_deadline_aware_takes_the_deepest_exit_that_fits(remaining_s, decision, when_none_fits):
    policy = DeadlineAware(0.95, when_none_fits)
    assert policy.decide(FakeRequest(remaining_s, home_s=0.5), FakeNode()) is decision


@pytest.mark.parametrize("remaining_s", [1.4, 0.0, -3.0])
def test_deadline_aware_when_none_fits(remaining_s):
    request = FakeRequest(remaining_s, home_s=0.5)
    assert DeadlineAware().decide(request, FakeNode()) is run_to(1)
    assert DeadlineAware(when_none_fits="earliest_exit").decide(request, FakeNode()) is run_to(1)
    assert DeadlineAware(when_none_fits="drop").decide(request, FakeNode()) is DROP


def test_deadline_aware_needs_no_earlier_exit_to_fit():
    # A slow exit in the middle: passing it costs its branch, which a deeper exit does not pay.
    assert DeadlineAware().decide(FakeRequest(4.5), FakeNode((1.0, 5.0, 4.0))) is run_to(3)


def test_deadline_aware_answers_once_computed_even_if_there_is_time_left():
    assert DeadlineAware().decide(FakeRequest(100.0, exit=1), FakeNode()) is ANSWER


def test_deadline_aware_reckons_with_its_quantile_both_ways():
    request, node = FakeRequest(), FakeNode()
    DeadlineAware(quantile=0.8).decide(request, node)
    assert set(request.asked) == set(node.asked) == {0.8}


# --- decisions -----------------------------------------------------------------------------------


def test_decisions_say_what_they_are():
    assert [repr(one) for one in (ANSWER, DROP, run_to(3))] == ["ANSWER", "DROP", "run_to(3)"]
    assert run_to(3).exit == 3
    assert run_to(3) is run_to(3)


@pytest.mark.parametrize("exit", [0, -1])
def test_there_is_no_running_to_exits_before_the_first(exit):
    with pytest.raises((ValueError, IndexError)):
        run_to(exit)


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
    ],
)
def test_policies_by_name(name, parameters, expected, tmp_path):
    assert build_policy(name, parameters, tmp_path, exit_count=3) == expected


def test_the_policies_that_ship_are_those_tested_here():
    assert set(POLICIES) == {"fixed_exit", "confidence", "deadline_aware"}


@pytest.mark.parametrize(
    ("name", "parameters", "parts"),
    [
        ("fixed_exti", {}, ["unknown policy 'fixed_exti'", "did you mean 'fixed_exit'?"]),
        ("deadline-aware", {}, ["did you mean 'deadline_aware'?"]),
        ("zzz", {}, ["unknown policy 'zzz'", "allowed: fixed_exit, confidence, deadline_aware"]),
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

    from sim.policies import ANSWER, DROP, run_to


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
