"""How a node cools down while it has nothing to do, and what that costs the next requests.

While nothing is computed, caches fill with what others use, clocks slow down and processors fall
asleep. So the next request finds a slower host on its way to the worker, at the worker, and on the
way back: more so the longer the pause was. And it leaves a host that is warmer, but not warm.
"""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Cooling:
    """What requests take longer at a node that has cooled down.

    How cold it is lies between 0, where it computes without a pause, and 1, where it has had
    nothing to do for long, as at the beginning. A pause of t, in which no worker computes or
    replies, turns ``cold`` into ``1 - (1 - cold) exp(-t / time_s)``, and what a worker takes (a
    request, or a batch) leaves ``kept * cold``, however far it is computed.

    Attributes:
        time_s: in which a warm node, without work, has become 63 % as cold as it gets.
        kept: in [0, 1).
        read_s: by which the message of a request that finds every worker idle is read later at a
            node that is as cold as it gets; in proportion else, as the next two.
        begin_s: by which a worker takes longer.
        answer_s: by which an answer leaves later, unless the worker goes on at once.

    Raises:
        ValueError: out of range, or not finite.
    """

    time_s: float
    kept: float
    read_s: float
    begin_s: float
    answer_s: float

    def __post_init__(self) -> None:
        if not (0 < self.time_s < math.inf and 0 <= self.kept < 1):
            raise ValueError(f"{self}: time_s must be above 0, and kept in [0, 1)")
        if not all(0 <= it < math.inf for it in (self.read_s, self.begin_s, self.answer_s)):
            raise ValueError(f"{self}: seconds must be finite, and not below 0")

    def after_pause(self, cold: float, pause_s: float) -> float:
        """How cold a node is after a pause."""
        return 1.0 - (1.0 - cold) * math.exp(-pause_s / self.time_s) if pause_s > 0 else cold
