"""Exits go where their share of the FLOPs is spent, and nothing by-passes them."""

import numpy as np
import pytest
import torch
from tiny_networks import some_images
from torch import nn

from models.errors import NetworkError
from models.networks.architecture import Architecture
from models.networks.backbones import build_backbone
from models.networks.exit_places import Rehearsal, flop_counter, place_by_flops
from models.networks.segments import classifier_input, split
from models.networks.tracing import trace


class FourConvolutions(nn.Module):
    """Four equal convolutions, one after the other; three with a ReLU after."""

    def __init__(self):
        super().__init__()
        self.convs = nn.ModuleList(nn.Conv2d(4, 4, 3, padding=1) for _ in range(4))
        self.fc = nn.Linear(4, 5)

    def forward(self, x):
        for conv in self.convs[:3]:
            x = torch.relu(conv(x))
        return self.fc(self.convs[3](x).mean((2, 3)))


class Bypassed(nn.Module):
    """A network whose input is needed at its end."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.fc = nn.Linear(4, 5)

    def forward(self, x):
        return self.fc(self.conv(x).mean((2, 3))) + x.mean()


#: On 8 x 8: each convolution 2 * 9 * 4 * 4 * 64, the linear layer 2 * 4 * 5.
CONVOLUTION, LINEAR = 18_432, 40


def test_flops_of_each_operation_by_hand():
    traced = trace(FourConvolutions().eval())
    spent = {traced.names[node]: flops for node, flops in places_with_flops(traced, 8, 4).items()}
    assert spent == {
        "convs.0": CONVOLUTION,
        "relu": CONVOLUTION,
        "convs.1": 2 * CONVOLUTION,
        "relu_1": 2 * CONVOLUTION,
        "convs.2": 3 * CONVOLUTION,
        "relu_2": 3 * CONVOLUTION,
        "convs.3": 4 * CONVOLUTION,
        "mean": 4 * CONVOLUTION,
        "fc": 4 * CONVOLUTION + LINEAR,
    }


def places_with_flops(traced, size, channels=3):
    spent = Rehearsal(traced, some_images(1, (channels, size, size))).flops
    return {node: flops for node, flops in spent.items() if node in traced.names}


@pytest.mark.parametrize(
    ("shares", "places"),
    [
        ([0.25, 0.5, 0.75], ["relu", "relu_1", "relu_2"]),
        ([0.37, 0.63], ["relu", "relu_2"]),
        ([0.38], ["relu_1"]),
        ([0.001], ["relu"]),
        ([], []),
    ],
    ids=str,
)
def test_exits_go_to_the_places_whose_share_is_nearest(shares, places):
    assert place_by_flops(trace(FourConvolutions()), some_images(1, (4, 8, 8)), shares) == places


def test_shares_that_fall_on_one_place_are_refused_with_those_there_are():
    traced = trace(FourConvolutions())
    with pytest.raises(NetworkError) as caught:
        place_by_flops(traced, some_images(1, (4, 8, 8)), [0.24, 0.26])
    assert "no place of its own for an exit at 0.26 of the FLOPs" in str(caught.value)
    assert "FourConvolutions can be cut between its blocks at 0.250, 0.500, 0.750" in str(
        caught.value
    )


def test_descending_shares_are_refused():
    with pytest.raises(NetworkError, match=r"an exit at 0\.3 of the FLOPs"):
        place_by_flops(trace(FourConvolutions()), some_images(1, (4, 8, 8)), [0.6, 0.3])


def test_a_network_without_a_place_between_blocks_is_refused():
    with pytest.raises(NetworkError, match="can be cut between its blocks at none"):
        place_by_flops(trace(Bypassed()), some_images(1, (3, 8, 8)), [0.5])


def leads_past(node, start):
    """Whether the output can be reached from ``start`` without ``node``."""
    found, waiting = set(), [start]
    while waiting:
        one = waiting.pop()
        if one is not node and one not in found:
            found.add(one)
            waiting += one.users
    return any(one.op == "output" for one in found)


@pytest.mark.parametrize("backbone", ["resnet8", "densenet_bc_40_12", "cifar_mobilenet_v2"])
def test_no_place_is_passed_by_a_skip_connection_and_no_other_such_place_is_nearer(backbone):
    module = build_backbone(Architecture(backbone, (), "linear", 5, (3, 8, 8))).eval()
    traced, image = trace(module), some_images(1, (3, 8, 8))
    spent = Rehearsal(traced, image).flops
    total = max(spent.values())
    start = next(iter(traced.graph.nodes))
    free = [
        spent[node]
        for node in traced.names
        if 0 < spent[node] < spent[classifier_input(traced)] and not leads_past(node, start)
    ]
    assert 2 < len(set(free)) < len({spent[node] for node in traced.names})
    end = spent[classifier_input(traced)]
    for share in np.linspace(0.01, 0.99, 15):
        distances = [abs(one / total - share) for one in (*free, end)]
        if min(distances) == distances[-1]:
            with pytest.raises(NetworkError, match="no place of its own"):
                place_by_flops(traced, image, [share])
            continue
        (name,) = place_by_flops(traced, image, [share])
        place = traced.last_node(name)
        assert traced.names[place] == name
        assert not leads_past(place, start)
        assert len(split(traced, [place])[0].run(module, image)) == 1
        distance = abs(spent[place] / total - share)
        assert distance == min(abs(one / total - share) for one in free)


def test_counting_flops_leaves_the_fused_attention_as_it_was():
    before = torch.backends.mha.get_fastpath_enabled()
    for enabled in (True, False):
        torch.backends.mha.set_fastpath_enabled(enabled)
        with flop_counter():
            assert not torch.backends.mha.get_fastpath_enabled()
        assert torch.backends.mha.get_fastpath_enabled() == enabled
    torch.backends.mha.set_fastpath_enabled(before)
