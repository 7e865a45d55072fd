"""Intervals and controls against what can be worked out."""

import math

import numpy as np
import pytest
import torch

from interp import statistics
from tasks.base import UserError


def gaussian(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def test_the_interval_of_independent_values_is_that_of_the_normal_approximation():
    values = 3 + 2 * gaussian(400)
    found = statistics.mean(values)
    assert found.value == pytest.approx(float(values.mean()))
    assert (found.high - found.low) / 2 == pytest.approx(1.96 * float(values.std()) / 20, rel=0.1)
    assert found.low < found.value < found.high
    assert (found.n, found.n_units, found.method) == (400, 400, "bootstrap")


def test_copies_within_a_unit_make_no_interval_narrower():
    values = gaussian(50)
    single = statistics.mean(values)
    copied = statistics.mean(values.repeat_interleave(20), torch.arange(50).repeat_interleave(20))
    assert (copied.low, copied.high) == pytest.approx((single.low, single.high))
    assert (copied.n, copied.n_units) == (1000, 50)


def test_units_may_be_named_and_ordered_in_any_way():
    values, units = gaussian(12), torch.tensor([7, -3, 7, 100] * 3)
    order = torch.randperm(12, generator=torch.Generator().manual_seed(0))
    found, moved = statistics.mean(values, units), statistics.mean(values[order], units[order])
    assert (moved.value, moved.low, moved.high) == pytest.approx((found.value, found.low, found.high))
    assert found.n_units == 3


def test_a_larger_unit_weighs_more():
    found = statistics.mean(torch.tensor([0.0, 0.0, 0.0, 1.0]), torch.tensor([0, 0, 0, 1]))
    assert found.value == 0.25
    assert (found.low, found.high) == (0.0, 1.0)


def test_the_same_seed_gives_the_same_interval_and_another_one_nearly():
    values = gaussian(60)
    assert statistics.mean(values, seed=3) == statistics.mean(values, seed=3)
    assert statistics.mean(values, seed=4).low != statistics.mean(values, seed=3).low
    assert statistics.mean(values, seed=4).low == pytest.approx(statistics.mean(values, seed=3).low, abs=0.05)


@pytest.mark.slow
def test_nine_of_ten_intervals_at_level_90_cover_the_mean():
    covered = [
        interval.low < 0 < interval.high
        for interval in (statistics.mean(gaussian(60, seed=seed), level=0.9) for seed in range(150))
    ]
    assert np.mean(covered) == pytest.approx(0.9, abs=0.06)  # two and a half standard errors


def test_nothing_is_said_from_one_unit_or_from_equal_values():
    for values, units in [(gaussian(5), torch.zeros(5, dtype=torch.int64)), (torch.full((5,), 2.0), None)]:
        found = statistics.mean(values, units)
        assert found.method == "none"
        assert math.isnan(found.low)
        assert math.isnan(found.high)


@pytest.mark.parametrize("n", [1, 40])
def test_wilson_at_the_edge_ends_at_n_over_n_plus_z_squared(n):
    bound = n / (n + 1.959964**2)
    assert statistics.wilson(1.0, n) == pytest.approx((bound, 1.0), abs=1e-6)
    assert statistics.wilson(0.0, n) == pytest.approx((0.0, 1 - bound), abs=1e-6)


def test_wilson_of_half_is_symmetric_with_the_half_width_worked_by_hand():
    # z √(1/400 + z²/40000)/(1 + z²/100)
    assert statistics.wilson(0.5, 100) == pytest.approx((0.5 - 0.096168, 0.5 + 0.096168), abs=1e-6)


def test_a_share_on_which_all_units_agree_gets_wilsons_interval_on_their_number():
    found = statistics.share(torch.ones(400, dtype=torch.bool), torch.arange(400) // 10)
    assert (found.low, found.high) == statistics.wilson(1.0, 40)
    assert (found.value, found.n, found.n_units, found.method) == (1.0, 400, 40, "wilson")


def test_a_share_with_spread_is_bootstrapped():
    hits = torch.arange(200) % 4 == 0
    found = statistics.share(hits)
    assert (found.value, found.method) == (0.25, "bootstrap")
    assert (found.low, found.high) == pytest.approx(statistics.wilson(0.25, 200), abs=0.01)


def test_empty_and_unequal_input_is_refused():
    with pytest.raises(UserError, match="at least one value"):
        statistics.mean(torch.zeros(0))
    with pytest.raises(UserError, match="got 2 units for 3 values"):
        statistics._per_unit(torch.zeros(3), torch.zeros(2, dtype=torch.int64))


def test_an_ordered_sequence_is_rare_among_its_permutations_and_a_symmetric_statistic_is_not():
    x = torch.arange(30, dtype=torch.float64)
    assert statistics.permutation_p_value(lambda rows: float(rows @ x), x, n_permutations=99) == 0.01
    assert statistics.permutation_p_value(lambda rows: float(rows.max()), x, n_permutations=99) == 1.0


def test_random_weights_keep_scale_shape_and_biases_and_share_nothing_else():
    params = {
        "blocks.0.mlp.W_in": 0.3 * gaussian(60, 50).float() + 2,
        "blocks.0.mlp.b_in": gaussian(50).float(),
        "blocks.0.ln1.w": torch.ones(60),
        "unembed.W_U": torch.zeros(60, 5),
    }
    drawn = statistics.random_weights(params, seed=0)
    assert list(drawn) == list(params)
    assert drawn["blocks.0.mlp.b_in"] is params["blocks.0.mlp.b_in"]
    assert drawn["blocks.0.ln1.w"] is params["blocks.0.ln1.w"]
    W = drawn["blocks.0.mlp.W_in"]
    assert W.dtype == torch.float32
    assert float(W.std()) == pytest.approx(0.3, rel=0.05)
    assert abs(float(W.mean())) < 0.03
    assert abs(float(torch.corrcoef(torch.stack([W.flatten(), params["blocks.0.mlp.W_in"].flatten()]))[0, 1])) < 0.06
    assert torch.equal(drawn["unembed.W_U"], torch.zeros(60, 5))
    assert torch.equal(W, statistics.random_weights(params, seed=0)["blocks.0.mlp.W_in"])
    assert not torch.equal(W, statistics.random_weights(params, seed=1)["blocks.0.mlp.W_in"])
