"""The world: what is simulated, apart from the network's predictions and the policy."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from sim.faults import Fault
from sim.network.links import Link
from sim.network.mqtt import Mqtt
from sim.nodes.spec import NodeSpec
from sim.workload.arrivals import ClosedLoop
from sim.workload.device_groups import DeviceGroup


@dataclass(frozen=True)
class World:
    """Devices, links and nodes, and how long they are watched.

    Requests are created from time 0 on. The measured window opens after ``warm_up_s`` and lasts
    ``duration_s``; nothing is created after it, and everything created is followed to its end.

    Attributes:
        links: kinds of links, by name.
        mqtt: how messages travel; None: from device to node at once.
        state_bytes: of what a request takes along after each exit, when it goes on to another
            tier; the first entry belongs to exit 1. Missing ones: the image.
        slow_moments: which draw of the moments in which nodes are slow; see
            :mod:`sim.nodes.autocorrelation`. Another one leaves all else as it is.
    """

    groups: tuple[DeviceGroup, ...]
    nodes: tuple[NodeSpec, ...]
    links: Mapping[str, Link]
    warm_up_s: float
    duration_s: float
    seed: int
    mqtt: Mqtt | None = None
    faults: tuple[Fault, ...] = ()
    state_bytes: tuple[int, ...] = field(default=())
    slow_moments: int = 0

    @property
    def horizon_s(self) -> float:
        """End of the measured window."""
        return self.warm_up_s + self.duration_s

    @cached_property
    def first_device(self) -> list[int]:
        """Of each group, its first device, counted through all groups; at the end their number."""
        counts = np.cumsum([0, *(group.count for group in self.groups)])
        first: list[int] = counts.tolist()
        return first

    @property
    def devices(self) -> int:
        """Number of devices."""
        return self.first_device[-1]

    def device_name(self, device: int) -> str:
        """Name of a device, counted through all groups."""
        index = bisect_right(self.first_device, device) - 1
        group, number = self.groups[index], device - self.first_device[index]
        return group.names[number] if group.names else f"{group.name}-{number}"

    @cached_property
    def first_node(self) -> list[int]:
        """Of each kind of node, its first, counted through all kinds; at the end their number."""
        counts = np.cumsum([0, *(node.replicas for node in self.nodes)])
        first: list[int] = counts.tolist()
        return first

    @cached_property
    def node_names(self) -> list[str]:
        """Names of all nodes, in the order in which they are counted."""
        return [
            node.name if node.replicas == 1 else f"{node.name}-{number}"
            for node in self.nodes
            for number in range(node.replicas)
        ]

    @cached_property
    def node_specs(self) -> list[NodeSpec]:
        """The kind of each node, in the order in which they are counted."""
        return [node for node in self.nodes for _ in range(node.replicas)]

    @cached_property
    def computing_devices(self) -> NDArray[np.int64]:
        """Devices that compute, and are nodes themselves: those come after all others."""
        computing = [
            np.arange(self.first_device[index], self.first_device[index + 1])
            for index, group in enumerate(self.groups)
            if group.service is not None
        ]
        return np.concatenate(computing) if computing else np.zeros(0, dtype=np.int64)

    @property
    def servers(self) -> int:
        """Number of nodes and of devices that compute: whatever can serve a request."""
        return self.first_node[-1] + len(self.computing_devices)

    def server_name(self, server: int) -> str:
        """Name of a node, or of a device that computes."""
        nodes = self.first_node[-1]
        if server < nodes:
            return self.node_names[server]
        return self.device_name(int(self.computing_devices[server - nodes]))

    def kind(self, name: str) -> int:
        """Index of the kind of node called ``name``."""
        return [node.name for node in self.nodes].index(name)

    def nodes_of(self, kind: int) -> range:
        """The nodes of a kind, counted through all kinds."""
        return range(self.first_node[kind], self.first_node[kind + 1])

    def sent_bytes(self, group: int, exit: int) -> int:
        """Payload of a request that is sent on after ``exit``; 0: the image."""
        if 0 < exit <= len(self.state_bytes):
            return self.state_bytes[exit - 1]
        return self.groups[group].request_bytes

    @cached_property
    def is_open(self) -> bool:
        """Whether nothing that happens later changes the way of a request to its node.

        Else messages are followed one by one: where devices wait for answers, compute
        themselves, or may only have so many messages on the way.
        """
        return not (
            any(isinstance(group.arrivals, ClosedLoop) for group in self.groups)
            or any(group.service is not None for group in self.groups)
            or (self.mqtt is not None and self.mqtt.inflight is not None)
        )
