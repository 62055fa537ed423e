"""A runtime that computes nothing: for tests and benchmarks of what is around it."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.artifacts import Profile
from sim.nodes.service import ProfiledService
from sim.nodes.spec import NodeSpec

INPUT_SHAPE = (1, 2, 2)
CLASSES = 10


def surely(exit: int, pixel: int) -> float:
    return 1.0


@dataclass(frozen=True)
class FakeState:
    """How far some images have come; of each, only its first pixel is kept."""

    exit: int
    pixels: tuple[int, ...]


@dataclass
class FakeRuntime:
    """The class of an image is its first pixel modulo 10; the confidence is a function's.

    ``segment`` is called with the exit and the pixels of each segment that is computed: it may
    sleep, wait for a test, or raise. ``computed`` notes every step.
    """

    exit_count: int = 3
    confidence: Callable[[int, int], float] = surely
    segment: Callable[[int, tuple[int, ...]], None] | None = None
    name: str = "fake"
    computed: list[tuple[str, int, tuple[int, ...]]] = field(default_factory=list)
    notes: bool = True
    threads: int = 0

    def start(self, images: NDArray[np.uint8]) -> FakeState:
        assert images.dtype == np.uint8
        assert images.ndim == 4
        return FakeState(0, tuple(images[:, 0, 0, 0].tolist()))

    def run_segment(self, exit: int, state: FakeState) -> FakeState:
        assert exit == state.exit + 1
        if self.segment is not None:
            self.segment(exit, state.pixels)
        if self.notes:
            self.computed.append(("segment", exit, state.pixels))
        return FakeState(exit, state.pixels)

    def classify(self, exit: int, state: FakeState) -> tuple[list[float], list[int]]:
        assert exit == state.exit
        if self.notes:
            self.computed.append(("classify", exit, state.pixels))
        confidences = [self.confidence(exit, pixel) for pixel in state.pixels]
        return confidences, [pixel % CLASSES for pixel in state.pixels]

    def join(self, states: Sequence[FakeState]) -> FakeState:
        return FakeState(states[0].exit, sum((state.pixels for state in states), ()))

    def take(self, state: FakeState, rows: Sequence[int]) -> FakeState:
        return FakeState(state.exit, tuple(state.pixels[row] for row in rows))

    def prepare_thread(self) -> None:
        self.threads += 1


def image_of(pixel: int, shape: tuple[int, int, int] = INPUT_SHAPE) -> bytes:
    """A raw image with a first pixel."""
    return bytes([pixel]) + bytes(int(np.prod(shape)) - 1)


def profile_of(segment_s: float = 1e-3, exits: int = 3, sizes: Sequence[int] = (1, 8)) -> Profile:
    """A profile in which every segment takes the same time and a classifier none."""
    parts = np.full((10, exits), segment_s)
    times = {"exit": parts.cumsum(axis=1), "segment": parts, "branch": np.full((10, exits), 1e-9)}
    return Profile(dict.fromkeys(sizes, times), {"architecture": "fake"})


def node_spec(segment_s: float = 1e-3, exits: int = 3, **changes: Any) -> NodeSpec:
    """A node with one worker, changed."""
    service = ProfiledService(profile_of(segment_s, exits), 1.0, changes.get("batch_size", 1))
    return NodeSpec(**{"name": "edge", "workers": 1, "service": service, **changes})


def in_time(seconds: float) -> float:
    """So many seconds; up to four times as many on a host whose processors have other work too.

    What is promised to be quick is tested as it is promised where nothing else runs. Beside other
    work a test would tell of that work.
    """
    return seconds * min(4.0, max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1)))


def eventually(what: Callable[[], Any], within_s: float = 10.0) -> Any:
    """Wait until something is true; return it."""
    until_s = time.monotonic() + within_s
    while not (value := what()):
        assert time.monotonic() < until_s, "it did not happen in time"
        time.sleep(0.002)
    return value
