"""The modules that floors above need to check, simulate and report are free of torch."""

import subprocess
import sys
from pathlib import Path

import models.artifacts

ROOT = Path(models.artifacts.__file__).parent.parent

FREE_OF_TORCH = [
    "models.networks.architecture",
    "models.data.array_files",
    "models.artifacts",
    "models.data.datasets",
    "models.errors",
    "models.files",
    "models.host",
    "models.importing",
    "models.data.label_noise",
    "models.training.pacing",
    "models.data.published_scores",
    "models.training.strategies",
]

PROGRAM = """
import importlib, sys
for name in sys.argv[1:]:
    importlib.import_module(name)
print(" ".join(sorted(name for name in sys.modules if "." not in name)))
"""


def loaded_by(program, *names):
    """Top-level modules in a fresh interpreter after ``program``."""
    done = subprocess.run(
        [sys.executable, "-c", program, *names],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    return set(done.stdout.split())


def test_none_of_them_imports_torch_or_a_floor_above():
    loaded = loaded_by(PROGRAM, *FREE_OF_TORCH)
    assert {"models", "numpy", "pyarrow"} <= loaded, "the program did import them"
    assert not loaded & {"torch", "torchvision", "safetensors"}
    assert not loaded & {"sim", "devices", "offramp"}


def test_the_digits_load_and_a_host_is_described_without_torch():
    loaded = loaded_by(
        "import sys\n"
        "from models.data.datasets import load_dataset\n"
        "from models.inference.fingerprint import fingerprint\n"
        "assert len(load_dataset('digits').train) > 1000\n"
        "assert fingerprint(1, 'fp32')['torch']\n"
        "print(*sys.modules)"
    )
    assert "sklearn" in loaded
    assert not loaded & {"torch", "torchvision"}


def test_training_does_need_it():
    assert "torch" in loaded_by(PROGRAM, "models.training.train"), "the tests above can fail"
