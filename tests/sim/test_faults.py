"""Faults: when things are down, and what becomes of every request then."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny_worlds import (
    AtTimes,
    Deciding,
    direction,
    examples,
    group,
    node,
    predictions,
    profile,
    records_of,
    run_of,
    world,
    written_world,
)

from sim.distributions import Exponential
from sim.faults import Fault, Intervals, down_times
from sim.network.links import Link
from sim.network.topology import draw_absences
from sim.nodes.service import ProfiledService
from sim.policy import ANSWER, run_to
from sim.streams import Streams
from sim.workload.arrivals import Poisson

STREAMS = Streams(1, 0)


def down(*faults, things=1, horizon_s=100.0, kind="node_crash", target="edge", streams=STREAMS):
    """(start, end) of every interval of each thing."""
    found = down_times(faults, kind, target, things, horizon_s, streams)
    return [found.of(thing) for thing in range(things)] if found else [[]] * things


def crash(*schedule, target="edge"):
    return Fault("node_crash", target, schedule)


def random_crash(mtbf_s=10.0, mttr_s=2.0, target="edge"):
    return Fault("node_crash", target, mtbf_s=mtbf_s, mttr_s=mttr_s)


# --- scheduled -----------------------------------------------------------------------------------


def test_a_scheduled_fault_befalls_all_things_of_its_name():
    assert down(crash((5.0, 7.0), (20.0, 21.0)), things=3) == [[(5.0, 7.0), (20.0, 21.0)]] * 3


def test_without_faults_of_its_kind_and_name_a_thing_is_never_down():
    others = [crash((5.0, 7.0), target="cloud"), Fault("slow_node", "edge", ((5.0, 7.0),))]
    assert down_times(others, "node_crash", "edge", 2, 100.0, STREAMS) is None


def test_no_fault_begins_after_the_measured_window_but_one_may_end_after_it():
    assert down(crash((99.0, 140.0), (100.0, 101.0))) == [[(99.0, 140.0)]]


def test_overlaps_are_merged_whichever_fault_they_are_of():
    faults = crash((7.0, 8.0), (1.0, 3.0)), crash((2.0, 5.0), (8.0, 9.0), (2.5, 2.6))
    assert down(*faults) == [[(1.0, 5.0), (7.0, 9.0)]]


# --- random --------------------------------------------------------------------------------------


def test_times_up_and_down_are_exponential_with_their_means():
    rows = down(random_crash(10.0, 2.0), things=400, horizon_s=1000.0)
    up = np.concatenate([np.diff([0.0, *np.ravel(row)])[0::2] for row in rows])
    broken = np.concatenate([np.diff([0.0, *np.ravel(row)])[1::2] for row in rows])
    assert len(up) == pytest.approx(400 * 1000 / 12, rel=0.02)
    for spans, mean in ((up, 10.0), (broken, 2.0)):
        assert spans.mean() == pytest.approx(mean, rel=0.03)
        assert spans.std() == pytest.approx(mean, rel=0.04)
        assert np.mean(spans > mean) == pytest.approx(np.exp(-1), rel=0.04)


def test_a_thing_is_down_for_its_share_of_the_time():
    found = down_times([random_crash(8.0, 2.0)], "node_crash", "edge", 50, 1000.0, STREAMS)
    thing, time = np.divmod(np.arange(50 * 5000), 5000)
    covered = np.isfinite(found.until(thing, time / 5.0))
    assert covered.mean() == pytest.approx(0.2, rel=0.05)


def test_things_fail_each_by_itself():
    rows = down(random_crash(), things=30)
    edges = np.concatenate([np.ravel(row) for row in rows])
    assert len(set(edges)) == len(edges) > 300


def test_faults_depend_on_nothing_but_seed_replication_and_name():
    fault = random_crash()
    alone = down(fault, things=2)
    assert down(fault, things=5)[:2] == alone, "other things"
    others = Fault("link_outage", "edge", mtbf_s=1.0), random_crash(target="cloud")
    assert down(*others, fault, things=2) == alone, "other faults"
    for thing, row in enumerate(down(fault, things=2, horizon_s=500.0)):
        assert [pair for pair in row if pair[0] < 100.0] == alone[thing], "a longer run"
    others = [
        down(random_crash(target="cloud"), things=2, target="cloud"),
        down(fault, things=2, streams=Streams(2, 0)),
        down(fault, things=2, streams=Streams(1, 1)),
    ]
    assert all(other != alone for other in others)


def test_two_random_faults_of_one_thing_differ():
    (one,), (both,) = down(random_crash(50.0, 0.1)), down(*[random_crash(50.0, 0.1)] * 2)
    assert set(one) < set(both)


def test_rare_and_frequent_faults():
    assert down(random_crash(1e9, 1.0), things=5) == [[]] * 5
    (row,) = down(random_crash(0.01, 0.01))
    assert len(row) == pytest.approx(100 / 0.02, rel=0.1)


spans = st.lists(
    st.tuples(st.floats(0, 90), st.floats(0, 20)).map(lambda it: (it[0], it[0] + it[1])),
    max_size=6,
)


@given(spans, spans, st.booleans(), st.lists(st.floats(0, 120), min_size=1, max_size=30))
@examples(100)
def test_down_exactly_while_any_fault_lasts(first, second, also_random, times):
    faults = [crash(*first), crash(*second)]
    if also_random:
        faults.append(random_crash())
        # Alone, in third place among its like, as its numbers depend on its place.
        first = first + down(crash(), crash(), random_crash())[0]
    found = down_times(faults, "node_crash", "edge", 1, 100.0, STREAMS)
    for time in times:
        lasting = [end for start, end in first + second if start <= time < end]
        until = -np.inf if found is None else found.until(np.array([0]), np.array([time]))[0]
        assert np.isfinite(until) == bool(lasting)
        assert not lasting or until >= max(lasting)
    if found is not None:
        ends = [end for _, end in found.of(0)]
        starts = [start for start, _ in found.of(0)]
        assert all(end < start for end, start in zip(ends, starts[1:], strict=False)), "apart"


def test_an_interval_holds_its_start_and_not_its_end():
    intervals = Intervals.of_rows([[(1.0, 2.0)], [], [(0.0, 3.0), (5.0, 6.0)]])
    thing = np.array([0, 0, 0, 1, 2, 2, 2])
    times = np.array([0.9, 1.0, 2.0, 1.5, 1.5, 3.0, 5.5])
    nothing = -np.inf
    assert intervals.until(thing, times).tolist() == [
        nothing, 2.0, nothing, nothing, 3.0, nothing, 6.0,
    ]  # fmt: skip
    assert intervals.total == 3


def test_prolonged_intervals_merge():
    intervals = Intervals.of_rows([[(1.0, 2.0), (3.0, 4.0), (9.0, 10.0)], [(5.0, 6.0)]])
    longer = intervals.prolonged(1.0)
    assert [longer.of(thing) for thing in (0, 1)] == [[(1.0, 5.0), (9.0, 11.0)], [(5.0, 7.0)]]


# --- a node crashes ------------------------------------------------------------------------------


def fate(a_world, *args):
    done = run_of(a_world, *args)
    return done, records_of(a_world, done)["outcome"].tolist()


def with_faults(a_world, *faults):
    return replace(a_world, faults=faults)


def test_a_crash_loses_what_is_served_and_what_waits_and_nothing_else():
    """Two workers, 4 s each; a crash from 10 to 20 s."""
    times = (0.0, 5.0, 7.0, 8.0, 9.0, 12.0, 21.0, 22.0, 23.0)
    devices = group(arrivals=AtTimes((times,)), deadline=50.0)
    a_world = world(
        devices, node(mean_s=4.0, workers=2), duration_s=50.0, faults=(crash((10.0, 20.0)),)
    )
    done, outcome = fate(a_world)
    # The second is done at 9 s, when the fourth begins. At 10 s the third and the fourth are being
    # served and the fifth waits; the sixth finds no node.
    assert outcome == ["on_time"] * 2 + ["lost"] * 4 + ["on_time"] * 3
    assert done.started_s[[2, 3]].tolist() == [7.0, 9.0]
    assert np.isnan(done.started_s[[4, 5]]).all()
    assert done.released_s[[2, 3, 4]].tolist() == [10.0] * 3, "they were lost at the crash"
    assert np.isnan(done.finished_s[2:6]).all()
    # Both workers are back.
    assert done.started_s[6:].tolist() == [21.0, 22.0, 25.0]


def test_a_node_that_is_idle_when_it_crashes_loses_nothing():
    a_world = with_faults(written_world([0.0, 20.0], [4.0, 4.0]), crash((10.0, 20.0)))
    done, outcome = fate(a_world)
    assert outcome == ["late", "late"]
    assert done.finished_s.tolist() == [4.0, 24.0]


def test_an_answer_on_its_way_home_is_safe():
    home = Link(direction(), direction(3.0))
    a_world = with_faults(
        written_world([0.0], [9.0], link=home, deadline=20.0), crash((10.0, 20.0))
    )
    done, outcome = fate(a_world)
    assert (outcome, done.received_s.tolist()) == (["on_time"], [12.0])


def test_a_crash_between_two_exits_loses_the_request():
    """Exit 1 after 2 s, exit 2 four seconds later; the crash comes in between."""
    a_world = with_faults(written_world([0.0, 30.0], [[2.0, 6.0]] * 2, deadline=9.0),
                          crash((4.0, 5.0)))  # fmt: skip
    stepwise = Deciding(lambda request, node: (run_to(1), run_to(2), ANSWER)[request.exit])
    done, outcome = fate(a_world, stepwise, predictions(exits=2))
    assert outcome == ["lost", "on_time"]
    assert done.exit.tolist() == [0, 2]
    assert done.correct.tolist() == [False, True]


def test_a_computation_to_be_cut_off_after_a_crash_is_lost_all_the_same():
    a_world = with_faults(written_world([0.0, 6.0], [[2.0, 9.0]] * 2, deadline=20.0),
                          crash((4.0, 5.0)))  # fmt: skip
    cut = Deciding(lambda request, node: run_to(2, 3.0) if request.exit else run_to(1))
    done, outcome = fate(a_world, cut, predictions(exits=2))
    assert outcome == ["lost", "on_time"]
    assert done.finished_s[1] == 11.0
    assert done.exit.tolist() == [0, 1]


def test_crashes_may_come_again_and_again():
    a_world = with_faults(
        written_world([0.0, 3.0, 6.0, 9.0], [2.0] * 4, deadline=9.0),
        crash((1.0, 2.0), (7.0, 8.0), (12.0, 13.0)),
    )
    done, outcome = fate(a_world)
    assert outcome == ["lost", "on_time", "lost", "on_time"]
    assert done.finished_s[[1, 3]].tolist() == [5.0, 11.0]


def test_a_crash_of_one_node_is_no_matter_to_another():
    near, far = (group(name, 5, Poisson(1.0), node=name) for name in ("near", "far"))
    nodes = [node(Exponential(0.1), name) for name in ("near", "far")]
    whole = run_of(world(near, far, *nodes, duration_s=200.0))
    a_world = world(near, far, *nodes, duration_s=200.0, faults=(random_crash(target="near"),))
    done = run_of(a_world)
    of_far = done.node == 1
    assert of_far.sum() > 800
    np.testing.assert_array_equal(done.received_s[of_far], whole.received_s[of_far])
    assert 0.1 < np.mean(done.outcome[~of_far] == 3) < 0.5


def by_loop(arrived_s, seconds, intervals):
    """(started, released, lost) of each request at one worker that goes down at times."""
    rows, free_s = [], 0.0
    for arrived, busy in zip(arrived_s, seconds, strict=True):
        start = max(arrived, free_s)
        covering = [end for begin, end in intervals if begin <= arrived < end]
        crashes = [(begin, end) for begin, end in intervals if arrived < begin < start + busy]
        if covering:
            rows.append((np.nan, np.nan, True))
        elif crashes:
            at, back = crashes[0]
            rows.append((start if start < at else np.nan, at, True))
            free_s = back
        else:
            rows.append((start, start + busy, False))
            free_s = start + busy
    return np.array(rows)


@pytest.mark.parametrize("seed", range(6))
def test_every_request_of_a_node_that_crashes_at_random(seed):
    devices = group("devices", 4, Poisson(2.0))
    a_world = world(
        devices, node(Exponential(0.1)), duration_s=300.0, seed=seed,
        faults=(random_crash(6.0, 1.0), crash((50.0, 60.0))),
    )  # fmt: skip
    done = run_of(a_world)
    intervals = draw_absences(a_world, Streams(seed, 0)).nodes.of(0)
    seconds = Exponential(0.1).ppf(done.requests.service_u)
    expected = by_loop(done.requests.created_s, seconds, intervals)
    np.testing.assert_allclose(done.started_s, expected[:, 0], rtol=1e-12)
    np.testing.assert_allclose(done.released_s, expected[:, 1], rtol=1e-12)
    assert (done.outcome == 3).tolist() == expected[:, 2].astype(bool).tolist()
    assert 0.1 < expected[:, 2].mean() < 0.5


# --- a node is slow ------------------------------------------------------------------------------


def test_steps_that_begin_while_a_node_is_slow_take_longer():
    slow = Fault("slow_node", "edge", ((10.0, 20.0),), factor=0.5)
    a_world = with_faults(written_world([9.5, 12.0, 19.5, 25.0], [1.0] * 4), slow)
    assert run_of(a_world).finished_s.tolist() == [10.5, 14.0, 21.5, 26.0]


def test_each_step_to_an_exit_is_slow_or_not_by_itself():
    """Segments of 2 and 4 s; half the speed from 1 s to 3 s."""
    slow = Fault("slow_node", "edge", ((1.0, 3.0),), factor=0.5)
    a_world = with_faults(written_world([0.0, 10.0], [[2.0, 6.0]] * 2, deadline=99.0), slow)
    stepwise = Deciding(lambda request, node: (run_to(1), run_to(2), ANSWER)[request.exit])
    done = run_of(a_world, stepwise, predictions(exits=2))
    assert done.finished_s.tolist() == [2.0 + 8.0, 16.0]


def test_a_slow_node_cuts_computations_off_as_told():
    slow = Fault("slow_node", "edge", ((0.0, 5.0),), factor=0.25)
    a_world = with_faults(written_world([1.0, 10.0], [[1.0, 2.0]] * 2, deadline=99.0), slow)
    cut = Deciding(lambda request, node: run_to(2, 2.0) if request.exit < 2 else ANSWER)
    done = run_of(a_world, cut, predictions(exits=2))
    assert done.outcome.tolist() == [2, 0], "8 s to exit 2, and no exit before"
    assert done.left_s.tolist() == [3.0, 12.0]
    assert done.released_s.tolist() == [5.0, 12.0], "exit 1 takes 4 s, and cannot be interrupted"


def test_what_slows_a_node_at_the_same_time_adds_up():
    """Half the speed from 10 to 20 s, a quarter from 15 to 30 s."""
    slow = [
        Fault("slow_node", "edge", ((10.0, 20.0),), factor=0.5),
        Fault("slow_node", "edge", ((15.0, 30.0),), factor=0.25),
    ]
    a_world = with_faults(written_world([11.0, 16.0, 25.0, 31.0], [1.0] * 4, deadline=99.0), *slow)
    assert run_of(a_world).finished_s.tolist() == [13.0, 24.0, 29.0, 32.0]


def test_every_replica_is_slow_by_itself():
    slow = Fault("slow_node", "edge", mtbf_s=20.0, mttr_s=20.0, factor=0.5)
    service = ProfiledService(profile([[0.01]]))
    devices = group("devices", 10, Poisson(2.0))
    done = run_of(world(devices, node(service, replicas=2), duration_s=100.0, faults=(slow,)))
    took = np.round(done.finished_s - done.started_s, 6)
    assert set(took.tolist()) == {0.01, 0.02}
    share = [np.mean(took[done.node == number] == 0.02) for number in (0, 1)]
    assert share[0] != share[1]
    assert all(0.05 < one < 0.95 for one in share)


# --- devices come and go -------------------------------------------------------------------------


def test_nothing_is_created_while_a_device_is_away():
    times = tuple(float(time) for time in range(10))
    devices = group("devices", 2, AtTimes((times, times)))
    churn = Fault("device_churn", "devices", ((2.0, 5.0), (7.5, 8.0)))
    done = run_of(world(devices, node(mean_s=0.01), faults=(churn,)))
    expected = [0.0, 1.0, 5.0, 6.0, 7.0, 8.0, 9.0]
    assert done.requests.created_s.tolist() == [time for time in expected for _ in range(2)]


def test_what_else_a_device_sends_is_as_it_would_be():
    devices = group("devices", 10, Poisson(5.0), deadline=Exponential(0.3))
    churn = Fault("device_churn", "devices", mtbf_s=5.0, mttr_s=5.0)
    whole, done = (
        run_of(world(devices, node(mean_s=0.0), duration_s=50.0, faults=faults)).requests
        for faults in ((), (churn,))
    )
    key = {pair: row for row, pair in enumerate(zip(whole.device, whole.number, strict=True))}
    rows = [key[pair] for pair in zip(done.device, done.number, strict=True)]
    assert 0.35 < len(rows) / len(whole) < 0.75
    for name in ("created_s", "deadline_s", "sample", "service_u"):
        np.testing.assert_array_equal(getattr(done, name), getattr(whole, name)[rows])
