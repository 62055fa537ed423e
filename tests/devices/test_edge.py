"""The edge node at a real broker: round trips, replies and errors, names, ends and faults."""

import logging
import re
import socket
import subprocess
import threading
import time
from dataclasses import replace
from pathlib import Path

import cbor2
import numpy as np
import pytest
from brokers import free_port, program
from fake_runtime import CLASSES, INPUT_SHAPE, FakeRuntime, eventually, image_of, in_time
from live_clients import Device, Serving, edge_node
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.reasoncodes import ReasonCode

from devices.mqtt.connections import Broker
from devices.node.node_metrics import serve_metrics
from devices.protocol.messages import (
    InferenceRequest,
    NodeStatus,
    decode_reply,
    decode_status,
    encode_request,
    encode_status,
)
from devices.protocol.topics import request_topic, status_topic
from models.errors import BrokerError, LiveError
from sim.policies import FixedExit
from sim.policy import DROP

STATUS = status_topic("edge", "edge")


def at(broker: Broker, version: str) -> Broker:
    return replace(broker, version=version)


def figure(node, name, **labels):
    return node.metrics.registry.get_sample_value(f"offramp_edge_{name}", labels)


class Watcher(Device):
    """Hears the node's status."""

    def __init__(self, broker, node="edge"):
        super().__init__(broker, f"watcher-{time.monotonic_ns()}")
        self.listen(status_topic("edge", node))

    def status(self):
        return decode_status(self.message().payload)


def held_up():
    """A segment that waits for the test, and the events of its beginning and its going on."""
    reached, go_on = threading.Event(), threading.Event()

    def segment(exit, pixels):
        reached.set()
        assert go_on.wait(20)

    return segment, reached, go_on


# --- round trips ---------------------------------------------------------------------------------


@pytest.mark.parametrize("qos", [0, 1, 2])
@pytest.mark.parametrize("version", ["3.1.1", "5"])
def test_a_round_trip(mosquitto, version, qos):
    broker = at(mosquitto.broker, version)
    with Serving(broker) as node, Device(broker, qos=qos) as device:
        sent_s = time.monotonic()
        device.ask(41, pixel=7)
        message = device.message()
        reply = decode_reply(message.payload)
    assert (message.topic, message.qos) == (device.own_topic, qos)
    assert (reply.id, reply.status, reply.node) == (41, "ok", node.name)
    assert (reply.predicted, reply.confidence, reply.exit, reply.batch) == (7, 1.0, 2, 1)
    assert 0 <= reply.queued_s + reply.service_s <= reply.node_s + 1e-6
    assert sent_s <= reply.arrived_s <= time.monotonic()


def test_a_round_trip_through_the_embedded_broker(embedded):
    with Serving(embedded) as node, Device(embedded) as device:
        device.ask("a")
        assert device.reply().node == node.name


@pytest.mark.parametrize("id", [0, 2**63 - 1, "camera 1/ü", b"\x00\xff"])
def test_ids_come_back_as_they_were(mosquitto, id):
    with Serving(mosquitto.broker), Device(mosquitto.broker) as device:
        device.ask(id)
        assert device.reply().id == id


def test_samples_are_those_of_the_test_split(mosquitto):
    samples = np.zeros((5, *INPUT_SHAPE), np.uint8)
    samples[:, 0, 0, 0] = [1, 2, 3, 4, 5]
    with Serving(mosquitto.broker, samples=samples), Device(mosquitto.broker) as device:
        device.ask(1, image=None, sample=3)
        assert device.reply().predicted == 4
        device.ask(2, image=None, sample=5)
        reply = device.reply()
        assert (reply.code, reply.message) == ("unknown_sample", "there are samples 0 to 4")
        device.ask(3, pixel=8, sample=0)  # the image goes before the number
        assert device.reply().predicted == 8


def test_a_node_without_the_dataset_says_so(mosquitto):
    with Serving(mosquitto.broker), Device(mosquitto.broker) as device:
        device.ask(1, image=None, sample=3)
        assert device.reply().code == "unknown_sample"


def test_many_requests_of_many_devices_are_answered_once_each(mosquitto):
    with Serving(mosquitto.broker, workers=3, batch_size=4):
        devices = [Device(mosquitto.broker, f"d{number}") for number in range(5)]
        for id in range(100):
            for device in devices:
                device.ask(id, pixel=id)
        for device in devices:
            replies = [device.reply() for _ in range(100)]
            assert sorted(reply.id for reply in replies) == list(range(100))
            assert all(reply.predicted == reply.id % CLASSES for reply in replies)
            assert device.heard.empty()
            device.__exit__()


def test_what_is_dropped_is_replied_to_with_the_reason(mosquitto):
    class Refuse:
        def decide(self, request, node):
            return DROP

    with Serving(mosquitto.broker, Refuse()), Device(mosquitto.broker) as device:
        device.ask(1)
        reply = device.reply()
    assert (reply.id, reply.status, reply.reason) == (1, "dropped", "policy")
    assert reply.node_s >= 0


# --- replies elsewhere ---------------------------------------------------------------------------


@pytest.mark.parametrize("topic", ["answers/d0", "offramp/1/reply/edge/d0/inbox", "offramp"])
def test_a_response_topic_is_honoured_and_correlation_data_comes_back(mosquitto, topic):
    with Serving(mosquitto.broker), Device(mosquitto.broker) as device:
        device.listen(topic)
        request = encode_request(InferenceRequest(1, 2.5, image=image_of(3)))
        device.send(request, ResponseTopic=topic, CorrelationData=b"\x00\x01 c")
        message = device.message()
    assert message.topic == topic
    assert message.properties.CorrelationData == b"\x00\x01 c"
    assert 1 <= message.properties.MessageExpiryInterval <= 3


def test_correlation_data_alone_comes_back_too(mosquitto):
    with Serving(mosquitto.broker), Device(mosquitto.broker) as device:
        device.send(
            encode_request(InferenceRequest(1, 1.0, image=image_of(3))), CorrelationData=b"c"
        )
        message = device.message()
    assert (message.topic, message.properties.CorrelationData) == (device.own_topic, b"c")


@pytest.mark.parametrize(
    "topic",
    [
        "offramp/1/reply/edge/d1",
        "offramp/1/reply/edge/d00",
        "offramp/1/status/edge/edge",
        "offramp/2/anything",
        "$SYS/broker/uptime",
    ],
)
def test_nobody_can_be_replied_to_in_a_nodes_name_elsewhere(mosquitto, topic):
    with Serving(mosquitto.broker), Device(mosquitto.broker) as device:
        device.send(
            encode_request(InferenceRequest("x", 1.0, image=image_of(3))),
            ResponseTopic=topic,
            CorrelationData=b"c",
        )
        message = device.message()
        reply = decode_reply(message.payload)
    assert message.topic == device.own_topic
    assert message.properties.CorrelationData == b"c"
    assert (reply.id, reply.status, reply.code) == ("x", "error", "bad_response_topic")


def test_mosquitto_rr_is_a_client(mosquitto):
    # 2.0.11 sends nothing at all of a file or of its standard input, so no byte may be 0.
    request = cbor2.dumps({"v": 1, "id": 5, "deadline_ms": 2000, "sample": 3})
    with Serving(mosquitto.broker, samples=np.full((4, *INPUT_SHAPE), 9, np.uint8)):
        ran = subprocess.run(
            [
                *(program("mosquitto_rr"), "-V", "5", "-p", str(mosquitto.port), "-W", "10"),
                *("-t", request_topic("edge", "rr"), "-e", "answers/rr", "-q", "1", "-N"),
                *("-m", request),
            ],
            capture_output=True,
            check=True,
            timeout=20,
        )
    reply = decode_reply(ran.stdout)
    assert (reply.id, reply.predicted) == (5, 9)


# --- messages that are wrong ---------------------------------------------------------------------

WRONG = {
    b"": "bad_cbor",
    b"\xff" * 50: "bad_cbor",
    b"\x81" * 5000: "bad_cbor",
    cbor2.dumps([1, 2]): "bad_cbor",
    cbor2.dumps({"v": 1, "id": 1}): "bad_field",
    cbor2.dumps({"v": 2, "id": 1, "deadline_ms": 1, "sample": 0}): "unsupported_version",
    cbor2.dumps({"v": 1, "id": 1, "deadline_ms": float("nan"), "sample": 0}): "bad_field",
    cbor2.dumps({"v": 1, "id": 1, "deadline_ms": -1, "sample": 0}): "bad_field",
    cbor2.dumps({"v": 1, "id": 1, "deadline_ms": 9, "image": b"\0"}): "bad_image",
    cbor2.dumps({"v": 1, "id": 1, "deadline_ms": 9, "image": b"\0", "shape": [1, 3, 3]}): (
        "bad_image"
    ),
    cbor2.dumps(
        {"v": 1, "id": 1, "deadline_ms": 9, "image": b"\x89PNG", "format": "png"}
    ): "bad_image",
    bytes((1 << 20) + 1): "too_large",
}


@pytest.mark.parametrize("version", ["3.1.1", "5"])
def test_what_is_wrong_is_answered_with_an_error_and_counted(mosquitto, version):
    broker = at(mosquitto.broker, version)
    with Serving(broker) as node, Device(broker) as device:
        for payload, code in WRONG.items():
            device.send(payload)
            reply = device.reply()
            assert (reply.status, reply.code) == ("error", code), payload[:60]
            assert reply.message
        device.ask(2)
        assert device.reply().status == "ok"
        for code in set(WRONG.values()):
            expected = list(WRONG.values()).count(code)
            assert figure(node, "requests_total", outcome="error", why=code) == expected


def test_messages_on_other_topics_are_counted_and_nothing_more(mosquitto):
    with Serving(mosquitto.broker) as node, Device(mosquitto.broker) as device:
        request = encode_request(InferenceRequest(1, 1.0, image=image_of(1)))
        device.client.publish("offramp/1/request/edge/a b", request, 1)
        eventually(lambda: figure(node, "requests_total", outcome="error", why="bad_topic") == 1)
        device.ask(2)
        assert device.reply().id == 2


def test_a_retained_request_is_not_answered_again_at_every_start(mosquitto):
    with Device(mosquitto.broker) as device:
        request = encode_request(InferenceRequest(1, 1.0, image=image_of(1)))
        device.client.publish(request_topic("edge", "d0"), request, 1, retain=True)
        with Serving(mosquitto.broker) as node:
            eventually(lambda: figure(node, "requests_total", outcome="error", why="retained") == 1)
            device.ask(2)
            assert device.reply().id == 2


def test_a_defect_of_ours_costs_one_message(mosquitto, caplog):
    with Serving(mosquitto.broker) as node, Device(mosquitto.broker) as device:
        offer = node._server.offer
        node._server.offer = lambda request: 1 / 0
        with caplog.at_level(logging.ERROR):
            device.ask(1)
            eventually(
                lambda: figure(node, "requests_total", outcome="error", why="internal_error")
            )
        node._server.offer = offer
        device.ask(2)
        assert device.reply().id == 2
    assert "division by zero" in caplog.text


# --- duplicates ----------------------------------------------------------------------------------


class Raw:
    """A client that sends what it is told to: MQTT 3.1.1 by hand."""

    def __init__(self, port):
        self.sock = socket.create_connection(("127.0.0.1", port), timeout=10)
        client_id = b"raw"
        body = b"\x00\x04MQTT\x04\x02\x00\x3c" + len(client_id).to_bytes(2, "big") + client_id
        self.sock.sendall(bytes([0x10, len(body)]) + body)
        assert self.sock.recv(4) == b"\x20\x02\x00\x00"

    def publish(self, topic, payload, packet_id, dup=False):
        body = (
            len(topic).to_bytes(2, "big") + topic.encode() + packet_id.to_bytes(2, "big") + payload
        )
        length = len(body)
        encoded = bytes([length]) if length < 128 else bytes([length % 128 | 128, length // 128])
        self.sock.sendall(bytes([0x32 | (0x08 if dup else 0)]) + encoded + body)
        assert self.sock.recv(4)[:2] == b"\x40\x02"

    def close(self):
        self.sock.close()


def test_a_request_that_is_sent_again_is_computed_once(mosquitto):
    """The broker passes a repeated message on as a new one: it is known by its time of sending."""
    runtime, raw = FakeRuntime(), Raw(mosquitto.port)
    with Serving(mosquitto.broker, runtime=runtime) as node, Device(mosquitto.broker) as device:
        request = encode_request(InferenceRequest(4, 5.0, image=image_of(7), sent_s=12.5))
        raw.publish(request_topic("edge", "d0"), request, 1)
        first = device.message().payload
        raw.publish(request_topic("edge", "d0"), request, 1, dup=True)
        assert device.message().payload == first
        assert figure(node, "duplicate_requests_total") == 1
        # The same id at another time is another request.
        device.ask(4, sent_s=13.5)
        assert device.reply().id == 4
    raw.close()
    assert len([step for step in runtime.computed if step[0] == "classify"]) == 2


def test_a_duplicate_of_what_is_still_computed_gets_the_one_reply(mosquitto):
    segment, reached, go_on = held_up()
    runtime = FakeRuntime(segment=segment)
    with Serving(mosquitto.broker, runtime=runtime) as node, Device(mosquitto.broker) as device:
        device.ask(4, sent_s=12.5)
        assert reached.wait(10)
        device.ask(4, sent_s=12.5)
        eventually(lambda: figure(node, "duplicate_requests_total") == 1)
        go_on.set()
        assert device.reply().id == 4
        assert device.hears_nothing()


def test_a_redelivery_to_the_node_carries_dup_and_is_computed_once(mosquitto):
    """Mosquitto redelivers to a session what was not acknowledged before the connection broke."""
    segment, reached, go_on = held_up()
    runtime = FakeRuntime(segment=segment)
    with (
        Serving(mosquitto.broker, runtime=runtime, settings={"persistent": True}) as node,
        Device(mosquitto.broker) as device,
    ):
        node._client._send_puback = lambda mid: 0  # its acknowledgement is lost on the way
        device.ask(4)
        assert reached.wait(10)
        del node._client._send_puback
        go_on.set()
        first = device.message().payload
        node._client.socket().shutdown(socket.SHUT_RDWR)
        eventually(lambda: figure(node, "duplicate_requests_total") == 1)
        assert device.message().payload == first


# --- status --------------------------------------------------------------------------------------


def test_the_status_says_what_a_device_must_know(mosquitto):
    with Watcher(mosquitto.broker) as watcher, Serving(mosquitto.broker) as node:
        status = watcher.status()
    assert (status.state, status.node, status.instance) == ("online", "edge", node.instance)
    assert (status.exits, status.input_shape, status.classes) == (3, INPUT_SHAPE, CLASSES)
    assert (status.runtime, status.network) == ("fake", "fake")
    assert status.boot_id == Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def test_the_status_is_retained_and_follows_the_node_to_its_end(mosquitto):
    node = edge_node(mosquitto.broker)
    node.start()
    with Watcher(mosquitto.broker) as watcher:
        assert watcher.status().state == "online"
        assert node.drain(5)
        assert [watcher.status().state for _ in range(2)] == ["draining", "offline"]
    with Watcher(mosquitto.broker) as watcher:
        assert watcher.status().state == "offline"


def test_the_broker_says_for_a_node_that_vanishes_that_it_is_offline(mosquitto):
    with Serving(mosquitto.broker) as node, Watcher(mosquitto.broker) as watcher:
        assert watcher.status().state == "online"
        node._client.on_connect = None  # it will not speak again
        node._client.socket().shutdown(socket.SHUT_RDWR)
        status = watcher.status()
        assert (status.state, status.instance) == ("offline", node.instance)


def test_a_status_that_somebody_else_writes_is_put_right(mosquitto):
    with Serving(mosquitto.broker) as node, Watcher(mosquitto.broker) as watcher:
        assert watcher.status().instance == node.instance
        for foreign in (b"", b"\xff", encode_status(NodeStatus("offline", "edge", "old"))):
            watcher.client.publish(STATUS, foreign, 1, retain=True)
            assert watcher.message().payload == foreign
            assert watcher.status().instance == node.instance


@pytest.mark.parametrize("version", ["3.1.1", "5"])
@pytest.mark.parametrize("persistent", [False, True])
def test_of_two_nodes_with_one_name_the_newer_takes_over(mosquitto, version, persistent):
    broker, settings = at(mosquitto.broker, version), {"persistent": persistent}
    older, newer = (edge_node(broker, settings=settings) for _ in range(2))
    older.start()
    newer.start()
    with pytest.raises(LiveError, match="another node called 'edge' has started"):
        assert older.wait(10)
    older.drain(5)
    assert not newer.wait(0.5)
    with Watcher(broker) as watcher, Device(broker) as device:
        # Neither the farewell of the older nor its last will hides the newer.
        eventually(lambda: watcher.status().instance == newer.instance)
        device.ask(1)
        assert device.reply().id == 1
        assert device.hears_nothing()
        assert watcher.heard.empty()
    newer.stop()


def test_a_node_that_was_away_finds_that_another_came_meanwhile(start_mosquitto):
    mosquitto = start_mosquitto()
    older = edge_node(mosquitto.broker)
    older.start()
    older._client.reconnect_delay_set(2, 2)
    mosquitto.stop()
    mosquitto.start()
    newer = edge_node(mosquitto.broker)
    newer.start()
    with pytest.raises(LiveError, match="taken over"):
        assert older.wait(15)
    older.stop()
    assert not newer.wait(0.2)
    newer.stop()


def test_a_node_that_starts_again_after_a_crash_is_not_taken_for_its_own_rival(mosquitto):
    with Device(mosquitto.broker) as device:
        crashed = encode_status(NodeStatus("online", "edge", "before"))
        device.client.publish(STATUS, crashed, 1, retain=True).wait_for_publish(5)
    with Serving(mosquitto.broker) as node, Device(mosquitto.broker) as device:
        assert not node.wait(0.3)
        device.ask(1)
        assert device.reply().id == 1


# --- replicas ------------------------------------------------------------------------------------


def test_replicas_share_requests_and_each_has_a_status(mosquitto):
    names = ("edge-0", "edge-1")
    nodes = [edge_node(mosquitto.broker, settings={"node": name, "shared": True}) for name in names]
    for node in nodes:
        node.start()
    with Device(mosquitto.broker) as device:
        for id in range(40):
            device.ask(id)
        replies = [device.reply() for _ in range(40)]
        assert sorted(reply.id for reply in replies) == list(range(40))
        assert {reply.node for reply in replies} == set(names)
        # When one goes, the other has all.
        nodes[0].drain(5)
        for id in range(10):
            device.ask(id)
        assert {device.reply().node for _ in range(10)} == {"edge-1"}
    nodes[1].stop()


def test_the_requests_of_a_replica_that_drains_go_to_the_others(mosquitto):
    segment, reached, go_on = held_up()
    leaving = edge_node(
        mosquitto.broker,
        runtime=FakeRuntime(segment=segment),
        settings={"node": "edge-0", "shared": True},
    )
    leaving.start()
    with Device(mosquitto.broker) as device:
        device.ask(0)
        assert reached.wait(10)
        with Serving(mosquitto.broker, settings={"node": "edge-1", "shared": True}):
            drained = threading.Thread(target=lambda: leaving.drain(20))
            drained.start()
            with Watcher(mosquitto.broker, "edge-0") as watcher:
                eventually(lambda: watcher.status().state == "draining")
            for id in range(1, 11):
                device.ask(id)
            assert {device.reply().node for _ in range(10)} == {"edge-1"}
            go_on.set()
            drained.join(20)
            assert device.reply().node == "edge-0"


def test_replicas_need_mqtt_5(mosquitto):
    with pytest.raises(LiveError, match=r"shared subscription, which MQTT 3\.1\.1 does not have"):
        edge_node(at(mosquitto.broker, "3.1.1"), settings={"node": "edge-0", "shared": True})


# --- draining ------------------------------------------------------------------------------------


@pytest.mark.parametrize("qos", [0, 1, 2])
def test_a_node_answers_what_it_has_before_it_leaves(mosquitto, qos):
    segment, _, go_on = held_up()
    node = edge_node(mosquitto.broker, FixedExit(1), FakeRuntime(segment=segment))
    node.start()
    with Device(mosquitto.broker, qos=qos) as device:
        for id in range(30):
            device.ask(id)
        eventually(lambda: len(node._server.inbox) == 29)
        drained = []
        leaving = threading.Thread(target=lambda: drained.append(node.drain(10)))
        leaving.start()
        go_on.set()
        leaving.join(20)
        assert drained == [True]
        replies = [device.reply() for _ in range(30)]
        assert {reply.status for reply in replies} == {"ok"}
        device.ask(99)
        assert device.hears_nothing()


def test_while_a_node_drains_nothing_that_was_sent_before_is_refused(mosquitto):
    """Requests flow when the node is told to end: whatever reaches it is answered."""
    node = edge_node(mosquitto.broker)
    node.start()
    with Device(mosquitto.broker) as device:
        for id in range(400):
            device.ask(id)
        eventually(lambda: not device.heard.empty())
        assert node.drain(10)
        time.sleep(0.3)  # for the last replies
        replies = [decode_reply(message.payload) for message in list(device.heard.queue)]
    assert {reply.status for reply in replies} == {"ok"}


def test_what_is_not_served_in_time_is_dropped_and_told(mosquitto):
    segment, reached, go_on = held_up()
    node = edge_node(mosquitto.broker, FixedExit(1), FakeRuntime(segment=segment))
    node.start()
    with Device(mosquitto.broker) as device:
        device.ask(0)
        assert reached.wait(10)
        device.ask(1)
        device.ask(2)
        eventually(lambda: len(node._server.inbox) == 2)
        threading.Timer(0.5, go_on.set).start()
        assert not node.drain(0.1)
        replies = {reply.id: reply for reply in (device.reply() for _ in range(3))}
    assert [replies[id].reason for id in range(3)] == [None, "draining", "draining"]


# --- the broker goes and comes -------------------------------------------------------------------


def test_a_node_is_back_within_seconds_of_its_broker(mosquitto):
    with Serving(mosquitto.broker) as node:
        for _ in range(2):
            mosquitto.kill()
            time.sleep(0.3)
            mosquitto.start()
            back_s = time.monotonic()
            with Watcher(mosquitto.broker) as watcher, Device(mosquitto.broker) as device:
                assert watcher.status().state == "online"
                assert time.monotonic() - back_s < in_time(5)
                device.ask(1)
                assert device.reply().id == 1
        assert figure(node, "reconnections_total") == 2


@pytest.mark.parametrize("qos", [1, 2])
def test_replies_of_a_time_without_a_broker_come_later(mosquitto, qos):
    segment, reached, go_on = held_up()
    runtime = FakeRuntime(segment=segment)
    with Serving(mosquitto.broker, runtime=runtime) as node:
        with Device(mosquitto.broker, qos=qos) as device:
            device.ask(1)
            assert reached.wait(10)
        mosquitto.kill()
        eventually(lambda: not node._client.is_connected())
        go_on.set()
        eventually(lambda: figure(node, "requests_total", outcome="ok", why="") == 1)
        assert figure(node, "unsent_replies_total") == 0
        node._client.reconnect_delay_set(1, 2)
        mosquitto.start()
        with Device(mosquitto.broker, qos=qos) as device:
            assert device.reply().id == 1


def test_a_reply_at_qos_0_without_a_broker_is_counted_as_lost(mosquitto):
    segment, reached, go_on = held_up()
    with Serving(mosquitto.broker, runtime=FakeRuntime(segment=segment)) as node:
        with Device(mosquitto.broker, qos=0) as device:
            device.ask(1)
            assert reached.wait(10)
        mosquitto.kill()
        eventually(lambda: not node._client.is_connected())
        go_on.set()
        eventually(lambda: figure(node, "unsent_replies_total") == 1)


def test_a_node_that_cannot_reach_its_broker_says_why_and_leaves_nothing_running():
    threads = threading.active_count()
    node = edge_node(Broker("127.0.0.1", free_port()))
    with pytest.raises(BrokerError, match="nothing listens there"):
        node.start()
    assert threading.active_count() == threads


def test_a_node_that_may_not_subscribe_says_so(mosquitto):
    node = edge_node(mosquitto.broker)
    heard, refused = node._client.on_subscribe, [ReasonCode(PacketTypes.SUBACK, identifier=0x87)]
    node._client.on_subscribe = lambda client, userdata, mid, reasons, properties: heard(
        client, userdata, mid, refused, properties
    )
    threads = threading.active_count()
    with pytest.raises(BrokerError, match=r"refuses the subscription to offramp/1/request/edge/\+"):
        node.start()
    assert threading.active_count() == threads


def test_a_node_drains_without_a_broker_too(mosquitto):
    node = edge_node(mosquitto.broker)
    node.start()
    mosquitto.kill()
    eventually(lambda: not node._client.is_connected())
    began_s = time.monotonic()
    assert node.drain(5)
    assert time.monotonic() - began_s < in_time(10)


# --- metrics -------------------------------------------------------------------------------------


def test_metrics_are_served_on_a_port(mosquitto):
    from urllib.request import urlopen

    port = free_port()
    with Serving(mosquitto.broker) as node, Device(mosquitto.broker) as device:
        end = serve_metrics(node.metrics, port, "127.0.0.1")
        device.ask(1)
        device.reply()
        eventually(lambda: figure(node, "sent_bytes_total"))
        text = urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5).read().decode()
        end()
    assert re.search(r'^offramp_edge_requests_total\{outcome="ok",why=""\} 1\.0$', text, re.M)
    assert re.search(r"^offramp_edge_received_bytes_total [1-9]", text, re.M)
    assert re.search(r'^offramp_edge_exits_total\{exit="2"\} 1\.0$', text, re.M)


def test_a_metrics_port_in_use_is_a_clear_error(mosquitto):
    node = edge_node(mosquitto.broker)
    with pytest.raises(LiveError, match=r"port \d+: it is in use \(--metrics-port\)"):
        serve_metrics(node.metrics, mosquitto.port, "127.0.0.1")
