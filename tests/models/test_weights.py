"""Weights of a backbone from files of many makes, and from torchvision."""

import os
import pickle
import re
from dataclasses import replace
from urllib.error import URLError

import pytest
import torch
from safetensors.torch import save_file
from tiny_networks import TINY, changed, some_images, state_of
from torchvision import models as torchvision_models

from models.errors import NetworkError
from models.networks.architecture import Architecture
from models.networks.backbones import build_backbone
from models.networks.multi_exit import build_network
from models.networks.weights import load_weights


def weights_of(architecture=TINY, seed=7):
    """The state of a backbone, every value of it drawn at random."""
    state = build_backbone(architecture).state_dict()
    generator = torch.Generator().manual_seed(seed)
    for value in state.values():
        if value.is_floating_point():
            value.copy_(torch.rand(value.shape, generator=generator))
    return state


def loaded(weights, path, architecture=TINY, save=torch.save):
    """A network after loading ``weights`` from a file, its state before, and what was said."""
    save(weights, path)
    network = build_network(architecture, 0)
    before = state_of(network)
    return network, before, load_weights(network, path)


def refusal(path, architecture=TINY):
    """The message that loading ``path`` ends in, with the network as it was."""
    network = build_network(architecture, 0)
    before = state_of(network)
    with pytest.raises(NetworkError) as caught:
        load_weights(network, path)
    assert not changed(before, state_of(network))
    assert str(path) in str(caught.value)
    return str(caught.value)


def holds(network, weights, besides=()):
    """Whether every weight of the backbone is that of ``weights``."""
    state = network.backbone.state_dict()
    return all(
        torch.equal(value, weights[name])
        for name, value in state.items()
        if not name.startswith(tuple(besides) or "nothing")
    )


# --- files of many makes -------------------------------------------------------------------------

MAKES = {
    "a state dict": lambda weights: weights,
    "a plain dict": dict,
    "of several devices": lambda weights: {f"module.{name}": w for name, w in weights.items()},
    "compiled": lambda weights: {f"_orig_mod.{name}": w for name, w in weights.items()},
    "compiled, of several devices": lambda weights: {
        f"module._orig_mod.{name}": w for name, w in weights.items()
    },
    "of several devices, compiled": lambda weights: {
        f"_orig_mod.module.{name}": w for name, w in weights.items()
    },
    "beside an optimiser": lambda weights: {
        "epoch": 90,
        "best": 0.91,
        "state_dict": {f"module.{name}": w for name, w in weights.items()},
        "optimizer": {"state": {}, "param_groups": [{"lr": 0.1}]},
    },
    "under model": lambda weights: {"model": weights, "epoch": 3},
    "under model_state_dict": lambda weights: {"model_state_dict": weights, "loss": 0.2},
}


WRAPPED = """\
from torch import nn


class Wrapped(nn.Module):
    def __init__(self, num_classes):
        super().__init__()
        self.module = nn.Conv2d(1, 4, 3)
        self.fc = nn.Linear(4, num_classes)

    def forward(self, x):
        return self.fc(self.module(x).mean((2, 3)))
"""


@pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod."])
def test_a_networks_own_part_called_module_is_no_wrapper(prefix, tmp_path):
    (tmp_path / "mine.py").write_text(WRAPPED)
    architecture = Architecture(
        "mine.py:Wrapped", ("module",), "linear", 10, (1, 8, 8), folder=tmp_path
    )
    weights = weights_of(architecture)
    named = {prefix + name: value for name, value in weights.items()}
    network, _, whole = loaded(named, tmp_path / "weights.pt", architecture)
    assert whole is True
    assert holds(network, weights)


@pytest.mark.parametrize("make", MAKES.values(), ids=MAKES)
def test_weights_are_found_in_files_of_many_makes(make, tmp_path):
    weights = weights_of()
    network, before, whole = loaded(make(weights), tmp_path / "weights.pt")
    assert whole is True
    assert holds(network, weights)
    moved = changed(before, state_of(network))
    assert all(name.startswith("backbone.") for name in moved), "branches are left alone"
    assert {"backbone.conv1.weight", "backbone.bn1.running_mean", "backbone.linear.bias"} <= moved


@pytest.mark.parametrize("prefix", ["", "module."], ids=["plain", "of several devices"])
def test_so_they_are_in_safetensors(prefix, tmp_path):
    weights = weights_of()
    named = {prefix + name: value for name, value in weights.items()}
    network, _, whole = loaded(named, tmp_path / "weights.safetensors", save=save_file)
    assert whole is True
    assert holds(network, weights)


def test_the_format_of_torch_before_its_version_1_6_is_read(tmp_path):
    weights = weights_of()
    network, _, _ = loaded(weights, tmp_path / "weights.pth", save=save_as_before_1_6)
    assert holds(network, weights)


def save_as_before_1_6(content, path):
    torch.save(content, path, _use_new_zipfile_serialization=False)


def test_weights_of_half_precision_become_those_of_the_network(tmp_path):
    halves = {
        name: value.half() if value.is_floating_point() else value
        for name, value in weights_of().items()
    }
    network, _, _ = loaded(halves, tmp_path / "weights.pt")
    assert network.backbone.conv1.weight.dtype == torch.float32
    assert torch.equal(network.backbone.conv1.weight, halves["conv1.weight"].float())


def test_how_many_batches_were_seen_may_be_left_out(tmp_path):
    weights = {
        name: value
        for name, value in weights_of().items()
        if not name.endswith("num_batches_tracked")
    }
    network, _, whole = loaded(weights, tmp_path / "weights.pt")
    assert whole is True
    assert torch.equal(network.backbone.bn1.running_var, weights["bn1.running_var"])


def test_what_is_loaded_is_what_the_network_computes_with(tmp_path):
    weights = weights_of()
    network, _, _ = loaded(weights, tmp_path / "weights.pt")
    backbone = build_backbone(TINY).eval()
    backbone.load_state_dict(weights)
    images = some_images()
    assert torch.equal(network.eval()(images)[-1], backbone(images))


@pytest.mark.parametrize("backbone", ["mnasnet0_5", "squeezenet1_1", "cifar_mobilenet_v2"])
def test_weights_of_other_networks_come_back_too(backbone, tmp_path):
    architecture = Architecture(backbone, (), "linear", 10, (3, 32, 32))
    weights = weights_of(architecture)
    network, _, whole = loaded(weights, tmp_path / "weights.pt", architecture)
    assert whole is True
    assert holds(network, weights)


# --- the backbone's own classifier ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("backbone", "classifier", "size"),
    [("resnet8", "linear.", 8), ("squeezenet1_1", "classifier.1.", 32)],
)
def test_a_classifier_for_other_classes_stays_fresh_and_it_says_so(
    backbone, classifier, size, tmp_path
):
    architecture = Architecture(backbone, (), "linear", 10, (3, size, size))
    weights = weights_of(replace(architecture, classes=17))
    network, before, whole = loaded(weights, tmp_path / "weights.pt", architecture)
    assert whole is False
    assert holds(network, weights, besides=[classifier])
    after = state_of(network)
    fresh = [name for name in before if name.startswith(f"backbone.{classifier}")]
    assert len(fresh) == 2
    assert not any(name in changed(before, after) for name in fresh)


def test_a_classifier_that_is_not_there_stays_fresh_and_it_says_so(tmp_path):
    weights = {
        name: value for name, value in weights_of().items() if not name.startswith("linear.")
    }
    network, before, whole = loaded(weights, tmp_path / "weights.pt")
    assert whole is False
    assert holds(network, weights, besides=["linear."])
    assert torch.equal(network.backbone.linear.weight, before["backbone.linear.weight"])


def test_half_a_classifier_is_none(tmp_path):
    weights = weights_of()
    del weights["linear.bias"]
    network, before, whole = loaded(weights, tmp_path / "weights.pt")
    assert whole is False
    assert torch.equal(network.backbone.linear.weight, before["backbone.linear.weight"])


# --- weights that do not fit ---------------------------------------------------------------------


def test_weights_that_are_missing_are_named(tmp_path):
    weights = weights_of()
    for name in ("conv1.weight", "layer2.0.bn1.running_mean"):
        del weights[name]
    torch.save(weights, tmp_path / "weights.pt")
    message = refusal(tmp_path / "weights.pt")
    assert "does not hold the weights of resnet8" in message
    assert "missing: conv1.weight, layer2.0.bn1.running_mean" in message
    assert "foreign" not in message


def test_foreign_weights_are_named_with_the_nearest_that_is_known(tmp_path):
    weights = weights_of()
    weights["layer1.0.convolution1.weight"] = weights.pop("layer1.0.conv1.weight")
    torch.save(weights, tmp_path / "weights.pt")
    message = refusal(tmp_path / "weights.pt")
    assert "missing: layer1.0.conv1.weight" in message
    assert "foreign: layer1.0.convolution1.weight; did you mean 'layer1.0.conv1.weight'?" in message


def test_weights_of_another_shape_are_named_with_both(tmp_path):
    weights = weights_of()
    weights["conv1.weight"] = torch.zeros(16, 3, 3, 3)
    torch.save(weights, tmp_path / "weights.pt")
    message = refusal(tmp_path / "weights.pt")
    assert "conv1.weight has shape (16, 3, 3, 3), expected (16, 1, 3, 3)" in message


def test_another_networks_weights_make_a_short_message(tmp_path):
    torch.save(torchvision_models.squeezenet1_1().state_dict(), tmp_path / "weights.pt")
    message = refusal(tmp_path / "weights.pt")
    assert "and 47 more" in message
    assert "foreign: classifier.1.bias" in message
    assert len(message) < 1500


def test_a_deeper_network_is_refused(tmp_path):
    torch.save(weights_of(replace(TINY, backbone="resnet20")), tmp_path / "weights.pt")
    assert "foreign: layer1.1.bn1.bias" in refusal(tmp_path / "weights.pt")


# --- files that hold no weights ------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_a_missing_file_and_a_folder(suffix, tmp_path):
    assert "not a readable file of weights" in refusal(tmp_path / f"none{suffix}")
    (tmp_path / f"folder{suffix}").mkdir()
    assert "not a readable file of weights" in refusal(tmp_path / f"folder{suffix}")


@pytest.mark.parametrize("kept", [0.999, 0.9, 0.5, 0.05, 0.001, 0], ids=str)
@pytest.mark.parametrize(
    ("suffix", "save"),
    [(".pt", torch.save), (".pth", save_as_before_1_6), (".safetensors", save_file)],
    ids=["torch", "torch before 1.6", "safetensors"],
)
def test_a_truncated_file(suffix, save, kept, tmp_path):
    path = tmp_path / f"weights{suffix}"
    save(weights_of(), path)
    content = path.read_bytes()
    path.write_bytes(content[: int(kept * len(content))])
    assert "not a readable file of weights" in refusal(path)


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
@pytest.mark.parametrize(
    "content",
    [b"epoch,loss\n1,2.3\n" * 20, b"s", b"\x80\x02.", b"\x80\x02}q\x00X\xff", bytes(200)],
    ids=["text", "a letter", "nothing pickled", "half a pickle", "zeros"],
)
def test_a_file_of_something_else(suffix, content, tmp_path):
    path = tmp_path / f"weights{suffix}"
    path.write_bytes(content)
    assert "not a readable file of weights" in refusal(path)


@pytest.mark.parametrize(
    "content",
    [
        torch.zeros(3),
        [torch.zeros(3)],
        None,
        {"conv1.weight": [1.0, 2.0]},
        {"state_dict": {"epoch": 3}},
        {3: torch.zeros(3)},
    ],
    ids=["a tensor", "a list", "nothing", "lists by name", "numbers by name", "no names"],
)
def test_a_file_without_names_and_tensors(content, tmp_path):
    torch.save(content, tmp_path / "weights.pt")
    assert "holds no state dict" in refusal(tmp_path / "weights.pt")


class Planted:
    """Makes a folder when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("save", [torch.save, lambda content, path: path.write_bytes(content)])
def test_a_pickle_with_code_is_refused_and_nothing_of_it_runs(save, tmp_path):
    planted = {"conv1.weight": Planted(tmp_path / "planted")}
    save(planted if save is torch.save else pickle.dumps(planted, 2), tmp_path / "weights.pt")
    message = refusal(tmp_path / "weights.pt")
    assert "not a readable file of weights" in message
    assert not (tmp_path / "planted").exists()
    pickle.loads(pickle.dumps(planted))
    assert (tmp_path / "planted").exists(), "the test can fail"


def test_nobody_is_told_to_run_the_code_in_a_file(tmp_path):
    torch.save(build_backbone(TINY), tmp_path / "weights.pt")
    message = refusal(tmp_path / "weights.pt")
    assert "weights_only" not in message
    assert "\x1b" not in message
    assert len(message.splitlines()) <= 3


# --- torchvision's weights -----------------------------------------------------------------------


@pytest.fixture
def download(monkeypatch):
    """Stands in for a download: what is given here is what every weights file holds."""
    content = {}

    def get_state_dict(self, *arguments, **named):
        return content["weights"]

    monkeypatch.setattr(torchvision_models.WeightsEnum, "get_state_dict", get_state_dict)
    return lambda weights: content.update(weights=weights)


def published(name):
    """Weights of a network in the form in which torchvision publishes them."""
    torch.manual_seed(3)
    with_auxiliary = {"aux_logits": True, "init_weights": False}
    arguments = with_auxiliary if name in ("googlenet", "inception_v3") else {}
    weights = torchvision_models.get_model(name, weights=None, **arguments).state_dict()
    if name.startswith("densenet"):
        # These files are older than the rule that a module's name holds no dot.
        weights = dict(weights)
        for key in list(weights):
            value = weights.pop(key)
            if not key.endswith("num_batches_tracked"):
                weights[re.sub(r"(denselayer\d+\.(?:norm|conv))(\d)", r"\1.\2", key)] = value
    return weights


@pytest.mark.parametrize(
    ("name", "size"),
    [
        ("resnet18", 32),
        ("mobilenet_v3_small", 32),
        ("mnasnet0_5", 32),
        ("densenet121", 32),
        ("googlenet", 32),
        ("inception_v3", 75),
    ],
)
def test_torchvisions_weights_make_torchvisions_network(name, size, download):
    download(published(name))
    theirs = torchvision_models.get_model(name, weights="DEFAULT").eval()
    network = build_network(Architecture(name, (), "linear", 1000, (3, size, size)), 0).eval()
    assert load_weights(network, None) is True
    images = some_images(2, (3, size, size))
    with torch.inference_mode():
        (said,), expected = network(images), theirs(images)
    assert torch.equal(said, expected)


def test_of_other_classes_torchvisions_weights_leave_the_classifier_fresh(download):
    download(weights := published("mobilenet_v3_small"))
    network = build_network(Architecture("mobilenet_v3_small", (), "mlp", 10, (3, 32, 32)), 0)
    assert load_weights(network, None) is False
    assert holds(network, weights, besides=["classifier.3."])


@pytest.mark.parametrize("backbone", ["resnet8", "msdnet5", "cifar_resnet18"])
def test_of_other_networks_torchvision_has_none(backbone):
    network = build_network(Architecture(backbone, (), "linear", 10, (1, 8, 8)), 0)
    with pytest.raises(NetworkError, match=f"no ImageNet weights for {backbone}; name a file"):
        load_weights(network, None)


@pytest.mark.parametrize(
    "error",
    [
        URLError("Temporary failure in name resolution"),
        RuntimeError('invalid hash value (expected "f37072fd", got "00000000")'),
        PermissionError(13, "Permission denied"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_a_download_that_fails_says_what_else_can_be_done(error, monkeypatch):
    def fail(*_, **__):
        raise error

    monkeypatch.setattr(torchvision_models.WeightsEnum, "get_state_dict", fail)
    network = build_network(Architecture("squeezenet1_1", (), "linear", 10, (3, 32, 32)), 0)
    with pytest.raises(NetworkError) as caught:
        load_weights(network, None)
    message = str(caught.value)
    assert "weights for squeezenet1_1 cannot be downloaded" in message
    assert str(error) in message
    assert "Name a local file" in message


def test_networks_for_images_of_one_channel_cannot_take_weights_for_three(download):
    download(published("mobilenet_v3_small"))
    network = build_network(Architecture("mobilenet_v3_small", (), "linear", 10, (1, 32, 32)), 0)
    with pytest.raises(NetworkError, match=r"has shape \(16, 3, 3, 3\), expected \(16, 1, 3, 3\)"):
        load_weights(network, None)
