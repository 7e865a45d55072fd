"""Sparse parity: networks built by hand that know the rule, the table, the wrong bits or nothing."""

import math
from dataclasses import replace

import pytest
import torch

from interp.sparse_parity import parity
from interp.sparse_parity.parity import relevant_share
from interp.subject import Subject
from tasks.base import UserError
from tasks.families.modular import ModularArithmetic
from tasks.families.parity import SparseParity
from tasks.models.config import MLPConfig
from tasks.models.parity_network import parity_network, parity_table

TASK = SparseParity(n_bits=16, k=3, n_train=100, n_test=500)


def examined(built, task: SparseParity = TASK) -> parity.ParityResult:
    return parity.analyze(Subject.of(*built, task), n_samples=1_000)


@pytest.fixture(scope="module")
def knows_the_rule() -> parity.ParityResult:
    return examined(parity_network(TASK, 12))


@pytest.fixture(scope="module")
def knows_the_table() -> parity.ParityResult:
    return examined(parity_table(TASK))


@pytest.mark.parametrize("k", [2, 3])
def test_a_network_that_knows_the_rule_has_coefficient_one_and_reads_the_relevant_bits_alone(k: int) -> None:
    task = SparseParity(n_bits=9, k=k, n_train=100, n_test=500)
    found = examined(parity_network(task, 8), task)  # 512 inputs: all there are
    assert found.solution == "generalising by k bits"
    assert (found.walsh.value, found.walsh.method, found.walsh.n) == (1.0, "none", 512)
    assert found.largest_other == 0.0
    assert found.placebo_walsh == 0.0
    assert (found.relevant_share, found.distractor_mass, found.placebo_share) == (1.0, 0.0, 0.0)
    assert found.relevant_mass == pytest.approx(sum(i * i for i in range(k + 2)))
    assert found.influence.tolist() == [1.0] * k + [0.0] * (9 - k)
    assert (found.sensitivity, found.relevant_influence, found.distractor_influence) == (k, 1.0, 0.0)
    assert (found.subnetwork.size, found.subnetwork.neurons) == (k + 1, 8)
    assert found.subnetwork.faithfulness.value == 1.0


def test_random_weights_and_random_neurons_do_none_of_it(knows_the_rule) -> None:
    assert abs(knows_the_rule.control_walsh) < 0.1
    assert knows_the_rule.control_relevant_share == pytest.approx(3 / 16, abs=0.08)
    assert knows_the_rule.subnetwork.random_accuracy < 0.7
    assert knows_the_rule.subnetwork.random_faithfulness < 0.7
    assert knows_the_rule.walsh.low > 0.99
    assert abs(knows_the_rule.largest_other) < 0.15


def test_a_network_that_knows_the_table_has_no_coefficient_no_few_neurons_and_reads_all_bits(knows_the_table) -> None:
    found = knows_the_table
    assert found.solution == "memorising"
    assert found.train_accuracy == 1.0
    assert found.walsh.low < 0 < found.walsh.high
    assert found.relevant_share == pytest.approx(3 / 16)
    assert found.placebo_share == pytest.approx(3 / 16)
    # a neuron per example; those that answer 0 write what is the answer anyway, but stand among the others
    assert found.subnetwork.size > 0.9 * found.subnetwork.neurons
    assert found.subnetwork.random_accuracy > 0.9


def test_a_network_that_knows_the_parity_of_other_bits_is_told_by_the_largest_other_subset() -> None:
    config, params = parity_network(TASK)
    moved = dict(params)
    moved["layers.0.W_in"] = params["layers.0.W_in"].clone()
    moved["layers.0.W_in"][:16] = params["layers.0.W_in"][:16].roll(5, dims=0)
    found = examined((config, moved))
    assert (found.largest_other_subset, found.largest_other) == ((5, 6, 7), pytest.approx(1.0))
    assert (found.relevant_share, found.sensitivity) == (0.0, 3.0)
    assert abs(found.walsh.value) < 0.1
    assert found.solution == "undetermined"  # it does not answer the training set


def test_two_logits_with_biases_say_what_one_logit_says(knows_the_rule) -> None:
    config, params = parity_network(TASK, 12)
    both = replace(config, one_logit=False, output_bias=True)
    W_U = params["unembed.W_U"]
    shifted = torch.cat([-0.5 * W_U, 0.5 * W_U], dim=1)
    found = examined((both, params | {"unembed.W_U": shifted, "unembed.b_U": torch.tensor([0.7, 0.3])}))
    assert found.walsh.value == knows_the_rule.walsh.value == 1.0
    assert found.influence.tolist() == knows_the_rule.influence.tolist()
    assert found.subnetwork.size == 4
    assert found.subnetwork.faithfulness.value == 1.0


def test_the_output_bias_stays_whatever_neurons_are_dropped() -> None:
    config, params = parity_network(TASK, 12)
    W_in, W_U = (params[name].clone() for name in ("layers.0.W_in", "unembed.W_U"))
    W_in[-1, 11], W_U[11] = 1.0, 1.5  # the last neuron adds 1.5, the bias takes it away again
    biased = {"layers.0.W_in": W_in, "unembed.W_U": W_U, "unembed.b_U": torch.tensor([-1.5])}
    found = examined((replace(config, output_bias=True), biased))
    assert found.walsh.value == 1.0
    assert (found.subnetwork.size, found.subnetwork.faithfulness.value) == (12, 1.0)
    assert found.subnetwork.top_accuracy[10] < 0.7  # without the last neuron the answer is always 0


def test_a_weight_on_the_constant_is_a_bias_and_adds_nothing_to_a_neurons_norm() -> None:
    config, params = parity_network(TASK, 12)
    W_in = params["layers.0.W_in"].clone()
    W_in[-1, 5] = 100.0  # a neuron that nothing reads
    assert examined((config, params | {"layers.0.W_in": W_in})).subnetwork.size == 4


def test_renaming_neurons_and_scaling_them_against_their_output_changes_no_answer(knows_the_rule) -> None:
    config, params = parity_network(TASK, 12)
    order = torch.randperm(12, generator=torch.Generator().manual_seed(0))
    found = examined((config, {"layers.0.W_in": 2 * params["layers.0.W_in"][:, order],
                               "unembed.W_U": params["unembed.W_U"][order] / 2}))  # fmt: skip
    assert found.walsh == knows_the_rule.walsh
    assert found.subnetwork.size == knows_the_rule.subnetwork.size
    assert found.relevant_share == knows_the_rule.relevant_share
    assert found.relevant_mass == pytest.approx(4 * knows_the_rule.relevant_mass)
    assert torch.equal(found.W_in, 2 * knows_the_rule.W_in)


@pytest.mark.parametrize(
    ("change", "solution"),
    [
        ({}, "generalising by k bits"),
        ({"train_accuracy": 0.98}, "undetermined"),
        ({"test_accuracy": 0.98}, "undetermined"),
        ({"relevant_share": 0.5}, "undetermined"),
        ({"control_relevant_share": 0.51}, "undetermined"),
        ({"walsh": 0.94}, "undetermined"),
        ({"walsh": 0.21, "test_accuracy": 0.6}, "undetermined"),
        ({"walsh": 0.19, "test_accuracy": 0.6}, "memorising"),
        ({"walsh": -0.21, "test_accuracy": 0.4}, "undetermined"),
    ],
)
def test_each_condition_of_the_rule_is_needed(knows_the_rule, change, solution) -> None:
    if "walsh" in change:
        change = change | {"walsh": replace(knows_the_rule.walsh, value=change["walsh"])}
    assert parity.solution(replace(knows_the_rule, **change)) == solution


def test_where_most_bits_are_relevant_mass_says_nothing_and_there_is_no_placebo() -> None:
    task = SparseParity(n_bits=4, k=3, n_train=50, n_test=50)
    found = examined(parity_network(task), task)
    assert found.walsh.value == 1.0
    assert found.control_relevant_share > 0.5
    assert found.solution == "undetermined"
    assert math.isnan(found.placebo_walsh)
    assert math.isnan(found.placebo_share)


def test_the_share_of_a_subset_is_that_of_its_squared_weights() -> None:
    W = torch.tensor([[3.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
    assert relevant_share(W, (0, 2)) == pytest.approx(11 / 12)
    assert math.isnan(relevant_share(torch.zeros(2, 3), (0,)))


def test_what_is_no_layer_of_bits_is_refused() -> None:
    deep = MLPConfig(n_ctx=16, d_vocab=2, d_vocab_out=2, d_hidden=(4, 4))
    with pytest.raises(UserError, match="expected an MLP with one hidden layer that reads bits"):
        parity.analyze(Subject.of(deep, {}, TASK))
    modular = ModularArithmetic(p=2)
    with pytest.raises(UserError, match="expected a sparse parity, got a task of the family modular"):
        parity.analyze(Subject.of(MLPConfig(n_ctx=3, d_vocab=3, d_vocab_out=2, d_hidden=(4,)), {}, modular))


def test_the_figures_show_the_weights_the_bits_and_the_subnetworks(knows_the_rule) -> None:
    made = parity.figures(knows_the_rule)
    assert list(made) == ["weights", "influence", "subnetworks"]
    assert [list(row) for row in made["weights"].data[0].z] == knows_the_rule.W_in.T.tolist()
    assert made["weights"].data[0].x[-1] == "constant"
    assert list(made["influence"].data[0].y) == [1.0] * 3 + [0.0] * 13
    assert list(made["subnetworks"].data[0].y)[3:] == [1.0] * 9
