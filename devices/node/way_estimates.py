"""How long messages travel to a node and back, estimated without synchronised clocks.

A device may tell its own clock at sending (``sent_ms``) and the travel time there and back that it
last measured (``way_ms``: round trip less the time at the node). From the first the node sees how
much *longer* than the quickest of the last minute a request travelled: arrival less sending is the
way up plus the unknown offset of the two clocks, and the offset cancels. From the second it knows
how long the quickest way is: half of the smallest travel time, as if both ways took the same, which
is what NTP assumes too (RFC 5905, section 8). So:

- way up = half of the smallest ``way_ms`` + (arrival − ``sent_ms``) − its minimum;
- way home, quantile *q* = half of the quantile of the last ``way_ms``; where none came, the
  quantile of what the ways up had above their minimum.

What a device does not tell is taken to be 0. Minima are those of the last minute, in which clocks
that run at different speeds part by a few milliseconds at most.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from math import floor

#: Minima are taken over so long, in steps of a second.
WINDOW_S = 60.0
#: Quantiles are taken over so many requests of a device.
WINDOW_REQUESTS = 32
#: Where arrival less sending leaves the window by so much, the device's clock has jumped.
JUMP_S = 2.0
#: Devices of which anything is kept; whoever has been silent longest is forgotten first.
MOST_DEVICES = 4096


class SlidingMinimum:
    """The smallest of the values of the last ``WINDOW_S``, in memory that does not grow.

    Values of one second count as one, their smallest; those kept ascend.
    """

    __slots__ = ("_kept",)

    def __init__(self) -> None:
        self._kept: deque[tuple[int, float]] = deque()

    def add(self, now_s: float, value: float) -> float:
        """Take in a value; return the smallest, this one included."""
        kept, second = self._kept, floor(now_s)
        while kept and kept[0][0] < second - WINDOW_S:
            kept.popleft()
        while kept and kept[-1][1] >= value:
            kept.pop()
        if not kept or kept[-1][0] != second:
            kept.append((second, value))
        return kept[0][1]

    def clear(self) -> None:
        """Forget everything."""
        self._kept.clear()


class DeviceWays:
    """What is known of the ways to one device and back.

    One thread calls :meth:`heard`; any may ask for :meth:`home_s` meanwhile.
    """

    __slots__ = ("_excess", "_least_s", "_offsets", "_round_trips", "_smallest")

    def __init__(self) -> None:
        self._offsets = SlidingMinimum()
        self._smallest = SlidingMinimum()
        self._least_s = 0.0
        # Replaced whole, never changed, since other threads read them.
        self._excess: tuple[float, ...] = ()
        self._round_trips: tuple[float, ...] = ()

    def heard(self, arrived_s: float, sent_s: float | None, way_s: float | None) -> float:
        """A request has come; return how long it was on its way up, in seconds.

        Args:
            arrived_s: on the node's monotonic clock.
            sent_s: on the device's, if it tells.
            way_s: travel time there and back that it last measured, if it tells.
        """
        if way_s is not None:
            self._least_s = self._smallest.add(arrived_s, way_s) / 2
            self._round_trips = (*self._round_trips[1 - WINDOW_REQUESTS :], way_s)
        if sent_s is None:
            return self._least_s
        offset = arrived_s - sent_s
        excess = offset - self._offsets.add(arrived_s, offset)
        before = self._excess
        # A request cannot be seconds quicker than all others, and hardly that much slower.
        if excess > JUMP_S:
            self._offsets.clear()
            self._offsets.add(arrived_s, offset)
            excess, before = 0.0, ()
        self._excess = (*before[1 - WINDOW_REQUESTS :], excess)
        return self._least_s + excess

    def home_s(self, quantile: float) -> float:
        """Quantile of the time that an answer needs to the device, in seconds."""
        if self._round_trips:
            return _quantile(self._round_trips, quantile) / 2
        if self._excess:
            return _quantile(self._excess, quantile)
        return 0.0


class WayEstimates:
    """The ways to all devices; of one thread, but for what it hands out."""

    def __init__(self, most_devices: int = MOST_DEVICES) -> None:
        self._most = most_devices
        self._devices: OrderedDict[str, DeviceWays] = OrderedDict()

    def of(self, device: str) -> DeviceWays:
        """What is known of a device, from which a request has just come."""
        ways = self._devices.get(device)
        if ways is None:
            ways = self._devices[device] = DeviceWays()
            if len(self._devices) > self._most:
                self._devices.popitem(last=False)
        else:
            self._devices.move_to_end(device)
        return ways

    def __len__(self) -> int:
        return len(self._devices)


def _quantile(values: tuple[float, ...], quantile: float) -> float:
    """Interpolated between the values next to it, as numpy does by default."""
    ordered = sorted(values)
    position = quantile * (len(ordered) - 1)
    below = int(position)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (position - below) * (ordered[above] - ordered[below])
