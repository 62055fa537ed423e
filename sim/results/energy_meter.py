"""The energy meter: how long devices and nodes were in each power state in one run.

What counts are the requests of the measured window. A device transmits its requests and what
acknowledges replies, and receives replies and what acknowledges its requests: bytes on the wire
over the mean bandwidth of its link. Retransmissions and keep-alive are not counted, nor is the
network card of a node. A device computes, as a node does, while a request is with a worker.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from sim.distributions import Floats
from sim.energy import Joules, joules
from sim.network.hops import Leg
from sim.network.topology import access_legs
from sim.results.link_loads import carried_s
from sim.results.traffic import Traffic, state_exit
from sim.world import World


def has_energy(world: World) -> bool:
    """Whether any device or node of the world has power states."""
    states = [group.energy for group in world.groups] + [node.energy for node in world.nodes]
    return any(state is not None for state in states)


def device_joules(world: World, traffic: Traffic, computed_s: Floats) -> dict[str, Joules]:
    """Energy of each device over the measured window, for every group that has power states.

    Args:
        traffic: messages per second of that window.
        computed_s: (devices,) seconds of computation.
    """
    found = {}
    for index, group in enumerate(world.groups):
        if group.energy is None:
            continue
        devices = slice(world.first_device[index], world.first_device[index + 1])
        requests = access_legs(world, index, "uplink")
        (reply,) = access_legs(world, index, "downlink")
        transmit_s = receive_s = np.zeros(group.count)
        for messages, leg in (
            (traffic.images, requests[0]),
            (traffic.states, requests[state_exit(world, index)]),
        ):
            there_s, back_s = _airtimes_s(leg, world.horizon_s)
            transmit_s = transmit_s + messages[devices] * there_s
            receive_s = receive_s + messages[devices] * back_s
        there_s, back_s = _airtimes_s(reply, world.horizon_s)
        transmit_s = transmit_s + traffic.answers[devices] * back_s
        receive_s = receive_s + traffic.answers[devices] * there_s
        found[group.name] = joules(
            group.energy,
            world.duration_s,
            computed_s[devices],
            transmit_s * world.duration_s,
            receive_s * world.duration_s,
        )
    return found


def _airtimes_s(leg: Leg, horizon_s: float) -> tuple[float, float]:
    """Seconds of radio that one message takes in its own direction, and its acknowledgements.

    None on a link that carries nothing all the time.
    """
    ways = (
        (leg.forward.capacity, sum(leg.packets[::2])),
        (leg.back.capacity, sum(leg.packets[1::2])),
    )
    there_s, back_s = (
        carried_s(capacity, size, horizon_s) if capacity.work(horizon_s) else 0.0
        for capacity, size in ways
    )
    return there_s, back_s


def node_joules(world: World, busy_s: Floats) -> dict[str, Joules]:
    """Energy of each kind of node over the measured window, its replicas together.

    Args:
        busy_s: (kinds,) worker-seconds.
    """
    return {
        node.name: joules(
            node.energy, world.duration_s * node.replicas, float(busy_s[index]), 0.0, 0.0
        )
        for index, node in enumerate(world.nodes)
        if node.energy is not None
    }


def together(parts: Sequence[Joules]) -> Joules:
    """The energy of several groups or kinds of nodes as one."""
    columns = ("idle", "compute", "transmit", "receive")
    return Joules(
        *(np.concatenate([np.zeros(0), *(getattr(it, name) for it in parts)]) for name in columns)
    )
