"""Nodes: first come, first served, by k workers that do what the policy decides."""

import threading
from dataclasses import dataclass, field

import numpy as np
import pytest
from tiny_worlds import (
    Deciding,
    WrittenService,
    direction,
    group,
    node,
    predictions,
    profile,
    records_of,
    run_of,
    world,
    written_world,
)

from models.errors import PolicyError
from sim.distributions import Constant, Exponential
from sim.network.links import Direction, Link
from sim.nodes.service import ProfiledService
from sim.policies import Confidence, DeadlineAware, FixedExit
from sim.policy import ANSWER, DROP, run_to

# --- workers and the queue -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("workers", "started_s"),
    [
        (1, [0.0, 3.0, 5.0, 6.0]),
        (2, [0.0, 1.0, 3.0, 3.0]),
        (3, [0.0, 1.0, 1.5, 2.5]),
        (4, [0.0, 1.0, 1.5, 2.0]),
    ],
)
def test_workers_take_requests_in_order_of_arrival(workers, started_s):
    a_world = written_world([0.0, 1.0, 1.5, 2.0], [3.0, 2.0, 1.0, 1.0], workers=workers)
    assert run_of(a_world).started_s.tolist() == started_s


def test_order_is_that_of_arrival_not_of_creation():
    slow_link = Link(Direction(Constant(5.0)), Direction())
    a_world = world(
        group("far", arrivals=written_world([0.0], [1.0]).groups[0].arrivals, link=slow_link),
        group("near", arrivals=written_world([1.0], [1.0]).groups[0].arrivals),
        node(WrittenService([[9.0], [9.0]])),
    )
    run = run_of(a_world)
    assert run.requests.created_s.tolist() == [0.0, 1.0]
    assert run.started_s.tolist() == [10.0, 1.0]


# --- decisions -----------------------------------------------------------------------------------


def test_exits_are_computed_one_after_the_other_until_the_policy_is_content():
    confidences = [[0.9, 0.1, 0.1], [0.1, 0.9, 0.1], [0.1, 0.1, 0.1]]
    says = predictions(confidence=confidences)
    a_world = world(
        group(count=3),
        node(ProfiledService(profile([[1.0, 9.0, 9.0]], [[0.0, 2.0, 4.0]]))),
        duration_s=30.0,
    )
    run = run_of(a_world, Confidence(0.5), says)
    frame = records_of(a_world, run, says)
    assert set(frame["sample"]) == {0, 1, 2}
    for sample, exit, confidence, seconds in ((0, 1, 0.9, 1), (1, 2, 0.9, 3), (2, 3, 0.1, 7)):
        rows = frame[frame["sample"] == sample]
        assert (rows["exit"] == exit).all()
        assert rows["confidence"].to_numpy() == pytest.approx(confidence)
        times = (rows["finished_s"] - rows["started_s"]).to_numpy()
        assert times == pytest.approx(np.full(len(rows), float(seconds)))


def test_a_dropped_request_frees_its_worker_at_once():
    asked = iter([run_to(1), ANSWER, DROP, DROP, run_to(1), ANSWER])
    a_world = written_world([0.0, 0.1, 0.2, 0.3], [1.0] * 4)
    run = run_of(a_world, Deciding(lambda request, node: next(asked)))
    assert run.started_s.tolist() == [0.0, 1.0, 1.0, 1.0]
    assert run.exit.tolist() == [1, 0, 0, 1]
    assert run.finished_s[[0, 3]].tolist() == [1.0, 2.0]


def test_ten_thousand_requests_in_the_queue_can_all_be_dropped_at_once():
    count = 10_000
    times = [0.0, *(0.001 * number for number in range(1, count + 1))]
    a_world = written_world(times, [100.0] + [0.001] * count, deadline=1.0)
    run = run_of(a_world, DeadlineAware(0.5, when_none_fits="drop"))
    assert run.started_s[1:].tolist() == [100.0] * count
    assert run.exit.tolist() == [1] + [0] * count
    assert records_of(a_world, run)["outcome"].value_counts().to_dict() == {
        "dropped": count,
        "late": 1,
    }


# --- what a policy sees --------------------------------------------------------------------------


def test_what_a_policy_sees_each_time_it_is_asked():
    """1 s up and 0.5 s of transmission home; two exits after 2 and 3 s; a deadline of 10 s."""
    seen = []

    def note(request, node):
        seen.append((request.exit, request.confidence, request.remaining_s, node.queue_length))
        assert (node.name, node.workers, node.exit_count) == ("edge", 1, 2)
        assert node.latencies_s(0.5) == (2.0, 3.0)
        assert node.latencies_s(0.5, since=1) == (1.0,)
        assert request.way_home_s(0.9) == 0.5
        return (run_to(1), run_to(2), ANSWER)[request.exit]

    a_world = written_world(
        [0.0, 1.0, 1.5],
        [[2.0, 3.0]] * 3,
        deadline=10.0,
        link=Link(Direction(Constant(1.0)), direction(0.0, 8000.0)),
        response_bytes=500,
    )
    run_of(a_world, Deciding(note), predictions(confidence=[[0.25, 0.75]]))
    nothing = pytest.approx(float("nan"), nan_ok=True)
    assert seen == [
        (0, nothing, 9.0, 0),  # at 1 s: one on its way up
        (1, 0.25, 7.0, 2),  # at 3 s: the second since 2 s and the third since 2.5 s
        (2, 0.75, 6.0, 2),
        (0, nothing, 7.0, 1),  # at 4 s: the third waits; this one was created at 1 s
        (1, 0.25, 5.0, 1),
        (2, 0.75, 4.0, 1),
        (0, nothing, 4.5, 0),
        (1, 0.25, 2.5, 0),
        (2, 0.75, 1.5, 0),
    ]


def test_the_way_home_is_a_quantile_of_transmission_and_delay():
    ways = []

    def note(request, node):
        ways.append(request.way_home_s(0.5))
        return ANSWER if request.exit else run_to(1)

    link = Link(Direction(Constant(9.0)), direction(Exponential(1.0), 8000.0))
    run_of(written_world([0.0], [1.0], link=link, response_bytes=500), Deciding(note))
    assert ways == pytest.approx([0.5 + np.log(2)] * 2)


def test_a_scaled_deadline_is_what_the_policy_sees():
    left = []

    def note(request, node):
        left.append(request.remaining_s)
        return ANSWER if request.exit else run_to(1)

    run_of(written_world([0.0], [1.0], deadline=4.0), Deciding(note), deadline_scale=0.5)
    assert left == [2.0, 1.0]


# --- state ---------------------------------------------------------------------------------------


@dataclass
class EverySecond:
    """Drops every second request it sees; keeps a count, and a list to show what is shared."""

    seen: int = 0
    names: list[str] = field(default_factory=list)

    def decide(self, request, node):
        if request.exit:
            return ANSWER
        self.seen += 1
        self.names.append(node.name)
        assert set(self.names) == {node.name}, "a node's policy sees that node only"
        return run_to(1) if self.seen % 2 else DROP


def test_a_policy_keeps_state_for_each_node_and_run_apart():
    a_world = world(
        group("cameras", 2, node="near"), group("meters", 2, node="far"), node(name="near"),
        node(name="far"),
    )  # fmt: skip
    policy = EverySecond()
    runs = [run_of(a_world, policy) for _ in range(2)]
    assert (policy.seen, policy.names) == (0, [])
    for run in runs:
        for index in (0, 1):
            here = np.flatnonzero(run.node == index)
            order = here[np.argsort(run.arrived_s[here])]
            exits = run.exit[order].tolist()
            assert len(exits) > 5
            assert exits == [number % 2 for number in range(1, len(exits) + 1)]


class Otherwise:
    """Keeps a decision as its own, as a policy with a configurable fallback would."""

    def __init__(self, fallback):
        self.fallback = fallback

    def decide(self, request, node):
        return ANSWER if request.exit else self.fallback


@pytest.mark.parametrize(("fallback", "exits"), [(DROP, [0]), (run_to(1), [1])])
def test_a_policy_may_keep_decisions_as_attributes(fallback, exits):
    run = run_of(written_world([0.0], [1.0]), Otherwise(fallback))
    assert run.exit.tolist() == exits


# --- policies that fail in a run -----------------------------------------------------------------


class Faulty:
    """Decides well until request 2, then what it is told to; ``at_exit`` of the request."""

    def __init__(self, decision, at_exit=0):
        self.decision = decision
        self.at_exit = at_exit
        self.taken = -1

    def decide(self, request, node):
        if not request.exit:
            self.taken += 1
        if self.taken == 2 and request.exit == self.at_exit:
            return self.decision()
        return ANSWER if request.exit == node.exit_count else run_to(request.exit + 1)


def raise_one():
    raise LookupError("nothing in the table")


@pytest.mark.parametrize(
    ("decision", "at_exit", "parts"),
    [
        (raise_one, 0, ["raised LookupError: nothing in the table"]),
        (raise_one, 1, ["raised LookupError: nothing in the table", "after exit 1"]),
        (lambda: None, 0, ["decided None"]),
        (lambda: "DROP", 0, ["decided 'DROP'"]),
        (lambda: 2, 0, ["decided 2"]),
        (lambda: True, 1, ["decided True"]),
        (lambda: ANSWER, 0, ["decided ANSWER", "after exit 0"]),
        (lambda: run_to(4), 0, ["decided run_to(4)", "run_to(3)"]),
        (lambda: run_to(1), 1, ["decided run_to(1)", "run_to(2) to run_to(3)"]),
        (lambda: run_to(1), 2, ["decided run_to(1)", "after exit 2"]),
        (lambda: run_to(99), 0, ["run"]),
    ],
)
def test_a_policy_that_fails_is_named_with_the_request_it_failed_on(decision, at_exit, parts):
    a_world = written_world([0.0, 10.0, 20.0, 30.0], [[1.0, 2.0, 3.0]] * 4)
    with pytest.raises(PolicyError) as error:
        run_of(a_world, Faulty(decision, at_exit))
    for part in ["Faulty", "request 2 ", "'edge'", *parts]:
        assert part in str(error.value)


def test_a_fixed_exit_that_the_network_lacks():
    with pytest.raises(PolicyError, match=r"FixedExit\(exit=2\).*decided run_to\(2\)"):
        run_of(written_world([0.0], [1.0]), FixedExit(2))


def test_a_policy_that_cannot_be_copied_for_its_nodes_is_named():
    class Locked(FixedExit):
        def __init__(self):
            object.__setattr__(self, "exit", 1)
            object.__setattr__(self, "lock", threading.Lock())

    with pytest.raises(PolicyError, match="Locked"):
        run_of(written_world([0.0], [1.0]), Locked())
