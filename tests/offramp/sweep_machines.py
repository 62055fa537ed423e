"""A Dask cluster for tests, whose workers are as on machines of their own."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil

ROOT = Path(__file__).parents[2]


class Machines:
    """A scheduler, and workers that each have a home, a store and a working folder of their own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.address = f"tcp://127.0.0.1:{free.getsockname()[1]}"
        self.processes: list[subprocess.Popen[bytes]] = []
        self.scheduler = self._start("scheduler", "--port", self.address.rpartition(":")[2])
        deadline = time.monotonic() + 60
        while not self._listens():
            assert time.monotonic() < deadline, self.log("scheduler")
            time.sleep(0.05)

    def worker(self, name: str, path: str = "") -> None:
        """Start one, with ``path`` before all other packages."""
        self._start("worker", self.address, "--nthreads", "1", "--name", name, name=name, path=path)

    def pids(self) -> list[int]:
        """Of the processes that compute, which their nannies start again."""
        found = []
        for child in psutil.Process().children(recursive=True):
            with suppress(psutil.NoSuchProcess):
                if "spawn_main" in " ".join(child.cmdline()):
                    found.append(child.pid)
        return found

    def log(self, name: str) -> str:
        return (self.folder / name / "log").read_text()

    def stop(self) -> None:
        for process in self.processes:
            process.terminate()
        for process in self.processes:
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def _start(self, *command: str, name: str = "scheduler", path: str = "") -> Any:
        home = self.folder / name
        home.mkdir(parents=True)
        environment = {
            **os.environ,
            "HOME": str(home),
            "OFFRAMP_STORE": str(home / "store"),
            "PYTHONPATH": os.pathsep.join(filter(None, (path, str(ROOT)))),
        }
        with (home / "log").open("wb") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "dask", *command, "--host", "127.0.0.1", "--no-dashboard"],
                cwd=home,
                env=environment,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        self.processes.append(process)
        return process

    def _listens(self) -> bool:
        host, _, port = self.address.removeprefix("tcp://").rpartition(":")
        try:
            socket.create_connection((host, int(port)), timeout=1).close()
        except OSError:
            return False
        return True
