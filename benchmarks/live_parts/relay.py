"""A network between two namespaces, emulated by a program: delay, jitter, loss and bandwidth.

For kernels without netem. Each namespace has a tun device; what one sends, the relay gives to the
other after the link was free for it and its delay has passed. Packets of one TCP connection keep
their order, as on a real path.

    python -m live_parts.relay NAMESPACE NAMESPACE '{"offramp0": {"delay_ms": 20, ...}, ...}'

prints a line when the named devices are there in both, and runs until SIGTERM.
"""

from __future__ import annotations

import ctypes
import fcntl
import heapq
import json
import math
import os
import random
import select
import struct
import sys
import time
from dataclasses import dataclass

_TUNSETIFF, _IFF_TUN, _IFF_NO_PI = 0x400454CA, 0x0001, 0x1000
_CLONE_NEWNET = 0x40000000
_LARGEST = 65536
#: A link with so many seconds of packets before it drops what comes, as a router would.
_MOST_WAITING_S = 1.0
#: Packets of a connection that follow one another so soon are delayed alike: they meet the same
#: queues, and a message is delayed as a packet is.
_TOGETHER_S = 0.005


@dataclass(frozen=True)
class Shape:
    """What happens to packets, in each direction alike.

    Attributes:
        delay_ms, jitter_ms: uniform between their difference and their sum, drawn anew for a
            connection that has paused.
        loss_percent: of packets.
        bandwidth_mbps: of all connections together; None: unlimited.
    """

    delay_ms: float = 0.0
    jitter_ms: float = 0.0
    loss_percent: float = 0.0
    bandwidth_mbps: float | None = None


class Direction:
    """Packets on their way from one device to the other."""

    def __init__(self, shape: Shape, source: int, sink: int, seed: int) -> None:
        self.source, self._sink = source, sink
        self._shape = shape
        self._random = random.Random(seed)
        self._free_s = 0.0
        # Of each connection: when it last sent, the delay then, and when that arrives.
        self._flows: dict[bytes, tuple[float, float, float]] = {}
        self._due: list[tuple[float, int, bytes]] = []
        self._count = 0

    def take(self, now_s: float) -> None:
        """Read what was sent."""
        while True:
            try:
                packet = os.read(self.source, _LARGEST)
            except BlockingIOError:
                return
            self._send(packet, now_s)

    def _send(self, packet: bytes, now_s: float) -> None:
        shape, draw = self._shape, self._random
        if draw.random() * 100 < shape.loss_percent:
            return
        sent_s = now_s
        if shape.bandwidth_mbps:
            begins_s = max(now_s, self._free_s)
            if begins_s - now_s > _MOST_WAITING_S:
                return
            self._free_s = sent_s = begins_s + 8 * len(packet) / (1e6 * shape.bandwidth_mbps)
        flow = _flow(packet)
        before_s, delay_s, last_s = self._flows.get(flow, (-math.inf, 0.0, 0.0))
        if now_s - before_s > _TOGETHER_S:
            delay_ms = shape.delay_ms + shape.jitter_ms * draw.uniform(-1, 1)
            delay_s = 1e-3 * max(0.0, delay_ms)
        there_s = max(sent_s + delay_s, last_s)
        self._flows[flow] = now_s, delay_s, there_s
        self._count += 1
        heapq.heappush(self._due, (there_s, self._count, packet))

    def deliver(self, now_s: float) -> float:
        """Give what is due; returns when the next packet is, infinity if there is none."""
        while self._due and self._due[0][0] <= now_s:
            try:
                os.write(self._sink, heapq.heappop(self._due)[2])
            except OSError:
                continue  # its device is full or down: a loss like any other
        return self._due[0][0] if self._due else float("inf")


def _flow(packet: bytes) -> bytes:
    """Addresses and ports of an IPv4 packet; what is none of TCP is a flow of its own."""
    if len(packet) < 24 or packet[0] >> 4 != 4 or packet[9] != 6:
        return b""
    header = (packet[0] & 15) * 4
    return packet[12:20] + packet[header : header + 4]


def open_device(namespace: str, name: str) -> int:
    """A tun device in a network namespace."""
    libc = ctypes.CDLL(None, use_errno=True)
    with open(f"/run/netns/{namespace}", "rb") as file:
        if libc.setns(file.fileno(), _CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), f"cannot enter namespace {namespace}")
    device = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(device, _TUNSETIFF, struct.pack("16sH22x", name.encode(), _IFF_TUN | _IFF_NO_PI))
    return device


def _before_all_others() -> None:
    """A network waits for no processor: run before every ordinary process of the host."""
    try:
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
    except OSError as error:
        print(f"packets wait for a processor, as other programs do: {error}", file=sys.stderr)


def main() -> None:
    first, second, shapes = sys.argv[1], sys.argv[2], json.loads(sys.argv[3])
    ways = list[Direction]()
    for name, keys in shapes.items():
        one, other = open_device(first, name), open_device(second, name)
        seed = 2 * len(ways)
        ways.append(Direction(Shape(**keys), one, other, seed + 1))
        ways.append(Direction(Shape(**keys), other, one, seed + 2))
    sources = [way.source for way in ways]
    _before_all_others()
    print("ready", flush=True)
    next_s = float("inf")
    while True:
        # select, since epoll rounds up to milliseconds.
        left_s = max(0.0, next_s - time.monotonic())
        readable = select.select(sources, [], [], None if left_s == float("inf") else left_s)
        for way in ways:
            if way.source in readable[0]:
                way.take(time.monotonic())
        next_s = min(way.deliver(time.monotonic()) for way in ways)


if __name__ == "__main__":
    main()
