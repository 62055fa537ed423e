"""What is known of the machine that measures. Free of torch."""

from __future__ import annotations

import os
import platform
from importlib import metadata
from pathlib import Path


def _cpu_info() -> dict[str, str]:
    """The first processor's entry of /proc/cpuinfo; empty where there is none."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return {}
    pairs = (line.split(":", 1) for line in text.splitlines() if ":" in line)
    info: dict[str, str] = {}
    for key, value in pairs:
        info.setdefault(key.strip(), value.strip())
    return info


def has_fast_bf16() -> bool:
    """Whether the processor has bf16 arithmetic (AVX-512 BF16, AMX, or Arm's BF16)."""
    info = _cpu_info()
    flags = set((info.get("flags", "") + " " + info.get("Features", "")).split())
    return bool(flags & {"avx512_bf16", "amx_bf16", "bf16"})


def _board_model() -> str:
    """Name of a single-board computer such as a Raspberry Pi, or an empty string."""
    try:
        return Path("/proc/device-tree/model").read_text(errors="replace").strip("\0 \n")
    except OSError:
        return ""


def _governor() -> str:
    try:
        path = Path("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")
        return path.read_text(encoding="utf-8").strip()
    except OSError:
        return "unknown"


def fingerprint(threads: int, precision: str) -> dict[str, str | int]:
    """What a latency measured here depends on: processor, cores, threads, software, governor."""
    info = _cpu_info()
    return {
        "processor": info.get("model name") or platform.processor() or platform.machine(),
        "board": _board_model(),
        "machine": platform.machine(),
        "system": platform.system(),
        "cores": os.cpu_count() or 1,
        "threads": threads,
        "governor": _governor(),
        "dtype": precision,
        "python": platform.python_version(),
        "torch": metadata.version("torch"),
    }
