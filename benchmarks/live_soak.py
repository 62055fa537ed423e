"""An edge node under steady load for minutes: its memory must not grow, and it answers everything.

A node that computes ResNet-8, a Mosquitto and the load are processes of their own. The load is half
of what the node managed in a short closed loop before. The memory is the node's resident set; it
counts from the first minute, when everything has been allocated once, to the last half minute.
With `--hostile` a fifth of the payloads is malformed, oversized or a bomb.

    python benchmarks/live_soak.py [--minutes 10] [--hostile] [--qos 1]
"""

from __future__ import annotations

import argparse
import os
import signal
import statistics
import time
from collections import Counter
from contextlib import ExitStack
from multiprocessing.connection import Connection
from random import Random

from live_parts.hostile import hostile_payload
from live_parts.loads import IMAGE, Load, run_loads
from live_parts.servers import Server, best_runtime, mosquitto, run_edge
from live_parts.wire import WireClient

from devices.protocol.messages import InferenceRequest, decode_reply, encode_request

SAMPLE_EVERY_S = 5.0
HOSTILE_SHARE = 0.2
#: After the last request, until all must be answered.
DRAIN_S = 10.0
_HOSTILE_IDS = 1 << 62


def run_steady(
    port: int, rate_hz: float, seconds: float, qos: int, hostile: bool, control: Connection
) -> None:
    """Send at a steady rate; tell ``control`` how often each thing was replied, now and then."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    client = WireClient(
        port, "steady", "offramp/1/request/node/steady", "offramp/1/reply/node/steady", qos
    )
    control.send("ready")
    random = Random(1)
    counts: Counter[str] = Counter()
    waiting: set[int] = set()
    start_s = time.perf_counter()
    end_s = start_s + seconds
    told_s = start_s
    sent = 0
    while True:
        now_s = time.perf_counter()
        if now_s - told_s >= SAMPLE_EVERY_S:
            told_s = now_s
            control.send((counts, len(waiting)))
        payloads = []
        while now_s < end_s and sent < (now_s - start_s) * rate_hz:
            sent += 1
            if hostile and random.random() < HOSTILE_SHARE:
                counts["hostile payloads sent"] += 1
                payloads.append(hostile_payload(random))
                continue
            counts["requests sent"] += 1
            waiting.add(sent)
            payloads.append(encode_request(InferenceRequest(sent, 1.0, image=IMAGE, sent_s=now_s)))
        client.publish(payloads)
        if now_s >= end_s and (not waiting or now_s >= end_s + DRAIN_S):
            break
        next_s = start_s + (sent + 1) / rate_hz if now_s < end_s else end_s + DRAIN_S
        for payload in client.replies(next_s):
            reply = decode_reply(payload)
            if isinstance(reply.id, int) and reply.id < _HOSTILE_IDS and reply.status != "error":
                counts["answered twice" if reply.id not in waiting else reply.status] += 1
                waiting.discard(reply.id)
            elif reply.status == "error":
                counts[f"error {reply.code}"] += 1
            else:
                counts["hostile, but valid"] += 1
    control.send((counts, len(waiting)))
    control.send(None)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=10.0, help="at least 2")
    parser.add_argument("--hostile", action="store_true")
    parser.add_argument("--qos", type=int, choices=(0, 1), default=1)
    chosen = parser.parse_args()
    if chosen.minutes < 2:
        parser.error("--minutes: memory is compared with that of the first minute; at least 2")
    runtime = best_runtime()
    with mosquitto() as port, ExitStack() as stack:
        node = Server(run_edge, port, "node", "resnet8", runtime)
        stack.callback(node.end)
        load = Server(run_loads, port)
        node.ask()
        load.ask()
        capacity_hz = load.ask(Load("node", chosen.qos, 8, 5.0)).rate_hz
        load.end()
        rate_hz = capacity_hz / 2
        print(
            f"resnet8 ({runtime}), QoS {chosen.qos}: {capacity_hz:.0f} requests/s at most; "
            f"{rate_hz:.0f}/s for {chosen.minutes:g} minutes",
            flush=True,
        )
        seconds = chosen.minutes * 60
        steady = Server(run_steady, port, rate_hz, seconds, chosen.qos, chosen.hostile)
        stack.callback(steady.end)
        steady.ask()
        start_s = time.monotonic()
        samples: list[tuple[float, int]] = []
        counts: Counter[str] = Counter()
        waiting = 0
        while (told := steady.ask()) is not None:
            counts, waiting = told
            at_s = time.monotonic() - start_s
            samples.append((at_s, node.resident_bytes()))
            if len(samples) % round(60 / SAMPLE_EVERY_S) == 0:
                print(
                    f"  {at_s / 60:5.1f} min: {samples[-1][1] / 1e6:.1f} MB, "
                    f"{counts['ok']} answered, load average {os.getloadavg()[0]:.1f}",
                    flush=True,
                )
        at_first = statistics.median(size for at_s, size in samples if 45 <= at_s <= 75)
        at_last = statistics.median(size for at_s, size in samples if at_s >= seconds - 30)
        print(
            f"memory: {at_first / 1e6:.1f} MB after a minute, {at_last / 1e6:.1f} MB at the end: "
            f"{100 * (at_last / at_first - 1):+.2f} % (target: below +5 %)"
        )
        print(", ".join(f"{what}: {count}" for what, count in sorted(counts.items())))
        print(f"not answered: {waiting} (target: 0); the node is alive: {node.process.is_alive()}")


if __name__ == "__main__":
    main()
