"""Muon: a second optimiser is one file, and keeps what the first one promises."""

from dataclasses import replace

import pytest
import torch

from tasks.base import UserError
from tasks.training.config import TrainingConfig
from tasks.training.memory import model_bytes
from tasks.training.muon import StackedMuon, in_a_layer, orthogonalized
from tasks.training.optimizer import StackedAdamW, StackedParameters
from tasks.training.snapshots import checksum
from tasks.training.trainer import train

SHAPES = {"embed.W_E": (7, 5), "blocks.0.mlp.W_in": (5, 12), "blocks.0.mlp.b_in": (12,), "blocks.0.mlp.W_out": (12, 5)}


def random_stack(seed: int = 0, n_models: int = 2) -> StackedParameters:
    draw = torch.Generator().manual_seed(seed)
    return StackedParameters({name: torch.randn(n_models, *shape, generator=draw) for name, shape in SHAPES.items()})


@pytest.mark.parametrize("shape", [(3, 6, 6), (2, 4, 5, 9), (1, 9, 5)])
def test_singular_values_come_near_one_and_singular_vectors_stay(shape):
    matrices = torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    S = torch.linalg.svdvals(orthogonalized(matrices))
    assert S.min() > 0.6
    assert S.max() < 1.25
    u, _, vh = torch.linalg.svd(matrices, full_matrices=False)
    kept = u.transpose(-2, -1) @ orthogonalized(matrices) @ vh.transpose(-2, -1)  # diagonal in the old vectors
    off_diagonal = kept - torch.diag_embed(kept.diagonal(dim1=-2, dim2=-1))
    assert off_diagonal.abs().max() < 1e-10


def test_a_gradient_of_zero_moves_nothing_but_by_decay():
    assert torch.equal(orthogonalized(torch.zeros(1, 3, 4)), torch.zeros(1, 3, 4))


def test_layers_move_as_under_torchs_muon_and_all_else_as_under_adamw():
    """torch's own orthogonalises in bfloat16, whose rounding is the difference."""
    muon, adamw = random_stack(), random_stack()
    theirs = {name: torch.nn.Parameter(muon.member(0)[name]) for name in SHAPES if in_a_layer(name)}
    config, decay, rate = TrainingConfig(optimizer="muon"), torch.tensor([0.1, 0.3]), torch.tensor([0.02, 0.01])
    ours, plain = StackedMuon(muon, config, decay), StackedAdamW(adamw, config, decay)
    options = {"lr": 0.02, "weight_decay": 0.1, "momentum": 0.95, "adjust_lr_fn": "match_rms_adamw"}
    reference = torch.optim.Muon(list(theirs.values()), **options)
    before = muon.member(0)
    for step in range(3):
        for stack in (muon, adamw):
            gradients = random_stack(seed=10 + step)
            stack.gradients.copy_(gradients.values.detach())
        for name, weights in theirs.items():
            weights.grad = random_stack(seed=10 + step).member(0)[name]
        ours.step(rate, step)
        plain.step(rate, step)
        reference.step()
    for name, weights in theirs.items():
        moved, expected = muon.member(0)[name] - before[name], weights.detach() - before[name]
        assert (moved - expected).norm() < 0.02 * expected.norm()
    for name in SHAPES.keys() - theirs.keys():
        assert torch.equal(muon.member(0)[name], adamw.member(0)[name])


def test_what_is_frozen_stays():
    stack = random_stack()
    stack.gradients.fill_(1.0)
    before = stack.member(0)
    config = TrainingConfig(optimizer="muon", frozen=("blocks.0.mlp.W_in", "embed.W_E"))
    StackedMuon(stack, config, torch.zeros(2)).step(torch.tensor([0.1, 0.1]), 0)
    moved = {name for name, value in stack.member(0).items() if not torch.equal(value, before[name])}
    assert moved == {"blocks.0.mlp.b_in", "blocks.0.mlp.W_out"}


def fit(p, out=None, **options):
    training = replace(p.training, optimizer="muon", steps=60, evaluate_every=20, learning_rate=3e-3)
    return train(p.task, p.model, p.init, training, out=out, **options)


@pytest.mark.slow
@pytest.mark.parametrize("problem", ["modular", "anchor"])
def test_a_member_of_a_stack_is_trained_to_the_bit_as_if_alone(problem, request):
    p = request.getfixturevalue(problem)
    together = fit(p, seeds=[3, 4, 5])
    alone = fit(p, seeds=[4])[0]
    assert checksum(together[1].params()) == checksum(alone.params())
    assert alone.metrics[-1]["train_loss"] < alone.metrics[0]["train_loss"]


@pytest.mark.slow
def test_killed_training_comes_back_to_the_same_bits(modular, tmp_path):
    class Kill(Exception):
        pass

    def kill(step, rows):
        if step == 40:
            raise Kill

    whole = fit(modular, tmp_path / "whole")[0]
    with pytest.raises(Kill):
        fit(modular, tmp_path / "cut", resume_every=0.0, on_evaluation=kill)
    assert (tmp_path / "cut" / "resume.safetensors").is_file()
    again = fit(modular, tmp_path / "cut")[0]
    assert checksum(again.params()) == checksum(whole.params())
    assert again.metrics == whole.metrics


def test_the_memory_model_asks_it_what_it_keeps(modular):
    adamw = model_bytes(modular.task, modular.model, modular.training)
    assert model_bytes(modular.task, modular.model, replace(modular.training, optimizer="muon")) > adamw


def test_an_unknown_optimizer_is_refused_with_those_that_there_are():
    with pytest.raises(UserError, match="expected optimizer among adamw, muon, got 'sgd'"):
        TrainingConfig(optimizer="sgd")  # type: ignore[arg-type]
