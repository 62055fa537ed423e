"""TCP's congestion window, and how it changes with what its sender hears.

A sender may have so many segments under way as its congestion window holds, and sends on when they
are acknowledged. So a message within the window travels at once, and a longer one in flights, about
a round trip apart as long as the link is not busy for that long: Kurose & Ross, *Computer
Networking*, "latency modelling"; Cardwell, Savage & Anderson, INFOCOM 2000. The window

- begins with 10 segments (RFC 6928), and with no more after a pause longer than the timeout, which
  halves it each time (RFC 5681 §4.1, RFC 2861);
- doubles each round trip in slow start, and then grows by ``increase`` segments, only as far as it
  was made use of (RFC 7661 §4.2, as Linux does it);
- shrinks by ``decrease`` after a fast retransmit, and to 1 segment after a timeout, from where it
  starts slowly up to what is left of it (RFC 5681 §3.1, §3.2).

Left out: the receiver's window; delayed acknowledgements; pacing, so BBR too; HyStart. CUBIC is
that of windows of tens of segments and short round trips: its Reno-friendly region (RFC 9438 §4.3).
"""

from __future__ import annotations

import heapq
import math
from dataclasses import dataclass
from typing import Literal

#: Segments of a new connection (RFC 6928).
INITIAL_WINDOW = 10
#: Of the slow start threshold after a loss (RFC 5681 §3.1), and the window after a timeout.
_LEAST_THRESHOLD, _LOSS_WINDOW = 2.0, 1.0
#: Instants so close are the same: they may have been computed in another order.
_AT_ONCE_S = 1e-9


@dataclass(frozen=True)
class CongestionControl:
    """Additive increase and multiplicative decrease.

    Attributes:
        increase: segments that the window grows by in a round trip, after slow start.
        decrease: what is left of it after a loss. Of the window, as Linux does, and not of what
            is under way.
    """

    increase: float
    decrease: float


#: By name: RFC 9438 §4.3 and §4.6, Linux unless told otherwise; and RFC 5681.
CONTROLS: dict[Literal["cubic", "reno"], CongestionControl] = {
    "cubic": CongestionControl(increase=3 * (1 - 0.7) / (1 + 0.7), decrease=0.7),
    "reno": CongestionControl(increase=1.0, decrease=0.5),
}


@dataclass(frozen=True, order=True)
class Notice:
    """What a sender hears: acknowledgements, and that something was lost.

    Attributes:
        acknowledged: segments.
        lost_s: when what was lost was sent; NaN: nothing was.
        timeout: whether the timer says so, and not later acknowledgements.
        recovered: whether this acknowledges what those told to be lost.
    """

    at_s: float
    acknowledged: int
    lost_s: float = math.nan
    timeout: bool = False
    recovered: bool = False


class Sender:
    """One connection's sender while something is under way."""

    def __init__(self, control: CongestionControl, window: float, threshold: float) -> None:
        self._control = control
        self.window = window
        self.threshold = threshold
        self.under_way = 0
        self._reduced_s = -math.inf
        self._recovering = 0
        self._coming: list[Notice] = []
        # What the window was made use of, until all that was sent then is acknowledged
        # (``tcp_cwnd_validate``).
        self._sent = self._until = 0
        self._most, self._limited = 0, False

    @property
    def idle(self) -> bool:
        """Whether all is acknowledged."""
        return not self._coming

    @property
    def room(self) -> int:
        """Segments that may be sent now."""
        return max(int(self.window) - self.under_way, 0)

    def send(self, segments: int, more: bool) -> None:
        """Send, though there is ``more`` than there is room for."""
        self._sent += segments
        self.under_way += segments
        limited = more or not self.room
        acknowledged = self._sent - self.under_way >= self._until
        if limited or acknowledged or (self.under_way > self._most and not self._limited):
            self._most, self._limited, self._until = self.under_way, limited, self._sent

    def will_hear(self, event: Notice) -> None:
        """Of what was sent."""
        heapq.heappush(self._coming, event)

    def next_s(self) -> float:
        """When it hears of something next, with something under way."""
        return self._coming[0].at_s

    def hear(self, until_s: float) -> None:
        """Acknowledgements and losses up to an instant."""
        while self._coming and self._coming[0].at_s <= until_s + _AT_ONCE_S:
            event = heapq.heappop(self._coming)
            self.under_way -= event.acknowledged
            self._recovering -= event.recovered
            if not math.isnan(event.lost_s):
                self._reduce(event)
            elif not self._recovering:
                self._grow(event.acknowledged)

    def _reduce(self, event: Notice) -> None:
        if event.lost_s > self._reduced_s:  # once for all that was under way together
            self.threshold = max(self._control.decrease * self.window, _LEAST_THRESHOLD)
            self.window = self.threshold
            self._reduced_s = event.at_s
        if event.timeout:
            self.window = _LOSS_WINDOW
        else:
            self._recovering += 1  # fast recovery (RFC 6675): the window stays

    def _grow(self, acknowledged: int) -> None:
        if self.window < self.threshold:
            most = max(self.window, 2.0 * self._most)
            self.window = min(self.window + acknowledged, most, self.threshold)
        elif self._limited:
            self.window += self._control.increase * acknowledged / self.window
