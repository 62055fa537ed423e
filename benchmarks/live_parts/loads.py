"""Loads on a server, from a process of its own: so many requests in flight, for so long."""

from __future__ import annotations

import signal
import time
from collections import deque
from dataclasses import dataclass
from itertools import count
from multiprocessing.connection import Connection

import numpy as np
from live_parts.wire import WireClient

from devices.protocol.messages import InferenceRequest, encode_request

#: A raw image of CIFAR's size, as a device sends it.
IMAGE = np.random.default_rng(0).integers(0, 256, 3 * 32 * 32, np.uint8).tobytes()
DEADLINE_S = 60.0
WARM_UP_S = 0.2
NUMBERS = count(1)


@dataclass(frozen=True)
class Load:
    """Attributes: ``server`` by its name; ``in_flight`` requests at any time, but for pauses."""

    server: str
    qos: int
    in_flight: int
    seconds: float
    pause_s: float = 0.0
    warm_up_s: float = WARM_UP_S


@dataclass(frozen=True)
class Outcome:
    """Attributes: each round trip; the beginning of each reply; how long it all took."""

    round_trips_s: list[float]
    replies: list[bytes]
    seconds: float

    @property
    def rate_hz(self) -> float:
        return len(self.round_trips_s) / self.seconds


def run_loads(port: int, control: Connection) -> None:
    """Do each load that comes through ``control``, and answer with its outcome."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    clients: dict[tuple[str, int], WireClient] = {}
    control.send("ready")
    while True:
        try:
            load: Load = control.recv()
        except EOFError:
            return
        key = (load.server, load.qos)
        if key not in clients:
            device = f"device-{load.qos}"
            clients[key] = WireClient(
                port,
                f"load-{load.server}-{load.qos}",
                f"offramp/1/request/{load.server}/{device}",
                f"offramp/1/reply/{load.server}/{device}",
                load.qos,
            )
        control.send(_apply(load, clients[key]))


def _apply(load: Load, client: WireClient) -> Outcome:
    """Replies come in the order of the requests: of one connection, and one worker."""
    round_trips_s: list[float] = []
    answers: list[bytes] = []
    sent_s: deque[float] = deque()
    now_s = time.perf_counter()
    start_s = now_s + load.warm_up_s
    end_s = start_s + load.seconds
    wanted = load.in_flight
    while now_s < end_s or sent_s:
        payloads = []
        if now_s < end_s:
            for _ in range(wanted):
                now_s = time.perf_counter()
                request = InferenceRequest(next(NUMBERS), DEADLINE_S, image=IMAGE, sent_s=now_s)
                payloads.append(encode_request(request))
                sent_s.append(now_s)
        client.publish(payloads)
        replies = client.replies()
        now_s = time.perf_counter()
        for reply in replies:
            round_trip_s = now_s - sent_s.popleft()
            if start_s <= now_s < end_s:
                round_trips_s.append(round_trip_s)
                answers.append(reply[:300])
        wanted = len(replies)
        if load.pause_s:
            time.sleep(load.pause_s)
    client.publish([])
    return Outcome(round_trips_s, answers, load.seconds)
