"""Named random streams: every component draws from its own, whatever the others do.

A stream is known by its name, such as ``("arrivals", "cameras")``, and begins at a key spawned
from one ``SeedSequence`` of the scenario's seed and the replication. Within a stream, every device
has numbers of its own, each found by its position alone: adding a device, a group, a component or
a request reshuffles no other, and nothing has to be drawn in order.
"""

from __future__ import annotations

import hashlib

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Integers = NDArray[np.integer]
_Words = NDArray[np.uint64]

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_FIRST, _SECOND = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)
_30, _27, _31, _11 = (np.uint64(shift) for shift in (30, 27, 31, 11))


def distinct(indices: Integers) -> list[int]:
    """The distinct values of small whole numbers, ascending: without sorting, as numpy does."""
    found: list[int] = np.flatnonzero(np.bincount(indices)).tolist()
    return found


class Streams:
    """The random streams of one replication.

    Args:
        seed: of the scenario.
        replication: numbered from 0; each has streams that are independent of all others.
    """

    def __init__(self, seed: int, replication: int) -> None:
        self._seed = seed
        self._replication = replication
        self._uniforms: dict[tuple[str | int, ...], Uniforms] = {}

    def _sequence(self, *name: str | int) -> np.random.SeedSequence:
        digest = hashlib.blake2b("/".join(map(str, name)).encode(), digest_size=16).digest()
        words = np.frombuffer(digest, dtype="<u4").tolist()
        return np.random.SeedSequence(self._seed, spawn_key=(self._replication, *words))

    def generator(self, *name: str | int) -> np.random.Generator:
        """A generator that depends on seed, replication and ``name`` alone."""
        return np.random.Generator(np.random.PCG64(self._sequence(*name)))

    def uniforms(self, *name: str | int) -> Uniforms:
        """Uniform numbers that depend on seed, replication, ``name`` and their position alone."""
        known = self._uniforms.get(name)
        if known is None:
            known = Uniforms(int(self._sequence(*name).generate_state(1, np.uint64)[0]))
            self._uniforms[name] = known
        return known


class Uniforms:
    """Uniform numbers in [0, 1), found by device and position.

    Position *n* of a device is output *n* of the generator SplitMix64 (Steele, Lea & Flood 2014,
    "Fast splittable pseudorandom number generators"), whose state begins at a hash of the stream's
    key and the device: as splitting does there.

    Args:
        key: of the stream.
    """

    def __init__(self, key: int) -> None:
        self._key = np.uint64(key)

    def __call__(self, device: Integers, position: Integers) -> Floats:
        """Uniform numbers in [0, 1).

        Args:
            device: (N,) numbered from 0.
            position: (N,) numbered from 0 for each device.
        """
        state = np.asarray(device).astype(np.uint64)
        state *= _GOLDEN
        state += self._key
        _mix(state)
        steps = np.asarray(position).astype(np.uint64)
        steps += np.uint64(1)
        steps *= _GOLDEN
        state = state + steps
        _mix(state)
        state >>= _11
        return np.asarray(state * 2.0**-53, dtype=np.float64)


def scrambled(u: Floats, salt: int) -> Floats:
    """Further uniform numbers in [0, 1) from some, as if independent of them.

    Args:
        u: (N,) in [0, 1).
        salt: another one gives other numbers.
    """
    words = (u * 2.0**53).astype(np.uint64)
    # Output `salt` of a generator SplitMix64 for each.
    words += np.uint64(salt * int(_GOLDEN) & 0xFFFFFFFFFFFFFFFF)
    _mix(words)
    words >>= _11
    return np.asarray(words * 2.0**-53, dtype=np.float64)


def _mix(words: _Words) -> None:
    """The finaliser of SplitMix64, in place: every input bit moves every output bit."""
    words ^= words >> _30
    words *= _FIRST
    words ^= words >> _27
    words *= _SECOND
    words ^= words >> _31
