"""Networks are traced and cut at any node: run part by part, they say what they say as a whole."""

import contextlib
import copy
from collections import Counter, OrderedDict

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tiny_networks import changed, examples, state_of
from torch import nn
from torch.nn import functional as F
from torchvision.ops import StochasticDepth, stochastic_depth

from models.errors import NetworkError
from models.networks.architecture import Architecture
from models.networks.backbones import build_backbone
from models.networks.segments import classifier_input, exit_cuts, split
from models.networks.tracing import trace

#: torchvision's families, and the size of the images that they are given here.
TORCHVISION = {
    "resnet18": 32,
    "densenet121": 32,
    "mobilenet_v3_small": 32,
    "efficientnet_b0": 32,
    "squeezenet1_1": 32,
    "shufflenet_v2_x0_5": 32,
    "regnet_y_400mf": 32,
    "convnext_tiny": 32,
    "vit_b_16": 32,
    "swin_t": 32,
    "googlenet": 32,
    "inception_v3": 80,
}

#: The project's own, on images of 8 x 8.
OWN = (
    "resnet8",
    "msdnet5",
    "msdnet4_budgeted",
    "densenet_bc_40_12",
    "cifar_mobilenet_v2",
    "cifar_mobilenet_v3_small",
    "cifar_vgg11_bn",
    "cifar_resnet18",
)


def noise(count, size, channels=3, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, channels, size, size, generator=generator)


def run_parts(segments, module, images):
    """What the last of ``segments`` returns, the state passed from one to the next."""
    state = (images,)
    for segment in segments:
        state = segment.run(module, *state)
    (result,) = state
    return result


def states_of(segments, module, images):
    """The state after each of ``segments``."""
    states = [(images,)]
    for segment in segments:
        states.append(segment.run(module, *states[-1]))
    return states[1:]


def random_cuts(traced, count, seed):
    """``count`` operations in the order of computation, anywhere but at the end."""
    nodes = [node for node in traced.names if node.op != "get_attr"][:-1]
    chosen = np.random.default_rng(seed).choice(len(nodes), min(count, len(nodes)), replace=False)
    return [nodes[index] for index in sorted(chosen)]


# --- whole networks ------------------------------------------------------------------------------


@pytest.fixture(scope="module", params=[*TORCHVISION, *OWN])
def network(request):
    """An untouched network whose batch-norm statistics have moved, and images for it."""
    size = TORCHVISION.get(request.param, 8)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        built = build_backbone(Architecture(request.param, (), "linear", 5, (3, size, size)))
        with torch.no_grad():
            built.train()(noise(4, size, seed=1) + 0.5)
            for parameter in built.parameters():
                # ViT's last layer says nothing before training.
                if not parameter.any():
                    parameter.normal_(std=0.1)
    return built, noise(2, size)


@pytest.mark.parametrize("seed", range(3))
def test_part_by_part_it_says_what_it_says_as_a_whole(network, seed):
    whole, images = network
    module = copy.deepcopy(whole)
    traced = trace(module)
    segments = split(traced, random_cuts(traced, 7, seed))
    with torch.no_grad():
        said = run_parts(segments, module.eval(), images)
        expected = whole.eval()(images)
    assert len(segments) == 8
    assert torch.equal(said, expected)
    assert not torch.equal(said[0], said[1])


def test_part_by_part_it_trains_as_it_does_as_a_whole(network):
    whole, images = copy.deepcopy(network[0]).train(), network[1]
    module = copy.deepcopy(whole)
    traced = trace(module)
    segments = split(traced, random_cuts(traced, 7, seed=4))
    with torch.no_grad():
        torch.manual_seed(11)  # of dropout and stochastic depth
        expected = whole(images)
        torch.manual_seed(11)
        said = run_parts(segments, module, images)
        torch.manual_seed(11)
        still = module(images)
    assert torch.equal(said, expected)
    assert torch.equal(still, expected), "the network itself is none the worse"
    assert all(part.training for part in module.modules())


@pytest.mark.parametrize("backbone", OWN)
def test_gradients_and_statistics_are_those_of_the_whole(backbone):
    whole = build_backbone(Architecture(backbone, (), "linear", 5, (3, 8, 8))).double()
    module = copy.deepcopy(whole)
    traced = trace(module)
    segments = split(traced, random_cuts(traced, 7, seed=5))
    for run in (whole, lambda images: run_parts(segments, module, images)):
        torch.manual_seed(11)
        run(noise(4, 8).double()).square().sum().backward()
    assert not changed(state_of(whole), state_of(module)), "of batch norm, too"
    for expected, found in zip(whole.parameters(), module.parameters(), strict=True):
        torch.testing.assert_close(found.grad, expected.grad)


def test_each_segment_owns_what_it_computes_with_and_all_together_own_the_network(network):
    module = copy.deepcopy(network[0])
    traced = trace(module)
    owned = [name for segment in split(traced, random_cuts(traced, 7, 5)) for name in segment.owns]
    parameters = {
        key for key, _ in module.named_parameters() if any(key.startswith(one) for one in owned)
    }
    assert parameters == {key for key, _ in module.named_parameters()}


# --- networks made up at random ------------------------------------------------------------------


class MadeUp(nn.Module):
    """Linear layers that each take the sum of two values before; the last value is the output."""

    def __init__(self, pairs):
        super().__init__()
        self.pairs = pairs
        self.layers = nn.ModuleList(nn.Linear(2, 2) for _ in pairs)

    def forward(self, x):
        values = [x]
        for layer, (first, second) in zip(self.layers, self.pairs, strict=True):
            values.append(layer(values[first] + values[second]))
        return values[-1]

    def needed(self, number):
        """Numbers of the layers that layer ``number`` needs, itself included."""
        if number == 0:
            return set()  # the input
        first, second = self.pairs[number - 1]
        return {number} | self.needed(first) | self.needed(second)


@st.composite
def made_up_networks(draw):
    """A network of up to seven layers, and the numbers of those after which it is cut."""
    size = draw(st.integers(1, 7))
    pairs = [draw(st.tuples(st.integers(0, n), st.integers(0, n))) for n in range(size)]
    cuts = draw(st.sets(st.integers(1, size - 1))) if size > 1 else set()
    return MadeUp(pairs), sorted(cuts)


@given(made_up_networks())
@examples(60)
def test_every_layer_is_computed_once_and_no_sooner_than_a_cut_needs_it(made):
    module, cuts = made
    x = noise(3, 2, 1)[:, 0]
    expected = module(x)
    traced = trace(module)
    segments = split(traced, [traced.last_node(f"layers.{cut - 1}") for cut in cuts])
    computed = []
    for number, layer in enumerate(module.layers, start=1):
        layer.register_forward_hook(lambda *_, number=number: computed.append(number))
    state, seen = (x,), set()
    for segment, cut in zip(segments, [*cuts, len(module.pairs)], strict=True):
        computed.clear()
        state = segment.run(module, *state)
        assert max(Counter(computed).values(), default=1) == 1
        assert set(computed) == module.needed(cut) - seen
        seen |= module.needed(cut)
    assert torch.equal(state[0], expected)


@given(made_up_networks())
@examples(60)
def test_a_state_holds_the_cuts_value_and_what_later_cuts_need_and_nothing_else(made):
    module, cuts = made
    ends = [*cuts, len(module.pairs)]
    x = noise(3, 2, 1)[:, 0]
    values = {0: x}
    for number, layer in enumerate(module.layers, start=1):
        layer.register_forward_hook(lambda *made, number=number: values.update({number: made[2]}))
    traced = trace(module)
    segments = split(traced, [traced.last_node(f"layers.{cut - 1}") for cut in cuts])
    seen = {0}
    used = set().union(*(module.needed(end) for end in ends))
    for cut, state in zip(cuts, states_of(segments, module, x), strict=False):
        seen |= module.needed(cut)
        read = {before for later in used - seen for before in module.pairs[later - 1]}
        expected = {id(values[number]) for number in (read & seen) | {cut}}
        assert state[0] is values[cut]
        # Sums of two values may travel in their place; here they are never computed ahead.
        assert {id(value) for value in state} == expected
        assert len(state) == len(expected)


def test_the_finest_scale_of_a_layer_waits_for_the_segment_that_needs_it():
    module = build_backbone(Architecture("msdnet5", (), "linear", 5, (3, 8, 8))).eval()
    traced = trace(module)
    segments = split(traced, exit_cuts(traced, ["blocks.0", "blocks.1"]))
    computed = []
    scales = module.blocks[0][-1].scales
    for number, scale in enumerate(scales):
        scale.transforms[0][1][0].register_forward_hook(
            lambda *_, number=number: computed.append(number)
        )
    with torch.no_grad():
        state = segments[0].run(module, noise(1, 8))
        assert computed == [2], "the exit sits on the coarsest of three"
        state = segments[1].run(module, *state)
        assert sorted(computed) == [0, 1, 2]
        segments[2].run(module, *state)
    assert sorted(computed) == [0, 1, 2]


# --- training and inference ----------------------------------------------------------------------


class Given(nn.Module):
    """A network that computes as it is told, with two convolutions and a linear layer to use."""

    def __init__(self, compute, **parts):
        super().__init__()
        self.first = nn.Conv2d(1, 4, 3, padding=1)
        self.second = nn.Conv2d(4, 4, 3, padding=1)
        self.fc = nn.Linear(4, 3)
        self.compute = compute
        for name, part in parts.items():
            self.add_module(name, part)

    def forward(self, x):
        return self.compute(self, x)


def around(middle, **parts):
    """A convolution, something in the middle, another convolution and a linear layer."""
    return Given(
        lambda self, x: self.fc(self.second(middle(self, self.first(x))).mean((2, 3))), **parts
    )


def traced_alone(compute, **parts):
    """A network, and the function that its trace is; both are in training mode."""
    module = Given(compute, **parts)
    (segment,) = split(trace(module), [])
    return module, lambda x: segment.run(module, x)[0]


DROPOUTS = {
    "by position": lambda self, x: F.dropout(x, 0.25, self.training),
    "by keyword": lambda self, x: F.dropout(input=x, training=self.training, p=0.25),
    "in place": lambda self, x: F.dropout(x, 0.25, self.training, True),
    "of channels": lambda self, x: F.dropout2d(x, 0.25, self.training),
    "a module": lambda self, x: self.drop(x),
}


@pytest.mark.parametrize("dropout", DROPOUTS.values(), ids=DROPOUTS)
def test_a_dropout_acts_in_training_and_not_in_inference(dropout):
    module, run = traced_alone(dropout, drop=nn.Dropout(0.25))
    x = torch.ones(8, 64, 8, 8)
    torch.manual_seed(3)
    first, second = run(x), run(x)
    assert set(first.unique().tolist()) == {0, torch.tensor(4 / 3).item()}
    assert (first == 0).float().mean().item() == pytest.approx(0.25, abs=0.08)
    assert not torch.equal(first, second), "drawn anew"
    torch.manual_seed(3)
    assert torch.equal(module(x.clone()), first)
    module.eval()
    assert torch.equal(run(x), torch.ones(8, 64, 8, 8))


def test_a_functional_dropout_drops_half_where_nothing_else_is_said():
    _, run = traced_alone(lambda self, x: F.dropout(x, training=self.training))
    assert set(run(torch.ones(8, 64)).unique().tolist()) == {0, 2}


def test_a_network_traced_in_inference_mode_drops_nothing():
    module = Given(lambda self, x: F.dropout(x, 0.5, self.training)).eval()
    (segment,) = split(trace(module), [])
    assert torch.equal(segment.run(module, torch.ones(8, 64))[0], torch.ones(8, 64))


def test_a_dropout_that_is_always_on_stays_on():
    module, run = traced_alone(lambda self, x: F.dropout(x, 0.5))
    for mode in (True, False):
        module.train(mode)
        assert set(run(torch.ones(8, 64)).unique().tolist()) == {0, 2}


def test_two_dropouts_are_two_and_hold_no_state():
    module, run = traced_alone(
        lambda self, x: F.dropout(F.dropout(x, 0.2, self.training), 0.6, self.training)
    )
    assert set(module.state_dict()) == set(Given(None).state_dict())
    # What both keep is 1 / (0.8 * 0.4).
    assert run(torch.ones(8, 64)).max().item() == pytest.approx(3.125)


def test_stochastic_depth_skips_rows_in_training_and_none_in_inference():
    module, run = traced_alone(
        lambda self, x: x + self.skip(torch.relu(x)), skip=StochasticDepth(0.5, "row")
    )
    x = torch.ones(64, 2, 3, 3)
    rows = run(x)
    assert set(rows.unique().tolist()) == {1, 3}, "passed by, or kept at twice its value"
    assert torch.equal(rows, rows[:, :1, :1, :1].expand_as(x))
    module.eval()
    assert torch.equal(run(x), 2 * x)


#: Behaviour of training that a trace in inference mode would lose.
ONLY_IN_TRAINING = {
    "dropout1d": lambda self, x: F.dropout1d(x[:, :, 0], 0.5, self.training),
    "dropout3d": lambda self, x: F.dropout3d(x[:, :, None], 0.5, self.training),
    "feature_alpha_dropout": lambda self, x: F.feature_alpha_dropout(x, 0.5, self.training),
    "attention": lambda self, x: F.scaled_dot_product_attention(
        x, x, x, dropout_p=0.5 if self.training else 0.0
    ),
    "rrelu": lambda self, x: F.rrelu(x, training=self.training),
    "stochastic_depth": lambda self, x: stochastic_depth(x, 0.5, "row", self.training),
    "batch_norm": lambda self, x: F.batch_norm(
        x, self.norm.running_mean, self.norm.running_var, training=self.training
    ),
    "branching on it": lambda self, x: x * 2 if self.training else x,
}


@pytest.mark.parametrize("compute", ONLY_IN_TRAINING.values(), ids=ONLY_IN_TRAINING)
def test_what_a_network_does_in_training_alone_is_not_lost_in_silence(compute):
    """It acts in training, or the network is refused; else it would train as another network."""
    try:
        module, run = traced_alone(compute, norm=nn.BatchNorm2d(4))
    except NetworkError:
        return
    x = noise(64, 4, 4)
    torch.manual_seed(5)
    expected = module(x)
    torch.manual_seed(5)
    assert torch.equal(run(x), expected)


# --- values in place -----------------------------------------------------------------------------


def divide(self, x):
    x /= 2
    return x


def add(self, x):
    x += 1
    return x


def subtract(self, x):
    x -= 1
    return x


def multiply(self, x):
    x *= 2
    return x


IN_PLACE = {
    "a module": lambda self, x: self.relu(x),
    "relu by keyword": lambda self, x: F.relu(x, inplace=True),
    "relu by position": lambda self, x: F.relu(x, True),
    "hardswish": lambda self, x: F.hardswish(x, inplace=True),
    "+=": add,
    "-=": subtract,
    "*=": multiply,
    "/=": divide,
    "add_": lambda self, x: x.add_(1),
    "relu_": lambda self, x: x.relu_(),
    "torch.relu_": lambda self, x: torch.relu_(x),
    "F.relu_": lambda self, x: F.relu_(x),
    "a module, and what it changed": lambda self, x: self.relu(x) + x,
    "relu by keyword, and what it changed": lambda self, x: F.relu(x, inplace=True) + x,
    "relu by position, and what it changed": lambda self, x: F.relu(x, True) + x,
    "relu_, and what it changed": lambda self, x: x.relu_() + x,
}


@pytest.mark.parametrize("middle", IN_PLACE.values(), ids=IN_PLACE)
def test_no_operation_in_place_changes_what_an_exit_holds(middle):
    torch.manual_seed(0)
    module = around(middle, relu=nn.ReLU(inplace=True)).eval()
    images = noise(2, 6, 1)
    with torch.no_grad():
        expected = module(images)
        traced = trace(module)
        before, after = split(traced, exit_cuts(traced, ["first"]))
        state = before.run(module, images)
        kept = state[0].clone()
        assert torch.equal(after.run(module, *state)[0], expected)
    assert torch.equal(state[0], kept)


@pytest.mark.parametrize("middle", IN_PLACE.values(), ids=IN_PLACE)
def test_operations_in_place_do_not_stand_in_the_way_of_an_exits_gradient(middle):
    module = around(middle, relu=nn.ReLU(inplace=True))
    traced = trace(module)
    before, after = split(traced, exit_cuts(traced, ["first"]))
    state = before.run(module, noise(2, 6, 1))
    at_exit = state[0].square().sum()
    (at_exit + after.run(module, *state)[0].sum()).backward()
    assert module.first.weight.grad.any()


def test_the_images_are_left_as_they_were():
    _, run = traced_alone(lambda self, x: F.relu(x, inplace=True))
    images = noise(2, 6, 1)
    kept = images.clone()
    assert torch.equal(run(images), kept.clamp(min=0))
    assert torch.equal(images, kept)


# --- names ---------------------------------------------------------------------------------------


def cuts_of(backbone, names, size=8):
    module = build_backbone(Architecture(backbone, (), "linear", 5, (3, size, size)))
    traced = trace(module)
    return [traced.names[node] for node in exit_cuts(traced, names)]


@pytest.mark.parametrize(
    ("backbone", "name", "operation"),
    [
        ("resnet8", "relu", "relu"),
        ("resnet8", "conv1", "conv1"),
        ("resnet8", "layer1", "layer1.0.relu_1"),
        ("resnet8", "layer2.0", "layer2.0.relu_1"),
        ("resnet8", "layer2.0.conv1", "layer2.0.conv1"),
        ("densenet_bc_40_12", "features.denseblock1.denselayer2", None),
        ("cifar_vgg11_bn", "features.3", "features.3"),
    ],
)
def test_a_submodule_stands_for_the_last_operation_inside_it(backbone, name, operation):
    (found,) = cuts_of(backbone, [name])
    assert found == operation or (operation is None and found.startswith(name + "."))


def test_names_that_begin_alike_are_told_apart():
    traced = trace(nn.Sequential(*(nn.Linear(2, 2) for _ in range(12))))
    assert traced.names[traced.last_node("1")] == "1"
    assert traced.names[traced.last_node("11")] == "11"


def test_a_layer_whose_own_name_ends_in_a_number_is_found_by_that_name():
    layers = {f"layer_{number}": nn.Linear(2, 2) for number in (1, 2, 3)}
    traced = trace(nn.Sequential(OrderedDict(layers)))
    assert [traced.last_node(name).target for name in layers] == list(layers)


def test_a_layer_that_is_used_twice_is_two_operations():
    traced = trace(around(lambda self, x: self.second(x)))
    assert list(traced.names.values()) == ["first", "second", "second_1", "mean", "fc"]


def test_places_are_all_operations_and_the_submodules_that_hold_them():
    module = build_backbone(Architecture("resnet8", (), "linear", 5, (3, 8, 8)))
    places = trace(module).places()
    assert {"conv1", "relu", "layer1", "layer1.0", "layer1.0.conv1", "linear"} <= set(places)
    assert len(places) == len(set(places))


@pytest.mark.parametrize(
    ("name", "nearest"),
    [
        ("layr2", "layer2"),
        ("layer2.0.covn1", "layer2.0.conv1"),
        ("stem", None),
        ("", None),
    ],
)
def test_a_node_that_is_not_there_is_refused_with_the_nearest_name(name, nearest):
    with pytest.raises(NetworkError) as caught:
        cuts_of("resnet8", [name])
    message = str(caught.value)
    assert message.startswith(f"CifarResNet has no node {name!r}")
    assert (f"did you mean {nearest!r}?" in message) == (nearest is not None)
    for submodule in ("conv1", "relu", "layer1", "layer3"):
        assert submodule in message, "places to attach an exit to"
    assert len(message) < 700


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["layer2", "layer1"], "'layer1' is computed before 'layer2'"),
        (["relu", "layer2", "layer1"], "'layer1' is computed before 'layer2'"),
        (["layer1", "layer1"], "'layer1' is computed with 'layer1'"),
        (["layer1.0", "layer1"], "'layer1' is computed with 'layer1.0'"),
    ],
    ids=str,
)
def test_exits_out_of_order_or_twice_in_one_place_are_refused(names, message):
    with pytest.raises(NetworkError, match="from the earliest to the last") as caught:
        cuts_of("resnet8", names)
    assert message in str(caught.value)


def test_a_second_use_never_takes_the_name_of_another_layer():
    def middle(self, x):
        return self.conv(self.conv_1(self.conv(x)))

    module = around(middle, **{name: nn.Conv2d(4, 4, 3, padding=1) for name in ("conv", "conv_1")})
    traced = trace(module)
    names = ["first", "conv", "conv_1", "conv_2", "second", "mean", "fc"]
    assert list(traced.names.values()) == names
    assert [traced.last_node(name).target for name in names[1:4]] == ["conv", "conv_1", "conv"]


# --- values that are fetched or made -------------------------------------------------------------


FETCHED = {
    "a part up to half of the channels": lambda self, x: x[:, : x.shape[1] // 2].repeat(1, 2, 1, 1),
    "a buffer": lambda self, x: x * self.scale,
    "a part of a buffer": lambda self, x: x + self.table[:, :, : x.shape[2], : x.shape[3]],
    "arithmetic of buffers": lambda self, x: x * (self.scale * 2 + 1).view(1, 4, 1, 1),
    "a tensor that is made": lambda self, x: x + torch.arange(6.0) * torch.tensor(0.1),
}


@pytest.mark.parametrize("middle", FETCHED.values(), ids=FETCHED)
def test_what_is_fetched_or_made_within_is_found_there_and_follows_weights_loaded_later(middle):
    module = around(middle)
    module.register_buffer("scale", torch.full((1, 4, 1, 1), 0.5))
    module.register_buffer("table", noise(1, 8, 4))
    traced = trace(module)
    segments = split(traced, exit_cuts(traced, ["first"]))
    with torch.no_grad():
        module.scale.fill_(3.0)
        module.table.mul_(2.0)
        images = noise(2, 6, 1)
        assert torch.equal(run_parts(segments, module, images), module(images))


# --- networks that cannot be traced --------------------------------------------------------------


@pytest.mark.parametrize(
    "middle",
    [
        lambda self, x: x if x.mean() > 0 else -x,
        lambda self, x: sum(row for row in x),
        lambda self, x: x[: int(x.max())],
    ],
    ids=["a branch", "a loop", "a number"],
)
def test_control_flow_that_depends_on_the_input_is_refused_with_a_way_out(middle):
    with pytest.raises(NetworkError) as caught:
        trace(around(middle))
    message = str(caught.value)
    assert message.startswith("torch.fx cannot trace Given: ")
    assert "torch.fx.wrap" in message


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize(
    "middle", [lambda self, x: x, lambda self, x: x if x.mean() > 0 else -x], ids=["", "failing"]
)
def test_tracing_leaves_the_mode_as_it_was(middle, training):
    module = around(middle, norm=nn.BatchNorm2d(4)).train(training)
    with contextlib.suppress(NetworkError):
        trace(module)
    assert {part.training for part in module.modules()} == {training}


@pytest.mark.parametrize(
    "outputs",
    [lambda x: (x, x), lambda x: {"out": x}, lambda x: None],
    ids=["two", "named", "none"],
)
def test_a_network_that_returns_no_single_tensor_is_refused(outputs):
    module = Given(lambda self, x: outputs(self.first(x)))
    with pytest.raises(NetworkError, match="Given must return one tensor of logits"):
        split(trace(module), [])


# --- the backbone's own classifier ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("backbone", "name"),
    [
        ("resnet8", "flatten"),
        ("cifar_vgg11_bn", "flatten"),
        ("densenet_bc_40_12", "flatten"),
        ("cifar_mobilenet_v2", "classifier.0"),
        ("msdnet5", "classifier.3"),
        ("squeezenet1_1", "classifier.0"),  # its last layer is a convolution
        ("vit_b_16", "getitem_5"),
    ],
)
def test_the_last_layer_with_weights_is_the_classifier(backbone, name):
    size = 32 if backbone in ("squeezenet1_1", "vit_b_16") else 8
    with torch.device("meta"):
        module = build_backbone(Architecture(backbone, (), "linear", 5, (3, size, size)))
    traced = trace(module)
    assert traced.names[classifier_input(traced)] == name


def test_a_layer_that_is_a_function_of_parameters_is_a_classifier_too():
    module = Given(
        lambda self, x: F.linear(self.first(x).mean((2, 3)), self.fc.weight, self.fc.bias)
    )
    traced = trace(module)
    assert traced.names[classifier_input(traced)] == "mean"


def test_no_classifier_is_cut_off_where_its_input_is_not_all_that_is_needed():
    module = Given(lambda self, x: self.fc(self.first(x).mean((2, 3))) + x.mean())
    assert classifier_input(trace(module)) is None
