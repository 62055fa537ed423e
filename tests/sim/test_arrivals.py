"""Arrival processes are what they say: their rate, their variation, their law."""

import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import integrate, stats
from tiny_worlds import examples, group, node, world

from models.errors import ScenarioError
from sim.distributions import Exponential
from sim.running.slices import slice_ends
from sim.streams import Streams
from sim.workload.arrivals import ClosedLoop, Diurnal, OnOff, Periodic, Poisson, TraceArrivals
from sim.workload.request_traces import RequestTrace

#: Standard errors by which an estimate may miss: 1 in 1.7 million by chance.
SIGMAS = 5

rates = st.floats(0.01, 500.0)
seeds = st.integers(0, 10**6)


@st.composite
def periodic(draw):
    rate_hz = draw(rates)
    return Periodic(rate_hz, draw(st.sampled_from([0.0, 0.1, 0.5, 0.99])) / rate_hz)


@st.composite
def on_off(draw):
    """Bursts from many in a request's time to many requests in a burst."""
    on_rate_hz = draw(rates)
    off_rate_hz = draw(st.sampled_from([0.0, 0.01, 0.5, 1.0, 2.0])) * on_rate_hz
    mean_on_s = draw(st.floats(0.05, 10)) / on_rate_hz
    return OnOff(on_rate_hz, off_rate_hz, mean_on_s, mean_on_s * draw(st.floats(0.2, 5)))


@st.composite
def diurnal(draw):
    """Curves with steps, hours at rest, points at the ends of the period or not."""
    period_s = draw(st.floats(0.1, 1000))
    shares = sorted(draw(st.lists(st.sampled_from([0, 0.1, 0.25, 0.5, 0.8]), min_size=1)))
    levels = st.just(0.0) | st.floats(0.05, 20)
    curve = [(share * period_s, draw(levels) / period_s) for share in shares]
    curve.append((period_s, draw(st.floats(0.5, 20)) / period_s))
    return Diurnal(tuple(curve), draw(st.sampled_from([None, period_s, 1.5 * period_s])))


kinds = {
    "poisson": st.builds(Poisson, rates),
    "periodic": periodic(),
    "on_off": on_off(),
    "diurnal": diurnal(),
}
every_kind = pytest.mark.parametrize("kind", kinds)


def named(seed=1):
    streams = Streams(seed, 0)
    return lambda name: streams.uniforms("cameras", name)


def created(arrivals, devices, *until_s, seed=1):
    """What each call of ``until`` gives."""
    stream = arrivals.begin(devices, named(seed))
    return [stream.until(time_s) for time_s in until_s]


def times_of(arrivals, devices, until_s, seed=1):
    """The times of each device, in a list of arrays."""
    (requests,) = created(arrivals, devices, until_s, seed=seed)
    order = np.argsort(requests.device, kind="stable")
    counts = np.bincount(requests.device, minlength=devices)
    return np.split(requests.created_s[order], np.cumsum(counts)[:-1])


# --- rate and coefficient of variation -----------------------------------------------------------


@every_kind
@given(data=st.data(), seed=seeds)
@examples(25)
def test_rate_is_kept_from_the_start(kind, data, seed):
    arrivals, devices = data.draw(kinds[kind]), 400
    until_s = data.draw(st.sampled_from([0.3, 2, 30])) / arrivals.rate()
    if kind == "diurnal":  # Over whole periods; how it divides them is tested below.
        period_s = arrivals.period_s or arrivals.curve[-1][0]
        until_s = period_s * math.ceil(until_s / period_s)
    (requests,) = created(arrivals, devices, until_s, seed=seed)
    counts = np.bincount(requests.device, minlength=devices)
    # The spread is estimated from the devices, and cannot be where hardly one sends.
    error = max(counts.std(), 0.5) / math.sqrt(devices)
    assert abs(counts.mean() - arrivals.rate() * until_s) < SIGMAS * error


@every_kind
@given(data=st.data(), seed=seeds)
@examples(12)
def test_variation_of_the_times_between_requests_is_kept(kind, data, seed):
    arrivals, devices = data.draw(kinds[kind]), 300
    if kind == "diurnal":
        # By whole periods, each gap counted where it begins: nearly every time of day alike.
        period_s = arrivals.period_s or arrivals.curve[-1][0]
        until_s = period_s * math.ceil(400 / arrivals.rate() / period_s)
    else:
        until_s = 400 / arrivals.rate()
    sums = []
    for times in times_of(arrivals, devices, until_s, seed=seed):
        gaps = np.diff(times)
        sums.append((len(gaps), gaps.sum(), (gaps**2).sum()))
    count, first, second = np.array(sums).T
    # E[gap²] / E[gap]² = 1 + cv², as a ratio of sums over independent devices; the first gap of a
    # device and the one that the end cuts off weigh 1 in 400.
    expected = 1 + arrivals.cv() ** 2
    found = second.mean() * count.mean() / first.mean() ** 2
    influence = found * (second / second.mean() + count / count.mean() - 2 * first / first.mean())
    error = influence.std() / math.sqrt(devices)
    assert abs(found - expected) < SIGMAS * error + 0.012 * (expected - 1) + 1e-9
    assert first.sum() / count.sum() == pytest.approx(1 / arrivals.rate(), rel=0.05)


# --- slices and devices --------------------------------------------------------------------------


@every_kind
@given(
    data=st.data(),
    expected=st.floats(0.01, 60),
    shares=st.lists(st.floats(0, 1.2), max_size=8),
)
@examples(40)
def test_slices_change_no_bit(kind, data, expected, shares):
    arrivals, devices = data.draw(kinds[kind]), 7
    until_s = expected / arrivals.rate()
    cuts = [share * until_s for share in shares]
    cuts += [until_s * 1.2, 0.0]  # Time need not even go on.
    parts = created(arrivals, devices, *cuts)
    (whole,) = created(arrivals, devices, until_s * 1.2)
    latest = 0.0
    for cut, part in zip(cuts, parts, strict=True):
        assert (part.created_s < cut).all()
        assert (part.created_s >= latest).all()
        latest = max(latest, cut)
    for column, pieces in zip(whole, zip(*parts, strict=True), strict=True):
        np.testing.assert_array_equal(np.concatenate(pieces), column)


@every_kind
@given(data=st.data(), expected=st.floats(0.01, 60), devices=st.integers(1, 30))
@examples(20)
def test_other_devices_change_no_bit(kind, data, expected, devices):
    arrivals = data.draw(kinds[kind])
    until_s = expected / arrivals.rate()
    few = times_of(arrivals, devices, until_s)
    many = times_of(arrivals, devices + 50, until_s)
    for one, same in zip(few, many[:devices], strict=True):
        np.testing.assert_array_equal(one, same)


@every_kind
@given(data=st.data(), expected=st.floats(0.01, 200), devices=st.integers(1, 20), seed=seeds)
@examples(25)
def test_requests_are_sorted_numbered_and_before_the_end(kind, data, expected, devices, seed):
    arrivals = data.draw(kinds[kind])
    until_s = expected / arrivals.rate()
    ((device, number, created_s),) = created(arrivals, devices, until_s, seed=seed)
    assert (np.diff(created_s) >= 0).all()
    assert ((created_s >= 0) & (created_s < until_s)).all()
    assert ((device >= 0) & (device < devices)).all()
    for one in range(devices):
        assert number[device == one].tolist() == list(range((device == one).sum()))


@every_kind
@given(data=st.data())
@examples(2)
def test_one_device_with_very_many_requests_takes_more_than_one_block(kind, data):
    arrivals = data.draw(kinds[kind])
    until_s = 300_000 / arrivals.rate()
    (whole,) = created(arrivals, 1, until_s)
    assert whole.number.tolist() == list(range(len(whole.number)))
    assert len(whole.number) == pytest.approx(300_000, rel=0.1)
    first, second = created(arrivals, 1, until_s / 3, until_s)
    np.testing.assert_array_equal(
        whole.created_s, np.concatenate([first.created_s, second.created_s])
    )


@pytest.mark.parametrize(
    "arrivals",
    [
        Poisson(2.0),
        Periodic(2.0, 0.4),
        OnOff(9.0, 0.5, 1.0, 3.0),
        Diurnal(((0, 0), (3, 8), (5, 1))),
    ],
    ids=lambda arrivals: type(arrivals).__name__,
)
def test_devices_are_independent_of_each_other(arrivals):
    # Counts in spans of a device's mean gap; for the curve, which all share, by the time of day.
    span_s, spans = 0.5, 3000
    counts = np.array(
        [
            np.histogram(times, bins=spans, range=(0, span_s * spans))[0]
            for times in times_of(arrivals, 30, span_s * spans)
        ]
    ).reshape(30, -1, 10)
    counts = (counts - counts.mean(axis=(0, 1))).reshape(30, -1)
    if isinstance(arrivals, Periodic):  # Two phases fix how their devices' counts go together.
        counts = np.diff(counts)
        shared = [np.corrcoef(counts)[0, other] for other in range(1, 30)]
        assert min(shared) < 0 < max(shared)
        return
    correlation = np.corrcoef(counts) - np.eye(30)
    # States of bursts last for several spans, which leaves fewer independent ones.
    lasting = 6 if isinstance(arrivals, OnOff) else 1
    assert np.abs(correlation).max() < SIGMAS * math.sqrt(lasting / spans)


# --- Poisson -------------------------------------------------------------------------------------

RATE_HZ = 8.0


@pytest.fixture(scope="module")
def poisson():
    """Times of each of 40 devices over 500 s."""
    return times_of(Poisson(RATE_HZ), 40, 500.0)


def gaps_of(devices):
    return np.concatenate([np.diff(times) for times in devices])


def test_poisson_gaps_are_exponential(poisson):
    gaps = gaps_of(poisson)
    assert stats.kstest(gaps, stats.expon(scale=1 / RATE_HZ).cdf).pvalue > 0.001
    # The tail too, to which that test is blind: nothing is cut off.
    assert gaps.max() > 10 / RATE_HZ


def test_the_test_above_would_see_gaps_clipped_at_three_means(poisson):
    gaps = np.minimum(gaps_of(poisson), 3 / RATE_HZ)
    assert stats.kstest(gaps, stats.expon(scale=1 / RATE_HZ).cdf).pvalue < 1e-9


def test_poisson_starts_as_it_goes_on():
    first = [times[0] for times in times_of(Poisson(RATE_HZ), 5000, 10.0, seed=2)]
    assert stats.kstest(first, stats.expon(scale=1 / RATE_HZ).cdf).pvalue > 0.001


def test_poisson_counts_in_disjoint_seconds_are_poisson_and_uncorrelated(poisson):
    counts = np.array([np.histogram(times, bins=500, range=(0, 500))[0] for times in poisson])
    n = counts.size
    dispersion = counts.var() / counts.mean()
    assert abs(dispersion - 1) < SIGMAS * math.sqrt(2 / n)
    neighbours = np.corrcoef(counts[:, :-1].ravel(), counts[:, 1:].ravel())[0, 1]
    assert abs(neighbours) < SIGMAS / math.sqrt(n)


def test_poisson_devices_together_are_a_poisson_process_too():
    (together,) = created(Poisson(RATE_HZ), 40, 500.0)
    scale = 1 / (RATE_HZ * 40)
    assert stats.kstest(np.diff(together.created_s), stats.expon(scale=scale).cdf).pvalue > 0.001


# --- Periodic ------------------------------------------------------------------------------------


def test_periodic_gaps_are_all_the_same_and_phases_are_spread_over_one_period():
    devices = times_of(Periodic(4.0), 5000, 10.0)
    np.testing.assert_allclose(gaps_of(devices), 0.25, rtol=1e-9)
    first = np.array([times[0] for times in devices])
    assert stats.kstest(first, stats.uniform(0, 0.25).cdf).pvalue > 0.001
    assert abs(np.corrcoef(first[:-1], first[1:])[0, 1]) < SIGMAS / math.sqrt(5000)


def test_lateness_of_releases_is_uniform_and_independent():
    period_s, jitter_s = 0.25, 0.2
    offsets = []
    for times in times_of(Periodic(1 / period_s, jitter_s), 30, 500.0):
        # Releases are a period apart; the least late of two thousand is hardly late at all.
        late = times - period_s * np.arange(len(times))
        offsets.append(late - late.min())
    assert stats.kstest(np.concatenate(offsets), stats.uniform(0, jitter_s).cdf).pvalue > 1e-4
    neighbours = np.corrcoef(
        np.concatenate([late[:-1] for late in offsets]),
        np.concatenate([late[1:] for late in offsets]),
    )[0, 1]
    assert abs(neighbours) < SIGMAS / math.sqrt(30 * 2000)


def test_jittered_devices_begin_as_they_go_on():
    first = np.array([times[0] for times in times_of(Periodic(1.0, 0.9), 20_000, 5.0)])
    later = np.concatenate(times_of(Periodic(1.0, 0.9), 20_000, 3.0, seed=2))
    # The rate of requests is the same at every instant, in the first period as in the third.
    for second in range(3):
        inside = later[(later >= second) & (later < second + 1)] - second
        assert stats.kstest(inside, "uniform").pvalue > 1e-4
    assert first.max() < 1.9


@pytest.mark.parametrize("jitter_s", [-0.01, 0.25, 1.0, math.nan])
def test_jitter_must_be_less_than_a_period(jitter_s):
    with pytest.raises(ValueError, match=r"jitter_s .* less than the period of 0\.25 s"):
        Periodic(4.0, jitter_s)


# --- bursts --------------------------------------------------------------------------------------


@given(process=on_off())
@examples(40)
def test_variation_of_bursts_is_that_of_the_markovian_arrival_process(process):
    # Lucantoni 1991: with D0 the generator less the arrivals, and the state at arrivals as it is in
    # the long run, E[gap^k] = k! · state · (−D0)^−k · 1.
    rates = np.array([process.on_rate_hz, process.off_rate_hz])
    leave = np.array([1 / process.mean_on_s, 1 / process.mean_off_s])
    inverse = np.linalg.inv(
        np.array([[rates[0] + leave[0], -leave[0]], [-leave[1], rates[1] + leave[1]]])
    )
    stay = np.array([process.mean_on_s, process.mean_off_s])
    state = stay * rates / (stay @ rates)
    first, second = state @ inverse @ [1, 1], 2 * state @ inverse @ inverse @ [1, 1]
    assert process.rate() == pytest.approx(1 / first)
    assert process.cv() == pytest.approx(math.sqrt(second / first**2 - 1), rel=1e-6)


def test_equal_rates_are_a_poisson_process():
    process = OnOff(RATE_HZ, RATE_HZ, 0.3, 2.0)
    assert (process.rate(), process.cv()) == (pytest.approx(RATE_HZ), 1.0)
    gaps = gaps_of(times_of(process, 40, 500.0))
    assert stats.kstest(gaps, stats.expon(scale=1 / RATE_HZ).cdf).pvalue > 0.001


def test_gaps_of_an_interrupted_poisson_process_are_hyperexponential():
    # Kuczura 1973: an interrupted Poisson process renews at each request, after a gap of two
    # exponential phases whose rates are the roots of a quadratic.
    on_rate, leave_on, leave_off = 5.0, 1 / 0.4, 1 / 2.0
    gaps = gaps_of(times_of(OnOff(on_rate, 0.0, 0.4, 2.0), 60, 500.0))
    total = on_rate + leave_on + leave_off
    root = math.sqrt(total**2 - 4 * on_rate * leave_off)
    fast, slow = (total + root) / 2, (total - root) / 2
    share = (on_rate - slow) / (fast - slow)

    def cdf(x):
        return 1 - share * np.exp(-fast * x) - (1 - share) * np.exp(-slow * x)

    assert stats.kstest(gaps, cdf).pvalue > 0.001
    neighbours = np.corrcoef(gaps[:-1], gaps[1:])[0, 1]
    assert abs(neighbours) < SIGMAS * 3 / math.sqrt(len(gaps))


def test_bursts_are_stationary_from_the_start():
    process = OnOff(40.0, 1.0, 0.5, 4.0)
    counts = [
        np.histogram(times, bins=6, range=(0, 6))[0]
        for times in times_of(process, 8000, 6.0, seed=4)
    ]
    means, errors = np.mean(counts, axis=0), np.std(counts, axis=0) / math.sqrt(8000)
    assert (np.abs(means - process.rate()) < SIGMAS * errors).all()


@pytest.mark.parametrize(
    ("process", "name"),
    [
        (lambda: Poisson(0.0), "rate_hz"),
        (lambda: Poisson(math.inf), "rate_hz"),
        (lambda: Periodic(-1.0), "rate_hz"),
        (lambda: OnOff(0.0, 0.0, 1.0, 1.0), "on_rate_hz"),
        (lambda: OnOff(1.0, -1.0, 1.0, 1.0), "off_rate_hz"),
        (lambda: OnOff(1.0, 0.0, 0.0, 1.0), "mean_on_s"),
        (lambda: OnOff(1.0, 0.0, 1.0, math.nan), "mean_off_s"),
    ],
)
def test_impossible_figures_are_refused_by_name(process, name):
    with pytest.raises(ValueError, match=f"^{name} must be"):
        process()


# --- diurnal -------------------------------------------------------------------------------------

DAY = Diurnal(((0.0, 2.0), (4.0, 0.0), (6.0, 0.0), (6.0, 5.0), (10.0, 8.0)), period_s=12.0)


def rate_of_day(time_s):
    """The rate that ``DAY`` describes; straight from 8 Hz at 10 s to 2 Hz at 12 s."""
    return np.interp(
        np.asarray(time_s) % 12.0, [0, 4, 6 - 1e-12, 6, 10, 12], [2.0, 0.0, 0.0, 5.0, 8.0, 2.0]
    )


def test_requests_follow_the_curve():
    times = np.concatenate(times_of(DAY, 3000, 36.0))
    expected = [integrate.quad(rate_of_day, low, low + 0.5)[0] for low in np.arange(0, 36, 0.5)]
    counts = np.histogram(times, bins=72, range=(0, 36))[0]
    spread = np.sqrt(3000 * np.array(expected))
    assert (np.abs(counts - 3000 * np.array(expected)) <= SIGMAS * spread + 1e-6).all()
    assert counts[8:12].tolist() == [0, 0, 0, 0], "nothing is sent while the rate is zero"


def test_the_mean_rate_is_the_area_of_the_curve():
    assert DAY.rate() == pytest.approx((4 + 0 + 26 + 10) / 12)
    assert Diurnal(((0, 3), (7, 3))).rate() == pytest.approx(3)
    assert Diurnal(((5, 2.5),), period_s=60).rate() == pytest.approx(2.5), "one point: constant"
    assert Diurnal(((2, 4), (6, 0)), period_s=8).rate() == pytest.approx(2), "over the seam"


def test_a_constant_curve_is_a_poisson_process():
    process = Diurnal(((0, RATE_HZ), (0.7, RATE_HZ)))
    assert process.cv() == pytest.approx(1.0)
    gaps = gaps_of(times_of(process, 40, 500.0))
    assert stats.kstest(gaps, stats.expon(scale=1 / RATE_HZ).cdf).pvalue > 0.001


@pytest.mark.parametrize("scale", [1e-3, 1.0, 30.0])
@pytest.mark.parametrize("period_s", [1.0, 86_400.0])
def test_variation_over_a_day_by_its_definition(scale, period_s):
    # P(gap > x) averaged over requests, whose times of day go with the rate.
    day = DAY.curve
    process = Diurnal(
        tuple((at * period_s / 12, hz * scale / period_s * 12) for at, hz in day), period_s
    )
    fine = np.linspace(0, 12, 12_001)
    reached = np.append(0, np.cumsum((rate_of_day(fine[1:] - 5e-4)) * 1e-3)) * scale

    def area(time):
        cycles, within = np.divmod(time, 12.0)
        return cycles * reached[-1] + np.interp(within, fine, reached)

    # In the clock's time, a request's clock is uniform and the next comes an exponential later.
    clock = (np.arange(2000) + 0.5) / 2000 * reached[-1]
    later = -np.log1p(-(np.arange(2000) + 0.5) / 2000)

    def time_at(clock):
        cycles, within = np.divmod(clock, reached[-1])
        return cycles * 12 + np.interp(within, reached, fine)

    gaps = time_at(clock[:, None] + later) - time_at(clock)[:, None]
    assert process.cv() == pytest.approx(gaps.std() / gaps.mean(), rel=4e-3)


@pytest.mark.parametrize(
    ("curve", "period_s", "message"),
    [
        ((), None, "needs points"),
        (((0, 1), (5, 1), (3, 1)), None, "must ascend within 0 to 3 s"),
        (((0, 1), (5, 1)), 4.0, "must ascend within 0 to 4 s"),
        (((-1, 1), (5, 1)), None, "must ascend within 0 to 5 s"),
        (((0, 1), (5, -2)), None, "must not be negative, as -2 Hz is"),
        (((0, 0), (5, 0)), None, "above zero"),
        (((0, 1),), None, "a period"),
        (((0, math.nan), (1, 1)), None, "finite"),
    ],
)
def test_impossible_curves_are_refused(curve, period_s, message):
    with pytest.raises(ValueError, match=message):
        Diurnal(curve, period_s)


# --- traces and closed loops ---------------------------------------------------------------------


def trace(times_s, device):
    return RequestTrace(Path("t.csv"), np.array(times_s), np.array(device))


def test_requests_that_all_come_at_time_0_are_simulated_in_one_slice():
    arrivals = TraceArrivals(trace([0.0, 0.0], [0, 1]))
    assert arrivals.rate() == math.inf
    alone = group(count=2, arrivals=arrivals)
    assert slice_ends(world(alone, node())) == [10.0, math.inf]
    many = group("many", 100, Poisson(1000.0))
    assert slice_ends(world(alone, many, node())) == slice_ends(world(many, node()))
    assert len(slice_ends(world(many, node()))) > 10


def test_a_trace_is_replayed():
    arrivals = TraceArrivals(trace([0.0, 1.0, 1.0, 1.0, 2.5], [1, 1, 0, 1, 1]), devices=3)
    first, second, third = created(arrivals, 3, 1.0, 2.5, 9.0)
    assert [column.tolist() for column in first] == [[1], [0], [0.0]]
    assert [column.tolist() for column in second] == [[0, 1, 1], [0, 1, 2], [1.0, 1.0, 1.0]]
    assert [column.tolist() for column in third] == [[1], [3], [2.5]]
    assert arrivals.rate() == pytest.approx(5 / 2.5 / 3)
    gaps = [1.0, 0.0, 1.5]
    assert arrivals.cv() == pytest.approx(np.std(gaps) / np.mean(gaps))


def test_a_trace_of_another_process_has_its_rate_and_variation():
    (sent,) = created(OnOff(9.0, 0.5, 1.0, 3.0), 20, 400.0)
    arrivals = TraceArrivals(trace(sent.created_s, sent.device))
    (again,) = created(arrivals, 20, 1000.0)
    for column, same in zip(again, sent, strict=True):
        np.testing.assert_array_equal(column, same)
    process = OnOff(9.0, 0.5, 1.0, 3.0)
    assert arrivals.rate() == pytest.approx(process.rate(), rel=0.1)
    assert arrivals.cv() == pytest.approx(process.cv(), rel=0.1)


def test_a_trace_without_time_has_no_rate_and_no_variation():
    arrivals = TraceArrivals(trace([0.0, 0.0], [0, 1]))
    assert arrivals.rate() == math.inf
    assert math.isnan(arrivals.cv())


def test_a_group_smaller_than_its_trace_is_refused():
    with pytest.raises(ScenarioError, match="device 4 is unknown: the group has 3 devices"):
        created(TraceArrivals(trace([0.0, 1.0], [0, 4])), 3, 1.0)


def test_a_closed_loop_is_its_time_to_think():
    assert ClosedLoop(Exponential(2.0)).think.mean() == 2.0
