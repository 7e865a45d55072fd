"""Losses and shares worked by hand, and the small losses that float32 cannot hold."""

import math

import pytest
import torch

from tasks.training.objective import cross_entropy, losses, margins, performance, squared_error


def test_the_loss_of_equal_logits_is_the_logarithm_of_their_number():
    assert cross_entropy(torch.zeros(2, 201), torch.tensor([0, 7])).tolist() == pytest.approx(
        [math.log(201)] * 2, rel=1e-15
    )


def test_margins_are_of_the_right_answer_over_the_runner_up() -> None:
    logits = torch.tensor([[3.0, 1.0, -2.0], [3.0, 1.0, -2.0]])
    assert margins(logits, torch.tensor([0, 2])).tolist() == [2.0, -5.0]


@pytest.mark.parametrize("loss", [1e-6, 1e-9, 1e-12])
def test_losses_down_to_1e_12_are_resolved(loss):
    logits = torch.tensor([[-math.log(math.expm1(loss)), 0.0]])  # log(1 + e^−z) = loss
    exact = math.log1p(math.exp(-float(logits[0, 0])))
    # float64 holds 1 + x to 1.1e-16, so a loss of 1e-12 to about 2e-4 of itself
    assert float(cross_entropy(logits, torch.tensor([0]))) == pytest.approx(exact, rel=1e-3)


def test_float32_would_have_called_such_a_loss_zero():
    logits, target = torch.tensor([[27.0, 0.0]]), torch.tensor([0])
    assert float(torch.nn.functional.cross_entropy(logits, target)) == 0
    assert float(cross_entropy(logits, target)) == pytest.approx(math.exp(-27), rel=1e-3)


def test_the_gradient_of_a_small_loss_does_not_vanish():
    logits = torch.tensor([[27.0, 0.0]], requires_grad=True)
    cross_entropy(logits, torch.tensor([0])).sum().backward()
    assert logits.grad is not None
    assert logits.grad[0].tolist() == pytest.approx([-math.exp(-27), math.exp(-27)], rel=1e-3)


def test_value_and_gradient_are_those_of_torchs_own_cross_entropy():
    generator = torch.Generator().manual_seed(0)
    logits = (30 * torch.randn(40, 7, dtype=torch.float64, generator=generator)).requires_grad_()
    targets, weights = torch.arange(40) % 7, torch.rand(40, dtype=torch.float64, generator=generator)
    ours = cross_entropy(logits, targets)
    theirs = torch.nn.functional.cross_entropy(logits, targets, reduction="none")
    torch.testing.assert_close(ours, theirs, rtol=1e-13, atol=1e-15)
    gradients = [torch.autograd.grad((loss * weights).sum(), logits)[0] for loss in (ours, theirs)]
    torch.testing.assert_close(*gradients, rtol=1e-12, atol=1e-15)


def test_answers_far_below_the_largest_have_their_loss_and_no_exponential_too_small_for_a_normal_number():
    targets = torch.arange(2_000) % 50
    near = torch.randn(2_000, 50, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    far = torch.where(torch.arange(50) == 3, near, near - 1_500).requires_grad_()
    loss = cross_entropy(far, targets)
    assert torch.equal(loss, far[:, 3] - far.gather(1, targets[:, None])[:, 0])
    (gradient,) = torch.autograd.grad(loss.sum(), far)
    expected = (
        torch.zeros_like(far)
        .index_fill_(1, torch.tensor(3), 1.0)
        .scatter_add_(1, targets[:, None], -torch.ones_like(targets[:, None], dtype=far.dtype))
    )
    torch.testing.assert_close(gradient, expected, rtol=0, atol=1e-300)
    # processors take many times as long over numbers below the least normal one
    assert gradient[gradient != 0].abs().min() >= torch.finfo(torch.float64).tiny


def test_the_loss_is_the_same_whatever_axes_stand_before():
    logits = torch.randn(3, 4, 5, generator=torch.Generator().manual_seed(0))
    targets = torch.arange(12).view(3, 4) % 5
    stacked = cross_entropy(logits, targets)
    assert stacked.dtype == torch.float64
    assert all(stacked[i].equal(cross_entropy(logits[i], targets[i])) for i in range(3))


def test_performance_is_mean_loss_accuracy_and_the_share_of_each_rule():
    logits = torch.tensor([[9.0, 0, 0], [9, 0, 0], [0, 9, 0], [0, 0, 9]])
    measured = performance(
        logits,
        torch.tensor([0, 1, 1, 1]),
        {"first": torch.tensor([0, 0, 0, 0]), "last": torch.tensor([2, 2, 2, 2])},
        "test",
    )
    right, wrong = math.log1p(2 * math.exp(-9)), 9 + math.log1p(2 * math.exp(-9))
    assert measured == pytest.approx(
        {"test_loss": (right + wrong) / 2, "test_accuracy": 0.5, "test_first": 0.5, "test_last": 0.25}
    )


def test_squared_error_worked_by_hand_is_the_mean_over_outputs():
    outputs, targets = torch.tensor([[1.0, 5.0], [0.0, 0.0]]), torch.tensor([[4.0, 1.0], [0.0, 0.5]])
    assert squared_error(outputs, targets).tolist() == [(9 + 16) / 2, 0.125]


def test_value_and_gradient_of_squared_error_are_those_of_torchs_own():
    generator = torch.Generator().manual_seed(0)
    outputs = torch.randn(40, 3, dtype=torch.float64, generator=generator).requires_grad_()
    targets = torch.randn(40, 3, generator=generator)
    ours = squared_error(outputs, targets).mean()
    theirs = torch.nn.functional.mse_loss(outputs, targets.double())
    torch.testing.assert_close(ours, theirs, rtol=1e-14, atol=0)
    gradients = [torch.autograd.grad(loss, outputs)[0] for loss in (ours, theirs)]
    torch.testing.assert_close(*gradients, rtol=1e-13, atol=0)


def test_performance_on_numbers_is_the_squared_error_to_targets_and_to_each_rule_and_no_accuracy():
    outputs = torch.tensor([[1.0], [3.0]])
    measured = performance(outputs, torch.tensor([[1.0], [1.0]]), {"three": torch.full((2, 1), 3.0)}, "test")
    assert measured == {"test_loss": 2.0, "test_three": 2.0}


def test_an_empty_set_has_no_loss_and_no_accuracy():
    measured = performance(torch.zeros(0, 5), torch.zeros(0, dtype=torch.int64), {}, "test")
    assert set(measured) == {"test_loss", "test_accuracy"}
    assert all(math.isnan(value) for value in measured.values())


def test_stablemax_probabilities_are_its_terms_over_their_sum():
    logits = torch.tensor([[2.0, 0.0, -3.0]])
    terms = torch.tensor([3.0, 1.0, 0.25], dtype=torch.float64)
    expected = -(terms / terms.sum()).log()
    for answer in range(3):
        found = losses(logits, torch.tensor([answer]), "stablemax")
        assert float(found) == pytest.approx(float(expected[answer]), rel=1e-12)


def test_stablemax_has_a_slope_at_zero():
    logits = torch.zeros(1, 4, requires_grad=True)
    losses(logits, torch.tensor([0]), "stablemax").sum().backward()
    assert logits.grad is not None
    assert logits.grad[0].tolist() == pytest.approx([0.25 - 1, 0.25, 0.25, 0.25])  # s(0) = s'(0) = 1, as of exp


def test_stablemax_in_float32_still_learns_where_softmax_has_collapsed():
    logits = torch.tensor([[200.0, 0.0]], requires_grad=True)
    for objective, moves in (("cross_entropy", False), ("stablemax", True)):
        loss = losses(logits, torch.tensor([0]), objective, "float32")
        (slope,) = torch.autograd.grad(loss.sum(), logits)
        assert bool(slope.any()) == moves
        assert bool(loss.detach() > 0) == moves


def test_squared_error_to_one_hot_targets_is_the_mean_over_answers():
    found = losses(torch.tensor([[0.5, 2.0]]), torch.tensor([1]), "squared_error")
    assert float(found) == pytest.approx((0.25 + 1) / 2)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("objective", ["cross_entropy", "stablemax", "squared_error"])
def test_one_logit_stands_for_two_of_which_the_first_is_zero(objective, dtype):
    logit, answers = torch.tensor([[1.5], [-0.5], [2.0]]), torch.tensor([1, 0, 0])
    both = torch.cat([torch.zeros(3, 1), logit], dim=1)
    torch.testing.assert_close(losses(logit, answers, objective, dtype), losses(both, answers, objective, dtype))


def test_in_float32_the_loss_is_torchs_own():
    logits = 10 * torch.randn(20, 5, generator=torch.Generator().manual_seed(0))
    answers = torch.arange(20) % 5
    expected = torch.nn.functional.cross_entropy(logits, answers, reduction="none")
    assert torch.equal(losses(logits, answers, dtype="float32"), expected)
