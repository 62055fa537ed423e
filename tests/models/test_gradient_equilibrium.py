"""Gradient equilibrium: exact gradients of small chains, with it and without."""

import pytest
import torch
from torch import nn

from models.networks.gradient_equilibrium import equilibrium_factors, scale_gradient


def chain_gradients(exit_gradients, equilibrium):
    """Gradients of a chain's trunk units and branches.

    Every trunk unit is x -> unit * x with unit = 1, the input is 1, and the branch of exit k is
    x -> branch * x with branch = 1 and a loss of ``exit_gradients[k]`` times its output.
    """
    count = len(exit_gradients)
    units = [torch.ones((), dtype=torch.float64, requires_grad=True) for _ in range(count)]
    branches = [torch.ones((), dtype=torch.float64, requires_grad=True) for _ in range(count)]
    x, loss = torch.ones((), dtype=torch.float64), torch.zeros((), dtype=torch.float64)
    for exit, (unit, branch, gradient) in enumerate(
        zip(units, branches, exit_gradients, strict=True), start=1
    ):
        x = unit * x
        to_branch, to_trunk = equilibrium_factors(exit, count) if equilibrium else (1.0, 1.0)
        loss = loss + gradient * branch * scale_gradient(x, to_branch)
        x = scale_gradient(x, to_trunk)
    loss.backward()
    return [unit.grad.item() for unit in units], [branch.grad.item() for branch in branches]


# --- factors -------------------------------------------------------------------------------------


def test_factors_by_hand():
    assert equilibrium_factors(1, 3) == pytest.approx((1 / 3, 2 / 3))
    assert equilibrium_factors(2, 3) == pytest.approx((1 / 2, 1 / 2))
    assert equilibrium_factors(3, 3) == (1.0, 0.0)
    assert equilibrium_factors(1, 1) == (1.0, 0.0)


@pytest.mark.parametrize("exit", [0, 4])
def test_an_exit_that_is_not_there_is_refused(exit):
    with pytest.raises(ValueError, match=f"exit {exit} is not one of 1 to 3"):
        equilibrium_factors(exit, 3)


# --- a chain -------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [1, 2, 5, 12])
def test_equal_exits_pull_every_trunk_unit_equally(count):
    units, _ = chain_gradients([0.7] * count, equilibrium=True)
    assert units == pytest.approx([0.7] * count)


@pytest.mark.parametrize("count", [1, 2, 5, 12])
def test_without_it_the_first_trunk_unit_is_pulled_by_all_exits(count):
    units, _ = chain_gradients([0.7] * count, equilibrium=False)
    assert units == pytest.approx([0.7 * behind for behind in range(count, 0, -1)])


def test_a_trunk_unit_receives_the_mean_of_the_exits_behind_it():
    units, _ = chain_gradients([6.0, -2.0, 8.0, 4.0], equilibrium=True)
    assert units == pytest.approx([16 / 4, 10 / 3, 12 / 2, 4.0])
    units, _ = chain_gradients([6.0, -2.0, 8.0, 4.0], equilibrium=False)
    assert units == pytest.approx([16.0, 10.0, 12.0, 4.0])


def test_branches_keep_their_full_gradient():
    _, branches = chain_gradients([6.0, -2.0, 8.0, 4.0], equilibrium=True)
    assert branches == [6.0, -2.0, 8.0, 4.0]


# --- scaling -------------------------------------------------------------------------------------


def images():
    generator = torch.Generator().manual_seed(0)
    return torch.randn(2, 3, 4, 5, generator=generator)


def test_the_forward_pass_is_the_identity():
    x = images().requires_grad_()
    scaled = scale_gradient(x, 0.3)
    assert torch.equal(scaled, x)
    assert scaled.data_ptr() == x.data_ptr()


@pytest.mark.parametrize("factor", [0.0, 0.25, 1.0, 3.0])
def test_the_gradient_is_multiplied(factor):
    x = images().requires_grad_()
    scale_gradient(x, factor).square().sum().backward()
    torch.testing.assert_close(x.grad, factor * 2 * x.detach())


def test_a_tuple_is_scaled_part_by_part():
    parts = (images().requires_grad_(), torch.ones(3, requires_grad=True))
    scaled = scale_gradient(parts, 0.5)
    assert isinstance(scaled, tuple)
    (scaled[0].sum() + 4 * scaled[1].sum()).backward()
    assert torch.equal(parts[0].grad, torch.full_like(parts[0], 0.5))
    assert torch.equal(parts[1].grad, torch.full((3,), 2.0))


def test_channels_last_is_kept_in_both_directions():
    x = images().contiguous(memory_format=torch.channels_last).requires_grad_()
    scaled = scale_gradient(x, 0.5)
    scaled.square().sum().backward()
    assert scaled.is_contiguous(memory_format=torch.channels_last)
    assert x.grad.is_contiguous(memory_format=torch.channels_last)


def test_autocast_gives_the_scaled_gradients_of_a_plain_run():
    # 0.5 is a power of two: not a bit may differ.
    torch.manual_seed(0)
    first, second = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 2, 3, padding=1)
    found = []
    for factor in (1.0, 0.5):
        first.zero_grad()
        with torch.autocast("cpu", torch.bfloat16):
            activation = first(images())
            scaled = scale_gradient(activation, factor)
            assert scaled.dtype == activation.dtype == torch.bfloat16
            loss = second(scaled).float().square().mean()
        loss.backward()
        found.append(first.weight.grad.clone())
    assert found[0].any()
    assert torch.equal(0.5 * found[0], found[1])


def test_no_gradient_is_needed():
    x = images()
    assert torch.equal(scale_gradient(x, 0.5), x)
    assert not scale_gradient(x, 0.5).requires_grad
    with torch.inference_mode():
        assert torch.equal(scale_gradient(x, 0.5), x)


def test_a_scaled_activation_cannot_be_changed_in_place():
    # Both paths share its memory: the branch would change what the trunk sees.
    scaled = scale_gradient(images().requires_grad_() * 1.0, 0.5)
    with pytest.raises(RuntimeError, match="inplace"):
        nn.functional.relu(scaled, inplace=True)
