"""What devices sent and were answered over their links, counted over a run."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from sim.distributions import Floats
from sim.results.finished_visits import Finished
from sim.results.run import Run
from sim.workload.arrivals import ClosedLoop
from sim.workload.device_groups import DeviceGroup
from sim.world import World


@dataclass(frozen=True)
class Traffic:
    """Messages of each device; arrays of length D.

    Attributes:
        images: requests sent to a node before anything was computed of them.
        states: requests sent on by devices that had computed a part.
        answers: that came from a node.
    """

    images: Floats
    states: Floats
    answers: Floats


def offered_traffic(world: World) -> Traffic:
    """Messages per second if devices send every request as it is, and each is answered.

    Closed loops send as fast as they are served, and devices that compute what they like: neither
    is counted.
    """
    rates = [np.full(group.count, _known_rate_hz(group)) for group in world.groups]
    images: Floats = np.concatenate(rates)
    return Traffic(images, np.zeros(world.devices), images)


def _known_rate_hz(group: DeviceGroup) -> float:
    """Requests per second of one device, as far as they are known before a run."""
    if isinstance(group.arrivals, ClosedLoop) or group.service is not None:
        return 0.0
    rate_hz = group.arrivals.rate()
    return rate_hz if math.isfinite(rate_hz) else 0.0


def state_exit(world: World, group: int) -> int:
    """The exit after which devices of a group are taken to send on what they computed.

    Which of several it was is not recorded: the last that they can compute, but for the network's
    last, after which there is nothing to go on with.
    """
    spec = world.groups[group]
    if spec.service is None:
        return 0
    exits = spec.service.exit_count
    return min(spec.last_exit or exits, exits - 1)


class TrafficMeter:
    """Counts the requests of the measured window, slice by slice.

    Attributes:
        computed_s: (D,) seconds for which each device computed itself.
    """

    def __init__(self, world: World) -> None:
        self._world = world
        self._nodes = len(world.node_names)
        self._sent = np.zeros(world.devices)
        self._states = np.zeros(world.devices)
        self._answers = np.zeros(world.devices)
        self.computed_s = np.zeros(world.devices)

    def add(self, part: Run, finished: Finished) -> None:
        """Take in a slice of a run."""
        devices, device = self._world.devices, part.requests.device
        sent = part.measured(self._world) & (part.node < self._nodes)
        self._sent += np.bincount(device[sent], minlength=devices)
        self._answers += np.bincount(device[sent & part.answered], minlength=devices)
        visits = finished.visits
        own = (finished.created_s >= self._world.warm_up_s) & (visits.node >= self._nodes)
        own &= visits.left_s > visits.started_s  # not where it was sent on, or refused, at once
        if own.any():
            device = finished.device[own]
            seconds = (visits.released_s - visits.started_s)[own]
            self.computed_s += np.bincount(device, weights=seconds, minlength=devices)
            went_on = finished.node[own] < self._nodes
            self._states += np.bincount(device[went_on], minlength=devices)

    def traffic(self) -> Traffic:
        """Messages per second of the measured window."""
        second = self._world.duration_s
        return Traffic(
            (self._sent - self._states) / second, self._states / second, self._answers / second
        )
