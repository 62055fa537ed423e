"""A network that cannot be built, cut or given its weights, and training that does not fit it.

Told before anything is trained or written: file, line and key, what is wrong and what would do.
"""

import pickle
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from models.artifacts import read_predictions
from models.networks.multi_exit import MultiExitNetwork
from offramp import LoadedScenario, Pipeline, ScenarioError, load_scenario
from offramp.stages.network import check_network
from offramp.store import Store

Change = dict[str, Any]
# Changes to the tiny scenario, the key that the message names, what else it says.
Row = tuple[Change, str, list[str]]

REPEATABLE = settings(
    derandomize=True,
    database=None,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)

#: The images of digits that a scenario may train or validate with.
OFFICIAL_DIGITS = 1438

ONE_NETWORK: Change = {
    "training.strategies": ["standard"],
    "training.seeds": 1,
    "training.steps": 1,
}


def checked(loaded: LoadedScenario) -> MultiExitNetwork:
    network, _ = check_network(loaded.experiment, loaded.error_at)
    return network


@pytest.fixture
def untrained(monkeypatch: pytest.MonkeyPatch) -> None:
    """Training must not begin: what is wrong could have been said before."""

    def never(*arguments: object) -> None:
        raise AssertionError("a network was trained before the mistake was reported")

    monkeypatch.setattr("offramp.stages.training.train", never)


@pytest.fixture
def refused(
    untrained: None,
    scenario: Callable[..., Path],
    offramp: Callable[..., Any],
    place_of: Callable[..., str],
    tmp_path: Path,
) -> Callable[..., str]:
    """Runs a changed scenario, which must end in a message about ``key``; returns the message."""

    def check(changes: Change, key: str, *fragments: str) -> str:
        path = scenario(changes)
        before = sorted(tmp_path.iterdir())
        ran = offramp("run", path, "--store", tmp_path / "store", "-o", tmp_path / "results")
        assert (ran.status, ran.out) == (2, "")
        assert sorted(tmp_path.iterdir()) == before, "nothing is written"
        assert ran.err.startswith(f"error: {place_of(path, key)}: {key}: ")
        for fragment in fragments:
            assert fragment in ran.err
        assert "Traceback" not in ran.err
        return str(ran.err)

    return check


def named(rows: list[Row]) -> list[Any]:
    return [
        pytest.param(
            *row, id=", ".join(f"{key}={str(value)[:60]}" for key, value in row[0].items())
        )
        for row in rows
    ]


# --- backbones, exits, branches -----------------------------------------------------------------

BACKBONES: list[Row] = [
    (
        {"model.backbone": "resnt20"},
        "model.backbone",
        ["no backbone is called 'resnt20'", "did you mean 'resnet20'?", "densenet_bc_40_12"],
    ),
    ({"model.backbone": "vit_b16"}, "model.backbone", ["did you mean 'vit_b_16'?"]),
    ({"model.backbone": "msdnet6"}, "model.backbone", ["did you mean 'msdnet", "torchvision"]),
    ({"model.backbone": ""}, "model.backbone", ["my_networks.py:MyNet"]),
    ({"model.backbone": ":"}, "model.backbone", ["my_networks.py:MyNet"]),
    ({"model.backbone": "inception_v3", "model.exits": ["Mixed_5b"]}, "model", ["1x8x8 images"]),
    (
        {"model.backbone": "vit_b_32", "model.resize": 40, "model.exits": ["encoder"]},
        "model",
        ["vit_b_32", "40x40 images"],
    ),
]

EXITS: list[Row] = [
    (
        {"model.exits": ["layr1"]},
        "model",
        ["no node 'layr1'", "did you mean 'layer1'?", "relu, layer1, layer1.0, layer2"],
    ),
    ({"model.exits": ["stem"]}, "model", ["no node 'stem'", "conv1, bn1, relu, layer1"]),
    ({"model.exits": ["layer1", "layer2.1"]}, "model", ["no node 'layer2.1'", "'layer2"]),
    ({"model.exits": ["layer"]}, "model", ["no node 'layer'", "did you mean 'layer"]),
    ({"model.exits": [""]}, "model", ["no node ''", "layer1"]),
    (
        {"model.exits": ["layer2", "layer1"]},
        "model",
        ["from the earliest to the last", "'layer1' is computed before 'layer2'"],
    ),
    (
        {"model.exits": ["relu", "layer2", "layer1.0.conv1"]},
        "model",
        ["'layer1.0.conv1' is computed before 'layer2'"],
    ),
    ({"model.exits": ["layer1", "layer1.0"]}, "model", ["computed with 'layer1'"]),
    ({"model.exits": ["layer1", "layer1"]}, "model.exits.1", ["'layer1' is named twice"]),
    ({"model.exits": ["linear"]}, "model", ["'linear'", "the last exit already"]),
    ({"model.exits": ["layer1", "flatten"]}, "model", ["'flatten'", "the last exit already"]),
    (
        {"model.exits": {"at_flops": [0.7, 0.4]}},
        "model.exits.at_flops.1",
        ["ascending order"],
    ),
    ({"model.exits": {"at_flops": [0.4, 0.4]}}, "model.exits.at_flops.1", ["ascending order"]),
    # By hand: 18,432 + 589,824 of 1,494,272 FLOPs are spent where layer1 ends, 0.407; layer2 and
    # layer3 take 442,368 each.
    (
        {"model.exits": {"at_flops": [0.4, 0.45]}},
        "model",
        ["no place of its own for an exit at 0.45 of the FLOPs", "0.012, 0.407, 0.703"],
    ),
    # Nearest is the end of the network, where the last exit sits.
    ({"model.exits": {"at_flops": [0.95]}}, "model", ["0.95 of the FLOPs", "0.407, 0.703"]),
]


@pytest.mark.parametrize(("changes", "key", "fragments"), named([*BACKBONES, *EXITS]))
def test_a_network_that_cannot_be_is_told_with_file_line_and_what_would_do(
    changes: Change, key: str, fragments: list[str], refused: Callable[..., str]
) -> None:
    assert len(refused(changes, key, *fragments).splitlines()) == 1


@pytest.mark.usefixtures("untrained")
@pytest.mark.parametrize("command", ["check", "train", "profile", "run"])
def test_every_command_that_needs_the_network_says_so_before_it_begins(
    command: str,
    scenario: Callable[..., Path],
    offramp: Callable[..., Any],
    place_of: Callable[..., str],
    tmp_path: Path,
) -> None:
    path = scenario({"model.exits": ["layr1"]})
    ran = offramp(command, path)
    assert (ran.status, ran.out) == (2, "")
    assert ran.err.startswith(f"error: {place_of(path, 'model')}: model: ")
    assert "did you mean 'layer1'?" in ran.err
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("backbone", ["../\0.py:Net", "x" * 5000 + ".py:Net", "a\nb.py:Net"])
def test_a_file_that_no_system_can_hold_is_one_message(
    backbone: str, scenario: Callable[..., Path], tmp_path: Path
) -> None:
    path = scenario({"model.backbone": backbone})
    with pytest.raises(ScenarioError) as raised:
        checked(load_scenario(str(path)))
    assert str(raised.value).startswith(f"{path}:")


#: Names in a ResNet-8 and the operation that each ends with, in the order of computation.
OPERATIONS = {
    "conv1": 0,
    "bn1": 1,
    "relu": 2,
    "layer1.0.conv1": 3,
    "layer1.0.bn2": 4,
    "layer1.0": 5,
    "layer1": 5,
    "layer2": 6,
    "layer3.0.conv2": 7,
    "layer3": 8,
}
#: Of the classifier, or of nothing.
NO_PLACES = ["flatten", "linear", "layer4", "Layer1", "layer1.", "", "layer1.0.0"]


@given(st.lists(st.sampled_from([*OPERATIONS, *NO_PLACES]), max_size=3))
@example([])
@example(["layer1", "layer1.0"])
@example(["relu", "layer1", "layer3"])
@example(["layer1", "flatten"])
@settings(REPEATABLE, max_examples=60)
def test_exits_are_taken_if_they_exist_and_follow_each_other_and_refused_else(
    scenario: Callable[..., Path], names: list[str]
) -> None:
    path = scenario({"model.exits": names, "policies": ["confidence"]})
    order = [OPERATIONS.get(name, -1) for name in names]
    if -1 not in order and all(before < after for before, after in pairwise(order)):
        assert checked(load_scenario(str(path))).exit_nodes == tuple(names)
    else:
        with pytest.raises(ScenarioError, match="model") as raised:
            checked(load_scenario(str(path)))
        assert str(raised.value).startswith(f"{path}:")


@pytest.mark.parametrize("branch", ["conv", "sdn", "msdnet"])
def test_a_branch_of_convolutions_on_a_transformer_names_those_that_would_do(
    branch: str, refused: Callable[..., str], tmp_path: Path
) -> None:
    (tmp_path / "mine.py").write_text(TOKENS)
    tokens = {"model.backbone": "mine.py:Tokens", "model.exits": ["mix"], "model.branch": branch}
    refused(tokens, "model", f"{branch!r}", "(1, 16, 4)", "use 'linear' or 'mlp'")


def test_so_it_is_on_torchvisions_transformers(refused: Callable[..., str]) -> None:
    vit = {
        "data.dataset": "cifar10",
        "model.backbone": "vit_b_32",
        "model.exits": ["encoder.layers.encoder_layer_3"],
        "model.branch": "conv",
    }
    refused(vit, "model", "'conv'", "use 'linear' or 'mlp'")


@pytest.mark.parametrize("branch", ["linear", "mlp"])
def test_other_branches_take_tokens(
    branch: str, scenario: Callable[..., Path], tmp_path: Path
) -> None:
    (tmp_path / "mine.py").write_text(TOKENS)
    tokens = {"model.backbone": "mine.py:Tokens", "model.exits": ["mix"], "model.branch": branch}
    network = checked(load_scenario(str(scenario(tokens))))
    assert [tuple(it.shape) for it in network(torch.zeros(3, 1, 8, 8))] == [(3, 10), (3, 10)]


def test_images_are_resized_before_the_network(scenario: Callable[..., Path]) -> None:
    path = scenario({"model.resize": 24, "model.exits": ["layer1"]})
    network = checked(load_scenario(str(path)))
    (activation,) = network.run_segment(1, network.start(torch.zeros(2, 1, 8, 8)))
    assert activation.shape == (2, 16, 24, 24)


def test_a_network_too_deep_for_its_images_can_be_built_once_they_are_resized(
    refused: Callable[..., str], scenario: Callable[..., Path]
) -> None:
    changes = {"model.backbone": "squeezenet1_1", "model.exits": ["features.3"]}
    refused(changes, "model", "does not run on 1x8x8 images")
    network = checked(load_scenario(str(scenario({**changes, "model.resize": 32}))))
    assert network.exit_nodes == ("features.3",)


# --- networks of the user's own -----------------------------------------------------------------

TOKENS = """\
from torch import nn

class Tokens(nn.Module):
    def __init__(self, num_classes):
        super().__init__()
        self.patches = nn.Conv2d(1, 4, 2, stride=2)
        self.mix = nn.Linear(4, 4)
        self.head = nn.Linear(4, num_classes)

    def forward(self, x):
        tokens = self.mix(self.patches(x).flatten(2).transpose(1, 2))
        return self.head(tokens.mean(1))
"""

NET = """\
from torch import nn

class Net(nn.Module):
    def __init__(self, num_classes):
        super().__init__()
        self.first = nn.Conv2d(1, 4, 3)
        self.second = nn.Conv2d(4, 4, 3)
        self.head = nn.Linear(4, num_classes)

    def forward(self, x):
        x = self.second(self.first(x).relu())
        return self.head(x.mean((2, 3)))
"""


def changed(old: str, new: str) -> str:
    assert old in NET
    return NET.replace(old, new)


#: Contents of a file with the backbone ``Net``, and what is said of it.
BAD_FILES = {
    "control flow": (
        changed("        return", "        if x.sum() > 0:\n            x = 2 * x\n        return"),
        ["torch.fx cannot trace Net", "control flow", "torch.fx.wrap"],
    ),
    "another class": (changed("class Net", "class Nets"), ["no class 'Net'", "mean 'Nets'?"]),
    "no class": ("Net = 3\n", ["no class 'Net'"]),
    "empty": ("", ["no class 'Net'"]),
    "syntax": ("class Net(\n", ["SyntaxError", "line 1"]),
    "import": ("import gone_module\n", ["gone_module"]),
    "raises": ("raise RuntimeError('boom')\n", ["RuntimeError", "boom"]),
    "exits": ("import sys\nsys.exit(3)\n", ["cannot be imported"]),
    "no num_classes": (
        changed("(self, num_classes)", "(self, classes=10)").replace("4, num_", "4, "),
        ["num_classes=10", "TypeError"],
    ),
    "raises when built": (
        changed("        super()", "        raise KeyError('boom')\n        super()"),
        ["cannot be built with num_classes=10", "boom"],
    ),
    "no module": (
        changed("(nn.Module)", "").replace("super().__init__()", "nn.Module"),
        ["no torch.nn.Module"],
    ),
    "a function of another kind": ("def Net(num_classes): return 3\n", ["no torch.nn.Module"]),
    "two results": (changed("mean((2, 3)))", "mean((2, 3))), x"), ["one tensor of logits"]),
    "other channels": (changed("Conv2d(1, 4", "Conv2d(3, 4"), ["does not run on 1x8x8 images"]),
    "other classes": (changed("Linear(4, num_classes)", "Linear(4, 3)"), ["10", "3"]),
}


@pytest.mark.parametrize(("code", "fragments"), BAD_FILES.values(), ids=BAD_FILES.keys())
def test_a_users_network_that_cannot_be_used_says_why(
    code: str, fragments: list[str], refused: Callable[..., str], tmp_path: Path
) -> None:
    (tmp_path / "mine.py").write_text(code)
    refused({"model.backbone": "mine.py:Net", "model.exits": ["first"]}, "model", *fragments)


@pytest.mark.parametrize(
    ("backbone", "fragments"),
    [
        ("gone.py:Net", ["'gone.py:Net'", "no such file", "gone.py"]),
        ("gone_module:Net", ["'gone_module:Net'", "gone_module"]),
        ("json:JSONDecoder", ["cannot be built", "num_classes"]),
        ("json:Decoder", ["no class 'Decoder'", "did you mean 'JSONDecoder'?"]),
    ],
)
def test_a_users_network_that_is_not_there_says_where_it_was_looked_for(
    backbone: str, fragments: list[str], refused: Callable[..., str]
) -> None:
    refused({"model.backbone": backbone}, "model", *fragments)


def test_a_users_network_beside_the_scenario_is_trained_from_any_folder_and_again_when_it_changes(
    scenario: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = scenario({**ONE_NETWORK, "model.backbone": "mine.py:Net", "model.exits": ["first"]})
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    folders = []
    for code in (NET, changed(".relu()", ".tanh()")):
        (tmp_path / "mine.py").write_text(code)
        for reused in (False, True):
            pipeline = Pipeline(load_scenario(str(path)), Store(tmp_path / "own"))
            folders.append(pipeline.train()["standard", 0])
            assert pipeline.reused == {"standard, seed 0": reused}
    assert folders[0] == folders[1] != folders[2] == folders[3]


# --- weights ------------------------------------------------------------------------------------


def resnet8(scenario: Callable[..., Path]) -> dict[str, torch.Tensor]:
    """Weights of a ResNet-8 for digits, every one another than those of a fresh network."""
    backbone = checked(load_scenario(str(scenario()))).backbone
    return {name: torch.full_like(value, 2) for name, value in backbone.state_dict().items()}


Weights = dict[str, torch.Tensor]


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


class Harmful:
    """Writes a file when it is unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (Path("unpickled"),)


def saved_cut(weights: Weights, path: Path) -> None:
    torch.save(weights, path)
    cut(path)


def without(prefix: str) -> Callable[[Weights, Path], None]:
    return lambda weights, path: torch.save(
        {name: value for name, value in weights.items() if not name.startswith(prefix)}, path
    )


def with_more(**more: torch.Tensor) -> Callable[[Weights, Path], None]:
    return lambda weights, path: torch.save(
        {**weights, **{name.replace("__", "."): value for name, value in more.items()}}, path
    )


#: How a file is made from right weights, and what is said of it.
BAD_WEIGHTS: dict[str, tuple[Callable[[Weights, Path], object], list[str]]] = {
    "truncated": (saved_cut, ["not a readable file of weights"]),
    "empty": (lambda weights, path: path.write_bytes(b""), ["not a readable file of weights"]),
    "text": (
        lambda weights, path: path.write_text("hello " * 50),
        ["not a readable file of weights"],
    ),
    "a list": (lambda weights, path: torch.save([1, 2], path), ["no state dict"]),
    "numbers as names": (
        lambda weights, path: torch.save({1: torch.zeros(2)}, path),
        ["no state dict"],
    ),
    "no weights": (lambda weights, path: torch.save({}, path), ["missing", "and 30 more"]),
    "missing keys": (without("layer2"), ["missing: layer2.0.bn1.bias", "and 5 more"]),
    "foreign keys": (
        with_more(layer2__0__bn3__weight=torch.zeros(1)),
        ["foreign: layer2.0.bn3.weight; did you mean 'layer2.0.bn"],
    ),
    "another shape": (
        with_more(conv1__weight=torch.zeros(16, 3, 3, 3)),
        ["conv1.weight has shape (16, 3, 3, 3), expected (16, 1, 3, 3)"],
    ),
    "code": (
        lambda weights, path: path.write_bytes(pickle.dumps(Harmful(), protocol=2)),
        ["not a readable file of weights"],
    ),
}


@pytest.mark.parametrize(("make", "fragments"), BAD_WEIGHTS.values(), ids=BAD_WEIGHTS.keys())
def test_weights_that_do_not_fit_are_told_with_their_file(
    make: Callable[[Weights, Path], object],
    fragments: list[str],
    scenario: Callable[..., Path],
    refused: Callable[..., str],
    tmp_path: Path,
) -> None:
    file = tmp_path / "mine.pt"
    make(resnet8(scenario), file)
    refused({"model.weights": "mine.pt"}, "model.weights", str(file), *fragments)
    assert not (tmp_path / "unpickled").exists()


def test_truncated_safetensors_are_told_with_their_file(
    scenario: Callable[..., Path], refused: Callable[..., str], tmp_path: Path
) -> None:
    save_file(resnet8(scenario), tmp_path / "mine.safetensors")
    cut(tmp_path / "mine.safetensors")
    weights = {"model.weights": "mine.safetensors"}
    refused(weights, "model.weights", "mine.safetensors: not a readable file of weights")


@pytest.mark.parametrize(
    ("given", "read"),
    [
        ("mine.pt", "mine.pt"),
        ("~/mine.pt", "home/mine.pt"),
        ("$MY_WEIGHTS/mine.pt", "named/mine.pt"),
        ("${MY_WEIGHTS}/mine.pt", "named/mine.pt"),
        ("$MY_PLACE/mine.pt", "relative/mine.pt"),
    ],
)
def test_a_file_of_weights_is_relative_to_the_scenario_with_home_and_variables_expanded(
    given: str,
    read: str,
    scenario: Callable[..., Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("MY_WEIGHTS", str(tmp_path / "named"))
    monkeypatch.setenv("MY_PLACE", "relative")
    weights = resnet8(scenario)
    (tmp_path / read).parent.mkdir(exist_ok=True)
    torch.save(weights, tmp_path / read)
    monkeypatch.chdir("/")
    network = checked(load_scenario(str(scenario({"model.weights": given}))))
    for name, value in network.backbone.state_dict().items():
        assert torch.equal(value, weights[name]), name


def test_a_classifier_for_other_classes_is_left_to_be_trained(
    scenario: Callable[..., Path], tmp_path: Path
) -> None:
    others = {"linear.weight": torch.zeros(100, 64), "linear.bias": torch.zeros(100)}
    torch.save({**resnet8(scenario), **others}, tmp_path / "mine.pt")
    network = checked(load_scenario(str(scenario({"model.weights": "mine.pt"}))))
    state = network.backbone.state_dict()
    assert (state["conv1.weight"] == 2).all()
    assert state["linear.weight"].shape == (10, 64)
    assert state["linear.weight"].std() > 0


def test_no_classifier_for_other_classes_ranks_samples(
    scenario: Callable[..., Path], offramp: Callable[..., Any], tmp_path: Path
) -> None:
    others = {"linear.weight": torch.zeros(100, 64), "linear.bias": torch.zeros(100)}
    torch.save({**resnet8(scenario), **others}, tmp_path / "mine.pt")
    frozen = {"model.weights": "mine.pt", "training.regime": "classifier_wise"}
    advised = "{function: transfer, backbone: resnet8, weights: mine.pt}"
    for command in ("check", "train"):
        told = offramp(command, scenario(frozen))
        assert (told.status, told.out) == (2, ""), "before anything is trained"
    assert "training.scoring: final_exit ranks by the classifier of the frozen backbone" in told.err
    assert f"give {advised}" in told.err
    advice = scoring("transfer", backbone="resnet8", weights="mine.pt")
    for kept in (advice, {"training.strategies": ["standard", "random_curriculum"]}):
        ran = offramp("check", scenario({**frozen, **kept}))
        assert ran.status == 0, ran.err
    assert offramp("profile", scenario(frozen)).status == 0, "what ranks does not matter there"


def test_imagenets_classifier_ranks_no_digits(
    scenario: Callable[..., Path], offramp: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*arguments: object) -> None:
        raise AssertionError("weights were asked for")

    monkeypatch.setattr("models.networks.weights._imagenet_weights", never)
    resnet18 = {"model.backbone": "resnet18", "model.exits": ["layer2"], "model.resize": 32}
    frozen = {**resnet18, "model.weights": "imagenet", "training.regime": "classifier_wise"}
    told = offramp("check", scenario(frozen))
    assert told.status == 2
    assert (
        "give {function: transfer, backbone: resnet18, weights: imagenet, resize: 32}" in told.err
    )


GONE = "no such file: {folder}/gone.pt"
FILES: list[Row] = [
    ({"model.weights": "gone.pt"}, "model.weights", [GONE]),
    ({"model.weights": "imagnet"}, "model.weights", ["no such file: {folder}/imagnet"]),
    ({"model.weights": "."}, "model.weights", ["no such file"]),
    ({"model.weights": "$NOT_SET_HERE/a.pt"}, "model.weights", ["$NOT_SET_HERE is not set"]),
    ({"model.weights": "${NOT_SET_HERE}/a.pt"}, "model.weights", ["NOT_SET_HERE", "is not set"]),
    (
        {"model.weights": "imagenet"},
        "model.weights",
        ["torchvision has no ImageNet weights for 'resnet8'", "name a file"],
    ),
    (
        {"model.weights": "imagenet", "model.backbone": "cifar_resnet18"},
        "model.weights",
        ["'cifar_resnet18'", "name a file"],
    ),
    (
        {"data.label_noise": {"file": "$NOT_SET_HERE/a.npz"}},
        "data.label_noise.file",
        ["$NOT_SET_HERE is not set"],
    ),
    ({"data.label_noise": {"file": "gone.pt"}}, "data.label_noise.file", [GONE]),
    (
        {"training.scoring": {"function": "c_score", "file": "$NOT_SET_HERE/a.npz"}},
        "training.scoring.file",
        ["$NOT_SET_HERE is not set"],
    ),
    (
        {"training.scoring": {"function": "c_score", "file": "gone.pt"}},
        "training.scoring.file",
        [GONE],
    ),
    (
        {"training.checkpoints": {"standard": ["$NOT_SET_HERE/a", "$NOT_SET_HERE/b"]}}
        | {"training.strategies": ["standard"]},
        "training.checkpoints.standard.0",
        ["$NOT_SET_HERE is not set"],
    ),
]


@pytest.mark.parametrize(("changes", "key", "fragments"), named(FILES))
def test_a_file_that_is_not_there_is_told_with_the_key_that_names_it(
    changes: Change, key: str, fragments: list[str], refused: Callable[..., str], tmp_path: Path
) -> None:
    refused(changes, key, *(fragment.format(folder=tmp_path) for fragment in fragments))


# --- labels -------------------------------------------------------------------------------------

LABELS: list[Row] = [
    ({"data.label_noise": {}}, "data.label_noise", ["give symmetric_percent or a file"]),
    ({"data.label_noise": {"key": "a"}}, "data.label_noise", ["give symmetric_percent or a file"]),
    (
        {"data.label_noise": {"symmetric_percent": 20, "file": "tiny.yaml"}},
        "data.label_noise.file",
        ["symmetric_percent or a file, not both"],
    ),
    (
        {"data.label_noise": {"symmetric_percent": 0}},
        "data.label_noise.symmetric_percent",
        ["given 0", "greater than 0"],
    ),
    (
        {"data.label_noise": {"symmetric_percent": 101}},
        "data.label_noise.symmetric_percent",
        ["given 101", "100"],
    ),
    ({"data.mean": [0.1, 0.2]}, "data.mean", ["2 values", "1 channel", "digits"]),
    ({"data.std": []}, "data.std", ["0 values", "1 channel", "digits"]),
    (
        {"data.dataset": "cifar10", "data.std": [0.2]},
        "data.std",
        ["1 values", "3 channel", "cifar10"],
    ),
]


@pytest.mark.parametrize(("changes", "key", "fragments"), named(LABELS))
def test_labels_and_channels_that_cannot_be(
    changes: Change, key: str, fragments: list[str], refused: Callable[..., str]
) -> None:
    refused(changes, key, *fragments)


#: How a file of labels is made, its key, and what is said of it.
BAD_LABELS: dict[str, tuple[str, Callable[[Path], object], str | None, list[str]]] = {
    "too short": (
        "noisy.npy",
        lambda path: np.save(path, np.zeros(10)),
        None,
        ["10 values", "1438 values are expected"],
    ),
    "without those of validation": (
        "noisy.npy",
        lambda path: np.save(path, np.zeros(OFFICIAL_DIGITS - 143)),
        None,
        ["1295 values", "1438 values are expected"],
    ),
    "wrong key": (
        "noisy.npz",
        lambda path: np.savez(path, noisy=np.zeros(OFFICIAL_DIGITS)),
        "nosy",
        ["no array 'nosy'", "did you mean 'noisy'?"],
    ),
    "no key": (
        "noisy.npz",
        lambda path: np.savez(path, noisy=np.zeros(OFFICIAL_DIGITS)),
        None,
        ["key", "noisy"],
    ),
    "eleven classes": (
        "noisy.npy",
        lambda path: np.save(path, np.arange(OFFICIAL_DIGITS) % 11),
        None,
        ["10", "whole numbers from 0 to 9"],
    ),
    "another kind of file": (
        "noisy.csv",
        lambda path: path.write_text("1\n" * OFFICIAL_DIGITS),
        None,
        [".npz or .npy"],
    ),
}


@pytest.mark.usefixtures("untrained")
@pytest.mark.parametrize(
    ("name", "make", "key", "fragments"), BAD_LABELS.values(), ids=BAD_LABELS.keys()
)
def test_a_file_of_labels_that_does_not_fit_is_told_before_training(
    name: str,
    make: Callable[[Path], object],
    key: str | None,
    fragments: list[str],
    scenario: Callable[..., Path],
    offramp: Callable[..., Any],
    tmp_path: Path,
) -> None:
    make(tmp_path / name)
    noise = {"file": name} | ({"key": key} if key else {})
    path = scenario({**ONE_NETWORK, "data.label_noise": noise})
    ran = offramp("train", path, "--store", tmp_path / "own")
    assert (ran.status, ran.out) == (2, "")
    assert ran.err.startswith(f"error: {tmp_path / name}: ")
    for fragment in fragments:
        assert fragment in ran.err
    assert not (tmp_path / "own" / "trained").exists()


def test_a_file_of_labels_that_fits_is_trained_on(
    scenario: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    np.savez(tmp_path / "noisy.npz", noisy=np.full(OFFICIAL_DIGITS, 7))
    monkeypatch.setenv("MY_LABELS", str(tmp_path))
    noise = {"file": "$MY_LABELS/noisy.npz", "key": "noisy"}
    many = {**ONE_NETWORK, "training.steps": 12, "training.evaluations": 1}
    path = scenario({**many, "data.label_noise": noise})
    folder = Pipeline(load_scenario(str(path)), Store(tmp_path / "own")).train()["standard", 0]
    predicted = read_predictions(folder / "predictions.parquet")
    assert (predicted.predicted[:, -1] == 7).all(), "it learned that everything is a seven"
    assert len(np.unique(predicted.label)) == 10, "the test labels stay as they are"


# --- training that does not fit the network -----------------------------------------------------


def scoring(function: str, **more: object) -> Change:
    return {"training.scoring": {"function": function, **more}}


def pacing(function: str, **more: object) -> Change:
    return {"training.pacing": {"function": function, **more}}


SCORING: list[Row] = [
    (scoring("cross_fitted"), "training.scoring.function", ["given 'cross_fitted'", "self_taught"]),
    (
        scoring("self_taught", file="tiny.yaml"),
        "training.scoring.file",
        ["belongs to function c_score, not self_taught"],
    ),
    (
        scoring("early_checkpoint", resize=16),
        "training.scoring.resize",
        ["belongs to function transfer, not early_checkpoint"],
    ),
    (
        scoring("c_score", file="tiny.yaml", weights="tiny.yaml"),
        "training.scoring.weights",
        ["belongs to function transfer, not c_score"],
    ),
    (
        scoring("transfer", backbone="resnet20", weights="tiny.yaml", key="scores"),
        "training.scoring.key",
        ["belongs to function c_score, not transfer"],
    ),
    (
        scoring("self_taught", backbone="resnet20"),
        "training.scoring.backbone",
        ["belongs to function transfer, not self_taught"],
    ),
    (scoring("c_score"), "training.scoring.file", ["c_score needs this key"]),
    (
        scoring("transfer", backbone="resnet20"),
        "training.scoring.weights",
        ["transfer needs this key"],
    ),
    (
        scoring("transfer", weights="tiny.yaml"),
        "training.scoring.backbone",
        ["transfer needs this key"],
    ),
    (
        scoring("transfer", backbone="resnt20", weights="tiny.yaml"),
        "training.scoring.backbone",
        ["no backbone is called 'resnt20'", "did you mean 'resnet20'?"],
    ),
    (
        scoring("transfer", backbone="resnet20", weights="imagenet"),
        "training.scoring.weights",
        ["no ImageNet weights for 'resnet20'"],
    ),
    (
        scoring("transfer", backbone="resnet20", weights="$NOT_SET_HERE/a.pt"),
        "training.scoring.weights",
        ["$NOT_SET_HERE is not set"],
    ),
    (scoring("final_exit"), "training.scoring.function", ["regime classifier_wise"]),
    (
        {**scoring("final_exit"), "training.regime": "mixed"},
        "training.scoring.function",
        ["regime classifier_wise"],
    ),
    (
        scoring("self_taught", per_exit=True),
        "training.scoring.per_exit",
        ["end_to_end", "classifier_wise or layer_wise"],
    ),
    (
        {**scoring("early_checkpoint", per_exit=True), "training.regime": "mixed"},
        "training.scoring.per_exit",
        ["mixed", "classifier_wise or layer_wise"],
    ),
    (
        {**scoring("final_exit", per_exit=True), "training.regime": "classifier_wise"},
        "training.scoring.per_exit",
        ["final_exit sees no early exit", "self_taught or early_checkpoint"],
    ),
]

PACING: list[Row] = [
    (
        pacing("varied_exponential"),
        "training.pacing.increases_at",
        ["varied_exponential needs this key"],
    ),
    (
        pacing("linear", increases_at=[0.1]),
        "training.pacing.increases_at",
        ["belongs to varied_exponential, not linear"],
    ),
    (
        pacing("varied_exponential", increases_at=[0.5, 0.5]),
        "training.pacing.increases_at",
        ["strictly increasing"],
    ),
    (
        pacing("varied_exponential", increases_at=[0.5, 0.2]),
        "training.pacing.increases_at",
        ["strictly increasing"],
    ),
]

REGIMES: list[Row] = [
    (
        {"training.regime": "layer_wise", "training.loss": "exit_distillation"},
        "training.loss",
        ["layer_wise trains the last exit last"],
    ),
    (
        {"training.regime": "layer_wise", "training.loss": "byot"},
        "training.loss",
        ["layer_wise trains the last exit last"],
    ),
    (
        {"training.regime": "classifier_wise", "training.gradient_equilibrium": True},
        "training.gradient_equilibrium",
        ["classifier_wise trains no exits jointly"],
    ),
    (
        {"training.regime": "layer_wise", "training.gradient_equilibrium": True},
        "training.gradient_equilibrium",
        ["layer_wise trains no exits jointly"],
    ),
    (
        {"training.regime": "mixed", "training.steps": 1, "training.evaluations": 1},
        "training.steps",
        ["mixed", "two phases"],
    ),
    (
        {"training.regime": "layer_wise", "training.steps": 1, "training.evaluations": 1},
        "training.steps",
        ["layer_wise", "2 exits"],
    ),
]


@pytest.mark.parametrize(("changes", "key", "fragments"), named([*SCORING, *PACING, *REGIMES]))
def test_training_keys_that_do_not_go_together(
    changes: Change, key: str, fragments: list[str], refused: Callable[..., str]
) -> None:
    refused(changes, key, *fragments)


def test_transfer_without_either_key_is_told_of_both(
    scenario: Callable[..., Path], offramp: Callable[..., Any]
) -> None:
    ran = offramp("check", scenario(scoring("transfer")))
    assert ran.status == 2
    for key in ("backbone", "weights"):
        assert f": training.scoring.{key}: transfer needs this key" in ran.err


GO_TOGETHER: list[Change] = [
    {**scoring("final_exit"), "training.regime": "classifier_wise"},
    {**scoring("self_taught", per_exit=True), "training.regime": "classifier_wise"},
    {**scoring("early_checkpoint", per_exit=True), "training.regime": "layer_wise"},
    pacing("varied_exponential", increases_at=[0.2, 0.5]),
    {"training.regime": "mixed", "training.gradient_equilibrium": True},
    {"training.regime": "classifier_wise", "training.loss": "byot"},
]


@pytest.mark.parametrize("changes", GO_TOGETHER, ids=str)
def test_training_keys_that_go_together(changes: Change, scenario: Callable[..., Path]) -> None:
    checked(load_scenario(str(scenario(changes))))


@pytest.mark.usefixtures("untrained")
@pytest.mark.parametrize("regime", ["end_to_end", "classifier_wise"])
def test_the_network_that_ranks_by_transfer_is_built_before_anything_is_trained(
    regime: str, scenario: Callable[..., Path], offramp: Callable[..., Any], tmp_path: Path
) -> None:
    torch.save({"conv1.weight": torch.zeros(3)}, tmp_path / "mine.pt")
    changes = scoring("transfer", backbone="resnet20", weights="mine.pt")
    path = scenario({**changes, "training.regime": regime, "training.seeds": 1})
    ran = offramp("train", path, "--store", tmp_path / "own")
    assert (ran.status, ran.out) == (2, "")
    assert str(tmp_path / "mine.pt") in ran.err
    assert "resnet20" in ran.err
    assert not (tmp_path / "own").exists()


@pytest.mark.usefixtures("untrained")
@pytest.mark.parametrize("command", ["train", "run"])
def test_a_device_that_is_not_there_is_told_before_anything_is_trained(
    command: str,
    scenario: Callable[..., Path],
    offramp: Callable[..., Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    path = scenario({"training.device": "cuda"})
    ran = offramp(command, path, "--store", tmp_path / "own")
    assert (ran.status, ran.out) == (2, "")
    assert "training.device is cuda" in ran.err
    assert "no CUDA device" in ran.err
    assert list(tmp_path.iterdir()) == [path]
