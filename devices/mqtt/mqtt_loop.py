"""Many MQTT clients on one asyncio loop: paho's clients, driven without a thread for each.

paho leaves the choice of a loop to its user: ``loop_read`` and ``loop_write`` when the socket is
ready, ``loop_misc`` now and then for the keep-alive. Connecting blocks in paho (TCP, TLS), so that
is done by a few threads, which also keeps hundreds of clients from knocking at once.

What paho would get wrong is done here. A message waits here, not in paho, while there is no
connection or no room among the unacknowledged, and is made when it is sent: what it says of its age
is then true. The Receive Maximum of the broker is kept to. Nothing is published before CONNACK.
"""

from __future__ import annotations

import asyncio
import math
import random
import socket
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from types import TracebackType
from typing import Any, Protocol, cast

from paho.mqtt.client import Client, ConnectFlags, DisconnectFlags, MQTTMessage
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from devices.mqtt.connections import NO_ANSWER, Broker, connect_problem, new_client

#: From the start of an attempt until the broker has answered CONNECT and SUBSCRIBE.
READY_WITHIN_S = 10.0
#: Before another attempt: the first, doubled each time, and the longest.
FIRST_DELAY_S, LONGEST_DELAY_S = 0.1, 2.0
#: A connection that lasts less long does not count as one: the delay goes on growing.
_STEADY_S = 1.0
#: Threads that connect; so many clients at most are half way into a connection.
_CONNECTING = 8
#: Messages without an acknowledgement, if nothing else says how many; paho numbers up to 65535.
_MOST_UNACKNOWLEDGED = 1000
#: Messages that waited and are sent before the loop sees to others.
_HELD_AT_ONCE = 16
_SESSION_TAKEN_OVER = 0x8E


class Packable(Protocol):
    """Properties of a message, as paho takes them."""

    def pack(self) -> bytes:
        """The properties as they are sent, their length before them."""


#: Makes the payload and the properties of a message when it is sent.
Make = Callable[[], tuple[bytes, Packable | None]]


class LoopedClient:
    """One client of a :class:`MqttLoop`: it connects, and connects again until it is closed.

    Args:
        client: without limits of its own; its callbacks are taken over.
        topics: filters to subscribe to, anew with every connection.
        qos: of subscriptions and of what is sent.
        inflight: messages that may be sent without having an acknowledgement; None: as many as
            the broker takes.
        most_held: messages that wait while they cannot be sent; more are refused.
        on_message: called with every message.

    Attributes:
        is_ready: connected and subscribed.
        connections: how often it was ready.
        problem: why it is not ready, in a few words; empty while nothing is known to be wrong.
        refused: messages that the broker acknowledged as refused, and ``refusal``: the last reason.
        taken_over: another client connected with this one's identifier; it gave up.
    """

    def __init__(
        self,
        mqtt: MqttLoop,
        client: Client,
        topics: Sequence[str],
        qos: int,
        inflight: int | None,
        most_held: int,
        on_message: Callable[[MQTTMessage], None],
    ) -> None:
        self._mqtt = mqtt
        self._client = client
        self._topics = list(topics)
        self._qos = qos
        self._inflight = min(inflight or _MOST_UNACKNOWLEDGED, _MOST_UNACKNOWLEDGED)
        self._window = self._inflight
        self._most_held = most_held
        self._on_message = on_message
        self.is_ready = False
        self.connections = 0
        self.problem = ""
        self.refused, self.refusal = 0, ""
        self.taken_over = False
        self._forget = False
        self._loop = asyncio.get_running_loop()
        self._closing = asyncio.Event()
        self._ended: asyncio.Future[None] = self._loop.create_future()
        self._fd: int | None = None
        self._writing = False
        self._ready_at_s = math.inf
        self._unacknowledged = 0
        self._held: deque[tuple[str, Make]] = deque()
        client.on_connect = self._connected
        client.on_subscribe = self._subscribed
        client.on_disconnect = self._disconnected
        client.on_publish = self._published
        client.on_message = self._received
        client.on_socket_close = self._socket_closes
        self._task = self._loop.create_task(self._keep_connected())

    # --- sending -------------------------------------------------------------------------------

    def send(self, topic: str, make: Make) -> bool:
        """Send a message now, or with QoS 1 and 2 as soon as it can be.

        Returns:
            False if it is lost: without a connection at QoS 0, or too many wait already.
        """
        if self._may_send():
            self._publish(topic, make)
            return True
        if not self._qos or len(self._held) >= self._most_held:
            return False
        self._held.append((topic, make))
        return True

    def _may_send(self) -> bool:
        if not self._qos:
            return self.is_ready
        return self.is_ready and not self._held and self._unacknowledged < self._window

    def _publish(self, topic: str, make: Make) -> None:
        payload, properties = make()
        # QoS 1 and 2: paho has the message from now on, also if the connection breaks here.
        self._client.publish(
            topic, payload, self._qos, properties=cast(Properties | None, properties)
        )
        if self._qos:
            self._unacknowledged += 1
        self._flush()

    def _send_held(self) -> None:
        for _ in range(_HELD_AT_ONCE):
            if not (self._held and self.is_ready and self._unacknowledged < self._window):
                return
            self._publish(*self._held.popleft())
        self._loop.call_soon(self._send_held)

    # --- the connection ------------------------------------------------------------------------

    async def _keep_connected(self) -> None:
        delay_s = FIRST_DELAY_S
        while not self._closing.is_set():
            self._ended = self._loop.create_future()
            try:
                # Its socket is not registered here yet: only the thread touches it.
                await self._loop.run_in_executor(self._mqtt.executor, self._client.reconnect)
            except (OSError, ValueError) as error:
                self.problem = connect_problem(error)
            else:
                await self._follow()
            if self.taken_over:
                return
            if self._loop.time() - self._ready_at_s > _STEADY_S:
                delay_s = FIRST_DELAY_S
            self._ready_at_s = math.inf
            try:
                # In step, hundreds of clients would all come back at once.
                await asyncio.wait_for(self._closing.wait(), delay_s * random.uniform(0.5, 1.0))
            except TimeoutError:
                delay_s = min(2 * delay_s, LONGEST_DELAY_S)

    async def _follow(self) -> None:
        """Drive the connection that was just opened until it ends."""
        sock = self._client.socket()
        if sock is None:  # it ended while the thread sent CONNECT
            return
        self._fd = sock.fileno()
        self._loop.add_reader(self._fd, self._readable)
        self._flush()
        if self._closing.is_set():
            self._say_goodbye()
        watchdog = self._loop.call_later(READY_WITHIN_S, self._not_ready)
        try:
            await self._ended
        finally:
            watchdog.cancel()

    def _not_ready(self) -> None:
        if not self.is_ready:
            self.problem = NO_ANSWER
            self._cut()

    def _cut(self) -> None:
        """End the connection at once; paho finds out when it reads."""
        sock = self._client.socket()
        if isinstance(sock, socket.socket):
            with suppress(OSError):  # it is closed already
                sock.shutdown(socket.SHUT_RDWR)

    def _readable(self) -> None:
        self._client.loop_read()
        sock = self._client.socket()
        # TLS may have read more from the network than was asked for: no event will tell.
        while sock is not None and getattr(sock, "pending", int)():
            self._client.loop_read()
            sock = self._client.socket()
        self._flush()

    def _flush(self) -> None:
        """Write what paho has to write, as far as the socket takes it."""
        client = self._client
        if client.want_write():
            client.loop_write()
        if self._fd is not None and client.want_write() != self._writing:
            self._writing = not self._writing
            if self._writing:
                self._loop.add_writer(self._fd, self._flush)
            else:
                self._loop.remove_writer(self._fd)

    def tick(self) -> None:
        """Let paho see to the keep-alive; called every second or so."""
        if self._fd is not None:
            self._client.loop_misc()
            self._flush()

    async def close(self, forget: bool) -> None:
        """Disconnect for good.

        Args:
            forget: tell the broker to end the session as well (MQTT 5).
        """
        self._closing.set()
        self._forget = forget
        if self._fd is not None:
            self._say_goodbye()
            gone, _ = await asyncio.wait([self._task], timeout=1.0)
            if not gone:
                self._cut()
        # A thread may still be connecting, for as long as connections.CONNECT_TIMEOUT_S.
        await self._task

    def _say_goodbye(self) -> None:
        properties = None
        if self._forget:
            properties = Properties(PacketTypes.DISCONNECT)  # type: ignore[no-untyped-call]
            properties.SessionExpiryInterval = 0
        self._client.disconnect(properties=properties)
        self._flush()

    # --- what paho tells; of these, only the end of a connection may come from a thread --------

    def _connected(
        self,
        client: Client,
        userdata: Any,
        flags: ConnectFlags,
        reason: ReasonCode,
        properties: Properties | None,
    ) -> None:
        if reason.is_failure:
            self.problem = connect_problem(reason)
            return
        room = getattr(properties, "ReceiveMaximum", None) or _MOST_UNACKNOWLEDGED
        self._window = min(self._inflight, room)
        if not self._topics:
            self._is_ready()
            return
        # Sent before anything that was waiting: no reply can be missed.
        client.subscribe([(topic, self._qos) for topic in self._topics])

    def _subscribed(
        self,
        client: Client,
        userdata: Any,
        mid: int,
        reasons: list[ReasonCode],
        properties: Properties | None,
    ) -> None:
        refused = [
            topic for topic, reason in zip(self._topics, reasons, strict=False) if reason.is_failure
        ]
        if refused:
            self.problem = f"it refuses the subscription to {refused[0]}; its access list?"
            self._cut()
            return
        self._is_ready()

    def _is_ready(self) -> None:
        self.is_ready = True
        self.problem = ""
        self.connections += 1
        self._ready_at_s = self._loop.time()
        self._loop.call_soon(self._send_held)
        self._mqtt.changed()

    def _disconnected(
        self,
        client: Client,
        userdata: Any,
        flags: DisconnectFlags,
        reason: ReasonCode,
        properties: Properties | None,
    ) -> None:
        self.is_ready = False
        if flags.is_disconnect_packet_from_server and reason.value == _SESSION_TAKEN_OVER:
            self.taken_over = True
            self.problem = "another client has connected with the same identifier"
        elif not self.problem:
            self.problem = "the connection broke"
        self._loop.call_soon_threadsafe(self._end)

    def _end(self) -> None:
        if not self._ended.done():
            self._ended.set_result(None)
        self._mqtt.changed()

    def _socket_closes(self, client: Client, userdata: Any, sock: Any) -> None:
        if self._fd is not None:
            self._loop.remove_reader(self._fd)
            self._loop.remove_writer(self._fd)
            self._fd, self._writing = None, False

    def _published(
        self,
        client: Client,
        userdata: Any,
        mid: int,
        reason: ReasonCode,
        properties: Properties | None,
    ) -> None:
        if not self._qos:
            return
        self._unacknowledged -= 1
        if reason.is_failure:
            self.refused += 1
            self.refusal = str(reason)
        if self._held:
            self._loop.call_soon(self._send_held)

    def _received(self, client: Client, userdata: Any, message: MQTTMessage) -> None:
        self._on_message(message)


class MqttLoop:
    """Clients of one broker on the running loop; ``async with`` closes them all in the end.

    Args:
        keepalive_s: of every client.
        forget: whether the broker is told to end their sessions then (MQTT 5).
    """

    def __init__(self, broker: Broker, keepalive_s: float = 60.0, forget: bool = False) -> None:
        self.executor = ThreadPoolExecutor(_CONNECTING, thread_name_prefix="mqtt-connect")
        self.clients: list[LoopedClient] = []
        self._broker = broker
        self._keepalive_s = keepalive_s
        self._forget = forget and broker.version == "5"
        self._every_s = min(1.0, max(0.1, keepalive_s / 4))
        self._changed = asyncio.Event()

    def add(
        self,
        client_id: str,
        topics: Sequence[str],
        on_message: Callable[[MQTTMessage], None],
        qos: int = 1,
        inflight: int | None = None,
        most_held: int = 1000,
        clean: bool = True,
    ) -> LoopedClient:
        """Connect another client; see :class:`LoopedClient`.

        Args:
            clean: the broker forgets subscriptions and messages when the connection ends.

        Raises:
            BrokerError: a certificate or key cannot be used.
        """
        client = new_client(
            self._broker,
            client_id,
            clean=clean,
            keepalive_s=self._keepalive_s,
            # There is one window and one queue, and they are not paho's.
            in_flight=0,
            queued=0,
        )
        looped = LoopedClient(self, client, topics, qos, inflight, most_held, on_message)
        self.clients.append(looped)
        return looped

    def changed(self) -> None:
        """Some client is ready now, or is no longer."""
        self._changed.set()

    async def all_ready(self, within_s: float) -> list[LoopedClient]:
        """Wait until every client is ready, for so long at most; returns those that are not."""
        until_s = time.monotonic() + within_s
        while True:
            waiting = [client for client in self.clients if not client.is_ready]
            left_s = until_s - time.monotonic()
            if not waiting or left_s <= 0 or any(client.taken_over for client in waiting):
                return waiting
            self._changed.clear()
            try:
                await asyncio.wait_for(self._changed.wait(), left_s)
            except TimeoutError:
                continue

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(self._every_s)
            for client in self.clients:
                client.tick()

    async def __aenter__(self) -> MqttLoop:
        self._ticking = asyncio.get_running_loop().create_task(self._tick())
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._ticking.cancel()
        await asyncio.gather(*(client.close(self._forget) for client in self.clients))
        self.executor.shutdown()
