"""One tiny scenario, trained once a session, and hands to change and run it.

Its profile has the latencies of a quiet host, whatever the host of the tests does meanwhile.
"""

import copy
import hashlib
import io
import shutil
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from ruamel.yaml import YAML, SequenceNode
from typer.testing import CliRunner

from models.artifacts import Profile
from models.inference.profiler import measure_profile
from offramp import Pipeline, load_scenario
from offramp.cli import app
from offramp.stages import profiling
from offramp.store import Store

#: Small enough to train in seconds; 180 requests a run are enough for a VALID verdict.
TINY: dict[str, Any] = {
    "name": "tiny",
    "description": "Five cameras, one edge board.",
    "seed": 3,
    "data": {"dataset": "digits"},
    "model": {"backbone": "resnet8", "exits": ["layer1"]},
    "training": {
        "strategies": ["standard", "curriculum"],
        "seeds": 2,
        "steps": 5,
        "batch_size": 32,
        "evaluations": 1,
        "threads": 1,
        "scoring": {"folds": 2, "steps": 3},
    },
    "profile": {"batch_sizes": [1], "repetitions": 10, "warm_up": 1},
    "links": {
        "wifi": {
            "uplink": {"latency_ms": 3, "jitter_ms": 1, "bandwidth_mbps": 20},
            "downlink": {"latency_ms": 3},
        }
    },
    "nodes": {"edge": {"workers": 1, "speed": 0.1}},
    "devices": {
        "cameras": {
            "count": 5,
            "arrivals": {"process": "poisson", "rate_hz": 12},
            "deadline_ms": 40,
            "link": "wifi",
            "node": "edge",
        }
    },
    "policies": ["deadline_aware", {"policy": "fixed_exit", "exit": 2}],
    "simulation": {
        "duration_s": 3,
        "warm_up_s": 0.5,
        "replications": 2,
        "deadline_scales": [0.5, 1],
    },
}


def write_scenario(path: Path, changes: dict[str, Any] | None = None) -> Path:
    """Write TINY to ``path``, one key a line, with ``changes`` by dotted key; ``...`` removes."""
    data = copy.deepcopy(TINY)
    for key, value in (changes or {}).items():
        *parents, last = key.split(".")
        node: Any = data
        for part in parents:
            node = node[int(part)] if isinstance(node, list) else node.setdefault(part, {})
        if value is ...:
            del node[last]
        else:
            node[int(last) if isinstance(node, list) else last] = value
    text = io.StringIO()
    yaml = YAML()
    yaml.default_flow_style = False
    yaml.dump(data, text)
    path.write_text(text.getvalue(), encoding="utf-8")
    return path


def find_place(path: Path, key: str) -> str:
    """File and line of ``key``, or of the deepest part of it that is there."""
    node, line = YAML().compose(path.read_text(encoding="utf-8")), 0
    for part in key.split("."):
        if isinstance(node, SequenceNode):
            node = node.value[int(part)]
            line = node.start_mark.line + 1
            continue
        here = [pair for pair in getattr(node, "value", []) if pair[0].value == part]
        if not here:
            break
        line, node = here[0][0].start_mark.line + 1, here[0][1]
    return f"{path}:{line}" if line else str(path)


@dataclass(frozen=True)
class Ran:
    """What a command did."""

    status: int
    out: str
    err: str


def run_offramp(*arguments: object) -> Ran:
    """Run a command in this process. An exception that the command lets escape is raised here."""
    with warnings.catch_warnings():
        # seaborn 0.13 asks matplotlib 3.11 for boxes in an old way; see
        # test_report_files.py::test_a_report_warns_of_nothing.
        warnings.filterwarnings("ignore", message="vert: bool was deprecated")
        result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return Ran(result.exit_code, result.stdout, result.stderr)


@dataclass(frozen=True)
class Trained:
    """The session's run of the tiny scenario. Read only: tests change copies."""

    scenario: Path
    store: Path
    results: Path
    first_run: Ran


def measure_as_if_quiet(*arguments: Any) -> Profile:
    """As ``measure_profile``, with the latencies of a quiet host in place of the measured ones.

    What is late or overloaded in the tiny scenario would otherwise depend on how busy the host is.
    """
    measured = measure_profile(*arguments)
    draws = np.random.default_rng(0)
    seconds: dict[int, dict[str, NDArray[np.float64]]] = {}
    for batch, kinds in measured.seconds.items():
        shape = kinds["segment"].shape
        noise = draws.lognormal(sigma=0.15, size=(2, *shape))
        segment, branch = 0.3e-3 * batch * noise[0], 0.1e-3 * batch * noise[1]
        alone = np.cumsum(segment, axis=1) + branch
        seconds[batch] = {"exit": alone, "segment": segment, "branch": branch}
    return Profile(seconds, measured.about)


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    folder = tmp_path_factory.mktemp("trained")
    scenario = write_scenario(folder / "tiny.yaml")
    store, results = folder / "store", folder / "results"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(profiling, "measure_profile", measure_as_if_quiet)
        ran = run_offramp("run", scenario, "--store", store, "-o", results, "-j", 1)
    assert ran.status == 0, ran.err
    return Trained(scenario, store, results, ran)


@pytest.fixture
def store(trained: Trained, tmp_path: Path) -> Path:
    """A store of one's own in which the tiny scenario is trained and profiled."""
    return Path(shutil.copytree(trained.store, tmp_path / "store"))


@pytest.fixture(autouse=True)
def _own_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test reads or writes the user's store, datasets or working folder."""
    monkeypatch.setenv("OFFRAMP_STORE", str(tmp_path / "default-store"))
    monkeypatch.setenv("OFFRAMP_DATA", str(tmp_path / "no-data"))
    for name in ("FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="session")
def weights_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with weights of a ResNet-56 for CIFAR-10, as scenarios that ship name them."""
    import torch

    from models.networks.cifar_resnet import CifarResNet

    folder = tmp_path_factory.mktemp("weights")
    torch.save(CifarResNet(blocks=9, classes=10).state_dict(), folder / "resnet56-4bfd9763.th")
    return folder


@pytest.fixture
def named_files(weights_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What scenarios that ship name by an environment variable is there."""
    monkeypatch.setenv("OFFRAMP_WEIGHTS", str(weights_folder))


@pytest.fixture
def scenario(tmp_path: Path) -> Callable[..., Path]:
    """Writes the tiny scenario, changed, and returns its path."""

    def write(changes: dict[str, Any] | None = None, name: str = "tiny.yaml") -> Path:
        return write_scenario(tmp_path / name, changes)

    return write


@pytest.fixture(scope="session")
def written() -> Callable[..., Path]:
    """As ``scenario``, to a path of one's own."""
    return write_scenario


@pytest.fixture(scope="session")
def offramp() -> Callable[..., Ran]:
    return run_offramp


@pytest.fixture
def place_of() -> Callable[..., str]:
    return find_place


@pytest.fixture
def snapshot() -> Callable[..., dict[str, str]]:
    """Every file below some folders, with a hash of its content."""

    def take(*folders: Path) -> dict[str, str]:
        return {
            str(path): hashlib.sha256(path.read_bytes()).hexdigest()
            for folder in folders
            for path in sorted(folder.rglob("*"))
            if path.is_file()
        }

    return take


@pytest.fixture
def simulated(
    store: Path, scenario: Callable[..., Path], tmp_path: Path
) -> Callable[..., tuple[Pipeline, Path]]:
    """Simulates the tiny scenario, changed, from the trained networks; returns the results."""
    count = 0

    def simulate(
        changes: dict[str, Any] | None = None, jobs: int = 1, name: str = "tiny.yaml"
    ) -> tuple[Pipeline, Path]:
        nonlocal count
        count += 1
        pipeline = Pipeline(load_scenario(str(scenario(changes, name))), Store(store))
        results = tmp_path / f"results-{count}"
        pipeline.simulate(results, jobs)
        return pipeline, results

    return simulate


@pytest.fixture
def fixed_service() -> dict[str, Any]:
    """A change to the world whose service times no measurement decides."""
    return {
        "nodes.edge": {
            "workers": 1,
            "service_ms": {"distribution": "lognormal", "median": 5, "sigma": 0.4},
        }
    }
