"""Which processors of a host nodes have for themselves."""

from __future__ import annotations

import os

import pytest

from models.processors import available_processors
from offramp.live.processors import Shares, left_to_nodes, shares
from offramp.live.warnings import sharing

TWO = [(0,), (1,)]
FOUR = [(0,), (1,), (2,), (3,)]


def test_on_two_processors_the_node_has_one() -> None:
    found = shares({"edge": 1}, TWO)
    assert found == Shares({"edge": (1,)}, (0,))
    assert sharing(found, embedded=False) == []  # another broker runs where it does
    assert "share processor 0, the nodes have the others" in sharing(found, embedded=True)[0]


def test_a_node_has_one_more_for_its_network_if_two_are_left() -> None:
    found = shares({"edge": 1}, FOUR)
    assert found == Shares({"edge": (2, 3)}, (0, 1))
    assert sharing(found, embedded=True) == []
    assert shares({"edge": 1}, FOUR[:3]) == Shares({"edge": (2,)}, (0, 1))


def test_nodes_share_none_with_each_other() -> None:
    assert shares({"edge-0": 1, "edge-1": 2}, FOUR) == Shares(
        {"edge-0": (3,), "edge-1": (1, 2)}, (0,)
    )


def test_nobody_has_their_own_where_none_would_be_left() -> None:
    assert shares({"edge": 2}, TWO) is None
    assert shares({"edge-0": 1, "edge-1": 1}, TWO) is None


def test_nothing_is_shared_out_where_no_node_is_started() -> None:
    assert shares({}, TWO) is None


def test_whole_cores_are_given_where_there_are_enough() -> None:
    assert shares({"edge": 1}, [(0, 4), (1, 5)]) == Shares({"edge": (1, 5)}, (0, 4))
    # Threads of one core slow each other: better than none of its own.
    assert shares({"edge": 1}, [(0, 1)]) == Shares({"edge": (1,)}, (0,))


def test_of_this_host() -> None:
    found = shares({"edge": 1})
    here = available_processors()
    assert (found is None) == (len(here) == 1)
    if found is not None:
        assert sorted([*found.rest, *found.nodes["edge"]]) == here


def test_the_rest_is_all_that_this_process_has_meanwhile() -> None:
    before = available_processors()
    with left_to_nodes({"edge": 1}) as found:
        assert available_processors() == (list(found.rest) if found else before)
    assert available_processors() == before
    with pytest.raises(KeyError), left_to_nodes({"edge": 1}):
        raise KeyError
    assert available_processors() == before


def test_who_may_share_out_none_goes_on_with_all(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(process: int, to: object) -> None:
        raise PermissionError

    monkeypatch.setattr(os, "sched_setaffinity", refused, raising=False)
    before = available_processors()
    with left_to_nodes({"edge": 1}) as found:
        assert found is None
        assert available_processors() == before
