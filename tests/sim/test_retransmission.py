"""Losses on TCP: the delays drawn are those of a sender that is simulated step by step."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny_worlds import examples

from sim.distributions import Constant
from sim.network.links import Direction
from sim.network.retransmission import MAX_RTO_S, TcpLoss

RTT = 0.05
RTO = 0.25  # and 200 ms more


def evenly(count):
    """Uniform numbers whose mean is that of the distribution, as far as a grid can."""
    return (np.arange(count) + 0.5) / count


def delays_s(loss, u, segments, rtt_s):
    """Delays of messages whose segments are sent at once, with nothing after them."""
    return Direction(Constant(0.0), loss=loss, rtt_s=rtt_s).repairs_s(np.asarray(u), segments)


def sender(random, loss, segments, rtt_s):
    """One message, segment by segment: what the model's table says, played out."""
    lost = random.random(segments) < loss
    if not lost.any():
        return 0.0
    delay, rto = 0.0, rtt_s + 0.2
    if not lost[-1]:
        delay += rtt_s if segments > 3 else 1.25 * rtt_s
        if random.random() >= loss:
            return delay
    elif segments > 1:
        delay += rtt_s  # those before the last are acknowledged, and the timer starts anew
    while True:
        delay += min(rto, 120.0)
        rto *= 2
        if random.random() >= loss:
            return delay


# --- by hand -------------------------------------------------------------------------------------


def test_without_loss_nothing_is_late():
    loss = TcpLoss(0.0)
    assert delays_s(loss, evenly(5), 10, RTT).tolist() == [0] * 5
    assert loss.mean_delay_s(10, RTT) == 0


def test_a_lone_segment_waits_for_the_timer_which_doubles():
    loss = TcpLoss(0.5)
    # Nothing lost 1/2, one timeout 1/4, two 1/8, three 1/16, ..
    u = np.array([0.0, 0.499, 0.501, 0.749, 0.751, 0.874, 0.876, 0.937])
    expected = [0, 0, RTO, RTO, 3 * RTO, 3 * RTO, 7 * RTO, 7 * RTO]
    assert delays_s(loss, u, 1, RTT) == pytest.approx(expected)


def test_a_loss_that_others_follow_costs_about_one_round_trip():
    loss = TcpLoss(0.5)
    # Of four segments: none lost 1/16; of the first three alone 7/16, half of it repaired at once,
    # a quarter after one timeout.
    u = np.array([1 / 16 - 0.001, 4.5 / 16 - 0.001, 4.5 / 16 + 0.001, 6.25 / 16 - 0.001])
    assert delays_s(loss, u, 4, RTT) == pytest.approx([0, RTT, RTT + RTO, RTT + RTO])
    # The last one 1/2: the timer runs from the acknowledgement of the others, a round trip after
    # they were sent. Half of it after one timeout, a quarter after two.
    u = np.array([0.501, 0.749, 0.751, 0.874])
    expected = [RTT + RTO, RTT + RTO, RTT + 3 * RTO, RTT + 3 * RTO]
    assert delays_s(loss, u, 4, RTT) == pytest.approx(expected)


def test_where_few_segments_follow_a_sender_waits_for_stragglers():
    u = np.array([1 / 8 + 0.001, 2 / 8 - 0.001])
    assert delays_s(TcpLoss(0.5), u, 3, RTT) == pytest.approx([1.25 * RTT] * 2)
    # But no longer than the timer.
    assert delays_s(TcpLoss(0.5), u, 3, 2.0) == pytest.approx([2.2] * 2)


def test_timeouts_stop_growing_at_two_minutes():
    loss = TcpLoss(0.9)
    delays = np.unique(delays_s(loss, evenly(10**5), 1, RTT))
    steps = np.diff(delays)[:20]
    assert steps[:9] == pytest.approx(RTO * 2.0 ** np.arange(9))  # 64 s
    assert steps[9:] == pytest.approx(MAX_RTO_S)


@pytest.mark.parametrize("loss", [-0.1, 1.0, float("nan")])
def test_an_impossible_loss_is_refused(loss):
    with pytest.raises(ValueError, match="probability of loss"):
        TcpLoss(loss)


# --- against a sender played out -----------------------------------------------------------------


@pytest.mark.parametrize("segments", [1, 2, 3, 4, 10])
@pytest.mark.parametrize("loss", [0.02, 0.3])
def test_delays_are_distributed_as_those_of_a_sender(segments, loss):
    random = np.random.default_rng(7)
    count = 20_000
    played = np.array([sender(random, loss, segments, RTT) for _ in range(count)])
    drawn = delays_s(TcpLoss(loss), evenly(count), segments, RTT)
    # Kolmogorov-Smirnov at the level 0.001: the grid is exact, the sender is a sample.
    values = np.unique(np.round(np.concatenate([played, drawn]), 9))
    below_played = np.searchsorted(np.sort(played), values + 1e-6) / count
    below_drawn = np.searchsorted(np.sort(drawn), values + 1e-6) / count
    assert np.abs(below_played - below_drawn).max() < 1.95 / np.sqrt(count)


# --- its mean ------------------------------------------------------------------------------------


@pytest.mark.parametrize("segments", [1, 3, 4, 40])
@pytest.mark.parametrize("loss", [0.001, 0.01, 0.1, 0.3])
@pytest.mark.parametrize("rtt", [0.002, 0.6])
def test_the_mean_is_that_of_the_draws(segments, loss, rtt):
    model = TcpLoss(loss)
    drawn = delays_s(model, evenly(2**17), segments, rtt).mean()
    assert model.mean_delay_s(segments, rtt) == pytest.approx(drawn, rel=1e-2)


def test_the_mean_of_a_lone_segment_is_a_geometric_series():
    # p RTO (1 + 2p + 4p² + ..) = p RTO / (1 - 2p), the cap aside.
    assert TcpLoss(0.01).mean_delay_s(1, RTT) == pytest.approx(0.01 * RTO / 0.98, rel=1e-9)


# --- what holds for every message ----------------------------------------------------------------


@examples(100)
@given(
    st.floats(1e-6, 0.95),
    st.integers(1, 1000),
    st.floats(0, 10),
    st.lists(st.floats(0, 1, exclude_max=True), min_size=2, max_size=30),
)
def test_every_message_arrives_in_the_end(loss, segments, rtt, u):
    delays = delays_s(TcpLoss(loss), u, segments, rtt)
    assert np.all(np.isfinite(delays))
    assert np.all(delays >= 0)


@pytest.mark.parametrize("segments", [1, 3, 20])
@pytest.mark.parametrize("more", [False, True])
def test_what_is_left_of_a_number_chooses_the_next_losses_as_if_it_were_new(segments, more):
    loss, count = TcpLoss(0.2), 40_000
    drawn = [loss.draw(u, segments, more) for u in evenly(count).tolist()]
    for repair in {repair for repair, _ in drawn}:
        left = np.sort([u for other, u in drawn if other == repair])
        if len(left) < 200:
            continue
        # Evenly between 0 and 1, whatever became of these.
        assert np.abs(left - evenly(len(left))).max() < 3 / len(left)
    if more:
        assert all(repair is None or repair.fast for repair, _ in drawn), "the next ones tell"


@examples(100)
@given(st.floats(1e-4, 0.45), st.floats(1e-4, 0.45), st.integers(1, 50), st.floats(0, 1))
def test_more_loss_never_shortens_a_message(one, other, segments, rtt):
    less, more = sorted([one, other])
    u = evenly(200)
    short = delays_s(TcpLoss(less), u, segments, rtt)
    long = delays_s(TcpLoss(more), u, segments, rtt)
    # A timeout may replace a fast retransmit and a timeout, so only the share of late ones orders.
    assert np.count_nonzero(long) >= np.count_nonzero(short)
    assert TcpLoss(less).mean_delay_s(1, rtt) <= TcpLoss(more).mean_delay_s(1, rtt)
