"""``offramp sweep`` as a user starts it, while processes are killed; and stores that are shared."""

from __future__ import annotations

import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests.offramp.sweep_machines import Machines

#: A world without profiles, whose points take some tens of milliseconds.
QUICK: dict[str, Any] = {
    "training.seeds": 1,
    "training.strategies": ["standard"],
    "nodes.edge": {"workers": 1, "service_ms": 5},
    "policies": ["deadline_aware"],
}
TABLES = ("sweep.parquet", "summary.csv", "failures.csv")


@pytest.fixture
def start(
    scenario: Callable[..., Path], store: Path, tmp_path: Path
) -> Callable[..., subprocess.Popen[str]]:
    """Starts a sweep of 48 points on two workers."""
    path = scenario(QUICK)
    counts = ",".join(map(str, range(1, 25)))

    def run(results: Path, *further: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "offramp", "sweep", str(path), "-q", "-j", "2"]
        command += ["--set", f"devices.cameras.count={counts}", "--set", "seed=1,2"]
        command += ["--store", str(store), "-o", str(results), *further]
        return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    return run


def bytes_of(results: Path) -> dict[str, bytes]:
    return {name: (results / name).read_bytes() for name in TABLES}


def workers_of(pid: int) -> list[int]:
    """Worker processes that a driver has now."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            command = (folder / "cmdline").read_text()
        except (OSError, ValueError):
            continue
        if parent == pid and "popen_loky" in command:
            found.append(int(folder.name))
    return found


def wait_for_workers(process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 300
    while len(workers_of(process.pid)) < 2 and process.poll() is None:
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.mark.skipif(sys.platform != "linux", reason="looks for processes in /proc")
def test_killing_workers_and_drivers_at_random_changes_no_byte(
    start: Callable[[Path], subprocess.Popen[str]], tmp_path: Path
) -> None:
    calm, wild = tmp_path / "calm", tmp_path / "wild"
    process = start(calm)
    _, said = process.communicate(timeout=600)
    assert process.returncode == 0, said
    drawn = random.Random(5)
    for end in (signal.SIGKILL, signal.SIGINT):
        process = start(wild)
        wait_for_workers(process)
        time.sleep(drawn.uniform(0, 2))
        for worker in workers_of(process.pid)[:1]:
            os.kill(worker, signal.SIGKILL)
        time.sleep(drawn.uniform(0, 1))
        workers = workers_of(process.pid)
        process.send_signal(end)
        _, said = process.communicate(timeout=600)
        # It may have been done before.
        assert process.returncode in (0, -signal.SIGKILL if end == signal.SIGKILL else 130), said
        deadline = time.monotonic() + 30
        while any(Path(f"/proc/{worker}").exists() for worker in workers):
            assert time.monotonic() < deadline, "workers outlive their driver"
            time.sleep(0.05)
    process = start(wild)
    _, said = process.communicate(timeout=600)
    assert process.returncode == 0, said
    assert bytes_of(wild) == bytes_of(calm)


def points_done(results: Path) -> int:
    """Points that a sweep has made to last."""
    try:
        base = sqlite3.connect(f"file:{results / 'points.sqlite'}?mode=ro", uri=True)
        with closing(base):
            (count,) = base.execute("SELECT count(*) FROM points").fetchone()
    except sqlite3.Error:
        return 0
    return int(count)


def wait_for_points(results: Path, count: int, process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 120
    while points_done(results) < count and process.poll() is None:
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_killing_workers_and_the_scheduler_of_a_cluster_changes_no_byte(
    start: Callable[..., subprocess.Popen[str]], tmp_path: Path
) -> None:
    longer = ("--set", "simulation.duration_s=300")
    calm, wild = tmp_path / "calm", tmp_path / "wild"
    process = start(calm, *longer)
    _, said = process.communicate(timeout=600)
    assert process.returncode == 0, said
    for attempt in ("first", "second"):
        machines = Machines(tmp_path / attempt)
        try:
            for name in ("one", "other"):
                machines.worker(name)
            process = start(wild, *longer, "--dask", machines.address)
            if attempt == "first":
                wait_for_points(wild, 1, process)
                os.kill(machines.pids()[0], signal.SIGKILL)
                wait_for_points(wild, points_done(wild) + 1, process)
                machines.scheduler.kill()
            _, said = process.communicate(timeout=600)
        finally:
            machines.stop()
        if attempt == "first":
            assert process.returncode == 2, said
            assert "scheduler is lost" in said
            assert 2 <= points_done(wild) < 48
    assert process.returncode == 0, said
    assert bytes_of(wild) == bytes_of(calm)


TRAINS = """
import sys
from pathlib import Path

from offramp.console import Console
from offramp.scenario import load_scenario
from offramp.stages.training import TrainingStage, run_training
from offramp.store import Store

train = TrainingStage.train_network

def noted(stage, strategy, seed, made_from):
    with Path(sys.argv[3]).open("a") as file:
        file.write(f"{strategy} {seed}\\n")
    train(stage, strategy, seed, made_from)

TrainingStage.train_network = noted
print("ready", flush=True)
sys.stdin.readline()
experiment = load_scenario(sys.argv[1]).experiment
print(len([*run_training(experiment, Store(Path(sys.argv[2]), print), Console(quiet=True))]))
"""


def test_two_processes_that_want_the_same_network_train_it_once(
    scenario: Callable[..., Path], tmp_path: Path
) -> None:
    path, notes = scenario({"training.seeds": 1}), tmp_path / "notes"
    command = [sys.executable, "-c", TRAINS, str(path), str(tmp_path / "empty"), str(notes)]
    processes = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
    said = [process.communicate(timeout=600)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0]
    assert sorted(notes.read_text().split("\n")) == ["", "curriculum 0", "standard 0"]
    assert any("waiting for another process" in text for text in said)
