"""Requests that are under way, found by their index."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sim.distributions import Floats
from sim.workload.device_groups import NO_REQUESTS, Requests

Indices = NDArray[np.int64]


@dataclass
class _Part:
    """What was added at once: the first index, and how many have no outcome yet."""

    first: int
    requests: Requests
    entry: Indices
    arrived_s: Floats
    open: int


class Ledger:
    """The requests that were created and have no outcome yet, slice by slice."""

    def __init__(self) -> None:
        self._parts: list[_Part] = []

    def add(self, first: int, requests: Requests) -> None:
        """Requests, the first of which has the index ``first``."""
        count = len(requests)
        if count:
            entry, arrived_s = np.zeros(count, dtype=np.int64), np.full(count, np.nan)
            self._parts.append(_Part(first, requests, entry, arrived_s, count))

    def note(self, index: Indices, entry: Indices, arrived_s: Floats | None = None) -> None:
        """Which node requests reach first, or would have, and when."""
        part = self._part(index)
        for number in range(len(self._parts)):
            rows = np.flatnonzero(part == number)
            if not len(rows):
                continue
            it = self._parts[number]
            places = index[rows] - it.first
            it.entry[places] = entry[rows]
            if arrived_s is not None:
                it.arrived_s[places] = arrived_s[rows]

    def rows(self, index: Indices) -> Requests:
        """The requests with these indices."""
        if not len(index):
            return NO_REQUESTS
        part = self._part(index)
        low, high = int(part.min()), int(part.max())
        parts = [it.requests for it in self._parts[low : high + 1]]
        requests = parts[0] if len(parts) == 1 else Requests.joined(parts)
        return requests.where(index - self._parts[low].first)

    def entries(self, index: Indices) -> tuple[Indices, Floats]:
        """What was noted of these requests."""
        if not len(index):
            return np.zeros(0, dtype=np.int64), np.zeros(0)
        part = self._part(index)
        low, high = int(part.min()), int(part.max())
        parts = self._parts[low : high + 1]
        rows = index - parts[0].first
        entry = np.concatenate([it.entry for it in parts])[rows]
        return entry, np.concatenate([it.arrived_s for it in parts])[rows]

    def close(self, index: Indices) -> None:
        """Forget these requests, whose outcome is known."""
        for number, count in enumerate(np.bincount(self._part(index)).tolist()):
            self._parts[number].open -= count
        while self._parts and not self._parts[0].open:
            del self._parts[0]

    def _part(self, index: Indices) -> Indices:
        firsts = [part.first for part in self._parts]
        found: Indices = np.searchsorted(firsts, index, side="right") - 1
        return found
