"""The parts of a live run on this machine, each a process: started, watched, stopped for good.

What a part writes goes to a file, of which the last lines say why it ended. A part hears no Ctrl-C
(the run stops its parts in order), and none outlives the run: see :mod:`devices.tether`.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType

from models.errors import LiveError

#: A part that is asked to end has so long for it, then it is killed.
STOP_WITHIN_S = 5.0

#: Lines that are shown of what a part said before it ended.
_LAST_LINES = 8

#: Of a part that says much, only the end of what it said is read.
_LAST_BYTES = 8192


class Part:
    """A Python module that runs in a process of its own.

    Args:
        name: in messages, such as "node edge".
        module: run as ``python -m MODULE``, with ``arguments``.
        said: file for what it writes to standard output and standard error.
        environment: variables to set besides those of this process.

    Raises:
        LiveError: the process cannot be started.
    """

    def __init__(
        self,
        name: str,
        module: str,
        arguments: Sequence[str],
        said: Path,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.name = name
        self._said = said
        # -P: a file of the working folder must not stand in for one of our packages.
        command = [sys.executable, "-P", "-m", "devices.tether"]
        command += [str(os.getpid()), module, *arguments]
        try:
            with said.open("ab") as file:
                self._process = subprocess.Popen(
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=file,
                    stderr=subprocess.STDOUT,
                    env={**os.environ, **(environment or {})},
                    start_new_session=True,
                )
        except OSError as error:
            raise LiveError(f"{name} cannot be started: {error}") from error

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    @property
    def status(self) -> int | None:
        """Its exit status, negative for a signal; None while it runs."""
        return self._process.poll()

    def last_words(self) -> str:
        """The last lines that it wrote."""
        with self._said.open("rb") as file:
            file.seek(max(0, self._said.stat().st_size - _LAST_BYTES))
            lines = file.read().decode(errors="replace").splitlines()
        return "\n".join([line for line in lines if line.strip()][-_LAST_LINES:])

    def obituary(self) -> str:
        """How it ended, and what it said last."""
        status = self.status
        if status is None:
            return f"{self.name} is running"
        how = f"ended with status {status}"
        if status < 0:
            with suppress(ValueError):
                how = f"was ended by {signal.Signals(-status).name}"
        words = self.last_words()
        return f"{self.name} {how}" + (f"; it said last:\n{_indented(words)}" if words else "")

    def ask_to_stop(self) -> None:
        """Send SIGTERM, on which a node answers what it has before it ends."""
        if self.status is None:
            self._process.terminate()

    def stop(self, within_s: float = STOP_WITHIN_S) -> None:
        """Ask it to end, and kill it if it has not ended within some seconds."""
        self.ask_to_stop()
        try:
            self._process.wait(within_s)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


class Parts:
    """The parts of a run; a context manager that leaves none of them behind."""

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="offramp-live-")
        self._running: list[Part] = []
        self._started = 0

    def __enter__(self) -> Parts:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            self.stop(*self._running)
        finally:
            self._folder.cleanup()

    def start(
        self,
        name: str,
        module: str,
        arguments: Sequence[str] = (),
        environment: Mapping[str, str] | None = None,
    ) -> Part:
        """Start a part; see :class:`Part`."""
        self._started += 1
        said = Path(self._folder.name) / f"{self._started}.log"
        part = Part(name, module, arguments, said, environment)
        self._running.append(part)
        return part

    def stop(self, *parts: Part, within_s: float = STOP_WITHIN_S) -> None:
        """End some parts at the same time, the last started first."""
        end = time.monotonic() + within_s
        for part in reversed(parts):
            part.ask_to_stop()
        for part in reversed(parts):
            part.stop(max(0.0, end - time.monotonic()))
        self._running = [part for part in self._running if part not in parts]


def _indented(text: str) -> str:
    return "\n".join(f"  {line}" for line in text.splitlines())
