"""What is known of the machine that measures. Free of torch."""

from __future__ import annotations

import ctypes
import importlib.util
import os
import platform
import re
from functools import cache
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


@cache
def has_cuda() -> bool:
    """Whether the torch installed here is built for CUDA, and the driver shows a device.

    As ``torch.cuda.is_available`` answers, without importing torch: keys depend on it.
    """
    return _torch_is_built_for_cuda() and _cuda_devices() > 0


def _torch_is_built_for_cuda() -> bool:
    spec = importlib.util.find_spec("torch")
    if spec is None or spec.origin is None:
        return False
    text = Path(spec.origin).with_name("version.py").read_text(encoding="utf-8")
    return re.search(r"^cuda\b[^=]*=\s*['\"]", text, re.MULTILINE) is not None


def _cuda_devices() -> int:
    """Number of devices that the driver shows this process, CUDA_VISIBLE_DEVICES considered."""
    for name in ("libcuda.so.1", "nvcuda.dll"):
        try:
            driver = ctypes.CDLL(name)
        except OSError:
            continue
        count = ctypes.c_int(0)
        if driver.cuInit(0) == 0 and driver.cuDeviceGetCount(ctypes.byref(count)) == 0:
            return count.value
    return 0


def resolved_device(device: str) -> str:
    """``auto`` becomes ``cuda`` where this host has it, else ``cpu``."""
    if device != "auto":
        return device
    return "cuda" if has_cuda() else "cpu"


def resolved_precision(precision: str, device: str = "cpu") -> str:
    """``auto`` becomes ``bf16`` where the device has instructions for it, else ``fp32``.

    Every CUDA device of torch's has (older ones compute it in fp32). A processor without them was
    measured to train ten times slower under bf16 autocast than in fp32.
    """
    if precision != "auto":
        return precision
    return "bf16" if device == "cuda" or has_fast_bf16() else "fp32"


def _board_model() -> str:
    """Name of a single-board computer such as a Raspberry Pi, or an empty string."""
    try:
        return Path("/proc/device-tree/model").read_text(errors="replace").strip("\0 \n")
    except OSError:
        return ""


def host_facts() -> dict[str, str | int]:
    """What a result may depend on of the machine that computed it, and never changes on it."""
    return {
        "processor": _cpu_info().get("model name") or platform.processor() or platform.machine(),
        "board": _board_model(),
        "machine": platform.machine(),
        "system": platform.system(),
        "cores": os.cpu_count() or 1,
    }
