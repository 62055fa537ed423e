"""The live edge node beside a raw paho echo, through the same Mosquitto, turn and turn about.

The echo is what paho's documentation shows, with TCP_NODELAY: it publishes in `on_message` what
came, 3 kB. Requests are raw CIFAR images. Echo, nodes, broker and load are processes of their own;
the load writes bytes on a socket, so that it takes less than what it measures.

- Round trips, one request at a time: the echo's, plus the inference (`service_ms` of the reply),
  plus at most 0.5 ms.
- Throughput with 64 requests in flight and a network that computes nothing: at least 60 % of the
  echo's. Beside it an echo that replies as briefly as a node.
- Acknowledgements of QoS 1 by the node, as a proxy before it sees them, while eager PyTorch is
  computed without a pause: their p99 is at most 5 ms above that of an idle node.

    python benchmarks/live.py [--rounds 7] [--seconds 2] [--only round_trips]
"""

from __future__ import annotations

import argparse
import os
import statistics
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager

import numpy as np
from live_parts.loads import WARM_UP_S, Load, Outcome, run_loads
from live_parts.proxy import run_proxy
from live_parts.servers import Server, best_runtime, mosquitto, run_echo, run_edge

from devices.protocol.messages import Reply, decode_reply

NODE_REPLY_BYTES, FLOOD = 150, 64


@contextmanager
def started(*servers: Server) -> Iterator[None]:
    with ExitStack() as stack:
        for server in servers:
            stack.callback(server.end)
        for server in servers:
            server.ask()
        yield


def answered(outcome: Outcome) -> list[Reply]:
    replies = [decode_reply(reply) for reply in outcome.replies]
    bad = [reply for reply in replies if reply.status != "ok"]
    if bad or not replies:
        raise RuntimeError(f"{len(bad)} of {len(replies)} replies are not ok: {bad[:1]}")
    return replies


def spread(values: Sequence[float], digits: int) -> str:
    return (
        f"{statistics.median(values):.{digits}f} ({min(values):.{digits}f} to "
        f"{max(values):.{digits}f})"
    )


def round_trips(port: int, rounds: int, seconds: float) -> None:
    runtime = best_runtime()
    nodes = {
        "no-op": Server(run_edge, port, "no-op", None, "eager"),
        f"resnet8, {runtime}": Server(run_edge, port, "resnet8", "resnet8", runtime),
        f"resnet20, {runtime}": Server(run_edge, port, "resnet20", "resnet20", runtime),
    }
    servers = ("no-op", "resnet8", "resnet20")
    load = Server(run_loads, port)
    with started(load, Server(run_echo, port, "echo", None), *nodes.values()):
        for qos in (0, 1):
            echo_ms: list[float] = []
            results: dict[str, list[tuple[float, float, float]]] = {name: [] for name in nodes}
            for _ in range(rounds):
                median_ms = statistics.median(load.ask(Load("echo", qos, 1, seconds)).round_trips_s)
                echo_ms.append(median_ms * 1e3)
                for name, server in zip(nodes, servers, strict=True):
                    outcome = load.ask(Load(server, qos, 1, seconds))
                    service_s = [reply.service_s or 0.0 for reply in answered(outcome)]
                    trip_ms = statistics.median(outcome.round_trips_s) * 1e3
                    inference_ms = statistics.median(service_s) * 1e3
                    results[name].append((trip_ms, inference_ms, trip_ms - inference_ms))
            print(f"QoS {qos}, one at a time: echo {spread(echo_ms, 3)} ms")
            for name, figures in results.items():
                trip, inference, rest = zip(*figures, strict=True)
                above = [mine - echo for mine, echo in zip(rest, echo_ms, strict=True)]
                print(
                    f"  {name:22} {spread(trip, 3)} ms, of it inference {spread(inference, 3)};"
                    f" above echo and inference {spread(above, 3)} (target: 0.5)",
                    flush=True,
                )


def throughput(port: int, rounds: int, seconds: float) -> None:
    servers = {
        "echo": Server(run_echo, port, "echo", None),
        "brief": Server(run_echo, port, "brief", NODE_REPLY_BYTES),
        "no-op": Server(run_edge, port, "no-op", None, "eager"),
    }
    load = Server(run_loads, port)
    with started(load, *servers.values()):
        for qos in (0, 1):
            rates: dict[str, list[float]] = {name: [] for name in servers}
            costs: dict[str, list[float]] = {name: [] for name in servers}
            for _ in range(rounds):
                for name, server in servers.items():
                    before_s = server.processor_s()
                    outcome = load.ask(Load(name, qos, FLOOD, seconds))
                    cost_s = server.processor_s() - before_s
                    rates[name].append(outcome.rate_hz)
                    # The load runs for a moment before it counts, by as much for all.
                    costs[name].append(1e6 * cost_s / (outcome.rate_hz * (seconds + WARM_UP_S)))
                    if name == "no-op":
                        answered(outcome)
            print(f"QoS {qos}, {FLOOD} in flight:")
            for name, mine in rates.items():
                shares = {
                    other: [100 * it / of for it, of in zip(mine, rates[other], strict=True)]
                    for other in ("echo", "brief")
                }
                print(
                    f"  {name:6} {spread(mine, 0)} requests/s, {spread(costs[name], 0)} µs of "
                    f"processor time each; {spread(shares['echo'], 0)} % of echo, "
                    f"{spread(shares['brief'], 0)} % of brief",
                    flush=True,
                )


def acknowledgements(port: int, rounds: int, seconds: float) -> None:
    for runtime in ("eager", best_runtime()):
        proxy = Server(run_proxy, port)
        node = Server(run_edge, proxy.ask(), "node", "resnet20", runtime)
        load = Server(run_loads, port)
        waited_ms: dict[str, list[tuple[float, float]]] = {"idle": [], "full load": []}
        with started(load, node):
            for _ in range(rounds):
                for name, in_flight, pause_s in (("idle", 1, 0.01), ("full load", FLOOD, 0.0)):
                    proxy.ask("begin")
                    outcome = load.ask(Load("node", 1, in_flight, seconds, pause_s=pause_s))
                    answered(outcome)
                    # All of the first come at once, and wait for each other: no load is like that.
                    waited_s = proxy.ask("end")[in_flight:]
                    median_s, p99_s = np.quantile(waited_s, (0.5, 0.99))
                    waited_ms[name].append((median_s * 1e3, p99_s * 1e3))
        proxy.end()
        print(f"PUBACK of a node that computes resnet20 ({runtime}):")
        for name, figures in waited_ms.items():
            medians, p99s = zip(*figures, strict=True)
            print(f"  {name:9} median {spread(medians, 3)} ms, p99 {spread(p99s, 3)} ms")
        idle, full = ([p99 for _, p99 in waited_ms[name]] for name in ("idle", "full load"))
        above = [mine - quiet for mine, quiet in zip(full, idle, strict=True)]
        print(f"  p99 under full load above idle: {spread(above, 3)} ms (target: 5)", flush=True)


def main() -> None:
    parts: dict[str, Callable[[int, int, float], None]] = {
        part.__name__: part for part in (round_trips, throughput, acknowledgements)
    }
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=2.0, help="of each load")
    parser.add_argument("--only", choices=parts, action="append")
    chosen = parser.parse_args()
    for name in chosen.only or parts:
        with mosquitto() as port:
            parts[name](port, chosen.rounds, chosen.seconds)
        print(f"load average {os.getloadavg()[0]:.1f}\n", flush=True)


if __name__ == "__main__":
    main()
