"""What nodes say of themselves, seen from the devices: their retained status."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from paho.mqtt.client import MQTTMessage

from devices.protocol.messages import BadStatus, NodeStatus, decode_status
from devices.protocol.topics import node_of, status_filter
from models.errors import LiveError

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


def boot_id() -> str:
    """What tells this boot of this machine from all others; empty where the system has none."""
    try:
        return _BOOT_ID.read_text(encoding="ascii").strip()
    except OSError:
        return ""


class NodeWatch:
    """Keeps the last status of every node of some edges.

    Attributes:
        nodes: the last status of each, by edge and name.
    """

    def __init__(self, edges: Sequence[str]) -> None:
        self._edges = edges
        self.nodes: dict[tuple[str, str], NodeStatus] = {}
        #: Every machine on which a node of this name ran.
        self._boot_ids: dict[str, set[str]] = {}
        self._changed = asyncio.Event()

    @property
    def topics(self) -> list[str]:
        """What to subscribe to."""
        return [status_filter(edge) for edge in self._edges]

    def heard(self, message: MQTTMessage) -> None:
        """A status came; what is none is ignored."""
        for edge in self._edges:
            name = node_of(message.topic, edge)
            if name is None:
                continue
            try:
                status = decode_status(message.payload)
            except BadStatus:
                return
            self.nodes[edge, name] = status
            if status.boot_id:
                self._boot_ids.setdefault(name, set()).add(status.boot_id)
            self._changed.set()

    @property
    def online(self) -> tuple[str, ...]:
        """Names of the nodes that say they are."""
        found = (name for (_, name), status in self.nodes.items() if status.state == "online")
        return tuple(sorted(found))

    def shares_clock(self, name: str) -> bool:
        """Whether the monotonic clock of a node is ours: it ran on this machine and no other."""
        here = boot_id()
        return bool(here) and self._boot_ids.get(name) == {here}

    async def wait_online(
        self, expected: Mapping[str, Sequence[str]], within_s: float, where: str
    ) -> None:
        """Wait until all nodes of each edge say that they are online.

        Args:
            expected: names of the nodes of each edge.
            where: the broker, for messages.

        Raises:
            LiveError: some are not there in time; the message says what is known of each.
        """
        until_s = time.monotonic() + within_s
        while True:
            missing = [
                (edge, name)
                for edge, names in expected.items()
                for name in names
                if self._state(edge, name) != "online"
            ]
            if not missing:
                return
            left_s = until_s - time.monotonic()
            if left_s <= 0:
                states = ", ".join(
                    f"{name!r} ({self._state(*it)})" for it in missing if (name := it[1])
                )
                raise LiveError(
                    f"after {within_s:g} s not all nodes are online at {where}: {states}; start "
                    "them with `offramp live edge`"
                )
            self._changed.clear()
            try:
                await asyncio.wait_for(self._changed.wait(), min(left_s, math.ceil(within_s)))
            except TimeoutError:
                continue

    def _state(self, edge: str, name: str) -> str:
        status = self.nodes.get((edge, name))
        return status.state if status else "never heard of"
