"""What is doubtful in a scenario is said, with its place, and not refused."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

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
