"""Condensation against neurons whose directions are known."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from interp.subject import Subject, linear_maps
from interp.weights import condensation
from tasks.base import UserError
from tasks.families.modular import ModularArithmetic
from tasks.models.constructed import lookup_table, pizza


def gaussian(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def bundles(sizes: list[int], spread: float = 0.05, d_in: int = 40, seed: int = 0) -> Tensor:
    """Neurons around one random direction per bundle."""
    centres = torch.linalg.qr(gaussian(d_in, len(sizes), seed=seed)).Q
    columns = centres.repeat_interleave(torch.tensor(sizes), dim=1)
    return columns + spread * gaussian(d_in, sum(sizes), seed=seed + 1)


def test_cosines_equal_those_worked_by_hand():
    W = torch.tensor([[3.0, 1.0, -2.0, 0.0], [4.0, 0.0, 0.0, 0.0]])
    by_hand = [[1, 0.6, -0.6, 0], [0.6, 1, -1, 0], [-0.6, -1, 1, 0], [0, 0, 0, 0]]
    assert torch.allclose(condensation.cosines(W), torch.tensor(by_hand, dtype=torch.float64))


def test_greedy_groups_take_what_is_near_the_pivot_and_not_what_is_near_its_friends():
    degrees = torch.tensor([0.0, 40.0, 80.0, 20.0, 100.0])  # cos 40° = .77, cos 80° = .17
    W = torch.stack([torch.deg2rad(degrees).cos(), torch.deg2rad(degrees).sin()])
    assert condensation.greedy_groups(condensation.cosines(W)) == [(0, 1, 3), (2, 4)]


def test_duplicated_neurons_are_one_direction():
    found = condensation.condensation(gaussian(30, 1).repeat(1, 12))
    assert (found.directions, found.condensed_share, found.opposite_share) == (1, 1.0, 0.0)
    assert found.mean_absolute_cosine == pytest.approx(1)


def test_opposite_neurons_are_two_directions_and_counted_as_opposite_pairs():
    column = gaussian(30, 1)
    found = condensation.condensation(torch.cat([column.repeat(1, 5), -column.repeat(1, 5)], dim=1))
    assert (found.directions, found.condensed_share) == (2, 1.0)
    assert found.opposite_share == pytest.approx(25 / 45)


def test_a_group_of_four_is_no_direction():
    found = condensation.condensation(bundles([4, 6, 1]))
    assert (found.groups, found.directions) == (3, 1)
    assert found.condensed_share == pytest.approx(6 / 11)


def test_the_loose_threshold_groups_what_the_strict_one_leaves_apart():
    found = condensation.condensation(bundles([10, 10], spread=0.06, d_in=200))  # cosines near 1/(1 + 200 · .06²) = .58
    assert found.directions == 0
    assert (found.loose_directions, found.loose_condensed_share) == (2, 1.0)


def test_random_neurons_of_400_inputs_have_the_recomputed_cosines():
    found = condensation.condensation(gaussian(400, 200))
    assert found.mean_absolute_cosine == pytest.approx(0.040, abs=0.001)
    assert found.max_absolute_cosine == pytest.approx(0.21, abs=0.03)
    assert (found.groups, found.directions, found.condensed_share, found.opposite_share) == (200, 0, 0.0, 0.0)


def test_one_neuron_has_no_pairs_to_measure():
    found = condensation.condensation(gaussian(5, 1)).to_dict()
    assert found["mean_absolute_cosine"] is None
    assert found["condensed_share"] == 0


@settings(max_examples=20, deadline=None)
@given(order=st.permutations(range(18)), seed=st.integers(0, 50))
def test_the_order_and_the_size_of_neurons_change_nothing(order, seed):
    W = bundles([7, 6, 5], seed=seed)
    sizes = torch.linspace(0.1, 9, 18, dtype=torch.float64)
    found, moved = condensation.condensation(W), condensation.condensation((W * sizes)[:, order])
    for name, value in found.to_dict().items():
        assert getattr(moved, name) == pytest.approx(value, abs=1e-12)
    assert found.directions == 3


@pytest.mark.parametrize("how", ["greedy", "hierarchical"])
def test_both_orders_put_each_bundle_in_one_block(how):
    shuffled = torch.randperm(18, generator=torch.Generator().manual_seed(3))
    bundle = torch.tensor([0] * 7 + [1] * 6 + [2] * 5)[shuffled]
    cosine = condensation.cosines(bundles([7, 6, 5])[:, shuffled])
    if how == "greedy":
        order = condensation.greedy_order(condensation.greedy_groups(cosine))
    else:
        order = condensation.hierarchical_order(cosine)
    assert sorted(order) == list(range(18))
    assert len(torch.unique_consecutive(bundle[order])) == 3


def test_where_one_token_alone_asks_the_mlp_is_the_headline():
    task = ModularArithmetic(p=31, form="equation")
    result = condensation.analyze(Subject.of(*pizza(task, (3, 4, 11)), task))
    assert list(result.matrices) == ["blocks.0.mlp.W_in", "blocks.0.attn.W_Q"]
    assert result.headline == "blocks.0.mlp.W_in"


def test_analysis_reads_the_queries_of_all_heads_and_the_mlp():
    task = ModularArithmetic(p=31, form="pair")
    config, params = pizza(task, (3, 4, 11))
    params["blocks.0.attn.W_Q"] = gaussian(1, config.d_model, 1).expand(1, -1, config.d_head).float()
    result = condensation.analyze(Subject.of(config, params, task))
    assert result.headline == "blocks.0.attn.W_Q"
    assert list(result.matrices) == ["blocks.0.attn.W_Q", "blocks.0.mlp.W_in"]
    assert (result.groups, result.directions, result.condensed_share) == (1, 1, 1.0)
    assert (result.control_groups, result.control_directions) == (result.control[result.headline].groups, 0)
    assert result.control_groups > 1
    # nine neurons on each circle, 40° apart: each sees two with cosine .77, and those of other circles not at all
    assert result.matrices["blocks.0.mlp.W_in"].directions == 0
    assert result.matrices["blocks.0.mlp.W_in"].opposite_share == pytest.approx(3 * 9 / (27 * 26 / 2))


def test_any_linear_map_can_be_asked_for_and_no_other_name():
    task = ModularArithmetic(p=5)
    subject = Subject.of(*lookup_table(task), task)
    result = condensation.analyze(subject, matrices=["unembed.W_U", "blocks.0.attn.W_O"])
    assert result.headline == "unembed.W_U"
    assert torch.equal(result.cosines, condensation.cosines(linear_maps(subject.params)["unembed.W_U"]))
    with pytest.raises(UserError, match=r"no linear map 'W_Q': choose among embed\.W_E"):
        condensation.analyze(subject, matrices=["W_Q"])
