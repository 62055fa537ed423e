"""Service times that follow one another are alike: a machine is slower for a while, then faster.

On a processor that others share, or whose clock moves, inference that takes long now takes long in
the next moment too. With the same distribution of service times, that makes queues longer: slow
services come together.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy import special

from sim.distributions import Floats

#: Waves that make up what service times have in common: the more, the closer to normal.
_WAVES = 64

_BELOW_1 = float(np.nextafter(1.0, 0.0))


@dataclass(frozen=True)
class Autocorrelation:
    """How alike the service times of a node are, by the time between them.

    Attributes:
        share: correlation, between normal scores, of services that follow at once; in [0, 1).
        time_s: after which it is 1/e of that.
    """

    share: float
    time_s: float

    def __post_init__(self) -> None:
        if not (0 <= self.share < 1 and self.time_s > 0 and math.isfinite(self.time_s)):
            raise ValueError(f"{self}: share must be in [0, 1), and time_s above 0")


class AlikeInTime:
    """Turns independent uniform numbers into some that are alike where their times are close.

    A Gaussian copula: normal scores of the numbers are mixed with a stationary Gaussian process of
    covariance exp(-|t| / time_s), so that each number by itself is as uniform as before. The
    process is a sum of waves with random phases and frequencies from its spectrum (random Fourier
    features: Rahimi & Recht, NIPS 2007), which gives its value at any time without those before.

    Args:
        random: decides the process; its own for each node and replication.
    """

    def __init__(self, alike: Autocorrelation, random: np.random.Generator) -> None:
        self._own = math.sqrt(1 - alike.share)
        self._common = math.sqrt(alike.share * 2 / _WAVES)
        # The spectrum of exp(-|t| / time_s) is Cauchy's distribution.
        self._frequency = random.standard_cauchy(_WAVES) / alike.time_s
        self._phase = random.uniform(0, 2 * math.pi, _WAVES)

    def __call__(self, u: Floats, at_s: Floats) -> Floats:
        """(N,) uniform numbers in [0, 1).

        Args:
            u: (N,) in [0, 1).
            at_s: (N,) times.
        """
        waves = np.cos(np.multiply.outer(at_s, self._frequency) + self._phase).sum(axis=1)
        scores = self._own * special.ndtri(u) + self._common * waves
        return np.asarray(np.minimum(special.ndtr(scores), _BELOW_1))
