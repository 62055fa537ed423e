"""Axes of a sweep: what each position gives, and what it depends on."""

import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from offramp.sweep.axes import (
    Choices,
    Draw,
    Integers,
    LatinHypercubeAxis,
    ListedAxis,
    LogUniform,
    RandomAxis,
    Uniform,
)

REPEATABLE = settings(derandomize=True, database=None, deadline=None)
SAMPLED = (RandomAxis, LatinHypercubeAxis)

NUMBERS = st.floats(-1e6, 1e6)
UNIT = st.floats(0, 1, exclude_max=True)


def bounds(draw: st.DrawFn, numbers: st.SearchStrategy[float]) -> tuple[float, float]:
    low, high = sorted(draw(st.lists(numbers, min_size=2, max_size=2, unique=True)))
    return low, high


@st.composite
def draws(draw: st.DrawFn) -> Draw:
    kind = draw(st.sampled_from([Choices, Uniform, LogUniform, Integers]))
    if kind is Choices:
        return Choices(tuple(draw(st.lists(st.integers(), min_size=1, max_size=5))))
    if kind is Integers:
        return Integers(*bounds(draw, st.integers(-1000, 1000)))
    return kind(*bounds(draw, NUMBERS if kind is Uniform else st.floats(1e-9, 1e9)))


AXES_OF_DRAWS = st.dictionaries(st.sampled_from("abcd"), draws(), min_size=1)


def test_a_listed_axis_gives_its_rows() -> None:
    axis = ListedAxis(("a", "b"), ((1, 2), (3, 4), (5, 6)))
    assert [axis[index] for index in range(len(axis))] == [(1, 2), (3, 4), (5, 6)]
    assert axis.extremes() == [{"a": 1, "b": 2}, {"a": 3, "b": 4}, {"a": 5, "b": 6}]


# --- what is drawn -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("draw", "at"),
    [
        (Choices(("x", "y")), {0: "x", 0.49: "x", 0.5: "y", 0.999: "y"}),
        (Uniform(10, 20), {0: 10, 0.25: 12.5, 0.5: 15}),
        (LogUniform(1, 100), {0: 1, 0.5: 10, 0.75: 10**1.5}),
        (Integers(3, 5), {0: 3, 0.33: 3, 0.34: 4, 0.66: 4, 0.67: 5, 0.999: 5}),
    ],
)
def test_quantiles_by_hand(draw: Draw, at: dict[float, object]) -> None:
    for u, value in at.items():
        assert draw.at(u) == (pytest.approx(value) if isinstance(value, float | int) else value)


@REPEATABLE
@given(draws(), UNIT)
def test_what_is_drawn_lies_between_the_extremes(draw: Draw, u: float) -> None:
    value = draw.at(u)
    assert min(draw.extremes()) <= value <= max(draw.extremes())
    if isinstance(draw, Choices):
        assert value in draw.values
    assert isinstance(value, int) == isinstance(draw, Choices | Integers)


@REPEATABLE
@given(draws(), UNIT, UNIT)
def test_a_larger_uniform_number_gives_no_smaller_value(draw: Draw, u: float, v: float) -> None:
    if not isinstance(draw, Choices):
        assert draw.at(min(u, v)) <= draw.at(max(u, v))


@pytest.mark.parametrize("kind", SAMPLED)
def test_drawn_values_have_their_distribution(kind: type[RandomAxis]) -> None:
    axis = kind({"a": Uniform(2, 5), "b": LogUniform(0.1, 10), "c": Integers(1, 4)}, 4000, 7)
    a, b, c = map(np.array, zip(*(axis[index] for index in range(len(axis))), strict=True))
    assert stats.kstest(a, stats.uniform(2, 3).cdf).pvalue > 0.01
    assert stats.kstest(b, stats.loguniform(0.1, 10).cdf).pvalue > 0.01
    assert stats.chisquare(np.bincount(c)[1:]).pvalue > 0.01
    assert abs(stats.spearmanr(a, b).statistic) < 3 / math.sqrt(len(axis)), "keys are independent"


@REPEATABLE
@given(AXES_OF_DRAWS, st.integers(1, 60), st.integers(0, 2**64))
def test_a_latin_hypercube_has_one_value_in_each_part_of_every_range(
    by_key: dict[str, Draw], points: int, seed: int
) -> None:
    identity = dict.fromkeys(by_key, Uniform(0, 1))
    axis = LatinHypercubeAxis(identity, points, seed)
    for column in zip(*(axis[index] for index in range(points)), strict=True):
        assert sorted(int(u * points) for u in column) == list(range(points))
    # What is drawn at those numbers covers each key's own range in the same way.
    drawn = LatinHypercubeAxis(by_key, points, seed)
    for index in range(points):
        assert drawn[index] == tuple(
            draw.at(u) for draw, u in zip(by_key.values(), axis[index], strict=True)
        )


def test_a_latin_hypercube_gives_every_choice_its_share() -> None:
    axis = LatinHypercubeAxis({"a": Choices(("x", "y", "z"))}, 30, 1)
    assert (
        sorted(axis[index] for index in range(30)) == [("x",)] * 10 + [("y",)] * 10 + [("z",)] * 10
    )


# --- what it depends on --------------------------------------------------------------------------


@REPEATABLE
@given(
    st.sampled_from(SAMPLED), AXES_OF_DRAWS, st.integers(1, 30), st.integers(0, 2**64), st.data()
)
def test_a_position_gives_the_same_whatever_was_asked_before(
    kind: type[RandomAxis], by_key: dict[str, Draw], points: int, seed: int, data: st.DataObject
) -> None:
    whole = kind(by_key, points, seed)
    expected = [whole[index] for index in range(points)]
    order = data.draw(st.permutations(range(points)))
    again = kind(dict(by_key), points, seed)
    assert {index: again[index] for index in order} == dict(enumerate(expected))


@REPEATABLE
@given(st.sampled_from(SAMPLED), AXES_OF_DRAWS, draws(), st.integers(1, 30), st.integers(0, 99))
def test_another_key_reshuffles_none(
    kind: type[RandomAxis], by_key: dict[str, Draw], other: Draw, points: int, seed: int
) -> None:
    alone, more = kind(by_key, points, seed), kind({"new": other, **by_key}, points, seed)
    assert all(more[index][1:] == alone[index] for index in range(points))


@REPEATABLE
@given(AXES_OF_DRAWS, st.integers(1, 30), st.integers(1, 30), st.integers(0, 99))
def test_the_first_random_points_are_the_same_however_many_there_are(
    by_key: dict[str, Draw], few: int, more: int, seed: int
) -> None:
    short, long = RandomAxis(by_key, few, seed), RandomAxis(by_key, few + more, seed)
    assert all(short[index] == long[index] for index in range(few))


@pytest.mark.parametrize("kind", SAMPLED)
def test_seeds_and_keys_draw_differently(kind: type[RandomAxis]) -> None:
    unit = Uniform(0, 1)
    rows = [
        tuple(kind({key: unit}, 5, seed)[index] for index in range(5))
        for key, seed in (("a", 1), ("a", 2), ("b", 1))
    ]
    assert len(set(rows)) == 3
    assert all(one != other for row in rows for one, other in pairwise(row))


def test_random_and_latin_hypercube_draw_differently() -> None:
    rows = {kind({"a": Uniform(0, 1)}, 3, 1)[0] for kind in SAMPLED}
    assert len(rows) == 2
