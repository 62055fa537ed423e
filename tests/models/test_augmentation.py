"""Preparing batches: normalisation, and crops and mirrors against a slow reference."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from tiny_networks import DIGITS

from models.data.augmentation import normalise, random_crop_and_flip
from models.data.datasets import DATASETS

CIFAR10 = DATASETS["cifar10"]


def images_of(info, count, seed=0):
    """Images of noise without a zero, so that padding shows."""
    values = np.random.default_rng(seed).integers(1, 256, (count, *info.input_shape))
    return torch.from_numpy(values.astype(np.uint8))


def shifted(image, padding, row, column, mirrored):
    """One image: zeros around it, a window cut out at (row, column), then mirrored or not."""
    channels, height, width = image.shape
    canvas = np.zeros((channels, height + 2 * padding, width + 2 * padding), dtype=np.uint8)
    canvas[:, padding : padding + height, padding : padding + width] = image
    window = canvas[:, row : row + height, column : column + width]
    return window[:, :, ::-1] if mirrored else window


# --- normalisation -------------------------------------------------------------------------------


def test_normalised_pixels_are_scaled_less_the_mean_over_the_deviation():
    images = torch.tensor([0, 51, 255], dtype=torch.uint8).view(1, 3, 1, 1)
    expected = [
        (0.0 - 0.4914) / 0.2470,
        (0.2 - 0.4822) / 0.2435,
        (1.0 - 0.4465) / 0.2616,
    ]
    normal = normalise(images, CIFAR10)
    assert normal.dtype == torch.float32
    assert normal.flatten().tolist() == pytest.approx(expected, rel=1e-5)


def test_data_with_the_stated_statistics_comes_out_with_mean_0_and_deviation_1():
    images = images_of(DIGITS, 200)
    scaled = images.double() / 255
    info = replace(DIGITS, mean=(scaled.mean().item(),), std=(scaled.std().item(),))
    normal = normalise(images, info)
    assert normal.shape == images.shape
    assert normal.mean().item() == pytest.approx(0, abs=1e-5)
    assert normal.std().item() == pytest.approx(1, rel=1e-5)


# --- crops and mirrors ---------------------------------------------------------------------------


@pytest.mark.parametrize("info", DATASETS.values(), ids=DATASETS)
def test_a_batch_is_cut_and_mirrored_as_image_by_image(info):
    images = images_of(info, 40)
    made = random_crop_and_flip(images, info, torch.Generator().manual_seed(5))
    assert made.shape == images.shape
    assert made.dtype == torch.uint8
    same = torch.Generator().manual_seed(5)
    rows, columns = torch.randint(0, 2 * info.crop_padding + 1, (2, 40, 1), generator=same)
    mirrored = torch.rand(40, 1, generator=same) < 0.5 if info.flip else torch.zeros(40, 1)
    for place in range(40):
        expected = shifted(
            images[place].numpy(),
            info.crop_padding,
            rows[place].item(),
            columns[place].item(),
            bool(mirrored[place]),
        )
        assert np.array_equal(made[place].numpy(), expected)


def counted_changes(info, copies):
    """How often each (row, column, mirrored) was made of copies of one image."""
    image = images_of(info, 1)
    made = random_crop_and_flip(
        image.repeat(copies, 1, 1, 1), info, torch.Generator().manual_seed(0)
    )
    places = range(2 * info.crop_padding + 1)
    known = {
        shifted(image[0].numpy(), info.crop_padding, row, column, mirrored).tobytes(): (
            row,
            column,
            mirrored,
        )
        for row in places
        for column in places
        for mirrored in (False, True)
    }
    counts = dict.fromkeys(known.values(), 0)
    for one in made:
        counts[known[one.contiguous().numpy().tobytes()]] += 1
    return counts


def test_digits_are_shifted_by_up_to_one_pixel_each_way_and_never_mirrored():
    counts = counted_changes(DIGITS, 1800)
    assert {change for change, count in counts.items() if count} == {
        (row, column, False) for row in range(3) for column in range(3)
    }
    # 200 of each expected, with a deviation of 13.
    assert all(140 < counts[row, column, False] < 260 for row in range(3) for column in range(3))


def test_where_a_mirror_keeps_the_label_half_are_mirrored_whatever_the_shift():
    counts = counted_changes(DATASETS["fashion_mnist"], 5000)
    assert min(counts.values()) > 0, "every shift occurs, mirrored and not"
    mirrored = sum(count for (_, _, mirrored), count in counts.items() if mirrored)
    # 2,500 expected, with a deviation of 35.
    assert 2350 < mirrored < 2650


def test_zeros_move_in_at_the_border():
    image = torch.full((200, 3, 32, 32), 255, dtype=torch.uint8)
    made = random_crop_and_flip(image, CIFAR10, torch.Generator().manual_seed(0))
    assert set(made.unique().tolist()) == {0, 255}
    # Four pixels at most from each side: the middle is always image.
    assert (made[:, :, 4:28, 4:28] == 255).all()
    rows_lost = (made[:, 0].amax(dim=2) == 0).sum(dim=1)
    assert sorted(rows_lost.unique().tolist()) == [0, 1, 2, 3, 4]


def test_the_channels_of_an_image_move_together():
    pattern = images_of(DIGITS, 30)
    three = replace(CIFAR10, input_shape=(3, 8, 8))
    made = random_crop_and_flip(
        pattern.expand(-1, 3, -1, -1), three, torch.Generator().manual_seed(0)
    )
    assert torch.equal(made[:, 0], made[:, 1])
    assert torch.equal(made[:, 0], made[:, 2])
    assert not torch.equal(made[:, :1], pattern)


def test_the_generator_alone_decides():
    images = images_of(CIFAR10, 20)
    first, again, other = (
        random_crop_and_flip(images, CIFAR10, torch.Generator().manual_seed(seed))
        for seed in (1, 1, 2)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
