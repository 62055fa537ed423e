"""Transport: links, and whole ways of messages, against one plain loop over messages."""

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny_worlds import (
    AtTimes,
    direction,
    examples,
    group,
    named,
    node,
    predictions,
    run_of,
    world,
)

from sim.distributions import Exponential, Gamma, Uniform
from sim.faults import Fault, Intervals
from sim.network.capacity import ConstantCapacity, TracedCapacity, with_outages
from sim.network.hops import Leg
from sim.network.links import Channel, Direction, Link, Travels
from sim.network.mqtt import Mqtt
from sim.network.retransmission import TcpLoss
from sim.network.topology import access_legs, ways
from sim.network.transport import Messages
from sim.policies import FixedExit
from sim.running.slices import Slices, messages_of
from sim.simulation import simulate_in_slices
from sim.workload.arrivals import Poisson

#: 1000 bytes take one second.
SLOW = 8000.0

# --- the reference: one message after the other --------------------------------------------------


def by_loop(capacity, sent_s, queue, flow, size_bytes, delay_s):
    """When messages arrive, with one scalar for each link and one for each connection.

    Nothing of :mod:`sim.network.links` is used, and of a capacity only that of one message on a
    free link.
    """
    free_s, last_s, arrived = {}, {}, []
    for sent, one, connection, size, delay in zip(
        sent_s, queue, flow, size_bytes, delay_s, strict=True
    ):
        start = max(sent, free_s.get(one, 0.0))
        work = capacity.work(start) + capacity.amount(size)
        free_s[one] = max(float(capacity.available(start)), float(capacity.time(work)))
        last_s[connection] = max(free_s[one] + delay, last_s.get(connection, 0.0))
        arrived.append(last_s[connection])
    return arrived


#: Rates in bit/s of seconds of 100, 200 and 300 s; nothing is carried in the second.
TRACE = TracedCapacity(np.array([0.0, 100.0, 300.0, 600.0]), np.array([4000.0, 0.0, 16000.0]))

capacities = st.sampled_from(
    [
        direction().capacity,
        direction(bits_per_s=SLOW).capacity,
        direction(bits_per_s=333.0).capacity,
        TRACE,
        with_outages(direction(bits_per_s=SLOW).capacity, [(100.0, 150.0), (600.0, 601.0)]),
        with_outages(direction().capacity, [(100.0, 150.0), (600.0, 601.0)]),
    ]
)


@st.composite
def traffic(draw):
    """Messages in the order in which they are sent, each on some link and some connection."""
    count = draw(st.integers(1, 60))
    flows = draw(st.integers(1, 8))
    queues = draw(st.integers(1, flows))
    # Whole times often coincide; others hardly ever do.
    times = st.integers(0, 20).map(float) | st.floats(0, 1000)
    sent_s = sorted(draw(st.lists(times, min_size=count, max_size=count)))
    flow = draw(st.lists(st.integers(0, flows - 1), min_size=count, max_size=count))
    sizes = draw(
        st.just([0] * count)
        | st.just([700] * count)
        | st.lists(st.integers(0, 5000), min_size=count, max_size=count)
    )
    delays = draw(
        st.just([0.0] * count)
        | st.just([2.5] * count)
        | st.lists(st.floats(0, 20), min_size=count, max_size=count)
    )
    # A connection keeps to its link.
    queue = [one % queues for one in flow]
    return np.array(sent_s), np.array(queue), np.array(flow), np.array(sizes), np.array(delays)


def channel(capacity, queues, flows):
    # The delays that the messages bring count: this only says that they differ.
    return Channel(Direction(Uniform(0.0, 20.0), capacity), queues, flows)


@given(capacities, traffic())
@examples(120)
def test_all_messages_at_once_arrive_as_one_after_the_other(capacity, messages):
    sent_s, queue, flow, sizes, delays = messages
    amounts = np.array([capacity.amount(int(size)) for size in sizes], dtype=float)
    arrived = channel(capacity, 8, 8).arrivals(sent_s, queue, flow, amounts, Travels.of(delays))
    expected = by_loop(capacity, *(column.tolist() for column in messages))
    np.testing.assert_allclose(arrived, expected, rtol=1e-9, atol=1e-9)
    assert (arrived >= sent_s + delays).all(), "nothing arrives before it can"
    for connection in set(flow.tolist()):
        assert (np.diff(arrived[flow == connection]) >= 0).all(), "order is kept"


@given(capacities, traffic(), st.lists(st.floats(0, 1000), max_size=6))
@examples(60)
def test_it_does_not_matter_where_slices_are_cut(capacity, messages, cuts):
    sent_s, queue, flow, sizes, delays = messages
    amounts = np.array([capacity.amount(int(size)) for size in sizes], dtype=float)
    whole = channel(capacity, 8, 8).arrivals(sent_s, queue, flow, amounts, Travels.of(delays))
    sliced = channel(capacity, 8, 8)
    bounds = np.searchsorted(sent_s, [0.0, *sorted(cuts), np.inf])
    parts = [
        sliced.arrivals(
            sent_s[rows], queue[rows], flow[rows], amounts[rows], Travels.of(delays[rows])
        )
        for rows in map(slice, bounds[:-1], bounds[1:])
        if rows.start < rows.stop
    ]
    np.testing.assert_allclose(np.concatenate(parts), whole, rtol=1e-12, atol=1e-9)


def test_constant_delays_on_unlimited_links_are_added_exactly():
    sent_s = np.array([0.1, 0.2, 0.7])
    none = np.zeros(3, dtype=int)
    arrived = Channel(direction(0.3), 1, 1).arrivals(
        sent_s, none, none, np.zeros(3), Travels.of(np.full(3, 0.3))
    )
    assert arrived.tolist() == [0.1 + 0.3, 0.2 + 0.3, 0.7 + 0.3]


# --- links in a world ----------------------------------------------------------------------------


def a_world(times_s, link, *, request_bytes=1000, **more):
    """Devices that send at written times; a node that takes no time."""
    devices = group(
        count=len(times_s),
        arrivals=AtTimes(tuple(times_s)),
        link=link,
        request_bytes=request_bytes,
        deadline=100.0,
    )
    return world(devices, node(mean_s=0.0), duration_s=100.0, **more)


def arrived_s(a_world):
    """(device, arrival at its node) of each request."""
    run = run_of(a_world)
    return list(zip(run.requests.device.tolist(), run.arrived_s.tolist(), strict=True))


SENT = [(0.0,), (0.25,), (0.5,), (3.0,)]


@pytest.mark.parametrize(
    ("shared_by", "expected"),
    [
        (1, [1.0, 1.25, 1.5, 4.0]),
        (2, [1.0, 2.0, 1.5, 4.0]),  # 0 and 1 share one access point, 2 and 3 another
        (3, [1.0, 2.0, 3.0, 4.0]),
        (4, [1.0, 2.0, 3.0, 4.0]),
    ],
)
def test_devices_on_one_access_point_compete_for_its_bandwidth(shared_by, expected):
    link = Link(direction(0.0, SLOW), shared_by=shared_by)
    assert arrived_s(a_world(SENT, link)) == list(enumerate(pytest.approx(x) for x in expected))


def test_groups_on_one_kind_of_link_share_its_access_points():
    """Two groups of one device each, on one access point for two."""
    link = Link(direction(0.0, SLOW), shared_by=2)
    first = group("first", 1, AtTimes(((0.0,),)), link=link)
    second = group("second", 1, AtTimes(((0.5,),)), link=link)
    run = run_of(world(first, second, node(mean_s=0.0)))
    assert run.arrived_s.tolist() == pytest.approx([1.0, 2.0])


def test_answers_compete_on_a_shared_downlink_too():
    link = Link(direction(), direction(0.0, 800.0), shared_by=2)
    run = run_of(a_world([(0.0,), (0.25,), (0.5,)], link))
    # 100 bytes of answer take a second; devices 0 and 1 share, device 2 is alone.
    assert run.received_s.tolist() == pytest.approx([1.0, 2.0, 1.5])


def test_a_message_under_way_in_an_outage_goes_on_after_it():
    """One access point for all, down from 0.5 s to 2.5 s: half of the first message waits."""
    link = Link(direction(0.0, SLOW), shared_by=2)
    outage = Fault("link_outage", named(link), ((0.5, 2.5),))
    run = run_of(a_world([(0.0,), (1.0,)], link, faults=(outage,)))
    assert run.arrived_s.tolist() == pytest.approx([3.0, 4.0])


@pytest.mark.parametrize("times", [[(0.0,), (1.0,)], [(0.0, 0.25), (1.0,)]])
def test_a_link_of_ones_own_carries_nothing_in_an_outage_either(times):
    """Both are down from 0.5 s to 2.5 s: what was under way, or behind it, goes on after that."""
    link = Link(direction(0.0, SLOW))
    outage = Fault("link_outage", named(link), ((0.5, 2.5),))
    run = run_of(a_world(times, link, faults=(outage,)))
    expected = {(0, 0.0): 3.0, (0, 0.25): 4.0, (1, 1.0): 3.5}
    found = zip(run.requests.device, run.requests.created_s, run.arrived_s, strict=True)
    for device, created_s, arrived_s in found:
        assert arrived_s == pytest.approx(expected[device, created_s])


@pytest.mark.parametrize(
    ("whole", "scale"),
    [
        (ConstantCapacity(8.0), 1.0),
        (ConstantCapacity(float("inf")), 0.0),
        (TracedCapacity(np.array([0.0, 1.0, 2.5, 3.0]), np.array([8.0, 0.0, 16.0])), 8.0),
    ],
)
def test_links_that_are_down_at_times_of_their_own_are_each_like_one_alone(whole, scale):
    """Many at once, and one by one, as one link with the same outages."""
    rng = np.random.default_rng(3)
    sent_s = np.sort(rng.uniform(0, 20, 60))
    queue, amount = rng.integers(0, 4, 60), scale * rng.uniform(0.1, 0.8, 60)
    rows = [[(2.0, 5.0)], [], [(2.0, 6.0), (7.0, 12.0)], [(2.0, float("inf"))]]
    outages = Intervals.of_rows(rows)
    one_way, travels = Direction(capacity=whole), Travels.of(np.zeros(60))
    many = Channel(one_way, 4, 4, outages).arrivals(sent_s, queue, queue, amount, travels)
    single = Channel(one_way, 4, 4, outages)
    one_by_one = [
        single.arrival(float(at), int(link), int(link), float(it), 0.0)
        for at, link, it in zip(sent_s, queue, amount, strict=True)
    ]
    assert one_by_one == pytest.approx(many.tolist())
    for link in range(4):
        mine = queue == link
        alone = replace(one_way, capacity=with_outages(one_way.capacity, outages.of(link)))
        none = np.zeros(mine.sum(), dtype=np.int64)
        expected = Channel(alone, 1, 1).arrivals(
            sent_s[mine], none, none, amount[mine], Travels.of(np.zeros(mine.sum()))
        )
        assert many[mine] == pytest.approx(expected)


@pytest.mark.parametrize(("qos", "alone"), [(0, False), (1, True)])
def test_a_window_of_one_message_is_none_at_qos_0(qos, alone):
    a_world = world(group("devices", 1, Poisson(1.0)), node(), mqtt=Mqtt(qos=qos, inflight=1))
    [leg] = access_legs(a_world, 0, "uplink")
    assert leg.alone == alone


def test_what_a_message_will_take_is_told_at_the_mean_of_a_trace():
    """Nothing for the first second, then 3 s at 8 kbit/s: 6 kbit/s."""
    trace = TracedCapacity(np.array([0.0, 1.0, 4.0]), np.array([0.0, 8000.0]))
    for capacity in (trace, with_outages(trace, [(2.0, 3.0)])):
        leg = Leg("uplink", Direction(capacity=capacity), Direction(), (750,))
        assert leg.travel() == (pytest.approx(1.0), [])


def test_links_whose_outages_begin_together_and_end_apart_are_not_alike():
    outages = Intervals.of_rows([[(1.0, 3.0)], [(1.0, 5.0)]])
    both, none = np.array([0, 1]), np.zeros(2)
    channel = Channel(Direction(capacity=ConstantCapacity(8.0)), 2, 2, outages)
    arrived = channel.arrivals(np.array([2.0, 2.0]), both, both, none + 0.5, Travels.of(none))
    assert arrived.tolist() == [3.5, 5.5]


def test_every_link_of_a_kind_has_outages_of_its_own():
    link = Link(direction(0.001), direction(0.001))
    devices = group("devices", 30, Poisson(5.0), link=link)
    fault = Fault("link_outage", named(link), mtbf_s=20.0, mttr_s=2.0)
    run = run_of(world(devices, node(mean_s=0.0), duration_s=60.0, faults=(fault,)))
    held = run.arrived_s - run.requests.created_s > 0.0011
    ends = {
        device: set(np.round(run.arrived_s[held & (run.requests.device == device)] - 0.001, 9))
        for device in range(30)
    }
    assert 0.03 < held.mean() < 0.25
    assert sum(map(bool, ends.values())) > 20
    assert len(set.union(*ends.values())) == sum(map(len, ends.values())), "no end is another's"
    assert (run.outcome == 0).mean() > 0.8, "an outage delays; it loses nothing"
    assert not np.isnan(run.received_s).any()


def test_bandwidth_follows_a_trace():
    """1 kB/s for a second, nothing for two, then 2 kB/s for three; and over again."""
    capacity = TracedCapacity(np.array([0.0, 1.0, 3.0, 6.0]), np.array([8000.0, 0.0, 16000.0]))
    link = Link(Direction(capacity=capacity))
    times = [(0.5, 0.6, 4.0, 5.75)]
    # The second begins with 0 s left; it is through half a second after 3.25 s. The last has 500
    # bytes through at 6 s.
    expected = [0.5 + 0.5 + 2.0 + 0.25, 3.75, 4.5, 6.5]
    assert [at for _, at in arrived_s(a_world(times, link))] == pytest.approx(expected)


def test_loss_shows_as_delay_and_keeps_order():
    lossy = Direction(loss=TcpLoss(0.2, rto_min_s=0.2), rtt_s=0.05)
    devices = group("devices", 5, Poisson(10.0), link=Link(lossy), deadline=1.0)
    run = run_of(world(devices, node(mean_s=0.0), duration_s=200.0))
    delay = run.arrived_s - run.requests.created_s
    assert not np.isnan(run.received_s).any(), "TCP loses no message"
    at_once = delay < 1e-9
    # A message of one segment is lost with 0.2; others wait behind one that was.
    assert 0.2 < 1 - at_once.mean() < 0.75
    assert (delay[~at_once].max()) > 0.25 + 0.5, "timeouts double"
    for device in range(5):
        mine = run.arrived_s[run.requests.device == device]
        assert (np.diff(mine) >= 0).all()
        # Who waits behind another arrives with it.
        assert (np.diff(mine) == 0).any()


def test_loss_of_a_lone_message_is_its_timeouts():
    # One message in 100 s: nobody waits behind another. RTO 0.25 s, doubling.
    lossy = Direction(loss=TcpLoss(0.3, rto_min_s=0.2), rtt_s=0.05)
    devices = group("devices", 4000, AtTimes(tuple((float(n % 7),) for n in range(4000))),
                    link=Link(lossy))  # fmt: skip
    run = run_of(world(devices, node(mean_s=0.0)))
    delay = np.round(run.arrived_s - run.requests.created_s, 9)
    values, counts = np.unique(delay, return_counts=True)
    assert values[:4].tolist() == [0.0, 0.25, 0.75, 1.75]
    expected = 4000 * 0.7 * 0.3 ** np.arange(4)
    assert np.abs(counts[:4] - expected).max() < 5 * np.sqrt(expected.max())


# --- whole ways ----------------------------------------------------------------------------------


LINK = Link(
    direction(Gamma(0.02, 0.03), 1e5),
    direction(Exponential(0.02), 2e5, loss=TcpLoss(0.05), rtt_s=0.04),
    shared_by=2,
)
MQTT = Mqtt(qos=2, processing=Exponential(0.003), backhaul=Link(direction(Gamma(0.01, 0.01), 1e6)))
FAULTS = (
    Fault("node_crash", "edge", mtbf_s=5.0, mttr_s=1.0),
    Fault("broker_restart", mtbf_s=6.0, mttr_s=0.5),
    Fault("device_churn", "cameras", mtbf_s=7.0, mttr_s=1.0),
)
KINDS = {
    "direct": {},
    "mqtt": {"mqtt": MQTT},
    "faults": {"mqtt": MQTT, "faults": FAULTS},
    "persistent": {
        "mqtt": Mqtt(qos=1, persistent=True, reconnect_s=0.2, processing=Exponential(0.003)),
        "faults": FAULTS,
    },
}


def busy_world(**more):
    cameras = group("cameras", 6, Poisson(8.0), link=LINK, request_bytes=900)
    meters = group("meters", 3, Poisson(3.0), request_bytes=50)
    edge = node(Exponential(0.004), replicas=3)
    return world(cameras, meters, edge, duration_s=20.0, **more)


def columns(messages: Messages):
    order = np.argsort(messages.request)
    return messages.request[order], messages.node[order], messages.at_s[order]


@pytest.mark.parametrize("kind", KINDS)
@given(cuts=st.lists(st.floats(0.01, 22.0), max_size=8, unique=True))
@examples(12)
def test_a_way_in_slices_is_the_way_in_one_go(kind, cuts):
    this = busy_world(**KINDS[kind])
    workload = Slices(this, np.zeros(1, dtype=np.int32), 0)
    parts = list(workload.slices())
    requests = parts[0].requests
    assert len(requests) > 500, "all of it is created in the first of two slices"

    def travelled(ends):
        way, _ = ways(this, workload.streams, workload.absences)
        done, given_until = [], 0.0
        for end in ends:
            rows = (requests.created_s >= given_until) & (requests.created_s < end)
            messages = messages_of(requests, 0).where(rows)
            arrived, lost = way.advance(messages, end)
            assert (arrived.at_s < end).all()
            assert (arrived.at_s >= given_until).all(), "none arrives in a slice that is over"
            assert (np.diff(arrived.at_s) >= 0).all()
            done.append((arrived, lost))
            given_until = end
        return [Messages.joined(list(part)) for part in zip(*done, strict=True)]

    arrived, lost = travelled([math.inf])
    in_slices, lost_in_slices = travelled([*sorted(cuts), math.inf])
    assert len(arrived) + len(lost) == len(requests)
    for one, other in ((arrived, in_slices), (lost, lost_in_slices)):
        whole, sliced = columns(one), columns(other)
        np.testing.assert_array_equal(whole[0], sliced[0])
        np.testing.assert_array_equal(whole[1], sliced[1])
        np.testing.assert_allclose(whole[2], sliced[2], rtol=0, atol=1e-9)


@pytest.mark.parametrize("kind", KINDS)
def test_a_run_in_slices_is_the_run_in_one_go(kind, monkeypatch):
    this = busy_world(**KINDS[kind])
    whole = run_of(this)
    monkeypatch.setattr("sim.running.slices.SLICE_REQUESTS", 20)
    sliced = run_of(this)
    assert len(list(Slices(this, np.zeros(1, dtype=np.int32), 0).slices())) > 20
    for name in ("node", "exit", "outcome"):
        np.testing.assert_array_equal(getattr(sliced, name), getattr(whole, name))
    for name in ("arrived_s", "started_s", "finished_s", "received_s", "released_s"):
        np.testing.assert_allclose(getattr(sliced, name), getattr(whole, name), atol=1e-9)


def test_each_request_is_in_one_part_of_a_run_in_slices(monkeypatch):
    monkeypatch.setattr("sim.running.slices.SLICE_REQUESTS", 50)
    this = busy_world(**KINDS["faults"])
    says = predictions()
    workload = Slices(this, says.label, 0)
    parts = list(simulate_in_slices(this, workload, says, FixedExit(1)))
    assert len(parts) > 10
    assert sum(len(part) > 0 for part in parts) > 10, "what is done is given away at once"
    index = np.concatenate([part.index for part in parts])
    assert sorted(index.tolist()) == list(range(len(index)))
    for part in parts:
        assert (np.diff(part.index) > 0).all()
