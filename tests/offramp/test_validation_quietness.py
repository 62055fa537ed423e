"""How quiet a host is, and what is said of one that is not."""

import os
from dataclasses import replace

import numpy as np
import pytest

from offramp.validation.calibration import Calibration, NodeSamples, pooled
from offramp.validation.page import unquiet
from offramp.validation.quietness import NOT_QUIET, spread, work_s


def of_host(*worked_s: float) -> Calibration:
    one = np.ones(1)
    nodes = {"edge": NodeSamples(one, one, one, one)}
    return Calibration(
        np.array(worked_s), one, one, one, one, 0.0, nodes, 0, {"measured_at": "now"}
    )


def test_every_processor_works() -> None:
    found = work_s()
    assert len(found) >= len(os.sched_getaffinity(0))
    assert np.isfinite(found).all()
    assert (found > 0).all()


def test_the_spread_is_from_the_5th_to_the_95th_percentile() -> None:
    assert spread(np.full(50, 0.004)) == 1.0
    # One of a hundred is no percentile, be it ever so slow.
    assert spread(np.array([0.004] * 99 + [1.0])) == pytest.approx(1.0)
    assert spread(np.linspace(0.0, 0.1, 101)) == pytest.approx(19.0)


def test_nothing_is_said_of_a_quiet_host() -> None:
    assert unquiet(of_host(*np.linspace(0.004, 0.004 * NOT_QUIET, 101))) is None


def test_a_host_that_is_not_quiet_is_told_with_its_figures() -> None:
    said = unquiet(of_host(*[0.004] * 50, *[0.010] * 50, 0.006))
    assert said is not None
    assert "the same work took 4.0 ms, 6.0 in the median and 10.0 at the 95th percentile" in said
    assert said.endswith("2.5 times as long.")


def test_nor_is_one_that_is_slow_for_minutes() -> None:
    """What no single calibration shows, all of them do."""
    fast, slow = of_host(*[0.004] * 20), of_host(*[0.008] * 20)
    assert unquiet(fast) is None
    assert unquiet(slow) is None
    assert "2.0 times as long" in str(unquiet(pooled([fast, replace(slow)])))
