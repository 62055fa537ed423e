"""MQTT in a world: what each message costs on its way, and what faults do to it."""

import numpy as np
import pytest
from tiny_worlds import (
    AtTimes,
    direction,
    group,
    node,
    records_of,
    run_of,
    world,
)

from sim.distributions import Constant, Exponential
from sim.faults import Fault
from sim.network.links import Link
from sim.network.mqtt import Mqtt
from sim.network.mqtt_packets import (
    acknowledgement_bytes,
    properties_bytes,
    publish_bytes,
    tcp_bytes,
)
from sim.network.topology import draw_absences
from sim.streams import Streams
from sim.workload.arrivals import Poisson

#: Delays in seconds whose sums tell which of them they are made of.
UP, DOWN, TO_NODE, FROM_NODE = 1.0, 10.0, 100.0, 1000.0
ACCESS = Link(direction(UP), direction(DOWN))
BACKHAUL = Link(direction(TO_NODE), direction(FROM_NODE))


def sending(times_s, mqtt, *, faults=(), service_s=0.0, replicas=1, workers=1, **of_group):
    """A run of devices that send at written times: one sequence of them for each device."""
    devices = group(
        "cameras",
        len(times_s),
        AtTimes(tuple(tuple(times) for times in times_s)),
        **({"deadline": 1e6} | of_group),
    )
    edge = node(mean_s=service_s, replicas=replicas, workers=workers)
    a_world = world(devices, edge, duration_s=1e4, mqtt=mqtt, faults=tuple(faults))
    return a_world, run_of(a_world)


def run(*args, **more):
    return sending(*args, **more)[1]


# --- one request, alone --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("qos", "there_s", "back_s"),
    [
        (0, UP + TO_NODE, FROM_NODE + DOWN),
        (1, UP + TO_NODE, FROM_NODE + DOWN),
        # PUBLISH, PUBREC, PUBREL on each leg: the receiver hands on when the PUBREL is there.
        (2, UP + DOWN + UP + TO_NODE + FROM_NODE + TO_NODE,
         FROM_NODE + TO_NODE + FROM_NODE + DOWN + UP + DOWN),
    ],
)  # fmt: skip
def test_trips_of_a_request_and_its_reply(qos, there_s, back_s):
    mqtt = Mqtt(qos=qos, backhaul=BACKHAUL)
    done = run([[5.0]], mqtt, link=ACCESS, service_s=0.25)
    assert done.arrived_s.tolist() == [5.0 + there_s]
    assert done.finished_s.tolist() == [5.0 + there_s + 0.25]
    assert done.received_s.tolist() == [5.0 + there_s + 0.25 + back_s]


@pytest.mark.parametrize("trips", [1, 3])
def test_every_trip_draws_its_own_delay(trips):
    link = Link(direction(Exponential(0.1)), direction(Exponential(0.1)))
    devices = group("cameras", 4000, AtTimes(tuple((5.0,) for _ in range(4000))), link=link)
    mqtt = Mqtt(qos=2 if trips == 3 else 1)
    done = run_of(world(devices, node(mean_s=0.0), mqtt=mqtt))
    up = done.arrived_s - done.requests.created_s
    # A sum of independent exponential trips: its mean and variance.
    assert up.mean() == pytest.approx(0.1 * trips, rel=0.06)
    assert up.var() == pytest.approx(0.01 * trips, rel=0.15)


def test_without_mqtt_devices_and_nodes_talk_directly():
    done = run([[5.0]], None, link=ACCESS, service_s=0.25)
    assert done.arrived_s.tolist() == [6.0]
    assert done.received_s.tolist() == [16.25]


# --- packets on the wire -------------------------------------------------------------------------


def wire(version, qos, payload, properties, *, tls=False):
    """Bytes of a PUBLISH to a topic of 40 bytes, and of an acknowledgement, as they travel."""
    publish = tcp_bytes(publish_bytes(version, qos, 40, payload, properties), tls=tls)
    return publish, tcp_bytes(acknowledgement_bytes(version), tls=tls)


@pytest.mark.parametrize("version", ["3.1.1", "5"])
@pytest.mark.parametrize("tls", [False, True])
@pytest.mark.parametrize("qos", [0, 1, 2])
def test_bytes_of_packets_occupy_the_link(version, tls, qos):
    """At 8 bit/s, a byte takes a second. What acknowledges replies goes the requests' way."""
    properties = 0, 0
    if version == "5":
        there = properties_bytes("message_expiry_interval", response_topic=40, correlation_data=8)
        properties = there, properties_bytes(correlation_data=8)
    request, ack = wire(version, qos, 3000, properties[0], tls=tls)
    reply, _ = wire(version, qos, 20, properties[1], tls=tls)
    # On the request's way: PUBLISH, and PUBREL; of the reply PUBACK, or PUBREC and PUBCOMP.
    extra = {0: 0, 1: ack, 2: ack + 2 * ack}[qos]
    mqtt = Mqtt(version=version, tls=tls, qos=qos)
    slow = Link(direction(0.0, 8.0), direction(0.0, 8.0))
    done = run([[5.0]], mqtt, link=slow, request_bytes=3000, response_bytes=20)
    assert done.arrived_s[0] - 5.0 == pytest.approx(request + extra)
    assert done.received_s[0] - done.finished_s[0] == pytest.approx(reply + extra)


def test_bytes_by_hand():
    """A PUBLISH of 1000 bytes at QoS 1, MQTT 3.1.1, to a topic of 40 bytes.

    Fixed header 1 + 2, topic 2 + 40, packet identifier 2, payload 1000: 1047, and 40 of IP and
    TCP. The PUBACK of the reply is 2 + 2, and 40.
    """
    link = Link(direction(0.0, 8.0))
    done = run([[0.0]], Mqtt(version="3.1.1", qos=1), link=link, request_bytes=1000)
    assert done.arrived_s.tolist() == [1047 + 40 + 4 + 40]


def test_the_backhaul_is_occupied_too_each_node_by_its_own():
    mqtt = Mqtt(version="3.1.1", qos=0, backhaul=Link(direction(0.0, 8.0)))
    # 1 + 2 + 42 + 955 and 40 bytes: 1040 s each, to nodes 0, 1, 0.
    done = run([[0.0], [1.0], [2.0]], mqtt, request_bytes=955, replicas=2)
    assert done.node.tolist() == [0, 1, 0]
    assert done.arrived_s.tolist() == [1040.0, 1041.0, 2080.0]


# --- the broker ----------------------------------------------------------------------------------


def test_the_broker_handles_one_message_after_the_other_in_each_direction():
    mqtt = Mqtt(processing=Constant(2.0))
    done = run([[0.0, 1.0], [1.5, 10.0]], mqtt, workers=9)
    created = done.requests.created_s.tolist()
    assert created == [0.0, 1.0, 1.5, 10.0]
    assert done.arrived_s.tolist() == [2.0, 4.0, 6.0, 12.0]
    # Replies wait for replies only.
    assert done.received_s.tolist() == [4.0, 6.0, 8.0, 14.0]


def test_processing_times_are_drawn():
    devices = group("cameras", 3000, AtTimes(tuple((float(n),) for n in range(3000))))
    mqtt = Mqtt(processing=Exponential(0.01))
    done = run_of(world(devices, node(mean_s=0.0), duration_s=3000.0, mqtt=mqtt))
    took = done.arrived_s - done.requests.created_s
    assert took.mean() == pytest.approx(0.01, rel=0.1)
    assert took.std() == pytest.approx(0.01, rel=0.15)


# --- a pool of nodes -----------------------------------------------------------------------------


def test_round_robin_takes_turns_in_the_order_in_which_messages_leave_the_broker():
    done = run([[0.0, 3.0, 5.0], [1.0, 2.0, 9.0]], Mqtt(), replicas=3)
    assert done.requests.created_s.tolist() == [0.0, 1.0, 2.0, 3.0, 5.0, 9.0]
    assert done.node.tolist() == [0, 1, 2, 0, 1, 2]


def test_groups_share_the_turns_of_one_pool():
    one = group("one", 1, AtTimes(((0.0, 2.0),)))
    two = group("two", 1, AtTimes(((1.0, 3.0),)))
    done = run_of(world(one, two, node(mean_s=0.0, replicas=2), mqtt=Mqtt()))
    assert done.node.tolist() == [0, 1, 0, 1]


def test_random_share_is_even_and_independent():
    devices = group("cameras", 20, Poisson(10.0))
    this = world(devices, node(mean_s=0.0, replicas=3), duration_s=60.0, mqtt=Mqtt(share="random"))
    node_of = run_of(this).node
    counts = np.bincount(node_of, minlength=3)
    assert np.abs(counts - len(node_of) / 3).max() < 5 * np.sqrt(len(node_of) / 3)
    again = np.mean(node_of[1:] == node_of[:-1])
    assert again == pytest.approx(1 / 3, abs=5 * np.sqrt(2 / 9 / len(node_of)))


@pytest.mark.parametrize("share", ["round_robin", "random"])
@pytest.mark.parametrize("reconnect_s", [0.0, 3.0])
def test_nodes_that_are_away_are_passed_over(share, reconnect_s):
    """A node is away from its crash until it has been repaired and is back at the broker."""
    devices = group("cameras", 10, Poisson(10.0))
    crash = Fault("node_crash", "edge", mtbf_s=20.0, mttr_s=10.0)
    pool = node(mean_s=0.0, replicas=3)
    mqtt = Mqtt(share=share, reconnect_s=reconnect_s)
    this = world(devices, pool, duration_s=60.0, mqtt=mqtt, faults=(crash,))
    done = run_of(this)
    away = draw_absences(this, Streams(this.seed, 0)).nodes.prolonged(reconnect_s)
    at = done.requests.created_s
    down = np.array([np.isfinite(away.until(np.full(len(at), node), at)) for node in range(3)])
    none_is_up = down.all(axis=0)
    assert 0.01 < none_is_up.mean() < 0.5
    assert (done.outcome == 3).tolist() == none_is_up.tolist(), "lost only where no node is up"
    chosen = down[done.node, np.arange(len(at))]
    assert not chosen[~none_is_up].any()


def test_those_that_are_up_take_turns():
    """Round robin among nodes 0 and 2 while node 1 is down."""
    devices = group("cameras", 10, Poisson(10.0))
    crash = Fault("node_crash", "edge", mtbf_s=20.0, mttr_s=10.0)
    this = world(devices, node(mean_s=0.0, replicas=3), duration_s=60.0, mqtt=Mqtt(),
                 faults=(crash,))  # fmt: skip
    done = run_of(this)
    away = draw_absences(this, Streams(this.seed, 0)).nodes
    at = done.requests.created_s
    down = np.array([np.isfinite(away.until(np.full(len(at), node), at)) for node in range(3)])
    only_1 = down[1] & ~down[0] & ~down[2]
    assert only_1.sum() > 100
    following = only_1[1:] & only_1[:-1]
    assert (done.node[1:] != done.node[:-1])[following].all()


# --- a node crashes ------------------------------------------------------------------------------

CRASH = Fault("node_crash", "edge", ((10.0, 20.0),))
ON_TIME, LATE, DROPPED, LOST = "on_time", "late", "dropped", "lost"


def outcomes(this, done):
    return records_of(this, done)["outcome"].tolist()


#: Requests served (4 s each) or waiting at 10 s are lost, whatever the session: the node had them.
TIMES = [0.0, 5.0, 8.0, 9.0, 10.0, 15.0, 19.0, 20.0, 30.0]


@pytest.mark.parametrize("qos", [0, 1, 2])
def test_a_clean_session_loses_what_comes_for_a_node_that_is_down(qos):
    this, done = sending([TIMES], Mqtt(qos=qos), faults=[CRASH], service_s=4.0)
    expected = [ON_TIME, ON_TIME, LOST, LOST, LOST, LOST, LOST, ON_TIME, ON_TIME]
    assert outcomes(this, done) == expected
    assert done.arrived_s[:4].tolist() == [0.0, 5.0, 8.0, 9.0]
    assert np.isnan(done.arrived_s[4:7]).all(), "they never reached the node"
    assert done.started_s[[0, 1, 7, 8]].tolist() == [0.0, 5.0, 20.0, 30.0]
    # The third began at 9 s and never ended; the fourth never began.
    assert done.started_s[2] == 9.0
    assert np.isnan(done.started_s[3])


@pytest.mark.parametrize("qos", [1, 2])
def test_a_persistent_session_keeps_messages_for_a_node_that_is_down(qos):
    mqtt = Mqtt(qos=qos, persistent=True)
    this, done = sending([TIMES], mqtt, faults=[CRASH], service_s=4.0, deadline=15.0)
    # What the node had is lost; what the broker holds comes at 20 s, in order: 24, 28, 32, 36 s.
    assert done.arrived_s[4:].tolist() == [20.0, 20.0, 20.0, 20.0, 30.0]
    assert done.finished_s[4:].tolist() == [24.0, 28.0, 32.0, 36.0, 40.0]
    expected = [ON_TIME, ON_TIME, LOST, LOST, ON_TIME, ON_TIME, ON_TIME, LATE, ON_TIME]
    assert outcomes(this, done) == expected


def test_at_qos_0_a_persistent_session_keeps_nothing():
    clean = sending([TIMES], Mqtt(qos=0), faults=[CRASH], service_s=4.0)
    kept = sending([TIMES], Mqtt(qos=0, persistent=True), faults=[CRASH], service_s=4.0)
    assert outcomes(*clean) == outcomes(*kept)


def test_messages_flow_again_once_the_node_has_reconnected():
    mqtt = Mqtt(qos=1, persistent=True, reconnect_s=5.0)
    _, done = sending([TIMES], mqtt, faults=[CRASH], service_s=4.0)
    assert done.arrived_s[4:].tolist() == [25.0, 25.0, 25.0, 25.0, 30.0]


def test_without_a_broker_what_comes_for_a_node_that_is_down_is_lost():
    this, done = sending([TIMES], None, faults=[CRASH], service_s=4.0)
    assert outcomes(this, done) == [
        ON_TIME, ON_TIME, LOST, LOST, LOST, LOST, LOST, ON_TIME, ON_TIME,
    ]  # fmt: skip


# --- the broker restarts -------------------------------------------------------------------------

RESTART = Fault("broker_restart", schedule=((10.0, 20.0),))
AROUND = [0.0, 9.0, 10.0, 15.0, 16.0, 20.0, 30.0]


@pytest.mark.parametrize("persistent", [False, True])
def test_at_qos_1_clients_hold_messages_until_the_broker_is_back(persistent):
    mqtt = Mqtt(qos=1, persistent=persistent, processing=Constant(0.5))
    this, done = sending([AROUND], mqtt, faults=[RESTART], deadline=8.0)
    # Created at 10, 15, 16 and 20: from 20 s on, half a second each.
    assert done.arrived_s.tolist() == [0.5, 9.5, 20.5, 21.0, 21.5, 22.0, 30.5]
    expected = [ON_TIME, ON_TIME, LATE, ON_TIME, ON_TIME, ON_TIME, ON_TIME]
    assert outcomes(this, done) == expected


def test_at_qos_0_what_meets_no_broker_is_lost_and_costs_it_nothing():
    mqtt = Mqtt(qos=0, processing=Constant(4.0))
    this, done = sending([[0.0, 5.0, 10.0, 15.0, 20.0, 30.0]], mqtt, faults=[RESTART])
    assert outcomes(this, done) == [ON_TIME, ON_TIME, LOST, LOST, ON_TIME, ON_TIME]
    # Those that are lost occupy no broker: it handles the one of 20 s at once.
    assert done.arrived_s[[0, 1, 4, 5]].tolist() == [4.0, 9.0, 24.0, 34.0]
    assert np.isnan(done.arrived_s[2:4]).all()


def test_messages_lost_at_the_broker_take_no_node_s_turn():
    done = run([AROUND], Mqtt(qos=0), faults=[RESTART], replicas=2)
    there = ~np.isnan(done.arrived_s)
    assert done.node[there].tolist() == [0, 1, 0, 1]


@pytest.mark.parametrize(("qos", "received_s"), [(0, np.nan), (1, 20.0)])
def test_replies_meet_the_restart_on_their_way_home(qos, received_s):
    """Created at 9 s, served until 12 s, when there is no broker."""
    this, done = sending([[0.0, 9.0]], Mqtt(qos=qos), faults=[RESTART], service_s=3.0)
    assert done.finished_s.tolist() == [3.0, 12.0]
    assert done.received_s.tolist() == [3.0, pytest.approx(received_s, nan_ok=True)]
    assert outcomes(this, done) == [ON_TIME, LOST if qos == 0 else ON_TIME]
    frame = records_of(this, done)
    assert frame["exit"].tolist() == [1, 1], "the node did compute it"


def test_clients_need_time_to_reconnect_to_a_broker_that_is_back():
    _, done = sending([AROUND], Mqtt(qos=1, reconnect_s=2.0), faults=[RESTART])
    assert done.arrived_s.tolist() == [0.0, 9.0, 22.0, 22.0, 22.0, 22.0, 30.0]


# --- devices come and go -------------------------------------------------------------------------

AWAY = Fault("device_churn", "cameras", ((10.0, 20.0),))


@pytest.mark.parametrize(
    ("mqtt", "received_s"),
    [
        (Mqtt(qos=1), np.nan),
        (Mqtt(qos=0, persistent=True), np.nan),
        (None, np.nan),
        (Mqtt(qos=1, persistent=True), 20.0),
        (Mqtt(qos=2, persistent=True), 20.0),
        (Mqtt(qos=1, persistent=True, reconnect_s=3.0), 23.0),
    ],
)
def test_the_broker_keeps_a_reply_for_a_device_that_is_away_if_its_session_persists(
    mqtt, received_s
):
    """Created at 8 s and served until 13 s; at 10 s the device has left."""
    this, done = sending([[0.0, 8.0]], mqtt, faults=[AWAY], service_s=5.0)
    assert done.finished_s.tolist() == [5.0, 13.0]
    assert done.received_s.tolist() == [5.0, pytest.approx(received_s, nan_ok=True)]
    assert outcomes(this, done) == [ON_TIME, LOST if np.isnan(received_s) else ON_TIME]


def test_a_device_that_is_back_sends_once_it_is_connected_again():
    this, done = sending([AROUND], Mqtt(qos=1, reconnect_s=2.0), faults=[AWAY])
    assert done.requests.created_s.tolist() == [0.0, 9.0, 20.0, 30.0]
    assert done.arrived_s.tolist() == [0.0, 9.0, 22.0, 30.0]
    assert outcomes(this, done) == [ON_TIME] * 4


def test_a_device_that_is_away_creates_nothing():
    _, done = sending([AROUND], Mqtt(), faults=[AWAY])
    assert done.requests.created_s.tolist() == [0.0, 9.0, 20.0, 30.0]
    assert done.requests.number.tolist() == [0, 1, 5, 6], "what it would have sent stays unsent"


def test_devices_of_a_group_come_and_go_each_by_itself():
    churn = Fault("device_churn", "cameras", mtbf_s=10.0, mttr_s=5.0)
    cameras, meters = group("cameras", 40, Poisson(10.0)), group("meters", 5, Poisson(10.0))
    alone = run_of(world(cameras, meters, node(mean_s=0.0), duration_s=60.0))
    this = world(cameras, meters, node(mean_s=0.0), duration_s=60.0, faults=(churn,))
    done = run_of(this)
    of_meters = done.requests.group == 1
    assert of_meters.sum() == (alone.requests.group == 1).sum(), "others stay"
    share = (~of_meters).sum() / (alone.requests.group == 0).sum()
    assert share == pytest.approx(10 / 15, abs=0.08)
    gaps = [
        np.diff(done.requests.created_s[done.requests.device == device]).max()
        for device in range(40)
    ]
    assert len(set(gaps)) == 40
    assert np.median(gaps) > 4.0
