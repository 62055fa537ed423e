"""A warning that a profile was measured while the host was not quiet. Free of torch."""

from __future__ import annotations

from pathlib import Path

from models.artifacts import read_profile
from models.inference.quietness import noise_of
from offramp.console import Console
from offramp.stages.layout import PROFILE


def warn_of_noise(folder: Path, console: Console) -> None:
    """Say so if the host was not quiet when it made the profile in ``folder``."""
    if noise := noise_of(read_profile(folder / PROFILE)):
        console.note(f"warning: {noise}; `offramp profile --again` measures anew")
