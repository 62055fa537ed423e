"""What is known of the host: its processor's abilities, and what a latency depends on."""

import json
import os
import platform
import sys
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

import models.host
from models.errors import NetworkError
from models.host import (
    has_cuda,
    has_fast_bf16,
    resolved_device,
    resolved_precision,
)
from models.inference.fingerprint import fingerprint

#: Two processors of one machine, shortened; the second differs so that a mix-up shows.
CPUINFO = """\
processor\t: 0
vendor_id\t: GenuineIntel
model name\t: Some CPU: the fast one @ 2.70GHz
flags\t\t: fpu sse avx512f {flag} amx_int8
address sizes\t: 46 bits physical, 48 bits virtual
power management:

processor\t: 1
model name\t: Another CPU
flags\t\t: fpu
"""


@pytest.fixture
def system_files(monkeypatch):
    """The files of a pretended host, by path; others below /proc and /sys are absent."""
    files, really = {}, Path.read_text

    def read_text(path, *args, **kwargs):
        if str(path) in files:
            return files[str(path)]
        if str(path).startswith(("/proc/", "/sys/")):
            raise FileNotFoundError(path)
        return really(path, *args, **kwargs)  # such as what is installed here, and in which version

    monkeypatch.setattr(Path, "read_text", read_text)
    return files


@pytest.mark.parametrize(
    ("info", "fast"),
    [
        ({"flags": "fpu sse avx512_bf16 avx2"}, True),
        ({"flags": "fpu amx_bf16"}, True),
        ({"Features": "fp asimd bf16"}, True),
        ({"flags": "fpu avx2 avx512f"}, False),
        ({"flags": "avx512_bf16x notbf16 bf"}, False),
        ({"Features": "fp asimd i8mm"}, False),
        ({"model name": "bf16"}, False),
        ({}, False),
    ],
    ids=str,
)
def test_bf16_is_fast_where_a_flag_says_so(monkeypatch, info, fast):
    monkeypatch.setattr(models.host, "_cpu_info", lambda: info)
    assert has_fast_bf16() is fast


@pytest.mark.parametrize(("flag", "fast"), [("avx512_bf16", True), ("avx512_vnni", False)])
def test_flags_are_read_from_the_first_processor(system_files, flag, fast):
    system_files["/proc/cpuinfo"] = CPUINFO.format(flag=flag)
    assert has_fast_bf16() is fast
    assert fingerprint(1, "fp32")["processor"] == "Some CPU: the fast one @ 2.70GHz"


@pytest.mark.parametrize(
    ("built", "devices", "cuda"), [(True, 1, True), (True, 0, False), (False, 1, False)]
)
def test_cuda_takes_a_torch_that_knows_it_and_a_device(monkeypatch, built, devices, cuda):
    monkeypatch.setattr(models.host, "_torch_is_built_for_cuda", lambda: built)
    monkeypatch.setattr(models.host, "_cuda_devices", lambda: devices)
    has_cuda.cache_clear()
    try:
        assert has_cuda() is cuda
        assert resolved_device("auto") == ("cuda" if cuda else "cpu")
    finally:
        has_cuda.cache_clear()
    assert (resolved_device("cpu"), resolved_device("cuda")) == ("cpu", "cuda")


def test_torch_says_the_same_of_cuda_as_is_known_without_it():
    assert models.host._torch_is_built_for_cuda() == (torch.version.cuda is not None)
    assert has_cuda() == torch.cuda.is_available()


@pytest.mark.parametrize("fast", [True, False])
def test_a_cuda_device_computes_in_bf16_whatever_the_processor_does(monkeypatch, fast):
    monkeypatch.setattr(models.host, "has_fast_bf16", lambda: fast)
    assert resolved_precision("auto", "cuda") == "bf16"
    assert resolved_precision("auto", "cpu") == ("bf16" if fast else "fp32")
    assert resolved_precision("fp32", "cuda") == "fp32"


def test_a_fingerprint_says_what_a_latency_depends_on(system_files):
    system_files["/proc/cpuinfo"] = CPUINFO.format(flag="")
    system_files["/proc/device-tree/model"] = "Raspberry Pi 4 Model B Rev 1.5\0"
    system_files["/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"] = "performance\n"
    found = fingerprint(threads=3, precision="bf16")
    assert found == {
        "processor": "Some CPU: the fast one @ 2.70GHz",
        "board": "Raspberry Pi 4 Model B Rev 1.5",
        "machine": platform.machine(),
        "system": platform.system(),
        "cores": os.cpu_count(),
        "threads": 3,
        "governor": "performance",
        "dtype": "bf16",
        "python": platform.python_version(),
        "runtime": "eager",
        "torch": metadata.version("torch"),
    }
    assert json.loads(json.dumps(found)) == found


def test_a_fingerprint_names_the_version_of_the_runtime(monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", SimpleNamespace(__version__="1.99"))
    found = fingerprint(1, "fp32", "onnxruntime")
    assert found["runtime"] == "onnxruntime"
    assert found["onnxruntime"] == "1.99"
    assert "onnxruntime" not in fingerprint(1, "fp32", "compile")


def test_a_runtime_that_is_not_installed_has_no_fingerprint(monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(NetworkError, match=r"pip install 'offramp\[onnx\]'"):
        fingerprint(1, "fp32", "onnxruntime")


def test_a_host_that_tells_nothing_still_has_a_fingerprint(system_files, monkeypatch):
    monkeypatch.setattr(metadata, "version", lambda name: "2.14.0")
    monkeypatch.setattr(platform, "processor", lambda: "")
    assert not has_fast_bf16()
    found = fingerprint(1, "fp32")
    assert found["processor"] == platform.machine()
    assert found["board"] == ""
    assert found["governor"] == "unknown"
