"""What a latency measured on this host depends on. Free of torch."""

from __future__ import annotations

import platform
from importlib import metadata
from pathlib import Path

from models.errors import NetworkError
from models.host import host_facts
from models.inference.runtimes import INSTALL_ONNX


def fingerprint(threads: int, precision: str, runtime: str = "eager") -> dict[str, str | int]:
    """What a latency measured here depends on: processor, cores, threads, software, governor.

    Raises:
        NetworkError: the runtime is not installed.
    """
    software = {"torch": metadata.version("torch")}
    if runtime == "onnxruntime":
        software[runtime] = _onnxruntime_version()
    return {
        **host_facts(),
        "threads": threads,
        "governor": _governor(),
        "dtype": precision,
        "python": platform.python_version(),
        "runtime": runtime,
        **software,
    }


def _onnxruntime_version() -> str:
    # Not from the metadata: several packages install it, under names of their own.
    try:
        import onnxruntime
    except ImportError as error:
        raise NetworkError(
            f"runtime 'onnxruntime' cannot be imported ({error}): {INSTALL_ONNX}"
        ) from error
    version: str = onnxruntime.__version__
    return version


def _governor() -> str:
    try:
        path = Path("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")
        return path.read_text(encoding="utf-8").strip()
    except OSError:
        return "unknown"
