"""Micro-batching: when batches form, what they cost, and who leaves them early."""

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
)

from models.errors import ArtifactError
from sim.distributions import Exponential
from sim.faults import Fault
from sim.network.links import Link
from sim.nodes.service import DistributedService, ProfiledService
from sim.policies import Confidence
from sim.policy import ANSWER, DROP, run_to
from sim.results.visits import Visits
from sim.workload.arrivals import Poisson


def measured(by_size):
    """A profile of one inference of two exits: seconds of exit 1 alone, exit 2 alone, and between.

    Args:
        by_size: per batch size, (to exit 1, to exit 2, from exit 1 to exit 2).
    """
    tables = {
        size: profile([[first, last]], [[first, between]], batch_size=size)
        for size, (first, last, between) in by_size.items()
    }
    whole = tables[1]
    for size, table in tables.items():
        whole.seconds[size] = table.seconds[size]
    return whole


#: To exit 1 2 s alone and 5 s for four; to exit 2 6 s and 14 s; from exit 1 to 2, 3 s and 9 s.
SERVICE = ProfiledService(measured({1: (2.0, 6.0, 3.0), 4: (5.0, 14.0, 9.0)}), largest_batch=4)


def batching(times_s, *, size=4, wait_s=0.0, service=SERVICE, policy=None, says=None, workers=1,
             faults=(), **more):  # fmt: skip
    """A run of one device that sends at written times to a node that batches."""
    of_node = {name: more.pop(name) for name in ("discipline", "queue_limit") if name in more}
    devices = group(arrivals=AtTimes((tuple(times_s),)), **({"deadline": 100.0} | more))
    spec = node(service, workers=workers, batch_size=size, batch_wait_s=wait_s, **of_node)
    a_world = world(devices, spec, duration_s=200.0, faults=tuple(faults))
    says = says or predictions(exits=service.exit_count)
    return run_of(a_world, policy, says)


def always(exit):
    return Deciding(lambda request, node: ANSWER if request.exit == exit else run_to(exit))


def batches(done):
    """Sizes of the batches, in the order of the requests."""
    visits = done.visits
    return visits.batch[np.argsort(visits.request)].tolist()


# --- what a batch costs --------------------------------------------------------------------------


def test_a_batch_takes_what_was_measured_interpolated_between_sizes():
    # Five come at once: four together take 5 s, then one alone 2 s.
    done = batching([1.0] * 5)
    assert done.started_s.tolist() == [1.0] * 4 + [6.0]
    assert done.finished_s.tolist() == [6.0] * 4 + [8.0]
    assert batches(done) == [4, 4, 4, 4, 1]


@pytest.mark.parametrize(
    ("size", "first_s", "second_s", "between_s"),
    [(1, 2.0, 6.0, 3.0), (2, 3.0, 6 + 8 / 3, 5.0), (3, 4.0, 6 + 16 / 3, 7.0), (4, 5.0, 14.0, 9.0)],
)
def test_seconds_of_each_size(size, first_s, second_s, between_s):
    times = [0.0] * size
    assert batching(times).finished_s.tolist() == pytest.approx([first_s] * size)
    assert batching(times, policy=always(2)).finished_s.tolist() == pytest.approx([second_s] * size)
    exit_by_exit = Confidence(1.0)
    expected = pytest.approx([first_s + between_s] * size)
    assert batching(times, policy=exit_by_exit).finished_s.tolist() == expected


def test_a_faster_node_computes_batches_faster():
    by_size = {1: (2.0, 6.0, 3.0), 4: (5.0, 14.0, 9.0)}
    fast = ProfiledService(measured(by_size), speed=2.0, largest_batch=4)
    assert batching([0.0] * 3, service=fast).finished_s.tolist() == pytest.approx([2.0] * 3)


def test_the_largest_batch_must_have_been_measured():
    with pytest.raises(ArtifactError, match=r"batches of 5 .* at most 4"):
        ProfiledService(measured({1: (2.0, 6.0, 3.0), 4: (5.0, 14.0, 9.0)}), largest_batch=5)


def test_a_batch_replays_one_inference_at_the_rank_of_its_first_member():
    seconds = {size: np.arange(1.0, 11.0)[:, None] * size for size in (1, 2)}
    tables = {size: profile(table, batch_size=size) for size, table in seconds.items()}
    whole = tables[1]
    whole.seconds[2] = tables[2].seconds[2]
    service = ProfiledService(whole, largest_batch=2)
    done = batching([0.0, 0.0], service=service)
    rank = int(done.requests.service_u[0] * 10)
    assert done.finished_s.tolist() == [2.0 * (rank + 1)] * 2


def test_of_a_distribution_a_batch_takes_as_long_as_its_slowest_member():
    service = DistributedService(Exponential(1.0), exit_count=1)
    done = batching([0.0] * 4, service=service)
    slowest = Exponential(1.0).ppf(done.requests.service_u).max()
    assert done.finished_s.tolist() == pytest.approx([slowest] * 4)


# --- when a batch begins -------------------------------------------------------------------------


def test_a_full_batch_begins_at_once():
    done = batching([0.0, 1.0, 2.0, 3.0], wait_s=50.0)
    assert done.started_s.tolist() == [3.0] * 4


def test_a_worker_waits_until_the_first_has_waited_long_enough():
    done = batching([0.0, 1.0, 2.4, 2.6], wait_s=2.5)
    # Three begin at 2.5 s and take 4 s; the last has waited long enough by then.
    assert done.started_s.tolist() == [2.5, 2.5, 2.5, 6.5]
    assert batches(done) == [3, 3, 3, 1]


def test_who_waited_while_workers_were_busy_waits_no_longer():
    # The first begins at 1 s, alone, until 3 s. The second has waited 1 s then; the third comes.
    done = batching([0.0, 2.0, 3.5, 9.0, 9.5], wait_s=1.0)
    assert done.started_s.tolist() == [1.0, 3.0, 5.0, 10.0, 10.0]


def test_without_waiting_a_worker_takes_what_is_there():
    done = batching([0.0, 0.5, 1.0, 1.5, 9.0])
    assert done.started_s.tolist() == [0.0, 2.0, 2.0, 2.0, 9.0]
    assert batches(done) == [1, 3, 3, 3, 1]


def test_several_workers_each_take_a_batch():
    done = batching([0.0] * 6 + [1.0], workers=2, size=4)
    # Four and two, for 5 s and 3 s; the last begins when the two are done.
    assert done.finished_s.tolist() == pytest.approx([5.0] * 4 + [3.0] * 2 + [5.0])
    assert done.started_s.tolist() == [0.0] * 6 + [3.0]


def test_the_most_urgent_are_taken_together():
    urgent = group("urgent", 1, AtTimes(((0.3, 0.4),)), deadline=5.0)
    lazy = group("lazy", 1, AtTimes(((0.0, 0.1, 0.2),)), deadline=50.0)
    spec = node(SERVICE, batch_size=2, discipline="edf")
    done = run_of(world(lazy, urgent, spec), says=predictions(exits=2))
    assert done.started_s.tolist() == [0.0, 5.0, 5.0, 2.0, 2.0]


def test_a_batch_of_one_at_most_is_no_batch():
    devices = group("devices", 4, Poisson(0.5))
    plain, batch = (
        run_of(world(devices, node(SERVICE, **of_node), duration_s=60.0), says=predictions(exits=2))
        for of_node in ({}, {"batch_size": 1, "batch_wait_s": 5.0})
    )
    np.testing.assert_array_equal(plain.started_s, batch.started_s)


def test_a_lone_request_costs_the_same_with_and_without_batching():
    devices = group("devices", 1, AtTimes(((0.0, 10.0, 20.0),)))
    plain, batch = (
        run_of(world(devices, node(SERVICE, batch_size=size), duration_s=60.0), Confidence(1.0),
               predictions(exits=2))
        for size in (1, 4)
    )  # fmt: skip
    assert plain.finished_s.tolist() == batch.finished_s.tolist() == [5.0, 15.0, 25.0]


# --- who leaves early ----------------------------------------------------------------------------

#: Samples 0 and 1 are clear at exit 1; 2 and 3 are not.
SAYS = predictions(confidence=[[0.9, 0.95], [0.8, 0.95], [0.2, 0.95], [0.1, 0.95]])


@pytest.mark.parametrize("seed", range(4))
def test_members_that_are_sure_leave_and_the_rest_is_faster(seed):
    devices = group(arrivals=AtTimes(((0.0,) * 4,)), deadline=100.0)
    a_world = world(devices, node(SERVICE, batch_size=4), duration_s=20.0, seed=seed)
    done = run_of(a_world, Confidence(0.5), SAYS)
    stay = int((done.requests.sample >= 2).sum())
    sure = done.requests.sample < 2
    # All four to exit 1 take 5 s; from there, as many as stay.
    between = {0: 0.0, 1: 3.0, 2: 5.0, 3: 7.0, 4: 9.0}[stay]
    assert done.finished_s[sure].tolist() == [5.0] * (4 - stay)
    assert done.finished_s[~sure].tolist() == pytest.approx([5.0 + between] * stay)
    assert done.exit.tolist() == [1 if one else 2 for one in sure]
    assert done.received_s[sure].tolist() == [5.0] * (4 - stay), "they need not wait"


def test_all_are_computed_to_the_nearest_exit_that_any_wants():
    """Request 0 goes for exit 2 at once, request 1 exit by exit: both pass exit 1 together."""
    asked = []

    def decide(request, node):
        asked.append((request.index, request.exit, request.confidences))
        if request.exit == 2:
            return ANSWER
        return run_to(2) if request.index == 0 or request.exit else run_to(1)

    says = predictions(confidence=[[0.5, 0.75]])
    done = batching([0.0, 0.0], policy=Deciding(decide), says=says)
    assert done.finished_s.tolist() == [3.0 + 5.0] * 2
    assert asked == [
        (0, 0, ()),
        (1, 0, ()),
        (1, 1, (0.5,)),  # at exit 1, only the one that wanted it is asked
        (0, 2, (0.75,)),
        (1, 2, (0.5, 0.75)),
    ]


def test_who_is_dropped_at_the_start_makes_the_batch_smaller():
    first = Deciding(
        lambda request, node: DROP if request.index == 1 else ANSWER if request.exit else run_to(1)
    )
    done = batching([0.0] * 3, policy=first)
    assert done.outcome.tolist() == [0, 2, 0]
    assert done.finished_s[[0, 2]].tolist() == [3.0, 3.0], "two are computed"
    assert done.released_s[1] == 0.0


def test_a_worker_whose_batch_is_dropped_takes_the_next_at_once():
    dropping = Deciding(
        lambda request, node: DROP if request.index < 4 else ANSWER if request.exit else run_to(1)
    )
    done = batching([0.0] * 6, policy=dropping)
    assert done.outcome.tolist() == [2] * 4 + [0] * 2
    assert done.started_s.tolist() == [0.0] * 6
    assert done.finished_s[4:].tolist() == [3.0, 3.0]


# --- cut off -------------------------------------------------------------------------------------


def test_a_member_that_is_cut_off_is_answered_and_the_rest_goes_on():
    """Both pass exit 1 at 3 s; exit 2 comes 5 s later, but request 0 gives it 2 s only."""

    def decide(request, node):
        if request.exit == 2:
            return ANSWER
        if request.exit == 0:
            return run_to(1)
        return run_to(2, within_s=2.0) if request.index == 0 else run_to(2)

    done = batching([0.0, 0.0, 4.0], policy=Deciding(decide))
    assert done.finished_s[:2].tolist() == [5.0, 8.0]
    assert done.exit.tolist()[:2] == [1, 2]
    assert done.started_s[2] == 8.0, "the worker computes on for the others"


def test_a_member_cut_off_before_its_first_exit_is_dropped():
    cut = Deciding(lambda request, node: ANSWER if request.exit else run_to(1, 1.0 + request.index))
    # Three together take 4 s to exit 1; they give it 1, 2 and 3 s. The fourth comes later, alone.
    done = batching([0.0, 0.0, 0.0, 10.0], policy=cut)
    assert done.outcome.tolist() == [2, 2, 2, 0]
    assert done.left_s.tolist() == [1.0, 2.0, 3.0, 12.0]
    assert done.released_s.tolist() == [4.0, 4.0, 4.0, 12.0]


def test_a_lone_member_may_be_cut_off_too():
    cut = Deciding(lambda request, node: run_to(2, 1.0) if request.exit else run_to(1))
    done = batching([0.0], policy=cut)
    assert (done.exit.tolist(), done.finished_s.tolist()) == ([1], [3.0])


def test_time_enough_cuts_nothing_off():
    patient = Deciding(lambda request, node: ANSWER if request.exit else run_to(1, 99.0))
    done = batching([0.0, 0.0, 0.0], policy=patient)
    assert done.finished_s.tolist() == [4.0] * 3


# --- crashes -------------------------------------------------------------------------------------


def test_a_crash_loses_the_batch_and_what_waits():
    # Two until 3 s, then two more; the fifth waits when the crash comes, the sixth finds no node.
    crash = Fault("node_crash", "edge", ((4.0, 10.0),))
    done = batching([0.0, 0.0, 1.0, 2.0, 3.5, 5.0, 11.0, 11.0], faults=[crash])
    assert done.outcome.tolist() == [0, 0, 3, 3, 3, 3, 0, 0]
    assert done.started_s[2:4].tolist() == [3.0, 3.0]
    assert np.isnan(done.started_s[4:6]).all()
    assert done.finished_s[6:].tolist() == [14.0, 14.0]


@pytest.mark.parametrize("count", [1, 2, 4])
@pytest.mark.parametrize("within_s", [None, 1.0])
def test_after_a_crash_a_node_has_as_many_workers_as_before(count, within_s):
    """A batch under way, cut off or not, is forgotten: nothing of it frees a worker later."""
    crash = Fault("node_crash", "edge", ((1.5, 1.6),))

    def decide(request, node):
        if request.exit:
            return ANSWER
        return run_to(1, within_s if request.index < count else None)

    policy = Deciding(decide)
    done = batching([0.0] * count + [1.7, 1.8, 1.9], size=max(count, 2), policy=policy,
                    faults=[crash])  # fmt: skip
    assert done.outcome[:count].tolist() == [3 if within_s is None else 2] * count
    first, second, third = done.started_s[count:].tolist()
    assert first == 1.7
    assert second == third == pytest.approx(3.7), "one worker: the others wait for the first"


def test_a_crash_while_a_batch_fills_loses_it():
    crash = Fault("node_crash", "edge", ((1.0, 2.0),))
    done = batching([0.0, 0.5, 2.5, 3.0], wait_s=3.0, faults=[crash])
    assert done.outcome.tolist() == [3, 3, 0, 0]
    assert np.isnan(done.started_s[:2]).all()
    assert done.started_s[2:].tolist() == [5.5, 5.5]


# --- whatever comes ------------------------------------------------------------------------------


@given(
    st.lists(st.floats(0, 30), min_size=1, max_size=40).map(sorted),
    st.integers(2, 4),
    st.floats(0, 3),
    st.integers(1, 3),
)
@examples(80)
def test_batches_against_a_loop_over_batches(times, size, wait_s, workers):
    """First in, first out, all to exit 1: the next batch begins when a worker is free and it is
    full or its first has waited long enough."""
    times = [time + 1e-6 * number for number, time in enumerate(times)]
    seconds = {1: 2.0, 2: 3.0, 3: 4.0, 4: 5.0}
    free = [0.0] * workers
    started, finished = [], []
    while len(started) < len(times):
        head = len(started)
        free_s = min(free)
        ripe_s = times[head] + wait_s
        full_s = times[head + size - 1] if head + size <= len(times) else np.inf
        begin = max(free_s, min(ripe_s, full_s))
        count = min(size, sum(time <= begin for time in times[head:]))
        free[free.index(free_s)] = begin + seconds[count]
        started += [begin] * count
        finished += [begin + seconds[count]] * count
    done = batching(times, size=size, wait_s=wait_s, workers=workers)
    np.testing.assert_allclose(done.started_s, started, atol=1e-9)
    np.testing.assert_allclose(done.finished_s, finished, atol=1e-9)


def test_under_load_batches_fill_and_raise_what_a_node_can_do():
    devices = group("devices", 20, Poisson(0.035), deadline=30.0)
    alone, together = (
        run_of(world(devices, node(SERVICE, batch_size=size), duration_s=1000.0),
               says=predictions(exits=2))
        for size in (1, 4)
    )  # fmt: skip
    assert np.mean(alone.outcome == 0) < 0.2, "2 s each is too slow for 0.7 a second"
    assert np.mean(together.outcome == 0) > 0.5, "5 s for four is not"
    assert np.mean(np.array(batches(together)) == 4) > 0.5


def test_records_of_batches_look_like_any_others():
    link = Link(direction(0.1), direction(0.2))
    devices = group("devices", 5, Poisson(0.3), link=link, deadline=9.0)
    a_world = world(devices, node(SERVICE, batch_size=4, batch_wait_s=0.5), duration_s=60.0)
    done = run_of(a_world, says=predictions(exits=2))
    frame = records_of(a_world, done, predictions(exits=2))
    assert (frame["received_s"] - frame["finished_s"]).tolist() == pytest.approx([0.2] * len(frame))
    visits = done.visits
    assert sorted(visits.request.tolist()) == list(range(len(frame)))
    spans = visits.services()
    order = np.argsort(spans.started_s)
    assert (spans.started_s[order][1:] >= spans.ended_s[order][:-1]).all(), "one batch at a time"


def test_batches_that_begin_together_are_told_apart_by_when_they_end():
    # Two workers take two each at one instant; the first and the last are done first.
    visits = Visits(
        request=np.arange(4),
        node=np.zeros(4, dtype=np.int64),
        arrived_s=np.zeros(4),
        started_s=np.ones(4),
        left_s=np.array([2.0, 5.0, 5.0, 2.0]),
        released_s=np.array([2.0, 5.0, 5.0, 2.0]),
        batch=np.full(4, 2),
    )
    services = visits.services()
    assert services.started_s.tolist() == [1.0, 1.0]
    assert sorted(services.ended_s.tolist()) == [2.0, 5.0]
