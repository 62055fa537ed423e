"""The simulator against live runs over an emulated network between devices and node.

Devices and node are in one network namespace, the broker in another; between devices and broker
lie 20 ms ± 5 ms with 1 % loss, and then 5 Mbit/s: by netem where the kernel has it, else by a relay
over /dev/net/tun (live_parts/relay.py). The node is next to the broker, by a way without that
network, which calibrations take too; the simulated side has the links of the scenario. So what is
put to the test is the model of links: of TCP, and of queues before a slow link.

It needs root, iproute2 and /dev/net/tun, and says what is missing. Everything else of the host's
network stays as it is.

    sudo .venv/bin/python benchmarks/emulated_network.py [-o FOLDER] [--seconds 20]
        [--replications 3] [--only loss] [--awake] [--check]
"""

from __future__ import annotations

import argparse
import getpass
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pandas as pd
from live_parts.apart import enter_apart
from live_parts.emulation import (
    CONGESTION_CONTROL,
    DEVICES_NS,
    DIRECT_NODE_IP,
    NODE_IP,
    NODE_NS,
    emulated,
    namespaces,
    problem,
    process,
    within,
)
from live_parts.relay import Shape

from models.processors import available_processors
from offramp.live.awake import kept_awake

PORT = 18831

#: What is emulated, each way, and how a scenario says it.
NETWORKS = {
    "loss": Shape(delay_ms=20, jitter_ms=5, loss_percent=1),
    "slow": Shape(bandwidth_mbps=5),
}

SCENARIO = """\
name: emulated
description: Cameras ask an edge node over an emulated network; live and simulated{host}.
seed: 12
data: {{dataset: digits}}
model: {{backbone: resnet20, exits: [layer1, layer2]}}
training: {{strategies: [standard], seeds: 1, steps: 100, batch_size: 64}}
profile: {{batch_sizes: [1], repetitions: 300}}
links:
  emulated: {link}
mqtt: {{qos: {qos}, version: "{version}"}}
nodes: {{edge: {{workers: 1}}}}
devices:
  cameras:
    count: 10
    arrivals: {{process: poisson, rate_hz: {rate_hz}}}
    deadline_ms: {{distribution: uniform, low: 40, high: 120}}
    request_bytes: 3072
    link: emulated
    node: edge
policies: [{{policy: fixed_exit, exit: 3}}]
simulation: {{duration_s: {seconds}, warm_up_s: 2, deadline_scales: [1]}}
"""

CONFIG = """
user {user}
listener {port}
allow_anonymous true
set_tcp_nodelay true
max_inflight_messages 100
max_queued_messages 10000
log_dest none
"""


def round_trips_ms(count: int = 50) -> pd.Series:
    """TCP handshakes through the network, as they are: in ms."""
    code = (
        "import socket, sys, time\n"
        f"for _ in range({count}):\n"
        "    start = time.perf_counter()\n"
        f"    socket.create_connection(('{NODE_IP}', {PORT}), 10).close()\n"
        "    print(1e3 * (time.perf_counter() - start))\n"
    )
    command = within(DEVICES_NS, sys.executable, "-c", code)
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return pd.Series([float(line) for line in done.stdout.split()])


@contextmanager
def broker(folder: Path) -> Iterator[None]:
    """A broker in the node's namespace: Mosquitto where it is installed, else the embedded one."""
    program = shutil.which("mosquitto", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
    if program is None:
        command = [sys.executable, "-m", "offramp", "live", "broker"]
        command += ["--host", "0.0.0.0", "--port", str(PORT), "--quiet"]
    else:
        config = folder / "mosquitto.conf"
        config.write_text(CONFIG.format(user=getpass.getuser(), port=PORT))
        command = [program, "-c", str(config)]
    check = f"import socket; socket.create_connection(('127.0.0.1', {PORT}), 1)"
    listens = within(NODE_NS, sys.executable, "-c", check)
    with process(within(NODE_NS, *command)):
        until_s = time.monotonic() + 60
        while subprocess.run(listens, stderr=subprocess.DEVNULL, check=False).returncode:
            if time.monotonic() > until_s:
                raise RuntimeError("the broker does not listen")
            time.sleep(0.1)
        yield


def link_text(shape: Shape) -> str:
    """The link of the scenario that is emulated: one that all devices share."""
    low, high = shape.delay_ms - shape.jitter_ms, shape.delay_ms + shape.jitter_ms
    latency = f"{{distribution: uniform, low: {low:g}, high: {high:g}}}" if high else "0"
    keys = f"latency_ms: {latency}, loss_percent: {shape.loss_percent:g}"
    keys += f", congestion_control: {CONGESTION_CONTROL}"
    if shape.bandwidth_mbps:
        keys += f", bandwidth_mbps: {shape.bandwidth_mbps:g}"
    return f"{{shared_by: all, uplink: {{{keys}}}, downlink: {{{keys}}}}}"


def validate(name: str, qos: int, folder: Path, options: argparse.Namespace) -> None:
    """Live by the emulated network; calibrated, and the node connected, by the other one."""
    scenario = folder / f"{name}-qos-{qos}.yaml"
    version = "5" if shutil.which("mosquitto", path=f"{os.environ['PATH']}:/usr/sbin") else "3.1.1"
    scenario.write_text(
        SCENARIO.format(
            link=link_text(NETWORKS[name]), qos=qos, version=version, rate_hz=options.rate_hz,
            seconds=options.seconds,
            host=", on processors kept awake" if options.awake else "",
        )
    )  # fmt: skip
    command = [sys.executable, "-m", "offramp", "validate", str(scenario), "--links", "scenario"]
    command += ["--broker", f"mqtt://{NODE_IP}:{PORT}"]
    command += ["--direct-broker", f"mqtt://{DIRECT_NODE_IP}:{PORT}"]
    command += ["-o", str(folder / f"{name}-qos-{qos}"), "--yes", "--quiet"]
    command += ["--replications", str(options.replications)]
    subprocess.run(within(DEVICES_NS, *command), check=True, stdin=subprocess.DEVNULL)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("-o", "--output", type=Path, default=Path("results/emulated-network"))
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--replications", type=int, default=3)
    parser.add_argument("--rate-hz", type=float, default=8.0, help="of each of ten devices")
    parser.add_argument("--qos", type=int, choices=(0, 1), action="append")
    parser.add_argument("--only", choices=NETWORKS)
    parser.add_argument("--awake", action="store_true", help="keep processors from sleeping")
    parser.add_argument("--check", action="store_true", help="only look at the network")
    options = parser.parse_args()
    why = problem()
    if why:
        sys.exit(f"no network is emulated: {why}")
    options.output.mkdir(parents=True, exist_ok=True)
    with namespaces(), tempfile.TemporaryDirectory() as scratch, ExitStack() as started:
        if options.awake:  # not by what runs in a namespace, which sees no control groups
            started.enter_context(kept_awake(available_processors()))
        enter_apart(started, broker(Path(scratch)))
        for name, shape in NETWORKS.items():
            if options.only not in (None, name):
                continue
            with ExitStack() as relay:
                how = enter_apart(relay, emulated(shape))
                trips = round_trips_ms()
                low, median, high = trips.quantile([0.05, 0.5, 0.95])
                print(
                    f"{name}: {shape}, by {how}; TCP handshakes of {median:.1f} ms "
                    f"({low:.1f} to {high:.1f})",
                    flush=True,
                )
                if options.check:
                    continue
                for qos in options.qos or (0, 1):
                    print(f"--- {name}, QoS {qos}", flush=True)
                    validate(name, qos, options.output, options)


if __name__ == "__main__":
    main()
