"""What is wrong with a world is one message: file, line, key, what was given, what is allowed."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from models.artifacts import Profile, write_profile
from offramp import ScenarioError, load_scenario

UP = "links.wifi.uplink"
CAMERAS = "devices.cameras"
ARRIVALS = f"{CAMERAS}.arrivals"
EDGE = "nodes.edge"
POWER = {"idle_w": 1, "compute_w": 2, "transmit_w": 2, "receive_w": 2, "source": "a data sheet"}


def tiers(**changes: Any) -> dict[str, Any]:
    """An edge and a cloud behind it, with keys changed by dotted name below ``nodes``."""
    return {
        "nodes.edge": {"service_ms": 3, "next_tier": {"node": "cloud", "link": "wan"}},
        "nodes.cloud": {"service_ms": 1},
        "links.wan": {"uplink": {"latency_ms": 10}},
        **{f"nodes.{key.replace('__', '.')}": value for key, value in changes.items()},
    }


#: Words of the machinery, which say nothing to someone who writes YAML.
JARGON = ("Input should", "after validation", "Traceback", "discriminator", "tagged-union")

# (changes to the tiny scenario; the key that the message names; what else it says)
Row = tuple[dict[str, Any], str, list[str]]

LINKS: list[Row] = [
    (
        {"links.wifi": {"preset": "wiffi"}},
        "links.wifi.preset",
        ["given 'wiffi'", "did you mean 'wifi'?", "lora_sf12"],
    ),
    ({"links.wifi.preset": 3}, "links.wifi.preset", ["given 3", "ethernet"]),
    ({"links.wifi.shared_by": 0}, "links.wifi.shared_by", ["given 0", "1"]),
    ({"links.wifi.shared_by": "al"}, "links.wifi.shared_by", ["'al'", "'all'", "or an integer"]),
    (
        {"links.wifi": {"preset": "wifi", "uplink": {"jitter_ms": 1}}},
        f"{UP}.jitter_ms",
        ["latency_ms of preset wifi", "give latency_ms too"],
    ),
    (
        {"links.wifi": {"preset": "wifi", "uplink": {"latncy_ms": 1}}},
        f"{UP}.latncy_ms",
        ["unknown key", "'latency_ms'"],
    ),
    ({f"{UP}.loss_percent": 100}, f"{UP}.loss_percent", ["given 100", "less than 100"]),
    ({f"{UP}.loss_percent": -1}, f"{UP}.loss_percent", ["given -1", "0"]),
    ({UP: {"latency_file": "gone.csv"}}, f"{UP}.latency_file", ["no such file", "gone.csv"]),
    ({UP: {"latency_file": "$TINY_GONE/x"}}, f"{UP}.latency_file", ["TINY_GONE", "not set"]),
    (
        {UP: {"latency_file": "rtt.csv", "latency_ms": 3}},
        f"{UP}.latency_file",
        ["latency_ms or latency_file, not both"],
    ),
    ({UP: {"latency_file": "rtt.csv", "jitter_ms": 3}}, f"{UP}.jitter_ms", ["one or the other"]),
    ({UP: {"latency_file": "negative.csv"}}, f"{UP}.latency_file", ["negative.csv:2", "'-1'"]),
    ({UP: {"latency_file": "words.csv"}}, f"{UP}.latency_file", ["words.csv:2", "'fast'"]),
    ({UP: {"bandwidth_trace": "gone.csv"}}, f"{UP}.bandwidth_trace", ["no such file"]),
    (
        {UP: {"bandwidth_trace": "lte.csv", "bandwidth_mbps": 3}},
        f"{UP}.bandwidth_trace",
        ["bandwidth_mbps or bandwidth_trace, not both"],
    ),
    (
        {UP: {"bandwidth_trace": "lte.csv", "bandwidth_column": "up_mbs"}},
        f"{UP}.bandwidth_trace",
        ["lte.csv:1", "no column 'up_mbs'", "'up_mbps'"],
    ),
    (
        {UP: {"bandwidth_trace": "falling.csv"}},
        f"{UP}.bandwidth_trace",
        ["falling.csv:3", "comes before"],
    ),
    ({UP: {"bandwidth_column": "up_mbps"}}, f"{UP}.bandwidth_column", ["give bandwidth_trace too"]),
]

MQTT: list[Row] = [
    ({"mqtt": {"version": "4"}}, "mqtt.version", ["given '4'", "allowed: 5, 3.1.1"]),
    ({"mqtt": {"qos": 3}}, "mqtt.qos", ["given 3", "allowed: 0, 1, 2"]),
    ({"mqtt": {"sesion": "clean"}}, "mqtt.sesion", ["unknown key", "'session'"]),
    ({"mqtt": {"session": "clear"}}, "mqtt.session", ["'clear'", "'clean'", "persistent"]),
    ({"mqtt": {"share": "robin"}}, "mqtt.share", ["given 'robin'", "round_robin, random"]),
    ({"mqtt": {"inflight": 0}}, "mqtt.inflight", ["given 0", "1"]),
    ({"mqtt": {"broker_ms": "slow"}}, "mqtt.broker_ms", ["given 'slow'", "number"]),
    ({"mqtt": {"keep_alive_s": 0}}, "mqtt.keep_alive_s", ["given 0", "greater than 0"]),
    (
        {"mqtt": {"backhaul": "wfi"}},
        "mqtt.backhaul",
        ["no link is called 'wfi'", "did you mean 'wifi'?", "there are: wifi"],
    ),
    ({"mqtt": True}, "mqtt", ["given True", "mapping"]),
    (
        {"mqtt": {}, "devices.cameras.response_bytes": 268_400_000},
        "devices.cameras.response_bytes",
        ["given 268400000", "at most"],
    ),
]

NODES: list[Row] = [
    ({f"{EDGE}.queue": "lifo"}, f"{EDGE}.queue", ["'lifo'", "did you mean 'fifo'?", "edf"]),
    ({f"{EDGE}.admission": "some"}, f"{EDGE}.admission", ["given 'some'", "all, feasible"]),
    ({f"{EDGE}.replicas": 0}, f"{EDGE}.replicas", ["given 0", "1"]),
    ({f"{EDGE}.queue_limit": -1}, f"{EDGE}.queue_limit", ["given -1", "0"]),
    ({f"{EDGE}.batch": 8}, f"{EDGE}.batch", ["given 8", "mapping"]),
    ({f"{EDGE}.batch": {"wait_ms": 5}}, f"{EDGE}.batch.size", ["this key is required"]),
    (
        {f"{EDGE}.batch": {"size": 8}, "profile.batch_sizes": [1, 4]},
        f"{EDGE}.batch.size",
        ["batches of 8", "profile.batch_sizes has at most 4", "add 8 there"],
    ),
    (
        {f"{EDGE}.last_exit": 3},
        f"{EDGE}.last_exit",
        ["given 3", "the network has exits 1 to 2"],
    ),
    (
        tiers(edge__next_tier__node="clod"),
        f"{EDGE}.next_tier.node",
        ["no node is called 'clod'", "did you mean 'cloud'?", "edge, cloud"],
    ),
    (
        tiers(edge__next_tier__link="wlan"),
        f"{EDGE}.next_tier.link",
        ["no link is called 'wlan'", "did you mean 'wan'?"],
    ),
    ({f"{EDGE}.next_tier": "cloud"}, f"{EDGE}.next_tier", ["given 'cloud'", "mapping"]),
    ({f"{EDGE}.next_tier": {"node": "edge"}}, f"{EDGE}.next_tier", ["edge → edge"]),
    (
        tiers(cloud__next_tier={"node": "edge"}),
        f"{EDGE}.next_tier",
        ["in a circle", "edge → cloud → edge"],
    ),
    (
        {**tiers(cloud__last_exit=1), "policies": ["full"]},
        f"{EDGE}.next_tier.node",
        ["'cloud' holds exits 1 to 1", "fewer than 'edge' with 2"],
    ),
    (
        {f"{EDGE}.energy": {**POWER, "compute_w": 0.5}},
        f"{EDGE}.energy.compute_w",
        ["compute_w (0.5) is below idle_w (1.0)", "whole device"],
    ),
    ({f"{EDGE}.energy": {**POWER, "source": " "}}, f"{EDGE}.energy.source", ["source is empty"]),
    ({f"{EDGE}.energy": {**POWER, "idle_w": -1}}, f"{EDGE}.energy.idle_w", ["given -1", "0"]),
    (
        {f"{EDGE}.energy": {key: POWER[key] for key in POWER if key != "source"}},
        f"{EDGE}.energy.source",
        ["this key is required"],
    ),
    (
        {f"{EDGE}.last_exit": 1, "policies": [{"policy": "fixed_exit", "exit": 2}]},
        "policies.0",
        ["exit is 2", "exits 1 to 1", "devices 'cameras'", "node 'edge'"],
    ),
]

DEVICES: list[Row] = [
    (
        {ARRIVALS: {"process": "onoff"}},
        f"{ARRIVALS}.process",
        ["given 'onoff'", "did you mean 'on_off'?", "closed_loop", "trace"],
    ),
    ({ARRIVALS: {"rate_hz": 3}}, f"{ARRIVALS}.process", ["this key is required"]),
    ({ARRIVALS: "poisson"}, ARRIVALS, ["given 'poisson'", "mapping"]),
    (
        {ARRIVALS: {"process": "poisson", "rate_hz": 3, "jitter_ms": 1}},
        f"{ARRIVALS}.jitter_ms",
        ["unknown key", "allowed: process, rate_hz"],
    ),
    (
        {ARRIVALS: {"process": "periodic", "rate_hz": 4, "jitter_ms": 250}},
        f"{ARRIVALS}.jitter_ms",
        ["given 250", "less than the period of 250 ms"],
    ),
    (
        {
            ARRIVALS: {
                "process": "on_off",
                "on_rate_hz": 2,
                "off_rate_hz": 3,
                "mean_on_s": 1,
                "mean_off_s": 1,
            }
        },
        f"{ARRIVALS}.off_rate_hz",
        ["given 3", "less than on_rate_hz, 2"],
    ),
    (
        {ARRIVALS: {"process": "on_off", "on_rate_hz": 2, "mean_on_s": 1}},
        f"{ARRIVALS}.mean_off_s",
        ["this key is required"],
    ),
    (
        {ARRIVALS: {"process": "diurnal", "curve": []}},
        f"{ARRIVALS}.curve",
        ["given []", "a list with an entry"],
    ),
    (
        {ARRIVALS: {"process": "diurnal", "curve": [[0, 1, 2]]}},
        f"{ARRIVALS}.curve.0",
        ["given [0, 1, 2]", "a list with 2 entries"],
    ),
    (
        {ARRIVALS: {"process": "diurnal", "curve": [[0]]}},
        f"{ARRIVALS}.curve.0",
        ["given [0]", "a list with 2 entries"],
    ),
    (
        {ARRIVALS: {"process": "diurnal", "curve": [[0, -1], [5, 1]]}},
        f"{ARRIVALS}.curve.0.1",
        ["given -1", "0"],
    ),
    (
        {ARRIVALS: {"process": "diurnal", "curve": [[5, 1], [0, 1]]}},
        f"{ARRIVALS}.curve.1",
        ["5 s comes before 0 s", "ascend"],
    ),
    (
        {ARRIVALS: {"process": "diurnal", "curve": [[0, 0], [5, 0]]}},
        f"{ARRIVALS}.curve",
        ["above zero"],
    ),
    (
        {ARRIVALS: {"process": "diurnal", "curve": [[0, 1], [5, 0]], "period_s": 3}},
        f"{ARRIVALS}.period_s",
        ["within 0 to 3 s"],
    ),
    ({ARRIVALS: {"process": "closed_loop"}}, f"{ARRIVALS}.think_ms", ["required"]),
    (
        {f"{CAMERAS}.samples": "shufled"},
        f"{CAMERAS}.samples",
        ["'shufled'", "did you mean 'shuffled'?", "drawn", "{correlated: a number}"],
    ),
    (
        {f"{CAMERAS}.samples": {"correlated": 0.5}},
        f"{CAMERAS}.samples.correlated",
        ["given 0.5", "1"],
    ),
    ({f"{CAMERAS}.priority": "high"}, f"{CAMERAS}.priority", ["given 'high'", "integer"]),
    ({f"{CAMERAS}.compute": {"sped": 1}}, f"{CAMERAS}.compute.sped", ["unknown key", "'speed'"]),
    (
        {f"{CAMERAS}.compute": {"profile": "gone.parquet"}},
        f"{CAMERAS}.compute.profile",
        ["no such file"],
    ),
    (
        {f"{CAMERAS}.compute": {"service_ms": 1, "last_exit": 9}},
        f"{CAMERAS}.compute.last_exit",
        ["given 9", "exits 1 to 2"],
    ),
    (
        {f"{CAMERAS}.compute": {"service_ms": 1}, f"{EDGE}.last_exit": 1, "policies": ["full"]},
        f"{CAMERAS}.node",
        ["'edge' holds exits 1 to 1", "fewer than 'cameras' with 2"],
    ),
    (
        {f"{CAMERAS}.energy": {**POWER, "transmit_w": 0.5}},
        f"{CAMERAS}.energy.transmit_w",
        ["is below idle_w"],
    ),
]

TRACES: list[Row] = [
    (
        {ARRIVALS: {"process": "trace", "file": name}, f"{CAMERAS}.deadline_ms": 9},
        f"{ARRIVALS}.file",
        fragments,
    )
    for name, fragments in (
        ("gone.csv", ["no such file", "gone.csv"]),
        ("$TINY_GONE/trace.csv", ["TINY_GONE", "not set"]),
        ("tiny.yaml", ["must end in .csv or .parquet"]),
        ("backwards.csv", ["backwards.csv:3", "time_s is 1", "ascend"]),
        ("early.csv", ["early.csv:2", "time_s is -1", "negative"]),
        ("sixth.csv", ["sixth.csv:3", "device 5 is unknown", "5 devices", "count"]),
        ("strange.csv", ["strange.csv:2", "sample 359 is unknown", "0 to 358"]),
        ("columns.csv", ["column 'tiem_s' is unknown", "'time_s'"]),
    )
] + [
    (
        {ARRIVALS: {"process": "trace", "file": "plain.csv"}, f"{CAMERAS}.deadline_ms": ...},
        f"{CAMERAS}.deadline_ms",
        ["required", "plain.csv has no column deadline_s or deadline_ms"],
    ),
    (
        {ARRIVALS: {"process": "trace", "file": "whole.csv"}},
        f"{CAMERAS}.deadline_ms",
        ["whole.csv brings the deadlines", "leave this key out"],
    ),
    (
        {
            ARRIVALS: {"process": "trace", "file": "whole.csv"},
            f"{CAMERAS}.deadline_ms": ...,
            f"{CAMERAS}.samples": "drawn",
        },
        f"{CAMERAS}.samples",
        ["whole.csv names the samples", "leave this key out"],
    ),
]

SCIPY = {"distribution": "scipy", "name": "weibull_min", "c": 1.5, "scale": 4}
DISTRIBUTIONS: list[Row] = [
    (
        {f"{EDGE}.service_ms": {**SCIPY, "name": "weibul_min"}},
        f"{EDGE}.service_ms",
        ["no continuous distribution 'weibul_min'", "'weibull_min'"],
    ),
    (
        {f"{EDGE}.service_ms": {"distribution": "scipy", "name": "weibull_min"}},
        f"{EDGE}.service_ms",
        ["needs its parameter c"],
    ),
    (
        {f"{EDGE}.service_ms": {**SCIPY, "d": 1}},
        f"{EDGE}.service_ms",
        ["no parameter 'd'", "c, loc, scale"],
    ),
    ({f"{EDGE}.service_ms": {**SCIPY, "c": "a"}}, f"{EDGE}.service_ms.c", ["given 'a'", "number"]),
    ({f"{EDGE}.service_ms": {**SCIPY, "c": -1}}, f"{EDGE}.service_ms", ["does not take"]),
    (
        {f"{EDGE}.service_ms": {**SCIPY, "loc": -1}},
        f"{EDGE}.service_ms",
        ["can be negative", "gamma, lognormal"],
    ),
    (
        {f"{CAMERAS}.deadline_ms": {"distribution": "scipy", "name": "norm", "loc": 30}},
        f"{CAMERAS}.deadline_ms",
        ["can be negative"],
    ),
    (
        {UP: {"latency_ms": {"distribution": "scipy", "name": "pareto", "b": 1}}},
        f"{UP}.latency_ms",
        ["no finite mean"],
    ),
    (
        {f"{EDGE}.service_ms": {"distribution": "empirical", "file": "gone.csv"}},
        f"{EDGE}.service_ms.file",
        ["no such file"],
    ),
    (
        {"mqtt": {"broker_ms": {"distribution": "empirical", "file": "negative.csv"}}},
        "mqtt.broker_ms.file",
        ["negative.csv:2", "'-1'"],
    ),
    (
        {f"{CAMERAS}.deadline_ms": {"distribution": "empirical", "file": "zero.csv"}},
        f"{CAMERAS}.deadline_ms",
        ["above 0"],
    ),
    (
        {f"{CAMERAS}.compute": {"service_ms": 0}},
        f"{CAMERAS}.compute.service_ms",
        ["above 0"],
    ),
]

CRASH = {"kind": "node_crash", "node": "edge", "at_s": 1, "for_s": 1}
FAULTS: list[Row] = [
    ({"faults": CRASH}, "faults", ["list"]),
    ({"faults": ["node_crash"]}, "faults.0", ["given 'node_crash'", "mapping"]),
    ({"faults": [{"node": "edge"}]}, "faults.0.kind", ["this key is required"]),
    (
        {"faults": [{**CRASH, "kind": "node_chrash"}]},
        "faults.0.kind",
        ["'node_chrash'", "did you mean 'node_crash'?", "device_churn"],
    ),
    ({"faults": [{**CRASH, "node": "egde"}]}, "faults.0.node", ["'egde'", "'edge'"]),
    ({"faults": [{**CRASH, "link": "wifi"}]}, "faults.0.link", ["unknown key", "allowed: at_s"]),
    (
        {"faults": [{"kind": "link_outage", "link": "wfi", "at_s": 1, "for_s": 1}]},
        "faults.0.link",
        ["no link is called 'wfi'", "'wifi'"],
    ),
    (
        {**tiers(), "faults": [{"kind": "link_outage", "link": "wan", "at_s": 1, "for_s": 1}]},
        "faults.0.link",
        ["no devices use link 'wan'", "they use: wifi"],
    ),
    (
        {"faults": [{"kind": "device_churn", "devices": "camera", "mtbf_s": 1, "mttr_s": 1}]},
        "faults.0.devices",
        ["no group of devices is called 'camera'", "'cameras'"],
    ),
    (
        {"faults": [{"kind": "broker_restart", "at_s": 1, "for_s": 1}]},
        "faults.0.kind",
        ["there is no broker", "mqtt"],
    ),
    (
        {"faults": [{"kind": "slow_node", "node": "edge", "at_s": 1, "for_s": 1}]},
        "faults.0.factor",
        ["this key is required"],
    ),
    (
        {"faults": [{"kind": "node_crash", "node": "edge"}]},
        "faults.0",
        ["given neither", "at_s and for_s, or mtbf_s and mttr_s"],
    ),
    (
        {"faults": [{**CRASH, "mtbf_s": 3}]},
        "faults.0",
        ["given at_s, for_s, mtbf_s", "or mtbf_s and mttr_s"],
    ),
    (
        {"faults": [{"kind": "node_crash", "node": "edge", "at_s": 1}]},
        "faults.0.for_s",
        ["required with at_s"],
    ),
    (
        {"faults": [{"kind": "node_crash", "node": "edge", "mttr_s": 1}]},
        "faults.0.mtbf_s",
        ["required with mttr_s"],
    ),
    ({"faults": [{**CRASH, "at_s": -1}]}, "faults.0.at_s", ["given -1", "0"]),
    ({"faults": [{**CRASH, "for_s": 0}]}, "faults.0.for_s", ["given 0", "greater than 0"]),
    (
        {"faults": [{"kind": "node_crash", "node": "edge", "mtbf_s": 1e-7, "mttr_s": 1e-7}]},
        "faults.0.mtbf_s",
        ["failures in one replication", "raise mtbf_s"],
    ),
]

SIMULATION: list[Row] = [
    ({"simulation.records": "some"}, "simulation.records", ["given 'some'", "full, summary"]),
    ({"simulation.telemetry_step_s": 0}, "simulation.telemetry_step_s", ["given 0", "than 0"]),
    ({"simulation.telemetry_step_s": 9}, "simulation.telemetry_step_s", ["given 9", "3.5 s"]),
    (
        {"simulation.telemetry_step_s": 1e-7},
        "simulation.telemetry_step_s",
        ["3.5e+07 samples", "at least 3.5e-06"],
    ),
    ({"simulation.trace_window_s": [1]}, "simulation.trace_window_s", ["given [1]", "2 entries"]),
    ({"simulation.trace_window_s": [2, 1]}, "simulation.trace_window_s", ["[2, 1]", "end after"]),
    ({"simulation.trace_window_s": [4, 5]}, "simulation.trace_window_s", ["within the 3.5 s"]),
    ({"simulation.trace_window_s": [0, math.nan]}, "simulation.trace_window_s.1", ["nan"]),
]

FILES = {
    "rtt.csv": "1\n2\n",
    "negative.csv": "1\n-1\n",
    "words.csv": "latency\nfast\n",
    "zero.csv": "0\n2\n",
    "lte.csv": "time_s,bandwidth_mbps,up_mbps\n0,3,1\n1,4,1\n",
    "falling.csv": "time_s,bandwidth_mbps\n1,3\n0,4\n",
    "backwards.csv": "time_s,device\n2,0\n1,0\n",
    "early.csv": "time_s,device\n-1,0\n",
    "sixth.csv": "time_s,device\n0,0\n1,5\n",
    "strange.csv": "time_s,device,sample\n0,0,359\n",
    "columns.csv": "tiem_s,device\n0,0\n",
    "plain.csv": "time_s,device\n1,0\n",
    "whole.csv": "time_s,device,sample,deadline_ms\n1,0,7,20\n",
}

TABLE = [
    pytest.param(*row, id=", ".join(f"{key}={str(value)[:40]}" for key, value in row[0].items()))
    for row in (
        *LINKS,
        *MQTT,
        *NODES,
        *DEVICES,
        *TRACES,
        *DISTRIBUTIONS,
        *FAULTS,
        *SIMULATION,
    )
]


@pytest.mark.parametrize(("changes", "key", "fragments"), TABLE)
def test_one_message_names_file_line_key_and_what_is_allowed(
    changes: dict[str, Any],
    key: str,
    fragments: list[str],
    scenario: Callable[..., Path],
    place_of: Callable[..., str],
    tmp_path: Path,
) -> None:
    for name, text in FILES.items():
        (tmp_path / name).write_text(text)
    path = scenario(changes)
    with pytest.raises(ScenarioError) as raised:
        load_scenario(str(path))
    message = str(raised.value)
    assert message.startswith(f"{place_of(path, key)}: {key}: ")
    assert len(message.splitlines()) == 1
    for fragment in fragments:
        assert fragment in message
    for word in JARGON:
        assert word not in message


def test_a_node_profile_with_too_few_images_at_once_for_a_batch_is_refused(
    scenario: Callable[..., Path], tmp_path: Path
) -> None:
    measured = {name: np.array([[1e-3, 2e-3]]) for name in ("exit", "segment", "branch")}
    about = {"architecture": "none", "host": {}, "exits": []}
    write_profile(tmp_path / "pi.parquet", Profile({1: measured, 4: measured}, about))
    path = scenario({EDGE: {"profile": "pi.parquet", "batch": {"size": 6}}})
    with pytest.raises(ScenarioError, match=r"batches of 6 .* pi\.parquet has at most 4 images"):
        load_scenario(str(path))


def test_problems_of_the_whole_world_are_all_reported_at_once(
    scenario: Callable[..., Path],
) -> None:
    path = scenario(
        {
            f"{CAMERAS}.link": "wfi",
            "mqtt": {"backhaul": "lan"},
            f"{EDGE}.last_exit": 9,
            ARRIVALS: {"process": "trace", "file": "gone.csv"},
            "faults": [{**CRASH, "node": "cloud"}],
            "simulation.trace_window_s": [2, 1],
        }
    )
    with pytest.raises(ScenarioError) as raised:
        load_scenario(str(path))
    for key in (
        f"{CAMERAS}.link",
        "mqtt.backhaul",
        f"{EDGE}.last_exit",
        f"{ARRIVALS}.file",
        "faults.0.node",
        "simulation.trace_window_s",
    ):
        assert f": {key}: " in str(raised.value)
