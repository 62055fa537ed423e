"""paho's client with fewer system calls: one read for many packets, one wake-up for many messages.

paho asks its socket four times for each message: for the first byte, for the length byte by byte,
and for the rest. For each message that is published it writes to a pair of sockets that wakes its
network thread, even if that is awake, or does so itself. At each of these calls a thread lets go of
Python's interpreter lock, and gets it back when another has done with it: a node whose workers are
busy as well spent half of its time so (``docs/performance.md``).

What is overridden here is not all public. Should another version of paho work in another way, it
works in that way.
"""

from __future__ import annotations

import socket
import threading
from typing import Any

from paho.mqtt.client import Client
from paho.mqtt.enums import MQTTErrorCode

#: Bytes to ask a socket for; a request with an image of 32 × 32 has 3 kB.
READ_AHEAD_BYTES = 1 << 16


class BufferedClient(Client):
    """As paho's, but ``loop_read`` handles all packets that were read, not one.

    So nothing waits in the buffer while whoever drives the client waits for the socket.
    """

    _ahead = b""
    _position = 0

    def reconnect(self) -> MQTTErrorCode:
        """As paho's; what was read from the connection before is forgotten."""
        self._ahead, self._position = b"", 0
        return super().reconnect()

    def loop_read(self, max_packets: int = 1) -> MQTTErrorCode:
        """Handle what the socket has, as far as it was read; ``max_packets`` is ignored."""
        rc = super().loop_read()
        while self._ahead and rc == MQTTErrorCode.MQTT_ERR_SUCCESS and self.socket() is not None:
            rc = super().loop_read()
        return rc

    def loop_forever(
        self, timeout: float = 1.0, retry_first_connection: bool = False
    ) -> MQTTErrorCode:
        """As paho's; its network thread is in here from its start to its end."""
        pair: Any = self
        reading, writing = getattr(pair, "_sockpairR", None), getattr(pair, "_sockpairW", None)
        if reading is not None and writing is not None:
            pair._sockpairR = pair._sockpairW = _Waker(reading, writing)
        return super().loop_forever(timeout, retry_first_connection)

    def _sock_recv(self, bufsize: int) -> bytes:
        """What paho reads with: up to ``bufsize`` bytes."""
        start, ahead = self._position, self._ahead
        if not ahead:
            ahead, start = super()._sock_recv(max(bufsize, READ_AHEAD_BYTES)), 0
        end = start + bufsize
        if end < len(ahead):
            self._ahead, self._position = ahead, end
        else:
            self._ahead = b""
        return ahead[start:end]


class _Waker:
    """Both ends of the pair of sockets that wakes the thread in which this is made.

    That thread reads all that was written, and writes all messages that are there then. So nothing
    need be written while something is unread, nor by the thread itself, which looks for messages
    before it waits.
    """

    def __init__(self, reading: socket.socket, writing: socket.socket) -> None:
        self._reading, self._writing = reading, writing
        self._thread = threading.get_ident()
        self._is_awake = False

    def send(self, data: bytes) -> int:
        if not self._is_awake and threading.get_ident() != self._thread:
            self._is_awake = True
            self._writing.send(data)
        return len(data)

    def recv(self, size: int) -> bytes:
        data = self._reading.recv(size)
        # Not before: what is written between the two would be read here, and then be missed.
        self._is_awake = False
        return data

    def fileno(self) -> int:
        return self._reading.fileno()

    def close(self) -> None:
        self._reading.close()
        self._writing.close()
