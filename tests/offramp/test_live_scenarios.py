"""What of a scenario can be run live, what is left of it, and what a reader is told."""

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from models.errors import ScenarioError
from offramp import load_scenario
from offramp.live.scenarios import check_live, live_policies, live_scenario
from offramp.live.warnings import crowded, not_emulated
from offramp.scenario import LoadedScenario
from offramp.stages import keys
from offramp.worlds import needs_host_profile

Load = Callable[..., LoadedScenario]

TIERS: dict[str, Any] = {
    "nodes.cloud": {"workers": 4},
    "nodes.edge.next_tier": {"node": "cloud"},
}
ENERGY = {"idle_w": 1, "compute_w": 2, "transmit_w": 1, "receive_w": 1, "source": "a guess"}


@pytest.fixture
def load(scenario: Callable[..., Path]) -> Load:
    return lambda changes=None: load_scenario(str(scenario(copy.deepcopy(changes))))


# --- what is refused ----------------------------------------------------------------------------


def test_a_plain_scenario_can_be_run_live(load: Load) -> None:
    check_live(load(), None)


def test_tiers_and_devices_that_compute_are_refused_where_they_are_written(
    load: Load, scenario: Callable[..., Path], place_of: Callable[..., str]
) -> None:
    loaded = load({**TIERS, "devices.cameras.compute": {"speed": 0.1}})
    with pytest.raises(ScenarioError) as error:
        check_live(loaded, "5")
    path = Path(loaded.source)
    lines = str(error.value).splitlines()
    assert len(lines) == 2
    assert lines[0].startswith(place_of(path, "nodes.edge.next_tier"))
    assert "--set nodes.edge.next_tier=null" in lines[0]
    assert lines[1].startswith(place_of(path, "devices.cameras.compute"))
    assert "--set devices.cameras.compute=null" in lines[1]


def test_what_the_messages_advise_makes_the_scenario_one_that_runs(
    scenario: Callable[..., Path],
) -> None:
    path = scenario({**TIERS, "devices.cameras.compute": {"speed": 0.1}})
    overrides = ["nodes.edge.next_tier=null", "devices.cameras.compute=null"]
    check_live(load_scenario(str(path), overrides), "5")


@pytest.mark.parametrize(
    ("version", "words"), [(None, "--broker mqtt://HOST"), ("3.1.1", "these clients speak 3.1.1")]
)
def test_replicas_need_mqtt_5(load: Load, version: str | None, words: str) -> None:
    loaded = load({"nodes.edge.replicas": 2})
    with pytest.raises(ScenarioError, match="shared subscriptions of MQTT 5") as error:
        check_live(loaded, version)
    assert words in str(error.value)
    check_live(loaded, "5")


# --- policies -----------------------------------------------------------------------------------


def test_the_oracle_is_left_out_unless_it_is_asked_for(load: Load) -> None:
    scenario = load({"policies": ["full", "oracle"]}).scenario
    assert live_policies(scenario, []) == (["full"], ["oracle"])
    assert live_policies(scenario, ["full"]) == (["full"], [])
    for labels in (["oracle"], ["full", "oracle"]):
        with pytest.raises(ScenarioError, match="'oracle' knows what will come of a request"):
            live_policies(scenario, labels)


def test_a_scenario_with_the_oracle_alone_is_refused(load: Load) -> None:
    with pytest.raises(ScenarioError, match="cannot be run live"):
        live_policies(load({"policies": ["oracle"]}).scenario, [])


# --- what is left -------------------------------------------------------------------------------


def test_trained_networks_are_those_of_the_whole_scenario(load: Load) -> None:
    loaded = load({"training.seeds": [4, 7]})
    live = live_scenario(loaded, ["curriculum"], [7], ["deadline_aware"], 1, "5")
    of_all = {(name, seed): key for name, seed, key in keys.trained_networks(loaded.experiment)}
    left = {(name, seed): key for name, seed, key in keys.trained_networks(live.experiment)}
    assert left == {("curriculum", 7): of_all["curriculum", 7]}


def test_checkpoints_that_the_user_named_go_with_their_seed(load: Load, tmp_path: Path) -> None:
    for name in "abcd":
        (tmp_path / name).write_text(name)
    files = {"standard": ["a", "b"], "curriculum": ["c", "d"]}
    loaded = load({"training.checkpoints": files, "training.seeds": [4, 7]})
    live = live_scenario(loaded, ["curriculum"], [7], ["deadline_aware"], 1, "5")
    assert live.scenario.training.checkpoints == {"curriculum": ["d"]}


def test_only_what_is_there_live_is_left_of_the_world(load: Load) -> None:
    loaded = load(
        {
            "nodes.edge": {"workers": 2, "speed": 0.1, "queue": "edf", "energy": ENERGY},
            "devices.cameras.energy": ENERGY,
            "faults": [{"kind": "node_crash", "node": "edge", "at_s": 1, "for_s": 1}],
            "mqtt": {"qos": 2, "broker_ms": 3, "backhaul": "wifi"},
            "simulation.records": "summary",
        }
    )
    live = live_scenario(loaded, ["standard"], [0], ["deadline_aware"], 3, "3.1.1").scenario
    node, mqtt = live.nodes["edge"], live.mqtt
    assert (node.workers, node.queue, node.speed, node.energy) == (2, "edf", 1.0, None)
    assert (live.devices["cameras"].energy, live.faults) == (None, [])
    assert live.links["wifi"].uplink.bandwidth_mbps is None
    assert mqtt is not None
    assert (mqtt.qos, mqtt.version, mqtt.broker_ms, mqtt.backhaul) == (2, "3.1.1", 0.0, None)
    assert (live.simulation.records, live.simulation.replications) == ("full", 3)
    assert len(live.policies) == 1


@pytest.mark.parametrize("times", [{"service_ms": 5}, {"speed": 0.5}])
def test_live_nodes_always_need_a_profile_of_their_host(load: Load, times: Any) -> None:
    loaded = load({"nodes.edge": times})
    live = live_scenario(loaded, ["standard"], [0], ["deadline_aware"], 1, "5")
    assert needs_host_profile(live)


# --- what is told -------------------------------------------------------------------------------

TOLD: list[tuple[dict[str, Any], str]] = [
    ({"nodes.edge.speed": 0.1}, "speed 0.1 is not emulated"),
    ({"nodes.edge": {"service_ms": 4}}, "service_ms is not used"),
    (
        {"faults": [{"kind": "broker_restart", "at_s": 1, "for_s": 1}], "mqtt": {}},
        "faults are not injected (broker restart)",
    ),
    ({"links": {"wifi": {"downlink": {"latency_ms": 2}}}}, "links are not emulated (wifi)"),
    ({"devices.cameras.energy": ENERGY}, "energy is not measured"),
    ({"simulation.records": "summary"}, "a record of every request"),
    ({"mqtt": {"version": "5"}}, "the embedded broker speaks MQTT 3.1.1"),
    ({"mqtt": {"tls": True}}, "the embedded broker has no TLS"),
    (
        {"mqtt": {"broker_ms": 1, "share": "random"}},
        "mqtt.broker_ms, mqtt.share are not emulated",
    ),
]

SILENT: dict[str, Any] = {"links": {"wifi": {}}, "nodes.edge": {"workers": 1}}


@pytest.mark.parametrize(("changes", "words"), TOLD, ids=[words for _, words in TOLD])
def test_what_is_not_emulated_is_told(load: Load, changes: dict[str, Any], words: str) -> None:
    told = not_emulated(load({**SILENT, **changes}).scenario, embedded=True)
    assert [text for text in told if words in text], told


def test_nothing_is_told_where_nothing_is_left_out(load: Load) -> None:
    assert not_emulated(load(SILENT).scenario, embedded=True) == []
    mqtt = {**SILENT, "mqtt": {"version": "5", "tls": True}}
    assert not_emulated(load(mqtt).scenario, embedded=False) == []


def test_it_is_told_when_workers_wait_for_one_another(load: Load) -> None:
    scenario = load({"nodes.edge": {"workers": 2}, "profile.threads": 3}).scenario
    assert crowded(scenario, here=1, cores=8) == []
    assert "has 7 processors for 6 threads of workers" in crowded(scenario, here=1, cores=7)[0]
