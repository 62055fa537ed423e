"""Nodes that are started here have processors of their own, as machines of their own would.

Where the scheduler decides, a node shares one with the broker in one run, and with the devices in
the next: inference takes a quarter longer then, and no calibration knows in which.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from models.processors import cores, fastest, processors

#: For broker and devices, before nodes get more than their workers need.
_FOR_THE_REST = 2


@dataclass(frozen=True)
class Shares:
    """Who runs on which processors of this host.

    Attributes:
        nodes: of each node, by its name: nobody else's.
        rest: of the broker, the devices, and this process.
    """

    nodes: Mapping[str, tuple[int, ...]]
    rest: tuple[int, ...]


def shares(threads: Mapping[str, int], of: Sequence[Sequence[int]] | None = None) -> Shares | None:
    """Share out the processors of this host.

    Whole cores, where there are enough of them. Each node has as many as its workers have threads,
    and one more for its network, if two are left for the rest.

    Args:
        threads: that the workers of each node keep busy, by its name.
        of: processors of each core, those that are to be a node's last; None: of this host.

    Returns:
        None if there are too few for each to have its own.
    """
    if of is None:
        own = processors()
        fast = set(fastest(own))
        # The first one serves most interrupts.
        of = cores(sorted(own, key=lambda number: (number in fast, number)))
    needed = sum(threads.values())
    if len(of) <= needed:
        of = [(number,) for core in of for number in core]
    if not threads or len(of) <= needed:
        return None
    more = 1 if len(of) >= needed + len(threads) + _FOR_THE_REST else 0
    left = list(of)
    nodes = dict[str, tuple[int, ...]]()
    for name, count in threads.items():
        mine = [left.pop() for _ in range(count + more)]
        nodes[name] = tuple(sorted(number for core in mine for number in core))
    return Shares(nodes, tuple(sorted(number for core in left for number in core)))
