"""Restricted and excluded losses: projections checked against products with whole matrices, losses by hand."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from interp import waves
from interp.modular import fourier, restricted
from tasks.base import UserError


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def sum_logits(p: int, weights: dict[int, float]) -> Tensor:
    return restricted.cosine_logits(p, weights)


def targets(p: int) -> Tensor:
    a, b = torch.arange(p).view(p, 1), torch.arange(p).view(1, p)
    return ((a + b) % p).flatten()


@pytest.mark.parametrize(("p", "keys"), [(11, (2, 5)), (12, (1, 6))])
def test_the_trig_part_is_a_projection_equal_to_the_whole_matrix(p, keys):
    D = waves.trig_directions(p)[[k - 1 for k in keys]].flatten(0, 1)
    P, table = D.T @ D, noise(p * p, 4)
    part = restricted.trig_part(table, p, keys)
    torch.testing.assert_close(part, P @ table)
    torch.testing.assert_close(restricted.trig_part(part, p, keys), part)


@pytest.mark.parametrize(("p", "k"), [(11, 3), (12, 6), (11, 5)])
def test_logits_of_one_key_are_all_restricted_and_nothing_excluded(p, k):
    logits = sum_logits(p, {k: 7.0})
    torch.testing.assert_close(restricted.restricted_logits(logits, [k]), logits)
    assert restricted.excluded_logits(logits, [k]).abs().max() < 1e-12
    assert restricted.trig_share(logits, p, [k]) == pytest.approx(1)


def test_the_mean_over_pairs_belongs_to_restricted_and_to_excluded_logits_alike():
    p, bias = 11, torch.arange(11.0, dtype=torch.float64)
    logits = sum_logits(p, {2: 3.0}) + bias
    torch.testing.assert_close(restricted.restricted_logits(logits, [2]), logits)
    torch.testing.assert_close(restricted.restricted_logits(logits, [2], with_mean=False), logits - bias)
    torch.testing.assert_close(restricted.excluded_logits(logits, [2]), bias.expand(p * p, p))


def test_both_at_once_are_the_restricted_and_the_excluded_logits_to_the_bit():
    logits = noise(169, 13) + torch.arange(13)
    kept, left = restricted.restricted_and_excluded(logits, [2, 6])
    assert torch.equal(kept, restricted.restricted_logits(logits, [2, 6]))
    assert torch.equal(left, restricted.excluded_logits(logits, [2, 6]))


def test_of_a_summand_the_waves_are_kept_or_removed_and_the_others_stay():
    waves, others, bias = sum_logits(13, {2: 1.0, 5: 3.0}), noise(169, 13), torch.arange(13.0)
    kept, left = restricted.restricted_and_excluded(waves + bias + others, [5], of=waves + bias)
    torch.testing.assert_close(kept, sum_logits(13, {5: 3.0}) + bias + others)
    torch.testing.assert_close(left, sum_logits(13, {2: 1.0}) + bias + others)


def test_waves_of_a_minus_b_or_of_a_alone_are_excluded():
    p, k = 11, 3
    a, b = torch.meshgrid(*[torch.arange(p, dtype=torch.float64)] * 2, indexing="ij")
    for angle in (a - b, a):
        wave = torch.cos(2 * torch.pi * k / p * angle).reshape(-1, 1).expand(-1, p)
        assert restricted.trig_share(wave, p, [k]) < 1e-20
        torch.testing.assert_close(restricted.excluded_logits(wave, [k]), wave)


def test_losses_are_split_by_the_mask_and_an_empty_split_has_none():
    logits = torch.zeros(9, 3, dtype=torch.float64)
    logits[0, 0] = math.log(2)  # probability of the right answer 2/4
    train = torch.zeros(9, dtype=torch.bool)
    train[0] = True
    found = restricted.split_loss(logits, targets(3), train)
    assert found.train == pytest.approx(math.log(2))
    assert found.test == pytest.approx(math.log(3))
    assert found.all == pytest.approx((math.log(2) + 8 * math.log(3)) / 9)
    assert math.isnan(restricted.split_loss(logits, targets(3), torch.ones(9, dtype=torch.bool)).test)


def test_the_cosine_approximation_has_one_loss_on_every_pair():
    p, weights = 13, {2: 4.0, 6: 3.0}
    losses = restricted.split_loss(sum_logits(p, weights), targets(p), torch.arange(p * p) < 40)
    one = restricted.cosine_restricted_loss(p, weights)
    assert (losses.train, losses.test, losses.all) == pytest.approx((one, one, one), rel=1e-12)


def test_the_two_definitions_differ_where_waves_are_uneven_over_answers():
    p = 13
    uneven = sum_logits(p, {3: 5.0}) * torch.linspace(0.5, 1.5, p, dtype=torch.float64)
    even, alpha = sum_logits(p, {3: 5.0}), float(fourier.cosine_fit(uneven, p).coefficient[2])
    assert restricted.cosine_excluded_logits(even, {3: 5.0}).abs().max() < 1e-12
    assert restricted.excluded_logits(uneven, [3]).abs().max() < 1e-12
    assert restricted.cosine_excluded_logits(uneven, {3: alpha}).abs().max() > 1


@settings(max_examples=20, deadline=None)
@given(shift=st.integers(0, 12), scale=st.floats(0.1, 10), seed=st.integers(0, 99))
def test_shifting_the_numbers_or_scaling_moves_no_share(shift, scale, seed):
    p, table = 13, noise(169, 5, seed=seed)
    moved = (scale * table).unflatten(0, (p, p)).roll((shift, 3 * shift), (0, 1)).flatten(0, 1)
    assert restricted.trig_share(moved, p, [2, 6]) == pytest.approx(restricted.trig_share(table, p, [2, 6]))


def test_a_constant_table_has_no_share():
    assert math.isnan(restricted.trig_share(torch.full((121, 3), 0.7), 11, [2]))


def test_placebo_frequencies_are_as_many_and_never_keys():
    for seed in range(20):
        drawn = restricted.placebo_keys(113, (3, 7, 56), seed)
        assert len(set(drawn)) == 3
        assert not {3, 7, 56} & set(drawn)
    assert restricted.placebo_keys(13, (1, 2, 3, 4), 0) == (5, 6)
    assert restricted.placebo_keys(113, (3, 7), 0) != restricted.placebo_keys(113, (3, 7), 1)


def test_a_part_of_the_table_and_frequencies_out_of_range_are_refused():
    with pytest.raises(UserError, match=r"expected all p² = 121 inputs, got 100"):
        restricted.trig_part(torch.zeros(100, 3), 11, [1])
    for k in (0, 6):
        with pytest.raises(UserError, match=f"expected frequencies from 1 to 5, got {k}"):
            restricted.key_directions(11, [1, k])
    with pytest.raises(UserError, match="expected each frequency once, got 2, 2"):
        restricted.trig_part(torch.zeros(121, 3), 11, [2, 2])
