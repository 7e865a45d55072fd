"""Regression through the one trainer: numbers in, numbers out, the same run folders and the same guarantees."""

from dataclasses import dataclass, replace
from typing import ClassVar

import pytest
import torch

from interp.subject import Subject
from tasks.base import Examples, UserError
from tasks.families.parity import SparseParity
from tasks.families.regression import SineRegression
from tasks.models.config import MLPConfig, TransformerConfig
from tasks.models.initialization import Initialization
from tasks.models.mlp import forward
from tasks.training.config import TrainingConfig
from tasks.training.memory import model_bytes
from tasks.training.run import Run
from tasks.training.snapshots import checksum
from tasks.training.trainer import train

TASK = SineRegression(dimension=2, n_train=40, n_test=30)
MODEL = MLPConfig(n_ctx=2, d_vocab_out=1, d_hidden=(12,), input="vector", constant_input=True, act_fn="tanh")
INIT = Initialization(gamma=0.0, gain=0.3)
PLAIN_ADAM = TrainingConfig(
    steps=30,
    learning_rate=1e-2,
    weight_decay=0.0,
    beta2=0.999,
    warmup_steps=0,
    dtype="float64",
    evaluate_every=10,
    snapshots=(0, 10),
)


class Killed(BaseException):
    """Stands for the signal within one process."""


def test_training_is_torchs_own_adam_on_torchs_own_mean_squared_error():
    run = train(TASK, MODEL, INIT, PLAIN_ADAM)[0]
    examples = TASK.train_set()
    W, w = (value.clone().requires_grad_() for value in run.params(0).values())
    inputs = torch.cat([examples.inputs, torch.ones(40, 1)], dim=1).double()
    adam = torch.optim.Adam([W, w], lr=1e-2)
    losses = []
    for _ in range(31):
        loss = torch.nn.functional.mse_loss((inputs @ W).tanh() @ w, examples.targets.double())
        losses.append(loss.item())
        adam.zero_grad()
        loss.backward()
        if len(losses) <= 30:
            adam.step()
    assert [row["train_loss"] for row in run.metrics] == pytest.approx(losses[::10], rel=1e-10)
    torch.testing.assert_close(run.params()["layers.0.W_in"], W.detach(), rtol=1e-9, atol=1e-12)


def test_initial_weights_have_the_standard_deviation_asked_for():
    wide = replace(MODEL, d_hidden=(20_000,))
    params = train(TASK, wide, Initialization(gamma=0.0, gain=0.005), replace(PLAIN_ADAM, steps=1))[0].params(0)
    for value in params.values():
        assert float(value.std()) == pytest.approx(0.005, rel=0.02)


def test_a_run_folder_gives_back_the_task_the_data_and_the_losses(tmp_path):
    train(TASK, MODEL, INIT, PLAIN_ADAM, out=tmp_path / "run")
    run = Run.load(tmp_path / "run")
    run.check_data()
    assert run.task == TASK
    assert run.config.model == MODEL
    last = run.metrics[-1]
    assert set(last) == {"step", "learning_rate", "train_loss", "test_loss", "final"}
    subject = Subject.load(tmp_path / "run")
    assert subject.performance == {name: last[name] for name in ("train_loss", "test_loss")}
    edited = (tmp_path / "run" / "config.json").read_text().replace('"amplitude": 3.5', '"amplitude": 3.0')
    (tmp_path / "run" / "config.json").write_text(edited)
    with pytest.raises(UserError, match="is not the one it was trained on"):
        Subject.load(tmp_path / "run")


@pytest.mark.parametrize("act_fn", ["tanh", "sigmoid", "softplus", "x_tanh", "x2_tanh"])
def test_a_member_of_a_stack_is_trained_to_the_bit_as_if_alone(act_fn):
    model, training = replace(MODEL, act_fn=act_fn), replace(PLAIN_ADAM, dtype="float32", batch_size=8)
    together = train(TASK, model, INIT, training, seeds=[0, 1, 2])[1]
    alone = train(TASK, model, INIT, training, seeds=[1])[0]
    assert checksum(together.params()) == checksum(alone.params())
    assert together.metrics == alone.metrics


def test_killed_training_comes_back_to_the_same_bits(tmp_path):
    def fit(folder, on_evaluation=None):
        return train(TASK, MODEL, INIT, PLAIN_ADAM, out=folder, on_evaluation=on_evaluation, resume_every=0.0)[0]

    def die(step, rows):
        if step == 20:
            raise Killed

    undisturbed = fit(tmp_path / "undisturbed")
    with pytest.raises(Killed):
        fit(tmp_path / "killed", die)
    assert not Run.load(tmp_path / "killed").finished
    assert (tmp_path / "killed" / "resume.safetensors").exists()
    killed = fit(tmp_path / "killed")
    assert killed.metrics == undisturbed.metrics
    assert checksum(killed.params()) == checksum(undisturbed.params())


def test_models_that_read_tokens_are_kept_from_vectors_and_the_other_way_round():
    bits = MLPConfig(n_ctx=2, d_vocab=2, d_vocab_out=2, d_hidden=(4,))
    with pytest.raises(UserError, match="expected a model that reads real vectors for this task"):
        train(TASK, bits, INIT, PLAIN_ADAM)
    parity = SparseParity(n_bits=4, k=2, n_train=10, n_test=10)
    with pytest.raises(UserError, match="expected a model with d_vocab of at least 2 for this task, got 0"):
        train(parity, replace(MODEL, n_ctx=4, d_vocab_out=2), INIT, PLAIN_ADAM)


def test_what_the_loss_of_a_regression_saves_is_counted():
    narrow, wide = (model_bytes(TASK, replace(MODEL, d_hidden=(width,)), PLAIN_ADAM) for width in (1_000, 2_000))
    assert 1.9 < wide / narrow < 2.1


def test_activations_of_a_regression_can_be_looked_at():
    run = train(TASK, MODEL, INIT, PLAIN_ADAM)[0]
    subject = Subject.load(run)
    inputs = TASK.train_set().inputs
    outputs, seen = subject.activations(inputs, ["layers.0.hook_pre"])
    W = run.params()["layers.0.W_in"]
    torch.testing.assert_close(seen["layers.0.hook_pre"], inputs.double() @ W[:2] + W[2])
    stacked = {name: value[None] for name, value in run.params().items()}
    assert torch.equal(outputs, forward(stacked, inputs[None], MODEL)[0, :, 0])


@dataclass(frozen=True, kw_only=True)
class LastVector(SineRegression):
    """The first coordinate of the last of three vectors."""

    family: ClassVar[str] = "last vector"
    dimension: int = 3

    @property
    def answer_position(self) -> int:
        return 2

    def train_set(self) -> Examples:
        inputs = torch.randn(64, 3, 4, generator=torch.Generator().manual_seed(self.data_seed))
        return Examples(inputs=inputs, targets=inputs[:, -1, :1])

    def evaluation_sets(self) -> dict[str, Examples]:
        return {"train": self.train_set(), "test": replace(self, data_seed=1).train_set()}


def test_a_transformer_that_reads_vectors_learns_a_regression_from_full_batches_and_small_ones():
    model = TransformerConfig(n_layers=1, d_model=8, n_heads=1, d_head=8, n_ctx=3, d_input=4, d_vocab_out=1)
    for batch_size in (None, 16):
        training = replace(PLAIN_ADAM, steps=300, evaluate_every=100, dtype="float32", batch_size=batch_size)
        rows = train(LastVector(), model, Initialization(), training)[0].metrics
        assert rows[0]["test_loss"] > 0.5
        assert rows[-1]["test_loss"] < 0.02
