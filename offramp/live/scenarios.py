"""A scenario as it is run live: what cannot be, and what is left of the world that is simulated."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace
from typing import Any

from models.errors import ScenarioError
from offramp.checks import policy_label
from offramp.checks.common import Problem
from offramp.scenario import LoadedScenario
from offramp.schema import LinkSection, MqttSection, Scenario, TrainingSection

#: Policies that ask what nobody can know of a request before it is computed.
FORESEEING = ("oracle",)


def check_live(loaded: LoadedScenario, version: str | None) -> None:
    """See whether a scenario can be run live.

    Args:
        version: of MQTT; None: on the embedded broker.

    Raises:
        ScenarioError: it cannot; the message lists every reason.
    """
    problems = [*_tiers(loaded.scenario), *_shared(loaded.scenario, version)]
    if problems:
        raise ScenarioError("\n".join(str(loaded.error_at(*it)) for it in problems))


def _tiers(scenario: Scenario) -> Iterator[Problem]:
    for name, node in scenario.nodes.items():
        if node.next_tier is not None:
            yield (
                ("nodes", name, "next_tier"),
                "a live node sends nothing on to another: leave next_tier out "
                f"(--set nodes.{name}.next_tier=null), or use `offramp simulate`",
            )
    for name, group in scenario.devices.items():
        if group.compute is not None:
            yield (
                ("devices", name, "compute"),
                "live devices compute nothing themselves: leave compute out "
                f"(--set devices.{name}.compute=null), or use `offramp simulate`",
            )


def _shared(scenario: Scenario, version: str | None) -> Iterator[Problem]:
    if version == "5":
        return
    why = (
        "these clients speak 3.1.1"
        if version
        else "the embedded broker does not speak it: name one that does (--broker mqtt://HOST)"
    )
    for name, node in scenario.nodes.items():
        if node.replicas > 1:
            yield (
                ("nodes", name, "replicas"),
                f"replicas share their requests by shared subscriptions of MQTT 5, and {why}; or "
                f"run one (--set nodes.{name}.replicas=1)",
            )


def live_policies(scenario: Scenario, labels: Sequence[str]) -> tuple[list[str], list[str]]:
    """Labels of the policies to run live, and of those that are left out.

    Args:
        labels: that the user chose; empty: all that can be run live.

    Raises:
        ScenarioError: none is left, or a chosen one cannot be run live.
    """
    foreseeing = {policy_label(spec) for spec in scenario.policies if spec.policy in FORESEEING}
    wanted = labels or [policy_label(spec) for spec in scenario.policies]
    left_out = [label for label in wanted if label in foreseeing]
    chosen = [label for label in wanted if label not in foreseeing]
    if left_out and (labels or not chosen):
        raise ScenarioError(
            f"policy {left_out[0]!r} knows what will come of a request; only a simulator knows "
            "that: it cannot be run live"
        )
    return chosen, left_out


def live_scenario(
    loaded: LoadedScenario,
    strategies: Sequence[str],
    seeds: Sequence[int],
    policies: Collection[str],
    replications: int,
    mqtt_version: str,
) -> LoadedScenario:
    """The scenario with the arms that are run, in a world with nothing but what is there live.

    Links carry what they carry, nodes are as fast as they are, nothing fails on purpose, energy is
    not measured, and there is a record of every request.
    """
    scenario = loaded.scenario
    mqtt = scenario.mqtt or MqttSection()
    changes: dict[str, Any] = {
        "training": _training(scenario.training, strategies, seeds),
        "policies": [it for it in scenario.policies if policy_label(it) in policies],
        "links": dict.fromkeys(scenario.links, LinkSection()),
        "faults": [],
        "nodes": {
            name: node.model_copy(
                update={
                    "speed": 1.0,
                    "profile": None,
                    "service_ms": None,
                    "overhead": None,
                    "energy": None,
                }
            )
            for name, node in scenario.nodes.items()
        },
        "devices": {
            name: group.model_copy(update={"energy": None})
            for name, group in scenario.devices.items()
        },
        "mqtt": mqtt.model_copy(
            update={"version": mqtt_version, "broker_ms": 0.0, "backhaul": None}
        ),
        "simulation": scenario.simulation.model_copy(
            update={"replications": replications, "records": "full"}
        ),
    }
    return replace(loaded, scenario=scenario.model_copy(update=changes))


def _training(
    training: TrainingSection, strategies: Sequence[str], seeds: Sequence[int]
) -> TrainingSection:
    """The training of some strategies and seeds alone, each trained as it would be with all."""
    places = [training.seed_list.index(seed) for seed in seeds]
    update: dict[str, Any] = {
        "strategies": list(strategies),
        "seeds": list(seeds),
        "checkpoints": {
            strategy: [files[place] for place in places]
            for strategy, files in training.checkpoints.items()
            if strategy in strategies
        },
    }
    return training.model_copy(update=update)
