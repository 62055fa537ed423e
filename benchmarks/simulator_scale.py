"""What a request costs from a thousand devices to a million, and what a million devices need.

First, 10³, 10⁴, 10⁵ and 10⁶ devices at 0.1 Hz, each over a hundred nodes at the same load, for at
least 60 s and at least 600,000 requests; the cost of a request should stay flat; and what it is on
links that lose packets, where TCP's senders are followed. Then a million
devices for 60 s, six million requests, in a process of its own: with records streamed to Parquet,
and as a summary, beside which twice the time shows whether memory grows with the requests; and as a
summary on links that lose packets.

    python benchmarks/simulator_scale.py
"""

from __future__ import annotations

import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from models.artifacts import Predictions
from sim.distributions import Constant, Exponential, Gamma
from sim.network.links import Direction, Link
from sim.network.retransmission import TcpLoss
from sim.nodes.service import DistributedService
from sim.nodes.spec import NodeSpec
from sim.policies import FixedExit
from sim.results.records import write_records
from sim.results.run import record_table
from sim.results.summary import RunSummary
from sim.running.slices import Slices
from sim.simulation import simulate_in_slices
from sim.workload.arrivals import Poisson
from sim.workload.device_groups import DeviceGroup
from sim.world import World

NODES, LOAD, WAY_S, DEADLINE_S = 100, 0.8, 0.02, 0.05
RATE_HZ, REQUESTS = 0.1, 600_000
#: Of packets, at most.
LOSS, LOSSY_RATE_HZ = 0.01, 1.0
ROUNDS = 3


def world_of(devices: int, rate_hz: float, duration_s: float, loss: float = 0.0) -> World:
    """Devices with jittered links of their own, and a pool of nodes under the same load."""
    tcp_loss = TcpLoss(loss) if loss else None
    way = Direction(Gamma(WAY_S, WAY_S / 4), loss=tcp_loss, rtt_s=2 * WAY_S)
    group = DeviceGroup(
        "devices", devices, Poisson(rate_hz), Constant(DEADLINE_S), "link", "pool", 3072, 64
    )
    service_s = LOAD * NODES / (devices * rate_hz)
    node = NodeSpec("pool", 1, DistributedService(Exponential(service_s), 1), replicas=NODES)
    return World((group,), (node,), {"link": Link(way, way)}, 0.0, duration_s, seed=1)


def predictions() -> Predictions:
    ten = np.arange(10, dtype=np.int32)
    confidence = np.full((10, 1), 0.9, dtype=np.float32)
    return Predictions(ten, ten, ten[:, None], confidence, {"architecture": "none"})


def summarise(world: World) -> int:
    says = predictions()
    summary = RunSummary(world.warm_up_s, world.duration_s)
    for part in simulate_in_slices(world, Slices(world, says.label, 0), says, FixedExit(1)):
        summary.add(part.requests.created_s, part.received_s, part.exit, part.correct, part.outcome)
    return int(summary.metrics()["offered"])


def record(world: World) -> int:
    says = predictions()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "records.parquet"
        parts = simulate_in_slices(world, Slices(world, says.label, 0), says, FixedExit(1))
        counts = []

        def tables():
            for part in parts:
                counts.append(len(part))
                yield record_table(world, part, says, "standard", 0, "fixed_exit")

        write_records(path, tables(), {})
        print(f"  {path.stat().st_size / 1e6:,.0f} MB of records", flush=True)
    return sum(counts)


def alone(task: str, duration_s: float) -> None:
    """What a process that does nothing else takes."""
    world = world_of(1_000_000, RATE_HZ, duration_s, LOSS if task == "lossy" else 0.0)
    start = time.perf_counter()
    requests = (record if task == "records" else summarise)(world)
    seconds = time.perf_counter() - start
    peak_gb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024**2
    print(
        f"  {task:8} {requests:10,} requests  {seconds:6.1f} s  {1e6 * seconds / requests:5.2f} us"
        f" each  peak memory {peak_gb:.2f} GB"
    )


def compare(worlds: dict[str, World]) -> None:
    """What a request costs in each world, the quickest of several rounds; against the first."""
    costs: dict[str, list[float]] = {}
    for _ in range(ROUNDS):
        for name, world in worlds.items():
            start = time.process_time()
            requests = summarise(world)
            costs.setdefault(name, []).append((time.process_time() - start) / requests)
    first = min(costs[next(iter(worlds))])
    for name, values in costs.items():
        print(f"  {name:17}  {1e6 * min(values):5.2f} us each  {min(values) / first:.2f}x")


def main() -> None:
    print("summary of at least 600,000 requests")
    compare(
        {
            f"{devices:9,} devices": world_of(
                devices, RATE_HZ, max(60.0, REQUESTS / (devices * RATE_HZ))
            )
            for devices in (1_000, 10_000, 100_000, 1_000_000)
        }
    )
    print(f"10,000 devices at {LOSSY_RATE_HZ} Hz on links that lose packets")
    duration_s = REQUESTS / (10_000 * LOSSY_RATE_HZ)
    compare(
        {
            f"{100 * loss:5.1f} % lost": world_of(10_000, LOSSY_RATE_HZ, duration_s, loss)
            for loss in (0.0, LOSS / 10, LOSS)
        }
    )
    print("a million devices at 0.1 Hz, each in a process of its own")
    for task, duration_s in (
        ("summary", 60.0),
        ("summary", 120.0),
        ("records", 60.0),
        ("lossy", 60.0),
    ):
        subprocess.run([sys.executable, __file__, task, str(duration_s)], check=True)


if __name__ == "__main__":
    if len(sys.argv) > 1:
        alone(sys.argv[1], float(sys.argv[2]))
    else:
        main()
