"""Tensors by name in a safetensors file, with texts in its header."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor

from models.files import whole_file


def write_tensors(path: Path, tensors: Mapping[str, Tensor], header: dict[str, str]) -> None:
    """Write a file, whole or not at all.

    Raises:
        OSError: it cannot be written.
    """
    # Cloned, since what two layers share is written twice.
    content = save({name: it.contiguous().clone() for name, it in tensors.items()}, header)
    with whole_file(path) as partial:
        partial.write_bytes(content)


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors of a file, and its header.

    Raises:
        OSError, SafetensorError: the file is absent, truncated, or no safetensors file.
    """
    with safe_open(path, framework="pt") as file:
        names = file.keys()
        return {name: file.get_tensor(name) for name in names}, file.metadata() or {}
