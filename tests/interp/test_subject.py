"""The door: run folders, models of ours and of transformer-lens, interventions, trajectories and ensembles."""

import pytest
import torch

from interp.subject import Ensemble, Subject, Trajectory
from tasks.base import UserError
from tasks.families.modular import ModularArithmetic
from tasks.families.parity import SparseParity
from tasks.models import HookedMLP
from tasks.models.config import TransformerConfig
from tasks.models.constructed import clock
from tasks.models.initialization import Initialization
from tasks.models.parity_network import parity_network
from tasks.training.config import TrainingConfig
from tasks.training.trainer import train

TASK = ModularArithmetic(p=7, train_fraction=0.5)
MODEL = TransformerConfig(n_layers=1, d_model=16, n_heads=2, d_head=8, d_mlp=24, d_vocab=8, d_vocab_out=7, n_ctx=3)
TRAINING = TrainingConfig(steps=8, evaluate_every=4, snapshots=3)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    out = tmp_path_factory.mktemp("runs")
    return train(TASK, MODEL, Initialization(), TRAINING, seeds=[0, 1], out=out)


def test_a_run_folder_loads_at_its_last_step_and_at_any_other(runs) -> None:
    assert Subject.load(runs[0].path).step == 8
    first = Subject.load(runs[0].path, 0)
    assert first.step == 0
    assert not torch.equal(first.params["embed.W_E"], Subject.load(runs[0]).params["embed.W_E"])


def test_the_performance_of_a_loaded_run_is_that_of_its_last_metrics(runs) -> None:
    assert Subject.load(runs[0]).performance == pytest.approx(
        {key: value for key, value in runs[0].metrics[-1].items() if key.startswith(("train_", "test_"))}, abs=1e-6
    )


def test_a_subject_computes_what_its_hooked_model_computes(runs) -> None:
    subject = Subject.load(runs[0])
    inputs = TASK.all_inputs()
    assert torch.allclose(subject.logits(inputs), subject.model(inputs)[:, -1], atol=1e-6)
    _, cache = subject.model.run_with_cache(inputs)
    _, activations = subject.activations(inputs, ["blocks.0.mlp.hook_post"])
    assert torch.allclose(activations["blocks.0.mlp.hook_post"], cache["blocks.0.mlp.hook_post"], atol=1e-6)


def test_a_model_with_its_task_is_a_subject_as_good_as_its_run(runs) -> None:
    loaded = Subject.load(runs[0])
    given = Subject(loaded.model, TASK, name="mine")
    assert torch.equal(given.logits(TASK.all_inputs()), loaded.logits(TASK.all_inputs()))
    assert (given.name, given.step) == ("mine", None)


def test_a_state_dict_in_transformer_lens_names_is_a_subject(runs) -> None:
    loaded = Subject.load(runs[0])
    given = Subject(loaded.model.state_dict(), TASK)
    assert torch.allclose(given.logits(TASK.all_inputs()), loaded.logits(TASK.all_inputs()), atol=1e-6)


def test_an_edit_takes_an_activations_place(runs) -> None:
    subject = Subject.load(runs[0])
    inputs = TASK.all_inputs()
    without_mlp = subject.logits(inputs, {"blocks.0.hook_mlp_out": torch.zeros_like})
    _, kept = subject.activations(inputs, ["blocks.0.hook_resid_mid"])
    expected = kept["blocks.0.hook_resid_mid"][:, -1] @ subject.params["unembed.W_U"]
    assert torch.allclose(without_mlp, expected, atol=1e-5)


def test_an_activation_the_model_does_not_have_is_refused(runs) -> None:
    with pytest.raises(UserError, match=r"no blocks\.7\.hook_z"):
        Subject.load(runs[0]).activations(TASK.all_inputs(), ["blocks.7.hook_z"])


def test_inputs_of_another_length_are_refused(runs) -> None:
    with pytest.raises(UserError, match="expected inputs of 3 tokens, got 2"):
        Subject.load(runs[0]).logits(TASK.all_inputs()[:, :2])


def test_a_task_with_more_tokens_than_the_model_is_refused(runs) -> None:
    with pytest.raises(UserError, match="expected a model with d_vocab of at least 12"):
        Subject(Subject.load(runs[0]).model, ModularArithmetic(p=11))


def test_random_weights_keep_scale_and_lose_the_rule() -> None:
    task = ModularArithmetic(p=23)
    subject = Subject.of(*clock(task, (2, 3, 5, 9)), task)
    control = subject.randomized(0)
    for name in ("embed.W_E", "blocks.0.mlp.W_in"):
        assert float(control.params[name].std()) == pytest.approx(float(subject.params[name].std()), rel=0.1)
    assert subject.performance["test_accuracy"] == 1.0
    assert control.performance["test_accuracy"] < 0.3
    assert torch.equal(subject.randomized(0).params["embed.W_E"], control.params["embed.W_E"])
    assert not torch.equal(subject.randomized(1).params["embed.W_E"], control.params["embed.W_E"])


def test_weights_of_a_stranger_are_a_subject_with_their_layout_and_task(runs, tmp_path) -> None:
    loaded = Subject.load(runs[0])
    torch.save({"model": loaded.params}, tmp_path / "theirs.pt")
    given = Subject.load(tmp_path / "theirs.pt", layout="transformer_lens", task=TASK)
    assert torch.equal(given.logits(TASK.all_inputs()), loaded.logits(TASK.all_inputs()))
    assert (given.name, given.step, given.run, given.task) == ("theirs", None, None, TASK)
    assert Subject.load(tmp_path / "theirs.pt", 8, layout="transformer_lens", task=TASK).step == 8
    squared = Subject.load(tmp_path / "theirs.pt", layout="transformer_lens", task=TASK, act_fn="square")
    assert not torch.equal(squared.logits(TASK.all_inputs()), loaded.logits(TASK.all_inputs()))


def test_weights_without_layout_or_task_say_what_to_give(runs, tmp_path) -> None:
    torch.save(Subject.load(runs[0]).params, tmp_path / "theirs.pt")
    for given in ({}, {"task": TASK}, {"layout": "transformer_lens"}):
        with pytest.raises(UserError, match=r"give its layout \(transformer_lens, .*\) and the task"):
            Subject.load(tmp_path / "theirs.pt", **given)
    with pytest.raises(UserError, match=r"no file .*nowhere\.pt"):
        Subject.load(tmp_path / "nowhere.pt", layout="transformer_lens", task=TASK)


def test_a_run_folder_takes_neither_layout_nor_task(runs) -> None:
    with pytest.raises(UserError, match="a run folder says its task"):
        Subject.load(runs[0].path, task=TASK)
    with pytest.raises(UserError, match=r"no file .*seed-0: expected a .safetensors file"):
        Subject.load(runs[0].path, layout="transformer_lens", task=TASK)


def test_an_mlp_answers_once_and_its_activations_are_shown(tmp_path) -> None:
    task = ModularArithmetic(p=5, form="pair")
    rng = torch.Generator().manual_seed(0)
    sizes = {"W_x": (5, 3), "W_y": (5, 3), "W": (6, 8), "W_U": (8, 5)}
    torch.save({name: torch.randn(size, generator=rng) for name, size in sizes.items()}, tmp_path / "mlp.pt")
    subject = Subject.load(tmp_path / "mlp.pt", layout="group_mlp", task=task)
    logits, kept = subject.activations(task.all_inputs(), ["layers.0.hook_post"])
    assert torch.equal(logits, subject.logits(task.all_inputs()))
    assert torch.allclose(kept["layers.0.hook_post"] @ subject.params["unembed.W_U"], logits, atol=1e-6)


def test_a_trajectory_holds_every_snapshot_in_order(runs) -> None:
    trajectory = Trajectory.load(runs[0].path)
    assert [subject.step for subject in trajectory] == runs[0].steps == [0, 1, 8]
    assert len(trajectory) == 3


def test_an_ensemble_holds_the_seeds(runs) -> None:
    ensemble = Ensemble.load(runs[0].path.parent)
    assert [subject.run.config.seed for subject in ensemble] == [0, 1]
    with pytest.raises(UserError, match="expected folders seed-0"):
        Ensemble.load(runs[0].path)


def test_an_ensemble_refuses_runs_that_differ_in_more_than_the_seed(tmp_path) -> None:
    train(TASK, MODEL, Initialization(), TRAINING, seeds=[0, 1], per_model={"gamma": [0.5, 0.8]}, out=tmp_path)
    with pytest.raises(UserError, match="differs in init"):
        Ensemble.load(tmp_path)


def test_a_run_whose_data_were_changed_afterwards_is_refused(tmp_path) -> None:
    run = train(TASK, MODEL, Initialization(), TRAINING, out=tmp_path / "run")[0]
    config = run.path / "config.json"
    config.write_text(config.read_text().replace('"data_seed": 0', '"data_seed": 1'))
    with pytest.raises(UserError, match="is not the one it was trained on"):
        Subject.load(run.path)


def test_an_mlp_is_a_subject_that_computes_what_its_hooked_model_computes() -> None:
    task = SparseParity(n_bits=6, k=2, n_train=30, n_test=50)
    subject = Subject.of(*parity_network(task, 5), task)
    inputs = task.train_set().inputs
    assert isinstance(subject.model, HookedMLP)
    assert torch.equal(subject.model(inputs)[:, 0], subject.logits(inputs))
    assert torch.equal(subject.answers(inputs), task.answers(inputs))  # of one logit, too
    given = Subject(subject.model, task, name="mine")
    assert (given.config, given.name) == (subject.config, "mine")
    assert torch.equal(given.logits(inputs), subject.logits(inputs))
