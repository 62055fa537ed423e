"""A scenario that trains in seconds, and the real commands that run it."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

SCENARIO = """\
name: small
seed: 3
data: {dataset: digits}
model: {backbone: resnet8, exits: [layer1]}
training: {strategies: [standard], seeds: 1, steps: 2, batch_size: 32, evaluations: 1, threads: 1}
profile: {batch_sizes: [1], repetitions: 10, warm_up: 1}
links: {wifi: {}}
nodes: {edge: {workers: 1}}
devices:
  cameras:
    count: 2
    arrivals: {process: poisson, rate_hz: 10}
    deadline_ms: 500
    link: wifi
    node: edge
policies: [full]
simulation: {duration_s: 1, warm_up_s: 0.2, replications: 1}
"""

#: torch takes seconds to import, and several commands share two processors with other tests.
WITHIN_S = 120.0


@dataclass(frozen=True)
class Trained:
    """A scenario whose network and profile are in a store."""

    folder: Path
    environment: dict[str, str]

    def start(self, *arguments: str, **environment: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "offramp", *arguments],
            cwd=self.folder,
            env=self.environment | environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, *arguments: str, **environment: str) -> tuple[int, str]:
        """Status, and what stands on standard error, without the lines' ends."""
        process = self.start(*arguments, **environment)
        try:
            _, said = process.communicate(timeout=WITHIN_S)
        finally:
            process.kill()
        return process.returncode, " ".join(said.split())

    @property
    def checkpoint(self) -> Path:
        (file,) = self.folder.glob("store/trained/*/*.safetensors")
        return file


def train(folder: Path) -> Trained:
    """Write the scenario into a folder, train its network there and profile it."""
    (folder / "small.yaml").write_text(SCENARIO, encoding="utf-8")
    environment = {**os.environ, "OFFRAMP_STORE": str(folder / "store")}
    environment |= {"PYTHONPATH": str(Path(__file__).parents[2]), "COLUMNS": "200"}
    made = Trained(folder, environment)
    for command in ("train", "profile"):
        status, said = made.run(command, "small.yaml", "--quiet")
        assert status == 0, said
    return made
