"""Queues: whom a free worker takes, and who is let in at all."""

from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny_worlds import (
    AtTimes,
    Deciding,
    WrittenService,
    direction,
    examples,
    group,
    node,
    predictions,
    records_of,
    run_of,
    world,
)

from sim.distributions import Exponential, Uniform
from sim.network.links import Link
from sim.nodes.queues import queue_of
from sim.nodes.spec import NodeSpec
from sim.policy import ANSWER, DROP, run_to
from sim.workload.arrivals import Poisson


def sends(name, times_s, **more):
    """A group of one device that sends at written times."""
    return group(name, 1, AtTimes((tuple(times_s),)), **({"deadline": 100.0} | more))


def started(*parts, **more):
    """When each request is taken by a worker, by its group and number."""
    a_world = world(*parts, duration_s=50.0, **more)
    done = run_of(a_world)
    names = [
        f"{a_world.groups[group].name}{number}"
        for group, number in zip(done.requests.group, done.requests.number, strict=True)
    ]
    return dict(zip(names, done.started_s.tolist(), strict=True))


# --- disciplines ---------------------------------------------------------------------------------

#: While the first is served until 10 s, the others come.
URGENT = {"deadline": 12.0}
LAZY = {"deadline": 40.0}


def test_first_in_first_out():
    lazy, urgent = sends("lazy", [0.0, 1.0, 3.0], **LAZY), sends("urgent", [2.0, 4.0], **URGENT)
    assert started(lazy, urgent, node(mean_s=10.0)) == {
        "lazy0": 0.0, "lazy1": 10.0, "urgent0": 20.0, "lazy2": 30.0, "urgent1": 40.0,
    }  # fmt: skip


def test_earliest_deadline_first():
    # Deadlines at 40, 41, 43 (lazy), 14, 16 (urgent) and 13.5 s.
    lazy, urgent = sends("lazy", [0.0, 1.0, 3.0], **LAZY), sends("urgent", [2.0, 4.0], **URGENT)
    late = sends("late", [12.5], deadline=1.0)
    assert started(lazy, urgent, late, node(mean_s=10.0, discipline="edf")) == {
        "lazy0": 0.0, "urgent0": 10.0, "late0": 20.0, "urgent1": 30.0, "lazy1": 40.0, "lazy2": 50.0,
    }  # fmt: skip


def test_what_counts_is_when_the_deadline_passes_not_how_long_it_is():
    early, late = sends("early", [0.0, 1.0], deadline=30.0), sends("late", [8.0], deadline=25.0)
    assert started(early, late, node(mean_s=10.0, discipline="edf"))["early1"] == 10.0


def test_deadlines_count_as_scaled():
    early, late = sends("early", [0.0, 1.0], deadline=30.0), sends("late", [8.0], deadline=25.0)
    a_world = world(early, late, node(mean_s=10.0, discipline="edf"), duration_s=50.0)
    # Half of each: at 16 s and at 20.5 s; a third: at 11 s and 16.3 s. Ten times: 301 s and 258 s.
    assert run_of(a_world, deadline_scale=0.5).started_s.tolist() == [0.0, 10.0, 20.0]
    assert run_of(a_world, deadline_scale=10.0).started_s.tolist() == [0.0, 20.0, 10.0]


def test_highest_priority_first_and_nobody_is_interrupted():
    low = sends("low", [0.0, 1.0, 2.0], priority=0)
    high = sends("high", [3.0, 4.0, 25.0], priority=7)
    below = sends("below", [0.5], priority=-1)
    assert started(low, high, below, node(mean_s=10.0, discipline="priority")) == {
        "low0": 0.0, "high0": 10.0, "high1": 20.0, "high2": 30.0, "low1": 40.0, "low2": 50.0,
        "below0": 60.0,
    }  # fmt: skip


@dataclass(eq=False)
class Waiting:
    """As much of a request as a queue looks at."""

    deadline_at_s: float
    priority: int


RANKS = {
    "fifo": lambda request: 0,
    "edf": lambda request: request.deadline_at_s,
    "priority": lambda request: -request.priority,
}
pushes = st.builds(Waiting, st.integers(0, 5).map(float), st.integers(0, 3))


@pytest.mark.parametrize("discipline", RANKS)
@given(st.lists(pushes | st.none(), max_size=40))
@examples(60)
def test_queues_against_a_list_that_is_sorted_each_time(discipline, steps):
    queue, model = queue_of(discipline), []
    for step in steps:
        if step is not None:
            queue.push(step)
            model.append(step)
        elif model:
            # Sorting keeps the order of equals: first in, first out.
            first = sorted(model, key=RANKS[discipline])[0]
            assert queue.head() is first
            assert queue.take() is first
            model.remove(first)
        assert len(queue) == len(model)
        assert bool(queue) == bool(model)
    assert list(queue) == sorted(model, key=RANKS[discipline]), "in the order of taking"
    queue.clear()
    assert (len(queue), list(queue)) == (0, [])


@pytest.mark.parametrize("discipline", ["edf", "priority"])
def test_a_node_with_one_kind_of_request_is_first_in_first_out(discipline):
    devices = group("devices", 5, Poisson(2.0))
    fifo, other = (
        run_of(world(devices, node(Exponential(0.09), discipline=it), duration_s=100.0))
        for it in ("fifo", discipline)
    )
    assert (fifo.started_s - fifo.arrived_s).max() > 0.3
    np.testing.assert_array_equal(fifo.started_s, other.started_s)


# --- a full queue --------------------------------------------------------------------------------


def outcome_of(times_s, *, service_s=4.0, **of_node):
    a_world = world(sends("devices", times_s), node(mean_s=service_s, **of_node), duration_s=50.0)
    done = run_of(a_world)
    return done, records_of(a_world, done)["outcome"].tolist()


def test_who_finds_the_queue_full_is_refused_at_once():
    done, outcome = outcome_of([0.0, 1.0, 2.0, 3.0, 5.0], queue_limit=1)
    # The second waits until 4 s; the fifth finds room again.
    assert outcome == ["on_time", "on_time", "dropped", "dropped", "on_time"]
    assert done.released_s.tolist() == [4.0, 8.0, 2.0, 3.0, 12.0]
    assert done.arrived_s.tolist() == [0.0, 1.0, 2.0, 3.0, 5.0]
    assert np.isnan(done.started_s[[2, 3]]).all()
    assert np.isnan(done.received_s[[2, 3]]).all()


def test_without_room_to_wait_only_idle_workers_take_anyone():
    _, outcome = outcome_of([0.0, 1.0, 2.0, 4.5, 4.6], queue_limit=0, workers=2)
    assert outcome == ["on_time", "on_time", "dropped", "on_time", "dropped"]


def test_those_who_come_at_one_instant_fill_workers_and_queue():
    _, outcome = outcome_of([1.0] * 6, queue_limit=2, workers=2)
    assert outcome == ["on_time"] * 4 + ["dropped"] * 2


def test_who_came_while_a_worker_was_busy_is_refused_though_it_is_cut_off():
    """Cut off at 3 s, its worker computes until 4 s: the others find no place."""
    seconds = WrittenService([[4.0]] * 4)
    a_world = world(
        sends("devices", [0.0, 1.0, 2.0, 3.5]), NodeSpec("edge", 1, seconds, queue_limit=0)
    )
    done = run_of(a_world, Deciding(lambda request, node: run_to(1, 3.0)))
    assert np.isnan(done.started_s).tolist() == [False, True, True, True]
    assert done.left_s.tolist() == [3.0, 1.0, 2.0, 3.5]
    assert done.outcome.tolist() == [2, 2, 2, 2]


@pytest.mark.parametrize(("within_s", "segment_ends_s"), [(0.5, 1.0), (2.5, 4.0), (7.0, 8.0)])
def test_a_worker_whose_request_is_cut_off_finishes_its_segment(within_s, segment_ends_s):
    """A thread that computes cannot be interrupted; the next exit is not begun."""
    seconds = WrittenService([[1.0, 2.0, 4.0, 8.0]] * 2)
    a_world = world(sends("devices", [0.0, 0.25]), NodeSpec("edge", 1, seconds))
    cut = Deciding(lambda request, node: DROP if request.index else run_to(4, within_s))
    done = run_of(a_world, cut, predictions(exits=4))
    assert done.left_s.tolist() == [within_s, segment_ends_s]
    assert done.released_s.tolist() == [segment_ends_s] * 2


def test_who_has_waited_longest_begins_a_batch_though_others_are_more_urgent():
    lazy, urgent = sends("lazy", [0.0], deadline=40.0), sends("urgent", [0.75, 1.5], deadline=20.0)
    spec = node(mean_s=10.0, discipline="edf", batch_size=4, batch_wait_s=1.0)
    assert started(lazy, urgent, spec) == {"lazy0": 1.0, "urgent0": 1.0, "urgent1": 11.0}


def by_loop(arrived_s, seconds, workers, limit):
    """When each is taken, NaN if refused: one after the other, by what is known at its arrival."""
    started, finished = [], []
    for at, busy in zip(arrived_s, seconds, strict=True):
        inside = sum(end > at for end in finished)
        if limit is not None and inside >= workers + limit:
            started.append(np.nan)
            continue
        # With one who leaves, one who waits begins: the (inside - workers + 1)th to leave frees me.
        ends = sorted(end for end in finished if end > at)
        begin = at if inside < workers else ends[inside - workers]
        started.append(begin)
        finished.append(begin + busy)
    return started


@given(
    st.lists(st.floats(0, 20), min_size=1, max_size=40).map(sorted),
    st.lists(st.floats(0.01, 4.0), min_size=40, max_size=40),
    st.integers(1, 3),
    st.none() | st.integers(0, 4),
)
@examples(80)
def test_all_who_come_at_k_workers_with_room_for_some(times, seconds, workers, limit):
    times = [time + 1e-7 * number for number, time in enumerate(times)]
    seconds = seconds[: len(times)]
    service = WrittenService([[one] for one in seconds])
    a_world = world(
        sends("devices", times), NodeSpec("edge", workers, service, queue_limit=limit),
        duration_s=30.0,
    )  # fmt: skip
    expected = by_loop(times, seconds, workers, limit)
    np.testing.assert_allclose(run_of(a_world).started_s, expected, rtol=1e-12)


# --- admission -----------------------------------------------------------------------------------


def test_what_cannot_be_answered_in_time_is_not_let_in():
    """A second of work on average, half a second home, and a deadline of 3 s.

    Whoever finds a worker idle needs 1.5 s. With one served, 2.5 s; with one more waiting 3.5 s.
    """
    a_world = world(
        sends("devices", [0.0, 0.1, 0.2, 0.3, 1.2, 9.0], deadline=3.0,
              link=Link(direction(), direction(0.5))),
        node(mean_s=1.0, admission="feasible"),
    )  # fmt: skip
    done = run_of(a_world)
    assert records_of(a_world, done)["outcome"].tolist() == [
        "on_time", "on_time", "dropped", "dropped", "on_time", "on_time",
    ]  # fmt: skip
    assert done.released_s[[2, 3]].tolist() == [0.2, 0.3]
    assert np.isnan(done.started_s[[2, 3]]).all()


def test_time_lost_on_the_way_up_counts():
    def let_in(up_s):
        link = Link(direction(up_s), direction(0.5))
        devices = sends("devices", [0.0], deadline=3.0, link=link)
        return run_of(world(devices, node(mean_s=1.0, admission="feasible"))).outcome[0] != 2

    assert let_in(1.4)
    assert not let_in(1.6)


def test_workers_share_the_work_that_waits():
    # With two workers, one who waits counts half a second.
    devices = sends("devices", [0.0, 0.0, 0.0, 0.0, 0.0], deadline=2.2)
    done = run_of(world(devices, node(mean_s=1.0, workers=2, admission="feasible")))
    # Work before each: 0, 0, 0.5, 1.0, 1.5 s.
    assert done.outcome.tolist() == [0, 0, 0, 0, 2]


def test_the_first_exit_decides():
    """Exits at 1 and 5 s; 2 s are enough for the first."""
    devices = sends("devices", [0.0], deadline=2.0)
    service = WrittenService([[1.0, 5.0]])
    service.means = lambda: (1.0, 5.0)
    a_world = world(devices, NodeSpec("edge", 1, service, admission="feasible"))
    done = run_of(
        a_world, Deciding(lambda request, node: ANSWER if request.exit else run_to(1)),
        predictions(exits=2),
    )  # fmt: skip
    assert done.outcome.tolist() == [0]


def test_admission_and_a_limit_together():
    devices = sends("devices", [0.0, 0.0, 0.0], deadline=50.0)
    spec = node(mean_s=1.0, admission="feasible", queue_limit=1)
    assert run_of(world(devices, spec)).outcome.tolist() == [0, 0, 2]


def test_under_overload_admission_raises_the_share_in_time():
    devices = group("devices", 10, Poisson(2.0), deadline=Uniform(0.1, 0.6))
    share = {}
    for admission in ("all", "feasible"):
        spec = node(Exponential(0.1), admission=admission)
        share[admission] = np.mean(run_of(world(devices, spec, duration_s=100.0)).outcome == 0)
    assert share["all"] < 0.1
    assert share["feasible"] > 0.3
