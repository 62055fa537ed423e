"""A TCP proxy between broker and node that times how soon the node acknowledges (QoS 1)."""

from __future__ import annotations

import selectors
import socket
import time
from multiprocessing.connection import Connection

from live_parts.wire import PUBACK, PUBLISH, message_id_at, send_at_once, take_packets


def run_proxy(broker_port: int, control: Connection) -> None:
    """Tell ``control`` the port, then at each message of its what was timed since the last one.

    What is timed runs from when a PUBLISH of the broker was handed to the node's socket until the
    PUBACK with its identifier is here, in seconds. Ends when ``control`` is closed.
    """
    with socket.create_server(("127.0.0.1", 0)) as server:
        control.send(server.getsockname()[1])
        node, _ = server.accept()
    broker = socket.create_connection(("127.0.0.1", broker_port))
    send_at_once(node)
    send_at_once(broker)
    selector = selectors.DefaultSelector()
    for source in (node, broker, control):
        selector.register(source, selectors.EVENT_READ)
    buffers = {node: bytearray(), broker: bytearray()}
    sent_s: dict[bytes, float] = {}
    waited_s: list[float] = []
    while True:
        for key, _ in selector.select():
            source = key.fileobj
            if source is control:
                try:
                    control.recv()
                except EOFError:
                    return
                control.send(waited_s)
                waited_s = []
                continue
            assert isinstance(source, socket.socket)
            data = source.recv(1 << 16)
            now_s = time.perf_counter()
            if not data:
                return
            (broker if source is node else node).sendall(data)
            if source is broker:
                now_s = time.perf_counter()
            buffers[source] += data
            for first, body in take_packets(buffers[source]):
                if source is broker and first >> 4 == PUBLISH and first & 6:
                    at = message_id_at(body)
                    sent_s[body[at : at + 2]] = now_s
                elif source is node and first >> 4 == PUBACK:
                    waited_s.append(now_s - sent_s.pop(body[:2]))
