"""An MQTT client that notices a connection that has gone silent, whatever its keep-alive.

Of a connection that is half open (the other end lost power, a router forgot it) only silence tells.
paho looks for that by the keep-alive, which is what the broker was promised: with one of a minute
it takes two. This client keeps the promise, and asks sooner itself (PINGREQ, which MQTT allows at
any time): after :data:`ASKS_AFTER_S` without anything to send or to hear, and gives a connection up
that says nothing for as long again. With paho's loop, which looks once a second, that takes 5 s at
most.
"""

from __future__ import annotations

from typing import Any

from paho.mqtt.enums import MQTTErrorCode

from devices.mqtt.buffered_client import BufferedClient

#: A broker that is alive answers sooner; two such times and a second for each are below 5 s.
ASKS_AFTER_S = 1.5
#: For the answer to CONNECT: a broker to which hundreds come at once may need its time.
CONNECTS_WITHIN_S = 10.0


class WatchfulClient(BufferedClient):
    """As its base; its keep-alive is what stands in CONNECT, or what the broker says instead."""

    _promised_s = 60

    @property
    def _keepalive(self) -> Any:  # paho has an attribute here, an integer
        """The time of silence that paho goes by."""
        patience_s = ASKS_AFTER_S if self.is_connected() else CONNECTS_WITHIN_S
        return min(self._promised_s, patience_s)

    @_keepalive.setter
    def _keepalive(self, seconds: int) -> None:
        self._promised_s = seconds

    def _send_connect(self, keepalive: int) -> MQTTErrorCode:
        return super()._send_connect(self._promised_s)
