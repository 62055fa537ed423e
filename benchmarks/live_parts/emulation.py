"""A network between two namespaces, emulated: by netem where the kernel has it, else by a relay.

Beside it lies another one, between the same ends by other addresses, with which nothing is done;
but where a relay emulates, that goes through it as well, so that what it takes of the host is there
with both. It needs root, iproute2 and /dev/net/tun; everything else of the host's network stays as
it is.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from pathlib import Path

from live_parts.relay import Shape

DEVICES_NS, NODE_NS = "offramp-devices", "offramp-node"
#: Name of its device in both namespaces, and addresses.
DEVICE, DEVICES_IP, NODE_IP = "offramp0", "10.77.0.1", "10.77.0.2"
#: Of the network with which nothing is done.
DIRECT_DEVICE, DIRECT_DEVICES_IP, DIRECT_NODE_IP = "offramp1", "10.78.0.1", "10.78.0.2"

#: What TCP does in both namespaces. Any namespace may choose it, unlike cubic, and the simulator
#: knows it, unlike bbr.
CONGESTION_CONTROL = "reno"


def _run(command: Sequence[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}: {done.stderr.strip()}")


def ip(*arguments: str) -> None:
    _run(["ip", *arguments])


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
    """Both, with nothing between them."""
    control = f"net.ipv4.tcp_congestion_control={CONGESTION_CONTROL}"
    with ExitStack() as stack:
        for name in (DEVICES_NS, NODE_NS):
            ip("netns", "add", name)
            stack.callback(ip, "netns", "del", name)
            ip("-n", name, "link", "set", "lo", "up")
            _run(within(name, "sysctl", "-w", control))
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
    """Both networks between both namespaces; by what one of them is emulated."""
    with ExitStack() as stack:
        how = "netem"
        try:
            _by_netem(shape)
        except RuntimeError:
            how = "relay"
            shapes = {DEVICE: asdict(shape), DIRECT_DEVICE: asdict(Shape())}
            folder = str(Path(__file__).parents[1])
            relay = [sys.executable, "-m", "live_parts.relay", DEVICES_NS, NODE_NS]
            command = ["env", f"PYTHONPATH={folder}", *relay, json.dumps(shapes)]
            stack.enter_context(process(command, ready="ready"))
        else:
            stack.callback(ip, "-n", DEVICES_NS, "link", "del", DEVICE)
            _pair(DIRECT_DEVICE)
            stack.callback(ip, "-n", DEVICES_NS, "link", "del", DIRECT_DEVICE)
        _addresses(DEVICE, DEVICES_IP, NODE_IP)
        _addresses(DIRECT_DEVICE, DIRECT_DEVICES_IP, DIRECT_NODE_IP)
        yield how


def _pair(device: str) -> None:
    """Virtual Ethernet from namespace to namespace."""
    ip("-n", DEVICES_NS, "link", "add", device, "type", "veth", "peer", device, "netns", NODE_NS)


def _addresses(device: str, devices_ip: str, node_ip: str) -> None:
    for name, mine, other in ((DEVICES_NS, devices_ip, node_ip), (NODE_NS, node_ip, devices_ip)):
        ip("-n", name, "addr", "add", mine, "peer", other, "dev", device)
        ip("-n", name, "link", "set", device, "up")


def _by_netem(shape: Shape) -> None:
    """Virtual Ethernet with netem at both ends; nothing is left if it cannot be."""
    _pair(DEVICE)
    what = ["delay", f"{shape.delay_ms}ms", f"{shape.jitter_ms}ms"] if shape.delay_ms else []
    what += ["loss", f"{shape.loss_percent}%"] if shape.loss_percent else []
    what += ["rate", f"{shape.bandwidth_mbps}mbit"] if shape.bandwidth_mbps else []
    try:
        for name in (DEVICES_NS, NODE_NS):
            command = ["tc", "-n", name, "qdisc", "add", "dev", DEVICE, "root", "netem"]
            _run([*command, "limit", "10000", *what])
    except RuntimeError:
        ip("-n", DEVICES_NS, "link", "del", DEVICE)
        raise
