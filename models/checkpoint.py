"""Checkpoints: one safetensors file with the weights, and their origin as JSON in its header."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from models.architecture import Architecture
from models.errors import CheckpointError
from models.files import whole_file
from models.multi_exit import MultiExitNetwork
from models.training import TrainingCurve

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
    header = {"format": FORMAT, "origin": json.dumps(asdict(origin), sort_keys=True)}
    tensors = {name: tensor.contiguous() for name, tensor in network.state_dict().items()}
    with whole_file(path) as partial:
        save_file(tensors, partial, metadata=header)


def load_checkpoint(path: Path) -> tuple[MultiExitNetwork, Origin]:
    """Read a checkpoint into a network of its own architecture, in inference mode.

    Raises:
        CheckpointError: the file is absent, truncated, not one of ours, or its weights do not fit
            the architecture that it names.
    """
    try:
        with safe_open(path, framework="pt") as file:
            header = file.metadata() or {}
            names = file.keys()
            tensors = {name: file.get_tensor(name) for name in names}
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
        origin = _read_origin(json.loads(header["origin"]))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise CheckpointError(
            f"{path}: its header does not say what it holds: {error!r}"
        ) from error
    try:
        network = MultiExitNetwork(origin.architecture)
    except (KeyError, TypeError, ValueError, RuntimeError, IndexError) as error:
        raise CheckpointError(
            f"{path}: its header names a network that cannot be built: {error!r}"
        ) from error
    try:
        network.load_state_dict(tensors)
    except RuntimeError as error:
        raise CheckpointError(
            f"{path}: weights do not fit {origin.architecture}: {error}"
        ) from error
    network.to(memory_format=torch.channels_last)
    return network.eval(), origin


def _read_origin(values: dict[str, Any]) -> Origin:
    description = dict(values.pop("architecture"))
    description["exits"] = tuple(description["exits"])
    description["input_shape"] = tuple(description["input_shape"])
    curve = TrainingCurve(**values.pop("curve"))
    return Origin(architecture=Architecture(**description), curve=curve, **values)
