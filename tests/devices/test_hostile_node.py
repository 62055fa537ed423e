"""A running node, in a process of its own, that anyone may send anything to through a broker.

The payloads are those of ``test_hostile_payloads``; here they meet the whole node. Good requests go
in between, and must be answered.
"""

from __future__ import annotations

import itertools
import queue
import random
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import test_hostile_payloads as hostile
from brokers import Mosquitto, free_port
from fake_runtime import eventually
from live_clients import Device
from node_process import NodeProcess, NodeSettings

from devices.protocol.messages import (
    ERROR_CODES,
    InferenceRequest,
    NodeStatus,
    decode_reply,
    decode_status,
    encode_request,
    encode_status,
)
from devices.protocol.topics import request_topic, status_topic

#: Hostile messages on their way at once, and good requests for each so many of them.
AT_ONCE, GOOD_EVERY = 100, 10
#: What allocators keep for themselves after the largest messages that there are, and more.
MOST_GROWTH_BYTES = 16 << 20


@pytest.fixture
def start_node(mosquitto: Mosquitto, tmp_path: Path) -> Iterator[Callable[..., NodeProcess]]:
    started: list[NodeProcess] = []

    def start(**settings: Any) -> NodeProcess:
        told = NodeSettings(
            mosquitto.port, input_shape=hostile.INPUT_SHAPE, metrics_port=free_port(), **settings
        )
        started.append(NodeProcess(tmp_path, told))
        return started[-1]

    yield start
    for process in started:
        process.kill()


@pytest.fixture
def node(start_node: Callable[..., NodeProcess]) -> NodeProcess:
    return start_node()


def processed(figures: dict[str, float]) -> int:
    """Messages that the node is done with, whatever it made of them."""
    left = sum(value for name, value in figures.items() if name.startswith("requests_total"))
    return int(left + figures["duplicate_requests_total"])


class Attack:
    """Sends messages to a node, and good requests in between; counts them."""

    def __init__(self, mosquitto: Mosquitto, node: NodeProcess) -> None:
        self.node = node
        self.good, self.evil = Device(mosquitto.broker, "good"), Device(mosquitto.broker, "evil")
        self.sent = self.sent_good = 0
        self.began = processed(node.figures())

    def __enter__(self) -> Attack:
        return self

    def __exit__(self, *_: object) -> None:
        for device in (self.good, self.evil):
            device.__exit__()

    def send(self, payloads: Iterable[bytes], publish: Callable[[bytes], object]) -> None:
        """Send them all, and wait until the node is done with them."""
        payloads = iter(payloads)
        while chunk := list(itertools.islice(payloads, AT_ONCE)):
            for number, payload in enumerate(chunk):
                publish(payload)
                self.sent += 1
                if number % GOOD_EVERY == 0:
                    self.ask_well()
            self.wait()

    def ask_well(self) -> None:
        image = bytes([self.sent_good % 256]) + bytes(3 * 24 * 32 - 1)
        self.good.ask(self.sent_good, deadline_s=60.0, image=image)
        self.sent_good += 1

    def wait(self) -> None:
        expected = self.began + self.sent + self.sent_good
        until_s = time.monotonic() + 60
        while processed(self.node.figures()) < expected:
            assert self.node.is_alive, self.node.words
            assert time.monotonic() < until_s, (self.node.figures(), expected)
            time.sleep(0.01)

    def check_good_soon(self) -> None:
        assert self.good.reply().status == "ok"
        self.sent_good = 0

    def check_good(self) -> None:
        """Every good request was answered, rightly and once."""
        replies = [self.good.reply() for _ in range(self.sent_good)]
        assert sorted(reply.id for reply in replies) == list(range(self.sent_good))
        assert all(
            (reply.status, reply.predicted) == ("ok", reply.id % 256 % 10) for reply in replies
        )
        assert self.good.heard.empty()
        self.sent_good, self.began = 0, processed(self.node.figures())
        self.sent = 0


def families() -> Iterator[tuple[Callable[[random.Random], bytes], int]]:
    yield from hostile.MALFORMED.items()
    yield from hostile.DAMAGED.items()


def test_ten_thousand_hostile_payloads(mosquitto: Mosquitto, node: NodeProcess) -> None:
    counts = dict(families())
    assert sum(counts.values()) >= 10_000
    statuses: Counter[str] = Counter()
    with Attack(mosquitto, node) as attack:
        for family in counts:  # what is imported, cached and pooled at first use
            attack.send(hostile.payloads(family, 10), attack.evil.send)
        attack.check_good()
        replied(attack)
        before, figures = node.memory_bytes(), node.figures()
        largest = before
        for family, count in counts.items():
            attack.send(hostile.payloads(family, count), attack.evil.send)
            largest = max(largest, node.memory_bytes())
            statuses += replied(attack)
        sent = attack.sent
        attack.check_good()
        after = node.figures()
    print(statuses, f"memory {before / 2**20:.1f} MiB, {(largest - before) / 2**20:+.1f} at most")
    # Each was replied to, but for duplicates of what was computed just then.
    assert sent - statuses.total() <= after["duplicate_requests_total"]
    # They are counted by what is wrong with them.
    assert statuses["error"] >= sum(hostile.MALFORMED.values())
    for code in ERROR_CODES:
        name = f"requests_total error {code}"
        counted = after.get(name, 0) - figures.get(name, 0)
        assert abs(counted - statuses[code]) <= after["duplicate_requests_total"], code
    assert {"bad_cbor", "bad_field", "bad_image", "too_large", "unsupported_version"} <= set(
        statuses
    )
    assert largest - before < MOST_GROWTH_BYTES
    # What it said is for a person to read: no traceback, and not a line for each of them.
    assert "Traceback" not in node.words
    assert len(node.words) < 20_000
    assert node.stop() == 0


def replied(attack: Attack) -> Counter[str]:
    """How many replies there are of each status, and of each code of an error."""
    found: Counter[str] = Counter()
    while not attack.evil.heard.empty():
        reply = decode_reply(attack.evil.message().payload)
        found[reply.status] += 1
        if reply.code is not None:
            assert reply.code in ERROR_CODES
            found[reply.code] += 1
    return found


def test_messages_faster_than_a_node_can_be(
    mosquitto: Mosquitto, start_node: Callable[..., NodeProcess]
) -> None:
    """It refuses what it has no room for, and is as it was once that is over."""
    node = start_node(segment_s=0.001, spec={"queue_limit": 500})
    with Attack(mosquitto, node) as attack:
        attack.ask_well()
        assert attack.good.reply().status == "ok"
        before, memory = node.memory_bytes(), []
        # What it takes at its busiest moment differs from one flood to the next; what piles up
        # grows with each of them.
        while len(memory) < 3 or memory[-1] - memory[-3] > 4:
            assert len(memory) < 15, memory
            flood(attack, for_s=1.0)
            while not attack.good.heard.empty():
                attack.good.message()
            over_s = time.monotonic()
            # The broker may have no room either for a while, and then nobody hears of it.
            status = ""
            while status != "ok":
                assert time.monotonic() - over_s < 30, node.figures()
                attack.ask_well()
                with suppress(queue.Empty):
                    status = attack.good.reply(1).status
            print(f"as before after {time.monotonic() - over_s:.1f} s")
            memory.append((node.memory_bytes() - before) / 2**20)
    print(f"memory {memory} MiB more; {processed(node.figures())} messages")
    assert node.figures()["requests_total dropped queue_full"] > 500
    assert memory[-1] < 96


def flood(attack: Attack, for_s: float) -> None:
    """Valid requests, as fast as paho sends them at QoS 0."""
    requests, client = itertools.cycle(hostile.VALID), attack.evil.client
    until_s = time.monotonic() + for_s
    while time.monotonic() < until_s:
        for _ in range(50):
            client.publish(request_topic("edge", "evil"), next(requests), 0)
        while client.want_write() and time.monotonic() < until_s:
            time.sleep(0.001)


def test_more_devices_than_a_node_remembers(mosquitto: Mosquitto, node: NodeProcess) -> None:
    """Each asks once, with an id as long as may be and a clock of its own."""
    draw = random.Random(4)
    numbers = itertools.count()

    def ask(payload: bytes) -> None:
        name = f"device-{next(numbers)}".ljust(64, "x")
        attack.evil.client.publish(request_topic("edge", name), payload, 1)

    def requests(count: int) -> Iterator[bytes]:
        for _ in range(count):
            id, sent_s = draw.randbytes(64), draw.uniform(-1e6, 1e6)
            yield encode_request(InferenceRequest(id, 1.0, image=bytes(1), sent_s=sent_s))

    # Images of a wrong size are refused before anything is remembered of who sent them.
    valid = hostile.PIXELS.tobytes()

    def good(count: int) -> Iterator[bytes]:
        for _ in range(count):
            id, sent_s = draw.randbytes(64), draw.uniform(-1e6, 1e6)
            asked = InferenceRequest(id, 30.0, image=valid, sent_s=sent_s, way_s=0.1)
            yield encode_request(asked)

    with Attack(mosquitto, node) as attack:
        attack.send(requests(200), ask)
        attack.send(good(1000), ask)
        before = node.memory_bytes()
        attack.send(good(9000), ask)
        grown = node.memory_bytes() - before
        full = node.memory_bytes()
        attack.send(good(3000), ask)
        attack.check_good()
    print(f"memory {grown / 2**20:+.1f} MiB, then {(node.memory_bytes() - full) / 2**20:+.1f}")
    # 8192 requests and 4096 devices are remembered, each with less than a kilobyte.
    assert grown < MOST_GROWTH_BYTES
    assert node.memory_bytes() - full < 3 << 20


RESPONSE_TOPICS = [
    *("", "#", "+", "offramp/1/reply/edge/+", "offramp/1/reply/edge/evil/#"),
    *("$SYS/x", "$share/a/b"),
    *("offramp/1/request/edge/evil", "offramp/1/request/edge/good", "offramp/1/reply/edge/good"),
    *("offramp/1/status/edge/edge", "offramp/1/reply/edge/evil/../good", "offramp/", "offramp//"),
    *("offramp/1/reply/edge/evilgood", "offramp/1/reply/other/good", "/", "//", " ", "a\tb"),
    *("x" * 65_535, "offramp/1/reply/edge/evil/" + "x" * 60_000, "\ufeff\U0010ffff", "ü/ö"),
]


def test_hostile_properties(mosquitto: Mosquitto, node: NodeProcess) -> None:
    """No Response Topic makes a node say anything to anybody else, in offramp's own topics."""
    valid = encode_request(InferenceRequest(5, 30.0, image=hostile.PIXELS.tobytes()))
    with Device(mosquitto.broker, "spy") as spy, Attack(mosquitto, node) as attack:
        spy.listen("offramp/#")
        for topic in RESPONSE_TOPICS:
            for payload in (valid, b"", b"\xff"):
                # The broker may end the connection for it.
                with Device(mosquitto.broker, "evil", qos=0) as evil:
                    evil.send(payload, ResponseTopic=topic, CorrelationData=b"c" * 65_535)
        for more in (
            {"CorrelationData": b""},
            {"MessageExpiryInterval": 0},
            {"PayloadFormatIndicator": 1, "ContentType": "x" * 60_000},
            {"UserProperty": [("a" * 10_000, "b" * 10_000)] * 3},
            {"TopicAlias": 1},
        ):
            with Device(mosquitto.broker, "evil", qos=0) as evil:
                evil.send(valid, **more)
        attack.ask_well()
        assert attack.good.reply().status == "ok"
        # The spy may be behind; what it hears comes in order, and this reply is the last of it.
        topics = {spy.message().topic}
        while "offramp/1/reply/edge/good" not in topics:
            topics.add(spy.message().topic)
    node_says = {topic for topic in topics if "/request/" not in topic}
    others = {"offramp/1/reply/edge/good", "offramp/1/status/edge/edge"}
    evils = "offramp/1/reply/edge/evil"
    assert evils in node_says
    assert all(topic == evils or topic.startswith(evils + "/") for topic in node_says - others)
    assert "offramp/1/request/edge/good" in topics  # by the good device itself
    assert attack.good.heard.empty()
    assert node.figures()["requests_total error bad_response_topic"] >= 5
    assert "Traceback" not in node.words


def test_hostile_topics_and_retained_requests(mosquitto: Mosquitto, node: NodeProcess) -> None:
    valid = encode_request(InferenceRequest(5, 30.0, image=hostile.PIXELS.tobytes()))
    names = ["", " ", "a b", "ü", "x" * 65, "x" * 60_000, "$SYS", "\ufeff", "a:b", "%u"]
    with Attack(mosquitto, node) as attack:
        for name in names:
            attack.evil.client.publish(f"offramp/1/request/edge/{name}", valid, 1)
            attack.sent += 1
        attack.wait()
        assert node.figures()["requests_total error bad_topic"] == len(names)
        attack.evil.client.publish(request_topic("edge", "evil"), valid, 1, retain=True)
        attack.sent += 1
        attack.wait()
        # As a node that comes later gets it.
        node.stop()
        node.start()
        attack.began, attack.sent = 0, 1
        attack.ask_well()
        attack.wait()
        assert node.figures()["requests_total error retained"] == 1
        attack.check_good()


def test_hostile_statuses(mosquitto: Mosquitto, node: NodeProcess) -> None:
    """Whoever may write there cannot make a node silent but by taking over its name."""
    topic = status_topic("edge", "edge")
    draw = random.Random(5)
    with Device(mosquitto.broker, "watcher") as watcher, Attack(mosquitto, node) as attack:
        watcher.listen(topic)
        own = watcher.message().payload
        instance = decode_status(own).instance
        valid = encode_status(NodeStatus("offline", "edge", instance))
        for _ in range(300):
            payload = bytearray(draw.choice([valid, own, b"", bytes(100_000)]))
            for _ in range(draw.choice([0, 1, 3])):
                if payload:
                    payload[draw.randrange(min(len(payload), 200))] = draw.randrange(256)
            if b"online" in payload:  # a new instance of that name would be a takeover
                continue
            attack.evil.client.publish(topic, bytes(payload), draw.choice([0, 1]), retain=True)
        # The good device's request may overtake what the evil one has still to send.
        attack.evil.client.publish(topic, b"the last", 1, retain=True).wait_for_publish(60)
        attack.ask_well()
        attack.check_good_soon()
        assert node.is_alive

    def retained() -> bytes:
        with Device(mosquitto.broker, "later") as later:
            later.listen(topic)
            return later.message().payload

    assert eventually(lambda: retained() == own)


def test_a_name_that_is_taken_over_ends_the_node_with_a_message(
    mosquitto: Mosquitto, node: NodeProcess
) -> None:
    with Device(mosquitto.broker, "rival") as rival:
        rival.client.publish(
            status_topic("edge", "edge"), encode_status(NodeStatus("online", "edge", "rival")), 1
        )
        assert node.process is not None
        assert node.process.wait(10) == 2
    assert "another node called 'edge' has started" in node.words
