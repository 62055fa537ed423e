"""Runtimes against eager fp32, one image at a time: from a uint8 image to class and confidence.

ResNet-20 on images of CIFAR-10's shape with three exits, one thread. In every round each runtime
answers at each exit alone, one after the other, so that a slow moment of the host falls on all
alike; the ratio of the medians is what counts. Reported besides: what it takes to ask at every exit
on the way, and to build each runtime.

    python benchmarks/runtimes.py [--backbone resnet20] [--batch 1] [--rounds 400]
"""

from __future__ import annotations

import argparse
import gc
import time
from collections.abc import Iterable

import numpy as np
import torch
from numpy.typing import NDArray

from models.data.datasets import DATASETS
from models.host import has_fast_bf16
from models.inference.fingerprint import fingerprint
from models.inference.runtimes import InferenceSettings, SegmentRuntime, build_runtime
from models.networks.architecture import Architecture, default_exits
from models.networks.multi_exit import build_network

INFO = DATASETS["cifar10"]
TARGET = 2.5


def answer(
    runtime: SegmentRuntime, images: NDArray[np.uint8], exit: int, asked: Iterable[int]
) -> None:
    """Compute as far as ``exit``, and ask for class and confidence at the exits ``asked``."""
    state = runtime.start(images)
    for segment in range(1, exit + 1):
        state = runtime.run_segment(segment, state)
        if segment in asked:
            runtime.classify(segment, state)


def settings() -> dict[str, InferenceSettings]:
    """The baseline first."""
    found = {
        "eager": InferenceSettings("eager"),
        "compile": InferenceSettings("compile"),
        "onnxruntime": InferenceSettings("onnxruntime"),
    }
    if has_fast_bf16():
        found["eager, bf16"] = InferenceSettings("eager", "bf16")
    return found


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--backbone", default="resnet20")
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=400)
    given = parser.parse_args()
    torch.set_num_threads(1)
    exits = default_exits(given.backbone)
    network = build_network(Architecture(given.backbone, exits, "linear", 10, INFO.input_shape), 0)
    images = np.random.default_rng(0).integers(
        0, 256, (given.batch, *INFO.input_shape), dtype=np.uint8
    )
    print(f"{given.backbone}, batches of {given.batch}, {fingerprint(1, 'fp32')['processor']}")
    runtimes = {}
    for name, one in settings().items():
        start, cpu = time.perf_counter(), time.process_time()
        runtimes[name] = build_runtime(network, INFO, one, (given.batch,))
        took, computed = time.perf_counter() - start, time.process_time() - cpu
        print(f"{name}: built in {took:.1f} s ({computed:.1f} s of its own processor time)")

    last = network.exit_count
    asked = {f"exit {exit}": (exit, [exit]) for exit in range(1, last + 1)}
    asked["asked at every exit"] = (last, range(1, last + 1))
    times: dict[tuple[str, str], list[float]] = {
        (what, name): [] for what in asked for name in runtimes
    }
    gc.disable()
    for turn in range(-given.rounds // 10, given.rounds):
        for what, (exit, where) in asked.items():
            for name, runtime in runtimes.items():
                # Once unmeasured: the caches hold what the runtime before has left.
                answer(runtime, images, exit, where)
                start = time.perf_counter()
                answer(runtime, images, exit, where)
                if turn >= 0:
                    times[what, name].append(time.perf_counter() - start)

    print(f"{'median ms (p10)':24}" + "".join(f"{name:>22}" for name in runtimes))
    for what in asked:
        row = [1e3 * np.quantile(times[what, name], [0.5, 0.1]) for name in runtimes]
        print(f"{what:24}" + "".join(f"{f'{half:.3f} ({low:.3f})':>22}" for half, low in row))
    medians = {name: np.median(times[f"exit {last}", name]) for name in runtimes}
    for name, median in medians.items():
        print(f"last exit, {name}: {medians['eager'] / median:.2f}x faster than eager fp32")
    best = medians["eager"] / min(medians.values())
    verdict = "met" if best >= TARGET else "missed"
    print(f"best runtime: {best:.2f}x (target at batch 1: {TARGET}x, {verdict})")


if __name__ == "__main__":
    main()
