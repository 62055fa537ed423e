"""How quiet a host is, and what is said of one that is not."""

import os
import threading

import numpy as np
import pytest

from models.artifacts import Profile
from models.inference.quietness import NOT_QUIET, noise_of, slowdown, time_work
from offramp.validation.calibration import Calibration, NodeSamples, pooled
from offramp.validation.page import quietness_note
from sim.distributions import Floats


def of_host(*work_s: float) -> Calibration:
    one = np.ones(1)
    nodes = {"edge": NodeSamples(one, one, one, one)}
    about = {"measured_at": "now"}
    return Calibration(np.array(work_s), one, one, one, one, 0.0, nodes, 0, about)


def test_every_processor_works(monkeypatch: pytest.MonkeyPatch) -> None:
    before = os.sched_getaffinity(0)
    exp, where = np.exp, dict[int, set[int]]()

    def noted(numbers: Floats, out: Floats) -> None:
        where[threading.get_ident()] = os.sched_getaffinity(0)
        exp(numbers, out=out)

    monkeypatch.setattr(np, "exp", noted)
    found = time_work(0.05)
    assert len(found) >= len(where)
    assert np.isfinite(found).all()
    assert (found > 0).all()
    assert sorted(map(sorted, where.values())) == [[processor] for processor in sorted(before)]
    assert os.sched_getaffinity(0) == before, "of its own threads alone"


def test_the_slowdown_is_from_the_5th_to_the_95th_percentile() -> None:
    assert slowdown(np.full(50, 0.004)) == 1.0
    # One of a hundred is no percentile, be it ever so slow.
    assert slowdown(np.array([0.004] * 99 + [1.0])) == pytest.approx(1.0)
    assert slowdown(np.linspace(0.0, 0.1, 101)) == pytest.approx(19.0)


def test_nothing_is_said_of_a_quiet_host() -> None:
    assert quietness_note(of_host(*np.linspace(0.004, 0.004 * NOT_QUIET, 101))) is None


def test_a_host_that_is_not_quiet_is_told_with_its_figures() -> None:
    said = str(quietness_note(of_host(*[0.004] * 50, *[0.010] * 50, 0.006)))
    assert "took 4.0 ms at the 5th percentile, 6.0 in the median and 10.0 at the 95th" in said
    assert said.endswith("2.5 times as long.")


def test_a_host_that_is_slow_for_minutes_is_told_of_too() -> None:
    """What no single calibration shows, all of them do."""
    fast, slow = of_host(*[0.004] * 20), of_host(*[0.008] * 20)
    assert quietness_note(fast) is None
    assert quietness_note(slow) is None
    assert "2.0 times as long" in str(quietness_note(pooled([fast, slow])))


@pytest.mark.parametrize(
    ("slowest_s", "said"), [(0.0014, None), (0.0021, "took 2.1 times as long")]
)
def test_a_profile_shows_whether_its_host_was_quiet(slowest_s: float, said: str | None) -> None:
    """By the deepest exit, of the smallest batch."""
    exit_s = np.column_stack([np.geomspace(1e-4, 1e-2, 100), [0.001] * 90 + [slowest_s] * 10])
    zeros = np.zeros_like(exit_s)
    of_one = {"exit": exit_s, "segment": zeros, "branch": zeros}
    of_four = {"exit": exit_s[:, ::-1], "segment": zeros, "branch": zeros}
    found = noise_of(Profile({4: of_four, 1: of_one}, {}))
    assert found is None if said is None else said in str(found)
