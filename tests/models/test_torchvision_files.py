"""Datasets that torchvision reads: from files in its own layout, whole or with one clear error.

The files are made here, small, with torchvision's own checks of sums switched to theirs. The last
test reads the real CIFAR-10 where it lies.
"""

import hashlib
import os
import pickle
import struct
from pathlib import Path
from urllib.error import URLError

import numpy as np
import pytest
from torchvision.datasets import CIFAR10, CIFAR100, cifar, mnist

from models.data.datasets import data_root, load_dataset
from models.errors import DataError

NAMES = ["cifar10", "cifar100", "fashion_mnist"]


@pytest.fixture(autouse=True)
def downloads(monkeypatch):
    """No network: every attempt to download is noted, and fails."""
    attempts = []

    def refuse(url, *args, **kwargs):
        attempts.append(url)
        raise URLError("no route to host")

    for module in (cifar, mnist):
        monkeypatch.setattr(module, "download_and_extract_archive", refuse)
    return attempts


# --- files in torchvision's layout ---------------------------------------------------------------


def labelled_images(count, classes, shape, seed):
    images = np.random.default_rng(seed).integers(0, 256, (count, *shape), dtype=np.uint8)
    return images, np.arange(count) % classes


def write_pickle(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(pickle.dumps(content))
    return [path.name, hashlib.md5(path.read_bytes()).hexdigest()]


def write_cifar(root, monkeypatch, dataset, label_key, classes, batches):
    """Write one file for each list of batches' names; returns the images and labels within."""
    folder = root / dataset.base_folder
    written = {}
    for part, names in batches.items():
        images, labels = labelled_images(20 * len(names), classes, (3, 32, 32), seed=len(names))
        sums = [
            write_pickle(
                folder / name,
                {
                    "data": images[20 * place : 20 * place + 20].reshape(20, 3072),
                    label_key: labels[20 * place : 20 * place + 20].tolist(),
                },
            )
            for place, name in enumerate(names)
        ]
        monkeypatch.setattr(dataset, f"{part}_list", sums)
        written[part] = (images, labels)
    key, name = dataset.meta["key"], dataset.meta["filename"]
    _, checksum = write_pickle(folder / name, {key: [f"class {i}" for i in range(classes)]})
    monkeypatch.setattr(dataset, "meta", {"filename": name, "key": key, "md5": checksum})
    return written


def write_idx(path, array):
    """An array of bytes in the idx format: magic, sizes as big-endian integers, then the bytes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    header = struct.pack(f">HBB{array.ndim}I", 0, 0x08, array.ndim, *array.shape)
    path.write_bytes(header + array.astype(np.uint8).tobytes())


def write_fashion_mnist(root, shape=(28, 28)):
    written = {}
    for part, prefix, count in (("train", "train", 60), ("test", "t10k", 20)):
        images, labels = labelled_images(count, 10, shape, seed=count)
        write_idx(root / f"FashionMNIST/raw/{prefix}-images-idx3-ubyte", images)
        write_idx(root / f"FashionMNIST/raw/{prefix}-labels-idx1-ubyte", labels)
        written[part] = (images[:, None], labels)
    return written


def write_dataset(name, root, monkeypatch):
    """Small files of dataset ``name``; returns images (N, C, H, W) and labels by part."""
    if name == "fashion_mnist":
        return write_fashion_mnist(root)
    if name == "cifar10":
        batches = {"train": [f"data_batch_{i}" for i in range(1, 6)], "test": ["test_batch"]}
        return write_cifar(root, monkeypatch, CIFAR10, "labels", 10, batches)
    batches = {"train": ["train"], "test": ["test"]}
    return write_cifar(root, monkeypatch, CIFAR100, "fine_labels", 2, batches)


#: One file of each, of which the damage is not to be missed.
A_FILE = {
    "cifar10": "cifar-10-batches-py/data_batch_3",
    "cifar100": "cifar-100-python/train",
    "fashion_mnist": "FashionMNIST/raw/train-images-idx3-ubyte",
}


# --- whole files ---------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_images_are_read_in_their_order_channels_first(name, tmp_path, monkeypatch, downloads):
    written = write_dataset(name, tmp_path, monkeypatch)
    dataset = load_dataset(name, root=tmp_path)
    images, labels = written["train"]
    for split in (dataset.train, dataset.validation):
        assert split.images.shape[1:] == dataset.info.input_shape
        assert split.images.dtype == np.uint8
        assert split.labels.dtype == np.int64
        assert np.array_equal(split.images, images[split.index])
        assert np.array_equal(split.labels, labels[split.index])
    images, labels = written["test"]
    assert np.array_equal(dataset.test.images, images)
    assert np.array_equal(dataset.test.labels, labels)
    assert dataset.test.index.tolist() == list(range(len(labels)))
    assert not downloads, "what is there is not downloaded"


@pytest.mark.parametrize("name", NAMES)
def test_a_tenth_of_each_class_validates(name, tmp_path, monkeypatch):
    _, labels = write_dataset(name, tmp_path, monkeypatch)["train"]
    dataset = load_dataset(name, root=tmp_path)
    indices = [*dataset.train.index, *dataset.validation.index]
    assert sorted(indices) == list(range(len(labels)))
    per_class = np.bincount(labels)
    assert np.array_equal(np.bincount(dataset.validation.labels), np.round(per_class / 10))


def test_files_are_looked_for_where_the_environment_says(tmp_path, monkeypatch):
    write_dataset("fashion_mnist", tmp_path, monkeypatch)
    monkeypatch.setenv("OFFRAMP_DATA", str(tmp_path))
    assert len(load_dataset("fashion_mnist").test) == 20


# --- absent and damaged files --------------------------------------------------------------------


def refusal(name, root):
    """The message of the error that loading ``name`` from ``root`` ends in."""
    with pytest.raises(DataError) as caught:
        load_dataset(name, root=root)
    return str(caught.value)


@pytest.mark.parametrize("name", NAMES)
def test_absent_files_that_cannot_be_downloaded_say_what_to_do(name, tmp_path, downloads):
    message = refusal(name, tmp_path / "not there")
    assert downloads, "a download was tried"
    assert repr(name) in message
    assert str(tmp_path / "not there") in message
    assert "no route to host" in message
    assert "Set OFFRAMP_DATA" in message


def test_a_folder_that_cannot_be_made_is_a_clear_error(tmp_path):
    (tmp_path / "file").write_text("in the way")
    message = refusal("cifar10", tmp_path / "file" / "datasets")
    assert "OFFRAMP_DATA" in message


def truncate(path):
    path.write_bytes(path.read_bytes()[:-100])


def garble(path):
    path.write_text("<html><body>Please sign in to the network.</body></html>")


def empty(path):
    path.write_bytes(b"")


@pytest.mark.parametrize("damage", [truncate, garble, empty, Path.unlink])
@pytest.mark.parametrize("name", NAMES)
def test_a_damaged_file_is_never_read(name, damage, tmp_path, monkeypatch):
    write_dataset(name, tmp_path, monkeypatch)
    damage(tmp_path / A_FILE[name])
    message = refusal(name, tmp_path)
    assert repr(name) in message
    assert str(tmp_path) in message


@pytest.mark.parametrize("damage", [truncate, empty, Path.unlink])
@pytest.mark.parametrize("name", NAMES)
def test_a_failed_download_is_blamed_only_where_one_was_tried(
    name, damage, tmp_path, monkeypatch, downloads
):
    # torchvision never replaces a raw file of FashionMNIST that is there: it has to be removed.
    write_dataset(name, tmp_path, monkeypatch)
    damage(tmp_path / A_FILE[name])
    assert ("downloading it failed" in refusal(name, tmp_path)) == bool(downloads)


@pytest.mark.parametrize("name", ["cifar10", "cifar100"])
def test_a_cifar_file_with_one_other_byte_is_never_read(name, tmp_path, monkeypatch):
    write_dataset(name, tmp_path, monkeypatch)
    path = tmp_path / A_FILE[name]
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    assert "not (whole)" in refusal(name, tmp_path)


def test_images_of_another_size_are_refused(tmp_path):
    write_fashion_mnist(tmp_path, shape=(28, 27))
    assert "(1, 28, 28) are expected" in refusal("fashion_mnist", tmp_path)


def test_fewer_labels_than_images_are_refused(tmp_path):
    write_fashion_mnist(tmp_path)
    write_idx(tmp_path / "FashionMNIST/raw/train-labels-idx1-ubyte", np.zeros(59))
    assert "holds 59 labels" in refusal("fashion_mnist", tmp_path)


# --- the real thing ------------------------------------------------------------------------------


@pytest.mark.skipif(
    not os.environ.get("OFFRAMP_DATA")
    or not (data_root() / "cifar-10-batches-py" / "test_batch").exists(),
    reason="needs $OFFRAMP_DATA to name a folder with CIFAR-10",
)
def test_cifar10_is_45000_5000_and_10000_images_with_the_known_statistics(downloads):
    dataset = load_dataset("cifar10")
    assert not downloads
    for split, per_class in (
        (dataset.train, 4500),
        (dataset.validation, 500),
        (dataset.test, 1000),
    ):
        assert np.bincount(split.labels).tolist() == [per_class] * 10
        assert split.images.shape == (10 * per_class, 3, 32, 32)
    # Mean and deviation of each channel over the 50,000, from a count of every pixel value.
    values = np.arange(256) / 255
    for channel in range(3):
        counts = sum(
            np.bincount(split.images[:, channel].ravel(), minlength=256)
            for split in (dataset.train, dataset.validation)
        )
        mean = (counts * values).sum() / counts.sum()
        deviation = np.sqrt((counts * (values - mean) ** 2).sum() / counts.sum())
        assert mean == pytest.approx(dataset.info.mean[channel], abs=1e-4)
        assert deviation == pytest.approx(dataset.info.std[channel], abs=1e-4)
