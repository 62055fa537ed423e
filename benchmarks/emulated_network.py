"""The simulator against live runs over an emulated network between devices and node.

Devices are in one network namespace, broker and node in another; between them lie 20 ms ± 5 ms with
1 % loss, and then 5 Mbit/s: by netem where the kernel has it, else by a relay over /dev/net/tun
(live_parts/relay.py). Broker, clients and node are calibrated without that network, and the
simulated side has the links of the scenario: what is put to the test is the model of links, of
retransmission and of queues before a slow link.

It needs root, iproute2 and /dev/net/tun, and says what is missing. Everything else of the host's
network stays as it is.

    sudo .venv/bin/python benchmarks/emulated_network.py [-o FOLDER] [--seconds 20]
        [--replications 3] [--only loss] [--check]
"""

from __future__ import annotations

import argparse
import getpass
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from pathlib import Path

import pandas as pd
from live_parts.relay import DEVICE, Shape

DEVICES_NS, NODE_NS = "offramp-devices", "offramp-node"
DEVICES_IP, NODE_IP, PORT = "10.77.0.1", "10.77.0.2", 18831

#: What is emulated, each way, and how a scenario says it.
NETWORKS = {
    "loss": Shape(delay_ms=20, jitter_ms=5, loss_percent=1),
    "slow": Shape(bandwidth_mbps=5),
}

SCENARIO = """\
name: emulated
description: Cameras ask an edge node over an emulated network; live and simulated.
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


def ip(*arguments: str) -> None:
    done = subprocess.run(["ip", *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"ip {' '.join(arguments)}: {done.stderr.strip()}")


def within(namespace: str, *command: str) -> list[str]:
    return ["ip", "netns", "exec", namespace, *command]


def problem() -> str:
    """Why it may not be here; empty if it may."""
    if sys.platform != "linux":
        return "network namespaces are Linux's"
    if os.geteuid():
        return "network namespaces need root (sudo)"
    if shutil.which("ip") is None:
        return "iproute2 is not installed: apt-get install iproute2"
    if not Path("/dev/net/tun").exists():
        return "there is no /dev/net/tun: modprobe tun, or pass it into the container"
    try:
        with namespaces():
            pass
    except RuntimeError as error:
        return f"namespaces cannot be made here: {error}"
    return ""


@contextmanager
def namespaces() -> Iterator[None]:
    with ExitStack() as stack:
        for name in (DEVICES_NS, NODE_NS):
            ip("netns", "add", name)
            stack.callback(ip, "netns", "del", name)
            ip("-n", name, "link", "set", "lo", "up")
        yield


@contextmanager
def process(command: Sequence[str], *, ready: str = "") -> Iterator[subprocess.Popen[str]]:
    """A process that ends with the block; waits for a line that begins with ``ready``."""
    out = subprocess.PIPE if ready else subprocess.DEVNULL
    started = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=out, text=True)
    try:
        if ready:
            assert started.stdout is not None
            if not any(line.startswith(ready) for line in started.stdout):
                raise RuntimeError(f"{' '.join(command[:8])} … ended before it was ready")
        yield started
    finally:
        started.terminate()
        try:
            started.wait(15)
        except subprocess.TimeoutExpired:
            started.kill()
            started.wait()


@contextmanager
def emulated(shape: Shape) -> Iterator[str]:
    """A network between both namespaces; by what it is emulated."""
    with ExitStack() as stack:
        how = "netem"
        try:
            _by_netem(shape)
            stack.callback(ip, "-n", DEVICES_NS, "link", "del", DEVICE)
        except RuntimeError:
            how = "relay"
            relay = [sys.executable, "-m", "live_parts.relay", DEVICES_NS, NODE_NS]
            folder = str(Path(__file__).parent)
            command = ["env", f"PYTHONPATH={folder}", *relay, json.dumps(asdict(shape))]
            stack.enter_context(process(command, ready="ready"))
            for name, mine, other in _ends():
                ip("-n", name, "addr", "add", mine, "peer", other, "dev", DEVICE)
                ip("-n", name, "link", "set", DEVICE, "up")
        yield how


def _ends() -> tuple[tuple[str, str, str], ...]:
    return ((DEVICES_NS, DEVICES_IP, NODE_IP), (NODE_NS, NODE_IP, DEVICES_IP))


def _by_netem(shape: Shape) -> None:
    """A pair of virtual Ethernet devices with netem on both; nothing is left if it cannot be."""
    ip("-n", DEVICES_NS, "link", "add", DEVICE, "type", "veth", "peer", DEVICE, "netns", NODE_NS)
    what = ["delay", f"{shape.delay_ms}ms", f"{shape.jitter_ms}ms"] if shape.delay_ms else []
    what += ["loss", f"{shape.loss_percent}%"] if shape.loss_percent else []
    what += ["rate", f"{shape.bandwidth_mbps}mbit"] if shape.bandwidth_mbps else []
    for name, mine, other in _ends():
        ip("-n", name, "addr", "add", mine, "peer", other, "dev", DEVICE)
        ip("-n", name, "link", "set", DEVICE, "up")
        command = ["tc", "-n", name, "qdisc", "add", "dev", DEVICE, "root", "netem"]
        done = subprocess.run(
            [*command, "limit", "10000", *what], capture_output=True, text=True, check=False
        )
        if done.returncode:
            ip("-n", DEVICES_NS, "link", "del", DEVICE)
            raise RuntimeError(done.stderr.strip())


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
    if shape.bandwidth_mbps:
        keys += f", bandwidth_mbps: {shape.bandwidth_mbps:g}"
    return f"{{shared_by: all, uplink: {{{keys}}}, downlink: {{{keys}}}}}"


def offramp(namespace: str, *arguments: object) -> None:
    command = [sys.executable, "-m", "offramp", *map(str, arguments)]
    subprocess.run(within(namespace, *command), check=True, stdin=subprocess.DEVNULL)


def validate(name: str, qos: int, folder: Path, options: argparse.Namespace) -> None:
    """Calibrate without the network, then run with it."""
    shape = NETWORKS[name]
    scenario = folder / f"{name}-qos-{qos}.yaml"
    version = "5" if shutil.which("mosquitto", path=f"{os.environ['PATH']}:/usr/sbin") else "3.1.1"
    scenario.write_text(
        SCENARIO.format(
            link=link_text(shape), qos=qos, version=version, rate_hz=options.rate_hz,
            seconds=options.seconds,
        )
    )  # fmt: skip
    policy = "fixed_exit(exit=3)"
    once = ("--yes", "--quiet", "--replications")
    plain, results = folder / f"{name}-qos-{qos}-without", folder / f"{name}-qos-{qos}"
    local, across = f"mqtt://127.0.0.1:{PORT}", f"mqtt://{NODE_IP}:{PORT}"
    offramp(NODE_NS, "validate", scenario, "--broker", local, "-o", plain, *once, 1)
    edge = [sys.executable, "-m", "offramp", "live", "edge", str(scenario), "--broker", local]
    edge += ["--mqtt-version", version, "--policy", policy, "--strategy", "standard"]
    # A node that is not online yet would be started again, among the devices.
    with process(within(NODE_NS, *edge), ready="node edge"):
        offramp(
            *(DEVICES_NS, "validate", scenario, "--broker", across, "--links", "scenario"),
            *("--calibration", plain / "calibration", "-o", results),
            *(*once, options.replications),
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("-o", "--output", type=Path, default=Path("results/emulated-network"))
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--replications", type=int, default=3)
    parser.add_argument("--rate-hz", type=float, default=8.0, help="of each of ten devices")
    parser.add_argument("--qos", type=int, choices=(0, 1), action="append")
    parser.add_argument("--only", choices=NETWORKS)
    parser.add_argument("--check", action="store_true", help="only look at the network")
    options = parser.parse_args()
    why = problem()
    if why:
        sys.exit(f"no network is emulated: {why}")
    options.output.mkdir(parents=True, exist_ok=True)
    with namespaces(), tempfile.TemporaryDirectory() as scratch, broker(Path(scratch)):
        for name, shape in NETWORKS.items():
            if options.only not in (None, name):
                continue
            with emulated(shape) as how:
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
