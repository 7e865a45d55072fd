"""Presets against the published settings."""

import math
from dataclasses import replace

import pytest
import torch

from tasks.base import UserError
from tasks.families.modular import ModularArithmetic
from tasks.families.parity import SparseParity
from tasks.models.initialization import Initialization, initialize
from tasks.models.transformer import count_parameters
from tasks.presets import preset, sizes, usual_size
from tasks.registry import FAMILIES, model_family, task_class
from tasks.training import train


def test_the_published_anchor_model_has_2_732_201_parameters():
    assert count_parameters(preset("anchor", "paper").model) == 2_732_201


def test_the_published_anchor_training_is_210_epochs_of_370_batches_ten_of_them_warm_up():
    p = preset("anchor", "paper")
    sequences = len(p.task.trained_pairs) * p.task.sequences_per_pair
    assert sequences // p.training.batch_size == 370
    assert (p.training.steps, p.training.warmup_steps) == (210 * 370, 10 * 370)
    t = p.training
    assert (t.beta1, t.beta2, t.eps, t.weight_decay, t.clip_norm) == (0.9, 0.999, 1e-8, 0.01, 1.0)
    assert (t.decayed, t.decay, t.learning_rate) == ("all", "cosine", 2e-4)


def test_the_published_modular_setting_is_that_of_nanda():
    p = preset("modular", "paper")
    m, t = p.model, p.training
    assert p.task == ModularArithmetic(p=113, operation="add", train_fraction=0.3, split="python_shuffle", data_seed=0)
    assert (m.n_layers, m.d_model, m.n_heads, m.d_head, m.d_mlp, m.d_vocab, m.d_vocab_out) == (
        1,
        128,
        4,
        32,
        512,
        114,
        113,
    )
    assert (m.normalization, m.act_fn, m.causal, m.tied_unembedding) == ("none", "relu", True, False)
    assert (m.attention_bias, m.mlp_bias, m.unembedding_bias) == (False, True, False)
    assert (t.learning_rate, t.weight_decay, t.beta1, t.beta2, t.eps) == (1e-3, 1.0, 0.9, 0.98, 1e-8)
    assert (t.batch_size, t.warmup_steps, t.warmup_from, t.decay, t.clip_norm) == (None, 10, 0.0, "constant", None)
    assert t.steps == 40_000
    assert p.init == Initialization(scheme="progress_measures")
    assert 225_000 < count_parameters(m) < 227_000


@pytest.mark.parametrize(("family", "size"), [(family, size) for family in FAMILIES for size in sizes(family)])
def test_the_model_of_every_preset_fits_its_task(family, size):
    p = preset(family, size)
    assert (p.model.d_vocab, p.model.d_vocab_out) == (p.task.d_vocab, p.task.d_vocab_out)
    assert p.model.n_ctx >= p.task.n_ctx
    assert p.model.for_task(p.task) == p.model


@pytest.mark.parametrize("family", [family for family in FAMILIES if len(sizes(family)) > 1])
def test_presets_grow_from_tiny_to_paper(family):
    presets = [preset(family, size) for size in sizes(family) if size in ("tiny", "default", "paper")]
    shapes = [model_family(p.model).shapes(p.model) for p in presets]
    parameters = [sum(math.prod(shape) for shape in named.values()) for named in shapes]
    steps = [p.training.steps for p in presets]
    assert parameters == sorted(set(parameters))
    assert steps == sorted(set(steps))


def test_the_fast_setting_is_the_published_problem_and_model_until_it_is_solved():
    fast, paper = preset("modular", "fast"), preset("modular", "paper")
    assert (fast.task, fast.model, fast.init) == (paper.task, paper.model, paper.init)
    assert fast.training.stop_below == 1e-5
    assert fast.training.learning_rate == 3 * paper.training.learning_rate
    with pytest.raises(UserError, match="expected a preset among tiny, default, paper for anchor, got 'fast'"):
        preset("anchor", "fast")


@pytest.mark.parametrize(
    ("size", "fraction", "n_train", "weights", "numbers"),
    [
        ("explorable", 0.4, 911, 67 * 500 + 2 * 500 * 24, (50_000, 1e-3, 1.0, ())),
        ("circle", 0.3, 683, 67 * 2 + 20, (15_000, 1e-2, 1e-3, ("embed.W_E",))),
    ],
)
def test_the_perceptrons_of_the_explorable_have_its_sizes_data_and_optimiser(size, fraction, n_train, weights, numbers):
    p = preset("modular", size)
    m, t = p.model, p.training
    assert p.task == ModularArithmetic(p=67, form="pair", unordered=True, train_fraction=fraction)
    assert len(p.task.train_set()) == n_train
    assert sum(math.prod(shape) for shape in model_family(m).shapes(m).values()) == weights
    assert (m.input, m.tied_unembedding, m.act_fn, m.bias, m.output_bias) == ("embedding", True, "relu", False, False)
    assert (t.steps, t.learning_rate, t.weight_decay, t.frozen) == numbers
    assert (t.batch_size, t.beta1, t.beta2, t.warmup_steps, t.decay) == (None, 0.9, 0.98, 0, "constant")
    assert t.eps == pytest.approx(67 * 1e-8)  # of a loss that is 67 times the published one
    assert t.dtype == "float64"


def test_adam_on_a_multiple_of_the_loss_takes_the_same_steps_with_a_multiple_of_epsilon():
    task = ModularArithmetic(p=5, form="pair", unordered=True, train_fraction=1.0)
    p = preset("modular", "explorable")
    model = replace(p.model.for_task(task), d_hidden=(6,), d_embed=8)
    params = {
        name: value.requires_grad_()
        for name, value in initialize(model_family(model).shapes(model), model, p.init, 0, "float64").items()
    }
    training = replace(p.training, steps=20, evaluate_every=20)
    run = train(task, model, p.init, training)[0]
    theirs = torch.optim.AdamW(params.values(), lr=1e-3, betas=(0.9, 0.98), eps=1e-8, weight_decay=1.0)
    examples = task.train_set()
    for _ in range(20):
        stack = {name: value.unsqueeze(0) for name, value in params.items()}
        logits = model_family(model).forward(stack, examples.inputs[None], model)[0, :, 0]
        loss = torch.nn.functional.cross_entropy(logits, examples.targets) / 67
        theirs.zero_grad()
        loss.backward()
        theirs.step()
    for name, value in run.params().items():
        torch.testing.assert_close(value, params[name].detach(), rtol=0, atol=1e-12)


def test_the_embedding_of_the_circle_preset_is_a_circle_that_training_leaves_alone():
    p = preset("modular", "circle")
    run = train(p.task, p.model, p.init, replace(p.training, steps=30, evaluate_every=30))[0]
    angle = 2 * math.pi / 67 * torch.arange(67, dtype=torch.float64)
    circle = torch.stack([angle.cos(), angle.sin()], dim=1)
    before, after = run.params(0), run.params()
    assert before["embed.W_E"].equal(after["embed.W_E"])
    torch.testing.assert_close(after["embed.W_E"], circle, rtol=0, atol=1e-14)
    assert not before["layers.0.W_in"].equal(after["layers.0.W_in"])


def test_a_model_fitted_to_another_task_takes_its_vocabulary_and_keeps_the_rest():
    p = preset("modular", "tiny")
    other = p.model.for_task(ModularArithmetic(p=7, form="pair"))
    assert (other.d_vocab, other.d_vocab_out, other.n_ctx) == (7, 7, 3)
    assert other.d_model == p.model.d_model


def test_an_unknown_family_is_refused_with_the_known_ones():
    with pytest.raises(UserError, match=f"expected a task among {', '.join(FAMILIES)}, got 'chess'"):
        preset("chess", "tiny")


def test_a_preset_exists_for_every_task_and_is_of_its_class():
    assert set(FAMILIES) == set(FAMILIES)
    assert all(type(preset(family, "paper").task) is task_class(family) for family in FAMILIES)
    assert [usual_size(family) for family in ("anchor", "modular", "identity")] == ["default", "default", "tiny"]


def test_an_mlp_fitted_to_another_task_reads_exactly_its_inputs():
    p = preset("parity", "paper")
    assert p.model.for_task(SparseParity(n_bits=7)) == replace(p.model, n_ctx=7)


def test_the_published_benchmark_setting_is_four_thousand_epochs_of_four_layers_with_four_heads():
    p = preset("identity", "paper")
    m, t = p.model, p.training
    assert (m.n_layers, m.n_heads, m.d_model, m.d_head, m.d_mlp, m.normalization) == (4, 4, 400, 64, 1_200, "post")
    assert (m.attention_bias, m.mlp_bias, m.unembedding_bias) == (False, False, False)
    assert (t.batch_size, t.steps, t.warmup_steps) == (100, 4_000 * 10, 400 * 10)
    assert (t.learning_rate, t.learning_rate * t.warmup_from, t.learning_rate * t.decay_to) == (2e-4, 2e-5, 2e-5)
    assert (t.weight_decay, t.clip_norm) == (0.01, 1.0)
    # torch's own: uniform in ±1/√fan_in, of variance 1/(3 fan_in), and N(0, 1) for embeddings
    assert p.init.std("embed.W_E", (201, 400), m) == pytest.approx(1.0)
    assert p.init.std("blocks.0.mlp.W_in", (400, 1_200), m) == pytest.approx((3 * 400) ** -0.5)
    assert p.init.std("blocks.0.attn.W_O", (4, 64, 400), m) == pytest.approx((3 * 256) ** -0.5)


def test_the_published_parity_sweep_is_one_hidden_layer_with_a_constant_input_and_one_logit():
    p = preset("parity", "paper")
    assert (p.task.n_bits, p.task.k, p.task.n_test) == (30, 3, 5_000)
    assert p.task.n_train in (750, 1_000, 1_250, 1_500, 1_750)
    assert p.model.d_hidden in ((16,), (32,), (64,), (128,), (258,))
    assert (p.model.constant_input, p.model.one_logit, p.model.bias, p.model.act_fn) == (True, True, False, "relu")
    t = p.training
    assert (t.steps, t.learning_rate, t.beta1, t.beta2, t.batch_size) == (20_000, 3e-3, 0.99, 0.98, None)
    assert t.weight_decay in (0.01, 0.03, 0.1, 0.3, 1)
