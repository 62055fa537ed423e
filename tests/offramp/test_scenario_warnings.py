"""What is doubtful in a scenario is said, with its place, and not refused."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from models.errors import ScenarioError
from offramp import load_scenario
from offramp.scenario import shipped_scenarios

CAMERAS = "devices.cameras"
ARRIVALS = f"{CAMERAS}.arrivals"


def test_the_tiny_scenario_has_nothing_doubtful(scenario: Callable[..., Path]) -> None:
    assert load_scenario(str(scenario())).warnings == []


@pytest.mark.parametrize("name", sorted(shipped_scenarios()))
@pytest.mark.usefixtures("named_files")
def test_no_scenario_that_ships_has_anything_doubtful(name: str) -> None:
    assert load_scenario(name).warnings == []


@pytest.mark.parametrize(
    ("changes", "key", "fragments"),
    [
        (
            {"links.wifi.uplink.bandwidth_mbps": 0.005},
            "links.wifi.uplink",
            ["offer 1.23 times", "queue grows"],
        ),
        (
            {
                "links.wifi.downlink.bandwidth_mbps": 0.02,
                "links.wifi.shared_by": "all",
            },
            "links.wifi.downlink",
            ["offer 1.54 times"],
        ),
        (
            {"mqtt": {"qos": 0, "session": "persistent"}},
            "mqtt.session",
            ["keeps no messages"],
        ),
        ({"mqtt": {"qos": 0, "inflight": 9}}, "mqtt.inflight", ["no acknowledgement"]),
        ({"nodes.spare": {}}, "nodes.spare", ["neither devices nor other nodes"]),
        ({"nodes.edge.queue": "priority"}, "nodes.edge.queue", ["the same priority"]),
        (
            {"faults": [{"kind": "node_crash", "node": "edge", "at_s": 4, "for_s": 1}]},
            "faults.0.at_s",
            ["given 4", "over after 3.5 s"],
        ),
        (
            {ARRIVALS: {"process": "trace", "file": "late.csv"}},
            f"{ARRIVALS}.file",
            ["no request falls in the measured window, 0.5 to 3.5 s"],
        ),
    ],
)
def test_one_message_with_its_place(
    changes: dict[str, Any],
    key: str,
    fragments: list[str],
    scenario: Callable[..., Path],
    place_of: Callable[..., str],
    tmp_path: Path,
) -> None:
    (tmp_path / "late.csv").write_text("time_s,device\n0.1,0\n9,0\n")
    path = scenario(changes)
    (message,) = load_scenario(str(path)).warnings
    assert message.startswith(f"{place_of(path, key)}: {key}: ")
    for fragment in fragments:
        assert fragment in message


def test_lora_is_the_best_that_could_happen_and_its_duty_cycle_is_the_authors_business(
    scenario: Callable[..., Path],
) -> None:
    changes = {
        "links.wifi": {"preset": "lora_sf7", "shared_by": 1},
        f"{CAMERAS}.arrivals": {"process": "periodic", "rate_hz": 0.01},
        f"{CAMERAS}.request_bytes": 20,
    }
    (message,) = load_scenario(str(scenario(changes))).warnings
    assert "neither collisions nor duty cycles" in message
    often = {**changes, f"{CAMERAS}.arrivals": {"process": "periodic", "rate_hz": 1}}
    messages = load_scenario(str(scenario(often))).warnings
    assert any("sends 2.93 % of the time; EU868 allows 1 %" in message for message in messages)


def test_a_closed_loop_never_overloads_its_link(scenario: Callable[..., Path]) -> None:
    changes = {
        "links.wifi.uplink.bandwidth_mbps": 0.001,
        ARRIVALS: {"process": "closed_loop", "think_ms": 1},
    }
    assert load_scenario(str(scenario(changes))).warnings == []


def test_how_much_devices_send_that_compute_themselves_is_not_known_before(
    scenario: Callable[..., Path],
) -> None:
    slow = {"links.wifi": {"preset": "lora_sf7"}, f"{CAMERAS}.compute": {"service_ms": 1}}
    (message,) = load_scenario(str(scenario(slow))).warnings
    assert "neither collisions nor duty cycles" in message
    del slow[f"{CAMERAS}.compute"]
    assert len(load_scenario(str(scenario(slow))).warnings) > 1, "else this is no test"


def test_links_that_are_shared_with_devices_that_compute_are_counted_as_they_are(
    scenario: Callable[..., Path],
) -> None:
    """Two cameras on one access point carry too much for it; with one that computes they do not."""
    link = {"shared_by": 2, "uplink": {"bandwidth_mbps": 0.1}, "downlink": {"bandwidth_mbps": 1}}
    camera = {
        "count": 1,
        "arrivals": {"process": "periodic", "rate_hz": 1},
        "deadline_ms": 40,
        "link": "wifi",
        "node": "edge",
        "request_bytes": 9000,
    }
    computing = {**camera, "compute": {"service_ms": 1}}
    first = {"links.wifi": link, "devices": {"first": camera, "second": camera}}
    assert any("devices offer" in text for text in load_scenario(str(scenario(first))).warnings)
    mixed = {"links.wifi": link, "devices": {"first": computing, "second": camera, "third": camera}}
    assert not load_scenario(str(scenario(mixed))).warnings


def test_a_tier_that_holds_no_more_than_the_one_before_is_doubtful(
    scenario: Callable[..., Path],
) -> None:
    nodes = {
        "edge": {"service_ms": 1, "last_exit": 1, "next_tier": {"node": "fog"}},
        "fog": {"service_ms": 1, "last_exit": 1, "next_tier": {"node": "cloud"}},
        "cloud": {"service_ms": 1},
    }
    (message,) = load_scenario(str(scenario({"nodes": nodes}))).warnings
    assert "nodes.edge.next_tier: 'fog' holds no more exits" in message
    assert "never get to 'cloud'" in message


def test_as_many_outages_are_expected_as_there_are_links(scenario: Callable[..., Path]) -> None:
    """Devices on one access point have one."""
    outage = {"kind": "link_outage", "link": "wifi", "mtbf_s": 1e-4, "mttr_s": 1e-4}
    many = {f"{CAMERAS}.count": 2000, "faults": [outage], "links.wifi.shared_by": "all"}
    load_scenario(str(scenario(many)))
    with pytest.raises(ScenarioError, match="failures in one replication"):
        load_scenario(str(scenario({**many, "links.wifi.shared_by": 2})))


def test_thresholds_may_be_given_where_not_every_exit_is_in_reach(
    scenario: Callable[..., Path],
) -> None:
    policies = [{"policy": "confidence", "thresholds": [0.8]}]
    load_scenario(str(scenario({"nodes.edge.last_exit": 1, "policies": policies})))
    policies[0]["thresholds"] = [0.8, 0.9]
    with pytest.raises(ScenarioError, match="thresholds"):
        load_scenario(str(scenario({"nodes.edge.last_exit": 1, "policies": policies})))
