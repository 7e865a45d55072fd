"""A sum of sines: the numbers, the samples, and what rebuilds them."""

import hashlib
import math
import struct

import pytest
import torch

from tasks.base import Examples, UserError, digest
from tasks.families.regression import SineRegression
from tasks.registry import task_from_dict, task_to_dict


def test_the_target_is_the_sum_of_a_sine_of_every_coordinate():
    task = SineRegression(dimension=2)
    found = task.answers(torch.tensor([[0.0, 0.0], [-0.2, 1.5]]))
    by_hand = [[7 * math.sin(1)], [3.5 * math.sin(0) + 3.5 * math.sin(8.5)]]
    torch.testing.assert_close(found, torch.tensor(by_hand), rtol=1e-6, atol=1e-6)


def test_samples_have_their_sizes_fill_the_cube_and_carry_their_targets():
    task = SineRegression(n_train=80, n_test=4_000)
    for name, size in (("train", 80), ("test", 4_000)):
        examples = task.evaluation_sets()[name]
        assert examples.inputs.shape == (size, 5)
        assert examples.inputs.dtype == examples.targets.dtype == torch.float32
        assert float(examples.inputs.min()) >= -4
        assert float(examples.inputs.max()) <= 2
        # five standard deviations of the mean of size · 5 numbers with std 6/√12
        assert float(examples.inputs.mean()) == pytest.approx(-1, abs=5 * 1.73 / (size * 5) ** 0.5)
        assert torch.equal(examples.targets, task.answers(examples.inputs))
    assert torch.equal(task.train_set().inputs, task.evaluation_sets()["train"].inputs)


def test_the_sample_follows_from_the_seed_and_comes_back_from_the_description():
    task = SineRegression(dimension=3, data_seed=3)
    assert digest(task_from_dict(task_to_dict(task)).train_set()) == digest(task.train_set())
    assert digest(SineRegression(dimension=3, data_seed=4).train_set()) != digest(task.train_set())
    longer = SineRegression(dimension=3, n_train=200, data_seed=3).train_set()
    assert torch.equal(longer.inputs[:80], task.train_set().inputs)


def test_the_digest_of_numbers_is_that_of_their_little_endian_bytes():
    examples = Examples(inputs=torch.tensor([[0.5, -1.25]]), targets=torch.tensor([[3.0]], dtype=torch.float64))
    expected = hashlib.sha256(struct.pack("<2f", 0.5, -1.25) + struct.pack("<d", 3.0)).hexdigest()
    assert digest(examples) == expected


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"dimension": 0}, "expected dimension of at least 1"),
        ({"n_train": 0}, "expected n_train of at least 1"),
        ({"low": 2.0}, "expected low below high, got 2.0 and 2.0"),
    ],
)
def test_impossible_tasks_are_refused(fields, message):
    with pytest.raises(UserError, match=message):
        SineRegression(**fields)
