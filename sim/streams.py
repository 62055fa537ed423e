"""Named random streams: every component draws from its own, whatever the others do.

A stream is known by its name, such as ``("arrivals", "cameras")``, and is spawned from one
``SeedSequence`` of the scenario's seed and the replication. Within a group, device *d* owns row
*d* of its streams: adding a device, a group or a component reshuffles no other.
"""

from __future__ import annotations

import hashlib

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


class Streams:
    """The random streams of one replication.

    Args:
        seed: of the scenario.
        replication: numbered from 0; each has streams that are independent of all others.
    """

    def __init__(self, seed: int, replication: int) -> None:
        self._seed = seed
        self._replication = replication

    def generator(self, *name: str | int) -> np.random.Generator:
        """A generator that depends on seed, replication and ``name`` alone."""
        digest = hashlib.blake2b("/".join(map(str, name)).encode(), digest_size=16).digest()
        words = np.frombuffer(digest, dtype="<u4").tolist()
        sequence = np.random.SeedSequence(self._seed, spawn_key=(self._replication, *words))
        return np.random.Generator(np.random.PCG64(sequence))

    def device_uniforms(
        self, component: str, group: str, devices: int, block: int
    ) -> DeviceUniforms:
        """Uniform numbers for every device of a group, drawn ``block`` a device at a time."""
        return DeviceUniforms(self, component, group, devices, block)


class DeviceUniforms:
    """Rows of uniform numbers in [0, 1), one row per device, that grow on demand."""

    def __init__(
        self, streams: Streams, component: str, group: str, devices: int, block: int
    ) -> None:
        self._streams = streams
        self._name = (component, group)
        self._shape = (devices, block)
        self._blocks: list[Floats] = []

    def first(self, columns: int) -> Floats:
        """The first ``columns`` numbers of every device: (devices, columns)."""
        while len(self._blocks) * self._shape[1] < columns:
            # Row-major, so that the rows of the devices before are the same for any group size.
            generator = self._streams.generator(*self._name, len(self._blocks))
            self._blocks.append(generator.random(self._shape))
        drawn = self._blocks[0] if len(self._blocks) == 1 else np.concatenate(self._blocks, axis=1)
        return drawn[:, :columns]
