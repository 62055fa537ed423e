"""Service times: how long a worker is busy with the next step of a request."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np

from models.artifacts import Profile
from models.errors import ArtifactError
from sim.distributions import Distribution, Floats, quantile


class Service(Protocol):
    """Service times of a node.

    ``exit_count`` is the number of exits it can compute.
    """

    exit_count: int

    def draw(self, u: Floats) -> Sequence[Any]:
        """For each request, from its uniform number, what ``seconds`` is to be given."""

    def seconds(self, drawn: Any, since: int, to: int) -> float:
        """Seconds from exit ``since`` (0: the image) to the answer of exit ``to``."""

    def quantiles(self, q: float, since: int) -> tuple[float, ...]:
        """Quantile ``q`` of the seconds from ``since`` to each later exit."""

    def means(self) -> tuple[float, ...]:
        """Expected seconds from the image to the answer of each exit."""


class ProfiledService:
    """Service times that were measured: each request replays one of the profile's inferences.

    The first step costs a measured inference to that exit alone; each later step costs the
    segments and the classifier of a measured inference that computed every exit. A request's
    uniform number chooses the rank of the inference, so a slow draw is slow at every exit, and
    within later steps the parts stay together as they were measured.

    Args:
        profile: its batch size 1 is used.
        speed: of the node relative to the profiled host; 0.5 takes twice as long.
    """

    def __init__(self, profile: Profile, speed: float = 1.0) -> None:
        if 1 not in profile.seconds:
            raise ArtifactError(
                f"the profile has batch sizes {', '.join(map(str, profile.seconds))}, but not 1"
            )
        measured = profile.seconds[1]
        self.exit_count = profile.exit_count
        self._inferences = len(measured["exit"])
        alone = np.sort(measured["exit"], axis=0) / speed
        whole = measured["segment"].sum(axis=1) + measured["branch"].sum(axis=1)
        # Ranks are taken among as many inferences as were measured for single exits.
        ranks = np.argsort(whole, kind="stable")
        ranks = ranks[(np.arange(self._inferences) * len(ranks)) // self._inferences]
        reached = np.cumsum(measured["segment"][ranks], axis=1) / speed
        branch = measured["branch"][ranks] / speed
        self._tables: list[list[list[float]]] = [alone.T.tolist()]
        for since in range(1, self.exit_count):
            step = reached - reached[:, [since - 1]] + branch
            self._tables.append(step.T.tolist())

    def draw(self, u: Floats) -> Sequence[int]:
        """See :class:`Service`: the rank of an inference."""
        ranks: list[int] = (u * self._inferences).astype(np.int64).tolist()
        return ranks

    def seconds(self, drawn: int, since: int, to: int) -> float:
        """See :class:`Service`."""
        return self._tables[since][to - 1][drawn]

    def quantiles(self, q: float, since: int) -> tuple[float, ...]:
        """See :class:`Service`."""
        return tuple(float(np.quantile(times, q)) for times in self._tables[since][since:])

    def means(self) -> tuple[float, ...]:
        """See :class:`Service`."""
        return tuple(float(np.mean(times)) for times in self._tables[0])


class DistributedService:
    """Service times from a distribution, spent whole before the first answer, whatever the exit."""

    def __init__(self, distribution: Distribution, exit_count: int, speed: float = 1.0) -> None:
        self.exit_count = exit_count
        self._distribution = distribution
        self._speed = speed

    def draw(self, u: Floats) -> Sequence[float]:
        """See :class:`Service`: the service time itself."""
        times: list[float] = (self._distribution.ppf(u) / self._speed).tolist()
        return times

    def seconds(self, drawn: float, since: int, to: int) -> float:
        """See :class:`Service`."""
        return 0.0 if since else drawn

    def quantiles(self, q: float, since: int) -> tuple[float, ...]:
        """See :class:`Service`."""
        time = 0.0 if since else quantile(self._distribution, q) / self._speed
        return (time,) * (self.exit_count - since)

    def means(self) -> tuple[float, ...]:
        """See :class:`Service`."""
        return (self._distribution.mean() / self._speed,) * self.exit_count
