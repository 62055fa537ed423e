"""Energy from power states, worked by hand."""

import math
from dataclasses import replace

import numpy as np
import pytest

from sim.energy import PowerStates, energy_metrics, joules, seconds_by_owner

BOARD = PowerStates(
    idle_w=2.0, compute_w=5.0, transmit_w=3.0, receive_w=2.5, source="made up for this test"
)


def test_a_device_that_does_nothing_draws_its_idle_power():
    assert joules(BOARD, 10.0, 0.0, 0.0, 0.0).total == pytest.approx([20.0])


def test_each_state_adds_what_it_draws_above_idle():
    energy = joules(BOARD, 10.0, compute_s=[4.0, 0.0], transmit_s=[1.0, 0.0], receive_s=[2.0, 6.0])
    assert energy.idle == pytest.approx([20.0, 20.0])
    assert energy.compute == pytest.approx([12.0, 0.0])  # 4 s at 5 - 2 W
    assert energy.transmit == pytest.approx([1.0, 0.0])
    assert energy.receive == pytest.approx([1.0, 3.0])
    assert energy.total == pytest.approx([34.0, 23.0])


def test_states_that_fill_the_span_without_overlap_leave_no_idle_power():
    whole = joules(BOARD, 10.0, compute_s=6.0, transmit_s=3.0, receive_s=1.0).total
    assert whole == pytest.approx([6 * 5.0 + 3 * 3.0 + 1 * 2.5])


def test_a_radio_that_works_during_a_computation_adds_to_it():
    # Both all the time: 2 idle + 3 for the computation + 1 for the radio.
    assert joules(BOARD, 10.0, compute_s=10.0, transmit_s=10.0, receive_s=0.0).total == (
        pytest.approx([60.0])
    )


def test_two_busy_workers_add_twice():
    assert joules(BOARD, 10.0, compute_s=20.0, transmit_s=0.0, receive_s=0.0).compute == (
        pytest.approx([60.0])
    )


@pytest.mark.parametrize("seconds", [-1.0, math.nan, math.inf])
def test_times_that_cannot_be_are_refused(seconds):
    with pytest.raises(ValueError, match="transmit_s"):
        joules(BOARD, 10.0, 0.0, [0.0, seconds], 0.0)
    with pytest.raises(ValueError, match="duration_s"):
        joules(BOARD, -abs(seconds), 0.0, 0.0, 0.0)


# --- seconds in a state --------------------------------------------------------------------------


def test_only_what_falls_inside_the_span_counts_for_each_owner():
    seconds = seconds_by_owner(
        owner=np.array([0, 0, 0, 2, 2]),
        owners=4,
        begin_s=np.array([0.0, 4.0, 9.0, 11.0, np.nan]),
        end_s=np.array([2.0, 6.0, 30.0, 12.0, 7.0]),
        from_s=1.0,
        to_s=10.0,
    )
    # 1 of the first, 2 of the second and 1 of the third; the rest is outside or never happened.
    assert seconds == pytest.approx([4.0, 0.0, 0.0, 0.0])


# --- power states in a scenario ------------------------------------------------------------------


def test_sound_power_states_have_no_problems():
    assert BOARD.problems() == []
    assert PowerStates(1.0, 1.0, 1.0, 1.0, "states that draw no more than idle").problems() == []


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"compute_w": -1.0}, "compute_w is -1.0"),
        ({"receive_w": math.nan}, "receive_w is nan"),
        ({"transmit_w": math.inf}, "transmit_w is inf"),
        ({"idle_w": -0.5}, "idle_w is -0.5"),
        ({"transmit_w": 1.0}, "transmit_w (1.0) is below idle_w (2.0)"),
        ({"source": "  "}, "source is empty"),
    ],
)
def test_nonsense_is_named(change, says):
    (problem,) = replace(BOARD, **change).problems()
    assert problem.startswith(says)


# --- per request ---------------------------------------------------------------------------------


def test_energy_per_request_and_per_correct_answer_in_time():
    devices = joules(BOARD, 10.0, compute_s=[4.0, 0.0], transmit_s=0.0, receive_s=0.0)
    nodes = joules(BOARD, 10.0, compute_s=2.0, transmit_s=0.0, receive_s=0.0)
    assert energy_metrics(devices, nodes, offered=6, correct_on_time=3) == pytest.approx(
        {
            "device_j": 52.0,
            "node_j": 26.0,
            "device_j_per_request": 52 / 6,
            "j_per_request": 13.0,
            "j_per_correct_on_time": 26.0,
        }
    )


def test_without_requests_there_is_energy_but_none_per_request():
    idle = joules(BOARD, 10.0, 0.0, 0.0, 0.0)
    metrics = energy_metrics(idle, idle, offered=0, correct_on_time=0)
    assert metrics["device_j"] == pytest.approx(20.0)
    assert math.isnan(metrics["j_per_request"])
    assert math.isnan(energy_metrics(idle, idle, 3, 0)["j_per_correct_on_time"])
