"""Activation functions against torch's own, and the order of their first non-zero derivative at 0."""

import pytest
import torch

from tasks.models.layers import ACTIVATIONS

X = torch.linspace(-6, 6, 1201, dtype=torch.float64)


@pytest.mark.parametrize(
    ("name", "module"),
    [
        ("relu", torch.nn.ReLU()),
        ("gelu", torch.nn.GELU()),
        ("tanh", torch.nn.Tanh()),
        ("sigmoid", torch.nn.Sigmoid()),
        ("softplus", torch.nn.Softplus()),
    ],
)
def test_values_and_derivatives_are_those_of_torchs_modules(name, module):
    x = X.clone().requires_grad_()
    both = [ACTIVATIONS[name](x), module(x)]
    torch.testing.assert_close(*both, rtol=1e-14, atol=0)
    slopes = [torch.autograd.grad(y.sum(), x, retain_graph=True)[0] for y in both]
    torch.testing.assert_close(*slopes, rtol=1e-13, atol=0)


@pytest.mark.parametrize("name", ["sigmoid", "softplus"])
@pytest.mark.parametrize("x", [-1e4, -100.0, 100.0, 1e4])
def test_far_from_zero_values_and_slopes_stay_finite(name, x):
    at = torch.tensor([x], requires_grad=True)
    y = ACTIVATIONS[name](at)
    step = float(x > 0)
    limit, slope = (step, 0.0) if name == "sigmoid" else (x * step, step)
    assert y.item() == pytest.approx(limit, abs=1e-6)
    assert torch.autograd.grad(y, at)[0].item() == pytest.approx(slope, abs=1e-6)


@pytest.mark.parametrize("power", [1, 2])
def test_powers_times_tanh_have_the_values_and_slopes_of_the_product_rule(power):
    x = X.clone().requires_grad_()
    y = ACTIVATIONS[{1: "x_tanh", 2: "x2_tanh"}[power]](x)
    torch.testing.assert_close(y, X**power * X.tanh(), rtol=1e-14, atol=0)
    slope = power * X ** (power - 1) * X.tanh() + X**power / X.cosh() ** 2
    torch.testing.assert_close(torch.autograd.grad(y.sum(), x)[0], slope, rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize(
    ("name", "order", "leading"),
    [("tanh", 1, 1), ("sigmoid", 1, 1 / 4), ("softplus", 1, 1 / 2), ("x_tanh", 2, 1), ("x2_tanh", 3, 1)],
)
def test_the_first_derivative_that_is_not_zero_at_zero_has_the_published_order(name, order, leading):
    f = ACTIVATIONS[name]
    x = torch.tensor([1e-3, -1e-3], dtype=torch.float64)
    grown = (f(x) - f(torch.zeros_like(x))) / x**order  # the next term is smaller by 1e-3 at least
    assert grown.tolist() == pytest.approx([leading] * 2, rel=1e-3)
