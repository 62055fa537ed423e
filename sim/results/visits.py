"""Visits: when each request came to a node, was taken by a worker, and left."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from sim.nodes.requests import VisitRow
from sim.streams import Floats


class Services(NamedTuple):
    """Spans in which one worker was busy with one request or one batch; arrays of length S."""

    node: NDArray[np.int64]
    started_s: Floats
    ended_s: Floats


@dataclass(frozen=True)
class Visits:
    """One row per visit of a request to a node; arrays of length V, in any order.

    Attributes:
        request: index of the request in its run.
        node: index of the node.
        arrived_s: when the request joined the node's queue, or met an idle worker.
        started_s: when a worker took it; NaN if none ever did.
        left_s: when it left, by an answer, a refusal, an offload or a loss.
        released_s: when its worker had done with it: had sent the reply, or finished the segment
            from which it was cut off. Never before ``left_s``.
        batch: requests computed together with it, itself included; 1 if it was alone.
    """

    request: NDArray[np.int64]
    node: NDArray[np.int64]
    arrived_s: Floats
    started_s: Floats
    left_s: Floats
    released_s: Floats
    batch: NDArray[np.int64]

    def __post_init__(self) -> None:
        lengths = {field.name: len(getattr(self, field.name)) for field in fields(self)}
        if len(set(lengths.values())) > 1:
            raise ValueError(f"columns of visits differ in length: {lengths}")

    def __len__(self) -> int:
        return len(self.request)

    def where(self, rows: NDArray[np.bool_] | NDArray[np.int64]) -> Visits:
        """The visits for which ``rows`` (V,) is true, or at these positions."""
        return Visits(*(getattr(self, field.name)[rows] for field in fields(self)))

    @staticmethod
    def of_rows(rows: Sequence[VisitRow]) -> Visits:
        """From one tuple for each visit, in the order of the attributes."""
        columns = list(zip(*rows, strict=True)) if rows else [()] * 7
        types = (np.int64, np.int64, *(np.float64,) * 4, np.int64)
        arrays: list[Any] = [
            np.array(column, dtype=type) for column, type in zip(columns, types, strict=True)
        ]
        return Visits(*arrays)

    @staticmethod
    def joined(parts: Sequence[Visits]) -> Visits:
        """The visits of several parts of a run."""
        return Visits(
            *(
                np.concatenate([getattr(part, field.name) for part in parts])
                for field in fields(Visits)
            )
        )

    def of_node(self, index: int) -> Visits:
        """The visits to one node."""
        return self.where(self.node == index)

    def service_number(self) -> NDArray[np.int64]:
        """(V,) which service of :meth:`services` each visit was part of; -1 if never started.

        Requests of one batch start together at one node, and share a service. If several batches
        of the same size start at one instant, those that leave first are said to be in one: then
        no more workers are busy than were.
        """
        number = np.full(len(self), -1)
        started = ~np.isnan(self.started_s)
        alone = np.flatnonzero(started & (self.batch <= 1))
        number[alone] = np.arange(len(alone))
        batched = np.flatnonzero(started & (self.batch > 1))
        if not len(batched):
            return number
        keys = (self.batch[batched], self.started_s[batched], self.node[batched])
        order = np.lexsort((self.left_s[batched], *keys))
        new_key = np.ones(len(order), dtype=bool)
        new_key[1:] = np.any([key[order][1:] != key[order][:-1] for key in keys], axis=0)
        position = np.arange(len(order))
        within_key = position - np.maximum.accumulate(np.where(new_key, position, 0))
        begins = within_key % keys[0][order] == 0
        number[batched[order]] = len(alone) - 1 + np.cumsum(begins)
        return number

    def services(self, number: NDArray[np.int64] | None = None) -> Services:
        """What occupied the workers; a batch occupies one until that has done with all of it.

        Args:
            number: (V,) from :meth:`service_number`, if it is there already.
        """
        number = self.service_number() if number is None else number
        served = number >= 0
        number = number[served]
        count = int(number.max(initial=-1)) + 1
        node = np.zeros(count, dtype=np.int64)
        started_s = np.zeros(count)
        ended_s = np.full(count, -np.inf)
        node[number] = self.node[served]
        started_s[number] = self.started_s[served]
        np.maximum.at(ended_s, number, self.released_s[served])
        return Services(node, started_s, ended_s)
