"""Cubes against products with the whole n³ tables, shares against projections written out, and all of it against
Fourier on cyclic groups."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from interp.group import cubes
from interp.group.characters import Characters, characters
from interp.modular import fourier
from tasks.base import UserError
from tasks.families.group import GroupComposition
from tasks.finite_groups import named
from tasks.training.objective import cross_entropy

SMALL = ["C_7", "C_8", "D_4", "D_5", "S_3", "A_4", "C_2xS_3"]


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def cube(chars: Characters, place: int, answers: Tensor | None = None) -> Tensor:
    """ψ(ab c⁻¹) for all pairs and answers."""
    answers = torch.from_numpy(chars.group.table).flatten() if answers is None else answers
    quotient = chars.group.table[answers.numpy()[:, None], chars.group.inverses]
    return chars.values[place][torch.from_numpy(quotient)]


def logits_of(chars: Characters, coefficients: dict[int, float], answers: Tensor | None = None) -> Tensor:
    return torch.stack([value * cube(chars, place, answers) for place, value in coefficients.items()]).sum(0)


@pytest.mark.parametrize("name", ["S_3", "D_4", "A_4", "C_6", "C_2xS_3"])
def test_cubes_are_orthogonal_and_have_the_norms_that_are_used(name):
    chars = characters(named(name))
    flat = torch.stack([cube(chars, i).flatten() for i in range(len(chars))])
    expected = torch.diag(chars.group.order**3 * chars.norms.double())
    assert torch.allclose(flat @ flat.T, expected, atol=1e-8)


@pytest.mark.parametrize("name", SMALL)
def test_the_fit_equals_products_with_the_whole_cubes(name):
    chars = characters(named(name))
    logits = noise(chars.group.order**2, chars.group.order)
    fit, L = cubes.cube_fit(logits, chars), logits - logits.mean(1, keepdim=True)
    assert fit.similarity[0] == 0
    for i in range(1, len(chars)):
        X = cube(chars, i)
        assert float(fit.similarity[i]) == pytest.approx(float((L * X).sum() / L.norm() / X.norm()), abs=1e-12)
        assert float(fit.coefficient[i]) == pytest.approx(float((L * X).sum() / X.pow(2).sum()), abs=1e-12)


@pytest.mark.parametrize("name", ["S_4", "D_7", "A_5", "A_4", "C_2xS_3"])
def test_logits_that_are_a_sum_of_characters_give_back_their_coefficients(name):
    chars = characters(named(name))
    last = len(chars) - 1
    fit = cubes.cube_fit(logits_of(chars, {1: 3.0, last: 1.0}) + 5, chars)
    weight = {1: 3 * float(chars.norms[1]) ** 0.5, last: float(chars.norms[last]) ** 0.5}
    total = sum(w**2 for w in weight.values()) ** 0.5
    assert cubes.key_representations(fit.similarity) == (1, last)
    for i, coefficient in ((1, 3.0), (last, 1.0)):
        assert float(fit.coefficient[i]) == pytest.approx(coefficient)
        assert float(fit.similarity[i]) == pytest.approx(weight[i] / total)
    assert fit.explained == pytest.approx(1)


def test_s5_is_fitted():
    chars = characters(named("S_5"))
    logits = logits_of(chars, {chars.names.index("standard"): 1.0, chars.names.index("sign"): 0.5})
    fit = cubes.cube_fit(logits, chars)
    assert [chars.names[i] for i in cubes.key_representations(fit.similarity)] == ["standard", "sign"]
    assert fit.explained == pytest.approx(1)


@pytest.mark.parametrize("operation", ["xyx^-1", "xyx"])
def test_another_operation_has_its_answer_in_the_place_of_the_product(operation):
    chars = characters(named("S_4"))
    answers = GroupComposition(group="S_4", operation=operation).all_targets()
    logits = logits_of(chars, {2: 1.0}, answers)
    assert cubes.key_representations(cubes.cube_fit(logits, chars, answers).similarity) == (2,)
    assert cubes.cube_fit(logits, chars, answers).explained == pytest.approx(1)
    assert cubes.cube_fit(logits, chars).explained < 0.5


@settings(max_examples=15, deadline=None)
@given(name=st.sampled_from(["S_3", "D_5", "A_4"]), g=st.integers(0, 5), h=st.integers(0, 5), seed=st.integers(0, 99))
def test_the_fit_does_not_change_when_inputs_and_answers_are_multiplied_alike(name, g, h, seed):
    chars = characters(named(name))
    n, table = chars.group.order, torch.from_numpy(chars.group.table)
    logits = noise(n * n, n, seed=seed)
    moved = logits.reshape(n, n, n)[table[g]][:, table[:, h]][:, :, table[table[g], h]]  # ga·bh is g(ab)h
    before, after = cubes.cube_fit(logits, chars), cubes.cube_fit(2 * moved.flatten(0, 1), chars)
    assert torch.allclose(before.similarity, after.similarity, atol=1e-12)


@pytest.mark.parametrize("p", [11, 12])
def test_on_a_cyclic_group_every_measure_is_fouriers(p):
    chars = characters(named(f"C_{p}"))
    logits, W = noise(p * p, p), noise(p, 4, seed=1)
    fit, cosines = cubes.cube_fit(logits, chars), fourier.cosine_fit(logits, p)
    assert torch.allclose(fit.similarity[1:], cosines.similarity, atol=1e-12)
    assert torch.allclose(fit.coefficient[1:] * chars.degrees[1:], cosines.coefficient, atol=1e-12)
    shares = cubes.explained(W, chars)[1:]
    assert torch.allclose(shares / shares.sum(), fourier.power_spectrum(W), atol=1e-12)
    hidden = cubes.hidden_shares(noise(p * p, 3, seed=2), chars)
    assert torch.allclose(hidden.product[1:], fourier.logit_variance(noise(p * p, 3, seed=2), p), atol=1e-12)


def test_shares_of_a_matrix_sum_to_one_and_those_of_random_rows_are_the_ranks():
    chars = characters(named("S_5"))
    shares = cubes.explained(noise(120, 2000), chars)
    assert float(shares.sum()) == pytest.approx(1)
    assert torch.allclose(shares, chars.ranks.double() / 120, rtol=0.1)


def test_activations_made_of_one_representation_are_shared_out_as_they_were_made():
    chars = characters(named("S_4"))
    n, table = 24, torch.from_numpy(chars.group.table)
    of_a, of_b, of_ab = (chars.projector([i]) @ noise(n, 2, seed=i) for i in (1, 2, 3))
    of_a, of_b, of_ab = (f / f.norm() for f in (of_a, of_b, of_ab))
    A = (3 * of_a.unsqueeze(1) + 2 * of_b + of_ab[table]).flatten(0, 1) + 7
    shares = cubes.hidden_shares(A, chars)
    expected = torch.zeros(3, 5, dtype=torch.float64)
    expected[0, 1], expected[1, 2], expected[2, 3] = 9 / 14, 4 / 14, 1 / 14
    assert torch.allclose(torch.stack(shares), expected, atol=1e-12)


def test_the_three_spaces_of_the_hidden_layer_explain_at_most_everything():
    chars = characters(named("D_5"))
    assert float(torch.stack(cubes.hidden_shares(noise(100, 8), chars)).sum()) < 1
    ranks = chars.ranks.double()  # of noise, a rank's share of the 99 dimensions
    shares = torch.stack(cubes.hidden_shares(noise(100, 4000), chars))
    assert torch.allclose(shares[:, 1:], (ranks / 99)[1:].expand(3, -1), rtol=0.1)


def test_losses_with_and_without_cubes_are_those_of_the_whole_tables():
    chars = characters(named("A_4"))
    answers, mask = torch.from_numpy(chars.group.table).flatten(), torch.arange(144) % 3 == 0
    logits = noise(144, 12) + logits_of(chars, {1: 1.0, 2: 2.0})
    fit = cubes.cube_fit(logits, chars)
    kept = logits_of(chars, {2: float(fit.coefficient[2])})
    left = logits - logits.mean(1, keepdim=True) - kept
    found = cubes.cube_losses(logits, chars, [2], mask)
    assert found.restricted == pytest.approx(float(cross_entropy(kept, answers).mean()), abs=1e-12)
    assert found.excluded == pytest.approx(float(cross_entropy(left[mask], answers[mask]).mean()), abs=1e-12)
    nothing = cubes.cube_losses(logits, chars, [], mask)
    assert nothing.restricted == pytest.approx(float(torch.tensor(12.0).log()))
    assert nothing.excluded == pytest.approx(float(cross_entropy(logits[mask], answers[mask]).mean()))


def test_hidden_losses_are_those_of_the_projected_activations():
    chars = characters(named("D_5"))
    answers, mask = torch.from_numpy(chars.group.table).flatten(), torch.arange(100) % 2 == 0
    A, W = noise(100, 6) + 1, noise(6, 10, seed=1)
    members = torch.eye(10, dtype=torch.float64)[answers] / 10**0.5  # functions of ab, orthonormal
    P = members @ chars.projector([2, 3]) @ members.T
    found = cubes.hidden_losses(A, W, chars, [2, 3], mask)
    restricted = cross_entropy(P @ A @ W, answers).mean()
    excluded = cross_entropy((A - P @ A) @ W, answers)[mask].mean()
    assert found.restricted == pytest.approx(float(restricted), abs=1e-12)
    assert found.excluded == pytest.approx(float(excluded), abs=1e-12)


def test_renaming_the_answers_leaves_little_to_explain():
    chars = characters(named("S_4"))
    logits = logits_of(chars, {1: 1.0})
    answers = torch.from_numpy(chars.group.table).flatten()
    renamed = cubes.renamed_fits(logits, chars, answers, n=20, seed=0)
    assert len(set(renamed)) > 5
    assert max(renamed) < 0.2
    order = torch.randperm(24, generator=torch.Generator().manual_seed(0))
    assert cubes.cube_fit(logits[:, order], chars).explained < 0.2


def test_a_lookup_table_puts_the_root_of_its_rank_into_every_representation():
    chars = characters(named("S_4"))
    answers = torch.from_numpy(chars.group.table).flatten()
    known = (torch.arange(576) % 2 == 0).double().unsqueeze(1)
    similarity = cubes.cube_fit(known * torch.eye(24, dtype=torch.float64)[answers], chars).similarity
    assert torch.allclose(similarity[1:], (0.5 * chars.ranks[1:].double() / 23).sqrt(), atol=1e-12)
    assert cubes.key_representations(similarity) == (1, 2, 3, 4)


def test_the_threshold_itself_makes_no_key():
    assert cubes.key_representations(torch.tensor([0.0, 0.005, 0.0051], dtype=torch.float64)) == (2,)


def test_tables_of_part_of_the_pairs_or_of_another_group_are_refused():
    chars = characters(named("S_3"))
    with pytest.raises(UserError, match=r"expected all n² = 36 pairs, got 30: pass task.all_inputs\(\)"):
        cubes.cube_fit(torch.zeros(30, 6), chars)
    with pytest.raises(UserError, match="expected 6 logits, one per element of S_3, got 7"):
        cubes.cube_fit(torch.zeros(36, 7), chars)
    with pytest.raises(UserError, match="expected all n² = 36 pairs, got 30"):
        cubes.hidden_shares(torch.zeros(30, 2), chars)
