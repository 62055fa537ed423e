"""Work in several processes: its order, and what is said of a process that dies."""

import os
import signal
import time

import pytest

from models.errors import OfframpError
from offramp.parallel import in_processes


def slow_double(number: int) -> int:
    time.sleep(0.2 if number == 0 else 0.0)
    return 2 * number


def die(number: int) -> None:
    if number == 1:
        os.kill(os.getpid(), signal.SIGKILL)


def test_results_come_in_the_order_of_the_calls_or_as_they_are_made():
    calls = [(number,) for number in range(6)]
    assert list(in_processes(slow_double, calls, 2, ordered=True)) == [0, 2, 4, 6, 8, 10]
    assert sorted(in_processes(slow_double, calls, 2, ordered=False)) == [0, 2, 4, 6, 8, 10]


def test_a_process_that_is_killed_is_told_of_with_what_to_do():
    with pytest.raises(OfframpError, match=r"killed.*memory.*--jobs 1"):
        list(in_processes(die, [(number,) for number in range(4)], 2, ordered=True))
