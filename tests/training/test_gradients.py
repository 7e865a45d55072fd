"""Gradient rules worked by hand, and what must hold of any: stacks, resume, and what is frozen."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from tasks.base import UserError
from tasks.families.modular import ModularArithmetic
from tasks.models.config import MLPConfig
from tasks.models.initialization import Initialization
from tasks.training import train
from tasks.training.config import TrainingConfig
from tasks.training.gradients import GradientRules, perpendicular
from tasks.training.optimizer import StackedAdamW, StackedParameters
from tasks.training.snapshots import checksum

TASK = ModularArithmetic(p=7, form="pair", train_fraction=0.7)
MODEL = MLPConfig(n_ctx=2, d_vocab=7, d_vocab_out=7, d_hidden=(8,), input="embedding", d_embed=6, bias=True)
RULES = {
    "l1": TrainingConfig(l1_penalty=0.01),
    "grokfast": TrainingConfig(grokfast=2.0, grokfast_alpha=0.9),
    "perpendicular": TrainingConfig(perpendicular=True),
    "frozen": TrainingConfig(frozen=("embed.W_E",)),
    "stablemax": TrainingConfig(objective="stablemax", loss_dtype="float32"),
    "squared error": TrainingConfig(objective="squared_error"),
    "float32 loss": TrainingConfig(loss_dtype="float32"),
    "all": TrainingConfig(l1_penalty=0.01, grokfast=2.0, perpendicular=True, frozen=("unembed.W_U",)),
}


def rules(config: TrainingConfig, values: dict[str, Tensor], l1_penalty: Tensor | None = None) -> GradientRules:
    params = StackedParameters(values)
    penalty = torch.full((params.n_models,), config.l1_penalty) if l1_penalty is None else l1_penalty
    return GradientRules(params, config, penalty)


def short(config: TrainingConfig, steps: int = 30) -> TrainingConfig:
    return replace(config, steps=steps, evaluate_every=10, learning_rate=1e-2, snapshots=(0,))


def test_the_l1_penalty_adds_its_coefficient_with_the_weights_sign_model_by_model():
    found = rules(TrainingConfig(), {"W_in": torch.tensor([[2.0, -3.0, 0.0]] * 2)}, torch.tensor([0.5, 0.0]))
    found.params.gradient("W_in").copy_(torch.tensor([[1.0, 1.0, 1.0]] * 2))
    found.apply(0)
    assert found.params.gradient("W_in").tolist() == [[1.5, 0.5, 1.0], [1.0, 1.0, 1.0]]


def test_the_l1_penalty_covers_what_decay_covers():
    values = {"W_in": torch.ones(1, 2), "b_in": torch.ones(1, 2)}
    found = rules(TrainingConfig(decayed="matrices"), values, torch.tensor([0.5]))
    found.apply(0)
    assert found.params.gradient("W_in").tolist() == [[0.5, 0.5]]
    assert found.params.gradient("b_in").tolist() == [[0.0, 0.0]]


def test_grokfast_adds_the_moving_average_that_begins_as_the_first_gradient():
    found = rules(TrainingConfig(grokfast=2.0, grokfast_alpha=0.75), {"W_in": torch.zeros(1, 1)})
    seen = []
    for step, gradient in enumerate([4.0, 8.0, 0.0]):
        found.params.gradient("W_in").fill_(gradient)
        found.apply(step)
        seen.append(float(found.params.gradient("W_in")))
    averages = [4.0, 0.75 * 4 + 0.25 * 8, 0.75 * 5]  # 4, 5, 3.75
    assert seen == [4 + 2 * averages[0], 8 + 2 * averages[1], 0 + 2 * averages[2]]


@given(st.integers(0, 2**31), st.integers(2, 40), st.floats(1e-3, 1e3))
def test_the_perpendicular_gradient_is_perpendicular_and_as_long_as_the_gradient(seed, n, scale):
    rng = np.random.default_rng(seed)
    w, g = torch.tensor(rng.standard_normal((n, 3))) * scale, torch.tensor(rng.standard_normal((n, 3)))
    across = perpendicular(w, g)
    lengths = torch.linalg.vector_norm(w) * torch.linalg.vector_norm(g)
    assert abs(float((w * across).sum() / lengths)) < 1e-9
    assert float(torch.linalg.vector_norm(across)) == pytest.approx(float(torch.linalg.vector_norm(g)), rel=1e-9)
    assert float((across * g).sum()) > 0  # it still descends


@pytest.mark.parametrize("w", [0.1, 0.7, -2.1])
def test_a_gradient_along_the_tensor_leaves_nothing_not_even_rounding(w):
    assert perpendicular(torch.tensor([w, 3 * w]), torch.tensor([0.3, 0.9])).tolist() == [0.0, 0.0]


def test_a_tensor_of_zeros_follows_its_whole_gradient():
    g = torch.tensor([3.0, 4.0])
    assert perpendicular(torch.zeros(2), g).tolist() == pytest.approx(g.tolist())


def test_perpendicular_is_taken_tensor_by_tensor():
    found = rules(TrainingConfig(perpendicular=True), {"W_in": torch.tensor([[1.0, 0.0]]), "b": torch.tensor([[2.0]])})
    found.params.gradient("W_in").copy_(torch.tensor([[3.0, 4.0]]))
    found.params.gradient("b").fill_(5.0)
    found.apply(0)
    assert found.params.gradient("W_in").tolist() == [[0.0, 5.0]]
    assert found.params.gradient("b").tolist() == [[0.0]]  # one number has no direction across itself


@pytest.mark.parametrize("name", RULES)
def test_a_member_of_a_stack_is_trained_as_if_alone(name, tmp_path):
    training = short(RULES[name])
    together = train(TASK, MODEL, Initialization(), training, seeds=(0, 1, 2))
    alone = train(TASK, MODEL, Initialization(), training, seeds=(1,))
    assert checksum(together[1].params()) == checksum(alone[0].params())
    assert together[1].metrics == alone[0].metrics


@pytest.mark.parametrize("name", RULES)
def test_every_rule_changes_what_is_learned(name):
    plain, ruled = (
        train(TASK, MODEL, Initialization(), short(config))[0].params() for config in (TrainingConfig(), RULES[name])
    )
    assert checksum(plain) != checksum(ruled)


@pytest.mark.parametrize("name", ["grokfast", "all"])
def test_an_interrupted_training_goes_on_with_its_average(name, tmp_path):
    class Interruption(Exception):
        pass

    def interrupt(step: int, _: list) -> None:
        if step == 20:
            raise Interruption

    settings = (TASK, MODEL, Initialization(), short(RULES[name]))
    whole = train(*settings, out=tmp_path / "whole")[0]
    with pytest.raises(Interruption):
        train(*settings, out=tmp_path / "cut", resume_every=0.0, on_evaluation=interrupt)
    assert (tmp_path / "cut" / "resume.safetensors").is_file()
    again = train(*settings, out=tmp_path / "cut")[0]
    assert checksum(again.params()) == checksum(whole.params())


def test_members_that_differ_in_their_penalty_train_in_one_stack():
    training = short(TrainingConfig())
    runs = train(TASK, MODEL, Initialization(), training, seeds=(0, 0), per_model={"l1_penalty": (0.0, 0.05)})
    alone = train(TASK, MODEL, Initialization(), replace(training, l1_penalty=0.05))[0]
    assert checksum(runs[1].params()) == checksum(alone.params())
    sizes = [sum(float(value.abs().sum()) for value in run.params().values()) for run in runs]
    assert sizes[1] < sizes[0]


@pytest.mark.parametrize("decayed", ["all", "matrices"])
def test_what_is_frozen_stays_and_the_rest_learns(decayed):
    training = short(TrainingConfig(frozen=("embed.W_E",), weight_decay=1.0, l1_penalty=0.1, decayed=decayed))
    run = train(TASK, MODEL, Initialization(), training)[0]
    first, last = run.params(0), run.params()
    assert torch.equal(first["embed.W_E"], last["embed.W_E"])
    assert all(not torch.equal(first[name], last[name]) for name in first if name != "embed.W_E")


def test_frozen_parameters_count_for_no_gradient_norm():
    clipped = {"frozen": ("embed.W_E",), "clip_norm": 1e-3, "weight_decay": 0.0}
    found = rules(TrainingConfig(**clipped), {"embed.W_E": torch.ones(1, 3), "unembed.W_U": torch.ones(1, 2)})
    for name in found.params.tensors:
        found.params.gradient(name).fill_(1.0)
    found.apply(0)
    StackedAdamW(found.params, found.config, torch.zeros(1)).step(torch.tensor([1e-3]), 0)  # clips in place
    assert found.params.gradient("embed.W_E").tolist() == [[0.0, 0.0, 0.0]]
    assert float(found.params.gradient("unembed.W_U").norm()) == pytest.approx(1e-3, rel=1e-2)


def test_a_parameter_that_is_not_there_cannot_be_frozen():
    with pytest.raises(UserError, match=r"expected frozen parameters among embed\.W_E.*got 'embed\.W'"):
        train(TASK, MODEL, Initialization(), short(TrainingConfig(frozen=("embed.W",))))


def test_circles_that_do_not_fit_are_refused_before_anything_is_written(tmp_path):
    with pytest.raises(UserError, match="expected an embedding of width 2"):
        train(TASK, MODEL, Initialization(circle=(1,)), short(TrainingConfig()), out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "wrong", [{"l1_penalty": -1.0}, {"grokfast": -0.1}, {"grokfast_alpha": 1.0}, {"objective": "hinge"}]
)
def test_settings_out_of_range_are_refused(wrong):
    with pytest.raises(UserError, match=f"expected {next(iter(wrong))}"):
        TrainingConfig(**wrong)


def test_metrics_report_cross_entropy_and_beside_it_what_is_minimised():
    plain = train(TASK, MODEL, Initialization(), short(TrainingConfig(), steps=10))[0].metrics[0]
    for objective in ("stablemax", "squared_error"):
        row = train(TASK, MODEL, Initialization(), short(TrainingConfig(objective=objective), steps=10))[0].metrics[0]
        assert row["train_loss"] == plain["train_loss"]  # before the first step the weights are the same
        assert row["test_objective"] > 0
        assert row["test_objective"] != row["test_loss"]
    assert "train_objective" not in plain
