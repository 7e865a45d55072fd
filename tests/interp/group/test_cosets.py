"""Subgroups against known counts, coset shares against functions made to be constant on cosets, and against Fourier."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from interp.group import cosets
from interp.modular import fourier
from tasks.base import UserError
from tasks.finite_groups import closure, named


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def additive(f: Tensor, g: Tensor) -> Tensor:
    """f(a) + g(b) over all pairs."""
    return (f.unsqueeze(1) + g).flatten(0, 1)


@pytest.mark.parametrize(
    ("name", "n_subgroups"), [("C_1", 1), ("C_7", 2), ("C_12", 6), ("C_2xC_2", 5), ("D_4", 10), ("D_7", 10)]
)
def test_small_groups_have_their_known_number_of_subgroups(name, n_subgroups):
    assert len(cosets.subgroups(named(name))) == n_subgroups


@pytest.mark.parametrize(("name", "n_subgroups"), [("S_3", 6), ("S_4", 30), ("A_4", 10), ("A_5", 59)])
def test_permutation_groups_have_their_known_number_of_subgroups(name, n_subgroups):
    group = named(name)
    found = cosets.subgroups(group)
    assert len(found) == n_subgroups == len({K.tobytes() for K in found})
    sizes = found.sum(1)
    assert (group.order % sizes == 0).all()
    assert (np.diff(sizes) <= 0).all()
    for K in found:
        assert (closure(group.table, K.nonzero()[0]) == K).all()


@pytest.mark.slow
def test_s5_has_156_subgroups():
    assert len(cosets.subgroups(named("S_5"))) == 156


@settings(max_examples=20, deadline=None)
@given(name=st.sampled_from(["S_4", "D_6", "A_4", "C_12"]), which=st.integers(0, 99), seed=st.integers(0, 99))
def test_left_cosets_are_xk_and_a_function_of_them_alone_is_explained(name, which, seed):
    group = named(name)
    found = cosets.subgroups(group)
    K = found[which % (len(found) - 1) + 1]
    for side in ("left", "right"):
        labels = cosets.cosets(group, K, side)
        assert labels.bincount().tolist() == [K.sum()] * (group.order // K.sum())
        x, k = 3 % group.order, int(K.nonzero()[0][-1])
        assert labels[group.table[x, k] if side == "left" else group.table[k, x]] == labels[x]
        W = noise(int(labels.max()) + 1, 3, seed=seed)[labels]
        assert torch.allclose(cosets.coset_share(W, group, K, side), torch.ones(3, dtype=torch.float64))


@settings(max_examples=20, deadline=None)
@given(n=st.sampled_from([8, 12, 30]), seed=st.integers(0, 99))
def test_on_a_cyclic_group_cosets_explain_the_frequencies_that_their_subgroup_divides(n, seed):
    group = named(f"C_{n}")
    W = noise(n, 1, seed=seed)
    power = fourier.power_spectrum(W)
    for K in cosets.subgroups(group):
        multiples = torch.arange(1, n // 2 + 1) % int(K.sum()) == 0
        for side in ("left", "right"):
            share = cosets.coset_share(W, group, K, side)
            assert float(share) == pytest.approx(float(power[multiples].sum()), abs=1e-12)


def test_a_neuron_of_one_frequency_sees_the_cosets_of_what_the_frequency_does_not_see():
    n = 12
    x = torch.arange(n, dtype=torch.float64)
    waves = torch.stack([torch.cos(2 * torch.pi * k * x / n + 0.4) for k in (1, 2, 3, 4, 6)], dim=1)
    found = cosets.neuron_cosets(additive(waves, 0.5 * waves), named(f"C_{n}"))
    assert found is not None
    assert found.subgroup_order.tolist()[1:] == [2, 3, 4, 6]
    assert torch.allclose(found.beyond_chance[1:], torch.ones(4, dtype=torch.float64))
    assert float(found.beyond_chance[0]) < 0  # a wave around the whole circle is constant on no coset
    assert found.on_cosets.tolist() == [False, True, True, True, True]


def test_neurons_on_cosets_of_s4_are_found_with_their_subgroup_and_the_sides_matter():
    group = named("S_4")
    K = next(K for K in cosets.subgroups(group) if K.sum() == 6)  # of index 4 and not normal
    left, right = (cosets.cosets(group, K, side) for side in ("left", "right"))
    f, g = noise(4, 5)[left], noise(4, 5, seed=1)[right]
    found = cosets.neuron_cosets(additive(f, g), group)
    assert found is not None
    assert found.subgroup_order.tolist() == [6] * 5
    assert torch.allclose(found.share, torch.ones(5, dtype=torch.float64))
    swapped = cosets.neuron_cosets(additive(g, f), group)
    assert swapped is not None
    assert bool((swapped.beyond_chance < 0.99).all())


def test_what_depends_on_both_factors_jointly_is_not_explained():
    group = named("D_6")
    K = next(K for K in cosets.subgroups(group) if K.sum() == 6)
    f = noise(2, 1)[cosets.cosets(group, K, "left")]
    table = additive(f, torch.zeros_like(f))
    together = (f.unsqueeze(1) * (f - f.mean(0))).flatten(0, 1) - f.mean() * additive(
        torch.zeros_like(f), f - f.mean(0)
    )
    scale = (table - table.mean()).norm() / together.norm()
    found = cosets.neuron_cosets(table + together * scale, group)
    assert found is not None
    assert float(found.share) == pytest.approx(0.5)
    assert float(found.beyond_chance) == pytest.approx(1)


def test_random_functions_are_explained_to_the_extent_of_chance():
    group = named("S_4")
    f = noise(24, 4000)
    for K in cosets.subgroups(group)[1:-1:7]:
        chance = (24 / K.sum() - 1) / 23
        assert float(cosets.coset_share(f, group, K).mean()) == pytest.approx(chance, abs=0.01)
    found = cosets.neuron_cosets(additive(f[:, :200], f[:, 200:400]), group)
    assert found is not None
    assert 0 < float(found.beyond_chance.mean()) < 0.4  # the best of 28 subgroups
    assert not found.on_cosets.any()


def test_a_silent_neuron_is_on_no_coset_and_a_group_of_prime_order_has_none_to_offer():
    table = additive(noise(6, 2), noise(6, 2))
    table[:, 1] = 0.3
    found = cosets.neuron_cosets(table, named("S_3"))
    assert found is not None
    assert int(found.subgroup_order[1]) == 0
    assert bool(found.share[1].isnan())
    assert not found.on_cosets[1]
    assert cosets.neuron_cosets(noise(49, 2), named("C_7")) is None


def test_part_of_the_pairs_and_groups_that_are_too_large_are_refused():
    with pytest.raises(UserError, match="expected all n² = 36 pairs, got 30"):
        cosets.neuron_cosets(noise(30, 2), named("S_3"))
    with pytest.raises(UserError, match="up to 250, got S_6 of order 720"):
        cosets.subgroups(named("S_6"))
