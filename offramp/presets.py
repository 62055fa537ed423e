"""Links that ship with Offramp, to start a scenario from.

``scenarios/presets/links.yaml`` gives the source of every figure beside it.
"""

from __future__ import annotations

from copy import deepcopy
from functools import cache
from importlib import resources
from typing import Any

from offramp.yaml_lines import read_yaml


def link_presets() -> dict[str, dict[str, Any]]:
    """The keys of a section of ``links`` for each preset, by its name; the caller's to change."""
    return deepcopy(_read_links())


def link_preset(name: str) -> dict[str, Any] | None:
    """The keys of one preset, the caller's to change; None: there is none of that name."""
    return deepcopy(_read_links().get(name))


@cache
def _read_links() -> dict[str, dict[str, Any]]:
    file = resources.files("scenarios") / "presets" / "links.yaml"
    presets: dict[str, dict[str, Any]] = read_yaml(file.read_text(encoding="utf-8"))[0]
    return presets
