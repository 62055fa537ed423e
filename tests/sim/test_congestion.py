"""Congestion windows: flights by hand, against closed forms, and one by one against all at once."""

from dataclasses import fields, replace

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from tiny_worlds import direction, examples

from sim.distributions import Constant, Uniform
from sim.network.capacity import ConstantCapacity, TracedCapacity, with_outages
from sim.network.congestion import CONTROLS, INITIAL_WINDOW
from sim.network.hops import Leg
from sim.network.links import Channel, Direction, Travels
from sim.network.mqtt_packets import MSS
from sim.network.retransmission import Repair, TcpLoss
from sim.network.tcp_senders import Crossing, Senders, lone_delay_s
from sim.network.transport import travel_quantile_s

RTT = 0.04
RTO = RTT + 0.2
FAST = 1.25 * RTT
LOSS = 0.5


def senders(control="reno", loss=LOSS, rtt_s=RTT, flows=3):
    return Senders(CONTROLS[control], rtt_s, TcpLoss(loss) if loss else None, flows)


def number_of(segments, *repairs):
    """A number that chooses, for ``segments`` sent at once, what is to become of them."""
    loss, wanted = TcpLoss(LOSS), repairs[0] if repairs else None
    return next(
        u for u in np.linspace(0, 1, 100_000, endpoint=False).tolist()
        if loss.draw(u, segments, more=False)[0] == wanted
    )  # fmt: skip


def delays(of, *messages, segment_s=0.0, alone=False):
    """Of messages of one connection: when each begins, its segments, and how it is repaired."""
    found = []
    for begin_s, segments, *repairs in messages:
        end_s = begin_s + segments * segment_s
        u = number_of(segments, *repairs) if repairs else 0.0
        found.append(of.delay(0, Crossing(begin_s, end_s, segments, u, alone)))
    return found


FAST_REPAIR, TIMEOUT, TWO_TIMEOUTS = Repair(True, 0), Repair(False, 1), Repair(False, 2)


# --- without losses, by hand ---------------------------------------------------------------------


@pytest.mark.parametrize("loss", [None, LOSS])
@pytest.mark.parametrize(
    ("segments", "round_trips"), [(1, 0), (10, 0), (11, 1), (30, 1), (31, 2), (70, 2), (71, 3)]
)
def test_slow_start_doubles_what_is_sent_in_each_round_trip(segments, round_trips, loss):
    assert delays(senders(loss=loss), (5.0, segments)) == pytest.approx([round_trips * RTT])
    lone_s = lone_delay_s(CONTROLS["reno"], RTT, segments, 0.0)
    assert lone_s == pytest.approx(round_trips * RTT)


def test_a_window_that_has_grown_is_there_for_the_next_message():
    # 10 and 20 segments; once they are acknowledged, 30 at once.
    assert delays(senders(), (0.0, 30), (0.2, 30)) == pytest.approx([RTT, 0.0])


def test_after_a_pause_longer_than_the_timeout_a_sender_starts_anew():
    last_s = RTT  # the second flight
    assert delays(senders(), (0.0, 30), (last_s + RTO - 0.001, 30))[1] == 0.0
    # Halved at every timeout, from the 40 that it has grown to, to no less than 10.
    assert delays(senders(), (0.0, 30), (last_s + RTO + 0.001, 20))[1] == 0.0
    assert delays(senders(), (0.0, 30), (last_s + RTO + 0.001, 21))[1] == pytest.approx(RTT)
    assert delays(senders(), (0.0, 30), (last_s + 9 * RTO, 10))[1] == 0.0
    assert delays(senders(), (0.0, 30), (last_s + 9 * RTO, 11))[1] == pytest.approx(RTT)


def test_what_is_under_way_takes_room():
    # 8 of 10 are under way until 0.04; of the next 4, two go at once.
    assert delays(senders(), (0.0, 8), (0.01, 4)) == pytest.approx([0.0, 0.03])
    assert delays(senders(), (0.0, 8), (0.041, 4)) == [0.0, 0.0]


def test_a_window_that_is_not_made_use_of_does_not_grow():
    little = [(0.1 * n, 3) for n in range(50)]
    assert delays(senders(), *little, (5.0, 11))[-1] == pytest.approx(RTT)


def test_every_connection_has_a_window_of_its_own():
    of, eight = senders(), Crossing(0.0, 0.0, 8, 0.0, alone=False)
    assert [of.delay(flow, eight) for flow in (0, 1, 0)] == [0.0, 0.0, pytest.approx(RTT)]


def test_a_message_waits_behind_what_its_connection_has_not_sent_yet():
    # 10 segments, 11 a round trip later, and the last one behind them.
    assert delays(senders(), (0.0, 21), (0.01, 1)) == pytest.approx([RTT, 0.03])


# --- against a closed form -----------------------------------------------------------------------


@examples(200)
@given(st.integers(1, 3000), st.floats(0, 0.01), st.floats(1e-3, 0.6))
def test_a_lone_message_waits_as_the_textbook_says(segments, segment_s, rtt_s):
    """Kurose & Ross: each flight but the last stalls for the rest of its round trip."""
    stalls, flight, left = 0.0, INITIAL_WINDOW, segments
    while left > flight:
        stalls += max(rtt_s + segment_s - flight * segment_s, 0.0)
        left -= flight
        flight *= 2
    found = lone_delay_s(CONTROLS["reno"], rtt_s, segments, segments * segment_s)
    if segment_s * INITIAL_WINDOW < rtt_s + segment_s or segments <= INITIAL_WINDOW:
        assert found == pytest.approx(stalls, rel=1e-6, abs=1e-6)
    else:
        assert found == pytest.approx(0.0, abs=1e-6), "the link is never idle"


# --- losses, by hand -----------------------------------------------------------------------------


@pytest.mark.parametrize(("control", "left"), [("reno", 5), ("cubic", 7)])
def test_a_fast_retransmit_leaves_a_part_of_the_window(control, left):
    def second(segments):
        # Long enough after the repair, and before a pause counts.
        return delays(senders(control), (0.0, 3, FAST_REPAIR), (0.15, segments))

    assert second(left) == pytest.approx([FAST, 0.0])
    assert second(left + 1) == pytest.approx([FAST, RTT])


def test_after_a_timeout_a_sender_sends_one_segment_and_starts_slowly():
    # The only segment is lost: repeated after the timeout, and acknowledged a round trip later;
    # that doubles the window. Then 2 segments, 4, and up to 5, half of what it was.
    found = delays(senders(), (0.0, 1, TIMEOUT), (RTO + RTT + 0.01, 11))
    assert found == pytest.approx([RTO, 2 * RTT]), "2 + 4 + 5"


def test_losses_of_one_flight_halve_the_window_once():
    # Both messages were under way when the first loss was noticed.
    two = (0.0, 3, FAST_REPAIR), (0.01, 3, FAST_REPAIR)
    found = delays(senders(), *two, (0.2, 5), (0.2, 1))
    assert found == pytest.approx([FAST, FAST, 0.0, RTT])


def test_a_window_that_is_full_grows_by_one_segment_in_a_round_trip():
    # Halved to 5; five segments fill it, and make it 6.
    found = delays(senders(), (0.0, 3, FAST_REPAIR), (0.15, 5), (0.2, 6), (0.25, 8))
    assert found == pytest.approx([FAST, 0.0, 0.0, RTT])


def test_a_loss_before_the_last_flight_is_repaired_while_the_next_is_sent():
    # One of the first 10 segments is lost. When that is known, 4 of the others go, beside its
    # repetition in a window of 5; the last one a round trip later.
    loss = TcpLoss(LOSS)
    first_lost = next(
        u for u in np.linspace(0, 0.5, 10**5).tolist()
        if loss.draw(u, 10, True)[0] == FAST_REPAIR
        and loss.draw(loss.draw(u, 10, True)[1], 4, True)[0] is None
        and loss.draw(loss.draw(loss.draw(u, 10, True)[1], 4, True)[1], 1, False)[0] is None
    )  # fmt: skip
    found = senders().delay(0, Crossing(0.0, 0.0, 15, first_lost, alone=False))
    assert found == pytest.approx(2 * RTT)


every_100_ms = [(0.1 * n, 1) for n in range(5)]


def test_the_next_message_repairs_what_the_timer_would():
    assert delays(senders(), *every_100_ms, (0.5, 1, TIMEOUT))[-1] == pytest.approx(0.1 + RTT)
    # Of several segments, the timer starts when the others are acknowledged.
    assert delays(senders(), *every_100_ms, (0.5, 3, TIMEOUT))[-1] == pytest.approx(0.1 + RTT)
    # Its repetition is lost as well: that is for the timer, whose first timeout it is.
    twice = delays(senders(), *every_100_ms, (0.5, 1, TWO_TIMEOUTS))[-1]
    assert twice == pytest.approx(0.1 + RTT + RTO)
    # One that comes at once tells of the loss when it cannot have overtaken what is lost.
    dense = [(0.001 * n, 1) for n in range(5)]
    assert delays(senders(), *dense, (0.005, 1, TIMEOUT))[-1] == pytest.approx(1.25 * RTT)


def test_a_timer_that_is_sooner_than_the_next_message_repairs_it():
    assert delays(senders(), (0.0, 1), (1.0, 1, TIMEOUT))[-1] == pytest.approx(RTO)
    assert delays(senders(), (0.0, 1, TIMEOUT)) == pytest.approx([RTO]), "the next is not known"


def test_nobody_repairs_the_loss_of_one_who_waits_for_an_answer():
    found = delays(senders(), *every_100_ms, (0.5, 1, TIMEOUT), alone=True)
    assert found[-1] == pytest.approx(RTO)


def test_a_message_that_never_leaves_its_link_is_not_delayed_besides():
    never = Crossing(np.inf, np.inf, 3, 0.999, alone=False)
    assert senders().delay(0, never) == 0.0


# --- on links ------------------------------------------------------------------------------------


def link(delay=None, loss=None, capacity=None):
    return Direction(
        delay or Constant(RTT / 2),
        capacity or ConstantCapacity(float("inf")),
        TcpLoss(loss) if loss else None,
        RTT,
        CONTROLS["reno"],
    )


def test_a_small_message_does_not_overtake_a_long_one_that_waits():
    # 30 segments at 0: the last arrives a round trip later; a small one at 0.01 with it.
    sent_s, none = np.array([0.0, 0.01, 0.08]), np.zeros(3, dtype=np.int64)
    travels = Travels(
        np.full(3, RTT / 2), np.zeros(3), np.array([30, 1, 1]), np.zeros(3, dtype=bool)
    )
    arrived = Channel(link(), 1, 1).arrivals(sent_s, none, none, np.zeros(3), travels)
    assert arrived == pytest.approx([1.5 * RTT, 1.5 * RTT, 0.08 + 0.5 * RTT])


def test_a_slow_link_is_never_idle_for_want_of_acknowledgements():
    # 10 segments take 58 ms, longer than a round trip.
    slow = link(capacity=ConstantCapacity(8 * MSS * 10 / 0.058))
    amount = slow.capacity.amount(100 * MSS)
    channel = Channel(slow, 1, 1)
    assert channel.arrival(0.0, 0, 0, amount, RTT / 2, 0.0, 100) == pytest.approx(0.58 + RTT / 2)


def test_windows_are_in_the_travel_that_policies_reckon_with():
    leg = Leg("uplink", link(), link(), (30 * 1500,))
    assert travel_quantile_s([leg.travel()], 0.5) == pytest.approx(RTT / 2 + RTT)
    assert travel_quantile_s([Leg("up", link(), link(), (10 * 1500,)).travel()], 0.5) == RTT / 2


def test_a_message_behind_a_lost_acknowledgement_is_a_round_trip_late():
    lossy, count = link(loss=0.2), 1000
    leg = Leg("uplink", lossy, link(), (100, 44), acknowledgements=2)
    even = (np.arange(count) + 0.5) / count
    delays = leg.travels(lambda name: even, count).delay_s
    assert np.unique(delays).tolist() == [RTT / 2, 1.5 * RTT]
    assert np.mean(delays > RTT) == pytest.approx(1 - 0.8**2)
    alone = replace(leg, acknowledgements=0)
    later_s = travel_quantile_s([leg.travel()], 0.5) - travel_quantile_s([alone.travel()], 0.5)
    assert later_s == pytest.approx((1 - 0.8**2) * RTT)
    assert (alone.travels(lambda name: even, count).delay_s == RTT / 2).all()


def test_a_link_without_a_round_trip_has_no_windows():
    leg = Leg("uplink", direction(0.0), direction(0.0), (10**7,))
    assert travel_quantile_s([leg.travel()], 0.5) == 0.0


@st.composite
def traffic(draw):
    """Messages of few connections: when, whose, how long, and what chooses their fate."""
    count = draw(st.integers(1, 40))
    columns = [
        sorted(draw(st.lists(st.floats(0, 3), min_size=count, max_size=count))),
        draw(st.lists(st.integers(0, 2), min_size=count, max_size=count)),
        draw(st.lists(st.sampled_from([1, 3, 9, 12, 45]), min_size=count, max_size=count)),
        draw(st.lists(st.floats(0, 1, exclude_max=True), min_size=count, max_size=count)),
    ]
    sent_s, flow, segments, u = map(np.array, columns)
    return sent_s, flow, segments, u


capacities = st.sampled_from([
    ConstantCapacity(float("inf")),
    ConstantCapacity(2e7),
    ConstantCapacity(1e6),
    TracedCapacity(np.array([0.0, 0.4, 0.5, 1.0]), np.array([1e5, 1e8, 2e6])),
    with_outages(ConstantCapacity(1e7), [(0.2, 0.5), (1.0, 1.7)]),
    with_outages(ConstantCapacity(1e7), [(1.0, np.inf)]),
])  # fmt: skip

links = st.builds(
    link,
    st.sampled_from([Constant(RTT / 2), Uniform(0.0, RTT)]),
    st.sampled_from([None, 0.02, 0.3]),
    capacities,
)


#: A long message whose acknowledgements and repairs are heard at the same instants.
AT_THE_SAME_INSTANT = (
    np.zeros(34),
    np.array([0] * 5 + [1, 1] + [0] * 27),
    np.array([1] * 6 + [45] + [1] * 26 + [3]),
    np.array([0.0] * 27 + [0.44921875] + [0.0] * 6),
)


@given(links, traffic(), st.lists(st.floats(0, 3), max_size=4))
@example(
    link(Constant(RTT / 2), 0.3, with_outages(ConstantCapacity(1e7), [(0.2, 0.5), (1.0, 1.7)])),
    AT_THE_SAME_INSTANT,
    [],
)
@examples(200)
def test_all_at_once_in_slices_and_one_by_one_are_the_same(one_way, messages, cuts):
    sent_s, flow, segments, u = messages
    amount = np.array([one_way.capacity.amount(int(it) * MSS) for it in segments], dtype=float)
    travels = Travels(one_way.delay.ppf(u), u[::-1], segments, flow == 2)
    whole = Channel(one_way, 3, 3).arrivals(sent_s, flow, flow, amount, travels)
    at_once = Channel(replace(one_way, loss=None, rtt_s=0.0), 3, 3)
    assert (whole >= at_once.arrivals(sent_s, flow, flow, amount, travels) - 1e-9).all()
    for connection in range(3):
        mine = whole[(flow == connection) & np.isfinite(whole)]
        assert (np.diff(mine) >= 0).all(), "order is kept"
    assert not np.isnan(whole).any()

    sliced, bounds = Channel(one_way, 3, 3), np.searchsorted(sent_s, [0.0, *sorted(cuts), np.inf])
    parts = [
        sliced.arrivals(
            sent_s[rows], flow[rows], flow[rows], amount[rows],
            Travels(*(getattr(travels, it.name)[rows] for it in fields(Travels))),
        )
        for rows in map(slice, bounds[:-1], bounds[1:])
        if rows.start < rows.stop
    ]  # fmt: skip
    np.testing.assert_allclose(np.concatenate(parts), whole, rtol=1e-12, atol=1e-9)

    single = Channel(one_way, 3, 3)
    brought = (getattr(travels, it.name) for it in fields(Travels))
    columns = (sent_s, flow, flow, amount, *brought)
    each = zip(*(column.tolist() for column in columns), strict=True)
    found = [single.arrival(*message) for message in each]
    np.testing.assert_allclose(found, whole, rtol=1e-9, atol=1e-8)
