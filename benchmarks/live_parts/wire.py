"""The least of an MQTT 5 client: bytes on a socket, so that the client is not what is measured."""

from __future__ import annotations

import math
import select
import socket
import struct
import time
from collections.abc import Sequence

CONNECT, PUBLISH, PUBACK, SUBSCRIBE = 1, 3, 4, 8
WITHIN_S = 30.0


def send_at_once(sock: socket.socket) -> None:
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


def packet(first: int, *parts: bytes) -> bytes:
    """A control packet from its first byte and what follows its length (MQTT 5, section 2.1)."""
    length = sum(map(len, parts))
    digits = bytearray()
    while True:
        length, digit = divmod(length, 128)
        digits.append(digit | (0x80 if length else 0))
        if not length:
            return b"".join((bytes((first,)), digits, *parts))


def text(value: str) -> bytes:
    encoded = value.encode()
    return struct.pack(">H", len(encoded)) + encoded


def take_packets(buffer: bytearray) -> list[tuple[int, bytes]]:
    """First bytes and bodies of the packets that are whole; they leave the buffer."""
    packets = []
    position, size = 0, len(buffer)
    while position < size:
        length, shift, at = 0, 0, position + 1
        while at < size:
            digit = buffer[at]
            length |= (digit & 127) << shift
            shift, at = shift + 7, at + 1
            if digit < 128:
                break
        else:
            break
        if at + length > size:
            break
        packets.append((buffer[position], bytes(buffer[at : at + length])))
        position = at + length
    del buffer[:position]
    return packets


def message_id_at(body: bytes) -> int:
    """Where the packet identifier of a PUBLISH with QoS 1 stands in its body."""
    return 2 + struct.unpack_from(">H", body)[0]


class WireClient:
    """Publishes on one topic and hears another; both at the same QoS, 0 or 1."""

    def __init__(self, port: int, name: str, topic: str, replies: str, qos: int) -> None:
        self._sock = socket.create_connection(("127.0.0.1", port), timeout=WITHIN_S)
        send_at_once(self._sock)
        self._buffer = bytearray()
        self._out: list[bytes] = []
        self._topic = text(topic)
        self._qos = qos
        self._next_id = 1
        self._sock.sendall(
            packet(
                CONNECT << 4, text("MQTT"), b"\x05\x02", struct.pack(">H", 600), b"\0", text(name)
            )
        )
        self._await(2)
        self._sock.sendall(packet(SUBSCRIBE << 4 | 2, b"\0\1\0", text(replies), bytes((qos,))))
        self._await(9)

    def _await(self, kind: int) -> None:
        while True:
            for first, body in self._packets():
                if first >> 4 == kind and body[-1] < 0x80:
                    return
                raise RuntimeError(f"the broker refuses: {first:#x} {body!r}")

    def _packets(self) -> list[tuple[int, bytes]]:
        received = self._sock.recv(1 << 18)
        if not received:
            raise RuntimeError("the broker has ended the connection")
        self._buffer += received
        return take_packets(self._buffer)

    def publish(self, payloads: Sequence[bytes]) -> None:
        """Send, with the acknowledgements that are due."""
        for payload in payloads:
            if self._qos:
                number = struct.pack(">H", self._next_id)
                self._next_id = self._next_id % 0xFFFF + 1
                self._out.append(packet(PUBLISH << 4 | 2, self._topic, number, b"\0", payload))
            else:
                self._out.append(packet(PUBLISH << 4, self._topic, b"\0", payload))
        if self._out:
            self._sock.sendall(b"".join(self._out))
            self._out.clear()

    def replies(self, until_s: float = math.inf) -> list[bytes]:
        """Wait for messages; their payloads. None by ``until_s``: none came by then."""
        payloads: list[bytes] = []
        while not payloads:
            left_s = until_s - time.perf_counter()
            if left_s < WITHIN_S and not select.select([self._sock], [], [], max(0.0, left_s))[0]:
                return payloads
            for first, body in self._packets():
                if first >> 4 != PUBLISH:
                    continue
                at = message_id_at(body)
                if first & 6:
                    self._out.append(packet(PUBACK << 4, body[at : at + 2]))
                    at += 2
                # Properties here are shorter than 128 bytes.
                payloads.append(body[at + 1 + body[at] :])
        return payloads

    def close(self) -> None:
        self._sock.close()
