"""A broker that needs no installation: amqtt in a process of its own.

It speaks MQTT 3.1.1, lets everyone in that reaches its address (by default programs on this host
only), and forgets everything when it ends; :mod:`devices.mqtt.amqtt_broker` says what it does.

``python -m devices.mqtt.embedded_broker HOST PORT`` is the process: it writes one line of JSON,
with its ``port`` or an ``error``, and serves until SIGTERM.
"""

from __future__ import annotations

import asyncio
import errno
import json
import logging
import os
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

from devices.frozen_heap import frozen_heap
from devices.mqtt.connections import Broker
from models.errors import BrokerError

#: Importing amqtt takes about a second, more on a busy host or a Raspberry Pi.
START_WITHIN_S = 60.0
#: Asked to end, it has so long until it is killed.
STOP_WITHIN_S = 5.0


@dataclass(frozen=True)
class BrokerProcess:
    """A broker that was started; it ends with this process at the latest."""

    broker: Broker
    process: subprocess.Popen[bytes]

    @property
    def status(self) -> int | None:
        """Its exit status, negative for a signal; None while it runs."""
        return self.process.poll()

    def stop(self) -> None:
        """End it and its connections; nothing where it has ended."""
        if self.process.poll() is None:
            self.process.terminate()
        try:
            self.process.wait(STOP_WITHIN_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def start_embedded_broker(port: int = 0, host: str = "127.0.0.1") -> BrokerProcess:
    """Start a broker and return once it listens.

    Call it from a thread that lives as long as the broker is needed (on Linux the broker ends with
    this thread).

    Args:
        port: to listen on; 0 for one that is free.
        host: address to listen on; the default is reached from this host only.

    Raises:
        BrokerError: the port is in use or not allowed, or the process does not start.
    """
    if not 0 <= port <= 65535:
        raise BrokerError(f"port {port}: a port is a number from 1 to 65535, or 0 for a free one")
    # -P: a file of the working folder must not stand in for one of our packages.
    command = [sys.executable, "-P", "-m", "devices.tether", str(os.getpid())]
    process = subprocess.Popen(
        [*command, "devices.mqtt.embedded_broker", host, str(port)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        start_new_session=True,  # Ctrl-C reaches us only, and we stop it in our order
    )
    try:
        said = _first_line(process)
    except BaseException:
        process.kill()
        process.wait()
        raise
    finally:
        if process.stdout is not None:
            process.stdout.close()
    if "error" in said:
        process.wait()
        raise BrokerError(f"no broker can listen on {_shown(host, port)}: {said['error']}")
    broker = Broker(_reached_at(host), said["port"], version="3.1.1")
    return BrokerProcess(broker, process)


@contextmanager
def embedded_broker(port: int = 0, host: str = "127.0.0.1") -> Iterator[Broker]:
    """A broker for the length of a ``with``; see :func:`start_embedded_broker`."""
    started = start_embedded_broker(port, host)
    try:
        yield started.broker
    finally:
        started.stop()


def _first_line(process: subprocess.Popen[bytes]) -> dict[str, Any]:
    assert process.stdout is not None
    if not select.select([process.stdout], [], [], START_WITHIN_S)[0]:
        raise BrokerError(f"the embedded broker did not start within {START_WITHIN_S:g} s")
    line = process.stdout.readline()
    if not line:
        status = process.wait()
        raise BrokerError(f"the embedded broker ended with status {status} before it listened")
    said: dict[str, Any] = json.loads(line)
    return said


def _shown(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _reached_at(host: str) -> str:
    """The address under which this host reaches a listener."""
    return {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)


def _listen(host: str, port: int) -> socket.socket:
    family, *_, address = socket.getaddrinfo(
        host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )[0]
    sock = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        if sys.platform != "win32":  # there it would let two brokers listen on one port
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(address)
        sock.listen(1024)
    except BaseException:
        sock.close()
        raise
    return sock


def _say(**what: object) -> None:
    print(json.dumps(what), flush=True)


async def _serve(sock: socket.socket) -> None:
    from devices.mqtt.amqtt_broker import EmbeddedBroker

    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        with suppress(NotImplementedError):  # Windows ends the process at once instead
            loop.add_signal_handler(number, stopping.set)
    broker = EmbeddedBroker()
    await broker.start()
    server = await asyncio.start_server(broker.serve, sock=sock)
    with frozen_heap():
        _say(port=sock.getsockname()[1])
        await stopping.wait()
    server.close()
    await broker.shutdown()


def _allow_many_connections() -> None:
    with suppress(ImportError, ValueError, OSError):
        import resource

        _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def main() -> None:
    """The process: listen, say so, serve."""
    host, port = sys.argv[1], int(sys.argv[2])
    try:
        sock = _listen(host, port)
    except (OSError, OverflowError) as error:
        _say(error=_why(error))
        sys.exit(2)
    logging.disable(logging.CRITICAL)  # amqtt logs every packet and every client that goes away
    _allow_many_connections()
    asyncio.run(_serve(sock))


def _why(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        text = "the port is in use" if error.errno == errno.EADDRINUSE else error.strerror
        return text[0].lower() + text[1:]
    return str(error)


if __name__ == "__main__":
    main()
