"""What the user sees while work goes on: progress bars on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console as RichConsole
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table

#: Without a terminal, a long task says how far it is about this often.
PLAIN_INTERVAL_S = 30.0


class Console:
    """Prints lines, tables and the progress of one task at a time.

    Args:
        quiet: say nothing but the tables and lines that are a command's result.
    """

    def __init__(self, quiet: bool = False) -> None:
        self.quiet = quiet
        self.rich = RichConsole(highlight=False, soft_wrap=True)

    def note(self, line: str) -> None:
        """A line about work done; silent when quiet."""
        if not self.quiet:
            self.rich.print(line, markup=False)

    def result(self, line: str) -> None:
        """A line of a command's result."""
        self.rich.print(line, markup=False)

    def table(self, table: Table) -> None:
        """A table of a command's result; in full width where the output is not a terminal."""
        if self.rich.is_terminal:
            RichConsole(highlight=False).print(table)
        else:
            RichConsole(highlight=False, width=160).print(table)

    @contextmanager
    def task(self, description: str, total: int, done: int = 0) -> Iterator[Callable[[int], None]]:
        """Show a task of ``total`` parts; the yielded function is told how many are done.

        Args:
            done: how many are done already.
        """
        if self.quiet:
            yield lambda done: None
        elif self.rich.is_terminal:
            with _bar(self.rich) as progress:
                task = progress.add_task(description, total=total, completed=done)
                yield lambda done: progress.update(task, completed=done)
        else:
            yield self._plain_progress(description, total, done)

    def _plain_progress(self, description: str, total: int, before: int) -> Callable[[int], None]:
        start = last = time.monotonic()

        def update(done: int) -> None:
            nonlocal last
            now = time.monotonic()
            if now - last >= PLAIN_INTERVAL_S and before < done < total:
                last = now
                left = (now - start) / (done - before) * (total - done)
                print(f"{description}: {done} of {total}, about {left:.0f} s left")
                sys.stdout.flush()

        return update


def _bar(console: RichConsole) -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        console=console,
        transient=True,
    )
