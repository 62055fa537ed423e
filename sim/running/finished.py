"""What is kept of requests between their creation and their outcome."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from operator import attrgetter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sim.network.transport import Messages
from sim.nodes.requests import Request
from sim.outcomes import LOST

_ROW = np.dtype(
    [
        ("index", np.int64),
        ("started_s", np.float64),
        ("finished_s", np.float64),
        ("released_s", np.float64),
        ("exit", np.int64),
        ("outcome", np.int8),
    ]
)
assert _ROW.names
_COLUMNS_OF = attrgetter(*_ROW.names)


def _column(done: list[Request], name: str, type: type[np.generic]) -> NDArray[Any]:
    return np.fromiter(map(attrgetter(name), done), type, len(done))


@dataclass(frozen=True)
class Finished:
    """What is known of requests that have left their nodes; arrays of length N.

    Attributes:
        later: the node that they left, or -1 if it is the one that they reached first.
        left_s, released_s: when they did, and when their worker had done with them.
        outcome: LOST or DROPPED where that is final; else -1.
        received_s: when the answer was back at the device; NaN while it is not.
    """

    index: NDArray[np.int64]
    later: NDArray[np.int64]
    started_s: NDArray[np.float64]
    left_s: NDArray[np.float64]
    released_s: NDArray[np.float64]
    home_s: NDArray[np.float64]
    received_s: NDArray[np.float64]
    exit: NDArray[np.int64]
    batch: NDArray[np.int64]
    outcome: NDArray[np.int8]

    @staticmethod
    def none() -> Finished:
        """No requests."""
        return Finished.of([])

    @staticmethod
    def of(
        done: list[Request],
        has_tiers: bool = False,
        has_batches: bool = False,
        leave_late: bool = False,
    ) -> Finished:
        """From requests that were answered, refused or lost at a node.

        Args:
            has_tiers: whether one may have been to several nodes.
            has_batches: whether several may have been computed together.
            leave_late: whether answers may set out later than they were ready.
        """
        # One pass over the requests, whose memory is far from one another.
        rows = np.fromiter(map(_COLUMNS_OF, done), _ROW, len(done))
        left_s, outcome = rows["finished_s"].copy(), rows["outcome"].copy()
        home_s = _column(done, "home_s", np.float64) if has_tiers or leave_late else left_s
        # An answer that was lost on its way home was computed all the same.
        answered = (outcome < 0) | ((outcome == LOST) & ~np.isnan(home_s) & has_tiers)
        nowhere = np.full(len(done), -1)
        finished = Finished(
            index=rows["index"].copy(),
            later=_column(done, "node.index", np.int64) if has_tiers else nowhere,
            started_s=rows["started_s"].copy(),
            left_s=left_s,
            released_s=np.fmax(left_s, rows["released_s"]),
            home_s=home_s,
            received_s=np.full(len(done), np.nan),
            exit=np.where(answered, rows["exit"], 0),
            batch=_column(done, "batch", np.int64) if has_batches else -nowhere,
            outcome=outcome,
        )
        if has_tiers:
            for row, request in enumerate(done):
                if request.began is not None:
                    finished.started_s[row] = request.began[1]
        return finished

    @staticmethod
    def never(lost: Messages) -> Finished:
        """From messages that never reached a node."""
        count = len(lost)
        nothing = np.full(count, np.nan)
        return Finished(
            index=lost.request,
            later=np.full(count, -1),
            started_s=nothing,
            left_s=nothing,
            released_s=nothing,
            home_s=nothing,
            received_s=nothing,
            exit=np.zeros(count, dtype=np.int64),
            batch=np.ones(count, dtype=np.int64),
            outcome=np.full(count, LOST, dtype=np.int8),
        )

    def where(self, rows: NDArray[np.bool_]) -> Finished:
        """Some of them."""
        return Finished(*(getattr(self, field.name)[rows] for field in fields(self)))

    @staticmethod
    def joined(parts: Sequence[Finished]) -> Finished:
        """Those of several pools, in the order of their creation."""
        index = np.concatenate([part.index for part in parts])
        order = np.argsort(index, kind="stable")
        return Finished(
            *(
                np.concatenate([getattr(part, field.name) for part in parts])[order]
                for field in fields(Finished)
            )
        )

    def received(self, home: Messages) -> Finished:
        """With the times of answers that are back."""
        received_s = self.received_s.copy()
        received_s[np.searchsorted(self.index, home.request)] = home.at_s
        return replace(self, received_s=received_s)

    def never_received(self, lost: Messages) -> Finished:
        """With answers that were lost on their way home."""
        outcome = self.outcome.copy()
        outcome[np.searchsorted(self.index, lost.request)] = LOST
        return replace(self, outcome=outcome)

    @property
    def is_final(self) -> NDArray[np.bool_]:
        """Which have their outcome."""
        return (self.outcome >= 0) | ~np.isnan(self.received_s)
