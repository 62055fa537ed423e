"""How much longer things take after a pause, from runs in which pauses differed."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.optimize import nnls
from scipy.stats import rankdata

from sim.distributions import Floats

#: Points of a curve: seconds without work.
POINTS_S = (0.0, 0.002, 0.004, 0.008, 0.016, 0.032, 0.064)

#: All but the longest of a run: in those, the host did something else.
MOSTLY = 0.99
#: Fewer than this after longer pauses tell nothing of those.
ENOUGH = 20
#: Standard errors by which longer pauses must go with longer times.
_BEYOND_CHANCE = 3.0

#: Pauses and seconds of what came after them, of one run; both (N,).
Part = tuple[Floats, Floats]


def cooling_curve_s(parts: Sequence[Part]) -> Floats:
    """(K,) by how much things take longer after pauses of :data:`POINTS_S`; 0 at first.

    Least squares of a line from point to point that never falls, with a level of its own for each
    run: a host that was asked more was faster for other reasons, too. All 0 where chance explains
    it. Where no run has pauses, or too few, it is taken to be level.
    """
    points_s = np.array(POINTS_S)
    parts = [_known(*part) for part in parts]
    parts = [part for part in parts if len(part[0])]
    if not _goes_with_pauses(parts):
        return np.zeros(len(points_s))
    longest_s = float(np.sort(np.concatenate([part[0] for part in parts]))[-ENOUGH])
    ends_s = np.append(points_s[1:][points_s[1:] < longest_s], longest_s)
    starts_s = np.append(0.0, ends_s[:-1])
    # Less the means of each run, in place of its level.
    rises, seconds = list[Floats](), list[Floats]()
    for pause_s, taken_s in parts:
        rise = np.clip((pause_s[:, None] - starts_s) / (ends_s - starts_s), 0.0, 1.0)
        rises.append(rise - rise.mean(axis=0))
        seconds.append(taken_s - taken_s.mean())
    columns = np.concatenate(rises)
    # What all pauses of a run have in common tells nothing.
    told = np.linalg.norm(columns, axis=0) > 1e-9 * len(columns)
    by_s = np.zeros(len(ends_s))
    by_s[told] = nnls(columns[:, told], np.concatenate(seconds))[0]
    curve_s = np.append(0.0, np.cumsum(by_s))
    return np.asarray(np.interp(points_s, np.append(0.0, ends_s), curve_s))


def longer_s(pause_s: Floats, curve_s: Floats) -> Floats:
    """(N,) by how much things took longer after pauses; nothing where those are not known."""
    known_s = np.where(np.isfinite(pause_s), pause_s, 0.0)
    return np.asarray(np.interp(known_s, POINTS_S, curve_s))


def _known(pause_s: Floats, seconds: Floats) -> Part:
    known = np.isfinite(pause_s) & (pause_s > 0)
    if known.any():
        known &= seconds <= np.quantile(seconds[known], MOSTLY)
    return pause_s[known], seconds[known]


def _goes_with_pauses(parts: Sequence[Part]) -> bool:
    """Whether longer pauses go with longer times, by the rank correlations within runs."""
    parts = [
        part for part in parts if len(part[0]) > ENOUGH and np.ptp(part[0]) and np.ptp(part[1])
    ]
    if not parts:
        return False
    correlations = [np.corrcoef(rankdata(pause_s), rankdata(s))[0, 1] for pause_s, s in parts]
    counts = np.array([len(part[0]) - 1 for part in parts])
    return bool(np.dot(correlations, counts) / np.sqrt(counts.sum()) > _BEYOND_CHANCE)
