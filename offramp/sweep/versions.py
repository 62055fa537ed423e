"""Versions of what the results of a sweep depend on: equal in all workers, or not run. No torch."""

from __future__ import annotations

import hashlib
import platform
from functools import cache
from importlib import metadata, util
from pathlib import Path

#: Packages whose version may change a number, or what an artefact is made from.
PACKAGES = (
    "offramp",
    "numpy",
    "scipy",
    "pandas",
    "pyarrow",
    "simpy",
    "datasketches",
    "scikit-learn",
    "torch",
    "torchvision",
)

#: Offramp's own packages that compute, and the presets that scenarios start from.
_OWN = ("models", "sim", "offramp", "scenarios")

CODE = "code of offramp"


def python_version() -> str:
    """Of Python, without the last number, which changes no result."""
    return ".".join(platform.python_version_tuple()[:2])


def versions() -> dict[str, str]:
    """All versions in this process, by name."""
    packages = {name: metadata.version(name) for name in PACKAGES}
    return {"python": python_version(), **packages, CODE: code_hash()}


@cache
def code_hash() -> str:
    """Hash of Offramp's own code: between two releases, a version number does not tell it apart."""
    digest = hashlib.sha256()
    for package in _OWN:
        spec = util.find_spec(package)
        for place in sorted(spec.submodule_search_locations or ()) if spec else ():
            folder = Path(place)
            for file in sorted(path for path in folder.rglob("*") if path.suffix in _HASHED):
                digest.update(file.relative_to(folder).as_posix().encode())
                digest.update(file.read_bytes().replace(b"\r\n", b"\n"))
    return digest.hexdigest()[:12]


_HASHED = (".py", ".yaml")


def differences(ours: dict[str, str], theirs: dict[str, str]) -> str:
    """What is not the same, named; empty if all that a worker tells of itself is."""
    return ", ".join(
        f"{name} {version} ({ours[name]} here)"
        for name, version in theirs.items()
        if name in ours and version != ours[name]
    )
