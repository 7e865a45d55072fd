"""The Fourier basis and transforms of tables, against waves written by hand and products with whole matrices."""

import pytest
import torch
from torch import Tensor

from interp import waves

MODULI = (2, 3, 53, 56, 113)


def angles(p: int, k: int) -> Tensor:
    """ω_k(a + b) for all a and b, as a table [p²]."""
    a, b = torch.meshgrid(*[torch.arange(p, dtype=torch.float64)] * 2, indexing="ij")
    return (2 * torch.pi * k / p * (a + b)).flatten()


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("p", MODULI)
def test_the_basis_is_orthonormal_for_odd_and_even_moduli(p):
    F = waves.fourier_basis(p)
    assert torch.allclose(F @ F.T, torch.eye(p, dtype=torch.float64), atol=1e-12, rtol=0)


def test_the_basis_of_four_points_is_the_one_worked_by_hand():
    half, root = 0.5, 0.5**0.5
    by_hand = [
        [half, half, half, half],
        [root, 0, -root, 0],
        [0, root, 0, -root],
        [half, -half, half, -half],
    ]
    assert torch.allclose(waves.fourier_basis(4), torch.tensor(by_hand, dtype=torch.float64), atol=1e-15)


@pytest.mark.parametrize("p", [7, 8])
def test_trig_directions_are_unit_orthogonal_and_point_along_the_sum(p):
    directions = waves.trig_directions(p)
    for k in range(1, p // 2 + 1):
        cosine = torch.cos(angles(p, k))
        assert torch.allclose(directions[k - 1, 0], cosine / cosine.norm(), atol=1e-12)
        if 2 * k < p:
            sine = torch.sin(angles(p, k))
            assert torch.allclose(directions[k - 1, 1], sine / sine.norm(), atol=1e-12)
    flat = directions.flatten(0, 1)[: p - 1]  # for even p the last sine is 0
    assert torch.allclose(flat @ flat.T, torch.eye(p - 1, dtype=torch.float64), atol=1e-12)


@pytest.mark.parametrize("p", [11, 12])
def test_the_spectrum_keeps_sums_of_squares(p):
    table = noise(p * p, 4, 2)
    spectrum = waves.spectrum_2d(table, p)
    assert spectrum.shape == (p, p, 4, 2)
    assert torch.allclose(spectrum.pow(2).sum((0, 1)), table.pow(2).sum(0))


@pytest.mark.parametrize("p", [2, 3, 7, 8])
def test_the_blocks_are_the_entries_of_the_spectrum_that_mix_no_two_frequencies(p):
    table = noise(p * p, 3) + 2
    blocks, spectrum = waves.frequency_blocks(table, p), waves.spectrum_2d(table, p)
    for k in range(1, p // 2 + 1):
        rows = [0, 2 * k - 1, 2 * k][: 3 - (2 * k == p)]
        found = blocks.coefficients[k - 1, : len(rows), : len(rows)]
        torch.testing.assert_close(found, spectrum[rows][:, rows])
    if p % 2 == 0:
        assert not blocks.coefficients[-1, 2].any()
        assert not blocks.coefficients[-1, :, 2].any()
    torch.testing.assert_close(blocks.variation, (table - table.mean(0)).pow(2).sum(0))


@pytest.mark.parametrize("p", [7, 8])
def test_components_along_the_sum_from_the_blocks_equal_products_with_the_directions(p):
    table = noise(p * p, 3)
    torch.testing.assert_close(waves.frequency_blocks(table, p).trig, waves.trig_directions(p) @ table)


def test_only_columns_without_variation_are_constant():
    a = torch.arange(49.0, dtype=torch.float64)
    table = torch.stack([torch.full_like(a, 0.7), 0.7 + 1e-9 * a, torch.zeros_like(a)], dim=1)
    assert waves.frequency_blocks(table, 7).constant.tolist() == [True, False, True]
