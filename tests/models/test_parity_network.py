"""The networks built by hand for sparse parity do what they are said to do."""

import pytest
import torch

from tasks.base import UserError
from tasks.families.parity import SparseParity
from tasks.models import mlp
from tasks.models.parity_network import parity_network, parity_table


def logits(built, inputs: torch.Tensor) -> torch.Tensor:
    config, params = built
    return mlp.forward({name: value[None] for name, value in params.items()}, inputs[None], config)[0, :, 0, 0]


@pytest.mark.parametrize("k", [1, 2, 3, 5])
def test_the_logit_of_the_parity_network_is_one_where_the_parity_is_odd_and_minus_one_elsewhere(k: int) -> None:
    task = SparseParity(n_bits=7, k=k, n_train=50, n_test=200)
    for built in (parity_network(task), parity_network(task, 9)):
        examples = task.evaluation_sets()["test"]
        torch.testing.assert_close(logits(built, examples.inputs), 2.0 * examples.targets - 1, atol=1e-5, rtol=0)
        norms = built[1]["layers.0.W_in"][:7].norm(dim=0)
        torch.testing.assert_close(norms[: k + 1], torch.arange(k + 1.0, 0, -1))
        assert not norms[k + 1 :].any()


def test_every_proper_beginning_of_the_parity_network_is_wrong_on_some_inputs() -> None:
    task = SparseParity(n_bits=4, k=4, n_train=1, n_test=1)
    config, params = parity_network(task)
    inputs = torch.arange(16).unsqueeze(1) >> torch.arange(4) & 1
    for kept in range(5):
        cut = {name: value.clone() for name, value in params.items()}
        cut["unembed.W_U"][kept:] = 0
        assert ((logits((config, cut), inputs) > 0).long() != task.answers(inputs)).any()


def test_the_table_knows_its_examples_and_is_silent_on_all_others() -> None:
    task = SparseParity(n_bits=20, k=3, n_train=100, n_test=500)
    built, train, test = parity_table(task), task.train_set(), task.evaluation_sets()["test"]
    assert built[0].d_hidden == (100,)
    torch.testing.assert_close(logits(built, train.inputs), 2.0 * train.targets - 1)
    known = {tuple(row) for row in train.inputs.tolist()}
    new = torch.tensor([tuple(row) not in known for row in test.inputs.tolist()])
    assert new.sum() > 490
    assert not logits(built, test.inputs[new]).any()


def test_a_network_too_narrow_for_the_parity_is_refused() -> None:
    with pytest.raises(UserError, match="d_hidden of at least k \\+ 1 = 4, got 3"):
        parity_network(SparseParity(k=3), 3)
