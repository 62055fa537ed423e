"""The edge nodes of a live run on this machine, one process each."""

from __future__ import annotations

import socket
import threading
import time
import urllib.request
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from devices.mqtt.connections import Broker, connect, disconnect, new_client
from devices.processes import Part, Parts
from devices.protocol.messages import BadStatus, NodeStatus, decode_status
from devices.protocol.topics import node_of, status_filter
from models.errors import LiveError

#: Exit status of a command that ended for a reason that the user can mend: again, it would too.
_MENDABLE = 2

#: How often nodes that died are started again while one arm is measured.
_RESTARTS = 5

#: What a node imports before anything else, and what takes longest of its start.
_IMPORTS = (
    "torch",
    "torchvision",
    "devices.node.edge",
    "models.checkpoint",
    "models.inference.runtimes",
    "offramp.live.node_parts",
)

#: Retained messages come at once after a subscription.
_RETAINED_WITHIN_S = 0.5

#: How the metrics of a node call the requests that wait there.
_QUEUE_METRIC = "offramp_edge_queue_requests"
_ASK_EVERY_S = 1.0


@dataclass(frozen=True)
class NodeCommand:
    """How one node is started.

    Attributes:
        edge, node: its kind and its own name.
        arguments: of ``offramp``, without the port of its metrics.
        metrics_port: on this host; ``metrics_host``: address on which it can be scraped.
        processors: that it has for itself; None: it shares those of this process.
    """

    edge: str
    node: str
    arguments: tuple[str, ...]
    metrics_port: int
    metrics_host: str
    processors: tuple[int, ...] | None = None


class EdgeNodes:
    """The nodes of one arm; a context manager that stops them.

    Attributes:
        notes: what happened to them.
    """

    def __init__(
        self, parts: Parts, commands: Sequence[NodeCommand], environment: dict[str, str]
    ) -> None:
        self.notes: list[str] = []
        self._parts = parts
        self._environment = environment
        self._restarts = 0
        self._queued: int | None = None
        self._asked_at_s = 0.0
        self._running = {command: self._start(command, parts.start) for command in commands}
        # Beside the nodes' own start, so that nothing is imported while devices send.
        parts.stand_by(_IMPORTS, environment)

    def __enter__(self) -> EdgeNodes:
        return self

    def __exit__(self, *error: object) -> None:
        self._parts.stop(*self._running.values())

    def _start(self, command: NodeCommand, start: Callable[..., Part]) -> Part:
        metrics = ("--metrics-port", str(command.metrics_port))
        arguments = [*command.arguments, *metrics, "--metrics-host", command.metrics_host]
        return start(
            f"node {command.node}",
            "offramp",
            arguments,
            environment=self._environment,
            processors=command.processors,
        )

    def look_after(self, measuring: bool) -> None:
        """See whether all are there, and start one again that died while devices send.

        What was asked meanwhile is lost, and recorded so.

        Raises:
            LiveError: one ended, and will not be better for being started again.
        """
        for command, part in self._running.items():
            if part.status is None:
                continue
            if not measuring or part.status == _MENDABLE or self._restarts >= _RESTARTS:
                raise LiveError(part.obituary())
            self._restarts += 1
            how = part.obituary().splitlines()[0].partition(";")[0]
            self.notes.append(f"{how} while it was measured, and was started again")
            self._running[command] = self._start(command, self._parts.start_at_once)
            self._parts.stand_by(_IMPORTS, self._environment)

    def queued(self) -> int | None:
        """Requests that wait at all of them, as far as is known; asked about once a second."""
        now_s = time.monotonic()
        if now_s - self._asked_at_s >= _ASK_EVERY_S:
            self._asked_at_s = now_s
            lengths = [_queue_length(command.metrics_port) for command in self._running]
            known = [length for length in lengths if length is not None]
            self._queued = sum(known) if known else None
        return self._queued


def _queue_length(port: int) -> int | None:
    """Requests that wait at the node with this port of metrics; None if it does not say."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=0.2) as answer:
            lines = answer.read(1_000_000).decode(errors="replace").splitlines()
        return next(int(float(it.split()[-1])) for it in lines if it.startswith(_QUEUE_METRIC))
    except (OSError, ValueError, StopIteration):
        return None


def free_port() -> int:
    """A port on which nobody listens now."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


def nodes_online(broker: Broker, edges: Sequence[str]) -> dict[str, NodeStatus]:
    """Status of every node of some edges that is online at a broker, by name.

    Raises:
        BrokerError: the broker cannot be reached.
    """
    found: dict[str, NodeStatus] = {}
    subscribed = threading.Event()
    client = new_client(broker, "")

    def on_connect(*_: object) -> None:
        client.subscribe([(status_filter(edge), 1) for edge in edges])

    def on_message(client: object, userdata: object, message: object) -> None:
        topic, payload = message.topic, bytes(message.payload)  # type: ignore[attr-defined]
        name = next((it for edge in edges if (it := node_of(topic, edge))), None)
        try:
            status = decode_status(payload)
        except BadStatus:
            return
        if name is not None and status.state == "online":
            found[name] = status

    client.on_connect = on_connect
    client.on_subscribe = lambda *_: subscribed.set()
    client.on_message = on_message
    connect(client, broker)
    try:
        subscribed.wait(5.0)
        time.sleep(_RETAINED_WITHIN_S)
    finally:
        disconnect(client)
    return found
