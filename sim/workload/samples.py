"""Which sample of the test set a request sends.

What a device sends depends on its own random numbers and on its request's number alone: not on
where slices of time are cut, nor on the other devices.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from sim.streams import Uniforms
from sim.workload.request_traces import RequestTrace

Numbers = NDArray[np.int64]
Named = Callable[[str], Uniforms]


class SampleStream(Protocol):
    """The samples of a group's requests, one slice after another."""

    def next(self, device: Numbers, number: Numbers) -> Numbers:
        """Positions (N,) in the test set of what these requests send.

        Args:
            device: (N,) within the group, from 0.
            number: (N,) of the request within its device. Each device's numbers begin at 0 and go
                on one by one, through a call and from call to call; devices may be interleaved.
        """


class Samples(Protocol):
    """A rule that chooses samples, the same for every device of a group."""

    def begin(self, labels: NDArray[Any], devices: int, uniforms: Named) -> SampleStream:
        """A stream from each device's first request.

        Args:
            labels: (samples,) true classes of the test set.
            devices: their count.
            uniforms: gives the random numbers of each named stream of the group; the names used
                here begin with ``sample/``.
        """


@dataclass(frozen=True)
class Drawn:
    """Every request sends any sample, independently."""

    def begin(self, labels: NDArray[Any], devices: int, uniforms: Named) -> SampleStream:
        """See :class:`Samples`."""
        return _DrawnStream(len(labels), uniforms("sample/drawn"))


@dataclass(frozen=True)
class Shuffled:
    """Each device goes through a random order of the whole test set, then through another."""

    def begin(self, labels: NDArray[Any], devices: int, uniforms: Named) -> SampleStream:
        """See :class:`Samples`."""
        return _ShuffledStream(len(labels), uniforms("sample/order"))


@dataclass(frozen=True)
class Correlated:
    """A device keeps seeing the same class for a while.

    It sends samples of one class, drawn uniformly within it, for a geometric number of requests;
    then a class is drawn in proportion to its frequency in the test set, which may be the same
    one again. Over many requests every sample is equally frequent.

    Attributes:
        mean_run: mean number of requests until a class is drawn anew, at least 1; 1 is the same
            law as :class:`Drawn`.
    """

    mean_run: float

    def __post_init__(self) -> None:
        if not 1 <= self.mean_run < math.inf:
            raise ValueError(f"mean_run must be at least 1 and finite, but is {self.mean_run}")

    def begin(self, labels: NDArray[Any], devices: int, uniforms: Named) -> SampleStream:
        """See :class:`Samples`."""
        return _CorrelatedStream(self.mean_run, labels, devices, uniforms)


@dataclass(frozen=True)
class TraceSamples:
    """The samples that a trace names for its requests."""

    trace: RequestTrace

    def begin(self, labels: NDArray[Any], devices: int, uniforms: Named) -> SampleStream:
        """See :class:`Samples`: draws no random numbers.

        Raises:
            ScenarioError: the trace names a sample that the test set does not have, or a device
                that the group does not have.
            ValueError: the trace names no samples.
        """
        if self.trace.sample is None:
            raise ValueError(f"{self.trace.path} has no column 'sample'")
        self.trace.check(devices, len(labels))
        return _TraceSampleStream(self.trace, self.trace.sample)


@dataclass(frozen=True)
class _DrawnStream:
    samples: int
    uniforms: Uniforms

    def next(self, device: Numbers, number: Numbers) -> Numbers:
        return _below(self.samples, self.uniforms(device, number))


class _ShuffledStream:
    """Permutations that are computed entry by entry and stored nowhere.

    A sample's position in the test set is a pair of digits, which an alternating Feistel network
    (Luby & Rackoff 1988; for domains that are no power of two, Black & Rogaway 2002, "Ciphers with
    arbitrary finite domains", methods 2 and 3) permutes: each round adds to one digit a random
    number that depends on the other, which can be undone. Pairs beyond the test set are mapped
    again until they fall within it; they are fewer than a row, so this is rare.

    Four rounds already look random to who sees few of the entries; six leave a margin. A device
    that goes through a small set sees them all, and there it takes more (the tests compare how
    often each order of five samples comes up).
    """

    def __init__(self, samples: int, uniforms: Uniforms) -> None:
        self._samples = samples
        self._high = math.isqrt(samples - 1) + 1
        self._low = -(-samples // self._high)
        self._rounds = 6 if samples >= 1000 else 24
        self._uniforms = uniforms

    def next(self, device: Numbers, number: Numbers) -> Numbers:
        """See :class:`SampleStream`."""
        through, entry = np.divmod(number, self._samples)
        entry = self._permuted(device, through, entry)
        outside = np.flatnonzero(entry >= self._samples)
        while len(outside):
            entry[outside] = self._permuted(device[outside], through[outside], entry[outside])
            outside = outside[entry[outside] >= self._samples]
        return entry

    def _permuted(self, device: Numbers, through: Numbers, entry: Numbers) -> Numbers:
        high, low = np.divmod(entry, self._low)
        for step in range(0, self._rounds, 2):
            # Every step of every time through the test set has random numbers of its own.
            position = (through * self._rounds + step) * self._high
            high += _below(self._high, self._uniforms(device, position + low))
            high %= self._high
            position += self._high
            low += _below(self._low, self._uniforms(device, position + high))
            low %= self._low
        entries: Numbers = high * self._low + low
        return entries


class _CorrelatedStream:
    """Keeps, for each device, the number of the request at which its present run began."""

    def __init__(
        self, mean_run: float, labels: NDArray[Any], devices: int, uniforms: Named
    ) -> None:
        self._ends = 1 / mean_run
        self._run = uniforms("sample/run")
        self._class = uniforms("sample/class")
        self._within = uniforms("sample/within")
        self._began: Numbers = np.zeros(devices, dtype=np.int64)
        _, class_of, count = np.unique(labels, return_inverse=True, return_counts=True)
        self._class_of: Numbers = class_of
        self._count: Numbers = count
        #: Samples class by class, and where each class begins there.
        self._members: Numbers = np.argsort(class_of, kind="stable")
        self._first: Numbers = np.cumsum(count) - count

    def next(self, device: Numbers, number: Numbers) -> Numbers:
        """See :class:`SampleStream`."""
        began = self._run_begins(device, number)
        # The class of a random sample is a class in proportion to its frequency.
        kind = self._class_of[_below(len(self._class_of), self._class(device, began))]
        within = (self._within(device, number) * self._count[kind]).astype(np.int64)
        positions: Numbers = self._members[self._first[kind] + within]
        return positions

    def _run_begins(self, device: Numbers, number: Numbers) -> Numbers:
        """The number (N,) of the request that began the run of each."""
        order = np.argsort(device, kind="stable")
        device, number = device[order], number[order]
        first = np.flatnonzero(np.diff(device, prepend=-1))
        renewed = self._run(device, number) < self._ends
        # The latest row that began a run, or the device's first row, which carries on.
        row = np.where(renewed, np.arange(len(device)), 0)
        row[first] = first
        row = np.maximum.accumulate(row)
        began = np.where(renewed[row], number[row], self._began[device])
        last = np.append(first, len(device))[1:] - 1
        self._began[device[last]] = began[last]
        placed = np.empty_like(began)
        placed[order] = began
        return placed


@dataclass(frozen=True)
class _TraceSampleStream:
    trace: RequestTrace
    sample: Numbers

    def next(self, device: Numbers, number: Numbers) -> Numbers:
        return self.sample[self.trace.rows(device, number)]


def _below(count: int, u: NDArray[np.float64]) -> Numbers:
    """Whole numbers from 0 to ``count`` − 1, equally likely, from uniform numbers."""
    return (u * count).astype(np.int64)
