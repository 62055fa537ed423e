"""A client's silence and that of its broker, seen by a broker of a few lines."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import suppress

import pytest
from fake_runtime import eventually, in_time

from devices.mqtt.broker_address import Broker
from devices.mqtt.connections import disconnect, new_client

CONNECT, PINGREQ = 1, 12
CONNACK, PINGRESP = b"\x20\x03\x00\x00\x00", b"\xd0\x00"
#: With the property Server Keep Alive: 120 s.
CONNACK_120 = b"\x20\x06\x00\x00\x03\x13\x00\x78"


class Scripted:
    """Takes connections one after the other, says CONNACK, and answers pings while it likes to."""

    def __init__(self, connack: bytes = CONNACK, answers: int = 1000) -> None:
        self.connack, self.answers = connack, answers
        self.packets: list[bytes] = []
        self.connections = 0
        self._server = socket.create_server(("127.0.0.1", 0))
        self.broker = Broker("127.0.0.1", self._server.getsockname()[1])
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        while True:
            try:
                connection, _ = self._server.accept()
            except OSError:
                return
            self.connections += 1
            with connection, suppress(ConnectionError):  # the client may end it at any time
                self._talk(connection)

    def _talk(self, connection: socket.socket) -> None:
        while packet := connection.recv(1000):
            self.packets.append(packet)
            if packet[0] >> 4 == CONNECT:
                connection.sendall(self.connack)
            elif packet[0] >> 4 == PINGREQ and self.answers:
                self.answers -= 1
                connection.sendall(PINGRESP)

    def pings(self) -> int:
        return sum(packet[0] >> 4 == PINGREQ for packet in self.packets)

    def close(self) -> None:
        self._server.shutdown(socket.SHUT_RDWR)
        self._server.close()
        self._thread.join(10)


@pytest.fixture
def broker() -> Iterator[Scripted]:
    scripted = Scripted()
    yield scripted
    scripted.close()


def start(scripted: Scripted, keepalive_s: float) -> object:
    client = new_client(scripted.broker, "c", keepalive_s=keepalive_s)
    client.reconnect()
    client.loop_start()
    eventually(client.is_connected)
    return client


@pytest.mark.parametrize("keepalive_s", [1, 60, 3600])
def test_the_broker_is_promised_what_was_asked_for(broker: Scripted, keepalive_s: int) -> None:
    client = start(broker, keepalive_s)
    disconnect(client)
    (connect, *_) = broker.packets
    # Fixed header of 2 bytes, "MQTT" with its length, version, flags: section 3.1.2.
    assert int.from_bytes(connect[10:12], "big") == keepalive_s


def test_a_broker_that_answers_is_asked_and_kept(broker: Scripted) -> None:
    client = start(broker, 60)
    eventually(lambda: broker.pings() >= 2)
    assert broker.connections == 1
    disconnect(client)


@pytest.mark.parametrize("connack", [CONNACK, CONNACK_120])
@pytest.mark.parametrize("answers", [0, 1])
def test_a_broker_that_goes_silent_is_given_up(connack: bytes, answers: int) -> None:
    scripted = Scripted(connack, answers)
    client = start(scripted, 60)
    if answers:
        eventually(lambda: scripted.answers == 0)
    since_s = time.monotonic()
    eventually(lambda: scripted.connections == 2)
    assert time.monotonic() - since_s < in_time(5)
    disconnect(client)
    scripted.close()
