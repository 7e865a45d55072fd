"""Data without end, several answers per example, real vectors at each position: one task that has all three."""

from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
import pytest
import torch

from interp.subject import Subject
from tasks import __main__ as command_line
from tasks.base import EndlessTask, Examples, Fields, Task, UserError, as_tensor, generator
from tasks.contract import ContractError, check_task
from tasks.models.config import MLPConfig, TransformerConfig
from tasks.models.initialization import Initialization
from tasks.models.transformer import forward
from tasks.registry import FAMILIES, Family
from tasks.training.config import TrainingConfig
from tasks.training.memory import model_bytes
from tasks.training.objective import losses
from tasks.training.run import Run
from tasks.training.snapshots import checksum
from tasks.training.trainer import Stack, train


@dataclass(frozen=True, kw_only=True)
class Slopes(Fields):
    """y = wx, a new w in each prompt: x, y, x, y, … as pairs (value, is it a y?); every x is answered with its y."""

    family: ClassVar[str] = "slopes"
    n_points: int = 4
    data_seed: int = 0

    d_vocab = property(lambda self: 0)
    d_input = property(lambda self: 2)
    d_vocab_out = property(lambda self: 1)
    n_ctx = property(lambda self: 2 * self.n_points)
    answer_positions = property(lambda self: tuple(range(0, 2 * self.n_points, 2)))
    answer_position = property(lambda self: self.answer_positions[-1])

    def _examples(self, rng: np.random.Generator, size: int) -> Examples:
        x = rng.uniform(-1, 1, (size, self.n_points))
        y = x * rng.normal(size=(size, 1))
        inputs = np.zeros((size, self.n_ctx, 2))
        inputs[:, 0::2, 0] = x
        inputs[:, 1::2, 0] = y
        inputs[:, 1::2, 1] = 1
        zero = as_tensor(np.zeros((size, self.n_points, 1)))
        return Examples(inputs=as_tensor(inputs), targets=as_tensor(y[..., None]), rules={"zero": zero})

    def batch(self, seed: int, step: int, size: int) -> Examples:
        return self._examples(generator(self.data_seed, "batch", seed, step), size)

    def train_set(self) -> Examples:
        return self.batch(0, 0, 64)

    def evaluation_sets(self) -> dict[str, Examples]:
        return {name: self._examples(generator(self.data_seed, name), 128) for name in ("train", "test")}

    def split_tensors(self) -> dict[str, Any]:
        return {"data_seed": as_tensor(np.array([self.data_seed]))}


TASK = Slopes()
MODEL = TransformerConfig(n_layers=2, d_model=16, n_heads=2, d_head=8, d_mlp=32, n_ctx=2, d_vocab=5).for_task(TASK)
TRAINING = TrainingConfig(
    steps=400, batch_size=32, learning_rate=5e-3, weight_decay=0.0, evaluate_every=100, snapshots=(0,)
)


def fit(**options: Any) -> list[Run]:
    return train(TASK, MODEL, Initialization(gamma=0.5), TRAINING, **options)


@pytest.fixture(scope="module")
def run() -> Run:
    return fit()[0]


def test_it_keeps_the_contract_and_a_model_is_made_for_it():
    check_task(TASK)
    assert isinstance(TASK, Task)
    assert isinstance(TASK, EndlessTask)
    assert (MODEL.d_vocab, MODEL.d_input, MODEL.d_out, MODEL.n_ctx) == (None, 2, 1, 8)


@pytest.mark.slow
def test_later_answers_are_better_once_it_has_learned_from_the_prompt(run):
    test = TASK.evaluation_sets()["test"]
    subject = Subject.of(MODEL, run.params(), TASK)
    predicted = subject.logits(test.inputs)
    assert predicted.shape == test.targets.shape == (128, 4, 1)
    by_answer = losses(predicted, test.targets).mean(0)
    assert by_answer[-1] < 0.35 * by_answer[0]  # nothing is known of w at the first
    assert run.metrics[-1]["test_loss"] == pytest.approx(float(by_answer.mean()), rel=1e-4)
    assert run.metrics[-1]["test_zero"] == pytest.approx(float(predicted.double().square().mean()), rel=1e-4)


@pytest.mark.slow
def test_answers_are_the_same_whether_or_not_somebody_looks(run):
    subject = Subject.of(MODEL, run.params(), TASK)
    inputs = TASK.train_set().inputs
    watched, _ = subject.activations(inputs, ["blocks.1.hook_resid_post"])
    torch.testing.assert_close(watched, subject.logits(inputs), rtol=1e-5, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("positions", [(0,), (0, 2, 4, 6), (3, 4), (1, 2, 7), 5])
def test_any_positions_can_be_asked_about(positions, run):
    params = {name: value[None] for name, value in run.params().items()}
    inputs = TASK.train_set().inputs[None]
    asked = [positions] if isinstance(positions, int) else list(positions)
    shown = forward(params, inputs, MODEL, answer_position=positions)
    torch.testing.assert_close(shown, forward(params, inputs, MODEL)[:, :, asked], rtol=1e-5, atol=1e-6)


@pytest.mark.slow
def test_a_batch_belongs_to_the_seed_and_the_step_whatever_else_is_in_the_stack():
    together, alone = fit(seeds=[2, 3]), fit(seeds=[3])
    assert checksum(together[1].params()) == checksum(alone[0].params())
    assert checksum(together[0].params()) != checksum(together[1].params())


@pytest.mark.slow
def test_killed_training_comes_back_to_the_same_bits(tmp_path, monkeypatch):
    monkeypatch.setitem(FAMILIES, "slopes", Family(Slopes))

    class Kill(Exception):
        pass

    def kill(step: int, rows: Any) -> None:
        if step == 200:
            raise Kill

    with pytest.raises(Kill):
        fit(out=tmp_path / "cut", resume_every=0.0, on_evaluation=kill)
    assert checksum(fit(out=tmp_path / "cut")[0].params()) == checksum(fit(out=tmp_path / "whole")[0].params())


@pytest.mark.slow
def test_each_step_sees_new_examples(run, tmp_path):
    stack = Stack([run], tmp_path / "none")
    first = stack.batch()[0]
    stack.step = 1
    assert first.shape == (1, 32, 8, 2)
    assert not torch.equal(stack.batch()[0], first)
    assert torch.equal(first[0], TASK.batch(run.config.seed, 0, 32).inputs)


@pytest.mark.slow
def test_two_seeds_of_a_stack_see_their_own_examples(tmp_path):
    runs = fit(seeds=[2, 3])
    shown = Stack(runs, tmp_path / "none").batch()
    for row, seed in enumerate((2, 3)):
        expected = TASK.batch(seed, 0, 32)
        assert torch.equal(shown[0][row], expected.inputs)
        assert torch.equal(shown[1][row], expected.targets)


def test_its_memory_is_counted_with_a_whole_batch():
    few, many = (model_bytes(TASK, MODEL, replace(TRAINING, batch_size=size)) for size in (512, 1024))
    assert 1.5 < many / few < 2.1


def test_a_batch_size_and_a_width_are_asked_for():
    with pytest.raises(UserError, match="expected a batch_size: the data of this task have no end"):
        train(TASK, MODEL, None, replace(TRAINING, batch_size=None))
    with pytest.raises(UserError, match="reads vectors of d_input 2 for this task, got 3"):
        train(TASK, replace(MODEL, d_input=3), None, TRAINING)


def faulty(**changes: Any) -> Any:
    return dataclass(frozen=True, kw_only=True)(type("Faulty", (Slopes,), changes))()


@pytest.mark.parametrize(
    ("changes", "check"),
    [
        ({"batch": lambda self, seed, step, size: self.train_set()}, "batch"),
        ({"batch": lambda self, seed, step, size: Slopes.batch(self, seed, 0, size)}, "batch"),
        ({"batch": lambda self, seed, step, size: Slopes.batch(self, 0, step, size)}, "batch"),
        ({"answer_positions": (0, 2, 4)}, "answers"),
        ({"answer_positions": (6, 4, 2, 0)}, "answer position"),
        ({"answer_positions": (2, 4, 6, 8)}, "answer position"),
        ({"d_input": 3}, "input shape"),
    ],
)
def test_a_task_that_breaks_one_of_these_promises_is_caught_by_name(changes, check):
    if "batch" in changes:
        changes["train_set"] = lambda self: Slopes.batch(self, 0, 0, 64)
    with pytest.raises(ContractError) as caught:
        check_task(faulty(**changes))
    assert caught.value.check == check


def test_a_perceptron_is_refused_in_one_line_where_a_task_asks_several_times():
    perceptron = MLPConfig(n_ctx=8, d_vocab_out=1, d_hidden=(4,), input="vector")
    several = faulty(d_input=None)
    with pytest.raises(UserError, match="expected a transformer for a task with several answers"):
        train(several, perceptron, None, TRAINING)
    params = {"layers.0.W_in": torch.zeros(8, 4), "unembed.W_U": torch.zeros(4, 1)}
    with pytest.raises(UserError, match=r"several answers.*is it the task that the model was trained on\?"):
        Subject.of(perceptron, params, several)


def test_a_model_of_other_vectors_or_of_tokens_is_refused_at_the_door():
    for model, why in ((replace(MODEL, d_input=3), "d_input 2"), (replace(MODEL, d_input=None, d_vocab=5), "tokens")):
        with pytest.raises(UserError, match=why):
            Subject.of(model, {}, TASK)


@pytest.mark.slow
def test_without_presets_of_its_own_it_is_listed_and_trained_from_the_command_line(monkeypatch, tmp_path, capsys):
    monkeypatch.setitem(FAMILIES, "slopes", Family(Slopes))
    out = tmp_path / "run"
    monkeypatch.setattr("sys.argv", ["tasks", "list"])
    command_line.main()
    assert "slopes" in capsys.readouterr().out
    words = ["tasks", "train", "slopes", "--training.steps", "20", "--quiet", "--out", str(out)]
    monkeypatch.setattr("sys.argv", words)
    command_line.main()
    assert Run.load(out).config.model.d_input == 2
    monkeypatch.setattr("sys.argv", [*words, "--model.d-input", "5"])
    with pytest.raises(SystemExit):
        command_line.main()
    assert "--model.d-input follows the task: leave it out" in capsys.readouterr().err
