"""What `offramp recommend` searches: its default, the block `recommend`, and what is refused."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from models.errors import ScenarioError
from offramp import load_scenario
from offramp.recommendation.cost import CostKind
from offramp.recommendation.definition import Question, load_question
from offramp.recommendation.space import (
    Configuration,
    PolicyOption,
    Space,
    coordinate_of,
    value_at,
)
from offramp.recommendation.target import read_targets
from offramp.sweep.axes import Choices, Integers, LogUniform, Uniform

Asking = Callable[..., Question]


@pytest.fixture
def ask(scenario: Callable[..., Path]) -> Asking:
    """Loads the tiny scenario, changed, with a block `recommend`."""

    def load(
        block: Any = ..., *overrides: str, cost: CostKind = "workers", **changes: Any
    ) -> Question:
        changes = {key.replace("__", "."): value for key, value in changes.items()}
        path = scenario({**changes, **({} if block is ... else {"recommend": block})})
        return load_question(str(path), overrides, read_targets(["aud=0.5"]), cost)

    return load


def names(question: Question) -> list[str]:
    return [option.name for option in question.space.policies]


# --- the default ---------------------------------------------------------------------------------


def test_without_a_block_policies_exits_thresholds_and_workers_are_searched(ask: Asking) -> None:
    space = ask().space
    assert space.keys == {"nodes.edge.workers": Integers(1, 8)}
    assert names(ask()) == [
        *("fixed_exit", "deadline_aware", "load_adaptive"),
        *("confidence", "deadline_confidence"),
    ]
    assert space.option("fixed_exit").draws == {"exit": Integers(1, 2)}
    thresholds = space.option("confidence").draws["threshold"]
    assert isinstance(thresholds, Choices)
    assert thresholds.values[0] == 0.1, "of ten classes, a guess is surer"
    assert thresholds.values[-1] == 0.99
    assert space.size == 8 * (2 + 1 + 1 + 2 * 90)


def test_more_workers_are_searched_where_more_are_given(ask: Asking) -> None:
    assert ask(nodes__edge__workers=9).space.keys == {"nodes.edge.workers": Integers(1, 18)}


def test_every_node_has_workers_and_tiers_may_offload(ask: Asking) -> None:
    nodes = {
        "edge": {"speed": 0.1, "last_exit": 1, "next_tier": {"node": "cloud"}},
        "cloud": {"workers": 2},
    }
    question = ask(nodes=nodes, policies=["deadline_aware"])
    assert set(question.space.keys) == {"nodes.edge.workers", "nodes.cloud.workers"}
    assert "offload" in names(question)
    assert question.space.option("fixed_exit").draws == {"exit": Integers(1, 2)}


def test_exits_that_no_request_reaches_are_not_searched(ask: Asking) -> None:
    question = ask(nodes__edge__last_exit=1, policies=["deadline_aware"])
    assert question.space.option("fixed_exit").draws == {"exit": Integers(1, 1)}


def test_policies_of_the_scenario_that_no_other_covers_are_searched_as_they_are(
    ask: Asking,
) -> None:
    policies = [
        {"policy": "deadline_aware", "quantile": 0.99},
        {"policy": "confidence", "threshold": 0.9},  # a value of what is searched anyway
        {"policy": "confidence", "threshold": 0.9, "label": "mine"},
        {"policy": "confidence", "wanted_accuracy": 0.5},
        "anytime",
    ]
    assert names(ask(policies=policies))[:4] == [
        "deadline_aware(quantile=0.99)",
        "mine",
        "confidence(wanted_accuracy=0.5)",
        "anytime",
    ]


def test_nobody_can_deploy_an_oracle(ask: Asking) -> None:
    question = ask({"policies": "scenario"}, policies=["oracle", "full"])
    assert names(question) == ["full"]
    assert [it.policy["policy"] for it in question.given()] == ["full"]
    with pytest.raises(ScenarioError, match="no policy to recommend"):
        ask({"policies": "scenario"}, policies=["oracle"])


def test_what_the_command_line_sets_is_not_searched(ask: Asking) -> None:
    assert ask(..., "nodes.edge.workers=3").space.keys == {}


# --- the block -----------------------------------------------------------------------------------


def test_ranges_of_the_block_are_those_of_a_sweep(ask: Asking) -> None:
    keys = {
        "nodes.edge.workers": {"integers": [1, 3]},
        "nodes.edge.speed": {"log_uniform": [0.05, 0.5]},
        "links.wifi.uplink.latency_ms": {"uniform": [1, 9]},
        "nodes.edge.queue": ["fifo", "edf"],
        "devices.cameras.count": [4, 2],
        "policies.1.exit": [2, 1],
        "policies.0.quantile": {"uniform": [0.5, 0.9]},
    }
    space = ask({"keys": keys, "policies": "scenario"}).space
    assert space.keys == {
        "nodes.edge.workers": Integers(1, 3),
        "nodes.edge.speed": LogUniform(0.05, 0.5),
        "links.wifi.uplink.latency_ms": Uniform(1, 9),
        "nodes.edge.queue": Choices(("fifo", "edf")),
        "devices.cameras.count": Choices((2, 4)),
    }
    assert space.policies == (
        PolicyOption(
            "deadline_aware", {"policy": "deadline_aware"}, {"quantile": Uniform(0.5, 0.9)}
        ),
        PolicyOption("fixed_exit", {"policy": "fixed_exit"}, {"exit": Choices((1, 2))}),
    )
    assert space.size == float("inf")


def test_a_trial_is_the_scenario_with_its_values(ask: Asking) -> None:
    question = ask()
    configuration = Configuration({"policy": "confidence", "threshold": 0.7}, (5,))
    at = question.template.scenario_at(question.verified("curriculum", configuration)).scenario
    assert at.nodes["edge"].workers == 5
    assert at.training.strategies == ["curriculum"]
    assert [it.parameters for it in at.policies] == [{"threshold": 0.7}]
    assert (at.simulation.replications, at.seed) == (10, 3)
    screened = question.template.scenario_at(question.screened("curriculum", configuration))
    assert screened.scenario.simulation.replications == 3
    assert screened.scenario.seed != 3, "a verification sees other requests"


def test_the_given_scenario_and_the_corners_are_in_the_space(ask: Asking) -> None:
    question = ask()
    given, corners = list(question.given()), list(question.corners())
    assert [(it.label, it.values) for it in given] == [
        ("deadline_aware", (1,)),
        ("fixed_exit(exit=2)", (1,)),
    ]
    assert [it.values for it in corners] == [(1,), (8,)]
    for configuration in (*given, *corners):
        at = question.space.coordinates(configuration)
        assert at is not None
        assert question.space.configuration(at).key == configuration.key


def test_a_scenario_is_checked_with_its_block_and_runs_without_it(
    scenario: Callable[..., Path], offramp: Callable[..., Any]
) -> None:
    path = scenario({"recommend": {"keys": {"nodes.edge.workers": [1, 2]}, "trials": 5}})
    assert load_scenario(str(path)).scenario.recommend is not None
    ran = offramp("check", path)
    assert ran.status == 0
    assert "trials: 5" in ran.out
    assert "recommend: nodes.edge.workers: one of 1, 2" in ran.err


# --- what is refused -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("block", "at", "says"),
    [
        ({"keys": {"nodes.edge.wrkers": [1, 2]}}, "recommend.keys", "did you mean 'workers'"),
        ({"keys": {"nodes.egde.workers": [1]}}, "recommend.keys", "did you mean 'edge'"),
        ({"keys": {"policies.7.exit": [1]}}, "recommend.keys", "policies is a list of 2"),
        ({"keys": {"policies.1.exit": [1, 9]}}, "recommend.keys", "exits 1 to 2"),
        ({"keys": {"policies.1.exti": [1]}}, "recommend.keys", "did you mean 'exit'"),
        ({"keys": {"policies": [["full"]]}}, "recommend.keys", "list them under policies"),
        ({"keys": {"policies.0.policy": ["full"]}}, "recommend.keys", "list them under policies"),
        ({"keys": {"seed": [1, 2]}}, "recommend.keys", "cannot be searched"),
        ({"keys": {"simulation.replications": [1]}}, "recommend.keys", "cannot be searched"),
        ({"keys": {"training.strategies": [["standard"]]}}, "recommend.keys", "every strategy"),
        ({"keys": {"recommend.trials": [1]}}, "recommend.keys", "cannot be searched"),
        ({"keys": {"nodes.edge.workers": {"integers": [3, 3]}}}, "recommend.keys", "low below"),
        ({"keys": {"nodes.edge.workers": {"integers": [0, 3]}}}, "recommend.keys", "given 0"),
        ({"keys": {"nodes.edge.workers": []}}, "recommend.keys", "an entry"),
        ({"keys": {"nodes.edge.workers": 3}}, "recommend.keys", "given 3"),
        ({"kyes": {}}, "recommend", "did you mean 'keys'"),
        ({"trials": 0}, "recommend.trials", "greater than or equal to 1"),
        ({"replications": 1}, "recommend.replications", "one replication says nothing"),
        ({"screening_replications": 1}, "recommend.screening_replications", "at least 2"),
        ({"prices": {"edge": -1}}, "recommend.prices", "greater than or equal to 0"),
        ({"policies": "none"}, "recommend.policies", "allowed: all, scenario"),
    ],
)
def test_a_bad_block_is_told_with_its_place(
    block: Any,
    at: str,
    says: str,
    ask: Asking,
    tmp_path: Path,
    place_of: Callable[..., str],
) -> None:
    with pytest.raises(ScenarioError) as caught:
        ask(block)
    message = str(caught.value)
    assert says in message
    line = int(place_of(tmp_path / "tiny.yaml", at).rpartition(":")[2])
    assert any(message.startswith(f"{tmp_path / 'tiny.yaml'}:{line + it}:") for it in range(3))


def test_a_price_of_no_node_is_refused(ask: Asking) -> None:
    with pytest.raises(ScenarioError, match="no node is called 'egde'; did you mean 'edge'"):
        ask({"prices": {"egde": 2.0}})


def test_energy_is_no_cost_where_nobody_declares_any(ask: Asking) -> None:
    with pytest.raises(ScenarioError, match="no node and no device declares its power"):
        ask(cost="energy")


# --- coordinates ---------------------------------------------------------------------------------

SPACE = Space(
    {"a": Integers(2, 4), "b": Choices(("x", "y"))},
    (
        PolicyOption("full", {"policy": "full"}, {}),
        PolicyOption("fixed_exit", {"policy": "fixed_exit"}, {"exit": Integers(1, 2)}),
    ),
)


def test_a_finite_space_is_listed_whole() -> None:
    everything = [it.key for it in SPACE.all()]
    assert len(everything) == len({*everything}) == SPACE.size == 6 * 3
    for configuration in SPACE.all():
        at = SPACE.coordinates(configuration)
        assert at is not None
        assert SPACE.configuration(at).key == configuration.key


@pytest.mark.parametrize(
    "outside",
    [
        Configuration({"policy": "full"}, (5, "x")),
        Configuration({"policy": "full"}, (2, "z")),
        Configuration({"policy": "full"}, (None, "x")),
        Configuration({"policy": "fixed_exit", "exit": 3}, (2, "x")),
        Configuration({"policy": "fixed_exit", "exit": 1, "label": "mine"}, (2, "x")),
        Configuration({"policy": "anytime"}, (2, "x")),
    ],
)
def test_what_lies_outside_has_no_coordinates(outside: Configuration) -> None:
    assert SPACE.coordinates(outside) is None


def test_numbers_of_a_range_have_few_digits_and_stay_in_it() -> None:
    assert value_at(Uniform(0, 1), 0.123456789) == 0.1235
    assert value_at(Uniform(0.123456, 1), 0.123457) == 0.1235
    assert value_at(LogUniform(0.01, 0.123412), 0.1234119) == 0.1234
    assert value_at(Uniform(0, 0.99999), 0.999989) == 0.99999
    assert coordinate_of(Uniform(0, 1), 0.5) == 0.5
    assert coordinate_of(Uniform(0, 1), True) is None
