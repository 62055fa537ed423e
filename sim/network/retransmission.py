"""What packet loss costs a message on TCP: never the message, always time.

TCP repairs the loss of a segment in one of two ways:

- *Fast retransmit*, as RACK does it (RFC 8985, what Linux does): an acknowledgement of a segment
  that was sent after the lost one makes the sender repeat it, about one round trip late; and a
  quarter of that later (§6.2, the reordering window) where fewer than three follow.
- *The retransmission timer* (RFC 6298), where none follows, or where the repetition is lost as
  well. Its timeout (RTO) is the smoothed round trip and four times its deviation; Linux
  takes at least 200 ms for the latter (``tcp_rto_min``). It doubles with each further loss (§5.5),
  up to two minutes (``TCP_RTO_MAX``).

So for n segments that are sent at once, each lost with probability p and independently of all
others:

=================================  =======================  ====================================
what is lost of them               probability              delay
=================================  =======================  ====================================
nothing                            (1 - p)^n                0
the only one                       p                        RTO
the last of several                p                        1 round trip + RTO
only of those before               the rest                 1 round trip, or 1.25 if n <= 3
=================================  =======================  ====================================

and with probability p for each further loss of the repetition, the next RTO, twice as long, on top
(the first, after a fast retransmit). The last of several waits for a round trip more, since
acknowledgements of those before start the timer anew (RFC 6298 §5.3).

Left out: losses that come in bursts; the loss of acknowledgements; tail loss probes (RFC 8985 §7),
which Linux sends after the timer where one segment is under way; that TCP gives up after many
timeouts (``tcp_retries2``). What is sent at once, and what later messages do to a repair:
:mod:`sim.network.tcp_senders`; what becomes of the congestion window:
:mod:`sim.network.congestion`. That later messages wait for a repair is the business of the link,
which keeps their order.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

#: Segments that must follow a lost one for a fast retransmit without the wait for segments that
#: merely overtook it, and that wait in round trips.
FOLLOWING_AT_ONCE = 3
REORDERING_WINDOW = 0.25
#: The least part of the timeout that is added to the round trip (``tcp_rto_min`` of Linux).
RTO_MIN_S = 0.2
#: The longest timeout, ``TCP_RTO_MAX`` of Linux; RFC 6298 §2.5 asks for 60 s or more.
MAX_RTO_S = 120.0


@dataclass(frozen=True)
class Repair:
    """How a loss is repaired.

    Attributes:
        fast: by a fast retransmit at first.
        timeouts: of the timer, after that.
    """

    fast: bool
    timeouts: int


@dataclass(frozen=True)
class TcpLoss:
    """Independent losses of segments.

    Attributes:
        loss: probability that a segment is lost, at least 0 and below 1.
        rto_min_s: least part of the timeout that is added to the round trip.
    """

    loss: float
    rto_min_s: float = RTO_MIN_S

    def __post_init__(self) -> None:
        if not 0 <= self.loss < 1:
            raise ValueError(f"a probability of loss must be at least 0 and below 1: {self.loss}")

    def nothing_lost(self, segments: Any) -> Any:
        """Probability that all of so many segments arrive, an integer or an array."""
        return np.exp(np.asarray(segments) * math.log1p(-self.loss))

    def draw(self, u: float, segments: int, more: bool) -> tuple[Repair | None, float]:
        """What becomes of segments that are sent at once.

        Args:
            u: a uniform number in [0, 1).
            more: whether others follow these.

        Returns:
            How what is lost of them is repaired, None if nothing is; and a uniform number that is
            independent of that, for the next ones.
        """
        kept = float(self.nothing_lost(segments))
        if u < kept:
            return None, _uniform(u, 0.0, kept)
        u = _uniform(u, kept, 1.0)
        # The last is lost, given that any is.
        tail = 0.0 if more else self.loss / (1 - kept)
        if segments == 1 and not more:
            tail = 1.0
        fast = u < 1 - tail
        u = _uniform(u, 0.0, 1 - tail) if fast else _uniform(u, 1 - tail, 1.0)
        # The repetition is lost so many times.
        again = int(math.log1p(-u) / math.log(self.loss))
        low, high = 1 - self.loss**again, 1 - self.loss ** (again + 1)
        return Repair(fast, again if fast else again + 1), _uniform(u, low, high)

    def first_s(self, fast: bool, segments: int, rtt_s: float) -> float:
        """From when segments were sent until a fast retransmit, or until the timer starts."""
        if not fast:
            return rtt_s if segments > 1 else 0.0
        waits = 1 + REORDERING_WINDOW if segments <= FOLLOWING_AT_ONCE else 1.0
        return min(waits * rtt_s, self.rto_s(rtt_s))  # the timer runs as well

    def repair_s(self, repair: Repair, segments: int, rtt_s: float) -> float:
        """By how much the last of segments that were sent at once is late."""
        first_s = self.first_s(repair.fast, segments, rtt_s)
        return first_s + self.timeouts_s(repair.timeouts, rtt_s)

    def mean_delay_s(self, segments: int, rtt_s: float) -> float:
        """Expected delay of segments that are sent at once, with none after them, in seconds."""
        if self.loss == 0:
            return 0.0
        tail, any_lost = self.loss, 1 - float(self.nothing_lost(segments))
        earlier = any_lost - tail
        # Timeout i happens with probability (tail + earlier * loss) * loss**(i - 1).
        rto_s, doublings = self.rto_s(rtt_s), self._doublings(rtt_s)
        growing = sum(rto_s * (2 * self.loss) ** i for i in range(doublings))
        timeouts = growing + MAX_RTO_S * self.loss**doublings / (1 - self.loss)
        return (
            earlier * self.first_s(True, segments, rtt_s)
            + tail * self.first_s(False, segments, rtt_s)
            + (tail + earlier * self.loss) * timeouts
        )

    def rto_s(self, rtt_s: float) -> float:
        """The first timeout."""
        return min(rtt_s + self.rto_min_s, MAX_RTO_S)

    def timeouts_s(self, count: int, rtt_s: float) -> float:
        """The sum of the first ``count`` timeouts."""
        growing = min(count, self._doublings(rtt_s))
        return self.rto_s(rtt_s) * (2.0**growing - 1) + MAX_RTO_S * (count - growing)

    def _doublings(self, rtt_s: float) -> int:
        """How many timeouts are shorter than the longest."""
        return math.ceil(math.log2(MAX_RTO_S / self.rto_s(rtt_s)))


def _uniform(u: float, low: float, high: float) -> float:
    """A uniform number in [0, 1) of one between two bounds, whatever rounding did to them."""
    return min(max((u - low) / (high - low), 0.0), _MOST) if high > low else 0.0


#: The greatest number below 1.
_MOST = math.nextafter(1.0, 0.0)

#: What is not lossy.
NO_LOSS = TcpLoss(0.0)
