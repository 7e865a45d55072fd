"""Measures of the read-out with known answers."""

import pytest
import torch

from interp.modular.readout import inverse_participation_ratio
from tasks.families.modular import ModularArithmetic
from tasks.models.quadratic import gromov


def test_one_cosine_of_any_phase_has_an_inverse_participation_ratio_of_one():
    x, phase = torch.arange(97), torch.rand(48, 1, generator=torch.Generator().manual_seed(0))
    rows = torch.cos(2 * torch.pi * (torch.arange(1, 49).unsqueeze(1) * x % 97 / 97 + phase))
    torch.testing.assert_close(inverse_participation_ratio(rows), torch.ones(48, dtype=torch.float64))
    full = torch.fft.fft(rows.double(), dim=1).abs().pow(2)  # which counts k and p − k
    torch.testing.assert_close(full.pow(2).sum(1) / full.sum(1).pow(2), torch.full((48,), 0.5, dtype=torch.float64))


def test_gaussian_rows_have_that_of_about_four_over_p():
    rows = torch.randn(2000, 97, generator=torch.Generator().manual_seed(0))
    assert float(inverse_participation_ratio(rows).mean()) == pytest.approx(0.04, abs=0.002)


def test_two_equal_waves_share_it_and_scale_does_not_count():
    angle = 2 * torch.pi * torch.arange(31) / 31
    both = (torch.cos(3 * angle) + torch.sin(5 * angle)).unsqueeze(0)
    assert inverse_participation_ratio(torch.cat([both, 7 * both])).tolist() == pytest.approx([0.5, 0.5])


def test_every_row_of_the_quadratic_network_is_one_wave():
    p = 97
    params = gromov(ModularArithmetic(p=p, form="pair"), 97).params
    rows = torch.cat([params["layers.0.W_in"].T[:, :p], params["layers.0.W_in"].T[:, p:], params["unembed.W_U"]])
    assert inverse_participation_ratio(rows).min() > 1 - 1e-9
