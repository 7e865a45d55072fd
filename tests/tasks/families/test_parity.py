"""Sparse parity: the rule, the samples, and what rebuilds them."""

import pytest
import torch

from tasks.base import UserError, digest
from tasks.families.parity import SparseParity
from tasks.registry import task_from_dict, task_to_dict


def test_the_answer_is_the_parity_of_the_first_k_bits_whatever_the_others():
    task = SparseParity(n_bits=5, k=3)
    inputs = torch.tensor([[1, 0, 0, 0, 0], [1, 1, 0, 1, 0], [1, 1, 1, 1, 1], [0, 0, 0, 1, 1]])
    assert task.answers(inputs).tolist() == [1, 0, 1, 0]


def test_samples_have_their_sizes_fair_bits_and_right_answers():
    task = SparseParity(n_train=750, n_test=5_000)
    for name, size in (("train", 750), ("test", 5_000)):
        examples = task.evaluation_sets()[name]
        assert examples.inputs.shape == (size, 30)
        assert torch.equal(examples.targets, task.answers(examples.inputs))
        # five standard deviations of a mean over size · 30 fair bits, and over size fair answers
        assert float(examples.inputs.double().mean()) == pytest.approx(0.5, abs=2.5 / (size * 30) ** 0.5)
        assert float(examples.targets.double().mean()) == pytest.approx(0.5, abs=2.5 / size**0.5)
    assert torch.equal(task.train_set().inputs, task.evaluation_sets()["train"].inputs)


def test_the_sample_follows_from_the_seed_and_comes_back_from_the_description():
    task = SparseParity(n_train=100, data_seed=3)
    assert digest(task_from_dict(task_to_dict(task)).train_set()) == digest(task.train_set())
    assert digest(SparseParity(n_train=100, data_seed=4).train_set()) != digest(task.train_set())
    longer = SparseParity(n_train=200, data_seed=3).train_set()
    assert torch.equal(longer.inputs[:100], task.train_set().inputs)  # a larger sample begins with the smaller one


@pytest.mark.parametrize(
    ("fields", "message"), [({"k": 31}, "expected k of at most n_bits = 30"), ({"k": 0}, "k of at least 1")]
)
def test_impossible_tasks_are_refused(fields, message):
    with pytest.raises(UserError, match=message):
        SparseParity(**fields)
