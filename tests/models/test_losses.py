"""Losses, held against values worked out by hand for two samples and three classes."""

import math

import pytest
import torch
from torch.nn import functional as F

from models.training.losses import (
    LOSSES,
    BeYourOwnTeacher,
    ExitDistillation,
    WeightedCrossEntropy,
    build_loss,
    softened_divergence,
)

TARGETS = torch.tensor([0, 1])
WEIGHTS = (0.5, 2.0, 1.0)
WIDTHS = (2, 3, 4)


def log(*rows):
    """Logits whose softmax at temperature 1 is ``rows``, each divided by its sum."""
    return torch.tensor(rows, dtype=torch.float32).log()


def some_outputs(requires_grad=True, dtype=torch.float32):
    """Logits and features of three exits for two samples."""
    generator = torch.Generator().manual_seed(0)
    logits = [torch.randn(2, 3, generator=generator) for _ in range(3)]
    features = [torch.randn(2, width, generator=generator).to(dtype) for width in WIDTHS]
    for tensor in (*logits, *features):
        tensor.requires_grad_(requires_grad)
    return logits, features


def gradients(loss, logits, features):
    """Gradients of logits and of features, None where no loss reaches them."""
    loss(logits, features, TARGETS).backward()
    return [tensor.grad for tensor in logits], [tensor.grad for tensor in features]


def every_loss(exits=None):
    """One of each, with the weights above."""
    return [
        WeightedCrossEntropy(WEIGHTS, exits),
        ExitDistillation(WEIGHTS, exits),
        BeYourOwnTeacher(WEIGHTS, WIDTHS, exits),
    ]


def by_name(loss):
    return type(loss).__name__


# --- cross entropy -------------------------------------------------------------------------------


def test_cross_entropy_by_hand():
    # The early exit gives the true classes 1/2 and 1/5, the last exit gives both 8/10.
    early = log((2, 1, 1), (1, 2, 7))
    last = log((8, 1, 1), (1, 8, 1))
    loss = WeightedCrossEntropy((0.5, 3.0))
    expected = 0.5 * (math.log(2) + math.log(5)) / 2 + 3.0 * math.log(10 / 8)
    assert loss([early, last], [], TARGETS).item() == pytest.approx(expected, rel=1e-6)


def test_only_the_exits_that_train_count():
    logits, features = some_outputs(requires_grad=False)
    each = [F.cross_entropy(output, TARGETS).item() for output in logits]
    for exits in ((1, 2), (3,), (2,)):
        loss = WeightedCrossEntropy(WEIGHTS, exits)(logits, features, TARGETS)
        assert loss.item() == pytest.approx(
            sum(WEIGHTS[exit - 1] * each[exit - 1] for exit in exits)
        )


@pytest.mark.parametrize("loss", every_loss(), ids=by_name)
def test_an_exit_of_weight_zero_gets_no_gradient(loss):
    loss.weights = (0.0, 1.0, 1.0)
    of_logits, of_features = gradients(loss, *some_outputs())
    assert not of_logits[0].any()
    assert of_features[0] is None or not of_features[0].any()
    assert of_logits[1].any()


@pytest.mark.parametrize("loss", every_loss((2,)), ids=by_name)
def test_an_exit_that_does_not_train_gets_no_gradient(loss):
    of_logits, of_features = gradients(loss, *some_outputs())
    assert of_logits[0] is None
    assert of_features[0] is None
    assert of_logits[1].any()


# --- softened outputs ----------------------------------------------------------------------------


def test_divergence_by_hand():
    teacher, student = log((2, 1, 1), (1, 1, 1)), log((1, 1, 2), (1, 1, 1))
    # First sample: 1/2 ln(2) + 1/4 ln(1) + 1/4 ln(1/2) = 1/4 ln 2. Second: nothing to lose.
    assert softened_divergence(student, teacher, 1.0).item() == pytest.approx(math.log(2) / 8)


def test_a_temperature_of_two_takes_square_roots():
    teacher, student = log((16, 1, 1), (1, 9, 4)), log((4, 4, 1), (1, 1, 1))
    # Softened: (4, 1, 1)/6 against (2, 2, 1)/5, and (1, 3, 2)/6 against (1, 1, 1)/3.
    first = 4 / 6 * math.log(5 / 3) + 1 / 6 * math.log(5 / 12) + 1 / 6 * math.log(5 / 6)
    second = 1 / 6 * math.log(1 / 2) + 3 / 6 * math.log(3 / 2) + 2 / 6 * math.log(1)
    divergence = softened_divergence(student, teacher, 2.0)
    assert divergence.item() == pytest.approx((first + second) / 2, rel=1e-5)


# --- distillation from the last exit -------------------------------------------------------------

EARLY, TEACHER = log((4, 4, 1), (1, 1, 1)), log((16, 1, 1), (1, 9, 4))
EARLY_CE = (math.log(9 / 4) + math.log(3)) / 2
TEACHER_CE = (math.log(18 / 16) + math.log(14 / 9)) / 2


def test_distillation_by_hand():
    loss = ExitDistillation((0.5, 3.0))
    divergence = (
        16 / 18 * math.log(16 / 18 * 9 / 4)
        + 1 / 18 * math.log(1 / 18 * 9 / 4)
        + 1 / 18 * math.log(1 / 18 * 9)
        + 1 / 14 * math.log(1 / 14 * 3)
        + 9 / 14 * math.log(9 / 14 * 3)
        + 4 / 14 * math.log(4 / 14 * 3)
    ) / 2
    expected = 0.5 * (EARLY_CE + divergence) + 3.0 * TEACHER_CE
    assert loss([EARLY, TEACHER], [], TARGETS).item() == pytest.approx(expected, rel=1e-5)


def test_distillation_at_a_temperature_by_hand():
    loss = ExitDistillation((1.0, 1.0), alpha=0.75)
    loss.temperature = torch.tensor(2.0)
    first = 4 / 6 * math.log(5 / 3) + 1 / 6 * math.log(5 / 12) + 1 / 6 * math.log(5 / 6)
    second = 1 / 6 * math.log(1 / 2) + 3 / 6 * math.log(3 / 2)
    expected = EARLY_CE + 3 * 2**2 * (first + second) / 2 + TEACHER_CE
    assert loss([EARLY, TEACHER], [], TARGETS).item() == pytest.approx(expected, rel=1e-5)


def test_distillation_is_the_published_loss_up_to_its_scale():
    # (1 - alpha) CE of all exits + alpha T**2 soft cross entropy of the early ones: the gradients
    # are those of this loss times 1 - alpha.
    alpha, temperature = 0.3, 1.7
    logits, features = some_outputs()
    ours = ExitDistillation((1.0, 1.0, 1.0), alpha=alpha)
    ours.temperature = torch.tensor(temperature)
    found, _ = gradients(ours, logits, features)
    logits, _ = some_outputs()
    soft = F.softmax(logits[-1].detach() / temperature, dim=1)
    published = (1 - alpha) * sum(F.cross_entropy(output, TARGETS) for output in logits)
    for output in logits[:-1]:
        soft_loss = -(soft * F.log_softmax(output / temperature, dim=1)).sum(dim=1).mean()
        published = published + alpha * temperature**2 * soft_loss
    published.backward()
    for gradient, output in zip(found, logits, strict=True):
        torch.testing.assert_close((1 - alpha) * gradient, output.grad)


def annealed(teacher, batches, **settings):
    """Temperatures after each of ``batches`` batches with this teacher."""
    loss = ExitDistillation((1.0, 1.0), **settings)
    temperatures = []
    for _ in range(batches):
        loss([torch.zeros_like(teacher), teacher], [], TARGETS)
        temperatures.append(loss.temperature.item())
    return temperatures


def test_the_temperature_grows_until_the_softened_teacher_is_unsure_enough():
    # 16^(1/T) / (16^(1/T) + 2) is 1/2 at T = 4, which 1.05^n passes at n = 29.
    temperatures = annealed(log((16, 1, 1), (1, 16, 1)), 40)
    expected = [1.05 ** min(batch, 29) for batch in range(1, 41)]
    assert temperatures == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(
    ("rows", "grows"),
    [(((9, 1, 1), (4, 4, 3)), True), (((6, 3, 1), (1, 1, 1)), False)],
    ids=["0.59 on average", "0.47 on average"],
)
def test_it_is_the_mean_confidence_of_the_batch_that_counts(rows, grows):
    assert annealed(log(*rows), 1)[0] == pytest.approx(1.05 if grows else 1.0)


def test_growth_and_bound_can_be_chosen():
    assert annealed(log((6, 4, 2), (4, 4, 3)), 1, growth=2.0, confidence_bound=0.4) == [2.0]


def test_two_classes_cannot_drive_the_temperature_to_infinity():
    assert annealed(log((16, 1), (1, 16)), 3) == [1.0, 1.0, 1.0]


def test_a_batch_is_distilled_at_the_temperature_before_it():
    loss = ExitDistillation((1.0, 1.0))
    first = loss([EARLY, TEACHER], [], TARGETS)
    assert loss.temperature.item() == pytest.approx(1.05)
    at_one = EARLY_CE + softened_divergence(EARLY, TEACHER, 1.0).item() + TEACHER_CE
    assert first.item() == pytest.approx(at_one, rel=1e-6)
    assert loss([EARLY, TEACHER], [], TARGETS).item() != pytest.approx(at_one, rel=1e-3)


def test_no_annealing_outside_training():
    loss = ExitDistillation((1.0, 1.0)).eval()
    loss([EARLY, TEACHER], [], TARGETS)
    assert loss.temperature.item() == 1.0


def test_the_temperature_is_part_of_the_state():
    loss, resumed = ExitDistillation((1.0, 1.0)), ExitDistillation((1.0, 1.0))
    for _ in range(3):
        loss([EARLY, TEACHER], [], TARGETS)
    resumed.load_state_dict(loss.state_dict())
    assert resumed.temperature.item() == pytest.approx(1.05**3)


# --- be your own teacher -------------------------------------------------------------------------


def test_byot_by_hand():
    loss = BeYourOwnTeacher((0.5, 3.0), (2, 2), alpha=0.25, hint_weight=0.1, temperature=2.0)
    with torch.no_grad():  # the adapter doubles the feature and adds (0, 1)
        loss.adapters["1"].weight.copy_(2 * torch.eye(2))
        loss.adapters["1"].bias.copy_(torch.tensor([0.0, 1.0]))
    features = [torch.tensor([[1.0, 2.0], [0.0, 0.0]]), torch.tensor([[1.0, 1.0], [3.0, 1.0]])]
    first = 4 / 6 * math.log(5 / 3) + 1 / 6 * math.log(5 / 12) + 1 / 6 * math.log(5 / 6)
    second = 1 / 6 * math.log(1 / 2) + 3 / 6 * math.log(3 / 2)
    hint = ((2 - 1) ** 2 + (5 - 1) ** 2 + (0 - 3) ** 2 + (1 - 1) ** 2) / 2
    early = 0.75 * EARLY_CE + 0.25 * (first + second) / 2 + 0.1 * hint
    expected = 0.5 * early + 3.0 * TEACHER_CE
    found = loss([EARLY, TEACHER], features, TARGETS).item()
    assert found == pytest.approx(expected, rel=1e-5)


def test_every_early_exit_that_trains_has_an_adapter_to_the_last_width():
    loss = BeYourOwnTeacher(WEIGHTS, WIDTHS)
    shapes = {name: tuple(adapter.weight.shape) for name, adapter in loss.adapters.items()}
    assert shapes == {"1": (4, 2), "2": (4, 3)}
    assert set(BeYourOwnTeacher(WEIGHTS, WIDTHS, (2, 3)).adapters) == {"2"}
    assert not list(BeYourOwnTeacher(WEIGHTS, WIDTHS, (3,)).parameters())


def test_the_hint_trains_the_adapters_and_the_early_features():
    loss = BeYourOwnTeacher(WEIGHTS, WIDTHS)
    _, of_features = gradients(loss, *some_outputs())
    assert all(parameter.grad.any() for parameter in loss.parameters())
    assert of_features[0].any()
    assert of_features[1].any()


def test_features_in_bf16_are_compared_in_fp32():
    logits, features = some_outputs(dtype=torch.bfloat16)
    loss = BeYourOwnTeacher(WEIGHTS, WIDTHS)
    outside = loss(logits, features, TARGETS)
    with torch.autocast("cpu", torch.bfloat16):
        inside = loss(logits, features, TARGETS)
    assert outside.dtype == inside.dtype == torch.float32
    assert inside.item() == pytest.approx(outside.item(), rel=1e-2)


# --- what the losses share -----------------------------------------------------------------------


@pytest.mark.parametrize("loss", every_loss(), ids=by_name)
def test_the_teacher_learns_from_its_labels_alone(loss):
    of_logits, of_features = gradients(loss, *some_outputs())
    logits, _ = some_outputs()
    (WEIGHTS[-1] * F.cross_entropy(logits[-1], TARGETS)).backward()
    torch.testing.assert_close(of_logits[-1], logits[-1].grad)
    assert of_features[-1] is None


@pytest.mark.parametrize("loss", every_loss((1, 2)), ids=by_name)
def test_a_frozen_teacher_gets_no_gradient(loss):
    of_logits, of_features = gradients(loss, *some_outputs())
    assert of_logits[-1] is None
    assert of_features[-1] is None
    assert of_logits[0].any()
    assert of_logits[1].any()


@pytest.mark.parametrize("exits", [None, (1, 2), (2,), (3,)], ids=str)
@pytest.mark.parametrize(
    "loss",
    [
        lambda exits: ExitDistillation(WEIGHTS, exits, alpha=0.0),
        lambda exits: BeYourOwnTeacher(WEIGHTS, WIDTHS, exits, alpha=0.0, hint_weight=0.0),
    ],
    ids=["exit_distillation", "byot"],
)
def test_without_a_teacher_it_is_weighted_cross_entropy(loss, exits):
    found, _ = gradients(loss(exits), *some_outputs())
    expected, _ = gradients(WeightedCrossEntropy(WEIGHTS, exits), *some_outputs())
    for one, other in zip(found, expected, strict=True):
        assert (one is None) == (other is None)
        if one is not None:
            torch.testing.assert_close(one, other)


@pytest.mark.parametrize("name", LOSSES)
def test_the_last_exit_alone_has_only_its_labels(name):
    logits, features = some_outputs(requires_grad=False)
    loss = build_loss(name, WEIGHTS, (3,), WIDTHS)(logits, features, TARGETS)
    assert loss.item() == pytest.approx(F.cross_entropy(logits[-1], TARGETS).item())


@pytest.mark.parametrize("name", LOSSES)
def test_a_loss_is_built_by_its_name(name):
    loss = build_loss(name, WEIGHTS, (1, 2), WIDTHS)
    assert type(loss) is LOSSES[name]
    assert loss.weights == WEIGHTS
    assert loss.exits == (1, 2)


def test_what_a_loss_trains_depends_on_the_seed_alone():
    def adapters(seed):
        parameters = build_loss("byot", WEIGHTS, (1, 2, 3), WIDTHS, seed).parameters()
        return torch.cat([parameter.detach().flatten() for parameter in parameters])

    torch.manual_seed(5)
    first = adapters(0)
    after = torch.rand(1)
    torch.manual_seed(5)
    assert torch.equal(torch.rand(1), after)
    assert torch.equal(adapters(0), first)
    assert not torch.equal(adapters(1), first)


@pytest.mark.parametrize("alpha", [-0.1, 1.1])
def test_an_impossible_share_of_distillation_is_refused(alpha):
    with pytest.raises(ValueError, match="alpha"):
        ExitDistillation(WEIGHTS, alpha=alpha)
    with pytest.raises(ValueError, match="alpha"):
        BeYourOwnTeacher(WEIGHTS, WIDTHS, alpha=alpha)


def test_a_loss_that_keeps_its_labels_full_weight_cannot_do_without_them():
    with pytest.raises(ValueError, match="alpha"):
        ExitDistillation(WEIGHTS, alpha=1.0)
