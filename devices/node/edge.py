"""The edge node: an inference server behind MQTT.

paho's network thread decodes and admits requests and never waits: acknowledgements of QoS 1 and 2
leave when its callback returns. Workers compute, and publish their replies themselves.
"""

from __future__ import annotations

import logging
import secrets
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray
from paho.mqtt.client import Client, MQTTMessage, MQTTMessageInfo
from paho.mqtt.enums import MQTTErrorCode
from paho.mqtt.properties import Properties

from devices.mqtt.connections import Broker, connect, disconnect, new_client
from devices.node.node_metrics import NodeMetrics
from devices.node.presence import Presence
from devices.node.replies import ReplyProperties, ReplyWay
from devices.node.request_exchange import RequestExchange
from devices.node.serving import InferenceServer
from devices.node.views import Clock
from devices.protocol.messages import NodeStatus
from devices.protocol.topics import request_filter
from devices.virtual.node_watch import boot_id
from models.errors import BrokerError, LiveError
from models.inference.runtimes import SegmentRuntime
from sim.nodes.spec import NodeSpec
from sim.policy import Policy

log = logging.getLogger(__name__)

#: Requests are taken at the QoS at which they are sent, and replied to at the same.
_QOS = 2
#: Replies without an acknowledgement that are waited for at the end.
_MOST_UNACKNOWLEDGED = 1000
#: For what the broker must still hear after the node has answered what it had.
_GOODBYE_S = 2.0
#: Different texts that are logged at all.
_MOST_TOLD = 100
_SUCCESS = MQTTErrorCode.MQTT_ERR_SUCCESS
_SESSION_TAKEN_OVER = 0x8E


@dataclass(frozen=True)
class EdgeSettings:
    """How a node stands at its broker.

    Attributes:
        edge: the kind of node, in the scenario; devices send to it.
        node: this one of its kind.
        shared: the nodes of the edge share its requests (MQTT 5).
        persistent: the broker keeps requests for a node that is away, at QoS 1 and 2.
        network, policy, strategy, training_seed: what it serves, in its status; see
            :class:`devices.protocol.messages.NodeStatus`.
    """

    edge: str
    node: str
    shared: bool = False
    persistent: bool = False
    keep_alive_s: float = 60.0
    network: str = ""
    policy: str = ""
    strategy: str = ""
    training_seed: int | None = None


class EdgeNode:
    """One edge node, from :meth:`start` to :meth:`drain`.

    Args:
        spec: of its kind; ``spec.service`` holds latencies that were measured with ``runtime``.
        samples: (N, C, H, W) images that devices may name by their number; None: there are none.

    Raises:
        LiveError: the broker's version of MQTT cannot do what the settings ask.
        BrokerError: a certificate or key cannot be used.
    """

    def __init__(
        self,
        broker: Broker,
        settings: EdgeSettings,
        spec: NodeSpec,
        runtime: SegmentRuntime,
        policy: Policy,
        input_shape: Sequence[int],
        classes: int,
        samples: NDArray[np.uint8] | None = None,
        metrics: NodeMetrics | None = None,
        clock: Clock = time.monotonic,
    ) -> None:
        if settings.shared and broker.version != "5":
            raise LiveError(
                f"replicas of node {settings.edge!r} share its requests through a shared "
                "subscription, which MQTT 3.1.1 does not have: use a broker that speaks MQTT 5 "
                "(mqtt.version)"
            )
        self.name = settings.node
        self.instance = secrets.token_hex(8)
        #: For people.
        self.description = (
            f"node {settings.node} at {broker.url}: {settings.network}; policy {settings.policy}, "
            f"runtime {runtime.name}"
        )
        self.metrics = metrics or NodeMetrics()
        self._broker = broker
        self._settings = settings
        self._clock = clock
        self._exchange = RequestExchange(
            settings.edge, settings.node, input_shape, samples, self._publish, self.metrics, clock
        )
        self._server = InferenceServer(
            settings.node,
            spec,
            runtime,
            policy,
            input_shape,
            self._exchange.answer,
            self.metrics,
            clock,
        )
        self._filter = request_filter(settings.edge, settings.shared)
        self._presence = Presence(
            settings.edge,
            NodeStatus(
                "online",
                settings.node,
                self.instance,
                network=settings.network,
                exits=self._server.view.exit_count,
                input_shape=tuple(input_shape),
                classes=classes,
                boot_id=boot_id(),
                runtime=runtime.name,
                policy=settings.policy,
                strategy=settings.strategy,
                training_seed=settings.training_seed,
            ),
            returns=settings.persistent and broker.version == "3.1.1",
        )
        self._client = self._new_client()
        self._subscribing: int | None = None
        self._subscribed, self._unsubscribed = threading.Event(), threading.Event()
        self._connections = 0
        self._ended = threading.Event()
        self._failure: BrokerError | LiveError | None = None
        self._unacknowledged: deque[MQTTMessageInfo] = deque(maxlen=_MOST_UNACKNOWLEDGED)
        self._leaves_behind = False
        self._told: set[str] = set()

    def _new_client(self) -> Client:
        settings = self._settings
        # Another node of this name, or this one after a crash, goes on with a session that is kept.
        name = f"offramp-{settings.edge}-{settings.node}"
        client = new_client(
            self._broker,
            name if settings.persistent else f"{name}-{self.instance}",
            clean=not settings.persistent,
            keepalive_s=settings.keep_alive_s,
        )
        client.will_set(self._presence.topic, self._presence.last_will(), 1, retain=True)
        client.on_connect = self._connected
        client.on_disconnect = self._disconnected
        client.on_subscribe = self._acknowledged
        client.on_unsubscribe = lambda *_: self._unsubscribed.set()
        client.on_message = self._heard
        return client

    # --- its life ------------------------------------------------------------------------------

    def start(
        self,
        timeout_s: float = 5.0,
        *,
        wait_s: float = 0.0,
        go_on: Callable[[], bool] = lambda: True,
    ) -> None:
        """Connect and serve.

        Args:
            wait_s, go_on: for a broker that is not up yet; see
                :func:`devices.mqtt.connections.connect`.

        Raises:
            BrokerError: the broker cannot be reached, or refuses the node or its subscription.
        """
        self._server.start()
        try:
            connect(self._client, self._broker, timeout_s, wait_s=wait_s, go_on=go_on)
        except BrokerError:
            self._server.stop()
            raise
        if not self._subscribed.wait(timeout_s):
            self._fail(BrokerError(f"{self._broker.url} does not answer the node's subscription"))
        elif not self._presence.is_heard.wait(timeout_s):
            self._fail(
                BrokerError(
                    f"{self._broker.url} brings node {self.name} nothing of its own status: this "
                    f"user must be allowed to write and read {self._presence.topic} (the broker's "
                    "access list)"
                )
            )
        if self._failure is not None:
            self._server.stop()
            disconnect(self._client)
            raise self._failure

    def wait(self, timeout_s: float | None = None) -> bool:
        """Wait until the node cannot go on; False when ``timeout_s`` is over before.

        Raises:
            LiveError: another node took over its name.
            BrokerError: the broker refuses its subscription.
        """
        ended = self._ended.wait(timeout_s)
        if self._failure is not None:
            raise self._failure
        return ended

    def drain(self, timeout_s: float) -> bool:
        """Take no more requests, answer those that are here, and leave.

        In a persistent session the broker keeps what comes from now on at QoS 1, as it does when a
        node is killed, for the next node of this name. It does not keep what replicas share, which
        the others can serve.

        Args:
            timeout_s: after which what still waits is dropped; its devices are told.

        Returns:
            Whether every request was served.
        """
        until_s = self._clock() + timeout_s
        if self._settings.persistent and not self._settings.shared:
            # What is not acknowledged is sent again, on the session's next connection. In this
            # order: what comes in between is served, and may be so twice, but is not lost.
            self._client.manual_ack_set(True)
            self._leaves_behind = True
            if self._client.is_connected():
                self._presence.announce(self._client, "draining")
        elif self._client.is_connected():
            self._client.unsubscribe(self._filter)
            self._presence.announce(self._client, "draining")
            # What the broker sent before it knew is served too.
            self._unsubscribed.wait(min(timeout_s, _GOODBYE_S))
        served = self._server.drain(max(0.0, until_s - self._clock()))
        self._server.stop()
        until_s = max(until_s, self._clock() + _GOODBYE_S)
        for reply in list(self._unacknowledged):
            self._wait_for(reply, until_s)
        if self._client.is_connected():
            said = self._presence.announce(self._client, "offline")
            if said is not None:
                self._wait_for(said, until_s)
        disconnect(self._client)
        self._ended.set()
        return served

    def stop(self) -> None:
        """As :meth:`drain`, but what waits is dropped."""
        self.drain(0.0)

    def _wait_for(self, message: MQTTMessageInfo, until_s: float) -> None:
        left_s = until_s - self._clock()
        if left_s > 0 and self._client.is_connected():
            with suppress(ValueError, RuntimeError):  # what was never sent cannot be waited for
                message.wait_for_publish(left_s)

    def _fail(self, failure: BrokerError | LiveError) -> None:
        self._failure = self._failure or failure
        self._subscribed.set()
        self._presence.is_heard.set()
        self._ended.set()

    # --- the connection: paho's network thread -------------------------------------------------

    def _connected(
        self, client: Client, userdata: Any, flags: Any, reason: Any, properties: Any
    ) -> None:
        if reason.is_failure:
            self._tell_once(f"{self._broker.url} refuses the node: {reason}; it tries again")
            return
        self._connections += 1
        if self._connections > 1:
            self.metrics.add("reconnections")
            log.warning("node %s is connected again", self.name)
        # Before the requests, so that what is retained has been heard when they are confirmed.
        self._presence.connected(client)
        self._subscribing = client.subscribe(self._filter, _QOS)[1]

    def _disconnected(
        self, client: Client, userdata: Any, flags: Any, reason: Any, properties: Any
    ) -> None:
        if flags.is_disconnect_packet_from_server and reason.value == _SESSION_TAKEN_OVER:
            self._taken_over()
            client.disconnect()
        elif reason.is_failure and not self._ended.is_set():
            log.warning("node %s has lost its broker (%s); it connects again", self.name, reason)

    def _acknowledged(
        self, client: Client, userdata: Any, mid: int, reasons: Sequence[Any], properties: Any
    ) -> None:
        refused = any(reason.is_failure for reason in reasons)
        if mid != self._subscribing:
            if refused:
                self._tell_once(
                    f"{self._broker.url} does not let node {self.name} read its own status: it "
                    "will not see another that takes over its name"
                )
                self._presence.is_heard.set()  # it never will be, and that is told
            return
        if refused:
            self._fail(
                BrokerError(
                    f"{self._broker.url} refuses the subscription to {self._filter}: {reasons[0]}"
                )
            )
            return
        if self._presence.taken_over_by is None:
            self._presence.announce(client)
            self._subscribed.set()

    def _taken_over(self) -> None:
        self._fail(
            LiveError(
                f"another node called {self.name!r} has started at {self._broker.url} and taken "
                "over; give each node a name of its own (--replica), or end one of them"
            )
        )

    # --- messages -------------------------------------------------------------------------------

    def _heard(self, client: Client, userdata: Any, message: MQTTMessage) -> None:
        """On paho's network thread."""
        arrived_s = self._clock()
        try:
            if message.topic == self._presence.topic:
                self._presence.heard(client, bytes(message.payload))
                if self._presence.taken_over_by is not None:
                    self._taken_over()
            elif not (self._leaves_behind and message.qos == 1):
                request = self._exchange.take(message, arrived_s)
                if request is not None:
                    self._server.offer(request)
        except Exception as error:
            # paho's thread would end, and the node with it.
            self.metrics.failed("internal_error")
            self._tell_once(f"a message failed: {type(error).__name__}: {error}", error)

    def _publish(self, way: ReplyWay, payload: bytes, remaining_s: float) -> None:
        """On any thread."""
        properties = None
        if self._broker.version == "5":
            properties = cast(Properties, ReplyProperties(remaining_s, way.correlation))
        sent = self._client.publish(way.topic, payload, way.qos, properties=properties)
        # At QoS 1 and 2 paho keeps what finds no connection, up to its bound.
        if sent.rc == _SUCCESS or (way.qos and sent.rc == MQTTErrorCode.MQTT_ERR_NO_CONN):
            self.metrics.add("sent_bytes", len(payload))
            if way.qos:
                self._unacknowledged.append(sent)
        else:
            self.metrics.add("unsent_replies")

    def _tell_once(self, text: str, error: Exception | None = None) -> None:
        if text not in self._told and len(self._told) < _MOST_TOLD:
            self._told.add(text)
            log.error("%s (said once; the node goes on)", text, exc_info=error)
