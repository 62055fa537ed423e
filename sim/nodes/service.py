"""Service times: how long a worker is busy with the next step of a request."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

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

    def batch_seconds(self, drawn: Sequence[Any], since: int, to: int) -> float:
        """As ``seconds``, of requests that are computed together; ``drawn`` of each of them."""

    def resumed(self, drawn: Any, since: int) -> Any:
        """What ``seconds`` is to be given of a request that came with exit ``since`` computed."""

    def quantiles(self, q: float, since: int, resumed: bool = False) -> tuple[float, ...]:
        """Quantile ``q`` of the seconds from ``since`` to each later exit, for one request.

        Args:
            resumed: whether exit ``since`` was computed elsewhere.
        """

    def means(self) -> tuple[float, ...]:
        """Expected seconds from the image straight to the answer of each exit."""

    def stepwise_means(self) -> tuple[float, ...]:
        """Expected seconds from the image to the answer of each exit, going exit by exit.

        Of one request at a time. Whoever looks at every answer before it goes on computes the
        classifiers of all exits on its way; the straight way (``means``) has one classifier.
        """


class ProfiledService:
    """Service times that were measured: each request replays one of the profile's inferences.

    The first step costs a measured inference to that exit alone; each later step costs the
    segments and the classifier of a measured inference that computed every exit. A request's
    uniform number chooses the rank of the inference, so a slow draw is slow at every exit, and
    within later steps the parts stay together as they were measured.

    A batch replays one inference of the measured batch sizes just below and above its own, at the
    rank of its first member, interpolated in between.

    Args:
        profile: its batch size 1 is used, and others for batches.
        speed: of the node relative to the profiled host; 0.5 takes twice as long.
        largest_batch: requests that are computed together at most.
    """

    def __init__(self, profile: Profile, speed: float = 1.0, largest_batch: int = 1) -> None:
        measured = sorted(profile.seconds)
        if 1 not in measured:
            raise ArtifactError(
                f"the profile has batch sizes {', '.join(map(str, measured))}, but not 1"
            )
        if largest_batch > measured[-1]:
            raise ArtifactError(
                f"batches of {largest_batch} are asked for, but the profile was measured with at "
                f"most {measured[-1]} images (profile.batch_sizes)"
            )
        self.exit_count = profile.exit_count
        self._inferences = len(profile.seconds[1]["exit"])
        by_size = {
            size: _tables(profile.seconds[size], self._inferences, speed) for size in measured
        }
        self._tables = _rows(by_size[1])
        #: For each number of requests that are computed together, from 2 on.
        self._batch_tables = {
            size: _rows(_interpolated(by_size, size)) for size in range(2, largest_batch + 1)
        }

    def draw(self, u: Floats) -> Sequence[int]:
        """See :class:`Service`: the rank of an inference."""
        ranks: list[int] = (u * self._inferences).astype(np.int64).tolist()
        return ranks

    def seconds(self, drawn: int, since: int, to: int) -> float:
        """See :class:`Service`."""
        return self._tables[since][to - 1][drawn]

    def batch_seconds(self, drawn: Sequence[int], since: int, to: int) -> float:
        """See :class:`Service`."""
        tables = self._tables if len(drawn) == 1 else self._batch_tables[len(drawn)]
        return tables[since][to - 1][drawn[0]]

    def resumed(self, drawn: int, since: int) -> int:
        """See :class:`Service`: what was measured knows where it begins."""
        return drawn

    def quantiles(self, q: float, since: int, resumed: bool = False) -> tuple[float, ...]:
        """See :class:`Service`."""
        return tuple(float(np.quantile(times, q)) for times in self._tables[since][since:])

    def means(self) -> tuple[float, ...]:
        """See :class:`Service`."""
        return tuple(float(np.mean(times)) for times in self._tables[0])

    def stepwise_means(self) -> tuple[float, ...]:
        """See :class:`Service`."""
        steps = (np.mean(self._tables[exit][exit]) for exit in range(self.exit_count))
        return tuple(float(reached) for reached in accumulate(steps))


def _tables(
    measured: dict[str, NDArray[np.float64]], ranks: int, speed: float
) -> NDArray[np.float64]:
    """(since, exit, rank): seconds from each exit, or the image, to each later one."""
    exits = measured["exit"].shape[1]
    alone = np.sort(measured["exit"], axis=0)
    whole = measured["segment"].sum(axis=1) + measured["branch"].sum(axis=1)
    order = np.argsort(whole, kind="stable")
    order = order[(np.arange(ranks) * len(order)) // ranks]
    reached = np.cumsum(measured["segment"][order], axis=1) / speed
    branch = measured["branch"][order] / speed
    tables = np.zeros((exits, exits, ranks))
    tables[0] = alone[(np.arange(ranks) * len(alone)) // ranks].T / speed
    for since in range(1, exits):
        tables[since] = (reached - reached[:, [since - 1]] + branch).T
    return tables


def _interpolated(by_size: dict[int, NDArray[np.float64]], size: int) -> NDArray[np.float64]:
    """Tables for a batch size between two that were measured."""
    below = max(measured for measured in by_size if measured <= size)
    above = min(measured for measured in by_size if measured >= size)
    if below == above:
        return by_size[size]
    share = (size - below) / (above - below)
    between: NDArray[np.float64] = (1 - share) * by_size[below] + share * by_size[above]
    return between


def _rows(tables: NDArray[np.float64]) -> list[list[list[float]]]:
    # Python lists: twice as fast as arrays for one element at a time.
    rows: list[list[list[float]]] = tables.tolist()
    return rows


class DistributedService:
    """Service times from a distribution, spent whole before the first answer, whatever the exit.

    A node to which others send on takes it again, for what is left to compute.
    """

    def __init__(self, distribution: Distribution, exit_count: int, speed: float = 1.0) -> None:
        self.exit_count = exit_count
        self._distribution = distribution
        self._speed = speed

    def draw(self, u: Floats) -> Sequence[float]:
        """See :class:`Service`: the service time itself."""
        times: list[float] = (self._distribution.ppf(u) / self._speed).tolist()
        return times

    def seconds(self, drawn: float | tuple[float, int], since: int, to: int) -> float:
        """See :class:`Service`."""
        if isinstance(drawn, tuple):
            whole, came_with = drawn
            return whole if since == came_with else 0.0
        return 0.0 if since else drawn

    def batch_seconds(
        self, drawn: Sequence[float | tuple[float, int]], since: int, to: int
    ) -> float:
        """See :class:`Service`: a batch takes as long as its slowest member."""
        return max(self.seconds(one, since, to) for one in drawn)

    def resumed(self, drawn: float, since: int) -> tuple[float, int]:
        """See :class:`Service`: the whole time is spent here, whatever was computed before."""
        return drawn, since

    def quantiles(self, q: float, since: int, resumed: bool = False) -> tuple[float, ...]:
        """See :class:`Service`."""
        time = 0.0 if since and not resumed else quantile(self._distribution, q) / self._speed
        return (time,) * (self.exit_count - since)

    def means(self) -> tuple[float, ...]:
        """See :class:`Service`."""
        return (self._distribution.mean() / self._speed,) * self.exit_count

    def stepwise_means(self) -> tuple[float, ...]:
        """See :class:`Service`: the first step takes all of it, and later ones nothing."""
        return self.means()
