"""The embedded broker of a live run: started again if it dies."""

from __future__ import annotations

from devices.mqtt.broker_address import Broker
from devices.mqtt.embedded_broker import start_embedded_broker
from models.errors import BrokerError

#: How often it is started again in one run.
MOST_RESTARTS = 5


class OwnBroker:
    """A broker that was started for a run; of the thread that runs it.

    Args:
        port: 0 for one that is free.

    Raises:
        BrokerError: nothing can listen there.
    """

    def __init__(self, port: int, host: str = "127.0.0.1") -> None:
        self._host = host
        self._restarts = 0
        self._process = start_embedded_broker(port, host)
        self.broker: Broker = self._process.broker

    @property
    def pid(self) -> int:
        """Of its process."""
        return self._process.process.pid

    def look_after(self) -> str | None:
        """Start it again, on the same port, if it died; say so then.

        Clients connect again by themselves. What was on its way is lost, and recorded so.

        Raises:
            BrokerError: it dies again and again, or its port is taken now.
        """
        status = self._process.status
        if status is None:
            return None
        if self._restarts >= MOST_RESTARTS:
            raise BrokerError(f"the embedded broker ended again and again, with status {status}")
        self._restarts += 1
        self._process = start_embedded_broker(self.broker.port, self._host)
        return f"the embedded broker ended with status {status}, and was started again"

    def stop(self) -> None:
        """End it."""
        self._process.stop()
