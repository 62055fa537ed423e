"""One connection to the embedded broker: its packets, read with amqtt and handed on in order.

Why not with amqtt alone is said in :mod:`devices.mqtt.amqtt_broker`.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from amqtt.adapters import StreamReaderAdapter
from amqtt.errors import MQTTError
from amqtt.mqtt import packet_class
from amqtt.mqtt.constants import QOS_1, QOS_2
from amqtt.mqtt.disconnect import DisconnectPacket
from amqtt.mqtt.packet import (
    DISCONNECT,
    PINGREQ,
    PUBACK,
    PUBCOMP,
    PUBLISH,
    PUBREC,
    PUBREL,
    SUBSCRIBE,
    UNSUBSCRIBE,
    MQTTFixedHeader,
)
from amqtt.mqtt.protocol.broker_handler import BrokerProtocolHandler
from amqtt.mqtt.puback import PubackPacket
from amqtt.mqtt.pubcomp import PubcompPacket
from amqtt.mqtt.publish import PublishPacket
from amqtt.mqtt.pubrec import PubrecPacket
from amqtt.mqtt.pubrel import PubrelPacket
from amqtt.session import IncomingApplicationMessage

if TYPE_CHECKING:
    from devices.mqtt.amqtt_broker import EmbeddedBroker

#: The largest packet that is read.
MAX_PACKET_BYTES = 2 * 1024 * 1024
#: Messages of QoS 2 that a client may have sent and not released; more end its connection.
MAX_UNRELEASED = 1000


class PacketReader(StreamReaderAdapter):  # type: ignore[misc]  # amqtt is not typed
    """Reads nothing that is larger than a packet may be: amqtt has no limit of its own."""

    async def read(self, n: int = -1) -> bytes:
        """Read ``n`` bytes; ``ValueError``, which ends the connection, where that is too much."""
        if n > MAX_PACKET_BYTES:
            raise ValueError(f"{n} bytes are more than a packet may have")
        return bytes(await super().read(n))


class Connection(BrokerProtocolHandler):  # type: ignore[misc]
    """The packets of one connection, read one after the other.

    amqtt's own handler skips over packets that it cannot read, and reads faster than it delivers.
    """

    broker: EmbeddedBroker

    def __init__(self, *arguments: Any, **settings: Any) -> None:
        super().__init__(*arguments, **settings)
        self._goodbye: asyncio.Future[DisconnectPacket | None] = asyncio.Future()

    async def handle_disconnect(self, disconnect: DisconnectPacket | None) -> None:
        """The client said goodbye, or (None) is gone."""
        if not self._goodbye.done():
            self._goodbye.set_result(disconnect)

    async def wait_disconnect(self) -> DisconnectPacket | None:
        """As amqtt's, which loses a goodbye that was said before it is waited for."""
        return await asyncio.shield(self._goodbye)

    async def stop(self) -> None:
        """End the connection."""
        await super().stop()
        await self.handle_disconnect(None)

    async def _reader_loop(self) -> None:
        self._reader_ready.set()
        silent_s = self.session.keep_alive or None
        try:
            while True:
                async with asyncio.timeout(silent_s):
                    header = await MQTTFixedHeader.from_stream(self.reader)
                    if header is None:
                        break
                    packet = await packet_class(header).from_stream(self.reader, header)
                await getattr(self, _HANDLERS[header.packet_type])(packet)
                if header.packet_type == DISCONNECT:
                    break
        except asyncio.CancelledError:
            pass  # the connection is ended from our side
        except Exception:  # silence, or what is no MQTT: struct.error, KeyError, …
            pass
        await self.handle_connection_closed()
        self._reader_stopped.set()
        await self.stop()

    async def handle_publish(self, publish_packet: PublishPacket) -> None:
        """Hand a message on, at QoS 2 once it is released (MQTT 3.1.1, section 4.3.3)."""
        packet_id, qos = publish_packet.packet_id, publish_packet.qos
        if qos > QOS_2:
            raise MQTTError("there is no QoS 3")
        message = IncomingApplicationMessage(
            packet_id,
            publish_packet.topic_name,
            qos,
            publish_packet.data,
            publish_packet.retain_flag,
        )
        if qos != QOS_2:
            await self.broker.accept(self.session, message)
            if qos == QOS_1:
                await self._send_packet(PubackPacket.build(packet_id))
            return
        waiting = self.session.inflight_in
        if packet_id not in waiting and len(waiting) >= MAX_UNRELEASED:
            raise MQTTError("too many messages that are not released")
        waiting[packet_id] = message
        await self._send_packet(PubrecPacket.build(packet_id))

    async def handle_pubrel(self, pubrel: PubrelPacket) -> None:
        """Answer also where the message came on an earlier connection, or never."""
        message = self.session.inflight_in.pop(pubrel.packet_id, None)
        if message is not None:
            await self.broker.accept(self.session, message)
        await self._send_packet(PubcompPacket.build(pubrel.packet_id))

    async def _retry_deliveries(self) -> None:
        """Nothing: the broker kept what was not acknowledged, and sends it."""


# All else that a client sends is a breach of protocol, and ends its connection.
_HANDLERS = {
    PUBLISH: "handle_publish",
    PUBACK: "handle_puback",
    PUBREC: "handle_pubrec",
    PUBREL: "handle_pubrel",
    PUBCOMP: "handle_pubcomp",
    SUBSCRIBE: "handle_subscribe",
    UNSUBSCRIBE: "handle_unsubscribe",
    PINGREQ: "handle_pingreq",
    DISCONNECT: "handle_disconnect",
}
