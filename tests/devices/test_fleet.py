"""Virtual devices against real brokers: what they create, send and hear, whatever goes wrong."""

from __future__ import annotations

import os
import pickle
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import fields, replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from brokers import Mosquitto, SecureMosquitto, free_port
from fake_edge import FakeEdge, fake_edge
from fake_runtime import in_time
from small_worlds import SAMPLES, group, node, predictions, sample_set, world

from devices.mqtt.broker_address import Broker
from devices.mqtt.connections import connect, disconnect, new_client
from devices.protocol.messages import InferenceRequest, NodeStatus, Reply
from devices.virtual.fleet import run_fleet
from devices.virtual.fleet_log import DROPPED, ERROR, OK, UNSENT, WAITING, FleetResult
from devices.virtual.fleet_settings import FleetSettings
from devices.virtual.live_workload import LiveWorkload
from devices.virtual.progress import Progress
from models.errors import BrokerError, LiveError
from sim.distributions import Constant, Exponential, Uniform
from sim.faults import Fault
from sim.network.mqtt import Mqtt
from sim.policies import FixedExit
from sim.results.run import Run
from sim.running.slices import Slices
from sim.simulation import simulate
from sim.workload.arrivals import ClosedLoop, OnOff, Periodic, Poisson
from sim.workload.device_groups import Requests, requests_of
from sim.workload.samples import Correlated, Shuffled
from sim.world import World


def simulated(of: World, replication: int = 0) -> Run:
    workload = Slices(of, sample_set().labels, replication)
    return simulate(of, workload, predictions(), FixedExit(1))


def same_requests(one: Requests, other: Requests) -> None:
    assert len(one) == len(other) > 0
    for field in fields(Requests):
        np.testing.assert_array_equal(
            getattr(one, field.name), getattr(other, field.name), err_msg=field.name
        )


def live(
    broker: Broker, of: World | None = None, replication: int = 0, **settings: Any
) -> FleetResult:
    others = {
        name: settings.pop(name) for name in ("groups", "on_progress", "stop") if name in settings
    }
    settings = {"wait_s": 20.0} | settings
    return run_fleet(
        of or world(), sample_set(), replication, FleetSettings(broker, **settings), **others
    )


def statuses(result: FleetResult) -> Counter[int]:
    return Counter(result.seen.status.tolist())


# --- the same workload in both worlds ------------------------------------------------------------

OPEN = world(
    group("steady", 3, arrivals=Poisson(20.0), deadline=Uniform(0.1, 0.4)),
    group("clockwork", 2, arrivals=Periodic(10.0, 0.02), samples=Shuffled()),
    group("bursts", 2, arrivals=OnOff(50.0, 0.0, 0.1, 0.1), samples=Correlated(4.0)),
    duration_s=3.0,
)
CLOSED = world(
    group("loops", 4, arrivals=ClosedLoop(Exponential(0.05)), deadline=Uniform(0.1, 0.4)),
    group("steady", 2),
    duration_s=3.0,
)


@pytest.mark.parametrize("replication", [0, 3])
def test_open_devices_create_what_they_create_in_the_simulator(replication: int) -> None:
    drawn = LiveWorkload(OPEN, sample_set().labels, replication, [0, 1, 2])
    rows = []
    while not drawn.is_empty:
        assert drawn.due_s >= (rows[-1][4] if rows else 0)
        rows.append(drawn.take())
    same_requests(requests_of(rows), simulated(OPEN, replication).requests)


def test_faults_of_the_scenario_change_nothing_else() -> None:
    churn = Fault("device_churn", "steady", mtbf_s=0.5, mttr_s=0.5)
    rows = []
    drawn = LiveWorkload(replace(OPEN, faults=(churn,)), sample_set().labels, 0, [0, 1, 2])
    while not drawn.is_empty:
        rows.append(drawn.take())
    same_requests(requests_of(rows), simulated(OPEN).requests)


def test_one_group_alone_creates_the_same() -> None:
    drawn = LiveWorkload(OPEN, sample_set().labels, 0, [1])
    rows = []
    while not drawn.is_empty:
        rows.append(drawn.take())
    everything = simulated(OPEN).requests
    same_requests(requests_of(rows), everything.where(everything.group == 1))


def test_closed_loops_that_hear_at_the_same_times_create_the_same() -> None:
    run = simulated(CLOSED)
    assert run.answered.all()
    heard_s = {
        (device, number): at_s
        for device, number, at_s in zip(
            run.requests.device.tolist(),
            run.requests.number.tolist(),
            run.received_s.tolist(),
            strict=True,
        )
    }
    drawn = LiveWorkload(CLOSED, sample_set().labels, 0, [0, 1])
    rows = []
    while not drawn.is_empty:
        rows.append(drawn.take())
        if drawn.loops(rows[-1][0]):
            drawn.go_round(rows[-1], heard_s[rows[-1][1], rows[-1][3]])
    in_order = sorted(rows, key=lambda row: (row[4], row[1]))
    same_requests(requests_of(in_order), run.requests)


# --- over real brokers ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("version", "qos"), [("5", 0), ("5", 1), ("5", 2), ("3.1.1", 0), ("3.1.1", 1), ("3.1.1", 2)]
)
def test_every_request_is_sent_once_and_answered(
    mosquitto: Mosquitto, version: Any, qos: Any
) -> None:
    broker = replace(mosquitto.broker, version=version)
    with fake_edge(broker, qos=qos) as edge:
        result = live(broker, qos=qos)
    same_requests(result.requests, simulated(world()).requests)
    assert statuses(result) == {OK: len(result)}
    assert len(edge.requests) == len(result)
    ids = [request.id for _, request, _ in edge.requests]
    assert len(set(ids)) == len(ids)
    by_device = [(device, request.sample) for device, request, _ in edge.requests]
    expected = zip(
        result.requests.device.tolist(), sample_set().sample[result.requests.sample], strict=True
    )
    assert Counter(by_device) == Counter((f"cameras-{one}", sample) for one, sample in expected)
    np.testing.assert_array_equal(
        result.seen.predicted, sample_set().labels[result.requests.sample]
    )
    assert (result.seen.sent_s >= result.requests.created_s).all()
    assert (result.seen.heard_s > result.seen.sent_s).all()
    assert (result.nodes, result.same_clock) == (("edge",), (True,))


def test_the_embedded_broker_serves_a_fleet(embedded: Broker) -> None:
    with fake_edge(embedded) as edge:
        result = live(embedded)
    same_requests(result.requests, simulated(world()).requests)
    assert statuses(result) == {OK: len(result)}
    assert len(edge.requests) == len(result)


@pytest.mark.parametrize("version", ["5", "3.1.1"])
def test_a_fleet_over_tls_with_the_access_list_that_ships(
    mosquitto_tls: SecureMosquitto, version: Any
) -> None:
    of = world(group(count=30, arrivals=Poisson(3.0), request_bytes=20_000))
    with fake_edge(mosquitto_tls.user("node-1")) as edge:
        result = live(mosquitto_tls.user("fleet", version=version), of)
    same_requests(result.requests, simulated(of).requests)
    assert statuses(result) == {OK: len(result)}
    assert len(edge.requests) == len(result)


def test_requests_that_the_access_list_refuses_are_told(mosquitto_tls: SecureMosquitto) -> None:
    of = world(group(deadline=Constant(0.1)))
    with fake_edge(mosquitto_tls.user("node-1")) as edge:
        # cam-1 may only send as itself.
        result = live(mosquitto_tls.user("cam-1"), of, grace_s=0.2)
    assert edge.requests == []
    assert statuses(result) == {WAITING: len(result)}
    assert f"refused {len(result)} requests: Not authorized" in "".join(result.warnings(of))


def test_requests_hold_the_image_or_name_it_and_are_as_long_as_the_scenario_says(
    mosquitto: Mosquitto,
) -> None:
    of = world(
        group("exact", 1, request_bytes=64, priority=3, deadline=Constant(0.5)),
        group("padded", 1, request_bytes=1000),
        group("small", 1, request_bytes=40),
        group("named", 1, request_bytes=120, arrivals=Poisson(40.0)),
    )
    images = np.random.default_rng(1).integers(0, 256, (SAMPLES, 1, 12, 12), dtype=np.uint8)
    samples = replace(sample_set(), images=images[:, :, :8, :8])
    large = replace(samples, images=images)
    with fake_edge(mosquitto.broker) as edge:
        settings = FleetSettings(mosquitto.broker)
        result = run_fleet(of, samples, 0, settings, groups=["exact", "padded", "small"])
        named = run_fleet(of, large, 0, settings, groups=["named"])
    assert [note for note in result.notes if "name the image" in note] == [
        "requests of 'small' have 40 bytes, less than an image: they name the image, and nodes "
        "look it up"
    ]
    assert len(named.notes) == 1
    lengths: dict[str, list[int]] = {}
    for device, request, payload in edge.requests:
        lengths.setdefault(device, []).append(len(payload))
        assert request.sample is not None
        assert request.shape is None
        assert request.label is None
        assert request.deadline_s == (0.5 if device == "exact-0" else 1.0)
        assert request.priority == (3 if device == "exact-0" else 0)
        if device in ("exact-0", "padded-0"):
            assert request.image == samples.images[request.sample].tobytes()
        else:
            assert request.image is None
    # Keys, times and the id come on top of the image; padding knows their length but for a few
    # bytes that depend on the numbers.
    assert all(64 < length < 64 + 120 for length in lengths["exact-0"])
    assert all(abs(length - 1000) <= 30 for length in lengths["padded-0"])
    assert all(abs(length - 120) <= 30 for length in lengths["named-0"])


def test_ages_and_travel_times_are_those_of_the_device(mosquitto: Mosquitto) -> None:
    before_s = time.monotonic()
    with fake_edge(mosquitto.broker) as edge:
        result = live(mosquitto.broker, world(group(count=1)))
    requests = [request for _, request, _ in edge.requests]
    ages_s = [request.age_s for request in requests]
    np.testing.assert_allclose(ages_s, result.seen.sent_s - result.requests.created_s, atol=1e-6)
    sent_s = [request.sent_s or 0.0 for request in requests]
    assert all(before_s < earlier < later for earlier, later in pairwise(sent_s))
    np.testing.assert_allclose(np.array(sent_s) - result.start_s, result.seen.sent_s, atol=1e-6)
    assert requests[0].way_s is None
    travel_s = np.maximum(0, result.seen.heard_s - result.seen.sent_s - result.seen.node_s)
    known = [travel_s[index] for index in range(len(requests) - 1)]
    told = [request.way_s for request in requests[1:]]
    # Where two follow each other closely, a device may not have heard of the first.
    assert any(
        way == pytest.approx(before, abs=1e-6) for way, before in zip(told, known, strict=True)
    )
    assert all(way is None or min(travel_s) - 1e-6 <= way <= max(travel_s) for way in told)


def test_two_replicas_are_told_apart(mosquitto: Mosquitto) -> None:
    of = world(nodes=(node(replicas=2),))
    with (
        fake_edge(mosquitto.broker, node="edge-0") as first,
        # Both hear every request; this one answers none.
        fake_edge(mosquitto.broker, node="edge-1", answer=lambda request, reply: []),
    ):
        result = live(mosquitto.broker, of)
    assert result.nodes == ("edge-0",)
    assert len(first.requests) == len(result)
    assert statuses(result) == {OK: len(result)}


def test_closed_loops_wait_for_their_answers(mosquitto: Mosquitto) -> None:
    def slowly(request: InferenceRequest, reply: Reply) -> Sequence[Reply]:
        time.sleep(0.002)
        return [reply]

    of = world(group("loops", 3, arrivals=ClosedLoop(Constant(0.01))), group("steady", 1))
    with fake_edge(mosquitto.broker, answer=slowly):
        result = live(mosquitto.broker, of)
    assert statuses(result) == {OK: len(result)}
    created_s, heard_s = result.requests.created_s, result.seen.heard_s
    of_device: dict[int, list[int]] = {}
    for index, device in enumerate(result.requests.device.tolist()):
        of_device.setdefault(device, []).append(index)
    for device in range(3):
        rows = of_device[device]
        assert len(rows) > 5
        assert created_s[rows[0]] == 0.01
        for before, after in pairwise(rows):
            assert created_s[after] == pytest.approx(heard_s[before] + 0.01)


def test_a_closed_loop_goes_on_when_nothing_comes(mosquitto: Mosquitto) -> None:
    of = world(
        group("loops", 2, arrivals=ClosedLoop(Constant(0.1)), deadline=Constant(0.1)),
    )
    with fake_edge(mosquitto.broker, answer=lambda request, reply: []):
        result = live(mosquitto.broker, of, grace_s=0.1)
    assert statuses(result) == {WAITING: len(result)}
    per_device = Counter(result.requests.device.tolist())
    # Think 0.1 s, wait for 0.1 s and 0.1 s more, of a run of 1 s: at 0.1, 0.4, 0.7 s.
    assert set(per_device.values()) <= {2, 3, 4}
    gaps_s = np.diff(result.requests.created_s[result.requests.device == 0])
    assert (gaps_s >= 0.3 - 1e-6).all()


# --- what nodes may do ---------------------------------------------------------------------------


def test_odd_replies_are_counted_and_change_no_record(mosquitto: Mosquitto) -> None:
    def oddly(request: InferenceRequest, reply: Reply) -> Sequence[Reply]:
        assert isinstance(request.id, int)
        wrong = replace(reply, predicted=99)
        return [
            replace(wrong, id=request.id ^ (1 << 40)),  # of another run
            replace(wrong, id="foreign"),
            replace(wrong, id=request.id + (1 << 20)),  # never sent
            reply,
            wrong,
            reply,
        ]

    with fake_edge(mosquitto.broker, answer=oddly):
        result = live(mosquitto.broker)
    count = len(result)
    assert statuses(result) == {OK: count}
    assert (result.seen.predicted != 99).all()
    odd = result.oddities
    assert odd.stale == 2 * count
    assert odd.unknown == count
    # The last of them may be on their way when the run ends.
    assert 2 * count - 2 <= odd.duplicates <= 2 * count


def test_a_reply_to_another_device_is_none_to_this_one(mosquitto: Mosquitto) -> None:
    taken: list[InferenceRequest] = []

    def swapped(request: InferenceRequest, reply: Reply) -> Sequence[Reply]:
        taken.append(request)
        if len(taken) < 2:
            return []
        # Every device hears the answer to the request before, which is mostly another's.
        return [replace(reply, id=taken[-2].id)]

    with fake_edge(mosquitto.broker, answer=swapped):
        result = live(mosquitto.broker, grace_s=0.2, of=world(group(deadline=Constant(0.2))))
    same_device = sum(one == other for one, other in pairwise(result.requests.device.tolist()))
    assert 0 < statuses(result)[OK] <= same_device + 5
    assert result.oddities.unknown > 0
    assert statuses(result)[OK] + result.oddities.unknown == len(taken) - 1


def test_a_message_that_is_no_reply_is_ignored(mosquitto: Mosquitto) -> None:
    with fake_edge(mosquitto.broker) as edge:

        def disturb() -> None:
            for _ in range(5):
                edge.client.publish("offramp/1/reply/edge/cameras-0", b"\xff\xff", 1)

        timer = threading.Timer(0.7, disturb)
        timer.start()
        result = live(mosquitto.broker)
        timer.join()
    assert statuses(result) == {OK: len(result)}
    assert result.oddities.malformed == 5
    assert any("malformed" in warning for warning in result.warnings(world()))


def test_refusals_and_errors_are_told_apart(mosquitto: Mosquitto) -> None:
    def by_sample(request: InferenceRequest, reply: Reply) -> Sequence[Reply]:
        blank = Reply(request.id, "ok", reply.node, node_s=0.001, arrived_s=reply.arrived_s)
        match (request.sample or 0) % 3:
            case 0:
                return [reply]
            case 1:
                return [replace(blank, status="dropped", reason="queue_full")]
            case _:
                return [replace(blank, status="error", code="internal_error", message="oh")]

    with fake_edge(mosquitto.broker, answer=by_sample):
        result = live(mosquitto.broker)
    kind = sample_set().sample[result.requests.sample] % 3
    expected = np.array([OK, DROPPED, ERROR])[kind]
    np.testing.assert_array_equal(result.seen.status, expected)
    assert result.oddities.errors == {"internal_error": int((kind == 2).sum())}
    assert (result.seen.exit[kind > 0] == 0).all()


def test_a_node_that_never_answers_loses_everything_in_time(mosquitto: Mosquitto) -> None:
    of = world(group(deadline=Constant(0.2)))
    with fake_edge(mosquitto.broker, answer=lambda request, reply: []) as edge:
        started_s = time.monotonic()
        result = live(mosquitto.broker, of, grace_s=0.5)
        took_s = time.monotonic() - started_s
    same_requests(result.requests, simulated(of).requests)
    assert len(edge.requests) == len(result)
    assert statuses(result) == {WAITING: len(result)}
    # The window lasts 1 s; deadlines and grace end 0.7 s after the last creation.
    assert 1.2 < took_s < in_time(6)
    assert result.cut_s is None


# --- what networks may do ------------------------------------------------------------------------


def while_running(at_s: float, action: Callable[[], object]) -> Callable[[Progress], None]:
    """Does something once, in a thread of its own, when the run is so old."""
    done: list[threading.Thread] = []

    def look(progress: Progress) -> None:
        if progress.time_s >= at_s and not done:
            done.append(threading.Thread(target=action))
            done[0].start()

    look.done = done  # type: ignore[attr-defined]
    return look


@pytest.mark.parametrize("qos", [0, 1, 2])
def test_everyone_is_back_after_a_restart_of_the_broker(mosquitto: Mosquitto, qos: Any) -> None:
    of = world(group(count=20, arrivals=Poisson(5.0)), duration_s=in_time(6.0))
    told: list[Progress] = []
    restarted_s: list[float] = []

    def restart() -> None:
        mosquitto.kill()
        time.sleep(0.7)
        mosquitto.start()
        restarted_s.append(time.monotonic())

    action = while_running(0.5, restart)

    def watch(progress: Progress) -> None:
        told.append(progress)
        action(progress)

    with fake_edge(mosquitto.broker, qos=qos):
        result = live(
            mosquitto.broker, of, qos=qos, on_progress=watch, progress_every_s=0.05, grace_s=1.0
        )
    action.done[0].join()  # type: ignore[attr-defined]
    same_requests(result.requests, simulated(of).requests)
    assert min(progress.connected for progress in told) < 20
    back_s = restarted_s[0] - result.start_s
    assert any(one.connected == 20 for one in told if back_s < one.time_s < back_s + in_time(5))
    assert result.oddities.reconnections == 20
    late = result.requests.created_s > back_s + in_time(3.5)  # the node is back, too
    assert late.any()
    assert (result.seen.status[late] == OK).all()
    if qos:
        # What was created without a connection is sent with the next one; what was at the broker
        # when it was killed, or comes there before the node is back, may be lost.
        assert result.oddities.unsent == 0
        assert set(statuses(result)) <= {OK, WAITING}
        assert (result.seen.status[result.requests.created_s < 0.3] == OK).all()
        assert (result.seen.sent_s - result.requests.created_s > 0.2).any()
    else:
        assert result.oddities.unsent == statuses(result)[UNSENT] > 0
        unsent_s = result.requests.created_s[result.seen.status == UNSENT]
        assert (unsent_s > 0.4).all()


def test_a_device_that_vanishes_comes_back(mosquitto: Mosquitto) -> None:
    def push_out() -> None:
        # A broker ends the connection of a client when another comes with its identifier.
        other = new_client(replace(mosquitto.broker, version="3.1.1"), "cameras-1")
        connect(other, mosquitto.broker)
        disconnect(other)

    action = while_running(0.3, push_out)
    with fake_edge(mosquitto.broker) as edge:
        of = world(duration_s=1.8)
        result = live(mosquitto.broker, of, on_progress=action, progress_every_s=0.05)
        assert {device for device, *_ in edge.requests} == {f"cameras-{n}" for n in range(3)}
    action.done[0].join()  # type: ignore[attr-defined]
    same_requests(result.requests, simulated(of).requests)
    assert result.oddities.reconnections >= 1
    assert any("lost their connection" in warning for warning in result.warnings(of))
    others = result.requests.device != 1
    assert (result.seen.status[others] == OK).all()
    late = result.requests.created_s > 1.5
    assert (result.seen.status[late] == OK).all()


def test_the_clock_of_the_system_may_jump(
    mosquitto: Mosquitto, monkeypatch: pytest.MonkeyPatch
) -> None:
    true_time = time.time

    def jump() -> None:
        monkeypatch.setattr(time, "time", lambda: true_time() - 86_400 * 365)

    action = while_running(0.3, jump)
    with fake_edge(mosquitto.broker):
        result = live(mosquitto.broker, on_progress=action, progress_every_s=0.05)
    action.done[0].join()  # type: ignore[attr-defined]
    same_requests(result.requests, simulated(world()).requests)
    assert statuses(result) == {OK: len(result)}
    assert (result.seen.heard_s - result.requests.created_s < in_time(5)).all()


def test_a_persistent_session_brings_what_came_meanwhile(
    start_mosquitto: Callable[..., Mosquitto],
) -> None:
    broker = start_mosquitto().broker
    with fake_edge(broker) as edge:
        result = live(broker, persistent=True)
        assert statuses(result) == {OK: len(result)}
        # The session has ended with the run: a late reply of it is not waiting for the next.
        edge.client.publish("offramp/1/reply/edge/cameras-0", b"\xff", 1).wait_for_publish(5)
        again = live(broker, persistent=True)
    assert again.oddities.malformed == 0


# --- stopping ------------------------------------------------------------------------------------


def test_a_run_that_is_stopped_keeps_what_it_has(mosquitto: Mosquitto) -> None:
    stop = threading.Event()
    of = world(duration_s=60.0)
    with fake_edge(mosquitto.broker):
        result = live(
            mosquitto.broker,
            of,
            stop=stop,
            on_progress=lambda it: stop.set() if it.time_s > 0.5 else None,
            progress_every_s=0.1,
        )
    assert result.cut_s is not None
    assert 0.5 < result.cut_s < in_time(10)
    everything = simulated(of).requests
    created = everything.where(everything.created_s < result.requests.created_s[-1] + 1e-9)
    same_requests(result.requests, created)
    assert "cut short" in result.warnings(of)[0]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_run_and_nothing_else(mosquitto: Mosquitto, number: int) -> None:
    before = signal.getsignal(number)
    action = while_running(0.3, lambda: os.kill(os.getpid(), number))
    with fake_edge(mosquitto.broker):
        result = live(
            mosquitto.broker, world(duration_s=60.0), on_progress=action, progress_every_s=0.1
        )
    assert result.cut_s is not None
    assert len(result) > 0
    assert signal.getsignal(number) is before


def test_a_run_that_is_stopped_before_it_began_has_no_result(mosquitto: Mosquitto) -> None:
    stop = threading.Event()
    threading.Timer(0.3, stop.set).start()
    with pytest.raises(KeyboardInterrupt):
        live(mosquitto.broker, stop=stop)


def test_a_defect_in_a_callback_ends_the_run_and_is_not_hidden(
    mosquitto: Mosquitto, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise ZeroDivisionError("a defect")

    monkeypatch.setattr("devices.virtual.exchange.Exchange.heard", fail)
    with fake_edge(mosquitto.broker), pytest.raises(ZeroDivisionError, match="a defect"):
        live(mosquitto.broker, world(duration_s=60.0))


# --- progress ------------------------------------------------------------------------------------


def test_progress_adds_up(mosquitto: Mosquitto) -> None:
    told: list[Progress] = []

    def half(request: InferenceRequest, reply: Reply) -> Sequence[Reply]:
        return [reply] if (request.sample or 0) % 2 else []

    of = world(group(deadline=Constant(0.1)), duration_s=1.5)
    with fake_edge(mosquitto.broker, answer=half):
        result = live(
            mosquitto.broker, of, grace_s=0.5, on_progress=told.append, progress_every_s=0.05
        )
    assert repr(pickle.loads(pickle.dumps(told))) == repr(told)
    for one in told:
        assert one.created == one.answered + one.dropped + one.lost + one.waiting
        assert (one.devices, one.connected, one.nodes_online) == (3, 3, ("edge",))
    last = told[-1]
    assert last.created == len(result)
    assert last.answered == statuses(result)[OK] == sum(last.exits.values())
    assert last.lost == statuses(result)[WAITING]
    assert last.exits == {2: last.answered}  # odd samples are answered at exit 2
    assert last.correct_on_time == last.on_time
    measured = result.requests.created_s >= of.warm_up_s
    in_time = result.seen.heard_s - result.requests.created_s <= 0.1
    assert last.aud == pytest.approx(in_time[measured].mean())
    assert last.rate_hz > 0
    assert 0 < last.latency_p50_s <= last.latency_p99_s


# --- what cannot be run --------------------------------------------------------------------------


def test_a_broker_that_is_not_there() -> None:
    with pytest.raises(BrokerError, match="nothing listens there"):
        live(Broker("127.0.0.1", free_port()))


def test_a_node_that_is_not_there(mosquitto: Mosquitto) -> None:
    with pytest.raises(LiveError, match=r"not all nodes are online .*'edge' \(never heard of\)"):
        live(mosquitto.broker, wait_s=0.5)


def test_a_node_that_has_gone(mosquitto: Mosquitto) -> None:
    with fake_edge(mosquitto.broker) as edge:
        edge.tell(NodeStatus("offline", "edge", "instance-1"))
    with pytest.raises(LiveError, match=r"'edge' \(offline\)"):
        live(mosquitto.broker, wait_s=0.5)


def test_a_node_that_comes_late_is_waited_for(mosquitto: Mosquitto) -> None:
    edges: list[FakeEdge] = []
    timer = threading.Timer(0.5, lambda: edges.append(FakeEdge(mosquitto.broker)))
    timer.start()
    try:
        result = live(mosquitto.broker)
    finally:
        timer.join()
        for edge in edges:
            edge.close()
    assert statuses(result) == {OK: len(result)}


def test_a_node_for_other_images(mosquitto: Mosquitto) -> None:
    with (
        fake_edge(mosquitto.broker, input_shape=(3, 32, 32)),
        pytest.raises(LiveError, match=r"'edge' takes images of 3×32×32, but .* send 1×8×8"),
    ):
        live(mosquitto.broker)


def test_a_group_that_is_not_there(mosquitto: Mosquitto) -> None:
    with pytest.raises(LiveError, match="no device group 'phones'; there are cameras"):
        live(mosquitto.broker, groups=["phones"])


def test_a_device_whose_name_fits_no_topic(mosquitto: Mosquitto) -> None:
    with (
        fake_edge(mosquitto.broker),
        pytest.raises(LiveError, match="cannot stand in an MQTT topic"),
    ):
        live(mosquitto.broker, world(group("no/slash", 1)))


def test_requests_that_no_node_would_accept(mosquitto: Mosquitto) -> None:
    with pytest.raises(LiveError, match="longer than nodes accept"):
        live(mosquitto.broker, world(group(request_bytes=2 << 20)))


def test_settings_come_from_the_mqtt_of_the_world() -> None:
    broker = Broker("127.0.0.1", 1883)
    mqtt = Mqtt(qos=2, persistent=True, keep_alive_s=7.0, inflight=3)
    assert FleetSettings.of(broker, mqtt, grace_s=1.0) == FleetSettings(
        broker, qos=2, persistent=True, keep_alive_s=7.0, inflight=3, grace_s=1.0
    )
    assert FleetSettings.of(broker, None) == FleetSettings(broker)
