"""Every request offered is recorded once, with one outcome that its own columns explain."""

from dataclasses import dataclass

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from tiny_worlds import (
    AtTimes,
    Fickle,
    direction,
    examples,
    group,
    named,
    predictions,
    profile,
    random_predictions,
    records_of,
    run_of,
    table_of,
    world,
    written_world,
)

from sim.distributions import Constant, Exponential, Gamma, Lognormal, TruncatedNormal, Uniform
from sim.faults import Fault
from sim.network.links import Direction, Link
from sim.network.mqtt import Mqtt
from sim.network.retransmission import TcpLoss
from sim.nodes.service import DistributedService, ProfiledService
from sim.nodes.spec import NodeSpec
from sim.outcomes import OUTCOMES
from sim.policies import Confidence, DeadlineAware, FixedExit
from sim.policy import ANSWER, DROP, OFFLOAD, run_to
from sim.results import records
from sim.workload.arrivals import ClosedLoop, Periodic, Poisson

#: As DESIGN.md, section 3, lists them.
COLUMNS = [
    "strategy", "training_seed", "policy", "replication", "request", "device", "group", "node",
    "sample", "label", "created_s", "deadline_s", "arrived_s", "started_s", "finished_s",
    "received_s", "exit", "predicted", "confidence", "correct", "outcome",
]  # fmt: skip
ONLY_IF_ANSWERED = ["finished_s", "received_s", "exit", "predicted", "confidence"]
EXITS, SAMPLES = 3, 7

# --- random small worlds -------------------------------------------------------------------------

seconds = st.floats(0.001, 2.0)
distributions = st.one_of(
    st.builds(Constant, st.just(0.0) | seconds),
    st.builds(Uniform, st.just(0.0), seconds),
    st.builds(Exponential, seconds),
    st.builds(TruncatedNormal, seconds, seconds),
    st.builds(Lognormal, seconds, st.floats(0.1, 1.5)),
    st.builds(Gamma, seconds, seconds),
)
directions = st.builds(direction, distributions, st.floats(1e3, 1e6) | st.just(float("inf")))
links = st.builds(Link, directions, directions)
rates = st.floats(0.1, 8.0)
arrivals = st.builds(Poisson, rates) | st.builds(Periodic, rates)


@st.composite
def services(draw):
    speed = draw(st.sampled_from([0.5, 1.0, 3.0]))
    if draw(st.booleans()):
        return DistributedService(draw(distributions), EXITS, speed)
    random = np.random.default_rng(draw(st.integers(0, 99)))
    exit, segment, branch = random.uniform(0.01, 0.5, (3, 20, EXITS))
    return ProfiledService(profile(np.cumsum(exit, axis=1), segment, branch), speed)


@st.composite
def worlds(draw):
    nodes = [
        NodeSpec(f"node{number}", draw(st.integers(1, 3)), draw(services()))
        for number in range(draw(st.integers(1, 2)))
    ]
    groups = [
        group(
            f"group{number}",
            draw(st.integers(1, 4)),
            draw(arrivals),
            draw(distributions),
            draw(links),
            draw(st.sampled_from(nodes)).name,
            draw(st.integers(1, 3000)),
            draw(st.integers(1, 3000)),
        )
        for number in range(draw(st.integers(1, 3)))
    ]
    warm_up_s = draw(st.sampled_from([0.0, 0.7, 3.0]))
    seed = draw(st.integers(0, 1000))
    return world(*groups, *nodes, warm_up_s=warm_up_s, duration_s=4.0, seed=seed)


policies = st.one_of(
    st.builds(FixedExit, st.integers(1, EXITS)),
    st.builds(Confidence, st.floats(0, 1)),
    st.builds(DeadlineAware, st.floats(0.05, 0.95), st.sampled_from(["earliest_exit", "drop"])),
    st.builds(Fickle, st.integers(2, 9)),
)


@given(worlds(), policies, st.sampled_from([0.3, 1.0, 4.0]), st.integers(0, 5))
@examples(80)
def test_every_request_has_one_record_that_its_columns_explain(
    a_world, policy, deadline_scale, replication
):
    says = random_predictions(SAMPLES, EXITS, seed=replication)
    run = run_of(a_world, policy, says, replication, deadline_scale)
    requests = run.requests
    frame = records_of(a_world, run, says)
    offered = np.flatnonzero(requests.created_s >= a_world.warm_up_s)

    # One record for each request of the measured window, and none besides.
    assert list(frame.columns) == COLUMNS
    assert frame["request"].tolist() == offered.tolist()
    assert frame["created_s"].tolist() == requests.created_s[offered].tolist()
    assert frame["created_s"].between(a_world.warm_up_s, a_world.horizon_s, "left").all()
    assert (frame["replication"] == replication).all()

    # Times in order, missing exactly where they never happened.
    for earlier, later in (
        ("created_s", "arrived_s"),
        ("arrived_s", "started_s"),
        ("started_s", "finished_s"),
        ("finished_s", "received_s"),
    ):
        both = frame[[earlier, later]].dropna()
        assert (both[earlier] <= both[later]).all(), (earlier, later)
    assert frame["started_s"].notna().all(), "the policies here refuse only what a worker took"
    answered = frame["received_s"].notna()
    for column in ONLY_IF_ANSWERED:
        assert (frame[column].notna() == answered).all(), column

    # The outcome follows from the columns. Nothing in these worlds loses a request.
    in_time = frame["received_s"] - frame["created_s"] <= frame["deadline_s"]
    expected = np.where(~answered, "dropped", np.where(in_time, "on_time", "late"))
    assert frame["outcome"].tolist() == expected.tolist()

    # What was answered is what the predictions say of this sample at this exit.
    row_of = {sample: row for row, sample in enumerate(says.sample.tolist())}
    rows = frame["sample"].map(row_of)
    assert frame["label"].tolist() == says.label[rows].tolist()
    columns = frame["exit"][answered].to_numpy(int) - 1
    predicted = says.predicted[rows[answered], columns]
    assert frame["predicted"][answered].to_numpy(int).tolist() == predicted.tolist()
    confidence = says.confidence[rows[answered], columns]
    assert frame["confidence"][answered].tolist() == confidence.tolist()
    correct = answered & (frame["predicted"] == frame["label"]).fillna(False)
    assert frame["correct"].tolist() == correct.tolist()

    # Devices belong to their group, groups to their node; a node takes what it gets in order,
    # and never more than it has workers for.
    node_of = {one.name: one.node for one in a_world.groups}
    assert frame["node"].tolist() == frame["group"].map(node_of).tolist()
    assert [name.rpartition("-")[0] for name in frame["device"]] == frame["group"].tolist()
    for node in a_world.nodes:
        here = run.node == a_world.nodes.index(node)
        order = np.argsort(run.arrived_s[here], kind="stable")
        assert (np.diff(run.started_s[here][order]) >= 0).all()
        served = here & (run.exit > 0)
        begins, ends = np.sort(run.started_s[served]), np.sort(run.finished_s[served])
        busy = np.arange(1, len(begins) + 1) - np.searchsorted(ends, begins, side="right")
        assert (busy <= node.workers).all()


# --- random worlds with everything ---------------------------------------------------------------

durations = st.builds(Constant, st.floats(0, 0.2)) | st.builds(Exponential, st.floats(0.001, 0.2))
ways = st.builds(
    direction,
    durations,
    st.floats(1e4, 1e6) | st.just(float("inf")),
    loss=st.none() | st.builds(TcpLoss, st.floats(0, 0.2)),
)
shared_links = st.builds(Link, ways, ways, st.integers(1, 3))
brokers = st.builds(
    Mqtt,
    version=st.sampled_from(["3.1.1", "5"]),
    qos=st.sampled_from([0, 1, 2]),
    tls=st.booleans(),
    processing=durations,
    backhaul=shared_links,
    inflight=st.none() | st.integers(1, 4),
    persistent=st.booleans(),
    reconnect_s=st.sampled_from([0.0, 0.3]),
    share=st.sampled_from(["round_robin", "random"]),
)
PROFILE = profile(
    np.cumsum(np.full((5, EXITS), 0.02) * np.arange(1, 6)[:, None], axis=1),
    np.full((5, EXITS), 0.02) * np.arange(1, 6)[:, None],
)
PROFILE.seconds[4] = {name: 2 * table for name, table in PROFILE.seconds[1].items()}
BATCHED = ProfiledService(PROFILE, largest_batch=4)


def faults_of(kind, target):
    return st.builds(
        Fault, st.just(kind), st.just(target), mtbf_s=st.floats(0.5, 5.0), mttr_s=st.floats(0, 2.0),
        factor=st.just(0.5),
    )  # fmt: skip


@st.composite
def worlds_with_everything(draw):
    link = draw(shared_links)
    kinds = [
        ("node_crash", "edge"),
        ("node_crash", "cloud"),
        ("slow_node", "edge"),
        ("broker_restart", ""),
        ("device_churn", "cameras"),
        ("link_outage", named(link)),
    ]
    edge = NodeSpec(
        "edge",
        draw(st.integers(1, 3)),
        BATCHED,
        discipline=draw(st.sampled_from(["fifo", "edf", "priority"])),
        queue_limit=draw(st.none() | st.integers(0, 5)),
        admission=draw(st.sampled_from(["all", "feasible"])),
        batch_size=draw(st.sampled_from([1, 4])),
        batch_wait_s=draw(st.sampled_from([0.0, 0.05])),
        replicas=draw(st.integers(1, 2)),
        next_tier=draw(st.sampled_from([None, "cloud"])),
    )
    computes = draw(st.booleans())
    cameras = group(
        "cameras",
        3,
        draw(arrivals | st.builds(ClosedLoop, durations)),
        draw(st.floats(0.05, 2.0)),
        link,
        service=BATCHED if computes else None,
        last_exit=draw(st.integers(1, EXITS)) if computes else None,
    )
    meters = group("meters", 2, Poisson(3.0), 0.5, link, priority=1)
    return world(
        cameras, meters, edge, NodeSpec("cloud", 1, BATCHED), duration_s=4.0,
        seed=draw(st.integers(0, 1000)), mqtt=draw(st.none() | brokers), state_bytes=(500, 200),
        faults=tuple(draw(st.lists(st.one_of(*[faults_of(*it) for it in kinds]), max_size=3))),
    )  # fmt: skip


@dataclass
class Roaming:
    """Cuts off, sends on, answers and drops by turns."""

    asked: int = 0

    def decide(self, request, node):
        self.asked += 1
        if node.next_tier and self.asked % 3 == 0:
            return OFFLOAD
        if request.exit >= node.exit_count or (request.exit and self.asked % 4 == 0):
            return ANSWER
        if self.asked % 11 == 0:
            return DROP
        return run_to(request.exit + 1, 0.03 if self.asked % 2 else None)


@given(worlds_with_everything(), policies | st.builds(Roaming))
@examples(50)
def test_whatever_happens_every_request_has_one_outcome(a_world, policy):
    if any(one.last_exit for one in a_world.groups) and not isinstance(policy, Roaming):
        policy = Roaming()
    says = random_predictions(SAMPLES, EXITS, seed=1)
    done = run_of(a_world, policy, says)
    frame = records_of(a_world, done, says)
    assert frame["request"].tolist() == list(range(len(frame)))
    assert (np.diff(frame["created_s"]) >= 0).all()
    assert set(frame["outcome"]) <= set(OUTCOMES)
    answered = frame["received_s"].notna()
    assert answered.tolist() == frame["outcome"].isin(["on_time", "late"]).tolist()
    assert (frame["exit"].notna() == frame["finished_s"].notna()).all()
    assert frame["exit"][answered].notna().all()
    assert frame["exit"][frame["outcome"] == "dropped"].isna().all()
    for earlier, later in (
        ("created_s", "arrived_s"),
        ("arrived_s", "started_s"),
        ("started_s", "finished_s"),
        ("finished_s", "received_s"),
    ):
        both = frame[[earlier, later]].dropna()
        assert (both[earlier] <= both[later]).all(), (earlier, later)

    # Visits: in the order of time, and never more at once than there are workers.
    visits = done.visits
    waited = visits.started_s[~np.isnan(visits.started_s)]
    assert (visits.arrived_s[~np.isnan(visits.started_s)] <= waited).all()
    assert (np.fmax(visits.started_s, visits.arrived_s) <= visits.left_s).all()
    came = np.bincount(visits.request, minlength=len(frame)) > 0
    assert (frame["arrived_s"].notna() == came).all()
    spans = visits.services()
    for server in np.unique(spans.node).tolist():
        here = spans.node == server
        begins, ends = np.sort(spans.started_s[here]), np.sort(spans.ended_s[here])
        busy = np.arange(1, len(begins) + 1) - np.searchsorted(ends, begins, side="right")
        specs = a_world.node_specs
        assert (busy <= (specs[server].workers if server < len(specs) else 1)).all()


# --- by hand -------------------------------------------------------------------------------------


def test_each_request_of_a_hand_worked_day():
    """Two devices; 1 s up, 2 s of service, 0.5 s back, a deadline of 5 s."""
    a_world = written_world(
        [[0.0, 3.0], [0.5, 10.0]],
        [2.0, 2.0, 2.0, 2.0],
        deadline=5.0,
        link=Link(Direction(Constant(1.0)), Direction(Constant(0.5))),
    )
    frame = records_of(a_world, run_of(a_world))
    assert frame["device"].tolist() == ["devices-0", "devices-1", "devices-0", "devices-1"]
    assert frame["created_s"].tolist() == [0.0, 0.5, 3.0, 10.0]
    assert frame["arrived_s"].tolist() == [1.0, 1.5, 4.0, 11.0]
    assert frame["started_s"].tolist() == [1.0, 3.0, 5.0, 11.0]
    assert frame["finished_s"].tolist() == [3.0, 5.0, 7.0, 13.0]
    assert frame["received_s"].tolist() == [3.5, 5.5, 7.5, 13.5]
    # The second takes 5 s and is just in time.
    assert frame["outcome"].tolist() == ["on_time"] * 4
    halved = records_of(a_world, run_of(a_world, deadline_scale=0.8))
    assert halved["deadline_s"].tolist() == [4.0] * 4
    assert halved["outcome"].tolist() == ["on_time", "late", "late", "on_time"]


def test_only_the_measured_window_is_recorded_and_all_of_it_is_followed_to_its_end():
    # The warm-up's request keeps the worker busy; the window's last is answered long after it.
    a_world = written_world(
        [1.0, 2.0, 2.9], [5.0, 5.0, 5.0], warm_up_s=2.0, duration_s=1.0, deadline=100.0
    )
    frame = records_of(a_world, run_of(a_world))
    assert frame["request"].tolist() == [1, 2]
    assert frame["created_s"].tolist() == [2.0, 2.9]
    assert frame["started_s"].tolist() == [6.0, 11.0]
    assert frame["received_s"].tolist() == [11.0, 16.0]
    assert frame["outcome"].tolist() == ["on_time", "on_time"]


def test_a_dropped_request_keeps_its_start_and_nothing_after_it():
    a_world = written_world([0.0, 1.0], [[2.0, 3.0], [2.0, 3.0]], deadline=50.0)
    says = predictions(exits=2)
    # Asked thrice: on to exit 1; drop; on to exit 1; at exit 1, drop.
    frame = records_of(a_world, run_of(a_world, Fickle(2), says), says)
    assert frame["outcome"].tolist() == ["dropped", "dropped"]
    assert frame["started_s"].tolist() == [0.0, 2.0]
    assert frame[ONLY_IF_ANSWERED].isna().all(axis=None)
    assert frame["correct"].tolist() == [False, False]


def test_a_world_without_requests_has_records_without_rows():
    too_late = group(arrivals=AtTimes(((50.0,),)))
    a_world = world(too_late, duration_s=10.0)
    frame = records_of(a_world, run_of(a_world))
    assert len(frame) == 0
    assert list(frame.columns) == COLUMNS


def test_columns_are_those_of_the_design_with_outcomes_by_name():
    a_world = world()
    table = table_of(a_world, run_of(a_world))
    assert table.column_names == COLUMNS
    assert table.schema.equals(records.SCHEMA)
    assert OUTCOMES == ("on_time", "late", "dropped", "lost")
