"""Energy of devices and nodes, from how long each was in which power state."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sim.streams import Floats


@dataclass(frozen=True)
class PowerStates:
    """What a device or node draws in each state, in watts; always the whole of it.

    Attributes:
        idle_w: powered on, neither computing nor with its radio active.
        compute_w: one worker computes.
        transmit_w, receive_w: the radio or network card sends, or receives.
        source: where the figures come from: a data sheet, a paper, a measurement.
    """

    idle_w: float
    compute_w: float
    transmit_w: float
    receive_w: float
    source: str

    def problems(self) -> list[str]:
        """What is wrong with the figures, one clause each; nothing if they can be used.

        A state below idle is refused: it is nearly always the power of the radio or the processor
        alone, and would make a device that works cheaper than one that does nothing.
        """
        found = []
        for name in ("idle_w", "compute_w", "transmit_w", "receive_w"):
            watts = getattr(self, name)
            if not math.isfinite(watts) or watts < 0:
                found.append(f"{name} is {watts}, but must be a number of watts from 0 on")
            elif watts < self.idle_w:
                found.append(
                    f"{name} ({watts}) is below idle_w ({self.idle_w}): give the power of the "
                    "whole device in that state, not of the part that is active"
                )
        if not self.source.strip():
            found.append("source is empty: say where the figures come from")
        return found


@dataclass(frozen=True)
class Joules:
    """Energy of D devices or nodes by its cause; arrays of length D.

    Attributes:
        idle: drawn by being switched on, all the time.
        compute, transmit, receive: drawn in addition while doing so.
    """

    idle: Floats
    compute: Floats
    transmit: Floats
    receive: Floats

    @property
    def total(self) -> Floats:
        """(D,) all of it."""
        return self.idle + self.compute + self.transmit + self.receive


def joules(
    states: PowerStates,
    duration_s: float,
    compute_s: ArrayLike,
    transmit_s: ArrayLike,
    receive_s: ArrayLike,
) -> Joules:
    """Energy of D devices or nodes over a span of ``duration_s``.

    A state adds what it draws above idle: the total is ``idle_w * duration_s`` plus, for each
    state, ``(state_w - idle_w) * seconds``. Time in no other state is idle. States may overlap,
    as when the radio receives during a computation, and so may several workers of a node: their
    additions then add up, and the seconds of a state may exceed the span.

    Args:
        compute_s: (D,) worker-seconds spent computing.
        transmit_s, receive_s: (D,) seconds.

    Raises:
        ValueError: a time is negative, NaN or infinite.
    """
    columns = np.broadcast_arrays(
        *(
            np.atleast_1d(np.asarray(s, dtype=np.float64))
            for s in (compute_s, transmit_s, receive_s)
        )
    )
    for name, seconds in zip(("compute_s", "transmit_s", "receive_s"), columns, strict=True):
        if not np.all(np.isfinite(seconds) & (seconds >= 0)):
            raise ValueError(f"{name} must hold seconds from 0 on")
    if not math.isfinite(duration_s) or duration_s < 0:
        raise ValueError(f"duration_s must be seconds from 0 on, not {duration_s}")
    added_w = [
        watts - states.idle_w for watts in (states.compute_w, states.transmit_w, states.receive_w)
    ]
    compute, transmit, receive = (
        watts * seconds for watts, seconds in zip(added_w, columns, strict=True)
    )
    return Joules(np.full(len(compute), states.idle_w * duration_s), compute, transmit, receive)


def seconds_by_owner(
    owner: NDArray[np.integer],
    owners: int,
    begin_s: Floats,
    end_s: Floats,
    from_s: float,
    to_s: float,
) -> Floats:
    """(owners,) total seconds of each owner's intervals that fall inside ``[from_s, to_s)``.

    Args:
        owner: (N,) index of the device or node of each interval.
        begin_s, end_s: (N,) of the intervals; one with a NaN never happened.
    """
    seconds = np.minimum(end_s, to_s) - np.maximum(begin_s, from_s)
    inside = seconds > 0  # false for NaN too
    totals = np.bincount(owner[inside], weights=seconds[inside], minlength=owners)
    return np.asarray(totals, dtype=np.float64)


def energy_metrics(
    devices: Joules, nodes: Joules, offered: int, correct_on_time: int
) -> dict[str, float]:
    """Energy of a run, and what a request and a correct on-time answer cost.

    Energy spent on requests that were late, wrong, dropped or lost counts too, as in AUD. The
    quotients are NaN where nothing was offered, or nothing was correct and on time.
    """
    device, node = float(devices.total.sum()), float(nodes.total.sum())
    return {
        "device_j": device,
        "node_j": node,
        "device_j_per_request": device / offered if offered else math.nan,
        "j_per_request": (device + node) / offered if offered else math.nan,
        "j_per_correct_on_time": (device + node) / correct_on_time if correct_on_time else math.nan,
    }
