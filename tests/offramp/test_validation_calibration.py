"""Calibrations: what they find in runs whose truth is known, and what becomes of them."""

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import astuple, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from models.artifacts import Predictions, Profile
from models.errors import ArtifactError, ScenarioError
from offramp import load_scenario
from offramp.live.scenarios import live_scenario
from offramp.live.warnings import not_emulated
from offramp.scenario import LoadedScenario
from offramp.schema import CoolingSection
from offramp.validation.calibrating import (
    Calibrating,
    around,
    read_measured,
    write_around,
)
from offramp.validation.calibration import (
    Calibration,
    NodeSamples,
    backhaul_of,
    calibrated,
    pooled,
    read_calibration,
    write_calibration,
)
from offramp.validation.cooling import cold_when_begun
from offramp.validation.excess import (
    Spans,
    autocorrelation_of,
    disturb_s,
    excess_s,
    found_idle,
    receives_s,
    replies_s,
    spans_of,
    undisturbed,
)
from offramp.validation.measuring import PAUSE_S, _calm_ways, served_hz
from offramp.validation.mixtures import at_rate
from offramp.validation.node_samples import node_samples
from offramp.validation.time_parts import Division
from offramp.validation.ways import answered_hz, ways_of
from offramp.worlds import build_world, outline_of
from sim.distributions import Constant, Distribution, Empirical, Floats, Uniform
from sim.network.links import Direction, Link
from sim.nodes.autocorrelation import Autocorrelation
from sim.nodes.cooling import Cooling
from sim.nodes.overheads import Overheads
from sim.nodes.service import DistributedService, ProfiledService
from sim.nodes.spec import NodeSpec
from sim.policies import Full
from sim.results.run import Run
from sim.running.slices import Slices
from sim.simulation import simulate
from sim.workload.arrivals import ClosedLoop, Poisson
from sim.workload.device_groups import DeviceGroup
from sim.world import World

#: Of 100 inferences of one image, and of four together.
TIMES = {1: np.linspace(0.010, 0.012, 100), 4: np.linspace(0.030, 0.034, 100)}
PROFILE = Profile(
    {
        size: {
            "exit": times[:, None],
            "segment": times[:, None],
            "branch": np.zeros((len(times), 1)),
        }
        for size, times in TIMES.items()
    },
    about={"architecture": "none", "host": {}},
)
AT_RANDOM = Poisson(5.0)
OVERHEADS = Overheads(
    receive=Uniform(0.0004, 0.0006),
    begin=Uniform(0.0010, 0.0020),
    reply=Constant(0.0008),
    begin_idle=Uniform(0.0020, 0.0030),
)


def world_with(
    spec: NodeSpec,
    devices: int = 8,
    arrivals: Poisson | ClosedLoop = AT_RANDOM,
    link: Link = Link(),  # noqa: B008
) -> World:
    group = DeviceGroup("devices", devices, arrivals, Constant(60.0), "lan", "edge", 1000, 100)
    return World((group,), (spec,), {"lan": link}, 1.0, 30.0, seed=1)


def run_of(
    devices: int,
    think_s: float = 0.0,
    think: Distribution | None = None,
    workers: int = 1,
    batch: int = 1,
    wait_s: float = 0.0,
    alike: Autocorrelation | None = None,
    disturb_s: float = 0.0,
    rate_hz: float | None = None,
    cooling: Cooling | None = None,
    seed: int = 1,
    begin_idle: Distribution = OVERHEADS.begin_idle,
    link: Link = Link(),  # noqa: B008
    **busy: Distribution,
) -> tuple[Run, NodeSpec]:
    """A node whose overheads are known, asked as in a calibration: in a closed loop, or at random.

    Args:
        rate_hz: of all devices, in an open loop.
        busy: further overheads.
    """
    service = ProfiledService(PROFILE, largest_batch=batch)
    besides = replace(
        OVERHEADS,
        autocorrelation=alike,
        disturb_s=disturb_s,
        begin_idle=begin_idle,
        cooling=cooling,
        **busy,
    )
    spec = NodeSpec(
        "edge", workers, service, batch_size=batch, batch_wait_s=wait_s, overheads=besides
    )
    waits = ClosedLoop(think or Uniform(think_s, 2 * think_s))
    arrivals = Poisson(rate_hz / devices) if rate_hz else waits
    world = replace(world_with(spec, devices, arrivals, link), seed=seed)
    labels = np.zeros(10, dtype=np.int32)
    says = Predictions(
        sample=np.arange(10, dtype=np.int32),
        label=labels,
        predicted=np.zeros((10, 1), dtype=np.int32),
        confidence=np.ones((10, 1), dtype=np.float32),
        about={"architecture": "none"},
    )
    # What a node is compared with is its profile.
    plain = NodeSpec("edge", workers, service, batch_size=batch, batch_wait_s=wait_s)
    return simulate(world, Slices(world, labels, 0), says, Full()), plain


# --- what is found --------------------------------------------------------------------------------


def test_an_idle_node_shows_what_it_takes_to_receive_and_to_begin() -> None:
    run, spec = run_of(devices=1, think_s=0.02)
    spans = spans_of(run, 0, 1.0)
    assert len(spans) > 500
    assert receives_s(spans, 0.0).mean() == pytest.approx(0.0005, rel=0.02)
    excess = excess_s(spans, spec.service)
    assert excess.mean() == pytest.approx(0.0025, rel=0.03)


def test_what_a_batch_waits_for_in_vain_is_no_time_of_receiving() -> None:
    run, spec = run_of(devices=1, think_s=0.02, batch=4, wait_s=0.002)
    spans = spans_of(run, 0, 1.0)
    assert spans.waited_s.mean() == pytest.approx(0.0025, rel=0.02)
    assert receives_s(spans, 0.002).mean() == pytest.approx(0.0005, rel=0.02)
    assert excess_s(spans, spec.service).mean() == pytest.approx(0.0025, rel=0.03)


def served(busy_s: Floats) -> Spans:
    """Services of one image each, one after the other."""
    count = len(busy_s)
    started_s, ones = np.arange(count, dtype=float), np.ones(count, dtype=np.int64)
    nothing = np.zeros(count)
    return Spans(
        started_s, started_s + busy_s, nothing, started_s, np.zeros(count, np.int64), ones, ones
    )


def test_what_is_taken_beyond_a_profile_is_added_at_the_same_rank() -> None:
    u = (np.arange(200) + 0.5) / 200
    profile = DistributedService(Uniform(0.010, 0.012), 1)
    spread = excess_s(served(0.011 + 0.010 * u), profile)
    np.testing.assert_allclose(spread, 0.001 + 0.008 * u, atol=1e-12)
    # What was narrower than the profile is no narrower simulated, nor any wider than that.
    level = excess_s(served(0.015 + 0.001 * u), profile)
    np.testing.assert_allclose(level, 0.0045, atol=1e-12)


@pytest.mark.parametrize("batch", [1, 4])
def test_what_a_worker_can_serve_is_what_a_busy_one_answers(batch: int) -> None:
    run, spec = run_of(devices=12, think_s=1e-6, batch=batch)
    assert served_hz(spec, run, [0]) == pytest.approx(answered_hz(run, 1.0), rel=0.02)


@pytest.mark.parametrize(("workers", "batch"), [(1, 1), (1, 4), (2, 1)])
def test_what_an_idle_worker_can_serve_is_one_after_the_other(workers: int, batch: int) -> None:
    idle, spec = run_of(devices=1, think_s=0.02, workers=workers, batch=batch)
    assert served_hz(spec, idle, [0]) == pytest.approx(1 / 0.0135, rel=0.02)


@pytest.mark.parametrize(("workers", "batch"), [(1, 1), (1, 4), (2, 1)])
def test_services_that_are_alike_for_a_while_show_it(workers: int, batch: int) -> None:
    alike = Autocorrelation(0.6, 0.5)
    run, _ = run_of(
        devices=2 + workers * batch, think_s=1e-4, workers=workers, batch=batch, alike=alike
    )
    spans = spans_of(run, 0, 1.0)
    found = autocorrelation_of(spans)
    assert found is not None
    assert found.share == pytest.approx(0.6, abs=0.2)
    assert 0.2 < found.time_s < 1.2


def test_services_that_are_not_alike_show_none() -> None:
    run, _ = run_of(devices=3, think_s=1e-4)
    spans = spans_of(run, 0, 1.0)
    found = autocorrelation_of(spans)
    assert found is None or found.share < 0.15
    few = spans.where(np.arange(len(spans)) < 30)
    assert autocorrelation_of(few) is None


@pytest.mark.parametrize("by_s", [0.0, 0.002])
@pytest.mark.parametrize("batch", [1, 4])
def test_what_messages_delay_is_found_at_a_node_that_is_busy_half_of_the_time(
    by_s: float, batch: int
) -> None:
    run, spec = run_of(devices=8, think_s=0.12, batch=batch, disturb_s=by_s)
    spans = spans_of(run, 0, 1.0)
    idle = found_idle(spans, 0.0008)
    assert 0.3 < idle.mean() < 0.8
    found = disturb_s(run, 0, spans, idle)
    assert found == pytest.approx(by_s, abs=0.00015 if batch == 1 else 0.0003)
    # What is left is what it takes to begin, with a worker that was busy or idle.
    left = undisturbed(spans, by_s)
    if batch == 1:
        for rows, mean_s in ((idle, 0.0025), (~idle, 0.0015)):
            excess = excess_s(left.where(rows), spec.service)
            assert excess.mean() == pytest.approx(mean_s, rel=0.04)


def test_of_a_node_that_one_device_asks_it_is_not_known_what_messages_delay() -> None:
    run, _ = run_of(devices=1, think_s=0.02, disturb_s=0.002)
    spans = spans_of(run, 0, 1.0)
    assert disturb_s(run, 0, spans, found_idle(spans, 0.0008)) is None
    none = spans.where(np.zeros(len(spans), dtype=bool))
    assert disturb_s(run, 0, none, found_idle(none, 0.0008)) is None


@pytest.mark.parametrize("by_s", [0.0, 0.001])
def test_what_a_node_takes_is_found_from_what_it_was_asked_little_and_much(by_s: float) -> None:
    idle, spec = run_of(devices=1, think_s=0.02, disturb_s=by_s)
    half, busy = (run_of(8, rate_hz=share / 0.0125, disturb_s=by_s)[0] for share in (0.5, 0.8))
    world = world_with(spec)
    found = node_samples(world, "edge", 1.0, idle, half, busy, 50.0)
    assert found.disturb_s == pytest.approx(by_s, abs=0.00015)
    for name, mean_s in {"receive": 0.0005, "begin": 0.0015, "reply": 0.0008}.items():
        assert found.by_name()[f"{name}_s"].mean() == pytest.approx(mean_s, rel=0.08), name
    assert found.begin_idle_s.mean() == pytest.approx(0.0025, rel=0.08)
    assert found.autocorrelation is None or found.autocorrelation.share < 0.15


@pytest.mark.parametrize("batch", [1, 4])
def test_by_how_much_ways_are_longer_while_a_worker_computes_is_found(batch: int) -> None:
    way = Direction(delay=Uniform(0.001, 0.002))
    asked: dict[str, Any] = {
        "link": Link(uplink=way, downlink=way),
        "batch": batch,
        "ingress_busy": Empirical(np.array([0.0, 0.0, 0.0, 0.004])),
        "egress_busy": Empirical(np.array([0.0, 0.0, 0.002])),
    }
    idle, spec = run_of(devices=1, think_s=0.02, **asked)
    half, busy = (run_of(8, rate_hz=share / 0.0125, **asked)[0] for share in (0.5, 0.8))
    found = node_samples(world_with(spec), "edge", 1.0, idle, half, busy, 50.0)
    assert found.ingress_busy_s.mean() == pytest.approx(0.001, rel=0.2)
    assert found.egress_busy_s.mean() == pytest.approx(0.002 / 3, rel=0.15)
    # A part of them waits, and the others do not.
    assert np.quantile(found.ingress_busy_s, [0.6, 0.9]) == pytest.approx([0, 0.004], abs=0.0006)
    assert np.quantile(found.egress_busy_s, [0.5, 0.9]) == pytest.approx([0, 0.002], abs=0.0006)


@pytest.mark.parametrize("batch", [1, 4])
def test_who_came_behind_one_that_waited_is_told_from_the_others(batch: int) -> None:
    way = Direction(delay=Constant(0.001))
    run, _ = run_of(
        8,
        rate_hz=60.0,
        batch=batch,
        link=Link(uplink=way, downlink=way),
        ingress_busy=Constant(0.002),
    )
    ways = ways_of(run, 0, 1.0, spans_of(run, 0, 1.0), 0.0008)
    waited_s = ways.up_s - np.min(ways.up_s)
    assert 20 < np.sum(ways.behind) < len(ways.row) / 3
    assert (waited_s[ways.behind] <= 0.002 + 1e-9).all()
    # Some of those that came just before a service, or just after, are taken for others.
    assert np.mean(np.abs(waited_s[ways.met & ~ways.behind] - 0.002) < 1e-9) > 0.9
    assert np.mean(waited_s[ways.nothing_met] < 1e-9) > 0.8


@pytest.mark.parametrize("batch", [1, 4])
def test_ways_that_are_never_longer_are_not_found_to_be(batch: int) -> None:
    way = Direction(delay=Uniform(0.001, 0.002))
    link = Link(uplink=way, downlink=way)
    idle, spec = run_of(devices=1, think_s=0.02, batch=batch, link=link)
    half, busy = (
        run_of(8, rate_hz=share / 0.0125, batch=batch, link=link)[0] for share in (0.5, 0.8)
    )
    found = node_samples(world_with(spec), "edge", 1.0, idle, half, busy, 50.0)
    assert found.ingress_busy_s.mean() < 0.00003
    assert found.egress_busy_s.mean() < 0.00003


def test_what_a_node_takes_is_that_at_the_rate_at_which_it_is_asked() -> None:
    idle, spec = run_of(devices=1, think_s=0.02)
    half = run_of(8, rate_hz=40.0)[0]
    busy = run_of(8, rate_hz=64.0)[0]
    # A millisecond more for each, when half of the time nothing is asked.
    slower = replace(half, finished_s=half.finished_s + 0.001)
    world = world_with(spec)
    half_way_hz = 2 / (1 / 40.0 + 1 / 64.0)
    begin_s = {
        rate_hz: node_samples(world, "edge", 1.0, idle, slower, busy, rate_hz).begin_s.mean()
        for rate_hz in (10.0, 40.0, half_way_hz, 64.0, 90.0, None)
    }
    assert begin_s[40.0] == pytest.approx(0.0025, rel=0.08)
    assert begin_s[64.0] == pytest.approx(0.0015, rel=0.08)
    assert begin_s[10.0] == pytest.approx(begin_s[40.0], rel=0.08)
    assert begin_s[90.0] == pytest.approx(begin_s[64.0], rel=0.08)
    between = (begin_s[40.0] + begin_s[64.0]) / 2
    assert begin_s[half_way_hz] == pytest.approx(between, rel=0.05)
    assert begin_s[None] == pytest.approx(between, rel=0.05)


COOLING = Cooling(0.02, 0.5, read_s=0.0015, begin_s=0.0060, answer_s=0.0009)


@pytest.mark.parametrize("batch", [1, 4])
def test_how_a_node_cools_down_is_found(batch: int) -> None:
    way = Direction(delay=Uniform(0.001, 0.002))
    asked: dict[str, Any] = {
        "link": Link(uplink=way, downlink=way),
        "batch": batch,
        "cooling": COOLING,
        "ingress_busy": Constant(0.0005),
    }
    found = list[NodeSamples]()
    for seed in range(4):  # half a minute says little
        idle, spec = run_of(devices=1, think=PAUSE_S, seed=seed, **asked)
        half, busy = (run_of(8, rate_hz=it / 0.0150, seed=seed, **asked)[0] for it in (0.5, 0.8))
        found.append(node_samples(world_with(spec), "edge", 1.0, idle, half, busy, 50.0))
    coolings = [it.cooling for it in found if it.cooling]
    assert len(coolings) == len(found)
    for which in ("read_s", "begin_s", "answer_s"):
        seconds = [getattr(it, which) for it in coolings]
        assert np.mean(seconds) == pytest.approx(getattr(COOLING, which), rel=0.15), which
    assert np.mean([it.time_s for it in coolings]) == pytest.approx(0.02, rel=0.3)
    assert np.mean([it.kept for it in coolings]) == pytest.approx(0.5, abs=0.1)
    # What is left is what a warm node takes.
    assert np.mean([it.begin_s.mean() for it in found]) == pytest.approx(0.0015, rel=0.15)
    assert np.mean([it.begin_idle_s.mean() for it in found]) == pytest.approx(0.0025, rel=0.08)
    assert np.mean([it.ingress_busy_s.mean() for it in found]) == pytest.approx(0.0005, abs=0.00015)
    assert np.mean([it.egress_busy_s.mean() for it in found]) < 0.0001


def test_ways_of_a_calibration_are_those_of_a_warm_node() -> None:
    way = Direction(delay=Uniform(0.001, 0.002))
    asked: dict[str, Any] = {"link": Link(uplink=way, downlink=way), "cooling": COOLING}
    idle, spec = run_of(devices=1, think=PAUSE_S, **asked)
    half, busy = (run_of(8, rate_hz=share / 0.0150, **asked)[0] for share in (0.5, 0.8))
    cooling = node_samples(world_with(spec), "edge", 1.0, idle, half, busy, 30.0).cooling
    known = [
        (run, SimpleNamespace(seen=SimpleNamespace(sent_s=run.requests.created_s + 0.0003)))
        for run in (idle, half, busy)
    ]
    lag_s, up_s, home_s = _calm_ways(known, [0], 0.0008, cooling, 30.0)  # type: ignore[arg-type]
    assert np.median(lag_s) == pytest.approx(0.0003)
    assert (lag_s + up_s).mean() == pytest.approx(0.0015, rel=0.07)
    assert home_s.mean() == pytest.approx(0.0015, rel=0.07)
    *_, longer_s = _calm_ways(known, [0], 0.0008, None, 30.0)  # type: ignore[arg-type]
    assert longer_s.mean() > 0.0018


def test_of_a_node_with_several_workers_one_device_tells_how_it_cools_down() -> None:
    idle, spec = run_of(devices=1, think=PAUSE_S, workers=2, cooling=COOLING)
    busy = run_of(devices=8, think_s=1e-6, workers=2, cooling=COOLING)[0]
    found = node_samples(world_with(spec), "edge", 1.0, idle, None, busy, 50.0)
    assert found.cooling is not None
    assert found.cooling.begin_s == pytest.approx(COOLING.begin_s, rel=0.2)
    cold = found.cooling.after_pause(0.0, 0.015)
    longer_s = cold * found.cooling.begin_s
    # What few short pauses say is shared by both.
    expected_s = 0.0025 + COOLING.after_pause(0.0, 0.015) * COOLING.begin_s
    assert found.begin_idle_s.mean() + longer_s == pytest.approx(expected_s, rel=0.05)


def test_pauses_that_do_nothing_are_not_found_to() -> None:
    way = Direction(delay=Uniform(0.001, 0.002))
    link = Link(uplink=way, downlink=way)
    found = list[Cooling | None]()
    for seed in range(5):
        idle, spec = run_of(devices=1, think=PAUSE_S, link=link, seed=seed)
        half, busy = (run_of(8, rate_hz=it / 0.0125, link=link, seed=seed)[0] for it in (0.5, 0.8))
        found.append(node_samples(world_with(spec), "edge", 1.0, idle, half, busy, 50.0).cooling)
    assert found == [None] * 5


@pytest.mark.parametrize(("time_s", "kept"), [(0.012, 0.0), (0.032, 0.6)])
def test_how_cold_a_node_was_follows_from_its_pauses(time_s: float, kept: float) -> None:
    pause_s = np.array([np.inf, 0.0, 0.02, np.nan, 0.001, -0.5])
    cooling = Cooling(time_s, kept, 0.0, 0.0, 0.0)
    expected, left = list[float](), 1.0
    for it in pause_s.tolist():
        cold = cooling.after_pause(left, it) if math.isfinite(it) else 1.0
        expected.append(cold)
        left = kept * cold
    assert cold_when_begun(pause_s, time_s, kept) == pytest.approx(expected)


def test_that_idle_workers_take_longer_is_no_slow_moment() -> None:
    slow = Uniform(0.005, 0.006)
    idle, spec = run_of(devices=1, think_s=0.02, begin_idle=slow)
    half, busy = (run_of(8, rate_hz=share / 0.0125, begin_idle=slow)[0] for share in (0.5, 0.75))
    world = world_with(spec)
    alike = node_samples(world, "edge", 1.0, idle, half, busy, 60.0).autocorrelation
    assert alike is None or alike.share < 0.15


def test_waiting_for_a_batch_to_fill_is_no_reply() -> None:
    idle, spec = run_of(devices=1, think_s=0.02, batch=4, wait_s=0.01)
    half, busy = (
        run_of(8, rate_hz=share / 0.0125, batch=4, wait_s=0.01)[0] for share in (0.5, 1.2)
    )
    world = world_with(spec)
    found = node_samples(world, "edge", 1.0, idle, half, busy, 60.0)
    assert found.reply_s.mean() == pytest.approx(0.0008, rel=0.05)
    assert found.begin_s.mean() == pytest.approx(0.0015, rel=0.15)


@pytest.mark.parametrize("workers", [1, 2])
def test_where_nobody_knows_who_was_idle_a_crowd_shows_what_a_busy_worker_takes(
    workers: int,
) -> None:
    idle, spec = run_of(devices=1, think_s=0.02, workers=workers)
    busy, _ = run_of(devices=3 + workers, think_s=1e-4, workers=workers)
    world = world_with(spec)
    found = node_samples(world, "edge", 1.0, idle, None, busy, 50.0)
    assert found.disturb_s is None
    assert found.begin_s.mean() == pytest.approx(0.0015, rel=0.05)
    assert found.begin_idle_s.mean() == pytest.approx(0.0025, rel=0.05)


def test_samples_between_two_rates_are_a_mixture_with_the_quantiles_of_both() -> None:
    low, high = np.linspace(1.0, 2.0, 1001), np.linspace(5.0, 7.0, 301)
    mixed = at_rate([(100.0, high), (20.0, low), (60.0, np.zeros(0))], 25.0)
    share = np.mean(mixed < 3)
    assert share == pytest.approx(0.75, abs=0.001)
    for part, of in ((mixed[mixed < 3], low), (mixed[mixed > 3], high)):
        u = (0.05, 0.5, 0.95)
        assert np.quantile(part, u) == pytest.approx(np.quantile(of, u), abs=0.02)
    assert len(at_rate([], 40.0)) == 0
    assert at_rate([(20.0, low), (20.0, high)], 40.0).mean() == pytest.approx(
        np.concatenate([low, high]).mean(), rel=0.01
    )


def test_two_calibrations_are_pooled_sample_by_sample(tmp_path: Path) -> None:
    def made(at: float, count: int, broker_s: float) -> Calibration:
        some = np.full(count, at)
        about = {"measured_at": f"at {at}"}
        return Calibration(
            *[some] * 5,
            broker_s,
            {"edge": NodeSamples(*[some] * 4)},
            1,
            about,  # type: ignore[arg-type]
        )

    both = pooled([made(0.001, 3, 0.0002), made(0.002, 1, 0.0004)])
    # As many of each, however many it measured.
    assert both.up_s.tolist() == [0.001] * 3 + [0.002] * 3
    assert both.nodes["edge"].begin_s.tolist() == both.up_s.tolist()
    assert both.broker_s == pytest.approx(0.0003)
    last = {"measured_last_at": "at 0.002", "calibrations": 2}
    assert both.about == {"measured_at": "at 0.001", **last}
    # Each counts as much as each.
    samples = made(0.001, 3, 0.0002), made(0.001, 1, 0.0004), made(0.002, 1, 0.0006)
    three = pooled(samples)
    assert three.broker_s == pytest.approx(0.0004)
    assert three.up_s.tolist() == [0.001] * 6 + [0.002] * 3
    assert three.about["calibrations"] == 3
    write_calibration(tmp_path, both)
    assert read_calibration(tmp_path).home_s.tolist() == both.home_s.tolist()


def test_what_nodes_do_to_services_that_follow_one_another_is_pooled_too() -> None:
    def made(
        disturb_s: float | None,
        alike: Autocorrelation | None,
        cooling: Cooling | None = None,
    ) -> Calibration:
        node = NodeSamples(
            *[np.zeros(1)] * 4, disturb_s=disturb_s, autocorrelation=alike, cooling=cooling
        )
        about = {"measured_at": "now"}
        return Calibration(*[np.zeros(1)] * 5, 0.0, {"edge": node}, 1, about)  # type: ignore[arg-type]

    both = pooled([made(0.001, Autocorrelation(0.6, 0.3)), made(0.003, Autocorrelation(0.2, 0.1))])
    assert both.nodes["edge"].disturb_s == pytest.approx(0.002)
    alike = both.nodes["edge"].autocorrelation
    assert alike is not None
    assert (alike.share, alike.time_s) == pytest.approx((0.4, 0.25))
    three = pooled([both, made(None, None)])
    assert three.nodes["edge"].disturb_s == pytest.approx(0.002)
    assert three.nodes["edge"].autocorrelation is not None
    assert three.nodes["edge"].autocorrelation.share == pytest.approx(0.8 / 3)
    none = pooled([made(None, None), made(None, None)]).nodes["edge"]
    assert (none.autocorrelation, none.disturb_s, none.cooling) == (None, None, None)
    cooling = Cooling(0.02, 0.4, 0.3, 0.6, 0.9)
    third = pooled([made(None, None), made(None, None, cooling), made(None, None)]).nodes["edge"]
    assert third.cooling is not None
    assert astuple(third.cooling) == pytest.approx((0.02, 0.4, 0.1, 0.2, 0.3))
    both = pooled([made(None, None, cooling), made(None, None, Cooling(0.04, 0.2, 0.1, 0.2, 0.1))])
    assert both.nodes["edge"].cooling is not None
    # By what was found: three times as much of the first.
    assert astuple(both.nodes["edge"].cooling) == pytest.approx((0.025, 0.35, 0.2, 0.4, 0.5))
    alike = Cooling(0.04, 0.2, 0.1, 0.6, 0.1)
    late = pooled(
        [made(None, None), made(None, None), *(made(None, None, it) for it in (cooling, alike))]
    )
    assert late.nodes["edge"].cooling is not None
    assert astuple(late.nodes["edge"].cooling)[:4] == pytest.approx((0.03, 0.3, 0.1, 0.3))


@pytest.mark.parametrize("batch", [1, 4])
def test_a_busy_node_shows_what_a_worker_takes_besides(batch: int) -> None:
    run, spec = run_of(devices=2 + 2 * batch, think_s=1e-6, batch=batch)
    spans = spans_of(run, 0, 1.0)
    assert np.median(spans.size) == batch
    assert excess_s(spans, spec.service).mean() == pytest.approx(0.0015, rel=0.05)
    replies = replies_s(spans, workers=1)
    assert np.median(replies) == pytest.approx(0.0008, rel=0.01)


def test_several_workers_show_the_mean_of_their_replies() -> None:
    run, spec = run_of(devices=8, think_s=1e-6, workers=3)
    spans = spans_of(run, 0, 1.0)
    assert excess_s(spans, spec.service).mean() == pytest.approx(0.0015, rel=0.05)
    assert replies_s(spans, workers=3) == pytest.approx([0.0008], rel=0.1)


def test_a_worker_that_waits_for_requests_shows_no_replies() -> None:
    run, _ = run_of(devices=1, think_s=0.02)
    assert not len(replies_s(spans_of(run, 0, 1.0), workers=1))


def test_few_services_of_a_size_say_nothing_of_it() -> None:
    run, spec = run_of(devices=1, think_s=0.02)
    spans = spans_of(run, 0, 1.0)
    first = spans.where(np.arange(len(spans)) < 9)
    assert not len(excess_s(first, spec.service))


# --- when it is measured --------------------------------------------------------------------------


@pytest.fixture
def calls() -> list[float]:
    """When calibrations were measured."""
    return []


@pytest.fixture
def calibrating(tmp_path: Path, calls: list[float]) -> Callable[..., list[int]]:
    """Asks for calibrations at some times, the last when all is over; how many are pooled then."""

    def run(
        *times_s: float, given: Calibration | None = None, kept: Sequence[Calibration] = ()
    ) -> list[int]:
        clock = {"s": 0.0}

        def measure(session: Any) -> Calibration:
            calls.append(clock["s"])
            return replace(calibration(), about={"measured_at": "now"})

        it = Calibrating(tmp_path, given, kept, measure, lambda: clock["s"])
        pooled_of = []
        for arms_before, at_s in enumerate(times_s, len(kept)):
            clock["s"] = at_s
            it(None, arms_before, at_s == times_s[-1])  # type: ignore[arg-type]
            pooled_of.append(read_calibration(tmp_path).about.get("calibrations", 1))
        return pooled_of

    return run


def test_calibrations_are_measured_at_both_ends_and_now_and_then(
    calibrating: Callable[..., list[int]], calls: list[float], tmp_path: Path
) -> None:
    assert calibrating(0, 10, 20, 40, 50, 100, 101) == [1, 1, 1, 2, 2, 3, 4]
    assert calls == [0, 40, 100, 101]
    assert [it.about["arms_before"] for it in read_measured(tmp_path)] == [0, 3, 5, 6]


def test_one_that_is_given_is_taken_as_it_is(
    calibrating: Callable[..., list[int]], calls: list[float], tmp_path: Path
) -> None:
    assert calibrating(0, 100, 200, given=calibration()) == [1, 1, 1]
    assert calls == []
    assert read_calibration(tmp_path).about == {"host": "here"}
    assert read_measured(tmp_path) == []


def measured_before(*arms_before: int) -> list[Calibration]:
    """Calibrations before arms of some numbers, whose samples tell which one they are of."""
    of_all = replace(calibration(), about={"measured_at": "then"})
    return [
        replace(of_all, lag_s=np.full(2, float(number)), about={**of_all.about, "arms_before": it})
        for number, it in enumerate(arms_before)
    ]


def test_those_before_an_interruption_count_too(
    calibrating: Callable[..., list[int]], calls: list[float], tmp_path: Path
) -> None:
    kept = measured_before(0, 1, 2)
    for number, it in enumerate(kept):
        write_calibration(tmp_path / f"measured-{number}", it)
    assert calibrating(0, 5, kept=kept) == [4, 5]
    assert calls == [0, 5]
    assert [it.about["arms_before"] for it in read_measured(tmp_path)] == [0, 1, 2, 3, 4]


def test_those_of_a_run_that_began_anew_do_not_count(
    calibrating: Callable[..., list[int]], tmp_path: Path
) -> None:
    # Kept are those before arms 5 and 6, and the run goes on with arm 2.
    assert calibrating(0, 5, kept=measured_before(5, 6)) == [1, 2]
    assert [it.about["arms_before"] for it in read_measured(tmp_path)] == [2, 3]


def test_those_of_an_earlier_validation_do_not_count(
    calibrating: Callable[..., list[int]], tmp_path: Path
) -> None:
    for number, it in enumerate(measured_before(0, 2, 4, 6)):
        write_calibration(tmp_path / f"measured-{number}", it)
    assert calibrating(0, 5) == [1, 2]
    assert len(read_measured(tmp_path)) == 2


def test_those_of_something_else_are_named(tmp_path: Path) -> None:
    about = {"profile": "ab", "broker": "embedded", "scenario": "cd", "processors": "shared"}
    for number, it in enumerate(measured_before(0, 1)):
        write_calibration(tmp_path / f"measured-{number}", replace(it, about=about | it.about))
    assert len(read_measured(tmp_path, **about)) == 2
    with pytest.raises(ArtifactError, match="calibrated with another broker and scenario"):
        read_measured(tmp_path, **about | {"broker": "mqtt://other", "scenario": "ef"})

    description = tmp_path / "measured-1" / "calibration.json"
    description.write_text(description.read_text().replace("offramp-calibration-", "older-"))
    with pytest.raises(ArtifactError, match="not a calibration of this version"):
        read_measured(tmp_path)


@pytest.mark.parametrize(
    ("arms_before", "first", "end", "expected"),
    [
        ((0, 2, 4, 6), 2, 4, [1, 2]),
        ((0, 2, 4, 6), 0, 2, [0, 1]),
        ((0, 3, 6), 2, 4, [0, 1, 2]),  # one within it
        ((0, 6), 2, 4, [0, 1]),
        ((0, 1, 2, 3, 4), 2, 4, [2, 3, 4]),
        # Interrupted between the calibration and the arm: the one that was measured again.
        ((0, 2, 2, 4), 2, 4, [2, 3]),
        ((0, 2), 2, 4, [1]),  # interrupted before the last
    ],
)
def test_a_replication_is_simulated_with_what_was_measured_around_it(
    arms_before: tuple[int, ...], first: int, end: int, expected: list[int]
) -> None:
    found = around(measured_before(*arms_before), first, end)
    assert np.unique(found.lag_s).tolist() == expected


def test_as_many_samples_are_of_each_of_those_around_a_replication(tmp_path: Path) -> None:
    written = dict(write_around(tmp_path, measured_before(0, 2, 4, 6), 3, 2))
    assert [path.name for path in written] == ["replication-0", "replication-1", "replication-2"]
    for number, (path, of_its_time) in enumerate(written.items()):
        assert of_its_time.lag_s.tolist() == 2 * [float(number)] + 2 * [number + 1.0]
        assert read_calibration(path).lag_s.tolist() == of_its_time.lag_s.tolist()


# --- what becomes of it ---------------------------------------------------------------------------


def calibration(qos: int = 1, broker_s: float = 0.0002) -> Calibration:
    return Calibration(
        work_s=np.array([0.004, 0.005, 0.005]),
        rtt_s=np.array([0.0001, 0.0001, 0.5]),
        lag_s=np.array([0.0002, 0.0004]),
        up_s=np.array([0.0010, 0.0020]),
        home_s=np.array([0.0030, 0.0001]),
        broker_s=broker_s,
        nodes={
            "edge": NodeSamples(
                *(np.array([it, 2 * it]) for it in (0.0001, 0.0002, 0.0003, 0.0004)),
                disturb_s=0.0006,
                autocorrelation=Autocorrelation(0.25, 0.5),
                cooling=Cooling(0.5, 0.75, 0.25, 0.125, 0.0625),
            )
        },
        qos=qos,
        about={"host": "here"},
    )


@pytest.fixture
def lived(trained: Any) -> LoadedScenario:
    loaded = load_scenario(str(trained.scenario))
    labels = {"deadline_aware", "fixed_exit(exit=2)"}
    return live_scenario(loaded, ["standard"], [0], labels, 2, "3.1.1")


def test_a_calibration_is_written_and_read(tmp_path: Path) -> None:
    before = calibration()
    write_calibration(tmp_path, before)
    after = read_calibration(tmp_path)
    for name in ("work_s", "rtt_s", "lag_s", "up_s", "home_s"):
        np.testing.assert_array_equal(getattr(after, name), getattr(before, name))
    for name, mine in before.nodes["edge"].by_name().items():
        np.testing.assert_array_equal(mine, after.nodes["edge"].by_name()[name])
    assert after.nodes["edge"].autocorrelation == before.nodes["edge"].autocorrelation
    assert after.nodes["edge"].cooling == before.nodes["edge"].cooling
    assert after.nodes["edge"].disturb_s == pytest.approx(before.nodes["edge"].disturb_s)
    assert (after.broker_s, after.qos, after.about) == (before.broker_s, 1, {"host": "here"})


def test_a_broker_that_nobody_can_look_into_takes_nothing_by_itself(tmp_path: Path) -> None:
    write_calibration(tmp_path, calibration(broker_s=np.nan))
    after = read_calibration(tmp_path)
    assert np.isnan(after.broker_s)
    assert after.processing_s == 0.0


def test_what_was_measured_becomes_the_world_that_is_simulated(
    lived: LoadedScenario, tmp_path: Path
) -> None:
    it = calibration()
    write_calibration(tmp_path, it)
    scenario = calibrated(lived, it, tmp_path, "measured").scenario
    world = outline_of(scenario, lived.folder)
    link, mqtt = world.links["wifi"], world.mqtt
    assert mqtt is not None
    # Half of the median handshake; the outlier counts for nothing.
    assert link.uplink.delay.mean() == pytest.approx(0.00005)
    assert mqtt.processing.mean() == pytest.approx(0.0002)
    # All together as long as what was measured of an idle node, on both ways.
    up = link.uplink.delay.mean() + mqtt.processing.mean() + mqtt.backhaul.uplink.delay.mean()
    assert up == pytest.approx(np.mean(it.lag_s) + np.mean(it.up_s))
    down = mqtt.backhaul.downlink.delay.ppf(np.array([0.1, 0.9]))
    # 3 ms less network and broker; and what would be less than nothing is nothing.
    assert down.tolist() == pytest.approx([0.0, 0.00275])
    node = scenario.nodes["edge"].overhead
    assert node is not None
    assert Path(node.begin_ms.file).read_text().split() == ["0.200000", "0.400000"]  # type: ignore[union-attr]
    assert (node.autocorrelation, node.autocorrelation_ms) == (0.25, 500.0)
    assert node.disturb_ms == pytest.approx(0.6)
    assert node.cooling == CoolingSection(
        time_ms=500.0, kept=0.75, read_ms=250.0, begin_ms=125.0, answer_ms=62.5
    )


def test_the_links_of_the_scenario_stay_where_they_are_there(
    lived: LoadedScenario, trained: Any, tmp_path: Path
) -> None:
    it = calibration()
    write_calibration(tmp_path, it)
    links = load_scenario(str(trained.scenario)).scenario.links
    own = replace(lived, scenario=lived.scenario.model_copy(update={"links": links}))
    scenario = calibrated(own, it, tmp_path, "scenario").scenario
    assert scenario.links["wifi"] == links["wifi"]
    assert backhaul_of(scenario) in scenario.links


def test_qos_2_takes_three_trips_of_a_third_each(tmp_path: Path) -> None:
    it = calibration(qos=2)
    rest = it.rest_s(it.up_s)
    assert rest.tolist() == pytest.approx([(0.0010 - 0.00035) / 3, (0.0020 - 0.00035) / 3])


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda it: replace(it, qos=0), "the calibration is for QoS 0"),
        (lambda it: replace(it, nodes={}), "nothing was calibrated of node edge"),
    ],
)
def test_a_calibration_for_something_else_is_refused(
    lived: LoadedScenario,
    tmp_path: Path,
    change: Callable[[Calibration], Calibration],
    says: str,
) -> None:
    with pytest.raises(ArtifactError, match=says):
        calibrated(lived, change(calibration()), tmp_path, "measured")


def test_files_that_are_no_calibration_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="no calibration in"):
        read_calibration(tmp_path)
    write_calibration(tmp_path, calibration())
    file = tmp_path / "calibration.json"
    whole = json.loads(file.read_text())
    file.write_text(json.dumps({**whole, "format": "offramp-calibration-0"}))
    with pytest.raises(ArtifactError, match="not a calibration of this version"):
        read_calibration(tmp_path)
    file.write_text(json.dumps({name: whole[name] for name in ("format", "about")}))
    with pytest.raises(ArtifactError, match="damaged"):
        read_calibration(tmp_path)
    file.write_text(json.dumps(whole))
    samples = (tmp_path / "samples.csv").read_text()
    (tmp_path / "samples.csv").write_text(samples.replace("0.002", "nan", 1))
    with pytest.raises(ArtifactError, match="negative or not finite"):
        read_calibration(tmp_path)
    (tmp_path / "samples.csv").write_text(samples.replace("begin", "begun"))
    with pytest.raises(ArtifactError, match="damaged"):
        read_calibration(tmp_path)


# --- where the time went --------------------------------------------------------------------------


def test_without_a_network_of_its_own_a_way_is_broker_and_clients() -> None:
    division = Division(calibration(), "measured", {"live": 0.0004, "simulated": 0.0003})
    up, broker, down = division.of(0.003, 0.002, "live")
    assert (up, down) == pytest.approx((0.0004 + 0.00005, 0.00005))
    assert up + broker + down == pytest.approx(0.005)


def test_where_the_scenarios_links_are_there_a_way_is_network() -> None:
    it = calibration()
    division = Division(it, "scenario", {"live": 0.0004, "simulated": 0.0003})
    up, broker, down = division.of(0.023, 0.022, "live")
    assert broker == pytest.approx(it.at_broker_s())
    assert (up, down) == pytest.approx((0.023 - broker / 2, 0.022 - broker / 2))


# --- overheads as they are written in a scenario --------------------------------------------------

COOLING_MS = {"time_ms": 20, "kept": 0.5, "begin_ms": 0.5}

OVERHEAD = {
    "nodes.edge.service_ms": 5,
    "nodes.edge.speed": 1,
    "nodes.edge.overhead.receive_ms": 0.5,
    "nodes.edge.overhead.begin_ms": {"distribution": "uniform", "low": 1, "high": 3},
    "nodes.edge.overhead.disturb_ms": 0.25,
    "nodes.edge.overhead.egress_busy_ms": 2,
    "nodes.edge.overhead.autocorrelation": 0.5,
    "nodes.edge.overhead.autocorrelation_ms": 200,
    "nodes.edge.overhead.cooling": COOLING_MS,
}


def test_overheads_are_written_in_milliseconds(scenario: Callable[..., Path]) -> None:
    world = build_world(load_scenario(str(scenario(OVERHEAD))), None)
    overheads = world.nodes[0].overheads
    assert overheads is not None
    assert overheads.receive == Constant(0.0005)
    assert overheads.begin == Uniform(0.001, 0.003)
    assert overheads.begin_idle is None
    assert overheads.reply == Constant(0.0)
    assert overheads.autocorrelation == Autocorrelation(0.5, 0.2)
    assert overheads.disturb_s == pytest.approx(0.00025)
    assert overheads.ingress_busy is None
    assert overheads.egress_busy == Constant(0.002)
    assert overheads.cooling == Cooling(0.02, 0.5, 0.0, 0.0005, 0.0)
    assert world.nodes[0].service.means() == pytest.approx((0.005, 0.005))


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"time_ms": 0}, "greater than 0"),
        ({"kept": 1}, "less than 1"),
        ({"begin_ms": -1}, "greater than or equal to 0"),
        ({"after_ms": 3}, "unknown"),
    ],
)
def test_a_node_that_cools_down_in_no_way_is_refused(
    scenario: Callable[..., Path], place_of: Callable[..., str], changed: dict[str, Any], says: str
) -> None:
    name = "nodes.edge.overhead.cooling"
    path = scenario({name: COOLING_MS | changed})
    with pytest.raises(ScenarioError) as caught:
        load_scenario(str(path))
    assert says in str(caught.value)
    assert "nodes.edge.overhead.cooling" in str(caught.value)


@pytest.mark.parametrize(
    "key",
    ["receive_ms", "begin_ms", "begin_idle_ms", "reply_ms", "ingress_busy_ms", "egress_busy_ms"],
)
def test_a_file_of_overheads_that_is_not_there_is_refused_with_its_place(
    scenario: Callable[..., Path], place_of: Callable[..., str], key: str
) -> None:
    name = f"nodes.edge.overhead.{key}"
    path = scenario({name: {"distribution": "empirical", "file": "nowhere.txt"}})
    with pytest.raises(ScenarioError) as caught:
        load_scenario(str(path))
    assert str(caught.value).startswith(place_of(path, f"{name}.file"))
    assert "nowhere.txt" in str(caught.value)


def test_live_nodes_have_overheads_of_their_own(scenario: Callable[..., Path]) -> None:
    loaded = load_scenario(str(scenario(OVERHEAD)))
    lived = live_scenario(loaded, ["standard"], [0], {"deadline_aware"}, 1, "3.1.1")
    assert lived.scenario.nodes["edge"].overhead is None
    assert any("overhead is not used" in it for it in not_emulated(loaded.scenario, embedded=True))
