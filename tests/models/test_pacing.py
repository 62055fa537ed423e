"""Pacing: how the visible part grows, which samples it holds, and the batches drawn from it."""

import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny_networks import examples

from models.training.pacing import (
    PACING_FUNCTIONS,
    ExponentialPacing,
    FixedExponentialPacing,
    LinearPacing,
    LogarithmicPacing,
    QuadraticPacing,
    RootPacing,
    SingleStepPacing,
    VariedExponentialPacing,
    all_visible,
    class_balanced_order,
    paced_batches,
)

pacings = st.builds(
    FixedExponentialPacing,
    start_fraction=st.floats(0.001, 1),
    increase=st.floats(1.01, 50),
    full_at=st.floats(0.01, 1),
)
spent_parts = st.floats(0, 1, exclude_max=True)

SMOOTH = (LinearPacing, RootPacing, QuadraticPacing, LogarithmicPacing, ExponentialPacing)

#: Any pacing with ``start_fraction`` and ``full_at`` alone.
pacings_of_two = st.builds(
    lambda kind, start_fraction, full_at: kind(start_fraction, full_at),
    st.sampled_from((SingleStepPacing, *SMOOTH)),
    st.floats(0.001, 1),
    st.floats(0.01, 1),
)
varied_pacings = st.builds(
    VariedExponentialPacing,
    start_fraction=st.floats(0.001, 1),
    increase=st.floats(1.01, 1e300),
    increases_at=st.sets(st.floats(0.001, 1), min_size=1, max_size=12).map(
        lambda parts: tuple(sorted(parts))
    ),
)

#: Labels and a score for each, with ties.
scored_labels = st.lists(
    st.tuples(st.integers(0, 4), st.integers(-5, 5)), min_size=1, max_size=60
).map(
    lambda pairs: (
        np.array([label for label, _ in pairs]),
        np.array([float(score) for _, score in pairs]),
    )
)


# --- the pacing function -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("spent", "visible"),
    [
        (0, 0.1),
        (0.124, 0.1),
        (0.125, 0.19),
        (0.249, 0.19),
        (0.25, 0.361),
        (0.374, 0.361),
        (0.375, 0.6859),
        (0.499, 0.6859),
        (0.5, 1),
        (0.99, 1),
    ],
)
def test_ten_percent_grows_by_nine_tenths_four_times_in_half_the_budget(spent, visible):
    pacing = FixedExponentialPacing(start_fraction=0.1, increase=1.9, full_at=0.5)
    assert pacing(spent) == pytest.approx(visible, rel=1e-12)


def test_a_start_that_whole_doublings_bring_to_one_needs_no_increase_more():
    # A quarter, doubled twice, is all: half of it is visible for the second half of full_at.
    pacing = FixedExponentialPacing(start_fraction=0.25, increase=2, full_at=0.8)
    assert [pacing(spent) for spent in (0, 0.39, 0.4, 0.79, 0.8)] == [0.25, 0.25, 0.5, 0.5, 1]


@given(increase=st.floats(1.01, 50), full_at=st.floats(0.01, 1), spent=spent_parts)
@examples(50)
def test_starting_with_everything_is_standard_training(increase, full_at, spent):
    assert FixedExponentialPacing(1.0, increase, full_at)(spent) == 1 == all_visible(spent)


@given(pacing=pacings, parts=st.lists(spent_parts, min_size=2, max_size=10))
@examples(200)
def test_the_visible_part_only_ever_grows(pacing, parts):
    visible = [pacing(spent) for spent in sorted(parts)]
    assert visible == sorted(visible)
    assert all(0 < part <= 1 for part in visible)


@given(pacing=pacings, part=st.floats(0, 1))
@examples(200)
def test_it_begins_at_the_start_fraction_and_all_is_visible_once_full(pacing, part):
    assert pacing(0) == pytest.approx(pacing.start_fraction, rel=1e-6)
    assert pacing(pacing.full_at + part * (1 - pacing.full_at)) == 1


@pytest.mark.parametrize(
    ("spent", "visible"),
    [(0, 0.2), (0.099, 0.2), (0.1, 0.4), (0.299, 0.4), (0.3, 0.8), (0.69, 0.8), (0.7, 1), (0.9, 1)],
)
def test_steps_of_varied_lengths_multiply_each_by_the_same_factor(spent, visible):
    # A fifth takes three doublings: 0.4, 0.8, and 1.6 capped at 1.
    pacing = VariedExponentialPacing(0.2, 2, (0.1, 0.3, 0.7))
    assert pacing(spent) == pytest.approx(visible, rel=1e-12)


def test_equal_steps_that_suffice_are_those_of_fixed_exponential_pacing():
    fixed = FixedExponentialPacing(start_fraction=0.1, increase=1.9, full_at=0.5)
    varied = VariedExponentialPacing(0.1, 1.9, (0.125, 0.25, 0.375, 0.5))
    parts = np.arange(1000) / 1000
    assert [varied(spent) for spent in parts] == [fixed(spent) for spent in parts]


def test_rounding_adds_no_increase():
    # 0.008 * 5^3 and 1/49 * 7^2 are 1, but their logarithms are 3 and 2 and a rounding error.
    fixed = FixedExponentialPacing(start_fraction=0.008, increase=5, full_at=0.6)
    assert [fixed(spent) for spent in (0.19, 0.21, 0.41)] == pytest.approx([0.008, 0.04, 0.2])
    assert VariedExponentialPacing(1 / 49, 7, (0.1, 0.2, 0.3))(0.2) == 1


def test_the_last_of_too_few_increases_shows_all():
    pacing = VariedExponentialPacing(0.1, 2, (0.2, 0.4))
    assert [pacing(spent) for spent in (0.19, 0.2, 0.39, 0.4)] == [0.1, 0.2, 0.2, 1]


def test_increases_after_all_is_visible_change_nothing():
    # A quarter takes two doublings, however many follow.
    pacing = VariedExponentialPacing(0.25, 2, (0.1, 0.2, 0.8, 0.9))
    assert [pacing(spent) for spent in (0.1, 0.2, 0.8, 0.95)] == [0.5, 1, 1, 1]


@pytest.mark.parametrize("increases_at", [(), (0.3,)])
def test_a_varied_pacing_that_starts_with_everything_needs_no_increase(increases_at):
    pacing = VariedExponentialPacing(1, 2, increases_at)
    assert [pacing(spent) for spent in (0, 0.2, 0.3, 0.9)] == [1, 1, 1, 1]


def test_a_single_step_shows_all_at_once():
    pacing = SingleStepPacing(start_fraction=0.3, full_at=0.6)
    assert [pacing(spent) for spent in (0, 0.3, 0.599, 0.6, 0.9)] == [0.3, 0.3, 0.3, 1, 1]


@pytest.mark.parametrize(
    ("kind", "at_quarter", "at_half"),
    [
        # A fifth, and of the other four fifths: 1/4 and 1/2; 1/2 and sqrt(1/2); 1/16 and 1/4.
        (LinearPacing, 0.4, 0.6),
        (RootPacing, 0.6, 0.7656854249492381),
        (QuadraticPacing, 0.25, 0.4),
        # 1 + 0.1 ln(0.25 + e^-10) = 0.861388723 and 1 + 0.1 ln(0.5 + e^-10) = 0.930694362.
        (LogarithmicPacing, 0.889110978, 0.944555489),
        # (e^2.5 - 1) / (e^10 - 1) = 5.07708e-4 and (e^5 - 1) / (e^10 - 1) = 6.69285e-3.
        (ExponentialPacing, 0.200406166, 0.205354281),
    ],
)
def test_each_smooth_pacing_shows_its_share_at_a_quarter_and_at_half_of_the_way(
    kind, at_quarter, at_half
):
    pacing = kind(start_fraction=0.2, full_at=0.8)
    assert pacing(0.2) == pytest.approx(at_quarter, rel=1e-8)
    assert pacing(0.4) == pytest.approx(at_half, rel=1e-8)


@given(start=st.floats(0.001, 1), full_at=st.floats(0.01, 1), part=spent_parts)
@examples(100)
def test_the_logarithm_is_the_published_one_capped_at_all(start, full_at, part):
    published = start + (1 - start) * (1 + 0.1 * math.log(part + math.exp(-10)))
    visible = LogarithmicPacing(start, full_at)(part * full_at)
    assert visible == pytest.approx(min(1, published), abs=1e-12)


def test_the_logarithm_shows_all_and_no_more_just_before_the_end():
    # It reaches 1 at t / a = 1 - e^-10, 4.5e-5 before its end.
    assert LogarithmicPacing(0.1, 0.5)(0.5 * (1 - 4.6e-5)) < 1
    assert LogarithmicPacing(0.1, 0.5)(0.5 * (1 - 4.5e-5)) == 1


@given(start=st.floats(0.001, 0.99), full_at=st.floats(0.01, 1), part=st.floats(0.01, 0.99))
@examples(100)
def test_smooth_pacings_differ_in_how_early_they_show_the_hidden_part(start, full_at, part):
    slowest_first = (ExponentialPacing, QuadraticPacing, LinearPacing, RootPacing)
    visible = [kind(start, full_at)(part * full_at) for kind in slowest_first]
    assert visible == sorted(visible)
    assert len(set(visible)) == len(visible)


@given(pacing=pacings_of_two | varied_pacings, parts=st.lists(spent_parts, min_size=2))
@examples(300)
def test_no_pacing_ever_hides_what_it_has_shown(pacing, parts):
    visible = [pacing(spent) for spent in sorted(parts)]
    assert visible == sorted(visible)
    assert all(pacing.start_fraction <= part <= 1 for part in visible)


@given(pacing=pacings_of_two, part=st.floats(0, 1))
@examples(200)
def test_every_pacing_begins_at_exactly_its_start_and_shows_exactly_all_once_full(pacing, part):
    assert pacing(0) == pacing.start_fraction
    assert pacing(pacing.full_at + part * (1 - pacing.full_at)) == 1


@given(pacing=varied_pacings, part=st.floats(0, 1))
@examples(200)
def test_varied_pacing_begins_at_its_start_and_shows_all_from_the_last_increase_on(pacing, part):
    last = pacing.increases_at[-1]
    assert pacing(0) == pytest.approx(pacing.start_fraction, rel=1e-6)
    assert pacing(last + part * (1 - last)) == 1


@given(pacing=pacings_of_two)
@examples(100)
def test_all_is_visible_no_earlier_than_the_end_of_a_slow_rise(pacing):
    just_before = pacing(pacing.full_at * 0.999)
    # The logarithm is capped at 1 within the last 5e-5 of the way.
    assert just_before < 1 or pacing.start_fraction > 0.999


@pytest.mark.parametrize("kind", [SingleStepPacing, *SMOOTH])
@pytest.mark.parametrize(
    ("start_fraction", "full_at", "named"),
    [
        (0, 0.5, "start_fraction is 0"),
        (-0.1, 0.5, "start_fraction is -0.1"),
        (1.1, 0.5, "start_fraction is 1.1"),
        (math.nan, 0.5, "start_fraction is nan"),
        (0.1, 0, "full_at is 0"),
        (0.1, 1.5, "full_at is 1.5"),
        (0.1, math.inf, "full_at is inf"),
    ],
)
def test_a_start_or_an_end_out_of_range_is_refused_by_name(kind, start_fraction, full_at, named):
    with pytest.raises(ValueError, match=named):
        kind(start_fraction, full_at)


@pytest.mark.parametrize(
    ("start_fraction", "increase", "increases_at", "named"),
    [
        (0, 2, (0.5,), "start_fraction is 0"),
        (0.1, 1, (0.5,), "increase is 1, but"),
        (0.1, math.nan, (0.5,), "increase is nan"),
        (0.1, math.inf, (0.5,), "increase is inf"),
        (0.1, 2, (0, 0.5), "each of increases_at is 0"),
        (0.1, 2, (0.5, 1.1), r"each of increases_at is 1\.1"),
        (0.1, 2, (0.5, 0.5), "must strictly increase"),
        (0.1, 2, (0.2, 0.6, 0.4), "must strictly increase"),
        (0.1, 2, (), "increases_at is empty"),
    ],
)
def test_a_varied_pacing_out_of_range_is_refused_by_name(
    start_fraction, increase, increases_at, named
):
    with pytest.raises(ValueError, match=named):
        VariedExponentialPacing(start_fraction, increase, increases_at)


@pytest.mark.parametrize(
    ("name", "halfway"),
    [
        ("fixed_exponential", 0.2 * 1.9),
        ("single_step", 0.2),
        ("linear", 0.2 + 0.8 * 0.5),
        ("root", 0.2 + 0.8 * 0.5**0.5),
        ("quadratic", 0.2 + 0.8 * 0.25),
        ("logarithmic", 0.2 + 0.8 * (1 + 0.1 * math.log(0.5 + math.exp(-10)))),
        ("exponential", 0.2 + 0.8 * (math.exp(5) - 1) / (math.exp(10) - 1)),
    ],
)
def test_each_pacing_has_its_name(name, halfway):
    pacing = PACING_FUNCTIONS[name](start_fraction=0.2, full_at=0.5)
    assert pacing(0.25) == pytest.approx(halfway)
    assert len(PACING_FUNCTIONS) == 8


# --- the order -----------------------------------------------------------------------------------


def test_a_class_of_twice_the_samples_appears_twice_as_often():
    #                    0    1    2    3    4    5
    easiness = np.array([0.1, 0.9, 0.5, 0.7, 0.3, 0.2])
    labels = np.array([0, 0, 1, 1, 0, 0])
    # Class 0, easiest first: 1, 4, 5, 0 at relative ranks 1/8, 3/8, 5/8, 7/8.
    # Class 1: 3, 2 at 1/4, 3/4.
    assert class_balanced_order(easiness, labels).tolist() == [1, 3, 4, 5, 2, 0]


def test_ties_go_to_the_lower_position_within_a_class_and_the_lower_label_between():
    labels = np.array([1, 0, 1, 0])
    assert class_balanced_order(np.zeros(4), labels).tolist() == [1, 0, 3, 2]


@given(scored=scored_labels)
@examples(150)
def test_the_order_holds_every_sample_once(scored):
    labels, easiness = scored
    order = class_balanced_order(easiness, labels)
    assert sorted(order.tolist()) == list(range(len(labels)))


@given(scored=scored_labels)
@examples(150)
def test_within_a_class_the_easiest_comes_first(scored):
    labels, easiness = scored
    order = class_balanced_order(easiness, labels)
    for label in np.unique(labels):
        scores = easiness[order[labels[order] == label]]
        assert (np.diff(scores) <= 0).all()


def worst_share_error(labels, order):
    """Largest difference between a class's count in a prefix and its proportional count."""
    worst = {}
    sizes = np.arange(1, len(labels) + 1)
    for label in np.unique(labels):
        members = labels[order] == label
        expected = sizes * members.mean()
        worst[label] = np.abs(members.cumsum() - expected).max()
    return worst


@given(
    classes=st.integers(1, 12),
    per_class=st.integers(1, 12),
    seed=st.integers(0, 2**31),
)
@examples(100)
def test_every_prefix_of_a_balanced_set_is_balanced_to_within_one_sample(classes, per_class, seed):
    generator = np.random.default_rng(seed)
    labels = generator.permutation(np.repeat(np.arange(classes), per_class))
    order = class_balanced_order(generator.random(len(labels)), labels)
    assert max(worst_share_error(labels, order).values()) <= 1 + 1e-9


@given(sizes=st.lists(st.integers(1, 40), min_size=2, max_size=3), seed=st.integers(0, 2**31))
@examples(100)
def test_every_prefix_of_two_or_three_unequal_classes_is_proportional_to_within_one(sizes, seed):
    generator = np.random.default_rng(seed)
    labels = generator.permutation(np.repeat(np.arange(len(sizes)), sizes))
    order = class_balanced_order(generator.random(len(labels)), labels)
    assert max(worst_share_error(labels, order).values()) <= 1 + 1e-9


@given(sizes=st.lists(st.integers(1, 40), min_size=2, max_size=12), seed=st.integers(0, 2**31))
@examples(100)
def test_every_prefix_of_many_unequal_classes_is_proportional_up_to_rounding_each(sizes, seed):
    # Every class is within half a sample of its place, but the other classes' halves add up in
    # the length of the prefix: a class of share s among C is off by 1/2 + s (C - 2) / 2 at most.
    generator = np.random.default_rng(seed)
    labels = generator.permutation(np.repeat(np.arange(len(sizes)), sizes))
    order = class_balanced_order(generator.random(len(labels)), labels)
    for label, error in worst_share_error(labels, order).items():
        share = sizes[label] / len(labels)
        assert error <= 0.5 + share * (len(sizes) - 2) / 2 + 1e-9


# --- the batches ---------------------------------------------------------------------------------


def batches_of(order, pacing, steps, batch_size, seed=0):
    generator = np.random.default_rng(seed)
    return list(paced_batches(np.asarray(order), pacing, steps, batch_size, generator))


def test_the_visible_prefix_grows_as_the_pacing_says():
    # 8 steps: an eighth of the budget each. A batch of all ten shows the whole prefix.
    order = np.array([7, 3, 9, 1, 0, 2, 8, 6, 5, 4])
    pacing = FixedExponentialPacing(start_fraction=0.1, increase=1.9, full_at=0.5)
    shown = [set(batch.tolist()) for batch in batches_of(order, pacing, 8, 10)]
    # 1, 1.9, 3.61 and 6.859 of ten, rounded.
    assert shown == [set(order[:size].tolist()) for size in (1, 2, 4, 7, 10, 10, 10, 10)]


def test_the_pacing_is_asked_for_the_spent_part_before_each_step():
    asked = []
    batches_of(range(4), lambda spent: asked.append(spent) or 1.0, 5, 2)
    assert asked == [0, 0.2, 0.4, 0.6, 0.8]


@given(
    samples=st.integers(1, 50),
    steps=st.integers(1, 30),
    batch_size=st.integers(1, 70),
    pacing=pacings,
)
@examples(150)
def test_as_many_full_batches_as_steps_of_visible_samples_only(samples, steps, batch_size, pacing):
    order = np.random.default_rng(1).permutation(samples)
    batches = batches_of(order, pacing, steps, batch_size)
    assert [batch.shape for batch in batches] == [(batch_size,)] * steps
    for step, batch in enumerate(batches):
        visible = max(1, int(np.ceil(pacing(step / steps) * samples)))
        assert set(batch.tolist()) <= set(order[:visible].tolist())


@given(
    samples=st.integers(1, 40),
    visible=st.integers(1, 40),
    batch_size=st.integers(1, 50),
    steps=st.integers(1, 20),
)
@examples(150)
def test_every_visible_sample_is_used_before_any_is_repeated(samples, visible, batch_size, steps):
    visible = min(visible, samples)
    order = np.random.default_rng(1).permutation(samples)
    batches = batches_of(order, lambda spent: visible / samples, steps, batch_size)
    stream = np.concatenate(batches)
    for start in range(0, len(stream), visible):
        passage = stream[start : start + visible].tolist()
        assert len(set(passage)) == len(passage)
        assert set(passage) <= set(order[:visible].tolist())


def test_a_prefix_smaller_than_a_batch_is_passed_as_often_as_it_takes():
    (batch,) = batches_of(range(100), lambda spent: 0.03, 1, 8)
    times = Counter(batch.tolist())
    assert set(times) == {0, 1, 2}
    assert sorted(times.values()) == [2, 3, 3]


def test_at_least_one_sample_is_always_visible():
    (batch,) = batches_of([5, 1, 2], lambda spent: 0.001, 1, 4)
    assert batch.tolist() == [5, 5, 5, 5]


def test_each_passage_is_shuffled_anew_and_the_generator_decides():
    first, second = batches_of(range(50), all_visible, 2, 50, seed=1)
    again, _ = batches_of(range(50), all_visible, 2, 50, seed=1)
    other, _ = batches_of(range(50), all_visible, 2, 50, seed=2)
    assert first.tolist() == again.tolist()
    assert first.tolist() != second.tolist()
    assert first.tolist() != other.tolist()
    assert first.tolist() != sorted(first.tolist())
