"""Jain's index on values known from its definition, and within its bounds."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny_worlds import examples

from sim.results.fairness import jain_index


@pytest.mark.parametrize(
    ("values", "index"),
    [
        ([0.7, 0.7, 0.7], 1.0),
        ([1.0, 0.0, 0.0, 0.0], 1 / 4),  # one has everything
        ([1.0] * 20 + [0.0] * 80, 0.2),  # of Jain, Chiu & Hawe: 20 % share equally, index 20 %
        ([1.0, 2.0, 3.0], 36 / (3 * 14)),
        ([5.0], 1.0),
    ],
)
def test_known_values(values, index):
    assert jain_index(values) == pytest.approx(index)


def test_devices_that_offered_nothing_are_left_out():
    assert jain_index([1.0, math.nan, 0.0]) == pytest.approx(1 / 2)


def test_nobody_is_favoured_where_all_have_nothing():
    assert jain_index([0.0, 0.0]) == 1.0


def test_there_is_no_fairness_among_no_devices():
    assert math.isnan(jain_index([]))
    assert math.isnan(jain_index([math.nan]))


@pytest.mark.parametrize("wrong", [-0.1, math.inf])
def test_values_that_are_no_shares_are_refused(wrong):
    with pytest.raises(ValueError, match="not negative"):
        jain_index([0.5, wrong])


@given(
    st.lists(st.floats(0, 1e300), min_size=1, max_size=30).filter(any),
    st.floats(1e-3, 1e3),
)
@examples(200)
def test_between_one_nth_and_one_whatever_the_unit(values, unit):
    index = jain_index(values)
    assert 1 / len(values) - 1e-12 <= index <= 1 + 1e-12
    assert jain_index(np.array(values) * unit) == pytest.approx(index)
