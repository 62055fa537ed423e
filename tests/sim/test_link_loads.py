"""Loads of links, worked by hand, before a run and after it."""

import numpy as np
import pytest
from tiny_worlds import group, node, predictions, run_of, world

from sim.distributions import Constant
from sim.network.capacity import ConstantCapacity, TracedCapacity
from sim.network.links import Direction, Link
from sim.network.mqtt import Mqtt
from sim.nodes.service import DistributedService
from sim.policies import FixedExit
from sim.policy import ANSWER, OFFLOAD, run_to
from sim.results.finished_visits import FinishedVisits
from sim.results.link_loads import BACKHAUL, BROKER, carried_s, link_loads
from sim.results.traffic import TrafficMeter, offered_traffic
from sim.workload.arrivals import ClosedLoop, Periodic, Poisson


def wire(bits_per_s, down=float("inf"), shared_by=1):
    return Link(
        Direction(capacity=ConstantCapacity(bits_per_s)),
        Direction(capacity=ConstantCapacity(down)),
        shared_by,
    )


def offered(a_world):
    return {
        (load.link, load.direction): load.load
        for load in link_loads(a_world, offered_traffic(a_world))
    }


def measured(a_world, policy=None):
    meter, finished = TrafficMeter(a_world), FinishedVisits()
    run = run_of(a_world, policy)
    meter.add(run, finished.add(run))
    return meter.traffic(), run


def test_a_link_of_its_own_carries_what_its_device_sends():
    # 1000 bytes twice a second: 16 kbit/s over 64 kbit/s; 100 bytes back over 3.2 kbit/s.
    a_world = world(group(count=7, arrivals=Poisson(2.0), link=wire(64e3, 3.2e3)))
    loads = link_loads(a_world, offered_traffic(a_world))
    assert [(it.direction, it.shared_by, it.load) for it in loads] == [
        ("uplink", 1, pytest.approx(0.25)),
        ("downlink", 1, pytest.approx(0.5)),
    ]


def test_devices_on_one_access_point_add_up_and_the_busiest_counts():
    link = wire(64e3, shared_by=3)
    a_world = world(
        group("fast", 2, Poisson(4.0), link=link),
        group("slow", 3, Poisson(1.0), link=link),
    )
    # The first access point has two fast devices and a slow one: 9 requests of 8 kbit a second.
    assert offered(a_world) == {(a_world.groups[0].link, "uplink"): pytest.approx(9 * 8 / 64)}


def test_unlimited_links_and_closed_loops_have_no_offered_load():
    assert offered(world(group(count=3))) == {}
    closed = world(group(arrivals=ClosedLoop(Constant(0.1)), link=wire(64e3)))
    assert offered(closed) == {}


def test_a_bandwidth_that_varies_counts_with_its_mean():
    trace = TracedCapacity(np.array([0.0, 1.0, 2.0]), np.array([24e3, 8e3]))
    link = Link(Direction(capacity=trace), Direction())
    a_world = world(group(arrivals=Poisson(1.0), link=link), duration_s=10.0)
    assert offered(a_world)[a_world.groups[0].link, "uplink"] == pytest.approx(0.5)


def test_the_broker_and_the_backhaul_carry_every_message():
    mqtt = Mqtt(qos=0, processing=Constant(0.01), backhaul=wire(1e6, 1e6))
    a_world = world(
        group(count=5, arrivals=Poisson(2.0)), node(replicas=2), mqtt=mqtt, duration_s=10.0
    )
    loads = offered(a_world)
    assert loads[BROKER, "uplink"] == loads[BROKER, "downlink"] == pytest.approx(0.1)
    (request,) = mqtt.request_packets(1000)
    assert loads[BACKHAUL, "uplink"] == pytest.approx(5 * 8 * request / 1e6)
    (reply,) = mqtt.reply_packets(100)
    assert loads[BACKHAUL, "downlink"] == pytest.approx(5 * 8 * reply / 1e6)


def test_acknowledgements_take_capacity_too():
    plain, certain = (
        offered(world(group(arrivals=Poisson(1.0), link=wire(1e5, 1e5)), mqtt=Mqtt(qos=qos)))
        for qos in (0, 1)
    )
    for key, load in plain.items():
        assert certain[key] > load


def test_after_a_run_what_was_sent_and_answered_counts():
    a_world = world(
        group(count=3, arrivals=Periodic(2.0), link=wire(64e3, 3.2e3)),
        warm_up_s=2.0,
        duration_s=10.0,
    )
    traffic, run = measured(a_world)
    rows = run.measured(a_world)
    assert traffic.images.sum() == pytest.approx(rows.sum() / 10.0)
    assert traffic.answers.sum() == pytest.approx((rows & run.answered).sum() / 10.0)
    assert traffic.states.sum() == 0
    loads = {it.direction: it.load for it in link_loads(a_world, traffic)}
    assert loads == pytest.approx({"uplink": 0.25, "downlink": 0.5}, rel=0.06)


def test_devices_that_compute_send_what_they_computed():
    class Now:
        """Sends every second request on at once, and of the others every second after exit 1."""

        def __init__(self):
            self.seen = 0

        def decide(self, request, node):
            if node.name == "edge":
                return ANSWER if request.exit == 2 else run_to(2)
            if request.exit:
                return OFFLOAD if self.seen % 4 == 1 else ANSWER
            self.seen += 1
            return OFFLOAD if self.seen % 2 == 0 else run_to(1)

    service = DistributedService(Constant(0.01), 2)
    a_world = world(
        group(arrivals=Periodic(4.0), service=service, last_exit=1, link=wire(80e3)),
        node(service),
        duration_s=20.0,
        state_bytes=(500, 0),
    )
    workload = predictions(exits=2)
    meter, finished = TrafficMeter(a_world), FinishedVisits()
    run = run_of(a_world, Now(), workload)
    meter.add(run, finished.add(run))
    traffic = meter.traffic()
    assert (traffic.images[0], traffic.states[0], traffic.answers[0]) == pytest.approx((2, 1, 3))
    assert meter.computed_s[0] == pytest.approx(0.01 * 2 * 20)
    (uplink,) = link_loads(a_world, traffic)
    assert uplink.load == pytest.approx((2 * 8000 + 1 * 4000) / 80e3)


def test_a_link_that_cannot_carry_its_load_is_overloaded_after_the_run_too():
    a_world = world(group(arrivals=Poisson(5.0), link=wire(20e3)), duration_s=100.0)
    traffic, _ = measured(a_world, FixedExit(1))
    (uplink,) = link_loads(a_world, traffic)
    assert uplink.load == pytest.approx(2.0, rel=0.15)


def test_what_a_link_never_carries_occupies_it_all_the_time() -> None:
    """A trace that begins with an outage longer than the run."""
    trace = TracedCapacity(np.array([0.0, 100.0, 101.0]), np.array([0.0, 8000.0]))
    assert carried_s(trace, 1000.0, 50.0) == 50.0
    assert carried_s(trace, 1000.0, 101.0) == pytest.approx(101.0)
    assert carried_s(trace, 0.0, 50.0) == 0.0
