"""Characters against tables from textbooks, explicit matrices, and the relations that any group's satisfy."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from interp.group.characters import Characters, characters, orthogonality_error
from tasks.finite_groups import Group, named

NAMES = ["C_1", "C_2", "C_7", "C_12", "D_1", "D_2", "D_4", "D_7", "S_1", "S_2", "S_3", "S_4", "S_5", "A_3", "A_4"]
NAMES += ["A_5", "C_2xS_3", "C_3xC_3", "C_2xC_2xC_2", "D_3xC_4"]


def quaternions() -> Group:
    """Q_8 = {±1, ±i, ±j, ±k}; the number is 2 · unit + sign."""
    units = [[(0, 0), (1, 0), (2, 0), (3, 0)], [(1, 0), (0, 1), (3, 0), (2, 1)]]
    units += [[(2, 0), (3, 1), (0, 1), (1, 0)], [(3, 0), (2, 0), (1, 1), (0, 1)]]
    x = np.arange(8)
    table = [[2 * units[a // 2][b // 2][0] + (units[a // 2][b // 2][1] + a + b) % 2 for b in x] for a in x]
    return Group(name="Q_8", table=np.array(table))


def column(chars: Characters, permutation: str) -> dict[str, float]:
    """Name → value at a permutation, given by its images."""
    images = chars.group.permutations.tolist()
    at = images.index([int(point) for point in permutation])
    return dict(zip(chars.names, chars.values[:, at].tolist(), strict=True))


@pytest.mark.parametrize("name", NAMES)
def test_there_is_a_character_per_class_and_the_ranks_fill_the_group(name):
    group = named(name)
    chars = characters(group)
    merged = {frozenset((int(group.classes[g]), int(group.classes[group.inverses[g]]))) for g in range(group.order)}
    complex_type = int((chars.norms == 2).sum())
    assert len(chars) == len(merged)
    assert len(chars) + complex_type == group.classes.max() + 1
    assert int(chars.ranks.sum()) == group.order
    assert orthogonality_error(group, chars.values.numpy(), chars.norms.numpy()) < 1e-10
    assert chars.names[0] == "trivial"
    assert chars.values[0].eq(1).all()
    assert len(set(chars.names)) == len(chars)


def test_s5_has_the_characters_of_the_textbook():
    chars = characters(named("S_5"))
    assert sorted(chars.degrees.tolist()) == [1, 1, 4, 4, 5, 5, 6]
    assert chars.names == ("trivial", "standard", "(3,2)", "(3,1,1)", "(2,2,1)", "standard × sign", "sign")
    assert list(column(chars, "10234").values()) == [1, 2, 1, 0, -1, -2, -1]  # a transposition
    assert list(column(chars, "12304").values()) == [1, 0, -1, 0, 1, 0, -1]  # a 4-cycle
    assert list(column(chars, "12340").values()) == [1, -1, 0, 1, 0, -1, 1]  # a 5-cycle


def test_s4_has_the_characters_of_the_textbook():
    chars = characters(named("S_4"))
    assert chars.names == ("trivial", "standard", "(2,2)", "standard × sign", "sign")
    assert list(column(chars, "1032").values()) == [1, -1, 2, -1, 1]
    assert list(column(chars, "1203").values()) == [1, 0, -1, 0, 1]


def test_a5_has_two_real_characters_of_degree_three_with_the_golden_ratio():
    chars = characters(named("A_5"))
    assert chars.degrees.tolist() == [1, 3, 3, 4, 5]
    assert chars.norms.eq(1).all()
    values = column(chars, "12340")
    golden = [(1 + math.sqrt(5)) / 2, (1 - math.sqrt(5)) / 2]
    assert sorted(values[f"3-dimensional {x}"] for x in "ab") == pytest.approx(sorted(golden), abs=1e-12)
    assert values["standard"] == -1


@pytest.mark.parametrize("n", [1, 2, 5, 8, 113])
def test_characters_of_a_cyclic_group_are_cosines(n):
    chars = characters(named(f"C_{n}"))
    k, x = torch.arange(n // 2 + 1, dtype=torch.float64), torch.arange(n, dtype=torch.float64)
    expected = 2 * torch.cos(2 * torch.pi * torch.outer(k, x) / n)
    expected[0] = 1
    if n % 2 == 0:
        expected[-1] /= 2
    assert torch.allclose(chars.values, expected, atol=1e-9)
    assert chars.names[1:] == tuple(f"frequency {i}" for i in range(1, n // 2 + 1))


@pytest.mark.parametrize("n", [3, 6, 7])
def test_characters_of_a_dihedral_group_are_twice_a_cosine_on_rotations(n):
    chars = characters(named(f"D_{n}"))
    for k in range(1, (n + 1) // 2):
        psi = chars.values[chars.names.index(f"frequency {k}")]
        assert torch.allclose(psi[:n], 2 * torch.cos(2 * torch.pi * k * torch.arange(n, dtype=torch.float64) / n))
        assert torch.allclose(psi[n:], torch.zeros(n, dtype=torch.float64), atol=1e-9)
    sign = chars.values[chars.names.index("sign")]
    assert sign.tolist() == [1] * n + [-1] * n


def test_the_three_types_are_told_apart():
    assert characters(named("S_3")).norms.tolist() == [1, 1, 1]
    assert characters(named("A_4")).norms.tolist() == [1, 2, 1]
    quaternionic = characters(quaternions())
    assert quaternionic.norms.tolist() == [1, 1, 1, 1, 4]
    assert quaternionic.values[-1].tolist() == [4, -4, 0, 0, 0, 0, 0, 0]
    assert quaternionic.ranks.tolist() == [1, 1, 1, 1, 4]


def test_representations_of_a_product_are_named_by_their_factors():
    chars = characters(named("C_2xS_3"))
    assert chars.names[0] == "trivial"
    place = chars.names.index("frequency 1 ⊗ standard")
    standard, alternating = characters(named("S_3")).values[1], torch.tensor([1.0, -1.0], dtype=torch.float64)
    assert torch.allclose(chars.values[place], torch.outer(alternating, standard).flatten())


@settings(max_examples=25, deadline=None)
@given(name=st.sampled_from(["C_6", "D_5", "S_4", "A_4", "A_5", "D_3xC_4"]), seed=st.integers(0, 99))
def test_renaming_the_elements_renames_the_columns_of_the_characters(name, seed):
    group = named(name)
    new = np.random.Generator(np.random.Philox(seed)).permutation(group.order)  # g is now called new[g]
    table = np.empty_like(group.table)
    table[new[:, None], new] = new[group.table]
    renamed = characters(Group(name="G", table=table))
    rows = {tuple(row) for row in renamed.values[:, torch.from_numpy(new)].numpy().round(6).tolist()}
    assert rows == {tuple(row) for row in characters(group).values.numpy().round(6).tolist()}


@pytest.mark.parametrize("name", ["C_7", "C_8", "D_5", "S_4", "A_5", "A_4", "C_3xC_3"])
def test_projectors_are_orthogonal_add_to_one_and_have_the_ranks(name):
    chars = characters(named(name))
    projectors = [chars.projector([i]) for i in range(len(chars))]
    n = chars.group.order
    assert torch.allclose(sum(projectors), torch.eye(n, dtype=torch.float64), atol=1e-10)
    for i, P in enumerate(projectors):
        assert torch.allclose(P @ P, P, atol=1e-10)
        assert float(P.trace()) == pytest.approx(int(chars.ranks[i]), abs=1e-10)
    assert torch.allclose(chars.projector([0, 1]), projectors[0] + projectors[1], atol=1e-12)


def test_a_projector_is_the_one_on_the_entries_of_explicit_matrices():
    chars = characters(named("S_4"))
    matrices = torch.eye(4, dtype=torch.float64)[torch.from_numpy(chars.group.permutations)]  # e_i ρ(g) = e_{g(i)}
    a, b = 5, 14
    assert torch.equal(matrices[chars.group.table[a, b]], matrices[a] @ matrices[b])
    Q = torch.linalg.qr(torch.cat([matrices[:, :3, :3].flatten(1) - 0.25, torch.ones(24, 1).double()], dim=1))[0]
    assert torch.allclose(chars.projector([0, 1]), Q @ Q.T, atol=1e-12)  # trivial and standard fill ten dimensions


def test_the_power_of_a_table_is_that_of_its_projections():
    chars = characters(named("A_5"))
    W = torch.randn(60, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    projected = torch.stack([(chars.projector([i]) @ W).pow(2).sum() for i in range(len(chars))])
    assert torch.allclose(chars.power(W), projected, atol=1e-10)
    assert float(chars.power(W).sum()) == pytest.approx(float(W.pow(2).sum()))


def test_values_that_are_no_characters_fail_the_orthogonality_relations():
    group = named("S_3")
    chars = characters(group)
    values, norms = chars.values.numpy(), chars.norms.numpy()
    assert orthogonality_error(group, values, norms) < 1e-12
    wrong = values.copy()
    wrong[1, -1] += 1e-6
    assert orthogonality_error(group, wrong, norms) > 1e-8
    assert orthogonality_error(group, values[[0, 0, 1]], norms) == 1
    assert orthogonality_error(group, values, norms * 2) == math.inf


@pytest.mark.parametrize(("name", "classes"), [("S_6", 11), ("C_113", 113), ("A_6", 7)])
def test_characters_of_large_groups_are_orthogonal_too(name, classes):
    group = named(name)
    chars = characters(group)
    # a character that is not real and its conjugate make one real representation
    assert chars.values.shape[0] <= classes
    assert orthogonality_error(group, chars.values.numpy(), chars.norms.numpy()) < 1e-10
