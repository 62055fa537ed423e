"""The client's buffer and wake-ups, against a broker that writes and reads what a test says."""

from __future__ import annotations

import random
import socket
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import closing

import pytest
from paho.mqtt.client import MQTTMessage
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode

from devices.mqtt.buffered_client import READ_AHEAD_BYTES, BufferedClient, _Waker

CONNACK = b"\x20\x02\x00\x00"
WITHIN_S = 10.0


def publish(payload: bytes) -> bytes:
    """A PUBLISH of QoS 0 with topic "t"; fewer than 16,381 bytes."""
    length = 3 + len(payload)
    digits = bytes((length,)) if length < 128 else bytes((length & 127 | 128, length >> 7))
    return b"\x30" + digits + b"\x00\x01t" + payload


class FakeBroker:
    def __init__(self) -> None:
        self.server = socket.create_server(("127.0.0.1", 0))
        self.server.settimeout(WITHIN_S)
        self.port: int = self.server.getsockname()[1]

    def accept(self, client: BufferedClient) -> socket.socket:
        """The broker's end of a connection that the client has opened; CONNECT is read."""
        peer, _ = self.server.accept()
        peer.settimeout(WITHIN_S)
        client.loop_write()
        assert peer.recv(1000)[0] == 0x10
        return peer


@pytest.fixture
def broker() -> Iterator[FakeBroker]:
    fake = FakeBroker()
    with closing(fake.server):
        yield fake


@pytest.fixture
def heard() -> list[bytes]:
    return []


@pytest.fixture
def client(broker: FakeBroker, heard: list[bytes]) -> Iterator[BufferedClient]:
    client = BufferedClient(CallbackAPIVersion.VERSION2)

    def on_message(client: BufferedClient, userdata: object, message: MQTTMessage) -> None:
        heard.append(message.payload)

    client.on_message = on_message  # type: ignore[assignment]
    client.connect_async("127.0.0.1", broker.port)
    client.reconnect()
    yield client
    client.disconnect()
    client.loop_stop()
    client._reset_sockets()


def readable(client: BufferedClient) -> bool:
    sock = client.socket()
    assert isinstance(sock, socket.socket)
    try:
        return bool(sock.recv(1, socket.MSG_PEEK))
    except BlockingIOError:
        return False


def let_arrive(client: BufferedClient) -> None:
    """Wait until something can be read, and a moment for the rest of it."""
    until_s = time.monotonic() + WITHIN_S
    while not readable(client):
        assert time.monotonic() < until_s
        time.sleep(0.001)
    time.sleep(0.05)


def test_one_call_handles_all_packets_that_have_come(
    broker: FakeBroker, client: BufferedClient, heard: list[bytes]
) -> None:
    payloads = [b"%d" % number for number in range(200)]
    with closing(broker.accept(client)) as peer:
        peer.sendall(CONNACK + b"".join(map(publish, payloads)))
        let_arrive(client)
        assert client.loop_read() == MQTTErrorCode.MQTT_ERR_SUCCESS
        assert client.is_connected()
        assert heard == payloads
        assert not readable(client)


def test_packets_come_in_pieces_of_any_size(
    broker: FakeBroker, client: BufferedClient, heard: list[bytes]
) -> None:
    chance = random.Random(1)
    payloads = [chance.randbytes(chance.randrange(1, 600)) for _ in range(100)]
    stream = CONNACK + b"".join(map(publish, payloads))
    with closing(broker.accept(client)) as peer:
        while stream:
            size = chance.choice((1, 2, 3, 700, 2000))
            peer.sendall(stream[:size])
            stream = stream[size:]
            while readable(client):
                client.loop_read()
        until_s = time.monotonic() + WITHIN_S
        while len(heard) < len(payloads) and time.monotonic() < until_s:
            client.loop_read()
        assert heard == payloads


def test_a_packet_longer_than_the_buffer(
    broker: FakeBroker, client: BufferedClient, heard: list[bytes]
) -> None:
    long = random.Random(2).randbytes(3 * READ_AHEAD_BYTES)
    length = 3 + len(long)
    digits = bytes((length & 127 | 128, length >> 7 & 127 | 128, length >> 14))
    with closing(broker.accept(client)) as peer:
        sent = CONNACK + publish(b"before") + b"\x30" + digits + b"\x00\x01t" + long
        threading.Thread(target=peer.sendall, args=(sent + publish(b"after"),)).start()
        until_s = time.monotonic() + WITHIN_S
        while len(heard) < 3 and time.monotonic() < until_s:
            client.loop_read()
        assert heard == [b"before", long, b"after"]


def test_a_new_connection_begins_with_an_empty_buffer(
    broker: FakeBroker, client: BufferedClient, heard: list[bytes]
) -> None:
    with closing(broker.accept(client)) as peer:
        damaged = b"\x30\x00"  # a PUBLISH without a topic
        peer.sendall(CONNACK + publish(b"first") + damaged + publish(b"of the old connection"))
        let_arrive(client)
        assert client.loop_read() != MQTTErrorCode.MQTT_ERR_SUCCESS
        assert client.socket() is None
    client.reconnect()
    with closing(broker.accept(client)) as peer:
        peer.sendall(CONNACK + publish(b"second"))
        let_arrive(client)
        assert client.loop_read() == MQTTErrorCode.MQTT_ERR_SUCCESS
        assert client.is_connected()
        assert heard == [b"first", b"second"]


def test_the_end_of_the_connection_is_noticed(broker: FakeBroker, client: BufferedClient) -> None:
    with closing(broker.accept(client)) as peer:
        peer.sendall(CONNACK)
    until_s = time.monotonic() + WITHIN_S
    while client.socket() is not None and time.monotonic() < until_s:
        client.loop_read()
    assert client.socket() is None


def test_what_any_thread_publishes_leaves_at_once(
    broker: FakeBroker, client: BufferedClient
) -> None:
    """A wake-up that is missed would let messages lie for a second, as long as paho waits."""
    with closing(broker.accept(client)) as peer:
        peer.sendall(CONNACK)
        let_arrive(client)
        client.loop_read()
        client.loop_start()
        began_s = time.monotonic()
        for _ in range(200):
            threads = [
                threading.Thread(target=client.publish, args=("t", b"x", 0)) for _ in range(4)
            ]
            for thread in threads:
                thread.start()
            received = b""
            while len(received) < len(threads) * len(publish(b"x")):
                received += peer.recv(1000)
            assert received == publish(b"x") * len(threads)
            for thread in threads:
                thread.join()
        assert time.monotonic() - began_s < 30


def test_a_wake_up_while_another_is_read_is_not_taken_for_it() -> None:
    """Nothing is unread afterwards, so the next one must be written."""
    reading, writing = socket.socketpair()

    class Slow(socket.socket):
        def recv(self, size: int, flags: int = 0) -> bytes:
            from_another_thread(b"2")
            return super().recv(size, flags)

    def from_another_thread(data: bytes) -> None:
        thread = threading.Thread(target=waker.send, args=(data,))
        thread.start()
        thread.join()

    with closing(reading), closing(writing), closing(Slow(fileno=reading.detach())) as slow:
        waker = _Waker(slow, writing)
        from_another_thread(b"1")
        waker.recv(100)
        from_another_thread(b"3")
        slow.settimeout(WITHIN_S)
        assert socket.socket.recv(slow, 100) == b"3"


def test_replies_made_on_the_network_thread_leave_without_a_wake_up(
    broker: FakeBroker, client: BufferedClient
) -> None:
    client.on_message = lambda client, userdata, message: client.publish("t", message.payload)
    with closing(broker.accept(client)) as peer:
        peer.sendall(CONNACK)
        let_arrive(client)
        client.loop_read()
        client.loop_start()
        began_s = time.monotonic()
        for number in range(100):
            question = publish(struct.pack(">I", number))
            peer.sendall(question)
            received = b""
            while len(received) < len(question):
                received += peer.recv(1000)
            assert received == question
        assert time.monotonic() - began_s < 30
