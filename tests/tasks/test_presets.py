"""Presets against the published settings."""

import pytest

from tasks.base import UserError
from tasks.models.initialization import Initialization
from tasks.models.transformer import count_parameters
from tasks.modular import ModularArithmetic
from tasks.presets import PRESETS, SIZES, fitted, preset


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


@pytest.mark.parametrize(("family", "size"), [(family, size) for family in PRESETS for size in SIZES[family]])
def test_the_model_of_every_preset_fits_its_task(family, size):
    p = preset(family, size)
    assert (p.model.d_vocab, p.model.d_vocab_out) == (p.task.d_vocab, p.task.d_vocab_out)
    assert p.model.n_ctx >= p.task.n_ctx
    assert fitted(p.model, p.task) == p.model


@pytest.mark.parametrize("family", PRESETS)
def test_presets_grow_from_tiny_to_paper(family):
    presets = [preset(family, size) for size in ("tiny", "default", "paper")]
    sizes = [count_parameters(p.model) for p in presets]
    steps = [p.training.steps for p in presets]
    assert sizes == sorted(set(sizes))
    assert steps == sorted(set(steps))


def test_the_fast_setting_is_the_published_problem_and_model_until_it_is_solved():
    fast, paper = preset("modular", "fast"), preset("modular", "paper")
    assert (fast.task, fast.model, fast.init) == (paper.task, paper.model, paper.init)
    assert fast.training.stop_below == 1e-3
    assert fast.training.learning_rate == 3 * paper.training.learning_rate
    with pytest.raises(UserError, match="expected a preset among tiny, default, paper for anchor, got 'fast'"):
        preset("anchor", "fast")


def test_a_model_fitted_to_another_task_takes_its_vocabulary_and_keeps_the_rest():
    p = preset("modular", "tiny")
    other = fitted(p.model, ModularArithmetic(p=7, form="pair"))
    assert (other.d_vocab, other.d_vocab_out, other.n_ctx) == (7, 7, 3)
    assert other.d_model == p.model.d_model


def test_an_unknown_family_is_refused_with_the_known_ones():
    with pytest.raises(UserError, match="expected a task among anchor, modular, got 'parity'"):
        preset("parity", "tiny")
