"""The real edge node in a process of its own, with a runtime that computes nothing.

Every request that its policy is asked about for the first time is noted in a file, which outlives
the process however it ends.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

from devices.mqtt.broker_address import Broker

#: A Python process starts, imports and connects; only a failure takes so long.
STARTS_WITHIN_S = 20.0


@dataclass(frozen=True)
class NodeSettings:
    """What the process is told; ``spec`` are those of ``NodeSpec``."""

    port: int
    version: str = "5"
    node: str = "edge"
    input_shape: Sequence[int] = (1, 8, 8)
    segment_s: float = 0.0
    metrics_port: int = 0
    edge: dict[str, Any] = field(default_factory=dict)
    spec: dict[str, Any] = field(default_factory=dict)


class NodeProcess:
    """Starts at once; ``started_s`` is when it was ready last, on the monotonic clock."""

    def __init__(self, folder: Path, settings: NodeSettings) -> None:
        self.settings = settings
        self.noted = folder / f"noted-{settings.node}"
        self.said = folder / f"said-{settings.node}"
        self.noted.touch()
        self.process: subprocess.Popen[bytes] | None = None
        self.starts = 0
        self.start()

    def start(self) -> None:
        """Start it (again), and wait until it serves."""
        self.starts += 1
        arguments = [json.dumps(asdict(self.settings)), str(self.noted), str(self.starts)]
        with self.said.open("wb") as said:
            self.process = subprocess.Popen(
                [sys.executable, str(Path(__file__)), *arguments],
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=said,
                env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
            )
        until_s = time.monotonic() + STARTS_WITHIN_S
        while b"serving" not in self.said.read_bytes():
            assert self.process.poll() is None, self.words
            assert time.monotonic() < until_s, self.words
            time.sleep(0.01)
        self.started_s = time.monotonic()

    @property
    def words(self) -> str:
        return self.said.read_text(errors="replace")

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    @property
    def is_alive(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def signal(self, number: signal.Signals) -> None:
        assert self.process is not None
        self.process.send_signal(number)

    def kill(self) -> None:
        """SIGKILL."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()

    def stop(self) -> int:
        """SIGTERM; its exit status."""
        assert self.process is not None
        self.process.terminate()
        return self.process.wait(15)

    @property
    def computed(self) -> list[tuple[int, str]]:
        """Which start of the process computed which request id, once for each time it did."""
        lines = self.noted.read_text().splitlines()
        return [(int(start), id) for start, id, _ in (line.split(" ") for line in lines)]

    @property
    def remaining_s(self) -> list[float]:
        """What the policy saw that was left of each deadline."""
        return [float(line.split(" ")[2]) for line in self.noted.read_text().splitlines()]

    def figures(self) -> dict[str, float]:
        """Its metrics; those with labels by ``name outcome why``."""
        url = f"http://127.0.0.1:{self.settings.metrics_port}/metrics"
        with urllib.request.urlopen(url, timeout=10) as answer:
            text = answer.read().decode()
        figures = {}
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                name = sample.name.removeprefix("offramp_edge_")
                figures[" ".join([name, *sample.labels.values()])] = sample.value
        return figures

    def memory_bytes(self) -> int:
        """What it has resident."""
        status = Path(f"/proc/{self.pid}/status").read_text()
        line = next(line for line in status.splitlines() if line.startswith("VmRSS:"))
        return 1024 * int(line.split()[1])


def main() -> None:
    from fake_runtime import CLASSES, FakeRuntime, node_spec

    from devices.node.edge import EdgeNode, EdgeSettings
    from devices.node.node_metrics import serve_metrics
    from models.errors import OfframpError
    from sim.policy import ANSWER, Decision, NodeView, RequestView, run_to

    told, noted, start = json.loads(sys.argv[1]), sys.argv[2], sys.argv[3]
    file = os.open(noted, os.O_WRONLY | os.O_APPEND)

    class Noting:
        def decide(self, request: RequestView, node: NodeView) -> Decision:
            if request.exit:
                return ANSWER
            id = request.asked.id  # type: ignore[attr-defined]
            name = repr(id).replace(" ", "_").encode(errors="backslashreplace")
            os.write(file, b"%s %s %r\n" % (start.encode(), name, request.remaining_s))
            return run_to(node.exit_count)

    def compute(exit: int, pixels: tuple[int, ...]) -> None:
        time.sleep(told["segment_s"])

    true_time = time.time
    jumps = iter((86_400.0 * 365, -86_400.0 * 365, 0.0))

    def jump(*_: object) -> None:
        by_s = next(jumps)
        time.time = lambda: true_time() + by_s  # type: ignore[assignment]

    signal.signal(signal.SIGUSR1, jump)
    runtime = FakeRuntime(segment=compute if told["segment_s"] else None, notes=False)
    node = EdgeNode(
        Broker("127.0.0.1", told["port"], version=told["version"]),
        EdgeSettings(**{"edge": "edge", "node": told["node"], **told["edge"]}),
        node_spec(exits=runtime.exit_count, **told["spec"]),
        runtime,
        Noting(),
        told["input_shape"],
        CLASSES,
    )
    if told["metrics_port"]:
        serve_metrics(node.metrics, told["metrics_port"], "127.0.0.1")
    asked_to_stop = []
    signal.signal(signal.SIGTERM, lambda *_: asked_to_stop.append(True))
    try:
        node.start()
        print("serving", flush=True)
        while not asked_to_stop and not node.wait(0.05):
            pass
    except OfframpError as error:
        print(f"error: {error}", flush=True)
        node.drain(2.0)
        sys.exit(2)
    node.drain(5.0)


if __name__ == "__main__":
    main()
