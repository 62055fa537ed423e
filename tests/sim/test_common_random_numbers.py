"""Arms of a comparison meet the same requests, and no part of a world reshuffles another's."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny_worlds import examples, group, node, random_predictions, records_of, run_of, world

from sim.distributions import Exponential, Gamma, Uniform
from sim.links import Direction, Link
from sim.policies import Confidence, DeadlineAware, FixedExit
from sim.service import DistributedService
from sim.streams import Streams
from sim.workload import Periodic, Poisson, Requests, draw_requests

LINK = Link(Direction(Gamma(0.02, 0.01), 1e6), Direction(Gamma(0.02, 0.01), 1e6))
CAMERAS = group("cameras", 3, Poisson(2.0), Uniform(0.1, 0.5), LINK)
METERS = group("meters", 2, Periodic(1.5), Exponential(0.4), LINK)
EDGE = dataclasses.replace(node(), service=DistributedService(Exponential(0.1), 3))
SHARED = ["request", "device", "node", "sample", "label", "created_s", "arrived_s"]


def drawn(*groups, seed=1, replication=0, horizon_s=20.0, samples=50):
    return draw_requests(groups, samples, horizon_s, Streams(seed, replication))


def by_device(requests: Requests, groups):
    """Everything drawn for each device, by its name."""
    names = [(one.name, number) for one in groups for number in range(one.count)]
    fields = [name for name in Requests.__dataclass_fields__ if name not in ("group", "device")]
    return {
        name: np.array([getattr(requests, field)[requests.device == index] for field in fields])
        for index, name in enumerate(names)
    }


# --- arms ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("policy", "says_seed", "deadline_scale"),
    [
        (FixedExit(3), 1, 1.0),
        (FixedExit(1), 2, 1.0),
        (Confidence(0.6), 1, 1.0),
        (DeadlineAware(0.9, "drop"), 1, 1.0),
        (FixedExit(1), 1, 0.25),
    ],
)
def test_arms_see_the_same_requests(policy, says_seed, deadline_scale):
    a_world = world(CAMERAS, METERS, EDGE, warm_up_s=1.0)
    one = random_predictions(50, 3, seed=1)
    other = random_predictions(50, 3, seed=says_seed)
    other = dataclasses.replace(other, sample=one.sample, label=one.label)
    reference = records_of(a_world, run_of(a_world, FixedExit(1), one), one)
    arm = records_of(a_world, run_of(a_world, policy, other, 0, deadline_scale), other)
    assert len(reference) > 50
    assert arm[SHARED].equals(reference[SHARED])
    assert arm["deadline_s"].tolist() == (reference["deadline_s"] * deadline_scale).tolist()
    # The arms do differ in what comes of the requests.
    assert not arm.drop(columns=SHARED).equals(reference.drop(columns=SHARED))


def test_arms_of_one_workload_leave_it_as_it_was():
    a_world = world(CAMERAS, EDGE)
    run = run_of(a_world, FixedExit(1))
    again = run_of(a_world, FixedExit(1))
    for field in Requests.__dataclass_fields__:
        before, after = (
            getattr(run.workload.requests, field),
            getattr(again.workload.requests, field),
        )
        np.testing.assert_array_equal(before, after)
    assert run.received_s.tolist() == again.received_s.tolist()


# --- other devices and groups --------------------------------------------------------------------


@given(
    st.lists(st.sampled_from([CAMERAS, METERS]), min_size=1, max_size=2, unique=True),
    st.integers(0, 1),
    st.integers(1, 60),
    st.integers(0, 10**6),
)
@examples(40)
def test_adding_devices_to_a_group_reshuffles_no_other(groups, which, more, seed):
    which = min(which, len(groups) - 1)
    grown = list(groups)
    grown[which] = dataclasses.replace(groups[which], count=groups[which].count + more)
    before = by_device(drawn(*groups, seed=seed), groups)
    after = by_device(drawn(*grown, seed=seed), grown)
    assert len(after) == len(before) + more
    for name, requests in before.items():
        np.testing.assert_array_equal(after[name], requests)


def test_devices_that_need_more_numbers_than_are_drawn_at_a_time_reshuffle_no_other(monkeypatch):
    # So few at a time that every device comes back for more, some more often than others.
    monkeypatch.setattr("sim.workload.block_length", lambda rate_hz, horizon_s: 3)
    crowd = dataclasses.replace(CAMERAS, count=200)
    few, many = drawn(CAMERAS), drawn(crowd)
    assert np.bincount(many.device).max() > 10 + np.bincount(few.device).max()
    after = by_device(many, [crowd])
    for name, requests in by_device(few, [CAMERAS]).items():
        np.testing.assert_array_equal(after[name], requests)


@pytest.mark.parametrize("first", [True, False])
def test_adding_a_group_reshuffles_no_other(first):
    added = group("intruders", 7, Poisson(5.0), Uniform(0.1, 0.5), LINK)
    before_groups = [CAMERAS, METERS]
    after_groups = [added, *before_groups] if first else [*before_groups, added]
    before = by_device(drawn(*before_groups), before_groups)
    after = by_device(drawn(*after_groups), after_groups)
    assert len(after) == len(before) + 7
    for name, requests in before.items():
        np.testing.assert_array_equal(after[name], requests)


@pytest.mark.parametrize(
    "change",
    [
        {"deadline": Exponential(9.0)},
        {"link": Link(Direction(Exponential(0.3)), Direction())},
        {"request_bytes": 9},
        {"response_bytes": 9},
        {"node": "elsewhere"},
    ],
)
def test_changing_one_part_of_a_group_leaves_its_other_draws_alone(change):
    before = drawn(CAMERAS)
    after = drawn(dataclasses.replace(CAMERAS, **change))
    for field in ("created_s", "sample", "service_u", "device"):
        np.testing.assert_array_equal(getattr(after, field), getattr(before, field))


@given(st.integers(1, 5), st.integers(1, 4), st.integers(1, 40))
@examples(40)
def test_rows_of_uniform_numbers_depend_on_no_other_row_and_grow_at_the_end_only(
    devices, more, columns
):
    streams = Streams(seed=3, replication=1)
    few = streams.device_uniforms("arrivals", "cameras", devices, block=8)
    many = streams.device_uniforms("arrivals", "cameras", devices + more, block=8)
    ahead = many.first(columns + 9).copy()
    np.testing.assert_array_equal(many.first(columns)[:devices], few.first(columns))
    np.testing.assert_array_equal(ahead[:, :columns], many.first(columns))
    assert few.first(columns).shape == (devices, columns)
    assert len(np.unique(ahead)) == ahead.size, "no number is drawn twice"


# --- independence of what should be independent --------------------------------------------------


@pytest.mark.parametrize("other", [{"replication": 1}, {"seed": 2}])
def test_replications_and_seeds_differ_in_everything(other):
    one, two = drawn(CAMERAS, METERS), drawn(CAMERAS, METERS, **other)
    for field in ("created_s", "deadline_s", "arrived_s", "service_u", "downlink_s"):
        assert not set(getattr(one, field)) & set(getattr(two, field)), field
    both = min(len(one), len(two))
    assert (one.sample[:both] == two.sample[:both]).mean() < 0.2


def test_a_seed_and_its_replications_are_not_another_seed():
    firsts = {
        Streams(seed, replication).generator("arrivals", "cameras").random()
        for seed in range(30)
        for replication in range(30)
    }
    assert len(firsts) == 900


def test_components_and_groups_have_streams_of_their_own():
    streams = Streams(1, 0)
    names = [
        (component, name, block)
        for component in ("arrivals", "service", "uplink")
        for name in ("cameras", "meters")
        for block in (0, 1)
    ]
    columns = np.array([streams.generator(*name).random(20_000) for name in names])
    correlation = np.corrcoef(columns) - np.eye(len(names))
    assert np.abs(correlation).max() < 5 / np.sqrt(20_000)


def test_what_is_drawn_for_a_request_is_independent_of_all_else_drawn_for_it():
    # All of it mapped back to uniform numbers; two groups alike but for their names. Delays are
    # so short that no message waits for the one before it.
    uniform, short = Uniform(0.0, 1.0), Uniform(0.0, 1e-6)
    link = Link(Direction(short), Direction(short))
    groups = [group(name, 1, Poisson(1.0), uniform, link) for name in ("cameras", "meters")]
    columns = []
    for index in (0, 1):
        requests = drawn(*groups, horizon_s=21_000.0, samples=10**6)
        mine = np.flatnonzero(requests.group == index)[:20_000]
        gaps = np.diff(requests.created_s[mine], prepend=0.0)
        columns += [
            np.exp(-gaps),
            requests.deadline_s[mine],
            requests.sample[mine] / 10**6,
            requests.arrived_s[mine] - requests.created_s[mine],
            requests.service_u[mine],
            requests.downlink_s[mine],
        ]
    correlation = np.corrcoef(columns) - np.eye(len(columns))
    assert np.abs(correlation).max() < 5 / np.sqrt(20_000)


def test_the_same_seed_and_replication_draw_the_same():
    one, two = drawn(CAMERAS, METERS, seed=9), drawn(CAMERAS, METERS, seed=9)
    for field in Requests.__dataclass_fields__:
        np.testing.assert_array_equal(getattr(one, field), getattr(two, field))


# --- what the draws are --------------------------------------------------------------------------


def test_requests_come_in_the_order_of_their_creation():
    requests = drawn(CAMERAS, METERS)
    assert (np.diff(requests.created_s) >= 0).all()
    assert (requests.created_s < 20.0).all()
    assert requests.device.max() == 4
    assert requests.group.tolist() == [0 if device < 3 else 1 for device in requests.device]


def test_samples_are_picked_evenly_from_the_whole_test_set():
    counts = np.bincount(drawn(CAMERAS, horizon_s=5000.0, samples=20).sample, minlength=20)
    assert len(counts) == 20
    expected = counts.sum() / 20
    assert np.abs(counts - expected).max() < 5 * np.sqrt(expected)
