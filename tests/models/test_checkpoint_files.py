"""Checkpoints: what is saved comes back, and a file that is not one of ours says so."""

import json
import shutil
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from tiny_networks import TINY, TINY_CONV, changed, some_images, state_of

from models.checkpoint import Origin, load_checkpoint, save_checkpoint
from models.errors import ArtifactError, CheckpointError
from models.networks.architecture import Architecture, code_hash
from models.networks.multi_exit import build_network
from models.training.train import TrainingCurve

CURVE = TrainingCurve(
    step=[2, 4], loss=[2.1, 1 / 3], validation_accuracy=[[0.1, 0.2, 0.3], [0.4, 0.5, 2 / 3]]
)


def origin_of(architecture):
    return Origin(architecture, "digits", "end_to_end", "curriculum", 7, 4, CURVE)


def trained_looking(architecture, seed=0):
    """A network whose statistics have moved, as after training."""
    network = build_network(architecture, seed).train()
    with torch.no_grad():
        network(some_images(8, architecture.input_shape) + 1)
    return network.to(memory_format=torch.channels_last).eval()


@pytest.fixture
def checkpoint(tmp_path):
    """A whole checkpoint, alone in its folder."""
    path = tmp_path / "folder" / "checkpoint.safetensors"
    save_checkpoint(path, trained_looking(TINY_CONV), origin_of(TINY_CONV))
    return path


def refusal(path):
    """The message of the error that loading ``path`` ends in; it names the file."""
    with pytest.raises(CheckpointError) as caught:
        load_checkpoint(path)
    assert str(path) in str(caught.value)
    return str(caught.value)


# --- round trip ----------------------------------------------------------------------------------


@pytest.mark.parametrize("architecture", [TINY, TINY_CONV, replace(TINY, exits=())], ids=str)
def test_what_is_saved_comes_back_bit_for_bit(architecture, tmp_path):
    network, path = trained_looking(architecture), tmp_path / "checkpoint.safetensors"
    save_checkpoint(path, network, origin_of(architecture))
    loaded, origin = load_checkpoint(path)
    assert origin == origin_of(architecture)
    assert not changed(state_of(network), state_of(loaded))
    images = some_images()
    with torch.inference_mode():
        for before, after in zip(network(images), loaded(images), strict=True):
            assert torch.equal(before, after)


OTHERS = [
    Architecture("resnet8", (0.2, 0.6), "sdn", 10, (1, 8, 8)),
    replace(TINY, resize=16),
    replace(TINY, branch="msdnet"),
    Architecture("msdnet5", ("blocks.1",), "msdnet", 10, (1, 8, 8)),
    Architecture("densenet_bc_40_12", ("features.denseblock1",), "linear", 10, (1, 8, 8)),
    Architecture("mnasnet0_5", ("layers.8",), "linear", 10, (3, 32, 32)),
    Architecture("squeezenet1_1", ("features.5",), "mlp", 10, (3, 32, 32)),
    Architecture("shufflenet_v2_x0_5", ("stage2",), "linear", 10, (3, 32, 32)),
]


@pytest.mark.parametrize("architecture", OTHERS, ids=str)
def test_so_does_every_kind_of_network(architecture, tmp_path):
    network, path = build_network(architecture, 3).eval(), tmp_path / "checkpoint.safetensors"
    save_checkpoint(path, network, origin_of(architecture))
    loaded, origin = load_checkpoint(path)
    assert origin.architecture == architecture
    assert loaded.exit_nodes == network.exit_nodes
    assert not changed(state_of(network), state_of(loaded))


USERS = """
from torch import nn


class Mine(nn.Module):
    def __init__(self, num_classes):
        super().__init__()
        self.first = nn.Linear(8, 8)
        {second}
        self.last = nn.Linear(8, num_classes)

    def forward(self, x):
        return self.last(self.second(self.first(x)).mean((1, 2)))
"""


def saved_users_network(tmp_path, second):
    """A network of the user's own, and its checkpoint in a folder beside the file."""
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "mine.py").write_text(USERS.format(second=second))
    folder = tmp_path / "code"
    code = code_hash("mine.py:Mine", folder)
    architecture = Architecture(
        "mine.py:Mine", (), "linear", 3, (1, 8, 8), code=code, folder=folder
    )
    network, path = build_network(architecture, 0).eval(), tmp_path / "checkpoint.safetensors"
    save_checkpoint(path, network, origin_of(architecture))
    return network, path


def test_a_users_network_is_found_from_the_folder_that_is_given(tmp_path):
    network, path = saved_users_network(tmp_path, "self.second = nn.Linear(8, 8)")
    loaded, origin = load_checkpoint(path, tmp_path / "code")
    assert origin.architecture == network.architecture
    assert not changed(state_of(network), state_of(loaded))
    assert "code is missing" in refusal(path), "without the folder"


def test_a_users_network_that_has_changed_is_refused(tmp_path):
    _, path = saved_users_network(tmp_path, "self.second = nn.Linear(8, 8)")
    with (tmp_path / "code" / "mine.py").open("a") as file:
        file.write("# another line\n")
    with pytest.raises(CheckpointError, match="has changed since it was trained"):
        load_checkpoint(path, tmp_path / "code")


def test_layers_that_share_their_weights_come_back_sharing_them(tmp_path):
    network, path = saved_users_network(tmp_path, "self.second = self.first")
    loaded, _ = load_checkpoint(path, tmp_path / "code")
    assert not changed(state_of(network), state_of(loaded))
    assert loaded.backbone.second is loaded.backbone.first


def test_a_loaded_network_is_in_inference_mode(checkpoint):
    network, _ = load_checkpoint(checkpoint)
    assert not any(module.training for module in network.modules())


def test_the_file_is_plain_safetensors_with_its_origin_as_json(checkpoint):
    with safe_open(checkpoint, framework="pt") as file:
        header = file.metadata()
        assert set(file.keys()) == set(build_network(TINY_CONV, 0).state_dict())
    assert header["format"] == "offramp-checkpoint-1"
    origin = json.loads(header["origin"])
    assert origin["architecture"] == TINY_CONV.identity()
    assert (origin["strategy"], origin["seed"], origin["steps"]) == ("curriculum", 7, 4)


# --- files that are no checkpoints ---------------------------------------------------------------


def test_a_checkpoint_error_is_an_artifact_error():
    assert issubclass(CheckpointError, ArtifactError)


def test_a_missing_file(tmp_path):
    assert "not a readable checkpoint" in refusal(tmp_path / "none.safetensors")


def test_a_folder(tmp_path):
    assert "not a readable checkpoint" in refusal(tmp_path)


@pytest.mark.parametrize("kept", [0.999, 0.5, 0.01, 0], ids=str)
def test_a_truncated_file(checkpoint, kept):
    content = checkpoint.read_bytes()
    checkpoint.write_bytes(content[: int(kept * len(content))])
    assert "truncated" in refusal(checkpoint)


def test_a_text_file(checkpoint):
    checkpoint.write_text("epoch,loss\n1,2.3\n" * 20)
    assert "not a readable checkpoint" in refusal(checkpoint)


def test_a_pickle_is_never_loaded(checkpoint):
    torch.save(build_network(TINY, 0).state_dict(), checkpoint)
    assert "not a readable checkpoint" in refusal(checkpoint)


@pytest.mark.parametrize("header", [None, {"format": "pt"}], ids=str)
def test_a_foreign_safetensors_file(checkpoint, header):
    save_file({"weight": torch.zeros(3)}, checkpoint, metadata=header)
    assert "not an Offramp checkpoint" in refusal(checkpoint)


def test_a_checkpoint_of_another_version(checkpoint):
    rewrite(checkpoint, lambda header, tensors: header.update(format="offramp-checkpoint-2"))
    assert "'offramp-checkpoint-2', expected 'offramp-checkpoint-1'" in refusal(checkpoint)


# --- damaged checkpoints -------------------------------------------------------------------------


def rewrite(path, change):
    """Change header and tensors of a checkpoint in place."""
    with safe_open(path, framework="pt") as file:
        header = file.metadata()
        names = file.keys()
        tensors = {name: file.get_tensor(name) for name in names}
    change(header, tensors)
    save_file(tensors, path, metadata=header)


@pytest.mark.parametrize(
    "change",
    [
        lambda tensors: tensors.pop("backbone.linear.weight"),
        lambda tensors: tensors.update(another=torch.zeros(2)),
        lambda tensors: tensors.update({"backbone.linear.bias": torch.zeros(11)}),
        lambda tensors: tensors.clear(),
    ],
    ids=["one missing", "one too many", "another shape", "none"],
)
def test_weights_that_do_not_fit_the_architecture(checkpoint, change):
    rewrite(checkpoint, lambda header, tensors: change(tensors))
    assert "weights do not fit resnet8" in refusal(checkpoint)


@pytest.mark.parametrize(
    "origin",
    ["", "{", "not json", "[]", "{}", "null", "3", '"text"'],
)
def test_a_header_that_is_no_description(checkpoint, origin):
    rewrite(checkpoint, lambda header, tensors: header.update(origin=origin))
    assert "header" in refusal(checkpoint)


def test_a_header_without_an_origin(checkpoint):
    rewrite(checkpoint, lambda header, tensors: header.pop("origin"))
    assert "header" in refusal(checkpoint)


DESCRIBED = asdict(origin_of(TINY_CONV)) | {"architecture": TINY_CONV.identity()}


@pytest.mark.parametrize(
    "damaged",
    [
        {key: value for key, value in DESCRIBED.items() if key != "seed"},
        DESCRIBED | {"colour": "red"},
        DESCRIBED | {"curve": {"steps": []}},
        DESCRIBED | {"curve": None},
        DESCRIBED | {"architecture": "resnet8"},
        DESCRIBED | {"architecture": DESCRIBED["architecture"] | {"exits": None}},
        DESCRIBED | {"architecture": DESCRIBED["architecture"] | {"depth": 8}},
        DESCRIBED | {"architecture": DESCRIBED["architecture"] | {"folder": "/"}},
    ],
    ids=[
        "a key missing",
        "a key too many",
        "another curve",
        "no curve",
        "architecture as text",
        "no exits",
        "an unknown part of the architecture",
        "a folder of its own",
    ],
)
def test_a_header_that_describes_something_else(checkpoint, damaged):
    rewrite(checkpoint, lambda header, tensors: header.update(origin=json.dumps(damaged)))
    assert "header" in refusal(checkpoint)


@pytest.mark.parametrize(
    "part",
    [
        {"backbone": "resnet110"},
        {"branch": "transformer"},
        {"exits": ["layer9"]},
        {"exits": ["relu", "layer7"]},
        {"exits": ["layer1", "relu"]},
        {"exits": [0.5, "layer1"]},
        {"exits": [2.0, 3.0]},
        {"backbone": "gone.py:Gone"},
        {"classes": "ten"},
        {"input_shape": [8, 8]},
    ],
    ids=str,
)
def test_an_architecture_that_this_version_cannot_build(checkpoint, part):
    architecture = DESCRIBED["architecture"] | part
    damaged = json.dumps(DESCRIBED | {"architecture": architecture})
    rewrite(checkpoint, lambda header, tensors: header.update(origin=damaged))
    refusal(checkpoint)


# --- whole or not at all -------------------------------------------------------------------------


def test_saving_leaves_nothing_behind_when_it_fails(tmp_path, monkeypatch):
    write_bytes = Path.write_bytes

    def full_disk(path, content):
        write_bytes(path, content[: len(content) // 2])
        raise OSError("No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full_disk)
    with pytest.raises(OSError, match="No space left"):
        save_checkpoint(
            tmp_path / "checkpoint.safetensors", build_network(TINY, 0), origin_of(TINY)
        )
    assert list(tmp_path.iterdir()) == []


def test_saving_that_fails_keeps_the_checkpoint_before(checkpoint, monkeypatch):
    before = checkpoint.read_bytes()

    def full_disk(path, content):
        raise OSError("No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full_disk)
    with pytest.raises(OSError, match="No space left"):
        save_checkpoint(checkpoint, build_network(TINY, 0), origin_of(TINY))
    assert checkpoint.read_bytes() == before
    assert list(checkpoint.parent.iterdir()) == [checkpoint]


def test_a_saved_checkpoint_is_alone_in_its_folder_and_can_be_moved(checkpoint, tmp_path):
    assert list(checkpoint.parent.iterdir()) == [checkpoint]
    moved = tmp_path / "elsewhere.bin"
    shutil.move(checkpoint, moved)
    assert load_checkpoint(moved)[1] == origin_of(TINY_CONV)
