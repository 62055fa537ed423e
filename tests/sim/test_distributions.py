"""Distributions of durations agree with scipy.stats and with their own means."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import integrate, stats
from tiny_worlds import examples

from sim.distributions import (
    Constant,
    Exponential,
    Gamma,
    Lognormal,
    TruncatedNormal,
    Uniform,
    quantile,
)

#: All that a generator can draw lies between these two.
LEAST, MOST = 0.0, 1 - 2.0**-53

seconds = st.floats(1e-4, 100.0)
spread = st.floats(0.05, 2.0)  # relative to the mean
kinds = {
    "constant": st.builds(Constant, st.just(0.0) | seconds),
    "uniform": st.builds(lambda low, more: Uniform(low, low + more), seconds, seconds),
    "exponential": st.builds(Exponential, seconds),
    "truncated normal": st.builds(
        lambda loc, relative: TruncatedNormal(loc, loc * relative), seconds, spread
    ),
    "lognormal": st.builds(Lognormal, seconds, st.floats(0.05, 1.2)),
    "gamma": st.builds(lambda loc, relative: Gamma(loc, loc * relative), seconds, spread),
}
every_kind = pytest.mark.parametrize("kind", kinds)


def expectation(function) -> float:
    """The integral of ``function`` from 0 to 1, with care for both ends."""
    ends = [0.0, 1e-6, 1e-3, 0.5, 1 - 1e-3, 1 - 1e-6, 1 - 1e-9, 1 - 1e-12]
    return sum(integrate.quad(function, low, high, limit=200)[0] for low, high in pairwise(ends))


@every_kind
@given(data=st.data())
@examples(25)
def test_mean_is_the_integral_of_the_quantiles(kind, data):
    distribution = data.draw(kinds[kind])
    integral = expectation(lambda u: float(distribution.ppf(np.array([u]))[0]))
    assert distribution.mean() == pytest.approx(integral, rel=1e-5)


@every_kind
@given(data=st.data(), u=st.lists(st.floats(LEAST, MOST), min_size=2, max_size=30))
@examples(40)
def test_quantiles_ascend_and_are_never_negative(kind, data, u):
    distribution = data.draw(kinds[kind])
    values = distribution.ppf(np.sort(u))
    assert (values >= 0).all()
    assert (np.diff(values) >= 0).all()


@every_kind
@given(data=st.data())
@examples(25)
def test_every_number_that_can_be_drawn_gives_a_finite_value(kind, data):
    distribution = data.draw(kinds[kind])
    values = distribution.ppf(np.array([LEAST, 2.0**-53, 0.5, 1 - 2.0**-20, MOST]))
    assert np.isfinite(values).all()


@every_kind
@given(data=st.data())
@examples(10)
def test_shape_of_the_numbers_is_kept(kind, data):
    distribution = data.draw(kinds[kind])
    u = np.linspace(0.1, 0.9, 12)
    values = distribution.ppf(u.reshape(3, 4))
    assert values.shape == (3, 4)
    np.testing.assert_array_equal(values.ravel(), distribution.ppf(u))
    assert [quantile(distribution, q) for q in u] == values.ravel().tolist()


# --- against scipy.stats, as independent implementations -----------------------------------------

U = np.concatenate([[1e-9, 1e-4], np.linspace(0.01, 0.99, 99), [1 - 1e-4, 1 - 1e-9]])


@given(loc=seconds, relative=spread)
@examples(40)
def test_truncated_normal(loc, relative):
    scale = loc * relative
    ours, theirs = TruncatedNormal(loc, scale), stats.truncnorm(-loc / scale, np.inf, loc, scale)
    np.testing.assert_allclose(ours.ppf(U), theirs.ppf(U), rtol=1e-6, atol=1e-6 * scale)
    assert ours.mean() == pytest.approx(theirs.mean(), rel=1e-9)
    assert ours.mean() >= loc, "cutting the negative part off raises the mean"


@given(loc=seconds, relative=spread)
@examples(40)
def test_gamma_has_the_mean_and_standard_deviation_it_is_given(loc, relative):
    scale = loc * relative
    ours = Gamma(loc, scale)
    theirs = stats.gamma((loc / scale) ** 2, scale=scale**2 / loc)
    np.testing.assert_allclose(ours.ppf(U), theirs.ppf(U), rtol=1e-8)
    assert theirs.mean() == pytest.approx(loc)
    assert theirs.std() == pytest.approx(scale)


@pytest.mark.parametrize(("loc", "scale"), [(0.02, 0.005), (3.0, 3.0), (1.0, 1.5)])
def test_moments_of_gamma_by_integration(loc, scale):
    ours = Gamma(loc, scale)
    second = expectation(lambda u: float(ours.ppf(np.array([u]))[0]) ** 2)
    assert ours.mean() == loc
    assert np.sqrt(second - ours.mean() ** 2) == pytest.approx(scale, rel=1e-4)


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (Exponential(0.3), stats.expon(scale=0.3)),
        (Lognormal(2.0, 0.7), stats.lognorm(0.7, scale=2.0)),
        (Uniform(0.5, 2.0), stats.uniform(0.5, 1.5)),
    ],
)
def test_the_others(ours, theirs):
    np.testing.assert_allclose(ours.ppf(U), theirs.ppf(U), rtol=1e-9)
    assert ours.mean() == pytest.approx(theirs.mean())


def test_constant_is_the_same_for_every_number():
    assert Constant(0.25).ppf(U).tolist() == [0.25] * len(U)
    assert Constant(0.25).mean() == 0.25
