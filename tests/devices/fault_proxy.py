"""A TCP proxy in front of a broker that does what networks do to MQTT connections."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

PUBLISH, PUBACK = 3, 4

#: Whether a packet is swallowed: it comes from the client, its type, its first byte.
Swallow = Callable[[bool, int, int], bool]


class _Connection:
    """One client's connection, and the one to the broker behind it."""

    def __init__(self, client: asyncio.StreamWriter, broker: asyncio.StreamWriter) -> None:
        self.client, self.broker = client, broker
        self.silent = False

    def cut(self) -> None:
        for end in (self.client, self.broker):
            end.transport.abort()


class FaultProxy:
    """Forwards MQTT packets to ``127.0.0.1:broker_port`` until it is told not to.

    It runs on a thread of its own; all methods may be called from any other.
    """

    def __init__(self, broker_port: int) -> None:
        self.swallowed = 0
        self._broker_port = broker_port
        self._swallow: Swallow | None = None
        self._connections: set[_Connection] = set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="fault-proxy")
        self._thread.start()
        self._server = self._do(asyncio.start_server(self._serve, "127.0.0.1", 0))
        self.port: int = self._server.sockets[0].getsockname()[1]

    def go_silent(self) -> None:
        """All connections stay open, and nothing comes through them any more; new ones work."""

        async def silence() -> None:
            for connection in self._connections:
                connection.silent = True

        self._do(silence())

    def cut(self) -> None:
        """End all connections without a DISCONNECT; new ones work."""

        async def cut() -> None:
            for connection in list(self._connections):
                connection.cut()

        self._do(cut())

    def swallow_one(self, packet: Swallow) -> None:
        """Lose the next packet of which ``packet`` is true, and cut its connection."""
        self._swallow = packet

    def close(self) -> None:
        async def end() -> None:
            self._server.close()
            for connection in list(self._connections):
                connection.cut()
            tasks = asyncio.all_tasks() - {asyncio.current_task()}
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await asyncio.sleep(0.01)  # transports close in the next round

        self._do(end())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _do(self, work):  # type: ignore[no-untyped-def]
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(10)

    async def _serve(self, up: asyncio.StreamReader, client: asyncio.StreamWriter) -> None:
        try:
            down, broker = await asyncio.open_connection("127.0.0.1", self._broker_port)
        except OSError:  # no broker: as if nothing listened here
            client.transport.abort()
            return
        connection = _Connection(client, broker)
        self._connections.add(connection)
        try:
            with suppress(asyncio.CancelledError):
                await asyncio.gather(
                    self._forward(connection, up, broker, True),
                    self._forward(connection, down, client, False),
                )
        finally:
            connection.cut()
            self._connections.discard(connection)

    async def _forward(
        self,
        connection: _Connection,
        source: asyncio.StreamReader,
        sink: asyncio.StreamWriter,
        from_client: bool,
    ) -> None:
        with suppress(OSError, asyncio.IncompleteReadError):
            while True:
                first, packet = await _packet(source)
                if connection.silent:
                    continue
                if self._swallow is not None and self._swallow(from_client, first >> 4, first):
                    self._swallow = None
                    self.swallowed += 1
                    break
                sink.write(packet)
                await sink.drain()
        # Who has gone quiet does not pass the end of the other side on either.
        if not connection.silent:
            connection.cut()


async def _packet(source: asyncio.StreamReader) -> tuple[int, bytes]:
    """The next packet and its first byte (MQTT, section 2.1)."""
    head = await source.readexactly(1)
    length, shift = 0, 0
    while True:
        digit = await source.readexactly(1)
        head += digit
        length |= (digit[0] & 0x7F) << shift
        shift += 7
        if not digit[0] & 0x80:
            return head[0], head + await source.readexactly(length)


@contextmanager
def fault_proxy(broker_port: int) -> Iterator[FaultProxy]:
    proxy = FaultProxy(broker_port)
    try:
        yield proxy
    finally:
        proxy.close()
