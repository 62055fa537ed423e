"""``offramp live run`` while its own parts are killed: it goes on, and its records are complete."""

from __future__ import annotations

import json
import os
import signal
import time
import urllib.request
from collections import Counter
from pathlib import Path
from typing import Any

from brokers import Mosquitto, free_port
from fake_runtime import eventually
from prometheus_client.parser import text_string_to_metric_families
from small_scenario import WITHIN_S, Trained

from sim.results.records import read_records


def children(parent: int, *words: str) -> list[int]:
    """The processes that ``parent`` started and whose command lines have these words.

    What stood by before has another command line, and the beginning of this one as its name.
    """
    found = []
    for folder in Path("/proc").iterdir():
        if not folder.name.isdigit():
            continue
        try:
            command = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode()
            command += (folder / "comm").read_text()
            started_by = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
        except OSError:  # it has just ended
            continue
        if started_by == parent and all(word in command for word in words):
            found.append(int(folder.name))
    return found


def new_child(parent: int, old: int, *words: str) -> bool:
    """Whether there is one other than ``old``, and that alone."""
    found = children(parent, *words)
    return len(found) == 1 and old not in found


PARTS = {"broker": ("devices.mqtt.embedded_broker",), "node": ("offramp live ed",)}


def answered(port: int) -> float:
    """Requests that the node with this port of metrics has answered; 0 while there is none."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=1) as answer:
            text = answer.read().decode()
    except OSError:
        return 0.0
    samples = (it for family in text_string_to_metric_families(text) for it in family.samples)
    return sum(
        it.value
        for it in samples
        if it.name == "offramp_edge_requests_total" and it.labels["outcome"] == "ok"
    )


def test_a_run_whose_parts_are_killed_one_after_the_other(trained: Trained, tmp_path: Path) -> None:
    port = free_port()
    length = ("--set", "simulation.duration_s=25", "--set", "mqtt.session=persistent")
    run = trained.start(
        *("live", "run", "small.yaml", "-o", str(tmp_path / "live"), *length),
        *("--metrics-port", str(port)),
    )
    try:
        for name in ("broker", "node", "broker"):
            eventually(lambda: answered(port) > 10, WITHIN_S)
            (pid,) = children(run.pid, *PARTS[name])
            os.kill(pid, signal.SIGKILL)
            # The next one is there, and the last gone.
            eventually(lambda name=name, pid=pid: new_child(run.pid, pid, *PARTS[name]), WITHIN_S)
            time.sleep(2.0)
        said, wrong = run.communicate(timeout=WITHIN_S)
    finally:
        run.kill()
        run.communicate()
    assert run.returncode == 0, wrong
    assert "Traceback" not in said + wrong

    warnings = json.loads((tmp_path / "live/manifest.json").read_text())["live"]["warnings"]
    assert sum("the embedded broker ended with status -9" in it for it in warnings) == 2
    assert sum("node edge was ended by SIGKILL" in it for it in warnings) == 1
    # What the simulator creates of the same scenario has one record each.
    status, wrong = trained.run(
        "simulate", "small.yaml", "-o", str(tmp_path / "simulated"), *length
    )
    assert status == 0, wrong
    created = ["request", "device", "sample", "created_s", "deadline_s"]
    live, simulated = (
        read_records(tmp_path / world / "records.parquet") for world in ("live", "simulated")
    )
    assert live.select(created).to_pylist() == simulated.select(created).to_pylist()
    outcomes = Counter(live["outcome"].to_pylist())
    assert outcomes.total() == live.num_rows
    assert set(outcomes) <= {"on_time", "late", "lost"}
    assert outcomes["on_time"] > 0.3 * live.num_rows, outcomes
    assert_all_are_back(live.to_pylist())


def test_a_node_that_is_killed_while_the_broker_is_away_is_back_with_it(
    trained: Trained, mosquitto: Mosquitto, tmp_path: Path
) -> None:
    """The node is started again before there is anything to connect to."""
    port = free_port()
    length = ("--set", "simulation.duration_s=25")
    run = trained.start(
        *("live", "run", "small.yaml", "-o", str(tmp_path / "live"), *length),
        *("--broker", mosquitto.url, "--metrics-port", str(port)),
    )
    try:
        eventually(lambda: answered(port) > 10, WITHIN_S)
        mosquitto.kill()
        (pid,) = children(run.pid, *PARTS["node"])
        os.kill(pid, signal.SIGKILL)
        eventually(lambda: new_child(run.pid, pid, *PARTS["node"]), WITHIN_S)
        # It has its network by then, and has found no broker.
        eventually(lambda: metrics_are_served(port), WITHIN_S)
        time.sleep(3.0)
        mosquitto.start()
        _, wrong = run.communicate(timeout=WITHIN_S)
    finally:
        run.kill()
        run.communicate()
    assert run.returncode == 0, wrong
    warnings = json.loads((tmp_path / "live/manifest.json").read_text())["live"]["warnings"]
    assert sum("node edge was ended by SIGKILL" in it for it in warnings) == 1
    records = read_records(tmp_path / "live/records.parquet").to_pylist()
    assert len({row["request"] for row in records}) == len(records) > 0
    # What devices held back may come late, and what was under way is lost: as many as there were.
    outcomes = {row["outcome"] for row in records}
    assert outcomes <= {"on_time", "late", "lost"}
    assert outcomes & {"late", "lost"}
    assert_all_are_back(records)


def assert_all_are_back(records: list[dict[str, Any]]) -> None:
    """At the end of 25 s."""
    last = [row["outcome"] for row in records if row["created_s"] > 24.0]
    assert last.count("on_time") > 0.8 * len(last)


def metrics_are_served(port: int) -> bool:
    try:
        urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=1).close()
    except OSError:
        return False
    return True
