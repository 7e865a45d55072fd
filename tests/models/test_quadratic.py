"""Quadratic networks in closed form reach the published accuracies."""

import pytest
import torch
from torch import Tensor

from tasks.base import UserError
from tasks.families.modular import ModularArithmetic
from tasks.models.mlp import forward, shapes
from tasks.models.quadratic import ConstructedMLP, circle_network, gromov


def logits(built: ConstructedMLP, task: ModularArithmetic) -> Tensor:
    params = {name: W[None] for name, W in built.params.items()}
    return forward(params, task.all_inputs()[None], built.config)[0, :, 0]


def accuracy(built: ConstructedMLP, task: ModularArithmetic) -> float:
    return float((logits(built, task).argmax(1) == task.all_targets()).double().mean())


def test_a_random_phase_network_of_width_97_misses_three_answers_in_a_thousand():
    task = ModularArithmetic(p=97, form="pair")
    found = [accuracy(gromov(task, 97, seed=seed), task) for seed in range(5)]
    assert 0.99 < min(found) < max(found) < 1
    assert sum(found) / 5 == pytest.approx(0.997, abs=0.002)


@pytest.mark.parametrize("width", [150, 200])
def test_random_phase_networks_of_width_150_and_more_know_every_answer(width):
    task = ModularArithmetic(p=97, form="pair")
    assert [accuracy(gromov(task, width, seed=seed), task) for seed in range(3)] == [1.0, 1.0, 1.0]


def test_phases_that_do_not_add_up_know_nothing():
    task = ModularArithmetic(p=31, form="pair")
    config, params = gromov(task, 150)
    _, others = gromov(task, 150, seed=1)
    assert accuracy(ConstructedMLP(config, params), task) == 1
    assert accuracy(ConstructedMLP(config, params | {"unembed.W_U": others["unembed.W_U"]}), task) < 0.2


@pytest.mark.parametrize("build", [lambda task: gromov(task, 60), lambda task: circle_network(task, 5)])
def test_every_form_of_the_task_has_the_same_logits(build):
    tasks = [
        ModularArithmetic(p=13, form=form, diff_vocab=diff) for form in ("pair", "equation") for diff in (False, True)
    ]
    first, *others = (logits(build(task), task) for task in tasks)
    for other in others:
        torch.testing.assert_close(other, first, rtol=0, atol=1e-12)


@pytest.mark.parametrize("n", [3, 5, 6, 7, 8, 10, 16, 24])
def test_squares_double_the_angle_exactly(n):
    task = ModularArithmetic(p=67)
    a, b, c = (x.double() for x in (*task.pairs.T.unsqueeze(-1), torch.arange(67)))
    expected = n * torch.cos(torch.pi / 67 * (a - b)).square() * torch.cos(2 * torch.pi / 67 * (a + b - c))
    assert (logits(circle_network(task, n), task) - expected).abs().max() < 1e-13
    assert accuracy(circle_network(task, n), task) == 1


def test_four_squares_do_not():
    task = ModularArithmetic(p=67)
    assert accuracy(circle_network(task, 4), task) == pytest.approx(0.03, abs=5e-4)


@pytest.mark.parametrize(
    ("n", "published"),
    [(3, 0.023), (4, 0.03), (5, 1), (6, 0.194), (7, 1), (8, 0.64), (10, 1), (16, 1), (24, 1)],
)
def test_rectified_neurons_double_it_for_most_numbers_of_them(n, published):
    task = ModularArithmetic(p=67)
    assert accuracy(circle_network(task, n, "relu"), task) == pytest.approx(published, abs=2e-3 if published < 1 else 0)


@pytest.mark.parametrize(("p", "published"), [(68, 0.987), (66, 0.986)])
def test_an_even_modulus_loses_the_pairs_that_lie_opposite(p, published):
    task = ModularArithmetic(p=p)
    found = logits(circle_network(task, 5), task)
    a, b = task.pairs.T
    opposite = (a - b) % p == p // 2
    assert found[opposite].abs().max() < 1e-14
    assert torch.equal(found.argmax(1)[~opposite], task.all_targets()[~opposite])
    right = (found.argmax(1) == task.all_targets()).double().mean()
    assert float(right) == pytest.approx(published, abs=2.5e-3)  # among opposite pairs rounding draws the answer


@pytest.mark.parametrize("build", [gromov, circle_network])
def test_parameters_have_the_shapes_of_their_configuration_and_mistakes_are_refused(build):
    built = build(ModularArithmetic(p=7), 5)
    assert {name: tuple(W.shape) for name, W in built.params.items()} == shapes(built.config)
    with pytest.raises(UserError, match="expected addition mod p, got subtract"):
        build(ModularArithmetic(p=7, operation="subtract"), 5)
    with pytest.raises(UserError, match="expected at least one neuron, got 0"):
        build(ModularArithmetic(p=7), 0)
