"""Links between a device and its node: transmission, delay, and order as TCP keeps it.

Each device has a link of its own. A message occupies the link for its size over the bandwidth,
then travels for the delay, during which the next may already be sent. A message never overtakes
one sent before it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np

from sim.distributions import Constant, Distribution, Floats, quantile


@dataclass(frozen=True)
class Direction:
    """One direction of a link.

    Attributes:
        delay: one-way, in seconds, drawn anew for every message.
        bits_per_s: bandwidth of each device; infinite if unlimited.
    """

    delay: Distribution = field(default_factory=lambda: Constant(0.0))
    bits_per_s: float = float("inf")

    def transmission_s(self, size_bytes: int) -> float:
        """Seconds for which a message of ``size_bytes`` occupies the link."""
        return 8 * size_bytes / self.bits_per_s

    def arrivals(self, sent_s: Floats, u: Floats, size_bytes: int) -> Floats:
        """When messages sent at ``sent_s`` arrive.

        Args:
            sent_s: (devices, messages), ascending along each row; infinity for no message.
            u: (devices, messages) uniform numbers that choose the delays.
        """
        occupied = self.transmission_s(size_bytes)
        number = np.arange(sent_s.shape[1])
        # Lindley's recursion, free[i] = max(sent[i], free[i - 1]) + occupied, solved in one pass.
        free = np.maximum.accumulate(sent_s - occupied * number, axis=1) + occupied * (number + 1)
        arrived: Floats = np.maximum.accumulate(free + self.delay.ppf(u), axis=1)
        return arrived


@dataclass(frozen=True)
class Link:
    """Both directions of a link."""

    uplink: Direction = field(default_factory=Direction)
    downlink: Direction = field(default_factory=Direction)


@lru_cache(maxsize=1024)
def travel_quantile_s(direction: Direction, size_bytes: int, q: float) -> float:
    """Quantile ``q`` of the seconds that a lone message of ``size_bytes`` takes."""
    return direction.transmission_s(size_bytes) + quantile(direction.delay, q)
