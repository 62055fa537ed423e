"""The inbox: orders, limits and batches as in the simulator, bounds and threads besides."""

import threading

import pytest
from fake_runtime import eventually, image_of, node_spec

from devices.node.inbox import Inbox
from devices.node.views import LiveRequest
from devices.node.way_estimates import DeviceWays
from devices.protocol.message_types import InferenceRequest


class Hand:
    """A clock that somebody sets."""

    def __init__(self):
        self.now_s = 100.0

    def __call__(self):
        return self.now_s


@pytest.fixture
def clock():
    return Hand()


def request_(clock, id=0, deadline_s=1.0, ways=None, **asked):
    asked = InferenceRequest(id, deadline_s, image=image_of(id % 256), **asked)
    return LiveRequest(asked, ways or DeviceWays(), clock(), clock)


def ids(batch):
    return [request.asked.id for request in batch]


def fill(inbox, clock, requests):
    for request in requests:
        assert inbox.offer(request) is None


@pytest.mark.parametrize(
    ("discipline", "expected"),
    [("fifo", [0, 1, 2, 3]), ("edf", [2, 0, 3, 1]), ("priority", [1, 3, 0, 2])],
)
def test_the_discipline_says_who_is_next(clock, discipline, expected):
    inbox = Inbox(node_spec(discipline=discipline), clock)
    deadlines, priorities = (0.5, 0.9, 0.1, 0.5), (0, 5, 0, 5)
    fill(
        inbox,
        clock,
        [
            request_(clock, id, deadline_s, priority=priority)
            for id, (deadline_s, priority) in enumerate(zip(deadlines, priorities, strict=True))
        ],
    )
    assert [ids(inbox.take())[0] for _ in range(4)] == expected


def test_a_deadline_counts_from_creation_not_from_arrival(clock):
    inbox = Inbox(node_spec(discipline="edf"), clock)
    fill(inbox, clock, [request_(clock, 0, 0.5), request_(clock, 1, 0.8, age_s=0.4)])
    assert ids(inbox.take()) == [1]


# --- admission -----------------------------------------------------------------------------------


def test_idle_workers_take_at_once_what_a_limit_of_none_waiting_admits(clock):
    inbox = Inbox(node_spec(workers=2, queue_limit=0), clock)
    fill(inbox, clock, [request_(clock, 0), request_(clock, 1)])
    assert inbox.offer(request_(clock, 2)) == "queue_full"
    inbox.take()
    assert inbox.offer(request_(clock, 3)) == "queue_full"
    inbox.take()
    assert inbox.offer(request_(clock, 4)) == "queue_full"
    inbox.done()
    assert inbox.offer(request_(clock, 5)) is None


def test_a_limit_is_of_those_that_wait(clock):
    inbox = Inbox(node_spec(queue_limit=2), clock)
    fill(inbox, clock, [request_(clock, 0)])
    inbox.take()
    fill(inbox, clock, [request_(clock, 1), request_(clock, 2)])
    assert inbox.offer(request_(clock, 3)) == "queue_full"


def test_feasible_refuses_what_could_not_be_in_time_at_the_first_exit(clock):
    # The first exit takes 10 ms of the one worker.
    inbox = Inbox(node_spec(0.010, admission="feasible"), clock)
    assert inbox.offer(request_(clock, 0, 0.009)) == "infeasible"
    assert inbox.offer(request_(clock, 1, 0.011)) is None
    inbox.take()
    # Itself, and 10 ms for its place in the queue; the one being computed does not count.
    assert inbox.offer(request_(clock, 2, 0.019)) == "infeasible"
    assert inbox.offer(request_(clock, 3, 0.021)) is None
    assert inbox.offer(request_(clock, 4, 0.029)) == "infeasible"
    assert inbox.offer(request_(clock, 5, 0.031)) is None


def test_feasible_counts_the_way_home_and_shares_work_among_workers(clock):
    inbox = Inbox(node_spec(0.010, workers=2, admission="feasible"), clock)
    ways = DeviceWays()
    ways.heard(clock(), None, 0.040)  # 20 ms each way, of which the way up is spent already
    assert inbox.offer(request_(clock, 0, 0.049, ways)) == "infeasible"
    assert inbox.offer(request_(clock, 1, 0.051, ways)) is None
    inbox.take()
    fill(inbox, clock, [request_(clock, 2)])
    inbox.take()
    assert inbox.offer(request_(clock, 3, 0.014)) == "infeasible"
    assert inbox.offer(request_(clock, 4, 0.016)) is None


def test_no_scenario_lets_more_wait_than_the_bounds(clock):
    inbox = Inbox(node_spec(), clock, most_waiting=2)
    fill(inbox, clock, [request_(clock, 0), request_(clock, 1)])
    assert inbox.offer(request_(clock, 2)) == "queue_full"


def test_what_waits_is_bounded_in_bytes(clock):
    inbox = Inbox(node_spec(batch_size=2), clock, most_bytes=2 * len(image_of(0)))
    fill(inbox, clock, [request_(clock, 0), request_(clock, 1)])
    assert inbox.offer(request_(clock, 2)) == "queue_full"
    inbox.take()
    fill(inbox, clock, [request_(clock, 3), request_(clock, 4)])


# --- batches -------------------------------------------------------------------------------------


def test_a_batch_is_what_waits_up_to_its_size(clock):
    inbox = Inbox(node_spec(batch_size=3), clock)
    fill(inbox, clock, [request_(clock, id) for id in range(5)])
    assert ids(inbox.take()) == [0, 1, 2]
    assert ids(inbox.take()) == [3, 4]


def test_a_small_batch_leaves_when_its_first_has_waited_long_enough(clock):
    inbox = Inbox(node_spec(batch_size=3, batch_wait_s=0.050), clock)
    fill(inbox, clock, [request_(clock, 0)])
    clock.now_s += 0.051
    fill(inbox, clock, [request_(clock, 1)])
    assert ids(inbox.take()) == [0, 1]


def test_who_has_waited_longest_begins_a_batch_though_others_are_more_urgent(clock):
    inbox = Inbox(node_spec(discipline="edf", batch_size=3, batch_wait_s=0.050), clock)
    fill(inbox, clock, [request_(clock, 0, deadline_s=9.0)])
    clock.now_s += 0.051
    fill(inbox, clock, [request_(clock, 1, deadline_s=1.0)])
    assert ids(inbox.take()) == [1, 0]


def test_a_worker_waits_for_a_batch_to_fill(clock):
    inbox = Inbox(node_spec(batch_size=2, batch_wait_s=30.0), clock)
    taken = []
    worker = threading.Thread(target=lambda: taken.append(inbox.take()))
    worker.start()
    fill(inbox, clock, [request_(clock, 0)])
    worker.join(0.05)
    assert not taken
    fill(inbox, clock, [request_(clock, 1)])
    worker.join(10)
    assert ids(taken[0]) == [0, 1]


# --- threads, and the end ------------------------------------------------------------------------


def test_a_worker_sleeps_until_something_comes(clock):
    inbox = Inbox(node_spec(), clock)
    taken = []
    worker = threading.Thread(target=lambda: taken.append(inbox.take()))
    worker.start()
    fill(inbox, clock, [request_(clock, 7)])
    worker.join(10)
    assert ids(taken[0]) == [7]
    assert inbox.idle_workers == 0
    inbox.done()
    assert inbox.idle_workers == 1


def test_every_request_is_taken_once_by_one_of_many_workers(clock):
    inbox = Inbox(node_spec(workers=4), clock)
    taken, lock = [], threading.Lock()

    def work():
        while batch := inbox.take():
            with lock:
                taken.extend(ids(batch))
            inbox.done()

    workers = [threading.Thread(target=work) for _ in range(4)]
    for worker in workers:
        worker.start()
    fill(inbox, clock, [request_(clock, id) for id in range(2000)])
    assert inbox.drain(20)
    assert inbox.close() == []
    for worker in workers:
        worker.join(10)
    assert sorted(taken) == list(range(2000))


def test_draining_refuses_what_comes_and_waits_for_what_is_there(clock):
    inbox = Inbox(node_spec(batch_size=8, batch_wait_s=30.0), clock)
    fill(inbox, clock, [request_(clock, 0)])
    assert not inbox.drain(0.01)
    assert inbox.offer(request_(clock, 1)) == "draining"
    assert ids(inbox.take()) == [0]  # although the batch is not full
    assert not inbox.drain(0.01)
    finished = threading.Thread(target=lambda: eventually(lambda: inbox.drain(10)))
    finished.start()
    inbox.done()
    finished.join(10)
    assert inbox.drain(0.0)


def test_a_closed_inbox_gives_back_what_waits_and_sends_workers_home(clock):
    inbox = Inbox(node_spec(), clock)
    fill(inbox, clock, [request_(clock, 0), request_(clock, 1)])
    assert ids(inbox.close()) == [0, 1]
    assert inbox.take() == []
    assert inbox.offer(request_(clock, 2)) == "draining"
