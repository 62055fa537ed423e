"""Measuring how long each exit takes on this host, by the runtime that serves."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.artifacts import MEASUREMENTS, Profile
from models.data.datasets import DatasetInfo
from models.inference.fingerprint import fingerprint
from models.inference.runtimes import InferenceSettings, SegmentRuntime, build_runtime
from models.inference.torch_runtime import thread_count
from models.networks.architecture import Architecture
from models.networks.multi_exit import MultiExitNetwork, build_network, exit_costs

#: Repetitions of one batch size before the next has its turn.
_IN_A_ROW = 10


@dataclass(frozen=True)
class ProfilingSettings:
    """Settings of a profile.

    Attributes:
        batch_sizes: images per inference; 1 must be among them.
        repetitions: measured inferences per batch size and kind.
        warm_up: inferences before the first that counts, per batch size.
        threads: of one inference.
        precision: ``fp32`` or ``bf16``.
        runtime: one of :data:`models.inference.runtimes.RUNTIMES`.
    """

    batch_sizes: tuple[int, ...] = (1, 8)
    repetitions: int = 200
    warm_up: int = 20
    threads: int = 1
    precision: str = "fp32"
    runtime: str = "eager"

    @property
    def inference(self) -> InferenceSettings:
        """How the network is computed."""
        return InferenceSettings(self.runtime, self.precision, self.threads)


def measure_profile(
    architecture: Architecture,
    info: DatasetInfo,
    settings: ProfilingSettings,
    on_inference: Callable[[int], None] | None = None,
) -> Profile:
    """Measure ``architecture`` on this host; latency depends on the shape, not on the weights.

    Args:
        info: says how images are normalised, which is measured too.
        on_inference: called with the number of repetitions done.

    Raises:
        NetworkError: the runtime is not installed, or cannot compute this network.
    """
    network = build_network(architecture, seed=0)
    runtime = build_runtime(network, info, settings.inference, settings.batch_sizes)
    with thread_count(settings.threads):
        return measure_runtime(runtime, network, settings, on_inference)


def measure_runtime(
    runtime: SegmentRuntime,
    network: MultiExitNetwork,
    settings: ProfilingSettings,
    on_inference: Callable[[int], None] | None = None,
) -> Profile:
    """Measure a runtime that was built, with the settings' batch sizes, for ``network``.

    Each repetition runs one inference to each exit alone, then one that computes every exit on
    the way, and batch sizes take turns after a few; so a slow moment of the host falls on all
    exits and batch sizes alike. What is timed is what a node does between taking an image and
    knowing class and confidence: normalisation, the segments, the classifier, the softmax and
    reading its maximum. Nothing measured is left out, outliers included. The calling thread is
    prepared for the runtime, and stays so.

    Args:
        settings: those with which the runtime was built, and how often to measure.
        on_inference: called with the number of repetitions done.
    """
    runtime.prepare_thread()
    generator = np.random.default_rng(0)
    exits = runtime.exit_count
    shape = network.architecture.input_shape
    images = {
        size: generator.integers(0, 256, (size, *shape), dtype=np.uint8)
        for size in settings.batch_sizes
    }
    seconds = {
        size: {kind: np.empty((settings.repetitions, exits)) for kind in MEASUREMENTS}
        for size in images
    }
    for of_size in images.values():
        for _ in range(settings.warm_up):
            _time_all(runtime, of_size)
    done = 0
    for begin in range(0, settings.repetitions, _IN_A_ROW):
        for size, times in seconds.items():
            if len(images) > 1:
                _time_all(runtime, images[size])  # caches hold what the last size needed
            for repetition in range(begin, min(begin + _IN_A_ROW, settings.repetitions)):
                for kind, found in zip(MEASUREMENTS, _time_all(runtime, images[size]), strict=True):
                    times[kind][repetition] = found
                done += 1
                if on_inference:
                    on_inference(done)
    return Profile(seconds, _about(network, settings))


def _about(network: MultiExitNetwork, settings: ProfilingSettings) -> dict[str, Any]:
    return {
        "architecture": network.architecture.fingerprint(),
        "network": str(network.architecture),
        "exits": [asdict(cost) for cost in exit_costs(network)],
        "host": fingerprint(settings.threads, settings.precision, settings.runtime),
        "settings": asdict(settings),
    }


def _time_all(
    runtime: SegmentRuntime, images: NDArray[np.uint8]
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Seconds to each exit alone, and of the segments and branches of one inference to all."""
    exits = range(1, runtime.exit_count + 1)
    to_exit = np.array([_time_exit(runtime, images, exit) for exit in exits])
    return (to_exit, *_time_parts(runtime, images))


def _time_exit(runtime: SegmentRuntime, images: NDArray[np.uint8], exit: int) -> float:
    start = time.perf_counter()
    state = runtime.start(images)
    for segment in range(1, exit + 1):
        state = runtime.run_segment(segment, state)
    runtime.classify(exit, state)
    return time.perf_counter() - start


def _time_parts(
    runtime: SegmentRuntime, images: NDArray[np.uint8]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    clock = time.perf_counter
    segments, branches = np.empty(runtime.exit_count), np.empty(runtime.exit_count)
    start = clock()
    state = runtime.start(images)
    for exit in range(1, runtime.exit_count + 1):
        state = runtime.run_segment(exit, state)
        reached = clock()
        runtime.classify(exit, state)
        answered = clock()
        segments[exit - 1], branches[exit - 1] = reached - start, answered - reached
        start = answered
    return segments, branches
