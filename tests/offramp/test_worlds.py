"""What a scenario says is what is simulated: units become SI, files are read, presets merged."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from models.artifacts import Profile, write_profile
from offramp import load_scenario
from offramp.presets import link_presets
from offramp.schema import LinkSection
from offramp.worlds import build_world, needs_host_profile, world_files
from sim.distributions import (
    Constant,
    Empirical,
    Gamma,
    Lognormal,
    ScipyDistribution,
    Uniform,
    quantile,
)
from sim.energy import PowerStates
from sim.faults import Fault
from sim.network.capacity import ConstantCapacity, TracedCapacity
from sim.network.links import Link
from sim.network.mqtt import Mqtt
from sim.network.retransmission import TcpLoss
from sim.nodes.service import DistributedService, ProfiledService
from sim.workload.arrivals import ClosedLoop, Diurnal, OnOff, Periodic, Poisson, TraceArrivals
from sim.workload.samples import Correlated, Drawn, Shuffled, TraceSamples

UP = "links.wifi.uplink"
CAMERAS = "devices.cameras"
ARRIVALS = f"{CAMERAS}.arrivals"
#: No measurement decides the service times.
FIXED = {"nodes.edge": {"service_ms": 4}}
POWER = {"idle_w": 1, "compute_w": 2, "transmit_w": 3, "receive_w": 2.5, "source": "a data sheet"}


@pytest.fixture
def world_of(scenario: Callable[..., Path]) -> Callable[..., Any]:
    """The world of the tiny scenario with given service times, changed."""

    def build(changes: dict[str, Any] | None = None, profile: Profile | None = None) -> Any:
        return build_world(load_scenario(str(scenario({**FIXED, **(changes or {})}))), profile)

    return build


def profile_of(loaded: Any, *sizes: int, state_bytes: bool = True) -> Profile:
    """A profile of the tiny scenario's network: exits after 1 and 3 ms for one image."""
    seconds = {
        size: {
            "exit": np.array([[1e-3, 3e-3]]) * size,
            "segment": np.array([[1e-3, 2e-3]]) * size,
            "branch": np.array([[1e-6, 1e-6]]) * size,
        }
        for size in sizes
    }
    exits = [{"state_bytes": 4096}, {"state_bytes": 40}] if state_bytes else [{}, {}]
    about = {
        "architecture": loaded.experiment.architecture.fingerprint(),
        "host": {},
        "exits": exits,
    }
    return Profile(seconds, about)


def test_a_scenario_without_the_new_keys_is_the_world_it_was(
    world_of: Callable[..., Any],
) -> None:
    world = world_of()
    assert (world.warm_up_s, world.duration_s, world.seed) == (0.5, 3.0, 3)
    assert (world.mqtt, world.faults, world.state_bytes) == (None, (), ())
    (group,) = world.groups
    assert (group.name, group.count, group.link, group.node) == ("cameras", 5, "wifi", "edge")
    assert (group.arrivals, group.deadline) == (Poisson(12.0), Constant(0.04))
    assert (group.request_bytes, group.response_bytes) == (64, 64)
    assert (group.samples, group.priority, group.service) == (Drawn(), 0, None)
    link = world.links["wifi"]
    assert link.shared_by == 1
    assert (link.uplink.delay, link.uplink.capacity) == (Gamma(3e-3, 1e-3), ConstantCapacity(20e6))
    assert (link.downlink.delay, link.downlink.loss) == (Constant(3e-3), None)
    assert link.downlink.capacity.amount(1) == 0, "unlimited"
    (node,) = world.nodes
    assert (node.name, node.workers, node.discipline, node.replicas) == ("edge", 1, "fifo", 1)
    assert (node.batch_size, node.next_tier, node.last_exit, node.energy) == (1, None, None, None)


# --- links ---------------------------------------------------------------------------------------


def test_a_preset_alone_is_the_link_of_its_figures(world_of: Callable[..., Any]) -> None:
    link = world_of({"links.wifi": {"preset": "wifi"}}).links["wifi"]
    assert link.uplink.delay == Lognormal(1.63e-3, 0.91)
    assert link.uplink.capacity == ConstantCapacity(46.2e6)
    assert link.downlink.capacity == ConstantCapacity(52.6e6)
    assert link.uplink.loss == TcpLoss(0.001)
    assert link.shared_by == 5, "all devices share the medium"


def test_a_preset_of_a_medium_that_is_not_shared_is_not_shared(
    world_of: Callable[..., Any],
) -> None:
    assert world_of({"links.wifi": {"preset": "lte"}}).links["wifi"].shared_by == 1


def test_all_devices_of_all_groups_share_the_access_point(world_of: Callable[..., Any]) -> None:
    lamps = {
        "count": 7,
        "arrivals": {"process": "poisson", "rate_hz": 1},
        "deadline_ms": 10,
        "link": "wifi",
        "node": "edge",
    }
    world = world_of({"links.wifi.shared_by": "all", "devices.lamps": lamps})
    assert world.links["wifi"].shared_by == 12


@pytest.mark.parametrize(
    ("own", "kept"),
    [
        ({"latency_ms": 2}, {"latency_ms": 2.0, "jitter_ms": 0.0, "bandwidth_mbps": 100}),
        ({"latency_ms": 2, "jitter_ms": 1}, {"latency_ms": 2.0, "jitter_ms": 1.0}),
        ({"jitter_ms": 0.1}, {"latency_ms": 0.2, "jitter_ms": 0.1}),
        ({"latency_file": "a.csv"}, {"latency_ms": 0.0, "jitter_ms": 0.0, "bandwidth_mbps": 100}),
        ({"bandwidth_mbps": 10}, {"latency_ms": 0.2, "jitter_ms": 0.05, "bandwidth_mbps": 10}),
        ({"bandwidth_mbps": None}, {"latency_ms": 0.2, "bandwidth_mbps": None}),
        ({"bandwidth_trace": "a.csv"}, {"bandwidth_trace": "a.csv", "bandwidth_mbps": None}),
        ({"loss_percent": 2}, {"loss_percent": 2, "latency_ms": 0.2, "bandwidth_mbps": 100}),
    ],
)
def test_own_keys_win_over_the_preset_and_what_they_stand_for_is_replaced_whole(
    own: dict[str, Any], kept: dict[str, Any]
) -> None:
    link = LinkSection.model_validate({"preset": "ethernet", "uplink": own})
    assert {key: getattr(link.uplink, key) for key in kept} == kept
    assert link.downlink.latency_ms == 0.2, "the other direction is the preset's"


@pytest.mark.parametrize("name", sorted(link_presets()))
def test_a_preset_that_was_resolved_and_written_out_is_the_same_link(name: str) -> None:
    link = LinkSection.model_validate({"preset": name})
    assert LinkSection.model_validate(link.model_dump()) == link


def test_latencies_from_a_file_are_drawn_again(
    world_of: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "rtt.csv").write_text("one_way_ms\n1\n2\n6\n")
    monkeypatch.setenv("TINY_THERE", str(tmp_path / "there"))
    link = world_of({UP: {"latency_file": "$TINY_THERE/rtt.csv"}}).links["wifi"]
    assert isinstance(link.uplink.delay, Empirical)
    assert link.uplink.delay.values == pytest.approx([1e-3, 2e-3, 6e-3])
    assert link.uplink.rtt_s == link.downlink.rtt_s == pytest.approx(6e-3), "3 ms there and back"


def test_a_trace_of_bandwidth_is_read_beside_the_scenario(
    world_of: Callable[..., Any], tmp_path: Path
) -> None:
    (tmp_path / "lte.csv").write_text("time_s,DL_bitrate\n0,1000\n2,3000\n")
    trace = {"bandwidth_trace": "lte.csv", "bandwidth_column": "DL_bitrate"}
    capacity = world_of({UP: trace}).links["wifi"].uplink.capacity
    assert isinstance(capacity, TracedCapacity)
    assert capacity.bits_per_s.tolist() == [1e6, 3e6]


def test_a_lossy_link_repeats_after_its_mean_round_trip(world_of: Callable[..., Any]) -> None:
    link = world_of({UP: {"latency_ms": 4, "jitter_ms": 1, "loss_percent": 2}}).links["wifi"]
    assert link.uplink.loss == TcpLoss(0.02)
    assert link.uplink.rtt_s == pytest.approx(7e-3)
    assert link.downlink.loss is None


# --- MQTT ----------------------------------------------------------------------------------------


def test_mqtt_in_full(world_of: Callable[..., Any]) -> None:
    world = world_of(
        {
            "links.lan": {"uplink": {"latency_ms": 1}},
            "mqtt": {
                "version": "3.1.1",
                "qos": 2,
                "tls": True,
                "broker_ms": 0.05,
                "backhaul": "lan",
                "inflight": 20,
                "session": "persistent",
                "reconnect_ms": 300,
                "keep_alive_s": 30,
                "share": "random",
            },
        }
    )
    assert world.mqtt == Mqtt(
        version="3.1.1",
        qos=2,
        tls=True,
        processing=Constant(0.05e-3),
        backhaul=world.links["lan"],
        inflight=20,
        persistent=True,
        reconnect_s=0.3,
        keep_alive_s=30.0,
        share="random",
    )


@pytest.mark.parametrize("version", ["5", 5, 5.0])
def test_the_empty_section_is_mqtt_5_at_qos_1_and_its_number_needs_no_quotes(
    version: object, world_of: Callable[..., Any]
) -> None:
    assert world_of({"mqtt": {"version": version}}).mqtt == Mqtt() == world_of({"mqtt": {}}).mqtt
    assert Mqtt().backhaul == Link()


# --- nodes ---------------------------------------------------------------------------------------


def test_a_node_in_full(world_of: Callable[..., Any]) -> None:
    world = world_of(
        {
            "links.wan": {"uplink": {"latency_ms": 10}},
            "nodes.cloud": {"service_ms": 1},
            "nodes.edge": {
                "service_ms": 4,
                "workers": 3,
                "speed": 0.5,
                "replicas": 2,
                "queue": "edf",
                "queue_limit": 7,
                "admission": "feasible",
                "batch": {"size": 4, "wait_ms": 5},
                "next_tier": {"node": "cloud", "link": "wan"},
                "last_exit": 1,
                "energy": POWER,
            },
        }
    )
    edge, cloud = world.nodes
    assert isinstance(edge.service, DistributedService)
    assert edge.service.means() == (8e-3, 8e-3)
    assert (edge.workers, edge.replicas, edge.discipline, edge.queue_limit) == (3, 2, "edf", 7)
    assert (edge.admission, edge.batch_size, edge.batch_wait_s) == ("feasible", 4, 5e-3)
    assert (edge.next_tier, edge.tier_link, edge.last_exit) == ("cloud", "wan", 1)
    assert edge.energy == PowerStates(1, 2, 3, 2.5, "a data sheet")
    assert (cloud.name, cloud.next_tier, cloud.energy) == ("cloud", None, None)


def test_a_batch_takes_what_the_profile_measured(scenario: Callable[..., Path]) -> None:
    edge = {"batch": {"size": 4}, "speed": 0.5}
    loaded = load_scenario(str(scenario({"nodes.edge": edge, "profile.batch_sizes": [1, 4]})))
    (node,) = build_world(loaded, profile_of(loaded, 1, 4)).nodes
    assert isinstance(node.service, ProfiledService)
    assert node.service.batch_seconds([0] * 4, 0, 2) == pytest.approx(2 * 4 * 3e-3)
    assert node.service.seconds(0, 0, 2) == pytest.approx(2 * 3e-3)


def test_the_profile_says_what_a_request_takes_along(scenario: Callable[..., Path]) -> None:
    loaded = load_scenario(str(scenario()))
    world = build_world(loaded, profile_of(loaded, 1))
    assert world.state_bytes == (4096, 40)
    assert [world.sent_bytes(0, exit) for exit in (0, 1)] == [64, 4096]
    assert build_world(loaded, profile_of(loaded, 1, state_bytes=False)).state_bytes == ()


# --- devices -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("section", "process"),
    [
        ({"process": "poisson", "rate_hz": 4}, Poisson(4.0)),
        ({"process": "periodic", "rate_hz": 4}, Periodic(4.0)),
        ({"process": "periodic", "rate_hz": 4, "jitter_ms": 50}, Periodic(4.0, 0.05)),
        (
            {"process": "on_off", "on_rate_hz": 9, "mean_on_s": 1, "mean_off_s": 2},
            OnOff(9.0, 0.0, 1.0, 2.0),
        ),
        (
            {"process": "diurnal", "curve": [[0, 1], [60, 5]], "period_s": 120},
            Diurnal(((0, 1), (60, 5)), 120),
        ),
        ({"process": "diurnal", "curve": [[0, 1], [60, 5]]}, Diurnal(((0, 1), (60, 5)))),
        ({"process": "closed_loop", "think_ms": 200}, ClosedLoop(Constant(0.2))),
    ],
)
def test_every_arrival_process(
    section: dict[str, Any], process: object, world_of: Callable[..., Any]
) -> None:
    assert world_of({ARRIVALS: section}).groups[0].arrivals == process


@pytest.mark.parametrize(
    ("written", "samples"),
    [
        ("drawn", Drawn()),
        ("shuffled", Shuffled()),
        ({"correlated": 20}, Correlated(20.0)),
        (None, Drawn()),
    ],
)
def test_every_choice_of_samples(
    written: object, samples: object, world_of: Callable[..., Any]
) -> None:
    assert world_of({f"{CAMERAS}.samples": written}).groups[0].samples == samples


def test_a_trace_brings_times_samples_and_deadlines(
    world_of: Callable[..., Any], tmp_path: Path
) -> None:
    (tmp_path / "trace.csv").write_text(
        "time_ms,device,sample,deadline_ms\n100,0,7,20\n200,4,8,30\n"
    )
    trace = {ARRIVALS: {"process": "trace", "file": "trace.csv"}, f"{CAMERAS}.deadline_ms": ...}
    (group,) = world_of(trace).groups
    assert isinstance(group.arrivals, TraceArrivals)
    assert group.arrivals.devices == 5
    assert group.arrivals.trace.deadline_s.tolist() == [0.02, 0.03]
    assert isinstance(group.samples, TraceSamples)


def test_a_trace_without_samples_and_deadlines_leaves_them_to_the_scenario(
    world_of: Callable[..., Any], tmp_path: Path
) -> None:
    (tmp_path / "trace.csv").write_text("time_s,device\n0.1,0\n")
    (group,) = world_of(
        {ARRIVALS: {"process": "trace", "file": "trace.csv"}, f"{CAMERAS}.samples": "shuffled"}
    ).groups
    assert (group.deadline, group.samples) == (Constant(0.04), Shuffled())


def test_devices_that_compute(world_of: Callable[..., Any]) -> None:
    compute = {"service_ms": 5, "speed": 0.1, "last_exit": 1}
    world = world_of(
        {
            f"{CAMERAS}.compute": compute,
            f"{CAMERAS}.priority": 2,
            f"{CAMERAS}.energy": POWER,
            "policies": ["deadline_aware"],
        }
    )
    (group,) = world.groups
    assert group.service.means() == pytest.approx((0.05, 0.05))
    assert (group.last_exit, group.priority) == (1, 2)
    assert group.energy == PowerStates(1, 2, 3, 2.5, "a data sheet")
    assert not world.is_open


def test_devices_and_nodes_take_each_their_own_profile(
    scenario: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TINY_THERE", str(tmp_path))
    changes = {
        "nodes.edge": {"profile": "board.parquet"},
        f"{CAMERAS}.compute": {"profile": "$TINY_THERE/camera.parquet", "speed": 0.5},
    }
    plain = load_scenario(str(scenario(name="plain.yaml")))
    for name in ("board.parquet", "camera.parquet"):
        write_profile(tmp_path / name, profile_of(plain, 1))
    loaded = load_scenario(str(scenario(changes)))
    assert not needs_host_profile(loaded)
    world = build_world(loaded, None)
    assert world.nodes[0].service.means() == pytest.approx((1e-3, 3e-3))
    assert world.groups[0].service.means() == pytest.approx((2e-3, 6e-3))
    assert world.state_bytes == (4096, 40), "from the first profile that says it"
    assert world_files(loaded) == {
        "nodes.edge.profile": tmp_path / "board.parquet",
        f"{CAMERAS}.compute.profile": tmp_path / "camera.parquet",
    }


def test_devices_that_compute_need_the_profile_of_this_host_too(
    scenario: Callable[..., Path],
) -> None:
    assert not needs_host_profile(load_scenario(str(scenario(FIXED))))
    assert needs_host_profile(load_scenario(str(scenario({**FIXED, f"{CAMERAS}.compute": {}}))))


def test_every_file_of_a_world_is_known_by_its_key(
    scenario: Callable[..., Path], tmp_path: Path
) -> None:
    (tmp_path / "values.csv").write_text("1\n2\n")
    (tmp_path / "lte.csv").write_text("time_s,bandwidth_mbps\n0,1\n1,2\n")
    (tmp_path / "trace.csv").write_text("time_s,device\n1,0\n")
    values = {"distribution": "empirical", "file": "values.csv"}
    changes = {
        UP: {"latency_file": "values.csv", "bandwidth_trace": "lte.csv"},
        "links.wifi.downlink": {"latency_ms": values},
        "mqtt": {"broker_ms": values},
        "nodes.edge": {"service_ms": values},
        ARRIVALS: {"process": "trace", "file": "trace.csv"},
        f"{CAMERAS}.deadline_ms": values,
    }
    files = world_files(load_scenario(str(scenario(changes))))
    assert {key: os.path.basename(path) for key, path in files.items()} == {
        f"{UP}.latency_file": "values.csv",
        f"{UP}.bandwidth_trace": "lte.csv",
        "links.wifi.downlink.latency_ms.file": "values.csv",
        "mqtt.broker_ms.file": "values.csv",
        "nodes.edge.service_ms.file": "values.csv",
        f"{ARRIVALS}.file": "trace.csv",
        f"{CAMERAS}.deadline_ms.file": "values.csv",
    }


# --- distributions and faults --------------------------------------------------------------------


def test_distributions_of_scipy_and_of_files_are_in_the_unit_of_their_key(
    world_of: Callable[..., Any], tmp_path: Path
) -> None:
    (tmp_path / "values.csv").write_text("30\n50\n")
    weibull = {"distribution": "scipy", "name": "weibull_min", "c": 1.5, "scale": 4}
    world = world_of(
        {
            UP: {"latency_ms": weibull},
            f"{CAMERAS}.deadline_ms": {"distribution": "empirical", "file": "values.csv"},
            "nodes.edge": {"service_ms": {"distribution": "uniform", "low": 1, "high": 3}},
        }
    )
    delay = world.links["wifi"].uplink.delay
    assert delay == ScipyDistribution("weibull_min", {"c": 1.5, "scale": 4.0}, 1e-3)
    assert quantile(delay, 0.5) == pytest.approx(4e-3 * np.log(2) ** (1 / 1.5))
    assert world.groups[0].deadline.values.tolist() == [0.03, 0.05]
    assert world.nodes[0].service.means()[0] == Uniform(1e-3, 3e-3).mean()


def test_every_kind_of_fault(world_of: Callable[..., Any]) -> None:
    world = world_of(
        {
            "mqtt": {},
            "faults": [
                {"kind": "node_crash", "node": "edge", "at_s": 2, "for_s": 0.5},
                {"kind": "slow_node", "node": "edge", "factor": 0.5, "mtbf_s": 9, "mttr_s": 1},
                {"kind": "link_outage", "link": "wifi", "at_s": 1, "for_s": 1},
                {"kind": "broker_restart", "mtbf_s": 60, "mttr_s": 2},
                {"kind": "device_churn", "devices": "cameras", "mtbf_s": 30, "mttr_s": 5},
            ],
        }
    )
    assert world.faults == (
        Fault("node_crash", "edge", schedule=((2.0, 2.5),)),
        Fault("slow_node", "edge", mtbf_s=9.0, mttr_s=1.0, factor=0.5),
        Fault("link_outage", "wifi", schedule=((1.0, 2.0),)),
        Fault("broker_restart", "", mtbf_s=60.0, mttr_s=2.0),
        Fault("device_churn", "cameras", mtbf_s=30.0, mttr_s=5.0),
    )
