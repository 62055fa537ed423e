"""Connections to an MQTT broker: clients that are set up the same way, and the first connection.

Clients are those of paho-mqtt, which has traps that :func:`new_client` is there to avoid: Nagle's
algorithm is left on (88 ms instead of 0.2 ms a round trip at QoS 1), queues are unbounded,
reconnecting starts at one second. Two stay with the caller: subscribe in ``on_connect``, since a
broker may have forgotten the session; and never wait in a callback, since it runs on the thread
that would have to bring what it waits for.
"""

from __future__ import annotations

import math
import random
import secrets
import selectors
import socket
import ssl
import time
from collections.abc import Callable
from functools import lru_cache
from typing import Any, NamedTuple, cast

from paho.mqtt.client import CallbackOnConnect, Client
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from devices.mqtt.broker_address import PASSWORD_VARIABLE, Broker, MqttVersion, parse_broker
from devices.mqtt.connection_problems import (
    CLOSED,
    CLOSED_WITH_CERTIFICATE,
    CLOSED_WITHOUT_CERTIFICATE,
    NO_ANSWER,
    REFUSES_CERTIFICATE,
    WANTS_CERTIFICATE,
    connect_problem,
)
from devices.mqtt.watchful_client import WatchfulClient
from models.errors import BrokerError

__all__ = [
    "NO_ANSWER",
    "PASSWORD_VARIABLE",
    "Broker",
    "MqttVersion",
    "check_broker",
    "connect",
    "connect_problem",
    "disconnect",
    "new_client",
    "parse_broker",
    "send_at_once",
]

#: Of one attempt: TCP and TLS. It is as long as the network thread can be held up.
CONNECT_TIMEOUT_S = 3.0

_VERSIONS = {"3.1.1": MQTTProtocolVersion.MQTTv311, "5": MQTTProtocolVersion.MQTTv5}


def send_at_once(sock: object) -> None:
    """Turn Nagle's algorithm off on a socket of paho (TCP, or TLS around it)."""
    if isinstance(sock, socket.socket):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


def new_client(
    broker: Broker,
    client_id: str,
    *,
    clean: bool = True,
    keepalive_s: float = 15.0,
    receive_maximum: int | None = None,
    session_expiry_s: float = 3600.0,
    in_flight: int = 20,
    queued: int = 1000,
    on_socket_open: Callable[[Client, Any, Any], None] | None = None,
) -> Client:
    """A client of this broker, not yet connected: :func:`connect` it, or ``reconnect()`` it.

    What was refused by a full queue says so (``publish(...).rc`` is ``MQTT_ERR_QUEUE_SIZE``).
    Messages of QoS 0 have no such bound: sent faster than the socket takes them they pile up in
    memory, and ``client.want_write()`` tells it.

    Args:
        clean: the broker forgets subscriptions and messages when the connection ends.
        keepalive_s: promised to the broker, which notices a dead connection after one and a half
            times as long; rounded up to whole seconds. The client notices it within 5 s.
        receive_maximum: messages of QoS 1 and 2 that the broker may send without having an
            acknowledgement (MQTT 5 only).
        session_expiry_s: how long the broker keeps the session of a client that is not clean
            (MQTT 5; with 3.1.1 the broker decides).
        in_flight, queued: messages of QoS 1 and 2 on their way to the broker, and waiting for it.
        on_socket_open: called as paho's callback of that name, after ours. Setting the client's
            attribute instead replaces ours: then call :func:`send_at_once` in yours.

    Raises:
        BrokerError: a certificate or key cannot be used.
    """
    client = WatchfulClient(
        CallbackAPIVersion.VERSION2,
        client_id=client_id,
        protocol=_VERSIONS[broker.version],
        clean_session=None if broker.version == "5" else clean,
    )

    def opened(client: Client, userdata: Any, sock: Any) -> None:
        send_at_once(sock)
        if on_socket_open is not None:
            on_socket_open(client, userdata, sock)

    client.on_socket_open = opened
    client.connect_timeout = CONNECT_TIMEOUT_S
    client.max_inflight_messages_set(in_flight)
    client.max_queued_messages_set(queued)
    # Drawn per client, so that a fleet does not come back in step after a broker's restart.
    client.reconnect_delay_set(
        min_delay=random.uniform(0.1, 0.2),  # type: ignore[arg-type]  # any number will do
        max_delay=random.uniform(1.5, 2.0),  # type: ignore[arg-type]
    )
    if broker.username is not None:
        client.username_pw_set(broker.username, broker.password)
    if broker.tls:
        client.tls_set_context(_tls_context(broker))
    properties = None
    if broker.version == "5":
        properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
        if not clean:
            properties.SessionExpiryInterval = math.ceil(session_expiry_s)
        if receive_maximum is not None:
            properties.ReceiveMaximum = receive_maximum
    client.connect_async(
        broker.host,
        broker.port,
        keepalive=max(1, math.ceil(keepalive_s)),
        clean_start=clean if broker.version == "5" else 3,  # 3: as paho's default
        properties=properties,
    )
    return client


@lru_cache(maxsize=8)  # 20 ms and a megabyte each: a fleet of hundreds shares one
def _tls_context(broker: Broker) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=broker.ca)  # checks host names
    except (ssl.SSLError, OSError) as error:
        raise BrokerError(f"{broker.ca} holds no certificate to trust (PEM)") from error
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if broker.cert is not None:
        try:
            # Without a password OpenSSL would ask for one at the terminal, and wait.
            context.load_cert_chain(broker.cert, broker.key, password="")
        except (ssl.SSLError, OSError) as error:
            raise BrokerError(
                f"{broker.cert} and {broker.key} are no certificate and its unencrypted key (PEM)"
            ) from error
    return context


def connect(
    client: Client,
    broker: Broker,
    timeout_s: float = 5.0,
    *,
    wait_s: float = 0.0,
    go_on: Callable[[], bool] = lambda: True,
) -> None:
    """Connect a client of :func:`new_client` for the first time and start its network thread.

    The first ``on_connect`` is called on the caller's thread, all later callbacks on the network
    thread, which reconnects from then on.

    Args:
        timeout_s: until an attempt has failed.
        wait_s: a broker that is not there (yet) is tried again for so long; one that refuses the
            client is not.
        go_on: asked about once a second meanwhile, whether to try again.

    Raises:
        BrokerError: whatever went wrong, in one sentence; nothing was started.
    """
    until_s = time.monotonic() + wait_s
    while (failure := _attempt(client, broker, timeout_s)) is not None:
        left_s = until_s - time.monotonic()
        if left_s <= 0 or not failure.passing or not go_on():
            raise BrokerError(f"no connection to {broker.url}: {failure.problem}")
        time.sleep(min(1.0, left_s))
    client.loop_start()


class _Failure(NamedTuple):
    problem: str
    passing: bool  # it may be gone in a while


def _attempt(client: Client, broker: Broker, timeout_s: float) -> _Failure | None:
    """Connect on this thread; None where that worked."""
    refused: list[ReasonCode] = []
    logged: list[str] = []
    on_connect = cast(Callable[..., None] | None, client.on_connect)
    on_disconnect, on_log = client.on_disconnect, client.on_log

    def heard(client: Client, userdata: Any, flags: Any, reason: Any, properties: Any) -> None:
        if reason.is_failure:
            refused.append(reason)
        elif on_connect is not None:
            on_connect(client, userdata, flags, reason, properties)

    client.on_connect = heard
    client.on_disconnect = None
    client.on_log = lambda client, userdata, level, text: logged.append(text)
    until_s = time.monotonic() + timeout_s
    failure: _Failure | None = None
    try:
        client.reconnect()
        while failure is None and not client.is_connected():
            if time.monotonic() > until_s:
                failure = _Failure(NO_ANSWER, passing=True)
            elif not _exchange(client, within_s=0.05) or refused:
                failure = _refused(broker, refused[0]) if refused else _closed(broker, logged)
    except (OSError, UnicodeError) as error:
        failure = _Failure(connect_problem(error), passing=not isinstance(error, ssl.SSLError))
    finally:
        if not client.is_connected():
            client.disconnect()
            _close_sockets(client)
        client.on_connect = cast(CallbackOnConnect | None, on_connect)
        client.on_disconnect, client.on_log = on_disconnect, on_log
    return failure


def _exchange(client: Client, within_s: float) -> bool:
    """Write and read what can be; whether the connection still stands.

    As paho's ``loop``, which leaves a pair of sockets open when the thread is started after it.
    """
    sock = client.socket()
    if sock is None:
        return False
    with selectors.DefaultSelector() as selector:
        writing = selectors.EVENT_WRITE if client.want_write() else 0
        selector.register(sock, selectors.EVENT_READ | writing)
        ready = sum(events for _, events in selector.select(within_s))
    rc = MQTTErrorCode.MQTT_ERR_SUCCESS
    if ready & selectors.EVENT_READ:
        rc = client.loop_read()
    if ready & selectors.EVENT_WRITE and rc == MQTTErrorCode.MQTT_ERR_SUCCESS:
        rc = client.loop_write()
    return rc == MQTTErrorCode.MQTT_ERR_SUCCESS


def _close_sockets(client: Client) -> None:
    # paho leaves its pair of sockets, and after a refusal its connection, to the garbage collector.
    client._reset_sockets()


def _refused(broker: Broker, reason: ReasonCode) -> _Failure:
    if broker.username is None and reason.value in (0x86, 0x87):
        return _Failure("it wants a user and a password", passing=False)
    return _Failure(connect_problem(reason), passing=reason.value in (0x88, 0x89, 0x9F))


def _closed(broker: Broker, logged: list[str]) -> _Failure:
    """Why a connection ended before CONNECT was answered, from the lines that paho logged."""
    text = " ".join(logged).upper().replace("_", " ")
    if "CERTIFICATE REQUIRED" in text or "HANDSHAKE FAILURE" in text:
        return _Failure(WANTS_CERTIFICATE, passing=False)
    if "ALERT" in text and ("CERTIFICATE" in text or "UNKNOWN CA" in text):
        return _Failure(REFUSES_CERTIFICATE, passing=False)
    if not broker.tls:
        return _Failure(CLOSED, passing=True)
    return _Failure(
        CLOSED_WITH_CERTIFICATE if broker.cert else CLOSED_WITHOUT_CERTIFICATE, passing=True
    )


def disconnect(client: Client) -> None:
    """Say goodbye to the broker, so that it sends no last will, and end the network thread.

    Not to be called in a callback: it waits for the thread that callbacks run on.
    """
    client.disconnect()
    client.loop_stop()
    _close_sockets(client)


def check_broker(broker: Broker, timeout_s: float = 5.0, *, may_come: bool = False) -> None:
    """Connect once and leave again.

    Args:
        may_come: a broker that is not there (yet) is none of the caller's business now; one that
            refuses the client is.

    Raises:
        BrokerError: as :func:`connect`.
    """
    client = new_client(broker, f"offramp-check-{secrets.token_hex(4)}")
    failure = _attempt(client, broker, timeout_s)
    if failure is None:
        client.loop_start()
        disconnect(client)
    elif not (failure.passing and may_come):
        raise BrokerError(f"no connection to {broker.url}: {failure.problem}")
