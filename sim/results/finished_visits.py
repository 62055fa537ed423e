"""Visits of a run that comes in slices, put together with the requests that made them.

A request leaves a node before its answer is home, and the requests of a batch leave one by one: a
slice of time may see a visit without its request, and some of a batch. Such visits wait here.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from sim.distributions import Floats
from sim.results.run import Run
from sim.results.visits import Visits


class Finished(NamedTuple):
    """Visits of requests whose outcome is known, by request; no batch is parted.

    Attributes:
        visits: V of them.
        created_s, deadline_s: (V,) of the request of each.
        group, device: (V,) of the request of each; devices are counted through all groups.
        node: (V,) that served the request of each last, or would have.
    """

    visits: Visits
    created_s: Floats
    deadline_s: Floats
    group: NDArray[np.int64]
    device: NDArray[np.int64]
    node: NDArray[np.int64]


@dataclass(frozen=True)
class _Facts:
    """What is known of the request of each visit; ``known`` (V,) says where it is."""

    known: NDArray[np.bool_]
    created_s: Floats
    deadline_s: Floats
    group: NDArray[np.int64]
    device: NDArray[np.int64]
    node: NDArray[np.int64]

    @staticmethod
    def none(count: int) -> _Facts:
        numbers = [np.zeros(count, dtype=np.int64) for _ in range(3)]
        return _Facts(np.zeros(count, dtype=bool), np.zeros(count), np.zeros(count), *numbers)

    def where(self, rows: NDArray[np.bool_] | NDArray[np.int64]) -> _Facts:
        return _Facts(*(getattr(self, field.name)[rows] for field in fields(self)))

    def and_none(self, count: int) -> _Facts:
        more = _Facts.none(count)
        return _Facts(
            *(
                np.concatenate([getattr(self, field.name), getattr(more, field.name)])
                for field in fields(self)
            )
        )


class FinishedVisits:
    """Gives the visits of a run, slice by slice, each of them once."""

    def __init__(self) -> None:
        self._waiting = Visits.of_rows([])
        self._facts = _Facts.none(0)

    def add(self, part: Run) -> Finished:
        """Take in a slice of a run; returns what is finished with it."""
        came = part.visits
        visits = Visits.joined([self._waiting, came]) if len(self._waiting) else came
        facts = self._facts.and_none(len(came))
        self._learn(visits, facts, part)
        ready = facts.known & _whole_batches(visits, facts.known)
        self._waiting, self._facts = visits.where(~ready), facts.where(~ready)
        return _in_order(visits.where(ready), facts.where(ready))

    @staticmethod
    def _learn(visits: Visits, facts: _Facts, part: Run) -> None:
        """Note the facts of the requests that ``part`` brings."""
        if not len(part):
            return
        order = np.argsort(part.index, kind="stable")
        index = part.index[order]
        row = np.minimum(np.searchsorted(index, visits.request), len(index) - 1)
        here = index[row] == visits.request
        row = order[row[here]]
        facts.known[here] = True
        facts.created_s[here] = part.requests.created_s[row]
        facts.deadline_s[here] = part.deadline_s[row]
        facts.group[here] = part.requests.group[row]
        facts.device[here] = part.requests.device[row]
        facts.node[here] = part.node[row]


def _whole_batches(visits: Visits, known: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """(V,) whether all requests of each visit's batch are there, and known."""
    whole = np.ones(len(visits), dtype=bool)
    batched = np.flatnonzero((visits.batch > 1) & ~np.isnan(visits.started_s))
    if not len(batched):
        return whole
    columns = (visits.node[batched], visits.started_s[batched], visits.batch[batched])
    order = np.lexsort(columns)
    new = np.ones(len(order), dtype=bool)
    new[1:] = np.any([column[order][1:] != column[order][:-1] for column in columns], axis=0)
    key = np.empty(len(order), dtype=np.int64)
    key[order] = np.cumsum(new) - 1
    there = np.bincount(key, weights=known[batched])
    # Several batches of one size may begin together at one node.
    whole[batched] = (there % visits.batch[batched][_first_of_each(key)] == 0)[key] & (
        np.bincount(key) == there
    )[key]
    return whole


def _first_of_each(key: NDArray[np.int64]) -> NDArray[np.int64]:
    first: NDArray[np.int64] = np.unique(key, return_index=True)[1]
    return first


def _in_order(visits: Visits, facts: _Facts) -> Finished:
    if (visits.request[1:] < visits.request[:-1]).any():
        order = np.argsort(visits.request, kind="stable")
        visits, facts = visits.where(order), facts.where(order)
    return Finished(
        visits, facts.created_s, facts.deadline_s, facts.group, facts.device, facts.node
    )
