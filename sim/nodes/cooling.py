"""What a node takes longer the longer it has been idle.

While nothing is computed, caches fill with what others use, clocks slow down and processors fall
asleep. So the next request finds a slower host, on its way to the worker, at the worker, and on the
way back: more so the longer the pause was.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from dataclasses import dataclass
from itertools import pairwise


@dataclass(frozen=True)
class Cooling:
    """Seconds on top of what a request takes that finds every worker idle, by how long they were.

    Linear between the points of ``after_s``, and the same beyond the last of them.

    Attributes:
        after_s: seconds without work; ascending, from 0.
        read_s: by which its message is read later, for each of them; from 0, as the next two.
        begin_s: by which its worker takes longer.
        answer_s: by which its answer leaves later, unless the worker goes on at once.

    Raises:
        ValueError: not as many of each, not ascending, not from 0, negative or not finite.
    """

    after_s: tuple[float, ...]
    read_s: tuple[float, ...]
    begin_s: tuple[float, ...]
    answer_s: tuple[float, ...]

    def __post_init__(self) -> None:
        if not all(a < b for a, b in pairwise(self.after_s)):
            raise ValueError("after_s must ascend")
        for name in ("after_s", "read_s", "begin_s", "answer_s"):
            values = getattr(self, name)
            if not values or len(values) != len(self.after_s):
                raise ValueError(f"{name} must have as many values as after_s, and one at least")
            if values[0] != 0 or not all(math.isfinite(it) and it >= 0 for it in values):
                raise ValueError(f"{name} must begin with 0, be finite, and never be below 0")

    def read_late_s(self, pause_s: float) -> float:
        """By which a message is read later that comes after such a pause."""
        return self._at(pause_s, self.read_s)

    def begin_late_s(self, pause_s: float) -> float:
        """By which a worker takes longer after such a pause."""
        return self._at(pause_s, self.begin_s)

    def answer_late_s(self, pause_s: float) -> float:
        """By which an answer leaves later whose worker began after such a pause."""
        return self._at(pause_s, self.answer_s)

    def _at(self, pause_s: float, values: tuple[float, ...]) -> float:
        if pause_s <= 0:
            return 0.0
        # For one number, many times as fast as numpy.
        right = bisect_right(self.after_s, pause_s)
        if right == len(self.after_s):
            return values[-1]
        left = right - 1
        share = (pause_s - self.after_s[left]) / (self.after_s[right] - self.after_s[left])
        return values[left] + share * (values[right] - values[left])
