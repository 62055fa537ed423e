"""A training between two steps, as a file: one that was stopped goes on from there.

It ends in the same weights, to the last bit on the same host: what later steps depend on is all
there, random numbers included.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from models.files import whole_file

FORMAT = "offramp-training-state-1"


@dataclass(frozen=True)
class TrainingState:
    """What the rest of a phase depends on.

    Attributes:
        step: steps done.
        network, optimiser, loss: state dicts; a loss may have parameters of its own.
        curve: of the phase so far, as a dict, and ``losses`` since its last evaluation.
        random: :func:`random_states`.
    """

    step: int
    network: dict[str, Tensor]
    optimiser: dict[str, Any]
    loss: dict[str, Any]
    curve: dict[str, Any]
    losses: list[float]
    random: dict[str, Tensor]


class StateKeeper(Protocol):
    """Where the state of a phase is kept.

    Attributes:
        state: from which it goes on; None: it begins.
    """

    state: TrainingState | None

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
    """Write a state, whole or not at all.

    Args:
        about: what else is to be known of it: numbers, texts, lists and dicts.
    """
    # Not asdict, which copies every tensor.
    values = {field.name: getattr(state, field.name) for field in fields(state)}
    with whole_file(path) as partial:
        torch.save({"format": FORMAT, "about": about, "state": values}, partial)


def read_state(path: Path) -> tuple[TrainingState, dict[str, Any]] | None:
    """A state and what is known of it; None if there is none, or none that can be read."""
    try:
        found = torch.load(path, map_location="cpu", weights_only=True)
        if found["format"] != FORMAT:
            return None
        return TrainingState(**found["state"]), found["about"]
    except Exception:
        # Of a damaged file, unpickling raises whatever its bytes lead to.
        return None
