"""MSDNet: the paper's scales, exits and sizes."""

from itertools import accumulate

import pytest
import torch
from torch import fx, nn
from torch.nn.modules.module import register_module_forward_hook
from torch.utils.flop_counter import FlopCounterMode

from models.networks.architecture import MSDNET_LAYERS, default_exits
from models.networks.msdnet import MSDNETS, MSDNet, msdnet_classifier
from models.networks.tracing import trace

NAMES = sorted(MSDNETS)

#: Millions of operations up to each of the seven classifiers on CIFAR-100 as published, counted
#: as in Li et al. (2019), github.com/kalviny/IMTA: a multiply-accumulate is one, a ReLU is one for
#: each value, and the classifiers passed on the way are included.
PUBLISHED = (6.86, 14.35, 27.29, 48.45, 76.43, 108.90, 137.30)


def build(name, classes=10, channels=3, seed=0):
    torch.manual_seed(seed)
    return MSDNETS[name](classes, channels)


def noise(count, channels, size):
    return torch.randn(count, channels, size, size, generator=torch.Generator().manual_seed(1))


def features_after_blocks(network, images):
    """The feature maps of every scale after each block."""
    made, features = [], images
    with torch.no_grad():
        for block in network.blocks:
            features = block(features)
            made.append(features)
    return made


def parameters(module):
    return sum(parameter.numel() for parameter in module.parameters())


def convolutions(module):
    return [part for part in module.modules() if isinstance(part, nn.Conv2d)]


# --- what it computes ----------------------------------------------------------------------------


@pytest.mark.parametrize(("channels", "size"), [(3, 32), (1, 28), (1, 8)])
@pytest.mark.parametrize("name", NAMES)
def test_images_of_any_small_size_become_logits(name, channels, size):
    logits = build(name, 7, channels).eval()(noise(2, channels, size))
    assert logits.shape == (2, 7)
    assert torch.isfinite(logits).all()
    assert not torch.equal(logits[0], logits[1])


@pytest.mark.parametrize("name", NAMES)
def test_training_reaches_every_parameter(name):
    network = build(name, channels=1).train()
    nn.functional.cross_entropy(network(noise(4, 1, 8)), torch.arange(4)).backward()
    assert [key for key, one in network.named_parameters() if one.grad is None] == []


@pytest.mark.parametrize("name", NAMES)
def test_a_trace_says_the_same_and_blocks_end_with_the_coarsest_scale(name):
    network = build(name).eval()
    images = noise(2, 3, 32)
    traced = trace(network)
    values = {}

    class Recorder(fx.Interpreter):
        def run_node(self, n):
            values[n.name] = super().run_node(n)
            return values[n.name]

    with torch.no_grad():
        logits = Recorder(fx.GraphModule(network, traced.graph)).run(images)
        assert torch.equal(logits, network(images))
        for block, features in enumerate(features_after_blocks(network, images)):
            at_the_exit = values[traced.last_node(f"blocks.{block}").name]
            assert torch.equal(at_the_exit, features[-1])
            # The coarsest scale is what the paper's classifiers see.
            assert at_the_exit.shape[2:] == (8, 8)


def test_a_layer_makes_half_of_a_scale_from_the_next_finer():
    network = build("msdnet11").eval()
    first, layer = network.blocks[0][0], network.blocks[0][1]
    with torch.no_grad():
        fine, middle, coarse = first(noise(1, 3, 32))
        changed = layer([fine, middle + 1, coarse])
        plain = layer([fine, middle, coarse])
    # 16 channels came in at the finest scale, 32 and 64 at the others; 6, 12 and 24 are new.
    assert [one.shape[1] for one in plain] == [22, 44, 88]
    assert torch.equal(plain[0], changed[0])
    assert torch.equal(plain[1][:, 32:38], changed[1][:, 32:38])
    assert not torch.equal(plain[1][:, 38:], changed[1][:, 38:])
    assert not torch.equal(plain[2][:, 64:76], changed[2][:, 64:76])
    assert torch.equal(plain[2][:, 76:], changed[2][:, 76:])
    assert torch.equal(plain[2][:, :64], coarse)


def test_fine_scales_are_given_up_along_the_depth():
    """Section 4: of 24 layers, 8 at three scales, 8 at two, 8 at one, fewer channels each time."""
    shapes = [
        [tuple(one.shape[1:]) for one in features]
        for features in features_after_blocks(build("msdnet11").eval(), noise(1, 3, 32))
    ]
    assert shapes[0] == [(40, 32, 32), (80, 16, 16), (160, 8, 8)]
    assert shapes[2] == [(64, 32, 32), (128, 16, 16), (256, 8, 8)]
    # (64 + 6) / 2 = 35 and (77 + 6) / 2 = 41, times the growth factors; 6 more in the next layer.
    assert shapes[3] == [(82, 16, 16), (164, 8, 8)]
    assert shapes[6] == [(2 * 77, 16, 16), (4 * 77, 8, 8)]
    assert shapes[7] == [(4 * 47, 8, 8)]
    assert shapes[10] == [(4 * 83, 8, 8)]


# --- exits and classifiers -----------------------------------------------------------------------


def test_exits_follow_every_block_but_the_last():
    assert default_exits("msdnet5") == ("blocks.0", "blocks.1", "blocks.2", "blocks.3")
    for name in NAMES:
        blocks = [f"blocks.{block}" for block, _ in enumerate(build(name).blocks)]
        assert default_exits(name) == tuple(blocks[:-1])


def test_layers_are_those_of_the_paper():
    """Appendix A: the i-th of 11 anytime classifiers after layer 2 (i + 1), depth 24."""
    assert tuple(accumulate(MSDNET_LAYERS["msdnet11"])) == tuple(range(4, 25, 2))
    assert tuple(accumulate(MSDNET_LAYERS["msdnet7_budgeted"])) == (1, 3, 6, 10, 15, 21, 28)
    budgeted = [sum(MSDNET_LAYERS[f"msdnet{count}_budgeted"]) for count in range(4, 9)]
    assert budgeted == [10, 15, 21, 28, 36]


def test_the_classifier_ends_in_a_linear_layer_and_pools_2x2_on_cifar():
    classifier = msdnet_classifier(24, 10).eval()
    assert isinstance(classifier[-1], nn.Linear)
    x = noise(2, 24, 8)
    maps = classifier[1](classifier[0](x))
    assert maps.shape == (2, 128, 2, 2)
    pooled = nn.functional.avg_pool2d(maps, 2).flatten(1)
    assert torch.allclose(classifier(x), classifier[-1](pooled))
    assert classifier(noise(3, 24, 1)).shape == (3, 10)


# --- sizes ---------------------------------------------------------------------------------------


def test_parameters_are_those_of_the_reference():
    """With all ten classifiers, as the model zoo pytorchcv counts it on CIFAR-10."""
    network = build("msdnet10")
    early = [
        msdnet_classifier(features[-1].shape[1], 10)
        for features in features_after_blocks(network.eval(), noise(1, 3, 32))[:-1]
    ]
    assert parameters(network) + sum(map(parameters, early)) == 4_839_544


def test_operations_to_each_classifier_are_those_published():
    rectified = counted = 0
    operations = []

    def count_relu(module, given, made):
        nonlocal rectified
        rectified += made.numel() if isinstance(module, nn.ReLU) else 0

    with torch.device("meta"), torch.no_grad():
        network, features = MSDNETS["msdnet7_budgeted"](100, 3).eval(), torch.zeros(1, 3, 32, 32)
        for block in network.blocks:
            with (
                FlopCounterMode(display=False) as counter,
                register_module_forward_hook(count_relu),
            ):
                features = block(features)
                msdnet_classifier(features[-1].shape[1], 100).eval()(features[-1])
            # The counter takes a multiply-accumulate for two.
            counted += counter.get_total_flops() // 2
            operations.append((counted + rectified) / 1e6)
    assert operations == pytest.approx(PUBLISHED, rel=0.001)


# --- what it refuses -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("layers", "arguments", "message"),
    [
        ((), {}, "every block needs a layer"),
        ((4, 0), {}, "every block needs a layer"),
        ((4, 2), {"growth_factors": (1, 2)}, "one growth and one bottleneck factor"),
        ((4, 2), {"growth_rate": 3, "growth_factors": (1, 1, 2)}, "must be even"),
    ],
)
def test_impossible_shapes_are_refused(layers, arguments, message):
    with pytest.raises(ValueError, match=message):
        MSDNet(layers, 10, **arguments)


def test_other_shapes_are_possible():
    network = MSDNet(
        (1, 1, 1),
        10,
        1,
        growth_rate=5,
        growth_factors=(1, 2),
        bottleneck_factors=(4, 4),
        initial_channels=8,
        reduction=1.0,
    ).eval()
    features = features_after_blocks(network, noise(1, 1, 8))
    assert [[one.shape[1] for one in scales] for scales in features] == [[13, 26], [18, 36], [46]]
    assert network(noise(2, 1, 8)).shape == (2, 10)
    # A bottleneck of 4 * 5 channels would be wider than the 8 that come in.
    widths = [part.out_channels for part in convolutions(network.blocks[0][1])[:2]]
    assert widths == [8, 5]


def test_weights_start_as_in_the_authors_code():
    for part in convolutions(build("msdnet5")):
        if part.weight.numel() > 2000:
            fan_out = part.out_channels * part.kernel_size[0] ** 2
            assert part.weight.std().item() == pytest.approx((2 / fan_out) ** 0.5, rel=0.1)
