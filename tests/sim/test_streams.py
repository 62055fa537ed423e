"""Random numbers are uniform, uncorrelated, and found by their name and position alone."""

import math
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from tiny_worlds import examples

from sim.streams import Streams, Uniforms

#: Standard errors by which an estimate may miss: 1 in 1.7 million by chance.
SIGMAS = 5

positions = st.integers(0, 2**62)
devices = st.integers(0, 2**40)
keys = st.integers(0, 2**64 - 1)


def table(devices=200, length=500, seed=1, replication=0, name=("arrivals", "cameras")):
    """Numbers (devices, length)."""
    uniforms = Streams(seed, replication).uniforms(*name)
    return uniforms(np.arange(devices)[:, None], np.arange(length))


def assert_uncorrelated(one, other):
    assert abs(np.corrcoef(one.ravel(), other.ravel())[0, 1]) < SIGMAS / math.sqrt(one.size)
    # Dependence that leaves the correlation at 0: where both halves of the range meet.
    cells, _, _ = np.histogram2d(one.ravel(), other.ravel(), bins=10, range=[[0, 1], [0, 1]])
    assert stats.chisquare(cells.ravel()).pvalue > 1e-6


# --- law -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(("devices", "length"), [(1, 100_000), (100_000, 1), (300, 300)])
def test_numbers_are_uniform(devices, length, seed):
    values = table(devices, length, seed=seed).ravel()
    assert stats.kstest(values, "uniform").pvalue > 1e-4
    assert len(np.unique(values)) == values.size


@given(key=keys, device=devices, position=positions)
@examples(300)
def test_numbers_lie_from_0_to_below_1(key, device, position):
    (value,) = Uniforms(key)(np.array([device]), np.array([position]))
    assert 0 <= value < 1
    assert value * 2**53 == int(value * 2**53), "one of the 2^53 evenly spaced numbers"


def test_every_bit_is_a_fair_coin():
    bits = (table(100, 1000).ravel() * 2**53).astype(np.int64)
    shares = np.array([(bits >> bit & 1).mean() for bit in range(53)])
    assert np.abs(shares - 0.5).max() < SIGMAS * 0.5 / math.sqrt(bits.size)


# --- independence --------------------------------------------------------------------------------


@pytest.mark.parametrize("lag", [1, 2, 3, 10, 64])
def test_uncorrelated_along_positions(lag):
    values = table()
    assert_uncorrelated(values[:, :-lag], values[:, lag:])


@pytest.mark.parametrize("lag", [1, 2, 3, 10, 64])
def test_uncorrelated_across_devices(lag):
    values = table()
    assert_uncorrelated(values[:-lag], values[lag:])


def test_no_device_is_another_one_shifted():
    values = table(50, 400)
    for shift in range(-3, 4):
        earlier, later = values[:-1, 3:-3], values[1:, 3 + shift : values.shape[1] - 3 + shift]
        assert_uncorrelated(earlier, later)


@pytest.mark.parametrize(
    "other",
    [
        {"seed": 2},
        {"seed": 1 << 32},
        {"replication": 1},
        {"replication": 2},
        {"name": ("arrivals", "sensors")},
        {"name": ("samples", "cameras")},
        {"name": ("cameras", "arrivals")},
        {"name": ("arrivals",)},
    ],
    ids=str,
)
def test_uncorrelated_across_seeds_replications_and_names(other):
    assert_uncorrelated(table(), table(**other))


def test_generators_are_apart_too():
    streams = Streams(1, 0)
    ours = streams.generator("faults", "edge").random(50_000)
    assert stats.kstest(ours, "uniform").pvalue > 1e-4
    assert_uncorrelated(ours, streams.generator("faults", "cloud").random(50_000))
    assert_uncorrelated(ours, Streams(1, 1).generator("faults", "edge").random(50_000))
    np.testing.assert_array_equal(ours, Streams(1, 0).generator("faults", "edge").random(50_000))


# --- found by position ---------------------------------------------------------------------------


@given(
    key=keys,
    asked=st.lists(st.tuples(devices, positions), min_size=1, max_size=40),
    shuffle=st.randoms(use_true_random=False),
)
@examples(100)
def test_a_number_does_not_depend_on_what_else_is_asked_nor_on_the_order(key, asked, shuffle):
    alone = {one: Uniforms(key)(np.array([one[0]]), np.array([one[1]]))[0].item() for one in asked}
    uniforms = Uniforms(key)
    shuffle.shuffle(asked)
    device, position = np.array(asked).T
    together = uniforms(device, position).tolist()
    assert together == [alone[one] for one in asked]
    assert uniforms(device, position).tolist() == together, "asking leaves no trace"


def test_arguments_are_left_as_they_are_and_may_be_of_any_integer_type():
    device, position = np.array([3, 4]), np.array([5, 6])
    values = Uniforms(7)(device, position)
    assert (device.tolist(), position.tolist()) == ([3, 4], [5, 6])
    small = Uniforms(7)(device.astype(np.int32), position.astype(np.uint8))
    np.testing.assert_array_equal(values, small)


def test_a_row_and_a_column_make_a_table():
    whole = table(3, 4)
    uniforms = Streams(1, 0).uniforms("arrivals", "cameras")
    single = [uniforms(np.array([d]), np.array([p]))[0] for d in range(3) for p in range(4)]
    assert whole.ravel().tolist() == single


def test_another_process_finds_the_same_numbers():
    script = (
        "import numpy as np; from sim.streams import Streams;"
        "print(Streams(5, 2).uniforms('links', 'cell')(np.arange(3), np.arange(3)).tolist())"
    )
    said = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    ours = Streams(5, 2).uniforms("links", "cell")(np.arange(3), np.arange(3)).tolist()
    assert said.stdout.strip() == str(ours)
