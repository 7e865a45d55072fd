"""Ranks against matrices whose singular values are known."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from interp.subject import Subject, linear_maps
from interp.weights import rank
from tasks.families.anchor import AnchorComposition
from tasks.families.modular import ModularArithmetic
from tasks.models.config import TransformerConfig
from tasks.models.constructed import clock, composer, lookup_table
from tasks.models.transformer import forward, shapes


def gaussian(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def orthonormal(n: int, r: int, seed: int) -> Tensor:
    return torch.linalg.qr(gaussian(n, r, seed=seed)).Q


@pytest.mark.parametrize("r", [1, 3, 8])
def test_a_matrix_of_rank_r_with_equal_singular_values_has_every_rank_r(r):
    found = rank.matrix_rank(2.5 * orthonormal(20, r, 0) @ orthonormal(12, r, 1).T)
    assert (found.d_in, found.d_out, found.numerical_rank) == (20, 12, r)
    assert [found.stable_rank, found.effective_rank, found.participation_ratio] == pytest.approx([r, r, r])


def test_ranks_of_three_singular_values_equal_those_worked_by_hand():
    singular = torch.tensor([2.0, 1.0, 1.0])
    assert rank.stable_rank(singular) == pytest.approx(6 / 4)
    assert rank.participation_ratio(singular) == pytest.approx(36 / 18)
    assert rank.effective_rank(singular) == pytest.approx(2**1.5)  # entropy of (1/2, 1/4, 1/4) is 1.5 ln 2
    assert rank.numerical_rank(singular, 0.6) == 1
    assert rank.numerical_rank(singular, 0.4) == 3


@pytest.mark.parametrize(("shape", "low", "high"), [((400, 400), 99, 104), ((200, 400), 68, 72), ((201, 400), 68, 72)])
def test_gaussian_matrices_have_the_recomputed_stable_ranks(shape, low, high):
    # mn/(√m + √n)², a little more since σ_1 stays below its limit; one matrix scatters by 1.4
    assert low < rank.stable_rank(rank.singular_values(gaussian(*shape))) < high


def test_a_matrix_of_zeros_has_rank_zero():
    found = rank.matrix_rank(torch.zeros(4, 3))
    assert (found.stable_rank, found.effective_rank, found.participation_ratio, found.numerical_rank) == (0, 0, 0, 0)


def test_rounding_does_not_count_as_rank():
    W = (gaussian(50, 2) @ gaussian(2, 40, seed=1)).float()  # rounded to float32: all 40 singular values are above 0
    assert float(rank.singular_values(W)[-1]) > 0
    assert rank.matrix_rank(W).numerical_rank == 2


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 1000), scale=st.floats(1e-3, 1e3))
def test_ranks_are_ordered_and_do_not_change_under_scaling_rotation_and_transposition(seed, scale):
    W = gaussian(9, 6, seed=seed) @ torch.diag(torch.logspace(0, -3, 6, dtype=torch.float64))
    found = rank.matrix_rank(W)
    assert 1 <= found.stable_rank <= found.participation_ratio <= found.effective_rank <= found.numerical_rank
    moved = rank.matrix_rank((scale * orthonormal(9, 9, seed) @ W).T)
    for name in ("stable_rank", "participation_ratio", "effective_rank", "numerical_rank"):
        assert getattr(moved, name) == pytest.approx(getattr(found, name), rel=1e-9)


def test_covariance_eigenvalues_are_those_of_the_covariance_divided_by_n():
    rows = gaussian(30, 5) + 7
    expected = torch.linalg.eigvalsh(torch.cov(rows.T, correction=0)).flip(0)
    assert torch.allclose(rank.covariance_eigenvalues(rows), expected)


def test_linear_maps_act_as_the_forward_pass_does():
    config = TransformerConfig(n_layers=1, d_model=6, n_heads=3, d_head=2, n_ctx=4, d_vocab=5, d_mlp=7)
    params = {name: gaussian(*shape, seed=i).float() for i, (name, shape) in enumerate(shapes(config).items())}
    maps = linear_maps(params)
    seen: dict[str, Tensor] = {}

    def tap(name: str, value: Tensor) -> Tensor:
        seen[name] = value[0]
        return value

    tokens = torch.tensor([[[0, 3, 1, 4]]])
    logits = forward({name: value[None] for name, value in params.items()}, tokens, config, tap=tap)[0]
    x = seen["blocks.0.hook_resid_pre"]
    for part in "qkv":
        expected = seen[f"blocks.0.attn.hook_{part}"].flatten(-2)
        assert torch.allclose(x @ maps[f"blocks.0.attn.W_{part.upper()}"], expected, atol=1e-5)
    z = seen["blocks.0.attn.hook_z"].flatten(-2)
    assert torch.allclose(z @ maps["blocks.0.attn.W_O"], seen["blocks.0.hook_attn_out"], atol=1e-4)
    assert torch.allclose(seen["blocks.0.hook_resid_post"] @ maps["unembed.W_U"], logits, atol=1e-3)
    assert "pos_embed.W_pos" not in maps


def test_tokens_in_use_leave_out_padding_equals_sign_and_unused_values():
    anchors = AnchorComposition(key_low=20, key_high=39, sequence_length=5, split_modulus=5, d_vocab=64)
    assert rank.tokens_in_use(anchors).tolist() == [1, 2, 3, 4, *range(20, 40)]
    assert rank.tokens_in_use(ModularArithmetic(p=5)).tolist() == [0, 1, 2, 3, 4]
    apart = ModularArithmetic(p=3, diff_vocab=True)
    assert rank.tokens_in_use(apart).tolist() == apart.all_inputs()[:, :2].unique().tolist()


def test_analysis_finds_the_planted_rank_and_random_weights_do_not_have_it():
    task = ModularArithmetic(p=13)
    config, params = lookup_table(task)
    params["unembed.W_U"] = (gaussian(config.d_model, 2) @ gaussian(2, 13, seed=1)).float()
    result = rank.analyze(Subject.of(config, params, task))
    assert result.matrices["unembed.W_U"].numerical_rank == 2
    assert result.control["unembed.W_U"].numerical_rank == 13
    assert set(result.control) == set(result.matrices)
    # 13 numbers at the corners of a simplex: all 12 directions alike
    assert result.embedding_participation_ratio == pytest.approx(12)
    assert result.embedding_explained == pytest.approx((1 / 12, 1 / 12))
    assert result.control_embedding_participation_ratio < 12


def test_random_weights_are_as_spread_as_their_control():
    task = AnchorComposition(key_low=20, key_high=39, sequence_length=5, split_modulus=5, d_vocab=64)
    subject = Subject.of(*composer(task), task).randomized(7)
    assert rank.analyze(subject).mean_relative_stable_rank == pytest.approx(1, abs=0.05)
    assert rank.analyze(subject).control_mean_relative_stable_rank == pytest.approx(1, abs=0.05)


def test_the_control_of_the_relative_rank_is_another_draw_measured_against_the_first() -> None:
    task = ModularArithmetic(p=13)
    subject = Subject.of(*clock(task, (2, 3, 5)), task)
    found = rank.analyze(subject)
    first, second = (linear_maps(subject.randomized(seed).params) for seed in (0, 1))
    ratios = [rank.matrix_rank(second[name]).stable_rank / rank.matrix_rank(first[name]).stable_rank for name in first]
    assert found.control_mean_relative_stable_rank == pytest.approx(sum(ratios) / len(ratios), rel=1e-9)
    assert found.control_mean_relative_stable_rank != 1
