"""Layers whose smallest subnetwork is known by construction."""

import pytest
import torch

from interp.sparse_parity.subnetwork import Layer, smallest_size, smallest_subnetwork


def layer(contributions: list[list[float]], norms: list[float], bias: float = 0.0) -> Layer:
    return Layer(contributions=torch.tensor(contributions).float(), norms=torch.tensor(norms), bias=bias)


NORMS = [1.0, 3.0, 2.0]
SEEN = layer([[5, 1, -2], [-5, -1, 2], [5, 1, 2]], NORMS, bias=-0.5)  # by norm: columns 1, 2, 0


def test_neurons_are_added_in_descending_order_of_norm_and_the_bias_is_always_there() -> None:
    # margins: 0.5, −1.5, 3.5; −1.5, 0.5, −4.5; 0.5, 2.5, 7.5
    assert SEEN.top_answers().tolist() == [[1, 0, 1], [0, 1, 0], [1, 1, 1]]
    assert SEEN.answers_of(torch.tensor([2])).tolist() == [0, 1, 1]
    assert layer([[0.4]], [1.0], bias=-0.5).top_answers().tolist() == [[0]]


def test_neurons_of_equal_norm_keep_their_order() -> None:
    tied = layer([[1.0, -3.0, 4.0]], [1.0, 1.0, 1.0])
    assert tied.top_answers().tolist() == [[1, 0, 1]]


def test_the_smallest_size_is_the_first_that_is_as_accurate_up_to_the_tolerance() -> None:
    accuracy = torch.tensor([0.5, 0.985, 0.97, 0.99, 1.0])
    assert smallest_size(accuracy, 0.0) == 5
    assert smallest_size(accuracy, 0.011) == 4
    assert smallest_size(accuracy, 0.02) == 2


def test_faithfulness_is_agreement_with_the_network_not_with_the_truth() -> None:
    targets = torch.tensor([1, 0, 1])
    unseen = layer([[0.0, 1.0, 0.0], [0.0, 1.0, 0.0], [0.0, -1.0, 3.0], [-9.0, 1.0, 0.0]], NORMS)
    network = unseen.top_answers()[:, -1]
    assert network.tolist() == [1, 1, 1, 0]
    found = smallest_subnetwork(SEEN, targets, unseen, network)
    assert (found.neurons, found.size, found.accuracy) == (3, 1, 1.0)
    assert found.faithfulness.value == 0.5  # the neuron of largest norm says 1, 1, 0, 1
    assert found.top_accuracy.tolist() == pytest.approx([1.0, 1 / 3, 1.0])
    assert found.top_faithfulness.tolist() == [0.5, 0.75, 1.0]
    assert found.faithfulness.low < 0.5 < found.faithfulness.high


def test_random_neurons_do_not_do_what_the_largest_do() -> None:
    n, targets = 50, torch.arange(40) % 2
    contributions = torch.zeros(40, n)
    contributions[:, 7] = 2.0 * targets - 1
    one = Layer(contributions=contributions, norms=torch.where(torch.arange(n) == 7, 5.0, 1.0))
    found = smallest_subnetwork(one, targets, one, targets)
    assert (found.size, found.accuracy, found.faithfulness.value) == (1, 1.0, 1.0)
    assert found.random_accuracy == pytest.approx(0.5 + 0.5 / n, abs=0.06)  # one draw in 50 hits the neuron
    assert found.random_faithfulness == found.random_accuracy
