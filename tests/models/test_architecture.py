"""The description of a multi-exit network: where exits may sit, and when two are the same."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from models.networks.architecture import (
    BACKBONES,
    MSDNET_LAYERS,
    RESNET_BLOCKS,
    SMALL_IMAGE_BACKBONES,
    TORCHVISION_BACKBONES,
    Architecture,
    code_hash,
    default_exits,
    read_architecture,
)

RESNET20 = Architecture("resnet20", ("layer1", "layer2"), "conv", 10, (3, 32, 32))

#: Everything that shapes the network, each changed.
CHANGES = [
    {"backbone": "resnet32"},
    {"exits": ("layer1",)},
    {"exits": ("relu", "layer2")},
    {"exits": (0.3, 0.6)},
    {"exits": ()},
    {"branch": "linear"},
    {"classes": 100},
    {"input_shape": (1, 32, 32)},
    {"resize": 64},
    {"code": "0123456789abcdef"},
]


def test_the_depth_in_the_name_is_six_times_the_blocks_and_two():
    assert {name: f"resnet{6 * blocks + 2}" for name, blocks in RESNET_BLOCKS.items()} == {
        name: name for name in RESNET_BLOCKS
    }


def test_a_name_means_one_backbone():
    assert len(set(BACKBONES)) == len(BACKBONES)


# --- exits ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("backbone", RESNET_BLOCKS)
def test_exits_unasked_are_after_two_of_three_stages_of_a_cifar_resnet(backbone):
    assert default_exits(backbone) == ("layer1", "layer2")


def test_exits_unasked_are_after_every_block_but_the_last_of_an_msdnet():
    assert default_exits("msdnet5") == ("blocks.0", "blocks.1", "blocks.2", "blocks.3")
    for name, layers in MSDNET_LAYERS.items():
        assert len(default_exits(name)) == len(layers) - 1


@pytest.mark.parametrize(
    "backbone", [SMALL_IMAGE_BACKBONES[0], TORCHVISION_BACKBONES[0], "mine.py:Mine"]
)
def test_exits_unasked_are_at_thirds_of_the_flops_of_any_other(backbone):
    assert default_exits(backbone) == (1 / 3, 2 / 3)


def test_the_backbones_own_classifier_is_one_exit_more():
    assert RESNET20.exit_count == 3
    assert replace(RESNET20, exits=()).exit_count == 1
    assert replace(RESNET20, exits=(0.2, 0.4, 0.6)).exit_count == 4


# --- identity ------------------------------------------------------------------------------------


def test_equal_architectures_share_a_fingerprint():
    again = Architecture("resnet20", ("layer1", "layer2"), "conv", 10, (3, 32, 32))
    assert again == RESNET20
    assert again.fingerprint() == RESNET20.fingerprint()


@pytest.mark.parametrize("change", CHANGES, ids=str)
def test_whatever_changes_the_network_changes_the_fingerprint(change):
    assert replace(RESNET20, **change).fingerprint() != RESNET20.fingerprint()
    assert replace(RESNET20, **change) != RESNET20


def test_every_part_of_an_architecture_but_the_folder_is_in_its_identity():
    assert set(RESNET20.identity()) == {
        name for name in Architecture.__dataclass_fields__ if name != "folder"
    }
    assert {next(iter(change)) for change in CHANGES} == set(RESNET20.identity())


def test_where_the_users_files_lie_is_no_part_of_it():
    moved = replace(RESNET20, folder=Path("/elsewhere"))
    assert moved == RESNET20
    assert moved.fingerprint() == RESNET20.fingerprint()
    assert "elsewhere" not in json.dumps(moved.identity())


@pytest.mark.parametrize("change", [{}, *CHANGES], ids=str)
def test_an_identity_comes_back_from_json(change):
    architecture = replace(RESNET20, **change)
    read = read_architecture(json.loads(json.dumps(architecture.identity())), Path("folder"))
    assert read == architecture
    assert read.fingerprint() == architecture.fingerprint()
    assert hash(read) == hash(architecture), "its parts are the same kinds of values"
    assert read.folder == Path("folder")


@pytest.mark.parametrize(
    "damaged",
    [
        {key: value for key, value in RESNET20.identity().items() if key != "branch"},
        {key: value for key, value in RESNET20.identity().items() if key != "exits"},
        RESNET20.identity() | {"depth": 20},
        RESNET20.identity() | {"exits": None},
    ],
    ids=["a part missing", "no exits", "a part too many", "exits of nothing"],
)
def test_an_identity_with_other_parts_is_refused(damaged):
    with pytest.raises((KeyError, TypeError)):
        read_architecture(damaged)


# --- a user's code -------------------------------------------------------------------------------


def test_the_hash_of_a_users_file_follows_its_content_and_not_its_place(tmp_path):
    for folder in ("here", "there"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "mine.py").write_text("class Mine: ...\n")
    here = code_hash("mine.py:Mine", tmp_path / "here")
    assert here
    assert code_hash("mine.py:Mine", tmp_path / "there") == here
    assert code_hash("there/mine.py:Mine", tmp_path) == here
    (tmp_path / "there" / "mine.py").write_text("class Mine: pass\n")
    assert code_hash("mine.py:Mine", tmp_path / "there") != here


def test_the_hash_follows_what_the_file_imports_from_beside_it_too(tmp_path):
    (tmp_path / "mine.py").write_text("from helper import Mine\n")
    hashes = []
    for helper in ("class Mine: ...\n", "class Mine: pass\n"):
        (tmp_path / "helper.py").write_text(helper)
        hashes.append(code_hash("mine.py:Mine", tmp_path))
    (tmp_path / "stranger.py").write_text("")
    assert len({*hashes}) == 2
    assert code_hash("mine.py:Mine", tmp_path) == hashes[-1]


@pytest.mark.parametrize("backbone", ["resnet20", "package.module:Net", "package.module.Net"])
def test_what_is_no_file_has_no_hash(backbone, tmp_path):
    assert code_hash(backbone, tmp_path) == ""


def test_a_file_that_is_not_there_has_no_hash_either(tmp_path):
    with pytest.raises(OSError, match=r"gone\.py"):
        code_hash("gone.py:Gone", tmp_path)


# --- in words ------------------------------------------------------------------------------------


def test_it_describes_itself_in_words():
    assert str(RESNET20) == (
        "resnet20, early exits after layer1, layer2, conv branches, 10 classes, 3x32x32 input"
    )
    assert "early exits after none" in str(replace(RESNET20, exits=()))
    assert str(replace(RESNET20, exits=(1 / 3, 0.5), resize=64)) == (
        "resnet20, early exits after 33% of the FLOPs, 50% of the FLOPs, conv branches, "
        "10 classes, 3x32x32 input resized to 64x64"
    )
