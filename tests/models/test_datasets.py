"""Datasets in memory: the digits, the splits, and what is known without loading."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.datasets import load_digits
from tiny_networks import examples, tiny_split

from models.data.datasets import DATASETS, data_root, load_dataset, stratified_choice
from models.errors import DataError


@pytest.fixture(scope="module")
def digits():
    return load_dataset("digits")


def parts(dataset):
    return [dataset.train, dataset.validation, dataset.test]


# --- the digits ----------------------------------------------------------------------------------


def test_a_fifth_of_the_digits_tests_and_a_tenth_of_the_rest_validates(digits):
    test, validation = len(digits.test), len(digits.validation)
    assert len(digits.train) + validation + test == 1797
    # Rounded once for each of ten classes.
    assert abs(test - 1797 / 5) <= 5
    assert abs(validation - (1797 - test) / 10) <= 5
    assert (len(digits.train), validation, test) == (1295, 143, 359)


def test_digits_are_uint8_images_of_one_channel_over_the_full_range(digits):
    for split in parts(digits):
        assert split.images.shape == (len(split), 1, 8, 8) == (len(split), *digits.info.input_shape)
        assert split.images.dtype == np.uint8
        assert split.labels.dtype == np.int64
        assert (split.images.min(), split.images.max()) == (0, 255)
        assert sorted(set(split.labels.tolist())) == list(range(10))


def test_no_digit_is_in_two_splits_and_none_is_lost(digits):
    bunch = load_digits()
    scaled = np.round(bunch.images / 16 * 255).astype(np.uint8)
    given = Counter(
        (label, image.tobytes()) for label, image in zip(bunch.target, scaled, strict=True)
    )
    found = Counter(
        (label, image.tobytes())
        for split in parts(digits)
        for label, image in zip(split.labels, split.images, strict=True)
    )
    assert found == given
    assert not set(digits.train.index) & set(digits.validation.index)
    official_train = sorted([*digits.train.index, *digits.validation.index])
    assert official_train == list(range(1797 - len(digits.test)))
    assert digits.test.index.tolist() == list(range(len(digits.test)))


def test_every_split_of_the_digits_has_the_classes_in_their_proportions(digits):
    shares = np.bincount(load_digits().target) / 1797
    for split in parts(digits):
        counts = np.bincount(split.labels, minlength=10)
        assert np.abs(counts - shares * len(split)).max() <= 1


def test_the_split_is_the_same_every_time(digits):
    for split, again in zip(parts(digits), parts(load_dataset("digits")), strict=True):
        assert np.array_equal(split.images, again.images)
        assert np.array_equal(split.labels, again.labels)
        assert np.array_equal(split.index, again.index)


def test_the_validation_fraction_moves_no_sample_into_or_out_of_the_test_set(digits):
    other = load_dataset("digits", validation_fraction=0.3)
    assert np.array_equal(other.test.images, digits.test.images)
    total = len(other.train) + len(other.validation)
    assert abs(len(other.validation) - 0.3 * total) <= 5
    assert set(digits.validation.index) < set(other.validation.index)


@pytest.mark.parametrize("fraction", [0.001, 0.999])
def test_a_fraction_that_leaves_nothing_to_train_or_validate_with_is_refused(fraction):
    with pytest.raises(DataError, match=f"validation_fraction {fraction:g} of dataset 'digits'"):
        load_dataset("digits", validation_fraction=fraction)


def test_the_stated_mean_and_deviation_of_the_digits_are_those_of_the_data(digits):
    images = np.concatenate([digits.train.images, digits.validation.images]) / 255
    assert digits.info.mean == (pytest.approx(images.mean(), abs=1e-3),)
    assert digits.info.std == (pytest.approx(images.std(), abs=1e-3),)


# --- choosing by class ---------------------------------------------------------------------------


@given(
    labels=st.lists(st.integers(0, 6), min_size=1, max_size=80).map(np.array),
    fraction=st.floats(0, 1),
    seed=st.integers(0, 2**32),
)
@examples(150)
def test_a_stratified_choice_takes_the_fraction_of_each_class(labels, fraction, seed):
    chosen = stratified_choice(labels, fraction, seed)
    assert chosen.tolist() == sorted(set(chosen.tolist()))
    assert set(chosen.tolist()) <= set(range(len(labels)))
    for label in np.unique(labels):
        members = int((labels == label).sum())
        assert abs((labels[chosen] == label).sum() - fraction * members) <= 0.5 + 1e-9


def test_a_stratified_choice_depends_on_its_seed_alone():
    labels = np.arange(200) % 4
    first = stratified_choice(labels, 0.5, 1)
    assert np.array_equal(first, stratified_choice(labels, 0.5, 1))
    assert not np.array_equal(first, stratified_choice(labels, 0.5, 2))


# --- what is known without loading ---------------------------------------------------------------


def test_digits_and_clothes_have_one_channel_and_only_digits_are_never_mirrored():
    assert {name: info.input_shape for name, info in DATASETS.items()} == {
        "digits": (1, 8, 8),
        "fashion_mnist": (1, 28, 28),
        "cifar10": (3, 32, 32),
        "cifar100": (3, 32, 32),
    }
    assert {name for name, info in DATASETS.items() if not info.flip} == {"digits"}
    assert {name: info.classes for name, info in DATASETS.items()} == {
        "digits": 10,
        "fashion_mnist": 10,
        "cifar10": 10,
        "cifar100": 100,
    }


@pytest.mark.parametrize("info", DATASETS.values(), ids=DATASETS)
def test_mean_and_deviation_are_given_for_every_channel(info):
    assert len(info.mean) == len(info.std) == info.input_shape[0]


def test_a_device_sends_one_byte_a_pixel():
    assert DATASETS["digits"].image_bytes == 64
    assert DATASETS["cifar10"].image_bytes == 3072


def test_datasets_lie_where_the_environment_says(monkeypatch):
    monkeypatch.setenv("OFFRAMP_DATA", "/somewhere/else")
    assert data_root() == Path("/somewhere/else")
    monkeypatch.delenv("OFFRAMP_DATA")
    assert data_root().name == "datasets"
    assert data_root().parent.name == "offramp"


def test_taking_samples_keeps_images_labels_and_numbers_together():
    split = tiny_split(9)
    taken = split.take(np.array([4, 0, 4]))
    assert len(taken) == 3
    assert taken.index.tolist() == [4, 0, 4]
    assert taken.labels.tolist() == split.labels[[4, 0, 4]].tolist()
    assert np.array_equal(taken.images, split.images[[4, 0, 4]])
