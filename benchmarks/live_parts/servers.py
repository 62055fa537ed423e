"""What is measured, each in a process of its own: Mosquitto, a raw echo, edge nodes."""

from __future__ import annotations

import getpass
import multiprocessing
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from importlib import util
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from pathlib import Path
from typing import Any

import numpy as np
import paho.mqtt.client as mqtt
from numpy.typing import NDArray

from devices.mqtt.connections import Broker
from devices.node.edge import EdgeNode, EdgeSettings
from models.data.datasets import DATASETS
from models.inference.runtimes import InferenceSettings, SegmentRuntime, build_runtime
from models.networks.architecture import Architecture
from sim.distributions import Constant
from sim.nodes.service import DistributedService
from sim.nodes.spec import NodeSpec
from sim.policies import DeadlineConfidence

INFO = DATASETS["cifar10"]
SPAWN = multiprocessing.get_context("spawn")
_TICKS_PER_S = os.sysconf("SC_CLK_TCK")

CONFIG = """
user {user}
listener {port} 127.0.0.1
allow_anonymous true
set_tcp_nodelay true
max_inflight_messages 100
max_queued_messages 10000
log_dest none
"""


@contextmanager
def mosquitto() -> Iterator[int]:
    """A Mosquitto on a free port; its port."""
    program = shutil.which("mosquitto", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
    if program is None:
        sys.exit("Mosquitto is not installed: sudo apt-get install mosquitto")
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port = sock.getsockname()[1]
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder) / "mosquitto.conf"
        config.write_text(CONFIG.format(user=getpass.getuser(), port=port))
        process = subprocess.Popen([program, "-c", str(config)], stderr=subprocess.DEVNULL)
        try:
            until_s = time.monotonic() + 10
            while True:
                try:
                    socket.create_connection(("127.0.0.1", port), timeout=1).close()
                    break
                except OSError:
                    if process.poll() is not None or time.monotonic() > until_s:
                        raise
                    time.sleep(0.01)
            yield port
        finally:
            process.terminate()
            process.wait(10)


class Server:
    """A process that runs ``target(*arguments, control)``, and says when it is ready."""

    def __init__(self, target: Callable[..., None], *arguments: Any) -> None:
        self.control, other = SPAWN.Pipe()
        self.process: SpawnProcess = SPAWN.Process(
            target=target, args=(*arguments, other), daemon=True
        )
        self.process.start()
        other.close()

    def ask(self, question: Any = None, within_s: float = 120.0) -> Any:
        """What it answers; without a question, what it says next."""
        if question is not None:
            self.control.send(question)
        if not self.control.poll(within_s):
            raise RuntimeError("a process does not answer")
        return self.control.recv()

    def processor_s(self) -> float:
        """What it has computed so far, in all its threads."""
        stat = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(stat[11]) + int(stat[12])) / _TICKS_PER_S

    def resident_bytes(self) -> int:
        pages = Path(f"/proc/{self.process.pid}/statm").read_text().split()[1]
        return int(pages) * os.sysconf("SC_PAGE_SIZE")

    def end(self) -> None:
        self.control.close()
        self.process.join(10)
        if self.process.is_alive():
            self.process.terminate()
            self.process.join()


def run_echo(port: int, name: str, reply_bytes: int | None, control: Connection) -> None:
    """Answer at ``offramp/1/reply/NAME/+`` with what came, or its beginning, as paho's docs do."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, protocol=mqtt.MQTTv5)

    def opened(client: mqtt.Client, userdata: Any, sock: Any) -> None:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def connected(client: mqtt.Client, *_: Any) -> None:
        client.subscribe(f"offramp/1/request/{name}/+", 1)

    def heard(client: mqtt.Client, userdata: Any, message: mqtt.MQTTMessage) -> None:
        topic = message.topic.replace("/request/", "/reply/")
        client.publish(topic, message.payload[:reply_bytes], message.qos)

    client.on_socket_open, client.on_connect, client.on_message = opened, connected, heard
    client.on_subscribe = lambda *_: control.send("ready")
    client.connect("127.0.0.1", port)
    _end_with(control)
    client.loop_forever()


class NoOp:
    """A runtime that computes nothing."""

    name = "none"
    exit_count = 1

    def start(self, images: NDArray[np.uint8]) -> int:
        return len(images)

    def run_segment(self, exit: int, state: int) -> int:
        return state

    def classify(self, exit: int, state: int) -> tuple[list[float], list[int]]:
        return [1.0] * state, [0] * state

    def join(self, states: Sequence[int]) -> int:
        return sum(states)

    def take(self, state: int, rows: Sequence[int]) -> int:
        return len(rows)

    def prepare_thread(self) -> None:
        pass


def best_runtime() -> str:
    return "onnxruntime" if util.find_spec("onnxruntime") else "compile"


def network_runtime(backbone: str, runtime: str) -> SegmentRuntime:
    """A network with two early exits that has learned nothing: how fast it is does not depend."""
    from models.networks.multi_exit import build_network

    exits = ("layer1", "layer2")
    architecture = Architecture(backbone, exits, "linear", INFO.classes, INFO.input_shape)
    return build_runtime(build_network(architecture, 0), INFO, InferenceSettings(runtime))


def run_edge(port: int, name: str, backbone: str | None, runtime: str, control: Connection) -> None:
    """An edge node with one worker that asks its policy after each exit, and never stops early."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    computes = network_runtime(backbone, runtime) if backbone else NoOp()
    service = DistributedService(Constant(1e-3), computes.exit_count)
    node = EdgeNode(
        Broker("127.0.0.1", port),
        EdgeSettings(name, name),
        NodeSpec(name, 1, service),
        computes,
        DeadlineConfidence(threshold=1.0),
        INFO.input_shape,
        INFO.classes,
    )
    node.start()
    control.send("ready")
    _wait_for_end(control)
    node.stop()


def _end_with(control: Connection) -> None:
    """End this process when the other end of ``control`` is closed."""

    def wait() -> None:
        _wait_for_end(control)
        os._exit(0)

    threading.Thread(target=wait, daemon=True).start()


def _wait_for_end(control: Connection) -> None:
    with suppress(EOFError):
        control.recv()
