"""``offramp live broker``: the embedded broker by itself, until it is told to end."""

from __future__ import annotations

import signal
import threading
from typing import Annotated

import typer

from models.errors import BrokerError
from offramp.console import Console

_LOOK_EVERY_S = 0.2


def broker(
    port: Annotated[
        int, typer.Option(min=0, max=65535, help="Port to listen on; 0 for one that is free.")
    ] = 1883,
    host: Annotated[
        str,
        typer.Option(
            metavar="ADDRESS",
            help="Address to listen on; 0.0.0.0 lets in everyone who reaches this host.",
        ),
    ] = "127.0.0.1",
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print errors only.")] = False,
) -> None:
    """Run an MQTT broker (3.1.1) until Ctrl-C or SIGTERM, with nothing to install or configure.

    It asks nobody for a password and keeps nothing when it ends: for trials. For real devices,
    deploy/README.md sets up Mosquitto.
    """
    from devices.mqtt.embedded_broker import start_embedded_broker

    ended = threading.Event()
    before = {
        number: signal.signal(number, lambda *_: ended.set())
        for number in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        started = start_embedded_broker(port, host)
        try:
            Console(quiet).note(_greeting(host, started.broker.port))
            while not ended.wait(_LOOK_EVERY_S):
                if started.status is not None:
                    raise BrokerError(f"the broker ended with status {started.status}")
        finally:
            started.stop()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _greeting(host: str, port: int) -> str:
    shown = f"[{host}]" if ":" in host else host
    text = f"broker at mqtt://{shown}:{port} (MQTT 3.1.1); Ctrl-C ends it"
    if host not in ("127.0.0.1", "::1", "localhost"):
        text += "; it lets in everyone who reaches this host"
    return text
