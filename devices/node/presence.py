"""A node's presence at the broker: its retained status, its last will, and who holds its name.

Two nodes with one name: the newer takes over. A node that starts says "online" with an instance of
its own, drawn at random. Nodes listen to their own status, and the broker puts what is said there
into one order for all: whoever hears of another instance that is online, after having been heard
itself, is the older, and ends. A node that was away for a while first listens to what is retained:
who came meanwhile is newer.
"""

from __future__ import annotations

import threading
from dataclasses import replace
from typing import Literal

from paho.mqtt.client import Client, MQTTMessageInfo

from devices.protocol.messages import BadStatus, NodeStatus, decode_status, encode_status
from devices.protocol.topics import status_topic

State = Literal["online", "draining", "offline"]


class Presence:
    """What one node says of itself, and hears of its name; of the network thread.

    Args:
        status: as it is while the node serves.
        returns: others of this name have its client identifier too, so that the broker ends the
            connection of one when another comes, and says so to neither (MQTT 3.1.1): then a
            status "offline" that was retained meanwhile is the last will of a newer node.

    Attributes:
        taken_over_by: instance of the node that has taken over, once one has.
        is_heard: set once the broker has brought back what the node said of itself, so that devices
            hear it too; brokers that let it say nothing often do not tell.
    """

    def __init__(self, edge: str, status: NodeStatus, returns: bool = False) -> None:
        self.topic = status_topic(edge, status.node)
        self.taken_over_by: str | None = None
        self.is_heard = threading.Event()
        self._status = status
        self._returns = returns
        self._connections = 0
        # On this connection; what is heard before we have spoken belongs to earlier ones.
        self._has_spoken = False
        self._unheard = 0  # of what we said, not yet heard ourselves

    def last_will(self) -> bytes:
        """What the broker is to say if the node vanishes."""
        return encode_status(NodeStatus("offline", self._status.node, self._status.instance))

    def connected(self, client: Client) -> None:
        """A connection is there: listen before saying anything."""
        self._connections += 1
        self._has_spoken, self._unheard = False, 0
        client.subscribe(self.topic)

    def announce(self, client: Client, state: State | None = None) -> MQTTMessageInfo | None:
        """Say what state the node is in, from now on ``state``; nothing if another took over.

        At QoS 0: paho would repeat what was not acknowledged on the next connection, before it is
        known who came meanwhile.
        """
        if self.taken_over_by is not None:
            return None
        if state is not None:
            self._status = replace(self._status, state=state)
        self._has_spoken = True
        self._unheard += 1
        return client.publish(self.topic, encode_status(self._status), retain=True)

    def heard(self, client: Client, payload: bytes) -> None:
        """A status came under the node's own name."""
        try:
            status = decode_status(payload)
        except BadStatus:
            status = NodeStatus("offline", self._status.node, "")  # nobody's, and worth nothing
        foreign = status.instance != self._status.instance
        if not self._has_spoken:
            came = status.state == "online" or (status.state == "offline" and self._returns)
            if foreign and came and self._connections > 1:
                self.taken_over_by = status.instance
        elif not foreign and status.state != "offline":
            self._unheard = max(0, self._unheard - 1)
            self.is_heard.set()
        elif not self._unheard:
            # Whatever it is, it was said after us.
            if status.state == "online":
                self.taken_over_by = status.instance
            elif self._status.state != "offline":
                self.announce(client)  # the last will of an older node, or of our own connection
