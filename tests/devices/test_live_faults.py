"""Parts of a live world that die, vanish or go silent: everyone is back, and all is accounted for.

The broker is Mosquitto, the node the real one in a process of its own, the devices the real fleet.
What must hold after any fault is in ``check_records``: every request that the simulator draws for
this world has one record, and its outcome is what really happened.
"""

from __future__ import annotations

import os
import random
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from brokers import Mosquitto, free_port
from fake_runtime import eventually, in_time
from fault_proxy import PUBACK, fault_proxy
from live_clients import Device as PahoDevice
from node_process import NodeProcess, NodeSettings
from small_worlds import group, predictions, sample_set, world
from small_worlds import node as node_spec

from devices.mqtt.broker_address import Broker
from devices.mqtt.embedded_broker import start_embedded_broker
from devices.protocol.messages import Reply
from devices.virtual.fleet import run_fleet
from devices.virtual.fleet_log import DROPPED, OK, WAITING, FleetResult
from devices.virtual.fleet_settings import FleetSettings, SampleSet
from devices.virtual.progress import Progress
from devices.virtual.results import run_of
from sim.distributions import Constant
from sim.policies import FixedExit
from sim.results.run import Run, record_table
from sim.running.slices import Slices
from sim.simulation import simulate
from sim.workload.arrivals import Poisson
from sim.world import World

#: Within so long everyone is back after a fault is over.
BACK_WITHIN_S = 5.0
#: A fault begins so long after the start of a run.
AT_S = 0.5
#: Devices, each with some requests a second.
DEVICES, RATE_HZ = 10, 8.0
DEADLINE_S = 1.0
#: Of the low 32 bits of an id, which number requests; the others tell runs apart.
INDEX_BITS = 32


def samples() -> SampleSet:
    """Images whose class is their first pixel modulo 10, which the node's runtime finds."""
    images = sample_set().images.copy()
    images[:, 0, 0, 0] = np.arange(len(images))
    return replace(sample_set(), images=images)


def of_seconds(seconds: float, deadline_s: float = DEADLINE_S) -> World:
    cameras = group(count=DEVICES, arrivals=Poisson(RATE_HZ), deadline=Constant(deadline_s))
    return world(cameras, duration_s=in_time(seconds) - 0.2)


@dataclass
class Fault:
    """Does something once, in a thread of its own, when a run is so old.

    ``over_s`` is when it was over, on the monotonic clock.
    """

    action: Callable[[], object]
    at_s: float = AT_S
    told: list[Progress] = field(default_factory=list)
    over_s: float = 0.0
    error: BaseException | None = None
    _thread: threading.Thread | None = None
    _may_end: threading.Event = field(default_factory=threading.Event)

    def __call__(self, progress: Progress) -> None:
        self.told.append(progress)
        if self._thread is None and progress.time_s >= self.at_s:
            self._thread = threading.Thread(target=self._act)
            self._thread.start()

    def _act(self) -> None:
        try:
            self.action()
        except BaseException as error:
            self.error = error
        self.over_s = time.monotonic()
        self._may_end.wait(60)  # a tethered process ends with the thread that started it

    def join(self) -> None:
        assert self._thread is not None, "the run was over before the fault"
        self._may_end.set()
        self._thread.join(30)
        if self.error is not None:
            raise self.error


def live(broker: Broker, of: World, fault: Fault, **settings: Any) -> FleetResult:
    settings = {"wait_s": 20.0, "grace_s": 1.0, "progress_every_s": 0.05} | settings
    result = run_fleet(of, samples(), 0, FleetSettings(broker, **settings), on_progress=fault)
    fault.join()
    assert result.cut_s is None
    return result


# --- what must hold whatever happens -------------------------------------------------------------


def check_records(of: World, result: FleetResult, *nodes: NodeProcess) -> Run:
    """Every request that the simulator draws has one record, which says what happened to it."""
    workload = Slices(of, samples().labels, 0)
    drawn = simulate(of, workload, predictions(), FixedExit(1)).requests
    window = drawn.where(drawn.created_s >= of.warm_up_s)
    run = run_of(of, result, samples().labels)
    rows = record_table(of, run, predictions(), "standard", 0, "full").to_pylist()
    assert [
        (row["device"], row["created_s"], row["deadline_s"], row["sample"]) for row in rows
    ] == [
        (of.device_name(device), created_s, deadline_s, int(samples().sample[sample]))
        for device, created_s, deadline_s, sample in zip(
            window.device.tolist(),
            window.created_s.tolist(),
            window.deadline_s.tolist(),
            window.sample.tolist(),
            strict=True,
        )
    ]
    assert len({row["request"] for row in rows}) == len(rows) > 0
    computed = {int(id) & ((1 << INDEX_BITS) - 1) for node in nodes for _, id in node.computed}
    for row in rows:
        check_outcome(row, row["request"] in computed)
    # However often a message came: one start of the node computes it once.
    for node in nodes:
        assert set(Counter(node.computed).values()) <= {1}
    return run


def check_outcome(row: dict[str, Any], computed: bool) -> None:
    outcome, received_s = row["outcome"], row["received_s"]
    if outcome in ("on_time", "late"):
        assert computed, row
        assert (received_s - row["created_s"] <= row["deadline_s"]) == (outcome == "on_time"), row
        assert row["predicted"] == row["label"] == row["sample"] % 10
        assert row["correct"]
        assert row["created_s"] <= row["arrived_s"] <= received_s
    else:
        assert outcome in ("dropped", "lost"), row
        assert not (computed and outcome == "dropped"), row
        assert (received_s, row["predicted"], row["correct"]) == (None, None, False), row


def back_after_s(result: FleetResult, run: Run, over_s: float) -> float:
    """From the end of a fault until every request that is created is answered on time."""
    since_s = over_s - result.start_s
    unanswered = run.requests.created_s[np.isnan(run.received_s)]
    slow = run.requests.created_s[run.received_s - run.requests.created_s > DEADLINE_S]
    # What was created before and came later than its deadline is none of this.
    return max(0.0, *(unanswered - since_s), *(slow - since_s), 0.0)


def all_back(fault: Fault, result: FleetResult, devices: int = DEVICES) -> bool:
    """Whether all devices and the node were there at some time after a fault, in time."""
    since_s = fault.over_s - result.start_s
    return any(
        progress.connected == devices and progress.nodes_online == ("edge",)
        for progress in fault.told
        if since_s < progress.time_s < since_s + in_time(BACK_WITHIN_S)
    )


def check_back(result: FleetResult, run: Run, fault: Fault) -> None:
    back_s = back_after_s(result, run, fault.over_s)
    print(f"back after {back_s:.2f} s; {Counter(run.outcome.tolist())}")
    assert back_s < in_time(BACK_WITHIN_S)
    assert all_back(fault, result)
    # Something was created and answered after that, or there was nothing to see.
    answered_s = run.requests.created_s[~np.isnan(run.received_s)]
    assert (answered_s > fault.over_s - result.start_s + back_s).sum() > DEVICES


@pytest.fixture
def start_node(tmp_path: Path) -> Iterator[Callable[..., NodeProcess]]:
    """Starts a node: ``start_node(broker, persistent=True …)``; settings are the edge's."""
    started: list[NodeProcess] = []

    def start(
        broker: Broker, node: str = "edge", segment_s: float = 0.0, **edge: Any
    ) -> NodeProcess:
        settings = NodeSettings(
            broker.port,
            broker.version,
            node,
            edge={"keep_alive_s": 5.0, **edge},
            segment_s=segment_s,
            metrics_port=free_port(),
        )
        started.append(NodeProcess(tmp_path, settings))
        return started[-1]

    yield start
    for node in started:
        node.kill()


def let_save(mosquitto: Mosquitto) -> None:
    """Let Mosquitto write its sessions down now, and not in a second or two."""
    file = mosquitto.folder / "mosquitto.db"
    before = file.stat().st_mtime_ns if file.exists() else 0
    assert mosquitto.process is not None
    mosquitto.process.send_signal(signal.SIGUSR1)
    eventually(lambda: file.exists() and file.stat().st_mtime_ns > before)


# --- processes that are killed -------------------------------------------------------------------

SESSIONS = [
    pytest.param("5", 0, False, id="qos0"),
    pytest.param("5", 1, False, id="qos1"),
    pytest.param("5", 1, True, id="qos1-persistent"),
    pytest.param("3.1.1", 1, True, id="qos1-persistent-3.1.1"),
    pytest.param("5", 2, True, id="qos2-persistent"),
]


@pytest.mark.parametrize(("version", "qos", "persistent"), SESSIONS)
def test_the_broker_is_killed_and_started_again(
    start_mosquitto: Callable[..., Mosquitto],
    start_node: Callable[..., NodeProcess],
    version: Any,
    qos: Any,
    persistent: bool,
) -> None:
    mosquitto = start_mosquitto(persistence=persistent)
    broker = replace(mosquitto.broker, version=version)
    node = start_node(broker, persistent=persistent)

    def restart() -> None:
        if persistent:
            let_save(mosquitto)
        mosquitto.kill()
        time.sleep(0.5)
        mosquitto.start()

    fault, of = Fault(restart), of_seconds(3.5)
    result = live(broker, of, fault, qos=qos, persistent=persistent)
    run = check_records(of, result, node)
    check_back(result, run, fault)
    assert min(progress.connected for progress in fault.told) < DEVICES
    assert result.oddities.reconnections == DEVICES
    lost = np.isnan(run.received_s).sum()
    if qos:
        # Devices keep what they cannot send.
        assert result.oddities.unsent == 0
    else:
        assert 0 < result.oddities.unsent <= lost
    if persistent:
        # Where sessions outlive their broker, only what it had taken since it saved them is lost.
        assert lost <= in_time(3)
    assert node.is_alive


@pytest.mark.parametrize(("qos", "persistent"), [(0, False), (1, True)])
def test_the_embedded_broker_is_killed_and_started_again(
    start_node: Callable[..., NodeProcess], qos: Any, persistent: bool
) -> None:
    """It keeps nothing: whoever comes back begins a new session."""
    processes = [start_embedded_broker()]
    broker = processes[0].broker

    def restart() -> None:
        processes[0].process.kill()
        processes[0].stop()
        processes.append(start_embedded_broker(broker.port))

    try:
        node = start_node(broker, persistent=persistent)
        fault, of = Fault(restart), of_seconds(4.0)
        result = live(broker, of, fault, qos=qos, persistent=persistent)
        run = check_records(of, result, node)
        check_back(result, run, fault)
    finally:
        processes[-1].stop()


@pytest.mark.parametrize(("version", "qos", "persistent"), SESSIONS)
def test_the_node_is_killed_and_started_again(
    mosquitto: Mosquitto,
    start_node: Callable[..., NodeProcess],
    version: Any,
    qos: Any,
    persistent: bool,
) -> None:
    broker = replace(mosquitto.broker, version=version)
    node = start_node(broker, persistent=persistent)

    def restart() -> None:
        node.kill()
        time.sleep(0.3)
        node.start()

    # Longer than the node needs to start: what the broker keeps for it does not expire.
    patience = in_time(1.0)
    fault, of = Fault(restart), of_seconds(4.0, deadline_s=8.0 * patience)
    result = live(broker, of, fault, qos=qos, persistent=persistent, grace_s=-4.0 * patience)
    run = check_records(of, result, node)
    check_back(result, run, fault)
    assert result.oddities.reconnections == 0
    assert any(progress.nodes_online == () for progress in fault.told)
    away = np.isnan(run.received_s)
    if persistent and qos:
        # The broker kept requests for it. Some may have been half way through when it was killed.
        assert away.sum() <= in_time(2)
    else:
        # It was away, and nobody kept anything for it.
        assert away.any()
    assert {start for start, _ in node.computed} == {1, 2}


def test_a_node_that_is_told_to_end_answers_what_it_has(
    mosquitto: Mosquitto, start_node: Callable[..., NodeProcess]
) -> None:
    """What it was asked before is answered, what it is asked meanwhile refused."""
    node = start_node(mosquitto.broker, segment_s=0.002)
    asked_s, status = [], []

    def restart() -> None:
        asked_s.append(time.monotonic())
        status.append(node.stop())
        node.start()

    fault, of = Fault(restart), of_seconds(3.5)
    result = live(mosquitto.broker, of, fault)
    run = check_records(of, result, node)
    check_back(result, run, fault)
    assert status == [0]
    before = result.seen.sent_s < asked_s[0] - result.start_s - 0.1
    assert before.any()
    assert not np.isnan(run.received_s[before]).any()
    assert set(result.seen.status.tolist()) <= {WAITING, OK, DROPPED}


@pytest.mark.parametrize("version", ["3.1.1", "5"])
def test_what_is_asked_while_a_persistent_node_is_restarted_waits_for_it(
    mosquitto: Mosquitto, start_node: Callable[..., NodeProcess], version: Any
) -> None:
    """A node that is told to end takes nothing with it that the broker would have kept."""
    broker = replace(mosquitto.broker, version=version)
    node = start_node(broker, segment_s=0.002, persistent=True)
    status = []

    def restart() -> None:
        status.append(node.stop())
        time.sleep(0.5)
        node.start()

    fault, of = Fault(restart), of_seconds(3.5, deadline_s=60.0)
    result = live(broker, of, fault, qos=1, persistent=True)
    check_records(of, result, node)
    assert status == [0]
    assert set(result.seen.status.tolist()) == {OK}
    assert {start for start, _ in node.computed} == {1, 2}
    # Some were asked while nobody was there.
    assert (result.seen.heard_s - result.requests.created_s).max() > 0.4


@pytest.mark.parametrize("qos", [0, 1])
def test_one_of_two_replicas_is_killed(
    mosquitto: Mosquitto, start_node: Callable[..., NodeProcess], qos: Any
) -> None:
    """The other serves its requests from then on."""
    one, other = (start_node(mosquitto.broker, node=f"edge-{n}", shared=True) for n in (0, 1))
    fault = Fault(one.kill)
    of = replace(of_seconds(2.5), nodes=(node_spec(replicas=2),))
    result = live(mosquitto.broker, of, fault, qos=qos)
    run = check_records(of, result, one, other)
    lost_s = run.requests.created_s[np.isnan(run.received_s)]
    assert (lost_s < fault.over_s - result.start_s + in_time(0.1)).all()
    assert len(lost_s) <= in_time(3)  # that it had begun
    assert one.computed
    assert any(progress.nodes_online == ("edge-1",) for progress in fault.told)


# --- connections that are cut, or go silent ------------------------------------------------------


@pytest.mark.parametrize(("version", "qos", "persistent"), SESSIONS[:4])
def test_devices_vanish(
    mosquitto: Mosquitto,
    start_node: Callable[..., NodeProcess],
    version: Any,
    qos: Any,
    persistent: bool,
) -> None:
    """All their sockets are cut without a DISCONNECT, three times."""
    node = start_node(mosquitto.broker)
    with fault_proxy(mosquitto.port) as proxy:

        def vanish() -> None:
            for _ in range(3):
                proxy.cut()
                time.sleep(0.3)

        fault, of = Fault(vanish), of_seconds(3.0)
        broker = replace(mosquitto.broker, port=proxy.port, version=version)
        result = live(broker, of, fault, qos=qos, persistent=persistent)
    run = check_records(of, result, node)
    check_back(result, run, fault)
    assert result.oddities.reconnections >= DEVICES
    lost = np.isnan(run.received_s)
    if persistent:
        assert not lost.any()
    else:
        # Requests are sent again, or were never sent; replies that found nobody there are lost.
        assert lost.mean() < 0.5


@pytest.mark.parametrize("qos", [0, 1])
def test_the_node_vanishes(
    mosquitto: Mosquitto, start_node: Callable[..., NodeProcess], qos: Any
) -> None:
    with fault_proxy(mosquitto.port) as proxy:
        behind = replace(mosquitto.broker, port=proxy.port)
        node = start_node(behind, persistent=qos > 0)
        fault, of = Fault(proxy.cut), of_seconds(3.0)
        result = live(mosquitto.broker, of, fault, qos=qos)
        run = check_records(of, result, node)
        check_back(result, run, fault)
        assert node.figures()["reconnections_total"] == 1
        if qos:
            assert not np.isnan(run.received_s).any()


@pytest.mark.parametrize("version", ["3.1.1", "5"])
@pytest.mark.parametrize("whose", ["devices", "node"])
def test_a_connection_is_half_open(
    mosquitto: Mosquitto, start_node: Callable[..., NodeProcess], whose: str, version: Any
) -> None:
    """Sockets stay open, and nothing comes through: only silence tells that the other end is gone.

    It does so whatever keep-alive the scenario asks for.
    """
    straight = replace(mosquitto.broker, version=version)
    with fault_proxy(mosquitto.port) as proxy:
        behind = replace(straight, port=proxy.port)
        node = start_node(behind if whose == "node" else straight, keep_alive_s=60.0)
        fault, of = Fault(proxy.go_silent), of_seconds(7.0)
        broker = behind if whose == "devices" else straight
        result = live(broker, of, fault, keep_alive_s=60.0)
        run = check_records(of, result, node)
        check_back(result, run, fault)
        assert node.is_alive
        if whose == "node":
            assert node.figures()["reconnections_total"] == 1
        else:
            assert result.oddities.reconnections == DEVICES
            # At QoS 1 devices send again what nobody acknowledged.
            waited = run.received_s - run.requests.created_s > DEADLINE_S
            assert waited.any()


def test_a_broker_that_hangs_and_goes_on(
    mosquitto: Mosquitto, start_node: Callable[..., NodeProcess]
) -> None:
    """It says nothing for longer than everyone's patience, then answers as if nothing had been."""
    node = start_node(mosquitto.broker, keep_alive_s=60.0)

    def hang() -> None:
        mosquitto.freeze()
        time.sleep(4.5)
        mosquitto.thaw()

    fault, of = Fault(hang), of_seconds(7.5)
    result = live(mosquitto.broker, of, fault)
    run = check_records(of, result, node)
    check_back(result, run, fault)
    assert node.is_alive


# --- messages that come twice --------------------------------------------------------------------


def acknowledgement(of_client: bool) -> Callable[[bool, int, int], bool]:
    return lambda from_client, kind, first: kind == PUBACK and from_client == of_client


@pytest.mark.parametrize("version", ["3.1.1", "5"])
@pytest.mark.parametrize("whose", ["device", "node", "reply"])
def test_an_acknowledgement_is_lost(
    mosquitto: Mosquitto, start_node: Callable[..., NodeProcess], whose: str, version: Any
) -> None:
    """So a message comes again: a device's request, the broker's to the node, a node's reply.

    Each is computed once, and has one record.
    """
    straight = replace(mosquitto.broker, version=version)
    with fault_proxy(mosquitto.port) as proxy:
        behind = replace(straight, port=proxy.port)
        node = start_node(straight if whose == "device" else behind, persistent=True)

        def lose() -> None:
            for _ in range(5):
                before = proxy.swallowed
                proxy.swallow_one(acknowledgement(of_client=whose == "node"))
                eventually(lambda before=before: proxy.swallowed > before)
                time.sleep(0.2)

        fault, of = Fault(lose), of_seconds(5.0)
        result = live(behind if whose == "device" else straight, of, fault)
        run = check_records(of, result, node)
        check_back(result, run, fault)
        again = node.figures()["duplicate_requests_total"]
    assert proxy.swallowed == 5
    assert not np.isnan(run.received_s).any()
    assert len(node.computed) == len(result)
    # Of five, some may have been of a status.
    if whose == "reply":
        # The broker cannot know it for the same; the device does.
        assert result.oddities.duplicates >= 1
    else:
        assert again >= 1


# --- clocks that jump ----------------------------------------------------------------------------


def test_the_clocks_of_the_systems_jump(
    mosquitto: Mosquitto, start_node: Callable[..., NodeProcess], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The time of day, at devices and node: a year ahead, then a year back."""
    node = start_node(mosquitto.broker)
    true_time = time.time

    def jump() -> None:
        for by_s in (86_400.0 * 365, -86_400.0 * 365, 0.0):
            monkeypatch.setattr(time, "time", lambda by_s=by_s: true_time() + by_s)
            node.signal(signal.SIGUSR1)
            time.sleep(0.4)

    fault, of = Fault(jump), of_seconds(2.5)
    result = live(mosquitto.broker, of, fault)
    run = check_records(of, result, node)
    assert node.is_alive
    assert result.oddities.reconnections == 0
    assert not np.isnan(run.received_s).any()
    assert (run.received_s - run.requests.created_s < in_time(BACK_WITHIN_S)).all()


@pytest.mark.parametrize("by_s", [7200.0, -7200.0, 86_400.0 * 30, -3.0])
def test_the_monotonic_clock_of_a_device_jumps(
    mosquitto: Mosquitto, start_node: Callable[..., NodeProcess], by_s: float
) -> None:
    """As at a reboot. What is left of deadlines is right again, for this request or the next."""
    node = start_node(mosquitto.broker)
    with PahoDevice(mosquitto.broker) as device:
        jumped_s = 0.0
        replies: list[Reply] = []
        for id in range(40):
            if id == 20:
                jumped_s = by_s
            sent_s = time.monotonic() + jumped_s
            # On this host nothing travels for long, whatever the clocks say.
            device.ask(id, deadline_s=10.0, image=bytes(64), sent_s=sent_s, way_s=0.001, age_s=0.5)
            replies.append(device.reply())
    assert [reply.id for reply in replies] == list(range(40))
    assert {reply.status for reply in replies} == {"ok"}
    remaining_s = node.remaining_s
    assert len(remaining_s) == 40
    # 10 s less the age; a second or two for a host that is busy.
    assert all(7.5 < left_s <= 9.5 for left_s in remaining_s), remaining_s


# --- everything at once --------------------------------------------------------------------------


#: More of them: CHAOS_SEEDS=2,3,4 pytest tests/devices/test_live_faults.py -k chaos
SEEDS = os.environ.get("CHAOS_SEEDS", "1").split(",")


@pytest.mark.parametrize("seed", SEEDS)
def test_chaos(
    start_mosquitto: Callable[..., Mosquitto], start_node: Callable[..., NodeProcess], seed: str
) -> None:
    """Broker, node and connections fail at random under load, sometimes two at once."""
    draw = random.Random(seed)
    mosquitto = start_mosquitto(persistence=True)
    with fault_proxy(mosquitto.port) as near, fault_proxy(mosquitto.port) as far:
        node = start_node(
            replace(mosquitto.broker, port=far.port), persistent=True, keep_alive_s=60.0
        )
        done: list[str] = []

        def restart_broker() -> None:
            mosquitto.kill()
            time.sleep(draw.uniform(0.0, 0.5))
            mosquitto.start()

        def restart_node() -> None:
            node.kill()
            node.start()

        faults = [restart_broker, restart_node, near.cut, far.cut, near.go_silent, far.go_silent]

        def wreak() -> None:
            for fault in draw.sample(faults, len(faults)):
                fault()
                done.append(getattr(fault, "__qualname__", ""))
                time.sleep(draw.uniform(0.1, 1.2))

        fault, of = Fault(wreak), of_seconds(15.0)
        behind = replace(mosquitto.broker, port=near.port)
        result = live(behind, of, fault, progress_every_s=0.1)
        run = check_records(of, result, node)
        check_back(result, run, fault)
    assert len(done) == len(faults)
    assert {start for start, _ in node.computed} == {1, 2}
    # Most of the time there was somebody to answer.
    assert (~np.isnan(run.received_s)).mean() > 0.3
