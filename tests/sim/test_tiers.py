"""Tiers: a request is begun on a device or an edge node and goes on where there is more power."""

from dataclasses import replace

import numpy as np
import pytest
from tiny_worlds import (
    AtTimes,
    Deciding,
    direction,
    group,
    named,
    node,
    predictions,
    profile,
    records_of,
    run_of,
    world,
)

from models.errors import PolicyError
from sim.distributions import Constant, Exponential
from sim.faults import Fault
from sim.network.links import Link
from sim.network.mqtt import Mqtt
from sim.network.topology import draw_absences
from sim.nodes.overheads import Overheads
from sim.nodes.service import DistributedService, ProfiledService
from sim.policy import ANSWER, DROP, OFFLOAD, run_to
from sim.streams import Streams
from sim.workload.arrivals import Poisson

#: To exits 1, 2, 3 alone: 1, 3 and 7 s; segments of 1, 2 and 4 s, classifiers cost nothing.
SERVICE = ProfiledService(profile([[1.0, 3.0, 7.0]], [[1.0, 2.0, 4.0]]))
FAST = ProfiledService(profile([[1.0, 3.0, 7.0]], [[1.0, 2.0, 4.0]]), speed=10.0)
SLOW = ProfiledService(profile([[1.0, 3.0, 7.0]], [[1.0, 2.0, 4.0]]), speed=0.5)
SAYS = predictions(exits=3)

#: A byte takes 10 ms on the device's link, and a millisecond on the way to the cloud.
ACCESS = Link(direction(0.25, 800.0), direction(0.5, 800.0))
WAN = Link(direction(10.0, 8000.0), direction(20.0, 8000.0))
#: What travels on after exits 1 and 2; after exit 3, the image.
STATE = (400, 200)


def edge(**more):
    return node(SERVICE, "edge", next_tier="cloud", tier_link=named(WAN), **more)


def cloud(service=FAST, **more):
    return node(service, "cloud", **more)


def tiers(times_s, *nodes, link=None, group_more=None, **more):
    devices = group(
        "cameras", arrivals=AtTimes((tuple(times_s),)), deadline=1000.0, link=link,
        request_bytes=1000, response_bytes=100, **(group_more or {}),
    )  # fmt: skip
    return world(
        devices, *nodes, duration_s=1000.0, links={named(WAN): WAN}, state_bytes=STATE, **more
    )


def up_to(exits):
    """Go to the exit given for each kind of node, then on, or answer if there is nowhere to go."""

    def decide(request, node):
        exit = exits[node.name.partition("-")[0]]
        if request.exit < exit:
            return run_to(exit)
        return OFFLOAD if node.next_tier else ANSWER

    return Deciding(decide)


def step_by_step(exits):
    """As :func:`up_to`, one exit after the other."""

    def decide(request, node):
        if request.exit < exits[node.name]:
            return run_to(request.exit + 1)
        return OFFLOAD if node.next_tier else ANSWER

    return Deciding(decide)


# --- edge and cloud ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("edge_exit", "edge_s", "sent_bytes", "cloud_s"),
    [
        (0, 0.0, 1000, 0.7),  # the image; all of it in the cloud, ten times as fast
        (1, 1.0, 400, 0.6),
        (2, 3.0, 200, 0.4),
    ],
)
def test_a_request_goes_on_in_the_cloud_with_its_state(edge_exit, edge_s, sent_bytes, cloud_s):
    a_world = tiers([5.0], edge(), cloud())
    done = run_of(a_world, up_to({"edge": edge_exit, "cloud": 3}), SAYS)
    reached = 5.0 + edge_s + sent_bytes / 1000 + 10.0
    computed = reached + cloud_s
    # The answer of 100 bytes comes back over the edge, and home at once.
    assert done.finished_s.tolist() == pytest.approx([computed])
    assert done.received_s.tolist() == pytest.approx([computed + 0.1 + 20.0])
    assert done.exit.tolist() == [3]
    assert done.outcome.tolist() == [0]
    visits = done.visits
    assert visits.node.tolist() == [0, 1]
    assert visits.arrived_s.tolist() == pytest.approx([5.0, reached])
    assert visits.started_s.tolist() == pytest.approx([5.0, reached])
    assert visits.left_s.tolist() == pytest.approx([5.0 + edge_s, computed])


@pytest.mark.parametrize("edge_exit", [0, 1, 2])
def test_where_a_service_time_is_written_down_every_tier_takes_its_own(edge_exit):
    """Whatever was computed before, and once only however many exits follow."""
    near = node(DistributedService(Constant(4.0), 3), "edge", next_tier="cloud",
                tier_link=named(WAN))  # fmt: skip
    far = node(DistributedService(Constant(7.0), 3), "cloud")
    done = run_of(tiers([5.0], near, far), step_by_step({"edge": edge_exit, "cloud": 3}), SAYS)
    sent_bytes = (1000, *STATE)[edge_exit]
    reached = 5.0 + (4.0 if edge_exit else 0.0) + sent_bytes / 1000 + 10.0
    assert done.finished_s.tolist() == pytest.approx([reached + 7.0])


def test_a_policy_sees_what_the_next_tier_will_take():
    seen = []

    def decide(request, node):
        if node.next_tier:
            if not request.exit:
                return run_to(1)
            seen.append(node.next_tier.latencies_s(0.5, request.exit))
            return OFFLOAD
        return run_to(3) if request.exit < 3 else ANSWER

    near = node(DistributedService(Constant(4.0), 3), "edge", next_tier="cloud",
                tier_link=named(WAN))  # fmt: skip
    run_of(tiers([5.0], near, node(DistributedService(Constant(7.0), 3), "cloud")),
           Deciding(decide), SAYS)  # fmt: skip
    assert seen == [(7.0, 7.0)]


def test_arrival_and_start_are_those_at_the_first_node_and_the_node_is_the_last():
    a_world = tiers([5.0, 5.5], edge(), cloud())
    done = run_of(a_world, up_to({"edge": 1, "cloud": 3}), SAYS)
    assert done.arrived_s.tolist() == [5.0, 5.5]
    assert done.started_s.tolist() == [5.0, 6.0]
    frame = records_of(a_world, done, SAYS)
    assert frame["node"].tolist() == ["cloud", "cloud"]


def test_a_worker_is_free_again_once_a_request_was_sent_on():
    a_world = tiers([0.0, 0.0, 0.0], edge(), cloud())
    done = run_of(a_world, up_to({"edge": 1, "cloud": 3}), SAYS)
    assert done.started_s.tolist() == [0.0, 1.0, 2.0]


def test_what_is_sent_on_queues_for_the_link_and_then_for_the_cloud():
    # Three images, a second each on the link; the cloud takes 7 s each.
    a_world = tiers([0.0, 0.0, 0.0], edge(), cloud(SERVICE))
    done = run_of(a_world, up_to({"edge": 0, "cloud": 3}), SAYS)
    in_cloud = done.visits.of_node(1)
    assert in_cloud.arrived_s.tolist() == [11.0, 12.0, 13.0]
    assert in_cloud.started_s.tolist() == [11.0, 18.0, 25.0]


def test_answers_queue_on_the_way_back():
    back = Link(direction(1.0), direction(2.0, 80.0))
    name = named(back)
    a_world = tiers([0.0, 0.0], node(SERVICE, "edge", next_tier="cloud", tier_link=name),
                    cloud(workers=2))  # fmt: skip
    a_world.links[name] = back
    done = run_of(a_world, up_to({"edge": 0, "cloud": 3}), SAYS)
    assert done.finished_s.tolist() == pytest.approx([1.7, 1.7])
    assert done.received_s.tolist() == pytest.approx([1.7 + 10 + 2, 1.7 + 20 + 2])


def test_without_a_link_the_next_tier_is_at_hand():
    here = node(SERVICE, "edge", next_tier="cloud")
    done = run_of(tiers([5.0], here, cloud()), up_to({"edge": 1, "cloud": 3}), SAYS)
    assert done.received_s.tolist() == pytest.approx([6.6])


def test_delays_between_tiers_are_drawn_for_each_request():
    wan = Link(direction(Exponential(0.5)), direction(Exponential(0.25)))
    devices = group("cameras", 1200, AtTimes(tuple((0.0,) for _ in range(1200))))
    first = node(mean_s=0.0, name="edge", next_tier="cloud", tier_link=named(wan))
    last = node(mean_s=0.0, name="cloud")
    # A thousand nodes: on one connection, messages would wait for each other.
    a_world = world(devices, replace(first, replicas=600), last, links={named(wan): wan})
    done = run_of(a_world, up_to({"edge": 0, "cloud": 1}))
    there = done.finished_s[:600]
    assert there.mean() == pytest.approx(0.5, rel=0.15)
    back = done.received_s[:600] - there
    assert back.mean() == pytest.approx(0.25, rel=0.15)
    assert abs(np.corrcoef(there, back)[0, 1]) < 0.15


def test_what_the_edge_answers_stays_there():
    """Sure at exit 1: answered there; else sent on."""
    says = predictions(confidence=[[0.9, 0.9, 0.9], [0.2, 0.9, 0.9]])

    def decide(request, node):
        if node.name == "cloud":
            return ANSWER if request.exit == 3 else run_to(3)
        if not request.exit:
            return run_to(1)
        return ANSWER if request.confidence > 0.5 else OFFLOAD

    a_world = tiers([100.0 * number for number in range(9)], edge(), cloud())
    done = run_of(a_world, Deciding(decide), says)
    sure = done.requests.sample == 0
    assert 0 < sure.sum() < 9
    took = done.received_s - done.requests.created_s
    assert took[sure].tolist() == pytest.approx([1.0] * sure.sum())
    assert took[~sure].tolist() == pytest.approx([1.0 + 10.4 + 0.6 + 20.1] * (~sure).sum())
    assert done.exit.tolist() == [1 if one else 3 for one in sure]


def test_without_a_next_tier_nothing_can_be_sent_on():
    with pytest.raises(PolicyError, match=r"decided OFFLOAD .* at node 'cloud'"):
        run_of(
            tiers([0.0], edge(), cloud()),
            Deciding(lambda request, node: OFFLOAD), SAYS,
        )  # fmt: skip


def test_the_cloud_may_refuse_and_lose_nothing_else():
    refusing = cloud(SERVICE, queue_limit=0)
    done = run_of(tiers([0.0, 0.0], edge(), refusing), up_to({"edge": 0, "cloud": 3}), SAYS)
    assert done.outcome.tolist() == [0, 2]
    assert done.started_s.tolist() == [0.0, 0.0], "it was begun at the edge"
    assert done.released_s.tolist() == pytest.approx([18.0, 12.0])
    refused = done.visits.where(done.visits.request == 1)
    assert refused.node.tolist() == [0, 1]
    assert np.isnan(refused.started_s).tolist() == [False, True]


def test_devices_and_edge_may_use_the_same_cloud():
    """One group asks the edge, which asks the cloud; another asks the cloud itself."""
    near = group("near", 1, AtTimes(((0.0,),)), node="edge")
    far = group("far", 1, AtTimes(((10.0,),)), node="cloud", link=Link(direction(0.5)))
    nodes = edge(), cloud(SERVICE)
    a_world = world(near, far, *nodes, links={named(WAN): WAN}, duration_s=20.0)
    done = run_of(a_world, up_to({"edge": 0, "cloud": 3}), SAYS)
    # Both reach the cloud: at 11 s from the edge, at 10.5 s from the device.
    in_cloud = done.visits.of_node(1)
    order = np.argsort(in_cloud.arrived_s)
    assert in_cloud.request[order].tolist() == [1, 0]
    assert in_cloud.started_s[order].tolist() == [10.5, 17.5]
    assert done.received_s.tolist() == pytest.approx([17.5 + 7 + 0.1 + 20, 17.5])


def test_a_batching_cloud_takes_what_comes_together():
    tables = profile([[1.0, 3.0, 7.0]], [[1.0, 2.0, 4.0]])
    tables.seconds[2] = {name: 1.5 * table for name, table in tables.seconds[1].items()}
    batching = node(ProfiledService(tables, largest_batch=2), "cloud", batch_size=2,
                    batch_wait_s=5.0)  # fmt: skip
    done = run_of(
        tiers([0.0, 0.0], edge(workers=2), batching), up_to({"edge": 1, "cloud": 3}), SAYS
    )
    # 400 bytes each on the link: there at 11.4 and 11.8 s; from exit 1 to 3 9 s for both.
    in_cloud = done.visits.of_node(1)
    assert in_cloud.started_s.tolist() == pytest.approx([11.8, 11.8])
    assert in_cloud.batch.tolist() == [2, 2]
    assert done.visits.of_node(0).batch.tolist() == [1, 1]
    assert done.finished_s.tolist() == pytest.approx([20.8, 20.8])


def test_a_batch_of_the_edge_is_none_in_the_cloud():
    tables = profile([[1.0, 3.0, 7.0]], [[1.0, 2.0, 4.0]])
    tables.seconds[2] = {name: 1.5 * table for name, table in tables.seconds[1].items()}
    first = node(ProfiledService(tables, largest_batch=2), "edge", batch_size=2,
                 next_tier="cloud", tier_link=named(WAN))  # fmt: skip
    done = run_of(tiers([0.0, 0.0], first, cloud()), up_to({"edge": 1, "cloud": 3}), SAYS)
    assert done.visits.of_node(0).batch.tolist() == [2, 2]
    assert done.visits.of_node(1).batch.tolist() == [1, 1]


def test_a_cloud_that_is_down_loses_what_comes():
    crash = Fault("node_crash", "cloud", ((10.0, 30.0),))
    a_world = tiers([0.0, 5.0, 25.0], edge(), cloud(), faults=(crash,))
    done = run_of(a_world, up_to({"edge": 0, "cloud": 3}), SAYS)
    # They would reach the cloud at 11, 16 and 36 s.
    assert done.outcome.tolist() == [3, 3, 0]
    assert records_of(a_world, done, SAYS)["node"].tolist() == ["cloud"] * 3


def test_a_pool_in_the_cloud_takes_turns():
    done = run_of(
        tiers([0.0, 1.0, 2.0, 3.0], edge(), cloud(replicas=2)),
        up_to({"edge": 0, "cloud": 3}), SAYS,
    )  # fmt: skip
    assert done.node.tolist() == [1, 2, 1, 2]


def test_a_pool_in_the_cloud_is_lost_only_where_all_of_it_is_down():
    crash = Fault("node_crash", "cloud", mtbf_s=60.0, mttr_s=40.0)
    times = [2.0 * number for number in range(450)]
    a_world = tiers(times, edge(), cloud(replicas=2), faults=(crash,))
    done = run_of(a_world, up_to({"edge": 0, "cloud": 3}), SAYS)
    down = draw_absences(a_world, Streams(a_world.seed, 0)).nodes
    at = done.requests.created_s + 11.0
    each = np.array([np.isfinite(down.until(np.full(len(at), it), at)) for it in (1, 2)])
    none_is_up = each.all(axis=0)
    assert 0.05 < none_is_up.mean() < 0.5
    assert (done.outcome[none_is_up] == 3).all()
    # The others may be lost by a crash that comes while they are computed.
    assert (done.outcome[~none_is_up] == 3).mean() < 0.05


def test_three_tiers_of_nodes_and_all_the_way_back():
    """Edge to fog 10 s there and 20 s back, fog to cloud 1 s there and 2 s back."""
    short = Link(direction(1.0), direction(2.0))
    fog = node(SERVICE, "fog", next_tier="cloud", tier_link=named(short))
    first = node(SERVICE, "edge", next_tier="fog", tier_link=named(WAN))
    a_world = tiers([0.0], first, fog, cloud())
    a_world.links[named(short)] = short
    seen = []

    def decide(request, node):
        seen.append((node.name, request.exit, request.way_home_s(0.5)))
        return up_to({"edge": 1, "fog": 2, "cloud": 3}).decide(request, node)

    done = run_of(a_world, Deciding(decide), SAYS)
    # Exit 1 at 1 s; 400 bytes and 10 s; 2 s to exit 2; 1 s; 0.4 s to exit 3.
    assert done.finished_s.tolist() == pytest.approx([1 + 10.4 + 2 + 1 + 0.4])
    assert done.received_s.tolist() == pytest.approx([14.8 + 2 + 20.1])
    assert [home for name, exit, home in seen if exit == 3] == [pytest.approx(22.1)]


def fogs(edge_replicas, fog_replicas):
    """Edges that hand on at once, and fogs with a slow link to the cloud."""
    far = Link(direction(0.0, 8000.0), direction(0.0))
    first = node(SERVICE, "edge", next_tier="fog", replicas=edge_replicas)
    fog = node(SERVICE, "fog", next_tier="cloud", tier_link=named(far), replicas=fog_replicas)
    a_world = tiers([0.0, 0.0], first, fog, cloud(replicas=2))
    a_world.links[named(far)] = far
    done = run_of(a_world, up_to({"edge": 0, "fog": 0, "cloud": 3}), SAYS)
    clouds = [edge_replicas + fog_replicas, edge_replicas + fog_replicas + 1]
    return sorted(at for it in clouds for at in done.visits.of_node(it).arrived_s.tolist())


def test_a_link_between_tiers_is_of_the_node_that_sends_on():
    """An image takes a second there."""
    assert fogs(edge_replicas=2, fog_replicas=1) == pytest.approx([1.0, 2.0])
    assert fogs(edge_replicas=1, fog_replicas=2) == pytest.approx([1.0, 1.0])
    assert fogs(edge_replicas=1, fog_replicas=1) == pytest.approx([1.0, 2.0])


def test_the_way_home_is_that_of_the_group():
    near = group("near", 1, AtTimes(((0.0,),)), node="edge", deadline=100.0)
    far = group("far", 1, AtTimes(((50.0,),)), node="cloud", deadline=100.0)
    other = group("other", 1, AtTimes(((70.0,),)), node="hub", deadline=100.0)
    close = Link(direction(1.0), direction(2.0))
    hub = node(SERVICE, "hub", next_tier="cloud", tier_link=named(close))
    links = {named(WAN): WAN, named(close): close}
    a_world = world(near, far, other, edge(), hub, cloud(), duration_s=90.0, links=links)
    seen = {}

    def decide(request, node):
        if node.name == "cloud":
            seen[a_world.groups[request.group].name] = request.way_home_s(0.5)
        return up_to({"edge": 0, "hub": 0, "cloud": 3}).decide(request, node)

    run_of(a_world, Deciding(decide), SAYS)
    assert seen == {"near": pytest.approx(20.1), "far": 0.0, "other": pytest.approx(2.0)}


def test_every_node_of_a_tier_knows_that_others_begin_its_requests():
    service = DistributedService(Constant(5.0), 3)
    a_world = tiers([0.0, 0.0, 0.0], edge(workers=3), cloud(service, replicas=3))
    seen = {}

    def decide(request, node):
        if node.name.startswith("cloud") and node.name not in seen:
            seen[node.name] = node.latencies_s(0.5, request.exit)
        return up_to({"edge": 1, "cloud": 3}).decide(request, node)

    run_of(a_world, Deciding(decide), SAYS)
    assert seen == dict.fromkeys(["cloud-0", "cloud-1", "cloud-2"], (5.0, 5.0))


# --- devices that compute ------------------------------------------------------------------------


def computing(exit=1, **more):
    """Devices that hold the network up to an exit, half as fast as the edge."""
    return {"service": SLOW, "last_exit": exit, **more}


def test_a_device_answers_itself_at_once():
    a_world = tiers([5.0, 6.0], node(SERVICE), link=ACCESS, group_more=computing(3))
    stay = Deciding(lambda request, node: ANSWER if request.exit else run_to(1))
    done = run_of(a_world, stay, SAYS)
    # It computes one after the other; nothing is sent.
    assert done.started_s.tolist() == [5.0, 7.0]
    assert done.received_s.tolist() == done.finished_s.tolist() == [7.0, 9.0]
    assert records_of(a_world, done, SAYS)["node"].tolist() == ["cameras-0"] * 2


def test_a_device_sends_its_state_on_to_the_edge():
    a_world = tiers([5.0], node(SERVICE), link=ACCESS, group_more=computing(1))
    done = run_of(a_world, up_to({"cameras": 1, "edge": 3}), SAYS)
    # 2 s on the device; 400 bytes on its link; 6 s more on the edge; 100 bytes back.
    reached = 5.0 + 2.0 + 4.0 + 0.25
    assert done.visits.arrived_s.tolist() == pytest.approx([5.0, reached])
    assert done.visits.node.tolist() == [1, 0], "devices are counted after nodes"
    assert done.finished_s.tolist() == pytest.approx([reached + 6.0])
    assert done.received_s.tolist() == pytest.approx([reached + 6.0 + 1.0 + 0.5])
    assert (done.arrived_s.tolist(), done.started_s.tolist()) == ([5.0], [5.0])
    assert records_of(a_world, done, SAYS)["node"].tolist() == ["edge"]


#: A node takes half a second to read a message, and reads it later while it computes.
READING = Overheads(receive=Constant(0.5), ingress_busy=Constant(1.0))


def test_a_request_arrives_at_its_own_device_at_once_whatever_the_edge_takes_to_read():
    edge = node(SERVICE, overheads=READING)
    a_world = tiers([5.0, 20.0], edge, link=ACCESS, group_more=computing(1))
    stay = Deciding(lambda request, node: ANSWER if request.exit else run_to(1))
    for policy, at_edge in ((stay, []), (up_to({"cameras": 1, "edge": 3}), [11.75, 26.75])):
        done = run_of(a_world, policy, SAYS)
        assert done.arrived_s.tolist() == done.started_s.tolist() == [5.0, 20.0]
        # 2 s on the device, 400 bytes on its link, and half a second to read them.
        assert done.visits.arrived_s[done.visits.node == 0].tolist() == pytest.approx(at_edge)


@pytest.mark.parametrize("inflight", [None, 1000])
def test_when_a_message_arrived_is_told_by_the_node_that_it_reached_first(inflight):
    # One more than may be on the way: messages are followed as events.
    mqtt = Mqtt(qos=1, inflight=inflight)
    first = edge(overheads=READING)
    a_world = tiers([5.0, 60.0], first, cloud(), link=Link(direction(0.25)), mqtt=mqtt)
    done = run_of(a_world, up_to({"edge": 2, "cloud": 3}), SAYS)
    assert done.arrived_s.tolist() == pytest.approx([5.25, 60.25])
    assert done.started_s.tolist() == pytest.approx([5.75, 60.75])


@pytest.mark.parametrize("mqtt", [None, Mqtt(qos=0)])
def test_from_device_over_edge_to_cloud_and_back(mqtt):
    a_world = tiers([5.0], edge(), cloud(), link=Link(direction(0.25), direction(0.5)),
                    group_more=computing(1), mqtt=mqtt)  # fmt: skip
    done = run_of(a_world, up_to({"cameras": 1, "edge": 2, "cloud": 3}), SAYS)
    at_edge = 5.0 + 2.0 + 0.25
    in_cloud = at_edge + 2.0 + 0.2 + 10.0
    assert done.visits.node.tolist() == [2, 0, 1]
    assert done.visits.arrived_s.tolist() == pytest.approx([5.0, at_edge, in_cloud])
    assert done.finished_s.tolist() == pytest.approx([in_cloud + 0.4])
    assert done.received_s.tolist() == pytest.approx([in_cloud + 0.4 + 20.1 + 0.5])


def test_over_mqtt_the_size_of_the_state_counts_too():
    bits = Link(direction(0.0, 8.0))
    took = []
    for exit in (0, 1, 2):
        a_world = tiers([0.0], node(SERVICE), link=bits, group_more=computing(2),
                        mqtt=Mqtt(version="3.1.1", qos=0))  # fmt: skip
        done = run_of(a_world, up_to({"cameras": exit, "edge": 3}), SAYS)
        on_device = {0: 0.0, 1: 2.0, 2: 6.0}[exit]
        took.append(done.visits.arrived_s[1] - on_device)
    # At 8 bit/s a second for each byte: the payload, 1 + 2 + 42 of MQTT, 40 of TCP and IP.
    assert took == pytest.approx([1000 + 85, 400 + 85, 200 + 85])


def test_what_a_device_that_computes_sees():
    seen = {}

    def decide(request, node):
        if node.name == "cameras-0":
            seen["way_home"] = request.way_home_s(0.9)
            seen["exits"] = (node.exit_count, node.workers)
            seen["next"] = (node.next_tier.name, node.next_tier.exit_count)
            seen[request.exit] = node.next_tier.round_trip_s(request, 0.5)
            seen["there"] = node.next_tier.latencies_s(0.5, request.exit)
        return up_to({"cameras": 1, "edge": 3}).decide(request, node)

    a_world = tiers([0.0], node(SERVICE), link=ACCESS, group_more=computing(1))
    run_of(a_world, Deciding(decide), SAYS)
    assert seen == {
        "way_home": 0.0,
        "exits": (1, 1),
        "next": ("edge", 3),
        # The image or 400 bytes, and 0.25 s; 100 bytes and 0.5 s back.
        0: pytest.approx(10.0 + 0.25 + 1.0 + 0.5),
        1: pytest.approx(4.0 + 0.25 + 1.0 + 0.5),
        "there": pytest.approx((2.0, 6.0)),
    }


def test_what_an_edge_node_and_a_cloud_see():
    seen = {}

    def decide(request, node):
        seen[node.name, request.exit] = (
            request.way_home_s(0.5),
            node.next_tier and node.next_tier.round_trip_s(request, 0.5),
            request.confidences,
        )
        return up_to({"edge": 1, "cloud": 3}).decide(request, node)

    says = predictions(confidence=[[0.25, 0.5, 0.75]])
    run_of(tiers([0.0], edge(), cloud(), link=ACCESS), Deciding(decide), says)
    home = 1.0 + 0.5
    assert seen == {
        ("edge", 0): (pytest.approx(home), pytest.approx(1.0 + 10 + 0.1 + 20), ()),
        ("edge", 1): (pytest.approx(home), pytest.approx(0.4 + 10 + 0.1 + 20), (0.25,)),
        ("cloud", 1): (pytest.approx(home + 20.1), None, ()),
        ("cloud", 3): (pytest.approx(home + 20.1), None, (0.75,)),
    }


def test_a_device_holds_the_network_up_to_its_last_exit_only():
    a_world = tiers([0.0], node(SERVICE), group_more=computing(2))
    with pytest.raises(PolicyError, match=r"run_to\(3\).*'cameras-0'.*run_to\(1\) to run_to\(2\)"):
        run_of(a_world, Deciding(lambda request, node: run_to(3)), SAYS)


def test_a_device_may_drop():
    a_world = tiers([0.0, 1.0], node(SERVICE), group_more=computing(1))
    done = run_of(a_world, Deciding(lambda request, node: DROP), SAYS)
    assert done.outcome.tolist() == [2, 2]
    assert done.node.tolist() == [1, 1]


def test_each_device_computes_by_itself():
    devices = group("cameras", 3, AtTimes(((0.0, 0.5), (0.0,), (0.25,))), **computing(3))
    stay = Deciding(lambda request, node: ANSWER if request.exit else run_to(1))
    done = run_of(world(devices, node(SERVICE), duration_s=9.0), stay, SAYS)
    assert done.requests.device.tolist() == [0, 1, 2, 0]
    assert done.started_s.tolist() == [0.0, 0.0, 0.25, 2.0]
    assert done.node.tolist() == [1, 2, 3, 1]


def test_some_groups_compute_and_others_do_not():
    clever = group("clever", 2, Poisson(0.2), **computing(1))
    plain = group("plain", 2, Poisson(0.2))
    a_world = world(plain, clever, node(SERVICE), duration_s=100.0)
    done = run_of(a_world, up_to({"clever": 1, "edge": 2}), SAYS)
    assert set(records_of(a_world, done, SAYS)["node"]) == {"edge"}
    visits = np.bincount(done.visits.request, minlength=len(done))
    assert visits.tolist() == [2 if group == 1 else 1 for group in done.requests.group]


@pytest.mark.parametrize("exits", [(0, 0, 3), (1, 2, 3), (0, 1, 3), (2, 2, 3)])
def test_wherever_the_network_is_cut_each_exit_says_what_it_would(exits):
    """Accuracy does not depend on who computes what: only times do."""
    rng = np.random.default_rng(1)
    says = predictions(predicted=rng.integers(0, 3, (20, 3)), label=rng.integers(0, 3, 20))
    a_world = tiers([float(10 * n) for n in range(50)], edge(), cloud(), group_more=computing(2))
    done = run_of(a_world, up_to(dict(zip(("cameras", "edge", "cloud"), exits, strict=True))), says)
    assert done.exit.tolist() == [3] * 50
    assert done.predicted.tolist() == says.predicted[done.requests.sample, 2].tolist()
    assert 0.1 < done.correct.mean() < 0.9
    right = says.predicted[done.requests.sample, 2] == says.label[done.requests.sample]
    assert done.correct.tolist() == right.tolist()
