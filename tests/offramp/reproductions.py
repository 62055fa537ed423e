"""What tests of reproductions share."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from offramp.manifest import write_manifest


def outcome(folder: Path) -> dict[str, Any]:
    """What a reproduction found."""
    found: dict[str, Any] = json.loads((folder / "reproduction.json").read_text())
    return found


def rewrite_manifest(
    results: Path, files: Sequence[str], change: Callable[[dict[str, Any]], object]
) -> None:
    """Change a manifest as if what it tells of had been another one."""
    path = results / "manifest.json"
    manifest = json.loads(path.read_text())
    for key in ("format", "checksum", "results"):
        del manifest[key]
    change(manifest)
    write_manifest(path, manifest, files)
