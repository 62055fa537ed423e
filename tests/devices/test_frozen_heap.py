"""What a process holds when it begins is not searched for cycles while it serves."""

import gc
import weakref

from devices.frozen_heap import frozen_heap


class Node:
    """What can refer to itself."""


def test_only_what_is_made_meanwhile_is_searched():
    before = Node()
    with frozen_heap():
        assert gc.get_freeze_count() > 0
        assert not any(it is before for it in gc.get_objects())
        cycle = Node()
        cycle.itself = cycle
        gone = weakref.ref(cycle)
        del cycle
        gc.collect()
        assert gone() is None
    assert any(it is before for it in gc.get_objects())


def test_it_ends_with_an_error_too():
    frozen = gc.get_freeze_count()
    try:
        with frozen_heap():
            raise KeyError
    except KeyError:
        pass
    assert gc.get_freeze_count() <= frozen
