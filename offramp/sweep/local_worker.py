"""What Dask loads first into workers on this machine."""

from __future__ import annotations

import signal
from typing import Any


def dask_setup(worker: Any) -> None:
    """Leave Ctrl-C, which a terminal sends to workers too, to the driver: it ends them."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
