"""Nodes that are started here have processors of their own, as machines of their own would.

Where the scheduler decides, a node shares one with the broker in one run, and with the devices in
the next: inference takes a quarter longer then, and no calibration knows in which.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from models.processors import available_processors, confined, cores, fastest

#: Processors for the devices and for the broker.
BESIDES_NODES = 2


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
        of: numbers of the processors of each core, those that are to be a node's last; None: of
            this host.

    Returns:
        None if there are too few for each to have its own.
    """
    if of is None:
        own = available_processors()
        fast = set(fastest(own))
        # The first one serves most interrupts.
        of = cores(sorted(own, key=lambda number: (number in fast, number)))
    needed = sum(threads.values())
    if len(of) <= needed:
        of = [(number,) for core in of for number in core]
    if not threads or len(of) <= needed:
        return None
    more = 1 if len(of) >= needed + len(threads) + BESIDES_NODES else 0
    left = list(of)
    nodes = dict[str, tuple[int, ...]]()
    for name, count in threads.items():
        mine = [left.pop() for _ in range(count + more)]
        nodes[name] = tuple(sorted(number for core in mine for number in core))
    return Shares(nodes, tuple(sorted(number for core in left for number in core)))


@contextmanager
def left_to_nodes(threads: Mapping[str, int]) -> Iterator[Shares | None]:
    """Leave processors to nodes: this process, and those that it starts meanwhile, have the rest.

    Args:
        threads: see :func:`shares`.

    Returns:
        Who has which; None if there are too few, or if the system lets nobody share them out.
    """
    found = shares(threads)
    with ExitStack() as stack:
        if found is not None:
            try:
                stack.enter_context(confined(found.rest))
            except (OSError, NotImplementedError):
                found = None
        yield found
