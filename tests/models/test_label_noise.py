"""Label noise: as many wrong labels as asked for, of any other class, or those in a file."""

import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny_networks import examples

from models.data.label_noise import labels_from_file, symmetric_noise
from models.errors import DataError

# --- symmetric noise -----------------------------------------------------------------------------


@given(
    labels=st.lists(st.integers(0, 6), max_size=80),
    fraction=st.floats(0, 1),
    more_classes=st.integers(0, 5),
    seed=st.integers(0, 2**40),
)
@examples(200)
def test_exactly_the_asked_share_of_labels_is_wrong(labels, fraction, more_classes, seed):
    labels, classes = np.array(labels, dtype=np.int64), 7 + more_classes
    noisy = symmetric_noise(labels, fraction, classes, seed)
    assert (noisy != labels).sum() == round(fraction * len(labels))
    assert noisy.dtype == np.int64
    assert ((noisy >= 0) & (noisy < classes)).all()


def test_with_two_classes_every_chosen_label_flips():
    labels = np.array([0, 1, 1, 0, 1])
    assert symmetric_noise(labels, 1, 2, 0).tolist() == [1, 0, 0, 1, 0]


def test_a_wrong_label_is_any_other_class_equally_often():
    noisy = symmetric_noise(np.full(40_000, 2), 1, 5, 7)
    counts = np.bincount(noisy, minlength=5)
    # 10,000 each, with a standard deviation of 87.
    assert counts[2] == 0
    assert (np.abs(counts[[0, 1, 3, 4]] - 10_000) < 5 * 87).all()


def test_every_position_is_chosen_equally_often():
    labels = np.zeros(20, dtype=np.int64)
    times = sum(symmetric_noise(labels, 0.25, 2, seed) for seed in range(4000))
    # 1,000 each, with a standard deviation of 27.
    assert (np.abs(times - 1000) < 5 * 27).all()


def test_the_seed_decides_and_the_labels_given_stay_as_they_are():
    labels = np.arange(100) % 10
    first, again, other = (symmetric_noise(labels, 0.3, 10, seed) for seed in (1, 1, 2))
    assert first.tolist() == again.tolist()
    assert first.tolist() != other.tolist()
    assert labels.tolist() == (np.arange(100) % 10).tolist()


def test_the_noise_shares_no_random_numbers_with_the_seed_or_the_short_streams_of_it():
    flips = symmetric_noise(np.zeros(200, dtype=np.int64), 0.5, 2, 3)
    for stream in ([3], [3, 0], [3, 1], [3, 2], [3, 3], [3, 0, 0], [3, 1, 0]):
        chosen = np.random.default_rng(stream).choice(200, 100, replace=False)
        assert set(chosen.tolist()) != set(np.flatnonzero(flips).tolist())


@pytest.mark.parametrize(
    ("labels", "fraction", "classes", "message"),
    [
        ([0, 1], -0.1, 2, "fraction is -0.1"),
        ([0, 1], 1.1, 2, "fraction is 1.1"),
        ([0, 0], 0.5, 1, "among 1 classes"),
        ([0, 2], 0.5, 2, "labels go from 0 to 2 in 2 classes"),
        ([-1, 1], 0.5, 2, "labels go from -1 to 1"),
    ],
)
def test_noise_that_cannot_be_is_refused(labels, fraction, classes, message):
    with pytest.raises(ValueError, match=message):
        symmetric_noise(np.array(labels), fraction, classes, 0)


# --- labels from a file --------------------------------------------------------------------------

LABELS = [3, 0, 2, 1, 3]
INDEX = np.array([4, 1, 2])


def npz(folder, **arrays):
    path = folder / "labels.npz"
    np.savez(path, **arrays)
    return path


def npy(folder, values):
    path = folder / "labels.npy"
    np.save(path, values)
    return path


def refused(path, key=None):
    """The message with which labels of 5 images and 4 classes are refused; it names the file."""
    with pytest.raises(DataError) as caught:
        labels_from_file(path, key, INDEX, 4, 5)
    assert str(caught.value).startswith(f"{path}: ")
    return str(caught.value)


@pytest.mark.parametrize("dtype", ["u1", "<i2", ">i4", "i8", "u8", "f4", "f8"])
def test_whole_numbers_of_any_type_are_taken_at_the_index_in_its_order(tmp_path, dtype):
    values = np.array(LABELS, dtype=dtype)
    for path, key in (
        (npz(tmp_path, worse=values, other=values[:2]), "worse"),
        (npy(tmp_path, values), None),
    ):
        labels = labels_from_file(path, key, INDEX, 4, 5)
        assert labels.tolist() == [3, 0, 2]
        assert labels.dtype == np.int64


def test_a_wrong_key_is_answered_with_the_nearest_and_all(tmp_path):
    path = npz(tmp_path, worse_label=LABELS, clean_label=LABELS)
    message = refused(path, "worse_labels")
    assert "did you mean 'worse_label'?" in message
    assert "worse_label, clean_label" in message


def test_without_a_key_the_keys_are_named(tmp_path):
    assert "it has: one, two" in refused(npz(tmp_path, one=LABELS, two=LABELS))


@pytest.mark.parametrize("count", [0, 4, 6])
def test_another_number_of_labels_than_of_official_images_is_refused(tmp_path, count):
    message = refused(npy(tmp_path, np.zeros(count, dtype=np.int64)))
    assert f"holds {count} values, but 5 values are expected" in message


@pytest.mark.parametrize("shape", [(), (5, 1), (1, 5)])
def test_labels_in_another_shape_are_refused(tmp_path, shape):
    message = refused(npy(tmp_path, np.zeros(shape, dtype=np.int64)))
    assert f"an array of shape {shape}" in message


@pytest.mark.parametrize("wrong", [-1, 4, 0.5, np.nan, np.inf, -np.inf])
def test_a_label_that_is_no_class_is_refused_with_its_position(tmp_path, wrong):
    # Position 3 is not in the index: the whole file must fit the dataset.
    message = refused(npy(tmp_path, [3, 0, 2, wrong, 3]))
    assert re.search(rf"holds {wrong} at position 3, .* 0 to 3", message)


@pytest.mark.parametrize(
    "values", [["a"] * 5, [True] * 5, [1j] * 5, np.zeros(5, "M8[s]"), np.zeros(5, "i4,i4")]
)
def test_values_that_are_no_numbers_are_refused(tmp_path, values):
    assert "numbers are expected" in refused(npy(tmp_path, values))


def test_pickled_objects_are_refused_unread(tmp_path):
    marker = tmp_path / "unpickled"

    class Trap:
        def __reduce__(self):
            return marker.touch, ()

    values = np.array([Trap()] * 5, dtype=object)
    assert "Object arrays cannot be loaded" in refused(npy(tmp_path, values))
    assert "Object arrays cannot be loaded" in refused(npz(tmp_path, label=values), "label")
    assert not marker.exists()


def test_a_csv_file_or_one_of_another_kind_is_refused_by_its_name(tmp_path):
    for name in ("labels.csv", "labels.txt", "labels"):
        path = tmp_path / name
        path.write_text("0\n1\n2\n3\n0\n")
        assert "must end in .npz or .npy" in refused(path)


def test_a_missing_file_is_said_to_be_missing(tmp_path):
    assert refused(tmp_path / "none.npz", "label").endswith("no such file")
