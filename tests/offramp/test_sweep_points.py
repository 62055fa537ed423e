"""The points of a sweep: every combination once, each found by its number alone."""

import itertools
import math
import pickle
import sys
import tracemalloc

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from offramp import ScenarioError
from offramp.sweep.axes import Integers, LatinHypercubeAxis, ListedAxis, RandomAxis, Uniform
from offramp.sweep.points import Points

REPEATABLE = settings(derandomize=True, database=None, deadline=None)


def grid(key: str, *values: object) -> ListedAxis:
    return ListedAxis((key,), tuple((value,) for value in values))


@st.composite
def listed_axes(draw: st.DrawFn) -> list[ListedAxis]:
    axes = []
    for number in range(draw(st.integers(1, 4))):
        keys = tuple(f"{number}.{key}" for key in range(draw(st.integers(1, 3))))
        row = st.tuples(*(st.integers(0, 9) for _ in keys))
        axes.append(ListedAxis(keys, tuple(draw(st.lists(row, min_size=1, max_size=4)))))
    return axes


def test_the_last_axis_changes_fastest() -> None:
    points = Points([grid("a", 1, 2), grid("b", "x", "y", "z")])
    assert points.keys == ("a", "b")
    assert list(points) == [(1, "x"), (1, "y"), (1, "z"), (2, "x"), (2, "y"), (2, "z")]


@REPEATABLE
@given(listed_axes())
def test_every_combination_comes_once(axes: list[ListedAxis]) -> None:
    points = Points(axes)
    expected = [
        tuple(itertools.chain.from_iterable(rows))
        for rows in itertools.product(*(axis.rows for axis in axes))
    ]
    assert len(points) == len(expected)
    assert list(points) == expected
    assert points.keys == tuple(itertools.chain.from_iterable(axis.keys for axis in axes))


@REPEATABLE
@given(listed_axes(), st.integers(1, 5), st.integers(0, 9), st.data())
def test_a_point_depends_on_its_number_alone(
    axes: list[ListedAxis], drawn: int, seed: int, data: st.DataObject
) -> None:
    def made() -> Points:
        unit = {"u": Uniform(0, 1), "n": Integers(1, 9)}
        cube = LatinHypercubeAxis({"v": Uniform(0, 1)}, drawn, seed)
        return Points([RandomAxis(unit, drawn, seed), *axes, cube])

    expected = list(made())
    points = made()
    for index in data.draw(st.permutations(range(len(points)))):
        assert points[index] == expected[index]
        assert points[index - len(points)] == expected[index]
    assert list(pickle.loads(pickle.dumps(points))) == expected  # as it goes to workers


@REPEATABLE
@given(listed_axes(), st.slices(20))
def test_slices_are_those_of_the_list(axes: list[ListedAxis], part: slice) -> None:
    points = Points(axes)
    assert points[part] == list(points)[part]


@pytest.mark.parametrize("index", [6, 7, -7, 10**30])
def test_there_is_no_point_past_the_last(index: int) -> None:
    with pytest.raises(IndexError):
        Points([grid("a", 1, 2), grid("b", 1, 2, 3)])[index]


def test_a_drawn_axis_is_crossed_whole_with_the_others() -> None:
    points = Points([grid("a", 1, 2), RandomAxis({"b": Uniform(0, 1)}, 3, 1)])
    first, second = list(points)[:3], list(points)[3:]
    assert [b for _, b in first] == [b for _, b in second]
    assert len({b for _, b in first}) == 3


def test_a_grid_of_a_billion_points_takes_no_memory() -> None:
    tracemalloc.start()
    try:
        points = Points([grid(key, *range(1000)) for key in "abc"])
        before, _ = tracemalloc.get_traced_memory()
        tracemalloc.reset_peak()
        assert len(points) == 10**9
        for index in range(0, 10**9, 10**6 + 1):
            assert points[index] == (index // 10**6, index // 1000 % 1000, index % 1000)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak - before < 1_000_000, "of the 1,000 points that were asked for, none is kept"


def test_more_points_than_can_be_counted_are_refused() -> None:
    axes = [grid(str(number), *range(1000)) for number in range(7)]
    assert math.prod(map(len, axes)) > sys.maxsize
    with pytest.raises(ScenarioError, match="1e\\+21 points"):
        Points(axes)
