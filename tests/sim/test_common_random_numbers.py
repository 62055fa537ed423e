"""Arms of a comparison meet the same requests, and no part of a world reshuffles another's."""

import dataclasses

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny_worlds import (
    direction,
    examples,
    group,
    named,
    node,
    predictions,
    random_predictions,
    records_of,
    run_of,
    world,
)

from sim.distributions import Exponential, Gamma, Uniform
from sim.network.links import Link
from sim.nodes.service import DistributedService
from sim.policies import Confidence, DeadlineAware, FixedExit
from sim.running.slices import Slices
from sim.simulation import simulate
from sim.streams import Streams
from sim.workload.arrivals import OnOff, Periodic, Poisson
from sim.workload.device_groups import Requests
from sim.workload.samples import Correlated, Shuffled

LINK = Link(direction(Gamma(0.02, 0.01), 1e6), direction(Gamma(0.02, 0.01), 1e6))
CAMERAS = group("cameras", 3, Poisson(2.0), Uniform(0.1, 0.5), LINK)
METERS = group("meters", 2, Periodic(1.5), Exponential(0.4), LINK)
EDGE = dataclasses.replace(node(), service=DistributedService(Exponential(0.1), 3))
SHARED = ["request", "device", "node", "sample", "label", "created_s", "arrived_s"]


def drawn(*groups, seed=1, replication=0, horizon_s=20.0, samples=50) -> pd.DataFrame:
    """Everything drawn for each request, as it shows where nodes take no time at all."""
    nodes = [node(mean_s=0.0, name=name) for name in ("edge", "elsewhere")]
    a_world = world(*groups, *nodes, duration_s=horizon_s, seed=seed)
    run = run_of(a_world, says=predictions(samples), replication=replication)
    columns = {name: getattr(run.requests, name) for name in Requests.__dataclass_fields__}
    home_s = run.received_s - run.finished_s
    return pd.DataFrame(columns | {"arrived_s": run.arrived_s, "home_s": home_s})


def by_device(requests: pd.DataFrame, groups):
    """Everything drawn for each device, by its name."""
    names = [(one.name, number) for one in groups for number in range(one.count)]
    return {
        name: requests[requests["device"] == index].drop(columns=["group", "device"])
        for index, name in enumerate(names)
    }


def assert_unchanged(before, after):
    """Each device of ``before`` drew the same. Times on links are sums, up to their last digits."""
    for name, requests in before.items():
        for column in requests:
            if column in ("arrived_s", "home_s"):
                np.testing.assert_allclose(after[name][column], requests[column], rtol=1e-9)
            else:
                np.testing.assert_array_equal(after[name][column], requests[column])


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
    says = random_predictions(50, 3, seed=1)
    workload = Slices(a_world, says.label, replication=0)
    run, other, again = (
        simulate(a_world, workload, says, FixedExit(1), scale) for scale in (1.0, 0.1, 1.0)
    )
    for field in Requests.__dataclass_fields__:
        for arm in (other, again):
            np.testing.assert_array_equal(
                getattr(run.requests, field), getattr(arm.requests, field)
            )
    assert run.received_s.tolist() == again.received_s.tolist()
    assert run.deadline_s.tolist() == again.deadline_s.tolist()
    assert run.outcome.tolist() == again.outcome.tolist() != other.outcome.tolist()


# --- other devices and groups --------------------------------------------------------------------


BURSTS = group("bursts", 2, OnOff(9.0, 0.0, 1.0, 2.0), Exponential(0.4), LINK, samples=Shuffled())
FILMS = group("films", 2, Poisson(3.0), Uniform(0.1, 0.5), LINK, samples=Correlated(4.0))


@given(
    st.lists(
        st.sampled_from([CAMERAS, METERS, BURSTS, FILMS]), min_size=1, max_size=2, unique=True
    ),
    st.integers(0, 1),
    st.integers(1, 60),
    st.integers(0, 10**6),
)
@examples(25)
def test_adding_devices_to_a_group_reshuffles_no_other(groups, which, more, seed):
    which = min(which, len(groups) - 1)
    grown = list(groups)
    grown[which] = dataclasses.replace(groups[which], count=groups[which].count + more)
    before = by_device(drawn(*groups, seed=seed), groups)
    after = by_device(drawn(*grown, seed=seed), grown)
    assert len(after) == len(before) + more
    assert_unchanged(before, after)


def test_devices_that_need_more_numbers_than_are_drawn_at_a_time_reshuffle_no_other():
    # A crowd draws fewer numbers of each device at a time: some come back for more.
    crowd = dataclasses.replace(CAMERAS, count=2000)
    few, many = drawn(CAMERAS), drawn(crowd)
    assert np.bincount(many["device"]).max() > 10 + np.bincount(few["device"]).max()
    assert_unchanged(by_device(few, [CAMERAS]), by_device(many, [CAMERAS]))


@pytest.mark.parametrize("first", [True, False])
def test_adding_a_group_reshuffles_no_other(first):
    added = group("intruders", 7, Poisson(5.0), Uniform(0.1, 0.5), LINK)
    before_groups = [CAMERAS, METERS]
    after_groups = [added, *before_groups] if first else [*before_groups, added]
    before = by_device(drawn(*before_groups), before_groups)
    after = by_device(drawn(*after_groups), after_groups)
    assert len(after) == len(before) + 7
    assert_unchanged(before, after)


@pytest.mark.parametrize(
    "change",
    [
        {"deadline": Exponential(9.0)},
        {"link": named(Link(direction(Exponential(0.3)), direction()))},
        {"request_bytes": 9},
        {"response_bytes": 9},
        {"node": "elsewhere"},
    ],
)
def test_changing_one_part_of_a_group_leaves_its_other_draws_alone(change):
    before = drawn(CAMERAS)
    after = drawn(dataclasses.replace(CAMERAS, **change))
    for field in ("created_s", "sample", "service_u", "device"):
        assert after[field].tolist() == before[field].tolist()


# --- independence of what should be independent --------------------------------------------------


@pytest.mark.parametrize("other", [{"replication": 1}, {"seed": 2}])
def test_replications_and_seeds_differ_in_everything(other):
    one, two = drawn(CAMERAS, METERS), drawn(CAMERAS, METERS, **other)
    for field in ("created_s", "deadline_s", "arrived_s", "service_u", "home_s"):
        assert not set(one[field]) & set(two[field]), field
    both = min(len(one), len(two))
    assert (one["sample"][:both] == two["sample"][:both]).mean() < 0.2


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
        (component, name)
        for component in ("arrivals/gap", "service", "uplink", "uplink.1", "downlink")
        for name in ("cameras", "meters")
    ]
    position = np.arange(20_000)
    none = np.zeros_like(position)
    columns = np.array([streams.uniforms(*name)(none, position) for name in names])
    correlation = np.corrcoef(columns) - np.eye(len(names))
    assert np.abs(correlation).max() < 5 / np.sqrt(20_000)


def test_what_is_drawn_for_a_request_is_independent_of_all_else_drawn_for_it():
    # All of it mapped back to uniform numbers; two groups alike but for their names. Delays are
    # so short that no message waits for the one before it.
    uniform, short = Uniform(0.0, 1.0), Uniform(0.0, 1e-6)
    link = Link(direction(short), direction(short))
    groups = [group(name, 1, Poisson(1.0), uniform, link) for name in ("cameras", "meters")]
    columns = []
    requests = drawn(*groups, horizon_s=21_000.0, samples=100_000)
    for index in (0, 1):
        mine = requests[requests["group"] == index][:20_000]
        columns += [
            np.exp(-np.diff(mine["created_s"], prepend=0.0)),
            mine["deadline_s"],
            mine["sample"],
            mine["arrived_s"] - mine["created_s"],
            mine["service_u"],
            mine["home_s"],
        ]
    correlation = np.corrcoef(columns) - np.eye(len(columns))
    assert np.abs(correlation).max() < 5 / np.sqrt(20_000)


def test_the_same_seed_and_replication_draw_the_same():
    one, two = drawn(CAMERAS, METERS, seed=9), drawn(CAMERAS, METERS, seed=9)
    pd.testing.assert_frame_equal(one, two, check_exact=True)


# --- what the draws are --------------------------------------------------------------------------


def test_requests_come_in_the_order_of_their_creation():
    requests = drawn(CAMERAS, METERS)
    assert (np.diff(requests.created_s) >= 0).all()
    assert (requests.created_s < 20.0).all()
    assert requests.device.max() == 4
    assert requests["group"].tolist() == [0 if device < 3 else 1 for device in requests.device]


def test_samples_are_picked_evenly_from_the_whole_test_set():
    counts = np.bincount(drawn(CAMERAS, horizon_s=5000.0, samples=20)["sample"], minlength=20)
    assert len(counts) == 20
    expected = counts.sum() / 20
    assert np.abs(counts - expected).max() < 5 * np.sqrt(expected)
