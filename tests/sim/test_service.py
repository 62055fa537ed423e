"""Service times: replayed from a profile, or drawn from a distribution."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from tiny_worlds import Deciding, examples, group, node, predictions, profile, run_of, world

from models.errors import ArtifactError
from sim.distributions import Constant, Exponential, Gamma
from sim.nodes.overheads import Overheads, ServiceWithOverheads
from sim.nodes.service import DistributedService, ProfiledService
from sim.policy import ANSWER, run_to
from sim.workload.arrivals import Poisson

#: Four measured inferences that computed every exit, in no order; each sum of its parts is told
#: from every other by its digits.
SEGMENT = np.array([[1.0, 2.0, 4.0]]) * np.array([[100.0], [1.0], [1000.0], [10.0]])
BRANCH = SEGMENT / 10
ALONE = np.array([[0.3, 1.0, 5.0], [0.1, 3.0, 4.0], [0.4, 4.0, 7.0], [0.2, 2.0, 6.0]])


def every_rank(service, count):
    """What ``draw`` gives for uniform numbers in the middle of each of ``count`` ranks."""
    return service.draw((np.arange(count) + 0.5) / count)


# --- the first step ------------------------------------------------------------------------------


@pytest.mark.parametrize("to", [1, 2, 3])
def test_first_step_has_the_distribution_of_the_exit_measured_alone(to):
    service = ProfiledService(profile(ALONE, SEGMENT, BRANCH))
    times = [service.seconds(drawn, 0, to) for drawn in every_rank(service, 4)]
    assert times == sorted(ALONE[:, to - 1])


@given(
    st.lists(st.floats(1e-4, 1.0), min_size=1, max_size=40),
    st.lists(st.floats(0, 1, exclude_max=True), min_size=1, max_size=40),
)
@examples(60)
def test_a_uniform_number_chooses_the_quantile_of_the_samples(samples, u):
    service = ProfiledService(profile([[sample] for sample in samples]))
    times = [service.seconds(drawn, 0, 1) for drawn in service.draw(np.array(u))]
    assert times == [sorted(samples)[int(one * len(samples))] for one in u]


def test_service_times_of_a_run_follow_the_profile():
    samples = np.random.default_rng(5).gamma(2.0, 0.01, 40)
    a_world = world(
        group(arrivals=Poisson(5.0), count=4),
        node(ProfiledService(profile(samples[:, None]))),
        duration_s=1000.0,
    )
    run = run_of(a_world)
    # Times are differences of two instants of the run, so they are rounded.
    served = np.round(run.finished_s - run.started_s, 9)
    values, counts = np.unique(served, return_counts=True)
    assert values.tolist() == np.unique(np.round(samples, 9)).tolist()
    assert stats.chisquare(counts).pvalue > 0.001, "every sample is drawn as often as any other"


def test_a_slow_draw_is_slow_at_every_exit():
    random = np.random.default_rng(1)
    service = ProfiledService(profile(*random.uniform(0.1, 1.0, (3, 200, 3))))
    for to in (1, 2, 3):
        times = [service.seconds(drawn, 0, to) for drawn in every_rank(service, 200)]
        assert times == sorted(times)
    later = [service.seconds(drawn, 1, 3) for drawn in every_rank(service, 200)]
    assert np.corrcoef(later, np.arange(200))[0, 1] > 0.5


# --- later steps ---------------------------------------------------------------------------------


def test_later_steps_are_parts_of_one_measured_inference():
    service = ProfiledService(profile(ALONE, SEGMENT, BRANCH))
    # From the fastest inference, the second measured, to the slowest, the third.
    for drawn, factor in zip(every_rank(service, 4), (1, 10, 100, 1000), strict=True):
        assert service.seconds(drawn, 1, 2) == pytest.approx(factor * (2 + 0.2))
        assert service.seconds(drawn, 1, 3) == pytest.approx(factor * (2 + 4 + 0.4))
        assert service.seconds(drawn, 2, 3) == pytest.approx(factor * (4 + 0.4))


def test_a_request_that_goes_on_takes_the_sum_of_its_steps():
    service = ProfiledService(profile(ALONE, SEGMENT, BRANCH))

    def first_then_last(request, node):
        return (run_to(1), run_to(3), None, ANSWER)[request.exit]

    a_world = world(group(arrivals=Poisson(0.01)), node(service), duration_s=3000.0)
    run = run_of(a_world, Deciding(first_then_last), predictions(exits=3))
    drawn = service.draw(run.requests.service_u)
    assert len(set(drawn)) == 4
    expected = [service.seconds(one, 0, 1) + service.seconds(one, 1, 3) for one in drawn]
    np.testing.assert_allclose(run.finished_s - run.started_s, expected, rtol=1e-9)


@pytest.mark.parametrize(("alone", "whole"), [(8, 4), (4, 8)])
def test_single_exits_and_whole_inferences_may_be_measured_in_different_numbers(alone, whole):
    exit = np.arange(1.0, alone + 1)[:, None] * [1.0, 2.0]
    segment = np.arange(1.0, whole + 1)[:, None] * [1.0, 1.0]
    service = ProfiledService(profile(exit, segment, np.zeros((whole, 2))))
    drawn = every_rank(service, alone)
    assert [service.seconds(one, 0, 1) for one in drawn] == exit[:, 0].tolist()
    later = [service.seconds(one, 1, 2) for one in drawn]
    # Every second one of the longer list, or every one of the shorter twice.
    assert later == [float(1 + rank * whole // alone) for rank in range(alone)]


# --- going exit by exit --------------------------------------------------------------------------


@pytest.mark.parametrize("speed", [1.0, 0.5])
def test_going_exit_by_exit_costs_every_classifier_on_the_way(speed):
    service = ProfiledService(profile(ALONE, SEGMENT, BRANCH), speed)
    # Of segments and branches the mean inference is 277.75 times the fastest.
    steps = np.array([0.25, 277.75 * (2 + 0.2), 277.75 * (4 + 0.4)])
    assert service.stepwise_means() == pytest.approx(np.cumsum(steps) / speed)
    assert service.means() == pytest.approx(ALONE.mean(axis=0) / speed)


@pytest.mark.parametrize(("alone", "whole"), [(8, 4), (4, 8), (7, 5)])
def test_mean_costs_are_those_of_the_times_that_are_drawn(alone, whole):
    random = np.random.default_rng(1)
    tables = (random.uniform(0.1, 1.0, (count, 3)) for count in (alone, whole, whole))
    service = ProfiledService(profile(*tables))
    drawn = every_rank(service, alone)
    for means, ways in (
        (service.stepwise_means(), [[(0, 1)], [(0, 1), (1, 2)], [(0, 1), (1, 2), (2, 3)]]),
        (service.means(), [[(0, 1)], [(0, 2)], [(0, 3)]]),
    ):
        for mean, way in zip(means, ways, strict=True):
            taken = [sum(service.seconds(one, *step) for step in way) for one in drawn]
            assert mean == pytest.approx(np.mean(taken))


def test_a_distribution_costs_the_same_however_one_goes():
    service = DistributedService(Gamma(0.2, 0.1), exit_count=3, speed=2.0)
    assert service.stepwise_means() == service.means() == pytest.approx((0.1, 0.1, 0.1))


def test_overheads_are_no_part_of_what_exits_cost():
    inference = ProfiledService(profile(ALONE, SEGMENT, BRANCH))
    service = ServiceWithOverheads(inference, Overheads(begin=Constant(5.0), reply=Constant(3.0)))
    assert service.stepwise_means() == inference.stepwise_means()


# --- speed, quantiles, what is missing -----------------------------------------------------------


@pytest.mark.parametrize("speed", [0.5, 1.0, 4.0])
def test_times_are_divided_by_the_speed_of_the_node(speed):
    reference = ProfiledService(profile(ALONE, SEGMENT, BRANCH))
    service = ProfiledService(profile(ALONE, SEGMENT, BRANCH), speed)
    for drawn in every_rank(reference, 4):
        for since, to in ((0, 1), (0, 3), (1, 2), (1, 3), (2, 3)):
            expected = reference.seconds(drawn, since, to) / speed
            assert service.seconds(drawn, since, to) == pytest.approx(expected)
    assert service.quantiles(0.5, 0) == pytest.approx(
        tuple(time / speed for time in reference.quantiles(0.5, 0))
    )


@pytest.mark.parametrize("q", [0.05, 0.5, 0.95])
def test_quantiles_are_those_of_the_samples(q):
    service = ProfiledService(profile(ALONE, SEGMENT, BRANCH), speed=2.0)
    assert service.quantiles(q, 0) == pytest.approx(tuple(np.quantile(ALONE, q, axis=0) / 2))
    steps = np.stack([SEGMENT[:, 1] + BRANCH[:, 1], SEGMENT[:, 1:].sum(1) + BRANCH[:, 2]])
    assert service.quantiles(q, 1) == pytest.approx(tuple(np.quantile(steps, q, axis=1) / 2))
    last = SEGMENT[:, 2] + BRANCH[:, 2]
    assert service.quantiles(q, 2) == pytest.approx((np.quantile(last, q) / 2,))


def test_a_profile_without_batch_size_1_is_refused():
    with pytest.raises(ArtifactError, match="batch sizes 8, but not 1"):
        ProfiledService(profile(ALONE, SEGMENT, BRANCH, batch_size=8))


def test_other_batch_sizes_are_left_alone():
    measured = profile(ALONE, SEGMENT, BRANCH)
    measured.seconds[8] = {name: table * 8 for name, table in measured.seconds[1].items()}
    service = ProfiledService(measured)
    assert service.exit_count == 3
    assert service.quantiles(0.5, 0) == pytest.approx(tuple(np.quantile(ALONE, 0.5, axis=0)))


# --- distributions -------------------------------------------------------------------------------


def test_a_distribution_is_spent_before_the_first_answer_whichever_exit_it_is():
    service = DistributedService(Exponential(0.2), exit_count=3, speed=2.0)
    u = np.array([0.0, 0.3, 0.99])
    drawn = service.draw(u)
    for to in (1, 2, 3):
        times = [service.seconds(one, 0, to) for one in drawn]
        assert times == pytest.approx(-0.1 * np.log(1 - u))
    assert [service.seconds(one, 1, 3) for one in drawn] == [0.0] * 3


@pytest.mark.parametrize("q", [0.1, 0.95])
def test_quantiles_of_a_distribution(q):
    service = DistributedService(Gamma(0.2, 0.1), exit_count=3, speed=2.0)
    expected = stats.gamma(4.0, scale=0.05).ppf(q) / 2
    assert service.quantiles(q, 0) == pytest.approx((expected,) * 3)
    assert service.quantiles(q, 1) == (0.0, 0.0)
    assert DistributedService(Constant(0.2), 1).quantiles(q, 0) == (0.2,)
