"""Measuring a calibration: requests of its own, through the broker and nodes of a live session."""

from __future__ import annotations

import platform
import socket
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from devices.mqtt.broker_address import Broker
from devices.virtual.fleet_log import FleetResult
from devices.virtual.results import run_of
from models.errors import LiveError
from models.inference.quietness import time_work
from offramp.live.fleet_process import fleet_process
from offramp.live.session import LiveSession
from offramp.live.table import LiveTable, Standing
from offramp.scenario import load_scenario
from offramp.schema import MqttSection
from offramp.stages.jobs import PolicyText
from offramp.stages.live import ArmRun
from offramp.validation.calibration import Calibration
from offramp.validation.cooling import warmed_ways
from offramp.validation.excess import pauses_s, replies_s, spans_of
from offramp.validation.mixtures import at_rate
from offramp.validation.node_samples import node_samples
from offramp.validation.ways import answered_hz, ways_of
from sim.distributions import Constant, Floats, Lognormal
from sim.nodes.cooling import Cooling
from sim.nodes.spec import NodeSpec
from sim.results.run import Run
from sim.results.verdict import offered_loads
from sim.workload.arrivals import ClosedLoop, Poisson
from sim.workload.device_groups import DeviceGroup
from sim.workload.samples import Drawn
from sim.world import World

#: Requests of an idle node, of one that is busy half of the time, and of a busy one, about: where
#: inference takes 2 ms, six seconds each. In three, a host's speed is not that of the next ten.
IDLE_REQUESTS, HALF_BUSY_REQUESTS, BUSY_REQUESTS = 300, 1200, 2400

#: Requests that come at random keep a worker busy for these shares of the time, about; where they
#: can.
_HALF_BUSY, _BUSY = 0.5, 0.8
#: Devices that send them, for each worker.
_DEVICES = 8

#: An idle device pauses between an answer and its next request for so long, in seconds: from less
#: than caches stay warm for, to more than 64 ms in one of thirteen.
PAUSE_S = Lognormal(0.01, 1.3)

#: Handshakes with the broker.
HANDSHAKES = 30

#: Not counted, after devices begin to send.
_WARM_UP_S = 1.0
#: Shortest and longest window of one phase.
_SHORTEST_S, _LONGEST_S = 2.0, 40.0
#: Nobody's deadline ends a calibration.
_DEADLINE_S = 60.0
#: Of the random streams: other samples than those of any run.
_SEED = 0x0FF4A3B

#: The policy of nodes while they are calibrated: every request is computed to the last exit.
POLICY = "full"

_HANDSHAKE_WITHIN_S = 5.0

#: What was asked, and what came of it.
Phase = tuple[World, FleetResult]


def measure(session: LiveSession, table: LiveTable, say: Callable[[str], None]) -> Calibration:
    """Calibrate broker, clients and nodes of a session that is about to measure.

    A node of each kind is started as those of the run are, with the first of its networks and the
    policy ``full``. For each kind, one device asks and pauses; then requests come at random, and
    keep a worker busy half of the time, then most of it. Where a node has several workers, or a
    clock of its own, nobody knows which request found one idle: then they are kept busy all the
    time instead.

    Raises:
        LiveError: nodes were there before, and cannot be started with another policy; or too
            few requests were answered.
    """
    if session.there:
        raise LiveError(
            f"node {', '.join(session.there)} was not started here, and cannot be calibrated: "
            "end it, and it is started here, or name a calibration that was made before "
            "(--calibration FOLDER)"
        )
    say("calibrate broker, clients and nodes")
    rtt_s = handshakes_s(session.direct)
    work_s = time_work(on=session.processors)
    calibrating = _calibrating(session)
    world = calibrating.job.world
    network = next(iter(calibrating.job.predictions))
    arm = ArmRun(network, POLICY, 0)
    used = list(dict.fromkeys(group.node for group in world.groups))
    labels = calibrating.job.predictions[network].label
    idle, half, busy = dict[str, Phase](), dict[str, Phase](), dict[str, Phase]()
    calm, half_runs, broker_s = dict[str, Run](), dict[str, Run](), list[float]()
    with calibrating.nodes(arm) as nodes:

        def ask(phase: str, groups: Sequence[DeviceGroup], duration_s: float) -> Any:
            of_phase = replace(
                world,
                groups=tuple(groups),
                warm_up_s=_WARM_UP_S,
                duration_s=min(max(duration_s, _SHORTEST_S), _LONGEST_S),
                seed=_SEED,
            )
            asking = replace(calibrating, job=replace(calibrating.job, world=of_phase))
            standing = Standing(f"calibration, {phase}", 1, 1, "starting")
            with fleet_process(asking.order(arm)) as fleet:
                result = asking.follow(nodes, fleet, table, standing)
            if nodes.notes:
                raise DisturbedError(f"calibration: {'; '.join(nodes.notes)}")
            return of_phase, result

        for name in used:
            spec, group = world.nodes[world.kind(name)], _group_of(world, name)
            mean_s = spec.service.means()[-1]
            alone = replace(group, count=1, arrivals=ClosedLoop(PAUSE_S))
            idle[name] = ask(f"{name} idle", [alone], IDLE_REQUESTS * (mean_s + PAUSE_S.mean()))
            calm[name] = _measured_run(*idle[name], labels, "an idle node")
            numbers = world.nodes_of(world.kind(name))
            most_hz = spec.workers * spec.replicas * served_hz(spec, calm[name], numbers)
            if spec.workers == 1 and all(idle[name][1].same_clock):
                rate_hz = _HALF_BUSY * most_hz
                some = _at_random(group, spec, rate_hz)
                half[name] = ask(f"{name} half busy", [some], HALF_BUSY_REQUESTS / rate_hz)
                half_runs[name] = _measured_run(*half[name], labels, f"node {name}, half busy")
                # The more is asked of it, the more a worker serves in the same time.
                busy_hz = _BUSY * spec.replicas * served_hz(spec, half_runs[name], numbers)
                many = _at_random(group, spec, busy_hz)
            else:
                busy_hz = most_hz
                many = replace(group, count=_kept_busy(spec), arrivals=ClosedLoop(Constant(1e-6)))
            before_s = _processor_s(session)
            busy[name] = ask(f"{name} busy", [many], BUSY_REQUESTS / busy_hz)
            broker_s.append((_processor_s(session) - before_s) / (2 * len(busy[name][1])))
    asked_hz = _asked_hz(world)
    phases = {"idle": idle, "half busy": half, "busy": busy}
    of_nodes, ways = {}, list[tuple[Floats, Floats, Floats]]()
    for name in used:
        some_run = half_runs.get(name)
        busy_run = _measured_run(*busy[name], labels, f"node {name}, busy")
        of_nodes[name] = samples = node_samples(
            world, name, _WARM_UP_S, calm[name], some_run, busy_run, asked_hz[name]
        )
        known = [(calm[name], idle[name][1])]
        if some_run is not None:
            known += [(some_run, half[name][1]), (busy_run, busy[name][1])]
        reply_s = float(np.median(samples.reply_s))
        numbers = world.nodes_of(world.kind(name))
        ways.append(_calm_ways(known, numbers, reply_s, samples.cooling, asked_hz[name]))
    lag_s, up_s, home_s = (np.concatenate(parts) for parts in zip(*ways, strict=True))
    results = [phase[1] for of in phases.values() for phase in of.values()]
    about = {
        "measured_at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "host": platform.node(),
        "broker": session.direct.url if session.own_broker is None else "embedded",
        "processors": session.options.use_of_processors,
        "network": list(network),
        "policy": POLICY,
        "pause_s": {"median": PAUSE_S.median, "sigma": PAUSE_S.sigma},
        "requests": {name: len(busy[name][1]) for name in used},
        "rate_hz": {
            phase: {name: _rate_hz(*it) for name, it in of.items()} for phase, of in phases.items()
        },
        "asked_hz": asked_hz,
        "same_clock": all(all(result.same_clock) for result in results),
    }
    mqtt = session.loaded.scenario.mqtt or MqttSection()
    broker = float(np.mean(broker_s))
    return Calibration(work_s, rtt_s, lag_s, up_s, home_s, broker, of_nodes, mqtt.qos, about)


class DisturbedError(LiveError):
    """Broker or nodes ended during a calibration, and were started again: it is of both."""


def handshakes_s(broker: Broker) -> Floats:
    """(N,) seconds of TCP handshakes with a broker: a round trip without any program of ours.

    Raises:
        LiveError: none succeeded.
    """
    found = list[float]()
    for _ in range(HANDSHAKES):
        start_s = time.perf_counter()
        address = (broker.host, broker.port)
        with suppress(OSError), socket.create_connection(address, _HANDSHAKE_WITHIN_S):
            found.append(time.perf_counter() - start_s)
        time.sleep(0.005)
    if not found:
        raise LiveError(f"{broker.url} takes no connections any more")
    return np.array(found)


def _calibrating(session: LiveSession) -> LiveSession:
    """The session without the network of the scenario, and nodes of the calibration's policy."""
    overrides = [*session.source.overrides, f"policies=[{POLICY}]"]
    source = load_scenario(session.source.source, overrides)
    job = replace(session.job, policies=[PolicyText(POLICY, POLICY, {})], validation={})
    return replace(session, source=source, job=job, observer=None, broker=session.direct)


def _group_of(world: World, node: str) -> DeviceGroup:
    group = next(group for group in world.groups if group.node == node)
    return replace(
        group, name="calibration", deadline=Constant(_DEADLINE_S), samples=Drawn(), names=()
    )


def _at_random(group: DeviceGroup, spec: NodeSpec, rate_hz: float) -> DeviceGroup:
    """Devices from which requests come at such a rate."""
    count = _DEVICES * spec.replicas
    return replace(group, count=count, arrivals=Poisson(rate_hz / count))


def _kept_busy(spec: NodeSpec) -> int:
    """Devices that keep all workers of a kind busy, without being refused."""
    at_once = spec.workers * spec.batch_size
    waiting = at_once + 2
    if spec.queue_limit is not None:
        waiting = min(waiting, spec.queue_limit)
    return max(1, (at_once + waiting) * spec.replicas)


def _asked_hz(world: World) -> dict[str, float | None]:
    """Requests per second that the scenario asks of each kind of node; None where it depends."""
    return {
        it.node: None if it.looping else it.rate_hz + it.sent_on_hz for it in offered_loads(world)
    }


def served_hz(spec: NodeSpec, run: Run, nodes: Sequence[int]) -> float:
    """Requests that a worker of some nodes of a kind can serve in a second.

    With their replies, where these can be told from pauses: at an only worker with others waiting.
    """
    spans = [spans_of(run, number, _WARM_UP_S) for number in nodes]
    replies = np.zeros(0)
    if spec.workers == 1:
        batches = (spec.batch_size, spec.batch_wait_s)
        replies = np.concatenate([replies_s(it, spec.workers, *batches) for it in spans])
    requests = sum(int(it.size.sum()) for it in spans)
    inference_s = sum(float(it.busy_s.sum()) for it in spans)
    reply_s = float(np.median(replies)) if len(replies) else 0.0
    return requests / (inference_s + requests * reply_s)


def _processor_s(session: LiveSession) -> float:
    """Processor seconds of the broker, as far as it is ours and the kernel says; else NaN."""
    if session.own_broker is None:
        return float("nan")
    try:
        text = Path(f"/proc/{session.own_broker.pid}/schedstat").read_text(encoding="ascii")
        return int(text.split()[0]) * 1e-9
    except (OSError, ValueError, IndexError):
        return float("nan")


def _rate_hz(world: World, result: FleetResult) -> float:
    return float(np.sum(result.requests.created_s >= world.warm_up_s)) / world.duration_s


def _measured_run(world: World, result: FleetResult, labels: Any, what: str) -> Run:
    run = run_of(world, result, labels)
    answered = int(np.sum(run.answered & run.measured(world)))
    if answered < 20:
        raise LiveError(
            f"calibration: only {answered} requests were answered by {what}: is this host, or its "
            "network, too slow for the scenario?"
        )
    return run


def _calm_ways(
    phases: Sequence[tuple[Run, FleetResult]],
    nodes: Sequence[int],
    reply_s: float,
    cooling: Cooling | None,
    rate_hz: float | None,
) -> tuple[Floats, Floats, Floats]:
    """Lag of the device, way up and way home where no inference was in the way, at a rate.

    As they would have been had the node never cooled down.
    """
    ups, homes = list[tuple[float, Floats]](), list[tuple[float, Floats]]()
    for run, result in phases:
        run_hz = answered_hz(run, _WARM_UP_S)
        lag_s = result.seen.sent_s - run.requests.created_s
        for node in nodes:
            spans = spans_of(run, node, _WARM_UP_S)
            ways = ways_of(run, node, _WARM_UP_S, spans, reply_s)
            if cooling is not None:
                ways = warmed_ways(ways, pauses_s(spans, reply_s), cooling)
            rows = ways.nothing_met
            whole_s = np.maximum(ways.up_s[rows], 0.0)
            sent_s = np.minimum(lag_s[ways.row[rows]], whole_s)
            ups.append((run_hz, np.column_stack([sent_s, whole_s - sent_s])))
            homes.append((run_hz, ways.home_s[~ways.followed]))
    up_s = at_rate(ups, rate_hz)
    return up_s[:, 0], up_s[:, 1], np.maximum(at_rate(homes, rate_hz), 0.0)
