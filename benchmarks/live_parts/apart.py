"""What a benchmark starts beside nodes leaves them their processors, as the devices of a run do."""

from __future__ import annotations

from contextlib import AbstractContextManager, ExitStack
from typing import TypeVar

from offramp.live.processors import left_to_nodes

T = TypeVar("T")


def enter_apart(stack: ExitStack, parts: AbstractContextManager[T], node: str = "edge") -> T:
    """Enter what starts processes: they run where broker and devices of a live run do.

    Args:
        node: the only one of the run, with one worker.
    """
    with left_to_nodes({node: 1}):
        return stack.enter_context(parts)
