"""Worlds of a few devices, and what they send, for live tests."""

from __future__ import annotations

from typing import Any

import numpy as np

from devices.virtual.fleet_settings import SampleSet
from models.artifacts import Predictions
from sim.distributions import Constant
from sim.network.links import Link
from sim.nodes.service import DistributedService
from sim.nodes.spec import NodeSpec
from sim.workload.arrivals import Poisson
from sim.workload.device_groups import DeviceGroup
from sim.world import World

SAMPLES = 100
EXITS = 2


def sample_set() -> SampleSet:
    """Every label is the last digit of the sample's number: what a ``FakeEdge`` answers."""
    images = np.random.default_rng(0).integers(0, 256, (SAMPLES, 1, 8, 8), dtype=np.uint8)
    numbers = np.arange(SAMPLES, dtype=np.int32)
    return SampleSet(images, numbers % 10, numbers)


def predictions() -> Predictions:
    samples = sample_set()
    predicted = np.tile(samples.labels[:, None], (1, EXITS))
    confidence = np.full((SAMPLES, EXITS), 0.75, dtype=np.float32)
    return Predictions(samples.sample, samples.labels, predicted, confidence, {})


def group(name: str = "cameras", count: int = 3, **changes: Any) -> DeviceGroup:
    settings: dict[str, Any] = {
        "arrivals": Poisson(20.0),
        "deadline": Constant(1.0),
        "link": "wire",
        "node": "edge",
        "request_bytes": 64,
        "response_bytes": 20,
    }
    return DeviceGroup(name=name, count=count, **(settings | changes))


def node(name: str = "edge", **changes: Any) -> NodeSpec:
    return NodeSpec(name, 1, DistributedService(Constant(1e-4), EXITS), **changes)


def world(*groups: DeviceGroup, **changes: Any) -> World:
    settings: dict[str, Any] = {
        "nodes": (node(),),
        "links": {"wire": Link()},
        "warm_up_s": 0.2,
        "duration_s": 0.8,
        "seed": 7,
    }
    return World(groups=groups or (group(),), **(settings | changes))
