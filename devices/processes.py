"""The parts of a live run on this machine, each a process: started, watched, stopped for good.

What a part writes goes to a file, of which the last lines say why it ended. A part hears no Ctrl-C
(the run stops its parts in order), and none outlives the run: see :mod:`devices.tether`. For a part
that must soon be back when it dies, another process may stand by: see :mod:`devices.standby`.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from models.errors import LiveError
from models.processors import confine

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
        said: file that has what it writes to standard output and standard error.
    """

    def __init__(self, name: str, process: subprocess.Popen[bytes], said: Path) -> None:
        self.name = name
        self._process = process
        self._said = said

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

    def confine(self, to: Sequence[int]) -> None:
        """Let it run on some processors alone, if it has not ended.

        Args:
            to: their numbers, as the kernel counts them.

        Raises:
            LiveError: that is not allowed, or one is not there any more.
        """
        try:
            confine(self._process.pid, to)
        except ProcessLookupError:
            return
        except (OSError, NotImplementedError) as error:
            raise LiveError(f"{self.name} cannot have processors of its own: {error}") from error

    def ask_to_stop(self) -> None:
        """Send SIGTERM, on which a node answers what it has before it ends."""
        if self.status is None:
            self._process.terminate()

    def stop(self, within_s: float = STOP_WITHIN_S) -> None:
        """Ask it to end, and kill it if it has not ended within some seconds."""
        self.ask_to_stop()
        self.wait(within_s)

    def wait(self, within_s: float) -> None:
        """Wait until it has ended, and kill it if it has not within some seconds."""
        try:
            self._process.wait(within_s)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


@dataclass(frozen=True)
class _Standby:
    """A process that waits to become a part that needs this environment."""

    process: subprocess.Popen[bytes]
    said: Path
    environment: Mapping[str, str]


class Parts:
    """The parts of a run; a context manager that leaves none of them behind."""

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="offramp-live-")
        self._running: list[Part] = []
        self._started = 0
        self._standby: _Standby | None = None

    def __enter__(self) -> Parts:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            if self._standby is not None:
                assert self._standby.process.stdin is not None
                self._standby.process.stdin.close()
                Part("standby", self._standby.process, self._standby.said).stop()
            self.stop(*self._running)
        finally:
            self._folder.cleanup()

    def start(
        self,
        name: str,
        module: str,
        arguments: Sequence[str] = (),
        environment: Mapping[str, str] | None = None,
        processors: Sequence[int] | None = None,
    ) -> Part:
        """Start a part.

        Args:
            name: in messages, such as "node edge".
            module: run as ``python -m MODULE``, with ``arguments``.
            environment: variables to set besides those of this process.
            processors: on which it runs, see :meth:`Part.confine`; None: those of this process.

        Raises:
            LiveError: the process cannot be started, or not there.
        """
        said = self._next_file()
        process = _spawn(name, ("devices.tether", str(os.getpid()), module, *arguments), said,
                         environment or {})  # fmt: skip
        part = self._added(Part(name, process, said))
        if processors is not None:
            part.confine(processors)
        return part

    def stand_by(self, imports: Sequence[str], environment: Mapping[str, str]) -> None:
        """Let a process import modules and wait, for :meth:`start_at_once`; one at a time.

        Raises:
            LiveError: the process cannot be started.
        """
        if self._standby is not None and self._standby.process.poll() is None:
            return
        said = self._next_file()
        command = ("devices.standby", str(os.getpid()), *imports)
        process = _spawn("standby", command, said, environment, stdin=subprocess.PIPE)
        self._standby = _Standby(process, said, environment)

    def start_at_once(
        self,
        name: str,
        module: str,
        arguments: Sequence[str],
        environment: Mapping[str, str],
        processors: Sequence[int] | None = None,
    ) -> Part:
        """Start a part from what stands by, if something does; else as :meth:`start` does."""
        standby, self._standby = self._standby, None
        if standby is None or standby.environment != environment:
            self._standby = standby
            return self.start(name, module, arguments, environment, processors)
        order = json.dumps([module, *arguments]).encode() + b"\n"
        part = Part(name, standby.process, standby.said)
        if processors is not None:
            part.confine(processors)
        try:
            assert standby.process.stdin is not None
            with standby.process.stdin as stdin:
                stdin.write(order)
        except OSError:  # it is gone
            standby.process.wait()
            return self.start(name, module, arguments, environment, processors)
        return self._added(part)

    def _next_file(self) -> Path:
        self._started += 1
        return Path(self._folder.name) / f"{self._started}.log"

    def _added(self, part: Part) -> Part:
        self._running.append(part)
        return part

    def stop(self, *parts: Part, within_s: float = STOP_WITHIN_S) -> None:
        """End some parts at the same time, the last started first.

        Each is asked once. A node that is asked again ends at once, whatever it still has to
        answer, and any part dies of a signal that meets its interpreter at its last steps.
        """
        end = time.monotonic() + within_s
        for part in reversed(parts):
            part.ask_to_stop()
        for part in reversed(parts):
            part.wait(max(0.0, end - time.monotonic()))
        self._running = [part for part in self._running if part not in parts]


def _spawn(
    name: str,
    command: Sequence[str],
    said: Path,
    environment: Mapping[str, str],
    stdin: int = subprocess.DEVNULL,
) -> subprocess.Popen[bytes]:
    """Start a Python module and its arguments in a session of its own."""
    try:
        with said.open("ab") as file:
            return subprocess.Popen(
                # -P: a file of the working folder must not stand in for one of our packages.
                [sys.executable, "-P", "-m", *command],
                stdin=stdin,
                stdout=file,
                stderr=subprocess.STDOUT,
                env={**os.environ, **environment},
                start_new_session=True,
            )
    except OSError as error:
        raise LiveError(f"{name} cannot be started: {error}") from error


def _indented(text: str) -> str:
    return "\n".join(f"  {line}" for line in text.splitlines())
