"""Measuring how long each exit takes on this host."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from models.architecture import Architecture
from models.artifacts import Profile
from models.host import fingerprint
from models.multi_exit import MultiExitNetwork, build_network, exit_costs


@dataclass(frozen=True)
class ProfilingSettings:
    """Settings of a profile.

    Attributes:
        batch_sizes: images per inference; 1 must be among them.
        repetitions: measured inferences per batch size and kind.
        warm_up: inferences before the first that counts, per batch size.
        threads: torch's intra-op threads.
        precision: ``fp32`` or ``bf16`` (autocast).
    """

    batch_sizes: tuple[int, ...] = (1, 8)
    repetitions: int = 200
    warm_up: int = 20
    threads: int = 1
    precision: str = "fp32"


def measure_profile(
    architecture: Architecture,
    settings: ProfilingSettings,
    on_inference: Callable[[int], None] | None = None,
) -> Profile:
    """Measure ``architecture`` on this host; latency depends on the shape, not on the weights.

    Each repetition runs one inference to each exit alone, then one that computes every exit on
    the way; so a slow moment of the host falls on all exits alike. What is timed is what a node
    does between taking an image and knowing class and confidence: the segments, the classifier,
    the softmax and reading its maximum. Nothing measured is left out, outliers included.

    Args:
        on_inference: called with the number of repetitions done.
    """
    network = build_network(architecture, seed=0).eval().to(memory_format=torch.channels_last)
    generator = torch.Generator().manual_seed(0)
    seconds = {}
    done = 0
    with _threads(settings.threads), torch.inference_mode(), _precision(settings.precision):
        for batch_size in settings.batch_sizes:
            images = torch.randn(batch_size, *architecture.input_shape, generator=generator)
            images = images.contiguous(memory_format=torch.channels_last)
            exits = network.exit_count
            times = {
                name: np.empty((settings.repetitions, exits))
                for name in ("exit", "segment", "branch")
            }
            for repetition in range(-settings.warm_up, settings.repetitions):
                to_exit = [_time_exit(network, images, exit) for exit in range(1, exits + 1)]
                segments, branches = _time_parts(network, images)
                if repetition < 0:
                    continue
                times["exit"][repetition] = to_exit
                times["segment"][repetition], times["branch"][repetition] = segments, branches
                done += 1
                if on_inference:
                    on_inference(done)
            seconds[batch_size] = times
    about = {
        "architecture": architecture.fingerprint(),
        "network": str(architecture),
        "exits": [asdict(cost) for cost in exit_costs(network)],
        "host": fingerprint(settings.threads, settings.precision),
        "settings": asdict(settings),
    }
    return Profile(seconds, about)


@contextmanager
def _threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _precision(precision: str) -> torch.autocast:
    return torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16")


def _decide(logits: Tensor) -> tuple[list[float], list[int]]:
    confidence, predicted = F.softmax(logits.float(), dim=1).max(dim=1)
    return confidence.tolist(), predicted.tolist()


def _time_exit(network: MultiExitNetwork, images: Tensor, exit: int) -> float:
    start = time.perf_counter()
    _decide(network.infer(images, exit))
    return time.perf_counter() - start


def _time_parts(
    network: MultiExitNetwork, images: Tensor
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    clock = time.perf_counter
    segments, branches = np.empty(network.exit_count), np.empty(network.exit_count)
    start = clock()
    state = network.start(images)
    for exit in range(1, network.exit_count + 1):
        state = network.run_segment(exit, state)
        reached = clock()
        _decide(network.classify(exit, state))
        answered = clock()
        segments[exit - 1], branches[exit - 1] = reached - start, answered - reached
        start = answered
    return segments, branches
