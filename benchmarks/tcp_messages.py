"""The simulator's TCP against this kernel's: how long messages take on links that lose packets.

Messages of one size on many connections, at random intervals, through 20 ms each way with a loss of
packets (live_parts/emulation.py); and the same messages, sent at the same instants, in the
simulator's model of a link. Needs root, iproute2 and /dev/net/tun.

    sudo .venv/bin/python benchmarks/tcp_messages.py [-o FOLDER] [--seconds 40]
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from live_parts.emulation import (
    CONGESTION_CONTROL,
    DEVICES_NS,
    NODE_IP,
    NODE_NS,
    emulated,
    namespaces,
    problem,
    process,
    within,
)
from live_parts.relay import Shape

from sim.distributions import Constant
from sim.network.congestion import CONTROLS
from sim.network.links import Channel, Direction, Travels
from sim.network.mqtt_packets import tcp_segments
from sim.network.retransmission import TcpLoss

ONE_WAY_S = 0.02
#: What is late was not there at once; the relay and both programs take up to some milliseconds.
LATE_S = ONE_WAY_S + 0.01
QUANTILES = (0.5, 0.9, 0.95, 0.99)
#: Runs of the model, each with other losses.
MODEL_RUNS = 8


@dataclass(frozen=True)
class Case:
    """Messages on each of ``connections``."""

    loss_percent: float
    size_bytes: int
    rate_hz: float
    connections: int


CASES = (
    Case(0, 43_000, 2, 20),
    Case(0.3, 15_000, 4, 20),
    Case(1, 1_000, 4, 40),
    Case(1, 3_150, 1, 60),
    Case(1, 3_150, 8, 40),
    Case(1, 43_000, 2, 20),
    Case(3, 6_000, 6, 40),
)


def measured(case: Case, seconds: float) -> pd.DataFrame:
    """Columns ``connection, number, sent_s, delay_s``, ascending in ``sent_s``."""
    shape = Shape(delay_ms=1e3 * ONE_WAY_S, loss_percent=case.loss_percent)
    path = f"PYTHONPATH={Path(__file__).parent}"
    ends = ["env", path, sys.executable, "-m", "live_parts.tcp_ends"]
    with tempfile.TemporaryDirectory() as scratch, namespaces(), emulated(shape):
        receiver = [*ends, "receive", scratch, str(case.size_bytes)]
        what = (NODE_IP, str(case.connections), str(case.rate_hz), str(seconds))
        sender = [*ends, "send", scratch, str(case.size_bytes), *what]
        with process(within(NODE_NS, *receiver), ready="ready"):
            subprocess.run(within(DEVICES_NS, *sender), check=True)
        columns = ["connection", "number"]
        sent, received = (
            pd.read_csv(Path(scratch) / file, sep=" ", names=[*columns, time])
            for file, time in (("sent.txt", "sent_s"), ("received.txt", "received_s"))
        )
    both = sent.merge(received, on=columns).sort_values("sent_s", ignore_index=True)
    if len(both) != len(sent):
        print(f"  {len(sent) - len(both)} of {len(sent)} messages had not come at the end")
    return both.assign(delay_s=both["received_s"] - both["sent_s"])


def modelled(case: Case, sent: pd.DataFrame) -> np.ndarray:
    """Delays of the same messages in the simulator, of several runs."""
    loss = TcpLoss(case.loss_percent / 100) if case.loss_percent else None
    control = CONTROLS[CONGESTION_CONTROL]
    link = Direction(Constant(ONE_WAY_S), loss=loss, rtt_s=2 * ONE_WAY_S, control=control)
    count, segments = len(sent), tcp_segments(case.size_bytes)
    sent_s = sent["sent_s"].to_numpy(dtype=float)
    flow = sent["connection"].to_numpy(dtype=np.int64)
    delays = []
    for run in range(MODEL_RUNS):
        travels = Travels(
            np.full(count, ONE_WAY_S),
            np.random.default_rng(run).random(count),
            np.full(count, segments),
            np.zeros(count, dtype=bool),
        )
        channel = Channel(link, 1, case.connections)
        none = np.zeros(count, dtype=np.int64)
        delays.append(channel.arrivals(sent_s, none, flow, np.zeros(count), travels) - sent_s)
    return np.concatenate(delays)


def row(case: Case, world: str, delays_s: np.ndarray) -> dict[str, object]:
    """What is told of the delays."""
    return {
        "loss_percent": case.loss_percent,
        "size_bytes": case.size_bytes,
        "rate_hz": case.rate_hz,
        "world": world,
        "messages": len(delays_s),
        "late": float(np.mean(delays_s > LATE_S)),
        "mean_ms": 1e3 * float(delays_s.mean()),
        **{f"p{100 * q:g}_ms": 1e3 * float(np.quantile(delays_s, q)) for q in QUANTILES},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("-o", "--output", type=Path, default=Path("results/tcp-messages"))
    parser.add_argument("--seconds", type=float, default=40)
    options = parser.parse_args()
    why = problem()
    if why:
        sys.exit(f"no network is emulated: {why}")
    options.output.mkdir(parents=True, exist_ok=True)
    rows = []
    for case in CASES:
        print(case, flush=True)
        found = measured(case, options.seconds)
        rows.append(row(case, f"{os.uname().sysname} {os.uname().release}", found["delay_s"]))
        rows.append(row(case, "simulated", modelled(case, found)))
        print(pd.DataFrame(rows[-2:]).iloc[:, 3:].to_string(index=False), flush=True)
    pd.DataFrame(rows).to_csv(options.output / "tcp_messages.csv", index=False)


if __name__ == "__main__":
    main()
