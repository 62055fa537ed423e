"""amqtt's broker (MQTT 3.1.1, pure Python) with what a live run relies on put right.

amqtt 0.12 reads and writes the packets and keeps sessions and subscriptions; here is decided who is
sent what. Against amqtt as it comes:

- a message goes out at the lower of its own QoS and the subscription's, not at the latter;
- a second connection with a client identifier ends the first, with its last will;
- a client that is silent for one and a half times its keep-alive is disconnected, with its last
  will;
- sessions that are not clean outlive their connection without a user's name, and what was not
  acknowledged when the connection broke is sent again;
- PUBREL after a reconnection is answered, so that QoS 2 goes on;
- a packet that cannot be read ends its connection, where amqtt reads on in the middle of it;
- a client that connects is not sent the retained messages that others subscribed to;
- queues, packets and the wait for CONNECT are bounded.
"""

from __future__ import annotations

import asyncio
import math
import socket
from contextlib import suppress
from typing import Any

from amqtt.adapters import ReaderAdapter, StreamWriterAdapter, WriterAdapter
from amqtt.broker import Broker
from amqtt.errors import MQTTError
from amqtt.session import ApplicationMessage, Session

from devices.mqtt.amqtt_connection import Connection, PacketReader

#: Messages that wait for one client; more are dropped, the newest first, as Mosquitto does.
MAX_QUEUED = 1000
#: Topics that have a retained message; what is retained on further ones is only sent on.
MAX_RETAINED = 10_000
#: A connection that has not said CONNECT for so long is closed.
CONNECT_WITHIN_S = 10.0
#: The session of a client that is away is kept for so long.
SESSION_EXPIRY_S = 3600

_LISTENER = "default"


class EmbeddedBroker(Broker):  # type: ignore[misc]
    """A broker that lets everyone in, without sockets of its own; see :meth:`serve`."""

    def __init__(self) -> None:
        super().__init__(
            {
                "listeners": {_LISTENER: {"type": "external"}},
                "plugins": {},
                "session_expiry_interval": SESSION_EXPIRY_S,
            }
        )
        self._served: dict[str, tuple[Connection, asyncio.Event]] = {}
        self._looping: set[str] = set()
        self._sending: dict[str, int] = {}
        self._tasks: set[asyncio.Task[Any]] = set()
        self._stopping = False

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection until it ends; a callback of ``asyncio.start_server``."""
        # With Nagle's algorithm a round trip at QoS 1 takes 44 ms. asyncio turns it off only for
        # sockets that were made with their protocol named.
        sock = writer.get_extra_info("socket")
        if sock is not None:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            await self.external_connected(
                PacketReader(reader), StreamWriterAdapter(writer), _LISTENER
            )
        except (TimeoutError, ValueError, OSError, asyncio.CancelledError):
            pass  # what it sent is no MQTT, it is gone, or the broker is stopping
        finally:
            writer.close()
            with suppress(OSError, asyncio.CancelledError):
                await writer.wait_closed()

    async def shutdown(self) -> None:
        """End all connections and forget everything."""
        self._stopping = True
        await super().shutdown()

    async def _authenticate(self, session: Session, _: Any) -> bool:
        return True

    async def _initialize_client_session(
        self, reader: ReaderAdapter, writer: WriterAdapter, remote_address: str, remote_port: int
    ) -> tuple[Connection, Session]:
        connecting = Connection.init_from_connect(reader, writer, self.plugins_manager)
        handler, session = await asyncio.wait_for(connecting, CONNECT_WITHIN_S)
        handler.broker = self
        await self._take_over(session.client_id)
        kept, _ = self._sessions.get(session.client_id, (None, None))
        session.parent = 0
        if kept is not None and (session.clean_session or kept.clean_session):
            await self._delete_session(session.client_id)
        elif kept is not None:
            for name in _OF_CONNECTION:
                setattr(kept, name, getattr(session, name))
            session = kept
            session.parent = 1
        session.keep_alive = math.ceil(1.5 * session.keep_alive)  # MQTT 3.1.1, section 3.1.2.10
        return handler, session

    async def _take_over(self, client_id: str) -> None:
        """End the connection that has this identifier, and wait until its last will is out."""
        while (served := self._served.get(client_id)) is not None:
            handler, ended = served
            await handler.handle_connection_closed()  # in vain while it is still being greeted
            with suppress(TimeoutError):
                await asyncio.wait_for(ended.wait(), 0.1)

    async def _handle_client_session(
        self,
        reader: ReaderAdapter,
        writer: WriterAdapter,
        client_session: Session,
        handler: Connection,
        *others: Any,
    ) -> None:
        client_id, ended = client_session.client_id, asyncio.Event()
        self._served[client_id] = (handler, ended)
        try:
            await super()._handle_client_session(reader, writer, client_session, handler, *others)
        finally:
            if client_session.transitions.state == "connected":  # ended for a breach of protocol
                await self._stop_handler(handler)
                client_session.transitions.disconnect()
            if self._served.get(client_id) == (handler, ended):
                del self._served[client_id]
            ended.set()

    async def _client_message_loop(self, client_session: Session, handler: Connection) -> None:
        self._looping.add(client_session.client_id)
        while not client_session.retained_messages.empty():  # kept while it was away
            message = client_session.retained_messages.get_nowait()
            self._send(client_session, message.topic, message.data, message.qos)
        try:
            await super()._client_message_loop(client_session, handler)
        finally:
            self._looping.discard(client_session.client_id)

    async def _publish_session_retained_messages(self, session: Session) -> None:
        """Nothing: see :meth:`_client_message_loop`, which sends them without the retain flag."""

    async def _publish_retained_messages_for_subscription(
        self, subscription: tuple[str, int], session: Session
    ) -> None:
        if session.client_id not in self._looping:
            return  # amqtt asks for everyone's subscriptions when a client connects
        topic_filter, qos = subscription
        for topic, message in self._retained_messages.items():
            if self._matches(topic, topic_filter):
                lower = min(qos, message.qos or 0)
                self._send(session, topic, message.data, lower, retain=True)

    async def add_subscription(self, subscription: tuple[str, int], session: Session) -> int:
        """Subscribe; another QoS replaces the one before (section 3.8.4)."""
        self._del_subscription(subscription[0], session)
        return int(await super().add_subscription(subscription, session))

    async def accept(self, session: Session, message: ApplicationMessage) -> None:
        """Send a client's message on.

        Raises:
            MQTTError: no message may have this topic.
        """
        topic = message.topic
        if not topic or "#" in topic or "+" in topic or topic.startswith("$"):
            raise MQTTError(f"not a topic: {topic}")
        self._publish(topic, message.data, message.qos or 0)
        retained = self._retained_messages
        if message.retain and (topic in retained or len(retained) < MAX_RETAINED):
            await self.retain_message(session, topic, message.data, message.qos)

    async def _broadcast_message(
        self,
        session: Session | None,
        topic: str | None,
        data: bytes | bytearray | None,
        force_qos: int | None = None,
    ) -> None:
        if topic is not None:  # a last will
            self._publish(topic, data or b"", force_qos or 0)

    def _publish(self, topic: str, data: bytes | bytearray, qos: int) -> None:
        """Send a message to everyone who subscribed to it."""
        for topic_filter, subscribers in self._subscriptions.items():
            if topic_filter == topic or (
                ("+" in topic_filter or "#" in topic_filter) and self._matches(topic, topic_filter)
            ):
                for session, most in subscribers:
                    self._send(session, topic, data, min(qos, most))

    def _send(
        self, session: Session, topic: str, data: bytes | bytearray, qos: int, retain: bool = False
    ) -> None:
        """Send a message to a client, or keep it for one that is away."""
        if session.transitions.state != "connected":
            self._keep(session, topic, data, qos)
            return
        client_id = session.client_id
        handler = self._get_handler(session)
        sending = self._sending.get(client_id, 0)
        if handler is None or sending >= MAX_QUEUED:
            return
        self._sending[client_id] = sending + 1

        def sent(task: asyncio.Task[Any]) -> None:
            left = self._sending.pop(client_id) - 1
            if left:
                self._sending[client_id] = left
            if task.cancelled() or task.exception() is not None:
                self._keep(session, topic, data, qos)

        self._spawn(handler.mqtt_publish(topic, data, qos, retain)).add_done_callback(sent)

    def _keep(self, session: Session, topic: str, data: bytes | bytearray, qos: int) -> None:
        known, _ = self._sessions.get(session.client_id, (None, None))
        if known is session and not session.clean_session and qos and not self._stopping:
            queue = session.retained_messages
            if queue.qsize() < MAX_QUEUED:
                queue.put_nowait(ApplicationMessage(None, topic, qos, data, retain=False))

    async def _cleanup_session(self, client_id: str) -> None:
        session, _ = self._sessions.get(client_id, (None, None))
        if session is not None and session.transitions.state == "connected" and not self._stopping:
            return  # it came back while others were cleaned up
        await super()._cleanup_session(client_id)

    def _spawn(self, work: Any) -> asyncio.Task[Any]:
        """Let work go on beside the connections; what goes wrong in it is nobody's loss."""
        task: asyncio.Task[Any] = asyncio.ensure_future(work)
        self._tasks.add(task)  # a loop holds its tasks weakly
        task.add_done_callback(self._done)
        return task

    def _done(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            task.exception()  # a client that went away; what it was sent is kept


_OF_CONNECTION = (
    "will_flag",
    "will_message",
    "will_qos",
    "will_retain",
    "will_topic",
    "keep_alive",
    "remote_address",
    "remote_port",
)
