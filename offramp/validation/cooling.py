"""How a node cooled down in runs in which it had pauses, and what that cost.

See :class:`sim.nodes.cooling.Cooling`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from offramp.validation.excess import MOSTLY, Spans
from offramp.validation.ways import Ways
from sim.distributions import Floats
from sim.nodes.cooling import Cooling

#: Times in which a node cools down that are tried, in seconds, and what a service leaves of it.
_TIMES_S = (0.004, 0.008, 0.012, 0.016, 0.024, 0.032, 0.048, 0.064)
_KEPT = (0.0, 0.15, 0.3, 0.45, 0.6, 0.75, 0.9)

#: Standard errors by which what took longer must go with how cold the node was.
_BEYOND_CHANCE = 3.0
#: Fewer than this tell nothing.
_ENOUGH = 60


@dataclass(frozen=True)
class NodePhase:
    """What one node did in one run of a calibration: S services, and N requests.

    Attributes:
        pause_s: (S,) for how long it had nothing to do before each; not finite where that is not
            known.
        alike: (S,) which services are compared: those of one number, above -1.
    """

    spans: Spans
    pause_s: Floats
    alike: NDArray[np.int64]
    ways: Ways

    def of(self, number: int) -> Spans:
        """The services of one number."""
        return self.spans.where(self.alike == number)


def cold_when_begun(pause_s: Floats, time_s: float, kept: float) -> Floats:
    """(S,) how cold a node was when each service began; as cold as it gets before what is known."""
    left_warm = np.exp(-np.maximum(pause_s, 0.0) / time_s).tolist()
    found, left = list[float](), 1.0
    for warm, is_known in zip(left_warm, np.isfinite(pause_s).tolist(), strict=True):
        cold = 1.0 - (1.0 - left) * warm if is_known else 1.0
        found.append(cold)
        left = kept * cold
    return np.array(found)


def fitted_cooling(phases: Sequence[NodePhase]) -> Cooling | None:
    """How fast a node cools down, and what that costs: by least squares, in proportion.

    Levels are of each phase, and of services that are alike: a host that was asked more was faster
    for other reasons, too. What chance explains is 0.

    Returns:
        None where services do not take longer.
    """
    inference = [(it.spans.busy_s, it.alike, it.alike >= 0) for it in phases]
    best, least = None, math.inf
    for time_s in _TIMES_S:
        for kept in _KEPT:
            colds = [cold_when_begun(it.pause_s, time_s, kept) for it in phases]
            begin_s, rest = _in_proportion(
                (cold[rows], seconds[rows], alike[rows])
                for cold, (seconds, alike, rows) in zip(colds, inference, strict=True)
            )
            if begin_s and rest < least:
                best, least = (time_s, kept, begin_s), rest
    if best is None:
        return None
    time_s, kept, begin_s = best
    cooling = Cooling(time_s, kept, 0.0, begin_s, 0.0)
    ups, homes = [], []
    for phase in phases:
        came, began = _cold_on_ways(phase.ways, phase.pause_s, cooling)
        ups.append(_level(came, phase.ways.up_s, phase.ways.found_idle))
        homes.append(_level(began, phase.ways.home_s, ~phase.ways.followed))
    return replace(cooling, read_s=_in_proportion(ups)[0], answer_s=_in_proportion(homes)[0])


def warmed(phase: NodePhase, cooling: Cooling) -> NodePhase:
    """A phase as it would have been had the node never cooled down."""
    cold = cold_when_begun(phase.pause_s, cooling.time_s, cooling.kept)
    spans = replace(phase.spans, ended_s=phase.spans.ended_s - cooling.begin_s * cold)
    return replace(phase, spans=spans, ways=warmed_ways(phase.ways, phase.pause_s, cooling))


def warmed_ways(ways: Ways, pause_s: Floats, cooling: Cooling) -> Ways:
    """Ways as they would have been had the node never cooled down.

    Args:
        pause_s: (S,) before each service, see :class:`NodePhase`.
    """
    came, began = _cold_on_ways(ways, pause_s, cooling)
    return replace(
        ways,
        up_s=ways.up_s - np.where(ways.found_idle, cooling.read_s * came, 0.0),
        home_s=ways.home_s - np.where(ways.followed, 0.0, cooling.answer_s * began),
    )


def _cold_on_ways(ways: Ways, pause_s: Floats, cooling: Cooling) -> tuple[Floats, Floats]:
    """(N,) how cold the node was when each message came, and when the service of each began."""
    if not len(pause_s):
        nothing = np.zeros(len(ways.row))
        return nothing, nothing
    began = cold_when_begun(pause_s, cooling.time_s, cooling.kept)
    left = np.append(cooling.kept * began, 1.0)[ways.before]
    came = 1.0 - (1.0 - left) * np.exp(-np.maximum(ways.pause_before_s, 0.0) / cooling.time_s)
    return came, began[ways.own]


#: How cold, seconds, and what is compared with each other; all (N,).
_Part = tuple[Floats, Floats, NDArray[np.int64]]


def _level(cold: Floats, seconds: Floats, rows: NDArray[np.bool_]) -> _Part:
    return cold[rows], seconds[rows], np.zeros(int(rows.sum()), dtype=np.int64)


def _in_proportion(parts: Iterable[_Part]) -> tuple[float, float]:
    """Seconds on top of each level at a node that is as cold as it gets, and the squares left.

    0 where chance explains them. The longest of each level are left out: the host did something
    else.
    """
    colds, times = list[Floats](), list[Floats]()
    for cold, seconds, alike in parts:
        for number in np.unique(alike):
            rows = alike == number
            rows &= seconds <= np.quantile(seconds[rows], MOSTLY)
            colds.append(cold[rows] - cold[rows].mean())
            times.append(seconds[rows] - seconds[rows].mean())
    x, y = (np.concatenate(it) if it else np.zeros(0) for it in (colds, times))
    spread, squares = float(x @ x), float(y @ y)
    if len(x) < _ENOUGH or not spread or not squares:
        return 0.0, squares
    slope = float(x @ y) / spread
    correlation = slope * math.sqrt(spread / squares)
    if correlation * math.sqrt(len(x)) <= _BEYOND_CHANCE:
        return 0.0, squares
    return slope, squares - slope**2 * spread
