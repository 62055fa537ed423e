"""Pacing: how the visible part grows, which samples it holds, and the batches drawn from it."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny_networks import examples

from models.pacing import (
    FixedExponentialPacing,
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
