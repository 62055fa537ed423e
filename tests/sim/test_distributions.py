"""Distributions of durations agree with scipy.stats and with their own means."""

import math
import pickle
import subprocess
import sys
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import integrate, stats
from tiny_worlds import examples

from models.errors import ArtifactError
from sim.distributions import (
    Constant,
    Empirical,
    Exponential,
    Gamma,
    Lognormal,
    ScipyDistribution,
    TruncatedNormal,
    Uniform,
    check_not_negative,
    constant_value,
    quantile,
    read_values,
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
    "scipy": st.builds(
        lambda c, scale: ScipyDistribution("weibull_min", {"c": c, "scale": scale}, 1e-3),
        st.floats(0.7, 5),
        seconds,
    ),
    "scipy without a formula": st.builds(
        lambda c: ScipyDistribution("foldnorm", {"c": c, "scale": 20}, 1e-3),
        st.sampled_from([0.5, 1.5]),
    ),
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


# --- scipy.stats by name -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("weibull_min", {"c": 1.5, "scale": 20}),
        ("lognorm", {"s": 0.5, "loc": 3, "scale": 20}),
        ("pareto", {"b": 2.5}),
        ("triang", {"c": 0.3, "loc": 5, "scale": 10}),
        ("burr12", {"c": 2, "d": 1.5}),
        ("expon", {}),
    ],
)
def test_a_formula_of_scipy_is_used_as_it_is(name, parameters):
    theirs = getattr(stats, name)(**parameters)
    ours = ScipyDistribution(name, parameters, unit=1e-3)
    np.testing.assert_allclose(ours.ppf(U), theirs.ppf(U) * 1e-3, rtol=1e-12)
    assert ours.mean() == pytest.approx(theirs.mean() * 1e-3)


@pytest.mark.parametrize(
    ("name", "parameters"),
    [("foldnorm", {"c": 1.2, "scale": 8}), ("exponnorm", {"K": 1.2, "loc": 10, "scale": 2})],
)
def test_where_scipy_has_no_formula_quantiles_are_interpolated(name, parameters):
    theirs = getattr(stats, name)(**parameters)
    ours = ScipyDistribution(name, parameters, unit=1e-3)
    u = np.concatenate([[0.0, 1e-12], np.random.default_rng(0).random(60), [1 - 1e-12]])
    np.testing.assert_allclose(ours.ppf(u), theirs.ppf(u) * 1e-3, rtol=1e-7, atol=1e-12)
    close = np.sort(np.random.default_rng(1).random(20_000))
    assert (np.diff(ours.ppf(close)) >= 0).all()


def test_scipy_distributions_are_values():
    one = ScipyDistribution("gamma", {"a": 2, "scale": 3}, 1e-3)
    same = ScipyDistribution("gamma", {"scale": 3, "a": 2}, 1e-3)
    assert one == same
    assert hash(one) == hash(same)
    assert one != ScipyDistribution("gamma", {"a": 2, "scale": 3})
    copy = pickle.loads(pickle.dumps(one))
    np.testing.assert_array_equal(copy.ppf(U), one.ppf(U))


@pytest.mark.parametrize(
    ("name", "parameters", "message"),
    [
        ("gama", {}, r"no continuous distribution 'gama'; did you mean 'gamma'\?"),
        ("poisson", {"mu": 2}, "no continuous distribution 'poisson'"),
        ("rv_continuous", {}, "no continuous distribution"),
        ("gamma", {"a": 2, "scal": 1}, r"no parameter 'scal'; did you mean 'scale'\?"),
        ("gamma", {"scale": 1}, "gamma needs its parameter a$"),
        ("burr", {}, "burr needs its parameters c, d$"),
        ("gamma", {"a": -2}, r"gamma\(a=-2\): scipy.stats does not take these values"),
        ("gamma", {"a": 2, "scale": -1}, "does not take these values"),
        ("gamma", {"a": math.nan}, "does not take these values"),
    ],
)
def test_what_scipy_does_not_know_is_refused(name, parameters, message):
    with pytest.raises(ValueError, match=message):
        ScipyDistribution(name, parameters)


def test_scipy_stats_is_imported_only_when_it_is_named():
    script = (
        "import sys, sim.distributions, sim.workload.arrivals, sim.workload.samples;"
        "assert not {'scipy.stats', 'scipy.interpolate'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", script], check=True)


# --- measured values -----------------------------------------------------------------------------

measured = st.lists(st.floats(0, 1e3), min_size=1, max_size=50)


@given(values=measured, u=st.floats(LEAST, MOST))
@examples(200)
def test_quantiles_of_measured_values_invert_their_distribution_function(values, u):
    ascending = sorted(values)
    share = (np.arange(len(values)) + 1) / len(values)
    expected = next(value for value, reached in zip(ascending, share, strict=True) if reached >= u)
    assert quantile(Empirical(np.array(values)), u) == expected


@given(count=st.integers(1, 400))
@examples(60)
def test_shares_that_rounding_could_miss(count):
    # 0.07 · 100 is a little more than 7, and 0.29 · 100 a little less than 29.
    u = np.arange(count) / count
    ranks = Empirical(np.arange(count) + 1.0).ppf(u)
    assert ranks.tolist() == [1.0, *range(1, count)]
    above = Empirical(np.arange(count) + 1.0).ppf(np.nextafter(u, 1))
    assert above.tolist() == list(range(1, count + 1))


@given(values=measured)
@examples(50)
def test_each_measured_value_is_as_likely_as_the_others(values):
    u = (np.arange(7 * len(values)) + 0.5) / (7 * len(values))
    drawn = Empirical(np.array(values)).ppf(u)
    np.testing.assert_array_equal(drawn, np.repeat(np.sort(values), 7))
    assert Empirical(np.array(values)).mean() == pytest.approx(drawn.mean(), rel=1e-12, abs=1e-12)


@pytest.mark.parametrize("values", [[], [1.0, math.nan], [math.inf]], ids=str)
def test_nothing_measured_or_nothing_finite_is_refused(values):
    with pytest.raises(ValueError, match="needs values, all of them finite"):
        Empirical(np.array(values))


@pytest.mark.parametrize(
    "text", ["1.5\n0\n2e3\n", "rtt_ms\n1.5\n\n0\n2e3", "\ufeff 1.5 \r\n0\r\n2e3\r\n\r\n"]
)
def test_values_are_read_from_lines(tmp_path, text):
    path = tmp_path / "rtt.csv"
    path.write_text(text, encoding="utf-8")
    assert read_values(path).tolist() == [1.5, 0.0, 2000.0]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1\n2\nfast\n", r"rtt\.csv:3: one number on each line is expected, .* 'fast'"),
        ("1\n\n-2\n", r"rtt\.csv:3: values must be finite and not negative, .* '-2'"),
        ("nan\n", r"rtt\.csv:1: values must be finite"),
        ("1\ninf\n", r"rtt\.csv:2: values must be finite"),
        ("a,b\n1,2\n", r"rtt\.csv:1: one number on each line is expected, .* 'a,b'"),
        ("rtt\n", r"rtt\.csv: holds no values"),
        ("", r"rtt\.csv: holds no values"),
        (None, r"rtt\.csv: not a readable file"),
        (b"\xff\xfe1", r"rtt\.csv: not a readable file"),
    ],
)
def test_a_line_that_is_no_measured_value_is_named(tmp_path, text, message):
    path = tmp_path / "rtt.csv"
    if text is not None:
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ArtifactError, match=message):
        read_values(path)


# --- what all of them can be asked ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("distribution", "value"),
    [
        (Constant(0.25), 0.25),
        (Constant(0.0), 0.0),
        (Uniform(0.5, 0.5), 0.5),
        (Uniform(0.5, 0.6), None),
        (Exponential(1e-9), None),
        (Exponential(0.0), 0.0),
        (Lognormal(1.0, 0.1), None),
        (Empirical(np.array([2.0, 2.0])), 2.0),
        (Empirical(np.array([2.0, 2.5])), None),
        (ScipyDistribution("gamma", {"a": 2.0}), None),
    ],
    ids=str,
)
def test_a_distribution_of_one_value_says_which(distribution, value):
    assert constant_value(distribution) == value


@every_kind
@given(data=st.data())
@examples(10)
def test_durations_are_accepted(kind, data):
    check_not_negative(data.draw(kinds[kind]))


@pytest.mark.parametrize(
    ("distribution", "message"),
    [
        (ScipyDistribution("norm", {"loc": 50, "scale": 1}, 1e-3), r"norm\(loc=50, .* -inf s"),
        (ScipyDistribution("gamma", {"a": 2, "loc": -3}, 1e-3), r"gamma\(.* value is -0\.003 s"),
        (Uniform(-0.5, 2.0), r"Uniform\(low=-0\.5, high=2\.0\) can be negative .* -0\.5 s"),
        (Constant(-1.0), "can be negative"),
        (Constant(math.nan), "can be negative"),
        (Empirical(np.array([1.0, -1e-9])), "can be negative .* -1e-09 s"),
    ],
    ids=str,
)
def test_negative_mass_is_refused(distribution, message):
    with pytest.raises(ValueError, match=message):
        check_not_negative(distribution)
