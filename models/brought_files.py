"""Files that a user named on one machine, brought along to another, where the names lead nowhere.

A folder of such files stands in for the folder that names are relative to.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

#: Within the folder, files whose names lead out of it.
_ELSEWHERE = ".brought"


def brought_place(name: str) -> Path:
    """Where in a folder of files brought along the one lies that is called ``name``.

    A name that leads elsewhere (absolute, or with ``..``, ``~`` or ``$VARIABLES``) has a place of
    its own; any other is the place.
    """
    path = Path(name)
    if not (path.is_absolute() or ".." in path.parts or name.startswith("~") or "$" in name):
        return path
    own = hashlib.sha256(name.encode()).hexdigest()[:16]
    return Path(_ELSEWHERE, own, path.name)


def is_elsewhere(place: Path | str) -> bool:
    """Whether a place among files brought along is that of a name that leads elsewhere."""
    return Path(place).parts[:1] == (_ELSEWHERE,)


def brought_file(name: str, folder: Path) -> Path | None:
    """The copy of a file whose name leads out of ``folder``, if it was brought along into it."""
    place = brought_place(name)
    if not is_elsewhere(place):
        return None
    path = folder / place
    return path if path.is_file() else None
