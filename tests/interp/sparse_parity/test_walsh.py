"""Boolean functions worked by hand: parities, a constant, a majority."""

import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from interp.sparse_parity.walsh import bit_strings, influences, largest_coefficient, walsh_coefficient

ALL = bit_strings(3)
MAJORITY = (ALL.sum(1) >= 2).long()


def test_few_bits_give_every_input_and_many_a_sample_that_the_seed_decides() -> None:
    assert sorted(map(tuple, ALL.tolist())) == list(itertools.product((0, 1), repeat=3))
    assert bit_strings(12).shape == (4096, 12)
    many = bit_strings(40, 2_000, seed=1)
    assert many.shape == (2_000, 40)
    assert torch.equal(many, bit_strings(40, 2_000, seed=1))
    assert not torch.equal(many, bit_strings(40, 2_000, seed=2))
    assert many.double().mean() == pytest.approx(0.5, abs=4 * 0.5 / math.sqrt(80_000))


def test_a_parity_has_coefficient_one_on_its_subset_and_none_on_any_other() -> None:
    answers = (ALL[:, 0] + ALL[:, 2]) % 2
    found = {subset: walsh_coefficient(answers, ALL, subset) for n in range(4) for subset in subsets(n)}
    assert found.pop((0, 2)) == 1.0
    assert set(found.values()) == {0.0}
    assert walsh_coefficient(1 - answers, ALL, (0, 2)) == -1.0
    assert largest_coefficient(answers, ALL) == ((0, 2), 1.0)
    assert largest_coefficient(answers, ALL, besides=(2, 0))[1] == 0.0


def subsets(size: int) -> list[tuple[int, ...]]:
    return list(itertools.combinations(range(3), size))


def test_the_majority_of_three_bits_is_half_each_bit_and_minus_half_their_parity() -> None:
    assert [walsh_coefficient(MAJORITY, ALL, subset) for subset in subsets(1)] == [0.5, 0.5, 0.5]
    assert [walsh_coefficient(MAJORITY, ALL, subset) for subset in subsets(2)] == [0.0, 0.0, 0.0]
    assert walsh_coefficient(MAJORITY, ALL, (0, 1, 2)) == -0.5
    assert influences(lambda x: (x.sum(1) >= 2).long(), ALL).tolist() == [0.5, 0.5, 0.5]


def test_a_constant_answer_is_the_parity_of_no_bit_and_no_bit_changes_it() -> None:
    always = torch.zeros(8, dtype=torch.int64)
    assert largest_coefficient(always, ALL) == ((), 1.0)
    assert largest_coefficient(always, ALL, besides=())[1] == 0.0
    assert influences(lambda x: torch.zeros(len(x), dtype=torch.int64), ALL).tolist() == [0.0, 0.0, 0.0]


@pytest.mark.parametrize("degree", [1, 2, 3])
def test_only_subsets_up_to_the_degree_are_looked_at(degree: int) -> None:
    inputs = bit_strings(4)
    answers = inputs[:, :3].sum(1) % 2
    assert largest_coefficient(answers, inputs, degree=degree)[1] == (1.0 if degree == 3 else 0.0)


@settings(max_examples=20)
@given(st.lists(st.integers(0, 1), min_size=16, max_size=16))
def test_squares_add_up_to_one_and_weighted_by_size_to_the_sensitivity(table: list[int]) -> None:
    inputs, answers = bit_strings(4), torch.tensor(table)
    every = [subset for size in range(5) for subset in itertools.combinations(range(4), size)]
    squares = {subset: walsh_coefficient(answers, inputs, subset) ** 2 for subset in every}
    assert sum(squares.values()) == pytest.approx(1.0)
    weights = 2 ** torch.arange(4)
    sensitivity = influences(lambda x: answers[(x * weights).sum(1)], inputs).sum()
    assert float(sensitivity) == pytest.approx(sum(len(subset) * square for subset, square in squares.items()))
    subset, value = largest_coefficient(answers, inputs, degree=4)
    assert value**2 == pytest.approx(max(squares.values()), abs=1e-6)
    assert value == pytest.approx(walsh_coefficient(answers, inputs, subset), abs=1e-6)


def test_the_largest_coefficient_of_random_answers_is_what_chance_leaves() -> None:
    inputs = bit_strings(20, 2_000, seed=3)
    answers = torch.randint(0, 2, (2_000,), generator=torch.Generator().manual_seed(0))
    m = sum(math.comb(20, size) for size in range(4))
    value = largest_coefficient(answers, inputs)[1]
    assert abs(value) == pytest.approx(math.sqrt(2 * math.log(m) / 2_000), rel=0.3)
