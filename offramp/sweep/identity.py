"""What makes a point's result what it is: a hash by which a finished point is known again.

The hash is over the scenario's data with the point's values in it, written key by key, whatever
makes the points: a sweep that is asked for more values, or whose axes are written otherwise, still
knows the points that it had.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from models.errors import OfframpError
from models.importing import code_beside, source_file
from offramp.experiment import user_file
from offramp.stages import keys
from offramp.store import file_hash
from offramp.sweep.point import Context
from offramp.sweep.template import Template
from offramp.sweep.versions import CODE

#: Of what a row says besides the numbers of its run: raised where the same run gets another one.
VERDICT_VERSION = 3

#: Keys of a scenario that no number of a point depends on.
_NO_MATTER = ("name", "description", "recommend")

#: Code of packages whose versions are told.
_VERSIONED = ("models", "sim", "devices", "offramp", "torch", "torchvision")

#: ``package.module:Class`` or ``file.py:Class``.
_CODE = re.compile(r"[\w./~$-]+:\w+")


def identities_of(context: Context) -> Identities:
    """Of points that are simulated as a context says."""
    settings: dict[str, Any] = {name: it for name, it in context.versions.items() if name != CODE}
    settings |= {"device": context.device, "precision": context.precision}
    return Identities(context.template, settings)


class Identities:
    """Hashes of the points of a sweep.

    Args:
        settings: what else all results depend on: versions, device, precision.
    """

    def __init__(self, template: Template, settings: Mapping[str, Any]) -> None:
        self._folder = template.folder
        self._locations = template.locations
        self._files: dict[str, list[str]] = {}
        self._leaves: dict[str, str] = {}
        for location, value in _leaves(template.data, ()):
            swept = any(location[: len(key)] == key for key in template.locations)
            if not swept and location[0] not in _NO_MATTER:
                self._add(self._leaves, location, value)
        stages = {
            "training": keys.TRAINING_VERSION,
            "profiling": keys.PROFILING_VERSION,
            "simulation": keys.SIMULATION_VERSION,
            "verdict": VERDICT_VERSION,
        }
        self._settings = json.dumps([settings, stages], sort_keys=True)

    def of(self, values: Sequence[Any], profile: str) -> bytes:
        """The hash of a point.

        Args:
            profile: hash of the host's profile that it uses, if it does.
        """
        leaves = dict(self._leaves)
        for key, value in zip(self._locations, values, strict=True):
            for location, leaf in _leaves(value, key):
                self._add(leaves, location, leaf)
        text = "\n".join(f"{name} {leaves[name]}" for name in sorted(leaves))
        return hashlib.sha256(f"{self._settings}\n{profile}\n{text}".encode()).digest()[:16]

    def _add(self, leaves: dict[str, str], location: tuple[Any, ...], value: Any) -> None:
        text = json.dumps(value, default=str)
        if isinstance(value, str):
            text = " ".join([text, *self._hashes(value)])
        leaves[".".join(map(str, location))] = text

    def _hashes(self, text: str) -> list[str]:
        """Hashes of the file that a text names; none for most."""
        found = self._files.get(text)
        if found is None:
            found = self._files[text] = [
                file_hash(path) for path in _named_by(text, self._folder) if path.is_file()
            ]
        return found


def _leaves(value: Any, location: tuple[Any, ...]) -> Iterator[tuple[tuple[Any, ...], Any]]:
    """Every value that holds no others, and its place."""
    if isinstance(value, dict) and value:
        for key, inner in value.items():
            yield from _leaves(inner, (*location, key))
    elif isinstance(value, list) and value:
        for index, inner in enumerate(value):
            yield from _leaves(inner, (*location, index))
    else:
        yield location, value


def _named_by(text: str, folder: Path) -> Iterator[Path]:
    try:
        if not _CODE.fullmatch(text):
            path = user_file(text, folder)
            if text and path.is_file():
                yield path
        elif text.replace(":", ".").split(".")[0] not in _VERSIONED:
            code = source_file(text, folder)
            if code:
                yield code
                yield from code_beside(code)
    except (OSError, ValueError, OfframpError):
        return  # too long for a file's name, or with a variable that is not set
