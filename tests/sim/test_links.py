"""Links: a message occupies its device's link, then travels; none overtakes an earlier one."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays_of
from tiny_worlds import (
    Deciding,
    direction,
    examples,
    group,
    node,
    records_of,
    run_of,
    world,
    written_world,
)

from sim.distributions import Exponential, Gamma, Uniform
from sim.network.hops import Leg
from sim.network.links import Channel, Link, Travels
from sim.network.transport import travel_quantile_s
from sim.policy import ANSWER, DROP, run_to
from sim.streams import Streams
from sim.workload.arrivals import Poisson

#: 1000 bytes take one second.
SLOW = 8000.0

# --- one message after the other, by hand --------------------------------------------------------


def arrivals(one_way, sent_s, u, size_bytes):
    """When one device's messages arrive; ``u`` chooses the delay of each."""
    sent_s = np.array(sent_s)
    none = np.zeros(len(sent_s), dtype=int)
    travels = Travels.of(one_way.delay.ppf(np.array(u)))
    amounts = np.full(len(none), one_way.capacity.amount(size_bytes))
    return Channel(one_way, 1, 1).arrivals(sent_s, none, none, amounts, travels).tolist()


def test_a_lone_message_takes_its_transmission_and_then_the_delay():
    assert arrivals(direction(0.3, SLOW), [2.0], [0.5], 500) == [2.0 + 0.5 + 0.3]
    assert direction(0.3, SLOW).capacity.amount(500) == 0.5


def test_messages_wait_for_the_link_but_travel_side_by_side():
    # Sent at 0, 0.5 and 5 with one second each on the link; the long way occupies nothing.
    assert arrivals(direction(10.0, SLOW), [0.0, 0.5, 5.0], [0.5] * 3, 1000) == [11.0, 12.0, 16.0]


def test_a_message_with_a_short_delay_waits_behind_an_earlier_one():
    # Uniform from 0 to 4 s: delays of 3, 1 and 2 s.
    one_way = direction(Uniform(0.0, 4.0))
    assert arrivals(one_way, [0.0, 1.0, 2.5], [0.75, 0.25, 0.5], 1000) == [3.0, 3.0, 4.5]


def test_unlimited_bandwidth_takes_no_time():
    assert direction(0.0).capacity.amount(10**9) == 0.0
    assert arrivals(direction(0.0), [0.1, 0.1, 0.2], [0.0] * 3, 10**9) == [0.1, 0.1, 0.2]


def test_every_device_has_a_link_of_its_own():
    channel = Channel(direction(0.0, SLOW), 2, 2)
    device = np.array([0, 0, 1])
    arrived = channel.arrivals(
        np.array([0.0, 0.1, 0.2]), device, device, np.ones(3), Travels.of(np.zeros(3))
    )
    assert arrived.tolist() == [1.0, 2.0, pytest.approx(1.2)]


@pytest.mark.parametrize("q", [0.05, 0.5, 0.99])
def test_quantile_of_the_travel_of_a_lone_message(q):
    leg = Leg("uplink", direction(Exponential(0.2), SLOW), direction(9.0), (500,))
    expected = 0.5 - 0.2 * np.log(1 - q)
    assert travel_quantile_s([leg.travel()], q) == pytest.approx(expected)


# --- against a loop ------------------------------------------------------------------------------


def by_loop(sent_s, delays_s, occupied_s):
    """One device's link, message by message."""
    free_s = last_s = 0.0
    arrived = []
    for sent, delay in zip(sent_s, delays_s, strict=True):
        free_s = max(sent, free_s) + occupied_s
        last_s = max(free_s + delay, last_s)
        arrived.append(last_s)
    return arrived


instants = st.lists(st.floats(0, 1000), min_size=1, max_size=30).map(sorted)
uniforms = arrays_of.arrays(float, 30, elements=st.floats(0, 1, exclude_max=True))
bandwidths = st.floats(1e3, 1e7) | st.just(float("inf"))


@given(st.lists(instants, min_size=1, max_size=4), uniforms, bandwidths, st.integers(1, 10_000))
@examples(150)
def test_all_messages_at_once_arrive_as_they_would_one_by_one(sent, u, bits_per_s, size):
    one_way = direction(Gamma(0.5, 0.4), bits_per_s)
    device = np.repeat(np.arange(len(sent)), [len(times) for times in sent])
    sent_s = np.concatenate(sent)
    delays = one_way.delay.ppf(np.concatenate([u[: len(times)] for times in sent]))
    order = np.argsort(sent_s, kind="stable")
    arrived = np.empty(len(sent_s))
    arrived[order] = Channel(one_way, len(sent), len(sent)).arrivals(
        sent_s[order],
        device[order],
        device[order],
        np.full(len(sent_s), one_way.capacity.amount(size)),
        Travels.of(delays[order]),
    )
    for row, times in enumerate(sent):
        mine = arrived[device == row]
        expected = by_loop(times, delays[device == row], 8 * size / bits_per_s)
        np.testing.assert_allclose(mine, expected, rtol=1e-12, atol=1e-9)
        assert (np.diff(mine) >= 0).all(), "order is kept"
        assert (mine >= times).all(), "nothing arrives before it is sent"


# --- in a world ----------------------------------------------------------------------------------


def test_answers_wait_for_the_downlink_of_their_device_only():
    """Answers of one second each on a link with 0.5 s of delay.

    The node serves at once (4 workers). Device 0 gets answers at 0.2 and 0.4, device 1 at 0.5.
    """
    a_world = written_world(
        [[0.1, 0.2], [0.3]],
        [0.1, 0.2, 0.2],
        workers=4,
        link=Link(direction(), direction(0.5, SLOW)),
        response_bytes=1000,
        deadline=2.0,
    )
    records = records_of(a_world, run_of(a_world))
    assert records["device"].tolist() == ["devices-0", "devices-0", "devices-1"]
    assert records["finished_s"].tolist() == pytest.approx([0.2, 0.4, 0.5])
    assert records["received_s"].tolist() == pytest.approx([1.7, 2.7, 2.0])
    assert records["outcome"].tolist() == ["on_time", "late", "on_time"]


def test_answers_reach_each_device_in_the_order_they_left():
    downlink = direction(Exponential(0.5), 100_000.0)
    a_world = world(
        group("cameras", 3, Poisson(4.0), link=Link(direction(), downlink), response_bytes=2000),
        node(Exponential(0.3), workers=6),
        duration_s=200.0,
    )
    run = run_of(a_world)
    requests = run.requests
    u = Streams(a_world.seed, 0).uniforms("downlink", "cameras")(requests.local, requests.number)
    delays = downlink.delay.ppf(u)
    overtaken = 0
    for device in range(3):
        mine = np.flatnonzero(requests.device == device)
        mine = mine[np.argsort(run.finished_s[mine], kind="stable")]
        expected = by_loop(run.finished_s[mine], delays[mine], 8 * 2000 / 100_000.0)
        np.testing.assert_allclose(run.received_s[mine], expected, rtol=1e-12)
        assert (np.diff(run.received_s[mine]) >= 0).all()
        overtaken += (np.diff(mine) < 0).sum()
    assert overtaken > 50, "with several workers answers leave in another order than they came"


def test_a_dropped_request_sends_nothing_home():
    asked = iter([DROP, run_to(1), ANSWER])
    a_world = written_world(
        [0.0, 0.1],
        [0.5, 0.5],
        link=Link(direction(), direction(0.0, SLOW)),
        response_bytes=1000,
    )
    frame = records_of(a_world, run_of(a_world, Deciding(lambda request, node: next(asked))))
    assert frame["outcome"].tolist() == ["dropped", "late"]
    assert frame["received_s"][1] == pytest.approx(0.1 + 0.5 + 1.0)
