"""How far the simulator is from live runs, over loads, QoS, disciplines and batching.

Each cell of the matrix is one `offramp validate`: this host is profiled, broker and node are
calibrated, and the same requests are run live and simulated. Load is offered work: requests per
second times the mean time of a worker for one image to the last exit, with what a node takes
besides inference and the messages that delay it; a pilot measures them. Deadlines are uniform
between 4 and 16 times that mean.

Results go to a CSV, one row per cell and policy, as soon as they are there; the same command goes
on with the cells that are missing. Everything must be quiet: nodes, devices and broker share this
host's processors with nobody else.

    python benchmarks/fidelity.py [-o FOLDER] [--loads 0.2,0.5,0.8] [--seconds 15]
        [--replications 5] [--backbone resnet20] [--steps 100] [--runtime eager]
        [--broker mosquitto|embedded] [--awake] [--only edf] [--half] [--table] [--like FOLDER]

`--half` takes every other cell, such that QoS, discipline and batching are still balanced. `--like`
asks the same requests as an earlier matrix did, and writes how far the live runs of the two are
from each other to `live_twice.csv`: a simulator can be no closer than this host is to itself.
"""

from __future__ import annotations

import argparse
import csv
import itertools
import json
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, astuple, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from live_parts.apart import enter_apart
from live_parts.servers import mosquitto

from models.artifacts import read_profile
from models.inference.quietness import NOT_QUIET, slowdown, time_work
from offramp.validation.comparison import errors, run_metrics
from offramp.validation.runs import check_same_requests, read_side

SCENARIO = """\
name: fidelity
description: Cameras ask one edge node over MQTT; live and simulated{host}.
seed: 11
data: {{dataset: digits}}
model: {{backbone: {backbone}, exits: [layer1, layer2]}}
training: {{strategies: [standard], seeds: 1, steps: {steps}, batch_size: 64}}
profile: {{batch_sizes: [1, 2, 4], repetitions: 300, runtime: {runtime}}}
links: {{lan: {{}}}}
mqtt: {{qos: 0}}
nodes: {{edge: {{workers: 1}}}}
devices:
  cameras:
    count: 20
    arrivals: {{process: poisson, rate_hz: 1}}
    deadline_ms: 100
    link: lan
    node: edge
policies: [{{policy: fixed_exit, exit: 3}}, deadline_aware]
simulation: {{duration_s: 10, warm_up_s: 2, deadline_scales: [1]}}
"""

DEVICES = 20
_PILOT_HZ = 140
BATCH = "{size: 4, wait_ms: 2}"
POLICIES = ("fixed_exit(exit=3)", "deadline_aware")
METRICS = ("aud", "hit_ratio", "latency_p50_s", "latency_p95_s", "latency_p99_s")


@dataclass(frozen=True)
class Cell:
    """One `offramp validate`."""

    load: float
    qos: int
    queue: str
    batching: bool

    @property
    def name(self) -> str:
        batching = "batch" if self.batching else "single"
        return f"load-{self.load:g}-qos-{self.qos}-{self.queue}-{batching}"


def cells(loads: Sequence[float]) -> list[Cell]:
    return [
        Cell(*cell) for cell in itertools.product(loads, (0, 1), ("fifo", "edf"), (False, True))
    ]


def is_of_half(cell: Cell) -> bool:
    """Of the half fraction of the design in which each pair of settings is met equally often."""
    return (cell.qos + (cell.queue == "edf") + cell.batching) % 2 == 0


@contextmanager
def broker(kind: str) -> Iterator[list[str]]:
    """Arguments that name the broker."""
    if kind == "embedded":
        yield []
        return
    with ExitStack() as stack:
        port = enter_apart(stack, mosquitto())
        yield ["--broker", f"mqtt://127.0.0.1:{port}"]


def offramp(*arguments: object) -> None:
    command = [sys.executable, "-m", "offramp", *map(str, arguments)]
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL)


def awake(options: argparse.Namespace) -> list[str]:
    return ["--awake"] if options.awake else []


@dataclass(frozen=True)
class Work:
    """What a request takes of a busy node, as it was calibrated.

    Attributes:
        mean_s: of a worker for one image to the last exit.
        disturb_s: by which a message delays what is computed meanwhile.
    """

    mean_s: float
    disturb_s: float

    def rate_hz(self, load: float) -> float:
        """Requests per second that keep one worker busy for such a share of the time."""
        return load / (self.mean_s + load * self.disturb_s)


def work(scenario: Path, folder: Path, options: argparse.Namespace) -> Work:
    """What a pilot says."""
    pilot = folder / "pilot"
    # About as often as the busiest cells ask: what a request takes depends on that.
    rate = f"devices.cameras.arrivals.rate_hz={_PILOT_HZ / DEVICES}"
    settings = ("mqtt.qos=0", "simulation.duration_s=3", "policies=[full]", rate)
    overrides = [it for setting in settings for it in ("--set", setting)]
    offramp("train", scenario, "--quiet")
    with broker(options.broker) as named:
        offramp(
            *("validate", scenario, *overrides, *named, *awake(options)),
            *("-o", pilot, "--yes", "--quiet"),
        )
    profile = read_profile(pilot / "live" / "profile.parquet")
    besides_ms = [
        np.mean(np.loadtxt(pilot / "calibration" / f"edge-{name}_ms.txt"))
        for name in ("begin", "reply")
    ]
    calibration = json.loads((pilot / "calibration" / "calibration.json").read_text())
    disturb_ms = max(calibration["nodes"]["edge"].get("disturb_ms", 0.0), 0.0)
    mean_s = float(np.mean(profile.seconds[1]["exit"][:, -1]) + 1e-3 * np.sum(besides_ms))
    return Work(mean_s, 1e-3 * disturb_ms)


def validate(
    cell: Cell, scenario: Path, folder: Path, asked: Work, options: argparse.Namespace
) -> list[dict[str, Any]]:
    """Run one cell; a row for each policy."""
    results = folder / cell.name
    rate_hz = asked.rate_hz(cell.load) / DEVICES
    low_ms, high_ms = 4e3 * asked.mean_s, 16e3 * asked.mean_s
    deadline_ms = f"{{distribution: uniform, low: {low_ms:g}, high: {high_ms:g}}}"
    settings = {
        "mqtt.qos": cell.qos,
        "nodes.edge.queue": cell.queue,
        "nodes.edge.batch": BATCH if cell.batching else "null",
        "devices.cameras.arrivals.rate_hz": f"{rate_hz:.4f}",
        "devices.cameras.deadline_ms": deadline_ms,
        "simulation.duration_s": options.seconds,
    }
    overrides = [it for key, value in settings.items() for it in ("--set", f"{key}={value}")]
    with broker(options.broker) as named:
        offramp(
            *("validate", scenario, *overrides, *named, "-o", results, "--yes", "--quiet"),
            *("--replications", options.replications, *awake(options)),
        )
    table = pd.read_csv(results / "validation.csv", keep_default_na=False, na_values=[""])
    return [_row(cell, policy, rows) for policy, rows in table.groupby("policy", sort=False)]


def live_twice(cell: Cell, folder: Path, earlier: Path) -> list[dict[str, Any]]:
    """How far a live run is from an earlier one of the same requests; a row for each policy."""
    sides = [read_side(it / cell.name / "live") for it in (earlier, folder)]
    check_same_requests(*sides)
    table = errors(*map(run_metrics, sides))
    return [_row(cell, policy, rows) for policy, rows in table.groupby("policy", sort=False)]


def _row(cell: Cell, policy: Any, table: pd.DataFrame) -> dict[str, Any]:
    by_metric = table.set_index("metric")
    row: dict[str, Any] = {field.name: getattr(cell, field.name) for field in fields(Cell)}
    row |= {"policy": policy, "utilisation": by_metric.loc["utilisation_edge", "live"]}
    for metric in METRICS:
        found = by_metric.loc[metric]
        row |= {
            f"{metric}_live": found["live"],
            f"{metric}_error": found["error"],
            f"{metric}_half_width": found["error_half_width"],
        }
    judged = table[table["met"].isin(["yes", "no"])]
    missed = judged[judged["met"] == "no"]
    row["met"] = "no" if len(missed) else "yes"
    row["missed"] = " ".join(missed["metric"])
    # The interval lies beyond the target: another run would say the same.
    beyond = missed["error"].abs() - missed["error_half_width"] > missed["target"]
    row["missed_beyond_doubt"] = " ".join(missed[beyond]["metric"])
    return row


def append(file: Path, rows: Sequence[dict[str, Any]]) -> None:
    """All rows of a cell, or none of them."""
    text = file.read_text(encoding="utf-8") if file.exists() else ""
    partial = file.with_suffix(".partial")
    with partial.open("w", encoding="utf-8", newline="") as out:
        out.write(text)
        writer = csv.DictWriter(out, rows[0])
        if not text:
            writer.writeheader()
        writer.writerows(rows)
    partial.replace(file)


def done(file: Path) -> set[tuple[Any, ...]]:
    if not file.exists():
        return set()
    table = pd.read_csv(file)
    return set(table[[field.name for field in fields(Cell)]].itertuples(index=False, name=None))


def table(file: Path) -> str:
    """The rows as Markdown, for docs/fidelity.md."""
    lines = [
        "| load | QoS | queue | batches | policy | utilisation | AUD | error (points) | p50 (ms) | "
        "error (%) | p95 (ms) | error (%) | met | beyond doubt missed |",
        "| " + " | ".join(["---"] * 14) + " |",
    ]
    for row in pd.read_csv(file).to_dict("records"):
        figures = [f"{100 * row['aud_live']:.1f} %", _error(row, "aud", 2)]
        for metric in ("latency_p50_s", "latency_p95_s"):
            figures += [f"{1e3 * row[f'{metric}_live']:.2f}", _error(row, metric, 1)]
        cells = [
            f"{row['load']:g}",
            str(row["qos"]),
            row["queue"].upper(),
            "of 4" if row["batching"] else "-",
            row["policy"],
            f"{row['utilisation']:.2f}",
            *figures,
            row["met"],
            str(row["missed_beyond_doubt"]).replace("nan", "-"),
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _error(row: dict[str, Any], metric: str, digits: int) -> str:
    half = row[f"{metric}_half_width"]
    interval = "" if np.isnan(half) else f" ± {100 * half:.{digits}f}"
    return f"{100 * row[f'{metric}_error']:+.{digits}f}{interval}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("-o", "--output", type=Path, default=Path("results/fidelity"))
    parser.add_argument("--loads", default="0.2,0.5,0.8")
    parser.add_argument("--seconds", type=float, default=15)
    parser.add_argument("--replications", type=int, default=5)
    parser.add_argument("--backbone", default="resnet20")
    parser.add_argument(
        "--steps", type=int, default=100, help="training steps; a deeper backbone needs more"
    )
    parser.add_argument("--runtime", default="eager")
    parser.add_argument("--only", default="", help="cells whose name contains this")
    parser.add_argument("--half", action="store_true", help="every other cell, balanced")
    parser.add_argument("--awake", action="store_true", help="keep processors from sleeping (root)")
    parser.add_argument("--like", type=Path, metavar="FOLDER", help="ask what was asked there")
    parser.add_argument("--table", action="store_true", help="print what is there as Markdown")
    parser.add_argument(
        "--broker",
        choices=("mosquitto", "embedded"),
        default="mosquitto" if shutil.which("mosquitto") else "embedded",
    )
    options = parser.parse_args()
    folder: Path = options.output
    file = folder / "fidelity.csv"
    if options.table:
        print(table(file))
        return
    folder.mkdir(parents=True, exist_ok=True)
    scenario = folder / "fidelity.yaml"
    text = SCENARIO.format(
        backbone=options.backbone,
        steps=options.steps,
        runtime=options.runtime,
        host=", on processors kept awake" if options.awake else "",
    )
    finished = done(file)
    begun = folder / "work.json"
    if begun.exists() and scenario.exists() and scenario.read_text() != text:
        sys.exit(f"{folder} was begun with another backbone, steps or runtime, or awake or not")
    scenario.write_text(text)
    wanted = [cell for cell in cells([float(it) for it in options.loads.split(",")])
              if options.only in cell.name and (is_of_half(cell) or not options.half)]  # fmt: skip
    missing = [cell for cell in wanted if astuple(cell) not in finished]
    least_s = len(missing) * len(POLICIES) * options.replications * (options.seconds + 2)
    print(f"{len(missing)} of {len(wanted)} cells, at least {least_s / 60:.0f} min", flush=True)
    if not missing:
        return
    if (times := slowdown(time_work())) >= NOT_QUIET:
        print(
            f"warning: this host is not quiet: the same work took up to {times:.1f} times as long"
        )
    # Loads stay what they are when the matrix goes on another day: they are part of a cell.
    if options.like:
        theirs = options.like / begun.name
        if not theirs.exists() or (begun.exists() and begun.read_text() != theirs.read_text()):
            sys.exit(f"{options.like} holds no matrix, or {folder} was begun with other loads")
        if absent := [it.name for it in missing if not (options.like / it.name / "live").is_dir()]:
            sys.exit(f"{options.like} has not {', '.join(absent)}")
        shutil.copyfile(theirs, begun)
    if begun.exists():
        asked = Work(**json.loads(begun.read_text()))
    else:
        asked = work(scenario, folder, options)
        begun.write_text(json.dumps(asdict(asked)) + "\n")
    print(
        f"one image to the last exit, busy: {1e3 * asked.mean_s:.3f} ms, "
        f"and {1e3 * asked.disturb_s:.3f} ms more for each message meanwhile",
        flush=True,
    )
    for cell in missing:
        print(f"--- {cell.name}", flush=True)
        rows = validate(cell, scenario, folder, asked, options)
        if options.like:
            append(folder / "live_twice.csv", live_twice(cell, folder, options.like))
        append(file, rows)
    print(table(file))
    if options.like:
        print("Live twice:", table(folder / "live_twice.csv"), sep="\n\n")


if __name__ == "__main__":
    main()
