"""What a board has: ``umqtt.simple`` over real sockets, in both versions that boards come with.

Written after its documentation, with what matters of it: it opens its socket inside ``connect``,
waits for answers without a limit of its own, and lets the socket block again after each message.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Callable


class BoardSocket(socket.socket):
    """A socket as MicroPython's are: a stream."""

    def read(self, size: int) -> bytes | None:
        """All of it; None if there is nothing yet and the socket does not block."""
        content = b""
        while len(content) < size:
            try:
                part = self.recv(size - len(content))
            except BlockingIOError:
                return content or None
            if not part:
                break
            content += part
        return content

    def write(self, content: bytes) -> None:
        self.sendall(content)


class OlderUmqtt:
    """``MQTTClient`` as it was before version 1.4: ``connect`` takes no limit."""

    def __init__(
        self,
        client_id: str,
        server: str,
        port: int = 0,
        user: str | None = None,
        password: str | None = None,
        keepalive: int = 0,
        ssl: object = None,
    ) -> None:
        self.client_id, self.keepalive = client_id, keepalive
        self.address = (server, port)
        self.sock: BoardSocket | None = None
        self.callback: Callable[[bytes, bytes], None] | None = None
        self.packet = 0

    def set_callback(self, callback: Callable[[bytes, bytes], None]) -> None:
        self.callback = callback

    def connect(self, clean_session: bool = True) -> None:
        self.sock = BoardSocket()
        self._connect(clean_session)

    def _connect(self, clean_session: bool) -> None:
        self.sock.connect(self.address)
        flags = clean_session << 1
        variable = b"\0\4MQTT\4" + struct.pack(">BH", flags, self.keepalive)
        self._send(0x10, variable + _text(self.client_id.encode()))
        answer = self.sock.read(4)
        assert answer[:2] == b"\x20\x02"
        assert answer[3] == 0

    def _send(self, kind: int, content: bytes) -> None:
        length, rest = b"", len(content)
        while not length or rest:
            length += bytes([rest % 128 | (0x80 if rest > 127 else 0)])
            rest //= 128
        self.sock.write(bytes([kind]) + length + content)

    def _acknowledged(self, kind: int, size: int) -> None:
        while self.wait_msg() != kind:
            pass
        answer = self.sock.read(size)
        assert answer[1:3] == struct.pack(">H", self.packet)

    def subscribe(self, topic: bytes, qos: int = 0) -> None:
        assert self.callback is not None
        self.packet += 1
        self._send(0x82, struct.pack(">H", self.packet) + _text(topic) + bytes([qos]))
        self._acknowledged(0x90, 4)

    def publish(self, topic: bytes, payload: bytes, retain: bool = False, qos: int = 0) -> None:
        self.packet += qos
        number = struct.pack(">H", self.packet) if qos else b""
        self._send(0x30 | qos << 1 | retain, _text(topic) + number + payload)
        if qos:
            self._acknowledged(0x40, 3)

    def wait_msg(self) -> int | None:
        kind = self.sock.read(1)
        self.sock.setblocking(True)
        if kind is None:
            return None
        if kind == b"":
            raise OSError(-1)
        if kind == b"\xd0":
            assert self.sock.read(1) == b"\0"
            return None
        if kind[0] & 0xF0 != 0x30:
            return kind[0]
        length = shift = 0
        byte = 0x80
        while byte & 0x80:
            byte = self.sock.read(1)[0]
            length |= (byte & 0x7F) << shift
            shift += 7
        content = self.sock.read(length)
        end = 2 + struct.unpack(">H", content[:2])[0]
        number = content[end : end + 2] if kind[0] & 6 else b""
        self.callback(content[2:end], content[end + len(number) :])
        if number:
            self._send(0x40, number)
        return kind[0]

    def check_msg(self) -> int | None:
        self.sock.setblocking(False)
        return self.wait_msg()

    def ping(self) -> None:
        self._send(0xC0, b"")

    def disconnect(self) -> None:
        self._send(0xE0, b"")
        self.sock.close()


class NewerUmqtt(OlderUmqtt):
    """``MQTTClient`` of version 1.4 and later."""

    def connect(self, clean_session: bool = True, timeout: float | None = None) -> None:
        self.sock = BoardSocket()
        self.sock.settimeout(timeout)
        self._connect(clean_session)


def _text(content: bytes) -> bytes:
    return struct.pack(">H", len(content)) + content
