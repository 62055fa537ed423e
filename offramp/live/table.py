"""How a live run is going: a table on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

from rich.console import Console as RichConsole
from rich.live import Live
from rich.table import Table

from devices.virtual.progress import Progress
from offramp.console import Console
from offramp.report.markdown import milliseconds, percent

#: Without a terminal, a line is printed this often.
PLAIN_INTERVAL_S = 10.0

#: The table is drawn anew at most this often: drawing takes processor time that a node may need.
_DRAWN_EVERY_S = 0.5

#: Arms that are done and stay in the table.
_DONE_SHOWN = 8


@dataclass(frozen=True)
class Standing:
    """How one arm is going.

    Attributes:
        arm: for people.
        number, of: which one of how many it is.
        phase: what is waited for, while its devices do not send.
        progress: of its devices.
        queued: requests that wait at nodes; None if nobody knows.
    """

    arm: str
    number: int
    of: int
    phase: str = ""
    progress: Progress | None = None
    queued: int | None = None

    @property
    def left_s(self) -> float:
        """Seconds until its window closes; NaN before it has begun."""
        if self.progress is None:
            return math.nan
        return max(0.0, self.progress.horizon_s - self.progress.time_s)


@dataclass
class LiveTable:
    """Shows standings; see :func:`live_table`.

    Args:
        live: the terminal's display, or None to print lines.
        quiet: print nothing.
    """

    console: Console
    live: Live | None
    quiet: bool
    _done: list[Standing] = field(default_factory=list)
    _last: Standing | None = None
    _shown_at_s: float = -math.inf

    def show(self, standing: Standing) -> None:
        """An arm goes on."""
        begins = self._last is None or self._last.number != standing.number
        self._last = standing
        every_s = _DRAWN_EVERY_S if self.live else PLAIN_INTERVAL_S
        now_s = time.monotonic()
        if self.quiet or (now_s - self._shown_at_s < every_s and not begins):
            return
        self._shown_at_s = now_s
        if self.live:
            self.live.update(self._table(standing), refresh=True)
        elif not begins:
            self.console.note(line(standing))

    def finish(self) -> None:
        """The arm that was shown last is done."""
        if self._last is None:
            return
        done = replace(self._last, phase="done")
        self._done = [*self._done, done][-_DONE_SHOWN:]
        if not self.live and not self.quiet:
            self.console.note(line(done))
        self._last = None

    def _table(self, standing: Standing) -> Table:
        table = Table(
            *("arm", "time left", "rate", "AUD so far", "exits taken", "p50 / p99 (ms)"),
            *("queue", "lost", "devices"),
            title=f"live: arm {standing.number} of {standing.of}",
        )
        for done in self._done:
            table.add_row(done.arm, "done", *_figures(done), style="dim")
        left = standing.phase or f"{standing.left_s:.0f} s"
        table.add_row(standing.arm, left, *_figures(standing))
        return table


@contextmanager
def live_table(console: Console) -> Iterator[LiveTable]:
    """A table on a terminal while the block runs; lines elsewhere; nothing when quiet."""
    if console.quiet or not console.rich.is_terminal:
        yield LiveTable(console, None, console.quiet)
        return
    # A console that does not wrap what it is asked to wrap is no place for a table.
    screen = RichConsole(highlight=False)
    with Live(console=screen, auto_refresh=False, transient=True) as live:
        yield LiveTable(console, live, False)


def line(standing: Standing) -> str:
    """A standing in one line."""
    rate, aud, exits, latency, queue, lost, devices = _figures(standing)
    left = standing.phase or f"{standing.left_s:.0f} s left"
    if standing.progress is None:
        return f"live  {standing.arm} ({standing.number} of {standing.of}): {left}"
    return (
        f"live  {standing.arm} ({standing.number} of {standing.of}): {left}; {rate}, AUD {aud}, "
        f"exits {exits}, p50 / p99 {latency} ms, queue {queue}, lost {lost}, devices {devices}"
    )


def _figures(standing: Standing) -> tuple[str, ...]:
    progress = standing.progress
    if progress is None:
        return ("",) * 7
    answered = max(1, sum(progress.exits.values()))
    last = max(progress.exits, default=0)
    exits = [100 * progress.exits.get(exit, 0) / answered for exit in range(1, last + 1)]
    return (
        f"{progress.rate_hz:.1f}/s",
        percent(progress.aud),
        " / ".join(f"{share:.0f}" for share in exits) + (" %" if exits else "-"),
        milliseconds(progress.latency_p50_s, progress.latency_p99_s),
        "-" if standing.queued is None else str(standing.queued),
        str(progress.lost),
        f"{progress.connected} of {progress.devices}",
    )
