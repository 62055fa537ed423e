"""What a node takes longer the longer it has been idle.

While nothing is computed, caches fill with what others use, clocks slow down and processors fall
asleep. So the next request finds a slower host, on its way to the worker, at the worker, and on the
way back: more so the longer the pause was.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise

import numpy as np


@dataclass(frozen=True)
class Cooling:
    """Seconds on top of what a request takes that finds a worker idle, by how long it was.

    Linear between the points of ``after_s``, and the same beyond the last of them.

    Attributes:
        after_s: seconds without work; ascending, from 0.
        read_s: by which its message is read later, for each of them.
        begin_s: by which its worker takes longer.
        answer_s: by which its answer leaves later, unless the worker goes on at once.

    Raises:
        ValueError: not as many of each, not ascending, negative or not finite.
    """

    after_s: tuple[float, ...]
    read_s: tuple[float, ...]
    begin_s: tuple[float, ...]
    answer_s: tuple[float, ...]

    def __post_init__(self) -> None:
        curves = {"read": self.read_s, "begin": self.begin_s, "answer": self.answer_s}
        if not self.after_s or self.after_s[0] != 0:
            raise ValueError("the first point must be after no pause (0)")
        if not all(a < b for a, b in pairwise(self.after_s)):
            raise ValueError("points must ascend")
        for name, curve in curves.items():
            if len(curve) != len(self.after_s):
                raise ValueError(f"{name} has {len(curve)} values for {len(self.after_s)} points")
            if not all(math.isfinite(it) and it >= 0 for it in curve):
                raise ValueError(f"{name} must not be negative, and finite")

    def read_late_s(self, idle_s: float) -> float:
        """By which a message is read later that comes after such a pause."""
        return float(np.interp(idle_s, self.after_s, self.read_s))

    def begin_late_s(self, idle_s: float) -> float:
        """By which a worker takes longer after such a pause."""
        return float(np.interp(idle_s, self.after_s, self.begin_s))

    def answer_late_s(self, idle_s: float) -> float:
        """By which an answer leaves later whose worker began after such a pause."""
        return float(np.interp(idle_s, self.after_s, self.answer_s))
