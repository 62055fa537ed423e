"""Worlds of every kind, for tests of what must hold in all of them."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from random import Random
from typing import Any

import numpy as np
from hypothesis import strategies as st
from tiny_worlds import Fickle

from models.artifacts import Profile
from sim.distributions import (
    Constant,
    Distribution,
    Exponential,
    Gamma,
    Lognormal,
    TruncatedNormal,
    Uniform,
)
from sim.faults import Fault, FaultKind
from sim.network.capacity import Capacity, ConstantCapacity, TracedCapacity
from sim.network.links import Direction, Link
from sim.network.mqtt import Mqtt
from sim.network.retransmission import TcpLoss
from sim.nodes.autocorrelation import Autocorrelation
from sim.nodes.cooling import Cooling
from sim.nodes.overheads import Overheads, ServiceWithOverheads
from sim.nodes.service import DistributedService, ProfiledService, Service
from sim.nodes.spec import NodeSpec
from sim.policies import (
    Anytime,
    Confidence,
    DeadlineAware,
    DeadlineConfidence,
    FixedExit,
    Full,
    Imprecise,
    LoadAdaptive,
    Offload,
    Oracle,
)
from sim.workload.arrivals import ClosedLoop, Diurnal, OnOff, Periodic, Poisson
from sim.workload.device_groups import DeviceGroup
from sim.workload.samples import Correlated, Drawn, Shuffled
from sim.world import World

EXITS, SAMPLES = 3, 7
WARM_UP_S, DURATION_S = 1.0, 4.0


def seeds() -> st.SearchStrategy[Random]:
    """Hypothesis varies what it knows already; from seeds, all worlds are as likely."""
    return st.integers(0, 2**32 - 1).map(Random)


def worlds(
    lossy: bool = True, stepwise: bool = True, ties: bool = True
) -> st.SearchStrategy[World]:
    """Worlds of every feature.

    Args:
        lossy: links may lose packets, and TCP's timeouts are what they are.
        stepwise: devices may wait for answers, compute, and have few messages on the way.
        ties: messages may be held back, for order or while something is down, and then reach
            their node at the same instant.
    """
    return seeds().map(lambda random: _world(_Drawer(random, lossy, stepwise, ties)))


def policies() -> st.SearchStrategy[Any]:
    """Every policy that ships, and one that does as it likes."""
    return seeds().map(_policy)


def open_arrivals() -> st.SearchStrategy[Any]:
    """Arrivals that wait for nobody."""
    return seeds().map(lambda random: _Drawer(random).arrivals())


def seconds(random: Random) -> float:
    """Not a round number: events would coincide, and who is first is then nobody's business."""
    return random.randint(1, 700) * math.sqrt(2) / 1000


def _policy(random: Random) -> Any:
    threshold, quantile = random.random(), random.uniform(0.05, 0.95)
    return random.choice(
        [
            FixedExit(random.randint(1, EXITS)),
            Full(),
            Confidence(threshold),
            DeadlineAware(quantile, random.choice(["earliest_exit", "drop"])),
            LoadAdaptive(quantile),
            DeadlineConfidence(threshold, quantile=quantile),
            Offload(threshold, quantile=quantile, raw_input=random.random() < 0.5),
            Anytime(quantile, random.choice(["finish", "cut"])),
            Imprecise(random.randint(1, EXITS)),
            Oracle(),
            Fickle(random.randint(2, 9)),
        ]
    )


@dataclasses.dataclass
class _Drawer:
    """Draws the parts of a world; options as in :func:`worlds`."""

    random: Random
    lossy: bool = True
    stepwise: bool = True
    ties: bool = True

    def chance(self, share: float = 0.5) -> bool:
        return self.random.random() < share

    def seconds(self) -> float:
        return seconds(self.random)

    def rate_hz(self) -> float:
        return self.random.randint(1, 60) * math.pi / 30

    def distribution(self) -> Distribution:
        one, two = self.seconds(), self.seconds()
        return self.random.choice(
            [
                Constant(one if self.chance() else 0.0),
                Uniform(0.0, one),
                Exponential(one),
                TruncatedNormal(one, two),
                Lognormal(one, self.random.uniform(0.1, 1.5)),
                Gamma(one, min(one, two)),
            ]
        )

    def arrivals(self) -> Any:
        hz, other_hz = self.rate_hz(), self.rate_hz() if self.chance() else 0.0
        length_s = self.seconds()
        return self.random.choice(
            [
                Poisson(hz),
                Periodic(hz, self.random.uniform(0.0, 0.9) / hz),
                OnOff(hz, other_hz, self.seconds(), self.seconds()),
                Diurnal(((0.0, other_hz), (length_s, hz), (2 * length_s, other_hz))),
            ]
        )

    def capacity(self) -> Capacity:
        steps = self.random.randint(1, 4)
        times_s = np.cumsum([0.0, *(self.seconds() for _ in range(steps))])
        rates = np.array([self.random.uniform(1e4, 1e6) for _ in range(steps)])
        constant = ConstantCapacity(self.random.choice([float("inf"), rates[0]]))
        return self.random.choice([constant, TracedCapacity(times_s, rates)])

    def direction(self) -> Direction:
        if not self.ties:
            # So nearly the same for every message that none is held back for one before it.
            delay_s = self.seconds()
            delay = self.random.choice([Constant(delay_s), Uniform(delay_s, delay_s * (1 + 1e-9))])
            return Direction(delay, self.capacity())
        loss = TcpLoss(self.random.uniform(0.01, 0.3)) if self.lossy and self.chance() else None
        return Direction(self.distribution(), self.capacity(), loss, self.seconds())

    def link(self) -> Link:
        return Link(self.direction(), self.direction(), self.random.randint(1, 4))

    def service(self) -> Service:
        speed = self.random.choice([0.5, 1.0, 3.0])
        law = self.distribution()
        # Services of no time end together, which is a tie of its own.
        if self.chance() and law != Constant(0.0):
            return DistributedService(law, EXITS, speed)
        return ProfiledService(_profile(self.random.randint(0, 99)), speed, 4)

    def overheads(self) -> Overheads:
        some = self.random.choice
        alike = Autocorrelation(self.random.uniform(0.1, 0.9), self.seconds())
        return Overheads(
            *(Exponential(self.seconds() / 10) for _ in range(3)),
            begin_idle=some([None, Exponential(self.seconds() / 10)]),
            autocorrelation=some([None, alike]),
            disturb_s=some([0.0, self.seconds() / 20]),
            ingress_busy=some([None, Exponential(self.seconds() / 5)]),
            egress_busy=some([None, Exponential(self.seconds() / 5)]),
            cooling=some([None, self.cooling()]),
        )

    def cooling(self) -> Cooling:
        return Cooling(
            self.seconds(), self.random.choice([0.0, 0.5]), *(self.seconds() / 10 for _ in range(3))
        )

    def node(self, name: str, **more: Any) -> NodeSpec:
        choice = self.random.choice
        batch = choice([1, 1, 2, 4])
        return NodeSpec(
            name,
            self.random.randint(1, 3),
            self.service(),
            discipline=choice(["fifo", "edf", "priority"]),
            queue_limit=choice([None, None, 0, 1, 4]),
            admission=choice(["all", "all", "feasible"]),
            batch_size=batch,
            batch_wait_s=self.seconds() / 4 if batch > 1 else 0.0,
            replicas=choice([1, 1, 2]),
            overheads=self.overheads() if self.chance(0.3) else None,
            **more,
        )

    def mqtt(self) -> Mqtt:
        choice = self.random.choice
        return Mqtt(
            version=choice(["3.1.1", "5"]),
            qos=choice([0, 1, 2]),
            tls=self.chance(),
            processing=choice([Constant(0.0), Exponential(0.0123)]),
            backhaul=Link(self.direction(), self.direction()),
            inflight=choice([None, None, None, 1, 2]) if self.stepwise else None,
            persistent=self.ties and self.chance(),
            reconnect_s=choice([0.0, self.seconds()]),
            share=choice(["round_robin", "random"]),
        )

    def fault(self, targets: Sequence[tuple[FaultKind, str]]) -> Fault:
        kind, target = self.random.choice(targets)
        factor = self.random.choice([0.25, 0.5]) if kind == "slow_node" else 1.0
        if self.chance():
            start_s = 5 * self.seconds()
            return Fault(kind, target, ((start_s, start_s + self.seconds()),), factor=factor)
        return Fault(kind, target, mtbf_s=3 * self.seconds(), mttr_s=self.seconds(), factor=factor)

    def group(self, number: int, links: Sequence[str], nodes: Sequence[str]) -> DeviceGroup:
        closed = ClosedLoop(Exponential(self.seconds()))
        service = self.service() if self.stepwise and self.chance(0.15) else None
        return DeviceGroup(
            f"group{number}",
            self.random.randint(1, 4),
            closed if self.stepwise and self.chance(0.15) else self.arrivals(),
            self.random.choice([Uniform(self.seconds(), 2.0), Constant(self.seconds())]),
            self.random.choice(links),
            self.random.choice(nodes),
            request_bytes=self.random.randint(1, 3000),
            response_bytes=self.random.randint(1, 3000),
            samples=self.random.choice([Drawn(), Shuffled(), Correlated(3.0)]),
            priority=self.random.randint(0, 2),
            service=service,
            last_exit=self.random.randint(1, EXITS) if service else None,
        )


def _profile(seed: int) -> Profile:
    random = np.random.default_rng(seed)
    table = {name: random.uniform(0.01, 0.4, (20, EXITS)) for name in ("segment", "branch")}
    table["exit"] = np.cumsum(table["segment"], axis=1) + table["branch"]
    batch = {name: 2 * times for name, times in table.items()}
    return Profile({1: table, 4: batch}, about={"architecture": "none", "host": {}})


def _world(draw: _Drawer) -> World:
    access = [f"link{number}" for number in range(draw.random.randint(1, 2))]
    links = {name: draw.link() for name in access}
    nodes = [draw.node("near")]
    if draw.chance():
        nodes.append(draw.node("other"))
    if draw.chance():
        links["wan"] = draw.link()
        tier = {"next_tier": "cloud", "tier_link": "wan"}
        tier["last_exit"] = draw.random.choice([None, 1, 2])
        nodes = [draw.node("near", **tier), *nodes[1:], draw.node("cloud")]
    names = [node.name for node in nodes]
    groups = [draw.group(number, access, names) for number in range(draw.random.randint(1, 3))]
    targets: list[tuple[FaultKind, str]] = [("node_crash", name) for name in names]
    targets += [("slow_node", name) for name in names]
    targets += [("device_churn", group.name) for group in groups]
    if draw.ties:
        targets += [("link_outage", name) for name in access] + [("broker_restart", "")]
    return World(
        tuple(groups),
        tuple(nodes),
        links,
        WARM_UP_S,
        DURATION_S,
        seed=draw.random.randint(0, 1000),
        mqtt=draw.mqtt() if draw.chance() else None,
        faults=tuple(draw.fault(targets) for _ in range(draw.random.randint(0, 4))),
        state_bytes=(800, 400),
    )


# --- a world whose clock runs slower -------------------------------------------------------------


class Slower:
    """A service that takes ``factor`` as long."""

    def __init__(self, service: Service, factor: float) -> None:
        self.exit_count = service.exit_count
        self.draw = service.draw
        self._service = service
        self._factor = factor

    def seconds(self, drawn: Any, since: int, to: int) -> float:
        return self._service.seconds(drawn, since, to) * self._factor

    def batch_seconds(self, drawn: Sequence[Any], since: int, to: int) -> float:
        return self._service.batch_seconds(drawn, since, to) * self._factor

    def resumed(self, drawn: Any, since: int) -> Any:
        return self._service.resumed(drawn, since)

    def quantiles(self, q: float, since: int, resumed: bool = False) -> tuple[float, ...]:
        return tuple(one * self._factor for one in self._service.quantiles(q, since, resumed))

    def means(self) -> tuple[float, ...]:
        return tuple(one * self._factor for one in self._service.means())

    def stepwise_means(self) -> tuple[float, ...]:
        return tuple(one * self._factor for one in self._service.stepwise_means())


#: Of each class, what is a time (1) and what a rate (-1).
POWERS: dict[type, dict[str, int]] = {
    Constant: {"value": 1},
    Uniform: {"low": 1, "high": 1},
    Exponential: {"scale": 1},
    TruncatedNormal: {"loc": 1, "scale": 1},
    Lognormal: {"median": 1},
    Gamma: {"loc": 1, "scale": 1},
    Poisson: {"rate_hz": -1},
    Periodic: {"rate_hz": -1, "jitter_s": 1},
    OnOff: {"on_rate_hz": -1, "off_rate_hz": -1, "mean_on_s": 1, "mean_off_s": 1},
    ConstantCapacity: {"bits_per_s": -1},
    TracedCapacity: {"times_s": 1, "bits_per_s": -1},
    Direction: {"rtt_s": 1},
    Mqtt: {"reconnect_s": 1, "keep_alive_s": 1},
    Fault: {"mtbf_s": 1, "mttr_s": 1},
    Autocorrelation: {"time_s": 1},
    Cooling: {"time_s": 1, "read_s": 1, "begin_s": 1, "answer_s": 1},
    Overheads: {"disturb_s": 1},
    NodeSpec: {"batch_wait_s": 1},
    World: {"warm_up_s": 1, "duration_s": 1},
}


def scaled(thing: Any, factor: float) -> Any:
    """The same with every time multiplied by ``factor``, and every rate divided."""
    if isinstance(thing, DistributedService | ProfiledService):
        return Slower(thing, factor)
    if isinstance(thing, ServiceWithOverheads):
        return scaled(thing.inference, factor)
    if isinstance(thing, tuple):
        return tuple(scaled(one, factor) for one in thing)
    if isinstance(thing, dict):
        return {name: scaled(one, factor) for name, one in thing.items()}
    if isinstance(thing, Diurnal):
        return Diurnal(tuple((at_s * factor, hz / factor) for at_s, hz in thing.curve))
    if not dataclasses.is_dataclass(thing):
        return thing
    powers = POWERS.get(type(thing), {})
    changes = {
        field.name: getattr(thing, field.name) * factor ** powers[field.name]
        if field.name in powers
        else scaled(getattr(thing, field.name), factor)
        for field in dataclasses.fields(thing)
        if field.init
    }
    if isinstance(thing, Fault):
        changes["schedule"] = tuple(
            (start_s * factor, end_s * factor) for start_s, end_s in thing.schedule
        )
    return dataclasses.replace(thing, **changes)
