"""A network of the user's own, named by where it lies."""

import sys
from dataclasses import replace

import pytest
import torch
from tiny_networks import some_images, state_of

from models.errors import NetworkError
from models.networks.architecture import Architecture, code_hash
from models.networks.multi_exit import build_network

MINE = """\
import torch
from torch import nn
from torch.nn import functional as F


class Mine(nn.Module):
    def __init__(self, num_classes, width=4):
        super().__init__()
        self.first = nn.Conv2d(1, width, 3, padding=1)
        self.second = nn.Conv2d(width, width, 3, padding=1)
        self.fc = nn.Linear(width, num_classes)

    def forward(self, x):
        x = F.relu(self.first(x))
        return self.fc(F.relu(x + self.second(x)).mean((2, 3)))


def wide(num_classes):
    return Mine(num_classes, width=8)
"""


def architecture_in(folder, backbone="mine.py:Mine", exits=("relu",), **changes):
    architecture = Architecture(backbone, exits, "linear", 3, (1, 6, 6), folder=folder)
    return replace(architecture, code=code_hash(backbone, folder), **changes)


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "mine.py").write_text(MINE)
    return tmp_path


def refusal(folder, code, backbone="mine.py:Mine", **changes):
    """The message when the user's file holds ``code``."""
    (folder / "mine.py").write_text(code)
    with pytest.raises(NetworkError) as caught:
        build_network(architecture_in(folder, backbone, **changes), 0)
    return str(caught.value)


# --- what works ----------------------------------------------------------------------------------


def test_a_class_in_a_file_becomes_a_network_with_exits(folder):
    network = build_network(architecture_in(folder), 0).eval()
    early, last = network(some_images(2, (1, 6, 6)))
    assert type(network.backbone).__name__ == "Mine"
    assert early.shape == last.shape == (2, 3)
    assert torch.equal(last, network.backbone(some_images(2, (1, 6, 6))))


def test_a_function_that_makes_one_will_do(folder):
    network = build_network(architecture_in(folder, "mine.py:wide"), 0)
    assert network.branches[0][-1].in_features == 8


@pytest.mark.parametrize("separator", [":", "."])
def test_so_will_a_class_of_an_installed_package(folder, separator, monkeypatch):
    (folder / "mine.py").rename(folder / "a_users_networks.py")
    monkeypatch.syspath_prepend(folder)
    try:
        architecture = architecture_in(folder / "elsewhere", f"a_users_networks{separator}Mine")
        assert architecture.code == code_hash("a_users_networks.py:Mine", folder)
        network = build_network(architecture, 0)
    finally:
        sys.modules.pop("a_users_networks", None)
    assert type(network.backbone).__name__ == "Mine"


def test_exits_may_be_placed_by_cost(folder):
    network = build_network(architecture_in(folder, exits=(0.2,)), 0)
    assert network.exit_nodes == ("relu",)


def test_a_seed_fixes_its_weights(folder):
    first, again, other = (
        state_of(build_network(architecture_in(folder), seed)) for seed in (1, 1, 2)
    )
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not any(torch.equal(first[name], other[name]) for name in first)


def test_a_layer_that_two_segments_use_belongs_to_the_first(folder):
    code = MINE.replace(
        "        return self.fc(F", "        x = self.second(x)\n        return self.fc(F"
    )
    (folder / "mine.py").write_text(code)
    network = build_network(architecture_in(folder, exits=("relu", "second")), 0)
    backbone = network.backbone
    assert network.parts(1) == [backbone.first]
    assert network.parts(2) == [backbone.second]
    assert network.parts(3) == [backbone.fc], "the second use of a layer is no part of its own"


OPTIONAL = {
    "a flag": ("return_features=False", "if return_features:\n            return x"),
    "a mask": ("mask=None", "if mask is not None:\n            x = x * mask"),
    "never used": ("mask=None", "pass"),
    "any": ("**options", "pass"),
}


@pytest.mark.parametrize(("argument", "use"), OPTIONAL.values(), ids=OPTIONAL)
def test_further_arguments_of_forward_keep_their_defaults(argument, use, folder):
    code = MINE.replace("(self, x)", f"(self, x, {argument})")
    code = code.replace("        return self.fc(F", f"        {use}\n        return self.fc(F")
    (folder / "mine.py").write_text(code)
    network = build_network(architecture_in(folder), 0).eval()
    images = some_images(2, (1, 6, 6))
    assert torch.equal(network(images)[-1], network.backbone(images))


OTHERS = {
    "a view of what is changed": "part = x[:, :2]\n        part.add_(1)",
    "another name of what is changed": "other = x\n        x += 1\n        x = x + other",
    "an argument for the result": "torch.mul(x, 2, out=x)",
    "random numbers": "x = F.dropout(x, 0.5)",
    "a state": "self.seen.add_(1)\n        x = x + self.seen",
}


@pytest.mark.parametrize("code", OTHERS.values(), ids=OTHERS)
def test_a_network_that_would_become_another_one_in_segments_is_refused(code, folder):
    changed = MINE.replace(
        "        x = F.relu(self.first(x))\n", f"        x = self.first(x)\n        {code}\n"
    )
    changed = changed.replace(
        "        super().__init__()\n",
        "        super().__init__()\n        self.register_buffer('seen', torch.ones(()))\n",
    )
    assert "gives other logits in segments than whole" in refusal(folder, changed)


# --- identity ------------------------------------------------------------------------------------


def test_other_code_is_another_network(folder):
    before = architecture_in(folder)
    (folder / "mine.py").write_text(MINE.replace("width=4", "width=5"))
    after = architecture_in(folder)
    assert after != before
    assert after.fingerprint() != before.fingerprint()
    assert build_network(after, 0).branches[0][-1].in_features == 5


def test_the_same_code_in_another_folder_is_the_same_network(folder):
    (folder / "copy").mkdir()
    (folder / "copy" / "mine.py").write_text(MINE)
    first, second = architecture_in(folder), architecture_in(folder / "copy")
    assert first == second
    assert first.fingerprint() == second.fingerprint()
    states = [state_of(build_network(one, 0)) for one in (first, second)]
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


# --- what is refused -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("backbone", "fragments"),
    [
        ("gone.py:Mine", ["no such file", "gone.py"]),
        ("mine.py:Mime", ["no class 'Mime'", "did you mean 'Mine'?"]),
        ("a_package_of_nobody.networks:Mine", ["No module named 'a_package_of_nobody'"]),
    ],
)
def test_a_network_that_cannot_be_found_says_why(backbone, fragments, folder):
    with pytest.raises(NetworkError) as caught:
        build_network(Architecture(backbone, (), "linear", 3, (1, 6, 6), folder=folder), 0)
    message = str(caught.value)
    assert message.startswith(f"backbone '{backbone}' cannot be imported: ")
    for fragment in fragments:
        assert fragment in message


BROKEN = {
    "a syntax error": (MINE.replace("self, x):", "self, x)"), ["cannot be imported", "line 13"]),
    "an error on import": ("1 / 0\n" + MINE, ["cannot be imported", "ZeroDivisionError"]),
    "no classes": (
        MINE.replace("num_classes, width=4", "width=4"),
        ["cannot be built with num_classes=3", "TypeError", "num_classes"],
    ),
    "an error of its own": (
        MINE.replace("super().__init__()", "raise KeyError('boom')"),
        ["cannot be built with num_classes=3", "KeyError", "boom"],
    ),
    "no module": ("class Mine:\n    def __init__(self, num_classes): ...", ["no torch.nn.Module"]),
    "control flow": (
        MINE.replace("        x = F", "        if x.sum() > 0: x = -x\n        x = F"),
        ["torch.fx cannot trace Mine", "torch.fx.wrap"],
    ),
    "two outputs": (
        MINE.replace("return self.fc", "return x, self.fc"),
        ["Mine must return one tensor of logits"],
    ),
    "other images": (
        MINE.replace("nn.Conv2d(1,", "nn.Conv2d(3,"),
        ["mine.py:Mine does not run on 1x6x6 images", "channels"],
    ),
    "no such exit": (MINE.replace("F.relu(self", "F.elu(self"), ["no node 'relu_1'"]),
}


@pytest.mark.parametrize(("code", "fragments"), BROKEN.values(), ids=BROKEN)
def test_a_network_that_cannot_be_used_says_why(code, fragments, folder):
    assert code != MINE
    message = refusal(folder, code, exits=("relu_1",))
    assert "Mine" in message
    for fragment in fragments:
        assert fragment in message
    assert "object at 0x" not in message


def test_logits_of_another_number_of_classes_are_refused(folder):
    message = refusal(folder, MINE.replace("(width, num_classes)", "(width, 1000)"))
    assert "1000" in message
    assert "3" in message


def test_logits_of_another_shape_are_refused(folder):
    message = refusal(folder, MINE.replace(".mean((2, 3))", ".permute(0, 2, 3, 1)"))
    assert "6" in message
