"""Energy of a run, worked by hand: airtime from bytes, computing from visits."""

import numpy as np
import pytest
from tiny_worlds import group, node, run_of, world, written_world

from sim.distributions import Constant
from sim.energy import PowerStates
from sim.network.capacity import ConstantCapacity
from sim.network.links import Direction, Link
from sim.network.mqtt import Mqtt
from sim.nodes.service import DistributedService
from sim.policies import FixedExit
from sim.results.energy_meter import device_joules, has_energy, node_joules
from sim.results.gathering import Gathering
from sim.workload.arrivals import Periodic

DEVICE = PowerStates(idle_w=1.0, compute_w=3.0, transmit_w=2.0, receive_w=1.5, source="a test")
NODE = PowerStates(idle_w=5.0, compute_w=9.0, transmit_w=5.0, receive_w=5.0, source="a test")

#: 1000 bytes take 0.1 s up, and 100 bytes 0.05 s down.
LINK = Link(Direction(capacity=ConstantCapacity(80e3)), Direction(capacity=ConstantCapacity(16e3)))


def gathered(a_world, policy=None):
    gathering = Gathering(a_world, exact=True)
    gathering.add(run_of(a_world, policy))
    return gathering


def test_a_device_sends_its_requests_and_receives_its_answers():
    a_world = written_world(
        [1.0, 2.0, 3.0], [0.1, 0.1, 0.1], duration_s=10.0, energy=DEVICE, link=LINK
    )
    devices, nodes = gathered(a_world).energy()
    (joules,) = devices.values()
    assert joules.idle == pytest.approx([10.0])
    assert joules.transmit == pytest.approx([3 * 0.1 * (2.0 - 1.0)])
    assert joules.receive == pytest.approx([3 * 0.05 * (1.5 - 1.0)])
    assert joules.compute == pytest.approx([0.0])
    assert nodes == {}


def test_a_node_computes_while_its_workers_are_busy_and_idles_with_all_its_replicas():
    a_world = world(
        group(arrivals=Periodic(2.0)),
        node(Constant(0.1), replicas=2, energy=NODE),
        duration_s=10.0,
    )
    joules = gathered(a_world).energy()[1]["edge"]
    assert joules.idle.sum() == pytest.approx(2 * 5.0 * 10.0)
    assert joules.compute.sum() == pytest.approx(20 * 0.1 * (9.0 - 5.0))
    assert joules.transmit.sum() == 0.0


def test_a_device_that_computes_takes_the_power_of_computing():
    service = DistributedService(Constant(0.2), 1)
    a_world = world(
        group(arrivals=Periodic(1.0), service=service, energy=DEVICE, link=LINK),
        node(service),
        duration_s=10.0,
    )
    (joules,) = gathered(a_world, FixedExit(1)).energy()[0].values()
    assert joules.compute == pytest.approx([10 * 0.2 * (3.0 - 1.0)])
    assert joules.transmit == pytest.approx([0.0]), "it answers itself"


def test_acknowledgements_and_headers_are_sent_and_received():
    a_world = written_world([1.0], [0.1], duration_s=10.0, energy=DEVICE, link=LINK)
    mqtt = Mqtt(qos=1)
    over_mqtt = world(*a_world.groups, *a_world.nodes, duration_s=10.0, mqtt=mqtt)
    (joules,) = gathered(over_mqtt).energy()[0].values()
    publish, acknowledgement = mqtt.request_packets(1000)
    reply, of_reply = mqtt.reply_packets(100)
    assert joules.transmit == pytest.approx([8 * (publish + of_reply) / 80e3])
    assert joules.receive == pytest.approx([8 * (reply + acknowledgement) / 16e3 * 0.5])


def test_metrics_name_what_a_request_and_a_correct_answer_cost():
    a_world = written_world([1.0, 2.0], [0.1, 5.0], duration_s=10.0, energy=DEVICE, deadline=1.0)
    metrics = gathered(a_world).metrics()
    assert metrics["device_j"] == pytest.approx(10.0)
    assert metrics["device_j_per_request"] == pytest.approx(5.0)
    assert metrics["j_per_correct_on_time"] == pytest.approx(10.0), "the late one cost as much"
    assert "node_j" not in metrics, "nodes have no power states here"


def test_only_what_has_power_states_is_accounted_for():
    a_world = world(
        group("cameras", 2, energy=DEVICE), group("meters", 3), node(energy=None), duration_s=4.0
    )
    assert has_energy(a_world)
    assert not has_energy(world())
    gathering = gathered(a_world)
    devices, nodes = gathering.energy()
    assert list(devices) == ["cameras"]
    assert devices["cameras"].total == pytest.approx([4.0, 4.0])
    assert nodes == node_joules(a_world, np.zeros(1)) == {}
    assert device_joules(world(), gathering._traffic.traffic(), np.zeros(1)) == {}
