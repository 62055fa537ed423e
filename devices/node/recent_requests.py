"""Requests that came lately: MQTT at QoS 1 may deliver one twice, and it is computed once."""

from __future__ import annotations

from collections import OrderedDict

from devices.protocol.messages import RequestId

#: Requests that are remembered: those of some seconds, at thousands a second.
MOST_REMEMBERED = 8192


class RecentRequest:
    """A request that came.

    Attributes:
        sent_s: the device's clock at sending, if it tells.
        reply: payload of what it was answered with, once it was; set on any thread.
    """

    __slots__ = ("reply", "sent_s")

    def __init__(self, sent_s: float | None) -> None:
        self.sent_s = sent_s
        self.reply: bytes | None = None


class RecentRequests:
    """The last requests by device and id; of one thread.

    A request came before if its id did and it carries the DUP flag, or says that it was sent at
    the same instant: a broker passes on what a device repeats without that flag. An id alone tells
    nothing, since a device may start again at its first.
    """

    def __init__(self, most: int = MOST_REMEMBERED) -> None:
        self._most = most
        self._known: OrderedDict[tuple[str, RequestId], RecentRequest] = OrderedDict()

    def find(
        self, device: str, id: RequestId, sent_s: float | None, dup: bool
    ) -> RecentRequest | None:
        """The request as it came before; None if it is new."""
        known = self._known.get((device, id))
        if known is None:
            return None
        again = dup or (sent_s is not None and sent_s == known.sent_s)
        return known if again else None

    def add(self, device: str, id: RequestId, sent_s: float | None) -> RecentRequest:
        """Remember a request that is new; the oldest is forgotten for it."""
        new = self._known[device, id] = RecentRequest(sent_s)
        self._known.move_to_end((device, id))
        if len(self._known) > self._most:
            self._known.popitem(last=False)
        return new

    def __len__(self) -> int:
        return len(self._known)
