"""Checkpoints: one safetensors file with the weights, and their origin as JSON in its header."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from models.errors import CheckpointError, NetworkError
from models.networks.architecture import Architecture, code_hash, read_architecture
from models.networks.multi_exit import MultiExitNetwork
from models.networks.weights import as_state_dict
from models.tensor_files import read_tensors, write_tensors
from models.training.train import TrainingCurve

FORMAT = "offramp-checkpoint-1"


@dataclass(frozen=True)
class Origin:
    """Where a checkpoint comes from."""

    architecture: Architecture
    dataset: str
    regime: str
    strategy: str
    seed: int
    steps: int
    curve: TrainingCurve


def save_checkpoint(path: Path, network: MultiExitNetwork, origin: Origin) -> None:
    """Write ``network`` and ``origin`` to ``path``, whole or not at all."""
    described = {
        "architecture": origin.architecture.identity(),
        "dataset": origin.dataset,
        "regime": origin.regime,
        "strategy": origin.strategy,
        "seed": origin.seed,
        "steps": origin.steps,
        "curve": asdict(origin.curve),
    }
    header = {"format": FORMAT, "origin": json.dumps(described, sort_keys=True)}
    write_tensors(path, network.state_dict(), header)


def load_checkpoint(path: Path, folder: Path = Path()) -> tuple[MultiExitNetwork, Origin]:
    """Read a checkpoint into a network of its own architecture, in inference mode.

    Args:
        folder: a user's own backbone lies in a file relative to it.

    Raises:
        CheckpointError: the file is absent, truncated, not one of ours, or its weights do not fit
            the architecture that it names.
    """
    try:
        tensors, header = read_tensors(path)
    except (SafetensorError, OSError) as error:
        raise CheckpointError(
            f"{path}: not a readable checkpoint (truncated, or no safetensors file): {error}"
        ) from error
    if header.get("format") != FORMAT:
        raise CheckpointError(
            f"{path}: a safetensors file, but not an Offramp checkpoint "
            f"(format {header.get('format')!r}, expected {FORMAT!r})"
        )
    try:
        origin = _read_origin(json.loads(header["origin"]), folder)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise CheckpointError(
            f"{path}: its header does not say what it holds: {error!r}"
        ) from error
    architecture = origin.architecture
    try:
        code = code_hash(architecture.backbone, folder) if architecture.code else ""
    except OSError as error:
        raise CheckpointError(f"{path}: its network's code is missing: {error}") from error
    if code != architecture.code:
        raise CheckpointError(f"{path}: {architecture.backbone} has changed since it was trained")
    try:
        network = MultiExitNetwork(architecture)
    except NetworkError as error:
        raise CheckpointError(
            f"{path}: its header names a network that cannot be built: {error}"
        ) from error
    except (KeyError, TypeError, ValueError, RuntimeError, IndexError) as error:
        raise CheckpointError(
            f"{path}: its header names a network that cannot be built: {error!r}"
        ) from error
    try:
        network.load_state_dict(as_state_dict(tensors, network))
    except (RuntimeError, ValueError) as error:
        raise CheckpointError(
            f"{path}: weights do not fit {origin.architecture}: {error}"
        ) from error
    network.to(memory_format=torch.channels_last)
    return network.eval(), origin


def read_curve(path: Path) -> TrainingCurve:
    """The learning curve in a checkpoint of ours, without its weights.

    Raises:
        CheckpointError: the file is absent, truncated, or not one of ours.
    """
    try:
        with safe_open(path, framework="pt") as file:
            return TrainingCurve(**json.loads((file.metadata() or {})["origin"])["curve"])
    except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"{path}: not a readable checkpoint: {error!r}") from error


def _read_origin(values: dict[str, Any], folder: Path) -> Origin:
    architecture = read_architecture(values.pop("architecture"), folder)
    curve = TrainingCurve(**values.pop("curve"))
    return Origin(architecture=architecture, curve=curve, **values)
