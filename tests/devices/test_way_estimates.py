"""Ways estimated from a device's own clock: known ways and offsets in, estimates out."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from devices.node.way_estimates import (
    JUMP_S,
    WINDOW_REQUESTS,
    WINDOW_S,
    DeviceWays,
    SlidingMinimum,
    WayEstimates,
)

#: The device's clock and the node's began at different instants.
OFFSET_S = 12_345.0


def hear(ways, at_s, up_s, way_s=None, offset_s=OFFSET_S):
    """A request that was sent ``up_s`` before it arrives at ``at_s`` of the node's clock."""
    return ways.heard(at_s, at_s - up_s + offset_s, way_s)


def test_without_any_clock_ways_are_nothing():
    ways = DeviceWays()
    assert ways.heard(5.0, None, None) == 0.0
    assert ways.home_s(0.95) == 0.0


def test_the_first_request_is_taken_for_a_quick_one():
    assert hear(DeviceWays(), 5.0, up_s=0.3) == 0.0


def test_a_slower_request_was_longer_on_its_way_whatever_the_clocks_say():
    for offset_s in (0.0, OFFSET_S, -OFFSET_S):
        ways = DeviceWays()
        hear(ways, 5.0, up_s=0.010, offset_s=offset_s)
        assert hear(ways, 6.0, up_s=0.035, offset_s=offset_s) == pytest.approx(0.025)


def test_half_of_the_smallest_travel_time_is_the_least_way():
    ways = DeviceWays()
    assert hear(ways, 5.0, up_s=0.010, way_s=0.020) == pytest.approx(0.010)
    assert hear(ways, 6.0, up_s=0.013, way_s=0.030) == pytest.approx(0.013)
    assert hear(ways, 7.0, up_s=0.010, way_s=0.016) == pytest.approx(0.008)


def test_travel_times_alone_tell_of_the_least_way():
    ways = DeviceWays()
    ways.heard(5.0, None, 0.030)
    assert ways.heard(6.0, None, 0.020) == pytest.approx(0.010)


def test_the_way_home_is_half_of_the_quantile_of_travel_times():
    ways, times = DeviceWays(), np.random.default_rng(1).gamma(2.0, 0.01, 20)
    for number, way_s in enumerate(times):
        hear(ways, float(number), up_s=0.0, way_s=float(way_s))
    for quantile in (0.05, 0.5, 0.95):
        assert ways.home_s(quantile) == pytest.approx(np.quantile(times, quantile) / 2)


def test_without_travel_times_the_way_home_is_as_uneven_as_the_way_up():
    ways = DeviceWays()
    for number, up_s in enumerate((0.010, 0.012, 0.020)):
        hear(ways, float(number), up_s)
    assert ways.home_s(0.5) == pytest.approx(0.002)
    assert ways.home_s(1.0) == pytest.approx(0.010)


def test_quantiles_are_of_the_last_requests():
    ways = DeviceWays()
    for number in range(3 * WINDOW_REQUESTS):
        ways.heard(number / 100, None, 1.0 if number < 2 * WINDOW_REQUESTS else 0.02)
    assert ways.home_s(1.0) == pytest.approx(0.01)


@pytest.mark.parametrize("jump_s", [JUMP_S + 1, -JUMP_S - 1, 86_400.0, -86_400.0])
def test_after_a_jump_of_the_devices_clock_ways_are_right_at_once(jump_s):
    ways = DeviceWays()
    hear(ways, 5.0, up_s=0.010)
    hear(ways, 6.0, up_s=0.015)
    assert hear(ways, 7.0, 0.010, offset_s=OFFSET_S + jump_s) == pytest.approx(0.0, abs=1e-6)
    assert hear(ways, 8.0, 0.030, offset_s=OFFSET_S + jump_s) == pytest.approx(0.020, abs=1e-6)
    assert ways.home_s(1.0) <= 0.020 + 1e-6


def test_a_delay_below_the_jump_is_a_delay():
    ways = DeviceWays()
    hear(ways, 5.0, up_s=0.010)
    assert hear(ways, 6.0, up_s=1.5) == pytest.approx(1.49)


def test_clocks_that_run_at_different_speeds_part_only_within_the_window():
    ways, drift = DeviceWays(), 1e-4  # 100 ppm: a poor crystal
    for second in range(3600):
        up_s = ways.heard(float(second), second * (1 - drift), None)
        assert up_s <= drift * (WINDOW_S + 2)


@given(
    st.lists(
        st.tuples(st.floats(0, 30), st.floats(-1e6, 1e6, allow_nan=False)), min_size=1, max_size=80
    )
)
def test_the_sliding_minimum_is_that_of_the_seconds_in_the_window(steps):
    minimum, now_s, seen = SlidingMinimum(), 0.0, []
    for gap_s, value in steps:
        now_s += gap_s
        seen.append((int(now_s), value))
        expected = min(it for second, it in seen if second >= int(now_s) - WINDOW_S)
        assert minimum.add(now_s, value) == expected


def test_the_sliding_minimum_keeps_one_value_a_second():
    minimum = SlidingMinimum()
    for number in range(100_000):
        minimum.add(number / 1000, float(number))
    assert len(minimum._kept) <= WINDOW_S + 1


def test_devices_are_told_apart_and_the_silent_are_forgotten():
    estimates = WayEstimates(most_devices=2)
    first = estimates.of("a")
    assert estimates.of("b") is not first
    assert estimates.of("a") is first
    estimates.of("c")  # b was silent longest
    assert estimates.of("a") is first
    assert len(estimates) == 2
