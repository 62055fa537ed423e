"""paho's client with a buffer before it: it reads from its socket once for many packets.

paho asks the socket four times for each message: for its first byte, its length byte by byte, and
the rest. Each time it lets go of Python's interpreter lock, and gets it back when another thread
has done with it. A node whose worker is busy as well spends half of its time so.
"""

from __future__ import annotations

from paho.mqtt.client import Client
from paho.mqtt.enums import MQTTErrorCode

#: Bytes to ask a socket for; a request with an image of 32 × 32 has 3 kB.
READ_AHEAD_BYTES = 1 << 16


class BufferedClient(Client):
    """As paho's, but ``loop_read`` handles all packets that were read, not one.

    So nothing waits in the buffer while whoever drives the client waits for the socket. Should
    another version of paho read in another way, it reads as that does.
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
