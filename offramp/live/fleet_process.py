"""The virtual devices of a live run, in a process of their own: nothing there makes them late."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

import numpy as np
from numpy.typing import NDArray

from devices.tether import end_with
from devices.virtual.fleet_log import FleetResult
from devices.virtual.fleet_settings import FleetSettings
from devices.virtual.progress import Progress
from models.errors import LiveError, OfframpError
from sim.world import World

#: Asked to end, it has so long until it is killed.
_STOP_WITHIN_S = 3.0


@dataclass(frozen=True)
class FleetOrder:
    """What devices are to do.

    Attributes:
        dataset: whose test images they send.
        sample, labels: (samples,) numbers in the test split, and classes.
    """

    world: World
    dataset: str
    sample: NDArray[np.int32]
    labels: NDArray[np.int32]
    replication: int
    settings: FleetSettings


class FleetProcess:
    """A fleet that runs; see :func:`fleet_process`."""

    def __init__(self, order: FleetOrder) -> None:
        context = multiprocessing.get_context("spawn")
        self._ours, theirs = context.Pipe(duplex=False)
        self._process = context.Process(
            target=_main, args=(theirs, os.getpid(), order), name="offramp devices", daemon=True
        )
        with _deaf_to_ctrl_c():
            self._process.start()
        theirs.close()

    def next(self, within_s: float) -> Progress | FleetResult | None:
        """What it says next, None if it says nothing in time; a result is its last word.

        Raises:
            OfframpError: what went wrong there.
            LiveError: it ended without a word.
        """
        if not self._ours.poll(within_s):
            return None
        try:
            said = self._ours.recv()
        except (EOFError, OSError):
            self._process.join(_STOP_WITHIN_S)
            raise LiveError(
                f"the devices' process ended with status {self._process.exitcode}"
            ) from None
        if isinstance(said, BaseException):
            raise said
        assert isinstance(said, Progress | FleetResult)
        return said

    def stop(self) -> None:
        """End it, if it has not ended."""
        self._ours.close()
        self._process.terminate()
        self._process.join(_STOP_WITHIN_S)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()
        self._process.close()


@contextmanager
def fleet_process(order: FleetOrder) -> Iterator[FleetProcess]:
    """A fleet in a process that ends with the ``with``."""
    process = FleetProcess(order)
    try:
        yield process
    finally:
        process.stop()


@contextmanager
def _deaf_to_ctrl_c() -> Iterator[None]:
    """Who is started meanwhile hears no Ctrl-C, not even before it can say so itself.

    This process hears it afterwards.
    """
    heard = list[int]()
    before: Any = None
    with suppress(ValueError):  # not the main thread, which alone hears Ctrl-C
        before = signal.signal(signal.SIGINT, lambda number, frame: heard.append(number))
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])  # which is inherited
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        if before is not None:
            signal.signal(signal.SIGINT, before)
            if heard:
                signal.raise_signal(signal.SIGINT)


def _main(said: Connection, parent: int, order: FleetOrder) -> None:
    """What the process does."""
    from devices.virtual.fleet import run_fleet
    from devices.virtual.fleet_settings import SampleSet
    from models.data.datasets import load_dataset

    end_with(parent)
    os.setsid()
    try:
        images = load_dataset(order.dataset).test.images[order.sample]
        samples = SampleSet(images, order.labels, order.sample)
        said.send(
            run_fleet(
                order.world, samples, order.replication, order.settings, on_progress=said.send
            )
        )
    except OfframpError as error:
        said.send(error)
    except (KeyboardInterrupt, BrokenPipeError):
        return  # told to end, and nobody listens any more
