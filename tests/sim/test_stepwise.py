"""Messages followed one by one: as when they are computed ahead, and where devices wait."""

from dataclasses import fields, replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny_worlds import (
    AtTimes,
    Deciding,
    Fickle,
    direction,
    examples,
    group,
    named,
    node,
    predictions,
    profile,
    random_predictions,
    run_of,
    world,
)

from sim.distributions import Constant, Exponential, Gamma, Uniform
from sim.faults import Fault
from sim.network.links import Link
from sim.network.mqtt import Mqtt
from sim.network.mqtt_packets import acknowledgement_bytes, tcp_bytes
from sim.network.retransmission import TcpLoss
from sim.nodes.service import DistributedService, ProfiledService
from sim.policies import Confidence, DeadlineAware
from sim.policy import ANSWER, DROP, OFFLOAD, run_to
from sim.workload.arrivals import ClosedLoop, Periodic, Poisson
from sim.world import World

# --- the same as computed ahead ------------------------------------------------------------------

SAYS = random_predictions(30, 3, seed=4)
LINK = Link(
    direction(Gamma(0.01, 0.02), 3e5),
    direction(Exponential(0.02), 5e5, loss=TcpLoss(0.03), rtt_s=0.03),
    shared_by=2,
)
BACKHAUL = Link(direction(Uniform(0.001, 0.004), 1e6), direction(0.002))


def mqtt(qos, **more):
    return Mqtt(qos=qos, processing=Exponential(0.002), backhaul=BACKHAUL, **more)


NETWORKS = {
    "direct": None,
    "QoS 0": mqtt(0),
    "QoS 1": mqtt(1),
    "QoS 2": mqtt(2, share="random"),
    "persistent": mqtt(1, persistent=True, reconnect_s=0.3),
}

CAMERAS = group("cameras", 5, Poisson(6.0), Uniform(0.05, 0.6), LINK, request_bytes=900)
#: Of two messages that arrive at one instant, as after a loss, an idle worker may take either: on
#: links that keep their pace there are none.
STEADY = Link(direction(0.01, 3e5), direction(0.02, 5e5), shared_by=2)
FILMS = group("films", 5, Poisson(6.0), Uniform(0.05, 0.6), STEADY, request_bytes=900)
METERS = group("meters", 4, Periodic(3.0, 0.1), 0.3, priority=1)
MEASURED = np.random.default_rng(2).uniform(0.005, 0.02, (3, 20, 3))
SERVICE = ProfiledService(profile(np.cumsum(MEASURED[0], axis=1), MEASURED[1], MEASURED[2]))
TABLES = profile(np.cumsum(MEASURED[0], axis=1), MEASURED[1], MEASURED[2])
TABLES.seconds[4] = {name: 2 * table for name, table in TABLES.seconds[1].items()}
BATCHED = ProfiledService(TABLES, largest_batch=4)

NODES = {
    "one": [node(SERVICE)],
    "pool": [node(SERVICE, replicas=3)],
    "edf": [node(SERVICE, workers=2, discipline="edf", queue_limit=3)],
    "priority": [node(SERVICE, discipline="priority", admission="feasible")],
    "batches": [node(BATCHED, batch_size=4, batch_wait_s=0.02)],
    "tiers": [
        node(SERVICE, next_tier="cloud", tier_link=named(LINK)),
        node(SERVICE, name="cloud"),
    ],
}


def first_here_then_there(request, node):
    if node.next_tier:
        return OFFLOAD if request.exit else run_to(1)
    return ANSWER if request.exit == 3 else run_to(request.exit + 1)


POLICIES = {
    "confidence": Confidence(0.7),
    "deadline": DeadlineAware(0.9, "drop"),
    "fickle": Fickle(7),
    "offload": Deciding(first_here_then_there),
}

FAULTS = (
    Fault("node_crash", "edge", mtbf_s=4.0, mttr_s=0.5),
    Fault("slow_node", "edge", mtbf_s=3.0, mttr_s=1.0, factor=0.5),
    Fault("broker_restart", mtbf_s=5.0, mttr_s=0.4),
    Fault("device_churn", "cameras", mtbf_s=5.0, mttr_s=1.0),
    Fault("link_outage", named(LINK), mtbf_s=5.0, mttr_s=0.5),
)


class FollowedStepByStep(World):
    """An open world that is simulated like any other."""

    is_open = False


def both(a_world, policy, says=SAYS):
    """The run with the network computed ahead, and hop by hop."""
    assert a_world.is_open
    columns = {field.name: getattr(a_world, field.name) for field in fields(World)}
    return [run_of(it, policy, says) for it in (a_world, FollowedStepByStep(**columns))]


def assert_same(ahead, stepwise):
    assert len(ahead) == len(stepwise) > 150
    for name in ("index", "node", "exit", "predicted", "correct", "outcome"):
        np.testing.assert_array_equal(getattr(stepwise, name), getattr(ahead, name), name)
    np.testing.assert_array_equal(stepwise.requests.created_s, ahead.requests.created_s)
    for name in ("arrived_s", "started_s", "finished_s", "received_s", "released_s", "confidence"):
        one, other = getattr(stepwise, name), getattr(ahead, name)
        np.testing.assert_allclose(one, other, rtol=0, atol=1e-9, err_msg=name)
    columns = [
        np.array(sorted(zip(*(getattr(run.visits, name).tolist() for name in names), strict=True)))
        for names in [("request", "node", "batch", "arrived_s", "left_s")]
        for run in (ahead, stepwise)
    ]
    np.testing.assert_allclose(columns[0], columns[1], rtol=0, atol=1e-9)


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("faults", [(), FAULTS], ids=["well", "faults"])
def test_networks_and_faults(network, faults):
    a_world = world(
        CAMERAS, METERS, node(SERVICE, replicas=2), duration_s=7.0, mqtt=NETWORKS[network],
        faults=faults,
    )  # fmt: skip
    ahead, stepwise = both(a_world, Confidence(0.7))
    assert_same(ahead, stepwise)
    if faults:
        assert 0.01 < np.mean(ahead.outcome == 3) < 0.6
        assert np.isfinite(ahead.received_s).any()


@pytest.mark.parametrize(
    ("nodes", "policy"),
    [(nodes, policy) for nodes in NODES for policy in POLICIES if policy != "offload"]
    + [("tiers", "offload")],
)
def test_nodes_and_policies(nodes, policy):
    a_world = world(FILMS, METERS, *NODES[nodes], duration_s=5.0, mqtt=mqtt(1),
                    links={named(LINK): LINK}, state_bytes=(700, 300))  # fmt: skip
    assert_same(*both(a_world, POLICIES[policy]))


@pytest.mark.parametrize("nodes", ["batches", "tiers", "edf"])
def test_nodes_that_crash(nodes):
    faults = (Fault("node_crash", "edge", mtbf_s=1.0, mttr_s=0.1),)
    if nodes == "tiers":
        faults += (Fault("node_crash", "cloud", mtbf_s=1.0, mttr_s=0.2),)
    a_world = world(FILMS, METERS, *NODES[nodes], duration_s=5.0, faults=faults,
                    links={named(LINK): LINK}, state_bytes=(700, 300))  # fmt: skip
    policy = POLICIES["offload" if nodes == "tiers" else "confidence"]
    ahead, stepwise = both(a_world, policy)
    assert_same(ahead, stepwise)
    assert 0.05 < np.mean(ahead.outcome == 3) < 0.6


def test_an_answer_lost_on_its_way_home_was_computed_all_the_same():
    churn = Fault("device_churn", "devices", ((3.0, 9.0),))
    devices = group("devices", 200, AtTimes(((1.0,),) * 200))
    a_world = world(devices, node(mean_s=5.0, workers=200), duration_s=10.0, faults=(churn,))
    ahead, stepwise = both(a_world, Deciding(lambda request, node: ANSWER if request.exit
                                             else run_to(1)), predictions())  # fmt: skip
    assert_same(ahead, stepwise)
    assert ahead.outcome.tolist() == [3] * 200
    assert ahead.exit.tolist() == [1] * 200
    assert ahead.finished_s.tolist() == [6.0] * 200
    assert np.isnan(ahead.received_s).all()


# --- closed loops --------------------------------------------------------------------------------


def looping(think, count=1, **more):
    return group("devices", count, ClosedLoop(think), **({"deadline": 5.0} | more))


ALWAYS = Deciding(lambda request, node: ANSWER if request.exit else run_to(1))


def test_the_next_request_comes_after_the_answer_and_a_time_to_think():
    """2 s of thought, 0.25 s up, 1 s of service, 0.5 s home."""
    link = Link(direction(0.25), direction(0.5))
    done = run_of(world(looping(Constant(2.0), link=link), node(mean_s=1.0), duration_s=12.0))
    assert done.requests.created_s.tolist() == [2.0, 5.75, 9.5]
    assert done.arrived_s.tolist() == [2.25, 6.0, 9.75]
    assert done.received_s.tolist() == [3.75, 7.5, 11.25]
    assert done.requests.number.tolist() == [0, 1, 2]


def test_many_rounds_are_numbered_on():
    done = run_of(world(looping(Constant(0.5)), node(mean_s=0.5), duration_s=100.0))
    assert done.requests.number.tolist() == list(range(100))
    assert done.requests.created_s.tolist() == pytest.approx([0.5 + n for n in range(100)])


def test_devices_wait_for_each_other_at_the_node():
    done = run_of(world(looping(Constant(1.0), count=3), node(mean_s=1.0), duration_s=8.0))
    # Saturated: the node is never idle from 1 s on, and takes the devices in turn.
    assert np.sort(done.started_s).tolist() == [float(n) for n in range(1, len(done) + 1)]
    assert done.requests.device.tolist()[:6] == [0, 1, 2, 0, 1, 2]


def test_after_a_drop_a_device_gives_up_at_the_deadline_and_thinks():
    """A device that hears nothing waits until 5 s after the creation."""
    dropping = Deciding(lambda request, node: DROP if request.index == 0 else ALWAYS.decide(
        request, node))  # fmt: skip
    done = run_of(world(looping(Constant(2.0)), node(mean_s=1.0), duration_s=13.0), dropping)
    assert done.outcome.tolist() == [2, 0, 0]
    assert done.requests.created_s.tolist() == [2.0, 2.0 + 5.0 + 2.0, 12.0]


def test_a_drop_after_the_deadline_is_heard_of_at_once():
    late = Deciding(lambda request, node: run_to(1) if not request.exit else DROP)
    done = run_of(world(looping(Constant(2.0)), node(mean_s=8.0), duration_s=13.0), late)
    assert done.requests.created_s.tolist() == [2.0, 12.0]


@pytest.mark.parametrize(
    ("fault", "created_s"),
    [
        # Served from 2 s on: lost at 2.5 s. The next one from 9 s on.
        (Fault("node_crash", "edge", ((2.5, 4.0),)), [2.0, 9.0, 12.0]),
        # It finds no node.
        (Fault("node_crash", "edge", ((1.5, 4.0),)), [2.0, 9.0, 12.0]),
        # Nothing is lost at 5 s; the device thinks.
        (Fault("node_crash", "edge", ((3.5, 4.5),)), [2.0, 5.0, 8.0, 11.0]),
        # The answer of 3 s finds no device, which returns at 4 s and gives up at 7 s.
        (Fault("device_churn", "devices", ((2.5, 4.0),)), [2.0, 9.0, 12.0]),
        # The device would send at 5 s, but is away until 6 s.
        (Fault("device_churn", "devices", ((4.5, 6.0),)), [2.0, 6.0, 9.0, 12.0]),
    ],
)
def test_after_a_loss_it_gives_up_at_the_deadline(fault, created_s):
    a_world = world(looping(Constant(2.0)), node(mean_s=1.0), duration_s=14.0, faults=(fault,))
    assert run_of(a_world).requests.created_s.tolist() == created_s


def test_a_late_answer_is_waited_for():
    done = run_of(world(looping(Constant(2.0), deadline=1.0), node(mean_s=4.0), duration_s=13.0))
    assert done.outcome.tolist() == [1, 1]
    assert done.requests.created_s.tolist() == [2.0, 8.0]


def test_nothing_is_created_after_the_measured_window_and_the_last_are_followed():
    done = run_of(world(looping(Constant(2.0), count=4), node(mean_s=3.0), duration_s=10.0))
    assert (done.requests.created_s < 10.0).all()
    assert not np.isnan(done.received_s).any()
    assert done.received_s.max() > 10.0


def test_thinking_and_what_is_sent_are_random_and_each_device_s_own():
    devices = looping(Exponential(0.3), count=100, deadline=Uniform(1.0, 2.0))
    done = run_of(world(devices, node(mean_s=0.0), duration_s=20.0), says=predictions(50))
    mine = [np.flatnonzero(done.requests.device == device) for device in range(100)]
    thought = np.concatenate([np.diff(done.received_s[rows], prepend=0.0) for rows in mine])
    assert thought.mean() == pytest.approx(0.3, rel=0.05)
    assert thought.std() == pytest.approx(0.3, rel=0.05)
    few = run_of(
        world(replace(devices, count=2), node(mean_s=0.0), duration_s=20.0), says=predictions(50)
    )
    rows = np.concatenate(mine[:2])
    rows = rows[np.argsort(done.requests.created_s[rows])]
    for name in ("created_s", "deadline_s", "sample", "service_u", "number"):
        np.testing.assert_allclose(
            getattr(few.requests, name), getattr(done.requests, name)[rows], rtol=1e-12
        )


def test_closed_and_open_groups_share_a_node():
    closed = looping(Constant(1.0))
    opened = group("open", 1, AtTimes(((0.5, 1.2),)), deadline=5.0)
    done = run_of(world(opened, closed, node(mean_s=1.0), duration_s=4.0))
    # Open at 0.5 s until 1.5 s; closed, created at 1 s, until 2.5 s; open, from 1.2 s, until 3.5 s.
    assert done.requests.created_s.tolist() == [0.5, 1.0, 1.2, 3.5]
    assert done.started_s.tolist() == [0.5, 1.5, 2.5, 3.5]


# --- inflight windows ----------------------------------------------------------------------------


def windowed(times_s, inflight, qos=1, *, delay=(1.0, 1.0), count=1, bits=float("inf"), **more):
    link = Link(direction(delay[0], bits), direction(delay[1]))
    devices = group("devices", count, AtTimes((tuple(times_s),) * count), link=link, deadline=1e3)
    a_world = world(
        devices, node(mean_s=0.0), mqtt=Mqtt(qos=qos, inflight=inflight, **more), duration_s=50.0
    )
    return run_of(a_world)


def test_a_message_is_held_until_an_earlier_one_is_acknowledged():
    """1 s there and 1 s for the PUBACK: with a window of one, one message every 2 s."""
    assert windowed([0.0, 0.1, 0.2, 9.0], 1).arrived_s.tolist() == [1.0, 3.0, 5.0, 10.0]
    assert windowed([0.0, 0.1, 0.2, 9.0], 2).arrived_s.tolist() == [1.0, 1.1, 3.0, 10.0]
    assert windowed([0.0, 0.1, 0.2, 9.0], 3).arrived_s.tolist() == [1.0, 1.1, 1.2, 10.0]


def test_at_qos_2_four_trips_complete_a_message():
    # Handed on after three, complete after four.
    assert windowed([0.0, 0.1, 0.2], 1, qos=2).arrived_s.tolist() == [3.0, 7.0, 11.0]
    assert windowed([0.0, 0.1, 0.2], 2, qos=2).arrived_s.tolist() == pytest.approx([3.0, 3.1, 7.0])


def test_at_qos_0_nothing_is_acknowledged_and_nothing_held():
    assert windowed([0.0, 0.1, 0.2], 1, qos=0).arrived_s.tolist() == pytest.approx([1.0, 1.1, 1.2])


def test_every_device_has_a_window_of_its_own():
    done = windowed([0.0, 0.1], 1, count=2)
    assert done.requests.device.tolist() == [0, 1, 0, 1]
    assert done.arrived_s.tolist() == [1.0, 1.0, 3.0, 3.0]


def test_the_time_on_the_link_counts_for_the_window_too():
    # MQTT 3.1.1: 1 + 2 + 42 + 2 + 1000 bytes, the PUBACK of the reply, and TCP's: at 8 bit/s.
    seconds = 1047 + 40 + tcp_bytes(acknowledgement_bytes("3.1.1"))
    done = windowed([0.0, 0.1], 1, bits=8.0, version="3.1.1")
    first = seconds + 1.0
    assert done.arrived_s.tolist() == pytest.approx([first, first + 1.0 + seconds + 1.0])


@given(
    st.lists(st.floats(0, 20), min_size=1, max_size=25).map(sorted),
    st.integers(1, 4),
    st.sampled_from([(1.0, 0.5), (0.0, 2.0), (3.0, 0.0)]),
)
@examples(20)
def test_windows_against_a_loop(times, inflight, delay):
    times = [time + 1e-6 * number for number, time in enumerate(times)]
    there, back = delay
    sent: list[float] = []
    for number, time in enumerate(times):
        # Acknowledged in order: the one that makes room is `inflight` before.
        room = sent[number - inflight] + there + back if number >= inflight else 0.0
        sent.append(max(time, room))
    done = windowed(times, inflight, delay=delay)
    np.testing.assert_allclose(done.arrived_s, np.array(sent) + there, atol=1e-9)


def test_a_window_that_is_never_full_changes_nothing():
    a_world = world(CAMERAS, METERS, node(SERVICE), duration_s=5.0, mqtt=mqtt(1, inflight=10_000))
    ahead = world(CAMERAS, METERS, node(SERVICE), duration_s=5.0, mqtt=mqtt(1))
    policy = Confidence(0.7)
    assert not a_world.is_open
    assert ahead.is_open
    assert_same(run_of(ahead, policy, SAYS), run_of(a_world, policy, SAYS))


def test_a_window_never_sends_earlier_and_keeps_the_order_of_a_device():
    devices = group("devices", 3, Poisson(15.0), link=Link(direction(0.1), direction(0.1)))
    free, held = (
        run_of(world(devices, node(mean_s=0.0), mqtt=Mqtt(inflight=limit), duration_s=10.0))
        for limit in (None, 2)
    )
    assert (held.arrived_s >= free.arrived_s - 1e-9).all()
    assert (held.arrived_s - free.arrived_s).max() > 1.0
    for device in range(3):
        mine = held.arrived_s[held.requests.device == device]
        assert (np.diff(mine) >= 0).all()
        # Never more than two within the 0.2 s that an acknowledgement takes.
        assert (mine[2:] - mine[:-2]).min() >= 0.2 - 1e-9


# --- devices that compute ------------------------------------------------------------------------


def test_devices_that_compute_in_a_closed_loop():
    """1 s of thought, then 2 s on the device, which answers."""
    service = DistributedService(Constant(2.0), exit_count=1)
    devices = looping(Constant(1.0), service=service)
    done = run_of(world(devices, node(mean_s=0.0), duration_s=10.0))
    assert done.requests.created_s.tolist() == [1.0, 4.0, 7.0]
    assert done.received_s.tolist() == [3.0, 6.0, 9.0]


def test_a_device_computes_the_next_while_a_message_is_held():
    """Half a second on the device, then on to the edge with a window of one message."""
    service = DistributedService(Constant(0.5), exit_count=1)
    link = Link(direction(1.0), direction(1.0))
    devices = group("devices", 1, AtTimes(((0.0, 0.1, 0.2),)), deadline=99.0, link=link,
                    service=service)  # fmt: skip
    a_world = world(devices, node(mean_s=0.0), mqtt=Mqtt(inflight=1), duration_s=20.0)
    policy = Deciding(
        lambda request, node: ANSWER if request.exit == 1 and not node.next_tier
        else OFFLOAD if request.exit else run_to(1)
    )  # fmt: skip
    # At the edge, exit 1 is done already.
    done = run_of(a_world, policy)
    assert done.started_s.tolist() == [0.0, 0.5, 1.0]
    at_edge = done.visits.of_node(0)
    assert np.sort(at_edge.arrived_s).tolist() == [1.5, 3.5, 5.5]
