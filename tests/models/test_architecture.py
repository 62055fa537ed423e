"""The description of a multi-exit network: where exits may sit, and when two are the same."""

from dataclasses import replace

import pytest

from models.architecture import RESNET_BLOCKS, Architecture, backbone_nodes

RESNET20 = Architecture("resnet20", ("layer1", "layer2"), "conv", 10, (3, 32, 32))


@pytest.mark.parametrize("backbone", RESNET_BLOCKS)
def test_an_early_exit_may_follow_any_node_but_the_last(backbone):
    assert backbone_nodes(backbone) == ("stem", "layer1", "layer2")


def test_an_unknown_backbone_has_no_nodes():
    with pytest.raises(KeyError, match="resnet21"):
        backbone_nodes("resnet21")


def test_the_depth_in_the_name_is_six_times_the_blocks_and_two():
    assert {name: f"resnet{6 * blocks + 2}" for name, blocks in RESNET_BLOCKS.items()} == {
        name: name for name in RESNET_BLOCKS
    }


def test_the_backbones_own_classifier_is_one_exit_more():
    assert RESNET20.exit_count == 3
    assert replace(RESNET20, exits=()).exit_count == 1


def test_equal_architectures_share_a_fingerprint():
    again = Architecture("resnet20", ("layer1", "layer2"), "conv", 10, (3, 32, 32))
    assert again.fingerprint() == RESNET20.fingerprint()


@pytest.mark.parametrize(
    "change",
    [
        {"backbone": "resnet32"},
        {"exits": ("layer1",)},
        {"exits": ("stem", "layer2")},
        {"branch": "linear"},
        {"classes": 100},
        {"input_shape": (1, 32, 32)},
    ],
    ids=lambda change: next(iter(change)),
)
def test_whatever_changes_the_shape_changes_the_fingerprint(change):
    assert replace(RESNET20, **change).fingerprint() != RESNET20.fingerprint()


def test_it_describes_itself_in_words():
    assert str(RESNET20) == (
        "resnet20, early exits after layer1, layer2, conv branches, 10 classes, 3x32x32 input"
    )
    assert "early exits after none" in str(replace(RESNET20, exits=()))
