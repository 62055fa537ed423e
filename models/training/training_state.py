"""A training between two steps, as a file: one that was stopped goes on from there.

It ends in the same weights, to the last bit where the same steps give the same numbers, as on one
processor: what later steps depend on is all there, random numbers included.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from safetensors import SafetensorError
from torch import Tensor

from models.tensor_files import read_tensors, write_tensors

FORMAT = "offramp-training-state-1"


@dataclass(frozen=True)
class TrainingState:
    """What the rest of a phase depends on.

    Attributes:
        step: steps done.
        network, loss: state dicts; a loss may have parameters of its own.
        optimiser: state dict of PyTorch's SGD.
        curve: of the phase so far, as a dict, and ``losses`` since its last evaluation.
        random: :func:`random_states`.
    """

    step: int
    network: dict[str, Tensor]
    loss: dict[str, Tensor]
    optimiser: dict[str, Any]
    curve: dict[str, Any]
    losses: list[float]
    random: dict[str, Tensor]


class StateKeeper(Protocol):
    """Where the state of a phase is kept."""

    def take(self) -> TrainingState | None:
        """The state from which the phase goes on; None: it begins."""
        ...

    def is_due(self) -> bool:
        """Whether a state should be kept now."""
        ...

    def keep(self, state: TrainingState) -> None:
        """Keep it, in place of the one before."""
        ...


def random_states(device: torch.device, generator: torch.Generator | None) -> dict[str, Tensor]:
    """The states of PyTorch's own generators, and of another."""
    states = {"cpu": torch.get_rng_state()}
    if device.type == "cuda":
        states["cuda"] = torch.cuda.get_rng_state(device)
    if generator is not None:
        states["inputs"] = generator.get_state()
    return states


def set_random_states(
    states: dict[str, Tensor], device: torch.device, generator: torch.Generator | None
) -> None:
    """Go on drawing from :func:`random_states`."""
    torch.set_rng_state(states["cpu"])
    if device.type == "cuda":
        torch.cuda.set_rng_state(states["cuda"], device)
    if generator is not None:
        generator.set_state(states["inputs"])


def write_state(path: Path, state: TrainingState, about: dict[str, Any]) -> None:
    """Write a state, whole or not at all: safetensors, and what is no tensor in its header.

    Args:
        about: what else is to be known of it, as JSON has it.

    Raises:
        OSError: it cannot be written.
    """
    tensors = {
        f"{part}/{name}": tensor
        for part in ("network", "loss", "random")
        for name, tensor in getattr(state, part).items()
    }
    tensors |= {
        f"optimiser/{number}/{name}": tensor
        for number, of_parameter in state.optimiser["state"].items()
        for name, tensor in of_parameter.items()
        if tensor is not None  # there is no momentum where it is 0
    }
    described = {
        "step": state.step,
        "curve": state.curve,
        "losses": state.losses,
        "groups": state.optimiser["param_groups"],
        "about": about,
    }
    write_tensors(path, tensors, {"format": FORMAT, "state": json.dumps(described)})


def read_state(path: Path) -> tuple[TrainingState, dict[str, Any]] | None:
    """A state and what is known of it; None if there is none, or none that can be read."""
    try:
        tensors, header = read_tensors(path)
        if header.get("format") != FORMAT:
            return None
        described = json.loads(header["state"])
        of_parameters: dict[int, dict[str, Tensor]] = {}
        for name, tensor in _of_part(tensors, "optimiser").items():
            number, _, what = name.partition("/")
            of_parameters.setdefault(int(number), {})[what] = tensor
        state = TrainingState(
            described["step"],
            _of_part(tensors, "network"),
            _of_part(tensors, "loss"),
            {"state": of_parameters, "param_groups": described["groups"]},
            described["curve"],
            described["losses"],
            _of_part(tensors, "random"),
        )
        return state, described["about"]
    except (SafetensorError, OSError, ValueError, KeyError, TypeError):
        return None


def _of_part(tensors: dict[str, Tensor], part: str) -> dict[str, Tensor]:
    prefix = f"{part}/"
    return {
        name.removeprefix(prefix): tensor
        for name, tensor in tensors.items()
        if name.startswith(prefix)
    }
