"""Activations of a frozen backbone: what is kept, in how many bytes, and that it serves as well."""

import json
import shutil
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from tiny_networks import (
    DIGITS,
    TINY,
    TINY_CONV,
    changed,
    some_images,
    state_of,
    tiny_batches,
    tiny_settings,
    tiny_split,
)

from models.data.activations import (
    StoredInputs,
    activation_shapes,
    compute_activations,
    store_bytes,
)
from models.data.inputs import ImageInputs
from models.errors import ArtifactError
from models.networks.architecture import BRANCHES
from models.networks.branches import frozen_prefix
from models.networks.multi_exit import build_network
from models.training.regimes import phases, with_last_classifier
from models.training.train import class_probabilities, train

SPLIT = tiny_split(20)

EVERYWHERE = np.arange(20)

#: bf16 keeps eight bits of each number: rounding is off by 2^-8 of it at most.
BF16 = 2**-8


def settled(branch="linear"):
    """A network in inference mode whose batch-norm statistics are not those it was born with."""
    network = build_network(replace(TINY, branch=branch), 0).train()
    with torch.no_grad():
        for batch in range(3):
            network(some_images(8, seed=100 + batch) + 0.5)
    return network.eval()


def stored(network, folder, dtype=torch.float32, split=SPLIT):
    """The activations of ``split``, kept in ``folder``."""
    folder.mkdir(exist_ok=True)
    compute_activations(network, split, DIGITS, folder, dtype)
    return StoredInputs(folder, split.labels)


# --- what is kept --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("branch", "kept"),
    [
        # Images are 8 x 8; both early exits have 16 channels, the last classifier takes 64 numbers.
        ("linear", [(16, 1, 1), (16, 1, 1), (64,)]),
        ("mlp", [(16, 1, 1), (16, 1, 1), (64,)]),
        ("conv", [(16, 8, 8), (16, 8, 8), (64,)]),
        # Max and mean of 4 x 4 squares; how they are mixed is learned.
        ("sdn", [(2, 16, 4, 4), (2, 16, 4, 4), (64,)]),
        ("msdnet", [(16, 8, 8), (16, 8, 8), (64,)]),
    ],
)
def test_a_branch_keeps_what_it_makes_without_any_weight(branch, kept):
    shapes = activation_shapes(settled(branch))
    assert [tuple(size for size in shape if size > 1) for shape in shapes] == [
        tuple(size for size in shape if size > 1) for shape in kept
    ]


@pytest.mark.parametrize(
    ("branch", "modules"), [("linear", 2), ("mlp", 2), ("conv", 0), ("sdn", 1), ("msdnet", 0)]
)
def test_what_has_weights_or_statistics_is_no_part_of_the_frozen_beginning(branch, modules):
    for one in settled(branch).branches:
        assert frozen_prefix(one) == modules


def test_a_dropout_ends_the_frozen_beginning():
    pooling, linear = torch.nn.Flatten(), torch.nn.Linear(2, 2)
    assert frozen_prefix(torch.nn.Sequential(pooling, torch.nn.Dropout(), linear)) == 1
    assert frozen_prefix(torch.nn.Sequential(pooling, torch.nn.ReLU(), linear)) == 2


def test_sizes_by_hand():
    # 16 + 16 + 64 numbers an image with linear branches, 16 * 64 each with convolutions.
    assert store_bytes(settled(), 20, torch.bfloat16) == 20 * 96 * 2
    assert store_bytes(settled(), 20, torch.float32) == 20 * 96 * 4
    assert store_bytes(settled("conv"), 3, torch.bfloat16) == 3 * (1024 + 1024 + 64) * 2


def test_shapes_are_known_on_whatever_device_the_network_is():
    assert activation_shapes(settled("sdn").to("meta")) == activation_shapes(settled("sdn"))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32], ids=str)
@pytest.mark.parametrize("branch", ["linear", "sdn"])
def test_the_files_take_the_bytes_that_were_announced(branch, dtype, tmp_path):
    network = settled(branch)
    stored(network, tmp_path, dtype)
    sizes = [file.stat().st_size for file in tmp_path.glob("*.bin")]
    assert len(sizes) == 3
    assert sum(sizes) == store_bytes(network, 20, dtype)


def test_asking_for_sizes_does_not_touch_the_network():
    network = settled("conv")
    before = state_of(network)
    network.train()
    activation_shapes(network)
    assert not changed(before, state_of(network))


# --- the same as images --------------------------------------------------------------------------


@pytest.mark.parametrize("branch", BRANCHES)
def test_features_are_those_of_images(branch, tmp_path):
    network = settled(branch)
    exact, rounded = (
        stored(network, tmp_path / str(dtype), dtype) for dtype in (torch.float32, torch.bfloat16)
    )
    images = ImageInputs(SPLIT, DIGITS)
    positions = np.array([3, 17, 0, 3])
    with torch.inference_mode():
        expected, found, near = (
            inputs.features(network, positions, (1, 2, 3)) for inputs in (images, exact, rounded)
        )
    assert found.keys() == near.keys() == {1, 2, 3}
    for exit in (1, 2, 3):
        torch.testing.assert_close(found[exit], expected[exit], rtol=1e-5, atol=1e-6)
        # What a branch computes from a rounded activation is off by that of all it sums.
        scale = expected[exit].abs().max().item()
        torch.testing.assert_close(near[exit], expected[exit], rtol=0, atol=4 * BF16 * scale)
        assert not torch.equal(near[exit], expected[exit])
        assert found[exit].dtype == near[exit].dtype == torch.float32


def test_a_rounded_activation_is_the_nearest_number_of_bf16(tmp_path):
    network = settled()
    inputs = stored(network, tmp_path, torch.bfloat16)
    images = ImageInputs(SPLIT, DIGITS)
    with torch.inference_mode():
        exact = images.features(network, EVERYWHERE, (1, 2, 3))
        found = inputs.features(network, EVERYWHERE, (1, 2, 3))
    for exit in (1, 2, 3):
        torch.testing.assert_close(found[exit], exact[exit], rtol=1.01 * BF16, atol=1e-7)


def test_they_are_computed_in_inference_mode_without_augmentation_batch_after_batch(tmp_path):
    # 300 images are more than are computed at once; the first 20 are those of a smaller split.
    many, few = tiny_split(300), tiny_split(300).take(EVERYWHERE)
    network = settled("conv").train()
    before = state_of(network)
    all_of_them = stored(network, tmp_path / "many", split=many)
    assert not changed(before, state_of(network))
    some_of_them = stored(network, tmp_path / "few", split=few)
    for first, second in zip(all_of_them.stored, some_of_them.stored, strict=True):
        assert len(first) == 300
        torch.testing.assert_close(first[:20], second, rtol=1e-5, atol=1e-6)
    last = ImageInputs(many.take(np.array([299])), DIGITS)
    with torch.inference_mode():
        expected = last.features(network.eval(), np.array([0]), (3,))[3]
    torch.testing.assert_close(all_of_them.stored[2][299:], expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("branch", ["linear", "conv"])
def test_under_autocast_they_are_what_a_bf16_training_would_compute_anew(branch, tmp_path):
    network = settled(branch)
    found = []
    for autocast in (True, False):
        folder = tmp_path / str(autocast)
        folder.mkdir()
        compute_activations(network, SPLIT, DIGITS, folder, torch.bfloat16, autocast=autocast)
        found.append(StoredInputs(folder, SPLIT.labels))
    images = ImageInputs(SPLIT, DIGITS)
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        expected, near, far = (
            inputs.features(network, EVERYWHERE, (1, 2, 3)) for inputs in (images, *found)
        )
    for exit in (1, 2, 3):
        # bf16 is what all of them are rounded to on the way into a linear layer.
        wanted = expected[exit].bfloat16()
        assert torch.equal(near[exit].bfloat16(), wanted)
        assert not torch.equal(far[exit].bfloat16(), wanted)


def test_only_the_asked_exits_are_read_and_computed(tmp_path):
    network = settled("conv")
    inputs = stored(network, tmp_path)
    called = []
    for number, branch in enumerate(network.branches, start=1):
        branch[0].register_forward_hook(lambda *_, number=number: called.append(number))
    features = inputs.features(network, np.array([1]), (2,))
    assert features.keys() == {2}
    assert called == [2]


def test_probabilities_of_stored_inputs_are_those_of_images(tmp_path):
    network = settled("sdn")
    expected = class_probabilities(network, ImageInputs(SPLIT, DIGITS))
    found = class_probabilities(network, stored(network, tmp_path), batch_size=7)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32], ids=str)
@pytest.mark.parametrize("last", [False, True], ids=["early", "with_the_last"])
@pytest.mark.parametrize("branch", BRANCHES)
def test_training_from_the_store_is_training_from_images(branch, last, dtype, tmp_path):
    (phase,) = phases("classifier_wise", 3, 3)
    phase = with_last_classifier(phase, 3) if last else phase
    ends, losses = [], []
    for source in ("images", "store"):
        network = settled(branch)
        inputs = stored(network, tmp_path, dtype) if source == "store" else None
        before = state_of(network)
        losses.append([])
        train(
            network,
            phase,
            tiny_batches(3, samples=20),
            inputs or ImageInputs(SPLIT, DIGITS),
            None,
            tiny_settings(learning_rate=0.01),
            on_step=lambda step, loss: losses[-1].append(loss),
        )
        ends.append(state_of(network))
    moved = changed(before, ends[1])
    assert moved == changed(before, ends[0])
    assert any(name.startswith("branches.") for name in moved)
    tolerance = {torch.float32: 1e-4, torch.bfloat16: 0.02}[dtype]
    assert losses[1] == pytest.approx(losses[0], rel=tolerance)
    for name in moved:
        # Compared are the ways that the weights went, not the weights: they hardly move.
        from_images, from_store = ((end[name] - before[name]).double() for end in ends)
        distance = (from_store - from_images).norm()
        # A bias before a normalisation has no gradient but rounding.
        assert distance <= 5 * tolerance * from_images.norm() + 1e-6, name


def test_the_store_trains_no_other_weights_than_images_do(tmp_path):
    network = settled("conv")
    inputs = stored(network, tmp_path, torch.bfloat16)
    before = state_of(network)
    (phase,) = phases("classifier_wise", 3, 2)
    train(network, phase, tiny_batches(2, samples=20), inputs, inputs, tiny_settings())
    assert all(name.startswith("branches.") for name in changed(before, state_of(network)))


# --- files ---------------------------------------------------------------------------------------


def test_progress_counts_the_images(tmp_path):
    told = []
    split = tiny_split(300)
    compute_activations(settled(), split, DIGITS, tmp_path, torch.bfloat16, told.append)
    assert told == sorted(told)
    assert told[-1] == 300
    assert len(told) > 1


def test_without_room_on_the_disk_nothing_is_left_and_the_size_is_named(tmp_path, monkeypatch):
    asked = []

    def nearly_full(path):
        asked.append(path)
        return SimpleNamespace(total=10**12, used=10**12, free=20 * 96 * 2 - 1)

    monkeypatch.setattr(shutil, "disk_usage", nearly_full)
    big = tiny_split(20)
    with pytest.raises(ArtifactError) as caught:
        compute_activations(settled(), big, DIGITS, tmp_path, torch.bfloat16)
    assert asked == [tmp_path]
    assert "20 images" in str(caught.value)
    assert str(tmp_path) in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_sizes_are_named_in_gigabytes(tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=1_200_000_000))
    monkeypatch.setattr("models.data.activations.store_bytes", lambda *_: 3_400_000_000)
    with pytest.raises(ArtifactError, match=r"take 3\.4 GB, but .* has room for 1\.2 GB"):
        compute_activations(settled(), SPLIT, DIGITS, tmp_path, torch.bfloat16)


def test_just_enough_room_is_enough(tmp_path, monkeypatch):
    free = store_bytes(settled(), 20, torch.bfloat16)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=free))
    compute_activations(settled(), SPLIT, DIGITS, tmp_path, torch.bfloat16)
    assert StoredInputs(tmp_path, SPLIT.labels).stored


def test_what_stops_the_computation_leaves_nothing(tmp_path):
    def interrupted(images):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        compute_activations(settled(), SPLIT, DIGITS, tmp_path, torch.bfloat16, interrupted)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("change", ["shorter", "longer", "empty", "absent"])
def test_files_that_are_not_whole_are_refused(change, tmp_path):
    stored(settled(), tmp_path, torch.bfloat16)
    file = tmp_path / "exit2.bin"
    content = file.read_bytes()
    if change == "absent":
        file.unlink()
    else:
        parts = {"shorter": content[:-1], "longer": content + b"\0", "empty": b""}
        file.write_bytes(parts[change])
    with pytest.raises(ArtifactError, match=r"exit2\.bin"):
        StoredInputs(tmp_path, SPLIT.labels)


@pytest.mark.parametrize("count", [0, 19, 21])
def test_activations_of_another_number_of_images_are_refused(count, tmp_path):
    stored(settled(), tmp_path, torch.bfloat16)
    with pytest.raises(ArtifactError, match="does not hold the activations of this dataset"):
        StoredInputs(tmp_path, tiny_split(count).labels)


def test_files_are_opened_without_reading_them(tmp_path):
    # A terabyte, of which the disk has but the last image: more than any memory takes.
    samples, channels = 2**20, 2**18
    described = {"samples": samples, "dtype": "float32", "exits": [[channels]]}
    (tmp_path / "activations.json").write_text(json.dumps(described))
    with (tmp_path / "exit1.bin").open("wb") as file:
        try:
            file.truncate(samples * channels * 4)
        except OSError:
            pytest.skip("this file system has no sparse files of this size")
        file.seek((samples - 1) * channels * 4)
        file.write(np.full(channels, 7, dtype=np.float32).tobytes())
    inputs = StoredInputs(tmp_path, np.zeros(samples, dtype=np.int64))
    network = SimpleNamespace(exit_count=1)
    rows = inputs.features(network, np.array([samples - 1, 0]), (1,))[1]
    assert rows[0].unique().tolist() == [7]
    assert rows[1].unique().tolist() == [0]


def test_training_leaves_the_files_as_they_were(tmp_path):
    network = settled("conv")
    inputs = stored(network, tmp_path)
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    (phase,) = phases("classifier_wise", 3, 2)
    train(network, phase, tiny_batches(2, samples=20), inputs, inputs, tiny_settings())
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == before


def test_stored_inputs_know_their_labels(tmp_path):
    inputs = stored(build_network(TINY_CONV, 0), tmp_path)
    assert inputs.labels.tolist() == SPLIT.labels.tolist()
