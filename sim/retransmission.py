"""What packet loss costs a message on TCP: never the message, always time.

TCP repairs the loss of a segment in one of two ways:

- *Fast retransmit*, as RACK does it (RFC 8985, what Linux does): an acknowledgement of a segment
  that was sent after the lost one makes the sender repeat it, about one round trip late; and a
  quarter of that later (§6.2, the reordering window) where fewer than three follow.
- *The retransmission timer* (RFC 6298), where none follows, or where the repetition is lost as
  well. Its timeout (RTO) is the smoothed round trip and four times its deviation; Linux
  takes at least 200 ms for the latter (``tcp_rto_min``). It doubles with each further loss (§5.5),
  up to two minutes (``TCP_RTO_MAX``).

So for a message of n segments, each lost with probability p and independently of all others:

=================================  =======================  ====================================
what is lost of it                 probability              delay
=================================  =======================  ====================================
nothing                            (1 - p)^n                0
the last one                       p                        RTO
only of those before               the rest                 1 round trip, or 1.25 if n <= 3
=================================  =======================  ====================================

and in the last two cases, with probability p for each further loss of the repetition, the next
RTO, twice as long, on top (the first, after a fast retransmit).

Left out: the congestion window, which shrinks after a loss; losses that come in bursts; the loss of
acknowledgements; tail loss probes (RFC 8985 §7), which Linux sends after the timer where one
segment is under way; later messages on the same connection, whose segments may trigger a fast
retransmit; that TCP gives up
after many timeouts (``tcp_retries2``). That later messages wait for the repair is the business of
the link, which keeps their order.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

#: Segments that must follow a lost one for a fast retransmit (RFC 8985), and for one without the
#: wait for segments that merely overtook it, in round trips.
FOLLOWING, FOLLOWING_AT_ONCE = 1, 3
REORDERING_WINDOW = 0.25
#: The longest timeout, ``TCP_RTO_MAX`` of Linux; RFC 6298 §2.5 asks for 60 s or more.
MAX_RTO_S = 120.0


@dataclass(frozen=True)
class TcpLoss:
    """Delays that independent losses of segments cause.

    Attributes:
        loss: probability that a segment is lost, at least 0 and below 1.
        rto_min_s: least part of the timeout that is added to the round trip.
        mss: bytes of a segment.
    """

    loss: float
    rto_min_s: float = 0.2
    mss: int = 1460

    def __post_init__(self) -> None:
        if not 0 <= self.loss < 1:
            raise ValueError(f"a probability of loss must be at least 0 and below 1: {self.loss}")

    def segments(self, size_bytes: Any) -> Any:
        """Segments of a message of ``size_bytes``, a number or an integer array; at least 1."""
        return np.maximum(-(-size_bytes // self.mss), 1)

    def delay_s(self, u: Floats, segments: Any, rtt_s: Any) -> Floats:
        """Delays of messages, in seconds: the inverse of their distribution function.

        Args:
            u: (N,) uniform numbers in [0, 1), one for each message.
            segments: of each message, one number or (N,).
            rtt_s: round trip, one number or (N,).
        """
        if self.loss == 0:
            return np.zeros(np.shape(u))
        beyond = 1.0 - np.asarray(u)
        tail, earlier, rtt = np.broadcast_arrays(*self._lost(segments), rtt_s, beyond)[:3]
        delays = np.zeros(np.shape(beyond))
        hit = beyond <= tail + earlier
        fast = self._fast_s(np.broadcast_to(segments, beyond.shape)[hit], rtt[hit])
        delays[hit] = self._repair_s(beyond[hit], tail[hit], earlier[hit], rtt[hit], fast)
        return delays

    def _repair_s(
        self, beyond: Floats, tail: Floats, earlier: Floats, rtt_s: Floats, fast_s: Floats
    ) -> Floats:
        """Delays of messages that lost something; the longer, the less lies ``beyond``.

        They are, in ascending order and for k = 0, 1, ..: a fast retransmit and k timeouts, k + 1
        timeouts. Each k begins where ``(tail + earlier) * loss**k`` lies beyond.
        """
        k = np.floor(np.log(beyond / (tail + earlier)) / math.log(self.loss))
        fast = beyond > tail * self.loss**k + earlier * self.loss ** (k + 1)
        timeouts = self._timeouts_s(np.where(fast, k, k + 1), rtt_s)
        delays: Floats = np.where(fast, fast_s, 0.0) + timeouts
        return delays

    def mean_delay_s(self, segments: int, rtt_s: float) -> float:
        """Expected delay of a message, in seconds."""
        if self.loss == 0:
            return 0.0
        tail, earlier = (float(probability) for probability in self._lost(segments))
        # Timeout i happens with probability (tail + earlier * loss) * loss**(i - 1).
        rto, doublings = self._rto_s(rtt_s), int(self._doublings(rtt_s))
        growing = sum(rto * (2 * self.loss) ** i for i in range(doublings))
        timeouts = growing + MAX_RTO_S * self.loss**doublings / (1 - self.loss)
        mean: float = (
            earlier * float(self._fast_s(segments, rtt_s)) + (tail + earlier * self.loss) * timeouts
        )
        return mean

    def _lost(self, segments: Any) -> tuple[Any, Any]:
        """Probabilities that the last segment is lost, and that only earlier ones are."""
        last = np.minimum(segments, FOLLOWING)
        kept = math.log1p(-self.loss)
        return -np.expm1(last * kept), np.exp(last * kept) * -np.expm1((segments - last) * kept)

    def _fast_s(self, segments: Any, rtt_s: Any) -> Any:
        """A fast retransmit; never longer than the timer."""
        waits = np.where(np.less_equal(segments, FOLLOWING_AT_ONCE), 1 + REORDERING_WINDOW, 1.0)
        return np.minimum(waits * rtt_s, self._rto_s(rtt_s))

    def _rto_s(self, rtt_s: Any) -> Any:
        """The first timeout."""
        return np.minimum(rtt_s + self.rto_min_s, MAX_RTO_S)

    def _doublings(self, rtt_s: Any) -> Any:
        """How many timeouts are shorter than the longest."""
        return np.ceil(np.log2(MAX_RTO_S / self._rto_s(rtt_s)))

    def _timeouts_s(self, count: Any, rtt_s: Any) -> Any:
        """The sum of the first ``count`` timeouts."""
        growing = np.minimum(count, self._doublings(rtt_s))
        return self._rto_s(rtt_s) * (2.0**growing - 1) + MAX_RTO_S * (count - growing)
