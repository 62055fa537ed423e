"""Comparisons of the simulator with theory that say what they compare, for docs/validation.md."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from tiny_worlds import assert_confirms

#: Told of every comparison: what, what theory says, and the mean of each replication.
LISTENERS: list[Callable[[str, float, Sequence[float]], None]] = []


def confirm(
    what: str, expected: float, replications: Sequence[float], within: float = 0.05
) -> None:
    """As :func:`tiny_worlds.assert_confirms`."""
    for listener in LISTENERS:
        listener(what, expected, replications)
    assert_confirms(expected, replications, within)
