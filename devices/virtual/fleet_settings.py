"""How a fleet of virtual devices is run, and what it sends."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from devices.mqtt.connections import Broker
from sim.network.mqtt import Mqtt
from sim.network.mqtt_packets import QoS


@dataclass(frozen=True)
class FleetSettings:
    """How devices connect, and how long is waited for what.

    Attributes:
        persistent: sessions outlive connections: the broker keeps answers for who is away.
        inflight: messages that a device may send without having an acknowledgement (QoS 1 and 2);
            None: as many as the broker takes.
        grace_s: how long after its deadline an answer is still waited for: by the run in the end,
            and by each device of a closed loop, which then takes its request for lost.
        wait_s: for the nodes to be online, and for the devices to be connected.
        progress_every_s: between two calls of ``on_progress``.
    """

    broker: Broker
    qos: QoS = 1
    persistent: bool = False
    keep_alive_s: float = 60.0
    inflight: int | None = None
    grace_s: float = 5.0
    wait_s: float = 30.0
    progress_every_s: float = 0.5

    @staticmethod
    def of(broker: Broker, mqtt: Mqtt | None, **more: Any) -> FleetSettings:
        """As the world of a scenario says, with ``more`` attributes besides."""
        if mqtt is None:
            return FleetSettings(broker, **more)
        return FleetSettings(
            broker,
            qos=mqtt.qos,
            persistent=mqtt.persistent,
            keep_alive_s=mqtt.keep_alive_s,
            inflight=mqtt.inflight,
            **more,
        )


@dataclass(frozen=True)
class SampleSet:
    """The samples that requests choose from; arrays over the samples.

    Attributes:
        images: (N, C, H, W) raw images.
        labels: (N,) classes; ``sample``: (N,) numbers in the dataset's test split.
    """

    images: NDArray[np.uint8]
    labels: NDArray[np.int32]
    sample: NDArray[np.int32]
